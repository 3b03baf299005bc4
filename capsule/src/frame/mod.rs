//! A picture of a terminal: a grid of small cells, a cursor, and what they refer to. Painters write into it, `draw`
//! turns the difference between two of them into bytes. Absent: panes, sessions, time, and where the bytes go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

mod draw;
mod pen;
#[cfg(test)]
mod tests;

pub use draw::{Caps, Modes, Shown};

pub const MIN_ROWS: u16 = 6;
pub const MIN_COLS: u16 = 3;
/// A client may claim any u16; the grid it asks for is memory, so the claim is cut.
pub const MAX_ROWS: u16 = 500;
pub const MAX_COLS: u16 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

impl Size {
    /// For the terminal of a client. A pane may be smaller.
    pub fn clamped(rows: u16, cols: u16) -> Self {
        Self { rows: rows.clamp(MIN_ROWS, MAX_ROWS), cols: cols.clamp(MIN_COLS, MAX_COLS) }
    }
}

/// A colour as terminals know them, packed: 0 is the terminal's own, else the highest byte says what the rest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Color(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hue {
    Default,
    Index(u8),
    Rgb(u8, u8, u8),
}

impl Color {
    pub const DEFAULT: Self = Self(0);

    pub const fn index(index: u8) -> Self {
        Self(0x0100_0000 | index as u32)
    }

    pub const fn rgb(r: u8, g: u8, b: u8) -> Self {
        Self(0x0200_0000 | (r as u32) << 16 | (g as u32) << 8 | b as u32)
    }

    pub const fn hue(self) -> Hue {
        match self.0 >> 24 {
            0 => Hue::Default,
            1 => Hue::Index(self.0 as u8),
            _ => Hue::Rgb((self.0 >> 16) as u8, (self.0 >> 8) as u8, self.0 as u8),
        }
    }
}

/// Bits of `Style::attrs`.
pub mod attr {
    pub const BOLD: u16 = 1;
    pub const DIM: u16 = 1 << 1;
    pub const ITALIC: u16 = 1 << 2;
    pub const INVERSE: u16 = 1 << 3;
    pub const STRIKE: u16 = 1 << 4;
    pub const HIDDEN: u16 = 1 << 5;
    pub const BLINK: u16 = 1 << 6;
    pub const OVERLINE: u16 = 1 << 7;
    /// The kind of underline, 0 for none, else 1 single, 2 double, 3 curly, 4 dotted, 5 dashed (SGR 4:n).
    pub const UNDERLINE_SHIFT: u16 = 8;
    pub const UNDERLINE: u16 = 7 << UNDERLINE_SHIFT;
    pub const SINGLE_UNDERLINE: u16 = 1 << UNDERLINE_SHIFT;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Style {
    pub fg: Color,
    pub bg: Color,
    pub underline: Color,
    /// Names a link of the frame; 0 is none.
    pub link: u32,
    pub attrs: u16,
}

/// What stands in a cell: nothing, a character, or the name of a cluster of them that the frame keeps; and its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Glyph(u32);

impl Glyph {
    const CLUSTER: u32 = 1 << 31;
    const WIDE: u32 = 1 << 30;
    /// Shown as a space.
    pub const EMPTY: Self = Self(0);
    /// The second half of the wide character to the left.
    pub const CONTINUATION: Self = Self(1 << 29);

    /// A control character is never shown: its cell stays empty.
    pub fn char(c: char, wide: bool) -> Self {
        if c == ' ' || c.is_control() {
            return Self::EMPTY;
        }
        Self(c as u32 | if wide { Self::WIDE } else { 0 })
    }

    pub fn is_wide(self) -> bool {
        self.0 & Self::WIDE != 0
    }

    pub fn is_continuation(self) -> bool {
        self == Self::CONTINUATION
    }

    fn cluster_name(self) -> Option<u32> {
        (self.0 & Self::CLUSTER != 0).then_some(self.0 & (Self::WIDE - 1))
    }

    /// `None` for clusters, second halves and nothing.
    fn as_char(self) -> Option<char> {
        if self.0 & Self::CLUSTER != 0 || self.is_continuation() || self == Self::EMPTY {
            return None;
        }
        char::from_u32(self.0 & !Self::WIDE)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    pub glyph: Glyph,
    pub style: Style,
}

/// Row and column from zero, and the shape as DECSCUSR numbers it (0 is the terminal's own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub row: u16,
    pub col: u16,
    pub shape: u8,
}

/// A rectangle of cells; empty when either side is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    pub row: u16,
    pub col: u16,
    pub rows: u16,
    pub cols: u16,
}

impl Rect {
    pub fn of(size: Size) -> Self {
        Self { row: 0, col: 0, rows: size.rows, cols: size.cols }
    }

    pub fn contains(self, row: u16, col: u16) -> bool {
        row >= self.row && row - self.row < self.rows && col >= self.col && col - self.col < self.cols
    }

    pub fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }
}

#[derive(Debug, Clone)]
pub struct Frame {
    size: Size,
    /// Shared with what clients show, until a painter writes.
    rows: Vec<Arc<[Cell]>>,
    pub cursor: Option<Cursor>,
    clusters: Names,
    links: Names,
}

/// Names follow from what they name, so equal cells show the same.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.cursor == other.cursor && self.rows == other.rows
    }
}

impl Eq for Frame {}

impl Frame {
    pub fn new(size: Size) -> Self {
        let mut frame = Self { size, rows: vec![], cursor: None, clusters: Names::default(), links: Names::default() };
        frame.resize(size);
        frame
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Blank afterwards: whoever paints has to paint it all.
    pub fn resize(&mut self, size: Size) {
        self.size = size;
        self.rows = blank_rows(size);
        self.cursor = None;
    }

    pub fn row(&self, row: u16) -> &[Cell] {
        &self.rows[usize::from(row)]
    }

    pub fn row_mut(&mut self, row: u16) -> &mut [Cell] {
        Arc::make_mut(&mut self.rows[usize::from(row)])
    }

    /// Puts cells into a row from a column on. One that has them already is not written to, so that it stays shared.
    pub fn set(&mut self, row: u16, col: u16, cells: &[Cell]) {
        let range = usize::from(col)..usize::from(col) + cells.len();
        if self.row(row)[range.clone()] != *cells {
            self.row_mut(row)[range].copy_from_slice(cells);
        }
    }

    /// What shows this text, of one cell and its second half if it is wide.
    pub fn glyph(&mut self, text: &str, wide: bool) -> Glyph {
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (None, _) => Glyph::EMPTY,
            (Some(c), None) => Glyph::char(c, wide),
            _ => self.cluster(text, wide),
        }
    }

    /// The name under which the frame keeps this text of one cell.
    pub fn cluster(&mut self, text: &str, wide: bool) -> Glyph {
        let name = hash(text) & (Glyph::WIDE - 1);
        if self.clusters.is_full() {
            self.clusters.sweep(self.rows.iter().flat_map(|row| row.iter()).filter_map(|cell| cell.glyph.cluster_name()).collect());
        }
        self.clusters.keep(name, text);
        Glyph(Glyph::CLUSTER | name | if wide { Glyph::WIDE } else { 0 })
    }

    /// The name for `Style::link`. `link` is the `params;uri` of an OSC 8.
    pub fn link(&mut self, link: &str) -> u32 {
        let name = hash(link).max(1);
        if self.links.is_full() {
            self.links.sweep(self.rows.iter().flat_map(|row| row.iter()).map(|cell| cell.style.link).collect());
        }
        self.links.keep(name, link);
        name
    }

    pub fn link_of(&self, name: u32) -> Option<&str> {
        self.links.get(name)
    }

    /// Blanks the area; half a wide character at its edge goes too.
    pub fn fill(&mut self, area: Rect, style: Style) {
        let (from, to) = (area.col.min(self.size.cols), area.col.saturating_add(area.cols).min(self.size.cols));
        if from == to {
            return;
        }
        let blank = Cell { glyph: Glyph::EMPTY, style };
        for row in area.row..area.row.saturating_add(area.rows).min(self.size.rows) {
            if from == 0 && to == self.size.cols && self.row(row).iter().all(|cell| *cell == blank) {
                continue;
            }
            let cells = self.row_mut(row);
            cells[from.into()..to.into()].fill(blank);
            mend(cells, from.into(), to.into());
        }
    }

    /// Writes text into one row, at most `limit_cols` wide, and returns the columns it took. What cannot be shown is left
    /// out, a wide character that would be cut ends the text.
    pub fn put(&mut self, row: u16, col: u16, limit_cols: u16, style: Style, text: &str) -> u16 {
        if row >= self.size.rows || col >= self.size.cols {
            return 0;
        }
        let limit = limit_cols.min(self.size.cols - col);
        let mut used = 0;
        for (text, width) in Clusters::new(text) {
            if used + width > limit {
                break;
            }
            let glyph = self.glyph(text, width == 2);
            let cells = &mut self.row_mut(row)[usize::from(col + used)..];
            cells[0] = Cell { glyph, style };
            if width == 2 {
                cells[1] = Cell { glyph: Glyph::CONTINUATION, style };
            }
            used += width;
        }
        if used > 0 {
            mend(self.row_mut(row), col.into(), (col + used).into());
        }
        used
    }

    /// The rows without trailing blanks, for tests.
    pub fn text(&self) -> String {
        let rows = (0..self.size.rows).map(|row| {
            let text: String = self.row(row).iter().map(|cell| self.show(cell.glyph)).collect();
            text.trim_end().to_owned()
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    fn show(&self, glyph: Glyph) -> String {
        if glyph.is_continuation() {
            return String::new();
        }
        match (glyph.as_char(), glyph.cluster_name()) {
            (Some(c), _) => c.into(),
            (None, Some(name)) => self.clusters.get(name).unwrap_or("\u{fffd}").to_owned(),
            (None, None) => " ".to_owned(),
        }
    }
}

/// One row, as often as there are rows.
fn blank_rows(size: Size) -> Vec<Arc<[Cell]>> {
    vec![vec![Cell::default(); size.cols.into()].into(); size.rows.into()]
}

/// Blanks what is left of wide characters that lost one half to a write of the columns `from..to`.
fn mend(cells: &mut [Cell], from: usize, to: usize) {
    if from > 0 && cells[from - 1].glyph.is_wide() && !cells[from].glyph.is_continuation() {
        cells[from - 1].glyph = Glyph::EMPTY;
    }
    if to < cells.len() && cells[to].glyph.is_continuation() && !cells[to - 1].glyph.is_wide() {
        cells[to].glyph = Glyph::EMPTY;
    }
}

/// The columns that `put` takes for this text.
pub fn columns(text: &str) -> usize {
    Clusters::new(text).map(|(_, width)| usize::from(width)).sum()
}

/// Text cut into what one cell, or two, can show, and its width. Zero-width characters join the one right before them, as
/// they do in `vt100`: a sequence of joined emoji stays a sequence. What cannot be shown is left out.
pub(crate) struct Clusters<'a>(&'a str);

/// Zalgo ends here; `vt100` keeps as much.
const MAX_CLUSTER: usize = 18;

impl<'a> Clusters<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }
}

impl<'a> Iterator for Clusters<'a> {
    type Item = (&'a str, u16);

    fn next(&mut self) -> Option<(&'a str, u16)> {
        let width = |c: char| if turns_text(c) { None } else { c.width() };
        let shows = |c: char| width(c).is_some_and(|width| width > 0);
        let start = self.0.find(shows)?;
        let rest = &self.0[start..];
        let mut chars = rest.chars();
        let first = chars.next()?;
        let mut len = first.len_utf8();
        for mark in chars.take_while(|&c| width(c) == Some(0)) {
            if len < MAX_CLUSTER {
                len += mark.len_utf8();
            }
        }
        let text = &rest[..len];
        self.0 = &rest[len..];
        let width = if text.contains('\u{fe0f}') { text.width() } else { first.width().unwrap_or(1) };
        Some((text, width.min(2) as u16))
    }
}

/// Marks of writing direction, and separators of lines and paragraphs: a label must not rearrange its neighbours.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Texts by their hash. What no cell has named for a while is dropped.
#[derive(Debug, Clone, Default)]
struct Names {
    /// With each: asked for since the last sweep, and so perhaps not yet in a cell.
    texts: BTreeMap<u32, (Box<str>, bool)>,
    swept: usize,
}

impl Names {
    const FEW: usize = 512;

    fn get(&self, name: u32) -> Option<&str> {
        self.texts.get(&name).map(|(text, _)| text.as_ref())
    }

    fn keep(&mut self, name: u32, text: &str) {
        let clean = || text.chars().filter(|c| !c.is_control()).collect::<String>().into();
        self.texts.entry(name).or_insert_with(|| (clean(), true)).1 = true;
    }

    fn is_full(&self) -> bool {
        self.texts.len() >= Self::FEW.max(self.swept * 2)
    }

    fn sweep(&mut self, used: BTreeSet<u32>) {
        self.texts.retain(|name, (_, young)| std::mem::take(young) || used.contains(name));
        self.swept = self.texts.len();
    }
}

/// FNV-1a. A collision shows one odd glyph; nothing relies on there being none.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
