//! `config.toml` and `workspaces/<name>.toml`: text to typed values.
//!
//! In: the text of one file, of any schema version. Out: `Global` or `Workspace` in the newest meaning, and warnings; or every mistake.
//! Absent: rules that span tables or files (`validate.rs`), defaults that come from other layers (`layer.rs`).

use super::docker::{PROFILES, read_docker};
use super::env::{read_env, read_github_env};
use super::model::*;
use super::reader::{Key, Reader, Sort, Table, Unknown, parse, quote};
use super::role_key::{BUILTIN_ROLES, RoleKey, builtin_url, git_url_problem};
use super::version::{GLOBAL_VERSION, OP_ACCOUNT_MOVED, Version, WORKSPACE_VERSION, read_version};
use crate::diagnostic::{Diagnostic, Diagnostics};
use std::collections::BTreeMap;
use toml::de::DeValue;

const AGENTS: [(&str, Agent); 6] = [
    ("claude", Agent::Claude),
    ("codex", Agent::Codex),
    ("amp", Agent::Amp),
    ("kimi", Agent::Kimi),
    ("opencode", Agent::Opencode),
    ("grok", Agent::Grok),
];
const DIRTY_EXIT: [(&str, DirtyExit); 3] = [("ask", DirtyExit::Ask), ("keep", DirtyExit::Keep), ("discard", DirtyExit::Discard)];
const GITHUB_MODES: [(&str, GithubMode); 3] = [("sync", GithubMode::Sync), ("token", GithubMode::Token), ("ignore", GithubMode::Ignore)];
const ISOLATION: [(&str, Isolation); 3] = [("shared", Isolation::Shared), ("worktree", Isolation::Worktree), ("clone", Isolation::Clone)];
const LEVELS: [(&str, TelemetryLevel); 3] =
    [("info", TelemetryLevel::Info), ("debug", TelemetryLevel::Debug), ("trace", TelemetryLevel::Trace)];
pub const BACKENDS: [&str; 2] = ["docker", "apple-container"];

pub const GLOBAL_SORT: Sort =
    Sort { area: "config", hides_env: true, top_level: &["version", "dirty_exit_policy", "role_repo_refresh_ttl_seconds"] };
pub const WORKSPACE_SORT: Sort = Sort {
    area: "config",
    hides_env: true,
    top_level: &[
        "version",
        "workdir",
        "allowed_roles",
        "default_role",
        "default_agent",
        "last_role",
        "git_pull_on_entry",
        "dirty_exit_policy",
    ],
};

/// `config.toml`, and the workspaces that old ones hold.
#[derive(Debug, Clone)]
pub struct GlobalFile {
    pub global: Global,
    pub version: Version,
    pub embedded: Vec<Workspace>,
}

impl Default for GlobalFile {
    /// As if there were no file.
    fn default() -> Self {
        let mut global = Global::default();
        add_builtins(&mut global);
        Self { global, version: GLOBAL_VERSION, embedded: Vec::new() }
    }
}

pub fn parse_global(file: &str, text: &str) -> Result<(GlobalFile, Vec<Diagnostic>), Diagnostics> {
    let tree = parse(GLOBAL_SORT, file, text)?;
    let reader = Reader::new(GLOBAL_SORT, file, text, tree.get_ref());
    let read = read_global(&reader.root(tree.get_ref()), file);
    let warnings = reader.finish()?;
    Ok((read.unwrap_or_default(), warnings))
}

pub fn parse_workspace(name: &str, file: &str, text: &str) -> Result<(Workspace, Vec<Diagnostic>), Diagnostics> {
    let tree = parse(WORKSPACE_SORT, file, text)?;
    let reader = Reader::new(WORKSPACE_SORT, file, text, tree.get_ref());
    let root = reader.root(tree.get_ref());
    let read = read_version(&root, WORKSPACE_VERSION).and_then(|version| read_workspace(&root, name, file, version));
    let warnings = reader.finish()?;
    // A workspace that could not be read has left an error behind.
    read.map(|workspace| (workspace, warnings))
        .ok_or_else(|| Diagnostic::error("config.unreadable", "A workspace is not readable", format!("`{}`", quote(file))).into())
}

fn read_global(root: &Table<'_>, file: &str) -> Option<GlobalFile> {
    let version = read_version(root, GLOBAL_VERSION)?;
    let mut global = Global {
        agents: read_agents(root),
        github: read_github(root, None),
        env: read_env(root, None),
        dirty_exit_policy: root.word("dirty_exit_policy", &DIRTY_EXIT),
        role_repo_refresh_ttl_seconds: root
            .integer("role_repo_refresh_ttl_seconds", 0)
            .map(|n| Located::new(n.value.unsigned_abs(), n.span)),
        ..Global::default()
    };
    if let Some(roles) = root.table("roles") {
        for (key, value) in roles.entries() {
            if let Some(source) = roles.as_table(key, value).and_then(|role| read_role_source(&role, key)) {
                global.roles.insert(key.get_ref().to_string(), source);
            }
        }
    }
    add_builtins(&mut global);
    if let Some(docker) = root.table("docker") {
        if let Some(mounts) = docker.table("mounts") {
            global.mounts = read_global_mounts(&mounts);
        }
        global.docker = read_docker(&docker);
    }
    if let Some(runtime) = root.table("runtime") {
        global.default_backend = read_backend(&runtime, "default_backend");
        runtime.finish(Unknown::Reject);
    }
    if let Some(telemetry) = root.table("telemetry") {
        global.telemetry_level = telemetry.word("level", &LEVELS);
        global.telemetry_categories = telemetry.lines("categories").into_iter().map(|c| c.value).collect();
        telemetry.finish(Unknown::Reject);
    }
    if let Some(git) = root.table("git") {
        global.coauthor_trailer = git.flag("coauthor_trailer");
        global.dco = git.flag("dco");
        git.finish(Unknown::Reject);
    }
    if let Some(binaries) = root.table("binaries") {
        global.binaries.mirror = read_mirror(&binaries, "mirror");
        if let Some(own) = binaries.table("mirrors") {
            for program in Binaries::PROGRAMS {
                global.binaries.mirrors.extend(read_mirror(&own, program).map(|mirror| (program.to_owned(), mirror)));
            }
            own.finish(Unknown::Reject);
        }
        binaries.finish(Unknown::Reject);
    }
    let mut embedded = Vec::new();
    if let Some(workspaces) = root.table("workspaces") {
        for (key, value) in workspaces.entries() {
            let Some(table) = workspaces.as_table(key, value) else {
                continue;
            };
            // Tables in config.toml bear no version of their own: they are as old as the last file that held any.
            if let Some(workspace) = read_workspace(&table, key.get_ref(), file, super::version::LEGACY) {
                embedded.push(workspace);
            }
        }
    }
    root.finish(Unknown::WarnNear);
    Some(GlobalFile { global, version, embedded })
}

fn add_builtins(global: &mut Global) {
    for (key, url) in BUILTIN_ROLES {
        global.roles.entry(key.to_owned()).or_insert_with(|| RoleSource {
            git: Located::bare(url.to_owned()),
            trusted: true,
            env: EnvMap::new(),
        });
    }
}

fn read_role_source(role: &Table<'_>, key: &Key<'_>) -> Option<RoleSource> {
    let name = key.get_ref().as_ref();
    let builtin = builtin_url(name);
    let trusted = role.boolean("trusted");
    let env = read_env(role, None);
    check_role_key(role, key);
    let git = match builtin {
        // The owner of the name decides where a built-in role comes from, whatever an old file says.
        Some(url) => {
            let written = role.line("git");
            if written.as_ref().is_some_and(|w| w.value != url) || trusted.as_ref().is_some_and(|t| !t.value) {
                role.reader.warn(
                    key.span(),
                    "builtin_role",
                    "A built-in role cannot be changed",
                    format!("`{name}` always comes from {url} and is trusted"),
                    "remove `git` and `trusted`; to use another source, give the role another name",
                );
            }
            Some(Located::new(url.to_owned(), written.and_then(|w| w.span)))
        }
        None => role.required("git", "give the git URL of the role"),
    };
    if !role.has("git") && role.map.iter().any(|(_, v)| matches!(v.get_ref(), DeValue::Table(t) if t.contains_key("git"))) {
        for (inner, value) in role.entries() {
            if matches!(value.get_ref(), DeValue::Table(t) if t.contains_key("git")) {
                role.reader.error(
                    inner.span(),
                    "role_key_quotes",
                    "A role key with a namespace needs quotes",
                    format!("`[{}]` is a table inside role `{}`", role.path_of(inner.get_ref()), quote(name)),
                    format!("write `[roles.\"{}/{}\"]`", quote(name), quote(inner.get_ref())),
                );
            }
        }
    } else {
        role.finish(Unknown::Reject);
    }
    let git = git?;
    if builtin.is_none()
        && let Some(problem) = git_url_problem(&git.value)
    {
        let at = role.map.get("git").map_or(role.place.clone(), |v| v.span());
        role.reader.error(
            at,
            "git_url",
            "A git URL is not usable",
            format!("`{}`: {problem}", role.path_of("git")),
            "write an https, ssh or file URL, or an absolute path",
        );
    }
    Some(RoleSource { git, trusted: builtin.is_some() || trusted.is_some_and(|t| t.value), env })
}

/// A key that no selector can produce is never used: worth a word, not a refusal.
fn check_role_key(table: &Table<'_>, key: &Key<'_>) {
    let text = key.get_ref().as_ref();
    if let Some(problem) = role_key_problem(text) {
        table.reader.warn(
            key.span(),
            "role_key",
            "A role key is malformed",
            format!("`{}` can never be selected: {problem}", quote(text)),
            "write `name` or `namespace/name` in lower case",
        );
    }
}

pub fn role_key_problem(text: &str) -> Option<&'static str> {
    match RoleKey::parse(text) {
        Ok(key) if key.to_string() == text => None,
        Ok(_) => Some("role keys are lower case"),
        Err(_) => Some("it is neither `name` nor `namespace/name`"),
    }
}

fn read_agents(table: &Table<'_>) -> BTreeMap<Agent, AgentPolicy> {
    let mut agents = BTreeMap::new();
    for (slug, agent) in AGENTS {
        let Some(policy) = table.table(slug) else {
            continue;
        };
        agents.insert(
            agent,
            // The mode stays absent when it is not written, so that a table for the folder alone overrides nothing else.
            AgentPolicy { auth_forward: read_auth_mode(&policy, agent), sync_source_dir: policy.line("sync_source_dir") },
        );
        policy.finish(Unknown::Reject);
    }
    agents
}

pub fn auth_modes(agent: Agent) -> &'static [(&'static str, AuthMode)] {
    const ALL: [(&str, AuthMode); 4] =
        [("sync", AuthMode::Sync), ("api_key", AuthMode::ApiKey), ("ignore", AuthMode::Ignore), ("oauth_token", AuthMode::OauthToken)];
    match agent {
        Agent::Claude => &ALL,
        Agent::Codex | Agent::Amp | Agent::Kimi | Agent::Opencode | Agent::Grok => {
            const OTHERS: [(&str, AuthMode); 3] = [ALL[0], ALL[1], ALL[2]];
            &OTHERS
        }
    }
}

fn read_auth_mode(policy: &Table<'_>, agent: Agent) -> Option<Located<AuthMode>> {
    if agent != Agent::Claude
        && let Some((_, value)) = policy.map.get_key_value("auth_forward")
        && value.get_ref().as_str() == Some("oauth_token")
    {
        let _ = policy.get("auth_forward");
        let allowed: Vec<String> = auth_modes(agent).iter().map(|(word, _)| format!("`{word}`")).collect();
        policy.reader.error(
            value.span(),
            "auth_mode",
            "An agent does not support this way of logging in",
            format!("`{}` is `oauth_token`, which only claude has", policy.path_of("auth_forward")),
            format!("allowed for {agent}: {}", allowed.join(", ")),
        );
        return None;
    }
    policy.word("auth_forward", auth_modes(agent))
}

fn read_github(table: &Table<'_>, op_account: Option<&str>) -> GithubPolicy {
    let Some(github) = table.table("github") else {
        return GithubPolicy::default();
    };
    let policy = GithubPolicy { auth_forward: github.word("auth_forward", &GITHUB_MODES), env: read_github_env(&github, op_account) };
    github.finish(Unknown::Reject);
    policy
}

fn read_mirror(table: &Table<'_>, key: &'static str) -> Option<Located<String>> {
    let mirror = table.line(key)?;
    let Some(why) = mirror_problem(&mirror.value) else {
        return Some(mirror);
    };
    let at = table.map.get(key).map_or(table.place.clone(), |v| v.span());
    let help = "give a URL such as \"https://mirror.example/jackin\" or \"file:///srv/mirror\", or \"off\"";
    table.reader.error(at, "mirror", "A mirror cannot be used", format!("`{}` {why}", table.path_of(key)), help);
    None
}

fn read_backend(runtime: &Table<'_>, key: &'static str) -> Option<Located<String>> {
    let backend = runtime.line(key)?;
    if !BACKENDS.contains(&backend.value.as_str()) {
        let at = runtime.map.get(key).map_or(runtime.place.clone(), |v| v.span());
        runtime.reader.warn(
            at,
            "backend",
            "A backend is not known",
            format!("`{}` is `{}`; launches that use it fail", runtime.path_of(key), quote(&backend.value)),
            super::reader::did_you_mean(&backend.value, &BACKENDS),
        );
    }
    Some(backend)
}

/// Names of mounts and scopes share this table. One key may be both: its plain values make the mount, its tables the scope's
/// mounts, so that neither hides the other.
fn read_global_mounts(table: &Table<'_>) -> Vec<GlobalMount> {
    let mut mounts = Vec::new();
    for (key, value) in table.entries() {
        let Some(entry) = table.as_table(key, value) else {
            continue;
        };
        if entry.reader.full() {
            break;
        }
        let (nested, plain): (Vec<_>, Vec<_>) = entry.entries().into_iter().partition(|(_, v)| matches!(v.get_ref(), DeValue::Table(_)));
        if !nested.is_empty() {
            check_scope(table, key);
        }
        for (inner, value) in nested {
            entry.pass(inner);
            if let Some(mount) = entry.as_table(inner, value) {
                mounts.extend(read_global_mount(&mount, inner, Some(key.get_ref())));
            }
        }
        if !plain.is_empty() {
            mounts.extend(read_global_mount(&entry, key, None));
        }
    }
    mounts
}

fn read_global_mount(table: &Table<'_>, key: &Key<'_>, scope: Option<&str>) -> Option<GlobalMount> {
    let name = key.get_ref().as_ref();
    if name.trim().is_empty() {
        table.reader.error(key.span(), "mount_name", "A mount has no name", format!("`[{}]`", table.path), "give it a name");
    }
    let src = table.required("src", "give the folder or file of the host");
    let dst = table.required("dst", "give the path inside the container");
    let readonly = table.flag("readonly");
    if let Some((isolation, _)) = table.get("isolation") {
        table.reader.error(
            isolation.span(),
            "global_isolation",
            "A global mount cannot be isolated",
            format!("`[{}]` sets `isolation`", table.path),
            "remove the line, or make it a mount of a workspace",
        );
    }
    table.finish(Unknown::Reject);
    Some(GlobalMount { name: name.to_owned(), scope: scope.map(str::to_owned), src: src?, dst: dst?, readonly })
}

fn check_scope(table: &Table<'_>, key: &Key<'_>) {
    let scope = key.get_ref().as_ref();
    let probe = scope.strip_suffix("/*").map_or(scope.to_owned(), |ns| format!("{ns}/x"));
    if let Some(problem) = role_key_problem(&probe) {
        table.reader.error(
            key.span(),
            "mount_scope",
            "A mount scope is malformed",
            format!("`{}` names no roles: {problem}", table.path_of(scope)),
            "write a role key or `namespace/*`",
        );
    }
}

fn read_workspace(root: &Table<'_>, name: &str, file: &str, version: Version) -> Option<Workspace> {
    let account = if version < OP_ACCOUNT_MOVED { root.line("op_account").map(|a| a.value) } else { None };
    if let Some((key, _)) = root.map.get_key_value("op_account")
        && version >= OP_ACCOUNT_MOVED
    {
        let _ = root.get("op_account");
        root.reader.warn(
            key.span(),
            "no_effect",
            "A setting has no effect",
            format!("`{}` is not read since `{OP_ACCOUNT_MOVED}`", root.path_of("op_account")),
            "write `account = \"…\"` into each `{ op = … }` table",
        );
    }
    let account = account.as_deref();
    let workdir = root.required("workdir", "give the absolute path to start in, such as `workdir = \"/workspace\"`");
    let has_mounts = root.has("mounts");
    let mounts = root.tables("mounts").iter().map(read_mount).collect::<Vec<_>>();
    if !has_mounts {
        root.missing("mounts", "add at least one `[[mounts]]` table with `src` and `dst`");
    }
    let mut roles = BTreeMap::new();
    if let Some(tables) = root.table("roles") {
        for (key, value) in tables.entries() {
            let Some(role) = tables.as_table(key, value) else {
                continue;
            };
            check_role_key(&tables, key);
            roles.insert(
                key.get_ref().to_string(),
                WorkspaceRole { env: read_env(&role, account), agents: read_agents(&role), github: read_github(&role, account) },
            );
            role.finish(Unknown::Reject);
        }
    }
    let keep_awake = root.table("keep_awake").is_some_and(|table| {
        let on = table.flag("enabled");
        table.finish(Unknown::Reject);
        on
    });
    let backend = root.table("runtime").and_then(|runtime| {
        let backend = read_backend(&runtime, "backend");
        runtime.finish(Unknown::Reject);
        backend
    });
    let mut docker = DockerPolicy::default();
    if let Some(table) = root.table("docker") {
        reject_mounts(&table);
        docker = read_docker(&table);
    }
    let workspace = Workspace {
        name: name.to_owned(),
        file: file.to_owned(),
        mounts: mounts.into_iter().flatten().collect(),
        allowed_roles: root.lines("allowed_roles"),
        default_role: root.line("default_role"),
        default_agent: root.word("default_agent", &AGENTS),
        last_role: root.line("last_role").map(|r| r.value),
        env: read_env(root, account),
        roles,
        agents: read_agents(root),
        github: read_github(root, account),
        keep_awake,
        git_pull_on_entry: root.flag("git_pull_on_entry"),
        backend,
        dirty_exit_policy: root.word("dirty_exit_policy", &DIRTY_EXIT),
        docker,
        instances: root.tables("instance").iter().filter_map(read_instance).collect(),
        // Absent means reported; the value is never seen.
        workdir: workdir.unwrap_or_else(|| Located::bare(String::new())),
    };
    root.finish(Unknown::WarnNear);
    Some(workspace)
}

fn reject_mounts(docker: &Table<'_>) {
    if let Some((key, _)) = docker.get("mounts") {
        docker.reader.error(
            key.span(),
            "unknown_field",
            "There is no such field",
            format!("`{}` is not a known field", docker.path_of("mounts")),
            "global mounts belong into config.toml; a workspace has `[[mounts]]`",
        );
    }
}

fn read_mount(table: &Table<'_>) -> Option<Mount> {
    let src = table.required("src", "give the folder or file of the host");
    let dst = table.required("dst", "give the path inside the container");
    let readonly = table.flag("readonly");
    let isolation = table.word("isolation", &ISOLATION).unwrap_or_else(|| Located::bare(Isolation::Shared));
    // A misspelt `readonly` that is passed over gives an agent write access.
    table.finish(Unknown::RejectNear);
    Some(Mount { src: src?, dst: dst?, readonly, isolation })
}

pub fn instance_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        Some("only lower-case letters, digits and `-` are allowed")
    } else if name.len() > 32 {
        Some("it is longer than 32 characters")
    } else {
        None
    }
}

fn read_instance(table: &Table<'_>) -> Option<InstanceDecl> {
    let name = table.required("name", "give the instance a name, such as `name = \"review\"`");
    if let Some(name) = &name
        && let Some(problem) = instance_name_problem(&name.value)
    {
        let at = table.map.get("name").map_or(table.place.clone(), |v| v.span());
        table.reader.error(
            at,
            "instance_name",
            "An instance name is malformed",
            format!("`{}`: {problem}", quote(&name.value)),
            "use lower-case letters, digits and `-`",
        );
    }
    let role = table.line("role");
    let agent = table.word("agent", &AGENTS);
    let mut docker = DockerPolicy::default();
    if let Some(inner) = table.table("docker") {
        reject_mounts(&inner);
        docker = read_docker(&inner);
    }
    table.finish(Unknown::Reject);
    Some(InstanceDecl { name: name?, role, agent, docker })
}

/// One instance that a workspace declares, its role settled.
#[derive(Debug, Clone)]
pub struct Declared {
    pub name: Located<String>,
    pub role: Located<String>,
    pub agent: Option<Located<Agent>>,
    pub docker: DockerPolicy,
}

impl Workspace {
    /// The `[[instance]]` tables; without any, one named `default` if the workspace has a default role.
    /// An instance whose role is nowhere given is left out here and reported by `validate`.
    pub fn declared(&self) -> Vec<Declared> {
        if self.instances.is_empty() {
            let agent = self.default_agent.clone();
            let docker = DockerPolicy::default();
            return self
                .default_role
                .iter()
                .map(|role| Declared {
                    name: Located::new("default".to_owned(), role.span.clone()),
                    role: role.clone(),
                    agent: agent.clone(),
                    docker: docker.clone(),
                })
                .collect();
        }
        self.instances
            .iter()
            .filter_map(|instance| {
                Some(Declared {
                    name: instance.name.clone(),
                    role: instance.role.clone().or_else(|| self.default_role.clone())?,
                    agent: instance.agent.clone().or_else(|| self.default_agent.clone()),
                    docker: instance.docker.clone(),
                })
            })
            .collect()
    }
}

pub fn parse_profile(text: &str) -> Option<Profile> {
    PROFILES.iter().find(|(word, _)| *word == text).map(|(_, profile)| *profile)
}
