//! Lines between panes: title rows, dividers, and the joints where they meet. Rectangles and facts in, cells out.

use crate::control::SessionState;
use crate::frame::{Frame, Rect};
use crate::layout::{Pane, Placed, SessionId};

use super::pen::{Pen, common};
use super::text::{cut, width};
use super::theme::{DOWN, LEFT, RIGHT, Theme, UP, over};

/// What a pane's title row tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title {
    pub label: String,
    pub codename: String,
    pub state: SessionState,
    pub recording: bool,
    /// Lines scrolled back, of how many there are.
    pub scrolled: Option<(usize, usize)>,
    /// The hit gone to, counted from one, of how many.
    pub found: Option<(usize, usize)>,
}

/// The lines between the panes of a tab; `title_of` is asked for each pane that has a title row.
pub fn borders(frame: &mut Frame, placed: &Placed, focused: SessionId, title_of: impl Fn(SessionId) -> Title, theme: &Theme) {
    let Placed { panes, dividers } = placed;
    let vertical = |row: Option<u16>, col| row.is_some_and(|row| dividers.iter().any(|line| line.contains(row, col)));
    let rows: Vec<_> = panes.iter().filter_map(|pane| pane.title).collect();
    let horizontal = |row, col: Option<u16>| col.is_some_and(|col| rows.iter().any(|line| line.contains(row, col)));
    let sides = |row: u16, col: u16| {
        (if vertical(row.checked_sub(1), col) { UP } else { 0 })
            | (if vertical(row.checked_add(1), col) { DOWN } else { 0 })
            | (if horizontal(row, col.checked_sub(1)) { LEFT } else { 0 })
            | (if horizontal(row, col.checked_add(1)) { RIGHT } else { 0 })
    };
    let focused = panes.iter().find(|pane| pane.session == focused);
    let all = Rect::of(frame.size());
    for divider in dividers {
        for (row, col) in cells(common(*divider, all)) {
            let style = if focused.is_some_and(|pane| beside(pane, row, col)) { theme.focused_border } else { theme.border };
            // A divider of a single row between two bodies has no neighbour to tell its direction.
            let sides = if sides(row, col) & (UP | DOWN) == 0 { UP | DOWN } else { 0 } | sides(row, col);
            frame.put(row, col, 1, style, theme.marks.lines[sides]);
        }
    }
    for pane in panes {
        let Some(line) = pane.title else { continue };
        let has_focus = focused.is_some_and(|focused| focused.session == pane.session);
        let style = if has_focus { theme.focused_border } else { theme.border };
        let line = common(line, all);
        let whole: String = cells(line).map(|(row, col)| theme.marks.lines[sides(row, col) | LEFT | RIGHT]).collect();
        Pen::new(frame, line, 0).put(style, &whole);
        put_title(frame, line, &title_of(pane.session), has_focus, theme);
    }
}

fn cells(area: Rect) -> impl Iterator<Item = (u16, u16)> {
    (area.row..area.row + area.rows).flat_map(move |row| (area.col..area.col + area.cols).map(move |col| (row, col)))
}

fn beside(pane: &Pane, row: u16, col: u16) -> bool {
    let outer = pane.outer();
    let (left, right) = (outer.col.checked_sub(1), outer.col.saturating_add(outer.cols));
    outer.contains(row, outer.col) && (Some(col) == left || col == right)
}

fn put_title(frame: &mut Frame, line: Rect, title: &Title, has_focus: bool, theme: &Theme) {
    let Title { label, codename, state, recording, .. } = title;
    let (marks, cols) = (theme.marks, usize::from(line.cols));
    let text = if has_focus { theme.focused_title } else { theme.title };
    let place = place_text(title, cols.saturating_sub(14));
    let from = cols.saturating_sub(width(&place) + 1);
    let room = if place.is_empty() { cols } else { from }.saturating_sub(1);

    // The longest of these that fits, else the label cut.
    let rec = if *recording { format!("{} ", marks.recording) } else { String::new() };
    let tails = [format!(" {} {codename} {} {state} ", marks.dot, marks.dot), format!(" {} {state} ", marks.dot), " ".to_owned()];
    let fixed = 1 + width(&rec) + 2;
    let tail = tails.iter().find(|tail| fixed + width(label) + width(tail) <= room).map_or(" ", |tail| tail.as_str());
    let label = cut(label, room.saturating_sub(fixed + width(tail)), marks.cut);
    if room < fixed + width(tail) + usize::from(!label.is_empty()) {
        // Not even a letter of the label: the mark alone, if that.
        Pen::new(frame, Rect { col: line.col.saturating_add(1), cols: line.cols.saturating_sub(2).min(1), ..line }, 0)
            .put(theme.state(*state, text), marks.state(*state));
        return;
    }
    Pen::new(frame, Rect { col: line.col.saturating_add(1), cols: line.cols.saturating_sub(1), ..line }, 0)
        .put(text, " ")
        .put(over(text, theme.recording), &rec)
        .put(theme.state(*state, text), marks.state(*state))
        .put(text, " ")
        .put(text, &label)
        .put(if has_focus { theme.focused_border } else { theme.border }, tail);
    put_place(frame, line, &place, theme);
}

/// Where the view stands in the history, for a pane without a title row: over its upper right corner.
pub fn scroll_mark(frame: &mut Frame, body: Rect, title: &Title, theme: &Theme) {
    let place = place_text(title, body.cols.into());
    let from = body.cols.saturating_sub(width(&place) as u16);
    Pen::new(frame, Rect { col: body.col.saturating_add(from), cols: body.cols - from, ..body }, 0).put(theme.mode, &place);
}

fn put_place(frame: &mut Frame, line: Rect, place: &str, theme: &Theme) {
    let from = line.cols.saturating_sub(width(place) as u16 + 1);
    Pen::new(frame, Rect { col: line.col.saturating_add(from), cols: line.cols - from, ..line }, 0).put(theme.mode, place);
}

/// `3/17 [-120/10000]`, or as much as there is room for.
fn place_text(title: &Title, room: usize) -> String {
    let found = title.found.map(|(here, count)| format!("{here}/{count}"));
    let scrolled = title.scrolled.map(|(lines, of)| (format!("[-{lines}/{of}]"), format!("[-{lines}]")));
    let forms = match (found, scrolled) {
        (None, None) => return String::new(),
        (Some(found), None) => vec![format!("[{found}]")],
        (None, Some((long, short))) => vec![long, short],
        (Some(found), Some((long, short))) => vec![format!("{found} {long}"), format!("{found} {short}"), short],
    };
    forms.into_iter().find(|form| form.len() <= room).unwrap_or_default()
}
