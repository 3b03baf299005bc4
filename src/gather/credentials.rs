//! Credential files on the host that `sync` hands to an agent.
//!
//! In: an agent, the home, the folder its policy names. Out: which host file goes to which place in an instance's state folder, and
//! keyed digests of their contents. Absent: copying (the provider does it, with `read`), modes other than `sync`.

use super::digest::KeyedDigest;
use super::failure::io_failed;
use super::program;
use crate::config::Agent;
use crate::diagnostic::Diagnostic;
use crate::facts::CredentialFact;
use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Far beyond any of them; keeps a wrong `sync_source_dir` from filling the memory.
const SIZE_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Relative to the instance's state folder: `claude/credentials.json`.
    pub to: String,
    pub from: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// An entry of the macOS Keychain.
    Keychain {
        service: String,
    },
}

/// Every file of the agent that exists. A source folder that was asked for must exist and be complete; the default one may lack
/// anything, for then the agent asks for a login.
pub fn handoff_files(agent: Agent, home: &Path, sync_source_dir: Option<&Path>) -> Result<Vec<Handoff>, Diagnostic> {
    let dir = sync_source_dir.map_or_else(|| default_dir(agent, home), Path::to_owned);
    if let Some(dir) = sync_source_dir {
        check_source(agent, dir)?;
    }
    let mut files = Vec::new();
    let mut add = |to: &str, from: PathBuf| -> Result<bool, Diagnostic> {
        let there = is_plain_file(&from)?;
        if there {
            files.push(Handoff { to: to.to_owned(), from: Source::File(from) });
        }
        Ok(there)
    };
    match agent {
        Agent::Claude => {
            // Claude keeps the account beside its default folder, but inside one it was told to use.
            let account = if sync_source_dir.is_some() { dir.join(".claude.json") } else { home.join(".claude.json") };
            add("claude/account.json", account)?;
            if !add("claude/credentials.json", dir.join(".credentials.json"))? && cfg!(target_os = "macos") {
                let service = keychain_service(sync_source_dir);
                files.push(Handoff { to: "claude/credentials.json".to_owned(), from: Source::Keychain { service } });
            }
        }
        Agent::Codex | Agent::Opencode | Agent::Grok => {
            add(&format!("{agent}/auth.json"), dir.join("auth.json"))?;
        }
        Agent::Amp => {
            add("amp/secrets.json", dir.join("secrets.json"))?;
        }
        Agent::Kimi => {
            add("kimi-code/config.toml", dir.join("config.toml"))?;
            add("kimi-code/device_id", dir.join("device_id"))?;
            refuse_symlink(&dir.join("credentials"))?;
            for (name, path) in files_below(&dir.join("credentials"))? {
                files.push(Handoff { to: format!("kimi-code/credentials/{name}"), from: Source::File(path) });
            }
        }
    }
    files.sort_by(|a, b| a.to.cmp(&b.to));
    Ok(files)
}

/// `None` when the host has nothing to hand over.
pub async fn credential_fact(
    agent: Agent,
    home: &Path,
    sync_source_dir: Option<&Path>,
    digest: &KeyedDigest,
) -> Result<Option<CredentialFact>, Diagnostic> {
    let mut files = BTreeMap::new();
    for handoff in handoff_files(agent, home, sync_source_dir)? {
        if let Some(bytes) = read(&handoff.from).await? {
            let identity = if handoff.to == "claude/account.json" { account_identity(&bytes) } else { None };
            let value = identity.as_ref().unwrap_or(&bytes);
            files.insert(handoff.to, digest.of(value));
        }
    }
    let source = sync_source_dir.map_or_else(|| default_dir(agent, home), Path::to_owned);
    Ok((!files.is_empty()).then(|| CredentialFact { source: source.to_string_lossy().into_owned(), files }))
}

/// The content, wiped from memory when dropped; `None` when it is gone or the Keychain has no such entry.
pub async fn read(source: &Source) -> Result<Option<Zeroizing<Vec<u8>>>, Diagnostic> {
    match source {
        Source::File(path) => read_file(path),
        Source::Keychain { service } => {
            let mut security = Command::new("security");
            security.args(["find-generic-password", "-s", service, "-w"]).stdin(std::process::Stdio::null());
            let found = program::output(&mut security, Some(Duration::from_secs(15))).await;
            Ok(found.ok().map(|mut bytes| {
                bytes.truncate(bytes.trim_ascii_end().len());
                Zeroizing::new(bytes)
            }))
        }
    }
}

fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Diagnostic> {
    // Opened without following: the look at it before may be outdated.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(is_symlink(path));
        }
        Err(error) => return Err(io_failed("read", path, &error)),
    };
    let failed = |error| io_failed("read", path, &error);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() || found.len() > SIZE_MAX {
        return Err(Diagnostic::error(
            "credential.not_a_file",
            "Credential is not a file",
            format!("{} is no regular file of less than 64 MiB", path.display()),
        )
        .help("check `sync_source_dir`, or set `auth_forward = \"ignore\"` for this agent"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
    file.take(SIZE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Claude rewrites its account file at every start (counters, tips seen, project history). Only who is logged in makes a difference
/// to an instance, so only that is digested; otherwise every use of Claude on the host would change every plan.
fn account_identity(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let account: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let parts: Vec<_> = ["oauthAccount", "userID", "hasCompletedOnboarding"].iter().map(|name| account.get(name)).collect();
    serde_json::to_vec(&parts).ok().map(Zeroizing::new)
}

fn default_dir(agent: Agent, home: &Path) -> PathBuf {
    home.join(match agent {
        Agent::Claude => ".claude",
        Agent::Codex => ".codex",
        Agent::Amp => ".local/share/amp",
        Agent::Kimi => ".kimi-code",
        Agent::Opencode => ".local/share/opencode",
        Agent::Grok => ".grok",
    })
}

fn check_source(agent: Agent, dir: &Path) -> Result<(), Diagnostic> {
    let needed: &[&str] = match agent {
        // On macOS the credentials may be in the Keychain.
        Agent::Claude if cfg!(target_os = "macos") => &[],
        Agent::Claude => &[".credentials.json"],
        Agent::Codex | Agent::Opencode | Agent::Grok => &["auth.json"],
        Agent::Amp => &["secrets.json"],
        Agent::Kimi => &["config.toml", "credentials"],
    };
    let refused = |detail: String| {
        Err(Diagnostic::error("credential.source_incomplete", "Credential folder is incomplete", detail)
            .help(format!("log in with {agent} in that folder, or correct `sync_source_dir`")))
    };
    if !dir.is_dir() {
        return refused(format!("`sync_source_dir` of {agent} is {}, which is not a folder", dir.display()));
    }
    match needed.iter().find(|name| fs::symlink_metadata(dir.join(name)).is_err()) {
        Some(name) => refused(format!("`sync_source_dir` of {agent} is {}, which has no `{name}`", dir.display())),
        None => Ok(()),
    }
}

fn is_plain_file(path: &Path) -> Result<bool, Diagnostic> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(is_symlink(path)),
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(io_failed("read", path, &error)),
    }
}

fn refuse_symlink(path: &Path) -> Result<(), Diagnostic> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) { Err(is_symlink(path)) } else { Ok(()) }
}

fn is_symlink(path: &Path) -> Diagnostic {
    Diagnostic::error("credential.symlink", "Credential is a symlink", format!("{} is a symlink", path.display()))
        .help("symlinked credentials are not handed over; set `sync_source_dir` to the folder that holds the real file")
}

/// Regular files below a folder by relative path, sorted; symlinks are skipped.
fn files_below(dir: &Path) -> Result<BTreeMap<String, PathBuf>, Diagnostic> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), dir.to_owned())];
    while let Some((prefix, dir)) = open.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(io_failed("read the folder", &dir, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| io_failed("read the folder", &dir, &error))?;
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
                continue;
            };
            if kind.is_dir() {
                open.push((format!("{prefix}{name}/"), entry.path()));
            } else if kind.is_file() {
                found.insert(format!("{prefix}{name}"), entry.path());
            }
        }
    }
    Ok(found)
}

/// Claude's own naming: a folder other than the default one adds the start of its digest.
fn keychain_service(dir: Option<&Path>) -> String {
    const SERVICE: &str = "Claude Code-credentials";
    match dir {
        Some(dir) => format!("{SERVICE}-{}", &crate::resource::sha256_hex(dir.as_os_str().as_encoded_bytes())[..8]),
        None => SERVICE.to_owned(),
    }
}
