//! The list of instances and kept sidecars. In: rows that a command filled. Out: a table, or JSON through the envelope.

use super::Style;
use super::json::envelope;
use super::table::table;
use super::words::{Depth, whys};
use crate::plan::Change;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An instance as a whole, over its capsule and its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Running,
    /// Some part it needs is not there or does not run.
    Degraded,
    Paused,
    /// Started, paused and not begun: a launch will take it.
    Spare,
    Stopped,
    /// The capsule ended by itself, with an error.
    Crashed,
    /// Only its home is left.
    Saved,
    /// Declared and never made.
    Absent,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Running => "running",
            Health::Degraded => "degraded",
            Health::Paused => "paused",
            Health::Spare => "spare",
            Health::Stopped => "stopped",
            Health::Crashed => "crashed",
            Health::Saved => "saved",
            Health::Absent => "absent",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusRow {
    /// Instance key, `workspace/name`.
    pub instance: String,
    pub role: String,
    pub agent: String,
    pub state: Health,
    /// Live sessions; `None` = the capsule could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// How many of them are in which state, where states are known: `blocked`, `working`, `done`, `idle`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub session_states: BTreeMap<String, u32>,
    pub container: String,
    /// Since its capsule was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
}

pub fn status_text(rows: &[StatusRow], style: &Style) -> String {
    if rows.is_empty() {
        return "No instances.\n".to_owned();
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.instance.clone(),
                row.role.clone(),
                row.agent.clone(),
                row.state.as_str().to_owned(),
                sessions_words(row),
                row.age_seconds.map_or_else(|| "-".to_owned(), age_words),
                row.container.clone(),
            ]
        })
        .collect();
    table(&cells, &["instance", "role", "agent", "state", "sessions", "age", "container"], style)
}

/// What a kept set is to the next launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptState {
    Ready,
    /// Another jackin makes, adopts or removes it right now.
    Held,
    /// It waits in vain.
    Useless,
}

/// A sidecar that waits for a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeptRow {
    pub id: String,
    /// What the names of its container, network and volume begin with.
    pub name: String,
    pub state: KeptState,
    /// Why nobody can use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All that `jackin status` tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub instances: Vec<StatusRow>,
    /// Sidecars that no instance uses; none when a selector was given.
    pub kept: Vec<KeptRow>,
}

/// Why a change is made, in one sentence.
pub fn reason_text(change: &Change) -> Option<String> {
    whys(change, Depth { style: &Style::PLAIN, verbose: true }).into_iter().next().map(|why| why.text)
}

pub fn kept_text(rows: &[KeptRow]) -> String {
    let line = |row: &KeptRow| match (row.state, &row.reason) {
        (KeptState::Held, _) => format!("{}: in another jackin's hands\n", row.name),
        (KeptState::Ready, _) => format!("{}: ready for the next launch\n", row.name),
        (KeptState::Useless, why) => {
            let why = why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
            format!("{}: of no use{why}; `jackin apply --prune` removes it\n", row.name)
        }
    };
    let lines: String = rows.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\nSidecars that no instance uses:\n{lines}") }
}

pub fn status_json(status: &Status) -> String {
    envelope(status)
}

/// `3 (1 blocked, 2 working)`; what wants a person comes first.
fn sessions_words(row: &StatusRow) -> String {
    let Some(sessions) = row.sessions else {
        return "-".to_owned();
    };
    let known = ["blocked", "done", "working", "idle"].into_iter();
    let states: Vec<String> = known.filter_map(|state| Some(format!("{} {state}", row.session_states.get(state)?))).collect();
    if states.is_empty() { sessions.to_string() } else { format!("{sessions} ({})", states.join(", ")) }
}

/// `45s`, `12m`, `3h`, `9d`.
pub fn age_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
