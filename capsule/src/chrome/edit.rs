//! One line of text being typed. Keys and pastes in, the text and where the cursor stands out.

use crate::frame::{Cursor, Frame, Rect, Style};
use crate::keys::{Code, Key};

use super::pen::Pen;
use super::text::{clusters, width};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineEdit {
    text: String,
    /// A byte between two clusters.
    at: usize,
    /// In clusters; 0 for no limit but that of sense.
    limit: usize,
}

const NO_LIMIT: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edited {
    Text,
    /// The cursor moved, or the key is the editor's but had nothing to do.
    Cursor,
    /// Not a key of the editor.
    No,
}

impl LineEdit {
    pub fn new(text: &str, limit: usize) -> Self {
        let mut edit = Self { limit, ..Self::default() };
        edit.insert(text);
        edit
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line ends become spaces, other control characters nothing.
    pub fn insert(&mut self, text: &str) {
        let limit = if self.limit == 0 { NO_LIMIT } else { self.limit };
        let room = limit.saturating_sub(clusters(&self.text).len());
        let clean: String = text.replace("\r\n", " ").replace(['\r', '\n', '\t'], " ").chars().filter(|c| !c.is_control()).collect();
        let fits = clusters(&clean).get(room).map_or(clean.as_str(), |(end, _)| &clean[..*end]);
        self.text.insert_str(self.at, fits);
        self.at += fits.len();
        // What was typed may have joined the cluster that follows, and the cursor must not stand inside one.
        self.at = clusters(&self.text).into_iter().map(|(at, _)| at).find(|at| *at >= self.at).unwrap_or(self.text.len());
    }

    pub fn key(&mut self, key: &Key) -> Edited {
        let (ctrl, alt) = (key.mods.ctrl, key.mods.alt);
        let before = (self.text.len(), self.at);
        match key.code {
            Code::Char(c) if !ctrl && !alt => self.insert(c.encode_utf8(&mut [0; 4])),
            Code::Backspace if ctrl || alt => self.remove_to(self.word_left()),
            Code::Char('w') if ctrl => self.remove_to(self.word_left()),
            Code::Char('u') if ctrl => self.remove_to(0),
            Code::Char('k') if ctrl => self.remove_to(self.text.len()),
            Code::Char('d') if alt => self.remove_to(self.word_right()),
            Code::Backspace => self.remove_to(self.left()),
            Code::Char('h') if ctrl => self.remove_to(self.left()),
            Code::Delete => self.remove_to(self.right()),
            Code::Char('d') if ctrl => self.remove_to(self.right()),
            Code::Left if ctrl || alt => self.at = self.word_left(),
            Code::Right if ctrl || alt => self.at = self.word_right(),
            Code::Char('b') if alt => self.at = self.word_left(),
            Code::Char('f') if alt => self.at = self.word_right(),
            Code::Left => self.at = self.left(),
            Code::Right => self.at = self.right(),
            Code::Char('b') if ctrl => self.at = self.left(),
            Code::Char('f') if ctrl => self.at = self.right(),
            Code::Home => self.at = 0,
            Code::End => self.at = self.text.len(),
            Code::Char('a') if ctrl => self.at = 0,
            Code::Char('e') if ctrl => self.at = self.text.len(),
            _ => return Edited::No,
        }
        if before.0 == self.text.len() { Edited::Cursor } else { Edited::Text }
    }

    fn remove_to(&mut self, other: usize) {
        let (from, to) = (self.at.min(other), self.at.max(other));
        self.text.replace_range(from..to, "");
        self.at = from;
    }

    fn left(&self) -> usize {
        clusters(&self.text[..self.at]).last().map_or(0, |(at, _)| *at)
    }

    fn right(&self) -> usize {
        self.at + clusters(&self.text[self.at..]).first().map_or(0, |(_, cluster)| cluster.len())
    }

    fn word_left(&self) -> usize {
        let words = self.text[..self.at].trim_end_matches(is_gap);
        words.rfind(is_gap).map_or(0, |at| at + words[at..].chars().next().map_or(0, char::len_utf8))
    }

    fn word_right(&self) -> usize {
        let rest = &self.text[self.at..];
        let words = rest.trim_start_matches(is_gap);
        self.at + (rest.len() - words.len()) + words.find(is_gap).unwrap_or(words.len())
    }

    /// On the first row of the area, scrolled sideways so that the cursor is seen.
    pub fn paint(&self, frame: &mut Frame, area: Rect, style: Style) {
        let area = Rect { rows: area.rows.min(1), ..area };
        frame.fill(area, style);
        let mut shown = self.text.as_str();
        let mut before = width(&self.text[..self.at]);
        while before >= usize::from(area.cols) && before > 0 {
            let first = clusters(shown).first().map_or(0, |(_, cluster)| cluster.len());
            before -= width(&shown[..first]);
            shown = &shown[first..];
        }
        Pen::new(frame, area, 0).put(style, shown);
        let (row, col) = (area.row, area.col.saturating_add(before as u16));
        frame.cursor = (area.contains(row, col) && Rect::of(frame.size()).contains(row, col)).then_some(Cursor { row, col, shape: 0 });
    }
}

/// Parts of a path count as words.
fn is_gap(c: char) -> bool {
    c.is_whitespace() || c == '/'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Chord, Stroke};

    /// Keys as `Chord::parse` spells them; `^` in the result is the cursor.
    fn check(text: &str, keys: &str, expected: &str) {
        let mut edit = LineEdit::new(text, 0);
        for spelling in keys.split_whitespace() {
            let Chord { code, mods } = Chord::parse(spelling).unwrap();
            assert_ne!(edit.key(&Key { code, mods, stroke: Stroke::Press, raw: Vec::new() }), Edited::No, "{spelling}");
        }
        let (before, after) = edit.text.split_at(edit.at);
        assert_eq!(format!("{before}^{after}"), expected, "{text} {keys}");
    }

    #[test]
    fn editing() {
        check("ab", "", "ab^");
        check("ab", "Left x", "ax^b");
        check("ab", "Home Delete", "^b");
        check("ab", "Left Left Left Right C-d", "a^");
        check("one two", "C-w", "one ^");
        check("one two ", "C-w", "one ^");
        check("src/a.rs", "A-Backspace", "src/^");
        check("one two", "C-a A-f", "one^ two");
        check("one two", "C-Left C-Left C-Right A-d", "one^");
        check("one two", "Left C-u", "^o");
        check("one two", "C-Left C-k", "one ^");
        check("one", "Home C-e C-h Backspace C-b C-f", "o^");
    }

    #[test]
    fn what_looks_like_one_character_is_one() {
        check("日本", "Left Backspace", "^本");
        check("e\u{301}x", "Home Right", "e\u{301}^x");
        check("xe\u{301}", "Backspace", "x^");
    }

    #[test]
    fn only_text_gets_in() {
        let mut edit = LineEdit::new("a\x1b[31mb\r\nc\td\0", 0);
        assert_eq!(edit.text(), "a[31mb c d");
        edit.insert(&"x".repeat(9000));
        assert_eq!(edit.text().len(), NO_LIMIT);
        assert_eq!(LineEdit::new("日本語", 2).text(), "日本");
        assert_eq!(edit.key(&Key::from(Code::F(1))), Edited::No);
    }
}
