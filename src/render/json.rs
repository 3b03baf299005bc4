//! The envelope round everything that commands print as JSON.

use serde::Serialize;

pub const SCHEMA_VERSION: &str = "v1";

#[derive(Serialize, schemars::JsonSchema)]
pub struct Envelope<T> {
    pub schema_version: &'static str,
    pub data: T,
}

/// `{"schema_version": "v1", "data": ...}`, pretty, with a final line end.
pub fn envelope(data: &impl Serialize) -> String {
    let enveloped = Envelope { schema_version: SCHEMA_VERSION, data };
    let mut text = serde_json::to_string_pretty(&enveloped).expect("BUG: what is printed as JSON always serialises");
    text.push('\n');
    text
}
