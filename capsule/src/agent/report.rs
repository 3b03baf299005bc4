//! What a session's detector says to others, as it goes over the control channel. Values only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Before `done`: whether somebody has looked is not the agent's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawState {
    #[default]
    Unknown,
    Working,
    Blocked,
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    #[default]
    Unknown,
    Weak,
    Strong,
    Authoritative,
}

/// The evidence that decided.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    #[default]
    None,
    VisibleScreen,
    ShellIntegration,
    ForegroundProcess,
    Reported {
        source_id: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentStatusReport {
    pub raw_state: RawState,
    pub source: Source,
    pub confidence: Confidence,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detected_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub foreground_pgid: Option<i32>,
    pub visible_blocker: bool,
    pub visible_idle: bool,
    pub visible_working: bool,
    pub process_exited: bool,
    pub foreground_returned_to_shell: bool,
    /// The last event came too late, from a second source or for another agent, and was not believed.
    pub stale_report: bool,
    pub subagents_active: u32,
    /// Counts the changes of all the above.
    pub revision: u64,
}

impl fmt::Display for RawState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Working => "working",
            Self::Blocked => "blocked",
            Self::Idle => "idle",
        })
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Weak => "weak",
            Self::Strong => "strong",
            Self::Authoritative => "authoritative",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_documented_one() {
        let report = AgentStatusReport {
            raw_state: RawState::Blocked,
            source: Source::Reported { source_id: "hook-claude-1".into() },
            confidence: Confidence::Strong,
            detected_agent: Some("claude".into()),
            revision: 3,
            ..Default::default()
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            json,
            r#"{"raw_state":"blocked","source":{"reported":{"source_id":"hook-claude-1"}},"confidence":"strong","detected_agent":"claude","visible_blocker":false,"visible_idle":false,"visible_working":false,"process_exited":false,"foreground_returned_to_shell":false,"stale_report":false,"subagents_active":0,"revision":3}"#
        );
        assert_eq!(serde_json::from_str::<AgentStatusReport>(&json).unwrap(), report);
        assert_eq!(serde_json::to_string(&Source::VisibleScreen).unwrap(), r#""visible_screen""#);
    }
}
