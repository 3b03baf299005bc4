//! Where everything of this user lies.
//!
//! In: `HOME`, `JACKIN_CONFIG_DIR`, `JACKIN_HOME_DIR`. Out: absolute UTF-8 paths, and a check that a folder is usable.
//! Absent: creating anything, except through `ensure_dir`, which callers use when they are about to write.

use super::failure::io_failed;
use crate::config::role_key::RoleKey;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::facts::shorten;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub home: PathBuf,
    pub config_dir: PathBuf,
    pub jackin_home: PathBuf,
}

impl Paths {
    /// Reports every unusable variable, not just the first.
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Paths, Diagnostics> {
        // An empty value is how scripts and compose files say "not set".
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let mut wrong = Vec::new();
        let mut dir = |name: &str, default: Option<PathBuf>| match set(name) {
            Some(value) => absolute(name, value).map_err(|d| wrong.push(d)).ok(),
            None => default,
        };
        let home = dir("HOME", None);
        let config_dir = dir("JACKIN_CONFIG_DIR", home.as_ref().map(|home| home.join(".config/jackin")));
        let jackin_home = dir("JACKIN_HOME_DIR", home.as_ref().map(|home| home.join(".jackin")));
        if home.is_none() && wrong.iter().all(|d| !d.detail.starts_with("HOME ")) {
            let unset = Diagnostic::error("paths.no_home", "No home folder", "the environment variable HOME is not set");
            wrong.insert(0, unset.help("set HOME to an absolute path, such as `HOME=/root`"));
        }
        match (home, config_dir, jackin_home) {
            (Some(home), Some(config_dir), Some(jackin_home)) if wrong.is_empty() => Ok(Paths { home, config_dir, jackin_home }),
            _ => Err(Diagnostics(wrong)),
        }
    }

    /// Are the folders that exist folders, and may they be read? What does not exist yet is fine.
    pub fn check(&self) -> Result<(), Diagnostics> {
        let wrong: Vec<_> = [&self.home, &self.config_dir, &self.jackin_home].into_iter().filter_map(|dir| check_dir(dir).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Diagnostics(wrong)) }
    }

    pub fn shorten(&self, path: &Path) -> String {
        shorten(&self.home.to_string_lossy(), &path.to_string_lossy())
    }

    /// `~` and `~/…` with the home put in; anything else as it is.
    pub fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
        }
    }

    pub fn config_file(&self) -> PathBuf {
        self.config_dir.join("config.toml")
    }
    pub fn workspaces(&self) -> PathBuf {
        self.config_dir.join("workspaces")
    }
    pub fn config_lock(&self) -> PathBuf {
        self.config_dir.join("config.lock")
    }
    pub fn roles(&self) -> PathBuf {
        self.jackin_home.join("roles")
    }
    pub fn data(&self) -> PathBuf {
        self.jackin_home.join("data")
    }
    pub fn cache(&self) -> PathBuf {
        self.jackin_home.join("cache")
    }
    pub fn sockets(&self) -> PathBuf {
        self.jackin_home.join("sockets")
    }
    pub fn run(&self) -> PathBuf {
        self.jackin_home.join("run")
    }
    pub fn extrausers(&self) -> PathBuf {
        self.jackin_home.join("extrausers")
    }
    /// Journals: one `<run id>.jsonl` per run.
    pub fn runs(&self) -> PathBuf {
        self.data().join("diagnostics/runs")
    }
    pub fn installation(&self) -> PathBuf {
        self.data().join("installation")
    }
    pub fn digest_key(&self) -> PathBuf {
        self.data().join("digest.key")
    }
    pub fn file_digests(&self) -> PathBuf {
        self.cache().join("digests.json")
    }
    pub fn agent_binaries(&self) -> PathBuf {
        self.cache().join("agent-binaries")
    }
    pub fn capsule_binaries(&self) -> PathBuf {
        self.cache().join("jackin-capsule")
    }
    /// What vendors said of their newest releases.
    pub fn releases(&self) -> PathBuf {
        self.cache().join("releases")
    }
    /// What engines said they are.
    pub fn engines(&self) -> PathBuf {
        self.cache().join("engines")
    }
    /// State folder of an instance, by the base name of its container.
    pub fn instance(&self, container: &str) -> PathBuf {
        self.data().join(container)
    }
    pub fn instance_socket_dir(&self, container: &str) -> PathBuf {
        self.sockets().join(container)
    }
    pub fn instance_lock(&self, container: &str) -> PathBuf {
        self.data().join(format!("{container}.lock"))
    }
    /// Held by whoever fills the pool of kept sidecars.
    pub fn pool_lock(&self) -> PathBuf {
        self.data().join("prewarm-dind-adoption.lock")
    }
    /// Held by whoever makes, adopts or removes a kept set.
    pub fn kept_lock(&self, id: &str) -> PathBuf {
        self.data().join(format!("prewarm-dind-adoption.locks/{id}.lock"))
    }
    pub fn index(&self) -> PathBuf {
        self.data().join("instances.json")
    }
    /// Folder of a role in the cache; the clone is `default` in it.
    pub fn role_dir(&self, key: &RoleKey) -> PathBuf {
        self.roles().join(key.cache_folder())
    }
    pub fn role_cache(&self, key: &RoleKey) -> PathBuf {
        self.role_dir(key).join("default")
    }
    /// The one lock of a role's clone, whoever touches it. The original had a second one for registering, so that a load and a
    /// registration ran git in the same folder at once.
    pub fn role_lock(&self, key: &RoleKey) -> PathBuf {
        self.data().join(format!("{}.locks/default.repo.lock", key.slug()))
    }
}

fn absolute(name: &str, value: OsString) -> Result<PathBuf, Diagnostic> {
    let Ok(text) = value.into_string() else {
        return Err(Diagnostic::error("paths.not_utf8", "Path is not UTF-8", format!("{name} holds bytes that are not UTF-8"))
            .help("jackin writes paths into TOML and JSON, so they must be UTF-8"));
    };
    let path = PathBuf::from(&text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Diagnostic::error("paths.not_absolute", "Path is not absolute", format!("{name} is `{text}`"))
            .help(format!("set {name} to a path that starts with `/` and has no `..`; a shell expands `~` only outside quotes")));
    }
    // Drops a trailing slash and `.` parts, so that equal folders are equal strings.
    Ok(path.components().collect())
}

fn check_dir(dir: &Path) -> Result<(), Diagnostic> {
    match fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_failed("read the folder", dir, &error)),
    }
}

/// Makes a folder and those above it; `mode` is given to every one that is made, and only to those.
pub fn ensure_dir(dir: &Path, mode: u32) -> Result<(), Diagnostic> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(|error| io_failed("create the folder", dir, &error))
}

/// The folder the command was started in.
pub fn current_dir() -> Result<String, Diagnostic> {
    let dir = std::env::current_dir().map_err(|error| {
        Diagnostic::error("paths.no_cwd", "No current folder", format!("the folder jackin was started in cannot be read: {error}"))
            .help("change to a folder that exists")
    })?;
    dir.into_os_string().into_string().map_err(|dir| {
        Diagnostic::error("paths.not_utf8", "Path is not UTF-8", format!("the current folder is {}", dir.to_string_lossy()))
            .help("jackin writes paths into TOML and JSON, so they must be UTF-8")
    })
}
