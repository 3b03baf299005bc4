//! Attached terminals: who may type, how large the picture is, what each was sent.

use crate::control::Event;
use crate::frame::{Caps, Shown};
use crate::keys::Reader;
use crate::screen::{Colours, Size};
use crate::wire::{AttachMode, COLOURS, ClientFrame, Hello, ServerFrame, ShutdownReason, Spawn, VERSION};

use super::sessions::{Place, Start};
use super::{ClientId, Effect, HELD, Millis, Mux, Pressed, SessionId, Stale};

/// Escapes for the operator's terminal that wait behind a frame.
const MAX_PASSED: usize = 512 << 10;

pub(super) struct Client {
    pub mode: AttachMode,
    pub size: Size,
    pub caps: Caps,
    /// Its terminal shows more than ASCII.
    pub unicode: bool,
    pub reader: Reader,
    pub shown: Shown,
    /// An Output is on its way; nothing more is drawn until it has left.
    pub busy: bool,
    /// The picture has changed since it was last sent.
    pub behind: bool,
    pub passed: Vec<u8>,
    /// A watcher has typed the leader.
    pub armed: bool,
    /// Its terminal has the operator's attention, as far as it tells.
    pub focused: bool,
    /// What came last may be the beginning of a key; when it is taken as it is.
    pub key_due: Option<Millis>,
}

impl Client {
    pub fn types(&self) -> bool {
        self.mode != AttachMode::Watch
    }
}

impl Mux {
    pub(super) fn attach(&mut self, id: ClientId, hello: Hello) {
        if hello.ctx.v != VERSION {
            let text = format!("protocol version {} is not supported; this capsule speaks {VERSION}", hello.ctx.v);
            return self.turn_away(id, ShutdownReason::Other(text));
        }
        if self.finished {
            return self.turn_away(id, ShutdownReason::SessionEnded(self.last_code()));
        }
        if self.held.is_some() {
            return self.turn_away(id, ShutdownReason::Other(HELD.to_owned()));
        }
        let mode = hello.ctx.mode;
        if mode == AttachMode::Takeover {
            let others: Vec<_> = self.clients.iter().filter(|(_, client)| client.types()).map(|(id, _)| *id).collect();
            for other in others {
                self.clients.remove(&other);
                self.turn_away(other, ShutdownReason::TakenOver);
            }
            self.put_away();
        }
        if mode != AttachMode::Watch {
            self.set_colours(hello.foreground, hello.background);
        }
        let client = Client {
            mode,
            size: Size::clamped(hello.rows, hello.cols),
            caps: caps_of(&hello),
            unicode: !matches!(hello.term.as_str(), "dumb" | "linux"),
            reader: Reader::new(&self.settings.bindings),
            armed: false,
            focused: true,
            shown: Shown::unknown(),
            busy: false,
            behind: true,
            passed: Vec::new(),
            key_due: None,
        };
        self.clients.insert(id, client);
        self.effects.push(Effect::Send { client: id, frame: ServerFrame::Welcome { sessions: self.live.len() as u32 } });
        if let Some(session) = hello.focus.map(SessionId).filter(|id| mode != AttachMode::Watch && self.live.contains_key(id)) {
            self.layout.focus(session);
        }
        self.focus_may_have_changed();
        self.measure();
        self.choose_theme();
        self.layout_changed();
        self.clients_changed();
        self.look_at_workdir();
        if mode != AttachMode::Watch && hello.spawn != Spawn::None {
            self.start(Start { spawn: hello.spawn, place: Place::Tab, env: hello.env, cwd: None });
        }
    }

    pub(super) fn turn_away(&mut self, id: ClientId, reason: ShutdownReason) {
        self.effects.push(Effect::Send { client: id, frame: ServerFrame::Shutdown(reason) });
        self.effects.push(Effect::Close(id));
    }

    pub(super) fn gone(&mut self, id: ClientId) {
        self.listeners.remove(&id);
        self.waits.retain(|wait| wait.client != id);
        self.recording_asked.retain(|(_, asker)| *asker != id);
        if self.clients.remove(&id).is_some() {
            if !self.is_attended() {
                self.put_away();
            }
            self.focus_may_have_changed();
            self.measure();
            self.choose_theme();
            self.layout_changed();
            self.clients_changed();
        }
    }

    fn clients_changed(&mut self) {
        self.tell_listeners(Event::ClientsChanged { clients: self.clients.len() as u32 });
    }

    pub(super) fn detach(&mut self, id: ClientId) {
        if self.clients.contains_key(&id) {
            self.turn_away(id, ShutdownReason::Detached);
            self.gone(id);
        }
    }

    /// What somebody had begun who is not there any more: a question must not be answered by the next one's first key, and
    /// the button that is held will not be told to go up.
    fn put_away(&mut self) {
        (self.overlay, self.before_search, self.pressed) = (None, None, Pressed::Nothing);
    }

    /// Somebody is there who may type.
    pub(super) fn is_attended(&self) -> bool {
        self.clients.values().any(Client::types)
    }

    /// What is not known keeps what it was.
    fn set_colours(&mut self, foreground: Option<[u8; 3]>, background: Option<[u8; 3]>) {
        self.colours = Colours {
            foreground: foreground.unwrap_or(self.colours.foreground),
            background: background.unwrap_or(self.colours.background),
        };
        for session in self.live.values_mut() {
            session.screen.set_colours(self.colours);
        }
        self.unkept = true;
        self.choose_theme();
        self.touch(Stale::Everything);
    }

    /// The picture is as large as the smallest terminal that types; without any it stays as it was.
    fn measure(&mut self) {
        let typing = self.clients.values().filter(|client| client.types());
        let smallest = typing.map(|client| client.size).reduce(|a, b| Size { rows: a.rows.min(b.rows), cols: a.cols.min(b.cols) });
        if let Some(size) = smallest {
            self.size = size;
        }
    }

    pub(super) fn frame(&mut self, id: ClientId, frame: ClientFrame) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match frame {
            ClientFrame::Input(bytes) => {
                let mut events = client.reader.feed(&bytes);
                if client.reader.holds_escape() && self.overlay.is_none() {
                    // To a program Escape is a key like any other, and must not be late.
                    events.extend(client.reader.flush());
                }
                client.key_due = client.reader.is_waiting().then_some(self.now + self.settings.escape_time);
                self.typed(id, events);
            }
            ClientFrame::Resize { rows, cols } => {
                // Resizing a terminal moves and cuts what it shows, each in its own way.
                client.shown.forget();
                client.size = Size::clamped(rows, cols);
                self.measure();
                self.layout_changed();
            }
            ClientFrame::Detach => self.detach(id),
            ClientFrame::FocusIn => self.focus_event(id, true),
            ClientFrame::FocusOut => self.focus_event(id, false),
            ClientFrame::AttachControl { kind: COLOURS, body, .. } => {
                let types = client.types();
                if let Some((foreground, background)) = ClientFrame::read_colours(&body).ok().filter(|_| types) {
                    self.set_colours(foreground, background);
                }
            }
            ClientFrame::AttachControl { kind, request, .. } => {
                let result = if (1..=3).contains(&kind) { 0 } else { 2 };
                self.effects.push(Effect::Send { client: id, frame: ServerFrame::AttachControlResponse { request, result } });
                match kind {
                    1 => self.detach(id),
                    2 => self.focus_event(id, true),
                    3 => self.focus_event(id, false),
                    _ => {}
                }
            }
            ClientFrame::Hello(_) => {
                self.turn_away(id, ShutdownReason::Other("a second hello".to_owned()));
                self.gone(id);
            }
            ClientFrame::ClipboardImage { format, bytes } => self.stage(id, format, bytes),
            ClientFrame::ImageError(text) | ClientFrame::HostNotice(text) if client.types() => self.toast(text),
            ClientFrame::ImageError(_) | ClientFrame::HostNotice(_) => {}
            // Transfers in pieces are put together where files are, and come as one.
            ClientFrame::ImageStart { .. } | ClientFrame::ImageChunk { .. } | ClientFrame::ImageEnd { .. } | ClientFrame::Command(_) => {}
        }
    }

    /// A key that was begun and not finished in time.
    pub(super) fn flush_keys(&mut self) {
        let due: Vec<_> = self.clients.iter().filter(|(_, c)| c.key_due.is_some_and(|at| at <= self.now)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.key_due = None;
            let events = client.reader.flush();
            self.typed(id, events);
        }
    }

    pub(super) fn focus_event(&mut self, id: ClientId, focused: bool) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.focused = focused;
            self.focus_may_have_changed();
        }
    }

    /// The focused pane has the operator's attention while any terminal that types has it.
    fn focus_may_have_changed(&mut self) {
        let attention = self.clients.values().any(|client| client.types() && client.focused);
        if std::mem::replace(&mut self.attention, attention) != attention
            && let Some(session) = self.layout.focused()
        {
            self.tell_focus(session, attention);
        }
    }

    pub(super) fn tell_focus(&mut self, session: SessionId, focused: bool) {
        if self.live.get(&session).is_some_and(|session| session.screen.modes().focus_events) {
            self.effects.push(Effect::Write { session, bytes: if focused { b"\x1b[I".to_vec() } else { b"\x1b[O".to_vec() } });
        }
    }

    /// Escapes for every terminal: notifications, clipboard.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        for client in self.clients.values_mut().filter(|client| client.types()) {
            if client.passed.len() + bytes.len() <= MAX_PASSED {
                client.passed.extend_from_slice(bytes);
                client.behind = true;
            }
        }
        self.touch(Stale::Panes);
    }
}

fn caps_of(hello: &Hello) -> Caps {
    let terminal = hello.terminal();
    Caps {
        truecolor: terminal.truecolor,
        sync_output: terminal.sync_output,
        hyperlinks: terminal.osc8,
        underline_style: terminal.underline_style,
        pointer_shapes: terminal.pointer_shapes,
        color: terminal.color,
    }
}
