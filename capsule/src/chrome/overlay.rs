//! What may lie over the panes and takes the keys while it does: palette, pickers, questions, facts, prompts. Each is
//! made from plain values and answers with a `Choice`, which it leaves to others to carry out. Sessions are named by
//! their ids, so that an answer still means the right one when others have come or gone meanwhile.

use crate::control::SessionState;
use crate::frame::{Frame, Rect};
use crate::keys::{Bindings, Command, Key, Stroke};
use crate::launch::Agent;
use crate::layout::{Axis, SessionId};
use crate::mouse::Mouse;
use crate::wire::Spawn;

use super::choice::{Choice, ExitChoice, Outcome, Place, Question};
use super::menu::{Act, Entry, Line, Menu};
use super::palette::Palette;
use super::prompt::{Prompt, Search};
use super::theme::Theme;

/// An agent that may be started, and the providers it can be used with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOffer {
    pub slug: String,
    pub providers: Vec<String>,
}

/// A session that a closing would end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRisk {
    pub label: String,
    pub codename: String,
    pub state: SessionState,
}

/// Work in a worktree that is nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaved {
    pub path: String,
    pub changed: usize,
    pub unpushed: usize,
    pub unknown: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Overlay {
    Palette(Palette),
    Menu(Menu),
    Prompt(Prompt),
    Search(Search),
}

const CHOOSE: &str = "Enter choose  Esc back";

impl Overlay {
    /// Everything in the table of commands. `unavailable` says why one cannot be done now.
    pub fn palette(bindings: Bindings, unavailable: impl Fn(Command) -> Option<String>) -> Self {
        Self::Palette(Palette::new(bindings, unavailable))
    }

    pub fn agents(place: Place, agents: &[AgentOffer]) -> Self {
        let title = match place {
            Place::NewTab => "New tab",
            Place::Split(Axis::Stacked) => "Split top/bottom",
            Place::Split(Axis::SideBySide) => "Split side by side",
        };
        let mut lines: Vec<_> = (1..).zip(agents).map(|(number, offer)| Line::Entry(agent_entry(number, offer, place))).collect();
        lines.push(Line::Entry(Entry::new("Shell", "s", Act::Do(Choice::Spawn { spawn: Spawn::Shell, place }))));
        Self::Menu(Menu::new(title, CHOOSE, lines))
    }

    /// `detach` is the key for it, told where one might really have wanted that.
    pub fn confirm(question: Question, ends: &[AtRisk]) -> Self {
        let (title, yes, stay) = match question {
            Question::ClosePane(_) => ("Close pane", "Close it", "Keep it"),
            Question::CloseTab(_) => ("Close tab", "Close it", "Keep it"),
            Question::Exit => ("Exit", "End the sessions and stop the container", "Stay"),
        };
        let at_work = |session: &AtRisk| matches!(session.state, SessionState::Working | SessionState::Blocked);
        let mut lines = vec![Line::Text(match ends.len() {
            0 => "No session is running.".to_owned(),
            1 => "This ends a session:".to_owned(),
            count => format!("This ends {count} sessions:"),
        })];
        for session in ends {
            let text = format!("{} ({}) {}", session.label, session.codename, session.state);
            lines.push(if at_work(session) { Line::Warning(text) } else { Line::Text(text) });
        }
        lines.push(Line::Text(String::new()));
        lines.push(Line::Entry(Entry::new(yes, "y", Act::Do(Choice::Confirmed(question)))));
        if question == Question::Exit {
            lines.push(Line::Entry(Entry::new("Detach: everything goes on", "d", Act::Do(Choice::Run(Command::Detach)))));
        }
        lines.push(Line::Entry(Entry::new(stay, "n", Act::Cancel)));
        // Enter by habit must not end work in progress.
        let first = if ends.iter().any(at_work) { "n" } else { "y" };
        Self::Menu(Menu::new(title, CHOOSE, lines).starting_at(first))
    }

    pub fn dirty_exit(unsaved: &[Unsaved]) -> Self {
        let plural = if unsaved.len() == 1 { "This worktree holds" } else { "These worktrees hold" };
        let mut lines = vec![Line::Text(format!("{plural} work that is nowhere else. Look into one:"))];
        for (number, tree) in (1..).zip(unsaved) {
            let act = Act::Do(Choice::DirtyExit(ExitChoice::Inspect(tree.path.clone())));
            lines.push(Line::Entry(Entry::new(&tree.path, digit(number), act).detail(counts(tree))));
        }
        let (changed, unpushed) = unsaved.iter().fold((0, 0), |(a, b), tree| (a + tree.changed, b + tree.unpushed));
        let unknown = unsaved.iter().any(|tree| tree.unknown.is_some()).then(|| "what could not be inspected".to_owned());
        let lost = counts(&Unsaved { path: String::new(), changed, unpushed, unknown });
        let discard = Menu::new(
            "Discard",
            CHOOSE,
            vec![
                Line::Warning(format!("{lost}: gone for good.")),
                Line::Text(String::new()),
                Line::Entry(Entry::new("Discard and exit", "d", Act::Do(Choice::DirtyExit(ExitChoice::Discard)))),
                Line::Entry(Entry::new("Back", "n", Act::Cancel)),
            ],
        );
        lines.push(Line::Text(String::new()));
        lines.push(Line::Entry(Entry::new("Keep the worktrees and exit", "k", Act::Do(Choice::DirtyExit(ExitChoice::Keep)))));
        lines.push(Line::Entry(Entry::new("Discard the work and exit", "d", Act::Open(Box::new(discard.starting_at("n"))))));
        lines.push(Line::Entry(Entry::new("Do not exit", "c", Act::Cancel)));
        Self::Menu(Menu::new("Unsaved work", CHOOSE, lines).starting_at("k"))
    }

    /// Facts under headings.
    pub fn info(title: &str, sections: Vec<(String, Vec<(String, String)>)>) -> Self {
        let mut lines = Vec::new();
        for (heading, facts) in sections {
            if !lines.is_empty() {
                lines.push(Line::Text(String::new()));
            }
            lines.push(Line::Heading(heading));
            lines.extend(facts.into_iter().map(|(name, value)| Line::Fact { name, value }));
        }
        Self::Menu(Menu::new(title, "y copy  Y copy all  Esc close", lines))
    }

    pub fn rename(tab: SessionId, present: &str) -> Self {
        Self::Prompt(Prompt::name(tab, present))
    }

    pub fn path(title: &str, command: Command, initial: &str) -> Self {
        Self::Prompt(Prompt::path(title, command, initial))
    }

    pub fn search(needle: &str, backwards: bool) -> Self {
        Self::Search(Search::new(needle, backwards))
    }

    /// What the search came to: the hit gone to, from one, of how many. Other overlays do not care.
    pub fn set_found(&mut self, found: Option<(usize, usize)>) {
        if let Self::Search(search) = self {
            search.set_found(found);
        }
    }

    pub fn key(&mut self, key: &Key) -> Outcome {
        if key.stroke == Stroke::Release {
            return Outcome::Stay;
        }
        match self {
            Self::Palette(palette) => palette.key(key),
            Self::Menu(menu) => menu.key(key),
            Self::Prompt(prompt) => prompt.key(key),
            Self::Search(search) => search.key(key),
        }
    }

    pub fn paste(&mut self, text: &str) -> Outcome {
        match self {
            Self::Palette(palette) => palette.menu.paste(text),
            Self::Menu(menu) => menu.paste(text),
            Self::Prompt(prompt) => prompt.paste(text),
            Self::Search(search) => return search.paste(text),
        }
        Outcome::Stay
    }

    /// `area` is the one painted into.
    pub fn mouse(&mut self, mouse: &Mouse, area: Rect) -> Outcome {
        match self {
            Self::Palette(palette) => palette.menu.mouse(mouse, area),
            Self::Menu(menu) => menu.mouse(mouse, area),
            // A stray click must not lose what was typed.
            Self::Prompt(_) | Self::Search(_) => Outcome::Stay,
        }
    }

    /// Sets the frame's cursor too: where one types, or to none.
    pub fn paint(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        match self {
            Self::Palette(palette) => palette.menu.paint(frame, area, theme),
            Self::Menu(menu) => menu.paint(frame, area, theme),
            Self::Prompt(prompt) => prompt.paint(frame, area, theme),
            Self::Search(search) => search.paint(frame, area, theme),
        }
    }
}

fn agent_entry(number: usize, offer: &AgentOffer, place: Place) -> Entry {
    let label = Agent::of(&offer.slug).map_or(offer.slug.as_str(), |agent| agent.label);
    let spawn = |spawn| Act::Do(Choice::Spawn { spawn, place });
    let native = |provider: &str| ["anthropic", "openai"].contains(&provider.to_lowercase().as_str());
    let act = match offer.providers.as_slice() {
        [] => spawn(Spawn::Agent(offer.slug.clone())),
        [only] if native(only) => spawn(Spawn::Agent(offer.slug.clone())),
        providers => {
            let entry = |(number, provider): (usize, &String)| {
                let act = spawn(Spawn::AgentWithProvider { agent: offer.slug.clone(), provider: provider.clone() });
                Line::Entry(Entry::new(provider, digit(number), act))
            };
            let lines = (1..).zip(providers).map(entry).collect();
            Act::Open(Box::new(Menu::new(format!("Provider for {label}"), CHOOSE, lines)))
        }
    };
    let detail = if matches!(act, Act::Open(_)) { offer.providers.join(", ") } else { String::new() };
    Entry::new(label, digit(number), act).detail(detail)
}

/// The key of the number'th entry; those after the ninth have none.
fn digit(number: usize) -> String {
    if number < 10 { number.to_string() } else { String::new() }
}

fn counts(tree: &Unsaved) -> String {
    let parts = [(tree.changed, "changed"), (tree.unpushed, "unpushed")];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    parts.chain(tree.unknown.clone()).collect::<Vec<_>>().join(", ")
}
