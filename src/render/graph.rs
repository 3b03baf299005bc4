//! A graph as DOT, Mermaid or JSON. An edge points from a resource to what it needs. Same graph, same bytes.

use super::page::clean;
use crate::graph::Graph;
use crate::resource::Address;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Nodes by instance; `None` = shared.
fn clusters(graph: &Graph) -> BTreeMap<Option<&str>, Vec<&Address>> {
    let mut out: BTreeMap<Option<&str>, Vec<&Address>> = BTreeMap::new();
    for address in graph.resources.keys() {
        out.entry(address.instance()).or_default().push(address);
    }
    out
}

fn edges(graph: &Graph) -> impl Iterator<Item = (&Address, &Address)> {
    graph
        .resources
        .iter()
        .flat_map(|(address, resource)| resource.depends_on.iter().map(move |d| (address, d)))
        .filter(|(_, dependency)| graph.resources.contains_key(dependency))
}

pub fn dot(graph: &Graph) -> String {
    let quote = |text: &str| format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = String::from("digraph jackin {\n  rankdir = \"LR\";\n  node [shape = \"box\"];\n");
    for (number, (instance, addresses)) in clusters(graph).into_iter().enumerate() {
        let inner = if let Some(instance) = instance {
            let _ = writeln!(out, "  subgraph cluster_{number} {{\n    label = {};", quote(instance));
            "    "
        } else {
            "  "
        };
        for address in addresses {
            let _ = writeln!(out, "{inner}{};", quote(&address.to_string()));
        }
        if instance.is_some() {
            out.push_str("  }\n");
        }
    }
    for (from, to) in edges(graph) {
        let _ = writeln!(out, "  {} -> {};", quote(&from.to_string()), quote(&to.to_string()));
    }
    out.push_str("}\n");
    out
}

pub fn mermaid(graph: &Graph) -> String {
    // Mermaid takes almost nothing in an id, so nodes are numbered and named by their labels.
    let ids: BTreeMap<&Address, usize> = graph.resources.keys().enumerate().map(|(number, address)| (address, number)).collect();
    let quote = |text: &str| {
        let escaped: String = clean(text)
            .chars()
            .map(|c| match c {
                '"' => "#quot;".to_owned(),
                '#' => "#35;".to_owned(),
                '<' => "#lt;".to_owned(),
                '>' => "#gt;".to_owned(),
                '&' => "#amp;".to_owned(),
                c => c.to_string(),
            })
            .collect();
        format!("[\"{escaped}\"]")
    };
    let mut out = String::from("flowchart LR\n");
    for (number, (instance, addresses)) in clusters(graph).into_iter().enumerate() {
        if let Some(instance) = instance {
            let _ = writeln!(out, "  subgraph s{number}{}", quote(instance));
        }
        for address in addresses {
            let indent = if instance.is_some() { "    " } else { "  " };
            let _ = writeln!(out, "{indent}n{}{}", ids[address], quote(&address.to_string()));
        }
        if instance.is_some() {
            out.push_str("  end\n");
        }
    }
    for (from, to) in edges(graph) {
        let _ = writeln!(out, "  n{} --> n{}", ids[from], ids[to]);
    }
    out
}

/// Pretty, with a final line end.
pub fn json(graph: &Graph) -> String {
    let mut text = serde_json::to_string_pretty(graph).expect("BUG: a graph always serialises");
    text.push('\n');
    text
}
