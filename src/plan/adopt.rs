//! Adoption: an instance that has neither sidecar nor network nor certificate volume takes over a kept set that fits exactly, and
//! so does the wish to keep one: what is kept already need not be made.
//!
//! The graph is rebound to the kept set's names before anything is decided, so that the rest of the planner sees plain names.

use super::action::Reason;
use super::diff::differences;
use super::document::{Mode, PlanOptions, SidecarGoal};
use crate::graph::{Graph, names};
use crate::observed::{Found, Observed, PoolMember, State};
use crate::resource::{Address, EnvEntry, Fields, Kind, Spec, label, pool_id};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The parts of a kept set, the one that tells most first.
const PARTS: [Kind; 3] = [Kind::Sidecar, Kind::Network, Kind::Certs];

#[derive(Default)]
pub(super) struct Adopted {
    from: BTreeMap<Address, String>,
    refused: BTreeMap<Address, Reason>,
    /// Sets that are no use to anybody, by id, with what is wrong with them.
    pub stale: BTreeMap<String, Reason>,
}

impl Adopted {
    /// Name of the kept object this address takes over.
    pub fn source(&self, address: &Address) -> Option<&str> {
        self.from.get(address).map(String::as_str)
    }

    /// Why an address that could have adopted does not.
    pub fn refusal(&self, address: &Address) -> Option<&Reason> {
        self.refused.get(address)
    }
}

/// Each kept set goes to at most one instance, in instance order; after them come those that are to be kept.
pub(super) fn adopt<'a>(graph: &'a Graph, observed: &Observed, options: &PlanOptions) -> (Cow<'a, Graph>, Adopted) {
    let mut adopted = Adopted::default();
    let mut graph = Cow::Borrowed(graph);
    let mut free: Vec<&PoolMember> = observed.pool.iter().collect();
    let takers: Vec<String> = takers(&graph, observed).cloned().collect();
    for instance in takers {
        let at = |kind| Address::new(kind, instance.clone());
        let mut refusal = Reason::NoCandidate;
        let fitting = free.iter().position(|member| match mismatch(&graph, &instance, member, observed) {
            None => true,
            Some(reason) => {
                refusal = reason;
                false
            }
        });
        match fitting {
            Some(index) => {
                let member = free.remove(index);
                rebind(graph.to_mut(), &instance, member);
                for kind in PARTS {
                    adopted.from.insert(at(kind), member.parts(kind)[0].name.clone());
                }
            }
            None => {
                adopted.refused.insert(at(Kind::Sidecar), refusal);
            }
        }
    }
    if options.mode == Mode::PrewarmOnly && options.sidecar == Some(SidecarGoal::Keep) {
        let wanted: BTreeSet<String> = graph.resources.keys().filter(|a| a.pool_id().is_some()).map(|a| a.name.clone()).collect();
        for key in wanted {
            if let Some(index) = free.iter().position(|member| mismatch(&graph, &key, member, observed).is_none()) {
                bind(graph.to_mut(), &key, free.remove(index));
            }
        }
    }
    if let Some(recipe) = &graph.kept {
        let key = recipe.keys().next().map(|address| address.name.clone()).unwrap_or_default();
        let trio = Graph { resources: recipe.clone(), ..Graph::default() };
        for member in free.into_iter().filter(|member| !member.held) {
            if let Some(reason) = mismatch(&trio, &key, member, observed) {
                adopted.stale.insert(member.id.clone(), reason);
            }
        }
    }
    (graph, adopted)
}

/// Does it matter to this graph what the kept sets are worth? Who looks need not ask them otherwise whether they answer.
pub fn minds_pool(graph: &Graph, observed: &Observed) -> bool {
    graph.kept.is_some() || takers(graph, observed).next().is_some()
}

/// Instances that want a sidecar and have nothing yet, in instance order.
fn takers<'a>(graph: &'a Graph, observed: &'a Observed) -> impl Iterator<Item = &'a String> {
    graph.instances.keys().filter(|instance| {
        let at = |kind| Address::new(kind, (*instance).clone());
        let nothing_there = || PARTS.into_iter().chain([Kind::Capsule]).all(|kind| observed.found(&at(kind)).is_empty());
        graph.resources.contains_key(&at(Kind::Sidecar)) && nothing_there()
    })
}

/// The first thing in which a kept set is not what is wanted under this key. Names, and what follows from them, may differ.
fn mismatch(graph: &Graph, key: &str, member: &PoolMember, observed: &Observed) -> Option<Reason> {
    let base = names::pool_base(&member.id);
    let differs = |field: &str, desired: Option<&str>, found: Option<&str>| {
        let (candidate, field) = (base.clone(), field.to_owned());
        Some(Reason::Mismatch { candidate, field, desired: desired.map(Into::into), found: found.map(Into::into) })
    };
    if member.held {
        return differs("state", Some("free"), Some("in another jackin's hands"));
    }
    if names::is_tried(&member.id) {
        return differs("state", Some("kept"), Some("only tried"));
    }
    for kind in PARTS {
        match member.parts(kind) {
            [_] => {}
            [] => return differs(&format!("{kind} of the set"), Some("one"), None),
            _ => return differs(&format!("{kind} of the set"), Some("one"), Some("more than one")),
        }
    }
    let state = &member.sidecar[0].state;
    if *state != State::Running {
        return differs("state", Some("running"), Some(&state.word()));
    }
    let at = |kind| Address::new(kind, key);
    let wanted = PARTS.into_iter().filter_map(|kind| Some((at(kind), graph.resources.get(&at(kind))?.clone())));
    let mut trio = Graph { resources: wanted.collect(), ..Graph::default() };
    rebind(&mut trio, key, member);
    for kind in PARTS {
        let (desired, found) = (trio.resources.get(&at(kind))?.spec.fields(), &member.parts(kind)[0]);
        if let Some(reason) = differing(kind, &base, &desired, found) {
            return Some(reason);
        }
    }
    let image = graph.resources.get(&at(Kind::Sidecar)).and_then(|r| r.depends_on.iter().find(|d| d.kind == Kind::Image));
    let now = image.and_then(|image| observed.found(image).first()).map(|image| &image.id);
    match (&member.sidecar[0].image_id, now) {
        (Some(made_from), Some(now)) if made_from != now => {
            Some(Reason::ImageChanged { recorded: super::short_id(made_from), live: super::short_id(now) })
        }
        _ => None,
    }
}

/// Whose it is changes hands; everything else is as it was made, and made as it is wanted.
fn differing(kind: Kind, candidate: &str, desired: &Fields, found: &Found) -> Option<Reason> {
    let Some(mut recorded) = found.recorded.clone() else {
        return Some(Reason::LabelMissing { label: label::SPEC.to_owned() });
    };
    recorded.insert("owner".to_owned(), desired.get("owner").cloned().unwrap_or_default());
    // The tier explains the rest.
    let telling = |reason: &Reason| ["tier", "image"].iter().position(|field| reason.field() == Some(*field)).unwrap_or(2);
    let mut reasons: Vec<Reason> = differences(kind, desired, &recorded, &found.live).into_iter().map(|d| d.reason).collect();
    reasons.sort_by_key(telling);
    let candidate = candidate.to_owned();
    reasons.into_iter().find_map(|reason| match reason {
        Reason::FieldChanged { field, recorded, desired } => {
            Some(Reason::Mismatch { candidate: candidate.clone(), field, desired, found: recorded })
        }
        Reason::Drifted { field, recorded, live } => {
            Some(Reason::Mismatch { candidate: candidate.clone(), field, desired: recorded, found: live })
        }
        _ => None,
    })
}

/// What is wanted under this key is the kept set itself.
fn bind(graph: &mut Graph, key: &str, member: &PoolMember) {
    rebind(graph, key, member);
    let owner = names::pool_base(&member.id);
    let renamed = |address: &Address| {
        if address.name == key { Address::pool(address.kind, &member.id) } else { address.clone() }
    };
    for (address, mut resource) in std::mem::take(&mut graph.resources) {
        if address.name == key {
            match &mut resource.spec {
                Spec::Network(spec) => spec.owner.clone_from(&owner),
                Spec::Certs(spec) => spec.owner.clone_from(&owner),
                Spec::Sidecar(spec) => spec.owner.clone_from(&owner),
                _ => {}
            }
            resource.depends_on = resource.depends_on.iter().map(renamed).collect();
        }
        graph.resources.insert(renamed(&address), resource);
    }
    debug_assert!(pool_id(key).is_some(), "BUG: {key} is an instance");
}

/// Gives the instance's resources the kept objects' names.
fn rebind(graph: &mut Graph, instance: &str, member: &PoolMember) {
    let renames: Vec<(String, String)> = [Kind::Sidecar, Kind::Network, Kind::Certs]
        .into_iter()
        .filter_map(|kind| {
            let own = graph.resources.get(&Address::new(kind, instance))?.spec.object_name().to_owned();
            Some((own, member.parts(kind).first()?.name.clone()))
        })
        .collect();
    let exact = |text: &mut String| {
        if let Some((_, kept)) = renames.iter().find(|(own, _)| own == text) {
            text.clone_from(kept);
        }
    };
    let inside = |env: &mut BTreeMap<String, EnvEntry>| {
        for entry in env.values_mut() {
            if let EnvEntry::Plain(text) = entry {
                for (own, kept) in &renames {
                    if text == own || text.contains(&format!("{own}:")) || *text == format!("DNS:{own}") {
                        *text = text.replace(own.as_str(), kept);
                        break;
                    }
                }
            }
        }
    };
    for kind in [Kind::Home, Kind::Network, Kind::Certs, Kind::Sidecar, Kind::Capsule] {
        let Some(resource) = graph.resources.get_mut(&Address::new(kind, instance)) else {
            continue;
        };
        match &mut resource.spec {
            Spec::Network(spec) => exact(&mut spec.name),
            Spec::Certs(spec) => exact(&mut spec.name),
            Spec::Sidecar(spec) => {
                exact(&mut spec.name);
                exact(&mut spec.network);
                inside(&mut spec.env);
                spec.mounts.values_mut().for_each(|m| exact(&mut m.source));
            }
            Spec::Capsule(spec) => {
                exact(&mut spec.network);
                inside(&mut spec.env);
                spec.mounts.values_mut().for_each(|m| exact(&mut m.source));
            }
            Spec::Home(spec) => {
                for name in [&mut spec.record.dind_container, &mut spec.record.network, &mut spec.record.certs_volume].into_iter().flatten()
                {
                    exact(name);
                }
            }
            Spec::RoleRepo(_)
            | Spec::AgentBinary(_)
            | Spec::CapsuleBinary(_)
            | Spec::Image(_)
            | Spec::RoleImage(_)
            | Spec::DerivedImage(_)
            | Spec::Checkout(_) => {}
        }
    }
}
