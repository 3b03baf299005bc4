//! `runtime-setup`: run by the entrypoint before each agent. Environment, hand-off files and the image's default home
//! in; git configuration, durable home and credentials out. Every step may run twice. Absent: the agents' own
//! configuration files and status hooks, which come with their issues.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::launch::AuthMode;
use crate::paths::{Paths, var};

/// Where one agent keeps things below the home directory.
struct Layout {
    slug: &'static str,
    /// Kept by the host across containers, seeded from the image.
    homes: &'static [&'static str],
    /// Programs inside a durable home: the image's are newer after an upgrade.
    programs: Option<&'static str>,
    /// Hand-off below `/jackin`, and its place below the home.
    credentials: &'static [(&'static str, &'static str)],
}

const LAYOUTS: [Layout; 6] = [
    Layout {
        slug: "claude",
        homes: &[".claude"],
        programs: None,
        credentials: &[("claude/credentials.json", ".claude/.credentials.json"), ("claude/account.json", ".claude.json")],
    },
    Layout { slug: "codex", homes: &[".codex"], programs: None, credentials: &[("codex/auth.json", ".codex/auth.json")] },
    Layout {
        slug: "amp",
        homes: &[".local/share/amp", ".config/amp"],
        programs: None,
        credentials: &[("amp/secrets.json", ".local/share/amp/secrets.json")],
    },
    Layout {
        slug: "kimi",
        homes: &[".kimi-code"],
        programs: Some(".kimi-code/bin"),
        credentials: &[
            ("kimi-code/config.toml", ".kimi-code/config.toml"),
            ("kimi-code/device_id", ".kimi-code/device_id"),
            ("kimi-code/credentials", ".kimi-code/credentials"),
        ],
    },
    Layout {
        slug: "opencode",
        homes: &[".local/share/opencode", ".config/opencode"],
        programs: None,
        credentials: &[("opencode/auth.json", ".local/share/opencode/auth.json")],
    },
    Layout { slug: "grok", homes: &[".grok"], programs: Some(".grok/bin"), credentials: &[("grok/auth.json", ".grok/auth.json")] },
];

struct Setup {
    /// `/jackin`, or a stand-in.
    root: PathBuf,
    state: PathBuf,
    home: PathBuf,
}

/// The exit code: a failure keeps the agent from starting half prepared.
pub fn run() -> i32 {
    let Some(home) = var("HOME").map(PathBuf::from) else {
        eprintln!("jackin: HOME is not set");
        return 1;
    };
    let setup =
        Setup { root: PathBuf::from(var("JACKIN_ROOT").unwrap_or_else(|| "/jackin".to_owned())), state: Paths::from_env().state, home };
    let (agent, mode) = (var("JACKIN_AGENT"), var("JACKIN_AUTH_MODE"));
    match setup.prepare(agent.as_deref(), mode.as_deref()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("jackin: the runtime could not be set up: {error}");
            1
        }
    }
}

impl Setup {
    fn prepare(&self, agent: Option<&str>, mode: Option<&str>) -> io::Result<()> {
        fs::create_dir_all(&self.state)?;
        self.configure_git();
        let Some(layout) = LAYOUTS.iter().find(|layout| Some(layout.slug) == agent) else {
            return Ok(());
        };
        self.seed_home(layout)?;
        match mode.map(|mode| AuthMode::parse(mode).ok_or(mode)) {
            None => Ok(()),
            Some(Ok(mode)) => self.hand_off(layout, mode),
            Some(Err(mode)) => Err(io::Error::other(format!("unknown JACKIN_AUTH_MODE {mode:?}"))),
        }
    }

    /// The marker lies in the very file it vouches for. A marker elsewhere outlives a re-created container, whose git
    /// would then never be configured.
    fn configure_git(&self) {
        const MARKER: &str = "jackin.initialized";
        let git = |args: &[&str]| {
            let output = Command::new("git").args(["config", "--global"]).args(args).env("HOME", &self.home).output();
            match output {
                Ok(output) => output.status.success().then_some(output.stdout),
                Err(_) => None,
            }
        };
        if git(&["--get", MARKER]).is_some() {
            return;
        }
        for (key, variable) in [("user.name", "GIT_AUTHOR_NAME"), ("user.email", "GIT_AUTHOR_EMAIL")] {
            if let Some(value) = var(variable) {
                git(&["--replace-all", key, &value]);
            }
        }
        for other in ["git@github.com:", "ssh://git@github.com/"] {
            let quoted = format!("^{}$", other.replace('.', "\\."));
            git(&["--replace-all", "url.https://github.com/.insteadOf", other, &quoted]);
        }
        if Command::new("gh").arg("--version").output().is_ok_and(|output| output.status.success()) {
            git(&["--replace-all", "credential.helper", "!gh auth git-credential"]);
        }
        if git(&["--replace-all", MARKER, "true"]).is_some() {
            // Only for those who look for it where it used to be.
            let _ = fs::write(self.state.join("container-init.done"), "");
        }
    }

    /// Once per instance, file by file without overwriting: the host may have put a file there already, which says
    /// nothing about the rest.
    fn seed_home(&self, layout: &Layout) -> io::Result<()> {
        let marker = self.state.join("seeded").join(layout.slug);
        if !marker.exists() {
            for dir in layout.homes {
                copy_missing(&self.root.join("default-home").join(dir), &self.home.join(dir))?;
            }
            fs::create_dir_all(self.state.join("seeded"))?;
            fs::write(&marker, "")?;
        }
        if let Some(programs) = layout.programs {
            let (image, home) = (self.root.join("default-home").join(programs), self.home.join(programs));
            for entry in fs::read_dir(&image).into_iter().flatten() {
                let entry = entry?;
                refresh_program(&entry.path(), &home.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    fn hand_off(&self, layout: &Layout, mode: AuthMode) -> io::Result<()> {
        for (from, to) in layout.credentials {
            let (from, to) = (self.root.join(from), self.relocated(layout.slug, to));
            // What says who the operator is, rather than proving it, is welcome in every mode and never removed.
            let secret = !to.ends_with(".claude.json") && !to.ends_with("config.toml") && !to.ends_with("device_id");
            match mode {
                AuthMode::Sync => synchronize(&from, &to)?,
                AuthMode::OauthToken if !secret => synchronize(&from, &to)?,
                AuthMode::ApiKey | AuthMode::OauthToken | AuthMode::Ignore if secret => remove(&to)?,
                AuthMode::ApiKey | AuthMode::OauthToken | AuthMode::Ignore => {}
            }
        }
        Ok(())
    }

    /// Agents that were told to keep their files elsewhere find them there.
    fn relocated(&self, slug: &str, path: &str) -> PathBuf {
        let moved = |variable: &str, prefix: &str| Some(PathBuf::from(var(variable)?).join(path.strip_prefix(prefix)?));
        match slug {
            "claude" => moved("CLAUDE_CONFIG_DIR", ".claude/")
                .or_else(|| (path == ".claude.json").then(|| Some(PathBuf::from(var("CLAUDE_CONFIG_DIR")?).join(path)))?),
            "codex" => moved("CODEX_HOME", ".codex/"),
            "amp" | "opencode" => moved("XDG_DATA_HOME", ".local/share/"),
            _ => None,
        }
        .unwrap_or_else(|| self.home.join(path))
    }
}

/// Copies when the home has none, or an older one: the host's was renewed. An agent that renewed its own keeps it.
fn synchronize(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(source) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if source.is_symlink() {
        return Ok(());
    }
    if source.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            synchronize(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Ok(existing) = fs::symlink_metadata(to) {
        if existing.is_symlink() {
            return Err(io::Error::other(format!("{} is a symbolic link; credentials are not written through it", to.display())));
        }
        if (existing.mtime(), existing.mtime_nsec()) >= (source.mtime(), source.mtime_nsec()) {
            return Ok(());
        }
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    // Whole or not at all, and never readable by others even for a moment.
    let partial = to.with_extension("jackin-new");
    let _ = fs::remove_file(&partial);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    io::copy(&mut fs::File::open(from)?, &mut file)?;
    file.sync_all()?;
    match fs::rename(&partial, to) {
        // A file that is itself a mount point can only be written in place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            fs::copy(from, to)?;
            fs::remove_file(&partial)
        }
        other => other,
    }
}

/// The directory stays, because it may be a mount point; only what is in it goes.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::read_dir(path)?.try_for_each(|entry| remove_whole(&entry?.path())),
        Ok(_) => fs::remove_file(path),
    }
}

fn remove_whole(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn copy_missing(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(source) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if source.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_missing(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if fs::symlink_metadata(to).is_ok() {
        return Ok(());
    }
    if source.is_symlink() { std::os::unix::fs::symlink(fs::read_link(from)?, to) } else { fs::copy(from, to).map(drop) }
}

fn refresh_program(image: &Path, home: &Path) -> io::Result<()> {
    let source = fs::metadata(image)?;
    let same = fs::metadata(home).is_ok_and(|have| have.len() == source.len() && have.mtime() >= source.mtime());
    if !source.is_file() || same {
        return Ok(());
    }
    if let Some(dir) = home.parent() {
        fs::create_dir_all(dir)?;
    }
    // Beside and renamed: another session may be running the old one.
    let partial = home.with_extension("jackin-new");
    fs::copy(image, &partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(source.permissions().mode()))?;
    fs::rename(&partial, home)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        setup: Setup,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let setup = Setup { root: path("jackin"), state: path("state"), home: path("home") };
        fs::create_dir_all(&setup.home).unwrap();
        World { setup, _dir: dir }
    }

    impl World {
        fn write(&self, path: &str, text: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn path(&self, path: &str) -> PathBuf {
            self._dir.path().join(path)
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.path(path)).ok()
        }

        fn make_older(&self, path: &str) {
            let file = fs::File::options().write(true).open(self.path(path)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        }

        fn prepare(&self, agent: &str, mode: &str) {
            self.setup.prepare(Some(agent), Some(mode)).unwrap();
        }
    }

    #[test]
    fn trap_a_file_written_first_does_not_keep_the_home_from_being_seeded() {
        let world = world();
        world.write("jackin/default-home/.codex/skills/a.md", "skill");
        world.write("jackin/default-home/.codex/config.toml", "image");
        world.write("home/.codex/config.toml", "host");
        world.prepare("codex", "ignore");
        assert_eq!(world.read("home/.codex/skills/a.md").as_deref(), Some("skill"));
        assert_eq!(world.read("home/.codex/config.toml").as_deref(), Some("host"));
        fs::remove_file(world.path("home/.codex/skills/a.md")).unwrap();
        world.prepare("codex", "ignore");
        assert_eq!(world.read("home/.codex/skills/a.md"), None, "what the agent removed stays removed");
    }

    #[test]
    fn trap_a_renewed_credential_reaches_an_existing_home_and_an_older_one_does_not() {
        let world = world();
        world.write("jackin/codex/auth.json", "one");
        world.prepare("codex", "sync");
        assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("one"));
        assert_eq!(fs::metadata(world.path("home/.codex/auth.json")).unwrap().mode() & 0o777, 0o600);
        world.make_older("home/.codex/auth.json");
        world.write("jackin/codex/auth.json", "two");
        world.prepare("codex", "sync");
        assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("two"));
        world.write("home/.codex/auth.json", "renewed by the agent");
        world.make_older("jackin/codex/auth.json");
        world.prepare("codex", "sync");
        assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("renewed by the agent"));
    }

    #[test]
    fn trap_kimi_without_sync_loses_its_credentials_and_nothing_else() {
        let world = world();
        for path in ["config.toml", "credentials/token", "bin/kimi", "history"] {
            world.write(&format!("home/.kimi-code/{path}"), "x");
        }
        world.prepare("kimi", "api_key");
        assert!(world.path("home/.kimi-code/credentials").is_dir());
        assert_eq!(world.read("home/.kimi-code/credentials/token"), None);
        for path in ["config.toml", "bin/kimi", "history"] {
            assert!(world.read(&format!("home/.kimi-code/{path}")).is_some(), "{path}");
        }
    }

    #[test]
    fn trap_an_oauth_token_keeps_the_onboarding_file() {
        let world = world();
        world.write("jackin/claude/account.json", "{\"hasCompletedOnboarding\":true}");
        world.write("home/.claude/.credentials.json", "old login");
        world.prepare("claude", "oauth_token");
        assert_eq!(world.read("home/.claude/.credentials.json"), None);
        assert!(world.read("home/.claude.json").unwrap().contains("hasCompletedOnboarding"));
    }

    #[test]
    fn trap_an_upgraded_image_brings_its_program() {
        let world = world();
        world.write("jackin/default-home/.grok/bin/grok", "v1");
        world.prepare("grok", "ignore");
        world.write("jackin/default-home/.grok/bin/grok", "version 2");
        world.prepare("grok", "ignore");
        assert_eq!(world.read("home/.grok/bin/grok").as_deref(), Some("version 2"));
    }

    #[test]
    fn trap_git_is_configured_in_a_container_made_anew() {
        let world = world();
        world.write("state/container-init.done", "");
        world.prepare("claude", "ignore");
        let config = world.read("home/.gitconfig").expect("git is needed for this test");
        assert_eq!(config.matches("insteadOf").count(), 2, "{config}");
        world.prepare("claude", "ignore");
        assert_eq!(world.read("home/.gitconfig").unwrap(), config);
    }

    #[test]
    fn credentials_do_not_go_through_symbolic_links() {
        let world = world();
        world.write("jackin/amp/secrets.json", "s");
        world.write("elsewhere", "untouched");
        fs::create_dir_all(world.path("home/.local/share/amp")).unwrap();
        std::os::unix::fs::symlink(world.path("elsewhere"), world.path("home/.local/share/amp/secrets.json")).unwrap();
        assert!(world.setup.prepare(Some("amp"), Some("sync")).is_err());
        assert_eq!(world.read("elsewhere").as_deref(), Some("untouched"));
    }

    #[test]
    fn an_unknown_mode_is_an_error() {
        assert!(world().setup.prepare(Some("claude"), Some("hope")).is_err());
    }
}
