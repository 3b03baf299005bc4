//! Lines of inked words, wrapped to a width with a hanging indent: the only place where colour codes are made.
//!
//! In: text in pieces, each with an ink. Out: one string. Control characters of the text never reach the terminal.

use super::Style;
use owo_colors::OwoColorize;
use tabled::grid::util::string::{get_char_width, get_line_width};

/// What a piece of text means; the colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Change,
    Bad,
    Info,
}

impl Ink {
    pub fn paint(self, text: &str) -> String {
        match self {
            Ink::Plain => text.to_owned(),
            Ink::Strong => text.bold().to_string(),
            Ink::Faint => text.dimmed().to_string(),
            Ink::Good => text.green().to_string(),
            Ink::Change => text.yellow().to_string(),
            Ink::Bad => text.red().bold().to_string(),
            Ink::Info => text.cyan().to_string(),
        }
    }
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    get_line_width(text)
}

/// Text from outside, made harmless: control characters and those that turn the direction of writing become visible escapes.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Cuts out the middle of a text that is wider than `room`.
pub(super) fn middle(text: &str, room: usize, style: &Style) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let dots = style.ellipsis();
    let keep = room.saturating_sub(width(dots));
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let mut out = Vec::new();
        for c in chars {
            used += get_char_width(c);
            if used > room {
                break;
            }
            out.push(c);
        }
        out
    };
    let head: String = take(&mut text.chars(), keep.div_ceil(2)).into_iter().collect();
    let tail: String = take(&mut text.chars().rev(), keep / 2).into_iter().rev().collect();
    format!("{head}{dots}{tail}")
}

/// Cuts off the end of a text that is wider than `room`.
pub(crate) fn cut(text: &str, room: usize, style: &Style) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let dots = style.ellipsis();
    let mut used = width(dots);
    let mut out = String::new();
    for c in text.chars() {
        used += get_char_width(c);
        if used > room {
            break;
        }
        out.push(c);
    }
    if width(dots) <= room { out + dots } else { String::new() }
}

pub(super) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

pub(super) struct Page<'a> {
    style: &'a Style,
    out: String,
}

impl<'a> Page<'a> {
    pub fn new(style: &'a Style) -> Self {
        Self { style, out: String::new() }
    }

    /// An empty line, but never two in a row and none at the top.
    pub fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Text that is laid out already.
    pub fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// One logical line: starts at column `indent`, goes on at column `hang` where it has to be wrapped.
    pub fn line(&mut self, indent: usize, hang: usize, pieces: &[(Ink, &str)]) {
        // In a narrow window a deep indent would leave one word per line.
        let hang = if hang * 2 > self.style.width { (indent + 2).min(hang) } else { hang };
        let mut words = Words { style: self.style, line: Vec::new(), first: indent, indent, used: indent, hang, done: Vec::new() };
        let mut word: Vec<(char, Ink)> = Vec::new();
        let mut spaces = 0;
        for (ink, text) in pieces {
            for c in clean(text).chars() {
                if c == ' ' {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word), std::mem::take(&mut spaces));
                    }
                    spaces += 1;
                } else {
                    word.push((c, *ink));
                }
            }
        }
        if !word.is_empty() {
            words.push(word, spaces);
        }
        words.done.push((words.indent, words.line));
        for (indent, line) in &words.done {
            if !line.is_empty() {
                self.out.push_str(&" ".repeat(*indent));
            }
            self.ink(line);
            self.out.push('\n');
        }
    }

    fn ink(&mut self, line: &[(char, Ink)]) {
        for run in line.chunk_by(|a, b| a.1 == b.1) {
            let text: String = run.iter().map(|(c, _)| c).collect();
            if self.style.colour {
                self.out.push_str(&run[0].1.paint(&text));
            } else {
                self.out.push_str(&text);
            }
        }
    }

    pub fn finish(self) -> String {
        self.out
    }
}

struct Words<'a> {
    style: &'a Style,
    line: Vec<(char, Ink)>,
    /// Indent of the first line and of the one being filled.
    first: usize,
    indent: usize,
    used: usize,
    hang: usize,
    done: Vec<(usize, Vec<(char, Ink)>)>,
}

impl Words<'_> {
    fn push(&mut self, word: Vec<(char, Ink)>, spaces: usize) {
        let columns: usize = word.iter().map(|(c, _)| get_char_width(*c)).sum();
        if !self.line.is_empty() && self.used + spaces + columns > self.style.width {
            self.done.push((self.indent, std::mem::take(&mut self.line)));
            // A long word moves left rather than out of the window.
            let fits = |indent: &usize| indent + columns <= self.style.width;
            let shallow = (self.first + 2).min(self.hang);
            self.indent = [self.hang, shallow].into_iter().find(fits).unwrap_or(self.style.width.saturating_sub(columns).min(shallow));
            self.used = self.indent;
        } else {
            // Spaces between two words belong to the ink before them, so that runs stay whole.
            let ink = self.line.last().map_or(Ink::Plain, |(_, ink)| *ink);
            self.line.extend(std::iter::repeat_n((' ', ink), spaces));
            self.used += spaces;
        }
        self.line.extend(word);
        self.used += columns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_with_a_hanging_indent() {
        let style = Style { width: 12, ..Style::PLAIN };
        let mut page = Page::new(&style);
        page.line(2, 4, &[(Ink::Strong, "one two"), (Ink::Plain, " three four")]);
        assert_eq!(page.finish(), "  one two\n    three\n    four\n");
    }

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\td"), "a\\x1b[2Jb\\u{202e}c\\td");
    }

    #[test]
    fn cuts_the_middle_to_the_column() {
        let style = Style { unicode: true, ..Style::PLAIN };
        assert_eq!(middle("abcdefghij", 7, &style), "abc…hij");
        assert_eq!(middle("abc", 3, &style), "abc");
        assert_eq!(cut("abcdefghij", 4, &style), "abc…");
    }
}
