//! Where sessions are shown: tabs, in each a binary tree of splits, and who has the focus. An area in, rectangles out.
//! Every session stands in exactly one place. Absent: what a session is, cells, keys, clients.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::frame::Rect;

pub const MAX_TABS: usize = 32;
/// In one tab. It bounds the depth of the tree.
pub const MAX_PANES: usize = 256;
/// Characters of a tab's own name.
pub const MAX_NAME: usize = 16;
/// Of the JSON form.
const VERSION: u32 = 1;
/// What the first part of a split may have, and what one step of `resize` gives it, per mille.
const RATIOS: RangeInclusive<u16> = 50..=950;
const STEP: u32 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    SideBySide,
    Stacked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Left,
    Right,
    Up,
    Down,
}

impl Direction {
    /// Of the splits whose border moves this way.
    fn axis(self) -> Axis {
        match self {
            Self::Left | Self::Right => Axis::SideBySide,
            Self::Up | Self::Down => Axis::Stacked,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Layout {
    tabs: Vec<Tab>,
    active: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tab {
    name: Option<String>,
    root: Node,
    /// Every pane of the tree, the focused one last, before it the one that had the focus before.
    recent: Vec<SessionId>,
    zoomed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Pane(SessionId),
    Split(Box<Split>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Split {
    axis: Axis,
    /// Per mille of the room for both that the first part gets.
    ratio: u16,
    first: Node,
    second: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TabView<'a> {
    /// Its own name; without one it is called after the focused session.
    pub name: Option<&'a str>,
    /// In the order of the tree: from the left and the top.
    pub panes: Vec<SessionId>,
    pub focused: SessionId,
    pub zoomed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pane {
    pub session: SessionId,
    pub body: Rect,
    /// The row above the body, when more than one pane is shown.
    pub title: Option<Rect>,
}

impl Pane {
    pub fn outer(&self) -> Rect {
        let title_rows = self.title.map_or(0, |title| title.rows);
        Rect { row: self.body.row - title_rows, rows: self.body.rows + title_rows, ..self.body }
    }
}

/// Bodies, titles and dividers cover the area exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    pub panes: Vec<Pane>,
    pub dividers: Vec<Rect>,
}

/// The border between the two parts of a split, named by the panes around it, so that it stays itself when the tree changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Border {
    pub axis: Axis,
    before: SessionId,
    after: SessionId,
}

/// A split of which both parts are shown.
struct Shown {
    border: Border,
    area: Rect,
    first: Rect,
    second: Rect,
    /// Cells of the first part with which both parts still fit.
    limits: (u16, u16),
    has_focus: bool,
}

impl Layout {
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Shows it in a tab of its own, after the others. False: it is shown already, or there are `MAX_TABS`.
    pub fn new_tab(&mut self, session: SessionId) -> bool {
        let free = self.tabs.len() < MAX_TABS && !self.contains(session);
        if free {
            self.tabs.push(Tab::of(session));
            self.active = self.tabs.len() - 1;
        }
        free
    }

    /// Finds a place for a session that runs already, and leaves the focus where it is.
    pub fn adopt(&mut self, session: SessionId) {
        if self.contains(session) {
        } else if self.tabs.len() < MAX_TABS {
            self.tabs.push(Tab::of(session));
        } else if let Some(tab) = self.tabs.iter_mut().min_by_key(|tab| tab.recent.len()) {
            let (last, focused) = (tab.panes().last().copied().unwrap_or(session), tab.focused());
            tab.root.split(last, Axis::Stacked, session);
            tab.recent.insert(0, session);
            debug_assert_eq!(tab.focused(), focused);
        }
    }

    /// Puts the new session below or to the right of `at` and gives it the focus of that tab.
    pub fn split(&mut self, at: SessionId, axis: Axis, new: SessionId) -> bool {
        if self.contains(new) {
            return false;
        }
        let Some(tab) = self.tabs.iter_mut().find(|tab| tab.recent.contains(&at) && tab.recent.len() < MAX_PANES) else { return false };
        tab.root.split(at, axis, new);
        tab.recent.push(new);
        tab.zoomed = false;
        true
    }

    /// The focus goes to the pane of the tab that had it before, or, with the tab's last pane, to the tab beside it.
    pub fn remove(&mut self, session: SessionId) -> bool {
        let Some(index) = self.tab_of(session) else { return false };
        let tab = &mut self.tabs[index];
        match std::mem::replace(&mut tab.root, Node::Pane(session)).without(session) {
            Some(root) => {
                tab.zoomed &= tab.focused() != session && tab.recent.len() > 2;
                tab.root = root;
                tab.recent.retain(|other| *other != session);
            }
            None => {
                self.tabs.remove(index);
                if self.active > index || self.active == self.tabs.len() {
                    self.active = self.active.saturating_sub(1);
                }
            }
        }
        true
    }

    pub fn retain(&mut self, live: &BTreeSet<SessionId>) {
        let gone: Vec<_> = self.sessions().filter(|session| !live.contains(session)).collect();
        for session in gone {
            self.remove(session);
        }
    }

    pub fn contains(&self, session: SessionId) -> bool {
        self.tab_of(session).is_some()
    }

    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.tabs.iter().flat_map(Tab::panes)
    }

    pub fn tab_of(&self, session: SessionId) -> Option<usize> {
        self.tabs.iter().position(|tab| tab.recent.contains(&session))
    }

    // ---- focus ----

    pub fn focused(&self) -> Option<SessionId> {
        self.tabs.get(self.active).map(Tab::focused)
    }

    /// Shows its tab too, and leaves the zoom that would hide it.
    pub fn focus(&mut self, session: SessionId) -> bool {
        let Some(index) = self.tab_of(session) else { return false };
        self.active = index;
        let tab = &mut self.tabs[index];
        if tab.focused() != session {
            tab.zoomed = false;
            tab.recent.retain(|other| *other != session);
            tab.recent.push(session);
        }
        true
    }

    /// Of several neighbours the one that had the focus last, so that the opposite direction always leads back.
    pub fn focus_towards(&mut self, direction: Direction, area: Rect) -> bool {
        let Some(tab) = self.tabs.get(self.active) else { return false };
        let placed = tab.place(area);
        let outer = |session| placed.panes.iter().find(|pane| pane.session == session).map(Pane::outer);
        let from = outer(tab.focused());
        let beside = |session: &&SessionId| from.zip(outer(**session)).is_some_and(|(from, to)| touches(from, to, direction));
        tab.recent.iter().rev().find(beside).copied().is_some_and(|session| self.focus(session))
    }

    /// The next pane of the tab, shown or not.
    pub fn focus_next(&mut self) -> bool {
        let Some(tab) = self.tabs.get(self.active) else { return false };
        let panes = tab.panes();
        let next = panes.iter().cycle().skip_while(|session| **session != tab.focused()).nth(1).copied();
        panes.len() > 1 && next.is_some_and(|session| self.focus(session))
    }

    // ---- tabs ----

    pub fn active(&self) -> usize {
        self.active
    }

    pub fn tabs(&self) -> impl ExactSizeIterator<Item = TabView<'_>> {
        self.tabs.iter().map(|tab| TabView { name: tab.name.as_deref(), panes: tab.panes(), focused: tab.focused(), zoomed: tab.zoomed })
    }

    pub fn next_tab(&mut self) -> bool {
        self.jump((self.active + 1) % self.tabs.len().max(1))
    }

    pub fn previous_tab(&mut self) -> bool {
        let count = self.tabs.len().max(1);
        self.jump((self.active + count - 1) % count)
    }

    /// Tabs count from 0. False: there is no such tab, or it is shown already.
    pub fn jump(&mut self, index: usize) -> bool {
        let moves = index < self.tabs.len() && index != self.active;
        if moves {
            self.active = index;
        }
        moves
    }

    /// Moves the active tab among the others; it stops at the ends.
    pub fn move_tab(&mut self, by: isize) -> bool {
        let to = self.active.saturating_add_signed(by).min(self.tabs.len().saturating_sub(1));
        let moves = to != self.active;
        if moves {
            let tab = self.tabs.remove(self.active);
            self.tabs.insert(to, tab);
            self.active = to;
        }
        moves
    }

    /// Nothing, or nothing printable, takes the name away.
    pub fn rename_tab(&mut self, index: usize, name: Option<&str>) -> bool {
        let Some(tab) = self.tabs.get_mut(index) else { return false };
        tab.name = name.and_then(tidy);
        true
    }

    // ---- geometry ----

    pub fn toggle_zoom(&mut self) -> bool {
        let Some(tab) = self.tabs.get_mut(self.active).filter(|tab| tab.recent.len() > 1) else { return false };
        tab.zoomed = !tab.zoomed;
        true
    }

    /// Where the panes of the active tab go. The focused one is always among them; what does not fit is left out.
    pub fn place(&self, area: Rect) -> Placed {
        match self.tabs.get(self.active) {
            Some(tab) if tab.zoomed && !area.is_empty() => tab.alone(area),
            Some(tab) => tab.place(area),
            None => Placed::default(),
        }
    }

    /// Moves the border that is nearest to the focused pane, up the tree, by a twentieth, at least by one cell.
    pub fn resize(&mut self, direction: Direction, area: Rect) -> bool {
        let axis = direction.axis();
        let Some(shown) = self.shown(area).into_iter().rfind(|shown| shown.has_focus && shown.border.axis == axis) else { return false };
        let (first, room) = (along(axis, shown.first), shown.room());
        let step = ((u32::from(room) * STEP + 500) / 1000).max(1) as u16;
        let cells = match direction {
            Direction::Left | Direction::Up => first.saturating_sub(step),
            Direction::Right | Direction::Down => first + step,
        };
        self.set(&shown, cells)
    }

    /// What the mouse can take hold of here: a divider, or the title row between two stacked panes.
    pub fn border_at(&self, row: u16, col: u16, area: Rect) -> Option<Border> {
        // The innermost last: its divider may end in the title row of an outer split.
        self.shown(area).into_iter().rfind(|shown| shown.handle().contains(row, col)).map(|shown| shown.border)
    }

    /// Puts the border where the mouse is, as near as the panes beside it allow.
    pub fn drag(&mut self, border: Border, row: u16, col: u16, area: Rect) -> bool {
        let Some(shown) = self.shown(area).into_iter().find(|shown| shown.border == border) else { return false };
        let cells = match border.axis {
            Axis::SideBySide => col.saturating_sub(shown.area.col),
            Axis::Stacked => row.saturating_sub(shown.area.row),
        };
        self.set(&shown, cells)
    }

    /// The splits that can be seen, each after those around it.
    fn shown(&self, area: Rect) -> Vec<Shown> {
        let mut shown = Vec::new();
        if let Some(tab) = self.tabs.get(self.active).filter(|tab| !tab.zoomed) {
            tab.walk(&tab.root, area, &mut |seen| {
                if let Seen::Split(split) = seen {
                    shown.push(split);
                }
            });
        }
        shown
    }

    fn set(&mut self, shown: &Shown, cells: u16) -> bool {
        let (cells, room) = (u32::from(cells.clamp(shown.limits.0, shown.limits.1)), u32::from(shown.room()));
        let ratio = (((cells * 1000 + room / 2) / room) as u16).clamp(*RATIOS.start(), *RATIOS.end());
        let Some(split) = self.tabs.get_mut(self.active).and_then(|tab| tab.root.split_between(&shown.border)) else { return false };
        let moves = split.ratio != ratio;
        split.ratio = ratio;
        moves
    }
}

enum Seen {
    Pane(Pane),
    Split(Shown),
}

impl Tab {
    fn of(session: SessionId) -> Self {
        Self { name: None, root: Node::Pane(session), recent: vec![session], zoomed: false }
    }

    fn focused(&self) -> SessionId {
        *self.recent.last().expect("BUG: a tab without panes")
    }

    fn panes(&self) -> Vec<SessionId> {
        let mut panes = Vec::with_capacity(self.recent.len());
        self.root.each_pane(&mut |session| panes.push(session));
        panes
    }

    fn alone(&self, area: Rect) -> Placed {
        Placed { panes: vec![Pane { session: self.focused(), body: area, title: None }], dividers: Vec::new() }
    }

    fn place(&self, area: Rect) -> Placed {
        let mut placed = Placed::default();
        if area.is_empty() {
            return placed;
        }
        self.walk(&self.root, area, &mut |seen| match seen {
            Seen::Pane(pane) => placed.panes.push(pane),
            Seen::Split(shown) if shown.border.axis == Axis::SideBySide => placed.dividers.push(shown.handle()),
            Seen::Split(_) => {}
        });
        // One pane needs no title, and there may have been no room for one.
        if placed.panes.len() > 1 { placed } else { self.alone(area) }
    }

    /// Tells what is seen of the node within the area, outer before inner. Of a split that has no room for two panes it is the
    /// part that had the focus last.
    fn walk(&self, node: &Node, area: Rect, tell: &mut impl FnMut(Seen)) {
        let split = match node {
            Node::Pane(session) => {
                let (title, body) = (Rect { rows: area.rows.min(1), ..area }, below(area, 1));
                return tell(Seen::Pane(Pane { session: *session, body, title: Some(title) }));
            }
            Node::Split(split) => split,
        };
        match split.parts(area) {
            Some((first, second, limits)) => {
                let border = split.border();
                tell(Seen::Split(Shown { border, area, first, second, limits, has_focus: node.contains(self.focused()) }));
                self.walk(&split.first, first, tell);
                self.walk(&split.second, second, tell);
            }
            None => {
                let mut recent = self.recent.iter().rev();
                let in_first = recent.find_map(|&session| match (split.first.contains(session), split.second.contains(session)) {
                    (false, false) => None,
                    (in_first, _) => Some(in_first),
                });
                self.walk(if in_first == Some(true) { &split.first } else { &split.second }, area, tell);
            }
        }
    }
}

impl Shown {
    fn room(&self) -> u16 {
        along(self.border.axis, self.area) - gap(self.border.axis)
    }

    /// The cells of the border: the divider, or the top row of the lower part.
    fn handle(&self) -> Rect {
        match self.border.axis {
            Axis::SideBySide => Rect { col: self.first.col + self.first.cols, cols: 1, ..self.area },
            Axis::Stacked => Rect { rows: 1, ..self.second },
        }
    }
}

impl Node {
    fn each_pane(&self, tell: &mut impl FnMut(SessionId)) {
        match self {
            Self::Pane(session) => tell(*session),
            Self::Split(split) => {
                split.first.each_pane(tell);
                split.second.each_pane(tell);
            }
        }
    }

    fn contains(&self, wanted: SessionId) -> bool {
        match self {
            Self::Pane(session) => *session == wanted,
            Self::Split(split) => split.first.contains(wanted) || split.second.contains(wanted),
        }
    }

    fn first_pane(&self) -> SessionId {
        match self {
            Self::Pane(session) => *session,
            Self::Split(split) => split.first.first_pane(),
        }
    }

    fn last_pane(&self) -> SessionId {
        match self {
            Self::Pane(session) => *session,
            Self::Split(split) => split.second.last_pane(),
        }
    }

    fn split(&mut self, at: SessionId, axis: Axis, new: SessionId) {
        match self {
            Self::Pane(session) if *session == at => {
                *self = Self::Split(Box::new(Split { axis, ratio: 500, first: Self::Pane(at), second: Self::Pane(new) }));
            }
            Self::Pane(_) => {}
            Self::Split(split) => {
                split.first.split(at, axis, new);
                split.second.split(at, axis, new);
            }
        }
    }

    fn without(self, gone: SessionId) -> Option<Self> {
        match self {
            Self::Pane(session) => (session != gone).then_some(self),
            Self::Split(split) => {
                let Split { axis, ratio, first, second } = *split;
                match (first.without(gone), second.without(gone)) {
                    (Some(first), Some(second)) => Some(Self::Split(Box::new(Split { axis, ratio, first, second }))),
                    (rest, None) | (None, rest) => rest,
                }
            }
        }
    }

    /// The split that has one of the two in its first part and the other in its second.
    fn split_between(&mut self, border: &Border) -> Option<&mut Split> {
        let Self::Split(split) = self else { return None };
        match (split.first.contains(border.before), split.second.contains(border.after)) {
            (true, true) => Some(split),
            (true, false) => split.first.split_between(border),
            (false, _) => split.second.split_between(border),
        }
    }

    /// Cells along the axis that show every pane.
    fn needs(&self, axis: Axis) -> u16 {
        match self {
            Self::Pane(_) => least(axis),
            Self::Split(split) => {
                let (first, second) = (split.first.needs(axis), split.second.needs(axis));
                if split.axis == axis { first + gap(axis) + second } else { first.max(second) }
            }
        }
    }
}

impl Split {
    fn border(&self) -> Border {
        Border { axis: self.axis, before: self.first.last_pane(), after: self.second.first_pane() }
    }

    /// The areas of both parts and the limits of the first, or none when there is no room for one pane each.
    fn parts(&self, area: Rect) -> Option<(Rect, Rect, (u16, u16))> {
        let (axis, length) = (self.axis, along(self.axis, area));
        if length < 2 * least(axis) + gap(axis) || area.rows < least(Axis::Stacked) || area.is_empty() {
            return None;
        }
        let room = length - gap(axis);
        let all = (self.first.needs(axis), room.saturating_sub(self.second.needs(axis)));
        let limits = if all.0 <= all.1 { all } else { (least(axis), room - least(axis)) };
        let wanted = (u32::from(room) * u32::from(self.ratio) + 500) / 1000;
        let cells = (wanted as u16).clamp(limits.0, limits.1);
        let (first, second) = match axis {
            Axis::SideBySide => (Rect { cols: cells, ..area }, Rect { col: area.col + cells + 1, cols: room - cells, ..area }),
            Axis::Stacked => (Rect { rows: cells, ..area }, below(area, cells)),
        };
        Some((first, second, limits))
    }
}

fn along(axis: Axis, area: Rect) -> u16 {
    match axis {
        Axis::SideBySide => area.cols,
        Axis::Stacked => area.rows,
    }
}

/// The smallest pane: one cell, and above it its title.
fn least(axis: Axis) -> u16 {
    match axis {
        Axis::SideBySide => 1,
        Axis::Stacked => 2,
    }
}

/// Cells between the parts of a split.
fn gap(axis: Axis) -> u16 {
    match axis {
        Axis::SideBySide => 1,
        Axis::Stacked => 0,
    }
}

fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.rows);
    Rect { row: area.row + rows, rows: area.rows - rows, ..area }
}

/// Does `to` lie beyond the border on that side of `from`?
fn touches(from: Rect, to: Rect, direction: Direction) -> bool {
    let overlap = |a: (u16, u16), b: (u16, u16)| a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
    let rows = overlap((from.row, from.rows), (to.row, to.rows));
    let cols = overlap((from.col, from.cols), (to.col, to.cols));
    match direction {
        Direction::Left => rows && to.col + to.cols + 1 == from.col,
        Direction::Right => rows && from.col + from.cols + 1 == to.col,
        Direction::Up => cols && to.row + to.rows == from.row,
        Direction::Down => cols && from.row + from.rows == to.row,
    }
}

fn tidy(name: &str) -> Option<String> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

// ---- the JSON form: trees as lists, each split before its parts, because JSON nests only so deep ----

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    active: usize,
    tabs: Vec<SavedTab>,
}

#[derive(Serialize, Deserialize)]
struct SavedTab {
    name: Option<String>,
    tree: Vec<Item>,
    recent: Vec<SessionId>,
    zoomed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    Split { axis: Axis, ratio: u16 },
    Pane(SessionId),
}

impl From<Layout> for Saved {
    fn from(layout: Layout) -> Self {
        let tabs = layout.tabs.into_iter().map(|tab| {
            let mut tree = Vec::new();
            list(&tab.root, &mut tree);
            SavedTab { name: tab.name, tree, recent: tab.recent, zoomed: tab.zoomed }
        });
        Self { version: VERSION, active: layout.active, tabs: tabs.collect() }
    }
}

fn list(node: &Node, items: &mut Vec<Item>) {
    match node {
        Node::Pane(session) => items.push(Item::Pane(*session)),
        Node::Split(split) => {
            items.push(Item::Split { axis: split.axis, ratio: split.ratio });
            list(&split.first, items);
            list(&split.second, items);
        }
    }
}

impl TryFrom<Saved> for Layout {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        if saved.version != VERSION {
            return Err("another version");
        }
        if saved.tabs.len() > MAX_TABS || saved.active >= saved.tabs.len().max(1) {
            return Err("no such tab");
        }
        let mut seen = BTreeSet::new();
        let mut tabs = Vec::new();
        for tab in saved.tabs {
            if tab.tree.len() >= 2 * MAX_PANES {
                return Err("too many panes");
            }
            let mut items = tab.tree.into_iter();
            let root = node(&mut items).filter(|_| items.next().is_none()).ok_or("not a tree")?;
            let (mut panes, mut recent) = (Vec::new(), tab.recent.clone());
            root.each_pane(&mut |session| panes.push(session));
            if !panes.iter().all(|session| seen.insert(*session)) {
                return Err("a session in two places");
            }
            panes.sort();
            recent.sort();
            if panes != recent {
                return Err("the panes are not those that had the focus");
            }
            let zoomed = tab.zoomed && panes.len() > 1;
            tabs.push(Tab { name: tab.name.as_deref().and_then(tidy), root, recent: tab.recent, zoomed });
        }
        Ok(Self { tabs, active: saved.active })
    }
}

fn node(items: &mut impl Iterator<Item = Item>) -> Option<Node> {
    match items.next()? {
        Item::Pane(session) => Some(Node::Pane(session)),
        Item::Split { axis, ratio } => {
            let (first, second) = (node(items)?, node(items)?);
            let ratio = ratio.clamp(*RATIOS.start(), *RATIOS.end());
            Some(Node::Split(Box::new(Split { axis, ratio, first, second })))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Axis::{SideBySide, Stacked};
    use Direction::{Down, Left, Right, Up};

    const SCREEN: Rect = Rect { row: 1, col: 0, rows: 20, cols: 61 };

    fn s(id: u64) -> SessionId {
        SessionId(id)
    }

    /// 1 | 2
    ///   | 3
    fn three() -> Layout {
        let mut layout = Layout::default();
        layout.new_tab(s(1));
        layout.split(s(1), SideBySide, s(2));
        layout.split(s(2), Stacked, s(3));
        layout
    }

    /// One line for each row: the pane's number in its body, `-` in titles, `|` in dividers; `.` is a hole, `!` an overlap.
    fn drawn(placed: &Placed, area: Rect) -> Vec<String> {
        let mut cells = vec![vec!['.'; area.cols.into()]; area.rows.into()];
        let mut fill = |rect: Rect, mark: char| {
            for row in rect.row..rect.row + rect.rows {
                for col in rect.col..rect.col + rect.cols {
                    let cell = &mut cells[usize::from(row - area.row)][usize::from(col - area.col)];
                    *cell = if *cell == '.' { mark } else { '!' };
                }
            }
        };
        for pane in &placed.panes {
            fill(pane.body, char::from_digit(pane.session.0 as u32 % 36, 36).unwrap());
            if let Some(title) = pane.title {
                fill(title, '-');
            }
        }
        placed.dividers.iter().for_each(|divider| fill(*divider, '|'));
        cells.into_iter().map(String::from_iter).collect()
    }

    fn check(layout: &Layout, rows: u16, cols: u16, expected: &[&str]) {
        let area = Rect { row: 0, col: 0, rows, cols };
        assert_eq!(drawn(&layout.place(area), area), expected, "{rows}x{cols}");
    }

    #[test]
    fn pictures() {
        let mut layout = Layout::default();
        check(&layout, 2, 2, &["..", ".."]);
        layout.new_tab(s(1));
        check(&layout, 2, 3, &["111", "111"]);
        let mut layout = three();
        check(&layout, 4, 7, &["---|---", "111|222", "111|---", "111|333"]);
        check(&layout, 5, 3, &["-|-", "1|2", "1|2", "1|-", "1|3"]);
        // No room for all three: the one that had the focus last stays.
        check(&layout, 3, 3, &["-|-", "1|3", "1|3"]);
        check(&layout, 3, 2, &["33", "33", "33"]);
        layout.focus(s(2));
        check(&layout, 2, 3, &["-|-", "1|2"]);
        layout.focus(s(1));
        check(&layout, 1, 9, &["111111111"]);
        check(&layout, 1, 1, &["1"]);
        layout.toggle_zoom();
        check(&layout, 2, 9, &["111111111", "111111111"]);
    }

    #[test]
    fn every_size_is_tiled() {
        let mut deep = three();
        for id in 4..12 {
            deep.split(s(id - 1), if id % 2 == 0 { SideBySide } else { Stacked }, s(id));
        }
        let mut row = Layout::default();
        row.new_tab(s(1));
        for id in 2..14 {
            row.split(s(1), SideBySide, s(id));
        }
        for layout in [three(), deep, row] {
            for (rows, cols) in (1..=60).flat_map(|rows| (1..=120).map(move |cols| (rows, cols))) {
                check_placed(&layout, Rect { row: 3, col: 5, rows, cols });
            }
        }
    }

    fn check_placed(layout: &Layout, area: Rect) {
        let placed = layout.place(area);
        let drawn = drawn(&placed, area);
        assert!(!drawn.iter().any(|row| row.contains(['.', '!'])), "{area:?}\n{}\n{layout:?}", drawn.join("\n"));
        assert!(placed.panes.iter().all(|pane| !pane.body.is_empty()));
        assert!(placed.panes.iter().all(|pane| pane.title.is_some() == (placed.panes.len() > 1)));
        assert!(placed.panes.iter().any(|pane| Some(pane.session) == layout.focused()));
    }

    #[test]
    fn closing_leads_back() {
        let mut layout = three();
        layout.focus(s(1));
        layout.focus(s(2));
        assert!(layout.remove(s(2)) && !layout.remove(s(2)));
        assert_eq!(layout.focused(), Some(s(1)));
        layout.new_tab(s(8));
        layout.new_tab(s(9));
        layout.jump(1);
        layout.remove(s(8));
        assert_eq!((layout.active(), layout.focused()), (1, Some(s(9))));
        layout.remove(s(9));
        assert_eq!((layout.active(), layout.focused()), (0, Some(s(1))));
        layout.retain(&BTreeSet::new());
        assert_eq!(layout, Layout::default());
    }

    #[test]
    fn zoom_is_left_by_what_it_would_hide() {
        let zoomed = || {
            let mut layout = three();
            assert!(layout.toggle_zoom());
            layout
        };
        let is_zoomed = |layout: &Layout| layout.tabs().next().unwrap().zoomed;
        let check = |change: &dyn Fn(&mut Layout), expected: bool| {
            let mut layout = zoomed();
            change(&mut layout);
            assert_eq!(is_zoomed(&layout), expected, "{layout:?}");
        };
        check(&|layout| assert!(layout.focus(s(3))), true);
        check(&|layout| assert!(layout.focus(s(1))), false);
        check(&|layout| assert!(layout.focus_towards(Left, SCREEN)), false);
        check(&|layout| assert!(layout.focus_next()), false);
        check(&|layout| assert!(layout.split(s(3), Stacked, s(4))), false);
        check(&|layout| assert!(layout.remove(s(3))), false);
        check(&|layout| assert!(layout.remove(s(1))), true);
        check(&|layout| assert!(layout.remove(s(1)) && layout.remove(s(2))), false);
        check(&|layout| assert!(!layout.resize(Left, SCREEN)), true);
        check(&|layout| assert!(layout.toggle_zoom()), false);
        let mut single = Layout::default();
        single.new_tab(s(1));
        assert!(!single.toggle_zoom());
    }

    #[test]
    fn directions() {
        let mut layout = three();
        let mut go = |direction, expected: Option<u64>| {
            let before = layout.focused();
            let moved = layout.focus_towards(direction, SCREEN);
            assert_eq!(moved.then(|| layout.focused()), expected.map(|id| Some(s(id))), "{direction:?} from {before:?}");
        };
        go(Up, Some(2));
        go(Left, Some(1));
        go(Left, None);
        // The neighbour that had the focus last.
        go(Right, Some(2));
        go(Down, Some(3));
        go(Down, None);
        go(Left, Some(1));
        go(Right, Some(3));
    }

    #[test]
    fn borders_move() {
        let mut layout = three();
        let body = |layout: &Layout, id| layout.place(SCREEN).panes.iter().find(|pane| pane.session == s(id)).unwrap().body;
        assert_eq!((body(&layout, 1).cols, body(&layout, 3).rows), (30, 9));
        // 60 columns and 20 rows: a twentieth is 3 and 1.
        assert!(layout.resize(Right, SCREEN) && layout.resize(Up, SCREEN));
        assert_eq!((body(&layout, 1).cols, body(&layout, 3).rows), (33, 10));
        layout.focus(s(1));
        assert!(!layout.resize(Up, SCREEN), "it has no border above or below");
        assert!(layout.resize(Left, SCREEN));
        assert_eq!(body(&layout, 1).cols, 30);

        let divider = layout.border_at(5, 30, SCREEN).unwrap();
        assert!(layout.drag(divider, 5, 40, SCREEN) && !layout.drag(divider, 9, 40, SCREEN));
        assert_eq!((body(&layout, 1).cols, layout.border_at(5, 40, SCREEN)), (40, Some(divider)));
        let title = layout.border_at(1 + 9, 50, SCREEN).unwrap();
        assert_eq!((divider.axis, title.axis), (SideBySide, Stacked));
        assert!(layout.drag(title, 15, 0, SCREEN));
        assert_eq!((body(&layout, 2).rows, body(&layout, 3).row), (13, 16));
        assert!(layout.drag(title, 400, 0, SCREEN));
        assert_eq!(body(&layout, 3).rows, 1);
        // The title of the topmost pane is no border, nor is a body.
        assert_eq!((layout.border_at(1, 50, SCREEN), layout.border_at(3, 3, SCREEN)), (None, None));
        layout.remove(s(3));
        assert!(!layout.drag(title, 5, 0, SCREEN));
    }

    #[test]
    fn tabs_and_their_names() {
        let mut layout = Layout::default();
        assert!(!layout.next_tab() && !layout.previous_tab() && !layout.move_tab(1) && !layout.toggle_zoom() && !layout.focus_next());
        for id in 0..MAX_TABS as u64 {
            assert!(layout.new_tab(s(id)) && !layout.new_tab(s(id)));
        }
        assert!(!layout.new_tab(s(99)));
        layout.adopt(s(99));
        assert_eq!((layout.tab_of(s(99)), layout.focused()), (Some(0), Some(s(31))));
        assert!(layout.next_tab() && layout.active() == 0);
        assert_eq!(layout.focused(), Some(s(0)));
        assert!(layout.previous_tab() && layout.active() == 31);
        assert!(layout.move_tab(-30) && layout.active() == 1 && layout.focused() == Some(s(31)));
        assert!(layout.move_tab(-9) && layout.active() == 0 && !layout.move_tab(-1));
        assert!(!layout.jump(32) && !layout.jump(0) && layout.jump(7));
        for (name, expected) in [
            (Some("  logs\x1b[31m\n "), Some("logs[31m")),
            (Some("a name that is much too long"), Some("a name that is m")),
            (Some("żółć 漢字"), Some("żółć 漢字")),
            (Some(" \t"), None),
            (None, None),
        ] {
            assert!(layout.rename_tab(3, name));
            assert_eq!(layout.tabs().nth(3).unwrap().name, expected);
        }
        assert!(!layout.rename_tab(32, None));
    }

    #[test]
    fn only_a_sound_layout_is_read() {
        let good = serde_json::to_string(&three()).unwrap();
        assert_eq!(
            good,
            r#"{"version":1,"active":0,"tabs":[{"name":null,"tree":[{"split":{"axis":"side_by_side","ratio":500}},{"pane":1},"#.to_owned()
                + r#"{"split":{"axis":"stacked","ratio":500}},{"pane":2},{"pane":3}],"recent":[1,2,3],"zoomed":false}]}"#
        );
        assert_eq!(Layout::parse(&good), Some(three()));
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"active\":0", "\"active\":1"),
            ("{\"pane\":3}", "{\"pane\":2}"),
            ("[1,2,3]", "[1,2]"),
            ("[1,2,3]", "[1,2,2]"),
            (",{\"pane\":3}]", "]"),
            ("{\"pane\":3}]", "{\"pane\":3},{\"pane\":4}]"),
            ("stacked", "piled"),
            ("\"tree\"", "\"wood\""),
            ("]}", ""),
        ] {
            assert!(good.contains(from), "{from}");
            assert_eq!(Layout::parse(&good.replace(from, to)), None, "{from} -> {to}");
        }
        for garbage in ["", "{}", "null", "[]", "\u{0}"] {
            assert_eq!(Layout::parse(garbage), None);
        }
        let splits = vec!["{\"split\":{\"axis\":\"stacked\",\"ratio\":500}}"; 100_000].join(",");
        assert_eq!(
            Layout::parse(&format!(r#"{{"version":1,"active":0,"tabs":[{{"name":null,"tree":[{splits}],"recent":[],"zoomed":false}}]}}"#)),
            None
        );
        assert_eq!(Layout::parse(&good.replace("500", "65535")).map(|layout| check_placed(&layout, SCREEN)), Some(()));
    }

    #[test]
    fn the_deepest_tree_survives() {
        let mut layout = Layout::default();
        layout.new_tab(s(1));
        let made = (2..).take_while(|id| layout.split(s(id - 1), if id % 2 == 0 { Stacked } else { SideBySide }, s(*id))).count();
        assert_eq!(made + 1, MAX_PANES);
        assert_eq!(Layout::parse(&serde_json::to_string(&layout).unwrap()), Some(layout.clone()));
        check_placed(&layout, SCREEN);
    }

    #[derive(Debug, Clone)]
    enum Op {
        NewTab,
        Split(usize, Axis),
        Adopt,
        Remove(usize),
        Focus(usize),
        Towards(Direction),
        Next,
        Resize(Direction),
        Drag(u16, u16, u16, u16),
        Zoom,
        Tab(isize),
        Retain(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let axis = || prop_oneof![Just(SideBySide), Just(Stacked)];
        let direction = || prop_oneof![Just(Left), Just(Right), Just(Up), Just(Down)];
        prop_oneof![
            1 => Just(Op::NewTab),
            6 => (any::<usize>(), axis()).prop_map(|(at, axis)| Op::Split(at, axis)),
            1 => Just(Op::Adopt),
            3 => any::<usize>().prop_map(Op::Remove),
            2 => any::<usize>().prop_map(Op::Focus),
            3 => direction().prop_map(Op::Towards),
            1 => Just(Op::Next),
            3 => direction().prop_map(Op::Resize),
            3 => (0..70u16, 0..130u16, 0..70u16, 0..130u16).prop_map(|(a, b, c, d)| Op::Drag(a, b, c, d)),
            1 => Just(Op::Zoom),
            1 => (-3..3isize).prop_map(Op::Tab),
            1 => any::<u64>().prop_map(Op::Retain),
        ]
    }

    fn apply(layout: &mut Layout, live: &mut BTreeSet<SessionId>, next: &mut u64, op: &Op, area: Rect) {
        let nth = |n: usize| live.iter().nth(n % live.len().max(1)).copied().unwrap_or(s(0));
        let new = s(*next);
        *next += 1;
        match *op {
            Op::NewTab => assert_eq!(layout.new_tab(new), layout.contains(new) && live.insert(new)),
            Op::Split(at, axis) => assert_eq!(layout.split(nth(at), axis, new), !live.is_empty() && live.insert(new)),
            Op::Adopt => {
                let focused = layout.focused().unwrap_or(new);
                layout.adopt(new);
                live.insert(new);
                assert_eq!(layout.focused(), Some(focused));
            }
            Op::Remove(at) => {
                let gone = nth(at);
                assert_eq!(layout.remove(gone), live.remove(&gone));
            }
            Op::Focus(at) => assert_eq!(layout.focus(nth(at)), layout.focused() == Some(nth(at))),
            Op::Towards(direction) => towards(layout, direction, area),
            Op::Next => assert_eq!(layout.focus_next(), layout.tabs().nth(layout.active()).is_some_and(|tab| tab.panes.len() > 1)),
            Op::Resize(direction) => {
                layout.resize(direction, area);
            }
            Op::Drag(a, b, c, d) => {
                if let Some(border) = layout.border_at(a, b, area) {
                    layout.drag(border, c, d, area);
                    assert!(!layout.drag(border, c, d, area), "it is there already");
                }
            }
            Op::Zoom => {
                layout.toggle_zoom();
            }
            Op::Tab(by) if by < 0 => {
                layout.move_tab(by + 2);
            }
            Op::Tab(to) => {
                layout.jump(to as usize);
            }
            Op::Retain(bits) => {
                live.retain(|session| bits >> (session.0 % 64) & 1 == 1);
                layout.retain(live);
            }
        }
    }

    /// There and back again.
    fn towards(layout: &mut Layout, direction: Direction, area: Rect) {
        let from = layout.focused();
        let opposite = match direction {
            Left => Right,
            Right => Left,
            Up => Down,
            Down => Up,
        };
        let mut there = layout.clone();
        if there.focus_towards(direction, area) {
            assert_ne!(there.focused(), from);
            // The zoom is gone, so that what is shown may differ only where panes did not fit.
            let shown = |layout: &Layout| layout.place(area).panes.len();
            if shown(&there) == there.tabs().nth(there.active()).unwrap().panes.len() {
                let mut back = there.clone();
                assert!(back.focus_towards(opposite, area));
                assert_eq!(back.focused(), from);
            }
        }
        *layout = there;
    }

    proptest! {
        #[test]
        fn whatever_happens_it_stays_sound(
            ops in proptest::collection::vec((op(), 1..60u16, 1..120u16), 1..80)
        ) {
            let (mut layout, mut live, mut next) = (Layout::default(), BTreeSet::new(), 1);
            for (op, rows, cols) in ops {
                let area = Rect { row: 1, col: 2, rows, cols };
                apply(&mut layout, &mut live, &mut next, &op, area);
                let shown: Vec<_> = layout.sessions().collect();
                prop_assert_eq!(shown.len(), live.len(), "{:?}", op);
                prop_assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), live.clone());
                prop_assert_eq!(layout.focused().is_some(), !live.is_empty());
                prop_assert!(layout.tabs().all(|tab| tab.panes.contains(&tab.focused)));
                prop_assert!(layout.tabs().all(|tab| !tab.zoomed || tab.panes.len() > 1));
                if !live.is_empty() {
                    check_placed(&layout, area);
                }
                prop_assert_eq!(Layout::parse(&serde_json::to_string(&layout).unwrap()), Some(layout.clone()));
            }
        }

        #[test]
        fn garbled_json_is_refused_or_sound(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut json = serde_json::to_string(&three()).unwrap().into_bytes();
            let at = at.index(json.len());
            json[at] = byte;
            if let Some(layout) = Layout::parse(&String::from_utf8_lossy(&json)) {
                check_placed(&layout, SCREEN);
            }
        }
    }
}
