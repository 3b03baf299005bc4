//! What a terminal remembers besides its cells, and the values in which a screen tells of it. Plain data.

use std::collections::BTreeMap;

use super::pen::Pen;

/// Which escapes beyond the grid may reach the operator's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub title: bool,
    pub notify: bool,
    /// Clipboard writes are off unless asked for: any program in the container could fill the operator's clipboard.
    pub clipboard: bool,
    pub hyperlink: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { title: true, notify: true, clipboard: false, hyperlink: true }
    }
}

/// Colours that answer OSC 10, 11 and 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Colours {
    pub foreground: [u8; 3],
    pub background: [u8; 3],
}

impl Default for Colours {
    fn default() -> Self {
        Self { foreground: [0xe5, 0xe5, 0xe5], background: [0, 0, 0] }
    }
}

/// What output asked for besides changing the grid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Bytes to write back to the program.
    pub replies: Vec<u8>,
    pub bell: bool,
    /// Escapes for the operator's terminal, already checked against the policy.
    pub passed: Vec<u8>,
    /// These were told anew, perhaps with the same value: ask the screen.
    pub title: bool,
    pub cwd: bool,
    pub progress: bool,
    pub mark: bool,
}

/// OSC 9;4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Percent(u8),
    Error(u8),
    Indeterminate,
    Paused(u8),
}

/// OSC 133.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub kind: MarkKind,
    /// The line it stands on, counted as `first_line() + line`.
    pub line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    Prompt,
    Command,
    Output,
    Finished(Option<i32>),
}

/// What a program set that decides how keys, mouse and pastes reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PaneModes {
    pub alternate: bool,
    pub mouse: vt100::MouseProtocolMode,
    pub mouse_encoding: vt100::MouseProtocolEncoding,
    pub focus_events: bool,
    pub bracketed_paste: bool,
    pub app_cursor: bool,
    pub app_keypad: bool,
    /// The wheel moves the cursor on the alternate screen (1007).
    pub alternate_scroll: bool,
    pub kitty_flags: u8,
    pub modify_other_keys: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modes {
    pub focus_events: bool,
    pub synchronized: bool,
    pub alternate_scroll: bool,
    pub modify_other_keys: u8,
    pub insert: bool,
    pub autowrap: bool,
    pub linefeed: bool,
    /// Known by number, remembered for DECRQM and a checkpoint, without further effect here.
    pub others: BTreeMap<u16, bool>,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            focus_events: false,
            synchronized: false,
            alternate_scroll: true,
            modify_other_keys: 0,
            insert: false,
            autowrap: true,
            linefeed: false,
            others: BTreeMap::new(),
        }
    }
}

/// Private modes that are only remembered: cursor blinking, reverse wraparound, meta and alt sends escape, colour scheme
/// and in-band size reports.
pub(super) const REMEMBERED: [u16; 8] = [12, 45, 1034, 1036, 1039, 1042, 2027, 2031];

/// G0 and G1, and which is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Charsets {
    pub graphics: [bool; 2],
    pub shifted: bool,
}

impl Charsets {
    pub fn is_graphics(self) -> bool {
        self.graphics[usize::from(self.shifted)]
    }
}

/// What vt100 knows of each grid but does not tell.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub top: u16,
    pub bottom: u16,
    pub origin: bool,
    pub saved: Saved,
    pub kitty: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub at: (u16, u16),
    pub origin: bool,
    pub pen: Pen,
    pub charsets: Charsets,
}

impl Side {
    pub fn new(rows: u16) -> Self {
        Self { top: 0, bottom: rows - 1, origin: false, saved: Saved::default(), kitty: Vec::new() }
    }
}

/// What a program told of itself.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub title: String,
    /// The short name, if it has one of its own.
    pub icon: String,
    /// Put by: titles and short names, one or both at a time.
    pub titles: Vec<(Option<String>, Option<String>)>,
    pub cwd: Option<String>,
    pub progress: Option<Progress>,
    pub mark: Option<Mark>,
}
