//! The tab strip: `1 Claude ● │ 2 shell ○ │ +    ≡ menu`. Tabs come in, cells and what a click meant go out.

use std::ops::Range;

use crate::control::SessionState;
use crate::frame::{Frame, Rect, Style};

use super::pen::Pen;
use super::text::{cut, width};
use super::theme::{DOWN, Theme, UP};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TabLabel {
    pub label: String,
    /// The most pressing among its panes.
    pub state: SessionState,
    pub zoomed: bool,
    pub recording: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripHit {
    Tab(usize),
    /// The nearest tab of those that had no room on this side.
    More(usize),
    NewTab,
    Menu,
}

/// Labels are not cut shorter than this before tabs are left out, and then to this.
const SHORTEST: usize = 4;
const SHORT: usize = 10;
const LONGEST: usize = 24;
/// Narrower strips have no such buttons: one tab and the marks for others take up to 17 columns.
const ROOM_FOR_MENU: usize = 20;
const ROOM_FOR_NEW: usize = 23;
const ROOM_FOR_WORDS: usize = 60;

#[derive(Debug, PartialEq, Eq)]
pub struct Strip {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
struct Piece {
    cols: Range<usize>,
    hit: Option<StripHit>,
    spans: Vec<(Style, String)>,
}

impl Strip {
    pub fn new(cols: u16, tabs: &[TabLabel], active: usize, theme: &Theme) -> Self {
        let cols = usize::from(cols);
        let active = active.min(tabs.len().saturating_sub(1));
        let menu = match cols {
            0..ROOM_FOR_MENU => String::new(),
            ROOM_FOR_MENU..ROOM_FOR_WORDS => format!(" {} ", theme.marks.menu),
            _ => format!(" {} menu ", theme.marks.menu),
        };
        let new_tab = if cols < ROOM_FOR_NEW { "" } else { " + " };
        let room = cols - width(&menu) - width(new_tab);
        let (shown, longest) = choose(tabs, active, room);

        let mut strip = Self { pieces: Vec::new() };
        if shown.start > 0 {
            let text = format!("{}{} ", theme.marks.left, shown.start);
            strip.push(Some(StripHit::More(shown.start - 1)), vec![(theme.strip, text)]);
        }
        for (index, tab) in tabs.iter().enumerate().take(shown.end).skip(shown.start) {
            if index > shown.start {
                strip.push(None, vec![(theme.strip, theme.marks.lines[UP | DOWN].to_owned())]);
            }
            // A single tab that is still too wide is cut to the room.
            let taken = frills(shown.clone(), tabs.len()) + extent(index, tab).1 + 1;
            let spare = if shown.len() == 1 { room.saturating_sub(taken) } else { longest };
            strip.push(Some(StripHit::Tab(index)), spans(index, tab, longest.min(spare), index == active, theme));
        }
        if shown.end < tabs.len() {
            let text = format!(" {}{}", tabs.len() - shown.end, theme.marks.right);
            strip.push(Some(StripHit::More(shown.end)), vec![(theme.strip, text)]);
        }
        if !new_tab.is_empty() {
            strip.push(Some(StripHit::NewTab), vec![(theme.strip, new_tab.to_owned())]);
        }
        if !menu.is_empty() {
            let from = cols - width(&menu);
            strip.pieces.push(Piece { cols: from..cols, hit: Some(StripHit::Menu), spans: vec![(theme.strip, menu)] });
        }
        strip
    }

    fn push(&mut self, hit: Option<StripHit>, spans: Vec<(Style, String)>) {
        let from = self.pieces.last().map_or(0, |piece| piece.cols.end);
        let cols = from..from + spans.iter().map(|(_, text)| width(text)).sum::<usize>();
        self.pieces.push(Piece { cols, hit, spans });
    }

    /// `col` counts from the strip's own left end.
    pub fn hit(&self, col: u16) -> Option<StripHit> {
        self.pieces.iter().find(|piece| piece.cols.contains(&col.into()))?.hit
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = Rect { rows: area.rows.min(1), ..area };
        frame.fill(area, theme.strip);
        for piece in &self.pieces {
            let from = u16::try_from(piece.cols.start).unwrap_or(u16::MAX).min(area.cols);
            let mut pen = Pen::new(frame, Rect { col: area.col + from, cols: area.cols - from, ..area }, 0);
            for (style, text) in &piece.spans {
                pen.put(*style, text);
            }
        }
    }
}

fn spans(index: usize, tab: &TabLabel, longest: usize, active: bool, theme: &Theme) -> Vec<(Style, String)> {
    let on = if active { theme.tab } else { theme.strip };
    let marks = theme.marks;
    let label = cut(&tab.label, longest, marks.cut);
    let gap = if label.is_empty() { "" } else { " " };
    let mut spans = vec![(on, format!(" {}{gap}{label} ", index + 1)), (theme.state(tab.state, on), marks.state(tab.state).to_owned())];
    if tab.zoomed {
        spans.push((on, marks.zoomed.to_owned()));
    }
    if tab.recording {
        spans.push((super::theme::over(on, theme.recording), marks.recording.to_owned()));
    }
    spans.push((on, " ".to_owned()));
    spans
}

/// Columns of a tab as label and rest, in step with `spans`.
fn extent(index: usize, tab: &TabLabel) -> (usize, usize) {
    let digits = (index + 1).ilog10() as usize + 1;
    (width(&tab.label), 4 + digits + usize::from(tab.zoomed) + usize::from(tab.recording))
}

/// Columns of the marks for tabs left out on either side.
fn frills(shown: Range<usize>, tabs: usize) -> usize {
    let mark = |left_out: usize| left_out.checked_ilog10().map_or(0, |digits| digits as usize + 3);
    mark(shown.start) + mark(tabs - shown.end)
}

/// Which tabs, and how long their labels may be: first all with shorter and shorter labels, then those around the
/// active one.
fn choose(tabs: &[TabLabel], active: usize, room: usize) -> (Range<usize>, usize) {
    let extents: Vec<_> = tabs.iter().enumerate().map(|(index, tab)| extent(index, tab)).collect();
    let extents = |shown: Range<usize>, longest: usize| -> usize {
        let tab = |(label, rest): &(usize, usize)| rest + if *label > 0 { 1 + longest.min(*label) } else { 0 } + 1;
        extents[shown].iter().map(tab).sum::<usize>().saturating_sub(1)
    };
    let all = 0..tabs.len();
    if let Some(longest) = (SHORTEST..=LONGEST).rev().find(|longest| extents(all.clone(), *longest) <= room) {
        return (all, longest);
    }
    let fits = |shown: &Range<usize>| frills(shown.clone(), tabs.len()) + extents(shown.clone(), SHORT) <= room;
    let mut shown = active..active + 1;
    loop {
        let right = (shown.end < tabs.len()).then(|| shown.start..shown.end + 1).filter(fits);
        let left = (shown.start > 0).then(|| shown.start - 1..shown.end).filter(fits);
        // The active tab stays in the middle as long as there are tabs on both sides.
        shown = match (left, right) {
            (Some(left), Some(right)) => {
                if active - shown.start < shown.end - active {
                    left
                } else {
                    right
                }
            }
            (Some(wider), None) | (None, Some(wider)) => wider,
            (None, None) => return (shown, SHORT),
        };
    }
}
