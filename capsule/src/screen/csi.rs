//! What CSI and short escapes mean: which of them vt100 gets as they are, which in other words, and which it never sees.

use super::Screen;
use super::pen::{Pen, Told, number};
use super::state::{Modes, REMEMBERED, Saved, Side};
use crate::frame::{Color, Style};

/// Pushed keyboard flags, per screen.
const MAX_KITTY: usize = 16;
const MAX_TITLES: usize = 10;

impl Screen {
    /// The sequence is `bytes[at..end]`; returns from where on vt100 has not been given the bytes.
    pub(super) fn csi(&mut self, bytes: &[u8], start: usize, at: usize, end: usize) -> usize {
        self.after = None;
        let params = &bytes[at + 2..end - 1];
        let known = params.last().is_none_or(|last| *last >= 0x30) && params.first().is_none_or(|first| *first < 0x3c);
        match bytes[end - 1] {
            b'm' if known => {
                let told = self.pen.apply(params);
                if self.pen_name != 0 || self.pen.extra().is_some() {
                    self.feed(&bytes[start..at]);
                    self.repen();
                    self.tell_pen();
                    return end;
                }
                if told == Told::Other {
                    self.feed(&bytes[start..at]);
                    self.tell_pen();
                    return end;
                }
                start
            }
            // They stay within their row.
            b'D' if known => start,
            b'@' | b'P' if known && self.pen.style.bg == Color::DEFAULT => start,
            b'X' | b'K' if known && self.pen.style == Style::default() => start,
            b'C' | b'G' | b'`' if known => {
                self.loose = true;
                start
            }
            b'A' | b'B' | b'E' | b'F' | b'H' | b'f' | b'd' if known => {
                let text = &bytes[start..at];
                let (row, col) = self.at;
                // No character is wider than its bytes are many.
                let in_row = !self.loose
                    && text.len() + usize::from(col) <= usize::from(self.size().cols)
                    && text.iter().all(|byte| *byte >= 0x20 || matches!(byte, b'\r' | 0x1b));
                if in_row {
                    self.tell(&bytes[start..end]);
                    self.dirt.rows(row, row);
                } else {
                    self.feed(text);
                    self.tell(&bytes[at..end]);
                }
                end
            }
            _ => {
                self.feed(&bytes[start..at]);
                self.act(&bytes[at..end], &bytes[end..]);
                end
            }
        }
    }

    pub(super) fn tell_pen(&mut self) {
        let mut told = Vec::with_capacity(32);
        self.pen.tell_vt100(&mut told);
        self.tell(&told);
    }

    /// A CSI that is not everyday's. vt100 has been given all before it; `rest` is what follows.
    fn act(&mut self, seq: &[u8], rest: &[u8]) {
        let body = &seq[2..seq.len() - 1];
        let (prefix, body) = match body.first() {
            Some(&prefix @ 0x3c..=0x3f) => (prefix, &body[1..]),
            _ => (0, body),
        };
        let split = body.iter().position(|byte| (0x20..0x30).contains(byte)).unwrap_or(body.len());
        let (params, between) = body.split_at(split);
        let mut numbers = params.split(|byte| *byte == b';').map(number);
        let first = numbers.next().unwrap_or(0);
        let second = numbers.next();
        let count = first.max(1);
        let rows = self.size().rows;
        match (prefix, between, seq[seq.len() - 1]) {
            (0 | b'?', [], b'J') => self.erase(first, rest),
            (0 | b'?', [], b'K') => self.erase_in_row(first),
            (0, [], b'X') => self.erase_cells(count),
            (0, [], kind @ (b'L' | b'M' | b'S' | b'T')) => {
                // Rows that scroll off go to the history.
                if kind == b'S' {
                    self.feed(seq)
                } else {
                    self.tell(seq)
                }
                let (top, bottom) = (self.side().top, self.side().bottom);
                self.dirt.rows(top, bottom);
                let first = if matches!(kind, b'L' | b'M') { self.at.0 } else { top };
                if (top..=bottom).contains(&first) {
                    let count = count.min(bottom - first + 1);
                    let new = if matches!(kind, b'L' | b'T') { first..first + count } else { bottom + 1 - count..bottom + 1 };
                    self.colour_rows(new);
                }
            }
            (0, [], kind @ (b'@' | b'P')) => {
                self.tell(seq);
                let (row, col) = self.cursor();
                let cols = self.size().cols;
                let count = count.min(cols - col);
                let new = if kind == b'@' { col..col + count } else { cols - count..cols };
                self.wipe(b"", std::iter::once((row, new)));
            }
            (0, [], b'r') => {
                self.tell(seq);
                let bottom = second.filter(|bottom| *bottom > 0).unwrap_or(rows).min(rows) - 1;
                let side = self.side_mut();
                (side.top, side.bottom) = if count - 1 < bottom { (count - 1, bottom) } else { (0, rows - 1) };
            }
            (0, [], b'a') => self.tell(format!("\x1b[{count}C").as_bytes()),
            (0, [], b'e') => self.tell(format!("\x1b[{count}B").as_bytes()),
            (0, [], b'b') => self.repeat(count, seq),
            (0, [], b'I') => self.tab(count.into(), false),
            (0, [], b'Z') => self.tab(count.into(), true),
            (0, [], b'g') => self.clear_tabs(first),
            (0, [], b's') if params.is_empty() => self.save_cursor(),
            (0, [], b'u') if params.is_empty() => self.restore_cursor(),
            (0, [], b'h' | b'l') => {
                let on = seq.ends_with(b"h");
                for mode in params.split(|byte| *byte == b';').map(number) {
                    match mode {
                        4 => self.modes.insert = on,
                        20 => self.modes.linefeed = on,
                        _ => {}
                    }
                }
                self.set_rich();
            }
            (b'?', [], b'h' | b'l') => {
                for mode in params.split(|byte| *byte == b';').map(number) {
                    self.set_mode(mode, seq.ends_with(b"h"));
                }
            }
            (0, [b' '], b'q') => self.tell(seq),
            (0, [b'!'], b'p') => self.soft_reset(),
            (0, [b'$'], b'p') => {
                let set = match first {
                    4 => Some(self.modes.insert),
                    20 => Some(self.modes.linefeed),
                    _ => None,
                };
                self.reply(&format!("\x1b[{first};{}$y", report(set)));
            }
            (b'?', [b'$'], b'p') => {
                let set = self.mode(first);
                self.reply(&format!("\x1b[?{first};{}$y", report(set)));
            }
            (0, [], b'c') if first == 0 => self.reply("\x1b[?62;22c"),
            (b'>', [], b'c') if first == 0 => self.reply("\x1b[>1;100;0c"),
            (b'=', [], b'c') if first == 0 => self.reply("\x1bP!|00000000\x1b\\"),
            (b'>', [], b'q') if first == 0 => {
                self.reply(concat!("\x1bP>|jackin-capsule ", env!("CARGO_PKG_VERSION"), "\x1b\\"));
            }
            (0, [], b'n') if first == 5 => self.reply("\x1b[0n"),
            (0 | b'?', [], b'n') if first == 6 => {
                let (row, col) = self.cursor();
                let row = row - if self.side().origin { self.side().top.min(row) } else { 0 };
                let mark = if prefix == 0 { "" } else { "?" };
                self.reply(&format!("\x1b[{mark}{};{}R", row + 1, col + 1));
            }
            (b'?', [], b'n') if first == 996 => {
                let light = self.colours.background.iter().map(|part| u32::from(*part)).sum::<u32>() > 3 * 128;
                self.reply(if light { "\x1b[?997;2n" } else { "\x1b[?997;1n" });
            }
            (b'?', [], b'u') => {
                let flags = self.modes().kitty_flags;
                self.reply(&format!("\x1b[?{flags}u"));
            }
            (b'=' | b'>' | b'<', [], b'u') => self.kitty(prefix, first, second),
            (b'>', [], b'm') if first == 4 => self.modes.modify_other_keys = second.unwrap_or(0).min(3) as u8,
            (b'>', [], b'n') if first == 4 => self.modes.modify_other_keys = 0,
            (0, [], b't') => self.window(first, second.unwrap_or(0)),
            _ => {}
        }
    }

    fn set_mode(&mut self, mode: u16, on: bool) {
        let end = if on { 'h' } else { 'l' };
        let known = format!("\x1b[?{mode}{end}");
        match mode {
            1 | 9 | 25 | 1000 | 1002 | 1003 | 1005 | 1006 | 2004 => self.tell(known.as_bytes()),
            6 => {
                self.tell(known.as_bytes());
                self.side_mut().origin = on;
            }
            7 => {
                // A cursor that waits to wrap does not wait any more.
                let (_, col) = self.at;
                if !on && col >= self.size().cols {
                    self.tell(b"\x08");
                }
                self.modes.autowrap = on;
                self.set_rich();
            }
            47 => self.swap(&known, on),
            1047 if on => self.swap("\x1b[?47h", true),
            1047 if self.is_alternate() => {
                self.tell(b"\x1b[2J");
                self.swap("\x1b[?47l", false);
            }
            1048 if on => self.save_cursor(),
            1048 => self.restore_cursor(),
            1049 if on => {
                self.note_saved();
                self.swap(&known, true);
                let rows = self.size().rows;
                let side = self.side_mut();
                *side = Side { kitty: std::mem::take(&mut side.kitty), ..Side::new(rows) };
            }
            1049 => {
                self.swap(&known, false);
                self.take_saved();
            }
            1004 => self.modes.focus_events = on,
            1007 => self.modes.alternate_scroll = on,
            2026 => self.modes.synchronized = on,
            mode if REMEMBERED.contains(&mode) => {
                self.modes.others.insert(mode, on);
            }
            _ => {}
        }
    }

    fn swap(&mut self, told: &str, alternate: bool) {
        self.alternate_seen |= alternate;
        self.tell(told.as_bytes());
        self.dirt.all();
    }

    fn mode(&self, mode: u16) -> Option<bool> {
        use vt100::{MouseProtocolEncoding as Encoding, MouseProtocolMode as Mouse};
        let vt = self.vt();
        Some(match mode {
            1 => vt.application_cursor(),
            6 => self.side().origin,
            7 => self.modes.autowrap,
            9 => vt.mouse_protocol_mode() == Mouse::Press,
            25 => !vt.hide_cursor(),
            47 | 1047 | 1049 => vt.alternate_screen(),
            1000 => vt.mouse_protocol_mode() == Mouse::PressRelease,
            1002 => vt.mouse_protocol_mode() == Mouse::ButtonMotion,
            1003 => vt.mouse_protocol_mode() == Mouse::AnyMotion,
            1004 => self.modes.focus_events,
            1005 => vt.mouse_protocol_encoding() == Encoding::Utf8,
            1006 => vt.mouse_protocol_encoding() == Encoding::Sgr,
            1007 => self.modes.alternate_scroll,
            2004 => vt.bracketed_paste(),
            2026 => self.modes.synchronized,
            mode if REMEMBERED.contains(&mode) => self.modes.others.get(&mode).copied().unwrap_or(false),
            _ => return None,
        })
    }

    fn kitty(&mut self, how: u8, first: u16, second: Option<u16>) {
        let flags = (first & 31) as u8;
        let stack = &mut self.side_mut().kitty;
        match how {
            b'=' => {
                if stack.is_empty() {
                    stack.push(0);
                }
                let top = stack.last_mut().expect("there is one");
                match second.unwrap_or(1) {
                    2 => *top |= flags,
                    3 => *top &= !flags,
                    _ => *top = flags,
                }
            }
            b'>' => {
                // The bottom of the stack is what holds when nothing is pushed.
                if stack.is_empty() {
                    stack.push(0);
                }
                stack.push(flags);
                if stack.len() > MAX_KITTY {
                    stack.remove(0);
                }
            }
            _ => stack.truncate(stack.len().saturating_sub(usize::from(first.max(1)))),
        }
    }

    fn window(&mut self, what: u16, second: u16) {
        let size = self.size();
        // Nobody knows the font; what asks for pixels gets a common one.
        let (high, wide) = (16, 8);
        match what {
            14 => self.reply(&format!("\x1b[4;{};{}t", u32::from(size.rows) * high, u32::from(size.cols) * wide)),
            16 => self.reply(&format!("\x1b[6;{high};{wide}t")),
            18 => self.reply(&format!("\x1b[8;{};{}t", size.rows, size.cols)),
            19 => self.reply(&format!("\x1b[9;{};{}t", size.rows, size.cols)),
            // A title sent back would be typed into the program.
            20 => self.reply("\x1b]L\x1b\\"),
            21 => self.reply("\x1b]l\x1b\\"),
            // 1 is the short name, 2 the title, 0 both.
            22 if second <= 2 => {
                let told = &mut self.told;
                told.titles.push(((second != 1).then(|| told.title.clone()), (second != 2).then(|| told.icon.clone())));
                if told.titles.len() > MAX_TITLES {
                    told.titles.remove(0);
                }
            }
            23 if second <= 2 => {
                let (title, icon) = self.told.titles.pop().unwrap_or_default();
                if let Some(title) = title.filter(|_| second != 1) {
                    self.told.title = title;
                    self.requests.title = true;
                }
                if let Some(icon) = icon.filter(|_| second != 2) {
                    self.told.icon = icon;
                    self.requests.title = true;
                }
            }
            _ => {}
        }
    }

    /// An escape that is neither CSI nor string, without its ESC.
    pub(super) fn escape(&mut self, body: &[u8]) {
        self.after = None;
        match body {
            b"7" => self.save_cursor(),
            b"8" => self.restore_cursor(),
            b"=" | b">" => self.tell(&[b"\x1b", body].concat()),
            b"M" => {
                let side = self.side();
                let scrolls = self.at.0 == side.top;
                let (top, bottom) = if scrolls { (side.top, side.bottom) } else { (self.at.0, self.at.0) };
                self.tell(b"\x1bM");
                self.dirt.rows(top, bottom);
                // Above the region the first row of the screen scrolls it, too.
                if self.at.0 == 0 {
                    self.dirt.all();
                }
                if scrolls {
                    self.colour_rows(top..top + 1);
                }
            }
            b"D" => self.feed(b"\n"),
            b"E" => self.feed(b"\r\n"),
            b"H" => self.set_tab(),
            b"c" => self.reset(),
            b"g" => self.requests.bell = true,
            b"#8" => self.alignment_test(),
            [slot @ (b'(' | b')'), set] => {
                self.charsets.graphics[usize::from(*slot == b')')] = *set == b'0';
                self.set_rich();
            }
            _ => {}
        }
    }

    fn note_saved(&mut self) {
        let saved = Saved { at: self.at, origin: self.side().origin, pen: self.pen.clone(), charsets: self.charsets };
        self.side_mut().saved = saved;
    }

    fn take_saved(&mut self) {
        let Saved { origin, pen, charsets, .. } = self.side().saved.clone();
        self.side_mut().origin = origin;
        self.charsets = charsets;
        self.pen = pen;
        self.repen();
        // vt100 keeps one saved pen for both screens, and an empty one's at that.
        self.tell_pen();
    }

    fn save_cursor(&mut self) {
        self.note_saved();
        self.tell(b"\x1b7");
    }

    fn restore_cursor(&mut self) {
        self.tell(b"\x1b8");
        self.take_saved();
    }

    fn reset(&mut self) {
        self.preserve();
        self.tell(b"\x1bc");
        let rows = self.size().rows;
        self.sides = [Side::new(rows), Side::new(rows)];
        self.alternate_seen = false;
        self.modes = Modes::default();
        self.charsets = Default::default();
        self.tabs = None;
        self.told.title.clear();
        self.told.icon.clear();
        self.told.titles.clear();
        self.told.progress = None;
        self.requests.title = true;
        self.requests.progress = true;
        self.pen = Pen::default();
        self.repen();
        self.dirt.all();
    }

    fn soft_reset(&mut self) {
        let (row, col) = self.at;
        self.tell(b"\x1b[?25h\x1b[?6l\x1b[r\x1b[?1l\x1b>\x1b[0m\x1b[H\x1b7");
        self.tell(format!("\x1b[{};{}H", row + 1, col + 1).as_bytes());
        let rows = self.size().rows;
        let side = self.side_mut();
        (side.top, side.bottom, side.origin) = (0, rows - 1, false);
        side.saved = Saved::default();
        self.modes.insert = false;
        self.modes.autowrap = true;
        self.charsets = Default::default();
        self.pen = Pen::default();
        self.repen();
    }

    fn alignment_test(&mut self) {
        let size = self.size();
        self.tell(b"\x1b[?6l\x1b[r\x1b[0m");
        let mut out = Vec::new();
        for row in 1..=size.rows {
            out.extend_from_slice(format!("\x1b[{row}H").as_bytes());
            out.extend(std::iter::repeat_n(b'E', size.cols.into()));
        }
        out.extend_from_slice(b"\x1b[H");
        self.tell(&out);
        let side = self.side_mut();
        (side.top, side.bottom, side.origin) = (0, size.rows - 1, false);
        self.tell_pen();
        self.dirt.all();
    }

    pub(super) fn reply(&mut self, text: &str) {
        self.requests.replies.extend_from_slice(text.as_bytes());
    }
}

fn report(set: Option<bool>) -> u8 {
    set.map_or(0, |set| if set { 1 } else { 2 })
}
