//! Skipping ahead: of a long run of lines only those that are still to be seen at its end go through vt100, which is
//! slow by the character; the others go straight to the history. The screen comes out as if all had been printed.
//! Absent: everything that is not a run of plain lines; the slow way does that.

use std::collections::VecDeque;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Screen;
use super::pen::Pen;
use crate::frame::Style;

/// Shorter runs are not worth looking at.
const SHORT: usize = if cfg!(test) { 64 } else { 2 << 10 };
/// After something that is not plain there is likely more of it.
const PAUSE: usize = if cfg!(test) { 0 } else { 1 << 10 };
/// A row of more bytes than that by column gains little.
const DENSE: usize = 8;
/// vt100 keeps no more than this for a cell, and drops what comes then.
const MAX_CLUSTER: usize = 14;

pub(super) enum Skip {
    /// Everything before is done.
    To(usize),
    /// Not worth a try before that place.
    NotBefore(usize),
    /// vt100 has been given all up to the one; and the same up to the other.
    Slow { from: usize, until: usize },
}

/// A row of the screen to come.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    end: usize,
    style: Style,
    wrapped: bool,
    /// Ends with the terminal's own style, so that blanks there are nothing.
    plain: bool,
    /// Something is printed in it.
    cells: bool,
}

/// How the scan of a row ended.
enum End {
    /// It is full, and its text goes on in the next.
    Wrap,
    /// A line feed, with the cursor at the left edge.
    Line,
    /// Something for the slow way, or nothing more.
    Stop,
}

/// Walks over a run, row by row.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    cols: usize,
    col: usize,
    pen: Pen,
    bell: bool,
    /// The last character that has a width.
    last: Option<char>,
}

impl Screen {
    /// Tries it from `at`, where no sequence or character is torn; vt100 has been given all before `start`.
    pub(super) fn skip_ahead(&mut self, bytes: &[u8], start: usize, at: usize) -> Skip {
        let side = self.side();
        let (top, bottom) = (side.top, side.bottom);
        let modes = &self.modes;
        let odd = self.size().cols < 2
            || modes.insert
            || !modes.autowrap
            || modes.linefeed
            || side.origin
            || self.tabs.is_some()
            || self.charsets.is_graphics();
        if bytes.len() - at < SHORT || odd {
            return Skip::NotBefore(bytes.len());
        }
        if let Err(until) = looks_plain(bytes, at) {
            return Skip::NotBefore(until);
        }
        self.feed(&bytes[start..at]);
        let (row, col) = self.at;
        if !(top..=bottom).contains(&row) {
            return self.slowly(bytes, at, bytes.len());
        }
        let mut scan = Scan { bytes, at, cols: self.size().cols.into(), col: col.into(), pen: self.pen.clone(), bell: false, last: None };
        // On the last row each further row is a blank one; up to there it is vt100's.
        let mut head = usize::from(bottom - row) + 1;
        while head > 0 {
            let (row, end) = scan.row();
            if row.end - row.start > DENSE * scan.cols {
                return self.slowly(bytes, at, bytes.len());
            }
            match end {
                End::Stop => return self.slowly(bytes, at, scan.at + PAUSE),
                End::Wrap => head = (head - 1).max(1),
                End::Line => head -= 1,
            }
        }
        let begin = scan.at;
        let height = usize::from(bottom - top) + 1;
        let mut rows: VecDeque<Row> = VecDeque::with_capacity(2 * height + 9);
        let mut engaged = false;
        let keep = top == 0 && !self.is_alternate();
        let mut line = Vec::new();
        loop {
            let (row, end) = scan.row();
            rows.push_back(row);
            if !engaged && rows.len() > 2 * height + 8 {
                engaged = true;
                self.feed_slowly(&bytes[at..begin]);
                debug_assert_eq!(self.at, (bottom, 0));
                if height > 1 {
                    self.feed(format!("\x1b[{}S", height - 1).as_bytes());
                }
            }
            while engaged && rows.len() > height {
                let Some(row) = rows.pop_front().filter(|_| keep) else {
                    continue;
                };
                self.keep(bytes, row, &mut line);
            }
            if matches!(end, End::Stop) {
                break;
            }
        }
        // What REP would repeat must have been printed by vt100, so blank lines do not do.
        let shown = rows.iter().any(|row| row.cells);
        if !engaged {
            return self.slowly(bytes, at, scan.at);
        }
        self.requests.bell |= scan.bell;
        let first = rows[0];
        if let Some(last) = scan.last.filter(|_| !shown) {
            self.tell(format!("\x1b[0m{last}\r\x1b[2K").as_bytes());
        }
        self.tell(format!("\x1b[{}H", top + 1).as_bytes());
        self.pen.style = first.style;
        self.repen();
        self.tell_pen();
        self.feed_slowly(&bytes[first.start..scan.at]);
        self.dirt.rows(top, bottom);
        Skip::To(scan.at)
    }

    /// Puts a row that nobody will see on the screen into the history.
    fn keep(&mut self, bytes: &[u8], row: Row, line: &mut Vec<u8>) {
        let mut text = &bytes[row.start..row.end];
        if !row.wrapped && row.plain && self.pen.link.is_none() {
            let blanks = text.iter().rev().take_while(|byte| **byte == b' ').count();
            text = &text[..text.len() - blanks];
        }
        if row.style == Style::default() && self.pen.link.is_none() {
            return self.beside().ring.push(text, row.wrapped);
        }
        line.clear();
        if !text.is_empty() {
            Pen { style: row.style, link: self.pen.link.clone() }.write_change(&Pen::default(), line);
            line.extend_from_slice(text);
        }
        self.beside().ring.push(line, row.wrapped);
    }

    /// The run is too short: the ordinary way for all of it.
    fn slowly(&mut self, bytes: &[u8], at: usize, until: usize) -> Skip {
        Skip::Slow { from: at, until: until.clamp(at + 1, bytes.len()) }
    }
}

/// Whether nothing but text and SGR comes for a while; else where it ends.
fn looks_plain(bytes: &[u8], at: usize) -> Result<(), usize> {
    let mut from = at;
    while from - at < SHORT {
        let Some(escape) = memchr::memchr(0x1b, &bytes[from..]) else {
            break;
        };
        from += escape;
        match sgr(&bytes[from..]) {
            Some(params) => from += params.len() + 3,
            None if from - at < SHORT => return Err(from + 1 + PAUSE),
            None => break,
        }
    }
    Ok(())
}

/// The parameters of the SGR sequence at the start.
fn sgr(bytes: &[u8]) -> Option<&[u8]> {
    let params = bytes.strip_prefix(b"\x1b[")?;
    let len = params.iter().position(|byte| !(b'0'..=b';').contains(byte))?;
    (params[len] == b'm' && len < 256).then(|| &params[..len])
}

/// How many bytes from the start are printable ASCII.
fn printable(bytes: &[u8]) -> usize {
    let is = |byte: &u8| byte.wrapping_sub(0x20) < 0x5f;
    let mut len = 0;
    // Eight at a time without a branch between.
    for eight in bytes.chunks_exact(8) {
        if !eight.iter().fold(true, |all, byte| all & is(byte)) {
            break;
        }
        len += 8;
    }
    len + bytes[len..].iter().take_while(|byte| is(byte)).count()
}

/// The character at the start, which is not ASCII, and its bytes.
fn character(bytes: &[u8]) -> Option<(char, usize)> {
    let part = |at: usize| bytes.get(at).filter(|byte| **byte & 0xc0 == 0x80).map(|byte| u32::from(byte & 0x3f));
    let first = u32::from(*bytes.first()?);
    let (code, len) = match first {
        0xc2..0xe0 => ((first & 0x1f) << 6 | part(1)?, 2),
        0xe0..0xf0 => ((first & 0x0f) << 12 | part(1)? << 6 | part(2)?, 3),
        0xf0..0xf5 => ((first & 0x07) << 18 | part(1)? << 12 | part(2)? << 6 | part(3)?, 4),
        _ => return None,
    };
    // Longer than it need be is not UTF-8.
    let least = [0x80, 0x800, 0x1_0000][len - 2];
    char::from_u32(code).filter(|_| code >= least).map(|c| (c, len))
}

impl Scan<'_> {
    /// One row from here on. After `Stop` the scan is where the slow way has to take over.
    fn row(&mut self) -> (Row, End) {
        let mut row = Row { start: self.at, end: self.at, style: self.pen.style, wrapped: false, plain: false, cells: false };
        // Where the text of the last cell starts if nothing came between, and whether U+FE0F may widen it.
        let mut cell: Option<(usize, bool)> = None;
        let mut after_tab = false;
        let end = loop {
            let rest = &self.bytes[self.at..];
            if rest.first().is_some_and(|byte| (0x20..0x7f).contains(byte)) {
                let len = printable(rest);
                let fits = len.min(self.cols.saturating_sub(self.col));
                row.cells |= fits > 0;
                self.at += fits;
                self.col += fits;
                if fits > 0 {
                    self.last = Some(char::from(rest[fits - 1]));
                }
                if fits < len {
                    row.wrapped = true;
                    break End::Wrap;
                }
                cell = Some((self.at - 1, true));
                after_tab = false;
                continue;
            }
            match rest.first() {
                Some(b'\r') => {
                    let returns = rest.iter().take_while(|byte| **byte == b'\r').count();
                    if rest.get(returns) != Some(&b'\n') {
                        break End::Stop;
                    }
                    row.end = self.at;
                    row.plain = self.pen.style == Style::default();
                    self.at += returns + 1;
                    self.col = 0;
                    return (row, End::Line);
                }
                Some(b'\n') if self.col == 0 && self.at == row.start => {
                    row.plain = true;
                    self.at += 1;
                    return (row, End::Line);
                }
                Some(0x1b) => {
                    let Some(params) = sgr(rest) else {
                        break End::Stop;
                    };
                    self.pen.apply(params);
                    self.at += params.len() + 3;
                    cell = None;
                }
                Some(7) => {
                    self.bell = true;
                    self.at += 1;
                    cell = None;
                }
                // Short of the right edge, where tabs pile up.
                Some(b'\t') if self.col / 8 * 8 + 8 < self.cols => {
                    self.col = self.col / 8 * 8 + 8;
                    self.at += 1;
                    cell = None;
                    after_tab = true;
                }
                Some(0x80..) => {
                    let Some((c, len)) = character(rest) else {
                        break End::Stop;
                    };
                    if len == 4 && super::extras::is_mark(c) || c == '\u{fffd}' || ('\u{80}'..'\u{a0}').contains(&c) {
                        break End::Stop;
                    }
                    let width = c.width().unwrap_or(1).min(2);
                    if width == 0 {
                        if c == '\u{fe0f}' && (self.col >= self.cols || self.pen.extra().is_some()) {
                            break End::Stop;
                        }
                        let wanted = match cell {
                            // Nothing to stand on at the left edge: vt100 drops it, and so does whoever reads the line.
                            None if self.col == 0 && !after_tab => 0,
                            Some((start, _)) if self.at + len - start <= MAX_CLUSTER => {
                                let text = std::str::from_utf8(&self.bytes[start..self.at + len]).unwrap_or_default();
                                if c == '\u{fe0f}' { text.width() } else { 0 }
                            }
                            _ => break End::Stop,
                        };
                        if c == '\u{fe0f}' {
                            // Where it does not widen anything the slow way drops it.
                            let Some((_, narrow @ true)) = cell.as_mut().filter(|_| wanted > 1) else {
                                break End::Stop;
                            };
                            self.col += 1;
                            *narrow = false;
                        }
                        self.at += len;
                        continue;
                    }
                    if self.col + width > self.cols {
                        if width > self.cols {
                            break End::Stop;
                        }
                        // vt100 does not call it wrapping when the last column stays empty.
                        row.wrapped = self.col == self.cols;
                        break End::Wrap;
                    }
                    cell = Some((self.at, width == 1));
                    after_tab = false;
                    row.cells = true;
                    self.last = Some(c);
                    self.at += len;
                    self.col += width;
                }
                _ => break End::Stop,
            }
        };
        row.end = self.at;
        row.plain = self.pen.style == Style::default();
        if matches!(end, End::Wrap) {
            self.col = 0;
        }
        (row, end)
    }
}
