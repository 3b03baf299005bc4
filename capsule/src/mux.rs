//! The multiplexer's state: one `Input` in, the `Effect`s it asks for out. Sole owner of sessions, focus and the
//! attached client. Absent: sockets, processes, files, clock, randomness; times arrive as data, and what must happen
//! later is asked for as a tick.
//!
//! First cut: the focused session fills the client's terminal. Tabs, panes and chrome go between `Session` and `draw`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::{AgentRecord, Pane, Reply, Request, ScreenText, SessionState, SessionSummary, Tab};
use crate::keys::{Keys, Typed};
use crate::launch::{Agent, CLIENT_ENV, LaunchConfig};
use crate::screen::{Colours, Policy, Screen, Shown, Size};
use crate::wire::{ClientFrame, Ctx, Hello, ServerFrame, ShutdownReason, Spawn, Tri, VERSION};

pub const MAX_SESSIONS: usize = 64;
/// Ended sessions that `agents` still lists.
pub const MAX_ENDED: usize = 256;
/// Output up to this much since the last tick is drawn at once: that is typing and its echo.
const DRAW_AT_ONCE: usize = 8 << 10;
/// Bytes after which the spool gets a fresh checkpoint.
const CHECKPOINT_EVERY: usize = 128 << 10;
/// Ticks that a frame may stay unfinished before it is shown as it is.
const MAX_HELD_TICKS: u32 = 9;
const MAX_TYPED_AHEAD: usize = 64 << 10;
const MAX_PASSED: usize = 512 << 10;

/// Variables of PID 1 that no session inherits; those which it should have are set for it.
pub const SESSION_UNSET: [&str; 6] = [
    "JACKIN_AGENT",
    "JACKIN_AUTH_MODE",
    "JACKIN_AGENT_RUNTIME",
    "JACKIN_STATUS_SOURCE",
    "JACKIN_CAPSULE_FORCE_DAEMON",
    "JACKIN_CAPSULE_FORCE_PANIC",
];

const CODENAMES: [&str; 40] = [
    "amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kestrel", "lagoon", "maple", "nectar",
    "onyx", "pebble", "quartz", "raven", "saffron", "thistle", "umber", "velvet", "willow", "xenon", "yarrow", "zephyr", "aspen", "birch",
    "cobalt", "dune", "elm", "flint", "grove", "heron", "iris", "jade", "krill", "lotus", "moss", "nimbus",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the mux knows of a session and init keeps for it across a restart, unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub codename: String,
    pub label: String,
    pub agent: Option<String>,
    pub provider: Option<String>,
}

/// The end of a session's process; the code is absent when a signal ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: u64,
    pub code: Option<i32>,
}

/// One session as init's table holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: SessionId,
    pub meta: Meta,
    /// Seconds since 1970.
    pub started_at: u64,
    pub ended: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    Agent { slug: String, args: Vec<String> },
    Shell,
}

pub enum Input<'a> {
    /// A session that a previous mux started; `replay` rebuilds its screen.
    Adopted {
        record: Record,
        size: Size,
        replay: &'a [u8],
    },
    /// A session that ended under a previous mux.
    Recalled(Record),
    /// The whole table has been told.
    Ready {
        initial: &'a str,
    },
    Spawned {
        session: SessionId,
        started_at: u64,
    },
    SpawnFailed {
        session: SessionId,
        error: &'a str,
    },
    Output {
        session: SessionId,
        bytes: &'a [u8],
    },
    /// Ended, and every byte of its output has been told.
    Ended {
        session: SessionId,
        ended: Ended,
    },
    Attached {
        client: ClientId,
        hello: Hello,
    },
    Frame {
        client: ClientId,
        frame: ClientFrame,
    },
    /// Everything sent to the client has left.
    Drained(ClientId),
    Gone(ClientId),
    Asked {
        client: ClientId,
        request: Request,
        ctx: Ctx,
    },
    Tick,
    Shutdown {
        reason: &'a str,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Spawn {
        session: SessionId,
        meta: Meta,
        program: Program,
        env: Vec<(String, String)>,
        size: Size,
    },
    Write {
        session: SessionId,
        bytes: Vec<u8>,
    },
    Resize {
        session: SessionId,
        size: Size,
    },
    /// Bytes that rebuild the screen from nothing; everything spooled before is superseded.
    Checkpoint {
        session: SessionId,
        size: Size,
        bytes: Vec<u8>,
    },
    /// Remember, beyond this mux, that it was looked at last. Adopting goes in that order.
    Focused(SessionId),
    /// Answered by `Drained` when it is an Output.
    Send {
        client: ClientId,
        frame: ServerFrame,
    },
    Close(ClientId),
    Reply {
        client: ClientId,
        reply: Reply,
    },
    /// One `Tick`, a sixtieth of a second from now.
    ArmTick,
    Log(String),
    /// Flush what was sent, then exit with this code.
    Finish(i32),
}

pub struct Settings {
    pub config: LaunchConfig,
    pub policy: Policy,
    pub leader: Option<String>,
    /// Told to sessions as `JACKIN_STATUS_SOCKET`.
    pub socket: String,
}

struct Session {
    record: Record,
    screen: Screen,
    since_checkpoint: usize,
}

struct Client {
    id: ClientId,
    keys: Keys,
    sync_output: bool,
    /// An Output is on its way; nothing more is drawn until it has left.
    busy: bool,
    shown: Option<(SessionId, Shown)>,
    passed: Vec<u8>,
    /// The session this client asked for, and what was typed for it before it was there.
    awaits: Option<(SessionId, Vec<u8>)>,
}

#[derive(Default)]
struct Pace {
    armed: bool,
    /// More than `DRAW_AT_ONCE` came within a tick, so frames wait for ticks. Implies `armed`.
    flooding: bool,
    since_tick: usize,
    dirty: bool,
    held_ticks: u32,
    rang: bool,
}

pub struct Mux {
    settings: Settings,
    live: BTreeMap<SessionId, Session>,
    starting: BTreeMap<SessionId, (Meta, Size)>,
    ended: Vec<Record>,
    /// Live sessions, the focused one last.
    focus_order: Vec<SessionId>,
    client: Option<Client>,
    size: Size,
    colours: Colours,
    pace: Pace,
    next_session: u64,
    finished: bool,
    effects: Vec<Effect>,
}

impl Mux {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            live: BTreeMap::new(),
            starting: BTreeMap::new(),
            ended: Vec::new(),
            focus_order: Vec::new(),
            client: None,
            size: Size { rows: 24, cols: 80 },
            colours: Colours::default(),
            pace: Pace::default(),
            next_session: 1,
            finished: false,
            effects: Vec::new(),
        }
    }

    pub fn step(&mut self, input: Input<'_>) -> Vec<Effect> {
        match input {
            Input::Adopted { record, size, replay } => self.adopt(record, size, replay),
            Input::Recalled(record) => {
                self.next_session = self.next_session.max(record.id.0 + 1);
                self.remember(record);
            }
            Input::Ready { initial } => self.ready(initial),
            Input::Spawned { session, started_at } => self.spawned(session, started_at),
            Input::SpawnFailed { session, error } => {
                self.starting.remove(&session);
                self.log(format!("session {session} could not be started: {error}"));
                if let Some(client) = &mut self.client {
                    client.awaits.take_if(|(awaited, _)| *awaited == session);
                }
                self.draw();
                if self.live.is_empty() && self.starting.is_empty() {
                    self.finish(ShutdownReason::Other(format!("the session could not be started: {error}")), 1);
                }
            }
            Input::Output { session, bytes } => self.output(session, bytes),
            Input::Ended { session, ended } => self.session_ended(session, ended),
            Input::Attached { client, hello } => self.attach(client, hello),
            Input::Frame { client, frame } => self.frame(client, frame),
            Input::Drained(client) => {
                if let Some(client) = self.client.as_mut().filter(|c| c.id == client) {
                    client.busy = false;
                    if self.pace.dirty && !self.pace.flooding {
                        self.draw();
                    }
                }
            }
            Input::Gone(client) => {
                self.client.take_if(|c| c.id == client);
            }
            Input::Asked { client, request, ctx } => {
                let reply = self.answer(&request, &ctx);
                self.effects.push(Effect::Reply { client, reply });
            }
            Input::Tick => self.tick(),
            Input::Shutdown { reason } => self.finish(ShutdownReason::Other(reason.to_owned()), 0),
        }
        debug_assert!(!self.pace.flooding || self.pace.armed, "a flood without a tick would never be drawn");
        debug_assert_eq!(self.focus_order.len(), self.live.len());
        std::mem::take(&mut self.effects)
    }

    // ---- sessions ----

    fn adopt(&mut self, record: Record, size: Size, replay: &[u8]) {
        let id = record.id;
        self.next_session = self.next_session.max(id.0 + 1);
        let mut screen = Screen::new(size, self.settings.policy);
        // What the replay asks for was answered when it first came.
        screen.process(replay);
        self.size = size;
        self.live.insert(id, Session { record, screen, since_checkpoint: replay.len() });
        self.focus_order.push(id);
    }

    fn ready(&mut self, initial: &str) {
        if !self.live.is_empty() {
            return;
        }
        if !self.ended.is_empty() {
            // Everything ended while there was no mux.
            return self.finish(ShutdownReason::SessionEnded(self.last_code()), 0);
        }
        if self.settings.config.agents.iter().any(|agent| agent == initial) {
            let provider = self.settings.config.initial_provider.as_ref().map(|p| p.label.clone());
            self.spawn_agent(initial.to_owned(), provider, Vec::new());
        } else {
            let agents = self.settings.config.agents.join(", ");
            self.log(format!("initial agent {initial:?} is not among the agents of agent.toml ({agents})"));
            self.finish(ShutdownReason::Other(format!("unknown agent {initial:?}")), crate::EXIT_CONFIG);
        }
    }

    fn spawn(&mut self, spawn: Spawn, env: Vec<(String, String)>) -> Option<SessionId> {
        match spawn {
            Spawn::None => None,
            Spawn::Shell => self.start("shell".to_owned(), None, None, Program::Shell, env),
            Spawn::Agent(slug) => self.spawn_agent(slug, None, env),
            Spawn::AgentWithProvider { agent, provider } => self.spawn_agent(agent, Some(provider), env),
        }
    }

    fn spawn_agent(&mut self, slug: String, provider: Option<String>, env: Vec<(String, String)>) -> Option<SessionId> {
        match Agent::of(&slug).filter(|_| self.settings.config.agents.contains(&slug)) {
            Some(agent) => {
                let args = self.settings.config.model_args(&slug);
                self.start(agent.label.to_owned(), Some(slug.clone()), provider, Program::Agent { slug, args }, env)
            }
            None => {
                self.log(format!("agent {slug:?} is not allowed here; nothing was started"));
                None
            }
        }
    }

    fn start(
        &mut self,
        label: String,
        agent: Option<String>,
        provider: Option<String>,
        program: Program,
        env: Vec<(String, String)>,
    ) -> Option<SessionId> {
        if self.live.len() + self.starting.len() >= MAX_SESSIONS {
            self.log(format!("{MAX_SESSIONS} sessions run already; {label} was not started"));
            return None;
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let meta = Meta { codename: codename(session), label, agent, provider };
        let env = self.session_env(session, &meta, env);
        self.starting.insert(session, (meta.clone(), self.size));
        self.effects.push(Effect::Spawn { session, meta, program, env, size: self.size });
        Some(session)
    }

    fn session_env(&self, session: SessionId, meta: &Meta, client_env: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut env: Vec<_> = client_env.into_iter().filter(|(key, _)| CLIENT_ENV.contains(&key.as_str())).collect();
        let mut set = |key: &str, value: String| env.push((key.to_owned(), value));
        set("TERM", "xterm-256color".to_owned());
        set("COLORTERM", "truecolor".to_owned());
        set("JACKIN_AGENT_CODENAME", meta.codename.clone());
        set("JACKIN_SESSION_ID", session.to_string());
        set("JACKIN_STATUS_SOCKET", self.settings.socket.clone());
        if let Some(slug) = &meta.agent {
            set("JACKIN_AGENT", slug.clone());
            set("JACKIN_AGENT_RUNTIME", slug.clone());
            set("JACKIN_STATUS_SOURCE", format!("hook-{slug}-{session}"));
            if let Some(mode) = self.settings.config.auth_modes.get(slug) {
                set("JACKIN_AUTH_MODE", mode.to_string());
            }
        }
        env
    }

    fn spawned(&mut self, id: SessionId, started_at: u64) {
        let Some((meta, size)) = self.starting.remove(&id) else {
            return;
        };
        let mut screen = Screen::new(size, self.settings.policy);
        screen.set_colours(self.colours);
        let record = Record { id, meta, started_at, ended: None };
        self.live.insert(id, Session { record, screen, since_checkpoint: 0 });
        let typed = self.client.as_mut().and_then(|client| client.awaits.take_if(|(awaited, _)| *awaited == id));
        if let Some((_, bytes)) = typed.filter(|(_, bytes)| !bytes.is_empty()) {
            self.effects.push(Effect::Write { session: id, bytes });
        }
        self.focus(id);
    }

    fn output(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(session) = self.live.get_mut(&id) else {
            return;
        };
        let requests = session.screen.process(bytes);
        session.since_checkpoint += bytes.len();
        if session.since_checkpoint >= CHECKPOINT_EVERY && session.screen.is_between_sequences() {
            checkpoint(session, &mut self.effects);
        }
        if !requests.replies.is_empty() {
            self.effects.push(Effect::Write { session: id, bytes: requests.replies });
        }
        if self.focus_order.last() != Some(&id) {
            return;
        }
        let Some(client) = &mut self.client else {
            return;
        };
        if requests.bell && !self.pace.rang {
            self.pace.rang = true;
            self.effects.push(Effect::Send { client: client.id, frame: ServerFrame::Bell });
        }
        if client.passed.len() + requests.passed.len() <= MAX_PASSED {
            client.passed.extend_from_slice(&requests.passed);
        }
        self.pace.dirty = true;
        self.pace.since_tick += bytes.len();
        self.arm_tick();
        if self.pace.since_tick > DRAW_AT_ONCE {
            self.pace.flooding = true;
        }
        if !self.pace.flooding {
            self.draw();
        }
    }

    fn session_ended(&mut self, id: SessionId, ended: Ended) {
        let Some(session) = self.live.get(&id) else {
            return;
        };
        let how = ended.code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
        let mut text = format!("session {id} ({}) ended {how}", session.record.meta.label);
        if self.client.is_none() && ended.code != Some(0) {
            // Nobody saw it; the container's log is where the host looks for the reason.
            text.push_str("; its screen was:\n");
            text.push_str(session.screen.text().trim_end());
        }
        self.log(text);
        let last = self.live.len() == 1 && self.starting.is_empty();
        if last {
            self.draw_final();
        }
        if let Some(mut session) = self.live.remove(&id) {
            session.record.ended = Some(ended);
            self.remember(session.record);
        }
        self.focus_order.retain(|other| *other != id);
        if last {
            self.finish(ShutdownReason::SessionEnded(ended.code), 0);
        } else if let Some(next) = self.focus_order.last().copied() {
            self.focus(next);
        }
    }

    fn remember(&mut self, record: Record) {
        self.ended.push(record);
        if self.ended.len() > MAX_ENDED {
            self.ended.remove(0);
        }
    }

    fn last_code(&self) -> Option<i32> {
        self.ended.last().and_then(|record| record.ended).and_then(|ended| ended.code)
    }

    fn focus(&mut self, id: SessionId) {
        if !self.live.contains_key(&id) {
            return;
        }
        self.focus_order.retain(|other| *other != id);
        self.focus_order.push(id);
        self.effects.push(Effect::Focused(id));
        self.fit(id);
        self.draw();
    }

    /// Gives the session the client's size. A session in the background keeps its own until it is looked at.
    fn fit(&mut self, id: SessionId) {
        let Some(session) = self.live.get_mut(&id) else {
            return;
        };
        if session.screen.size() != self.size {
            session.screen.resize(self.size);
            self.effects.push(Effect::Resize { session: id, size: self.size });
            if session.screen.is_between_sequences() {
                checkpoint(session, &mut self.effects);
            } else {
                session.since_checkpoint = CHECKPOINT_EVERY;
            }
        }
    }

    // ---- the client ----

    fn attach(&mut self, id: ClientId, hello: Hello) {
        if hello.ctx.v != VERSION {
            let text = format!("protocol version {} is not supported; this capsule speaks {VERSION}", hello.ctx.v);
            return self.turn_away(id, ShutdownReason::Other(text));
        }
        if self.finished {
            return self.turn_away(id, ShutdownReason::SessionEnded(self.last_code()));
        }
        if let Some(old) = self.client.take() {
            self.turn_away(old.id, ShutdownReason::TakenOver);
        }
        self.size = Size::clamped(hello.rows, hello.cols);
        self.colours = Colours {
            foreground: hello.foreground.unwrap_or(Colours::default().foreground),
            background: hello.background.unwrap_or(Colours::default().background),
        };
        for session in self.live.values_mut() {
            session.screen.set_colours(self.colours);
        }
        self.client = Some(Client {
            id,
            keys: Keys::new(self.settings.leader.as_deref()),
            sync_output: hello.capabilities.sync_output != Tri::Off,
            busy: false,
            shown: None,
            passed: Vec::new(),
            awaits: None,
        });
        self.pace.since_tick = 0;
        self.effects.push(Effect::Send { client: id, frame: ServerFrame::Welcome { sessions: self.live.len() as u32 } });
        match hello.focus.map(SessionId).filter(|id| self.live.contains_key(id)).or(self.focus_order.last().copied()) {
            // A session about to start takes the focus and paints; painting the old one first would only flash.
            Some(_) if hello.spawn != Spawn::None && hello.focus.is_none() => {}
            Some(session) => self.focus(session),
            None => {}
        }
        // Without any session yet, the one on its way is what this client looks at.
        let coming = self.starting.keys().next().copied().filter(|_| self.live.is_empty());
        match self.spawn(hello.spawn, hello.env).or(coming) {
            Some(session) => {
                if let Some(client) = &mut self.client {
                    client.awaits = Some((session, Vec::new()));
                }
            }
            None => self.draw(),
        }
    }

    fn turn_away(&mut self, id: ClientId, reason: ShutdownReason) {
        self.effects.push(Effect::Send { client: id, frame: ServerFrame::Shutdown(reason) });
        self.effects.push(Effect::Close(id));
    }

    fn frame(&mut self, id: ClientId, frame: ClientFrame) {
        let Some(client) = self.client.as_mut().filter(|c| c.id == id) else {
            return;
        };
        match frame {
            ClientFrame::Input(bytes) => {
                for typed in client.keys.typed(&bytes) {
                    match typed {
                        Typed::Bytes(bytes) => match (&mut client.awaits, self.focus_order.last()) {
                            (Some((_, typed)), _) if typed.len() + bytes.len() <= MAX_TYPED_AHEAD => typed.extend(bytes),
                            (Some(_), _) | (None, None) => {}
                            (None, Some(&session)) => self.effects.push(Effect::Write { session, bytes }),
                        },
                        Typed::Detach => return self.detach(),
                    }
                }
            }
            ClientFrame::Resize { rows, cols } => {
                // Resizing a terminal moves and cuts what it shows, each in its own way.
                client.shown = None;
                self.size = Size::clamped(rows, cols);
                if let Some(session) = self.focus_order.last().copied() {
                    self.fit(session);
                }
                self.draw();
            }
            ClientFrame::Detach => self.detach(),
            ClientFrame::FocusIn => self.focus_event(b"\x1b[I"),
            ClientFrame::FocusOut => self.focus_event(b"\x1b[O"),
            ClientFrame::AttachControl { kind, request, .. } => {
                let result = if (1..=3).contains(&kind) { 0 } else { 2 };
                self.effects.push(Effect::Send { client: id, frame: ServerFrame::AttachControlResponse { request, result } });
                match kind {
                    1 => self.detach(),
                    2 => self.focus_event(b"\x1b[I"),
                    3 => self.focus_event(b"\x1b[O"),
                    _ => {}
                }
            }
            ClientFrame::Hello(_) => {
                self.client = None;
                self.turn_away(id, ShutdownReason::Other("a second hello".to_owned()));
            }
            ClientFrame::Command(_)
            | ClientFrame::ClipboardImage { .. }
            | ClientFrame::ImageStart { .. }
            | ClientFrame::ImageChunk { .. }
            | ClientFrame::ImageEnd { .. }
            | ClientFrame::ImageError(_)
            | ClientFrame::HostNotice(_) => {}
        }
    }

    fn detach(&mut self) {
        if let Some(client) = self.client.take() {
            self.turn_away(client.id, ShutdownReason::Detached);
        }
    }

    fn focus_event(&mut self, event: &[u8]) {
        let focused = self.focus_order.last().and_then(|id| self.live.get(id));
        if let Some(session) = focused.filter(|session| session.screen.wants_focus_events()) {
            self.effects.push(Effect::Write { session: session.record.id, bytes: event.to_vec() });
        }
    }

    // ---- drawing ----

    fn draw(&mut self) {
        self.pace.dirty = true;
        let Some(client) = &mut self.client else {
            return;
        };
        let Some(session) = self.focus_order.last().and_then(|id| self.live.get(id)) else {
            return;
        };
        if client.busy {
            return;
        }
        if session.screen.is_painting() {
            return self.arm_tick();
        }
        self.pace.dirty = false;
        self.pace.held_ticks = 0;
        send_frame(client, session, &mut self.effects);
    }

    /// The last frame of the last session goes out even behind one that is still on its way: it is one more at most,
    /// and there is no later.
    fn draw_final(&mut self) {
        if let (Some(client), Some(session)) = (&mut self.client, self.focus_order.last().and_then(|id| self.live.get(id))) {
            send_frame(client, session, &mut self.effects);
        }
    }

    fn arm_tick(&mut self) {
        if !self.pace.armed {
            self.pace.armed = true;
            self.effects.push(Effect::ArmTick);
        }
    }

    fn tick(&mut self) {
        let busy_tick = self.pace.since_tick > 0;
        self.pace.armed = false;
        self.pace.rang = false;
        self.pace.flooding = self.pace.since_tick > DRAW_AT_ONCE;
        self.pace.since_tick = 0;
        let focused = self.focus_order.last().and_then(|id| self.live.get_mut(id));
        if let Some(session) = focused.filter(|session| session.screen.is_painting()) {
            self.pace.held_ticks += 1;
            if self.pace.held_ticks > MAX_HELD_TICKS {
                session.screen.stop_waiting_for_painting();
            }
        }
        if self.pace.dirty {
            self.draw();
        }
        if busy_tick {
            self.arm_tick();
        }
    }

    // ---- questions ----

    fn answer(&self, request: &Request, ctx: &Ctx) -> Reply {
        let focused = self.focus_order.last().copied();
        match request {
            Request::Status => Reply::SessionList {
                sessions: (self.live.values())
                    .map(|session| SessionSummary {
                        id: session.record.id.0,
                        label: session.record.meta.label.clone(),
                        agent: session.record.meta.agent.clone(),
                        state: SessionState::Unknown,
                        active: Some(session.record.id) == focused,
                    })
                    .collect(),
            },
            // Until there are tabs each session is one, with one pane.
            Request::Snapshot => Reply::Snapshot {
                tabs: (self.live.values())
                    .map(|session| {
                        let Record { id, meta, .. } = &session.record;
                        let pane =
                            Pane { session_id: id.0, label: meta.label.clone(), agent: meta.agent.clone(), state: SessionState::Unknown };
                        Tab { label: meta.label.clone(), focused_pane: id.0, panes: vec![pane] }
                    })
                    .collect(),
                active_tab: self.live.keys().position(|id| Some(*id) == focused).unwrap_or(0),
            },
            Request::Agents => Reply::AgentRegistry {
                records: (self.ended.iter())
                    .chain(self.live.values().map(|session| &session.record))
                    .map(|record| AgentRecord {
                        codename: record.meta.codename.clone(),
                        agent: record.meta.agent.clone(),
                        provider: record.meta.provider.clone(),
                        started_at: rfc3339(record.started_at),
                        exited_at: record.ended.map(|ended| rfc3339(ended.at)),
                        status: if record.ended.is_some() { "exited" } else { "running" }.to_owned(),
                        is_self: ctx.session_id.as_deref() == Some(record.id.to_string().as_str()),
                    })
                    .collect(),
            },
            Request::SessionRead { session_id } => match session_id.map(SessionId).or(focused).and_then(|id| self.live.get(&id)) {
                Some(session) => {
                    let (size, (cursor_row, cursor_col)) = (session.screen.size(), session.screen.cursor());
                    Reply::SessionRead(ScreenText {
                        session_id: session.record.id.0,
                        rows: size.rows,
                        cols: size.cols,
                        cursor_row,
                        cursor_col,
                        title: session.screen.title().to_owned(),
                        text: session.screen.text(),
                    })
                }
                None => Reply::Unknown,
            },
            Request::Unknown => Reply::Unknown,
        }
    }

    fn finish(&mut self, reason: ShutdownReason, code: i32) {
        if let Some(client) = self.client.take() {
            self.turn_away(client.id, reason);
        }
        if !self.finished {
            self.finished = true;
            self.effects.push(Effect::Finish(code));
        }
    }

    fn log(&mut self, line: String) {
        self.effects.push(Effect::Log(line));
    }
}

fn checkpoint(session: &mut Session, effects: &mut Vec<Effect>) {
    session.since_checkpoint = 0;
    let bytes = session.screen.checkpoint();
    effects.push(Effect::Checkpoint { session: session.record.id, size: session.screen.size(), bytes });
}

fn send_frame(client: &mut Client, session: &Session, effects: &mut Vec<Effect>) {
    let id = session.record.id;
    let shown = client.shown.as_ref().filter(|(shown_id, _)| *shown_id == id).map(|(_, shown)| shown);
    let mut bytes = std::mem::take(&mut client.passed);
    bytes.extend(session.screen.draw(shown));
    if bytes.is_empty() {
        return;
    }
    client.shown = Some((id, session.screen.shown()));
    if client.sync_output {
        bytes = [b"\x1b[?2026h", bytes.as_slice(), b"\x1b[?2026l"].concat();
    }
    client.busy = true;
    effects.push(Effect::Send { client: client.id, frame: ServerFrame::Output(bytes) });
}

/// Unique as long as ids are: the word repeats only with another number behind it.
fn codename(session: SessionId) -> String {
    let index = session.0.saturating_sub(1);
    let (word, round) = (CODENAMES[(index % CODENAMES.len() as u64) as usize], index / CODENAMES.len() as u64);
    if round == 0 { word.to_owned() } else { format!("{word}-{}", round + 1) }
}

/// UTC, to the second.
pub fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, counted in 400-year eras that begin on 1 March, so that the leap day comes last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientId = ClientId(1);
    const FIRST: SessionId = SessionId(1);

    fn mux() -> Mux {
        let config = LaunchConfig::parse("role=\"r\"\nworkdir=\"/w\"\nagents=[\"claude\"]\n[auth_modes]\nclaude=\"sync\"\n").unwrap();
        Mux::new(Settings { config, policy: Policy::default(), leader: None, socket: "/s".into() })
    }

    /// A mux with its first session running and a client that has its first frame.
    fn attached() -> Mux {
        let mut mux = mux();
        mux.step(Input::Ready { initial: "claude" });
        mux.step(Input::Spawned { session: FIRST, started_at: 0 });
        mux.step(Input::Attached { client: ONE, hello: Hello::default() });
        mux.step(Input::Drained(ONE));
        mux
    }

    fn output(mux: &mut Mux, bytes: &[u8]) -> Vec<Effect> {
        mux.step(Input::Output { session: FIRST, bytes })
    }

    fn drawn(effects: &[Effect]) -> usize {
        effects.iter().filter(|e| matches!(e, Effect::Send { frame: ServerFrame::Output(_), .. })).count()
    }

    #[test]
    fn typing_is_drawn_at_once_and_a_flood_at_the_tick() {
        let mut mux = attached();
        let effects = output(&mut mux, b"a");
        assert_eq!(drawn(&effects), 1);
        assert!(effects.contains(&Effect::ArmTick));
        mux.step(Input::Drained(ONE));
        assert_eq!(drawn(&output(&mut mux, b"b")), 1);
        mux.step(Input::Drained(ONE));
        let flood = (0..50).map(|i| vec![b'a' + i % 26; 4000]);
        let frames: usize = flood.map(|line| drawn(&output(&mut mux, &line)) + drawn(&mux.step(Input::Drained(ONE)))).sum();
        assert!(frames <= 2, "{frames} frames for one flooded tick");
        let effects = mux.step(Input::Tick);
        assert_eq!((drawn(&effects), effects.contains(&Effect::ArmTick)), (1, true));
    }

    #[test]
    fn without_output_the_ticks_end() {
        let mut mux = attached();
        output(&mut mux, &[b'x'; 20_000]);
        mux.step(Input::Tick);
        mux.step(Input::Drained(ONE));
        assert!(mux.step(Input::Tick).is_empty());
        assert!(mux.step(Input::Tick).is_empty());
    }

    #[test]
    fn a_busy_client_gets_one_frame_with_everything_when_it_is_ready() {
        let mut mux = attached();
        assert_eq!(drawn(&output(&mut mux, b"one ")), 1);
        for word in ["two ", "three "] {
            assert_eq!(drawn(&output(&mut mux, word.as_bytes())), 0);
        }
        let effects = mux.step(Input::Drained(ONE));
        let [Effect::Send { frame: ServerFrame::Output(bytes), .. }] = effects.as_slice() else { panic!("{effects:?}") };
        assert!(String::from_utf8_lossy(bytes).contains("two three"));
    }

    #[test]
    fn a_frame_in_the_making_is_held_but_not_for_ever() {
        let mut mux = attached();
        assert_eq!(drawn(&output(&mut mux, b"\x1b[?2026hhalf")), 0);
        assert_eq!(drawn(&output(&mut mux, b" whole\x1b[?2026l")), 1);
        mux.step(Input::Drained(ONE));
        output(&mut mux, b"\x1b[?2026hstuck");
        let ticks = (1..100).find(|_| drawn(&mux.step(Input::Tick)) == 1);
        assert!(ticks.is_some_and(|ticks| ticks > 5), "{ticks:?}");
    }

    #[test]
    fn a_checkpoint_follows_much_output_and_every_resize() {
        let mut mux = attached();
        let effects = output(&mut mux, &vec![b'x'; CHECKPOINT_EVERY]);
        assert!(effects.iter().any(|e| matches!(e, Effect::Checkpoint { session: FIRST, .. })));
        let effects = mux.step(Input::Frame { client: ONE, frame: ClientFrame::Resize { rows: 40, cols: 100 } });
        let size = Size { rows: 40, cols: 100 };
        assert!(effects.contains(&Effect::Resize { session: FIRST, size }));
        assert!(effects.iter().any(|e| matches!(e, Effect::Checkpoint { size: s, .. } if *s == size)));
    }

    #[test]
    fn the_table_of_an_earlier_mux_is_continued() {
        let meta = Meta { codename: "birch".into(), label: "Claude".into(), agent: Some("claude".into()), provider: None };
        let size = Size { rows: 10, cols: 40 };
        let mut mux = mux();
        let ended = Some(Ended { at: 60, code: Some(0) });
        mux.step(Input::Recalled(Record { id: SessionId(6), meta: meta.clone(), started_at: 1, ended }));
        mux.step(Input::Adopted { record: Record { id: SessionId(7), meta, started_at: 2, ended: None }, size, replay: b"\x1b[6nseen" });
        // Nothing is started anew, and the query in the replay is not answered a second time.
        assert_eq!(mux.step(Input::Ready { initial: "claude" }), []);
        let effects = mux.step(Input::Attached { client: ONE, hello: Hello { spawn: Spawn::Shell, ..Hello::default() } });
        assert!(effects.iter().any(|e| matches!(e, Effect::Spawn { session: SessionId(8), .. })), "{effects:?}");
        let Reply::SessionRead(read) = mux.answer(&Request::SessionRead { session_id: Some(7) }, &Ctx::default()) else { panic!() };
        assert_eq!(read.text.trim(), "seen");
    }

    #[test]
    fn sessions_have_a_limit() {
        let mut mux = attached();
        for id in 2..=MAX_SESSIONS as u64 + 5 {
            let hello = Hello { spawn: Spawn::Shell, ..Hello::default() };
            let spawned = mux.step(Input::Attached { client: ClientId(id), hello }).iter().any(|e| matches!(e, Effect::Spawn { .. }));
            assert_eq!(spawned, id <= MAX_SESSIONS as u64, "session {id}");
        }
    }

    #[test]
    fn names_are_not_used_twice() {
        let mut names: Vec<_> = (1..500).map(|id| codename(SessionId(id))).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 499);
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_190_400), "2026-11-20T16:00:00Z");
    }
}
