//! A selection in the lines of a pane: two points and a grain in; the columns to highlight, the text, and the word, URL or
//! path at a point out. Absent: panes, the mouse, the clipboard of any machine.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::frame::{Clusters, columns};

/// What can be selected from: history and screen as one.
pub trait Lines {
    /// The numbers of the lines there are. They rise for ever: a line keeps its number until it is dropped.
    fn range(&self) -> Range<u64>;
    fn text(&self, line: u64) -> String;
    /// Goes on in the next line.
    fn wrapped(&self, line: u64) -> bool;
    fn cols(&self) -> u16;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub line: u64,
    pub col: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    Char,
    Word,
    Line,
}

impl Grain {
    /// What so many clicks select.
    pub fn of_clicks(count: u8) -> Self {
        match count {
            0 | 1 => Self::Char,
            2 => Self::Word,
            _ => Self::Line,
        }
    }
}

/// From the cell where the button went down to the one where it is, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    pub session: u64,
    pub anchor: Point,
    pub head: Point,
    pub grain: Grain,
}

impl Selection {
    pub fn new(session: u64, at: Point, grain: Grain) -> Self {
        Self { session, anchor: at, head: at, grain }
    }

    /// A click is not yet a selection.
    pub fn is_empty(&self) -> bool {
        self.grain == Grain::Char && self.anchor == self.head
    }

    /// The columns to highlight in those of these lines that have any.
    pub fn spans(&self, lines: &impl Lines, rows: Range<u64>) -> Vec<(u64, Range<u16>)> {
        let Some((from, to)) = self.extent(lines) else { return vec![] };
        let rows = rows.start.max(from.line)..rows.end.min(to.line + 1);
        let span = |line| (line, columns_of(line, from, to, lines.cols()));
        rows.map(span).filter(|(_, span)| !span.is_empty()).collect()
    }

    /// Wrapped lines joined, trailing blanks left out.
    pub fn text(&self, lines: &impl Lines) -> String {
        let Some((from, to)) = self.extent(lines) else { return String::new() };
        let mut out = String::new();
        let mut start = 0;
        for line in from.line..=to.line {
            let span = columns_of(line, from, to, lines.cols());
            let row = Row::new(lines, line);
            out.extend(row.pieces.iter().filter(|piece| span.contains(&piece.col)).map(|piece| piece.text.as_str()));
            if line == to.line || !lines.wrapped(line) {
                out.truncate(start + out[start..].trim_end().len());
                if line != to.line {
                    out.push('\n');
                }
                start = out.len();
            }
        }
        out
    }

    /// Of whole characters, words or lines; the column of the second is the one behind the last.
    fn extent(&self, lines: &impl Lines) -> Option<(Point, Point)> {
        let range = lines.range();
        let (mut from, mut to) = (self.anchor.min(self.head), self.anchor.max(self.head));
        if self.is_empty() || range.is_empty() || to.line < range.start || from.line >= range.end {
            return None;
        }
        if from.line < range.start {
            from = Point { line: range.start, col: 0 };
        }
        if to.line >= range.end {
            to = Point { line: range.end - 1, col: u16::MAX };
        }
        from.col = from.col.min(lines.cols());
        to.col = to.col.min(lines.cols().saturating_sub(1));
        Some(match self.grain {
            Grain::Char => (whole(lines, from).0, whole(lines, to).1),
            Grain::Word => (word(lines, from).0, word(lines, to).1),
            Grain::Line => {
                let (first, last) = (logical(lines, from.line).start, logical(lines, to.line).end - 1);
                (Point { line: first, col: 0 }, Point { line: last, col: lines.cols() })
            }
        })
    }
}

fn columns_of(line: u64, from: Point, to: Point, cols: u16) -> Range<u16> {
    let start = if line == from.line { from.col } else { 0 };
    let end = if line == to.line { to.col } else { cols };
    start..end
}

/// The address at this point, if the operator's machine may open it.
pub fn url_at(lines: &impl Lines, at: Point) -> Option<String> {
    let text = Text::around(lines, at)?;
    text.url().map(|url| text.of(url)).filter(|url| is_openable(url))
}

/// What may name a file at this point, without the line and column that compilers add. Whether there is one is not known.
pub fn path_at(lines: &impl Lines, at: Point) -> Option<String> {
    let text = Text::around(lines, at)?;
    if text.url().is_some() {
        return None;
    }
    let word = text.of(text.word()?);
    let mut path = word.as_str();
    for _ in 0..2 {
        if let Some((front, number)) = path.rsplit_once(':')
            && !front.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            path = front;
        }
    }
    path.contains(|c: char| c.is_alphanumeric()).then(|| path.to_owned())
}

const SCHEMES: [&str; 3] = ["https://", "http://", "mailto:"];
const MAX_URL: usize = 4096;

/// Only these schemes are opened, of links that programs mark as well: others start who knows what.
pub fn is_openable(url: &str) -> bool {
    let starts =
        |scheme: &&str| url.len() > scheme.len() && url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    url.len() <= MAX_URL && SCHEMES.iter().any(starts) && !url.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// More than this is refused: terminals cut or drop longer ones, and half a copy is worse than none.
pub const MAX_COPY: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not copied: {} KiB are selected, the limit is {} KiB", bytes.div_ceil(1024), MAX_COPY >> 10)]
pub struct TooLong {
    pub bytes: usize,
}

/// Puts text on the clipboard of the machine that the terminal runs on.
pub fn osc52(text: &str) -> Result<Vec<u8>, TooLong> {
    if text.len() > MAX_COPY {
        return Err(TooLong { bytes: text.len() });
    }
    Ok(format!("\x1b]52;c;{}\x07", STANDARD.encode(text)).into_bytes())
}

/// One character as it stands on the screen.
struct Piece {
    text: String,
    line: u64,
    col: u16,
    width: u16,
}

/// A line as characters with their columns.
struct Row {
    pieces: Vec<Piece>,
}

impl Row {
    fn new(lines: &impl Lines, line: u64) -> Self {
        let mut text = lines.text(line);
        if lines.wrapped(line) {
            // Blanks at the end are part of what goes on, but for the one before a wide character that did not fit.
            let missing = usize::from(lines.cols()).saturating_sub(columns(&text));
            let wide_next =
                || line + 1 < lines.range().end && Clusters::new(&lines.text(line + 1)).next().is_some_and(|(_, width)| width == 2);
            if missing != 1 || !wide_next() {
                text.extend(std::iter::repeat_n(' ', missing));
            }
        }
        let mut col = 0;
        let mut pieces = Vec::new();
        for (text, width) in Clusters::new(&text) {
            if col + width > lines.cols() {
                break;
            }
            pieces.push(Piece { text: text.to_owned(), line, col, width });
            col += width;
        }
        Self { pieces }
    }
}

/// The character at a point, from its first column to behind its last.
fn whole(lines: &impl Lines, at: Point) -> (Point, Point) {
    let row = Row::new(lines, at.line);
    let wide = row.pieces.iter().find(|piece| piece.width == 2 && (piece.col..piece.col + 2).contains(&at.col));
    let col = wide.map_or(at.col, |piece| piece.col);
    let width = if wide.is_some() { 2 } else { 1 };
    (Point { col, ..at }, Point { col: (col + width).min(lines.cols()), ..at })
}

fn word(lines: &impl Lines, at: Point) -> (Point, Point) {
    let found = Text::around(lines, at).and_then(|text| {
        let word = text.url().or_else(|| text.word())?;
        let (first, last) = (&text.pieces[word.start], &text.pieces[word.end - 1]);
        Some((Point { line: first.line, col: first.col }, Point { line: last.line, col: last.col + last.width }))
    });
    found.unwrap_or_else(|| whole(lines, at))
}

/// A line that never ends is looked at so far, up and down.
const MAX_WRAPPED: u64 = 256;

/// The lines that are one to the program, by what wraps into what.
fn logical(lines: &impl Lines, line: u64) -> Range<u64> {
    let range = lines.range();
    let mut start = line;
    while start > range.start && line - start < MAX_WRAPPED && lines.wrapped(start - 1) {
        start -= 1;
    }
    let mut end = line + 1;
    while end < range.end && end - line < MAX_WRAPPED && lines.wrapped(end - 1) {
        end += 1;
    }
    start..end
}

/// A logical line, and the place in it that is asked about.
struct Text {
    pieces: Vec<Piece>,
    at: usize,
}

impl Text {
    fn around(lines: &impl Lines, at: Point) -> Option<Self> {
        if !lines.range().contains(&at.line) {
            return None;
        }
        let pieces: Vec<_> = logical(lines, at.line).flat_map(|line| Row::new(lines, line).pieces).collect();
        let at = pieces.iter().position(|piece| piece.line == at.line && (piece.col..piece.col + piece.width).contains(&at.col))?;
        Some(Self { pieces, at })
    }

    fn of(&self, range: Range<usize>) -> String {
        self.pieces[range].iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The longest run around the place of characters that are `inside`.
    fn run(&self, inside: impl Fn(&str) -> bool) -> Range<usize> {
        let outside = |piece: &Piece| !inside(&piece.text);
        let start = self.pieces[..self.at].iter().rposition(outside).map_or(0, |at| at + 1);
        let end = self.pieces[self.at..].iter().position(outside).map_or(self.pieces.len(), |at| self.at + at);
        start..end.max(start)
    }

    fn url(&self) -> Option<Range<usize>> {
        let run = self.run(|text| matches!(text.as_bytes(), [byte] if is_url_byte(*byte)));
        // One byte to a piece, so places in the text are places among the pieces.
        let text = self.of(run.clone()).to_ascii_lowercase();
        let at = self.at.checked_sub(run.start)?;
        let mut starts: Vec<usize> = Vec::new();
        for (place, _) in text.char_indices() {
            let before = text[..place].bytes().next_back();
            // An address within another is part of it, unless a list has been written without blanks.
            let apart = before.is_none_or(|byte| if starts.is_empty() { !byte.is_ascii_alphanumeric() } else { b",;|('[".contains(&byte) });
            if apart && SCHEMES.iter().any(|scheme| text[place..].starts_with(scheme)) {
                starts.push(place);
            }
        }
        let start = *starts.iter().rfind(|start| **start <= at)?;
        let end = starts.iter().copied().find(|next| *next > start).unwrap_or(text.len());
        let end = start + without_tail(&text[start..end]);
        let scheme = SCHEMES.iter().find(|scheme| text[start..].starts_with(**scheme))?;
        (at < end && end - start > scheme.len()).then(|| run.start + start..run.start + end)
    }

    /// A word as a programmer sees it, which a path is too.
    fn word(&self) -> Option<Range<usize>> {
        let run = self.run(is_word);
        let text = self.of(run.clone());
        let kept = text.trim_end_matches([',', ':', ';', '!', '?']);
        let kept = kept.strip_suffix('.').filter(|front| !front.is_empty() && !front.ends_with(['.', '/'])).unwrap_or(kept);
        let pieces = Clusters::new(kept).count();
        (self.at - run.start < pieces).then(|| run.start..run.start + pieces)
    }
}

/// How much of it is left without the punctuation of the sentence around it.
fn without_tail(url: &str) -> usize {
    let mut url = url;
    loop {
        let unpaired = |open: char, close: char| url.ends_with(close) && url.matches(close).count() > url.matches(open).count();
        if !(url.ends_with(['.', ',', ';', ':', '!', '?', '\'']) || unpaired('(', ')') || unpaired('[', ']')) {
            return url.len();
        }
        url = &url[..url.len() - 1];
    }
}

fn is_url_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

fn is_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| match c {
        '"' | '\'' | '`' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '|' | ',' | ';' | '=' => false,
        c if c.is_ascii() => c.is_ascii_graphic(),
        c => c.is_alphanumeric(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lines from number 100; one that ends in `\` wraps.
    struct Pane {
        lines: Vec<(String, bool)>,
        cols: u16,
    }

    const FIRST: u64 = 100;

    impl Pane {
        fn new(cols: u16, text: &str) -> Self {
            let line = |line: &str| (line.trim_end_matches('\\').to_owned(), line.ends_with('\\'));
            Self { lines: text.lines().map(line).collect(), cols }
        }
    }

    impl Lines for Pane {
        fn range(&self) -> Range<u64> {
            FIRST..FIRST + self.lines.len() as u64
        }

        fn text(&self, line: u64) -> String {
            self.lines[(line - FIRST) as usize].0.clone()
        }

        fn wrapped(&self, line: u64) -> bool {
            self.lines[(line - FIRST) as usize].1
        }

        fn cols(&self) -> u16 {
            self.cols
        }
    }

    fn point(line: u64, col: u16) -> Point {
        Point { line: FIRST + line, col }
    }

    fn copied(pane: &Pane, anchor: Point, head: Point, grain: Grain) -> String {
        Selection { head, ..Selection::new(1, anchor, grain) }.text(pane)
    }

    /// The word, URL and path at the character behind the `^`.
    fn at(line: &str) -> (String, Option<String>, Option<String>) {
        let col = columns(&line[..line.find('^').expect("a place")]) as u16;
        let pane = Pane::new(100, &line.replacen('^', "", 1));
        let place = point(0, col);
        (copied(&pane, place, place, Grain::Word), url_at(&pane, place), path_at(&pane, place))
    }

    fn word(line: &str, expected: &str) {
        assert_eq!(at(line), (expected.to_owned(), None, Some(expected.to_owned())), "{line}");
    }

    fn url(line: &str, expected: &str) {
        assert_eq!(at(line), (expected.to_owned(), Some(expected.to_owned()), None), "{line}");
    }

    #[test]
    fn words() {
        word("some wo^rd here", "word");
        word("^first", "first");
        word("call(ar^g, x)", "arg");
        word("a std::vec::V^ec.", "std::vec::Vec");
        word("FOO=/usr/bi^n/x", "/usr/bin/x");
        word("见 世^界, x", "世界");
        word("│~/a-b_c/d.t^xt│", "~/a-b_c/d.txt");
        word("\"../^x/..\"", "../x/..");
        assert_eq!(at("a ^ b").0, "");
        assert_eq!(at("a^, b").0, ",");
        assert_eq!(at("a^(b").0, "(");
        assert_eq!(at("a 🚀^🚀 b").0, "🚀");
    }

    #[test]
    fn paths_lose_their_place() {
        for line in ["  --> src/ma^in.rs:10:5", "src/main.rs:1^0: note", "at (src/main.r^s)", "'src/main.rs^:7:1'"] {
            assert_eq!(at(line).2.as_deref(), Some("src/main.rs"), "{line}");
        }
        assert_eq!(at("src/main.rs^:10:5 x").0, "src/main.rs:10:5");
        assert_eq!(at("a ^-- b").2, None);
    }

    #[test]
    fn urls() {
        url("see https://exa^mple.com/a?b=c#d.", "https://example.com/a?b=c#d");
        url("(^https://example.com/a_(b))", "https://example.com/a_(b)");
        url("[x](http://a.b/^c), more", "http://a.b/c");
        url("url=https://a.b^/", "https://a.b/");
        url("<mailto:a@b.^c>", "mailto:a@b.c");
        url("https://a.b,https://c.^d", "https://c.d");
        url("https://a.^b,https://c.d", "https://a.b");
        url("https://archive.org/https://a.^b", "https://archive.org/https://a.b");
        url("HTTPS://A.^B", "HTTPS://A.B");
        assert_eq!(at("xhttps://a.^b").1, None);
        assert_eq!(at("javascript:al^ert(1)").1, None);
        assert_eq!(at("https:/^/").1, None);
    }

    #[test]
    fn an_url_goes_on_in_the_next_line() {
        let pane = Pane::new(10, "https://a.\\\nb/cdefghij\\\nk and more");
        for place in [point(0, 3), point(1, 9), point(2, 0)] {
            assert_eq!(url_at(&pane, place).as_deref(), Some("https://a.b/cdefghijk"), "{place:?}");
        }
        let spans = Selection::new(1, point(1, 0), Grain::Word).spans(&pane, 0..1000);
        assert_eq!(spans, [(100, 0..10), (101, 0..10), (102, 0..1)]);
        assert_eq!(url_at(&pane, point(2, 2)), None);
        assert_eq!(url_at(&pane, point(9, 2)), None);
    }

    #[test]
    fn only_some_schemes_are_opened() {
        for (url, may) in [
            ("https://a.b", true),
            ("Mailto:a@b", true),
            ("http://", false),
            ("file:///etc/passwd", false),
            ("ssh://a.b", false),
            ("https://a b", false),
            ("https://a\x1bb", false),
            ("höttps://", false),
        ] {
            assert_eq!(is_openable(url), may, "{url}");
        }
    }

    #[test]
    fn text_is_joined_and_trimmed() {
        let pane = Pane::new(6, "one   \ntwo tw\\\no  \n\nend");
        assert_eq!(copied(&pane, point(0, 0), point(4, 5), Grain::Char), "one\ntwo two\n\nend");
        assert_eq!(copied(&pane, point(4, 1), point(1, 4), Grain::Char), "two\n\nen");
        assert_eq!(copied(&pane, point(2, 0), point(2, 0), Grain::Line), "two two");
        assert_eq!(copied(&pane, point(0, 1), point(2, 0), Grain::Line), "one\ntwo two");
        assert_eq!(copied(&pane, point(0, 1), point(0, 1), Grain::Char), "");
        assert_eq!(copied(&pane, point(1, 5), point(4, 0), Grain::Word), "two\n\nend");
        // A blank at the edge is one, the edge before a wide character is none.
        assert_eq!(copied(&Pane::new(4, "abc\\\nd"), point(0, 0), point(1, 3), Grain::Char), "abc d");
        assert_eq!(copied(&Pane::new(4, "abc\\\n世"), point(0, 0), point(1, 3), Grain::Char), "abc世");
    }

    #[test]
    fn what_has_been_dropped_is_not_there() {
        let pane = Pane::new(6, "one\ntwo");
        let old = Selection { head: Point { line: 100, col: 2 }, ..Selection::new(1, Point { line: 3, col: 4 }, Grain::Char) };
        assert_eq!(old.text(&pane), "one");
        let gone = Selection { head: Point { line: 50, col: 2 }, ..old };
        assert_eq!((gone.text(&pane), gone.spans(&pane, 0..200)), (String::new(), vec![]));
        let beyond = Selection { head: Point { line: 900, col: 2 }, ..old };
        assert_eq!(beyond.text(&pane), "one\ntwo");
    }

    #[test]
    fn too_much_is_refused() {
        assert_eq!(osc52("hi").as_deref(), Ok(&b"\x1b]52;c;aGk=\x07"[..]));
        assert!(osc52(&"x".repeat(MAX_COPY)).is_ok());
        let refused = osc52(&"x".repeat(MAX_COPY + 1)).expect_err("one too many");
        assert_eq!(refused.to_string(), "not copied: 257 KiB are selected, the limit is 256 KiB");
    }

    fn grain() -> impl Strategy<Value = Grain> {
        prop::sample::select(vec![Grain::Char, Grain::Word, Grain::Line])
    }

    proptest! {
        #[test]
        fn no_wide_character_is_split(
            lines in prop::collection::vec(("[a-c 世界e\u{301}🚀,:/.h]{0,12}|https://a.b/c", any::<bool>()), 0..8),
            cols in 1..14u16,
            (anchor, head) in ((98..110u64, 0..20u16), (98..110u64, 0..20u16)),
            grain in grain(),
        ) {
            let pane = Pane { lines, cols };
            let [anchor, head] = [anchor, head].map(|(line, col)| Point { line, col });
            let selection = Selection { head, ..Selection::new(1, anchor, grain) };
            let spans = selection.spans(&pane, 0..200);
            let mut shown = String::new();
            for (line, span) in &spans {
                prop_assert!(span.end <= cols && pane.range().contains(line));
                let mut col = 0;
                for (text, width) in Clusters::new(&pane.text(*line)) {
                    let cells = [span.contains(&col), span.contains(&(col + width - 1))];
                    if col + width <= cols {
                        prop_assert_eq!(cells[0], cells[1], "{} in {:?}", text, span);
                    }
                    if cells == [true, true] && col + width <= cols {
                        shown.push_str(text);
                    }
                    col += width;
                }
            }
            // What is copied is what is highlighted, blanks and line ends aside.
            let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(visible(&selection.text(&pane)), visible(&shown));
            prop_assert_eq!(&selection.text(&pane), &Selection { anchor: head, head: anchor, ..selection }.text(&pane));
            url_at(&pane, anchor);
            path_at(&pane, head);
        }
    }
}
