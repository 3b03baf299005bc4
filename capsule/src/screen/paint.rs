//! The screen as cells of a frame, only those rows that changed; and what changed. Absent: what frames are for.

use std::sync::Arc;

use super::Screen;
use super::extras::{self, Name};
use super::line::{self, Cluster};
use super::pen::Pen;
use crate::frame::{Cell, Color, Frame, Glyph, Rect, Style, attr};

/// Rows to paint anew.
pub(super) struct Dirt {
    rows: Vec<bool>,
    /// How far back the last picture was scrolled; a scrolled one is always painted whole.
    offset: usize,
}

impl Dirt {
    pub fn new(rows: u16) -> Self {
        Self { rows: vec![true; rows.into()], offset: 0 }
    }

    pub fn all(&mut self) {
        self.rows.fill(true);
    }

    pub fn rows(&mut self, first: u16, last: u16) {
        if let Some(rows) = self.rows.get_mut(usize::from(first)..=usize::from(last)) {
            rows.fill(true);
        }
    }
}

impl Screen {
    /// Paints into `at` what changed since the last call, or everything; `offset` is how many lines back the view is.
    pub fn paint(&mut self, frame: &mut Frame, at: Rect, offset: usize, all: bool) {
        let offset = offset.min(self.history_len());
        let all = all || offset > 0 || offset != self.dirt.offset;
        self.dirt.offset = offset;
        let limit = Rect::of(frame.size());
        let height = at.rows.min(limit.rows.saturating_sub(at.row));
        let width = at.cols.min(limit.cols.saturating_sub(at.col));
        let rows = self.size().rows;
        let first = self.history_len() - offset;
        for row in 0..height {
            let line = first + usize::from(row);
            if line < self.history_len() {
                self.paint_line(frame, at.row + row, at.col, width, line);
            } else if usize::from(row) - offset.min(usize::from(row)) >= usize::from(rows) {
                if all {
                    frame.fill(Rect { row: at.row + row, col: at.col, rows: 1, cols: width }, Style::default());
                }
            } else {
                let from = row - offset as u16;
                if all || self.dirt.rows[usize::from(from)] {
                    self.paint_row(frame, at.row + row, at.col, width, from);
                }
            }
        }
        self.dirt.rows.fill(false);
    }

    fn paint_row(&self, frame: &mut Frame, to: u16, left: u16, width: u16, row: u16) {
        let vt = self.vt();
        let extras = &self.parser.callbacks().extras;
        let cols = self.size().cols.min(width);
        let mut link: (Name, u32) = (0, 0);
        let mut cells = Vec::with_capacity(width.into());
        for col in 0..width {
            let mut painted = Cell::default();
            if let Some(cell) = (col < cols).then(|| vt.cell(row, col)).flatten() {
                let contents = cell.contents();
                painted.style = style(cell);
                painted.glyph = match contents.as_bytes() {
                    [] if cell.is_wide_continuation() => match cells.last() {
                        Some(Cell { glyph, style }) if glyph.is_wide() => {
                            painted.style = *style;
                            Glyph::CONTINUATION
                        }
                        _ => Glyph::EMPTY,
                    },
                    [] | [b' '] => Glyph::EMPTY,
                    [byte] => Glyph::char(char::from(*byte), false),
                    _ => {
                        let (before, name, behind) = extras::parted(contents).unwrap_or((contents, 0, ""));
                        if let Some(extra) = extras.get(name) {
                            extra.onto(&mut painted.style);
                            if let Some(target) = &extra.link {
                                if link.0 != name {
                                    link = (name, frame.link(target));
                                }
                                painted.style.link = link.1;
                            }
                        }
                        let wide = cell.is_wide();
                        if wide && col + 1 >= width { Glyph::EMPTY } else { glyph(frame, before, behind, wide) }
                    }
                };
            }
            cells.push(painted);
        }
        frame.set(to, left, &cells);
    }

    fn paint_line(&self, frame: &mut Frame, to: u16, left: u16, width: u16, line: usize) {
        frame.fill(Rect { row: to, col: left, rows: 1, cols: width }, Style::default());
        let Some(line) = self.parser.callbacks().ring.line(line) else {
            return;
        };
        let mut link: (Option<Arc<str>>, u32) = (None, 0);
        line::read(&line.bytes, |Cluster { col, width: wide, text }, pen: &Pen| {
            if col + wide > usize::from(width) {
                return;
            }
            let mut style = pen.style;
            if pen.link != link.0 {
                link = (pen.link.clone(), pen.link.as_ref().map_or(0, |target| frame.link(target)));
            }
            style.link = link.1;
            let glyph = if text == " " { Glyph::EMPTY } else { glyph(frame, text, "", wide == 2) };
            let cells = &mut frame.row_mut(to)[usize::from(left) + col..];
            cells[0] = Cell { glyph, style };
            if wide == 2 {
                cells[1] = Cell { glyph: Glyph::CONTINUATION, style };
            }
        });
    }

    /// The row as a line of history, and whether it goes on in the next.
    pub(super) fn row_line(&self, row: u16, writer: &mut line::Writer) -> bool {
        let vt = self.vt();
        let extras = &self.parser.callbacks().extras;
        writer.start();
        let mut blank = 0;
        for col in 0..self.size().cols {
            let Some(cell) = vt.cell(row, col).filter(|cell| !cell.is_wide_continuation()) else {
                continue;
            };
            let style = style(cell);
            if !cell.has_contents() && style == Style::default() {
                blank += 1;
                continue;
            }
            for _ in 0..std::mem::take(&mut blank) {
                writer.cell(" ", &Pen::default());
            }
            let mut pen = Pen { style, link: None };
            let contents = if cell.has_contents() { cell.contents() } else { " " };
            match extras::parted(contents) {
                None => writer.cell(contents, &pen),
                Some((before, name, behind)) => {
                    if let Some(extra) = extras.get(name) {
                        extra.onto(&mut pen.style);
                        pen.link.clone_from(&extra.link);
                    }
                    writer.cell(before, &pen);
                    writer.line.extend_from_slice(behind.as_bytes());
                }
            }
        }
        let wrapped = vt.row_wrapped(row);
        if !wrapped {
            writer.trim();
        }
        wrapped
    }
}

fn glyph(frame: &mut Frame, text: &str, behind: &str, wide: bool) -> Glyph {
    let mut chars = text.chars();
    match (chars.next(), chars.next(), behind) {
        (Some(only), None, "") => Glyph::char(only, wide),
        (_, _, "") => frame.cluster(text, wide),
        _ => frame.cluster(&[text, behind].concat(), wide),
    }
}

pub(super) fn style(cell: &vt100::Cell) -> Style {
    let color = |color| match color {
        vt100::Color::Default => Color::DEFAULT,
        vt100::Color::Idx(index) => Color::index(index),
        vt100::Color::Rgb(r, g, b) => Color::rgb(r, g, b),
    };
    // What holds nothing has no style either: `clear` sees to it.
    if !cell.has_contents() {
        return Style::default();
    }
    let mut attrs = 0;
    for (on, bit) in [
        (cell.bold(), attr::BOLD),
        (cell.dim(), attr::DIM),
        (cell.italic(), attr::ITALIC),
        (cell.inverse(), attr::INVERSE),
        (cell.underline(), attr::SINGLE_UNDERLINE),
    ] {
        attrs |= if on { bit } else { 0 };
    }
    Style { fg: color(cell.fgcolor()), bg: color(cell.bgcolor()), attrs, ..Style::default() }
}
