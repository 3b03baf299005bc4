//! The parts of a screen that rules look at. Rows in, slices of one text out. Absent: rules.

use std::fmt;

use super::View;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    Bottom(usize),
    /// From the n-th last line with anything on it.
    BottomNonempty(usize),
    PromptBoxBody,
    AbovePromptBox,
    AfterLastRule,
    LastNonemptyLine,
    AfterLastPromptMarker,
    BeforeCurrentPromptMarker,
    /// Nothing while there is a prompt.
    WholeRecentWithoutCurrentPromptMarker,
    OscTitle,
    OscProgress,
}

const NAMES: [(&str, Region); 9] = [
    ("prompt_box_body", Region::PromptBoxBody),
    ("above_prompt_box", Region::AbovePromptBox),
    ("after_last_rule", Region::AfterLastRule),
    ("last_nonempty_line", Region::LastNonemptyLine),
    ("after_last_prompt_marker", Region::AfterLastPromptMarker),
    ("before_current_prompt_marker", Region::BeforeCurrentPromptMarker),
    ("whole_recent_without_current_prompt_marker", Region::WholeRecentWithoutCurrentPromptMarker),
    ("osc_title", Region::OscTitle),
    ("osc_progress", Region::OscProgress),
];

impl Region {
    pub fn parse(text: &str) -> Option<Self> {
        let lines = |n: &str| n.parse().ok().filter(|n| (1..=1000).contains(n));
        match text.split_once(':') {
            Some(("bottom", n)) => lines(n).map(Self::Bottom),
            Some(("bottom_nonempty", n)) => lines(n).map(Self::BottomNonempty),
            _ => NAMES.iter().find(|(name, _)| *name == text).map(|(_, region)| *region),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bottom(n) => write!(f, "bottom:{n}"),
            Self::BottomNonempty(n) => write!(f, "bottom_nonempty:{n}"),
            named => f.write_str(NAMES.iter().find(|(_, region)| region == named).map_or("", |(name, _)| name)),
        }
    }
}

/// One text twice, the second time in small letters; the same bytes in both are the same character, because only ASCII
/// letters are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    pub text: &'a str,
    pub small: &'a str,
}

struct Text {
    text: String,
    small: String,
}

impl Text {
    fn new(text: String) -> Self {
        Self { small: text.to_ascii_lowercase(), text }
    }

    fn part(&self, from: usize, to: usize) -> Part<'_> {
        Part { text: &self.text[from..to], small: &self.small[from..to] }
    }
}

/// A view, prepared once for all rules.
pub struct Regions {
    screen: Text,
    title: Text,
    progress: Text,
    /// Where each line begins in the text, and its end at last.
    starts: Vec<usize>,
    /// Of the prompt box: its upper and its lower edge.
    prompt_box: Option<(usize, usize)>,
    last_rule: Option<usize>,
    prompt_marker: Option<usize>,
    /// One beyond the last line with anything on it.
    end: usize,
}

impl Regions {
    pub fn new(view: &View<'_>) -> Self {
        let mut text = String::with_capacity(view.rows.iter().map(|row| row.len() + 1).sum());
        let mut starts = Vec::with_capacity(view.rows.len() + 1);
        let (mut end, mut rules, mut prompt_marker) = (0, [None, None], None);
        for (index, row) in view.rows.iter().enumerate() {
            let row = row.trim_end();
            starts.push(text.len());
            text.push_str(row);
            text.push('\n');
            if row.is_empty() {
                continue;
            }
            end = index + 1;
            if is_rule(row) {
                rules = [rules[1], Some(index)];
            } else if is_prompt(row) {
                prompt_marker = Some(index);
            }
        }
        starts.push(text.len());
        let prompt_box = match rules {
            [Some(upper), Some(lower)] if lower > upper + 1 => Some((upper, lower)),
            _ => None,
        };
        Self {
            screen: Text::new(text),
            title: Text::new(view.title.to_owned()),
            progress: Text::new(view.progress.map_or(String::new(), |progress| progress.to_string())),
            starts,
            prompt_box,
            last_rule: rules[1],
            prompt_marker,
            end,
        }
    }

    pub fn part(&self, region: Region) -> Part<'_> {
        let rows = self.starts.len() - 1;
        match region {
            Region::Bottom(n) => self.lines(rows.saturating_sub(n), rows),
            Region::BottomNonempty(n) => self.lines(self.nth_last(n), self.end),
            Region::LastNonemptyLine => self.lines(self.nth_last(1), self.end),
            Region::PromptBoxBody => self.prompt_box.map_or(self.lines(0, 0), |(upper, lower)| self.lines(upper + 1, lower)),
            Region::AbovePromptBox => self.lines(0, self.prompt_box.map_or(rows, |(upper, _)| upper)),
            Region::AfterLastRule => self.lines(self.last_rule.map_or(0, |rule| rule + 1), rows),
            Region::AfterLastPromptMarker => self.lines(self.prompt_marker.map_or(0, |marker| marker + 1), rows),
            Region::BeforeCurrentPromptMarker => self.lines(0, self.prompt_marker.unwrap_or(rows)),
            Region::WholeRecentWithoutCurrentPromptMarker if self.prompt_marker.is_some() => self.lines(0, 0),
            Region::WholeRecentWithoutCurrentPromptMarker => self.lines(0, rows),
            Region::OscTitle => self.title.part(0, self.title.text.len()),
            Region::OscProgress => self.progress.part(0, self.progress.text.len()),
        }
    }

    fn lines(&self, from: usize, to: usize) -> Part<'_> {
        self.screen.part(self.starts[from], self.starts[to.max(from)])
    }

    fn nth_last(&self, n: usize) -> usize {
        let is_full = |line: &usize| self.starts[line + 1] > self.starts[*line] + 1;
        (0..self.end).rev().filter(is_full).take(n).last().unwrap_or(0)
    }
}

/// A line across the screen, or the edge of a box; it may bear labels.
fn is_rule(row: &str) -> bool {
    const EDGES: &str = "─━═╌╍┄┅┈┉╭╮╰╯┌┐└┘├┤▀▄╹▔▁";
    let is_edge = |letter: char| EDGES.contains(letter);
    let row = row.trim();
    if !row.starts_with(is_edge) {
        return false;
    }
    let (all, edges) = (row.chars().count(), row.chars().filter(|letter| is_edge(*letter)).count());
    all >= 8 && (edges * 2 >= all || (edges >= 6 && row.ends_with(is_edge)))
}

/// Where something may be typed. A chosen item of a list bears the same sign and a number.
fn is_prompt(row: &str) -> bool {
    let inner = row.trim_start().trim_start_matches(['│', '┃', '|']).trim_start();
    let Some(rest) = inner.strip_prefix(['❯', '›', '>']) else {
        return false;
    };
    let rest = rest.trim_end_matches(['│', '┃', '|']);
    let item = rest.trim_start();
    let digits = item.bytes().take_while(u8::is_ascii_digit).count();
    let chosen = digits > 0 && item[digits..].starts_with(['.', ')']);
    (rest.is_empty() || rest.starts_with([' ', '\u{a0}'])) && !chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCREEN: &str = "\
✻ Said
  something

────────────
❯ Type here
────────────
  ? for shortcuts

";

    fn check(screen: &str, region: &str, expected: &str) {
        let rows: Vec<String> = screen.lines().map(str::to_owned).collect();
        let regions = Regions::new(&View { rows: &rows, title: "Title", progress: None });
        let region = Region::parse(region).expect("a region");
        assert_eq!(regions.part(region).text.trim_end(), expected, "{region}");
    }

    #[test]
    fn parts_of_a_screen() {
        check(SCREEN, "bottom:2", "  ? for shortcuts");
        check(SCREEN, "bottom:1", "");
        check(SCREEN, "bottom_nonempty:1", "  ? for shortcuts");
        check(SCREEN, "bottom_nonempty:2", "────────────\n  ? for shortcuts");
        check(SCREEN, "bottom_nonempty:99", SCREEN.trim_end());
        check(SCREEN, "last_nonempty_line", "  ? for shortcuts");
        check(SCREEN, "prompt_box_body", "❯ Type here");
        check(SCREEN, "above_prompt_box", "✻ Said\n  something");
        check(SCREEN, "after_last_rule", "  ? for shortcuts");
        check(SCREEN, "after_last_prompt_marker", "────────────\n  ? for shortcuts");
        check(SCREEN, "before_current_prompt_marker", "✻ Said\n  something\n\n────────────");
        check(SCREEN, "whole_recent_without_current_prompt_marker", "");
        check(SCREEN, "osc_title", "Title");
        check(SCREEN, "osc_progress", "");
    }

    #[test]
    fn without_a_box_or_a_prompt() {
        check("a\nb", "prompt_box_body", "");
        check("a\nb", "above_prompt_box", "a\nb");
        check("a\nb", "after_last_rule", "a\nb");
        check("a\nb", "after_last_prompt_marker", "a\nb");
        check("a\nb", "whole_recent_without_current_prompt_marker", "a\nb");
        check("", "bottom:3", "");
        check("", "last_nonempty_line", "");
    }

    #[test]
    fn what_is_a_rule_and_what_a_prompt() {
        for rule in ["────────", "  ╭───── smart ──╮", "╰────── ~/work (main) ──────╯"]
        {
            assert!(is_rule(rule), "{rule}");
        }
        for text in ["---", "───", "│ text │", "a ──────────────", "- one - two - three"] {
            assert!(!is_rule(text), "{text}");
        }
        for prompt in ["❯", "❯ x", "  › Ask", "│ > hi      │", "❯\u{a0}"] {
            assert!(is_prompt(prompt), "{prompt}");
        }
        for text in ["❯ 1. Yes", "› 2) No", ">quoted", "a > b"] {
            assert!(!is_prompt(text), "{text}");
        }
    }

    #[test]
    fn names_go_there_and_back() {
        for (name, _) in NAMES {
            assert_eq!(Region::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(Region::parse("bottom:7").unwrap().to_string(), "bottom:7");
        for name in ["", "bottom", "bottom:", "bottom:0", "bottom:1001", "bottom:x", "top:1", "osc_title:1"] {
            assert_eq!(Region::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_screen_has_all_parts(rows in prop::collection::vec("[ ─╭╰│❯>a-z1.é\u{3000}İ]{0,12}", 0..12), n in 1..20_usize) {
            let regions = Regions::new(&View { rows: &rows, title: "", progress: None });
            for region in NAMES.map(|(_, region)| region).into_iter().chain([Region::Bottom(n), Region::BottomNonempty(n)]) {
                let part = regions.part(region);
                prop_assert_eq!(part.text.to_ascii_lowercase(), part.small);
            }
        }
    }
}
