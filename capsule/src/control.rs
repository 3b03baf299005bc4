//! Control messages: one JSON request, one JSON reply, each behind a u32 big-endian length. Text in, values out.
//! Absent: sockets, and where the answers come from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{Ctx, VERSION};

pub const MAX_MESSAGE: usize = 4 << 20;

/// What can be asked. A request that cannot be understood is `Unknown`, so that it gets the reply of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Status,
    Snapshot,
    Agents,
    /// The text on a session's screen; without an id, of the focused one.
    SessionRead {
        session_id: Option<u64>,
    },
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    SessionList { sessions: Vec<SessionSummary> },
    Snapshot { tabs: Vec<Tab>, active_tab: usize },
    AgentRegistry { records: Vec<AgentRecord> },
    SessionRead(ScreenText),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Working,
    Blocked,
    Done,
    Idle,
    Unknown,
}

impl std::fmt::Display for SessionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Working => "working",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    pub id: u64,
    pub label: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    pub state: SessionState,
    pub active: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tab {
    pub label: String,
    pub focused_pane: u64,
    pub panes: Vec<Pane>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pane {
    pub session_id: u64,
    pub label: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    pub state: SessionState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    pub codename: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    pub started_at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exited_at: Option<String>,
    pub status: String,
    pub is_self: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenText {
    pub session_id: u64,
    pub rows: u16,
    pub cols: u16,
    pub cursor_row: u16,
    pub cursor_col: u16,
    pub title: String,
    pub text: String,
}

impl Request {
    /// Accepts `{"ctx": .., "msg": {"type": ..}}` and the bare `{"type": ..}` of older programs.
    pub fn parse(json: &[u8]) -> (Self, Ctx) {
        Self::parse_strictly(json).unwrap_or((Self::Unknown, Ctx::default()))
    }

    fn parse_strictly(json: &[u8]) -> Option<(Self, Ctx)> {
        let Value::Object(mut top) = serde_json::from_slice(json).ok()? else {
            return None;
        };
        let (ctx, message) = match top.remove("msg") {
            Some(message) => {
                let ctx = top.remove("ctx").map_or(Some(Ctx::default()), |ctx| serde_json::from_value(ctx).ok())?;
                if !top.is_empty() || ctx.v != VERSION {
                    return None;
                }
                (ctx, message)
            }
            None => (Ctx::default(), Value::Object(top)),
        };
        let request = match message.get("type")?.as_str()? {
            "status" => Self::Status,
            "snapshot" => Self::Snapshot,
            "agents" => Self::Agents,
            "session_read" | "session_read_visible" => {
                let session_id = match message.get("session_id") {
                    None | Some(Value::Null) => None,
                    Some(id) => Some(id.as_u64()?),
                };
                Self::SessionRead { session_id }
            }
            _ => return None,
        };
        Some((request, ctx))
    }

    /// The request in its envelope, without the length.
    pub fn to_json(&self, ctx: &Ctx) -> String {
        let message = match self {
            Self::Status => serde_json::json!({"type": "status"}),
            Self::Snapshot => serde_json::json!({"type": "snapshot"}),
            Self::Agents => serde_json::json!({"type": "agents"}),
            Self::SessionRead { session_id } => {
                serde_json::json!({"type": "session_read", "session_id": session_id})
            }
            Self::Unknown => serde_json::json!({"type": "unknown"}),
        };
        serde_json::json!({"ctx": ctx, "msg": message}).to_string()
    }
}

/// Puts the length in front.
pub fn frame(json: &str) -> Vec<u8> {
    let mut bytes = (json.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Request {
        Request::parse(json.as_bytes()).0
    }

    #[test]
    fn envelope_and_bare_message_mean_the_same() {
        assert_eq!(parse(r#"{"ctx":{"v":1,"job_id":"j"},"msg":{"type":"status"}}"#), Request::Status);
        assert_eq!(parse(r#"{"type":"status"}"#), Request::Status);
        assert_eq!(parse(r#"{"type":"session_read_visible","session_id":3}"#), Request::SessionRead { session_id: Some(3) });
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        for json in [
            "",
            "[]",
            "{",
            r#"{"type":"fly"}"#,
            r#"{"type":7}"#,
            r#"{"ctx":{"v":2},"msg":{"type":"status"}}"#,
            r#"{"ctx":{"v":1,"shoe":9},"msg":{"type":"status"}}"#,
            r#"{"ctx":{"v":1},"msg":{"type":"status"},"more":1}"#,
            r#"{"type":"session_read","session_id":"x"}"#,
        ] {
            assert_eq!(parse(json), Request::Unknown, "{json}");
        }
    }

    #[test]
    fn requests_survive_the_wire() {
        for request in [
            Request::Status,
            Request::Snapshot,
            Request::Agents,
            Request::SessionRead { session_id: None },
            Request::SessionRead { session_id: Some(u64::MAX) },
        ] {
            assert_eq!(parse(&request.to_json(&Ctx::default())), request);
        }
    }

    #[test]
    fn replies_carry_their_type() {
        let reply = Reply::SessionList {
            sessions: vec![SessionSummary {
                id: 1,
                label: "Claude".into(),
                agent: Some("claude".into()),
                state: SessionState::Unknown,
                active: true,
            }],
        };
        let json = serde_json::to_string(&reply).unwrap();
        assert_eq!(
            json,
            r#"{"type":"session_list","sessions":[{"id":1,"label":"Claude","agent":"claude","state":"unknown","active":true}]}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply);
        assert_eq!(serde_json::to_string(&Reply::Unknown).unwrap(), r#"{"type":"unknown"}"#);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            Request::parse(&bytes);
        }
    }
}
