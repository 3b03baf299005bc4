//! The bottom bar: where one is, who works there, and the key that leads on. Facts in, cells and what a click meant out.
//! What matters least gives way first when columns are few.

use std::ops::Range;

use crate::control::SessionState;
use crate::frame::{Frame, Rect, Style};

use super::pen::Pen;
use super::text::{cut, cut_front, width};
use super::theme::{Theme, over};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    pub role: String,
    pub instance: String,
    pub branch: Option<String>,
    pub dirty: bool,
    /// The focused session: its label, provider and state.
    pub session: Option<(String, Option<String>, SessionState)>,
    pub recording: bool,
    /// Attached clients that may type, and those that only watch.
    pub clients: usize,
    pub watchers: usize,
    /// The key that opens the palette, as one writes it; none when it is turned off.
    pub leader: Option<String>,
    pub mode: Option<Mode>,
}

/// Keys go elsewhere than to the session: what that is called, and what the keys do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    pub name: String,
    pub hint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarHit {
    Info,
    Branch,
    Session,
    Recording,
    Clients,
    Menu,
}

type Spans = Vec<(Style, String)>;

/// A part of the bar: its forms from long to short, each with what it is worth. The cheapest form in sight goes first.
struct Part {
    hit: Option<BarHit>,
    right: bool,
    forms: Vec<(u8, Spans)>,
}

impl Part {
    fn cols(&self) -> usize {
        self.forms.first().map_or(0, |(_, spans)| spans.iter().map(|(_, text)| width(text)).sum())
    }
}

const LONGEST_NAME: usize = 40;
const SHORT_NAME: usize = 14;

impl Bar {
    /// The parts as they stand in this many columns, each with its place.
    fn lay(&self, cols: usize, theme: &Theme) -> Vec<(Range<usize>, Part)> {
        let mut parts = self.parts(theme);
        while parts.iter().map(Part::cols).sum::<usize>() > cols {
            let cheapest = parts.iter_mut().filter(|part| !part.forms.is_empty()).min_by_key(|part| part.forms[0].0);
            let Some(part) = cheapest else { break };
            part.forms.remove(0);
        }
        parts.retain(|part| !part.forms.is_empty());
        let right: usize = parts.iter().filter(|part| part.right).map(Part::cols).sum();
        let (mut left, mut right) = (0, cols - right);
        let place = |part: Part| {
            let from = if part.right { &mut right } else { &mut left };
            *from += part.cols();
            (*from - part.cols()..*from, part)
        };
        parts.into_iter().map(place).collect()
    }

    fn parts(&self, theme: &Theme) -> Vec<Part> {
        let (marks, bar, chip) = (theme.marks, theme.bar, theme.chip);
        let plain = |text: String| vec![(bar, text)];
        let button = |text: &str| vec![(chip, format!(" {text} ")), (bar, " ".to_owned())];
        let mut parts = Vec::new();
        let mut push = |hit, right, forms| parts.push(Part { hit, right, forms });

        if let Some(mode) = &self.mode {
            push(None, false, vec![(95, vec![(theme.mode, format!(" {} ", mode.name)), (bar, " ".to_owned())])]);
            push(None, true, vec![(88, plain(format!("{} ", mode.hint))), (92, plain(cut(&mode.hint, 24, marks.cut).into_owned()))]);
        }
        let instance = cut(&self.instance, LONGEST_NAME, marks.cut);
        let mut info = vec![(15, button(&format!("{} {} {instance}", self.role, marks.dot))), (72, button(&instance))];
        info.push((90, vec![(chip, cut(&instance, SHORT_NAME, marks.cut).into_owned())]));
        push(Some(BarHit::Info), false, info);
        if let Some(branch) = &self.branch {
            let dirty = if self.dirty { "*" } else { "" };
            let form = |cols| button(&format!("{}{dirty}", cut_front(branch, cols, marks.cut)));
            push(Some(BarHit::Branch), false, vec![(25, form(LONGEST_NAME)), (55, form(SHORT_NAME))]);
        }
        if let Some((label, provider, state)) = &self.session {
            let mark = |pad: &str| (theme.state(*state, bar), format!("{pad}{}", marks.state(*state)));
            let label = cut(label, LONGEST_NAME, marks.cut);
            let mut forms = Vec::new();
            if let Some(provider) = provider {
                forms.push((20, vec![mark(""), (bar, format!(" {label} {} {provider} {} {state} ", marks.dot, marks.dot))]));
            }
            forms.push((50, vec![mark(""), (bar, format!(" {label} {} {state} ", marks.dot))]));
            forms.push((60, vec![mark(""), (bar, format!(" {} ", cut(&label, SHORT_NAME, marks.cut)))]));
            forms.push((80, vec![mark(" ")]));
            push(Some(BarHit::Session), false, forms);
        }
        if self.recording {
            let red = over(bar, theme.recording);
            let form = |text: &str| vec![(red, format!(" {}{text} ", marks.recording))];
            push(Some(BarHit::Recording), true, vec![(35, form(" rec")), (85, form(""))]);
        }
        if self.clients + self.watchers > 1 {
            let watchers = if self.watchers == 0 { String::new() } else { format!(", {} watching", self.watchers) };
            let plural = if self.clients == 1 { "" } else { "s" };
            let short = if self.watchers == 0 { self.clients.to_string() } else { format!("{}+{}", self.clients, self.watchers) };
            let forms = vec![(10, plain(format!(" {} client{plural}{watchers} ", self.clients))), (40, plain(format!(" {short} ")))];
            push(Some(BarHit::Clients), true, forms);
        }
        if let (Some(leader), None) = (&self.leader, &self.mode) {
            let key = (over(bar, theme.key), format!(" {leader} "));
            push(Some(BarHit::Menu), true, vec![(30, vec![key.clone(), (bar, "menu ".to_owned())]), (70, vec![key])]);
        }
        parts
    }

    /// `col` counts from the bar's own left end.
    pub fn hit(&self, cols: u16, col: u16, theme: &Theme) -> Option<BarHit> {
        let col = usize::from(col);
        self.lay(cols.into(), theme).into_iter().find(|(place, _)| place.contains(&col))?.1.hit
    }

    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        let area = Rect { rows: area.rows.min(1), ..area };
        frame.fill(area, theme.bar);
        for (place, part) in self.lay(area.cols.into(), theme) {
            // Within the area's columns, hence a u16.
            let from = place.start as u16;
            let mut pen = Pen::new(frame, Rect { col: area.col + from, cols: area.cols - from, ..area }, 0);
            for (style, text) in &part.forms[0].1 {
                pen.put(*style, text);
            }
        }
    }
}
