//! plan(&Graph, &Observed, &PlanOptions) -> Plan: a pure function that reads as the decision table of `docs/planning.md`.
//!
//! In: what should be, what is, what the person asked for. Out: every change with its reasons, the cheaper actions that were
//! looked at, what would be lost, and the steps with their edges, so complete that applying has no choice left.
//! Absent: I/O, clock, randomness, questions. What forbids applying is a diagnostic inside the plan.

mod action;
mod adopt;
mod diff;
mod document;
mod spare;
mod steps;

pub use action::{Action, Considered, Reason};
pub use adopt::minds_pool;
pub use diff::{Cause, FieldChange};
pub use document::*;
pub use spare::HELD_BACK;
pub use steps::{Effect, Step, StepId};

use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Resource, programs};
use crate::observed::{Found, Loss, Observed, State};
use crate::resource::{Address, Fields, Kind, Origin, Rung, Spec, label};
use diff::{Difference, differences};
use spare::take_spare;
use std::collections::{BTreeMap, BTreeSet};

/// The oldest Docker API that jackin speaks.
pub const OLDEST_API: (u32, u32) = (1, 41);

pub fn plan(graph: &Graph, observed: &Observed, options: &PlanOptions) -> Plan {
    let (graph, adopted) = adopt::adopt(graph, observed, options);
    let mut diagnostics = graph.diagnostics.clone();
    let order = match graph.order() {
        Ok(order) => order.into_iter().cloned().collect::<Vec<_>>(),
        Err(cycle) => {
            diagnostics.push(
                Diagnostic::error("graph.cycle", "Resources depend on each other in a circle", cycle.to_string())
                    .help("Remove one of these dependencies from the configuration."),
            );
            Vec::new()
        }
    };
    let in_scope = scope_of_targets(&graph, options, &mut diagnostics);
    let mut planner =
        Planner { graph: &graph, dependents: graph.dependents(), observed, options, adopted: &adopted, changes: BTreeMap::new() };

    // Per-instance things first, in dependency order; then artifacts, dependents first, because an artifact is only worth
    // making when something made now is built on it.
    for address in order.iter().filter(|a| in_scope(a) && a.kind.per_instance()) {
        planner.decide_instance_part(address);
    }
    planner.decide_stale_spares();
    for address in order.iter().rev().filter(|a| in_scope(a) && !a.kind.per_instance()) {
        planner.decide_artifact(address);
    }
    planner.decide_stale();
    planner.decide_undeclared(&mut diagnostics);
    diagnostics.retain(|diagnostic| planner.matters(diagnostic));
    diagnostics.extend(planner.older_agents());
    let taken = planner.taken();
    let mut changes = planner.changes;

    judge_strangers(&graph, observed, &changes, &mut diagnostics);
    // What lies on this host alone needs no engine.
    if options.mode != Mode::PrewarmOnly || graph.resources.keys().any(|a| a.kind.on_engine()) {
        judge_engine(observed, &mut diagnostics);
    }
    diagnostics.extend(taken);
    diagnostics.extend(notices(&graph, &changes));

    let steps = steps::lower(&graph, &mut changes);
    document::assemble(&graph, observed, options, changes, steps, diagnostics)
}

/// `--target`: those resources and all they need.
fn scope_of_targets(graph: &Graph, options: &PlanOptions, diagnostics: &mut Vec<Diagnostic>) -> impl Fn(&Address) -> bool + use<> {
    for (flag, address) in options.targets.iter().map(|a| ("--target", a)).chain(options.replace.iter().map(|a| ("--replace", a))) {
        if !graph.resources.contains_key(address) {
            let mut problem = Diagnostic::error("plan.unknown_address", "No such resource in this plan", format!("{flag} {address}"));
            if let Some(near) = nearest(address, graph.resources.keys()) {
                problem = problem.help(format!("Did you mean {near}? `jackin graph` lists every address."));
            } else {
                problem = problem.help("`jackin graph` lists every address.");
            }
            diagnostics.push(problem);
        }
    }
    let all = options.targets.is_empty();
    if !all {
        diagnostics.push(Diagnostic::warning(
            "plan.partial",
            "The plan covers only a part of the resources",
            "--target leaves everything else as it is, so a later plan may show more changes.",
        ));
    }
    let wanted = graph.closure(options.targets.iter().cloned());
    move |address: &Address| all || wanted.contains(address)
}

fn nearest<'a>(wanted: &Address, all: impl Iterator<Item = &'a Address>) -> Option<&'a Address> {
    let wanted_text = wanted.to_string();
    all.filter(|a| a.kind == wanted.kind || a.name == wanted.name)
        .max_by_key(|a| a.to_string().chars().zip(wanted_text.chars()).take_while(|(x, y)| x == y).count())
}

struct Planner<'a> {
    graph: &'a Graph,
    dependents: BTreeMap<&'a Address, Vec<&'a Address>>,
    observed: &'a Observed,
    options: &'a PlanOptions,
    adopted: &'a adopt::Adopted,
    changes: BTreeMap<Address, Change>,
}

impl Planner<'_> {
    /// Home, network, certs, sidecar, capsule, checkout.
    fn decide_instance_part(&mut self, address: &Address) {
        let resource = &self.graph.resources[address];
        if let Some(from) = self.adopted.source(address) {
            let mut change = Change::new(address, Some(resource), Action::Adopt, vec![Reason::Adoptable { from: from.to_owned() }]);
            change.spare = self.is_spare_wanted(address);
            self.changes.insert(address.clone(), change);
            return;
        }
        if self.is_taken(address) {
            let mut change = Change::new(address, Some(resource), Action::Reuse, Vec::new());
            change.found = self.observed.found(address).first().map(|found| FoundRef { id: found.id.clone(), name: found.name.clone() });
            self.changes.insert(address.clone(), change);
            return;
        }
        let (keeper, extras) = match address.kind {
            // A folder elsewhere, such as the home under a former role, is another durable thing and not in the way.
            Kind::Home | Kind::Checkout => {
                (self.observed.found(address).iter().find(|f| f.name == resource.spec.object_name()), Vec::new())
            }
            _ => choose(self.observed.found(address), resource),
        };
        let Some(found) = keeper else {
            let disposable = address.pool_id().is_some() && self.options.sidecar == Some(SidecarGoal::Try);
            let why = if disposable { Reason::Requested { flag: "--sidecar-container".to_owned() } } else { Reason::Missing };
            let mut change = Change::new(address, Some(resource), Action::Create, vec![why]);
            change.disposable = disposable;
            change.spare = self.is_spare_wanted(address);
            change.considered.push(Considered { action: Action::Reuse, ruled_out_by: Reason::Absent });
            if let Some(why_not) = self.adopted.refusal(address) {
                change.considered.push(Considered { action: Action::Adopt, ruled_out_by: why_not.clone() });
            }
            change.fields = Vec::new();
            self.changes.insert(address.clone(), change);
            return;
        };
        let mut differences = self.compare(address, resource, found);
        differences.extend(self.dependency_differences(address, resource, found));
        let mut change = settle(address, resource, found, differences);
        if let Some(from) = self.spare_of(address) {
            // Nothing has begun in it, so nothing can be lost.
            change.loss = None;
            if !self.is_spare_wanted(address) {
                take_spare(&mut change, found, from);
            }
        }
        change.spare = self.is_spare_wanted(address) && change.action != Action::Reuse;
        if !extras.is_empty() {
            let duplicate = Reason::Duplicate { kept: found.id.clone() };
            if change.action == Action::Reuse {
                change.action = Action::Update;
                change.considered.push(Considered { action: Action::Reuse, ruled_out_by: duplicate.clone() });
            }
            change.reasons.extend(extras.iter().map(|_| duplicate.clone()));
            change.duplicates = extras.iter().map(|f| FoundRef { id: f.id.clone(), name: f.name.clone() }).collect();
            let goes = extras.into_iter().chain(change.loss.is_some().then_some(found));
            change.loss = total_loss(goes);
        }
        self.changes.insert(address.clone(), change);
    }

    /// Everything wrong with the thing itself.
    fn compare(&self, address: &Address, resource: &Resource, found: &Found) -> Vec<Difference> {
        let kind = address.kind;
        let mut out = Vec::new();
        if self.options.replace.contains(address) {
            let needs = if kind.per_instance() { Rung::Replace } else { Rung::Rebuild };
            let needs = if matches!(kind, Kind::Home | Kind::RoleRepo) { Rung::Update } else { needs };
            out.push(Difference { reason: Reason::Requested { flag: "--replace".to_owned() }, needs, field: None });
        }
        if self.options.rebuild && matches!(kind, Kind::RoleImage | Kind::DerivedImage) {
            out.push(Difference { reason: Reason::Requested { flag: "--rebuild".to_owned() }, needs: Rung::Rebuild, field: None });
        }
        if kind == Kind::DerivedImage
            && let Some(base) = resource.depends_on.iter().find(|d| d.kind == Kind::RoleImage && self.options.replace.contains(d))
        {
            out.push(Difference { reason: Reason::DependencyReplaced { address: base.clone() }, needs: Rung::Rebuild, field: None });
        }
        // Coming back takes an existing thing as it was made; what the configuration says now is `apply`'s business.
        // A spare has not been anything yet.
        let as_it_was = self.options.mode == Mode::Restore && kind.per_instance() && kind != Kind::Home && self.spare_of(address).is_none();
        match &found.recorded {
            Some(recorded) if as_it_was => out.extend(differences(kind, recorded, recorded, &found.live)),
            Some(recorded) => out.extend(differences(kind, &resource.spec.fields(), recorded, &found.live)),
            None => out.extend(unrecorded(kind, resource, found)),
        }
        // A spare has no sessions to lose.
        if kind == Kind::Capsule && !self.is_spare_wanted(address) {
            out.retain(|difference| !self.floats(difference));
        }
        if kind.is_container() && remembers_network(&found.state) {
            for lost in out.iter_mut().filter(|d| d.field.as_ref().is_some_and(|f| f.field == "network")) {
                lost.needs = Rung::Replace;
                lost.field.iter_mut().for_each(|f| f.needs = Rung::Replace);
            }
        }
        if let (true, State::Running) = (self.is_spare_wanted(address), &found.state) {
            let (recorded, live) = (Some("paused".into()), Some("running".into()));
            out.push(Difference {
                reason: Reason::Drifted { field: "state".to_owned(), recorded, live },
                needs: Rung::Update,
                field: None,
            });
        } else if self.is_spare_wanted(address) && found.state == State::Paused {
            // As it should be.
        } else if let Some(needs) = needs_of_state(kind, &found.state) {
            out.push(Difference { reason: Reason::Unhealthy { state: found.state.word() }, needs, field: None });
        }
        if kind == Kind::Sidecar
            && !as_it_was
            && let Some(recorded) = &found.image_id
            && let Some(live) = self.image_id_of(resource)
            && *recorded != live
        {
            out.push(Difference {
                reason: Reason::ImageChanged { recorded: short_id(recorded), live: short_id(&live) },
                needs: Rung::Replace,
                field: None,
            });
        }
        out
    }

    /// What a changed dependency forces upon an existing container. Everything else follows from names.
    fn dependency_differences(&self, address: &Address, resource: &Resource, found: &Found) -> Vec<Difference> {
        if !address.kind.is_container() {
            return Vec::new();
        }
        let forced = |dependency: &Address| match (dependency.kind, self.changes.get(dependency).map(|c| c.action)) {
            // A running container that lost its network shows that as drift and is reconnected.
            (Kind::Network, Some(Action::Create)) => remembers_network(&found.state),
            (Kind::Network | Kind::Certs, Some(Action::Replace)) | (Kind::Certs, Some(Action::Create)) => true,
            // What runs still sees the folders that are gone; a stopped container mounts the new ones when it starts.
            (Kind::Home | Kind::Checkout, Some(Action::Create | Action::Replace)) => {
                matches!(found.state, State::Running | State::Paused)
            }
            // An image made anew on demand has the same recipe, so nothing else would show that the container is of the old one.
            (Kind::DerivedImage, _) => self.image_requested(dependency),
            _ => false,
        };
        resource
            .depends_on
            .iter()
            .filter(|d| forced(d))
            .map(|d| Difference { reason: Reason::DependencyReplaced { address: d.clone() }, needs: Rung::Replace, field: None })
            .collect()
    }

    fn image_requested(&self, derived: &Address) -> bool {
        let named = |address: &Address| self.options.replace.contains(address);
        let base = self.graph.resources.get(derived).and_then(|r| r.depends_on.iter().find(|d| d.kind == Kind::RoleImage));
        self.options.rebuild || named(derived) || base.is_some_and(named)
    }

    fn image_id_of(&self, resource: &Resource) -> Option<String> {
        let image = resource.depends_on.iter().find(|d| d.kind == Kind::Image)?;
        Some(self.observed.found(image).first()?.id.clone())
    }

    /// Role repos, binaries and images: made only when something needs them made, or when the goal is to have them.
    fn decide_artifact(&mut self, address: &Address) {
        let resource = &self.graph.resources[address];
        let wanted = self.demanded(address);
        let found = self.observed.found(address).first();
        let change = match (&resource.spec, found) {
            (Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec), None) if spec.digest.is_none() => {
                Change::new(address, Some(resource), Action::Reuse, vec![Reason::NotCached])
            }
            (_, None) if !wanted => Change::new(address, Some(resource), Action::Reuse, vec![Reason::NotNeeded]),
            (spec, None) => {
                let mut change = Change::new(address, Some(resource), first_action(spec.kind()), vec![Reason::Missing]);
                change.considered.push(Considered { action: Action::Reuse, ruled_out_by: Reason::Absent });
                change
            }
            (_, Some(found)) => {
                let mut differences = self.compare(address, resource, found);
                // What the operator gave is not jackin's to change; an image gets it with a run bit in any case.
                if let Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) = &resource.spec
                    && matches!(spec.origin, Origin::Environment | Origin::Beside)
                {
                    differences.retain(|difference| difference.reason != Reason::NotExecutable);
                }
                if wanted || !matches!(address.kind, Kind::Image | Kind::RoleImage | Kind::DerivedImage) {
                    settle(address, resource, found, differences)
                } else {
                    let mut change = settle(address, resource, found, Vec::new());
                    if !differences.is_empty() {
                        change.reasons.push(Reason::NotNeeded);
                    }
                    change
                }
            }
        };
        self.changes.insert(address.clone(), change);
    }

    /// Is something made now that is built on it, or is having it the goal?
    fn demanded(&self, address: &Address) -> bool {
        self.options.mode == Mode::PrewarmOnly
            || self.options.targets.contains(address)
            || self.options.replace.contains(address)
            || (self.options.rebuild && address.kind == Kind::RoleImage)
            || (address.kind == Kind::DerivedImage && self.image_requested(address))
            || self
                .dependents
                .get(address)
                .is_some_and(|dependents| dependents.iter().any(|d| self.changes.get(d).is_some_and(|c| makes(address.kind, c.action))))
    }

    /// Which program was chosen, and why not a newer one, is of interest where it is used now.
    fn matters(&self, diagnostic: &Diagnostic) -> bool {
        let address = diagnostic.address.as_ref().and_then(|address| address.parse::<Address>().ok());
        let matters = match diagnostic.code.as_str() {
            programs::FALLBACK | programs::STALE | programs::INSTALLER => false,
            // Nothing is made of a capsule that is wrong, so what would need it cannot tell.
            programs::MACHINE => address.as_ref().is_none_or(|address| !self.dependents.contains_key(address)),
            _ => true,
        };
        if matters {
            return true;
        }
        address.is_some_and(|address| self.changes.contains_key(&address) && self.demanded(&address))
    }

    /// A newer agent alone replaces no container: vendors publish every day, and sessions would be lost for it. It goes into the
    /// next one that is made. An agent that the operator named is another matter.
    fn floats(&self, difference: &Difference) -> bool {
        let Some(agent) = difference.field.as_ref().and_then(|f| f.field.strip_prefix("recipe.agent_binaries.")) else {
            return false;
        };
        let binary = self.graph.resources.get(&Address::new(Kind::AgentBinary, agent)).map(|r| &r.spec);
        matches!(binary, Some(Spec::AgentBinary(spec)) if spec.origin != Origin::Environment)
    }

    /// Capsules that stay with an agent of which there is another now.
    fn older_agents(&self) -> Vec<Diagnostic> {
        let stays = |(address, change): (&Address, &Change)| {
            let resource =
                self.graph.resources.get(address).filter(|_| address.kind == Kind::Capsule && change.action != Action::Replace)?;
            let found = self.observed.found(address).first()?;
            let as_desired = differences(address.kind, &resource.spec.fields(), found.recorded.as_ref()?, &Fields::new());
            let older = as_desired.iter().filter(|d| self.floats(d)).filter_map(|d| d.field.as_ref()?.field.rsplit_once('.'));
            let older: Vec<&str> = older.map(|(_, agent)| agent).collect();
            (!older.is_empty()).then(|| format!("{} ({})", address.instance().unwrap_or_default(), older.join(", ")))
        };
        let staying: Vec<String> = match self.options.mode {
            Mode::Launch => self.changes.iter().filter_map(stays).collect(),
            Mode::PrewarmOnly | Mode::Restore | Mode::Remove => Vec::new(),
        };
        if staying.is_empty() {
            return Vec::new();
        }
        let detail = format!("There is another release of what these were made with: {}.", staying.join("; "));
        vec![
            Diagnostic::notice("plan.older_agent", "A container keeps the agent it was made with", detail)
                .help("`jackin apply --replace capsule/WORKSPACE/NAME` makes one anew, with the newest."),
        ]
    }

    /// Kept sets that no launch could take over: half made by a killed run, stopped, or made from something else than now.
    fn decide_stale(&mut self) {
        if !self.options.targets.is_empty() {
            return;
        }
        for (id, reason) in &self.adopted.stale {
            for kind in [Kind::Network, Kind::Certs, Kind::Sidecar] {
                let address = Address::pool(kind, id);
                if let [first, rest @ ..] = self.observed.found(&address) {
                    let mut change = Change::new(&address, None, Action::Remove, vec![reason.clone()]);
                    change.found = Some(FoundRef { id: first.id.clone(), name: first.name.clone() });
                    change.duplicates = rest.iter().map(|f| FoundRef { id: f.id.clone(), name: f.name.clone() }).collect();
                    self.changes.insert(address, change);
                }
            }
        }
    }

    /// Things of ours that the graph does not hold.
    fn decide_undeclared(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        // A graph that could not be built whole says nothing about what is no longer wanted, and what has no address in the graph is
        // no part of a target.
        if diagnostics.iter().any(Diagnostic::is_error) || !self.options.targets.is_empty() {
            return;
        }
        let undeclared: Vec<(&Address, &Vec<Found>)> = self
            .observed
            .resources
            .iter()
            .filter(|(address, found)| address.kind.per_instance() && !found.is_empty() && !self.graph.resources.contains_key(address))
            .collect();
        let mut reported = BTreeSet::new();
        for (address, found) in undeclared {
            let Some(instance) = address.instance() else {
                continue;
            };
            if !self.options.scope.covers(instance) || self.is_taken(address) {
                continue;
            }
            // A part that the instance no longer wants (its sidecar after a profile change) is ours to remove at once; a whole
            // instance that no file declares goes only when asked for.
            let part_of_declared = self.graph.instances.contains_key(instance);
            let reason = match (&self.options.mode, part_of_declared) {
                (Mode::Remove, _) => Reason::Requested { flag: self.options.command.clone() },
                (_, true) => Reason::NotDeclared,
                (Mode::Launch, false) if self.options.prune && (self.was_declared(instance) || self.graph.abandoned.contains(instance)) => {
                    Reason::NotDeclared
                }
                (Mode::Launch, false) => {
                    if self.was_declared(instance) && reported.insert(instance.to_owned()) && self.has_docker_parts(instance) {
                        diagnostics.push(
                            Diagnostic::warning(
                                "plan.not_declared",
                                "An instance is no longer declared",
                                format!("{instance} exists, but no workspace declares it."),
                            )
                            .help(format!("`jackin apply --prune` removes it, `jackin eject {instance}` as well.")),
                        );
                    }
                    continue;
                }
                (Mode::PrewarmOnly | Mode::Restore, false) => continue,
            };
            // The durable home outlives its containers; only `purge` removes it.
            if matches!(address.kind, Kind::Home | Kind::Checkout) && !self.options.purge {
                continue;
            }
            let mut change = Change::new(address, None, Action::Remove, vec![reason]);
            change.loss = self.loss_of(address, found);
            change.found = Some(FoundRef { id: found[0].id.clone(), name: found[0].name.clone() });
            change.duplicates = found[1..].iter().map(|f| FoundRef { id: f.id.clone(), name: f.name.clone() }).collect();
            self.changes.insert(address.clone(), change);
        }
    }

    /// Loaded ad hoc = not declared, and not missed by any workspace file.
    fn was_declared(&self, instance: &str) -> bool {
        let recorded = |kind, field: &str| {
            let found = self.observed.found(&Address::new(kind, instance)).first()?;
            found.recorded.as_ref()?.get(field)?.as_bool()
        };
        recorded(Kind::Capsule, "declared").or_else(|| recorded(Kind::Home, "record.declared")).unwrap_or(true)
    }

    fn has_docker_parts(&self, instance: &str) -> bool {
        [Kind::Network, Kind::Certs, Kind::Sidecar, Kind::Capsule]
            .into_iter()
            .any(|kind| !self.observed.found(&Address::new(kind, instance)).is_empty())
    }
}

/// The keeper among duplicates: in use, then made from the desired spec, then alive, then rightly named, then the smallest id.
fn choose<'a>(found: &'a [Found], resource: &Resource) -> (Option<&'a Found>, Vec<&'a Found>) {
    if found.len() <= 1 {
        return (found.first(), Vec::new());
    }
    let wanted = resource.spec.fingerprint();
    let mut all: Vec<&Found> = found.iter().collect();
    let name = resource.spec.object_name();
    all.sort_by_key(|f| {
        (!f.in_use, f.recorded_fingerprint().as_deref() != Some(&wanted), f.state != State::Running, f.name != name, f.id.clone())
    });
    (Some(all[0]), all[1..].to_vec())
}

/// A thing without a recorded spec: its live facts are all there is. If none disagrees it is kept as it is.
fn unrecorded(kind: Kind, resource: &Resource, found: &Found) -> Vec<Difference> {
    if kind == Kind::Image {
        return Vec::new();
    }
    let desired = resource.spec.fields();
    let checked: Fields = desired.iter().filter(|(name, _)| found.live.contains_key(*name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    // What the clone is at is what was checked out for the last run.
    let recorded = if kind == Kind::RoleRepo { &found.live } else { &checked };
    // Fields that the desired spec does not have say nothing when nobody knows what it was made from.
    let live: Fields = found.live.iter().filter(|(name, _)| checked.contains_key(*name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut out = differences(kind, &checked, recorded, &live);
    let artifact = matches!(kind, Kind::RoleRepo | Kind::AgentBinary | Kind::CapsuleBinary);
    if !artifact {
        let needs = match kind {
            Kind::RoleImage | Kind::DerivedImage => Rung::Rebuild,
            Kind::Home | Kind::Checkout => Rung::Update,
            _ => Rung::Replace,
        };
        out.insert(0, Difference { reason: Reason::LabelMissing { label: label::SPEC.to_owned() }, needs, field: None });
    }
    out
}

/// A stopped container remembers its network's id and cannot start on a successor, not even when that is connected to it.
fn remembers_network(state: &State) -> bool {
    matches!(state, State::Created | State::Exited { .. })
}

fn needs_of_state(kind: Kind, state: &State) -> Option<Rung> {
    if !kind.is_container() {
        return None;
    }
    match state {
        State::Running | State::Present => None,
        State::Created | State::Paused | State::Exited { .. } => Some(Rung::Restart),
        // Docker keeps restarting it only under a policy, and jackin sets none.
        State::Silent | State::Restarting | State::Dead | State::Removing => Some(Rung::Replace),
    }
}

/// The lowest sufficient rung, and for every lower one the first difference that it could not settle.
fn settle(address: &Address, resource: &Resource, found: &Found, differences: Vec<Difference>) -> Change {
    let kind = address.kind;
    let needs = differences.iter().map(|d| d.needs).max().unwrap_or(Rung::Reuse);
    let action_of = |rung| match rung {
        // Starting is for what stands still.
        Rung::Restart if found.state == State::Running => Action::Restart,
        rung => Action::for_rung(kind, rung),
    };
    let action = action_of(needs);
    let mut change = Change::new(address, Some(resource), action, Vec::new());
    for rung in [Rung::Reuse, Rung::Update, Rung::Restart, Rung::Replace].into_iter().filter(|r| *r < needs && applies(kind, *r)) {
        if let Some(blocking) = differences
            .iter()
            .filter(|d| d.needs > rung)
            .min_by_key(|d| (std::cmp::Reverse(d.needs), !is_written(resource, d), says_little(d)))
        {
            change.considered.push(Considered { action: action_of(rung), ruled_out_by: blocking.reason.clone() });
        }
    }
    for difference in differences {
        change.reasons.push(difference.reason);
        if let Some(mut field) = difference.field {
            field.source = resource.source_of(&field.field).map(str::to_owned);
            change.fields.push(field);
        }
    }
    change.found = Some(FoundRef { id: found.id.clone(), name: found.name.clone() });
    if action.destructive() || (action == Action::Start && found.state == State::Restarting) {
        change.loss = total_loss([found]);
    }
    change
}

/// Somebody wrote the desired value down; the others follow from it.
fn is_written(resource: &Resource, difference: &Difference) -> bool {
    let source = difference.field.as_ref().and_then(|f| resource.source_of(&f.field));
    source.is_some_and(|s| s != "default" && !s.starts_with("profile "))
}

/// A digest shows that something changed, not what; another difference explains better, and so does one that others follow.
fn says_little(difference: &Difference) -> bool {
    // This variable lists the mounts; the mount itself is the news.
    const DERIVED: &str = "env.MISE_TRUSTED_CONFIG_PATHS";
    difference.field.as_ref().is_some_and(|f| f.field.contains("digest") || f.field.contains("hash") || f.field == DERIVED)
}

/// Which rungs mean something for a kind.
fn applies(kind: Kind, rung: Rung) -> bool {
    match rung {
        Rung::Reuse => true,
        Rung::Update => !matches!(kind, Kind::Image | Kind::RoleImage | Kind::DerivedImage | Kind::Network | Kind::Certs),
        Rung::Restart => kind.is_container(),
        Rung::Replace => kind.per_instance(),
        Rung::Rebuild => !kind.per_instance(),
    }
}

fn total_loss<'a>(found: impl IntoIterator<Item = &'a Found>) -> Option<Loss> {
    let mut total = Loss::default();
    let add = |a: Option<u32>, b: Option<u32>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
    for loss in found.into_iter().map(|f| &f.loss) {
        total.sessions = add(total.sessions, loss.sessions);
        total.sessions_unknown |= loss.sessions_unknown;
        total.docker_data |= loss.docker_data;
        total.uncommitted_files = add(total.uncommitted_files, loss.uncommitted_files);
        total.unpushed_commits = add(total.unpushed_commits, loss.unpushed_commits);
        total.bytes = total.bytes.map_or(loss.bytes, |a| Some(a.saturating_add(loss.bytes.unwrap_or(0))));
    }
    (!total.is_nothing()).then_some(total)
}

/// Does carrying out `action` on a dependent need a dependency of this kind to be there?
fn makes(dependency: Kind, action: Action) -> bool {
    match action {
        Action::Create | Action::Replace | Action::Build | Action::Rebuild => true,
        // Writing a home needs its role repo read, which gathering has done.
        Action::Update | Action::Fetch | Action::Repair => dependency == Kind::RoleRepo,
        Action::Reuse
        | Action::Adopt
        | Action::Start
        | Action::Restart
        | Action::Remove
        | Action::Forget
        | Action::Pull
        | Action::Download => false,
    }
}

fn first_action(kind: Kind) -> Action {
    match kind {
        Kind::RoleRepo => Action::Fetch,
        Kind::AgentBinary | Kind::CapsuleBinary => Action::Download,
        Kind::Image => Action::Pull,
        Kind::RoleImage | Kind::DerivedImage => Action::Build,
        Kind::Checkout | Kind::Home | Kind::Network | Kind::Certs | Kind::Sidecar | Kind::Capsule => Action::Create,
    }
}

/// A stranger blocks only where something would have to be made under its name.
fn judge_strangers(graph: &Graph, observed: &Observed, changes: &BTreeMap<Address, Change>, diagnostics: &mut Vec<Diagnostic>) {
    for (address, stranger) in &observed.strangers {
        // Mending and starting may begin with a rename.
        let in_the_way = changes
            .get(address)
            .is_some_and(|c| matches!(c.action, Action::Create | Action::Replace | Action::Update | Action::Start | Action::Restart));
        if in_the_way && graph.resources.contains_key(address) {
            let object = match address.kind {
                Kind::Network => "network",
                Kind::Certs => "volume",
                _ => "container",
            };
            // A volume's name is its id.
            let id = if stranger.id == stranger.name { String::new() } else { format!(" ({})", short_id(&stranger.id)) };
            diagnostics.push(
                Diagnostic::error(
                    "plan.stranger",
                    "Something that jackin did not make is in the way",
                    format!("The {object} `{}`{id} has the name that {address} needs, but {}.", stranger.name, stranger.why),
                )
                .on(address)
                .help(match object {
                    "container" => format!(
                        "Rename it (`docker rename {} NEWNAME`) or remove it (`docker rm -f {}`), then plan again.",
                        stranger.name, stranger.name
                    ),
                    other => format!("Remove it (`docker {other} rm {}`) if nothing needs it, then plan again.", stranger.name),
                }),
            );
        }
    }
}

fn judge_engine(observed: &Observed, diagnostics: &mut Vec<Diagnostic>) {
    let Some(engine) = &observed.engine else {
        diagnostics.push(Diagnostic::notice(
            "plan.offline",
            "No engine was asked",
            "The plan takes it that none of the images, networks, volumes and containers exist.",
        ));
        return;
    };
    let version = engine.api_version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if version.is_some_and(|v: (u32, u32)| v < OLDEST_API) {
        diagnostics.push(
            Diagnostic::error(
                "docker.too_old",
                "The Docker engine is too old",
                format!("It speaks API {}, jackin needs {}.{} (engine 20.10) or newer.", engine.api_version, OLDEST_API.0, OLDEST_API.1),
            )
            .help("Upgrade the engine, or point DOCKER_HOST or the Docker context at a newer one."),
        );
    }
}

/// Things a person should know although they forbid nothing.
fn notices(graph: &Graph, changes: &BTreeMap<Address, Change>) -> Vec<Diagnostic> {
    let (pooled, owned): (Vec<_>, Vec<_>) = changes
        .iter()
        .filter(|(_, change)| matches!(change.action, Action::Create | Action::Replace | Action::Adopt))
        .filter_map(|(address, _)| match &graph.resources.get(address)?.spec {
            Spec::Sidecar(spec) if spec.privileged => Some((address, spec.name.as_str())),
            _ => None,
        })
        .partition(|(address, _)| address.pool_id().is_some());
    let instances: Vec<&str> = owned.iter().filter_map(|(address, _)| address.instance()).collect();
    let names: Vec<&str> = pooled.iter().map(|(_, name)| *name).collect();
    let told = [(&instances, "gets a privileged sidecar", "get a privileged sidecar"), (&names, "is privileged", "are privileged")];
    let notice = |detail| Diagnostic::notice("plan.privileged_sidecar", "A private Docker daemon runs privileged", detail);
    told.into_iter()
        .filter(|(who, ..)| !who.is_empty())
        .map(|(who, one, more)| notice(format!("{} {}.", who.join(", "), if who.len() == 1 { one } else { more })))
        .map(|notice| notice.help("`[docker] profile = \"standard\"` runs agents without one."))
        .collect()
}

fn short_id(id: &str) -> String {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    bare.chars().take(12).collect()
}
