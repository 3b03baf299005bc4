//! Graph: every resource that should exist, by address, with its dependencies and where each value came from.
//!
//! Serialisable, so that a run can be replayed elsewhere. petgraph stays inside this module. Absent: what exists.

pub mod build;
mod context;
pub mod derived;
pub mod names;
pub mod prewarm;
pub mod programs;
pub mod role;
pub mod spare;
pub mod role_repo;
pub mod want;

pub use context::{BuildContext, ContextFile, RepoFiles};

use crate::diagnostic::Diagnostic;
use crate::resource::{Address, Spec};
use petgraph::Direction::Incoming;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graphmap::DiGraphMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub const GRAPH_FORMAT: u32 = 1;

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    pub spec: Spec,
    pub depends_on: BTreeSet<Address>,
    /// Field, or leading part of field names -> where its value was written (`workspaces/app.toml:12:5`, `default`, `--flag`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

impl Resource {
    /// The most specific source known for a flattened field.
    pub fn source_of(&self, field: &str) -> Option<&str> {
        let mut prefix = field;
        loop {
            if let Some(source) = self.sources.get(prefix) {
                return Some(source);
            }
            prefix = &prefix[..prefix.rfind('.')?];
        }
    }
}

/// What an instance is, for headings and lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceInfo {
    pub workspace: String,
    pub role: String,
    pub agent: String,
    pub container: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    pub format_version: u32,
    pub resources: BTreeMap<Address, Resource>,
    /// By instance key `workspace/name`.
    pub instances: BTreeMap<String, InstanceInfo>,
    /// What a sidecar that is kept for adoption would be made from now, with its network and volume. Set when the kept ones that are
    /// not like it are to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<BTreeMap<Address, Resource>>,
    /// Loaded spares that could not even be made now, by instance key; they go when what nobody declares goes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub abandoned: BTreeSet<String>,
    /// What forbids or qualifies applying; blockers have severity `error`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            format_version: GRAPH_FORMAT,
            resources: BTreeMap::new(),
            instances: BTreeMap::new(),
            kept: None,
            abandoned: BTreeSet::new(),
            diagnostics: Vec::new(),
        }
    }
}

/// Addresses on a cycle, each depending on the next, the first repeated last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
pub struct Cycle(pub Vec<Address>);

impl Graph {
    /// Dependencies before dependents; ties in address order. Linear in resources and edges.
    pub fn order(&self) -> Result<Vec<&Address>, Cycle> {
        let mut graph: DiGraphMap<&Address, ()> = DiGraphMap::with_capacity(self.resources.len(), self.resources.len() * 4);
        // toposort visits roots from the last one added; adding in reverse gives address order among the free.
        for address in self.resources.keys().rev() {
            graph.add_node(address);
        }
        for (address, resource) in self.resources.iter().rev() {
            for dependency in resource.depends_on.iter().rev() {
                if let Some((dependency, _)) = self.resources.get_key_value(dependency) {
                    graph.add_edge(dependency, address, ());
                }
            }
        }
        toposort(&graph, None).map_err(|_| {
            // Tarjan's is recursive here; a long cycle would exhaust the stack.
            let component = kosaraju_scc(&graph)
                .into_iter()
                .find(|c| c.len() > 1 || graph.contains_edge(c[0], c[0]))
                .expect("BUG: toposort fails only on a cycle");
            cycle_path(&graph, &component)
        })
    }

    /// Everything `roots` need, themselves included.
    pub fn closure(&self, roots: impl IntoIterator<Item = Address>) -> BTreeSet<Address> {
        let mut out = BTreeSet::new();
        let mut todo: Vec<Address> = roots.into_iter().collect();
        while let Some(address) = todo.pop() {
            if let Some(resource) = self.resources.get(&address)
                && out.insert(address)
            {
                todo.extend(resource.depends_on.iter().cloned());
            }
        }
        out
    }

    /// Direct dependents of every resource.
    pub fn dependents(&self) -> BTreeMap<&Address, Vec<&Address>> {
        let mut out: BTreeMap<&Address, Vec<&Address>> = BTreeMap::new();
        for (address, resource) in &self.resources {
            for dependency in &resource.depends_on {
                out.entry(dependency).or_default().push(address);
            }
        }
        out
    }
}

/// Follows dependencies inside a strongly connected component until an address comes round again.
fn cycle_path(graph: &DiGraphMap<&Address, ()>, component: &[&Address]) -> Cycle {
    let members: BTreeSet<&Address> = component.iter().copied().collect();
    let start = *members.first().expect("BUG: a component has members");
    let mut path = vec![start];
    let mut seen = BTreeMap::from([(start, 0)]);
    loop {
        let here = *path.last().expect("BUG: never empty");
        let next =
            graph.neighbors_directed(here, Incoming).filter(|n| members.contains(n)).min().expect("BUG: a component is strongly connected");
        if let Some(&at) = seen.get(next) {
            let mut cycle: Vec<Address> = path[at..].iter().map(|a| (*a).clone()).collect();
            cycle.push(next.clone());
            return Cycle(cycle);
        }
        seen.insert(next, path.len());
        path.push(next);
    }
}
