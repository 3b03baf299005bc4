//! JSON Schemas: of the documents that jackin writes, made from the types (copies lie in `schemas/`, compared by a test), and of the
//! files that people write, kept by hand in `schemas/`.

use crate::diagnostic::Diagnostic;
use crate::event::Line;
use crate::graph::Graph;
use crate::observed::Observed;
use crate::plan::Plan;
use crate::render::json::Envelope;
use crate::render::status::Status;
use schemars::{Schema, schema_for};

/// Documents with a generated schema.
pub const NAMES: [&str; 6] = ["plan", "graph", "observed", "diagnostics", "events", "status"];

/// The files that people write.
pub const BY_HAND: [(&str, &str); 3] = [
    ("config", include_str!("../../schemas/config.schema.json")),
    ("workspace", include_str!("../../schemas/workspace.schema.json")),
    ("role", include_str!("../../schemas/role.schema.json")),
];

/// Everything that `jackin schema` prints.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(BY_HAND.map(|(name, _)| name))
}

/// Any of `names`.
pub fn text(name: &str) -> Option<String> {
    BY_HAND.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()).or_else(|| schema(name))
}

/// Pretty JSON with a final line end; `None` for a name that is not in `NAMES`.
pub fn schema(name: &str) -> Option<String> {
    let mut schema: Schema = match name {
        "plan" => schema_for!(Plan),
        "graph" => schema_for!(Graph),
        "observed" => schema_for!(Observed),
        "diagnostics" => schema_for!(Vec<Diagnostic>),
        // One line of a run's journal.
        "events" => schema_for!(Line),
        "status" => schema_for!(Envelope<Status>),
        _ => return None,
    };
    schema.insert("title".to_owned(), format!("jackin {name}").into());
    let mut text = serde_json::to_string_pretty(&schema).expect("BUG: a schema always serialises");
    text.push('\n');
    Some(text)
}
