//! Clearing: rows that are wiped off the main screen go to the history first, and what is wiped takes the background.
//!
//! vt100 gives the whole pen to cells that hold nothing, and then cannot be asked for it when a row leaves the screen. So
//! a cell without content never has a style here: where a background must stay, blanks are printed.

use super::pen::Pen;
use super::ring::Line;
use super::{Screen, Size, line};
use crate::frame::{Color, Style};

impl Screen {
    pub(super) fn erase(&mut self, what: u16, rest: &[u8]) {
        let (row, col) = self.at;
        let Size { rows, cols } = self.size();
        let all = what == 2 || what == 0 && self.at == (0, 0);
        // History is about to be cleared too: nothing to preserve.
        if all && !rest.starts_with(b"\x1b[3J") {
            self.preserve();
        }
        let (sequence, first, last): (&[u8], u16, u16) = match what {
            0 => (b"\x1b[J", row + 1, rows),
            1 => (b"\x1b[1J", 0, row),
            2 => (b"\x1b[2J", 0, rows),
            3 => {
                if !self.is_alternate() {
                    self.beside().ring.clear();
                }
                return;
            }
            _ => return,
        };
        let own = match what {
            0 => col.min(cols)..cols,
            1 => 0..(col + 1).min(cols),
            _ => 0..0,
        };
        let spans = (first..last).map(|row| (row, 0..cols)).chain(std::iter::once((row, own)));
        self.wipe(sequence, spans);
    }

    pub(super) fn erase_in_row(&mut self, what: u16) {
        let (row, col) = self.at;
        let Size { cols, .. } = self.size();
        let (sequence, span): (&[u8], _) = match what {
            0 => (b"\x1b[K", col.min(cols)..cols),
            1 => (b"\x1b[1K", 0..(col + 1).min(cols)),
            2 => (b"\x1b[2K", 0..cols),
            _ => return,
        };
        self.wipe(sequence, std::iter::once((row, span)));
    }

    pub(super) fn erase_cells(&mut self, count: u16) {
        let (row, col) = self.at;
        let end = col.saturating_add(count).min(self.size().cols);
        self.wipe(format!("\x1b[{count}X").as_bytes(), std::iter::once((row, col.min(end)..end)));
    }

    /// Rows that have just come in: vt100 leaves them without the background that they take elsewhere.
    pub(super) fn colour_rows(&mut self, rows: std::ops::Range<u16>) {
        if self.pen.style.bg != Color::DEFAULT {
            let cols = self.size().cols;
            self.wipe(b"", rows.map(|row| (row, 0..cols)));
        }
    }

    pub(super) fn wipe(&mut self, sequence: &[u8], spans: impl Iterator<Item = (u16, std::ops::Range<u16>)>) {
        let styled = self.pen.style != Style::default();
        if styled {
            self.tell(b"\x1b[0m");
        }
        self.tell(sequence);
        let bg = self.pen.style.bg;
        let mut out = Vec::new();
        if bg != Color::DEFAULT {
            Pen { style: Style { bg, ..Style::default() }, link: None }.tell_vt100(&mut out);
            out.extend_from_slice(b"\x1b[?6l");
        }
        for (row, span) in spans {
            self.dirt.rows(row, row);
            if bg != Color::DEFAULT && !span.is_empty() {
                out.extend_from_slice(format!("\x1b[{};{}H", row + 1, span.start + 1).as_bytes());
                out.extend(std::iter::repeat_n(b' ', span.len()));
            }
        }
        if bg != Color::DEFAULT {
            let (row, col) = self.cursor();
            let side = self.side();
            let mut top = 0;
            if side.origin {
                out.extend_from_slice(b"\x1b[?6h");
                top = side.top;
            }
            out.extend_from_slice(format!("\x1b[{};{}H", row.saturating_sub(top) + 1, col + 1).as_bytes());
            self.tell(&out);
        }
        if styled {
            self.tell_pen();
        }
    }

    /// Puts what is on the screen into the history before it is cleared, unless it stands there already.
    pub(super) fn preserve(&mut self) {
        if self.is_alternate() {
            return;
        }
        let mut lines = Vec::new();
        let mut used = 0;
        let mut writer = line::Writer::default();
        for row in 0..self.size().rows {
            let wrapped = self.row_line(row, &mut writer);
            if !writer.line.is_empty() {
                used = lines.len() + 1;
            }
            lines.push((writer.line.clone(), wrapped));
        }
        lines.truncate(used);
        let ring = &mut self.beside().ring;
        let from = ring.len().checked_sub(lines.len());
        let same = |(old, new): (Line<'_>, &(Vec<u8>, bool))| line::text(&old.bytes).trim_end() == line::text(&new.0).trim_end();
        let there = from.is_some_and(|from| ring.from(from).zip(&lines).all(same));
        if !there {
            for (line, wrapped) in lines {
                ring.push(&line, wrapped);
            }
        }
    }

    /// Palette "clear pane": the screen is cleared, the rows go to the history, the cursor's row moves to the top.
    pub fn clear(&mut self) {
        self.preserve();
        let (_, col) = self.cursor();
        self.tell(b"\x1b[0m\x1b[2J");
        self.tell(format!("\x1b[1;{}H", col + 1).as_bytes());
        self.tell_pen();
        self.dirt.all();
    }
}
