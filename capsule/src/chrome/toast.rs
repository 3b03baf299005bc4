//! Short messages that come and go by themselves, stacked under the strip's right end. Texts and times in, cells and
//! the next deadline out. Absent: the clock.

use crate::frame::{Frame, Rect};

use super::pen::{Pen, common};
use super::text::{cut, width, wrap};
use super::theme::{Level, Theme};

/// Monotonic milliseconds.
pub type Millis = u64;

pub const MAX_TOASTS: usize = 4;
/// Of one message; in a small area less, so that the panes are seen behind it.
const MAX_LINES: usize = 4;
const WIDEST: usize = 60;
/// A message stays this long, and longer the more there is to read.
const SHORTEST_STAY: Millis = 3_000;
const STAY_PER_CHAR: Millis = 45;
const LONGEST_STAY: Millis = 12_000;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Toast {
    level: Level,
    text: String,
    times: usize,
    until: Millis,
}

/// The newest last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toasts(Vec<Toast>);

impl Toasts {
    /// What is said again is counted instead of shown twice.
    pub fn push(&mut self, now: Millis, level: Level, text: impl Into<String>) {
        let text = text.into();
        let stay = (SHORTEST_STAY + STAY_PER_CHAR * text.chars().count() as Millis).min(LONGEST_STAY);
        let stay = if level == Level::Error { LONGEST_STAY } else { stay };
        let same = self.0.iter().position(|toast| toast.level == level && toast.text == text);
        let times = same.map_or(1, |at| self.0.remove(at).times + 1);
        self.0.push(Toast { level, text, times, until: now.saturating_add(stay) });
        if self.0.len() > MAX_TOASTS {
            self.0.remove(0);
        }
    }

    /// Whether any went.
    pub fn expire(&mut self, now: Millis) -> bool {
        let before = self.0.len();
        self.0.retain(|toast| toast.until > now);
        self.0.len() < before
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        self.0.iter().map(|toast| toast.until).min()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes away the message there; whether there was one.
    pub fn click(&mut self, area: Rect, row: u16, col: u16) -> bool {
        let hit = self.lay(area, "").into_iter().find(|(_, place, _)| place.contains(row, col));
        hit.map(|(index, ..)| self.0.remove(index)).is_some()
    }

    /// Which message stands where, with its lines. When rows are few the newest are shown.
    fn lay(&self, area: Rect, mark: &str) -> Vec<(usize, Rect, Vec<String>)> {
        let widest = WIDEST.min(usize::from(area.cols));
        let mut rows = usize::from(area.rows).div_ceil(2);
        let most = MAX_LINES.min(rows.div_ceil(2)).max(1);
        let boxes = self.0.iter().map(|toast| {
            let text = if toast.times > 1 { format!("{} (x{})", toast.text, toast.times) } else { toast.text.clone() };
            let mut lines = wrap(&text, widest.saturating_sub(2));
            if lines.len() > most {
                lines.truncate(most);
                let last = format!("{} {}", lines[most - 1], mark.repeat(2));
                lines[most - 1] = cut(&last, widest.saturating_sub(2), mark).into_owned();
            }
            lines
        });
        let boxes: Vec<_> = boxes.collect();
        let fits = |lines: &&Vec<String>| rows.checked_sub(lines.len()).map(|left| rows = left).is_some();
        let count = boxes.iter().rev().take_while(fits).count();
        let mut row = area.row;
        let mut laid = Vec::new();
        for (index, lines) in boxes.into_iter().enumerate().skip(self.0.len() - count) {
            let cols = (lines.iter().map(|line| width(line)).max().unwrap_or(0) + 2).min(area.cols.into()) as u16;
            let place = Rect { row, col: area.col + (area.cols - cols), rows: lines.len() as u16, cols };
            row += place.rows;
            laid.push((index, place, lines));
        }
        laid
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = common(area, Rect::of(frame.size()));
        for (index, place, lines) in self.lay(area, theme.marks.cut) {
            let style = theme.toast(self.0[index].level);
            frame.fill(place, style);
            for (row, line) in (0..).zip(&lines) {
                Pen::new(frame, place, row).put(style, " ").put(style, line);
            }
        }
    }
}
