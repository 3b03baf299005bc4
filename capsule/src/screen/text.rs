//! Text that cannot go to vt100 as it comes: marked with what is extra about its style, drawn in the graphics set,
//! inserted, or kept from wrapping; and tabs that stand elsewhere than every eight columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::extras::{self, mark};
use super::{Screen, Size};

/// What the DEC graphics set has for `_` to `~`.
const GRAPHICS: [char; 32] = [
    ' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤',
    '≥', 'π', '≠', '£', '·',
];

impl Screen {
    pub(super) fn rich_text(&mut self, bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len() * 5);
        for c in bytes.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
            self.character(c, &mut out);
        }
        self.feed(&out);
    }

    fn character(&mut self, c: char, out: &mut Vec<u8>) {
        match c {
            '\x0e' | '\x0f' => {
                self.charsets.shifted = c == '\x0e';
                self.set_rich();
            }
            '\t' if self.tabs.is_some() => {
                self.give(out);
                self.tab(1, false);
            }
            '\n' | '\x0b' | '\x0c' if self.modes.linefeed => out.extend_from_slice(b"\r\n"),
            '\0'..' ' => {
                self.after = None;
                out.push(c as u8);
            }
            // vt100 prints nothing for the replacement character, so neither may a mark follow it.
            '\u{fffd}' => {}
            c if extras::is_mark(c) => {}
            '_'..='~' if self.charsets.is_graphics() => self.print(GRAPHICS[c as usize - '_' as usize], out),
            c => self.print(c, out),
        }
    }

    fn print(&mut self, c: char, out: &mut Vec<u8>) {
        let Size { cols, .. } = self.size();
        let width = match c.width() {
            Some(width) => width.min(2) as u16,
            None => return,
        };
        if width == 0 {
            if c == '\u{fe0f}' {
                self.give(out);
                // vt100 loses its footing when a character at the edge grows, and panics later: it stays narrow.
                if self.at.1 >= cols {
                    return;
                }
                // It stays only where it widens: so a line reads the same wherever it is written again.
                let left = self.at.1.checked_sub(1).and_then(|col| self.vt().cell(self.at.0, col)).map_or("", vt100::Cell::contents);
                let (base, marked) = match extras::parted(left) {
                    Some((base, ..)) => (base, true),
                    None => (left, false),
                };
                let narrow = base.width() == 1 && format!("{base}\u{fe0f}").width() == 2;
                if !narrow || marked && self.after.is_none() {
                    return;
                }
            }
            // The mark stands between the character and what would make a picture of it: print it anew without.
            let base = self.after.take().filter(|_| c == '\u{fe0f}' && self.pen_name != 0);
            if let Some(base) = base {
                out.push(b'\x08');
                push(out, base);
            }
            push(out, c);
            if base.is_some() {
                push(out, mark(self.pen_name));
            }
            return;
        }
        if width > cols {
            return;
        }
        let placed = !self.modes.autowrap || self.modes.insert;
        if placed {
            self.give(out);
            if self.at.1 + width > cols {
                if !self.modes.autowrap {
                    self.tell(format!("\x1b[{}G", cols - width + 1).as_bytes());
                } else {
                    // Not as wrapping does it, but there is no other way to insert at the start of the next row.
                    self.feed(b"\r\n");
                }
            }
            if self.modes.insert {
                self.feed(format!("\x1b[{width}@").as_bytes());
            }
        }
        push(out, c);
        if self.pen_name != 0 {
            push(out, mark(self.pen_name));
        }
        self.after = (width == 1 && !placed).then_some(c);
        if placed {
            self.give(out);
            if !self.modes.autowrap && self.at.1 >= cols {
                self.tell(format!("\x1b[{cols}G").as_bytes());
            }
        }
    }

    fn give(&mut self, out: &mut Vec<u8>) {
        self.feed(out);
        out.clear();
    }

    pub(super) fn repeat(&mut self, count: u16, seq: &[u8]) {
        if self.pen_name == 0 && !self.modes.insert && self.modes.autowrap {
            return self.feed(seq);
        }
        let (row, col) = self.at;
        // vt100 keeps the last character to itself; it stands left of the cursor.
        let cell = |back: u16| self.vt().cell(row, col.checked_sub(back)?);
        let Some(left) = cell(1).and_then(|left| if left.is_wide_continuation() { cell(2) } else { Some(left) }) else {
            return;
        };
        let Some(c) = left.contents().chars().next() else {
            return;
        };
        let Size { rows, cols } = self.size();
        let mut out = Vec::new();
        for _ in 0..u32::from(count).min(u32::from(rows) * u32::from(cols)) {
            self.print(c, &mut out);
        }
        self.feed(&out);
    }

    // ---- tabs ----

    pub(super) fn tab(&mut self, count: usize, back: bool) {
        let Size { cols, .. } = self.size();
        let (_, col) = self.cursor();
        let stops =
            |col: &u16| self.tabs.as_ref().map_or(col.is_multiple_of(8), |tabs| tabs.get(usize::from(*col)).is_some_and(|stop| *stop));
        let to = if back {
            (0..col).rev().filter(stops).nth(count - 1).unwrap_or(0)
        } else {
            (col + 1..cols).filter(stops).nth(count - 1).unwrap_or(cols - 1)
        };
        self.tell(format!("\x1b[{}G", to + 1).as_bytes());
    }

    pub(super) fn set_tab(&mut self) {
        let Size { cols, .. } = self.size();
        let (_, col) = self.cursor();
        let tabs = self.tabs.get_or_insert_with(|| (0..cols).map(|col| col.is_multiple_of(8)).collect());
        if let Some(stop) = tabs.get_mut(usize::from(col)) {
            *stop = true;
        }
        self.set_rich();
    }

    pub(super) fn clear_tabs(&mut self, what: u16) {
        let (_, col) = self.cursor();
        let Size { cols, .. } = self.size();
        let tabs = self.tabs.get_or_insert_with(|| (0..cols).map(|col| col.is_multiple_of(8)).collect());
        match what {
            0 => {
                if let Some(stop) = tabs.get_mut(usize::from(col)) {
                    *stop = false;
                }
            }
            3 => tabs.fill(false),
            _ => {}
        }
        self.set_rich();
    }
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
