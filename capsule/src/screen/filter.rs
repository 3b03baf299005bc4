//! The way of output to vt100: finds sequences, keeps torn ones until their rest comes, lets what vt100 understands pass
//! in slices as large as possible, and hands the rest to those who know it. Absent: what any sequence means.

use memchr::memchr3;

use super::Screen;
use super::fast::Skip;

const ESC: u8 = 0x1b;
const SHIFT_OUT: u8 = 0x0e;
/// No sequence but a string is longer.
const MAX_SEQUENCE: usize = 1024;
const MAX_STRING: usize = 16 << 10;
/// Clipboard writes are the only long strings anybody needs.
const MAX_CLIPBOARD: usize = 360 << 10;

pub(super) enum State {
    Ground,
    /// A CSI too long to be one.
    Ignore,
    /// OSC, DCS, APC, PM or SOS by the byte that opens it.
    Str {
        kind: u8,
        data: Vec<u8>,
    },
}

enum Sequence {
    /// Goes on behind the end.
    Torn,
    /// A control byte or worse stands in it.
    Dirty,
    Csi(usize),
    Escape(usize),
    Str(u8),
}

/// What stands at the start, which is an ESC.
fn sequence(bytes: &[u8]) -> Sequence {
    match bytes.get(1) {
        None => Sequence::Torn,
        Some(b'[') => match bytes[2..].iter().position(|byte| !(0x20..0x40).contains(byte)) {
            None => Sequence::Torn,
            Some(at) if (0x40..0x7f).contains(&bytes[2 + at]) => Sequence::Csi(3 + at),
            Some(_) => Sequence::Dirty,
        },
        Some(kind @ (b']' | b'P' | b'X' | b'^' | b'_')) => Sequence::Str(*kind),
        Some(0x20..0x30) => match bytes[2..].iter().position(|byte| !(0x20..0x30).contains(byte)) {
            None => Sequence::Torn,
            Some(at) if (0x30..0x7f).contains(&bytes[2 + at]) => Sequence::Escape(3 + at),
            Some(_) => Sequence::Dirty,
        },
        Some(0x30..0x7f) => Sequence::Escape(2),
        Some(_) => Sequence::Dirty,
    }
}

/// The bytes at the end that begin a character.
fn torn_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let lead = tail.iter().rposition(|byte| *byte >= 0xc0);
    let Some(lead) = lead else {
        return 0;
    };
    let have = tail.len() - lead;
    if tail[lead + 1..].iter().any(|byte| !(0x80..0xc0).contains(byte)) {
        return 0;
    }
    let wanted = match tail[lead] {
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => 0,
    };
    if have < wanted { have } else { 0 }
}

/// A mark of ours that the program itself prints.
fn is_mark(bytes: &[u8]) -> bool {
    matches!(bytes, [0xf3, 0xa0, 0x88..0xc0, ..])
}

/// Where text stops being plain.
fn special(bytes: &[u8]) -> usize {
    // Between sequences there is often next to nothing.
    let near = bytes.iter().take(16).take_while(|byte| !matches!(**byte, ESC | SHIFT_OUT | 0xf3)).count();
    if bytes.get(near).is_some_and(|byte| *byte == ESC) {
        return near;
    }
    let mut from = 0;
    while let Some(at) = memchr3(ESC, SHIFT_OUT, 0xf3, &bytes[from..]) {
        if bytes[from + at] != 0xf3 || is_mark(&bytes[from + at..]) {
            return from + at;
        }
        from += at + 1;
    }
    bytes.len()
}

impl Screen {
    pub(super) fn run(&mut self, bytes: &[u8]) {
        let (bytes, torn) = bytes.split_at(bytes.len() - torn_character(bytes));
        let pictures = memchr::memmem::find(bytes, "\u{fe0f}".as_bytes()).is_some();
        let around = std::mem::replace(&mut self.pictures, pictures);
        self.set_rich();
        self.run_whole(bytes, 0);
        self.pictures = around;
        self.set_rich();
        self.carry.extend_from_slice(torn);
    }

    /// Text of which it is known that no short cut leads through it.
    pub(super) fn feed_slowly(&mut self, bytes: &[u8]) {
        self.run_whole(bytes, bytes.len());
    }

    fn run_whole(&mut self, bytes: &[u8], mut slow_until: usize) {
        // What vt100 has not been given yet starts at `start`.
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            if !matches!(self.state, State::Ground) {
                at = self.swallow(bytes, at);
                start = at;
                continue;
            }
            if at >= slow_until {
                match self.skip_ahead(bytes, start, at) {
                    Skip::To(end) => {
                        (start, at) = (end, end);
                        continue;
                    }
                    Skip::NotBefore(until) => slow_until = until,
                    Skip::Slow { from, until } => (start, slow_until) = (from, until),
                }
            }
            let mut stop = at + special(&bytes[at..]);
            if (at + 1..stop).contains(&slow_until) {
                // Between characters, from where the short cut is tried anew.
                stop = (slow_until..stop).find(|at| bytes[*at] & 0xc0 != 0x80).unwrap_or(stop);
            }
            if stop > at {
                if self.rich {
                    self.feed(&bytes[start..at]);
                    self.rich_text(&bytes[at..stop]);
                    start = stop;
                }
                at = stop;
                continue;
            }
            match bytes[at] {
                ESC => match sequence(&bytes[at..]) {
                    Sequence::Torn => {
                        self.feed(&bytes[start..at]);
                        start = bytes.len();
                        if start - at > MAX_SEQUENCE {
                            self.state = State::Ignore;
                        } else {
                            self.carry = bytes[at..].to_vec();
                        }
                        at = start;
                    }
                    Sequence::Dirty => {
                        self.feed(&bytes[start..at]);
                        at = self.dirty(bytes, at);
                        start = at;
                    }
                    Sequence::Csi(len) if len > MAX_SEQUENCE => {
                        self.feed(&bytes[start..at]);
                        at += len;
                        start = at;
                    }
                    Sequence::Csi(len) => {
                        start = self.csi(bytes, start, at, at + len);
                        at += len;
                    }
                    Sequence::Escape(len) => {
                        self.feed(&bytes[start..at]);
                        self.escape(&bytes[at + 1..at + len]);
                        at += len;
                        start = at;
                    }
                    Sequence::Str(kind) => {
                        self.feed(&bytes[start..at]);
                        self.state = State::Str { kind, data: Vec::new() };
                        at += 2;
                        start = at;
                    }
                },
                SHIFT_OUT => {
                    self.feed(&bytes[start..at]);
                    self.rich_text(&bytes[at..at + 1]);
                    at += 1;
                    start = at;
                }
                _ => {
                    self.feed(&bytes[start..at]);
                    at += 4;
                    start = at;
                }
            }
        }
        self.feed(bytes.get(start..).unwrap_or_default());
    }

    /// A sequence with controls in its midst: they take effect at once, then it goes on as if they had not been there.
    fn dirty(&mut self, bytes: &[u8], at: usize) -> usize {
        let mut clean = vec![ESC];
        for (i, &byte) in bytes.iter().enumerate().skip(at + 1) {
            match byte {
                ESC => return i,
                0x18 | 0x1a => return i + 1,
                0..0x20 => self.rich_text(&[byte]),
                0x7f.. => {}
                _ => {
                    clean.push(byte);
                    match sequence(&clean) {
                        _ if clean.len() > MAX_SEQUENCE => {
                            self.state = State::Ignore;
                            return i + 1;
                        }
                        Sequence::Torn => {}
                        Sequence::Csi(len) => {
                            let start = self.csi(&clean, 0, 0, len);
                            self.feed(&clean[start..]);
                            return i + 1;
                        }
                        Sequence::Escape(_) => {
                            self.escape(&clean[1..]);
                            return i + 1;
                        }
                        Sequence::Str(kind) => {
                            self.state = State::Str { kind, data: Vec::new() };
                            return i + 1;
                        }
                        Sequence::Dirty => return i + 1,
                    }
                }
            }
        }
        self.carry = clean;
        bytes.len()
    }

    /// Inside a string, or a CSI that is none: how far it goes.
    fn swallow(&mut self, bytes: &[u8], at: usize) -> usize {
        let State::Str { kind, data } = &mut self.state else {
            for (i, &byte) in bytes.iter().enumerate().skip(at) {
                match byte {
                    ESC => {
                        self.state = State::Ground;
                        return i;
                    }
                    0x18 | 0x1a | 0x40..0x7f => {
                        self.state = State::Ground;
                        return i + 1;
                    }
                    0..0x20 => self.rich_text(&[byte]),
                    _ => {}
                }
            }
            return bytes.len();
        };
        let is_osc = *kind == b']';
        let end = bytes[at..].iter().position(|byte| matches!(*byte, 0x18 | 0x1a | ESC) || is_osc && *byte == 7);
        let end = end.map_or(bytes.len(), |end| at + end);
        // The first bytes tell how long it may become; one byte more than that tells that it was longer.
        let (head, rest) = bytes[at..end].split_at((end - at).min(3usize.saturating_sub(data.len())));
        data.extend_from_slice(head);
        let limit = if is_osc && data.starts_with(b"52;") { MAX_CLIPBOARD } else { MAX_STRING };
        data.extend_from_slice(&rest[..rest.len().min((limit + 1).saturating_sub(data.len()))]);
        let next = match bytes.get(end..) {
            None | Some([]) => return bytes.len(),
            Some([ESC]) => {
                self.carry = vec![ESC];
                return bytes.len();
            }
            Some([ESC, b'\\', ..]) => end + 2,
            Some([ESC, ..]) => end,
            Some(_) => end + 1,
        };
        let State::Str { kind, data } = std::mem::replace(&mut self.state, State::Ground) else {
            return next;
        };
        if !matches!(bytes[end], 0x18 | 0x1a) && data.len() <= limit {
            match kind {
                b']' => self.osc(&data),
                b'P' => self.dcs(&data),
                _ => {}
            }
        }
        next
    }
}
