//! What there is to choose from. In: configuration, facts, the rows of `jackin status`. Out: plain words, comparable, so that who draws
//! them knows whether anything changed. Values of environment variables are absent.

use crate::config::{self, Agent, Config, FileKind, Isolation};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::render::status::{Health, StatusRow};
use crate::resource::InstanceRecord;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// The folder one stands in, as people see it.
    pub folder: String,
    /// The saved workspace that covers it.
    pub here: Option<String>,
    /// By name.
    pub workspaces: Vec<Workspace>,
    /// By key.
    pub instances: Vec<Instance>,
    /// Configured ones.
    pub roles: Vec<String>,
    pub engine: Engine,
    /// What is wrong with the configuration beside what stands with a workspace.
    pub problems: Vec<Diagnostic>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    #[default]
    NotAsked,
    Answers,
    /// Why it does not.
    Silent(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workspace {
    pub name: String,
    /// As shown to people, relative to the config folder.
    pub file: String,
    /// Its file cannot be read: all else is empty.
    pub problems: Vec<Diagnostic>,
    pub workdir: String,
    /// Each in words.
    pub mounts: Vec<String>,
    pub default_role: Option<String>,
    pub last_role: Option<String>,
    /// Empty = any.
    pub allowed_roles: Vec<String>,
    pub default_agent: Option<Agent>,
    /// Each in words.
    pub declared: Vec<String>,
    /// Names.
    pub env: Vec<String>,
}

impl Workspace {
    /// The role that `jackin load` takes when none is named.
    pub fn role(&self) -> Option<&String> {
        self.default_role.as_ref().or(self.last_role.as_ref())
    }
}

/// Under which row an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The folder one stands in.
    Here,
    Workspace(String),
    /// A folder that is no workspace, or a workspace that is gone.
    Other(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// `workspace/name`.
    pub key: String,
    pub group: Group,
    pub role: String,
    pub agent: String,
    /// `None`: the engine has not answered.
    pub health: Option<Health>,
    /// Live sessions, when its capsule answers.
    pub sessions: Option<u32>,
    pub session_states: BTreeMap<String, u32>,
    pub container: String,
    pub sidecar: Option<String>,
    pub network: Option<String>,
}

impl Instance {
    pub fn is_live(&self) -> bool {
        self.health == Some(Health::Running) || self.sessions.is_some()
    }

    /// As `jackin status` says it.
    pub fn state(&self) -> &'static str {
        self.health.map_or("unknown", Health::as_str)
    }

    pub fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(self.key.as_str(), |(_, name)| name)
    }
}

/// What a capsule shows: tabs of panes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tab {
    pub label: String,
    pub panes: Vec<Pane>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pane {
    pub session: u64,
    pub label: String,
    /// `None`: a shell.
    pub agent: Option<String>,
    pub state: String,
    /// The one that has the keys.
    pub active: bool,
}

impl World {
    /// `files`: the workspaces that have a file. `rows`: none = the engine does not tell.
    pub fn new(
        config: &Config,
        facts: &Facts,
        files: &BTreeSet<String>,
        said: &[Diagnostic],
        here: Option<String>,
        rows: Option<&[StatusRow]>,
        engine: Engine,
    ) -> World {
        let wrong: Vec<&Diagnostic> = said.iter().filter(|d| d.is_error()).collect();
        let shown = |name: &String| FileKind::Workspace { name: name.clone() }.shown();
        let of = |file: &str| wrong.iter().filter(|d| is_in(d, file)).map(|d| (*d).clone()).collect::<Vec<_>>();
        let broken = files.iter().filter(|name| !config.workspaces.contains_key(*name)).map(|name| Workspace {
            name: name.clone(),
            problems: of(&shown(name)),
            file: shown(name),
            ..Workspace::default()
        });
        let mut workspaces: Vec<Workspace> = config.workspaces.values().map(|w| workspace(facts, w)).chain(broken).collect();
        workspaces.sort_by(|a, b| a.name.cmp(&b.name));
        let problems = wrong.iter().filter(|d| !workspaces.iter().any(|w| is_in(d, &w.file))).map(|d| (*d).clone()).collect();
        let folder = facts.shorten(&facts.cwd);
        let keys: BTreeSet<&String> = match rows {
            Some(rows) => rows.iter().map(|row| &row.instance).collect(),
            None => facts.records.keys().collect(),
        };
        let instances = keys
            .into_iter()
            .map(|key| {
                let row = rows.and_then(|rows| rows.iter().find(|row| row.instance == *key));
                let record = facts.records.get(key);
                let text = |of: fn(&InstanceRecord) -> &String| record.map(|r| of(r).clone()).unwrap_or_default();
                Instance {
                    group: group(key, record, &workspaces, &folder),
                    role: text(|r| &r.role_key),
                    agent: record.map(|r| r.agent_runtime.slug().to_owned()).unwrap_or_default(),
                    health: row.map(|row| row.state),
                    sessions: row.and_then(|row| row.sessions),
                    session_states: row.map(|row| row.session_states.clone()).unwrap_or_default(),
                    container: row.map_or_else(|| text(|r| &r.role_container), |row| row.container.clone()),
                    sidecar: record.and_then(|r| r.dind_container.clone()),
                    network: record.and_then(|r| r.network.clone()),
                    key: key.clone(),
                }
            })
            .collect();
        World { folder, here, workspaces, instances, roles: config.global.roles.keys().cloned().collect(), engine, problems }
    }

    pub fn workspace(&self, name: &str) -> Option<&Workspace> {
        self.workspaces.iter().find(|workspace| workspace.name == name)
    }

    pub fn instance(&self, key: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.key == key)
    }

    pub fn of_group(&self, group: &Group) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.group == *group)
    }
}

fn is_in(diagnostic: &Diagnostic, file: &str) -> bool {
    diagnostic.span.as_ref().is_some_and(|span| span.file == file)
}

fn group(key: &str, record: Option<&InstanceRecord>, workspaces: &[Workspace], folder: &str) -> Group {
    let label = key.rsplit_once('/').map_or(key, |(label, _)| label);
    let name = match record {
        Some(record) => record.workspace_name.as_deref(),
        None => Some(label),
    };
    // Of an ad hoc load the first mount is its folder.
    let loaded = record.and_then(|record| record.ad_hoc_mounts.first()).and_then(|mount| mount.split(':').next());
    match (name, loaded) {
        (Some(name), _) if workspaces.iter().any(|workspace| workspace.name == name) => Group::Workspace(name.to_owned()),
        (Some(name), _) => Group::Other(name.to_owned()),
        (None, Some(loaded)) if loaded == folder => Group::Here,
        (None, Some(loaded)) => Group::Other(loaded.to_owned()),
        (None, None) => Group::Other(label.to_owned()),
    }
}

fn workspace(facts: &Facts, w: &config::Workspace) -> Workspace {
    let mount = |m: &config::Mount| {
        let isolation = match m.isolation.value {
            Isolation::Shared => "",
            Isolation::Worktree => ", worktree",
            Isolation::Clone => ", clone",
        };
        let (src, readonly) = (facts.shorten(&facts.expand(&m.src.value)), if m.readonly { ", read-only" } else { "" });
        format!("{src} -> {}{readonly}{isolation}", m.dst.value)
    };
    let declared = w.declared().into_iter().map(|d| {
        let agent = d.agent.map(|agent| format!(", {}", agent.value)).unwrap_or_default();
        format!("{}: {}{agent}", d.name.value, d.role.value)
    });
    let env: BTreeSet<&String> = w.env.keys().chain(w.roles.values().flat_map(|role| role.env.keys())).collect();
    Workspace {
        name: w.name.clone(),
        file: w.file.clone(),
        problems: Vec::new(),
        workdir: w.workdir.value.clone(),
        mounts: w.mounts.iter().map(mount).collect(),
        default_role: w.default_role.as_ref().map(|role| role.value.clone()),
        last_role: w.last_role.clone(),
        allowed_roles: w.allowed_roles.iter().map(|role| role.value.clone()).collect(),
        default_agent: w.default_agent.as_ref().map(|agent| agent.value),
        declared: declared.collect(),
        env: env.into_iter().cloned().collect(),
    }
}
