//! A screen as bytes that make the same screen of a new one; and the history, which a spool keeps.

use super::filter::State;
use super::pen::Pen;
use super::state::{Progress, Saved, Side};
use super::{News, Screen, Size, Stored, line};

impl Screen {
    /// Bytes for `process` of a new screen of the same size: both grids, cursors, modes, and what a program told.
    pub fn checkpoint(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        // The copy will not know of it, so neither may this one.
        self.after = None;
        let alternate = self.is_alternate();
        if let Some(tabs) = &self.tabs {
            out.extend_from_slice(b"\x1b[3g");
            for (col, _) in tabs.iter().enumerate().filter(|(_, stop)| **stop) {
                out.extend_from_slice(format!("\x1b[{}G\x1bH", col + 1).as_bytes());
            }
        }
        if self.alternate_seen {
            self.on_side(!alternate, |screen| {
                if !alternate {
                    out.extend_from_slice(b"\x1b[?47h");
                }
                screen.write_side(&mut out);
            });
            out.extend_from_slice(if alternate { b"\x1b[?47h" } else { b"\x1b[?47l" });
        }
        self.write_side(&mut out);
        self.write_modes(&mut out);
        out.extend_from_slice(self.vt().input_mode_formatted().as_bytes());
        out.extend_from_slice(if self.cursor_visible() { b"\x1b[?25h" } else { b"\x1b[?25l" });
        self.write_told(&mut out);
        // A torn sequence last: its rest is what comes next.
        match &self.state {
            State::Ground => {}
            State::Ignore => {
                out.extend_from_slice(b"\x1b[");
                out.extend(std::iter::repeat_n(b'0', 2000));
            }
            State::Str { kind, data } => {
                out.extend_from_slice(&[0x1b, *kind]);
                out.extend_from_slice(data);
            }
        }
        out.extend_from_slice(&self.carry);
        out
    }

    /// The history begins with what is in a store, which is then given all `news` of it.
    pub fn keep_history_in(&mut self, stored: Stored) {
        self.beside().ring.begin(stored);
        self.dirt.all();
    }

    /// The store takes nothing more; what it has can still be read.
    pub fn keep_history_here(&mut self) {
        self.beside().ring.stop_storing();
    }

    pub fn news(&mut self) -> News {
        self.beside().ring.news()
    }

    /// The present grid, from whatever it was; the cursor ends where it is.
    fn write_side(&mut self, out: &mut Vec<u8>) {
        let Size { rows, cols } = self.size();
        let Side { top, bottom, origin, saved, kitty } = self.side().clone();
        out.extend_from_slice(b"\x1b[r\x1b[?6l");
        self.write_saved(&saved, out);
        out.extend_from_slice(b"\x1b[?6l\x1b(B\x1b)B\x0f\x1b[m\x1b]8;;\x1b\\");
        let mut writer = line::Writer::default();
        let mut above_wraps = false;
        for row in 0..rows {
            let wrapped = self.row_line(row, &mut writer);
            if above_wraps {
                // Printing the first cell is what makes this row go on from the one above.
                let first = line::cut(&writer.line, 0, 1);
                out.extend_from_slice(if first.is_empty() { b" \x08\x1b[X" } else { &first });
                out.extend_from_slice(b"\x1b[m\x1b]8;;\x1b\\");
            }
            out.extend_from_slice(format!("\x1b[{};1H", row + 1).as_bytes());
            out.extend_from_slice(&writer.line);
            out.extend_from_slice(b"\x1b[m\x1b]8;;\x1b\\");
            above_wraps = wrapped && line::width(&writer.line) == usize::from(cols);
        }
        // A region that is the whole screen may be said, too, but it moves the cursor.
        out.extend_from_slice(format!("\x1b[{};{}r", top + 1, bottom + 1).as_bytes());
        let (row, col) = self.at;
        if origin {
            out.extend_from_slice(b"\x1b[?6h");
        }
        let down = if origin { row.saturating_sub(top) } else { row };
        out.extend_from_slice(format!("\x1b[{};{}H", down + 1, col.min(cols - 1) + 1).as_bytes());
        // With origin mode on, a cursor outside the region (a restored one) cannot be gone to; what would be printed for
        // it would land on another row.
        if col >= cols && (!origin || (top..=bottom).contains(&row)) {
            let wide = self.vt().cell(row, cols - 1).is_some_and(vt100::Cell::is_wide_continuation);
            self.row_line(row, &mut writer);
            let last = usize::from(cols) - 1;
            let cell = line::cut(&writer.line, last - usize::from(wide), last + 1);
            if wide {
                out.push(b'\x08');
            }
            out.extend_from_slice(if cell.is_empty() { b" " } else { &cell });
            out.extend_from_slice(b"\x1b[m\x1b]8;;\x1b\\");
        }
        for (i, flags) in kitty.iter().enumerate() {
            let how = if i == 0 { '=' } else { '>' };
            out.extend_from_slice(format!("\x1b[{how}{flags}u").as_bytes());
        }
    }

    fn write_saved(&self, saved: &Saved, out: &mut Vec<u8>) {
        let Size { rows, cols } = self.size();
        if *saved == Saved::default() {
            // Saved by nobody, or at home: so it is in a new screen.
            return;
        }
        let (row, col) = saved.at;
        if saved.origin {
            out.extend_from_slice(b"\x1b[?6h");
        }
        out.extend_from_slice(format!("\x1b[{};{}H", row.min(rows - 1) + 1, col.min(cols - 1) + 1).as_bytes());
        if col >= cols {
            out.push(b'x');
        }
        saved.pen.write_change(&Pen::default(), out);
        for (slot, graphics) in [b'(', b')'].iter().zip(saved.charsets.graphics) {
            out.extend_from_slice(&[0x1b, *slot, if graphics { b'0' } else { b'B' }]);
        }
        out.push(if saved.charsets.shifted { 0x0e } else { 0x0f });
        out.extend_from_slice(b"\x1b7\x1b[m\x1b]8;;\x1b\\\x1b(B\x1b)B\x0f\x1b[2K");
    }

    fn write_modes(&mut self, out: &mut Vec<u8>) {
        let modes = &self.modes;
        for (on, mode, default) in [
            (modes.focus_events, 1004, false),
            (modes.alternate_scroll, 1007, true),
            (modes.synchronized, 2026, false),
            (modes.autowrap, 7, true),
        ] {
            if on != default {
                out.extend_from_slice(format!("\x1b[?{mode}{}", if on { 'h' } else { 'l' }).as_bytes());
            }
        }
        for (mode, on) in &modes.others {
            out.extend_from_slice(format!("\x1b[?{mode}{}", if *on { 'h' } else { 'l' }).as_bytes());
        }
        if modes.insert {
            out.extend_from_slice(b"\x1b[4h");
        }
        if modes.linefeed {
            out.extend_from_slice(b"\x1b[20h");
        }
        if modes.modify_other_keys != 0 {
            out.extend_from_slice(format!("\x1b[>4;{}m", modes.modify_other_keys).as_bytes());
        }
        self.pen.write_change(&Pen::default(), out);
        for (slot, graphics) in [b'(', b')'].iter().zip(self.charsets.graphics) {
            if graphics {
                out.extend_from_slice(&[0x1b, *slot, b'0']);
            }
        }
        if self.charsets.shifted {
            out.push(0x0e);
        }
    }

    fn write_told(&self, out: &mut Vec<u8>) {
        let name = |code: u8, name: &str| format!("\x1b]{code};{name}\x1b\\").into_bytes();
        let put_by = !self.told.titles.is_empty();
        for (title, icon) in &self.told.titles {
            title.iter().for_each(|title| out.extend(name(2, title)));
            icon.iter().for_each(|icon| out.extend(name(1, icon)));
            let which = if icon.is_none() { 2 } else { u8::from(title.is_none()) };
            out.extend_from_slice(format!("\x1b[22;{which}t").as_bytes());
        }
        if !self.told.title.is_empty() || put_by {
            out.extend(name(2, &self.told.title));
        }
        if !self.told.icon.is_empty() || put_by {
            out.extend(name(1, &self.told.icon));
        }
        if let Some(cwd) = &self.told.cwd {
            out.extend_from_slice(format!("\x1b]7;file://{}\x1b\\", cwd.replace('%', "%25")).as_bytes());
        }
        let progress = match self.told.progress {
            None => return,
            Some(Progress::Percent(n)) => format!("1;{n}"),
            Some(Progress::Error(n)) => format!("2;{n}"),
            Some(Progress::Indeterminate) => "3".to_owned(),
            Some(Progress::Paused(n)) => format!("4;{n}"),
        };
        out.extend_from_slice(format!("\x1b]9;4;{progress}\x1b\\").as_bytes());
    }
}
