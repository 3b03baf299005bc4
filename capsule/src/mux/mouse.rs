//! The mouse: on the chrome, on borders, in programs that want it, and selecting where none does.

use std::ops::Range;

use vt100::MouseProtocolMode;

use crate::chrome::{BarHit, StripHit};
use crate::frame::Rect;
use crate::keys::Command;
use crate::layout::Axis;
use crate::mouse::{self, Button, Kind, Mouse, Wheel};
use crate::screen::Screen;
use crate::select::{Grain, Lines, Point, Selection};

use super::sessions::Session;
use super::{ClientId, Effect, Millis, Mux, Pressed, SessionId, Stale};

const WHEEL_LINES: i64 = 3;
/// While a selection is held beyond the edge another line comes this often.
const PULL_EVERY: Millis = 50;

/// A pane's history and screen as one run of numbered lines.
pub(super) struct LinesOf<'a>(pub &'a Screen);

impl LinesOf<'_> {
    fn index(&self, line: u64) -> usize {
        (line as usize).saturating_sub(self.0.first_line())
    }
}

impl Lines for LinesOf<'_> {
    fn range(&self) -> Range<u64> {
        let first = self.0.first_line();
        first as u64..(first + self.0.history_len()) as u64 + u64::from(self.0.size().rows)
    }

    fn text(&self, line: u64) -> String {
        self.0.line_text(self.index(line))
    }

    fn wrapped(&self, line: u64) -> bool {
        self.0.line_wrapped(self.index(line))
    }

    fn cols(&self) -> u16 {
        self.0.size().cols
    }
}

impl Mux {
    pub(super) fn mouse(&mut self, id: ClientId, mouse: &Mouse) {
        let pointer = self.pointer_at(mouse.row, mouse.col);
        if pointer != self.pointer {
            self.pointer = pointer;
            self.touch(Stale::Panes);
        }
        if self.mouse_on_overlay(id, mouse) {
            return;
        }
        match (mouse.kind, self.pressed) {
            (Kind::Drag(Button::Left), Pressed::Border(border)) => {
                if self.layout.drag(border, mouse.row, mouse.col, self.area()) {
                    self.layout_changed();
                }
            }
            (Kind::Drag(Button::Left), Pressed::Selecting(session)) => self.select_to(session, mouse),
            (Kind::Release(Button::Left), Pressed::Selecting(session)) => {
                self.pressed = Pressed::Nothing;
                self.selected(session);
            }
            (Kind::Drag(_) | Kind::Release(_), Pressed::Program(session)) => {
                if matches!(mouse.kind, Kind::Release(_)) {
                    self.pressed = Pressed::Nothing;
                }
                self.tell_program(session, mouse);
            }
            (Kind::Release(_), _) => self.pressed = Pressed::Nothing,
            _ => self.mouse_somewhere(id, mouse),
        }
    }

    /// What the pointer looks like there, as CSS names it. Absent over a pane: its program decides.
    fn pointer_at(&self, row: u16, col: u16) -> Option<&'static str> {
        let on = |area: Option<Rect>| area.is_some_and(|area| area.contains(row, col));
        if self.overlay.is_some() {
            return None;
        }
        if let Pressed::Border(border) = self.pressed {
            return Some(resizing(border.axis));
        }
        if on(self.strip_area()) || on(self.bar_area()) {
            return Some("pointer");
        }
        self.layout.border_at(row, col, self.area()).map(|border| resizing(border.axis))
    }

    fn mouse_somewhere(&mut self, id: ClientId, mouse: &Mouse) {
        let pressed = matches!(mouse.kind, Kind::Press(Button::Left));
        if let Some(area) = self.strip_area().filter(|area| area.contains(mouse.row, mouse.col)) {
            return self.mouse_on_strip(id, mouse, area);
        }
        if let Some(area) = self.bar_area().filter(|area| area.contains(mouse.row, mouse.col)) {
            if pressed {
                self.click_on_bar(id, mouse.col, area);
            }
            return;
        }
        if pressed && self.toasts.click(self.area(), mouse.row, mouse.col) {
            return self.touch(Stale::Everything);
        }
        if pressed && let Some(border) = self.layout.border_at(mouse.row, mouse.col, self.area()) {
            self.pressed = Pressed::Border(border);
        }
        let Some(pane) = self.placed.panes.iter().copied().find(|pane| pane.outer().contains(mouse.row, mouse.col)) else {
            return;
        };
        if pressed && self.layout.focused() != Some(pane.session) && self.layout.focus(pane.session) {
            self.layout_changed();
        }
        if pane.body.contains(mouse.row, mouse.col) {
            self.mouse_on_body(id, pane.session, mouse);
        }
    }

    fn mouse_on_strip(&mut self, id: ClientId, mouse: &Mouse, area: Rect) {
        let hit = self.strip(area.cols).hit(mouse.col);
        match mouse.kind {
            Kind::Wheel(Wheel::Up) => self.run(id, Command::PreviousTab),
            Kind::Wheel(Wheel::Down) => self.run(id, Command::NextTab),
            Kind::Press(Button::Left) => {
                let clicks = self.clicks.count(self.now, mouse.row, mouse.col);
                match hit {
                    Some(StripHit::Tab(index)) => {
                        self.run(id, Command::Jump(index));
                        if clicks == 2 {
                            self.run(id, Command::RenameTab);
                        }
                    }
                    Some(StripHit::More(index)) => self.run(id, Command::Jump(index)),
                    Some(StripHit::NewTab) => self.run(id, Command::NewTab),
                    Some(StripHit::Menu) => self.run(id, Command::Palette),
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn click_on_bar(&mut self, id: ClientId, col: u16, area: Rect) {
        match self.bar().hit(area.cols, col, &self.theme) {
            Some(BarHit::Menu) => self.run(id, Command::Palette),
            Some(BarHit::Recording) => self.stop_recording(),
            Some(BarHit::Branch) => {
                if let Some(branch) = self.workdir.branch.clone() {
                    self.copy(&branch);
                }
            }
            Some(BarHit::Info | BarHit::Session | BarHit::Clients) => self.run(id, Command::Info),
            None => {}
        }
    }

    fn mouse_on_body(&mut self, id: ClientId, session: SessionId, mouse: &Mouse) {
        let Some(found) = self.live.get(&session) else { return };
        let modes = found.screen.modes();
        let point = self.point_at(session, mouse);
        // Shift is the operator's way past a program that takes the mouse; most terminals keep it for themselves.
        if modes.mouse != MouseProtocolMode::None && !mouse.shift && found.top.is_none() {
            if matches!(mouse.kind, Kind::Press(_)) {
                self.pressed = Pressed::Program(session);
            }
            return self.tell_program(session, mouse);
        }
        match mouse.kind {
            Kind::Wheel(wheel @ (Wheel::Up | Wheel::Down)) => {
                let up = wheel == Wheel::Up;
                match modes.alternate {
                    true if modes.alternate_scroll => {
                        self.effects.push(Effect::Write { session, bytes: mouse::wheel_keys(up, modes.app_cursor) });
                    }
                    true => {}
                    false => self.scroll(session, if up { WHEEL_LINES } else { -WHEEL_LINES }),
                }
            }
            Kind::Press(Button::Left) if mouse.alt || mouse.ctrl => {
                let Some(point) = point else { return };
                match (self.link_at(session, point), self.path_at(session, point)) {
                    (Some(url), _) => self.open(id, url),
                    (None, Some(path)) => self.effects.push(Effect::Export { client: id, path, reveal: false, open: false }),
                    (None, None) => {}
                }
            }
            Kind::Press(Button::Left) => {
                let grain = Grain::of_clicks(self.clicks.count(self.now, mouse.row, mouse.col));
                self.pressed = Pressed::Selecting(session);
                self.selection = point.map(|point| Selection::new(session.0, point, grain));
                self.touch(Stale::Everything);
            }
            _ => {}
        }
    }

    fn tell_program(&mut self, session: SessionId, mouse: &Mouse) {
        let Some(pane) = self.placed.panes.iter().find(|pane| pane.session == session) else { return };
        let Some(found) = self.live.get(&session) else { return };
        let modes = found.screen.modes();
        let (row, col) = within(pane.body, mouse);
        let mouse = Mouse { row, col, ..*mouse };
        if let Some(bytes) = mouse::encode(&mouse, modes.mouse, modes.mouse_encoding) {
            self.effects.push(Effect::Write { session, bytes });
        }
    }

    // ---- selecting ----

    fn point_at(&self, session: SessionId, mouse: &Mouse) -> Option<Point> {
        let pane = self.placed.panes.iter().find(|pane| pane.session == session)?;
        let (row, col) = within(pane.body, mouse);
        Some(Point { line: self.live.get(&session)?.top_line() + u64::from(row), col })
    }

    fn select_to(&mut self, session: SessionId, mouse: &Mouse) {
        let body = self.placed.panes.iter().find(|pane| pane.session == session).map(|pane| pane.body);
        // Past the edge there is more to select. A mouse that is held still there says nothing more.
        let by = match body {
            Some(body) if mouse.row < body.row => 1,
            Some(body) if mouse.row >= body.row + body.rows => -1,
            _ => 0,
        };
        self.pulled = (by != 0).then_some((self.now + PULL_EVERY, *mouse));
        if by != 0 {
            self.scroll(session, by);
        }
        if let (Some(point), Some(selection)) = (self.point_at(session, mouse), &mut self.selection) {
            selection.head = point;
            self.touch(Stale::Everything);
        }
    }

    pub(super) fn pull(&mut self) {
        if let (Pressed::Selecting(session), Some((at, mouse))) = (self.pressed, self.pulled)
            && at <= self.now
        {
            self.select_to(session, &mouse);
        }
    }

    /// The button is up: what is selected goes to the clipboard. A click selects nothing.
    fn selected(&mut self, session: SessionId) {
        let Some(selection) = &self.selection else { return };
        if selection.is_empty() {
            self.selection = None;
            return self.touch(Stale::Everything);
        }
        if let Some(text) = self.selected_text().filter(|text| !text.is_empty() && self.live.contains_key(&session)) {
            self.copy(&text);
        }
    }

    pub(super) fn selected_text(&self) -> Option<String> {
        let selection = self.selection.as_ref()?;
        let session = self.live.get(&SessionId(selection.session))?;
        Some(selection.text(&LinesOf(&session.screen)))
    }

    pub(super) fn forget_selection_of(&mut self, session: SessionId) {
        self.selection.take_if(|selection| selection.session == session.0);
        self.found.take_if(|found| found.session == session);
        if matches!(self.pressed, Pressed::Program(id) | Pressed::Selecting(id) if id == session) {
            self.pressed = Pressed::Nothing;
        }
    }

    // ---- links and paths ----

    fn link_at(&self, session: SessionId, point: Point) -> Option<String> {
        let screen = &self.live.get(&session)?.screen;
        let line = (point.line as usize).checked_sub(screen.first_line())?;
        let link = screen.link_at(line, point.col).filter(|link| crate::select::is_openable(link));
        link.or_else(|| crate::select::url_at(&LinesOf(screen), point))
    }

    fn path_at(&self, session: SessionId, point: Point) -> Option<String> {
        crate::select::path_at(&LinesOf(&self.live.get(&session)?.screen), point)
    }

    fn cursor_point(session: &Session) -> Point {
        let (row, col) = session.screen.cursor();
        Point { line: (session.screen.first_line() + session.screen.history_len()) as u64 + u64::from(row), col }
    }

    pub(super) fn link_at_cursor(&self) -> Option<String> {
        let session = self.focused()?;
        self.link_at(session.record.id, Self::cursor_point(session))
    }

    pub(super) fn path_at_cursor(&self) -> Option<String> {
        let session = self.focused()?;
        self.path_at(session.record.id, Self::cursor_point(session))
    }
}

fn resizing(axis: Axis) -> &'static str {
    match axis {
        Axis::SideBySide => "ew-resize",
        Axis::Stacked => "ns-resize",
    }
}

/// Row and column in the pane, the nearest of it for a mouse that has left it.
fn within(body: Rect, mouse: &Mouse) -> (u16, u16) {
    let last = |from: u16, len: u16| from + len.saturating_sub(1);
    let row = mouse.row.clamp(body.row, last(body.row, body.rows)) - body.row;
    let col = mouse.col.clamp(body.col, last(body.col, body.cols)) - body.col;
    (row, col)
}
