//! One session's state. Screens, marks, events, probes and times in; state, report, explanation and the time when it wants
//! to look again out. Sole owner of what has been seen. Absent: who decides among the evidence (`arbitrate`), effects.
//!
//! An idle, quiet session asks for nothing: `next_deadline` is `None`.

use std::sync::Arc;

use super::arbitrate::{self, FRESH, Facts, Row, Screen, Verdict};
use super::events::{Reports, RuntimeEvent};
use super::regions::Regions;
use super::rules::Rule;
use super::{AgentStatusReport, Confidence, Mark, Millis, Pack, Packs, Probe, Progress, RawState, RuleState, Source, View};
use crate::control::SessionState;

/// Work without output, processes or CPU time for this long is not believed.
const WATCHDOG: Millis = 10_000;
/// Screens are caught half drawn: what only its look says is over is believed when seen so often, or after so long.
const CONFIRMATIONS: u8 = 3;
const HOLD: Millis = 700;
const CPU_WINDOW: Millis = 2_000;
/// A probe that was asked for may be late by this much before the one before it counts for nothing.
const LATE: Millis = 1_000;
/// Hundredths of a second per window. A waiting agent still runs its timers.
const BUSY_TICKS: u64 = 5;
/// From output to the look at it, so that what belongs together has arrived.
const SETTLE: Millis = 100;
const LOOK_GAP: Millis = 250;
const MAX_PROBE_INTERVAL: Millis = 64_000;

/// What the detector wants now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// Call `look`.
    pub look: bool,
    /// Call `note_probe`, soon.
    pub probe: bool,
    /// What it reports has changed.
    pub changed: bool,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub at: Millis,
    pub pack: Option<Arc<Pack>>,
    /// Places in the pack, the first by priority first.
    pub matching: Vec<usize>,
}

impl Seen {
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.pack.as_ref().map_or(&[][..], |pack| &pack.rules);
        self.matching.iter().filter_map(move |index| rules.get(*index))
    }

    fn shows(&self, state: RuleState) -> bool {
        self.rules().any(|rule| rule.state == state)
    }
}

#[derive(Debug)]
pub(super) struct Probed {
    pub at: Millis,
    pub probe: Probe,
    pub busy: bool,
}

/// A state that is waited for because it may be a half-drawn screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub state: RawState,
    pub since: Millis,
    pub seen: u8,
    last: Millis,
}

#[derive(Debug)]
pub struct Detector {
    expected: Option<String>,
    packs: Packs,
    now: Millis,
    pub(super) seen: Option<Seen>,
    pub(super) progress: Option<Progress>,
    pub(super) progress_cleared: bool,
    pub(super) mark: Option<(Mark, Millis)>,
    pub(super) probed: Option<Probed>,
    /// Processes beneath the first one while it was idle: helpers that are always there.
    pub(super) resting: Option<u32>,
    agent_was_in_front: bool,
    pub(super) reports: Reports,
    /// The pending question is, or was, on the screen.
    question_seen: bool,
    exited: bool,
    pub(super) last_output: Option<Millis>,
    /// As published; what has come since may be held back.
    verdict: Verdict,
    pub(super) held: Option<Held>,
    in_view: bool,
    /// It has worked and nobody has looked at the end of it.
    worked: bool,
    look_due: Option<Millis>,
    last_look: Option<Millis>,
    probe_due: Option<Millis>,
    probe_interval: Millis,
    report: AgentStatusReport,
}

impl Detector {
    /// `agent` is what the session was started as; in a shell, whichever agent comes to the foreground counts.
    pub fn new(agent: Option<&str>, packs: &Packs) -> Self {
        Self {
            expected: agent.map(str::to_owned),
            packs: packs.clone(),
            now: 0,
            seen: None,
            progress: None,
            progress_cleared: false,
            mark: None,
            probed: None,
            resting: None,
            agent_was_in_front: false,
            reports: Reports::default(),
            question_seen: false,
            exited: false,
            last_output: None,
            verdict: Verdict { row: Row::Nothing, state: RawState::Unknown, confidence: Confidence::Unknown, demoted: false },
            held: None,
            in_view: false,
            worked: false,
            look_due: None,
            last_look: None,
            probe_due: None,
            probe_interval: CPU_WINDOW,
            report: AgentStatusReport { detected_agent: agent.map(str::to_owned), ..AgentStatusReport::default() },
        }
    }

    // ---- evidence ----

    /// Cheap, for every piece of output; the looking comes later.
    pub fn note_output(&mut self, now: Millis) {
        self.last_output = Some(now);
        if self.exited {
            return;
        }
        let look = (now + SETTLE).max(self.last_look.map_or(0, |last| last + LOOK_GAP));
        self.look_due = Some(self.look_due.map_or(look, |due| due.min(look)));
        self.probe_at((now + SETTLE).max(self.probed.as_ref().map_or(0, |probed| probed.at + CPU_WINDOW)));
    }

    pub fn note_mark(&mut self, now: Millis, mark: Mark) -> bool {
        self.mark = Some((mark, now));
        // What is in the foreground has just changed.
        self.probe_at(now + SETTLE);
        self.evaluate(now)
    }

    pub fn look(&mut self, now: Millis, view: &View<'_>) -> bool {
        self.look_due = None;
        self.last_look = Some(now);
        match view.progress {
            Some(progress) => self.progress_cleared = progress.is_cleared(),
            None => self.progress_cleared |= self.progress.is_some(),
        }
        self.progress = view.progress;
        let pack = self.agent().and_then(|agent| self.packs.get(agent));
        let matching = pack.as_ref().map_or_else(Vec::new, |pack| pack.matching(&Regions::new(view)));
        self.seen = Some(Seen { at: now, pack, matching });
        self.notice_answer();
        self.evaluate(now)
    }

    /// A question that was on the screen and is there no more has been answered, whether or not anybody reports that.
    fn notice_answer(&mut self) {
        let screen = self.screen();
        let pending = self.reports.authority.as_mut().filter(|authority| authority.permission);
        match (pending, screen) {
            (None, _) => self.question_seen = false,
            (Some(_), Some(Screen::Shows(RawState::Blocked))) => self.question_seen = true,
            (Some(_), Some(Screen::Freeze)) => {}
            (Some(authority), _) if self.question_seen => {
                authority.end_question();
                self.question_seen = false;
            }
            (Some(_), _) => {}
        }
    }

    pub fn note_event(&mut self, now: Millis, event: &RuntimeEvent) -> bool {
        let agent = self.agent().map(str::to_owned);
        self.reports.take(now, event, agent.as_deref());
        self.evaluate(now)
    }

    pub fn note_probe(&mut self, now: Millis, probe: Probe) -> bool {
        self.probe_due = None;
        let before = self.probed.as_ref();
        let elapsed = now.saturating_sub(before.map_or(now, |before| before.at)).max(1);
        let busy = probe.cpu_ticks.is_some_and(|ticks| ticks.saturating_mul(CPU_WINDOW) >= BUSY_TICKS * elapsed);
        let moved = busy
            || before.is_none_or(|before| {
                before.probe.descendants != probe.descendants || self.last_output.is_some_and(|output| output >= before.at)
            });
        self.agent_was_in_front |= is_in_front(self.expected.as_deref(), &probe);
        if self.expected.is_none() && probe.agent.is_none() {
            // Whoever reported has left the foreground of this shell.
            self.reports.authority = None;
        }
        self.exited |= !probe.alive;
        let descendants = probe.descendants;
        self.probed = Some(Probed { at: now, probe, busy });
        self.probe_interval = if moved { CPU_WINDOW } else { (self.probe_interval * 2).min(MAX_PROBE_INTERVAL) };
        let changed = self.evaluate(now);
        match self.verdict.state {
            RawState::Idle => self.resting = Some(descendants),
            RawState::Working if !self.exited => {
                let watchdog = self.last_output.map(|output| output + WATCHDOG).filter(|at| *at > now);
                self.probe_at((now + self.probe_interval).min(watchdog.unwrap_or(Millis::MAX)));
            }
            _ => {}
        }
        changed
    }

    pub fn note_exit(&mut self, now: Millis) -> bool {
        self.exited = true;
        self.evaluate(now)
    }

    /// Whether somebody is looking at the session. What ends while it is in view is not news.
    pub fn set_in_view(&mut self, now: Millis, in_view: bool) -> bool {
        self.in_view = in_view;
        if in_view { self.viewed(now) } else { false }
    }

    pub fn viewed(&mut self, now: Millis) -> bool {
        if self.verdict.state == RawState::Idle {
            let was = std::mem::take(&mut self.worked);
            self.report.revision += u64::from(was);
            was
        } else {
            self.evaluate(now)
        }
    }

    // ---- time ----

    /// When to call `due`; `None` while nothing can change by itself.
    pub fn next_deadline(&self) -> Option<Millis> {
        let fresh_until = |at: Millis| Some(at + FRESH + 1);
        let held = self.held.map(|held| (held.last + HOLD / Millis::from(CONFIRMATIONS)).min(held.since + HOLD));
        let busy = self.probed.as_ref().filter(|probed| probed.busy && self.verdict.row == Row::StillRunning);
        [
            held,
            self.reports.authority.as_ref().filter(|_| !self.exited).and_then(|authority| fresh_until(authority.at)),
            self.mark.filter(|_| !self.exited).and_then(|(_, at)| fresh_until(at)),
            busy.map(|probed| probed.at + CPU_WINDOW + LATE + 1),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > self.now)
        // These stay until they are served.
        .chain(self.look_due)
        .chain(self.probe_due)
        .min()
    }

    /// Whatever it wants it asks for once; a probe or a look that never comes is not waited for.
    pub fn due(&mut self, now: Millis) -> Due {
        let look = self.look_due.take_if(|at| *at <= now).is_some();
        let probe = self.probe_due.take_if(|at| *at <= now).is_some();
        let changed = self.evaluate(now);
        Due { look, probe, changed }
    }

    fn probe_at(&mut self, at: Millis) {
        if !self.exited {
            self.probe_due = Some(self.probe_due.map_or(at, |due| due.min(at)));
        }
    }

    // ---- what follows ----

    pub fn state(&self) -> SessionState {
        match self.verdict.state {
            RawState::Unknown => SessionState::Unknown,
            RawState::Working => SessionState::Working,
            RawState::Blocked => SessionState::Blocked,
            RawState::Idle if self.worked => SessionState::Done,
            RawState::Idle => SessionState::Idle,
        }
    }

    pub fn report(&self) -> &AgentStatusReport {
        &self.report
    }

    /// What the session was started as, unless something else is in the foreground and known.
    pub fn agent(&self) -> Option<&str> {
        let elsewhere = self.probed.as_ref().map(|probed| &probed.probe).filter(|probe| self.expected.is_none() || !probe.first_in_front);
        elsewhere.and_then(|probe| probe.agent.as_deref()).or(self.expected.as_deref())
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(super) fn has_exited(&self) -> bool {
        self.exited
    }

    fn screen(&self) -> Option<Screen> {
        let seen = self.seen.as_ref()?;
        let current = seen.pack.as_ref().is_some_and(|pack| Some(pack.agent.as_str()) == self.agent());
        let rule = seen.rules().find(|rule| rule.strong).filter(|_| current)?;
        Some(rule.state.raw().map_or(Screen::Freeze, Screen::Shows))
    }

    fn back_at_shell(&self) -> bool {
        let at_shell = self.probed.as_ref().is_some_and(|probed| probed.probe.shell_in_front);
        // An agent's session begins with a shell, too: its entrypoint.
        at_shell && (self.expected.is_none() || self.agent_was_in_front)
    }

    pub(super) fn facts(&self, now: Millis) -> Facts {
        let probe = self.probed.as_ref();
        let children = probe.is_some_and(|probed| probed.probe.descendants > self.resting.unwrap_or(0));
        let cpu = probe.is_some_and(|probed| probed.busy && now.saturating_sub(probed.at) <= CPU_WINDOW + LATE);
        let quiet = self
            .last_output
            .is_some_and(|output| now.saturating_sub(output) >= WATCHDOG && probe.is_some_and(|probed| probed.at >= output + CPU_WINDOW));
        let agent_in_front = match (probe, self.expected.as_deref(), &self.reports.authority) {
            (None, _, _) => true,
            (Some(probed), Some(expected), _) => is_in_front(Some(expected), &probed.probe),
            (Some(probed), None, Some(authority)) => is_in_front(Some(&authority.runtime), &probed.probe),
            (Some(_), None, None) => true,
        };
        Facts {
            previous: self.verdict.state,
            exited: self.exited,
            back_at_shell: self.back_at_shell(),
            agent_in_front,
            screen: self.screen(),
            authority: self.reports.authority.as_ref().map(|authority| authority.fact(now)),
            mark: self.mark.map(|(mark, at)| (mark.state(), now.saturating_sub(at))),
            progress_cleared: self.progress_cleared,
            children,
            cpu,
            lifeless: quiet && !children && !cpu,
        }
    }

    fn evaluate(&mut self, now: Millis) -> bool {
        self.now = self.now.max(now);
        let now = self.now;
        let verdict = arbitrate::arbitrate(&self.facts(now));
        if self.holds_back(now, verdict) {
            return self.update_report(false);
        }
        let before = (self.state(), self.verdict.state);
        self.verdict = verdict;
        match verdict.state {
            RawState::Working | RawState::Blocked => self.worked = true,
            RawState::Idle if self.in_view => self.worked = false,
            RawState::Idle | RawState::Unknown => {}
        }
        if before.1 != verdict.state && matches!(verdict.state, RawState::Working | RawState::Idle) {
            // To see whether it goes on by itself, or what runs when it rests.
            self.probe_interval = CPU_WINDOW;
            self.probe_at(now + CPU_WINDOW);
        }
        if self.exited {
            (self.look_due, self.probe_due) = (None, None);
        }
        self.update_report(before.0 != self.state())
    }

    fn holds_back(&mut self, now: Millis, verdict: Verdict) -> bool {
        let by_looks = match verdict.row {
            Row::Shown => verdict.state == RawState::Idle,
            Row::ProgressCleared => true,
            Row::Nothing => true,
            _ => false,
        };
        if !by_looks || verdict.state == self.verdict.state || self.verdict.state == RawState::Unknown {
            self.held = None;
            return false;
        }
        let held = self.held.get_or_insert(Held { state: verdict.state, since: now, seen: 1, last: now });
        if held.state != verdict.state {
            (held.state, held.seen, held.last) = (verdict.state, 1, now);
        } else if now - held.last >= HOLD / Millis::from(CONFIRMATIONS) {
            (held.seen, held.last) = (held.seen + 1, now);
        }
        let believed = held.seen >= CONFIRMATIONS || now - held.since >= HOLD;
        if believed {
            self.held = None;
        }
        !believed
    }

    fn update_report(&mut self, state_changed: bool) -> bool {
        let seen = self.seen.as_ref();
        let shows = |state| seen.is_some_and(|seen| seen.shows(state));
        let report = AgentStatusReport {
            raw_state: self.verdict.state,
            source: self.source(),
            confidence: self.verdict.confidence,
            detected_agent: self.agent().map(str::to_owned),
            foreground_pgid: self.probed.as_ref().and_then(|probed| probed.probe.foreground_pgid),
            visible_blocker: shows(RuleState::Blocked),
            visible_idle: shows(RuleState::Idle),
            visible_working: shows(RuleState::Working),
            process_exited: self.exited,
            foreground_returned_to_shell: self.back_at_shell(),
            stale_report: self.reports.refused.is_some(),
            subagents_active: self.reports.authority.as_ref().map_or(0, |authority| authority.subagents),
            revision: self.report.revision,
        };
        if !state_changed && report == self.report {
            return false;
        }
        self.report = AgentStatusReport { revision: report.revision + 1, ..report };
        true
    }

    fn source(&self) -> Source {
        if self.verdict.demoted {
            return Source::None;
        }
        match self.verdict.row {
            Row::Ended | Row::StillRunning => Source::ForegroundProcess,
            Row::Freeze | Row::Blocker | Row::Shown => Source::VisibleScreen,
            Row::Permission | Row::Authority => match &self.reports.authority {
                Some(authority) => Source::Reported { source_id: authority.source_id.clone() },
                // It has left, and what it said is being held.
                None => Source::None,
            },
            Row::ShellMark | Row::ProgressCleared => Source::ShellIntegration,
            Row::Nothing => Source::None,
        }
    }
}

/// The first process of an agent's session becomes the agent; elsewhere it has to be found by its name.
fn is_in_front(agent: Option<&str>, probe: &Probe) -> bool {
    agent.is_some() && (agent == probe.agent.as_deref() || (probe.first_in_front && !probe.shell_in_front))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Hints;
    use super::super::arbitrate::ROWS;
    use super::*;

    const WORKING: &str = "✻ Pondering… (3s · esc to interrupt)\n\n──────────\n❯ \n──────────\n";
    const IDLE: &str = "● Done.\n\n──────────\n❯ \n──────────\n  ? for shortcuts";
    const BLOCKED: &str = "Do you want to proceed?\n❯ 1. Yes\n  2. No\n\nEsc to cancel";
    const FROZEN: &str = "Showing detailed transcript · ctrl+o to toggle";
    const NOTHING: &str = "starting";

    struct World {
        detector: Detector,
        now: Millis,
    }

    fn world(agent: Option<&str>) -> World {
        World { detector: Detector::new(agent, &Packs::embedded()), now: 1_000 }
    }

    fn event(runtime: &str, name: &str) -> RuntimeEvent {
        RuntimeEvent {
            session_id: 1,
            source_id: format!("hook-{runtime}-1"),
            runtime: runtime.to_owned(),
            event: name.to_owned(),
            payload: Hints::default(),
            sequence: None,
        }
    }

    /// The agent in front, alone and asleep.
    fn agent() -> Probe {
        Probe {
            alive: true,
            foreground_pgid: Some(7),
            program: Some("claude".into()),
            agent: Some("claude".into()),
            first_in_front: true,
            cpu_ticks: Some(0),
            ..Probe::default()
        }
    }

    fn shell() -> Probe {
        Probe { program: Some("zsh".into()), agent: None, shell_in_front: true, ..agent() }
    }

    fn command() -> Probe {
        Probe { program: Some("make".into()), agent: None, first_in_front: false, descendants: 3, ..agent() }
    }

    impl World {
        fn look(&mut self, screen: &str) -> &mut Self {
            self.look_titled(screen, "", None)
        }

        fn look_titled(&mut self, screen: &str, title: &str, progress: Option<Progress>) -> &mut Self {
            let rows: Vec<String> = screen.lines().map(str::to_owned).collect();
            self.detector.note_output(self.now);
            self.detector.look(self.now, &View { rows: &rows, title, progress });
            self
        }

        /// Until what it shows is believed.
        fn settle(&mut self, screen: &str) -> &mut Self {
            self.look(screen).pass(HOLD)
        }

        fn event(&mut self, name: &str) -> &mut Self {
            let runtime = self.detector.agent().unwrap_or("claude").to_owned();
            self.detector.note_event(self.now, &event(&runtime, name));
            self
        }

        fn probe(&mut self, probe: Probe) -> &mut Self {
            self.detector.note_probe(self.now, probe);
            self
        }

        /// As the mux does: wakes when asked to, and has nothing new to show.
        fn pass(&mut self, ms: Millis) -> &mut Self {
            let end = self.now + ms;
            while let Some(at) = self.detector.next_deadline().filter(|at| *at <= end) {
                self.now = at;
                self.detector.due(at);
                assert!(self.detector.next_deadline().is_none_or(|next| next > at), "it asks for {at} again and again");
            }
            self.now = end;
            self.detector.due(end);
            self
        }

        fn check(&mut self, state: SessionState, row: Row) -> &mut Self {
            assert_eq!((self.detector.state(), self.detector.verdict.row), (state, row), "{}", self.detector.explain(self.now).text());
            let explanation = self.detector.explain(self.now);
            assert_eq!(explanation.report, self.detector.report);
            assert_eq!(explanation.rows.iter().filter(|row| row.says.starts_with("decides")).count(), 1);
            self
        }
    }

    use SessionState::{Blocked, Done, Idle, Unknown, Working};

    // ---- the table, row by row ----

    #[test]
    fn row_1_the_end() {
        let mut w = world(Some("claude"));
        w.look(BLOCKED).event("permission-requested").check(Blocked, Row::Permission);
        w.detector.note_exit(w.now);
        w.check(Done, Row::Ended);
        assert_eq!(w.detector.report.source, Source::ForegroundProcess);
        assert!(w.detector.report.process_exited);
        w.detector.note_output(w.now);
        assert_eq!(w.detector.next_deadline(), None);
    }

    #[test]
    fn row_1_a_probe_tells_of_the_end_too() {
        world(Some("claude")).look(WORKING).probe(Probe::default()).check(Done, Row::Ended);
    }

    #[test]
    fn row_1_back_at_the_shell() {
        let mut w = world(None);
        w.probe(command()).check(Unknown, Row::Nothing).probe(shell()).check(Idle, Row::Ended);
        assert!(w.detector.report.foreground_returned_to_shell);
        let mut w = world(Some("claude"));
        w.probe(shell()).check(Unknown, Row::Nothing); // the entrypoint
        w.probe(agent()).look(WORKING).check(Working, Row::Shown).probe(shell()).check(Done, Row::Ended);
    }

    #[test]
    fn row_2_freeze() {
        let mut w = world(Some("claude"));
        w.look(BLOCKED).look(FROZEN).check(Blocked, Row::Freeze);
        w.look(WORKING).look(FROZEN).check(Working, Row::Freeze);
        w.event("permission-requested").check(Working, Row::Freeze);
    }

    #[test]
    fn row_3_a_permission() {
        let mut w = world(Some("opencode"));
        w.event("permission.asked").check(Blocked, Row::Permission);
        assert_eq!(w.detector.report.confidence, Confidence::Authoritative);
        assert_eq!(w.detector.report.source, Source::Reported { source_id: "hook-opencode-1".into() });
        w.event("permission.replied").check(Working, Row::Authority);
        let mut w = world(Some("amp"));
        w.event("permission-requested").check(Blocked, Row::Permission).pass(FRESH + 1 + HOLD).check(Unknown, Row::Nothing);
    }

    #[test]
    fn row_3_an_answered_question_vanishes() {
        let mut w = world(Some("claude"));
        w.event("permission-requested").look(WORKING).check(Blocked, Row::Permission);
        w.look(BLOCKED).check(Blocked, Row::Permission).look(WORKING).check(Working, Row::Shown);
    }

    #[test]
    fn row_4_a_blocker_on_the_screen_beats_the_report() {
        world(Some("claude")).event("tool-start").check(Working, Row::Authority).look(BLOCKED).check(Blocked, Row::Blocker);
    }

    #[test]
    fn row_5_the_report_beats_the_screen() {
        let mut w = world(Some("claude"));
        w.look(IDLE).event("tool-start").check(Working, Row::Authority);
        w.pass(FRESH).check(Working, Row::Authority).pass(1 + HOLD).check(Done, Row::Shown);
        w.event("tool-start").event("heartbeat").pass(20_000).event("heartbeat").pass(20_000).check(Working, Row::Authority);
        w.event("turn-complete").check(Done, Row::Authority);
    }

    #[test]
    fn row_5_only_from_the_agent_in_front() {
        let editor = Probe { first_in_front: false, agent: None, program: Some("vim".into()), ..agent() };
        for other in [Probe { agent: Some("codex".into()), ..editor.clone() }, editor] {
            let mut w = world(Some("claude"));
            w.event("tool-start").check(Working, Row::Authority).probe(other).pass(HOLD).check(Unknown, Row::Nothing);
        }
        let mut w = world(Some("claude"));
        w.event("tool-start").probe(Probe { agent: Some("codex".into()), ..agent() }).check(Working, Row::Authority); // its tool
        let mut w = world(Some("amp"));
        w.event("tool-start").event("nonsense").check(Working, Row::Authority);
        assert!(w.detector.report.stale_report);
    }

    #[test]
    fn row_6_shell_marks() {
        let mut w = world(None);
        w.detector.note_mark(w.now, Mark::CommandStart);
        w.check(Working, Row::ShellMark);
        assert_eq!(w.detector.report.source, Source::ShellIntegration);
        w.detector.note_mark(w.now, Mark::CommandEnd);
        w.check(Done, Row::ShellMark);
        w.pass(FRESH + 1 + HOLD).check(Unknown, Row::Nothing);
    }

    #[test]
    fn row_7_what_is_shown() {
        let mut w = world(Some("claude"));
        w.look(IDLE).check(Idle, Row::Shown).look(WORKING).check(Working, Row::Shown);
        assert_eq!(w.detector.report.source, Source::VisibleScreen);
        w.look_titled(NOTHING, "⠂ Fix the bug", None).check(Working, Row::Shown);
    }

    #[test]
    fn row_8_progress_cleared() {
        let mut w = world(Some("claude"));
        let (busy, cleared) = (Progress { state: 3, percent: None }, Progress { state: 0, percent: None });
        w.look_titled(NOTHING, "", Some(busy)).check(Unknown, Row::Nothing);
        w.look_titled(NOTHING, "", Some(cleared)).check(Idle, Row::ProgressCleared);
        assert_eq!(w.detector.report.confidence, Confidence::Weak);
        w.look_titled(NOTHING, "", Some(busy)).pass(HOLD).check(Unknown, Row::Nothing);
        w.look_titled(NOTHING, "", None).check(Idle, Row::ProgressCleared);
    }

    #[test]
    fn row_9_it_still_runs() {
        let mut w = world(Some("claude"));
        w.look(WORKING).probe(Probe { descendants: 2, ..agent() }).look(NOTHING).check(Working, Row::StillRunning);
        assert_eq!(w.detector.report.confidence, Confidence::Weak);
        w.probe(agent()).pass(HOLD).check(Unknown, Row::Nothing);
        let mut w = world(Some("claude"));
        w.look(WORKING).probe(agent()).pass(2_000).probe(Probe { cpu_ticks: Some(5), ..agent() });
        w.look(NOTHING).check(Working, Row::StillRunning);
        w.pass(CPU_WINDOW + LATE + 1 + HOLD).check(Unknown, Row::Nothing);
    }

    #[test]
    fn row_9_helpers_that_are_always_there_are_no_work() {
        let mut w = world(Some("claude"));
        let helpers = Probe { descendants: 2, ..agent() };
        w.look(IDLE).probe(helpers.clone()).look(WORKING).probe(helpers).look(NOTHING).pass(HOLD).check(Unknown, Row::Nothing);
    }

    #[test]
    fn row_10_nothing() {
        world(Some("claude")).check(Unknown, Row::Nothing).look(NOTHING).check(Unknown, Row::Nothing);
        world(None).look(WORKING).check(Unknown, Row::Nothing); // no agent, no rules
    }

    // ---- time ----

    #[test]
    fn idle_has_to_be_seen_three_times_or_long_enough() {
        let mut w = world(Some("claude"));
        w.look(WORKING).look(IDLE).check(Working, Row::Shown);
        for _ in 0..50 {
            w.look(IDLE).check(Working, Row::Shown); // all in one moment
        }
        w.now += 100;
        w.look(WORKING).look(IDLE);
        w.pass(HOLD / 3).check(Working, Row::Shown).pass(HOLD / 3).check(Done, Row::Shown);
        let mut w = world(Some("claude"));
        w.look(WORKING).look(IDLE);
        w.now += HOLD;
        w.look(IDLE).check(Done, Row::Shown);
    }

    #[test]
    fn reported_idle_is_believed_at_once() {
        world(Some("claude")).event("tool-start").event("turn-complete").check(Done, Row::Authority);
    }

    #[test]
    fn the_watchdog_bites_quiet_work() {
        let mut w = world(Some("claude"));
        w.look(WORKING).probe(agent()).pass(WATCHDOG).check(Working, Row::Shown).probe(agent()).check(Unknown, Row::Shown);
        assert!(w.detector.explain(w.now).held.is_some());
        w.look(WORKING).check(Working, Row::Shown);
        let mut w = world(Some("claude"));
        let tool = Probe { descendants: 1, ..agent() };
        w.look(WORKING).probe(tool.clone()).pass(WATCHDOG).probe(tool).check(Working, Row::Shown);
        let mut w = world(Some("claude"));
        w.look(WORKING).pass(WATCHDOG).check(Working, Row::Shown); // nothing is known of its processes
    }

    #[test]
    fn an_idle_session_asks_for_nothing() {
        let mut w = world(Some("claude"));
        w.look(WORKING).settle(IDLE).pass(CPU_WINDOW).probe(agent()).pass(HOLD).check(Done, Row::Shown);
        assert_eq!(w.detector.next_deadline(), None);
        w.event("turn-complete").pass(FRESH + 1 + HOLD).check(Done, Row::Shown);
        assert_eq!(w.detector.next_deadline(), None);
        assert_eq!(world(Some("claude")).detector.next_deadline(), None);
    }

    #[test]
    fn quiet_work_is_probed_less_and_less() {
        let mut w = world(Some("claude"));
        let tool = Probe { descendants: 1, ..agent() };
        w.look(WORKING);
        let mut probes = 0;
        let end = w.now + 3_600_000;
        while let Some(at) = w.detector.next_deadline().filter(|at| *at < end) {
            w.now = at;
            if w.detector.due(at).probe {
                probes += 1;
                w.probe(tool.clone());
            }
        }
        w.check(Working, Row::Shown);
        assert!((50..80).contains(&probes), "{probes} in an hour");
    }

    #[test]
    fn output_is_looked_at_soon_but_not_all_the_time() {
        let mut w = world(Some("claude"));
        let mut looks = 0;
        for ms in 0..10_000 {
            w.now = 1_000 + ms;
            w.detector.note_output(w.now);
            if w.detector.next_deadline().is_some_and(|at| at <= w.now) && w.detector.due(w.now).look {
                looks += 1;
                w.look(WORKING);
            }
        }
        assert!((35..=41).contains(&looks), "{looks} in ten seconds");
    }

    // ---- done ----

    #[test]
    fn done_until_somebody_looks() {
        let mut w = world(Some("claude"));
        w.settle(IDLE).check(Idle, Row::Shown);
        w.look(WORKING).settle(IDLE).check(Done, Row::Shown);
        let revision = w.detector.report.revision;
        assert!(w.detector.viewed(w.now) && w.detector.report.revision > revision);
        w.check(Idle, Row::Shown);
        assert!(!w.detector.viewed(w.now));
        w.detector.set_in_view(w.now, true);
        w.look(WORKING).settle(IDLE).check(Idle, Row::Shown);
        w.detector.set_in_view(w.now, false);
        w.check(Idle, Row::Shown).look(BLOCKED).settle(IDLE).check(Done, Row::Shown);
    }

    #[test]
    fn looking_while_it_works_is_not_seeing_the_end() {
        let mut w = world(Some("claude"));
        w.look(WORKING).detector.viewed(1_000);
        w.settle(IDLE).check(Done, Row::Shown);
    }

    // ---- shells ----

    #[test]
    fn an_agent_started_in_a_shell_is_known() {
        let mut w = world(None);
        w.probe(shell()).check(Idle, Row::Ended);
        w.probe(Probe { first_in_front: false, ..agent() }).look(WORKING).check(Working, Row::Shown);
        assert_eq!(w.detector.report.detected_agent.as_deref(), Some("claude"));
        w.event("tool-start").check(Working, Row::Authority);
        w.probe(shell()).check(Done, Row::Ended);
        assert_eq!((&w.detector.report.detected_agent, &w.detector.reports.authority), (&None, &None));
    }

    #[test]
    fn a_long_command_in_a_shell_stays_working() {
        let mut w = world(None);
        w.probe(shell());
        w.detector.note_mark(w.now, Mark::CommandStart);
        w.probe(command()).check(Working, Row::ShellMark).pass(FRESH + 1).check(Working, Row::StillRunning);
        w.probe(shell()).check(Done, Row::Ended);
    }

    // ---- explanation ----

    #[test]
    fn the_explanation_tells_all() {
        let mut w = world(Some("claude"));
        w.look(WORKING).probe(agent()).event("permission-requested");
        w.now += 1_500;
        w.detector.due(w.now);
        let text = w.detector.explain(w.now).text();
        for part in [
            "state     blocked (strong)",
            "agent     claude",
            "rules     claude, embedded, for versions >=2",
            ">  3  reported permission pending                     decides: blocked (strong)",
            "   7  strong screen rule: working or idle             working (strong), but row 3 comes first",
            "   8  progress cleared (OSC 9;4)                      no: it was not",
            "screen        3 rules match, 1.5 s ago",
            "reported      blocked, a question is pending; last permission-requested from hook-claude-1, 1.5 s ago",
            "processes     claude in the foreground, 0 beneath the first (unknown at rest)",
            "spinner: working (strong), priority 900, in bottom_nonempty:16",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn an_explanation_survives_the_wire() {
        let mut w = world(Some("claude"));
        let explanation = w.look(WORKING).look(IDLE).detector.explain(1_000);
        assert!(explanation.held.is_some());
        let json = serde_json::to_string(&explanation).unwrap();
        assert_eq!(serde_json::from_str::<crate::agent::Explanation>(&json).unwrap(), explanation);
    }

    // ---- properties ----

    #[derive(Debug, Clone)]
    enum Step {
        Output,
        Look(usize, usize, Option<Progress>),
        Mark(Mark),
        Event(usize),
        Probe(Probe),
        View(bool),
        Pass(Millis),
        Exit,
    }

    const SCREENS: [&str; 5] = [WORKING, IDLE, BLOCKED, FROZEN, NOTHING];
    const TITLES: [&str; 3] = ["", "⠂ Busy", "✳ Rest"];
    const EVENTS: [&str; 10] = [
        "prompt-submitted",
        "permission-requested",
        "permission-resolved",
        "turn-complete",
        "subagent-start",
        "subagent-stop",
        "session-end",
        "heartbeat",
        "PostToolUse",
        "nonsense",
    ];

    fn step() -> impl Strategy<Value = Step> {
        let progress = prop::option::of((0..5_u8).prop_map(|state| Progress { state, percent: None }));
        let mark = prop::sample::select(vec![Mark::PromptStart, Mark::PromptEnd, Mark::CommandStart, Mark::CommandEnd]);
        let probe = (prop::sample::select(vec![agent(), shell(), command()]), 0..3_u32, 0..20_u64)
            .prop_map(|(probe, descendants, ticks)| Step::Probe(Probe { descendants, cpu_ticks: Some(ticks), ..probe }));
        prop_oneof![
            3 => Just(Step::Output),
            6 => (0..SCREENS.len(), 0..TITLES.len(), progress).prop_map(|(screen, title, progress)| Step::Look(screen, title, progress)),
            2 => mark.prop_map(Step::Mark),
            4 => (0..EVENTS.len()).prop_map(Step::Event),
            3 => probe,
            2 => any::<bool>().prop_map(Step::View),
            6 => prop_oneof![0..1_000_u64, 0..40_000_u64].prop_map(Step::Pass),
            1 => Just(Step::Exit),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes(agent in prop::option::of(Just("claude")), steps in prop::collection::vec(step(), 1..60)) {
            let mut w = world(agent);
            for step in steps {
                let before = (w.detector.state(), w.detector.report.clone());
                match step {
                    Step::Output => w.detector.note_output(w.now),
                    Step::Look(screen, title, progress) => {
                        w.look_titled(SCREENS[screen], TITLES[title], progress);
                    }
                    Step::Mark(mark) => {
                        w.detector.note_mark(w.now, mark);
                    }
                    Step::Event(event) => {
                        w.event(EVENTS[event]);
                    }
                    Step::Probe(probe) => {
                        w.probe(probe);
                    }
                    Step::View(in_view) => {
                        w.detector.set_in_view(w.now, in_view);
                    }
                    Step::Pass(ms) => {
                        w.pass(ms);
                    }
                    Step::Exit => {
                        w.detector.note_exit(w.now);
                    }
                }
                let after = (w.detector.state(), w.detector.report.clone());
                // Nothing changes unnoticed, and nothing is announced that has not changed.
                prop_assert_eq!(before.1.revision == after.1.revision, before == after);
                prop_assert!(ROWS.contains(&w.detector.verdict.row));
                w.detector.explain(w.now).text();
            }
            // Left alone it comes to rest: what it shows no longer changes, and it asks for nothing but a rare probe.
            w.pass(2 * FRESH + 2 * HOLD);
            let rest = (w.detector.state(), w.detector.report.revision);
            prop_assert_eq!(w.detector.next_deadline(), None);
            w.pass(3_600_000);
            prop_assert_eq!((w.detector.state(), w.detector.report.revision), rest);
        }

        /// The same screen again and again changes the state at most once, whatever was before.
        #[test]
        fn the_same_evidence_never_oscillates(steps in prop::collection::vec(step(), 0..30), screen in 0..SCREENS.len()) {
            let mut w = world(Some("claude"));
            for step in steps {
                match step {
                    Step::Look(screen, title, progress) => {
                        w.look_titled(SCREENS[screen], TITLES[title], progress);
                    }
                    Step::Event(event) => {
                        w.event(EVENTS[event]);
                    }
                    Step::Pass(ms) => {
                        w.pass(ms);
                    }
                    _ => {}
                }
            }
            w.pass(FRESH + 1).look(SCREENS[screen]).pass(HOLD + 1);
            let settled = w.detector.state();
            for _ in 0..20 {
                w.look(SCREENS[screen]).pass(333);
                prop_assert_eq!(w.detector.state(), settled);
            }
        }
    }
}
