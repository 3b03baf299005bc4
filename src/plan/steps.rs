//! Lowers changes to single effects with edges: what is removed goes dependents first, what is made comes dependencies first.
//!
//! In: the graph's edges and the decided changes. Out: steps in a stable order; a step whose `needs` are done may run.

use super::action::Action;
use super::diff::Cause;
use super::document::{Change, Estimate, FoundRef};
use crate::graph::Graph;
use crate::resource::{Address, HOLD, Kind, Spec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `address#verb`, unique in a plan.
pub type StepId = String;

/// One call or one handful of calls on one thing. The spec it works from is the change's `desired`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "effect", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// Move the cached clone's working tree to the pinned commit.
    CheckOut,
    /// Give a cached file its run bit back.
    RepairBinary,
    Download,
    Pull,
    Build,
    WriteHome,
    RemoveHome {
        path: String,
    },
    CreateNetwork,
    RemoveNetwork {
        id: String,
    },
    CreateVolume,
    RemoveVolume {
        name: String,
    },
    CreateContainer,
    /// `name` is the name it bears when started.
    StartContainer {
        name: String,
    },
    UnpauseContainer {
        id: String,
    },
    /// What waits for a launch to take it needs no processor.
    PauseContainer {
        name: String,
    },
    /// Sidecar: its Docker answers over TLS. Capsule: its socket answers, and a spare that was taken begins. Fails with the last log lines when it exits before.
    AwaitReady,
    RenameContainer {
        id: String,
        to: String,
    },
    ConnectNetwork {
        id: String,
        network: String,
    },
    LimitContainer {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    /// Take a kept object over; Docker is not touched, the instance's record names it. Done when it is there, and a sidecar answers.
    Claim {
        name: String,
    },
}

impl Effect {
    /// The part of a step id behind `#`, and of a history key.
    pub fn verb(&self) -> &'static str {
        match self {
            Effect::CheckOut => "check-out",
            Effect::RepairBinary => "repair",
            Effect::Download => "download",
            Effect::Pull => "pull",
            Effect::Build => "build",
            Effect::WriteHome => "write",
            Effect::RemoveHome { .. } | Effect::RemoveNetwork { .. } | Effect::RemoveVolume { .. } | Effect::RemoveContainer { .. } => {
                "remove"
            }
            Effect::CreateNetwork | Effect::CreateVolume | Effect::CreateContainer => "create",
            Effect::StartContainer { .. } => "start",
            Effect::UnpauseContainer { .. } => "unpause",
            Effect::PauseContainer { .. } => "pause",
            Effect::AwaitReady => "ready",
            Effect::RenameContainer { .. } => "rename",
            Effect::ConnectNetwork { .. } => "connect",
            Effect::LimitContainer { .. } => "limit",
            Effect::Claim { .. } => "claim",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub id: StepId,
    pub address: Address,
    #[serde(rename = "do")]
    pub effect: Effect,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StepId>,
}

struct Draft {
    address: Address,
    effect: Effect,
    /// Indices of drafts it needs.
    needs: Vec<usize>,
}

/// The drafts of one address by role, so that edges can be drawn between addresses.
#[derive(Default, Clone)]
struct Parts {
    remove: Vec<usize>,
    /// First and last of what makes or mends it.
    first_make: Option<usize>,
    last_make: Option<usize>,
    start: Option<usize>,
    ready: Option<usize>,
}

pub(super) fn lower(graph: &Graph, changes: &mut BTreeMap<Address, Change>) -> Vec<Step> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut parts: BTreeMap<Address, Parts> = BTreeMap::new();
    for (address, change) in changes.iter() {
        let drafted = draft(change, &mut drafts);
        parts.insert(address.clone(), drafted);
    }

    // Where a capsule starts, its Docker is seen to answer, even when the sidecar itself needs nothing: a killed run may have left it
    // half-way up.
    for (address, resource) in &graph.resources {
        let spare = changes.get(address).is_some_and(|change| change.spare);
        if address.kind != Kind::Capsule || spare || parts.get(address).and_then(|p| p.start).is_none() {
            continue;
        }
        for sidecar in resource.depends_on.iter().filter(|d| d.kind == Kind::Sidecar) {
            if let Some(part) = parts.get_mut(sidecar)
                && part.ready.is_none()
            {
                drafts.push(Draft { address: sidecar.clone(), effect: Effect::AwaitReady, needs: part.last_make.into_iter().collect() });
                part.ready = Some(drafts.len() - 1);
            }
        }
    }

    for (address, resource) in &graph.resources {
        let Some(mine) = parts.get(address).cloned() else {
            continue;
        };
        // A spare's own container is woken and mended while everything else is done: its agent begins only when the home lets it.
        let stays = address.kind == Kind::Capsule && stays_spare(changes, address);
        for dependency in &resource.depends_on {
            let Some(theirs) = parts.get(dependency).cloned() else {
                continue;
            };
            if stays && matches!(dependency.kind, Kind::Home | Kind::Sidecar) {
                if let (Some(ready), Some(needed)) = (mine.ready, theirs.ready.or(theirs.last_make)) {
                    drafts[ready].needs.push(needed);
                }
            } else if let (Some(first), Some(made)) = (mine.first_make, theirs.last_make) {
                // The capsule comes up beside its Docker, under whose name the network must know a container by then: the entrypoint
                // makes the agent wait until it answers.
                let (first, needed) = match dependency.kind {
                    Kind::Sidecar => (mine.start.unwrap_or(first), theirs.start.unwrap_or(made)),
                    _ => (first, theirs.ready.unwrap_or(made)),
                };
                drafts[first].needs.push(needed);
            }
            if let (Some(first), None) = (mine.first_make, theirs.last_make) {
                // While there are two of one name, Docker refuses that name.
                drafts[first].needs.extend(&theirs.remove);
            }
            if let Some(first) = theirs.first_make
                && changes[dependency].action == Action::Create
                && !dependency.kind.is_container()
            {
                // What hangs on its lost predecessor goes first: cut off in between, the new one would look as if all were well.
                drafts[first].needs.extend(&mine.remove);
            }
            for removed in &theirs.remove {
                drafts[*removed].needs.extend(&mine.remove);
            }
        }
    }
    // The home lets go of a spare's agent. By then its container is gone, or awake and as it should be, and its Docker answers: one that
    // is awake looks by itself, and one that sleeps on after a run that was cut off would be nobody's.
    for home in changes.values().filter(|c| c.address.kind == Kind::Home && is_released(changes, &c.address)).map(|c| &c.address) {
        let part = |kind| home.instance().and_then(|instance| parts.get(&Address::new(kind, instance)));
        let (Some(written), Some(capsule)) = (parts[home].first_make, part(Kind::Capsule)) else {
            continue;
        };
        drafts[written].needs.extend(&capsule.remove);
        if stays_spare(changes, &Address { kind: Kind::Capsule, ..home.clone() }) {
            let docker = part(Kind::Sidecar).and_then(|sidecar| sidecar.ready);
            drafts[written].needs.extend(capsule.last_make.into_iter().chain(docker));
        }
    }
    // The record in the home is what makes a kept object the instance's own.
    for change in changes.values().filter(|c| c.action == Action::Adopt && !c.takes_spare()) {
        let home = change.address.instance().and_then(|i| parts.get(&Address::new(Kind::Home, i)));
        if let (Some(claim), Some(written)) = (parts[&change.address].first_make, home.and_then(|h| h.last_make)) {
            drafts[claim].needs.push(written);
        }
    }
    // A spare that was cut off is found by the record in its home, so nothing else is made before that.
    for change in changes.values().filter(|c| c.spare && matches!(c.address.kind, Kind::Network | Kind::Certs)) {
        let home = change.address.instance().and_then(|instance| parts.get(&Address::new(Kind::Home, instance)));
        if let (Some(made), Some(written)) = (parts[&change.address].first_make, home.and_then(|home| home.last_make)) {
            drafts[made].needs.push(written);
        }
    }
    // What is made to be seen working goes when it has worked, under its name: nobody knows its id yet.
    let mut try_removed: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in [Kind::Sidecar, Kind::Network, Kind::Certs] {
        for change in changes.values().filter(|c| c.disposable && c.address.kind == kind) {
            let Some(spec) = &change.desired else {
                continue;
            };
            let name = spec.object_name().to_owned();
            let after = match kind {
                Kind::Sidecar => parts[&change.address].ready,
                _ => try_removed.get(change.address.name.as_str()).copied(),
            };
            drafts.push(Draft {
                address: change.address.clone(),
                effect: removal(kind, &FoundRef { id: name.clone(), name }),
                needs: after.into_iter().collect(),
            });
            if kind == Kind::Sidecar {
                try_removed.insert(&change.address.name, drafts.len() - 1);
            }
        }
    }
    // Undeclared things have no edges in the graph; their kinds say what hangs on what.
    let undeclared = |address: &Address| !graph.resources.contains_key(address);
    for (address, mine) in parts.iter().filter(|(_, p)| !p.remove.is_empty()) {
        let Some(instance) = address.instance() else {
            continue;
        };
        for kind in Kind::ALL.into_iter().filter(|k| *k > address.kind && k.is_container()) {
            let above = Address::new(kind, instance);
            if let Some(theirs) = parts.get(&above)
                && (undeclared(address) || undeclared(&above))
            {
                for removed in &mine.remove {
                    drafts[*removed].needs.extend(&theirs.remove);
                }
            }
        }
    }
    finish(drafts)
}

/// The effects that carry out one change, chained in order.
fn draft(change: &Change, drafts: &mut Vec<Draft>) -> Parts {
    let mut parts = Parts::default();
    let address = &change.address;
    let mut push = |effect: Effect, needs: Vec<usize>| {
        drafts.push(Draft { address: address.clone(), effect, needs });
        drafts.len() - 1
    };
    let mut chain: Vec<Effect> = Vec::new();
    for duplicate in &change.duplicates {
        parts.remove.push(push(removal(address.kind, duplicate), Vec::new()));
    }
    if matches!(change.action, Action::Remove | Action::Replace)
        && let Some(found) = &change.found
    {
        parts.remove.push(push(removal(address.kind, found), Vec::new()));
    }
    match (change.action, &change.desired) {
        (Action::Reuse | Action::Remove | Action::Forget, _) | (_, None) => {}
        (Action::Adopt, Some(spec)) => match &change.found {
            None => chain.push(Effect::Claim { name: spec.object_name().to_owned() }),
            Some(found) => {
                chain.push(Effect::UnpauseContainer { id: found.id.clone() });
                chain.push(match spec {
                    // It was ready once.
                    Spec::Sidecar(spec) => Effect::Claim { name: spec.name.clone() },
                    _ => Effect::AwaitReady,
                });
            }
        },
        (Action::Create | Action::Replace, Some(spec)) => match spec {
            Spec::Network(_) => chain.push(Effect::CreateNetwork),
            Spec::Certs(_) => chain.push(Effect::CreateVolume),
            Spec::Home(_) | Spec::Checkout(_) => chain.push(Effect::WriteHome),
            Spec::Sidecar(_) | Spec::Capsule(_) => {
                chain.push(Effect::CreateContainer);
                chain.push(Effect::StartContainer { name: spec.object_name().to_owned() });
                chain.push(Effect::AwaitReady);
            }
            Spec::RoleRepo(_)
            | Spec::AgentBinary(_)
            | Spec::CapsuleBinary(_)
            | Spec::Image(_)
            | Spec::RoleImage(_)
            | Spec::DerivedImage(_) => {
                unreachable!("BUG: artifacts are built, pulled or fetched")
            }
        },
        (Action::Update | Action::Start | Action::Restart, Some(spec)) => {
            if matches!(spec, Spec::Home(_) | Spec::Checkout(_)) && change.action == Action::Update && !only_duplicates(change) {
                chain.push(Effect::WriteHome);
            }
            if let (Some(found), true) = (&change.found, address.kind.is_container()) {
                chain.extend(in_place(change, spec, found));
                if matches!(change.action, Action::Start | Action::Restart) {
                    let paused = change.reasons.iter().any(|r| matches!(r, super::Reason::Unhealthy { state } if state == "paused"));
                    chain.push(if paused {
                        Effect::UnpauseContainer { id: found.id.clone() }
                    } else {
                        Effect::StartContainer { name: spec.object_name().to_owned() }
                    });
                    chain.push(Effect::AwaitReady);
                }
            }
        }
        (Action::Pull, _) => chain.push(Effect::Pull),
        (Action::Build | Action::Rebuild, Some(Spec::Image(_))) => chain.push(Effect::Pull),
        (Action::Build | Action::Rebuild, _) => chain.push(Effect::Build),
        (Action::Download, _) => chain.push(Effect::Download),
        (Action::Fetch, _) => chain.push(Effect::CheckOut),
        (Action::Repair, _) => chain.push(Effect::RepairBinary),
    }
    if change.spare
        && let Some(spec) = &change.desired
        && address.kind.is_container()
    {
        chain.push(Effect::PauseContainer { name: spec.object_name().to_owned() });
    }
    let mut previous: Option<usize> = None;
    for effect in chain {
        let ready = effect == Effect::AwaitReady || (address.kind == Kind::Sidecar && matches!(effect, Effect::Claim { .. }));
        let pause = matches!(effect, Effect::PauseContainer { .. });
        let start = matches!(effect, Effect::StartContainer { .. } | Effect::UnpauseContainer { .. });
        let needs = match previous {
            Some(previous) => vec![previous],
            None => parts.remove.clone(),
        };
        let index = push(effect, needs);
        if start {
            parts.start = Some(index);
        }
        if ready {
            parts.ready = Some(index);
        } else if !pause {
            parts.last_make = Some(index);
        }
        if !pause {
            parts.first_make.get_or_insert(index);
        }
        previous = Some(index);
    }
    parts
}

/// Is this a part of a spare in which the agent is to begin now?
fn is_released(changes: &BTreeMap<Address, Change>, address: &Address) -> bool {
    let home = address.instance().and_then(|instance| changes.get(&Address::new(Kind::Home, instance)));
    home.is_some_and(|home| home.fields.iter().any(|field| field.field == HOLD && field.cause == Cause::Edited && field.after.is_none()))
}

/// Of such a spare: is its container kept?
fn stays_spare(changes: &BTreeMap<Address, Change>, capsule: &Address) -> bool {
    let kept = |change: &Change| change.found.is_some() && change.action != Action::Replace;
    is_released(changes, capsule) && changes.get(capsule).is_some_and(kept)
}

fn only_duplicates(change: &Change) -> bool {
    change.reasons.iter().all(|r| matches!(r, super::Reason::Duplicate { .. }))
}

/// Mends a living container field by field.
fn in_place(change: &Change, spec: &Spec, found: &FoundRef) -> Vec<Effect> {
    let id = || found.id.clone();
    let touched = |field: &str| change.fields.iter().any(|f| f.field == field || f.field.starts_with(&format!("{field}.")));
    let network = match spec {
        Spec::Sidecar(spec) => Some(&spec.network),
        Spec::Capsule(spec) => Some(&spec.network),
        _ => None,
    };
    let mut out = Vec::new();
    if touched("name") {
        out.push(Effect::RenameContainer { id: id(), to: spec.object_name().to_owned() });
    }
    if let (true, Some(network)) = (touched("network"), network) {
        out.push(Effect::ConnectNetwork { id: id(), network: network.clone() });
    }
    if touched("limits") {
        out.push(Effect::LimitContainer { id: id() });
    }
    out
}

fn removal(kind: Kind, found: &FoundRef) -> Effect {
    match kind {
        Kind::Network => Effect::RemoveNetwork { id: found.id.clone() },
        Kind::Certs => Effect::RemoveVolume { name: found.name.clone() },
        Kind::Sidecar | Kind::Capsule => Effect::RemoveContainer { id: found.id.clone() },
        Kind::Home | Kind::Checkout => Effect::RemoveHome { path: found.id.clone() },
        Kind::RoleRepo | Kind::AgentBinary | Kind::CapsuleBinary | Kind::Image | Kind::RoleImage | Kind::DerivedImage => {
            unreachable!("BUG: artifacts are not removed by a plan")
        }
    }
}

/// Ids, then a topological order with ties in address order.
fn finish(drafts: Vec<Draft>) -> Vec<Step> {
    let mut ids: Vec<StepId> = Vec::with_capacity(drafts.len());
    let mut used: BTreeMap<StepId, usize> = BTreeMap::new();
    for draft in &drafts {
        let base = format!("{}#{}", draft.address, draft.effect.verb());
        let count = used.entry(base.clone()).and_modify(|n| *n += 1).or_insert(1);
        ids.push(if *count == 1 { base } else { format!("{base}-{count}") });
    }
    let mut waiting: Vec<usize> = vec![0; drafts.len()];
    let mut unlocks: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for (index, draft) in drafts.iter().enumerate() {
        let mut needs = draft.needs.clone();
        needs.sort_unstable();
        needs.dedup();
        waiting[index] = needs.len();
        for need in needs {
            unlocks[need].push(index);
        }
    }
    let key = |index: usize| (drafts[index].address.clone(), index);
    let mut free: std::collections::BTreeSet<(Address, usize)> = (0..drafts.len()).filter(|i| waiting[*i] == 0).map(key).collect();
    let mut out = Vec::with_capacity(drafts.len());
    while let Some((_, index)) = free.pop_first() {
        for next in &unlocks[index] {
            waiting[*next] -= 1;
            if waiting[*next] == 0 {
                free.insert(key(*next));
            }
        }
        out.push(index);
    }
    assert_eq!(out.len(), drafts.len(), "BUG: steps depend on each other in a circle");
    out.into_iter()
        .map(|index| {
            let draft = &drafts[index];
            let mut needs: Vec<StepId> = draft.needs.iter().map(|n| ids[*n].clone()).collect();
            needs.sort_unstable();
            needs.dedup();
            Step { id: ids[index].clone(), address: draft.address.clone(), effect: draft.effect.clone(), needs }
        })
        .collect()
}

/// What the steps whose work lasts take: the next launch does without them.
pub(super) fn saving(steps: &[Step], changes: &[Change], history: &BTreeMap<String, u64>) -> Option<Estimate> {
    let lasting: std::collections::BTreeSet<&Address> =
        changes.iter().filter(|c| !c.disposable && c.action != Action::Remove).map(|c| &c.address).collect();
    let steps: Vec<Step> = steps.iter().filter(|step| lasting.contains(&step.address)).cloned().collect();
    estimate(&steps, history)
}

/// The longest path over known durations; `None` when nothing is known or there is nothing to do.
pub(super) fn estimate(steps: &[Step], history: &BTreeMap<String, u64>) -> Option<Estimate> {
    let duration = |step: &Step| history.get(&format!("{} {}", step.effect.verb(), step.address.kind)).copied();
    let unknown_steps = steps.iter().filter(|s| duration(s).is_none()).count();
    if steps.len() == unknown_steps {
        return None;
    }
    // Steps are in topological order.
    let mut finish: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for step in steps {
        let (start, from) = step
            .needs
            .iter()
            .filter_map(|n| finish.get_key_value(n.as_str()))
            .map(|(id, (t, _))| (*t, Some(*id)))
            .max()
            .unwrap_or((0, None));
        finish.insert(&step.id, (start.saturating_add(duration(step).unwrap_or(0)), from));
    }
    let (mut last, (milliseconds, _)) = finish.iter().max_by_key(|(_, (t, _))| *t).map(|(id, v)| (*id, *v))?;
    let mut critical_path = vec![last.to_owned()];
    while let Some(previous) = finish[last].1 {
        critical_path.push(previous.to_owned());
        last = previous;
    }
    critical_path.reverse();
    Some(Estimate { milliseconds, critical_path, unknown_steps })
}
