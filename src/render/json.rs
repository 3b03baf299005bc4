//! The envelope round everything that commands print as JSON.

use serde::Serialize;
use serde_json::json;

pub const SCHEMA_VERSION: &str = "v1";

/// `{"schema_version": "v1", "data": ...}`, pretty, with a final line end.
pub fn envelope(data: &impl Serialize) -> String {
    let data = serde_json::to_value(data).expect("BUG: what is printed as JSON always serialises");
    let mut text = serde_json::to_string_pretty(&json!({ "schema_version": SCHEMA_VERSION, "data": data })).expect("BUG: JSON serialises");
    text.push('\n');
    text
}
