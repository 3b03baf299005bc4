//! Text out of a screen and its history: by line, whole, and where something stands in it.

use super::{Screen, line};

/// Columns of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub line: usize,
    pub col: u16,
    pub cols: u16,
}

impl Screen {
    /// Lines before the screen's first row. The alternate screen has none.
    pub fn history_len(&self) -> usize {
        if self.is_alternate() { 0 } else { self.parser.callbacks().ring.len() }
    }

    /// How many lines came before line 0: added to a line's number it makes one that stays true.
    pub fn first_line(&self) -> usize {
        let ring = &self.parser.callbacks().ring;
        ring.dropped() + if self.is_alternate() { ring.len() } else { 0 }
    }

    pub fn line_text(&self, line: usize) -> String {
        line::text(&self.line_bytes(line).0).trim_end().to_owned()
    }

    /// It goes on in the next line.
    pub fn line_wrapped(&self, line: usize) -> bool {
        match line.checked_sub(self.history_len()) {
            Some(row) => u16::try_from(row).is_ok_and(|row| self.vt().row_wrapped(row)),
            None => self.parser.callbacks().ring.line(line).is_some_and(|line| line.wrapped),
        }
    }

    fn line_bytes(&self, line: usize) -> (Vec<u8>, bool) {
        match line.checked_sub(self.history_len()) {
            Some(row) if row < usize::from(self.size().rows) => {
                let mut writer = line::Writer::default();
                let wrapped = self.row_line(row as u16, &mut writer);
                (writer.line, wrapped)
            }
            Some(_) => (Vec::new(), false),
            None => self.parser.callbacks().ring.line(line).map_or_else(Default::default, |line| (line.bytes.into_owned(), line.wrapped)),
        }
    }

    /// What is on the screen; a line that wraps is one line.
    pub fn text(&self) -> String {
        self.text_from(self.history_len())
    }

    /// History, or only its last so many lines, and the screen.
    pub fn text_with_history(&self, lines: Option<usize>) -> String {
        let history = self.history_len();
        self.text_from(history - lines.unwrap_or(history).min(history))
    }

    fn text_from(&self, first: usize) -> String {
        let mut out = String::new();
        for line in first..self.history_len() + usize::from(self.size().rows) {
            let (bytes, wrapped) = self.line_bytes(line);
            let text = line::text(&bytes);
            if wrapped {
                out.push_str(&text);
            } else {
                out.push_str(text.trim_end());
                out.push('\n');
            }
        }
        out.truncate(out.trim_end_matches('\n').len());
        out
    }

    /// The link under a cell.
    pub fn link_at(&self, line: usize, col: u16) -> Option<String> {
        let mut link = None;
        line::read(&self.line_bytes(line).0, |cluster, pen| {
            if (cluster.col..cluster.col + cluster.width).contains(&usize::from(col)) {
                link.clone_from(&pen.link);
            }
        });
        Some(link?.split_once(';')?.1.to_owned())
    }

    /// The next line that holds it, from this one on: its first place in it, or its last when searching backwards.
    /// Capitals count only when the needle has some. A needle may lie across wrapped lines; the place is where it begins.
    pub fn search(&self, needle: &str, from: usize, backwards: bool) -> Option<Found> {
        let exact = needle.chars().any(char::is_uppercase);
        let needle: Vec<char> = needle.chars().map(|c| folded(c, exact)).collect();
        if needle.is_empty() {
            return None;
        }
        let end = self.history_len() + usize::from(self.size().rows);
        let from = from.min(end.checked_sub(1)?);
        let mut lines: Box<dyn Iterator<Item = usize>> = if backwards { Box::new((0..=from).rev()) } else { Box::new(from..end) };
        lines.find_map(|line| self.find_in(line, &needle, exact, backwards))
    }

    fn find_in(&self, line: usize, needle: &[char], exact: bool, last: bool) -> Option<Found> {
        let mut chars = Vec::new();
        let mut places = Vec::new();
        let (bytes, mut wrapped) = self.line_bytes(line);
        if !self.may_hold(&bytes, needle, exact, wrapped) {
            return None;
        }
        let mut end = 0;
        gather(&bytes, exact, |c, col, width| {
            for blank in end..col {
                chars.push(' ');
                places.push((blank, 1));
            }
            chars.push(c);
            places.push((col, width));
            end = col + width;
        });
        let own = chars.len();
        let width = end;
        let mut next = line + 1;
        while wrapped && chars.len() < own + needle.len() - 1 {
            let (bytes, more) = self.line_bytes(next);
            let mut end = 0;
            gather(&bytes, exact, |c, col, width| {
                chars.extend(std::iter::repeat_n(' ', col - end));
                chars.push(c);
                end = col + width;
            });
            (wrapped, next) = (more, next + 1);
        }
        let mut starts = (0..own).filter(|at| chars.get(*at..at + needle.len()) == Some(needle));
        let at = if last { starts.next_back() } else { starts.next() }?;
        let (col, _) = places[at];
        let stop = places.get(at + needle.len() - 1).map_or(width, |(col, wide)| col + wide);
        Some(Found { line, col: col as u16, cols: (stop - col) as u16 })
    }

    /// Most lines are told from their bytes not to hold the needle's first character.
    fn may_hold(&self, bytes: &[u8], needle: &[char], exact: bool, wrapped: bool) -> bool {
        let first = needle[0];
        if wrapped || !first.is_ascii() || first == ' ' {
            return true;
        }
        let (lower, upper) = (first as u8, if exact { first as u8 } else { first.to_ascii_uppercase() as u8 });
        // The Kelvin sign and its like fold to ASCII.
        memchr::memchr2(lower, upper, bytes).is_some() || !exact && !bytes.is_ascii()
    }
}

fn gather(line: &[u8], exact: bool, mut each: impl FnMut(char, usize, usize)) {
    line::read(line, |cluster, _| {
        for (i, c) in cluster.text.chars().enumerate() {
            each(folded(c, exact), cluster.col + if i == 0 { 0 } else { cluster.width }, if i == 0 { cluster.width } else { 0 });
        }
    });
}

fn folded(c: char, exact: bool) -> char {
    if exact { c } else { c.to_lowercase().next().unwrap_or(c) }
}
