//! What `jackin prewarm` wants, as a graph without instances: programs, role repos, images, a sidecar that nobody uses yet.
//!
//! In: what was asked for, the configuration, facts. Out: which roles have to be looked at (`wishes`), then the graph. What is asked for
//! twice is in the graph once, and a notice says so. Absent: Docker; what exists already is the planner's business.

use super::build::{Builder, Built, role_slot, sidecar_spec, slot};
use super::spare::SpareGoal;
use super::want::{Wanted, unknown_workspace};
use super::{Resource, names, programs};
use crate::config::role_key::RoleKey;
use crate::config::{Agent, Config, Dind, Workspace, layer};
use crate::diagnostic::{Diagnostic, Severity};
use crate::facts::{Facts, RoleProblem};
use crate::resource::{Address, Certs, Kind, Network, Spec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The code of what is said of a role that something is wrong with, while others are prewarmed.
pub const LEFT_OUT: &str = "prewarm.left_out";

/// What is to become of the sidecars that prewarming starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SidecarGoal {
    /// It came up once; then it is removed.
    Try,
    /// It stays, for the next launch to take over.
    Keep,
}

/// The command line, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goal {
    /// Programs to have; none = all agents'. With images: which agents they must serve.
    pub agents: BTreeSet<Agent>,
    /// `--sidecar`.
    pub sidecar_image: bool,
    pub sidecar: Option<KeptGoal>,
    /// `--instance`.
    pub spare: Option<SpareGoal>,
    /// `--roles`.
    pub roles: bool,
    /// `--image`.
    pub images: bool,
    pub choice: Choice,
    /// `--role-branch`.
    pub branch: Option<String>,
}

impl Goal {
    /// Whose programs are to be there: the agents that were named, else all; a spare alone brings its own.
    pub fn programs(&self) -> Vec<Agent> {
        match (self.agents.is_empty(), &self.spare) {
            (true, None) => Agent::ALL.to_vec(),
            _ => self.agents.iter().copied().collect(),
        }
    }
}

/// A sidecar of its own, started before anybody needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptGoal {
    pub then: SidecarGoal,
    pub count: u16,
    /// The flag that asked for it.
    pub flag: &'static str,
}

/// Whose roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// Every role that is configured or built in; with `--image` this is `--all-roles`.
    #[default]
    Configured,
    Role {
        role: String,
        git: Option<String>,
    },
    Workspace(String),
    AllWorkspaces,
}

/// One role that is wanted, with everybody who wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleWish {
    pub role: String,
    pub branch: Option<String>,
    /// In the place of the configured one.
    pub url: Option<String>,
    /// Workspaces whose default it is, each with the agents its image must serve; none = all that the role supports.
    pub workspaces: BTreeMap<String, BTreeSet<Agent>>,
}

impl RoleWish {
    pub fn slot(&self) -> String {
        slot(&self.role, self.branch.as_deref())
    }
}

/// The roles that matter, each once, by slot; and what is wrong with asking for them.
pub fn wishes(config: &Config, goal: &Goal) -> (BTreeMap<String, RoleWish>, Vec<Diagnostic>) {
    let mut out: BTreeMap<String, RoleWish> = BTreeMap::new();
    let mut said = Vec::new();
    if !goal.roles && !goal.images {
        return (out, said);
    }
    let mut want = |role: &str, url: Option<&String>, workspace: Option<&Workspace>| {
        let wish = RoleWish { role: role.to_owned(), branch: goal.branch.clone(), url: url.cloned(), workspaces: BTreeMap::new() };
        let wish = out.entry(wish.slot()).or_insert(wish);
        if let Some(workspace) = workspace {
            wish.workspaces.insert(workspace.name.clone(), agents_of(goal, workspace));
        }
    };
    match &goal.choice {
        Choice::Configured => config.global.roles.keys().for_each(|role| want(role, None, None)),
        Choice::Role { role, git } => match RoleKey::parse(role) {
            Ok(key) => want(&key.to_string(), git.as_ref(), None),
            Err(diagnostic) => said.push(diagnostic),
        },
        Choice::Workspace(name) => match config.workspaces.get(name) {
            None => said.push(unknown_workspace(config, name)),
            Some(workspace) => match &workspace.default_role {
                Some(role) => want(&role.value, None, Some(workspace)),
                None => said.push(
                    Diagnostic::error("prewarm.no_default_role", "The workspace has no default role", format!("`{name}`"))
                        .at(workspace.workdir.span.clone())
                        .help(format!("Set `default_role` in it, or name the role: `jackin prewarm {} --role ROLE`.", verb(goal))),
                ),
            },
        },
        Choice::AllWorkspaces => {
            for workspace in config.workspaces.values() {
                if let Some(role) = &workspace.default_role {
                    want(&role.value, None, Some(workspace));
                }
            }
            if out.is_empty() {
                said.push(nothing_eligible(goal, "No saved workspace has a default role."));
            }
        }
    }
    (out, said)
}

fn verb(goal: &Goal) -> &'static str {
    if goal.images { "--image" } else { "--roles" }
}

/// Images that were asked for and that nobody can want fail the command; role repos that nobody has are none to be fetched.
fn nothing_eligible(goal: &Goal, detail: &str) -> Diagnostic {
    let (code, summary) = ("prewarm.nothing_eligible", "There is nothing to prewarm");
    let said = if goal.images { Diagnostic::error(code, summary, detail) } else { Diagnostic::notice(code, summary, detail) };
    said.help("Set `default_role` in a workspace, or name a role with --role.")
}

fn agents_of(goal: &Goal, workspace: &Workspace) -> BTreeSet<Agent> {
    if goal.agents.is_empty() { workspace.default_agent.iter().map(|agent| agent.value).collect() } else { goal.agents.clone() }
}

pub fn build(config: &Config, facts: &Facts, goal: &Goal, wishes: &BTreeMap<String, RoleWish>, spares: &[Wanted]) -> Built {
    let mut builder = Builder::new(config, facts);
    builder.programs(goal);
    let mut tiers: BTreeSet<Dind> = BTreeSet::new();
    let mut images = 0;
    // Of several that nobody named one by one, a wrong one does not keep the others.
    let may_lack = wishes.len() > 1 && matches!(goal.choice, Choice::Configured | Choice::AllWorkspaces);
    let mut left_out = Vec::new();
    for wish in wishes.values() {
        let before = may_lack.then(|| builder.built.graph.resources.clone());
        let said = builder.built.graph.diagnostics.len();
        let image = if goal.images { builder.image_of(goal, wish) } else { builder.repo_of(wish) };
        let said = said..builder.built.graph.diagnostics.len();
        let wrong = builder.built.graph.diagnostics[said.clone()].iter().any(Diagnostic::is_error);
        if let Some(before) = before.filter(|_| wrong) {
            builder.built.graph.resources = before;
            left_out.push((wish.slot(), said));
        } else if let Some(wanted) = image {
            images += 1;
            tiers.extend(wanted);
        }
    }
    if left_out.len() < wishes.len() {
        builder.leave_out(left_out);
    }
    if goal.images && images == 0 && !wishes.is_empty() && !builder.built.graph.diagnostics.iter().any(Diagnostic::is_error) {
        let detail = format!("None of the roles supports {}.", listed(&goal.agents));
        builder.say(nothing_eligible(goal, &detail));
    }
    builder.sidecars(goal, &tiers, images > 0);
    spares.iter().for_each(|spare| builder.instance(spare));
    // Who asks the engine anyway clears away what nobody can use.
    if goal.images || goal.sidecar_image || goal.sidecar.is_some() || goal.spare.is_some() {
        builder.built.graph.kept = Some(kept_recipe(config, facts));
    }
    builder.built
}

/// What a kept sidecar is made from now, with its network and volume.
pub fn kept_recipe(config: &Config, facts: &Facts) -> BTreeMap<Address, Resource> {
    let mut builder = Builder::new(config, facts);
    builder.kept("recipe", "default");
    builder.built.graph.resources.retain(|address, _| address.pool_id().is_some());
    builder.built.graph.resources
}

fn listed(agents: &BTreeSet<Agent>) -> String {
    agents.iter().map(|agent| agent.slug()).collect::<Vec<_>>().join(", ")
}

fn planned_once(address: &Address, detail: String) -> Diagnostic {
    Diagnostic::notice("prewarm.planned_once", "Asked for more than once, planned once", detail).on(address)
}

impl Builder<'_> {
    /// Programs of agents, and the capsule's. What nobody can fetch is left to the vendor's installer, in the image build.
    fn programs(&mut self, goal: &Goal) {
        programs::add(&mut self.built.graph, self.facts, goal.programs(), false);
        match programs::capsule(self.facts) {
            Ok(capsule) => {
                capsule.put(&mut self.built.graph);
            }
            // An image without it is refused; programs alone are not.
            Err(_) if goal.images => {}
            Err(mut missing) => {
                missing.severity = Severity::Warning;
                self.say(missing);
            }
        }
    }

    /// What is wrong with these roles stops nothing; that they are missing is told, and by the command's end as well.
    fn leave_out(&mut self, roles: Vec<(String, Range<usize>)>) {
        for (slot, said) in roles {
            for diagnostic in &mut self.built.graph.diagnostics[said] {
                diagnostic.severity = diagnostic.severity.max(Severity::Warning);
            }
            let detail = format!("`{slot}` is not prewarmed, for the other reason that is told of it.");
            self.say(Diagnostic::warning(LEFT_OUT, "A role is left out", detail).on(Address::new(Kind::RoleRepo, slot)));
        }
    }

    /// The clone alone. What is wrong inside it is a matter of the images that would be built from it. No sidecar is started for it.
    fn repo_of(&mut self, wish: &RoleWish) -> Option<BTreeSet<Dind>> {
        let snapshot = self.facts.roles.get(&wish.slot())?;
        let before = self.built.graph.diagnostics.len();
        let sound = self.checked_role(&wish.role, wish.branch.as_deref()).is_some();
        if !sound && snapshot.problem.is_none() && snapshot.dirty.is_empty() {
            for diagnostic in &mut self.built.graph.diagnostics[before..] {
                diagnostic.severity = diagnostic.severity.max(Severity::Warning);
            }
        }
        self.clone_of(wish);
        None
    }

    fn clone_of(&mut self, wish: &RoleWish) {
        let Some(address) = self.role_repo(&wish.role, wish.branch.as_deref()) else {
            return;
        };
        if wish.url.is_some()
            && let Some(resource) = self.built.graph.resources.get_mut(&address)
        {
            resource.sources.insert("url".to_owned(), "--role-git".to_owned());
        }
        if wish.workspaces.len() > 1 {
            let names: Vec<&str> = wish.workspaces.keys().map(String::as_str).collect();
            self.say(planned_once(&address, format!("It is the default role of {}.", names.join(", "))));
        }
    }

    /// The derived image and all it needs; the tiers of the sidecars that its launches start. `None`: not built.
    fn image_of(&mut self, goal: &Goal, wish: &RoleWish) -> Option<BTreeSet<Dind>> {
        let branch = wish.branch.as_deref();
        let role = self.checked_role(&wish.role, branch)?;
        let supported: BTreeSet<Agent> = role.manifest.agents.iter().copied().collect();
        let everybody = BTreeMap::from([(String::new(), goal.agents.clone())]);
        let wanted_by = if wish.workspaces.is_empty() { &everybody } else { &wish.workspaces };
        let mut served: BTreeMap<&str, BTreeSet<Agent>> = BTreeMap::new();
        for (workspace, agents) in wanted_by {
            let fitting: BTreeSet<Agent> = if agents.is_empty() { supported.clone() } else { agents & &supported };
            let missing = agents - &supported;
            if !missing.is_empty() {
                let whose = if workspace.is_empty() { String::new() } else { format!(" of workspace `{workspace}`") };
                let detail = format!("Role `{}`{whose} supports {}, not {}.", wish.role, listed(&supported), listed(&missing));
                let (code, summary) = ("agent.unsupported", "The role does not support this agent");
                let alone = matches!(goal.choice, Choice::Role { .. } | Choice::Workspace(_));
                self.say(match fitting.is_empty() && alone {
                    true => Diagnostic::error(code, summary, detail)
                        .help("Choose one of them with --agent, or add the agent to the role's `agents`."),
                    false => Diagnostic::notice(code, summary, detail),
                });
            }
            if !fitting.is_empty() {
                served.insert(workspace, fitting);
            }
        }
        if served.is_empty() {
            return None;
        }
        let parts = self.role_parts(&wish.role, branch)?;
        self.clone_of(wish);
        let agents: BTreeSet<Agent> = served.values().flatten().copied().collect();
        let names: Vec<String> = served.iter().map(|(name, agents)| format!("{name} ({})", listed(agents))).collect();
        if served.len() > 1 {
            self.say(planned_once(&parts.derived, format!("One image serves the workspaces {}.", names.join(", "))));
        } else if agents.len() > 1 {
            self.say(planned_once(&parts.derived, format!("One image serves the agents {}.", listed(&agents))));
        }
        let mut tiers = BTreeSet::new();
        for name in served.keys() {
            let workspace = self.config.workspaces.get(*name);
            match layer::grants(&self.config.global, workspace, None, None, &role.manifest.docker) {
                Ok((grants, _)) => {
                    tiers.insert(grants.dind);
                }
                Err(mistakes) => self.built.graph.diagnostics.extend(mistakes),
            }
        }
        Some(tiers)
    }

    /// The images that sidecars are started from, and sidecars of their own.
    fn sidecars(&mut self, goal: &Goal, tiers: &BTreeSet<Dind>, images: bool) {
        let mut wanted: BTreeMap<Address, Vec<&str>> = BTreeMap::new();
        for tier in tiers.iter().filter(|tier| **tier != Dind::None) {
            wanted.entry(self.dind_image(*tier)).or_default().push("--image");
        }
        if images && wanted.is_empty() {
            self.say(
                Diagnostic::notice(
                    "prewarm.no_sidecar",
                    "No sidecar image is needed",
                    "None of these launches starts a private Docker daemon.",
                )
                .help("`[docker] profile = \"compat\"` starts one."),
            );
        }
        if goal.sidecar_image {
            wanted.entry(self.dind_image(Dind::Privileged)).or_default().push("--sidecar");
        }
        if let Some(kept) = &goal.sidecar {
            let image = self.dind_image(Dind::Privileged);
            for number in 0..kept.count {
                let id = names::fresh_id(&self.facts.installation, &self.facts.seed, &format!("prewarm-dind {number}"));
                let id = if kept.then == SidecarGoal::Try { names::tried_id(&id) } else { id };
                self.kept(&id, kept.flag);
            }
            let flags = wanted.entry(image.clone()).or_default();
            if kept.flag == "--daemon" && flags.is_empty() {
                self.say(
                    Diagnostic::notice(
                        "prewarm.skipped_duplicate",
                        "The separate prewarm of the sidecar image is skipped",
                        "--daemon starts a sidecar, for which the image is pulled where it is missing.",
                    )
                    .on(&image),
                );
            }
            flags.push(kept.flag);
        }
        for (image, flags) in wanted {
            if let [rest @ .., last] = &flags[..]
                && !rest.is_empty()
            {
                self.say(planned_once(&image, format!("{} and {last} need it.", rest.join(", "))));
            }
        }
    }

    /// A sidecar that belongs to nobody, with its network and volume.
    fn kept(&mut self, id: &str, flag: &str) {
        let base = names::pool_base(id);
        let (sidecar, network, certs) = (names::sidecar(&base), names::network(&base), names::pool_certs(&base));
        let image = self.dind_image(Dind::Privileged);
        let at = |kind| Address::pool(kind, id);
        let name_source = || [("name", flag.to_owned())];
        let spec = Network { name: network.clone(), internal: false, owner: base.clone() };
        self.add(at(Kind::Network), Spec::Network(spec), [], &name_source());
        let spec = Certs { name: certs.clone(), owner: base.clone() };
        self.add(at(Kind::Certs), Spec::Certs(spec), [], &name_source());
        let spec = sidecar_spec(&sidecar, &image.name, Dind::Privileged, &network, &certs, &base);
        let sources = [("name", flag.to_owned()), ("image", self.dind_source())];
        self.add(at(Kind::Sidecar), Spec::Sidecar(spec), [image, at(Kind::Network), at(Kind::Certs)], &sources);
    }
}

/// Roles that were not fetched because nothing may change: taken out of the facts, and told.
pub fn leave_out_unknown(facts: &mut Facts, wishes: &mut BTreeMap<String, RoleWish>, spares: &mut Vec<Wanted>) -> Vec<Diagnostic> {
    let asked: BTreeSet<String> = wishes.keys().cloned().chain(spares.iter().map(role_slot)).collect();
    let not_cached = |slot: &String| facts.roles.get(slot).is_some_and(|snapshot| snapshot.problem == Some(RoleProblem::NotCached));
    let unknown: Vec<String> = asked.into_iter().filter(not_cached).collect();
    let mut said = Vec::new();
    for slot in unknown {
        wishes.remove(&slot);
        spares.retain(|spare| role_slot(spare) != slot);
        let snapshot = facts.roles.remove(&slot);
        let url = snapshot.map(|s| s.url).unwrap_or_default();
        said.push(
            Diagnostic::warning(
                "prewarm.not_cloned",
                "A role would be cloned",
                format!("`{slot}` from {url}; what else it needs is known then."),
            )
            .on(Address::new(Kind::RoleRepo, slot))
            .help("`jackin prewarm --roles` clones it."),
        );
    }
    said
}
