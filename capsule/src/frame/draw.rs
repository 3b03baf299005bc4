//! The difference between a frame and what a client's terminal shows: both in, bytes for that terminal out, and the
//! memory of it brought up to date. Absent: who the client is and whether the bytes got there.
//!
//! Relies on little: absolute moves, line feeds above the last row, `EL`, `ECH`, `DECSTBM` with `SU` and `SD`. After the last
//! column terminals disagree about where the cursor is, so the next move is absolute.

use std::sync::Arc;

use super::pen::{END_LINK, Pen};
use super::{Cell, Cursor, Frame, Glyph, Size, blank_rows};

/// What a client's terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    pub truecolor: bool,
    pub sync_output: bool,
    pub hyperlinks: bool,
    pub underline_style: bool,
    pub pointer_shapes: bool,
    /// False for NO_COLOR and dumb terminals: attributes only.
    pub color: bool,
}

/// What a client's terminal is told besides the picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modes {
    pub title: String,
    /// The window's short name; empty: the title.
    pub icon: String,
    pub bracketed_paste: bool,
    pub focus: bool,
    pub app_cursor: bool,
    pub app_keypad: bool,
    pub kitty_flags: u8,
    pub modify_other_keys: u8,
    /// SGR, any event.
    pub mouse: bool,
    pub pointer: Option<&'static str>,
}

/// What a client's terminal shows.
#[derive(Debug)]
pub struct Shown {
    /// `None` while nothing is known.
    size: Option<Size>,
    /// Whole characters only: no half of a wide one. A row that is the frame's own is shared with it.
    rows: Vec<Arc<[Cell]>>,
    /// The frame's row that each was drawn from, if it is known. As long as that is held nobody writes into it.
    from: Vec<Option<Arc<[Cell]>>>,
    pen: Pen,
    /// `None` where terminals disagree.
    at: Option<(u16, u16)>,
    cursor_visible: bool,
    cursor_shape: u8,
    modes: Modes,
}

/// Everything we rely on, from whatever another program left: insert mode, character set, scroll region, origin and margin
/// mode, every mode of `Modes`, rendition; then a blank screen with the cursor hidden.
const RESET: &[u8] = b"\x1b[?25l\x1b[?1;6;9;69;1000;1002;1003;1005;1006;1015;1004;2004l\x1b>\x1b[4l\x1b(B\x0f\x1b[r\
\x1b[=0u\x1b[>4;0m\x1b[0 q\x1b[m\x1b[H\x1b[2J";
const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";
const HIDE: &[u8] = b"\x1b[?25l";
const SHOW: &[u8] = b"\x1b[?25h";
/// So many cells may change before the eyes of the operator without flicker.
const FEW_CELLS: usize = 8;
/// A gap of so many cells is written again rather than jumped over.
const GAP: u16 = 4;
/// More blanks than this are erased rather than written.
const ECH_FROM: usize = 10;
const EL_FROM: usize = 3;
/// The bytes a scroll takes, with some to spare: fewer cells saved are not worth it.
const SCROLL_COST: isize = 40;
const MAX_SCROLLS: usize = 4;
const MAX_TITLE: usize = 512;

impl Shown {
    pub fn unknown() -> Self {
        Self {
            size: None,
            rows: vec![],
            from: vec![],
            pen: Pen::default(),
            at: None,
            cursor_visible: false,
            cursor_shape: 0,
            modes: Modes::default(),
        }
    }

    /// The next drawing starts from nothing.
    pub fn forget(&mut self) {
        self.size = None;
    }

    /// As `RESET` leaves it.
    fn reset(&mut self, size: Size) {
        self.size = Some(size);
        self.rows = blank_rows(size);
        self.from = vec![None; size.rows.into()];
        self.pen = Pen::default();
        self.at = Some((0, 0));
        self.cursor_visible = false;
        self.cursor_shape = 0;
        let Modes { title, icon, pointer, .. } = std::mem::take(&mut self.modes);
        // No sequence resets these, so they stay known.
        self.modes = Modes { title, icon, pointer, ..Modes::default() };
    }
}

impl Frame {
    /// Bytes that make a terminal of size `view` which shows `shown` show this; empty when it does.
    pub fn draw(&self, modes: &Modes, shown: &mut Shown, view: Size, caps: &Caps) -> Vec<u8> {
        let mut out = Vec::new();
        if caps.sync_output {
            out.extend_from_slice(BEGIN);
        }
        let unknown = shown.size != Some(view);
        if unknown {
            out.extend_from_slice(RESET);
            if caps.hyperlinks {
                out.extend_from_slice(END_LINK);
            }
            shown.reset(view);
        }
        switch_modes(&mut out, &shown.modes, modes, caps, unknown);
        if shown.modes != *modes {
            shown.modes.clone_from(modes);
        }

        let start = out.len();
        let mut painter = Painter { frame: self, shown, caps, view, out, cells: 0 };
        painter.paint();
        let Painter { mut out, cells, shown, .. } = painter;
        if !caps.sync_output && shown.cursor_visible && cells > FEW_CELLS {
            out.splice(start..start, HIDE.iter().copied());
            shown.cursor_visible = false;
        }

        let inside = |cursor: &Cursor| cursor.row < view.rows.min(self.size.rows) && cursor.col < view.cols.min(self.size.cols);
        match self.cursor.filter(inside) {
            Some(cursor) => {
                move_to(&mut out, &mut shown.at, cursor.row, cursor.col);
                if shown.cursor_shape != cursor.shape {
                    out.extend_from_slice(b"\x1b[");
                    number(&mut out, cursor.shape.into());
                    out.extend_from_slice(b" q");
                    shown.cursor_shape = cursor.shape;
                }
                if !shown.cursor_visible {
                    out.extend_from_slice(SHOW);
                }
                shown.cursor_visible = true;
            }
            None if shown.cursor_visible => {
                out.extend_from_slice(HIDE);
                shown.cursor_visible = false;
            }
            None => {}
        }
        if caps.sync_output {
            if out.len() == BEGIN.len() {
                return Vec::new();
            }
            out.extend_from_slice(END);
        }
        out
    }

    /// A row as a terminal of `cols` columns can show it: blank beyond the frame, no half of a wide character.
    fn shown_row<'a>(&'a self, row: u16, cols: u16, scratch: &'a mut Vec<Cell>) -> &'a [Cell] {
        let cells = if row < self.size.rows { self.row(row) } else { &[] };
        let cols = usize::from(cols);
        let cells = &cells[..cells.len().min(cols)];
        let first = cells.first().is_none_or(|cell| !cell.glyph.is_continuation());
        let last = cells.last().is_none_or(|cell| !cell.glyph.is_wide());
        let pairs = || cells.windows(2).all(|pair| pair[0].glyph.is_wide() == pair[1].glyph.is_continuation());
        if cells.len() == cols && first && last && pairs() {
            return cells;
        }
        let whole = |at: usize| match cells[at].glyph {
            glyph if glyph.is_continuation() => at > 0 && cells[at - 1].glyph.is_wide(),
            glyph if glyph.is_wide() => cells.get(at + 1).is_some_and(|next| next.glyph.is_continuation()),
            _ => true,
        };
        scratch.clear();
        scratch.extend((0..cells.len()).map(|at| if whole(at) { cells[at] } else { Cell { glyph: Glyph::EMPTY, ..cells[at] } }));
        scratch.resize(cols, Cell::default());
        scratch
    }
}

fn switch_modes(out: &mut Vec<u8>, was: &Modes, now: &Modes, caps: &Caps, unknown: bool) {
    let mut switch = |was: bool, now: bool, set: &[u8], clear: &[u8]| {
        if was != now {
            out.extend_from_slice(if now { set } else { clear });
        }
    };
    switch(was.bracketed_paste, now.bracketed_paste, b"\x1b[?2004h", b"\x1b[?2004l");
    switch(was.focus, now.focus, b"\x1b[?1004h", b"\x1b[?1004l");
    switch(was.app_cursor, now.app_cursor, b"\x1b[?1h", b"\x1b[?1l");
    switch(was.app_keypad, now.app_keypad, b"\x1b=", b"\x1b>");
    switch(was.mouse, now.mouse, b"\x1b[?1003h\x1b[?1006h", b"\x1b[?1003l\x1b[?1006l");
    if was.kitty_flags != now.kitty_flags {
        out.extend_from_slice(format!("\x1b[={}u", now.kitty_flags).as_bytes());
    }
    if was.modify_other_keys != now.modify_other_keys {
        out.extend_from_slice(format!("\x1b[>4;{}m", now.modify_other_keys).as_bytes());
    }
    let name = |code: u8, name: &str| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect();
        format!("\x1b]{code};{name}\x07").into_bytes()
    };
    if (&was.title, &was.icon) != (&now.title, &now.icon) || unknown && !(now.title.is_empty() && now.icon.is_empty()) {
        match now.icon.is_empty() {
            true => out.extend(name(0, &now.title)),
            // Where both are one to a terminal, the title counts.
            false => out.extend([name(1, &now.icon), name(2, &now.title)].concat()),
        }
    }
    if caps.pointer_shapes && (was.pointer != now.pointer || unknown) {
        out.extend_from_slice(format!("\x1b]22;{}\x1b\\", now.pointer.unwrap_or("default")).as_bytes());
    }
}

struct Painter<'a> {
    frame: &'a Frame,
    shown: &'a mut Shown,
    caps: &'a Caps,
    view: Size,
    out: Vec<u8>,
    /// Written so far.
    cells: usize,
}

impl Painter<'_> {
    fn paint(&mut self) {
        let mut scratch = Vec::new();
        let mut rows: Vec<u16> = (0..self.view.rows).filter(|&row| self.differs(row, &mut scratch)).collect();
        if rows.len() > 2 {
            self.scroll(&mut rows, &mut scratch);
        }
        self.out.reserve(rows.len() * usize::from(self.view.cols));
        for row in rows {
            let new = self.frame.shown_row(row, self.view.cols, &mut scratch);
            self.paint_row(row, new);
            let own = self.frame.rows.get(usize::from(row));
            let uncut = own.filter(|own| std::ptr::eq::<[Cell]>(&***own, new));
            self.shown.rows[usize::from(row)] = uncut.map_or_else(|| new.into(), Arc::clone);
            self.shown.from[usize::from(row)] = own.cloned();
        }
        self.shown.pen.end_link(&mut self.out);
    }

    fn differs(&mut self, row: u16, scratch: &mut Vec<Cell>) -> bool {
        let own = self.frame.rows.get(usize::from(row));
        let (shown, from) = (&mut self.shown.rows[usize::from(row)], &mut self.shown.from[usize::from(row)]);
        if let (Some(own), Some(from)) = (own, &from)
            && Arc::ptr_eq(own, from)
        {
            return false;
        }
        // Equal to what is shown means whole, and that is the cheaper question.
        let alike = own.filter(|own| own.len() == shown.len() && *own == shown);
        match alike {
            Some(own) => *shown = Arc::clone(own),
            None if self.frame.shown_row(row, self.view.cols, scratch) != &**shown => return true,
            None => {}
        }
        *from = own.cloned();
        false
    }

    /// Left to right: whatever half a wide character a write leaves behind is written next, as whole characters differ in
    /// both halves.
    fn paint_row(&mut self, row: u16, new: &[Cell]) {
        let cols = new.len();
        let tail = blank_tail(new);
        let old = Arc::clone(&self.shown.rows[usize::from(row)]);
        let changed = |col: usize| !new[col].looks_like(&old[col]);
        let mut col = 0;
        while col < tail {
            if !changed(col) {
                col += 1;
                continue;
            }
            self.go(row, col as u16, new);
            let cell = &new[col];
            if cell.is_blank() {
                let alike = (col..tail).take_while(|&at| new[at].is_blank() && new[at].style.bg == cell.style.bg);
                let end = alike.filter(|&at| changed(at)).last().unwrap_or(col) + 1;
                self.shown.pen.set_blank(&mut self.out, cell.style.bg, self.caps);
                self.blanks(row, col, end, cols);
                col = end;
            } else {
                self.shown.pen.set(&mut self.out, &cell.style, self.frame, self.caps);
                col += self.write(row, col, new, &old);
            }
        }
        let mut changes = (tail..cols).filter(|&at| changed(at));
        if let Some(first) = changes.next() {
            let end = changes.next_back().unwrap_or(first) + 1;
            self.go(row, first as u16, new);
            self.shown.pen.set_blank(&mut self.out, new[first].style.bg, self.caps);
            if end - first > EL_FROM {
                self.out.extend_from_slice(b"\x1b[K");
                self.cells += end - first;
            } else {
                self.blanks(row, first, end, cols);
            }
        }
    }

    /// Moves the cursor, or writes again the few cells on the way if that needs nothing but their characters.
    fn go(&mut self, row: u16, col: u16, new: &[Cell]) {
        if let Some((at_row, at_col)) = self.shown.at
            && at_row == row
            && (1..=GAP).contains(&col.saturating_sub(at_col))
        {
            let gap = &new[usize::from(at_col)..usize::from(col)];
            let ascii = |cell: &Cell| cell.glyph == Glyph::EMPTY || cell.glyph.as_char().is_some_and(|c| c.is_ascii());
            if gap.iter().all(|cell| ascii(cell) && self.shown.pen.writes(&cell.style)) {
                self.out.extend(gap.iter().map(|cell| cell.glyph.as_char().map_or(b' ', |c| c as u8)));
                self.shown.at = Some((row, col));
                return;
            }
        }
        move_to(&mut self.out, &mut self.shown.at, row, col);
    }

    fn blanks(&mut self, row: u16, from: usize, to: usize, cols: usize) {
        self.cells += to - from;
        if to - from > ECH_FROM {
            self.out.extend_from_slice(b"\x1b[");
            number(&mut self.out, (to - from) as u16);
            self.out.push(b'X');
        } else {
            self.out.resize(self.out.len() + to - from, b' ');
            self.shown.at = (to < cols).then_some((row, to as u16));
        }
    }

    /// Writes one character and returns its columns.
    fn write(&mut self, row: u16, col: usize, new: &[Cell], old: &[Cell]) -> usize {
        let glyph = new[col].glyph;
        let width = if glyph.is_wide() { 2 } else { 1 };
        self.cells += width;
        let disputed = is_disputed(glyph);
        if disputed && width == 2 && !old[col + 1].looks_like(&Cell::default()) {
            // A terminal that takes it for a narrow one would leave what stood in its second cell.
            self.out.extend_from_slice(b"\x1b[2X");
        }
        match (glyph.as_char(), glyph.cluster_name()) {
            (Some(c), _) if c.is_ascii() => self.out.push(c as u8),
            (Some(c), _) => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            (None, Some(name)) => self.out.extend_from_slice(self.frame.clusters.get(name).unwrap_or("\u{fffd}").as_bytes()),
            (None, None) => self.out.push(b' '),
        }
        let end = col + width;
        self.shown.at = (!disputed && end < new.len()).then_some((row, end as u16));
        width
    }

    /// Moves blocks of rows that stand elsewhere already. `rows` are those that differ, before and after.
    fn scroll(&mut self, rows: &mut Vec<u16>, scratch: &mut Vec<Cell>) {
        let cols = self.view.cols;
        let blank = row_hash(&vec![Cell::default(); cols.into()]);
        let wanted: Vec<u64> = (0..self.view.rows).map(|row| row_hash(self.frame.shown_row(row, cols, scratch))).collect();
        let mut shown: Vec<u64> = (0..self.view.rows).map(|row| row_hash(&self.shown.rows[usize::from(row)])).collect();
        for _ in 0..MAX_SCROLLS {
            let Some(scroll) = likely_scroll(rows, &wanted, &shown, blank) else { return };
            if self.saved_by(&scroll, scratch) < SCROLL_COST {
                return;
            }
            self.apply(&scroll);
            let hashes = &mut shown[usize::from(scroll.top)..=usize::from(scroll.bottom)];
            shift(hashes, scroll.by.into(), blank);
            rows.retain(|row| !(scroll.top..=scroll.bottom).contains(row));
            rows.extend((scroll.top..=scroll.bottom).filter(|&row| self.differs(row, scratch)));
            rows.sort_unstable();
        }
    }

    /// How many cells fewer have to be written.
    fn saved_by(&self, scroll: &Scroll, scratch: &mut Vec<Cell>) -> isize {
        let mut saved = 0;
        for row in scroll.top..=scroll.bottom {
            let source = i32::from(row) + i32::from(scroll.by);
            let new = self.frame.shown_row(row, self.view.cols, scratch);
            let differing = |old: &[Cell]| new.iter().zip(old).filter(|(new, old)| !new.looks_like(old)).count() as isize;
            saved += differing(&self.shown.rows[usize::from(row)]);
            saved -= match u16::try_from(source) {
                Ok(source) if (scroll.top..=scroll.bottom).contains(&source) => differing(&self.shown.rows[usize::from(source)]),
                _ => new.iter().filter(|cell| !cell.looks_like(&Cell::default())).count() as isize,
            };
        }
        saved
    }

    fn apply(&mut self, scroll: &Scroll) {
        // The rows that come in take the background of the pen.
        self.shown.pen.reset(&mut self.out);
        let whole = scroll.top == 0 && scroll.bottom + 1 == self.view.rows;
        if !whole {
            self.out.extend_from_slice(b"\x1b[");
            number(&mut self.out, scroll.top + 1);
            self.out.push(b';');
            number(&mut self.out, scroll.bottom + 1);
            self.out.push(b'r');
        }
        self.out.extend_from_slice(b"\x1b[");
        if scroll.by.abs() != 1 {
            number(&mut self.out, scroll.by.unsigned_abs());
        }
        self.out.push(if scroll.by > 0 { b'S' } else { b'T' });
        if !whole {
            self.out.extend_from_slice(b"\x1b[r");
        }
        // Setting the region moves it, but not to the same place everywhere.
        self.shown.at = None;
        let blank = vec![Cell::default(); self.view.cols.into()].into();
        let rows = usize::from(scroll.top)..=usize::from(scroll.bottom);
        shift(&mut self.shown.rows[rows.clone()], scroll.by.into(), blank);
        self.shown.from[rows].fill(None);
    }
}

/// The rows `top..=bottom` move up by so many, down if it is less than zero.
struct Scroll {
    top: u16,
    bottom: u16,
    by: i16,
}

/// What `Scroll` does to things of which there is one per row; `blank` comes in.
fn shift<T: Clone>(things: &mut [T], by: isize, blank: T) {
    let far = by.unsigned_abs();
    if by > 0 {
        things.rotate_left(far);
        let kept = things.len() - far;
        things[kept..].fill(blank);
    } else {
        things.rotate_right(far);
        things[..far].fill(blank);
    }
}

/// The distance at which most of the differing rows find themselves, and the block of rows for which that is so.
fn likely_scroll(rows: &[u16], wanted: &[u64], shown: &[u64], blank: u64) -> Option<Scroll> {
    let count = wanted.len();
    let mut votes = vec![0u16; 2 * count];
    for &row in rows.iter().filter(|&&row| wanted[usize::from(row)] != blank) {
        for &source in rows.iter().filter(|&&source| source != row && shown[usize::from(source)] == wanted[usize::from(row)]) {
            votes[usize::from(source) + count - usize::from(row)] += 1;
        }
    }
    let (place, most) = votes.iter().enumerate().max_by_key(|(_, votes)| **votes)?;
    if *most == 0 {
        return None;
    }
    let by = place as i16 - count as i16;
    let source = |row: usize| row.checked_add_signed(by.into()).filter(|&source| source < count);
    let mut best = (0, 0..0);
    let mut start = 0;
    while start < count {
        let end = start + (start..count).take_while(|&row| source(row).is_some_and(|source| shown[source] == wanted[row])).count();
        let worth = wanted[start..end].iter().filter(|hash| **hash != blank).count();
        if worth > best.0 {
            best = (worth, start..end);
        }
        start = end + 1;
    }
    let (first, last) = (best.1.start, best.1.end.checked_sub(1)?);
    let (top, bottom) = if by > 0 { (first, source(last)?) } else { (source(first)?, last) };
    Some(Scroll { top: top as u16, bottom: bottom as u16, by })
}

/// Of the characters alone: it only has to find likely rows. Four lanes, so that no multiplication waits for the last.
fn row_hash(row: &[Cell]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1u64, 2, 3, 4];
    let (chunks, rest) = row.as_chunks::<4>();
    for chunk in chunks {
        for (lane, cell) in lanes.iter_mut().zip(chunk) {
            *lane = (lane.rotate_left(25) ^ u64::from(cell.glyph.0)).wrapping_mul(ODD);
        }
    }
    rest.iter().fold(lanes.iter().fold(0, |sum: u64, lane| (sum ^ lane).wrapping_mul(ODD)), |sum, cell| {
        (sum.rotate_left(25) ^ u64::from(cell.glyph.0)).wrapping_mul(ODD)
    })
}

/// Where the blanks of one background begin that end the row.
fn blank_tail(row: &[Cell]) -> usize {
    let Some(last) = row.last() else { return 0 };
    row.iter().rposition(|cell| !cell.is_blank() || cell.style.bg != last.style.bg).map_or(0, |at| at + 1)
}

/// Terminals disagree about the width of clusters, and of emoji younger than they are.
fn is_disputed(glyph: Glyph) -> bool {
    glyph.cluster_name().is_some() || glyph.as_char().is_some_and(|c| ('\u{1f000}'..'\u{20000}').contains(&c))
}

fn number(out: &mut Vec<u8>, number: u16) {
    let digit = |power: u16| b'0' + (number / power % 10) as u8;
    for power in [10_000, 1000, 100, 10] {
        if number >= power {
            out.push(digit(power));
        }
    }
    out.push(digit(1));
}

/// The shortest of the moves every terminal knows.
fn move_to(out: &mut Vec<u8>, at: &mut Option<(u16, u16)>, row: u16, col: u16) {
    let from = at.replace((row, col));
    if from == Some((row, col)) {
        return;
    }
    let digits = |number: u16| number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let absolute = match (row, col) {
        (0, 0) => 3,
        (row, 0) => 3 + digits(row + 1),
        (row, col) => 4 + digits(row + 1) + digits(col + 1),
    };
    if let Some((from_row, from_col)) = from
        && from_row <= row
    {
        // A line feed keeps the column, and above the last row it scrolls nothing.
        let down = usize::from(row - from_row);
        let step = |far: u16| if far == 1 { 3 } else { 3 + digits(far) };
        let across = match col {
            _ if col == from_col => 0,
            0 => 1,
            _ if col > from_col => step(col - from_col),
            _ => step(from_col - col).min(usize::from(from_col - col)),
        };
        if down + across <= absolute {
            out.resize(out.len() + down, b'\n');
            let far = col.abs_diff(from_col);
            match (col, across) {
                (_, 0) => {}
                (0, _) => out.push(b'\r'),
                _ if col < from_col && across == usize::from(far) => out.resize(out.len() + across, 8),
                _ => {
                    out.extend_from_slice(b"\x1b[");
                    if far > 1 {
                        number(out, far);
                    }
                    out.push(if col > from_col { b'C' } else { b'D' });
                }
            }
            return;
        }
    }
    out.extend_from_slice(b"\x1b[");
    if (row, col) != (0, 0) {
        number(out, row + 1);
    }
    if col != 0 {
        out.push(b';');
        number(out, col + 1);
    }
    out.push(b'H');
}
