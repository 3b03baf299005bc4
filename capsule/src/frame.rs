//! A picture of a terminal: a grid of small cells, a cursor, and what they refer to. Painters write into it, `draw`
//! turns the difference between two of them into bytes. Absent: panes, sessions, time, and where the bytes go.

use std::collections::BTreeMap;

use crate::screen::Size;

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

    pub fn char(c: char, wide: bool) -> Self {
        Self(c as u32 | if wide { Self::WIDE } else { 0 })
    }

    pub fn is_wide(self) -> bool {
        self.0 & Self::WIDE != 0
    }

    pub fn is_continuation(self) -> bool {
        self == Self::CONTINUATION
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
        (self.row..self.row + self.rows).contains(&row) && (self.col..self.col + self.cols).contains(&col)
    }

    pub fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    size: Size,
    cells: Vec<Cell>,
    pub cursor: Option<Cursor>,
    clusters: BTreeMap<u32, Box<str>>,
    links: BTreeMap<u32, Box<str>>,
}

impl Frame {
    pub fn new(size: Size) -> Self {
        let cells = vec![Cell::default(); usize::from(size.rows) * usize::from(size.cols)];
        Self { size, cells, cursor: None, clusters: BTreeMap::new(), links: BTreeMap::new() }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn row(&self, row: u16) -> &[Cell] {
        let cols = usize::from(self.size.cols);
        &self.cells[usize::from(row) * cols..][..cols]
    }

    pub fn row_mut(&mut self, row: u16) -> &mut [Cell] {
        let cols = usize::from(self.size.cols);
        &mut self.cells[usize::from(row) * cols..][..cols]
    }

    /// The name under which the frame keeps this text of one cell.
    pub fn cluster(&mut self, text: &str, wide: bool) -> Glyph {
        let name = hash(text) >> 2;
        self.clusters.entry(name).or_insert_with(|| text.into());
        Glyph(Glyph::CLUSTER | name & (Glyph::WIDE - 1) | if wide { Glyph::WIDE } else { 0 })
    }

    /// The name for `Style::link`. `link` is the `params;uri` of an OSC 8.
    pub fn link(&mut self, link: &str) -> u32 {
        let name = hash(link).max(1);
        self.links.entry(name).or_insert_with(|| link.into());
        name
    }

    pub fn link_of(&self, name: u32) -> Option<&str> {
        self.links.get(&name).map(AsRef::as_ref)
    }

    pub fn fill(&mut self, area: Rect, style: Style) {
        for row in area.row..(area.row + area.rows).min(self.size.rows) {
            for cell in self.row_mut(row).iter_mut().skip(area.col.into()).take(area.cols.into()) {
                *cell = Cell { glyph: Glyph::EMPTY, style };
            }
        }
    }
}

/// FNV-1a. A collision shows one odd glyph; nothing relies on there being none.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
