//! An agent's durable home: seeded from the image once, its programs renewed with the image, credentials handed over or taken away as
//! the mode says. Absent: what the agents' configuration files say.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use super::{Setup, edit_json, unless_read_only, warn};
use crate::file;
use crate::launch::{Agent, AuthMode};
use crate::provider::CODEX_PROFILE;

/// Where one agent keeps things below the home directory.
struct Layout {
    slug: &'static str,
    /// Kept by the host across containers, seeded from the image.
    homes: &'static [&'static str],
    /// Programs inside a durable home: the image's are newer after an upgrade.
    programs: Option<&'static str>,
    handed: &'static [Handed],
    /// With one of these set the agent asks for no login; in the mode `api_key` it is to be the first.
    keys: &'static [&'static str],
}

/// Something the host hands over: where below `/jackin`, and its place below the home.
struct Handed {
    from: &'static str,
    to: &'static str,
    what: What,
}

#[derive(PartialEq)]
enum What {
    /// Proves who the operator is: there in the mode `sync` alone.
    Credential,
    /// Settings without which the credential is of no use.
    Settings,
    /// Claude's account file: who the operator is, and much that the agent writes itself.
    Account,
}

const fn credential(from: &'static str, to: &'static str) -> Handed {
    Handed { from, to, what: What::Credential }
}

const LAYOUTS: [Layout; 6] = [
    Layout {
        slug: "claude",
        homes: &[".claude"],
        programs: None,
        handed: &[
            credential("claude/credentials.json", ".claude/.credentials.json"),
            Handed { from: "claude/account.json", to: ".claude.json", what: What::Account },
        ],
        // A provider's session has its key under the second name.
        keys: &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"],
    },
    Layout {
        slug: "codex",
        homes: &[".codex"],
        programs: None,
        handed: &[credential("codex/auth.json", ".codex/auth.json")],
        // A profile brings a provider with a key of its own.
        keys: &["OPENAI_API_KEY", CODEX_PROFILE],
    },
    Layout {
        slug: "amp",
        homes: &[".local/share/amp", ".config/amp"],
        programs: None,
        handed: &[credential("amp/secrets.json", ".local/share/amp/secrets.json")],
        keys: &["AMP_API_KEY"],
    },
    Layout {
        slug: "kimi",
        homes: &[".kimi-code"],
        programs: Some(".kimi-code/bin"),
        handed: &[
            Handed { from: "kimi-code/config.toml", to: ".kimi-code/config.toml", what: What::Settings },
            Handed { from: "kimi-code/device_id", to: ".kimi-code/device_id", what: What::Settings },
            credential("kimi-code/credentials", ".kimi-code/credentials"),
        ],
        keys: &["KIMI_API_KEY"],
    },
    Layout {
        slug: "opencode",
        homes: &[".local/share/opencode", ".config/opencode"],
        programs: None,
        handed: &[credential("opencode/auth.json", ".local/share/opencode/auth.json")],
        keys: &["OPENCODE_API_KEY", "ANTHROPIC_API_KEY", "ZAI_API_KEY", "MINIMAX_API_KEY", "KIMI_CODE_API_KEY"],
    },
    Layout {
        slug: "grok",
        homes: &[".grok"],
        programs: Some(".grok/bin"),
        handed: &[credential("grok/auth.json", ".grok/auth.json")],
        keys: &["XAI_API_KEY", "GROK_DEPLOYMENT_KEY"],
    },
];

/// Who is logged in, of all that Claude's account file holds.
const IDENTITY: [&str; 3] = ["oauthAccount", "userID", "hasCompletedOnboarding"];

impl Setup {
    pub(super) fn prepare_home(&self, agent: &str, mode: Option<AuthMode>) -> io::Result<()> {
        let Some(layout) = LAYOUTS.iter().find(|layout| layout.slug == agent) else {
            return Ok(());
        };
        self.seed(layout)?;
        self.renew_programs(layout)?;
        match mode {
            Some(mode) => self.hand_over(layout, mode),
            None => Ok(()),
        }
    }

    /// Once per instance, file by file without overwriting: the host may have put a file there already, which says
    /// nothing about the rest. A credential that slipped into the image stays there.
    fn seed(&self, layout: &Layout) -> io::Result<()> {
        let marker = self.state.join("seeded").join(layout.slug);
        if marker.exists() {
            return Ok(());
        }
        let image = self.root.join("default-home");
        let credentials: Vec<_> =
            layout.handed.iter().filter(|handed| handed.what == What::Credential).map(|handed| image.join(handed.to)).collect();
        for dir in layout.homes {
            copy_missing(&image.join(dir), &self.home.join(dir), &|path| credentials.iter().any(|credential| credential == path))?;
        }
        file::write(&marker, b"", file::PRIVATE)
    }

    fn renew_programs(&self, layout: &Layout) -> io::Result<()> {
        let Some(programs) = layout.programs else {
            return Ok(());
        };
        let (image, home) = (self.root.join("default-home").join(programs), self.home.join(programs));
        for entry in fs::read_dir(&image).into_iter().flatten() {
            let entry = entry?;
            renew_program(&entry.path(), &home.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn hand_over(&self, layout: &Layout, mode: AuthMode) -> io::Result<()> {
        let mut logged_in = false;
        for Handed { from, to, what } in layout.handed {
            let (from, to) = (self.root.join(from), self.relocated(layout.slug, to));
            match (what, mode) {
                (What::Credential, AuthMode::Sync) => {
                    synchronize(&from, &to)?;
                    logged_in |= holds_something(&to);
                }
                (What::Credential, AuthMode::ApiKey | AuthMode::OauthToken | AuthMode::Ignore) => remove(&to)?,
                (What::Settings, AuthMode::Sync) => synchronize(&from, &to)?,
                (What::Account, AuthMode::Sync | AuthMode::OauthToken) => unless_read_only(hand_over_account(&from, &to))?,
                (What::Settings | What::Account, _) => {}
            }
        }
        let label = Agent::of(layout.slug).map_or(layout.slug, |agent| agent.label);
        let no_key = layout.keys.iter().all(|key| self.var(key).is_none());
        let missing = match mode {
            AuthMode::Sync if no_key && !logged_in => "the host handed over no login".to_owned(),
            AuthMode::ApiKey if no_key => format!("{} is not set", layout.keys[0]),
            AuthMode::OauthToken if self.var("CLAUDE_CODE_OAUTH_TOKEN").is_none() => "CLAUDE_CODE_OAUTH_TOKEN is not set".to_owned(),
            _ => return Ok(()),
        };
        warn(&format!("{missing}; {label} will ask for a login"));
        Ok(())
    }
}

fn holds_something(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// The agent writes this file all the time, and the image may bring one: the host's brings who is logged in, where nobody is or since
/// somebody else is.
fn hand_over_account(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(source) = fs::metadata(from) else {
        return Ok(());
    };
    let Ok(have) = fs::metadata(to) else {
        return synchronize(from, to);
    };
    let Ok(Value::Object(account)) = serde_json::from_slice(&fs::read(from).map_err(|error| file::named(from, &error))?) else {
        return Ok(());
    };
    let renewed = is_later(&source, &have);
    edit_json(to, |ours| {
        for name in IDENTITY {
            if let Some(value) = account.get(name)
                && (renewed || !ours.contains_key(name))
            {
                ours.insert(name.to_owned(), value.clone());
            }
        }
        Ok(())
    })
}

/// Copies when the home has none, or an older one: the host's was renewed. An agent that renewed its own keeps it.
fn synchronize(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(source) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if source.is_dir() {
        for entry in fs::read_dir(from).map_err(|error| file::named(from, &error))? {
            let entry = entry?;
            synchronize(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    // Links and sockets are nothing that the host hands over.
    if source.is_file() && is_newer(from, to)? { file::copy(from, to, file::PRIVATE) } else { Ok(()) }
}

fn is_newer(from: &Path, to: &Path) -> io::Result<bool> {
    let source = fs::metadata(from).map_err(|error| file::named(from, &error))?;
    match fs::symlink_metadata(to) {
        Ok(have) if have.is_symlink() => {
            Err(io::Error::other(format!("{} is a symbolic link; credentials are not written through it", to.display())))
        }
        Ok(have) => Ok(is_later(&source, &have)),
        Err(_) => Ok(true),
    }
}

fn is_later(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.mtime(), one.mtime_nsec()) > (other.mtime(), other.mtime_nsec())
}

/// The directory stays, because it may be a mount point; only what is in it goes.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::read_dir(path).and_then(|mut entries| entries.try_for_each(|entry| remove_whole(&entry?.path()))),
        Ok(_) => match fs::remove_file(path) {
            // Mounted on its own: it cannot go, but what it says can.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => fs::write(path, ""),
            other => other,
        },
    };
    removed.map_err(|error| file::named(path, &error))
}

fn remove_whole(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn copy_missing(from: &Path, to: &Path, left_out: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    let Ok(source) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if left_out(from) {
        return Ok(());
    }
    if source.is_dir() {
        file::make_dir(to)?;
        for entry in fs::read_dir(from).map_err(|error| file::named(from, &error))? {
            let entry = entry?;
            copy_missing(&entry.path(), &to.join(entry.file_name()), left_out)?;
        }
        return Ok(());
    }
    if fs::symlink_metadata(to).is_ok() {
        return Ok(());
    }
    if source.is_symlink() {
        return symlink(fs::read_link(from)?, to).map_err(|error| file::named(to, &error));
    }
    // A fifo would keep us for ever.
    if source.is_file() { file::copy(from, to, source.permissions().mode() & 0o777) } else { Ok(()) }
}

fn renew_program(image: &Path, home: &Path) -> io::Result<()> {
    let source = fs::metadata(image).map_err(|error| file::named(image, &error))?;
    let same = fs::metadata(home).is_ok_and(|have| have.len() == source.len() && have.mtime() >= source.mtime());
    if !source.is_file() || same {
        return Ok(());
    }
    // Renamed into place: another session may be running the old one.
    file::copy(image, home, source.permissions().mode() & 0o777)
}
