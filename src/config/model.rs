//! What the operator's files say, typed, with the place each value came from. Nothing is resolved here: layers are not merged,
//! host variables not read, `~` not expanded.

use crate::diagnostic::Span;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A value and where it was written. Equality and order ignore the place.
#[derive(Debug, Clone)]
pub struct Located<T> {
    pub value: T,
    pub span: Option<Span>,
}

impl<T> Located<T> {
    pub fn new(value: T, span: Option<Span>) -> Self {
        Self { value, span }
    }

    /// A value that no file holds (a default, a test).
    pub fn bare(value: T) -> Self {
        Self { value, span: None }
    }
}

/// The six agents; a closed set, in registry order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Agent {
    Claude,
    Codex,
    Amp,
    Kimi,
    Opencode,
    Grok,
}

impl Agent {
    pub const ALL: [Agent; 6] = [Agent::Claude, Agent::Codex, Agent::Amp, Agent::Kimi, Agent::Opencode, Agent::Grok];

    pub fn slug(self) -> &'static str {
        match self {
            Agent::Claude => "claude",
            Agent::Codex => "codex",
            Agent::Amp => "amp",
            Agent::Kimi => "kimi",
            Agent::Opencode => "opencode",
            Agent::Grok => "grok",
        }
    }

    pub fn from_slug(slug: &str) -> Option<Agent> {
        Agent::ALL.into_iter().find(|agent| agent.slug() == slug)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    Sync,
    ApiKey,
    OauthToken,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GithubMode {
    Sync,
    Token,
    Ignore,
}

/// Security profiles, loosest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Locked,
    Hardened,
    Standard,
    Compat,
}

/// Sidecar tiers, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dind {
    None,
    Rootless,
    Privileged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    None,
    Allowlist,
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    Shared,
    Worktree,
    Clone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirtyExit {
    Ask,
    Keep,
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TelemetryLevel {
    Info,
    Debug,
    Trace,
}

/// The value of one env entry. A literal may be a credential, so it is held as one.
#[derive(Debug, Clone)]
pub enum EnvValue {
    Literal {
        value: SecretString,
        on_demand: bool,
    },
    /// `"$NAME"` or `"${NAME}"`: the host's variable, read at launch.
    Host {
        name: String,
        on_demand: bool,
    },
    /// A 1Password reference; read by the `op` program at launch.
    Op {
        reference: String,
        path: Option<String>,
        account: Option<String>,
        on_demand: bool,
    },
}

pub type EnvMap = BTreeMap<String, Located<EnvValue>>;

#[derive(Debug, Clone, Default)]
pub struct AgentPolicy {
    /// `None` when the table sets only `sync_source_dir`: then a lower layer's mode holds.
    pub auth_forward: Option<Located<AuthMode>>,
    pub sync_source_dir: Option<Located<String>>,
}

#[derive(Debug, Clone, Default)]
pub struct GithubPolicy {
    pub auth_forward: Option<Located<GithubMode>>,
    pub env: EnvMap,
}

/// The `grants` table. Sizes stay as written; `graph/grants.rs` gives them a number.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    pub network: Option<Located<NetworkMode>>,
    pub allowed_hosts: Vec<Located<String>>,
    pub dind: Option<Located<Dind>>,
    pub user: Option<Located<String>>,
    pub sudo: Option<Located<bool>>,
    pub system_writes: Option<Located<bool>>,
    /// Bytes; parsed from `8G` and the like, 1024-based.
    pub memory: Option<Located<i64>>,
    pub memory_reservation: Option<Located<i64>>,
    pub cpus: Option<Located<f64>>,
    pub pids: Option<Located<i64>>,
    pub nofile: Option<Located<i64>>,
    /// Canonical upper-case names without `CAP_`.
    pub capabilities_add: Vec<Located<String>>,
}

#[derive(Debug, Clone, Default)]
pub struct DockerPolicy {
    pub profile: Option<Located<Profile>>,
    pub grants: Grants,
}

#[derive(Debug, Clone)]
pub struct RoleSource {
    pub git: Located<String>,
    pub trusted: bool,
    pub env: EnvMap,
}

#[derive(Debug, Clone)]
pub struct GlobalMount {
    pub name: String,
    /// `None` = every role; `ns/*`; or one role key.
    pub scope: Option<String>,
    pub src: Located<String>,
    pub dst: Located<String>,
    pub readonly: bool,
}

/// `config.toml`.
#[derive(Debug, Clone, Default)]
pub struct Global {
    pub agents: BTreeMap<Agent, AgentPolicy>,
    pub github: GithubPolicy,
    pub env: EnvMap,
    /// By role key; the built-in roles are always present.
    pub roles: BTreeMap<String, RoleSource>,
    pub docker: DockerPolicy,
    pub mounts: Vec<GlobalMount>,
    pub default_backend: Option<Located<String>>,
    pub coauthor_trailer: bool,
    pub dco: bool,
    pub dirty_exit_policy: Option<Located<DirtyExit>>,
    pub role_repo_refresh_ttl_seconds: Option<Located<u64>>,
    pub telemetry_level: Option<Located<TelemetryLevel>>,
    pub telemetry_categories: Vec<String>,
    pub binaries: Binaries,
}

/// `[binaries]`: where programs are downloaded from.
#[derive(Debug, Clone, Default)]
pub struct Binaries {
    pub mirror: Option<Located<String>>,
    /// By program.
    pub mirrors: BTreeMap<String, Located<String>>,
}

impl Binaries {
    pub const PROGRAMS: [&str; 7] = ["claude", "codex", "amp", "kimi", "opencode", "grok", "capsule"];
}

/// What is wrong with a mirror, as the rest of a sentence.
pub fn mirror_problem(text: &str) -> Option<&'static str> {
    if text == "off" {
        return None;
    }
    if let Some(folder) = text.strip_prefix("file://") {
        return match folder {
            _ if !folder.starts_with('/') => Some("names no absolute folder"),
            _ if folder.chars().any(char::is_control) => Some("holds a control character"),
            _ if folder.contains('%') => Some("holds a `%`; a folder's path is taken as it is"),
            _ if folder.split('/').any(|part| part == "..") => Some("holds `..`"),
            _ => None,
        };
    }
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return Some("does not begin with https://, http:// or file:///");
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Some("holds a blank or a character that is not ASCII");
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Some("holds a user; plans show it, so it may not");
    }
    if host.is_empty() || text.contains(['?', '#']) {
        return Some("is not a plain base URL");
    }
    None
}

#[derive(Debug, Clone)]
pub struct Mount {
    pub src: Located<String>,
    pub dst: Located<String>,
    pub readonly: bool,
    pub isolation: Located<Isolation>,
}

#[derive(Debug, Clone, Default)]
pub struct WorkspaceRole {
    pub env: EnvMap,
    pub agents: BTreeMap<Agent, AgentPolicy>,
    pub github: GithubPolicy,
}

/// One `[[instance]]` table.
#[derive(Debug, Clone)]
pub struct InstanceDecl {
    /// `[a-z0-9-]+`; unique in its workspace.
    pub name: Located<String>,
    /// A role key; falls back to the workspace's `default_role`.
    pub role: Option<Located<String>>,
    pub agent: Option<Located<Agent>>,
    pub docker: DockerPolicy,
}

/// `workspaces/<name>.toml`.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub name: String,
    /// As shown to people: `workspaces/<name>.toml`.
    pub file: String,
    pub workdir: Located<String>,
    pub mounts: Vec<Mount>,
    pub allowed_roles: Vec<Located<String>>,
    pub default_role: Option<Located<String>>,
    pub default_agent: Option<Located<Agent>>,
    pub last_role: Option<String>,
    pub env: EnvMap,
    pub roles: BTreeMap<String, WorkspaceRole>,
    pub agents: BTreeMap<Agent, AgentPolicy>,
    pub github: GithubPolicy,
    pub keep_awake: bool,
    pub git_pull_on_entry: bool,
    pub backend: Option<Located<String>>,
    pub dirty_exit_policy: Option<Located<DirtyExit>>,
    pub docker: DockerPolicy,
    pub instances: Vec<InstanceDecl>,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub global: Global,
    pub workspaces: BTreeMap<String, Workspace>,
}

/// One `[env.<NAME>]` table of a role manifest.
#[derive(Debug, Clone, Default)]
pub struct EnvDecl {
    pub default: Option<Located<String>>,
    pub interactive: bool,
    pub skippable: bool,
    pub prompt: Option<String>,
    pub options: Vec<String>,
    /// Bare names, the `env.` prefix taken off.
    pub depends_on: Vec<String>,
    pub span: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Marketplace {
    pub source: String,
    pub sparse: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct RoleDocker {
    pub min_profile: Option<Located<Profile>>,
    pub dind: Option<Located<Dind>>,
    pub allowed_hosts: Vec<Located<String>>,
    pub capabilities_add: Vec<Located<String>>,
}

/// `jackin.role.toml`.
#[derive(Debug, Clone)]
pub struct RoleManifest {
    /// As written; `legacy` when absent.
    pub version: String,
    pub dockerfile: Located<String>,
    pub published_image: Option<Located<String>>,
    /// In manifest order, never empty.
    pub agents: Vec<Agent>,
    pub display_name: Option<String>,
    pub models: BTreeMap<Agent, String>,
    pub provider_models: BTreeMap<Agent, BTreeMap<String, String>>,
    pub claude_plugins: Vec<String>,
    pub claude_marketplaces: Vec<Marketplace>,
    pub docker: RoleDocker,
    pub setup_once: Option<Located<String>>,
    pub source: Option<Located<String>>,
    pub preflight: Option<Located<String>>,
    pub env: BTreeMap<String, EnvDecl>,
}
