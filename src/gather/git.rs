//! The git program, made deaf to everything that could make it ask, run hooks or read another repository.
//!
//! In: arguments. Out: its output, or a message fit to be shown. Absent: role repos and checkouts as such.

use super::program::{self, Failure};
use super::role_url::redact;
use crate::aside;
use crate::diagnostic::Diagnostic;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Variables that tie git to a repository. They are set when jackin is started from a git hook or alias.
const LOCAL: [&str; 14] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_CONFIG",
    "GIT_ATTR_SOURCE",
    "GIT_REPLACE_REF_BASE",
    "GIT_INTERNAL_SUPER_PREFIX",
];

/// The operator's own settings stay in force (proxies, credential helpers, `insteadOf`); these few must not vary between hosts.
const SETTINGS: [&str; 11] = [
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.eol=lf",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    "tar.umask=0022",
    // A pack is synced to the disk, loose objects are not.
    "fetch.unpackLimit=1",
    // A line that went dead would hold the lock for as long as TCP cares.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// git without a terminal, speaking English.
pub fn command() -> Command {
    let mut command = Command::new("git");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env_remove("LANGUAGE");
    for name in LOCAL {
        command.env_remove(name);
    }
    if aside::current().is_some() {
        // ssh would ask on the terminal itself. Whichever ssh the operator has set, it takes an empty answer from this program instead.
        command.env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "false");
    }
    command
}

/// git in the clone at `cache`, whose folder is named rather than searched for: a broken clone inside some other repository must
/// not make git work on that one.
pub fn in_clone(cache: &Path) -> Command {
    let mut command = command();
    command.current_dir(cache).arg("--git-dir").arg(cache.join(".git")).arg("--work-tree").arg(cache).arg("--no-optional-locks");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
}

/// Adds one setting through the environment, where other users of the host cannot read it as they can an argument. Settings that
/// are there already stay: build servers hand over their tokens in this way.
pub fn secret_setting(command: &mut Command, name: &str, value: &str) {
    let count: usize = std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    command.env("GIT_CONFIG_COUNT", (count + 1).to_string());
    command.env(format!("GIT_CONFIG_KEY_{count}"), name).env(format!("GIT_CONFIG_VALUE_{count}"), value);
}

/// Why git said no: `Ok(message)`; or why it could not be asked at all.
pub fn refusal(failure: Failure) -> Result<String, Diagnostic> {
    match failure {
        Failure::Refused { message } => Ok(last_words(&message)),
        Failure::TimedOut => Ok("git took too long".to_owned()),
        Failure::Missing => Err(missing()),
        Failure::Io(error) => Err(Diagnostic::error("git.failed", "Cannot run git", error.to_string()).help("see the reason above")),
    }
}

pub fn missing() -> Diagnostic {
    Diagnostic::error("git.missing", "git is not installed", "no `git` program is on PATH")
        .help("install git; role repos and checkouts need it")
}

/// The end of what git wrote, without advice and credentials.
fn last_words(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:")).collect();
    let text = redact(&lines[lines.len().saturating_sub(4)..].join("; "));
    text.chars().filter(|c| !c.is_control()).take(600).collect()
}

/// `user.name` and `user.email` of the operator; empty when not set or when there is no git.
pub async fn identity() -> (String, String) {
    let mut command = command();
    command.args(["config", "--null", "--get-regexp", r"^user\.(name|email)$"]);
    let output = program::output(&mut command, None).await.unwrap_or_default();
    let (mut name, mut email) = (String::new(), String::new());
    for entry in String::from_utf8_lossy(&output).split('\0') {
        match entry.split_once('\n') {
            Some(("user.name", value)) => name = value.to_owned(),
            Some(("user.email", value)) => email = value.to_owned(),
            _ => {}
        }
    }
    (name, email)
}
