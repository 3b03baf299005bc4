//! JSON Schemas of the documents that jackin writes, made from the types; copies lie in `schemas/`, compared by a test.

use crate::diagnostic::Diagnostic;
use crate::event::Line;
use crate::graph::Graph;
use crate::observed::Observed;
use crate::plan::Plan;
use schemars::{Schema, schema_for};

/// Documents with a generated schema.
pub const NAMES: [&str; 5] = ["plan", "graph", "observed", "diagnostics", "events"];

/// Pretty JSON with a final line end; `None` for a name that is not in `NAMES`.
pub fn schema(name: &str) -> Option<String> {
    let mut schema: Schema = match name {
        "plan" => schema_for!(Plan),
        "graph" => schema_for!(Graph),
        "observed" => schema_for!(Observed),
        "diagnostics" => schema_for!(Vec<Diagnostic>),
        // One line of a run's journal.
        "events" => schema_for!(Line),
        _ => return None,
    };
    schema.insert("title".to_owned(), format!("jackin {name}").into());
    let mut text = serde_json::to_string_pretty(&schema).expect("BUG: a schema always serialises");
    text.push('\n');
    Some(text)
}
