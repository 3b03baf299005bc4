//! The one place where sources override each other.
//!
//! In: `Global`, perhaps a `Workspace`, a role key, a role's manifest, flags. Out: the values that hold, each with the layer and place
//! it came from. Absent: resolving host variables and references; anything about what exists.

use super::docker::CAPABILITIES;
use super::model::*;
use crate::diagnostic::{Diagnostic, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Where a value was decided, weakest first within each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Default,
    /// The security profile's own number.
    Profile,
    Global,
    /// `[roles.<key>]` of config.toml.
    Role,
    Workspace,
    /// `[roles.<key>]` of a workspace.
    WorkspaceRole,
    Instance,
    /// `jackin.role.toml`.
    Manifest,
    Flag,
}

/// A value that won, and from where.
#[derive(Debug, Clone)]
pub struct Chosen<T> {
    pub value: T,
    pub layer: Layer,
    pub span: Option<Span>,
}

impl<T> Chosen<T> {
    fn default(value: T) -> Self {
        Self { value, layer: Layer::Default, span: None }
    }
}

fn last<T: Clone>(layers: impl IntoIterator<Item = (Layer, Option<Located<T>>)>) -> Option<Chosen<T>> {
    layers.into_iter().filter_map(|(layer, found)| found.map(|l| Chosen { value: l.value, layer, span: l.span })).last()
}

/// The operator's variables: global, role, workspace, workspace's role; later wins.
pub fn env(global: &Global, workspace: Option<&Workspace>, role: &str) -> BTreeMap<String, Chosen<EnvValue>> {
    let layers = [
        (Layer::Global, Some(&global.env)),
        (Layer::Role, global.roles.get(role).map(|r| &r.env)),
        (Layer::Workspace, workspace.map(|w| &w.env)),
        (Layer::WorkspaceRole, workspace.and_then(|w| w.roles.get(role)).map(|r| &r.env)),
    ];
    merge_env(layers)
}

fn merge_env<'m>(layers: impl IntoIterator<Item = (Layer, Option<&'m EnvMap>)>) -> BTreeMap<String, Chosen<EnvValue>> {
    let mut merged = BTreeMap::new();
    for (layer, map) in layers {
        for (name, entry) in map.into_iter().flatten() {
            merged.insert(name.clone(), Chosen { value: entry.value.clone(), layer, span: entry.span.clone() });
        }
    }
    merged
}

impl EnvValue {
    /// Such values never enter the launch env; they become exec bindings.
    pub fn on_demand(&self) -> bool {
        match self {
            EnvValue::Literal { on_demand, .. } | EnvValue::Host { on_demand, .. } | EnvValue::Op { on_demand, .. } => *on_demand,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Auth {
    pub mode: Chosen<AuthMode>,
    pub sync_source_dir: Option<Chosen<String>>,
}

/// Mode and folder walk the layers independently: a table that sets one says nothing about the other.
pub fn auth(global: &Global, workspace: Option<&Workspace>, role: &str, agent: Agent) -> Auth {
    let layers = [
        (Layer::Global, global.agents.get(&agent)),
        (Layer::Workspace, workspace.and_then(|w| w.agents.get(&agent))),
        (Layer::WorkspaceRole, workspace.and_then(|w| w.roles.get(role)).and_then(|r| r.agents.get(&agent))),
    ];
    Auth {
        mode: last(layers.map(|(layer, policy)| (layer, policy.and_then(|p| p.auth_forward.clone()))))
            .unwrap_or(Chosen::default(AuthMode::Sync)),
        sync_source_dir: last(layers.map(|(layer, policy)| (layer, policy.and_then(|p| p.sync_source_dir.clone())))),
    }
}

#[derive(Debug, Clone)]
pub struct Github {
    pub mode: Chosen<GithubMode>,
    /// Only `GITHUB_NAMES` have a meaning. Kept apart from the ordinary env.
    pub env: BTreeMap<String, Chosen<EnvValue>>,
}

pub fn github(global: &Global, workspace: Option<&Workspace>, role: &str) -> Github {
    let layers = [
        (Layer::Global, Some(&global.github)),
        (Layer::Workspace, workspace.map(|w| &w.github)),
        (Layer::WorkspaceRole, workspace.and_then(|w| w.roles.get(role)).map(|r| &r.github)),
    ];
    Github {
        mode: last(layers.map(|(layer, policy)| (layer, policy.and_then(|p| p.auth_forward.clone()))))
            .unwrap_or(Chosen::default(GithubMode::Sync)),
        env: merge_env(layers.map(|(layer, policy)| (layer, policy.map(|p| &p.env)))),
    }
}

/// Global mounts for a role, by name: unscoped, then `ns/*`, then the role itself; later wins. Ordered by name.
pub fn global_mounts<'g>(global: &'g Global, role: &str) -> Vec<&'g GlobalMount> {
    let namespace = role.split_once('/').map(|(ns, _)| ns);
    let rank = |scope: Option<&str>| match scope {
        None => Some(0),
        Some(scope) if scope == role => Some(2),
        Some(scope) if scope.strip_suffix("/*").is_some_and(|ns| Some(ns) == namespace) => Some(1),
        Some(_) => None,
    };
    let mut by_name: BTreeMap<&str, (u8, &GlobalMount)> = BTreeMap::new();
    for mount in &global.mounts {
        let Some(rank) = rank(mount.scope.as_deref()) else {
            continue;
        };
        if by_name.get(mount.name.as_str()).is_none_or(|(known, _)| *known <= rank) {
            by_name.insert(&mount.name, (rank, mount));
        }
    }
    by_name.into_values().map(|(_, mount)| mount).collect()
}

pub fn dirty_exit(global: &Global, workspace: Option<&Workspace>) -> Chosen<DirtyExit> {
    last([(Layer::Global, global.dirty_exit_policy.clone()), (Layer::Workspace, workspace.and_then(|w| w.dirty_exit_policy.clone()))])
        .unwrap_or(Chosen::default(DirtyExit::Ask))
}

pub fn backend(global: &Global, workspace: Option<&Workspace>) -> Chosen<String> {
    last([(Layer::Global, global.default_backend.clone()), (Layer::Workspace, workspace.and_then(|w| w.backend.clone()))])
        .unwrap_or_else(|| Chosen::default("docker".to_owned()))
}

/// Age in seconds up to which a fetched role repo counts as fresh.
pub fn role_refresh_seconds(global: &Global) -> u64 {
    global.role_repo_refresh_ttl_seconds.as_ref().map_or(60, |ttl| ttl.value)
}

/// Flag, instance, workspace, global, else `compat`: Docker inside the capsule works out of the box.
pub fn profile(global: &Global, workspace: Option<&Workspace>, instance: Option<&DockerPolicy>, flag: Option<Profile>) -> Chosen<Profile> {
    last([
        (Layer::Global, global.docker.profile.clone()),
        (Layer::Workspace, workspace.and_then(|w| w.docker.profile.clone())),
        (Layer::Instance, instance.and_then(|i| i.profile.clone())),
        (Layer::Flag, flag.map(Located::bare)),
    ])
    .unwrap_or(Chosen::default(Profile::Compat))
}

/// What one profile gives. `None` in a limit means there is none.
pub struct ProfileRow {
    pub network: NetworkMode,
    pub dind: Dind,
    pub sudo: bool,
    pub system_writes: bool,
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub cpus: Option<f64>,
    pub pids: Option<i64>,
    pub nofile: Option<i64>,
    pub cap_drop_all: bool,
}

const G: i64 = 1 << 30;

pub const fn profile_row(profile: Profile) -> ProfileRow {
    match profile {
        Profile::Locked => ProfileRow {
            network: NetworkMode::Allowlist,
            dind: Dind::None,
            sudo: false,
            system_writes: false,
            memory: Some(4 * G),
            memory_reservation: Some(3 * G),
            cpus: Some(2.0),
            pids: Some(512),
            nofile: Some(2048),
            cap_drop_all: true,
        },
        Profile::Hardened => ProfileRow {
            network: NetworkMode::Allowlist,
            dind: Dind::None,
            sudo: false,
            system_writes: false,
            memory: Some(16 * G),
            memory_reservation: Some(12 * G),
            cpus: Some(4.0),
            pids: Some(2048),
            nofile: Some(8192),
            cap_drop_all: true,
        },
        Profile::Standard => ProfileRow {
            network: NetworkMode::Open,
            dind: Dind::None,
            sudo: false,
            system_writes: true,
            memory: Some(16 * G),
            memory_reservation: Some(12 * G),
            cpus: Some(4.0),
            pids: Some(2048),
            nofile: Some(8192),
            cap_drop_all: false,
        },
        Profile::Compat => ProfileRow {
            network: NetworkMode::Open,
            dind: Dind::Privileged,
            sudo: true,
            system_writes: true,
            memory: None,
            memory_reservation: None,
            cpus: None,
            pids: None,
            nofile: None,
            cap_drop_all: false,
        },
    }
}

/// What a container keeps when everything else is dropped.
pub const KEPT_CAPABILITIES: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "SETFCAP", "KILL"];

#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveGrants {
    pub profile: Profile,
    pub network: NetworkMode,
    /// Sorted; only those of the configuration and the role, not the agents' own.
    pub allowed_hosts: Vec<String>,
    pub dind: Dind,
    /// Only for labels and the check against sudo; the container's user is always the host's.
    pub user_root: bool,
    pub sudo: bool,
    /// False = read-only root file system.
    pub system_writes: bool,
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub cpus: Option<f64>,
    pub pids: Option<i64>,
    pub nofile: Option<i64>,
    pub cap_drop_all: bool,
    /// Sorted.
    pub cap_add: Vec<String>,
    pub no_new_privileges: bool,
    pub internal_network: bool,
    /// By field name: who decided. A field that is absent here is the profile's.
    pub sources: BTreeMap<&'static str, (Layer, Option<Span>)>,
}

/// Grants only raise what the profile gives; lists are unions; a role's `dind = "none"` alone takes something away.
/// The second value are warnings.
pub fn grants(
    global: &Global,
    workspace: Option<&Workspace>,
    instance: Option<&DockerPolicy>,
    flag: Option<Profile>,
    role: &RoleDocker,
) -> Result<(EffectiveGrants, Vec<Diagnostic>), Vec<Diagnostic>> {
    let profile = profile(global, workspace, instance, flag);
    let row = profile_row(profile.value);
    let tables: Vec<(Layer, &Grants)> = [
        (Layer::Global, Some(&global.docker.grants)),
        (Layer::Workspace, workspace.map(|w| &w.docker.grants)),
        (Layer::Instance, instance.map(|i| &i.grants)),
    ]
    .into_iter()
    .filter_map(|(layer, grants)| grants.map(|g| (layer, g)))
    .collect();

    let mut merge = Merge { profile: profile.value, sources: BTreeMap::new(), warnings: Vec::new() };
    let network = merge.raise("network", row.network, tables.iter().map(|(l, g)| (*l, g.network.clone())));
    let sudo = merge.raise("sudo", row.sudo, tables.iter().map(|(l, g)| (*l, g.sudo.clone())));
    let system_writes = merge.raise("system_writes", row.system_writes, tables.iter().map(|(l, g)| (*l, g.system_writes.clone())));
    let mut dind = merge.raise("dind", row.dind, tables.iter().map(|(l, g)| (*l, g.dind.clone())));
    let memory = merge.limit("memory", row.memory, tables.iter().map(|(l, g)| (*l, g.memory.clone())));
    let reservation =
        merge.limit("memory_reservation", row.memory_reservation, tables.iter().map(|(l, g)| (*l, g.memory_reservation.clone())));
    let cpus = merge.limit("cpus", row.cpus, tables.iter().map(|(l, g)| (*l, g.cpus.clone())));
    let pids = merge.limit("pids", row.pids, tables.iter().map(|(l, g)| (*l, g.pids.clone())));
    let nofile = merge.limit("nofile", row.nofile, tables.iter().map(|(l, g)| (*l, g.nofile.clone())));
    let user = last(tables.iter().map(|(l, g)| (*l, g.user.clone())));

    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let mut added: BTreeSet<String> = BTreeSet::new();
    for (_, grants) in &tables {
        hosts.extend(grants.allowed_hosts.iter().map(|h| h.value.clone()));
        added.extend(grants.capabilities_add.iter().map(|c| c.value.clone()));
    }
    if network == NetworkMode::Allowlist {
        // The capsule sets its own firewall up.
        added.extend(["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]);
    }
    hosts.extend(role.allowed_hosts.iter().map(|h| h.value.clone()));
    added.extend(role.capabilities_add.iter().map(|c| c.value.clone()));
    if row.cap_drop_all {
        added.extend(KEPT_CAPABILITIES.map(str::to_owned));
    }
    if let Some(wanted) = &role.dind
        && (wanted.value == Dind::None || wanted.value > dind)
    {
        dind = wanted.value;
        merge.sources.insert("dind", (Layer::Manifest, wanted.span.clone()));
    }

    let mut errors = Vec::new();
    let user_root = user.as_ref().is_some_and(|u| u.value == "root");
    if let Some(user) = &user
        && user_root
    {
        merge.sources.insert("user", (user.layer, user.span.clone()));
        if sudo {
            errors.push(
                Diagnostic::error(
                    "config.user_and_sudo",
                    "A capsule cannot both be root and have sudo",
                    format!("`user = \"root\"` meets `sudo`, which {} gives", merge.giver("sudo", profile.value)),
                )
                .at(user.span.clone())
                .help("remove `user`, or choose a profile without sudo"),
            );
        }
    }
    if let (Some(memory), Some(reservation)) = (memory, reservation)
        && reservation > memory
    {
        let span = merge.sources.get("memory_reservation").and_then(|(_, span)| span.clone());
        errors.push(
            Diagnostic::error(
                "config.reservation_over_memory",
                "A memory reservation is above its limit",
                format!("{reservation} bytes are reserved of at most {memory}, which {} gives", merge.giver("memory", profile.value)),
            )
            .at(span)
            .help("lower `memory_reservation` or raise `memory`"),
        );
    }
    if let Some(least) = &role.min_profile
        && profile.value < least.value
    {
        let from = match profile.layer {
            Layer::Flag => "`--docker-profile`".to_owned(),
            Layer::Default => "the default".to_owned(),
            _ => profile.span.as_ref().map_or_else(|| "the configuration".to_owned(), |span| span.to_string()),
        };
        errors.push(
            Diagnostic::error(
                "config.min_profile",
                "A role needs a looser profile",
                format!("the profile is `{}`, set by {from}; the role needs at least `{}`", word(profile.value), word(least.value)),
            )
            .at(profile.span.clone().or_else(|| least.span.clone()))
            .help(format!("set `profile = \"{}\"`, or use another role", word(least.value))),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if profile.value <= Profile::Hardened && dind == Dind::Privileged {
        let (_, span) = merge.sources.get("dind").cloned().unwrap_or((Layer::Profile, None));
        merge.warnings.push(
            Diagnostic::warning(
                "config.privileged_sidecar",
                "A privileged sidecar undoes most of a strict profile",
                format!("profile `{}` is combined with `dind = \"privileged\"`", word(profile.value)),
            )
            .at(span)
            .help("use `dind = \"rootless\"` if the engine has cgroup v2"),
        );
    }
    let sources = merge.sources;
    let grants = EffectiveGrants {
        profile: profile.value,
        network,
        allowed_hosts: hosts.into_iter().collect(),
        dind,
        user_root,
        sudo,
        system_writes,
        memory,
        memory_reservation: reservation,
        cpus,
        pids,
        nofile,
        cap_drop_all: row.cap_drop_all,
        cap_add: CAPABILITIES.iter().filter(|c| added.contains(**c)).map(|c| (*c).to_owned()).collect(),
        no_new_privileges: !sudo,
        // An internal network has no way out, so an allow-list on it could never be reached, not even the agent's API.
        internal_network: profile.value == Profile::Locked && dind == Dind::None && network == NetworkMode::None,
        sources,
    };
    Ok((grants, merge.warnings))
}

pub fn word(profile: Profile) -> &'static str {
    match profile {
        Profile::Locked => "locked",
        Profile::Hardened => "hardened",
        Profile::Standard => "standard",
        Profile::Compat => "compat",
    }
}

struct Merge {
    profile: Profile,
    sources: BTreeMap<&'static str, (Layer, Option<Span>)>,
    warnings: Vec<Diagnostic>,
}

impl Merge {
    fn raise<T: PartialOrd + Copy>(
        &mut self,
        field: &'static str,
        base: T,
        layers: impl Iterator<Item = (Layer, Option<Located<T>>)>,
    ) -> T {
        let mut highest = base;
        for (layer, written) in layers {
            let Some(written) = written else { continue };
            if written.value > highest {
                highest = written.value;
                self.sources.insert(field, (layer, written.span));
            } else if written.value < base {
                self.no_effect(field, written.span, "gives more");
            }
        }
        highest
    }

    /// As `raise`, where nothing is the most: a grant cannot bring a limit into a profile that has none.
    fn limit<T: PartialOrd + Copy>(
        &mut self,
        field: &'static str,
        base: Option<T>,
        layers: impl Iterator<Item = (Layer, Option<Located<T>>)>,
    ) -> Option<T> {
        match base {
            Some(base) => Some(self.raise(field, base, layers)),
            None => {
                for written in layers.filter_map(|(_, written)| written) {
                    self.no_effect(field, written.span, "sets no limit");
                }
                None
            }
        }
    }

    fn no_effect(&mut self, field: &str, span: Option<Span>, why: &str) {
        self.warnings.push(
            Diagnostic::warning(
                "config.grant_no_effect",
                "A grant has no effect",
                format!("`{field}` only raises what the profile gives, and profile `{}` {why}", word(self.profile)),
            )
            .at(span)
            .help("choose a stricter `profile` and raise from there, or remove the line"),
        );
    }

    fn giver(&self, field: &str, profile: Profile) -> String {
        match self.sources.get(field).and_then(|(_, span)| span.as_ref()) {
            Some(span) => span.to_string(),
            None => format!("profile `{}`", word(profile)),
        }
    }
}
