//! Control messages: one JSON request, one JSON reply, each behind a u32 big-endian length. Text in, values out.
//! Absent: sockets, and where the answers come from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{Ctx, VERSION};

pub const MAX_MESSAGE: usize = 4 << 20;

/// What can be asked. A request that cannot be understood is `Unknown`, so that it gets the reply of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    Version,
    Status,
    Snapshot,
    Agents,
    /// The text on a session's screen; without an id, of the focused one. With so many lines of its history, if asked.
    #[serde(alias = "session_read_visible")]
    SessionRead {
        #[serde(default)]
        session_id: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<u64>,
    },
    /// Answered when the session is in one of the states, or the time is over.
    WaitSessionStatus {
        session_id: u64,
        states: Vec<SessionState>,
        timeout_ms: u64,
    },
    /// `Event` replies, until the asker closes.
    EventsSubscribe,
    SessionStatusExplain {
        session_id: u64,
    },
    /// Saves what detection saw as a fixture.
    StatusCapture {
        session_id: u64,
    },
    /// What an agent's own hook tells about it.
    ReportRuntimeEvent {
        session_id: u64,
        source_id: String,
        runtime: String,
        event: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
        /// Grows with each event of a source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sequence: Option<u64>,
    },
    Record {
        session_id: u64,
        on: bool,
    },
    /// Go on as the program at this path; no session ends.
    Upgrade {
        path: String,
    },
    /// Start a session without attaching; no agent means a shell.
    SessionSpawn {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
    },
    SessionClose {
        session_id: u64,
    },
    /// A spare looks whether it is to begin; anybody else has begun.
    Release,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// Of the program, and of the wire.
    Version {
        version: String,
        protocol: u32,
    },
    SessionList {
        sessions: Vec<SessionSummary>,
    },
    Snapshot {
        tabs: Vec<Tab>,
        active_tab: usize,
    },
    AgentRegistry {
        records: Vec<AgentRecord>,
    },
    SessionRead(ScreenText),
    Waited {
        session_id: u64,
        state: SessionState,
        timed_out: bool,
    },
    Event {
        event: Event,
    },
    Explained {
        session_id: u64,
        explanation: Value,
    },
    Captured {
        path: String,
    },
    /// Recording goes to, or has stopped at, this file.
    Recording {
        session_id: u64,
        path: String,
    },
    Spawned {
        session_id: u64,
    },
    Ack,
    /// It is a spare, and stays one.
    Held,
    /// It was understood and cannot be done.
    Error {
        message: String,
    },
    Unknown,
}

/// What happens in the capsule, for those who subscribed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// How things stand, before anything else.
    Sessions {
        sessions: Vec<SessionSummary>,
    },
    SessionStarted {
        session: SessionSummary,
    },
    /// The code is absent when a signal ended it.
    SessionEnded {
        session_id: u64,
        code: Option<i32>,
    },
    StateChanged {
        session_id: u64,
        from: SessionState,
        to: SessionState,
    },
    Focused {
        session_id: u64,
    },
    ClientsChanged {
        clients: u32,
    },
    /// This many events were not sent because the subscriber did not read.
    Missed {
        events: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

impl std::str::FromStr for SessionState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let states = [Self::Working, Self::Blocked, Self::Done, Self::Idle, Self::Unknown];
        states
            .into_iter()
            .find(|state| state.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no state; there are {}", states.map(|state| state.to_string()).join(", ")))
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
    /// On what evidence the state rests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_status_report: Option<Value>,
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
        Some((serde_json::from_value(message).ok()?, ctx))
    }

    /// The request in its envelope, without the length.
    pub fn to_json(&self, ctx: &Ctx) -> String {
        serde_json::json!({"ctx": ctx, "msg": self}).to_string()
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
        assert_eq!(parse(r#"{"type":"session_read_visible","session_id":3}"#), Request::SessionRead { session_id: Some(3), history: None });
        assert_eq!(parse(r#"{"type":"session_read"}"#), Request::SessionRead { session_id: None, history: None });
        // What a later program adds to a request that is known is not its meaning.
        assert_eq!(parse(r#"{"type":"status","colour":1}"#), Request::Status);
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

    fn states() -> impl Strategy<Value = SessionState> {
        use SessionState::*;
        proptest::sample::select(vec![Working, Blocked, Done, Idle, Unknown])
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), "\\PC{0,9}".prop_map(Value::from)]
            .prop_flat_map(|leaf| prop_oneof![Just(leaf.clone()), Just(serde_json::json!({"a": [leaf]}))])
    }

    fn requests() -> impl Strategy<Value = Request> {
        let (id, text) = (any::<u64>, || "\\PC{0,12}");
        let maybe = || proptest::option::of("\\PC{0,12}");
        prop_oneof![
            Just(Request::Version),
            Just(Request::Status),
            Just(Request::Snapshot),
            Just(Request::Agents),
            Just(Request::EventsSubscribe),
            any::<(Option<u64>, Option<u64>)>().prop_map(|(session_id, history)| Request::SessionRead { session_id, history }),
            (id(), proptest::collection::vec(states(), 0..4), any::<u64>())
                .prop_map(|(session_id, states, timeout_ms)| Request::WaitSessionStatus { session_id, states, timeout_ms }),
            id().prop_map(|session_id| Request::SessionStatusExplain { session_id }),
            id().prop_map(|session_id| Request::StatusCapture { session_id }),
            // An absent payload and a null one are the same.
            (id(), text(), text(), text(), proptest::option::of(values().prop_filter("null", |value| !value.is_null()))).prop_map(
                |(session_id, source_id, runtime, event, payload)| Request::ReportRuntimeEvent {
                    sequence: Some(7),
                    session_id,
                    source_id,
                    runtime,
                    event,
                    payload
                }
            ),
            any::<(u64, bool)>().prop_map(|(session_id, on)| Request::Record { session_id, on }),
            text().prop_map(|path| Request::Upgrade { path }),
            (maybe(), maybe(), maybe()).prop_map(|(agent, provider, cwd)| Request::SessionSpawn { agent, provider, cwd }),
            id().prop_map(|session_id| Request::SessionClose { session_id }),
        ]
    }

    fn summaries() -> impl Strategy<Value = SessionSummary> {
        (any::<(u64, bool)>(), "\\PC{0,9}", proptest::option::of("[a-z]{1,9}"), states())
            .prop_map(|((id, active), label, agent, state)| SessionSummary { id, label, agent, state, active })
    }

    fn events() -> impl Strategy<Value = Event> {
        let id = any::<u64>;
        prop_oneof![
            proptest::collection::vec(summaries(), 0..3).prop_map(|sessions| Event::Sessions { sessions }),
            summaries().prop_map(|session| Event::SessionStarted { session }),
            any::<(u64, Option<i32>)>().prop_map(|(session_id, code)| Event::SessionEnded { session_id, code }),
            (id(), states(), states()).prop_map(|(session_id, from, to)| Event::StateChanged { session_id, from, to }),
            id().prop_map(|session_id| Event::Focused { session_id }),
            any::<u32>().prop_map(|clients| Event::ClientsChanged { clients }),
            id().prop_map(|events| Event::Missed { events }),
        ]
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let (id, text) = (any::<u64>, || "\\PC{0,12}");
        let pane = (id(), text(), proptest::option::of("[a-z]{1,9}"), states(), proptest::option::of(values())).prop_map(
            |(session_id, label, agent, state, report)| Pane {
                session_id,
                label,
                agent,
                state,
                agent_status_report: report.filter(|report| !report.is_null()),
            },
        );
        let tab = (text(), id(), proptest::collection::vec(pane, 0..3)).prop_map(|(label, focused_pane, panes)| Tab {
            label,
            focused_pane,
            panes,
        });
        let screen =
            (id(), any::<[u16; 4]>(), text(), text()).prop_map(|(session_id, [rows, cols, cursor_row, cursor_col], title, text)| {
                ScreenText { session_id, rows, cols, cursor_row, cursor_col, title, text }
            });
        prop_oneof![
            (text(), any::<u32>()).prop_map(|(version, protocol)| Reply::Version { version, protocol }),
            proptest::collection::vec(summaries(), 0..3).prop_map(|sessions| Reply::SessionList { sessions }),
            (proptest::collection::vec(tab, 0..3), any::<usize>()).prop_map(|(tabs, active_tab)| Reply::Snapshot { tabs, active_tab }),
            screen.prop_map(Reply::SessionRead),
            (id(), states(), any::<bool>()).prop_map(|(session_id, state, timed_out)| Reply::Waited { session_id, state, timed_out }),
            events().prop_map(|event| Reply::Event { event }),
            (id(), values()).prop_map(|(session_id, explanation)| Reply::Explained { session_id, explanation }),
            text().prop_map(|path| Reply::Captured { path }),
            (id(), text()).prop_map(|(session_id, path)| Reply::Recording { session_id, path }),
            id().prop_map(|session_id| Reply::Spawned { session_id }),
            Just(Reply::Ack),
            text().prop_map(|message| Reply::Error { message }),
            Just(Reply::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire_bare_or_not(request in requests()) {
            prop_assert_eq!(parse(&request.to_json(&Ctx::default())), request.clone());
            prop_assert_eq!(parse(&serde_json::to_string(&request).unwrap()), request);
        }

        #[test]
        fn replies_survive_the_wire(reply in replies()) {
            prop_assert_eq!(serde_json::from_str::<Reply>(&serde_json::to_string(&reply).unwrap()).unwrap(), reply);
        }

        #[test]
        fn random_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            Request::parse(&bytes);
        }
    }
}
