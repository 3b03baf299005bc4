//! What applying looks like while it runs: stable lines for pipes and logs, frames for terminals, a report at the end.
//!
//! In: the plan, then events with the milliseconds since the start. Out: lines. A pure state machine: it reads no clock and
//! draws nothing; the caller prints the lines or paints the frame.

use super::Style;
use super::diagnostic::diagnostics_text;
use super::page::{Ink, Page, clean, cut, pad, width};
use super::words::{duration_words, plural};
use crate::diagnostic::{Diagnostic, Severity};
use crate::event::Event;
use crate::plan::{Action, Effect, Mode, Plan, Step, StepId};
use crate::resource::{Address, Kind};
use std::collections::{BTreeMap, VecDeque};

/// The public stages in their order; kinds know theirs by `Kind::stage`.
pub const STAGES: [&str; 11] = [
    "identity",
    "role",
    "credentials",
    "construct",
    "agent binaries",
    "derived image",
    "workspace",
    "network",
    "sidecar",
    "capsule",
    "hardline",
];

/// Of a builder's output this much is kept, to be shown when it fails.
const KEPT_OUTPUT: usize = 20;
const STAGE_COLUMN: usize = 14;
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const SPINNER_ASCII: [&str; 4] = ["|", "/", "-", "\\"];
const SPINNER_MS: u64 = 80;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting,
    Running {
        doing: &'static str,
        since: u64,
    },
    Done,
    Failed(Box<Diagnostic>),
    /// By the failure of which address.
    Skipped(Option<Address>),
    Cancelled,
}

impl State {
    fn is_final(&self) -> bool {
        !matches!(self, State::Waiting | State::Running { .. })
    }
}

/// All steps of one address: people watch things, not steps.
#[derive(Debug)]
struct Row {
    address: Address,
    /// `created`, once it is done.
    outcome: &'static str,
    /// Steps that have not ended.
    open: usize,
    began: Option<u64>,
    ended: Option<u64>,
    state: State,
    output: VecDeque<String>,
    /// Its last line is a count that the next one replaces.
    counting: bool,
    /// The last passing error.
    retry: Option<String>,
}

#[derive(Debug)]
pub struct Progress {
    verbose: bool,
    /// An agent's program that cannot be fetched is no failure: images do without it.
    programs_may_fail: bool,
    rows: Vec<Row>,
    /// Where in `rows` an address is.
    at: BTreeMap<Address, usize>,
    by_step: BTreeMap<StepId, Address>,
    /// Waiting for another jackin.
    waiting: Option<String>,
    stopping: bool,
    finished: Option<u64>,
}

impl Progress {
    pub fn new(plan: &Plan, verbose: bool) -> Self {
        let mut progress = Self {
            verbose,
            programs_may_fail: plan.goal.mode == Mode::PrewarmOnly,
            rows: Vec::new(),
            at: BTreeMap::new(),
            by_step: BTreeMap::new(),
            waiting: None,
            stopping: false,
            finished: None,
        };
        let actions: BTreeMap<&Address, Action> = plan.changes.iter().map(|c| (&c.address, c.action)).collect();
        for step in &plan.steps {
            progress.register(step, actions.get(&step.address).map_or("done", |a| done_word(*a)));
        }
        let stage = |row: &Row| STAGES.iter().position(|s| *s == row.address.kind.stage());
        progress.rows.sort_by(|a, b| (stage(a), &a.address).cmp(&(stage(b), &b.address)));
        progress.at = progress.rows.iter().enumerate().map(|(index, row)| (row.address.clone(), index)).collect();
        progress
    }

    fn register(&mut self, step: &Step, outcome: &'static str) {
        if self.by_step.insert(step.id.clone(), step.address.clone()).is_some() {
            return;
        }
        if let Some(index) = self.at.get(&step.address) {
            self.rows[*index].open += 1;
            return;
        }
        self.at.insert(step.address.clone(), self.rows.len());
        self.rows.push(Row {
            address: step.address.clone(),
            outcome,
            open: 1,
            began: None,
            ended: None,
            state: State::Waiting,
            output: VecDeque::new(),
            counting: false,
            retry: None,
        });
    }

    fn row(&mut self, id: &StepId) -> Option<&mut Row> {
        let index = *self.at.get(self.by_step.get(id)?)?;
        self.rows.get_mut(index)
    }

    /// The address whose failure is behind a skipped step: what was skipped itself points further back.
    fn culprit(&self, because: &StepId) -> Option<Address> {
        let address = self.by_step.get(because)?;
        match &self.rows[self.at[address]].state {
            State::Skipped(Some(first)) => Some(first.clone()),
            _ => Some(address.clone()),
        }
    }

    /// Takes one event in and returns the lines that it is worth to somebody who sees no frames.
    pub fn feed(&mut self, event: &Event, now_ms: u64) -> Vec<String> {
        let verbose = self.verbose;
        match event {
            Event::Waiting { what } => {
                self.waiting = Some(what.clone());
                return vec![format!("waiting for {}", clean(what))];
            }
            Event::ApplyStarted { .. } => self.waiting = None,
            Event::StepStarted { id, step } => {
                self.waiting = None;
                self.register(step, "done");
                if let Some(row) = self.row(id) {
                    row.began.get_or_insert(now_ms);
                    row.retry = None;
                    if !matches!(row.state, State::Failed(_)) {
                        row.state = State::Running { doing: doing_word(&step.effect), since: now_ms };
                    }
                }
            }
            Event::StepOutput { id, line } => {
                let Some(row) = self.row(id) else {
                    return Vec::new();
                };
                // As on a terminal: a count of bytes takes the place of the one before.
                let counts = line.starts_with('\r');
                if row.output.len() == KEPT_OUTPUT {
                    row.output.pop_front();
                }
                if counts && row.counting {
                    row.output.pop_back();
                }
                row.counting = counts;
                row.output.push_back(clean(line.trim_start_matches('\r').trim_end()));
                if verbose && !counts {
                    return vec![format!("  {} | {}", row.address, clean(line.trim_end()))];
                }
            }
            Event::StepRetried { id, attempt, error } => {
                let Some(row) = self.row(id) else {
                    return Vec::new();
                };
                row.retry = Some(clean(error));
                return vec![format!("{}  tried again (attempt {attempt}): {}", headed(&row.address), clean(error))];
            }
            Event::StepFinished { id, .. } => return self.end(id, now_ms, None),
            Event::AgentBinaryCacheRepaired { .. } | Event::CapsuleBinaryCacheRepaired { .. } => {}
            Event::StepFailed { id, error, .. } => {
                return self.end(id, now_ms, Some(State::Failed(Box::new(error.clone()))));
            }
            Event::StepSkipped { id, because } => {
                let because = self.culprit(because);
                return self.end(id, now_ms, Some(State::Skipped(because)));
            }
            Event::StepCancelled { id } => return self.end(id, now_ms, Some(State::Cancelled)),
            Event::Stopping => {
                self.stopping = true;
                return vec!["stopping: nothing new is begun, what has begun is finished".to_owned()];
            }
            Event::ApplyFinished { milliseconds, .. } => self.finished = Some(*milliseconds),
        }
        Vec::new()
    }

    /// One step of a row is over; `bad` when it was not done. The row speaks once: at its first bad step, or when all are done.
    fn end(&mut self, id: &StepId, now_ms: u64, bad: Option<State>) -> Vec<String> {
        let verbose = self.verbose;
        let Some(row) = self.row(id) else {
            return Vec::new();
        };
        row.open = row.open.saturating_sub(1);
        let spoke = row.state.is_final();
        row.ended = Some(now_ms);
        match bad {
            // The first step that was not done tells why; the later ones of the row only follow from it.
            Some(state) if !spoke => row.state = state,
            Some(_) => {}
            None if row.open == 0 && !spoke => row.state = State::Done,
            None => {}
        }
        if spoke || !row.state.is_final() {
            return Vec::new();
        }
        let mut lines = vec![format!("{}  {}", headed(&row.address), row.ending())];
        if matches!(row.state, State::Failed(_)) && !verbose {
            lines.extend(row.output.iter().map(|line| format!("  | {line}")));
        }
        lines
    }

    fn count(&self, wanted: impl Fn(&State) -> bool) -> usize {
        self.rows.iter().filter(|r| wanted(&r.state)).count()
    }

    /// The live view at one moment: no line wider than the style, at most `max_height` lines, the last one the total.
    /// What runs is kept longest when there is no room for all.
    pub fn frame(&self, now_ms: u64, style: &Style, max_height: usize) -> Vec<String> {
        let total = self.total(now_ms, style);
        let mut room = max_height.saturating_sub(1);
        let rank = |row: &Row| match row.state {
            State::Running { .. } => 0,
            State::Failed(_) => 1,
            State::Skipped(_) | State::Cancelled => 2,
            State::Waiting => 3,
            State::Done => 4,
        };
        let all: usize = self.rows.iter().map(Row::height).sum();
        let mut shown = vec![true; self.rows.len()];
        let mut outputs = vec![true; self.rows.len()];
        if all > room {
            // One line says what is not shown.
            room = room.saturating_sub(1);
            let mut by_rank: Vec<usize> = (0..self.rows.len()).collect();
            by_rank.sort_by_key(|i| rank(&self.rows[*i]));
            shown.fill(false);
            outputs.fill(false);
            for index in &by_rank {
                if room > 0 {
                    shown[*index] = true;
                    room -= 1;
                }
            }
            for index in by_rank {
                if room > 0 && shown[index] && self.rows[index].height() > 1 {
                    outputs[index] = true;
                    room -= 1;
                }
            }
        }
        let mut lines = Vec::new();
        let mut stage = "";
        for (index, row) in self.rows.iter().enumerate().filter(|(i, _)| shown[*i]) {
            let heading = if row.address.kind.stage() == stage { "" } else { row.address.kind.stage() };
            stage = row.address.kind.stage();
            lines.push(row.line(heading, now_ms, style));
            if outputs[index]
                && let Some(output) = row.below()
            {
                lines.push(inked(&[(Ink::Faint, format!("{}{output}", " ".repeat(STAGE_COLUMN + 6)))], style));
            }
        }
        let hidden = shown.iter().filter(|s| !**s).count();
        if hidden > 0 && max_height > 1 {
            lines.push(inked(&[(Ink::Faint, format!("{}{hidden} more", " ".repeat(STAGE_COLUMN + 2)))], style));
        }
        lines.push(total);
        lines.truncate(max_height.max(1));
        lines
    }

    fn total(&self, now_ms: u64, style: &Style) -> String {
        let done = self.count(|s| *s == State::Done);
        let failed = self.count(|s| matches!(s, State::Failed(_)));
        let mut pieces = vec![(Ink::Strong, format!("{done}/{} done", self.rows.len()))];
        if failed > 0 {
            pieces.push((Ink::Bad, format!(", {failed} failed")));
        }
        pieces.push((Ink::Plain, format!(", {}", duration_words(self.finished.unwrap_or(now_ms)))));
        if let Some(what) = &self.waiting {
            pieces.push((Ink::Change, format!(", waiting for {}", clean(what))));
        }
        if self.stopping {
            pieces.push((Ink::Change, ", stopping".to_owned()));
        }
        inked(&pieces, style)
    }

    /// What is left to say at the end: failures, what was skipped and why, and the way on.
    pub fn report(&self, style: &Style) -> String {
        let mut page = Page::new(style);
        let may_fail = |row: &Row| self.programs_may_fail && row.address.kind == Kind::AgentBinary;
        let failures: Vec<Diagnostic> = self
            .rows
            .iter()
            .filter_map(|row| {
                let State::Failed(error) = &row.state else {
                    return None;
                };
                let mut told = (**error).clone();
                if told.address.is_none() {
                    told = told.on(&row.address);
                }
                if may_fail(row) {
                    told.severity = Severity::Warning;
                }
                Some(told)
            })
            .collect();
        page.raw(&diagnostics_text(&failures, style));
        if !failures.is_empty() {
            page.blank();
        }
        for row in &self.rows {
            if let State::Skipped(because) = &row.state {
                let why = because.as_ref().map_or(String::new(), |a| format!(" because {a} failed"));
                page.line(0, 2, &[(Ink::Change, "skipped"), (Ink::Plain, &format!(" {}{why}", row.address))]);
            }
        }
        let done = self.count(|s| *s == State::Done);
        let skipped = self.count(|s| matches!(s, State::Skipped(_)));
        // What was never begun is as good as cancelled.
        let cancelled = self.count(|s| matches!(s, State::Cancelled | State::Waiting | State::Running { .. }));
        let time = self.finished.map_or(String::new(), |ms| format!(" in {}", duration_words(ms)));
        let mut counts = vec![format!("{done} done")];
        for (count, word) in [(failures.len(), "failed"), (skipped, "skipped"), (cancelled, "cancelled")] {
            if count > 0 {
                counts.push(format!("{count} {word}"));
            }
        }
        let only_warnings = failures.iter().all(|failure| failure.severity == Severity::Warning);
        if skipped + cancelled == 0 && only_warnings {
            let without = match failures.len() {
                0 => String::new(),
                count => format!(", {} could not be fetched", plural(count, "program")),
            };
            page.line(0, 2, &[(Ink::Good, "Done."), (Ink::Plain, &format!(" {}{time}{without}.", plural(done, "change")))]);
            return page.finish();
        }
        let (ink, word) = if only_warnings { (Ink::Change, "Stopped.") } else { (Ink::Bad, "Failed.") };
        page.line(0, 2, &[(ink, word), (Ink::Plain, &format!(" {}{time}.", counts.join(", ")))]);
        if only_warnings && cancelled == 0 && !failures.is_empty() {
            page.line(2, 4, &[(Ink::Plain, "What was skipped is planned again, without what could not be fetched.")]);
            return page.finish();
        }
        page.line(
            2,
            4,
            &[(Ink::Info, "help: "), (Ink::Plain, "What was done stays. Plan again to see what is left, apply again to go on.")],
        );
        page.finish()
    }
}

impl Row {
    fn duration(&self, now_ms: u64) -> u64 {
        self.ended.unwrap_or(now_ms).saturating_sub(self.began.unwrap_or(now_ms))
    }

    fn ending(&self) -> String {
        let took = duration_words(self.duration(self.ended.unwrap_or(0)));
        match &self.state {
            State::Done => format!("{}  {took}", self.outcome),
            State::Failed(error) => format!("failed  {took}: {}", clean(&error.summary)),
            State::Skipped(Some(because)) => format!("skipped because {because} failed"),
            State::Skipped(None) => "skipped".to_owned(),
            State::Cancelled => "cancelled".to_owned(),
            State::Waiting | State::Running { .. } => String::new(),
        }
    }

    /// The line under the row.
    fn below(&self) -> Option<String> {
        if !matches!(self.state, State::Running { .. }) {
            return None;
        }
        self.retry.as_ref().map(|error| format!("tried again: {error}")).or(self.output.back().cloned())
    }

    fn height(&self) -> usize {
        1 + usize::from(self.below().is_some())
    }

    fn line(&self, heading: &str, now_ms: u64, style: &Style) -> String {
        let spinner = |since: u64| {
            let turn = usize::try_from(now_ms.saturating_sub(since) / SPINNER_MS).unwrap_or(0);
            if style.unicode { SPINNER[turn % SPINNER.len()] } else { SPINNER_ASCII[turn % SPINNER_ASCII.len()] }
        };
        let pick = |unicode, ascii| if style.unicode { unicode } else { ascii };
        let (ink, mark, rest) = match &self.state {
            State::Waiting => (Ink::Faint, pick("·", "."), "waiting".to_owned()),
            State::Running { doing, since } => (Ink::Info, spinner(*since), format!("{doing}  {}", duration_words(self.duration(now_ms)))),
            State::Done => (Ink::Good, pick("✓", "+"), self.ending()),
            State::Failed(_) => (Ink::Bad, pick("✗", "x"), self.ending()),
            State::Skipped(_) | State::Cancelled => (Ink::Change, "-", self.ending()),
        };
        inked(
            &[
                (Ink::Faint, format!("{} ", pad(heading, STAGE_COLUMN))),
                (ink, format!("{mark} ")),
                (Ink::Plain, format!("{}  ", named(&self.address))),
                (ink, rest),
            ],
            style,
        )
    }
}

/// `network         app/default`: where the stage is the kind, its name says enough.
fn headed(address: &Address) -> String {
    format!("{}  {}", pad(address.kind.stage(), STAGE_COLUMN), named(address))
}

fn named(address: &Address) -> String {
    let kind = address.kind.as_str().replace('-', " ");
    clean(&if kind == address.kind.stage() { address.name.clone() } else { address.to_string() })
}

/// One line that is never wrapped, cut at the width.
fn inked(pieces: &[(Ink, String)], style: &Style) -> String {
    let mut out = String::new();
    let mut room = style.width;
    for (ink, text) in pieces {
        let text = cut(text, room, style);
        room -= width(&text);
        if style.colour && !text.trim().is_empty() {
            out.push_str(&ink.paint(&text));
        } else {
            out.push_str(&text);
        }
    }
    out.trim_end().to_owned()
}

fn doing_word(effect: &Effect) -> &'static str {
    match effect {
        Effect::CheckOut => "checking out",
        Effect::RepairBinary => "repairing",
        Effect::Download => "downloading",
        Effect::Pull => "pulling",
        Effect::Build => "building",
        Effect::WriteHome => "writing",
        Effect::RemoveHome { .. } | Effect::RemoveNetwork { .. } | Effect::RemoveVolume { .. } | Effect::RemoveContainer { .. } => {
            "removing"
        }
        Effect::CreateNetwork | Effect::CreateVolume | Effect::CreateContainer => "creating",
        Effect::StartContainer { .. } => "starting",
        Effect::UnpauseContainer { .. } => "resuming",
        Effect::PauseContainer { .. } => "pausing",
        Effect::AwaitReady => "waiting until ready",
        Effect::RenameContainer { .. } => "renaming",
        Effect::ConnectNetwork { .. } => "connecting",
        Effect::LimitContainer { .. } => "setting limits",
        Effect::Claim { .. } => "adopting",
    }
}

fn done_word(action: Action) -> &'static str {
    match action {
        // A kept sidecar is waited for before a capsule starts.
        Action::Reuse => "ready",
        Action::Adopt => "adopted",
        Action::Create => "created",
        Action::Update => "updated",
        Action::Start => "started",
        Action::Restart => "restarted",
        Action::Replace => "replaced",
        Action::Remove => "removed",
        Action::Forget => "forgotten",
        Action::Pull => "pulled",
        Action::Build => "built",
        Action::Rebuild => "rebuilt",
        Action::Download => "downloaded",
        Action::Fetch => "fetched",
        Action::Repair => "repaired",
    }
}
