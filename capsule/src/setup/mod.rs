//! `runtime-setup`: run by the entrypoint before each agent. Environment, hand-off files and the image's default home in; git
//! configuration, durable home, credentials and the agents' own configuration files out. Every step may run again and then changes
//! nothing; panes that start at once wait for each other, and all for the container's Docker. Absent: the agents' arguments and
//! hooks, which are the entrypoint's.

mod claude;
mod codex;
mod docker;
mod git;
mod home;
mod opencode;
mod program;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::file;
use crate::launch::{AuthMode, LaunchConfig};
use crate::paths::{Paths, switched_on};
use crate::status_hooks;

/// Of an agent with its Docker. On a busy machine a daemon takes some ten seconds; one that hangs must not keep the agent for good.
const DOCKER_PATIENCE: Duration = Duration::from_secs(60);

// No Debug: the environment holds secrets.
struct Setup {
    /// `/jackin`, or a stand-in.
    root: PathBuf,
    state: PathBuf,
    home: PathBuf,
    launch_config: PathBuf,
    /// What is mounted here, as the kernel says it.
    mounts: String,
    env: BTreeMap<String, String>,
}

/// The exit code: a failure keeps the agent from starting half prepared.
pub fn run() -> i32 {
    let env: BTreeMap<_, _> = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let paths = Paths::from_env();
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let Some(home) = set("HOME").map(PathBuf::from) else {
        eprintln!("jackin: HOME is not set");
        return 1;
    };
    let setup = Setup {
        root: PathBuf::from(set("JACKIN_ROOT").map_or("/jackin", String::as_str)),
        state: paths.state.clone(),
        home,
        launch_config: paths.launch_config(),
        mounts: fs::read_to_string(set("JACKIN_MOUNTINFO").map_or("/proc/self/mountinfo", String::as_str)).unwrap_or_default(),
        env,
    };
    let what = setup.var("JACKIN_AGENT").unwrap_or("the agent");
    let docker = setup.await_docker();
    if let Err(error) = setup.prepare() {
        eprintln!("jackin: {what} is not started, its home could not be prepared: {error}");
        return 1;
    }
    if docker.is_some_and(|answers| !answers.join().unwrap_or(false)) {
        let seconds = DOCKER_PATIENCE.as_secs();
        warn(&format!("the container's Docker did not answer within {seconds} s; {what} starts without it. `docker version` says why"));
    }
    0
}

/// Runs the role's hook unless it has run to its end in this instance. Panes that start at once wait for the one that runs it.
pub fn run_once(hook: &Path) -> i32 {
    let state = Paths::from_env().state.join("hooks");
    let done = state.join("setup-once.done");
    let run = || -> io::Result<i32> {
        let _lock = lock(&state.join("setup-once.lock"), "another session runs the setup-once hook; waiting for it")?;
        if done.exists() {
            return Ok(0);
        }
        let executable = fs::metadata(hook)?.permissions().mode() & 0o111 != 0;
        let status = if executable { Command::new(hook).status()? } else { Command::new("sh").arg(hook).status()? };
        if status.success() {
            file::write(&done, b"", file::PRIVATE)?;
        }
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    };
    run().unwrap_or_else(|error| {
        eprintln!("jackin: {}: {error}", hook.display());
        1
    })
}

/// Held until dropped.
fn lock(path: &Path, waiting: &str) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        file::make_dir(dir)?;
    }
    let failed = |error: io::Error| file::named(path, &error);
    let lock = File::options().create(true).append(true).open(path).map_err(failed)?;
    if lock.try_lock().is_err() {
        eprintln!("jackin: {waiting}");
        lock.lock().map_err(failed)?;
    }
    Ok(lock)
}

/// Things that are wrong but no reason to start without the agent.
fn warn(text: &str) {
    eprintln!("jackin: {text}");
}

impl Setup {
    fn prepare(&self) -> io::Result<()> {
        let _lock = lock(&self.state.join("setup.lock"), "another session is being prepared; waiting for it")?;
        self.configure_git();
        let Some(agent) = self.var("JACKIN_AGENT") else {
            return Ok(());
        };
        let mode = match self.var("JACKIN_AUTH_MODE") {
            None => None,
            Some(mode) => Some(AuthMode::parse(mode).ok_or_else(|| io::Error::other(format!("unknown JACKIN_AUTH_MODE {mode:?}")))?),
        };
        // Seeded before anything is written into it: a home that holds a file already is no reason to leave out the rest.
        self.prepare_home(agent, mode)?;
        match agent {
            "claude" => unless_read_only(self.configure_claude())?,
            "codex" => self.configure_codex()?,
            "opencode" => self.configure_opencode()?,
            _ => {}
        }
        // An agent that does not report can still be watched.
        let runtime = self.var("JACKIN_RUNTIME_DIR").unwrap_or("/jackin/runtime");
        match status_hooks::install(agent, &self.home, Path::new(runtime)) {
            Ok(warnings) => warnings.iter().for_each(|warning| warn(warning)),
            Err(error) => warn(&format!("{agent} will not report what it does: {error}")),
        }
        Ok(())
    }

    /// The role's hooks and the agent find the private Docker at work. It comes up beside this container, and neither waits for the other.
    fn await_docker(&self) -> Option<JoinHandle<bool>> {
        self.var("JACKIN_AGENT").and(self.var("JACKIN_DIND_HOSTNAME"))?;
        let certificates = PathBuf::from(self.var("DOCKER_CERT_PATH")?);
        let command = program::find("docker", self.var("PATH")?)?;
        Some(thread::spawn(move || docker::answers_within(DOCKER_PATIENCE, &command, &certificates)))
    }

    /// A variable that is set to something.
    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is_on(&self, name: &str) -> bool {
        self.var(name).is_some_and(switched_on)
    }

    /// Side commands can do without; PID 1 is the one to refuse it.
    fn launch_config(&self) -> Option<LaunchConfig> {
        let text = fs::read_to_string(&self.launch_config).ok()?;
        LaunchConfig::parse(&text).inspect_err(|error| warn(&error.to_string())).ok()
    }

    /// Agents that were told to keep their files elsewhere find them there.
    fn relocated(&self, agent: &str, path: &str) -> PathBuf {
        let moved = |variable: &str, prefix: &str| Some(PathBuf::from(self.var(variable)?).join(path.strip_prefix(prefix)?));
        match agent {
            // `.claude.json` lies beside the usual folder, but inside one that was named.
            "claude" if path == ".claude.json" => self.var("CLAUDE_CONFIG_DIR").map(|dir| Path::new(dir).join(path)),
            "claude" => moved("CLAUDE_CONFIG_DIR", ".claude/"),
            "codex" => moved("CODEX_HOME", ".codex/"),
            "opencode" if path.starts_with(".config/") => moved("XDG_CONFIG_HOME", ".config/"),
            "amp" | "opencode" => moved("XDG_DATA_HOME", ".local/share/"),
            _ => None,
        }
        .unwrap_or_else(|| self.home.join(path))
    }
}

/// Changes an agent's JSON file and writes it when that made a difference. What is there and cannot be understood belongs to
/// somebody: it stays, with a warning.
fn edit_json(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> Result<(), String>) -> io::Result<()> {
    let (bytes, mode) = existing(path)?;
    let before: Map<String, Value> = match serde_json::from_slice(if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes }) {
        Ok(Value::Object(map)) => map,
        Ok(_) => return left_alone(path, "it is no JSON object"),
        Err(error) => return left_alone(path, &format!("it is not JSON (line {}, column {})", error.line(), error.column())),
    };
    let mut after = before.clone();
    if let Err(reason) = change(&mut after) {
        return left_alone(path, &reason);
    }
    if after == before {
        return Ok(());
    }
    let json = serde_json::to_string_pretty(&after)? + "\n";
    file::write(&target(path), json.as_bytes(), mode)
}

/// Claude's account file lies in the home itself, which a container with a read-only root cannot write. Claude runs without.
fn unless_read_only(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            warn(&error.to_string());
            Ok(())
        }
        other => other,
    }
}

fn left_alone(path: &Path, reason: &str) -> io::Result<()> {
    warn(&format!("{} is left as it is: {reason}", path.display()));
    Ok(())
}

/// The content and the permissions; those of a private file when there is none yet.
fn existing(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    match fs::read(path) {
        Ok(bytes) => Ok((bytes, fs::metadata(path)?.permissions().mode() & 0o777)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), file::PRIVATE)),
        Err(error) => Err(file::named(path, &error)),
    }
}

/// Somebody's link to a file elsewhere stays a link.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_home_is_no_failure() {
        let refused = |kind| file::named(Path::new("/home/agent/.claude.json"), &io::Error::from(kind));
        assert!(unless_read_only(Err(refused(io::ErrorKind::ReadOnlyFilesystem))).is_ok());
        assert!(unless_read_only(Err(refused(io::ErrorKind::PermissionDenied))).is_err());
    }
}
