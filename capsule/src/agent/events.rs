//! Events that agents' hooks and plugins report: vendor names in, what they claim out; and the authority that a session's
//! claims add up to. Absent: the socket they come through, and payloads: only a few known words of one are ever kept.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arbitrate::{self, FRESH};
use super::{Confidence, Millis, RawState};

/// Of a payload no more than this is read.
pub const MAX_PAYLOAD: usize = 64 << 10;
const MAX_NAME: usize = 128;
/// Sources whose last sequence is remembered; a session has one or two.
const MAX_SOURCES: usize = 8;

/// The control message `report_runtime_event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEvent {
    pub session_id: u64,
    pub source_id: String,
    /// The agent's slug.
    pub runtime: String,
    pub event: String,
    #[serde(skip_serializing_if = "Hints::is_empty", default)]
    pub payload: Hints,
    /// Grows with each event of a source: hooks run side by side and may arrive in another order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sequence: Option<u64>,
}

/// The words of a payload that decide what an event means. The rest may be prompts and secrets, and is skipped while
/// reading.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hints {
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "word")]
    pub notification_type: Option<String>,
    /// OpenCode's `session.status`.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "word")]
    pub status: Option<String>,
}

impl Hints {
    /// A payload that cannot be read is one without hints.
    pub fn read(payload: &[u8]) -> Self {
        if payload.len() > MAX_PAYLOAD {
            return Self::default();
        }
        serde_json::from_slice(payload).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A word, or OpenCode's `{"type": <word>}`; anything else is as good as nothing.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Object(mut object) => match object.remove("type") {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
        _ => None,
    };
    Ok(text.filter(|text| text.len() <= MAX_NAME))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    PromptSubmitted,
    ToolStart,
    ToolEnd,
    CompactStart,
    PermissionRequested,
    QuestionAsked,
    Elicitation,
    PermissionResolved,
    QuestionAnswered,
    TurnComplete,
    Stop,
    SubagentStart,
    SubagentStop,
    SessionEnd,
    AgentExit,
    Heartbeat,
}

/// Canonical names, which any agent may report.
const NAMES: [(&str, Event); 16] = [
    ("prompt-submitted", Event::PromptSubmitted),
    ("tool-start", Event::ToolStart),
    ("tool-end", Event::ToolEnd),
    ("compact-start", Event::CompactStart),
    ("permission-requested", Event::PermissionRequested),
    ("question-asked", Event::QuestionAsked),
    ("elicitation", Event::Elicitation),
    ("permission-resolved", Event::PermissionResolved),
    ("question-answered", Event::QuestionAnswered),
    ("turn-complete", Event::TurnComplete),
    ("stop", Event::Stop),
    ("subagent-start", Event::SubagentStart),
    ("subagent-stop", Event::SubagentStop),
    ("session-end", Event::SessionEnd),
    ("agent-exit", Event::AgentExit),
    ("heartbeat", Event::Heartbeat),
];

impl Event {
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    pub event: Event,
    /// Without saying what the agent does now, it shows that an earlier claim no longer holds.
    pub ends: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Nothing,
    /// It does something, so it is not idle.
    Idleness,
    /// Its question has been answered, so it is neither blocked nor idle.
    Question,
}

/// `None` for an event that means nothing to us.
pub fn meaning(runtime: &str, event: &str, hints: &Hints) -> Option<Meaning> {
    let plain = |event| Some(Meaning { event, ends: Ends::Nothing });
    let sign_of_life = |ends| Some(Meaning { event: Event::Heartbeat, ends });
    if let Some((_, event)) = NAMES.iter().find(|(name, _)| *name == event) {
        return plain(*event);
    }
    match (runtime, event) {
        ("claude", "Notification") => match hints.notification_type.as_deref() {
            Some("permission_prompt") => plain(Event::PermissionRequested),
            Some("idle_prompt") => plain(Event::TurnComplete),
            // These report the end of one, not that one is asked for.
            Some("elicitation_complete" | "elicitation_response") => plain(Event::QuestionAnswered),
            Some(kind) if kind.starts_with("elicitation_") => plain(Event::Elicitation),
            _ => plain(Event::Heartbeat),
        },
        ("claude", "SessionEnd") => plain(Event::AgentExit),
        // Hooks fire for sub-agents as well and in no strict order, so they claim no state of their own. But a claim that
        // is kept alive by the very hooks that contradict it would stand for the whole turn.
        ("claude" | "codex", "UserPromptSubmit" | "PostToolUse" | "PostToolUseFailure" | "PermissionDenied") => {
            sign_of_life(Ends::Question)
        }
        ("claude" | "codex", "PreToolUse" | "PermissionRequest" | "SubagentStart" | "PreCompact") => sign_of_life(Ends::Idleness),
        ("claude" | "codex", _) => plain(Event::Heartbeat),

        ("opencode", "session.status") if hints.status.as_deref() == Some("idle") => plain(Event::TurnComplete),
        ("opencode", "session.status" | "tool.execute.before") => plain(Event::ToolStart),
        ("opencode", "tool.execute.after") => plain(Event::ToolEnd),
        ("opencode", "session.idle") => plain(Event::TurnComplete),
        ("opencode", "permission.asked") => plain(Event::PermissionRequested),
        ("opencode", "permission.replied") => plain(Event::PermissionResolved),
        ("opencode", "session.error") => plain(Event::AgentExit),

        ("amp", "agent.start" | "tool.call") => plain(Event::ToolStart),
        ("amp", "tool.result") => plain(Event::ToolEnd),
        ("amp", "agent.end") => plain(Event::TurnComplete),
        _ => None,
    }
}

/// What one source has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub source_id: String,
    pub runtime: String,
    pub last_event: &'static str,
    pub at: Millis,
    pub state: Option<RawState>,
    pub permission: bool,
    pub subagents: u32,
    /// The turn ended while sub-agents still ran.
    stopped: bool,
}

impl Authority {
    pub fn is_fresh(&self, now: Millis) -> bool {
        now.saturating_sub(self.at) <= FRESH
    }

    pub fn fact(&self, now: Millis) -> arbitrate::Authority {
        arbitrate::Authority {
            age: now.saturating_sub(self.at),
            state: self.state,
            permission: self.permission,
            grade: grade(&self.runtime),
        }
    }

    fn take(&mut self, meaning: Meaning) {
        use RawState::{Blocked, Idle, Working};
        self.last_event = meaning.event.name();
        match meaning.event {
            Event::PromptSubmitted => {
                (self.permission, self.stopped, self.subagents) = (false, false, 0);
                self.state = Some(Working);
            }
            // A tool that runs beside the one being asked about answers no question.
            Event::ToolStart | Event::ToolEnd | Event::CompactStart => {
                self.stopped = false;
                self.state = Some(if self.permission { Blocked } else { Working });
            }
            Event::PermissionRequested | Event::QuestionAsked | Event::Elicitation => {
                self.permission = true;
                self.state = Some(Blocked);
            }
            Event::PermissionResolved | Event::QuestionAnswered => {
                self.permission = false;
                self.state = Some(Working);
            }
            Event::TurnComplete | Event::Stop => {
                self.stopped = true;
                self.settle();
            }
            Event::SubagentStart => {
                self.subagents = self.subagents.saturating_add(1);
                self.state = Some(if self.permission { Blocked } else { Working });
            }
            Event::SubagentStop => {
                self.subagents = self.subagents.saturating_sub(1);
                if self.stopped {
                    self.settle();
                }
            }
            // The caller removes the authority whole.
            Event::SessionEnd | Event::AgentExit => {}
            Event::Heartbeat => match meaning.ends {
                Ends::Nothing => {}
                Ends::Idleness if self.state == Some(Idle) => self.state = None,
                Ends::Idleness => {}
                Ends::Question => self.end_question(),
            },
        }
    }

    fn settle(&mut self) {
        if self.permission {
            self.state = Some(RawState::Blocked);
        } else if self.subagents > 0 {
            self.state = Some(RawState::Working);
        } else {
            self.state = Some(RawState::Idle);
        }
    }

    /// Nobody says what it does instead.
    pub fn end_question(&mut self) {
        self.permission = false;
        if matches!(self.state, Some(RawState::Blocked | RawState::Idle)) {
            self.state = None;
        }
    }
}

fn grade(runtime: &str) -> Confidence {
    // Its events come in order from the program that does the work; hooks of the others are processes of their own.
    if runtime == "opencode" { Confidence::Authoritative } else { Confidence::Strong }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No name that we know.
    Unknown,
    /// Not the agent of this session.
    OtherAgent,
    /// Sent before one that has arrived.
    Overtaken,
    /// Another source is believed at the moment.
    SecondSource,
    TooLong,
}

impl Refused {
    pub fn why(self) -> &'static str {
        match self {
            Self::Unknown => "the event has no meaning here",
            Self::OtherAgent => "it came from another agent",
            Self::Overtaken => "a later one had arrived before it",
            Self::SecondSource => "another source is believed",
            Self::TooLong => "its names are too long",
        }
    }
}

#[derive(Debug, Default)]
pub struct Reports {
    pub authority: Option<Authority>,
    /// The last event that was not believed, when no good one has come since.
    pub refused: Option<Refused>,
    sequences: Vec<(String, u64)>,
}

impl Reports {
    pub fn take(&mut self, now: Millis, event: &RuntimeEvent, agent: Option<&str>) {
        self.refused = self.try_take(now, event, agent).err();
    }

    fn try_take(&mut self, now: Millis, event: &RuntimeEvent, agent: Option<&str>) -> Result<(), Refused> {
        if [&event.source_id, &event.runtime, &event.event].iter().any(|name| name.len() > MAX_NAME) {
            return Err(Refused::TooLong);
        }
        if agent.is_some_and(|agent| agent != event.runtime) {
            return Err(Refused::OtherAgent);
        }
        let meaning = meaning(&event.runtime, &event.event, &event.payload).ok_or(Refused::Unknown)?;
        if let Some(current) = &self.authority
            && current.source_id != event.source_id
            && current.is_fresh(now)
        {
            return Err(Refused::SecondSource);
        }
        self.check_sequence(event)?;
        if matches!(meaning.event, Event::SessionEnd | Event::AgentExit) {
            self.authority = None;
            return Ok(());
        }
        let fresh = self.authority.take().filter(|current| current.source_id == event.source_id && current.is_fresh(now));
        let mut authority = fresh.unwrap_or_else(|| Authority {
            source_id: event.source_id.clone(),
            runtime: event.runtime.clone(),
            last_event: "",
            at: now,
            state: None,
            permission: false,
            subagents: 0,
            stopped: false,
        });
        authority.at = now;
        authority.take(meaning);
        self.authority = Some(authority);
        Ok(())
    }

    fn check_sequence(&mut self, event: &RuntimeEvent) -> Result<(), Refused> {
        let Some(sequence) = event.sequence else {
            return Ok(());
        };
        match self.sequences.iter_mut().find(|(source, _)| *source == event.source_id) {
            Some((_, last)) if sequence <= *last => return Err(Refused::Overtaken),
            Some((_, last)) => *last = sequence,
            None => {
                if self.sequences.len() == MAX_SOURCES {
                    self.sequences.remove(0);
                }
                self.sequences.push((event.source_id.clone(), sequence));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use RawState::{Blocked, Idle, Working};

    fn event(runtime: &str, name: &str) -> RuntimeEvent {
        RuntimeEvent {
            session_id: 1,
            source_id: format!("hook-{runtime}-1"),
            runtime: runtime.to_owned(),
            event: name.to_owned(),
            payload: Hints::default(),
            sequence: None,
        }
    }

    fn notification(kind: &str) -> RuntimeEvent {
        RuntimeEvent { payload: Hints { notification_type: Some(kind.to_owned()), status: None }, ..event("claude", "Notification") }
    }

    /// States after each event: `-` none, `.` no authority.
    fn states(runtime: &str, names: &[&str]) -> String {
        let mut reports = Reports::default();
        let state = |reports: &Reports| match &reports.authority {
            None => '.',
            Some(authority) => match authority.state {
                None => '-',
                Some(RawState::Working) => 'w',
                Some(RawState::Blocked) => 'b',
                Some(RawState::Idle) => 'i',
                Some(RawState::Unknown) => '?',
            },
        };
        names
            .iter()
            .map(|name| {
                reports.take(0, &event(runtime, name), Some(runtime));
                state(&reports)
            })
            .collect()
    }

    #[test]
    fn canonical_events() {
        for (events, expected) in [
            ("prompt-submitted tool-start tool-end turn-complete", "wwwi"),
            ("compact-start stop", "wi"),
            ("permission-requested permission-resolved", "bw"),
            ("question-asked question-answered", "bw"),
            ("elicitation prompt-submitted", "bw"),
            ("tool-start heartbeat session-end heartbeat", "ww.-"),
            ("tool-start agent-exit", "w."),
        ] {
            assert_eq!(states("kimi", &events.split(' ').collect::<Vec<_>>()), expected, "{events}");
        }
    }

    #[test]
    fn a_permission_is_sticky() {
        let events = ["permission-requested", "tool-start", "tool-end", "turn-complete", "stop", "heartbeat", "permission-resolved"];
        assert_eq!(states("amp", &events), "bbbbbbw");
    }

    #[test]
    fn a_turn_ends_with_its_last_subagent() {
        let events = ["subagent-start", "subagent-start", "turn-complete", "subagent-stop", "subagent-stop", "subagent-stop"];
        assert_eq!(states("amp", &events), "wwwwii");
        assert_eq!(states("amp", &["tool-start", "subagent-start", "subagent-stop"]), "www");
    }

    #[test]
    fn vendors_events() {
        assert_eq!(states("opencode", &["session.status", "tool.execute.before", "tool.execute.after", "session.idle"]), "wwwi");
        assert_eq!(states("opencode", &["permission.asked", "permission.replied", "session.error"]), "bw.");
        assert_eq!(states("amp", &["agent.start", "tool.call", "tool.result", "agent.end"]), "wwwi");
        assert_eq!(states("codex", &["UserPromptSubmit", "PreToolUse", "PermissionRequest", "Stop"]), "----");
        assert_eq!(states("claude", &["UserPromptSubmit", "Stop", "SessionEnd"]), "--.");
        assert_eq!(states("kimi", &["UserPromptSubmit"]), ".");
    }

    #[test]
    fn trap_an_idle_session_status_is_not_work() {
        let mut idle = event("opencode", "session.status");
        idle.payload = Hints::read(br#"{"sessionID":"x","status":{"type":"idle"}}"#);
        let mut reports = Reports::default();
        reports.take(0, &idle, None);
        assert_eq!(reports.authority.unwrap().state, Some(Idle));
    }

    #[test]
    fn claude_notifications() {
        for (kind, expected) in [
            ("permission_prompt", Some(Blocked)),
            ("idle_prompt", Some(Idle)),
            ("elicitation_dialog", Some(Blocked)),
            ("elicitation_complete", Some(Working)),
            ("auth_success", None),
        ] {
            let mut reports = Reports::default();
            reports.take(0, &notification(kind), Some("claude"));
            assert_eq!(reports.authority.unwrap().state, expected, "{kind}");
        }
    }

    #[test]
    fn trap_hooks_do_not_keep_alive_what_they_contradict() {
        let after = |first: &str, hook: &str| {
            let mut reports = Reports::default();
            reports.take(0, &notification(first), Some("claude"));
            reports.take(1, &event("claude", hook), Some("claude"));
            reports.authority.unwrap().state
        };
        assert_eq!(after("idle_prompt", "UserPromptSubmit"), None);
        assert_eq!(after("idle_prompt", "PreToolUse"), None);
        assert_eq!(after("idle_prompt", "Stop"), Some(Idle));
        assert_eq!(after("permission_prompt", "PreToolUse"), Some(Blocked), "of a tool beside it");
        assert_eq!(after("permission_prompt", "PostToolUse"), None);
        assert_eq!(after("permission_prompt", "PermissionDenied"), None);
    }

    #[test]
    fn what_is_not_believed() {
        let mut reports = Reports::default();
        let numbered = |sequence, name| RuntimeEvent { sequence: Some(sequence), ..event("amp", name) };
        reports.take(0, &numbered(5, "agent.start"), Some("amp"));
        assert_eq!(reports.refused, None);
        reports.take(1, &numbered(4, "agent.end"), Some("amp"));
        assert_eq!(reports.refused, Some(Refused::Overtaken));
        reports.take(2, &event("codex", "Stop"), Some("amp"));
        assert_eq!(reports.refused, Some(Refused::OtherAgent));
        reports.take(3, &event("amp", "tool.explode"), Some("amp"));
        assert_eq!(reports.refused, Some(Refused::Unknown));
        let second = RuntimeEvent { source_id: "wrapper-1".into(), ..event("amp", "agent.end") };
        reports.take(4, &second, Some("amp"));
        assert_eq!(reports.refused, Some(Refused::SecondSource));
        assert_eq!(reports.authority.as_ref().unwrap().state, Some(Working), "none of them changed it");
        reports.take(FRESH + 1, &second, Some("amp"));
        assert_eq!((reports.refused, reports.authority.as_ref().unwrap().state), (None, Some(Idle)), "the first has fallen silent");
        reports.take(FRESH + 2, &event("amp", &"x".repeat(MAX_NAME + 1)), None);
        assert_eq!(reports.refused, Some(Refused::TooLong));
    }

    #[test]
    fn a_silent_source_starts_anew() {
        let mut reports = Reports::default();
        reports.take(0, &event("amp", "permission-requested"), None);
        reports.take(FRESH + 1, &event("amp", "heartbeat"), None);
        let authority = reports.authority.unwrap();
        assert_eq!((authority.state, authority.permission), (None, false));
    }

    #[test]
    fn payloads_leave_nothing_but_their_hints() {
        let payload = br#"{"notification_type":"idle_prompt","message":"my password is x","tool_input":{"a":[1]},"status":7}"#;
        let hints = Hints::read(payload);
        assert_eq!(hints, Hints { notification_type: Some("idle_prompt".into()), status: None });
        let wire = serde_json::to_string(&RuntimeEvent { payload: hints, ..event("claude", "Notification") }).unwrap();
        assert!(wire.contains(r#""payload":{"notification_type":"idle_prompt"}"#) && !wire.contains("password"), "{wire}");
        assert_eq!(Hints::read(b"{"), Hints::default());
        assert_eq!(Hints::read(&vec![b' '; MAX_PAYLOAD + 1]), Hints::default());
    }

    #[test]
    fn the_message_is_read_with_and_without_a_payload() {
        let json = r#"{"session_id":1,"source_id":"hook-amp-1","runtime":"amp","event":"agent.end"}"#;
        assert_eq!(serde_json::from_str::<RuntimeEvent>(json).unwrap(), event("amp", "agent.end"));
        assert_eq!(serde_json::to_string(&event("amp", "agent.end")).unwrap(), json);
    }

    proptest! {
        #[test]
        fn any_events_in_any_order(names in prop::collection::vec(prop::sample::select(NAMES.map(|(name, _)| name).to_vec()), 0..60)) {
            let mut reports = Reports::default();
            let mut started = 0_u32;
            for name in names {
                reports.take(0, &event("amp", name), Some("amp"));
                started += u32::from(name == "subagent-start");
                if let Some(authority) = &reports.authority {
                    prop_assert!(authority.subagents <= started);
                    prop_assert!(!authority.permission || authority.state == Some(Blocked));
                    prop_assert!(authority.state != Some(Idle) || authority.subagents == 0);
                }
            }
        }

        #[test]
        fn random_payloads_never_panic(bytes in any::<Vec<u8>>()) {
            Hints::read(&bytes);
        }
    }
}
