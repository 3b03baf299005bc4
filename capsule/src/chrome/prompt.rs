//! One line asked for: a tab's name, a path, what to look for. Keys in, an `Outcome` out. A search tells every change at
//! once, so that hits show while one types, and lies over the last row only.

use crate::frame::{Frame, Rect};
use crate::keys::{Code, Command, Key};
use crate::layout::{MAX_NAME, SessionId};

use super::choice::{Choice, Go, Outcome};
use super::edit::{Edited, LineEdit};
use super::menu::border;
use super::pen::{Pen, common};
use super::text::{cut, width};
use super::theme::Theme;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    title: String,
    asked: Asked,
    edit: LineEdit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// A name for the tab that has this session.
    Name(SessionId),
    /// What the command is to be done with.
    Path(Command),
}

const NAME_COLS: u16 = 36;
const PATH_COLS: u16 = 76;
const ROOM_TO_TYPE: usize = 28;
const HINT: &str = "Enter accept  Esc cancel";

impl Prompt {
    pub fn name(tab: SessionId, present: &str) -> Self {
        Self { title: "Rename tab".into(), asked: Asked::Name(tab), edit: LineEdit::new(present, MAX_NAME) }
    }

    pub fn path(title: &str, command: Command, initial: &str) -> Self {
        Self { title: title.into(), asked: Asked::Path(command), edit: LineEdit::new(initial, 0) }
    }

    pub fn key(&mut self, key: &Key) -> Outcome {
        match key.code {
            Code::Escape => Outcome::Close,
            Code::Char('c' | 'g') if key.mods.ctrl => Outcome::Close,
            Code::Enter => self.accept(),
            _ => {
                self.edit.key(key);
                Outcome::Stay
            }
        }
    }

    fn accept(&self) -> Outcome {
        let text = self.edit.text().trim();
        match &self.asked {
            // Without a name the tab is called after its session again.
            Asked::Name(tab) => Outcome::Do(Choice::Rename { tab: *tab, name: (!text.is_empty()).then(|| text.to_owned()) }),
            Asked::Path(_) if text.is_empty() => Outcome::Stay,
            Asked::Path(command) => Outcome::Do(Choice::Path { command: *command, path: text.to_owned() }),
        }
    }

    pub fn paste(&mut self, text: &str) {
        self.edit.insert(text.trim_end_matches(['\r', '\n']));
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = common(area, Rect::of(frame.size()));
        frame.cursor = None;
        let cols = if matches!(self.asked, Asked::Name(_)) { NAME_COLS } else { PATH_COLS };
        if area.rows >= 5 && area.cols >= 12 {
            let cols = cols.min(area.cols);
            let outer = Rect { row: area.row + (area.rows - 3) / 2, col: area.col + (area.cols - cols) / 2, rows: 3, cols };
            frame.fill(outer, theme.dialog);
            border(frame, outer, &self.title, HINT, theme);
            self.edit.paint(frame, Rect { row: outer.row + 1, col: outer.col + 2, rows: 1, cols: cols - 4 }, theme.input);
        } else if !area.is_empty() {
            frame.fill(area, theme.dialog);
            let row = u16::from(area.rows > 1);
            Pen::new(frame, area, 0).put(theme.heading, &cut(&self.title, area.cols.into(), theme.marks.cut));
            self.edit.paint(frame, Rect { row: area.row + row, rows: 1, ..area }, theme.input);
        }
    }
}

/// Closing it takes back the view, `Go::Done` keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    edit: LineEdit,
    backwards: bool,
    /// Accepted: letters step from hit to hit instead of being typed.
    stepping: bool,
    /// The hit gone to, from one, of how many.
    found: Option<(usize, usize)>,
}

impl Search {
    pub fn new(needle: &str, backwards: bool) -> Self {
        Self { edit: LineEdit::new(needle, 0), backwards, stepping: false, found: None }
    }

    pub fn set_found(&mut self, found: Option<(usize, usize)>) {
        self.found = found;
    }

    pub fn key(&mut self, key: &Key) -> Outcome {
        match key.code {
            Code::Escape => Outcome::Close,
            Code::Char('c' | 'g') if key.mods.ctrl => Outcome::Close,
            Code::Up => self.tell(self.towards(true)),
            Code::Down => self.tell(self.towards(false)),
            Code::Char('r') if key.mods.ctrl => self.turn(true),
            Code::Char('s') if key.mods.ctrl => self.turn(false),
            Code::Enter if self.stepping => {
                Outcome::Do(Choice::Search { needle: self.edit.text().into(), backwards: self.backwards, go: Go::Done })
            }
            Code::Enter if self.edit.text().is_empty() => Outcome::Close,
            Code::Enter => {
                self.stepping = true;
                Outcome::Stay
            }
            Code::Char(c) if self.stepping && !key.mods.ctrl && !key.mods.alt => match c {
                'n' => self.tell(Go::Next),
                'N' => self.tell(Go::Previous),
                '/' | '?' => {
                    self.stepping = false;
                    self.turn(c == '?')
                }
                'q' => Outcome::Close,
                _ => Outcome::Stay,
            },
            Code::Backspace if !self.stepping && self.edit.text().is_empty() => Outcome::Close,
            _ if self.stepping => Outcome::Stay,
            _ if self.edit.key(key) == Edited::Text => self.tell(Go::Here),
            _ => Outcome::Stay,
        }
    }

    /// Up is always up, whichever way the search goes.
    fn towards(&self, up: bool) -> Go {
        if up == self.backwards { Go::Next } else { Go::Previous }
    }

    /// The next hit that way, from now on.
    fn turn(&mut self, backwards: bool) -> Outcome {
        let go = if self.backwards == backwards { Go::Next } else { Go::Here };
        self.backwards = backwards;
        self.tell(go)
    }

    fn tell(&self, go: Go) -> Outcome {
        Outcome::Tell(Choice::Search { needle: self.edit.text().to_owned(), backwards: self.backwards, go })
    }

    pub fn paste(&mut self, text: &str) -> Outcome {
        self.stepping = false;
        self.edit.insert(text.trim_end_matches(['\r', '\n']));
        self.tell(Go::Here)
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = common(area, Rect::of(frame.size()));
        frame.cursor = None;
        let Some(last) = area.rows.checked_sub(1) else { return };
        let row = Rect { row: area.row + last, rows: 1, ..area };
        frame.fill(row, theme.dialog);
        let count = match self.found {
            _ if self.edit.text().is_empty() => String::new(),
            Some((here, of)) => format!(" {here}/{of} "),
            None => " not found ".to_owned(),
        };
        let hint = if self.stepping { "n next  N previous  / edit  Enter done " } else { "Enter keep  Up/Down step  Esc cancel " };
        let cols = usize::from(row.cols);
        // What is typed needs room first; the hint goes before the count does.
        let count = if width(&count) + 6 > cols { "" } else { &count };
        let hint = if width(count) + width(hint) + ROOM_TO_TYPE > cols { "" } else { hint };
        let right = width(count) + width(hint);
        let mut pen = Pen::new(frame, Rect { col: row.col + (cols - right) as u16, cols: right as u16, ..row }, 0);
        pen.put(if self.found.is_some() { theme.key } else { theme.warning }, count).put(theme.hint, hint);
        Pen::new(frame, row, 0).put(theme.key, if self.backwards { "?" } else { "/" });
        let from = row.cols.min(1);
        let typed = Rect { col: row.col + from, cols: row.cols - from - (right as u16).min(row.cols - from), ..row };
        self.edit.paint(frame, typed, theme.input);
        if self.stepping {
            frame.cursor = None;
        }
    }
}
