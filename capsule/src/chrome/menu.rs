//! A dialog of lines: text to read, facts to copy, entries to choose. Palette, pickers, questions and the container's
//! facts are all this. Keys and clicks in, an `Outcome` out. The view needs no state but the selection, so a dialog
//! looks the same to every client and survives any change of size.

use crate::frame::{Frame, Rect, Style};
use crate::keys::{Code, Key};
use crate::mouse::{Button, Kind, Mouse, Wheel};

use super::choice::{Choice, Outcome};
use super::edit::{Edited, LineEdit};
use super::pen::{Pen, common};
use super::text::{clusters, cut, width, wrap};
use super::theme::{DOWN, LEFT, RIGHT, Theme, UP, over};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    title: String,
    hint: &'static str,
    lines: Vec<Line>,
    selected: usize,
    /// Rows of text above the first entry that were asked for.
    rise: usize,
    filter: Option<LineEdit>,
    /// Goes back to this instead of closing.
    under: Option<Box<Menu>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Text(String),
    Heading(String),
    Warning(String),
    /// A fact, to be copied.
    Fact {
        name: String,
        value: String,
    },
    Entry(Entry),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub label: String,
    pub detail: String,
    /// As shown; a single character also works as a key of the dialog.
    pub key: String,
    /// Or why not now.
    pub act: Result<Act, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Do(Choice),
    Open(Box<Menu>),
    /// Back, or away.
    Cancel,
}

const WIDEST: usize = 76;
const NARROWEST: usize = 24;
const WIDEST_NAME: usize = 16;
const NARROWEST_VALUE: usize = 16;
const PAGE: usize = 8;

/// One row of the dialog as it stands in so many columns.
struct Row {
    line: usize,
    part: Part,
}

enum Part {
    Whole,
    Text(String),
    Fact { name: String, value: String, indent: usize },
}

struct Laid {
    outer: Rect,
    bordered: bool,
    filter: Option<Rect>,
    list: Rect,
    rows: Vec<Row>,
    top: usize,
}

impl Entry {
    pub fn new(label: impl Into<String>, key: impl Into<String>, act: Act) -> Self {
        Self { label: label.into(), detail: String::new(), key: key.into(), act: Ok(act) }
    }

    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }
}

impl Line {
    fn is_selectable(&self) -> bool {
        matches!(self, Self::Fact { .. } | Self::Entry(Entry { act: Ok(_), .. }))
    }
}

impl Menu {
    pub fn new(title: impl Into<String>, hint: &'static str, lines: Vec<Line>) -> Self {
        let mut menu = Self { title: title.into(), hint, lines, selected: 0, rise: 0, filter: None, under: None };
        menu.select_end(false);
        menu
    }

    /// Selects the entry with this key at first.
    pub fn starting_at(mut self, key: &str) -> Self {
        let at = self.lines.iter().position(|line| matches!(line, Line::Entry(entry) if entry.key == key && entry.act.is_ok()));
        self.selected = at.unwrap_or(self.selected);
        self
    }

    pub fn start_filter(&mut self) {
        self.filter = Some(LineEdit::default());
    }

    pub fn is_filtering(&self) -> bool {
        self.filter.is_some()
    }

    pub fn is_at_top(&self) -> bool {
        self.shown().into_iter().map(|(line, _)| line).find(|line| self.lines[*line].is_selectable()) == Some(self.selected)
    }

    /// Lines in the order they are shown, with the letters that the filter found.
    fn shown(&self) -> Vec<(usize, Vec<usize>)> {
        let needle = self.filter.as_ref().map_or("", |filter| filter.text()).trim();
        if needle.is_empty() {
            return (0..self.lines.len()).map(|line| (line, Vec::new())).collect();
        }
        let mut found: Vec<_> = (self.lines.iter().enumerate())
            .filter_map(|(index, line)| match line {
                Line::Entry(entry) => subsequence(&entry.label, needle).map(|(score, hits)| (score, index, hits)),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(score, ..)| std::cmp::Reverse(*score));
        found.into_iter().map(|(_, index, hits)| (index, hits)).collect()
    }

    fn selectable(&self) -> Vec<usize> {
        self.shown().into_iter().map(|(line, _)| line).filter(|line| self.lines[*line].is_selectable()).collect()
    }

    fn select_end(&mut self, last: bool) {
        let lines = self.selectable();
        self.rise = 0;
        // Of nothing, nothing is selected: Enter must not run what the filter hides.
        self.selected = if last { lines.last() } else { lines.first() }.copied().unwrap_or(usize::MAX);
    }

    fn step(&mut self, by: isize) {
        let lines = self.selectable();
        let Some(at) = lines.iter().position(|line| *line == self.selected) else {
            return self.select_end(false);
        };
        if by < 0 && at == 0 {
            self.rise = self.rise.saturating_add(by.unsigned_abs()).min(self.lines.len() * WIDEST);
        } else {
            self.rise = 0;
            self.selected = lines[at.saturating_add_signed(by).min(lines.len() - 1)];
        }
    }

    pub fn key(&mut self, key: &Key) -> Outcome {
        match key.code {
            Code::Escape => return self.back(),
            Code::Enter => return self.run(self.selected),
            Code::Up => self.step(-1),
            Code::Down => self.step(1),
            Code::PageUp => self.step(-(PAGE as isize)),
            Code::PageDown => self.step(PAGE as isize),
            Code::Char('p') if key.mods.ctrl => self.step(-1),
            Code::Char('n') if key.mods.ctrl => self.step(1),
            Code::BackTab => self.step(-1),
            Code::Tab => self.step(1),
            Code::Home if self.filter.is_none() => self.select_end(false),
            Code::End if self.filter.is_none() => self.select_end(true),
            _ if self.filter.is_some() => return self.filter_key(key),
            Code::Char(c) if !key.mods.ctrl && !key.mods.alt => return self.letter(c),
            _ => {}
        }
        Outcome::Stay
    }

    fn filter_key(&mut self, key: &Key) -> Outcome {
        let filter = self.filter.get_or_insert_default();
        if key.code == Code::Backspace && filter.text().is_empty() {
            self.filter = None;
        } else if filter.key(key) != Edited::Text {
            return Outcome::Stay;
        }
        self.select_end(false);
        Outcome::Stay
    }

    fn letter(&mut self, c: char) -> Outcome {
        let has_key = |c| move |line: &Line| matches!(line, Line::Entry(entry) if entry.key.chars().eq([c]));
        let position = |c: char| self.lines.iter().position(has_key(c));
        // With Caps Lock on.
        if let Some(line) = position(c).or_else(|| position(c.to_ascii_lowercase())) {
            return self.run(line);
        }
        let fact = |line: &Line| match line {
            Line::Fact { name, value } => Some(format!("{name}: {value}\n")),
            _ => None,
        };
        match (c, self.lines.get(self.selected)) {
            ('y' | 'c', Some(Line::Fact { value, .. })) => Outcome::Tell(Choice::Copy(value.clone())),
            ('Y', Some(Line::Fact { .. })) => Outcome::Tell(Choice::Copy(self.lines.iter().filter_map(fact).collect())),
            ('j', Some(Line::Fact { .. })) => self.key(&Key::from(Code::Down)),
            ('k', Some(Line::Fact { .. })) => self.key(&Key::from(Code::Up)),
            ('q', Some(Line::Fact { .. })) => self.back(),
            _ => Outcome::Stay,
        }
    }

    fn back(&mut self) -> Outcome {
        match self.under.take() {
            Some(under) => {
                *self = *under;
                Outcome::Stay
            }
            None => Outcome::Close,
        }
    }

    fn run(&mut self, line: usize) -> Outcome {
        match self.lines.get(line) {
            Some(Line::Entry(Entry { act: Ok(act), .. })) => match act.clone() {
                Act::Do(choice) => Outcome::Do(choice),
                Act::Open(menu) => {
                    self.selected = line;
                    let under = std::mem::replace(self, *menu);
                    self.under = Some(Box::new(under));
                    Outcome::Stay
                }
                Act::Cancel => self.back(),
            },
            Some(Line::Fact { value, .. }) => Outcome::Tell(Choice::Copy(value.clone())),
            _ => Outcome::Stay,
        }
    }

    pub fn paste(&mut self, text: &str) {
        if let Some(filter) = &mut self.filter {
            filter.insert(text);
            self.select_end(false);
        }
    }

    /// A click beside the dialog closes it, like Escape pressed until nothing is left.
    pub fn mouse(&mut self, mouse: &Mouse, area: Rect) -> Outcome {
        match mouse.kind {
            Kind::Wheel(Wheel::Up) => self.step(-1),
            Kind::Wheel(Wheel::Down) => self.step(1),
            Kind::Press(Button::Left) => {
                let laid = self.lay(area);
                if !laid.outer.contains(mouse.row, mouse.col) {
                    return Outcome::Close;
                }
                if laid.list.contains(mouse.row, mouse.col)
                    && let Some(row) = laid.rows.get(laid.top + usize::from(mouse.row - laid.list.row))
                {
                    let line = row.line;
                    if let Some(Line::Fact { .. }) = self.lines.get(line) {
                        self.rise = 0;
                        self.selected = line;
                    } else {
                        return self.run(line);
                    }
                }
            }
            _ => {}
        }
        Outcome::Stay
    }

    // ---- looks ----

    fn name_cols(&self, cols: usize) -> usize {
        let names = self.lines.iter().map(|line| if let Line::Fact { name, .. } = line { width(name) } else { 0 });
        names.max().unwrap_or(0).min(WIDEST_NAME).min(cols / 3)
    }

    fn natural_cols(&self) -> usize {
        let name = self.name_cols(WIDEST);
        let line = |line: &Line| match line {
            Line::Text(text) | Line::Heading(text) | Line::Warning(text) => text.split('\n').map(width).max().unwrap_or(0),
            Line::Fact { value, .. } => name + 2 + width(value),
            Line::Entry(entry) => {
                let note = entry.act.as_ref().err().unwrap_or(&entry.detail);
                let part = |text: &str| if text.is_empty() { 0 } else { width(text) + 2 };
                width(&entry.label) + part(note) + part(&entry.key)
            }
        };
        let lines = self.lines.iter().map(line).max().unwrap_or(0);
        lines.max(width(&self.title) + 2).max(width(self.hint) + 2).clamp(NARROWEST, WIDEST)
    }

    fn rows(&self, cols: usize) -> Vec<Row> {
        let cols = cols.max(1);
        let name_cols = self.name_cols(cols);
        let beside = cols.saturating_sub(name_cols + 2) >= NARROWEST_VALUE;
        let mut rows = Vec::new();
        for (line, _) in self.shown() {
            let mut push = |part| rows.push(Row { line, part });
            match &self.lines[line] {
                Line::Entry(_) => push(Part::Whole),
                Line::Text(text) | Line::Heading(text) | Line::Warning(text) => {
                    wrap(text, cols).into_iter().for_each(|text| push(Part::Text(text)));
                }
                Line::Fact { name, value } if beside => {
                    let mut name = name.clone();
                    for value in wrap(value, cols - name_cols - 2) {
                        push(Part::Fact { name: std::mem::take(&mut name), value, indent: name_cols + 2 });
                    }
                }
                Line::Fact { name, value } => {
                    push(Part::Fact { name: name.clone(), value: String::new(), indent: 0 });
                    for value in wrap(value, cols.saturating_sub(1)) {
                        push(Part::Fact { name: String::new(), value, indent: 1 });
                    }
                }
            }
        }
        rows
    }

    fn lay(&self, area: Rect) -> Laid {
        let bordered = area.rows >= 5 && area.cols >= 12;
        let cols = if bordered { self.natural_cols().min(usize::from(area.cols) - 4) } else { area.cols.into() };
        let rows = self.rows(cols);
        // Without a border the title takes a row, when there is one to spare.
        let head = usize::from(!bordered && area.rows > 2) + usize::from(self.filter.is_some() && area.rows > 1);
        let frame = if bordered { 2 } else { 0 };
        let height = if bordered { (rows.len().max(1) + head + frame).min(area.rows.into()) } else { area.rows.into() };
        let outer = if bordered {
            // It does not jump when the filter makes the list shorter.
            let tallest = (self.lines.len() + head + frame).min(area.rows.into()).max(height) as u16;
            let (rows, cols) = (height as u16, cols as u16 + 4);
            Rect { row: area.row + (area.rows - tallest) / 2, col: area.col + (area.cols - cols) / 2, rows, cols }
        } else {
            area
        };
        let inner = if bordered {
            Rect { row: outer.row + 1, col: outer.col + 2, rows: outer.rows - 2, cols: outer.cols - 4 }
        } else {
            let title = u16::from(area.rows > 2);
            Rect { row: outer.row + title, rows: outer.rows - title, ..outer }
        };
        let filter = (self.filter.is_some() && inner.rows > 0).then_some(Rect { rows: 1, ..inner });
        // With a single row it is the filter or the list; the list can be chosen from.
        let filter = filter.filter(|_| inner.rows > 1);
        let taken = u16::from(filter.is_some());
        let list = Rect { row: inner.row + taken, rows: inner.rows - taken, ..inner };
        let height = usize::from(list.rows);
        let first = rows.iter().position(|row| row.line == self.selected).unwrap_or(0);
        let count = rows.iter().filter(|row| row.line == self.selected).count();
        let centred = (first + count / 2).saturating_sub(height / 2);
        // The whole of a wrapped fact if it fits, else its beginning.
        let top = centred.max((first + count).saturating_sub(height)).min(first).min(rows.len().saturating_sub(height));
        Laid { outer, bordered, filter, list, top: top.saturating_sub(self.rise), rows }
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = common(area, Rect::of(frame.size()));
        frame.cursor = None;
        if area.is_empty() {
            return;
        }
        let laid = self.lay(area);
        frame.fill(laid.outer, theme.dialog);
        let hidden = laid.rows.len().saturating_sub(laid.top + usize::from(laid.list.rows));
        if laid.bordered {
            border(frame, laid.outer, &self.title, self.hint, theme);
            let right = laid.outer.col + laid.outer.cols - 1;
            if laid.top > 0 {
                frame.put(laid.list.row, right, 1, theme.dialog_border, theme.marks.above);
            }
            if hidden > 0 {
                frame.put(laid.list.row + laid.list.rows - 1, right, 1, theme.dialog_border, theme.marks.below);
            }
        } else if laid.list.row > area.row {
            Pen::new(frame, area, 0).put(theme.heading, &cut(&self.title, area.cols.into(), theme.marks.cut));
        }
        if let (Some(place), Some(filter)) = (laid.filter, &self.filter) {
            let prompt = place.cols.min(2);
            Pen::new(frame, place, 0).put(theme.key, ": ");
            filter.paint(frame, Rect { col: place.col + prompt, cols: place.cols - prompt, ..place }, theme.input);
        }
        let hits = self.shown();
        if hits.is_empty() {
            Pen::new(frame, laid.list, 0).put(theme.hint, "nothing fits");
        }
        for (at, row) in laid.rows.iter().enumerate().skip(laid.top).take(laid.list.rows.into()) {
            let place = Rect { row: laid.list.row + (at - laid.top) as u16, rows: 1, ..laid.list };
            let selected = row.line == self.selected && self.lines[row.line].is_selectable();
            if selected {
                let pad = u16::from(laid.bordered);
                frame.fill(Rect { col: place.col - pad, cols: place.cols + 2 * pad, ..place }, theme.selected);
            }
            let ground = if selected { theme.selected } else { theme.dialog };
            match (&self.lines[row.line], &row.part) {
                (Line::Entry(entry), _) => {
                    let hits = hits.iter().find(|(line, _)| *line == row.line).map_or(&[][..], |(_, hits)| hits);
                    self.paint_entry(frame, place, entry, hits, ground, theme);
                }
                (Line::Heading(_), Part::Text(text)) => {
                    Pen::new(frame, place, 0).put(theme.heading, text);
                }
                (Line::Warning(_), Part::Text(text)) => {
                    Pen::new(frame, place, 0).put(theme.warning, text);
                }
                (_, Part::Text(text)) => {
                    Pen::new(frame, place, 0).put(ground, text);
                }
                (_, Part::Fact { name, value, indent }) => {
                    let name_style = if selected { ground } else { theme.key };
                    let mut pen = Pen::new(frame, place, 0);
                    let name = if *indent > 1 { cut(name, indent - 2, theme.marks.cut) } else { name.into() };
                    pen.put(name_style, &name);
                    pen.fill_to(ground, " ", place.col.saturating_add(*indent as u16)).put(ground, value);
                }
                (_, Part::Whole) => {}
            }
        }
    }

    fn paint_entry(&self, frame: &mut Frame, place: Rect, entry: &Entry, hits: &[usize], ground: Style, theme: &Theme) {
        let enabled = entry.act.is_ok();
        let note = entry.act.as_ref().err().unwrap_or(&entry.detail);
        let on = |role: Style| if ground == theme.selected { Style { fg: ground.fg, bg: ground.bg, ..role } } else { role };
        let cols = usize::from(place.cols);
        // The label first, then the key, then the note.
        let first_key = entry.key.split(' ').next().unwrap_or_default();
        let fits = |key: &&str| width(&entry.label).min(12) + width(key) + 2 <= cols;
        let key = [entry.key.as_str(), first_key].into_iter().find(fits).unwrap_or_default();
        let key_cols = if key.is_empty() { 0 } else { width(key) + 2 };
        let label = cut(&entry.label, cols - key_cols, theme.marks.cut);
        let note_room = (cols - key_cols).saturating_sub(width(&label) + 2);
        let note = if note_room < 4 { "".into() } else { cut(note, note_room, theme.marks.cut) };

        let style = if enabled { ground } else { theme.disabled };
        let mut pen = Pen::new(frame, place, 0);
        if hits.is_empty() {
            pen.put(style, &label);
        } else {
            for (at, (_, letter)) in clusters(&label).into_iter().enumerate() {
                pen.put(if hits.contains(&at) { over(style, theme.matched) } else { style }, letter);
            }
        }
        let note_at = place.col + (cols - key_cols - width(&note)) as u16;
        pen.fill_to(ground, " ", note_at).put(if enabled { on(theme.hint) } else { theme.disabled }, &note);
        let key_at = place.col + (cols - width(key)) as u16;
        pen.fill_to(ground, " ", key_at).put(if enabled { on(theme.key) } else { theme.disabled }, key);
    }
}

/// A box with a title in its upper line and as many of the hints in its lower one as fit; two spaces part them.
pub(super) fn border(frame: &mut Frame, outer: Rect, title: &str, hint: &str, theme: &Theme) {
    let (lines, style) = (&theme.marks.lines, theme.dialog_border);
    let (last, room) = (outer.rows - 1, usize::from(outer.cols).saturating_sub(6));
    let hints = (0..=hint.len()).rev().filter(|end| hint[*end..].starts_with("  ") || *end == hint.len());
    let hint = hints.map(|end| &hint[..end]).find(|hint| hint.len() <= room).unwrap_or_default();
    for row in 0..outer.rows {
        let (left, text, text_style, right) = match row {
            0 => (lines[DOWN | RIGHT], title, theme.heading, lines[DOWN | LEFT]),
            row if row == last => (lines[UP | RIGHT], hint, theme.hint, lines[UP | LEFT]),
            _ => (lines[UP | DOWN], "", style, lines[UP | DOWN]),
        };
        let text = cut(text, room, theme.marks.cut);
        let end = outer.col + outer.cols - 1;
        let mut pen = Pen::new(frame, outer, row);
        pen.put(style, left);
        if row == 0 || row == last {
            if !text.is_empty() {
                pen.put(style, lines[LEFT | RIGHT]).put(text_style, " ").put(text_style, &text).put(text_style, " ");
            }
            pen.fill_to(style, lines[LEFT | RIGHT], end);
        }
        pen.col = end;
        pen.put(style, right);
    }
}

/// How well the letters of `needle` follow each other in `text`, and where they are, counted in clusters.
fn subsequence(text: &str, needle: &str) -> Option<(i32, Vec<usize>)> {
    let fold = |text: &str| clusters(text).into_iter().map(|(_, letter)| letter.to_lowercase()).collect::<Vec<_>>();
    let (text, needle) = (fold(text), fold(needle));
    let letters: Vec<_> = needle.iter().filter(|letter| letter.trim() != "").collect();
    let from = |start: usize| {
        let (mut at, mut score, mut hits) = (start, -(start as i32), Vec::new());
        for letter in &letters {
            let found = at + text.get(at..)?.iter().position(|other| other == *letter)?;
            let starts_word = found == 0 || !text[found - 1].chars().all(char::is_alphanumeric);
            let follows = hits.last().is_some_and(|last| last + 1 == found);
            score += 4 + if starts_word { 12 } else { 0 } + if follows { 8 } else { 0 };
            hits.push(found);
            at = found + 1;
        }
        Some((score, hits))
    };
    let shorter = -(text.len() as i32) / 8;
    (0..text.len())
        .filter_map(from)
        .max_by_key(|(score, hits)| (*score, std::cmp::Reverse(hits.clone())))
        .map(|(score, hits)| (score + shorter, hits))
}
