//! Adoption: an instance that has neither sidecar nor network nor certificate volume takes over a kept set that fits exactly.
//!
//! The graph is rebound to the kept set's names before anything is decided, so that the rest of the planner sees plain names.

use super::action::Reason;
use super::diff::present;
use crate::graph::Graph;
use crate::observed::{Observed, PoolMember, State};
use crate::resource::{Address, EnvEntry, Kind, Spec};
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Adopted {
    from: BTreeMap<Address, String>,
    refused: BTreeMap<Address, Reason>,
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

/// Each kept set goes to at most one instance, in instance order.
pub(super) fn adopt<'a>(graph: &'a Graph, observed: &Observed) -> (Cow<'a, Graph>, Adopted) {
    let mut adopted = Adopted::default();
    let mut graph = Cow::Borrowed(graph);
    let mut free: Vec<&PoolMember> = observed.pool.iter().collect();
    let instances: Vec<String> = graph.instances.keys().cloned().collect();
    for instance in instances {
        let at = |kind| Address::new(kind, instance.clone());
        let parts = [Kind::Network, Kind::Certs, Kind::Sidecar].map(at);
        let wants = graph.resources.contains_key(&parts[2]);
        let nothing_there = parts.iter().chain([&at(Kind::Capsule)]).all(|a| observed.found(a).is_empty());
        if !wants || !nothing_there {
            continue;
        }
        let Spec::Sidecar(wanted) = &graph.resources[&parts[2]].spec else {
            continue;
        };
        let mut refusal = Reason::NoCandidate;
        let fitting = free.iter().position(|member| match mismatch(wanted, member) {
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
                adopted.from.insert(parts[0].clone(), member.network.name.clone());
                adopted.from.insert(parts[1].clone(), member.certs.name.clone());
                adopted.from.insert(parts[2].clone(), member.sidecar.name.clone());
            }
            None => {
                adopted.refused.insert(parts[2].clone(), refusal);
            }
        }
    }
    (graph, adopted)
}

/// The first field in which a kept sidecar is not what the instance wants. Names, and what follows from them, may differ.
fn mismatch(wanted: &crate::resource::Sidecar, member: &PoolMember) -> Option<Reason> {
    let found = &member.sidecar;
    let candidate = found.name.clone();
    if found.state != State::Running {
        let found = Some(found.state.word().into());
        return Some(Reason::Mismatch { candidate, field: "state".to_owned(), desired: Some("running".into()), found });
    }
    let Some(recorded) = &found.recorded else {
        return Some(Reason::LabelMissing { label: crate::resource::label::SPEC.to_owned() });
    };
    let desired = Spec::Sidecar(wanted.clone()).fields();
    ["image", "tier", "privileged"].into_iter().find_map(|field| {
        let (desired, found) = (present(&desired, field).cloned(), present(recorded, field).cloned());
        (desired != found).then(|| Reason::Mismatch { candidate: candidate.clone(), field: field.to_owned(), desired, found })
    })
}

/// Gives the instance's resources the kept objects' names.
fn rebind(graph: &mut Graph, instance: &str, member: &PoolMember) {
    let renames: Vec<(String, String)> = [Kind::Sidecar, Kind::Network, Kind::Certs]
        .into_iter()
        .filter_map(|kind| {
            let own = graph.resources.get(&Address::new(kind, instance))?.spec.object_name().to_owned();
            let kept = match kind {
                Kind::Sidecar => &member.sidecar.name,
                Kind::Network => &member.network.name,
                _ => &member.certs.name,
            };
            Some((own, kept.clone()))
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
