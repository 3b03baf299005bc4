//! How the chrome looks: a style for every role, a character for every mark. Decided once, from what the terminals can
//! show; painters name roles only. Without colour the attributes alone tell the roles apart, and no state is told by
//! colour alone.

use crate::control::SessionState;
use crate::frame::{Color, Style, attr};

/// What the clients' terminals have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub color: bool,
    /// Not only ASCII.
    pub unicode: bool,
    /// A light background.
    pub light: bool,
}

impl Look {
    pub fn is_light(background: [u8; 3]) -> bool {
        let [r, g, b] = background.map(u32::from);
        r * 299 + g * 587 + b * 114 > 127_500
    }
}

/// How much a message wants to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Good,
    Warning,
    Error,
}

/// Each is one column wide.
#[derive(Debug, PartialEq, Eq)]
pub struct Marks {
    /// Lines by the sides they reach: 1 up, 2 down, 4 left, 8 right.
    pub lines: [&'static str; 16],
    pub working: &'static str,
    pub blocked: &'static str,
    pub done: &'static str,
    pub idle: &'static str,
    pub unknown: &'static str,
    pub zoomed: &'static str,
    pub recording: &'static str,
    pub menu: &'static str,
    pub dot: &'static str,
    pub cut: &'static str,
    pub left: &'static str,
    pub right: &'static str,
    pub above: &'static str,
    pub below: &'static str,
}

pub const UP: usize = 1;
pub const DOWN: usize = 2;
pub const LEFT: usize = 4;
pub const RIGHT: usize = 8;

static UNICODE: Marks = Marks {
    lines: [" ", "│", "│", "│", "─", "┘", "┐", "┤", "─", "└", "┌", "├", "─", "┴", "┬", "┼"],
    working: "●",
    blocked: "▲",
    done: "✓",
    idle: "○",
    unknown: "·",
    zoomed: "□",
    recording: "◉",
    menu: "≡",
    dot: "·",
    cut: "…",
    left: "‹",
    right: "›",
    above: "↑",
    below: "↓",
};

static ASCII: Marks = Marks {
    lines: [" ", "|", "|", "|", "-", "+", "+", "+", "-", "+", "+", "+", "-", "+", "+", "+"],
    working: "*",
    blocked: "!",
    done: "+",
    idle: "-",
    unknown: "?",
    zoomed: "Z",
    recording: "R",
    menu: "=",
    dot: "-",
    cut: "~",
    left: "<",
    right: ">",
    above: "^",
    below: "v",
};

impl Marks {
    pub fn state(&self, state: SessionState) -> &'static str {
        match state {
            SessionState::Working => self.working,
            SessionState::Blocked => self.blocked,
            SessionState::Done => self.done,
            SessionState::Idle => self.idle,
            SessionState::Unknown => self.unknown,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theme {
    pub marks: &'static Marks,
    /// The tab strip, and tabs that are not shown.
    pub strip: Style,
    pub tab: Style,
    pub bar: Style,
    /// What can be clicked in the bar.
    pub chip: Style,
    /// The bar while keys go elsewhere than to the session.
    pub mode: Style,
    pub border: Style,
    pub focused_border: Style,
    pub title: Style,
    pub focused_title: Style,
    pub dialog: Style,
    pub dialog_border: Style,
    pub heading: Style,
    pub selected: Style,
    /// Keys beside what they do.
    pub key: Style,
    pub hint: Style,
    pub disabled: Style,
    pub warning: Style,
    pub input: Style,
    /// The letters of an entry that the filter found.
    pub matched: Style,
    /// Search in history: every hit, and the one gone to.
    pub found: Style,
    pub found_here: Style,
    pub selection: Style,
    pub recording: Style,
    /// Of working, blocked, done; the others are as quiet as the text around them.
    states: [Style; 3],
    toasts: [Style; 4],
}

const fn style(fg: Option<u8>, bg: Option<u8>, attrs: u16) -> Style {
    const fn color(index: Option<u8>) -> Color {
        match index {
            Some(index) => Color::index(index),
            None => Color::DEFAULT,
        }
    }
    Style { fg: color(fg), bg: color(bg), underline: Color::DEFAULT, link: 0, attrs }
}

impl Theme {
    pub fn new(look: Look) -> Self {
        let marks = if look.unicode { &UNICODE } else { &ASCII };
        match (look.color, look.light) {
            (false, _) => Self::plain(marks),
            (true, false) => Self::dark(marks),
            (true, true) => Self::light(marks),
        }
    }

    // Numbers are of the 256-colour table: every terminal with colours has it, and it does not move with the user's
    // own sixteen, so that text and its ground always stand apart.

    fn dark(marks: &'static Marks) -> Self {
        let on = |fg, attrs| style(Some(fg), Some(235), attrs);
        Self {
            marks,
            strip: on(248, 0),
            tab: style(Some(255), Some(24), attr::BOLD),
            bar: on(248, 0),
            chip: style(Some(252), Some(238), 0),
            mode: style(Some(16), Some(179), attr::BOLD),
            border: style(Some(240), None, 0),
            focused_border: style(Some(74), None, 0),
            title: style(Some(246), None, 0),
            focused_title: style(Some(255), None, attr::BOLD),
            dialog: on(252, 0),
            dialog_border: on(74, 0),
            heading: on(255, attr::BOLD),
            selected: style(Some(255), Some(24), 0),
            key: on(110, 0),
            hint: on(246, 0),
            disabled: on(243, 0),
            warning: on(214, attr::BOLD),
            input: style(Some(255), Some(238), 0),
            matched: style(Some(222), None, attr::BOLD),
            found: style(Some(16), Some(180), 0),
            found_here: style(Some(16), Some(214), attr::BOLD),
            selection: style(Some(255), Some(24), 0),
            recording: style(Some(203), None, attr::BOLD),
            states: [117, 214, 120].map(|fg| style(Some(fg), None, 0)),
            toasts: [
                style(Some(252), Some(238), 0),
                style(Some(16), Some(114), 0),
                style(Some(16), Some(214), 0),
                style(Some(255), Some(124), attr::BOLD),
            ],
        }
    }

    fn light(marks: &'static Marks) -> Self {
        let on = |fg, attrs| style(Some(fg), Some(254), attrs);
        Self {
            marks,
            strip: on(239, 0),
            tab: style(Some(16), Some(153), attr::BOLD),
            bar: on(239, 0),
            chip: style(Some(236), Some(251), 0),
            mode: style(Some(16), Some(180), attr::BOLD),
            border: style(Some(249), None, 0),
            focused_border: style(Some(25), None, 0),
            title: style(Some(242), None, 0),
            focused_title: style(Some(16), None, attr::BOLD),
            dialog: on(236, 0),
            dialog_border: on(25, 0),
            heading: on(16, attr::BOLD),
            selected: style(Some(16), Some(153), 0),
            key: on(25, 0),
            hint: on(241, 0),
            disabled: on(243, 0),
            warning: on(124, attr::BOLD),
            input: style(Some(16), Some(251), 0),
            matched: style(Some(88), None, attr::BOLD),
            found: style(Some(16), Some(222), 0),
            found_here: style(Some(16), Some(208), attr::BOLD),
            selection: style(Some(16), Some(153), 0),
            recording: style(Some(160), None, attr::BOLD),
            states: [25, 124, 22].map(|fg| style(Some(fg), None, 0)),
            toasts: [
                style(Some(236), Some(251), 0),
                style(Some(16), Some(114), 0),
                style(Some(16), Some(214), 0),
                style(Some(255), Some(124), attr::BOLD),
            ],
        }
    }

    fn plain(marks: &'static Marks) -> Self {
        use attr::{BOLD, DIM, INVERSE, SINGLE_UNDERLINE};
        let only = |attrs| style(None, None, attrs);
        Self {
            marks,
            strip: only(INVERSE),
            tab: only(BOLD),
            bar: only(INVERSE),
            chip: only(INVERSE | SINGLE_UNDERLINE),
            mode: only(BOLD),
            border: only(0),
            focused_border: only(BOLD),
            title: only(0),
            focused_title: only(BOLD),
            dialog: only(0),
            dialog_border: only(BOLD),
            heading: only(BOLD),
            selected: only(INVERSE),
            key: only(BOLD),
            hint: only(DIM),
            disabled: only(DIM),
            warning: only(BOLD | SINGLE_UNDERLINE),
            input: only(SINGLE_UNDERLINE),
            matched: only(SINGLE_UNDERLINE),
            found: only(SINGLE_UNDERLINE),
            found_here: only(INVERSE | BOLD),
            selection: only(INVERSE),
            recording: only(BOLD),
            states: [only(0), only(BOLD), only(0)],
            toasts: [only(INVERSE), only(INVERSE), only(INVERSE | BOLD), only(INVERSE | BOLD | SINGLE_UNDERLINE)],
        }
    }

    /// A session's mark on whatever it stands on.
    pub fn state(&self, state: SessionState, on: Style) -> Style {
        let [working, blocked, done] = self.states;
        match state {
            SessionState::Working => over(on, working),
            SessionState::Blocked => over(on, blocked),
            SessionState::Done => over(on, done),
            SessionState::Idle | SessionState::Unknown => on,
        }
    }

    pub fn toast(&self, level: Level) -> Style {
        match level {
            Level::Info => self.toasts[0],
            Level::Good => self.toasts[1],
            Level::Warning => self.toasts[2],
            Level::Error => self.toasts[3],
        }
    }
}

/// `top` where it says something, else `ground`. Inverse upon inverse stands out as what is not inverse.
pub fn over(ground: Style, top: Style) -> Style {
    let pick = |top: Color, ground| if top == Color::DEFAULT { ground } else { top };
    let attrs = (ground.attrs | top.attrs) & !(ground.attrs & top.attrs & attr::INVERSE);
    // Colours that the program had swapped would come out swapped here.
    let attrs = if top.bg == Color::DEFAULT { attrs } else { attrs & !attr::INVERSE };
    Style { fg: pick(top.fg, ground.fg), bg: pick(top.bg, ground.bg), attrs, ..ground }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Hue;

    const STATES: [SessionState; 5] =
        [SessionState::Working, SessionState::Blocked, SessionState::Done, SessionState::Idle, SessionState::Unknown];

    #[test]
    fn states_are_told_without_colour() {
        for marks in [&UNICODE, &ASCII] {
            let mut seen: Vec<_> = STATES.map(|state| marks.state(state)).to_vec();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 5);
        }
    }

    #[test]
    fn the_ascii_marks_are_ascii_and_all_marks_one_column() {
        let all = |marks: &Marks| -> Vec<&'static str> {
            let Marks { lines, working, blocked, done, idle, unknown, zoomed, recording, menu, dot, cut, left, right, above, below } =
                *marks;
            let rest = [working, blocked, done, idle, unknown, zoomed, recording, menu, dot, cut, left, right, above, below];
            lines.into_iter().chain(rest).collect()
        };
        assert!(all(&ASCII).iter().all(|mark| mark.is_ascii()));
        for mark in [all(&ASCII), all(&UNICODE)].concat() {
            assert_eq!(super::super::text::width(mark), 1, "{mark}");
        }
    }

    #[test]
    fn no_colour_means_none() {
        let theme = Theme::new(Look { color: false, unicode: true, light: true });
        let text = format!("{theme:?}");
        assert_eq!(text.matches("Color(").count(), text.matches("Color(0)").count());
    }

    /// What index this has in the table of 256.
    fn rgb(color: Color, default: [u8; 3]) -> [u8; 3] {
        match color.hue() {
            Hue::Default => default,
            Hue::Rgb(r, g, b) => [r, g, b],
            Hue::Index(16) => [0; 3],
            Hue::Index(index @ 232..) => [8 + (index - 232) * 10; 3],
            Hue::Index(index @ 17..) => {
                let index = index - 16;
                [index / 36, index / 6 % 6, index % 6].map(|level| if level == 0 { 0 } else { 55 + level * 40 })
            }
            Hue::Index(index) => panic!("{index} is the user's"),
        }
    }

    /// As the WCAG count it: 1 is none, 21 black on white.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let light = |rgb: [u8; 3]| {
            let [r, g, b] =
                rgb.map(|v| f64::from(v) / 255.0).map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
            0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        };
        let (a, b) = (light(a), light(b));
        a.max(b) / a.min(b)
    }

    #[test]
    fn every_role_can_be_read() {
        for (light, ground) in [(false, [0x1e; 3]), (true, [0xff; 3])] {
            let theme = Theme::new(Look { color: true, unicode: true, light });
            let Theme { strip, tab, bar, chip, mode, title, focused_title, dialog, heading, selected, key, hint, warning, input, .. } =
                theme;
            let Theme { found, found_here, selection, .. } = theme;
            let mut roles = vec![strip, tab, bar, chip, mode, title, focused_title, dialog, heading, selected, key, hint, warning, input];
            roles.extend([
                found,
                found_here,
                selection,
                over(dialog, theme.matched),
                over(theme.selected, theme.matched),
                over(bar, theme.key),
            ]);
            roles.extend(theme.toasts);
            for on in [strip, bar, tab, title] {
                roles.extend(STATES.map(|state| theme.state(state, on)));
            }
            let contrast_of = |role: Style| contrast(rgb(role.fg, ground), rgb(role.bg, ground));
            let faint: Vec<_> =
                roles.iter().enumerate().map(|(index, role)| (index, contrast_of(*role))).filter(|(_, c)| *c < 3.8).collect();
            assert!(faint.is_empty(), "light: {light}: {faint:.1?}");
            for faint in [theme.disabled, theme.recording, theme.focused_border] {
                assert!(contrast_of(faint) >= 3.0, "light: {light}: {faint:?}");
            }
        }
    }

    #[test]
    fn a_highlight_shows_on_any_ground() {
        for look in [true, false].map(|color| Look { color, unicode: true, light: false }) {
            let theme = Theme::new(look);
            for attrs in [0, attr::INVERSE, attr::INVERSE | attr::BOLD, attr::DIM] {
                let ground = style(Some(16), Some(114), attrs);
                assert_ne!(over(ground, theme.selection), ground, "{look:?}");
                assert_ne!(over(ground, theme.found_here), over(ground, theme.found), "{look:?}");
            }
            let swapped = over(style(None, None, attr::INVERSE), theme.selection);
            assert_eq!(swapped.attrs & attr::INVERSE, 0);
        }
    }

    #[test]
    fn grounds() {
        assert!(Look::is_light([0xfd, 0xf6, 0xe3]));
        assert!(!Look::is_light([0x28, 0x2a, 0x36]));
    }
}
