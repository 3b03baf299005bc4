//! The picture: panes, chrome and what lies over them, painted where something changed, sent to whoever is ready.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::agent;
use crate::chrome::{self, Bar, Look, Mode, Overlay, Strip, TabLabel, Theme, Title};
use crate::control::SessionState;
use crate::dates::rfc3339;
use crate::fault::contained;
use crate::frame::{Cursor, Frame, Modes, Rect, Style, attr};
use crate::layout::{Placed, TabView};
use crate::screen::Size;
use crate::wire::ServerFrame;

use super::mouse::LinesOf;
use super::sessions::Session;
use super::{DRAW_AT_ONCE, Effect, FRAME, Mux, SessionId, Stale};

/// Smaller terminals show panes and nothing else.
const MIN_ROWS_FOR_CHROME: u16 = 8;
const MIN_COLS_FOR_CHROME: u16 = 20;

/// Where the last search in a session's history has led.
pub(super) struct Search {
    pub session: SessionId,
    pub needle: String,
    pub at: Option<Hit>,
    /// The hit that is shown, from one, of how many.
    pub count: Option<(usize, usize)>,
}

/// A place in a session's lines, counted from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub line: u64,
    pub col: u16,
    pub cols: u16,
}

impl Mux {
    fn has_chrome(&self) -> bool {
        self.size.rows >= MIN_ROWS_FOR_CHROME && self.size.cols >= MIN_COLS_FOR_CHROME
    }

    /// What strip and bar leave to the panes.
    pub(super) fn area(&self) -> Rect {
        let all = Rect::of(self.size);
        if self.has_chrome() { Rect { row: 1, rows: all.rows - 2, ..all } } else { all }
    }

    pub(super) fn strip_area(&self) -> Option<Rect> {
        self.has_chrome().then(|| Rect { rows: 1, ..Rect::of(self.size) })
    }

    pub(super) fn bar_area(&self) -> Option<Rect> {
        self.has_chrome().then(|| Rect { row: self.size.rows - 1, rows: 1, ..Rect::of(self.size) })
    }

    pub(super) fn body_of(&self, session: SessionId) -> Option<Size> {
        let body = self.placed.panes.iter().find(|pane| pane.session == session)?.body;
        Some(Size { rows: body.rows, cols: body.cols })
    }

    pub(super) fn is_visible(&self, session: SessionId) -> bool {
        self.placed.panes.iter().any(|pane| pane.session == session)
    }

    /// Paints what may be painted now and sends it to every client that takes it.
    pub(super) fn draw(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let due = self.now >= self.drawn_at + FRAME;
        let taken = self.clients.values().any(|client| !client.busy);
        if self.stale > Stale::Nothing && taken && (self.urgent || due) {
            self.compose(due);
        }
        for (id, client) in &mut self.clients {
            if client.busy || !client.behind {
                continue;
            }
            client.behind = false;
            let mut bytes = std::mem::take(&mut client.passed);
            bytes.extend(self.picture.draw(&self.modes, &mut client.shown, client.size, &client.caps));
            if !bytes.is_empty() {
                client.busy = true;
                self.effects.push(Effect::Send { client: *id, frame: ServerFrame::Output(bytes) });
            }
        }
    }

    /// The last frame of the last session goes out even behind one that is still on its way: it is one more at most,
    /// and there is no later.
    pub(super) fn draw_final(&mut self) {
        for session in self.live.values_mut() {
            session.screen.stop_waiting_for_painting();
        }
        for client in self.clients.values_mut() {
            client.busy = false;
        }
        self.touch(Stale::Everything);
        self.draw();
    }

    fn compose(&mut self, due: bool) {
        self.urgent = false;
        let covered = self.overlay.is_some() || !self.toasts.is_empty();
        let everything = self.stale == Stale::Everything || covered;
        let chrome_too = self.stale >= Stale::Chrome || everything;
        self.stale = Stale::Nothing;
        if everything {
            self.picture.resize(self.size);
        }
        let placed = std::mem::take(&mut self.placed);
        for pane in &placed.panes {
            self.paint_pane(pane.session, pane.body, everything, due);
        }
        if chrome_too {
            self.paint_chrome(&placed);
        }
        self.set_cursor_and_modes(&placed);
        if covered {
            self.paint_cover();
        }
        self.placed = placed;
        if due {
            self.drawn_at = self.now;
            for session in self.live.values_mut() {
                session.flooding = session.since_frame > DRAW_AT_ONCE;
                session.since_frame = 0;
            }
        }
        for client in self.clients.values_mut() {
            client.behind = true;
        }
    }

    fn paint_pane(&mut self, id: SessionId, body: Rect, everything: bool, due: bool) {
        let now = self.now;
        let Some(session) = self.live.get_mut(&id) else {
            return;
        };
        // A flood waits for the frame, so that an echo beside it need not paint it too.
        let may = everything || !session.flooding && session.since_frame <= DRAW_AT_ONCE || due;
        if !everything && !session.dirty {
            return;
        }
        if !everything && (!may || session.is_held(now)) {
            self.stale = self.stale.max(Stale::Panes);
            return;
        }
        session.dirty = false;
        let offset = session.offset();
        let selection = self.selection.as_ref().filter(|selection| selection.session == id.0);
        let found = self.found.as_ref().filter(|found| found.session == id).and_then(|found| found.at.as_ref());
        let all = everything || offset > 0 || selection.is_some() || found.is_some();
        if contained(|| session.screen.paint(&mut self.picture, body, offset, all)).is_none() {
            return self.screen_failed(id);
        }
        let (found_style, selection_style) = (self.theme.found_here, self.theme.selection);
        let top = session.top_line();
        let rows = top..top + u64::from(body.rows);
        if let Some(found) = found.filter(|found| rows.contains(&found.line)) {
            let cols = found.col..found.col.saturating_add(found.cols);
            tint(&mut self.picture, body, (found.line - top) as u16, cols, found_style);
        }
        let spans = selection.map_or_else(Vec::new, |selection| selection.spans(&LinesOf(&session.screen), rows));
        for (line, cols) in spans {
            tint(&mut self.picture, body, (line - top) as u16, cols, selection_style);
        }
    }

    fn set_cursor_and_modes(&mut self, placed: &Placed) {
        if self.focused().is_some_and(|session| session.dirty) {
            // The cursor belongs to what is not shown yet.
            return;
        }
        self.picture.cursor = None;
        self.modes = Modes { mouse: true, bracketed_paste: true, focus: true, pointer: self.pointer, ..Modes::default() };
        let focused = self.layout.focused();
        let pane = placed.panes.iter().find(|pane| Some(pane.session) == focused);
        let Some((pane, session)) = pane.and_then(|pane| Some((pane, self.live.get(&pane.session)?))) else {
            return;
        };
        let modes = session.screen.modes();
        self.modes.title = self.window_title(session);
        self.modes.icon = session.screen.icon().to_owned();
        self.modes.app_cursor = modes.app_cursor;
        self.modes.app_keypad = modes.app_keypad;
        self.modes.kitty_flags = modes.kitty_flags;
        self.modes.modify_other_keys = modes.modify_other_keys;
        if self.overlay.is_some() {
            // Painting it puts the cursor where its text goes.
            return;
        }
        let (row, col) = session.screen.cursor();
        let (row, col) = (row.min(pane.body.rows.saturating_sub(1)), col.min(pane.body.cols.saturating_sub(1)));
        if session.top.is_none() && session.screen.cursor_visible() {
            let shape = session.screen.cursor_shape();
            self.picture.cursor = Some(Cursor { row: pane.body.row + row, col: pane.body.col + col, shape });
        }
    }

    // ---- chrome ----

    fn paint_chrome(&mut self, placed: &Placed) {
        if let Some(area) = self.strip_area() {
            self.strip(area.cols).paint(&mut self.picture, area, &self.theme);
        }
        if let Some(focused) = self.layout.focused() {
            let titles: Vec<_> = placed.panes.iter().map(|pane| (pane.session, self.title_of(pane.session))).collect();
            let of_pane = titles.iter().map(|(session, title)| (*session, title.clone())).collect::<BTreeMap<_, _>>();
            let title_of = |id: SessionId| of_pane[&id].clone();
            chrome::borders(&mut self.picture, placed, focused, title_of, &self.theme);
            for (pane, (_, title)) in placed.panes.iter().zip(&titles) {
                if pane.title.is_none() && title.scrolled.is_some() {
                    chrome::scroll_mark(&mut self.picture, pane.body, title, &self.theme);
                }
            }
        }
        if let Some(area) = self.bar_area() {
            self.bar().paint(&mut self.picture, area, &self.theme);
        }
    }

    /// What lies over the panes.
    fn paint_cover(&mut self) {
        let area = Rect::of(self.size);
        if !self.toasts.is_empty() {
            let below_strip = self.area();
            self.toasts.paint(&mut self.picture, below_strip, &self.theme);
        }
        if let Some(overlay) = &self.overlay {
            overlay.paint(&mut self.picture, area, &self.theme);
        }
    }

    pub(super) fn strip(&self, cols: u16) -> Strip {
        let label = |tab: TabView<'_>| {
            let sessions: Vec<_> = tab.panes.iter().filter_map(|id| self.live.get(id)).collect();
            TabLabel {
                label: self.tab_label(&tab),
                state: agent::roll_up(sessions.iter().map(|session| session.state())),
                zoomed: tab.zoomed,
                recording: sessions.iter().any(|session| session.recording),
            }
        };
        let tabs: Vec<_> = self.layout.tabs().map(label).collect();
        Strip::new(cols, &tabs, self.layout.active(), &self.theme)
    }

    pub(super) fn tab_label(&self, tab: &TabView<'_>) -> String {
        let meta = self
            .live
            .get(&tab.focused)
            .map(|session| &session.record.meta)
            .or_else(|| self.starting.get(&tab.focused).map(|starting| &starting.meta));
        tab.name.map_or_else(|| meta.map_or_else(String::new, |meta| meta.label.clone()), str::to_owned)
    }

    fn title_of(&self, id: SessionId) -> Title {
        let Some(session) = self.live.get(&id) else {
            let label = self.starting.get(&id).map_or_else(String::new, |starting| format!("{} is starting", starting.meta.label));
            return Title { label, codename: String::new(), state: SessionState::Unknown, recording: false, scrolled: None, found: None };
        };
        let meta = &session.record.meta;
        let title = session.screen.title();
        Title {
            label: if title.is_empty() { meta.label.clone() } else { format!("{}: {title}", meta.label) },
            codename: meta.codename.clone(),
            state: session.state(),
            recording: session.recording,
            scrolled: session.top.map(|_| (session.offset(), session.screen.history_len())),
            found: self.found.as_ref().filter(|found| found.session == id).and_then(|found| found.count),
        }
    }

    pub(super) fn bar(&self) -> Bar {
        let session = self.focused();
        let of_session = |session: &Session| {
            let meta = &session.record.meta;
            (meta.label.clone(), meta.provider.clone(), session.state())
        };
        let scrolled = session.is_some_and(|session| session.top.is_some());
        Bar {
            role: self.settings.config.role.clone(),
            instance: self.settings.identity.instance.clone(),
            branch: self.workdir.branch.clone(),
            dirty: self.workdir.dirty,
            session: session.map(of_session),
            recording: self.live.values().any(|session| session.recording),
            clients: self.clients.values().filter(|client| client.types()).count(),
            watchers: self.clients.values().filter(|client| !client.types()).count(),
            leader: self.settings.bindings.leader.or(self.settings.bindings.prefix).map(chrome::key_name),
            mode: scrolled.then(|| Mode { name: "SCROLL".to_owned(), hint: "PgUp/PgDn move  Esc or typing: back to live".to_owned() }),
        }
    }

    /// What the outer terminal's window is called.
    fn window_title(&self, session: &Session) -> String {
        let (instance, title) = (&self.settings.identity.instance, session.screen.title());
        let title = if title.is_empty() { &session.record.meta.label } else { title };
        if instance.is_empty() { title.to_owned() } else { format!("{title} · {instance}") }
    }

    /// Decided by what all the clients' terminals can show.
    pub(super) fn choose_theme(&mut self) {
        let look = Look {
            color: self.clients.values().all(|client| client.caps.color),
            unicode: self.clients.values().all(|client| client.unicode),
            light: Look::is_light(self.colours.background),
        };
        self.theme = Theme::new(look);
    }

    pub(super) fn information(&self) -> Overlay {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (config, identity) = (&self.settings.config, &self.settings.identity);
        let container = vec![
            fact("instance", &identity.instance),
            fact("container", &identity.container),
            fact("role", &config.role),
            fact("workdir", &config.workdir),
            fact("branch", self.workdir.branch.as_deref().unwrap_or("none")),
            fact("agents", &config.agents.join(", ")),
            fact("socket", &self.settings.socket),
            fact("capsule", env!("CARGO_PKG_VERSION")),
        ];
        let session = |session: &Session| {
            let meta = &session.record.meta;
            let agent = meta.agent.as_deref().unwrap_or("shell");
            let provider = meta.provider.as_ref().map_or_else(String::new, |provider| format!(", {provider}"));
            let text = format!("{agent}{provider}, {}, since {}", session.state(), rfc3339(session.record.started_at));
            (format!("{} {}", session.record.id, meta.codename), text)
        };
        let client = |(id, client): (&super::ClientId, &super::clients::Client)| {
            let how = if client.types() { "types" } else { "watches" };
            (format!("client {}", id.0), format!("{how}, {} x {}", client.size.cols, client.size.rows))
        };
        let sections = vec![
            ("Container".to_owned(), container.into_iter().filter(|(_, value)| !value.is_empty()).collect()),
            ("Sessions".to_owned(), self.live.values().map(session).collect()),
            ("Terminals".to_owned(), self.clients.iter().map(client).collect()),
        ];
        Overlay::info("About this container", sections)
    }
}

/// Lays a style over columns of a pane's row, keeping the text.
fn tint(picture: &mut Frame, body: Rect, row: u16, cols: Range<u16>, style: Style) {
    let (from, to) = (cols.start.min(body.cols), cols.end.min(body.cols));
    for cell in picture.row_mut(body.row + row).iter_mut().skip((body.col + from).into()).take(to.saturating_sub(from).into()) {
        cell.style.fg = style.fg;
        cell.style.bg = style.bg;
        cell.style.attrs = cell.style.attrs & !attr::INVERSE | style.attrs;
    }
}
