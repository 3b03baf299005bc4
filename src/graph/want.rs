//! Which instances a command is about, as data: declared ones from workspace files, or one that a person loads ad hoc.
//!
//! In: `Config`, facts, a selection. Out: `Wanted`, complete but for the role's own manifest. Absent: mounts' existence, Docker.

use super::names;
use crate::config::{Agent, Config, DockerPolicy, Isolation, Located, Mount, Profile, Workspace};
use crate::diagnostic::{Diagnostic, Span};
use crate::facts::Facts;
use crate::resource::InstanceRecord;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
pub struct Wanted {
    /// Instance key, `workspace/name`.
    pub key: String,
    pub instance_id: String,
    /// Container name of the capsule; every other name follows from it.
    pub container: String,
    /// Name of the saved workspace; `None` for a folder loaded ad hoc.
    pub workspace: Option<String>,
    pub workdir: Located<String>,
    pub mounts: Vec<Mount>,
    pub role: String,
    /// Where the role was asked for.
    pub role_source: String,
    /// `None`: the role's only agent, or a choice somebody has to make.
    pub agent: Option<Located<Agent>>,
    pub agent_source: String,
    pub docker: DockerPolicy,
    pub profile_flag: Option<Profile>,
    pub branch: Option<String>,
    pub declared: bool,
    pub ad_hoc_mounts: Vec<String>,
    /// It is to be started and paused, for a later launch to take.
    pub spare: bool,
}

/// The instances that these workspaces declare, all workspaces' when `names` is empty. Unknown names become diagnostics.
pub fn declared(config: &Config, facts: &Facts, names: &[String]) -> (Vec<Wanted>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut wanted = Vec::new();
    for name in names {
        if !config.workspaces.contains_key(name) {
            diagnostics.push(unknown_workspace(config, name));
        }
    }
    for workspace in config.workspaces.values().filter(|w| names.is_empty() || names.contains(&w.name)) {
        let declared = workspace.declared();
        if declared.is_empty() && names.contains(&workspace.name) {
            diagnostics.push(
                Diagnostic::warning(
                    "workspace.declares_nothing",
                    "A workspace declares no instance",
                    format!("`{}` has no `[[instance]]` and no `default_role`.", workspace.name),
                )
                .at(workspace.workdir.span.clone())
                .help("Add `default_role = \"…\"`, or load a role into it with `jackin load ROLE WORKSPACE`."),
            );
        }
        for instance in declared {
            let key = format!("{}/{}", workspace.name, instance.name.value);
            wanted.push(from_workspace(facts, workspace, key, &instance.role, instance.agent, instance.docker, true));
        }
    }
    (wanted, diagnostics)
}

pub fn unknown_workspace(config: &Config, name: &str) -> Diagnostic {
    let known: Vec<&str> = config.workspaces.keys().map(String::as_str).collect();
    let help = match crate::config::reader::near(name, known.iter().copied()) {
        Some(near) => format!("Did you mean `{near}`? `jackin workspace list` shows all."),
        None if known.is_empty() => "There are none yet: `jackin workspace create NAME --workdir PATH --mount PATH`.".to_owned(),
        None => format!("Known: {}.", known.join(", ")),
    };
    Diagnostic::error("workspace.unknown", "No such workspace", format!("`{name}` is not a saved workspace.")).help(help)
}

/// An instance of a saved workspace. A declared one has the same id in every run; the record of an earlier run wins over both.
fn from_workspace(
    facts: &Facts,
    workspace: &Workspace,
    key: String,
    role: &Located<String>,
    agent: Option<Located<Agent>>,
    docker: DockerPolicy,
    declared: bool,
) -> Wanted {
    let id = match facts.records.get(&key) {
        Some(record) if record.role_key == role.value => record.instance_id.clone(),
        _ if declared => names::declared_id(&facts.installation, &format!("{key} {}", role.value)),
        _ => names::fresh_id(&facts.installation, &facts.seed, &key),
    };
    Wanted {
        container: names::container_base(&id, Some(&workspace.name), &role.value),
        instance_id: id,
        key,
        workspace: Some(workspace.name.clone()),
        workdir: workspace.workdir.clone(),
        mounts: workspace.mounts.clone(),
        role: role.value.clone(),
        role_source: place(&role.span, "default"),
        agent_source: agent.as_ref().map_or_else(|| "the role's only agent".to_owned(), |a| place(&a.span, "flag")),
        agent,
        docker,
        profile_flag: None,
        branch: None,
        declared,
        ad_hoc_mounts: Vec::new(),
        spare: false,
    }
}

/// What a person loads.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    pub role: String,
    pub target: Target<'a>,
    pub agent: Option<Agent>,
    /// Further mounts, from `--mount`.
    pub mounts: Vec<Mount>,
    pub profile: Option<Profile>,
    pub branch: Option<String>,
    /// Which of several that one run makes.
    pub number: usize,
}

#[derive(Debug, Clone)]
pub enum Target<'a> {
    Workspace(&'a Workspace),
    /// A host folder and where it appears in the container.
    Folder {
        host: String,
        container: String,
    },
}

/// A new instance with an id of its own.
pub fn fresh(facts: &Facts, load: Load<'_>) -> Wanted {
    let role = Located::bare(load.role.clone());
    let agent = load.agent.map(Located::bare);
    let fresh_id = |label: &str| {
        let label = if load.number == 0 { label.to_owned() } else { format!("{label} {}", load.number) };
        names::fresh_id(&facts.installation, &facts.seed, &label)
    };
    let mut wanted = match &load.target {
        Target::Workspace(workspace) => {
            let id = fresh_id(&workspace.name);
            let key = format!("{}/{id}", workspace.name);
            let agent = agent.or_else(|| workspace.default_agent.clone());
            let mut wanted = from_workspace(facts, workspace, key, &role, agent, DockerPolicy::default(), false);
            wanted.container = names::container_base(&id, Some(&workspace.name), &role.value);
            wanted.instance_id = id;
            wanted
        }
        Target::Folder { host, container } => {
            let label = folder_label(host);
            let id = fresh_id(host);
            Wanted {
                key: format!("{label}/{id}"),
                container: names::container_base(&id, None, &role.value),
                instance_id: id,
                workspace: None,
                workdir: Located::bare(container.clone()),
                mounts: vec![Mount {
                    src: Located::bare(host.clone()),
                    dst: Located::bare(container.clone()),
                    readonly: false,
                    isolation: Located::bare(Isolation::Shared),
                }],
                role: role.value.clone(),
                role_source: "command line".to_owned(),
                agent_source: "command line".to_owned(),
                agent,
                docker: DockerPolicy::default(),
                profile_flag: None,
                branch: None,
                declared: false,
                ad_hoc_mounts: Vec::new(),
                spare: false,
            }
        }
    };
    wanted.role_source = "command line".to_owned();
    wanted.mounts.extend(load.mounts.clone());
    let ad_hoc = match &load.target {
        Target::Workspace(_) => &load.mounts[..],
        Target::Folder { .. } => &wanted.mounts[..],
    };
    wanted.ad_hoc_mounts = ad_hoc
        .iter()
        .map(|m| format!("{}:{}{}", facts.shorten(&facts.expand(&m.src.value)), m.dst.value, if m.readonly { ":ro" } else { "" }))
        .collect();
    wanted.profile_flag = load.profile;
    wanted.branch = load.branch;
    wanted
}

/// Declared instances of this role and agent. Where the file names no agent, because the role has only one, the record tells which.
pub fn declared_alike(config: &Config, facts: &Facts, workspace: &Workspace, role: &str, agent: Option<Agent>) -> Vec<Wanted> {
    let (mut wanted, _) = declared(config, facts, std::slice::from_ref(&workspace.name));
    wanted.retain_mut(|candidate| {
        let recorded = || facts.records.get(&candidate.key).map(|record| record.agent_runtime);
        let runs = candidate.agent.as_ref().map(|agent| agent.value).or_else(recorded);
        let alike = candidate.role == role && agent.is_none_or(|agent| runs == Some(agent));
        // The role may have another agent by now, and then it is this one that it lacks.
        if let (Some(agent), None) = (agent, &candidate.agent) {
            candidate.agent = Some(Located::bare(agent));
            candidate.agent_source = "flag".to_owned();
        }
        alike
    });
    wanted
}

/// Is this the record of an instance that the same load made earlier? `agent`: none = whichever it was.
pub fn loaded_alike(record: &InstanceRecord, load: &Wanted, agent: Option<Agent>) -> bool {
    !record.declared
        && record.workspace_name == load.workspace
        && record.workdir == load.workdir.value
        && record.role_key == load.role
        && record.role_source_ref.is_none()
        && record.ad_hoc_mounts == load.ad_hoc_mounts
        && agent.is_none_or(|agent| agent == record.agent_runtime)
}

/// Spares that no workspace declares, as they would be made now; and the keys of those that could not be.
pub fn loaded_spares(
    config: &Config,
    facts: &Facts,
    declared: &[Wanted],
    in_scope: impl Fn(&str) -> bool,
) -> (Vec<Wanted>, BTreeSet<String>) {
    let (mut spares, mut abandoned) = (Vec::new(), BTreeSet::new());
    for key in facts.spares.iter().filter(|key| in_scope(key) && !declared.iter().any(|wanted| wanted.key == **key)) {
        match facts.records.get(key).map(|record| recorded(config, facts, record)) {
            Some(Ok(wanted)) => spares.push(Wanted { spare: true, ..wanted }),
            Some(Err(_)) | None => drop(abandoned.insert(key.clone())),
        }
    }
    (spares, abandoned)
}

/// An instance as its own record tells it, for coming back to it. The saved workspace gives mounts and rules when it still exists.
pub fn recorded(config: &Config, facts: &Facts, record: &InstanceRecord) -> Result<Wanted, Diagnostic> {
    let role = Located::bare(record.role_key.clone());
    let agent = Some(Located::bare(record.agent_runtime));
    let extra: Vec<Mount> = record.ad_hoc_mounts.iter().map(|spec| parse_recorded_mount(spec)).collect();
    let mut wanted = match record.workspace_name.as_ref().map(|name| (name, config.workspaces.get(name))) {
        Some((_, Some(workspace))) => {
            let docker = workspace
                .declared()
                .into_iter()
                .find(|d| format!("{}/{}", workspace.name, d.name.value) == record.instance)
                .map(|d| d.docker)
                .unwrap_or_default();
            from_workspace(facts, workspace, record.instance.clone(), &role, agent, docker, record.declared)
        }
        Some((name, None)) => {
            return Err(Diagnostic::error(
                "instance.workspace_gone",
                "The workspace of this instance is gone",
                format!("{} was loaded from workspace `{name}`, which no longer exists.", record.instance),
            )
            .help(format!("Create the workspace again, or remove the instance with `jackin eject {}`.", record.instance)));
        }
        None => Wanted {
            key: record.instance.clone(),
            instance_id: record.instance_id.clone(),
            container: record.role_container.clone(),
            workspace: None,
            workdir: Located::bare(record.workdir.clone()),
            mounts: Vec::new(),
            role: record.role_key.clone(),
            role_source: "instance record".to_owned(),
            agent,
            agent_source: "instance record".to_owned(),
            docker: DockerPolicy::default(),
            profile_flag: None,
            branch: None,
            declared: record.declared,
            ad_hoc_mounts: Vec::new(),
            spare: false,
        },
    };
    wanted.mounts.extend(extra);
    wanted.ad_hoc_mounts = record.ad_hoc_mounts.clone();
    wanted.container = record.role_container.clone();
    wanted.instance_id = record.instance_id.clone();
    wanted.branch = record.role_source_ref.clone();
    Ok(wanted)
}

fn parse_recorded_mount(spec: &str) -> Mount {
    let (spec, readonly) = spec.strip_suffix(":ro").map_or((spec, false), |s| (s, true));
    let (src, dst) = spec.split_once(':').unwrap_or((spec, spec));
    Mount { src: Located::bare(src.to_owned()), dst: Located::bare(dst.to_owned()), readonly, isolation: Located::bare(Isolation::Shared) }
}

/// The last part of a path, as the workspace half of an instance key.
fn folder_label(host: &str) -> String {
    let label: String = host
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or("root")
        .chars()
        .map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    label
}

pub fn place(span: &Option<Span>, otherwise: &str) -> String {
    span.as_ref().map_or_else(|| otherwise.to_owned(), ToString::to_string)
}
