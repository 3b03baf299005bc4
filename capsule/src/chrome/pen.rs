//! Writing into one row of an area: nothing leaves the area or the frame.

use crate::frame::{Frame, Rect, Style};

/// Writes along a row and stops at its end.
pub(super) struct Pen<'a> {
    frame: &'a mut Frame,
    row: u16,
    pub col: u16,
    end: u16,
}

impl<'a> Pen<'a> {
    /// On the row'th row of the area; outside the area or the frame nothing is written.
    pub fn new(frame: &'a mut Frame, area: Rect, row: u16) -> Self {
        let size = frame.size();
        let inside = row < area.rows && area.row.saturating_add(row) < size.rows;
        let end = if inside { area.col.saturating_add(area.cols).min(size.cols) } else { 0 };
        Self { frame, row: area.row.saturating_add(row), col: area.col, end }
    }

    pub fn put(&mut self, style: Style, text: &str) -> &mut Self {
        if let Some(room) = self.end.checked_sub(self.col).filter(|room| *room > 0) {
            self.col += self.frame.put(self.row, self.col, room, style, text);
        }
        self
    }

    /// A mark of one column, again and again up to this column of the frame.
    pub fn fill_to(&mut self, style: Style, mark: &str, col: u16) -> &mut Self {
        let times = col.min(self.end).saturating_sub(self.col);
        self.put(style, &mark.repeat(times.into()))
    }
}

/// What both have.
pub(super) fn common(a: Rect, b: Rect) -> Rect {
    let (row, col) = (a.row.max(b.row), a.col.max(b.col));
    let end = |a: u16, len: u16, b: u16, other: u16| a.saturating_add(len).min(b.saturating_add(other));
    Rect {
        row,
        col,
        rows: end(a.row, a.rows, b.row, b.rows).saturating_sub(row),
        cols: end(a.col, a.cols, b.col, b.cols).saturating_sub(col),
    }
}
