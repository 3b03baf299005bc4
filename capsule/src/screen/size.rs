//! A new size for a screen without losing text: what no longer fits goes to the history and comes back from there.

use std::num::NonZeroU16;

use super::filter::State;
use super::paint::Dirt;
use super::{Screen, line};
use crate::frame::{MAX_COLS, MAX_ROWS, Size};

/// As vt100 wants them.
pub(super) fn cells(size: Size) -> (NonZeroU16, NonZeroU16) {
    let cells = |n: u16, max: u16| NonZeroU16::new(n.min(max)).unwrap_or(NonZeroU16::MIN);
    (cells(size.rows, MAX_ROWS), cells(size.cols, MAX_COLS))
}

impl Screen {
    pub fn size(&self) -> Size {
        let (rows, cols) = self.vt().size();
        Size { rows: rows.get(), cols: cols.get() }
    }

    pub fn resize(&mut self, size: Size) {
        let (rows, cols) = cells(size);
        let new = Size { rows: rows.get(), cols: cols.get() };
        if new == self.size() {
            return;
        }
        self.on_side(false, |screen| screen.resize_main(new));
        if self.alternate_seen {
            self.on_side(true, |screen| {
                let at = screen.at;
                screen.save_again(new);
                screen.place(at);
            });
        }
        if let Some(tabs) = &mut self.tabs {
            let old = tabs.len();
            tabs.resize(new.cols.into(), false);
            for (col, stop) in tabs.iter_mut().enumerate().skip(old) {
                *stop = col.is_multiple_of(8);
            }
        }
        self.at = self.vt().cursor_position();
        self.set_rich();
        self.beside().scrolled = false;
        self.dirt = Dirt::new(new.rows);
    }

    /// vt100 cuts rows to the new width and drops what is below the cursor, so the text is taken out and written anew.
    fn resize_main(&mut self, new: Size) {
        let blank = self.size().rows;
        let mut lines = self.logical_lines();
        let blank = usize::from(blank) - lines.iter().map(|line| line.rows).sum::<usize>().min(blank.into());
        self.pull(&mut lines, usize::from(new.rows).saturating_sub(blank), new.cols);

        let (rows, cols) = cells(new);
        self.tell(b"\x1b[?6l\x1b[r\x1b[0m\x1b[2J\x1b[H");
        // As far as vt100 knows nothing has ever scrolled: blank rows for a taller screen come at the bottom.
        self.parser.screen_mut().clear_scrollback();
        self.beside().mute = true;
        self.parser.set_size(rows, cols);
        self.beside().mute = false;
        for side in &mut self.sides {
            (side.top, side.bottom) = (0, new.rows - 1);
        }
        let mut cursor = (0, 0);
        self.tell(b"\x1b[H");
        self.set_rich();
        self.plainly(|screen| {
            let start = screen.scrolled_off();
            for (i, line) in lines.iter().enumerate() {
                if i > 0 {
                    screen.feed(b"\r\n");
                }
                let Some(offset) = line.cursor else {
                    screen.run(&line.text);
                    continue;
                };
                screen.run(&line::cut(&line.text, 0, offset));
                let (row, col) = screen.at;
                cursor = (screen.scrolled_off() - start + usize::from(row), col);
                let behind = line::cut(&line.text, offset, usize::MAX);
                if col >= new.cols && !behind.is_empty() {
                    cursor = (cursor.0 + 1, 0);
                }
                screen.run(&behind);
            }
            cursor.0 = cursor.0.saturating_sub(screen.scrolled_off() - start).min(usize::from(new.rows) - 1);
        });
        self.save_again(new);
        self.place((cursor.0 as u16, cursor.1));
    }

    /// The text of the screen by lines that wrapping has not cut, down to the last row with text or the cursor. A line
    /// that begins on the ring is taken from there.
    fn logical_lines(&mut self) -> Vec<Logical> {
        let (cursor_row, cursor_col) = self.at;
        let mut writer = line::Writer::default();
        let mut lines: Vec<Logical> = Vec::new();
        let mut open = self.pop_logical(true);
        let mut used = 0;
        for row in 0..self.size().rows {
            let wrapped = self.row_line(row, &mut writer);
            let mut line = open.take().unwrap_or_default();
            line.rows += 1;
            if row == cursor_row {
                line.cursor = Some(line::width(&line.text) + usize::from(cursor_col));
            }
            line.append(&writer.line);
            // What the cursor stands behind is text, even if it is blank.
            if let Some(blanks) = line.cursor.and_then(|cursor| cursor.checked_sub(line::width(&line.text))) {
                line.append(&b" ".repeat(blanks));
            }
            if !writer.line.is_empty() || row <= cursor_row {
                used = lines.len() + 1;
            }
            if wrapped {
                open = Some(line);
            } else {
                lines.push(line);
            }
        }
        lines.extend(open);
        lines.truncate(used);
        lines
    }

    /// Takes the newest line off the ring, with all the lines it wraps over. `unfinished`: only if it goes on on screen.
    fn pop_logical(&mut self, unfinished: bool) -> Option<Logical> {
        let ring = &mut self.beside().ring;
        if ring.last()?.wrapped != unfinished {
            return None;
        }
        let mut parts = vec![ring.pop()?.0];
        // A line that fills screens on end is better cut than read back whole.
        while parts.len() < 200 && ring.last().is_some_and(|line| line.wrapped) {
            parts.extend(ring.pop().map(|(text, _)| text));
        }
        let mut line = Logical::default();
        for part in parts.iter().rev() {
            line.append(part);
        }
        Some(line)
    }

    /// Brings lines back from the ring until there are so many rows.
    fn pull(&mut self, lines: &mut Vec<Logical>, rows: usize, cols: u16) {
        let mut have: usize = lines.iter().map(|line| line.rows_at(cols)).sum();
        let mut pulled = Vec::new();
        while have < rows {
            let Some(line) = self.pop_logical(false) else {
                break;
            };
            have += line.rows_at(cols);
            pulled.push(line);
        }
        pulled.reverse();
        lines.splice(0..0, pulled);
    }

    fn scrolled_off(&self) -> usize {
        let ring = &self.parser.callbacks().ring;
        ring.dropped() + ring.len()
    }

    /// vt100 moves a saved cursor with the rows it thinks it keeps; here it stays where it was.
    fn save_again(&mut self, new: Size) {
        let here = self.side().origin;
        let saved = &mut self.side_mut().saved;
        saved.at = (saved.at.0.min(new.rows - 1), saved.at.1.min(new.cols - 1));
        let (origin, (row, col)) = (saved.origin, saved.at);
        let switch = |on| if on { "\x1b[?6h" } else { "\x1b[?6l" };
        self.tell(format!("{}\x1b[{};{}H\x1b7{}", switch(origin), row + 1, col + 1, switch(here)).as_bytes());
    }

    /// Puts the cursor there; past the last column it waits to wrap. The scroll region must be the whole screen.
    pub(super) fn place(&mut self, (row, col): (u16, u16)) {
        let cols = self.size().cols;
        self.tell(format!("\x1b[{};{}H", row + 1, col.min(cols - 1) + 1).as_bytes());
        if col >= cols {
            let mut writer = line::Writer::default();
            self.row_line(row, &mut writer);
            let last = usize::from(cols) - 1;
            let wide = self.vt().cell(row, cols - 1).is_some_and(vt100::Cell::is_wide_continuation);
            let mut cell = line::cut(&writer.line, last - usize::from(wide), last + 1);
            if wide {
                self.tell(b"\x08");
            }
            if cell.is_empty() {
                cell.push(b' ');
            }
            self.plainly(|screen| screen.run(&cell));
        }
        self.tell_pen();
    }

    /// Runs with the modes that lines of history are meant for, and with the pen they start with.
    pub(super) fn plainly(&mut self, f: impl FnOnce(&mut Self)) {
        let pen = std::mem::take(&mut self.pen);
        let charsets = std::mem::take(&mut self.charsets);
        let modes = std::mem::take(&mut self.modes);
        let state = std::mem::replace(&mut self.state, State::Ground);
        let carry = std::mem::take(&mut self.carry);
        self.repen();
        self.tell(b"\x1b[0m");
        f(self);
        (self.charsets, self.modes, self.state, self.carry) = (charsets, modes, state, carry);
        self.pen = pen;
        self.repen();
        self.tell_pen();
    }
}

/// A line as it was before wrapping.
#[derive(Default)]
struct Logical {
    text: Vec<u8>,
    /// Rows of the screen it took.
    rows: usize,
    /// Where in it the cursor stands, in columns.
    cursor: Option<usize>,
}

impl Logical {
    /// Each part starts with a plain pen.
    fn append(&mut self, part: &[u8]) {
        if memchr::memchr(0x1b, &self.text).is_some() {
            self.text.extend_from_slice(b"\x1b[m\x1b]8;;\x1b\\");
        }
        self.text.extend_from_slice(part);
    }

    fn rows_at(&self, cols: u16) -> usize {
        line::width(&self.text).max(self.cursor.unwrap_or(0)).div_ceil(cols.into()).max(1)
    }
}
