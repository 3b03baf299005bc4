//! A line of history: written from the row that vt100 lets go of, and read back as clusters with their place and style.
//! Absent: the ring that keeps it.

use std::fmt;
use std::sync::Arc;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use vt100::capture::{BasicFormattedCaptureState, RowContents};

use super::extras::{self, Extras};
use super::pen::Pen;

/// One cell's worth of text.
pub struct Cluster<'a> {
    pub col: usize,
    pub width: usize,
    pub text: &'a str,
}

/// Every cluster of a line, from left to right. What tabs skip is not told.
pub fn read(line: &[u8], mut each: impl FnMut(Cluster<'_>, &Pen)) {
    let Ok(mut rest) = std::str::from_utf8(line) else {
        return;
    };
    let mut pen = Pen::default();
    let mut col = 0;
    while let Some(&byte) = rest.as_bytes().first() {
        match byte {
            0x20..0x7f if rest.as_bytes().get(1).is_none_or(|next| *next < 0x80) => {
                each(Cluster { col, width: 1, text: &rest[..1] }, &pen);
                col += 1;
                rest = &rest[1..];
            }
            0x1b => rest = &rest[escape(rest.as_bytes(), &mut pen)..],
            b'\t' => {
                col = col / 8 * 8 + 8;
                rest = &rest[1..];
            }
            0..0x20 | 0x7f => rest = &rest[1..],
            _ => {
                let len = cluster_len(rest);
                let text = &rest[..len];
                let width = cluster_width(text);
                if width > 0 {
                    each(Cluster { col, width, text }, &pen);
                    col += width;
                }
                rest = &rest[len..];
            }
        }
    }
}

/// A character and the zero-width ones that follow it.
fn cluster_len(text: &str) -> usize {
    let mut chars = text.char_indices();
    chars.next();
    chars.find(|(_, c)| c.width() != Some(0)).map_or(text.len(), |(at, _)| at)
}

/// As vt100 counts it: what the first character takes, unless it is asked to be a picture.
fn cluster_width(cluster: &str) -> usize {
    let first = cluster.chars().next().and_then(UnicodeWidthChar::width).unwrap_or(0).min(2);
    match cluster.rfind('\u{fe0f}') {
        Some(at) if first == 1 => cluster[..at + 3].width().clamp(1, 2),
        _ => first,
    }
}

/// Takes the sequence at the start into the pen and says how long it is.
fn escape(bytes: &[u8], pen: &mut Pen) -> usize {
    if bytes.starts_with(b"\x1b[") {
        let Some(end) = bytes.iter().position(|byte| byte.is_ascii_alphabetic()) else {
            return bytes.len();
        };
        pen.apply(&bytes[2..end]);
        return end + 1;
    }
    if let Some(link) = bytes.strip_prefix(b"\x1b]8;") {
        let end = memchr::memchr(0x1b, link).unwrap_or(link.len());
        let text = std::str::from_utf8(&link[..end]).unwrap_or(";");
        pen.link = (text != ";").then(|| Arc::from(text));
        return (4 + end + 2).min(bytes.len());
    }
    1
}

/// The characters of a line without their styles.
pub fn text(line: &[u8]) -> String {
    let mut out = String::new();
    let mut end = 0;
    read(line, |cluster, _| {
        out.extend(std::iter::repeat_n(' ', cluster.col - end));
        out.push_str(cluster.text);
        end = cluster.col + cluster.width;
    });
    out
}

/// How many columns it takes.
pub fn width(line: &[u8]) -> usize {
    let mut width = 0;
    read(line, |cluster, _| width = cluster.col + cluster.width);
    width
}

/// The cells of a line between two columns, as a line.
pub fn cut(line: &[u8], from: usize, to: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut end = from;
    read(line, |cluster, pen| {
        if cluster.col >= from && cluster.col < to {
            for _ in end..cluster.col {
                writer.cell(" ", &Pen::default());
            }
            writer.cell(cluster.text, pen);
            end = cluster.col + cluster.width;
        }
    });
    writer.line
}

/// Turns the cells that vt100 tells of into a line.
#[derive(Default)]
pub struct Writer {
    pub line: Vec<u8>,
    /// The pen at the end of `line`, and the one vt100 has told of.
    pen: Pen,
    told: Pen,
    sequence: Vec<u8>,
}

struct Telling<'a> {
    to: &'a mut Writer,
    extras: &'a Extras,
}

impl Writer {
    pub fn start(&mut self) {
        self.line.clear();
        self.sequence.clear();
        self.pen = Pen::default();
        self.told = Pen::default();
    }

    /// Puts the text of a cell, mark and all, at the end of the line.
    pub fn cell(&mut self, contents: &str, pen: &Pen) {
        if self.pen != *pen {
            pen.write_change(&self.pen, &mut self.line);
            self.pen = pen.clone();
        }
        self.line.extend_from_slice(contents.as_bytes());
    }

    /// Trailing blanks without style are as good as nothing.
    pub fn trim(&mut self) {
        if self.pen == Pen::default() {
            let blanks = self.line.iter().rev().take_while(|byte| **byte == b' ').count();
            self.line.truncate(self.line.len() - blanks);
        }
    }

    /// Whether the row goes on in the next.
    pub fn row(&mut self, row: &RowContents<'_>, extras: &Extras) -> bool {
        self.start();
        let mut state = BasicFormattedCaptureState::new();
        let _ = row.write_formatted_basic(&mut Telling { to: self, extras }, &mut state);
        let wrapped = wraps(row, &mut state);
        if !wrapped {
            self.trim();
        }
        wrapped
    }
}

impl fmt::Write for Telling<'_> {
    /// vt100 tells of cells that hold nothing in whatever style came before; see `clear` for why they have none.
    fn write_char(&mut self, c: char) -> fmt::Result {
        if c == ' ' && self.to.sequence.is_empty() {
            self.to.cell(" ", &Pen::default());
            return Ok(());
        }
        self.write_str(c.encode_utf8(&mut [0; 4]))
    }

    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let writer = &mut *self.to;
        if !writer.sequence.is_empty() || piece.starts_with('\x1b') {
            writer.sequence.extend_from_slice(piece.as_bytes());
            if piece.ends_with('m') {
                writer.told.apply(&writer.sequence[2..writer.sequence.len() - 1]);
                writer.sequence.clear();
            }
            return Ok(());
        }
        let Some((before, name, behind)) = extras::parted(piece) else {
            if writer.pen.style == writer.told.style && writer.pen.link.is_none() {
                writer.line.extend_from_slice(piece.as_bytes());
            } else {
                let pen = writer.told.clone();
                writer.cell(piece, &pen);
            }
            return Ok(());
        };
        let mut pen = writer.told.clone();
        if let Some(extra) = self.extras.get(name) {
            extra.onto(&mut pen.style);
            pen.link.clone_from(&extra.link);
        }
        writer.cell(before, &pen);
        writer.line.extend_from_slice(behind.as_bytes());
        Ok(())
    }
}

/// vt100 says so only by the newline it would put before the next row: ask for that and no more.
fn wraps(row: &RowContents<'_>, state: &mut BasicFormattedCaptureState) -> bool {
    struct First(bool);
    impl fmt::Write for First {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            self.0 = piece == "\n";
            Err(fmt::Error)
        }
    }
    let mut first = First(false);
    let _ = row.write_formatted_basic(&mut first, state);
    !first.0
}
