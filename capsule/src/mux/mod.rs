//! The multiplexer's state: one `Input` in, the `Effect`s it asks for out. Sole owner of sessions, layout, focus and
//! clients. Absent: sockets, processes, files, clock, randomness; the time comes with each input, and what must happen
//! later is asked for as a `WakeAt`. What has scrolled off a screen is read through the `Stored` that came with its session.
//!
//! All clients look at one picture. What they were sent last is kept per client, so that a slow one gets the present
//! picture when it is ready and never a queue of past ones.

mod answers;
mod clients;
mod commands;
mod mouse;
mod sessions;
mod view;

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::agent::{Packs, Probe};
use crate::chrome::{Level, Look, Overlay, Theme, Toasts};
use crate::control::{Reply, Request};
use crate::frame::{Frame, Modes};
use crate::keys::Bindings;
use crate::launch::LaunchConfig;
pub use crate::layout::SessionId;
use crate::layout::{Border, Layout, Placed};
use crate::mouse::{Clicks, Mouse};
use crate::provider::EnvFrom;
use crate::screen::{Colours, News, Policy, Size, Stored};
use crate::select::Selection;
use crate::wire::{ClientFrame, Ctx, Hello, ImageFormat, ServerFrame, ShutdownReason};

pub use self::sessions::SESSION_UNSET;

use self::clients::Client;
use self::sessions::{Session, Starting};

/// Of a clock that only goes forward; its zero means nothing.
pub type Millis = u64;

pub const MAX_SESSIONS: usize = 64;
/// Ended sessions that `agents` still lists.
pub const MAX_ENDED: usize = 256;
/// A spare is paused as soon as it is ready, so that it looks this often only while somebody is about to take it.
const HOLD: Millis = 250;
/// Said to whoever comes too early.
const HELD: &str = "this container is kept as a spare; `jackin load` takes it";
/// Between two frames while output floods in.
const FRAME: Millis = 16;
/// Output up to this much within a frame is drawn at once: that is typing and its echo.
const DRAW_AT_ONCE: usize = 8 << 10;

/// A key may come in two pieces; how long after the first it is taken as it is. What cannot be read is the default.
pub fn escape_time(setting: Option<&str>) -> Millis {
    setting.and_then(|text| text.parse().ok()).map_or(50, |time: Millis| time.min(5000))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

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

/// What has become of a session's recording; with its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recording {
    Begun(String),
    Ended(String),
    /// It could not begin, or had to end; why.
    Failed(String),
}

/// What git says of the workdir, for the bar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workdir {
    pub branch: Option<String>,
    pub dirty: bool,
}

/// Work in one checkout that would be lost or left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub changed: usize,
    pub unpushed: usize,
    /// Why it could not be inspected; that counts as work.
    pub unknown: Option<String>,
}

pub enum Input<'a> {
    /// A session that a previous mux started; `replay` rebuilds its screen, `history` is what had scrolled off it.
    Adopted {
        record: Record,
        size: Size,
        replay: &'a [u8],
        history: Option<Stored>,
    },
    /// A session that ended under a previous mux.
    Recalled(Record),
    /// The whole table has been told; `kept` is what the previous mux asked to `Keep`.
    Ready {
        initial: &'a str,
        kept: Option<&'a str>,
    },
    /// A spare has been taken: this is what it is launched with.
    Released {
        config: LaunchConfig,
        initial: String,
    },
    /// Without `history` what scrolls off its screen stays in the mux.
    Spawned {
        session: SessionId,
        started_at: u64,
        history: Option<Stored>,
    },
    SpawnFailed {
        session: SessionId,
        error: &'a str,
    },
    /// Its spool takes nothing more.
    Unspooled(SessionId),
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
    Probed(Vec<(SessionId, Probe)>),
    Workdir(Workdir),
    Changes(Vec<Change>),
    /// A picture from the operator's clipboard lies at this path now, or why not.
    Staged {
        session: SessionId,
        result: Result<String, String>,
    },
    Exported(Result<String, String>),
    Recording {
        session: SessionId,
        now: Recording,
    },
    UpgradeRefused {
        client: ClientId,
        error: &'a str,
    },
    Captured {
        client: ClientId,
        result: Result<String, String>,
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
        env: Vec<(&'static str, EnvFrom)>,
        /// In place of the workdir.
        cwd: Option<String>,
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
    /// Bytes that rebuild the screen from nothing; everything spooled before is superseded. `history` is what is new of
    /// what scrolled off it, and from now on only there.
    Checkpoint {
        session: SessionId,
        size: Size,
        bytes: Vec<u8>,
        history: News,
    },
    /// Ask its program to paint anew.
    Repaint(SessionId),
    /// Remember this beyond this mux.
    Keep(String),
    /// End the session's processes, the polite way first.
    Kill(SessionId),
    /// Answered by `Drained` when it is an Output.
    Send {
        client: ClientId,
        frame: ServerFrame,
    },
    Close(ClientId),
    /// More than one may come when the question was for a stream of them.
    Reply {
        client: ClientId,
        reply: Reply,
        last: bool,
    },
    /// Look at the processes of these sessions.
    Probe(Vec<SessionId>),
    LookAtWorkdir,
    InspectChanges,
    WriteExitAction(&'static str),
    StageImage {
        session: SessionId,
        format: ImageFormat,
        bytes: Vec<u8>,
    },
    Export {
        client: ClientId,
        path: String,
        reveal: bool,
        open: bool,
    },
    Record {
        session: SessionId,
        on: bool,
        size: Size,
    },
    Capture {
        client: ClientId,
        session: SessionId,
        files: Vec<(&'static str, String)>,
    },
    Upgrade {
        client: ClientId,
        path: String,
    },
    /// Is this still a spare? Who asked gets the answer.
    LookAtHold(Option<ClientId>),
    /// One `Tick` at that time; takes the place of what was asked for before.
    WakeAt(Option<Millis>),
    Log(String),
    /// Flush what was sent, then exit with this code.
    Finish(i32),
}

/// Who and where this capsule is, for the bar and the information dialog.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    pub instance: String,
    pub container: String,
}

pub struct Settings {
    pub config: LaunchConfig,
    pub policy: Policy,
    pub bindings: Bindings,
    pub escape_time: Millis,
    pub packs: Packs,
    pub identity: Identity,
    /// Told to sessions as `JACKIN_STATUS_SOCKET`.
    pub socket: String,
    /// Names of variables that hold a provider's key.
    pub keys: BTreeSet<&'static str>,
    /// For tests: what a screen panics on when a program prints it.
    pub fault: Option<String>,
}

/// What the next mux needs to know that no session can tell it.
#[derive(Serialize, Deserialize)]
struct Kept {
    layout: Layout,
    /// Of the picture, and the operator's colours; a mux of before does not tell.
    size: Option<Size>,
    colours: Option<Colours>,
    /// Sessions that are being recorded.
    #[serde(default)]
    recorded: Vec<SessionId>,
    /// What becomes of the work has been chosen.
    #[serde(default)]
    exiting: bool,
}

/// Which part of the picture no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stale {
    #[default]
    Nothing,
    /// Only what sessions have marked themselves.
    Panes,
    Chrome,
    Everything,
}

pub struct Mux {
    settings: Settings,
    /// A spare; when the launch file is to be looked at again.
    held: Option<Millis>,
    now: Millis,
    live: BTreeMap<SessionId, Session>,
    starting: BTreeMap<SessionId, Starting>,
    ended: Vec<Record>,
    layout: Layout,
    /// Where the layout puts the panes that are shown.
    placed: Placed,
    unkept: bool,
    clients: BTreeMap<ClientId, Client>,
    /// The colours of the terminal that attached last.
    colours: Colours,
    size: Size,
    picture: Frame,
    modes: Modes,
    theme: Theme,
    stale: Stale,
    /// The picture may be drawn before the next frame is due.
    urgent: bool,
    drawn_at: Millis,
    overlay: Option<Overlay>,
    toasts: Toasts,
    selection: Option<Selection>,
    pressed: Pressed,
    /// Where a selection is held beyond its pane's edge, and when it goes on.
    pulled: Option<(Millis, Mouse)>,
    clicks: Clicks,
    pointer: Option<&'static str>,
    /// Where the view was before the search that is open.
    before_search: Option<(SessionId, Option<u64>)>,
    /// Who asked for a recording that has not begun or ended yet.
    recording_asked: Vec<(SessionId, ClientId)>,
    found: Option<view::Search>,
    workdir: Workdir,
    looked_at_workdir: Millis,
    told_focus: Option<SessionId>,
    /// Somebody looks, and the focused session's program was told so if it asked.
    attention: bool,
    waits: Vec<answers::Wait>,
    listeners: BTreeSet<ClientId>,
    rang_at: Option<Millis>,
    /// The operator has chosen to end everything; the host is told what becomes of the work.
    exiting: bool,
    next_session: u64,
    wake_at: Option<Millis>,
    finished: bool,
    effects: Vec<Effect>,
}

/// What the left button is held on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pressed {
    #[default]
    Nothing,
    /// A program that gets the mouse; it also gets the release.
    Program(SessionId),
    Selecting(SessionId),
    Border(Border),
}

impl Mux {
    pub fn new(settings: Settings) -> Self {
        let size = Size { rows: 24, cols: 80 };
        Self {
            settings,
            held: None,
            now: 0,
            live: BTreeMap::new(),
            starting: BTreeMap::new(),
            ended: Vec::new(),
            layout: Layout::default(),
            placed: Placed::default(),
            unkept: false,
            clients: BTreeMap::new(),
            colours: Colours::default(),
            size,
            picture: Frame::new(size),
            modes: Modes::default(),
            theme: Theme::new(Look { color: true, unicode: true, light: false }),
            stale: Stale::Everything,
            urgent: false,
            drawn_at: 0,
            overlay: None,
            toasts: Toasts::default(),
            selection: None,
            pressed: Pressed::Nothing,
            pulled: None,
            clicks: Clicks::default(),
            pointer: None,
            before_search: None,
            recording_asked: Vec::new(),
            found: None,
            workdir: Workdir::default(),
            looked_at_workdir: 0,
            told_focus: None,
            attention: false,
            waits: Vec::new(),
            listeners: BTreeSet::new(),
            rang_at: None,
            exiting: false,
            next_session: 1,
            wake_at: None,
            finished: false,
            effects: Vec::new(),
        }
    }

    pub fn step(&mut self, now: Millis, input: Input<'_>) -> Vec<Effect> {
        debug_assert!(now >= self.now, "the clock went back");
        self.now = now.max(self.now);
        match input {
            Input::Adopted { record, size, replay, history } => self.adopt(record, size, replay, history),
            Input::Recalled(record) => {
                self.next_session = self.next_session.max(record.id.0 + 1);
                self.remember(record);
            }
            Input::Ready { initial, kept } => self.ready(initial, kept),
            Input::Released { config, initial } => {
                self.held = None;
                self.settings.config = config;
                self.ready(&initial, None);
            }
            Input::Spawned { session, started_at, history } => self.spawned(session, started_at, history),
            Input::Unspooled(session) => self.unspooled(session),
            Input::SpawnFailed { session, error } => self.spawn_failed(session, error),
            Input::Output { session, bytes } => self.output(session, bytes),
            Input::Ended { session, ended } => self.session_ended(session, ended),
            Input::Attached { client, hello } => self.attach(client, hello),
            Input::Frame { client, frame } => self.frame(client, frame),
            Input::Drained(client) => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.busy = false;
                }
            }
            Input::Gone(client) => self.gone(client),
            Input::Asked { client, request, ctx } => self.answer(client, request, &ctx),
            Input::Probed(probes) => self.probed(probes),
            Input::Workdir(workdir) => {
                if workdir != self.workdir {
                    self.workdir = workdir;
                    self.touch(Stale::Chrome);
                }
            }
            Input::Changes(changes) => self.changes_found(&changes),
            Input::Staged { session, result } => self.staged(session, result),
            Input::Exported(result) => match result {
                Ok(path) => self.toast(format!("exported {path}")),
                Err(error) => self.warn(format!("not exported: {error}")),
            },
            Input::Recording { session, now } => self.recording(session, now),
            Input::UpgradeRefused { client, error } => self.reply(client, Reply::Error { message: error.to_owned() }),
            Input::Captured { client, result } => {
                let reply = result.map_or_else(|message| Reply::Error { message }, |path| Reply::Captured { path });
                self.reply(client, reply);
            }
            Input::Tick => {
                self.wake_at = None;
                self.tick();
            }
            Input::Shutdown { reason } => self.finish(ShutdownReason::Other(reason.to_owned()), 0),
        }
        if !self.finished {
            self.draw();
            self.keep();
        }
        self.ask_for_wake();
        std::mem::take(&mut self.effects)
    }

    /// This client is attached, and not only to look.
    pub fn may_type(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(Client::types)
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Marks the picture as out of date, to be drawn at the end of this step.
    fn touch(&mut self, stale: Stale) {
        self.stale = self.stale.max(stale);
        self.urgent = true;
    }

    /// Writes down what a later mux cannot learn from the sessions.
    fn keep(&mut self) {
        if !std::mem::take(&mut self.unkept) {
            return;
        }
        let recorded = self.live.iter().filter(|(_, session)| session.recording).map(|(id, _)| *id).collect();
        let kept =
            Kept { layout: self.layout.clone(), size: Some(self.size), colours: Some(self.colours), recorded, exiting: self.exiting };
        match serde_json::to_string(&kept) {
            Ok(kept) => self.effects.push(Effect::Keep(kept)),
            Err(error) => self.log(format!("the layout cannot be kept: {error}")),
        }
    }

    fn ask_for_wake(&mut self) {
        let wanted = if self.finished { None } else { self.next_deadline() };
        if wanted != self.wake_at {
            self.wake_at = wanted;
            self.effects.push(Effect::WakeAt(wanted));
        }
    }

    fn next_deadline(&self) -> Option<Millis> {
        let somebody_waits = self.stale > Stale::Nothing && self.clients.values().any(|client| !client.busy);
        let frame = somebody_waits.then_some(self.drawn_at + FRAME);
        let sessions = self.live.values().filter_map(Session::next_deadline).min();
        let keys = self.clients.values().filter_map(|client| client.key_due).min();
        let waits = self.waits.iter().map(|wait| wait.until).min();
        let pull = self.pulled.filter(|_| matches!(self.pressed, Pressed::Selecting(_))).map(|(at, _)| at);
        [frame, sessions, keys, waits, pull, self.toasts.next_deadline(), self.held].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        if self.toasts.expire(self.now) {
            self.touch(Stale::Everything);
        }
        self.look_at_sessions();
        self.pull();
        self.flush_keys();
        self.end_waits();
        if self.held.is_some_and(|at| at <= self.now) {
            self.held = Some(self.now + HOLD);
            self.effects.push(Effect::LookAtHold(None));
        }
    }

    fn finish(&mut self, reason: ShutdownReason, code: i32) {
        for id in std::mem::take(&mut self.clients).into_keys() {
            self.turn_away(id, reason.clone());
        }
        self.close_questions();
        if !self.finished {
            self.finished = true;
            self.effects.push(Effect::Finish(code));
        }
    }

    fn toast(&mut self, text: String) {
        self.toasts.push(self.now, Level::Info, text);
        self.touch(Stale::Everything);
    }

    fn warn(&mut self, text: String) {
        self.log(text.clone());
        self.toasts.push(self.now, Level::Warning, text);
        self.touch(Stale::Everything);
    }

    fn log(&mut self, line: String) {
        self.effects.push(Effect::Log(line));
    }
}
