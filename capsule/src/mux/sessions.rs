//! Sessions: how they begin, what their output does, how they end.

use crate::agent::{self, Detector, Mark, Probe, View};
use crate::control::{Event, Reply, SessionState};
use crate::fault::contained;
use crate::launch::{Agent, CLIENT_ENV, DirtyExitPolicy};
use crate::layout::Axis;
use crate::provider::{self, EnvFrom, Provider};
use crate::screen::{self, MarkKind, Screen, Size, Stored};
use crate::wire::{ServerFrame, ShutdownReason, Spawn};

use super::{
    Change, ClientId, DRAW_AT_ONCE, Effect, Ended, FRAME, HOLD, Kept, MAX_ENDED, MAX_SESSIONS, Meta, Millis, Mux, Program, Record,
    Recording, SessionId, Stale,
};

/// Bytes after which the spool gets a fresh checkpoint.
const CHECKPOINT_EVERY: usize = 256 << 10;
/// A frame that a program has begun is waited for so long.
const MAX_HELD: Millis = 150;
const WORKDIR_EVERY: Millis = 2000;
const MAX_TYPED_AHEAD: usize = 64 << 10;
const END_OF_PAINTING: &[u8] = b"\x1b[?2026l";

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

pub(super) struct Session {
    pub record: Record,
    pub screen: Screen,
    pub detector: Detector,
    /// The first line shown, counted from the session's beginning, while it is scrolled back.
    pub top: Option<u64>,
    /// The state that others were told last.
    pub told: SessionState,
    pub recording: bool,
    /// The operator asked for its end; how the program takes it is no failure.
    closing: bool,
    /// Output that the picture does not show yet.
    pub dirty: bool,
    /// Bytes since the last frame.
    pub since_frame: usize,
    /// So many came within the last frame that it waits for frames.
    pub flooding: bool,
    painting_since: Option<Millis>,
    since_checkpoint: usize,
}

impl Session {
    fn new(record: Record, screen: Screen, detector: Detector) -> Self {
        Self {
            record,
            screen,
            detector,
            top: None,
            told: SessionState::Unknown,
            recording: false,
            closing: false,
            dirty: true,
            since_frame: 0,
            flooding: false,
            painting_since: None,
            since_checkpoint: 0,
        }
    }

    fn look(&mut self, now: Millis) {
        let rows = self.visible_rows();
        let view = View { rows: &rows, title: self.screen.title(), progress: self.screen.progress().map(progress_of) };
        self.detector.look(now, &view);
    }

    pub fn visible_rows(&self) -> Vec<String> {
        let first = self.screen.history_len();
        (first..first + usize::from(self.screen.size().rows)).map(|line| self.screen.line_text(line)).collect()
    }

    pub fn state(&self) -> SessionState {
        self.detector.state()
    }

    /// True while the program is in the midst of a frame that it asked to have shown whole.
    pub fn is_held(&self, now: Millis) -> bool {
        self.painting_since.is_some_and(|since| now < since + MAX_HELD)
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        self.detector.next_deadline()
    }

    /// The number of the first line shown, counted from the session's beginning.
    pub fn top_line(&self) -> u64 {
        (self.screen.first_line() + self.screen.history_len() - self.offset()) as u64
    }

    /// Lines that are scrolled back.
    pub fn offset(&self) -> usize {
        let bottom = (self.screen.first_line() + self.screen.history_len()) as u64;
        self.top.map_or(0, |top| bottom.saturating_sub(top).min(self.screen.history_len() as u64) as usize)
    }
}

/// A session that init was asked for and has not begun yet.
pub(super) struct Starting {
    pub meta: Meta,
    /// With which its terminal is opened.
    size: Size,
    /// What came for it meanwhile.
    typed: Vec<u8>,
    closing: bool,
    /// Who waits to hear that it has begun.
    pub asker: Option<ClientId>,
}

/// Where a new session's pane goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Tab,
    /// A tab that does not get the focus: an agent may have asked for it.
    Aside,
    Split(SessionId, Axis),
}

pub(super) struct Start {
    pub spawn: Spawn,
    pub place: Place,
    /// Of the client that asked.
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
}

impl Mux {
    // ---- from an earlier mux ----

    pub(super) fn adopt(&mut self, record: Record, size: Size, replay: &[u8], history: Option<Stored>) {
        let id = record.id;
        self.next_session = self.next_session.max(id.0 + 1);
        let mut screen = Screen::new(size, self.settings.policy);
        history.into_iter().for_each(|stored| screen.keep_history_in(stored));
        let detector = self.detector(&record.meta);
        let mut session = Session::new(record, screen, detector);
        session.since_checkpoint = replay.len();
        session.detector.note_output(self.now);
        // What the replay asks for was answered when it first came.
        let fault = self.settings.fault.as_deref();
        let shown = contained(|| print(&mut session.screen, replay, fault));
        self.live.insert(id, session);
        if shown.is_none() {
            self.screen_failed(id);
        }
    }

    /// A panic over what a program printed. The session goes on with another screen, and the spool must not bring back what
    /// did it; nobody else is to notice.
    pub(super) fn screen_failed(&mut self, id: SessionId) {
        let Some(session) = self.live.get_mut(&id) else { return };
        session.screen.begin_anew(session.screen.size());
        (session.painting_since, session.top, session.dirty) = (None, None, true);
        checkpoint(session, &mut self.effects);
        self.effects.push(Effect::Repaint(id));
        self.warn(format!("the screen of session {id} failed on what it was to show and began anew"));
    }

    pub(super) fn ready(&mut self, initial: &str, kept: Option<&str>) {
        if let Some(Ok(kept)) = kept.map(serde_json::from_str::<Kept>) {
            self.layout = kept.layout;
            self.size = kept.size.map_or(self.size, |size| Size::clamped(size.rows, size.cols));
            self.colours = kept.colours.unwrap_or(self.colours);
            self.live.values_mut().for_each(|session| session.screen.set_colours(self.colours));
            self.exiting = kept.exiting;
            for id in kept.recorded {
                if let Some(session) = self.live.get(&id) {
                    // A file that another has begun is not gone on with: who knows how it ends.
                    self.effects.push(Effect::Record { session: id, on: true, size: session.screen.size() });
                }
            }
        }
        self.layout.retain(&self.live.keys().copied().collect());
        for id in self.live.keys() {
            self.layout.adopt(*id);
        }
        if !self.live.is_empty() {
            return;
        }
        if !self.ended.is_empty() {
            // Everything ended while there was no mux.
            return self.finish(ShutdownReason::SessionEnded(self.last_code()), 0);
        }
        if self.settings.config.hold {
            self.held = Some(self.now + HOLD);
            return;
        }
        if self.settings.config.agents.iter().any(|agent| agent == initial) {
            let spawn = match &self.settings.config.initial_provider {
                Some(provider) => Spawn::AgentWithProvider { agent: initial.to_owned(), provider: provider.label.clone() },
                None => Spawn::Agent(initial.to_owned()),
            };
            self.start(Start { spawn, place: Place::Tab, env: Vec::new(), cwd: None });
        } else {
            let agents = self.settings.config.agents.join(", ");
            self.log(format!("initial agent {initial:?} is not among the agents of agent.toml ({agents})"));
            self.finish(ShutdownReason::Other(format!("unknown agent {initial:?}")), crate::EXIT_CONFIG);
        }
    }

    // ---- beginning ----

    pub(super) fn start(&mut self, start: Start) -> Option<SessionId> {
        let (agent, provider) = match start.spawn {
            Spawn::None => return None,
            Spawn::Shell => (None, None),
            Spawn::Agent(slug) => (Some(slug), None),
            Spawn::AgentWithProvider { agent, provider } => (Some(agent), Some(provider)),
        };
        let known = agent.as_deref().map(|slug| Agent::of(slug).filter(|agent| self.allows(agent.slug)));
        let (label, program) = match known {
            None => ("shell".to_owned(), Program::Shell),
            Some(Some(agent)) => {
                let named = provider.as_deref().and_then(Provider::named);
                let args = provider::model_args(&self.settings.config, agent.slug, named.as_ref());
                (agent.label.to_owned(), Program::Agent { slug: agent.slug.to_owned(), args })
            }
            Some(None) => {
                self.warn(format!("agent {:?} is not allowed here; nothing was started", agent.unwrap_or_default()));
                return None;
            }
        };
        if self.exiting {
            // Its work would come under a choice that was made without it.
            self.warn(format!("everything is being ended; {label} was not started"));
            return None;
        }
        if self.live.len() + self.starting.len() >= MAX_SESSIONS {
            self.warn(format!("{MAX_SESSIONS} sessions run already; {label} was not started"));
            return None;
        }
        let session = SessionId(self.next_session);
        let before = self.layout.focused();
        let placed = match start.place {
            Place::Tab | Place::Aside => self.layout.new_tab(session),
            Place::Split(at, axis) => self.layout.split(at, axis, session),
        };
        if !placed {
            self.warn(format!("there is no room for another tab; {label} was not started"));
            return None;
        }
        self.next_session += 1;
        let meta = Meta { codename: codename(session), label, agent, provider };
        let env = self.session_env(session, &meta, start.env);
        self.placed = self.layout.place(self.area());
        let size = self.body_of(session).unwrap_or(self.size);
        if let (Place::Aside, Some(before)) = (start.place, before) {
            self.layout.focus(before);
        }
        self.layout_changed();
        self.starting.insert(session, Starting { meta: meta.clone(), size, typed: Vec::new(), closing: false, asker: None });
        self.effects.push(Effect::Spawn { session, meta, program, env, cwd: start.cwd, size });
        Some(session)
    }

    pub(super) fn allows(&self, agent: &str) -> bool {
        self.settings.config.agents.iter().any(|allowed| allowed == agent)
    }

    fn session_env(&self, session: SessionId, meta: &Meta, client_env: Vec<(String, String)>) -> Vec<(&'static str, EnvFrom)> {
        let mut env = Vec::new();
        if let (Some(agent), Some(label)) = (&meta.agent, &meta.provider) {
            env.extend(Provider::named(label).into_iter().flat_map(|p| provider::session_env(&self.settings.config, agent, &p)));
        }
        let allowed = |key: String| CLIENT_ENV.into_iter().find(|allowed| *allowed == key);
        env.extend(client_env.into_iter().filter_map(|(key, value)| Some((allowed(key)?, EnvFrom::Value(value)))));
        let mut set = |key: &'static str, value: String| env.push((key, EnvFrom::Value(value)));
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

    fn detector(&self, meta: &Meta) -> Detector {
        Detector::new(meta.agent.as_deref(), &self.settings.packs)
    }

    pub(super) fn spawned(&mut self, id: SessionId, started_at: u64, history: Option<Stored>) {
        let Some(Starting { meta, size, typed, closing, asker }) = self.starting.remove(&id) else {
            return;
        };
        let mut screen = Screen::new(size, self.settings.policy);
        screen.set_colours(self.colours);
        history.into_iter().for_each(|stored| screen.keep_history_in(stored));
        let detector = self.detector(&meta);
        let record = Record { id, meta, started_at, ended: None };
        let mut session = Session::new(record, screen, detector);
        session.closing = closing;
        session.detector.note_output(self.now);
        let summary = self.summary(&session);
        self.live.insert(id, session);
        if !typed.is_empty() {
            self.effects.push(Effect::Write { session: id, bytes: typed });
        }
        // It was started with the size of then.
        self.effects.push(Effect::Resize { session: id, size });
        self.tell_listeners(Event::SessionStarted { session: summary });
        if let Some(asker) = asker {
            self.reply(asker, Reply::Spawned { session_id: id.0 });
        }
        self.layout_changed();
    }

    pub(super) fn unspooled(&mut self, id: SessionId) {
        if let Some(session) = self.live.get_mut(&id) {
            session.screen.keep_history_here();
        }
    }

    pub(super) fn spawn_failed(&mut self, id: SessionId, error: &str) {
        let asker = self.starting.remove(&id).and_then(|starting| starting.asker);
        self.layout.remove(id);
        let message = format!("session {id} could not be started: {error}");
        if let Some(asker) = asker {
            self.reply(asker, Reply::Error { message: message.clone() });
        }
        self.warn(message);
        self.layout_changed();
        if self.live.is_empty() && self.starting.is_empty() {
            self.finish(ShutdownReason::Other(format!("the session could not be started: {error}")), 1);
        }
    }

    /// False when no such session is on its way.
    pub(super) fn keep_for_starting(&mut self, id: SessionId, bytes: &[u8]) -> bool {
        let Some(Starting { typed, .. }) = self.starting.get_mut(&id) else { return false };
        if typed.len() + bytes.len() <= MAX_TYPED_AHEAD {
            typed.extend_from_slice(bytes);
        }
        true
    }

    // ---- output ----

    pub(super) fn output(&mut self, id: SessionId, bytes: &[u8]) {
        let visible = !self.clients.is_empty() && self.is_visible(id);
        if visible
            && self.now >= self.drawn_at + FRAME
            && let Some(end) = memchr::memmem::rfind(bytes, END_OF_PAINTING)
        {
            // A frame is due and the program has just finished one: what follows may be the midst of the next.
            let (whole, next) = bytes.split_at(end + END_OF_PAINTING.len());
            self.process(id, whole, true);
            self.urgent = true;
            self.draw();
            return self.process(id, next, true);
        }
        self.process(id, bytes, visible);
    }

    fn process(&mut self, id: SessionId, bytes: &[u8], visible: bool) {
        let Some(session) = self.live.get_mut(&id) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        let fault = self.settings.fault.as_deref();
        let Some(requests) = contained(|| print(&mut session.screen, bytes, fault)) else {
            return self.screen_failed(id);
        };
        session.since_checkpoint += bytes.len();
        if session.since_checkpoint >= CHECKPOINT_EVERY && session.screen.is_between_sequences() {
            checkpoint(session, &mut self.effects);
        }
        if !requests.replies.is_empty() {
            self.effects.push(Effect::Write { session: id, bytes: requests.replies });
        }
        session.painting_since = match (session.screen.is_painting(), session.painting_since) {
            (true, None) => Some(self.now),
            (true, since) => since,
            (false, _) => None,
        };
        session.detector.note_output(self.now);
        if let Some(mark) = session.screen.mark().filter(|_| requests.mark) {
            session.detector.note_mark(self.now, mark_of(mark.kind));
        }
        session.dirty = true;
        session.since_frame += bytes.len();
        if visible {
            // How far back a view is changes with the history below it.
            let chrome = requests.title || session.top.is_some();
            self.stale = self.stale.max(if chrome { Stale::Chrome } else { Stale::Panes });
            self.urgent |= !session.flooding && session.since_frame <= DRAW_AT_ONCE;
        }
        if requests.bell && self.rang_at.is_none_or(|at| self.now >= at + FRAME) {
            self.rang_at = Some(self.now);
            for client in self.clients.keys() {
                self.effects.push(Effect::Send { client: *client, frame: ServerFrame::Bell });
            }
        }
        // The operator's clipboard and notifications are for whoever is at work, seen or not.
        if !requests.passed.is_empty() {
            self.pass(&requests.passed);
        }
    }

    // ---- the state of agents ----

    pub(super) fn look_at_sessions(&mut self) {
        let now = self.now;
        let (mut looked_at, mut to_probe) = (Vec::new(), Vec::new());
        for (id, session) in &mut self.live {
            if session.detector.next_deadline().is_none_or(|at| at > now) {
                continue;
            }
            let due = session.detector.due(now);
            if due.look {
                session.look(now);
            }
            if due.probe {
                to_probe.push(*id);
            }
            looked_at.push(*id);
        }
        for id in &looked_at {
            self.state_may_have_changed(*id);
        }
        if !to_probe.is_empty() {
            self.effects.push(Effect::Probe(to_probe));
        }
        // Work in a pane is what changes the workdir.
        if !looked_at.is_empty() && now >= self.looked_at_workdir + WORKDIR_EVERY {
            self.look_at_workdir();
        }
    }

    pub(super) fn look_at_workdir(&mut self) {
        if !self.clients.is_empty() {
            self.looked_at_workdir = self.now;
            self.effects.push(Effect::LookAtWorkdir);
        }
    }

    pub(super) fn probed(&mut self, probes: Vec<(SessionId, Probe)>) {
        for (id, probe) in probes {
            if let Some(session) = self.live.get_mut(&id) {
                session.detector.note_probe(self.now, probe);
                self.state_may_have_changed(id);
            }
        }
    }

    /// What is shown to a client is looked at.
    pub(super) fn views_may_have_changed(&mut self) {
        let now = self.now;
        let watched = !self.clients.is_empty();
        let focused = self.layout.focused();
        for (id, session) in &mut self.live {
            session.detector.set_in_view(now, watched && Some(*id) == focused);
        }
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.state_may_have_changed(id);
        }
    }

    /// Tells whoever waits for it.
    pub(super) fn state_may_have_changed(&mut self, id: SessionId) {
        let Some(session) = self.live.get_mut(&id) else {
            return;
        };
        let (from, to) = (session.told, session.state());
        if from == to {
            return;
        }
        session.told = to;
        self.touch(Stale::Chrome);
        self.tell_listeners(Event::StateChanged { session_id: id.0, from, to });
        self.end_waits();
    }

    // ---- ending ----

    pub(super) fn session_ended(&mut self, id: SessionId, ended: Ended) {
        let Some(session) = self.live.get(&id) else {
            return;
        };
        let how = ended.code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
        let mut text = format!("session {id} ({}) ended {how}", session.record.meta.label);
        let closing = session.closing;
        if self.clients.is_empty() && ended.code != Some(0) && !closing {
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
        self.tell_listeners(Event::SessionEnded { session_id: id.0, code: ended.code });
        self.end_waits();
        self.forget_selection_of(id);
        self.layout.remove(id);
        self.layout_changed();
        if last {
            let code = if closing { Some(0) } else { ended.code };
            self.finish(ShutdownReason::SessionEnded(code), 0);
        } else if ended.code != Some(0) && !closing {
            let label = self.ended.last().map_or(String::new(), |record| record.meta.label.clone());
            self.toast(format!("{label} ended {how}"));
        }
    }

    pub(super) fn remember(&mut self, record: Record) {
        self.ended.push(record);
        if self.ended.len() > MAX_ENDED {
            self.ended.remove(0);
        }
    }

    pub(super) fn last_code(&self) -> Option<i32> {
        // Those of an earlier mux are told by their ids, not in the order of their ends.
        self.ended.iter().filter_map(|record| record.ended).max_by_key(|ended| ended.at)?.code
    }

    pub(super) fn close(&mut self, sessions: impl IntoIterator<Item = SessionId>) {
        for id in sessions {
            if let Some(session) = self.live.get_mut(&id) {
                session.closing = true;
            } else if let Some(starting) = self.starting.get_mut(&id) {
                starting.closing = true;
            } else {
                continue;
            }
            self.effects.push(Effect::Kill(id));
        }
    }

    pub(super) fn close_all(&mut self) {
        (self.exiting, self.unkept) = (true, true);
        self.close(self.live.keys().chain(self.starting.keys()).copied().collect::<Vec<_>>());
    }

    /// The operator wants to leave for good: asks about work that would be lost, if that is to be asked.
    pub(super) fn ask_to_exit(&mut self) {
        let config = &self.settings.config;
        match config.dirty_exit_policy {
            Some(DirtyExitPolicy::Ask) if !config.isolated_worktrees.is_empty() => self.effects.push(Effect::InspectChanges),
            _ => self.confirm_exit(),
        }
    }

    pub(super) fn changes_found(&mut self, changes: &[Change]) {
        if !self.is_attended() {
            // Who asked has left; a question that waits would take the first keys of the next for its answer.
            return;
        }
        // One without numbers could not be inspected.
        if changes.is_empty() { self.confirm_exit() } else { self.ask_about_changes(changes) }
    }

    pub(super) fn exit(&mut self) {
        match self.settings.config.dirty_exit_policy {
            Some(DirtyExitPolicy::Keep) => self.effects.push(Effect::WriteExitAction("keep")),
            Some(DirtyExitPolicy::Discard) => self.effects.push(Effect::WriteExitAction("discard")),
            Some(DirtyExitPolicy::Ask) | None => {}
        }
        self.close_all();
    }

    // ---- sizes ----

    /// Places the panes, and gives every session on show the size of its pane. One in the background keeps its own until it is looked at.
    pub(super) fn fit(&mut self) {
        self.placed = self.layout.place(self.area());
        let mut failed = Vec::new();
        for pane in &self.placed.panes {
            let Some(session) = self.live.get_mut(&pane.session) else {
                continue;
            };
            let size = Size { rows: pane.body.rows, cols: pane.body.cols };
            if session.screen.size() == size || pane.body.is_empty() {
                continue;
            }
            if contained(|| session.screen.resize(size)).is_none() {
                session.screen.begin_anew(size);
                failed.push(pane.session);
            }
            self.effects.push(Effect::Resize { session: pane.session, size });
            if session.screen.is_between_sequences() {
                checkpoint(session, &mut self.effects);
            } else {
                session.since_checkpoint = CHECKPOINT_EVERY;
            }
        }
        failed.into_iter().for_each(|session| self.screen_failed(session));
    }

    /// After every change of tabs, panes, focus or sizes.
    pub(super) fn layout_changed(&mut self) {
        self.unkept = true;
        self.fit();
        self.views_may_have_changed();
        let focused = self.layout.focused();
        if focused != self.told_focus {
            if let Some(left) = std::mem::replace(&mut self.told_focus, focused) {
                // The operator's terminal has not changed; to the programs it looks as if.
                if self.attention {
                    self.tell_focus(left, false);
                    focused.into_iter().for_each(|entered| self.tell_focus(entered, true));
                }
            }
            if let Some(session) = focused {
                self.tell_listeners(Event::Focused { session_id: session.0 });
            }
        }
        self.touch(Stale::Everything);
    }

    pub(super) fn recording(&mut self, id: SessionId, now: Recording) {
        if let Some(session) = self.live.get_mut(&id) {
            session.recording = matches!(now, Recording::Begun(_));
            self.unkept = true;
        }
        let (asked, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.recording_asked).into_iter().partition(|(session, _)| *session == id);
        self.recording_asked = others;
        for (_, client) in asked {
            let reply = match now.clone() {
                Recording::Begun(path) | Recording::Ended(path) => Reply::Recording { session_id: id.0, path },
                Recording::Failed(message) => Reply::Error { message },
            };
            self.reply(client, reply);
        }
        match now {
            Recording::Begun(path) => self.toast(format!("session {id} is recorded to {path}")),
            Recording::Ended(path) => self.toast(format!("the recording of session {id} is {path}")),
            Recording::Failed(reason) => self.warn(format!("session {id} is not recorded: {reason}")),
        }
    }
}

fn print(screen: &mut Screen, bytes: &[u8], fault: Option<&str>) -> screen::Requests {
    assert!(fault.is_none_or(|fault| memchr::memmem::find(bytes, fault.as_bytes()).is_none()), "this was to be a fault");
    screen.process(bytes)
}

fn checkpoint(session: &mut Session, effects: &mut Vec<Effect>) {
    session.since_checkpoint = 0;
    let bytes = session.screen.checkpoint();
    let history = session.screen.news();
    effects.push(Effect::Checkpoint { session: session.record.id, size: session.screen.size(), bytes, history });
}

pub(super) fn progress_of(progress: screen::Progress) -> agent::Progress {
    let of = |state, percent| agent::Progress { state, percent };
    match progress {
        screen::Progress::Percent(percent) => of(1, Some(percent)),
        screen::Progress::Error(percent) => of(2, Some(percent)),
        screen::Progress::Indeterminate => of(3, None),
        screen::Progress::Paused(percent) => of(4, Some(percent)),
    }
}

fn mark_of(kind: MarkKind) -> Mark {
    match kind {
        MarkKind::Prompt => Mark::PromptStart,
        MarkKind::Command => Mark::PromptEnd,
        MarkKind::Output => Mark::CommandStart,
        MarkKind::Finished(_) => Mark::CommandEnd,
    }
}

/// Unique as long as ids are: the word repeats only with another number behind it.
pub(super) fn codename(session: SessionId) -> String {
    let index = session.0.saturating_sub(1);
    let (word, round) = (CODENAMES[(index % CODENAMES.len() as u64) as usize], index / CODENAMES.len() as u64);
    if round == 0 { word.to_owned() } else { format!("{word}-{}", round + 1) }
}
