//! Every outside fact but Docker's, as data: what `gather` found before anything was decided.
//!
//! In: nothing (it is filled by `gather`, or read from a case's `facts.toml`). Out: plain values for `graph/build.rs`.
//! Absent: credentials themselves; a fact about one is its keyed digest. Ordered maps only, so that equal facts give equal bytes.

use crate::config::Agent;
use crate::resource::{Download, InstanceRecord};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Absolute host paths are kept absolute here; `shorten` shows the home as `~`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// `$HOME`.
    pub home: String,
    /// `JACKIN_CONFIG_DIR` or `~/.config/jackin`.
    pub config_dir: String,
    /// `JACKIN_HOME_DIR` or `~/.jackin`.
    pub jackin_home: String,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    /// Of the engine; this host's, as long as none has told its own.
    pub arch: Arch,
    /// No engine has told `arch`, so no program is judged by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arch_assumed: bool,
    /// Random, made once per jackin home; scopes names and labels so that two homes can share an engine.
    pub installation: String,
    /// Random hex, fresh for every run; the only source of new instance ids.
    #[serde(default)]
    pub seed: String,
    /// Version of this jackin.
    pub version: String,
    /// `JACKIN_CONSTRUCT_IMAGE`, when set and well-formed.
    #[serde(default)]
    pub construct_image: Option<String>,
    /// `JACKIN_DIND_IMAGE`, when set and well-formed.
    #[serde(default)]
    pub dind_image: Option<String>,
    /// The capsule binary that would go into an image; `None` when there is none to be found.
    #[serde(default)]
    pub capsule_binary: Option<BinaryFact>,
    /// Agent binaries in the cache or given by `JACKIN_AGENT_BIN_<SLUG>`; an absent agent is installed by its vendor's script.
    #[serde(default)]
    pub agent_binaries: BTreeMap<Agent, BinaryFact>,
    /// What is known of each agent's newest release; an absent one was not asked for.
    #[serde(default)]
    pub agent_releases: BTreeMap<Agent, Lookup>,
    /// The release of this very version of the capsule, when there is no capsule binary.
    #[serde(default)]
    pub capsule_release: Option<Lookup>,
    /// Keyed digests of those host variables that the configuration names and that are set.
    #[serde(default)]
    pub host_env: BTreeMap<String, String>,
    /// Keyed digests of the literal env values of the configuration, by `<file>:<line>:<column>` of the value.
    #[serde(default)]
    pub literal_env: BTreeMap<String, String>,
    /// Variables passed through as they are (`TZ`, `JACKIN_DISABLE_*`, `NO_PROXY` and the like): not credentials.
    #[serde(default)]
    pub passthrough_env: BTreeMap<String, String>,
    /// What was found at each host path a mount names, by that path after `~` expansion.
    #[serde(default)]
    pub paths: BTreeMap<String, PathFact>,
    /// Role repos at their pinned commit, by role key.
    #[serde(default)]
    pub roles: BTreeMap<String, RoleSnapshot>,
    /// Credential files on the host that would be handed to an agent.
    #[serde(default)]
    pub credentials: BTreeMap<Agent, CredentialFact>,
    /// Keyed digest of the GitHub token found, if any.
    #[serde(default)]
    pub github_token: Option<String>,
    #[serde(default)]
    pub git_user_name: String,
    #[serde(default)]
    pub git_user_email: String,
    /// The role manifests' variables as resolved for each instance, by instance key.
    #[serde(default)]
    pub role_env: BTreeMap<String, BTreeMap<String, RoleValue>>,
    /// What the instances' own records say, by instance key: names they already bear.
    #[serde(default)]
    pub records: BTreeMap<String, InstanceRecord>,
    /// Instances that wait, started and paused, for a launch to take them; their keys.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub spares: BTreeSet<String>,
    /// Median duration of earlier steps in milliseconds, by `<effect> <kind>`, from the run history.
    #[serde(default)]
    pub history: BTreeMap<String, u64>,
}

/// An architecture that engines have and programs are made for, by Docker's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// By the word of Docker, Podman or the kernel; `None`: nobody makes programs for it.
    pub fn parse(word: &str) -> Option<Arch> {
        match word {
            "amd64" | "x86_64" => Some(Arch::Amd64),
            "arm64" | "aarch64" => Some(Arch::Arm64),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BinaryFact {
    pub path: String,
    pub version: String,
    /// Hex sha256 of the file; of one that jackin downloaded whole, what its maker published it under.
    pub digest: String,
    /// False when a cached file lost its run bit.
    #[serde(default = "yes")]
    pub executable: bool,
    pub source: BinarySource,
    /// The machine it says it is for, by Docker's name where Docker has one. A script says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_for: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BinarySource {
    /// `JACKIN_CAPSULE_BIN` or `JACKIN_AGENT_BIN_<SLUG>`.
    Environment,
    /// Beside the running executable.
    Beside,
    Cache,
}

/// What its maker says of a program, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Lookup {
    /// Asked less than an hour ago.
    Newest(Release),
    /// Asked too long ago. Something is cached, so nobody waits for a new answer.
    Stale,
    /// It was asked for, and there was no answer; or there was one and the download came to nothing.
    Failed { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub version: String,
    pub download: Download,
}

impl Release {
    /// What tells this program from every other one, before it is here and after.
    pub fn digest(&self) -> String {
        self.download.sha256.clone().unwrap_or_else(|| format!("unpublished-{}", self.version))
    }
}

/// A version as the name of a folder.
pub fn version_folder(version: &str) -> String {
    version.replace('+', "_")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathFact {
    pub kind: PathKind,
    /// With symlinks resolved.
    pub canonical: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    Directory,
    File,
    Other,
    Missing,
    /// It exists, but may not be looked at.
    Unreadable,
}

/// A role repo as the cache holds it, read at one commit. Contents come from git objects, never from the working tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSnapshot {
    /// Role key: `name` or `ns/name`.
    pub key: String,
    /// The URL that was asked for, user-info and query taken off.
    pub url: String,
    /// That is not the configured URL, but one that `--role-git` named in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// Branch asked for; `None` = the remote's default.
    #[serde(default)]
    pub branch: Option<String>,
    /// Absolute path of the cached clone.
    pub cache: String,
    /// The commit that was pinned, 40 hex digits; `None` with `problem` set.
    #[serde(default)]
    pub commit: Option<String>,
    /// Commit the working tree of the cache is at before this run.
    #[serde(default)]
    pub checked_out: Option<String>,
    /// Paths that `git status` reports in the cache; not empty = dirty.
    #[serde(default)]
    pub dirty: Vec<String>,
    /// All paths of the commit's tree.
    #[serde(default)]
    pub tree: BTreeMap<String, TreeKind>,
    /// Texts of the manifest, Dockerfile and hooks at that commit, by path. Not UTF-8 = absent here, present in `tree`.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    #[serde(default)]
    pub problem: Option<RoleProblem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeKind {
    File,
    Executable,
    Symlink,
    Submodule,
}

/// Why a role repo could not be pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case", deny_unknown_fields)]
pub enum RoleProblem {
    /// No source: neither configured, nor built in, nor derivable from a namespace.
    Unknown,
    CloneFailed {
        message: String,
    },
    FetchFailed {
        message: String,
    },
    /// The cache was cloned from somewhere else.
    ForeignOrigin {
        found: String,
    },
    NoCommit,
    NoSuchBranch {
        branch: String,
    },
    /// The cache folder exists but git does not accept it as a repository.
    NotARepository {
        message: String,
    },
    /// Not in the cache and the run is offline.
    NotCached,
}

/// What became of one variable that a role declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum RoleValue {
    /// An answer, or the default.
    Set { digest: String },
    /// A person skipped it, or it hangs on one that was skipped.
    Skipped,
    /// It asks for an answer and nobody could be asked.
    Unanswered { prompt: String },
}

/// Credential files that agents.md §6 hands over under `sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialFact {
    /// The host folder or file they come from.
    pub source: String,
    /// Hand-off path relative to the instance's state folder -> keyed digest of its content.
    pub files: BTreeMap<String, String>,
}

impl Facts {
    /// A path as people see it: the home folder as `~`.
    pub fn shorten(&self, path: &str) -> String {
        shorten(&self.home, path)
    }

    pub fn expand(&self, path: &str) -> String {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.home),
            _ => path.to_owned(),
        }
    }
}

pub fn shorten(home: &str, path: &str) -> String {
    match path.strip_prefix(home) {
        Some("") => "~".to_owned(),
        Some(rest) if rest.starts_with('/') && home != "/" => format!("~{rest}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_has_many_names() {
        for (words, arch) in [(["amd64", "x86_64"], Arch::Amd64), (["arm64", "aarch64"], Arch::Arm64)] {
            for word in words {
                assert_eq!(Arch::parse(word), Some(arch), "{word}");
            }
            assert_eq!(Arch::parse(arch.as_str()), Some(arch));
            assert_eq!(serde_json::to_value(arch).unwrap(), arch.as_str());
        }
        for word in ["", "riscv64", "armv7l", "arm", "s390x", "i686", "AMD64", "linux/amd64"] {
            assert_eq!(Arch::parse(word), None, "{word}");
        }
    }
}
