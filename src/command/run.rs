//! What every command that plans has in common: gather -> Config -> Graph -> observe -> plan -> render -> confirm -> apply -> render.
//!
//! In: wanted instances and what to do about them. Out: an exit code. Each command file chooses the goal; nothing else creates or
//! removes a Docker object.

use super::kept::KeptSets;
use super::live::{self, ArchBy};
use super::ui::{CANCELLED, DONE, ERROR, Failure, Ui};
use crate::apply::{self, Report};
use crate::cli::{Carrying, Format};
use crate::config::Agent;
use crate::diagnostic::Diagnostic;
use crate::event::{Entry, Event, JOURNAL_FORMAT};
use crate::gather::lock::Lock;
use crate::gather::session::{self, Freshness, Request, Session};
use crate::gather::{Paths, clock, prompt};
use crate::graph::Graph;
use crate::graph::build::{Built, SENSITIVE_MOUNT, UNTRUSTED_ROLE, build};
use crate::graph::prewarm::kept_recipe;
use crate::graph::programs::{FALLBACK, INSTALLER};
use crate::graph::want::{Wanted, loaded_spares};
use crate::journal::{self, Journal};
use crate::observed::{Loss, Observed};
use crate::plan::{Action, Effect, Mode, Plan, PlanOptions, Scope, SidecarGoal, StepId, plan};
use crate::provider::Provider;
use crate::provider::live::Live;
use crate::render::plan::plan_text;
use crate::render::progress::Progress;
use crate::resource::{Address, Kind};
use crate::walk::Limits;
use secrecy::SecretString;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a kept set may be snatched away before a launch goes on without.
const MOST_LOOKS: usize = 32;

/// The verb under which an ended session's resources are removed.
pub const SESSION_END: &str = "session end";

/// One invocation.
pub struct Run {
    pub ui: Ui,
    pub journal: Journal,
    pub debug: bool,
    pub started: Instant,
    pub predicted: Option<u64>,
    /// Milliseconds of each step that was carried out.
    pub timed: BTreeMap<StepId, u64>,
    /// Steps of the last plan that failed, and why.
    pub failed: Vec<(StepId, Diagnostic)>,
    /// Of instances that were chosen because nobody else has hands on them, by container.
    pub locks: BTreeMap<String, Lock>,
    /// Right now a signal is heeded by the command itself.
    pub heeds: Rc<Cell<bool>>,
}

impl Run {
    pub fn start(ui: Ui, debug: bool, command: &str) -> Run {
        let run_id = clock::run_id().unwrap_or_else(|_| "unknown".to_owned());
        let mut journal = match Paths::from_env(crate::gather::env::variable) {
            Ok(paths) => {
                let directory = paths.runs();
                let journal = Journal::open(&directory, &run_id);
                journal::prune(&directory);
                journal
            }
            Err(_) => Journal::nowhere(&run_id),
        };
        journal.write(Entry::RunStarted {
            format_version: JOURNAL_FORMAT,
            run_id,
            command: command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        });
        Run {
            ui,
            journal,
            debug,
            started: Instant::now(),
            predicted: None,
            timed: BTreeMap::new(),
            failed: Vec::new(),
            locks: BTreeMap::new(),
            heeds: Rc::default(),
        }
    }

    /// Says what has not been said, closes the diary, returns the exit code.
    pub fn finish(&mut self, result: Result<i32, Failure>) -> i32 {
        let (code, diagnostics) = match result {
            Ok(code) | Err(Failure::Said(code)) => (code, Vec::new()),
            Err(Failure::Diagnostics(diagnostics)) => {
                self.ui.diagnostics(&diagnostics);
                (ERROR, diagnostics)
            }
        };
        if code != DONE && self.debug && !self.journal.path.as_os_str().is_empty() {
            self.ui.talk(&format!("Run {}: {}", self.journal.run_id, self.journal.path.display()));
        }
        self.journal.write(Entry::RunFinished {
            exit_code: code,
            predicted_milliseconds: self.predicted,
            actual_milliseconds: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            diagnostics,
        });
        code
    }

    pub async fn open(&self, answers: &[(String, String)], freshness: Freshness, may_ask: bool, arch: ArchBy) -> Result<Session, Failure> {
        self.open_pinned(answers, freshness, may_ask, arch, BTreeMap::new()).await
    }

    pub async fn open_pinned(
        &self,
        answers: &[(String, String)],
        freshness: Freshness,
        may_ask: bool,
        arch: ArchBy,
        pinned: BTreeMap<String, String>,
    ) -> Result<Session, Failure> {
        let answers = answers.iter().map(|(name, value)| (name.clone(), SecretString::from(value.clone()))).collect();
        let request = Request { answers, freshness, may_ask, pinned };
        let session = session::open(request, live::engine_facts(arch), &notice).await?;
        self.ui.warn(&session.warnings);
        Ok(session)
    }

    /// Facts completed, graph built.
    pub async fn graph(&self, session: &mut Session, wanted: &[Wanted]) -> Result<Built, Failure> {
        session.complete(wanted, &notice).await?;
        Ok(build(&session.config, &session.facts, wanted))
    }

    /// For `--prune`: with the spares that no workspace declares, each built by itself first, so that one which could not be made any
    /// more is in nobody's way.
    pub async fn graph_to_prune(&self, session: &mut Session, wanted: &[Wanted], scope: &Scope) -> Result<Built, Failure> {
        let (mut spares, mut abandoned) = loaded_spares(&session.config, &session.facts, wanted, |key| scope.covers(key));
        let all: Vec<Wanted> = wanted.iter().chain(&spares).cloned().collect();
        session.complete(&all, &notice).await?;
        spares.retain(|spare| {
            let fits =
                !build(&session.config, &session.facts, std::slice::from_ref(spare)).graph.diagnostics.iter().any(Diagnostic::is_error);
            if !fits {
                abandoned.insert(spare.key.clone());
            }
            fits
        });
        session.wanted = wanted.iter().cloned().chain(spares).collect();
        let mut built = build(&session.config, &session.facts, &session.wanted);
        built.graph.kept = Some(kept_recipe(&session.config, &session.facts));
        built.graph.abandoned = abandoned;
        Ok(built)
    }

    pub fn write_observed(&mut self, observed: &Observed) {
        self.journal.write(Entry::Observed {
            digest: observed.digest(),
            resources: observed.resources.values().map(Vec::len).sum(),
            observed: self.debug.then(|| Box::new(observed.clone())),
        });
    }

    pub fn write_plan(&mut self, built: &Built, options: &PlanOptions, plan: &Plan) {
        self.predicted = plan.estimate.as_ref().map(|e| e.milliseconds);
        self.journal.write(Entry::Planned {
            digest: plan.digest.clone(),
            counts: plan.counts.iter().map(|(action, count)| (action.as_str().to_owned(), *count)).collect(),
            blockers: plan.blockers.clone(),
            estimate_milliseconds: self.predicted,
            graph: self.debug.then(|| Box::new(built.graph.clone())),
            options: self.debug.then(|| Box::new(options.clone())),
            // What was prepared and what was left out is asked for later, when a launch was slow.
            plan: (self.debug || options.mode == Mode::PrewarmOnly).then(|| Box::new(plan.clone())),
        });
    }

    /// Looks, plans, shows, asks, applies. `expected` is a saved plan that must still hold.
    pub async fn carry_out(
        &mut self,
        session: &mut Session,
        built: Built,
        options: &PlanOptions,
        carrying: &Carrying,
        asks: Asks,
        expected: Option<&Plan>,
    ) -> Result<i32, Failure> {
        let mut options = options.clone();
        options.history = session.history();
        let mut built = built;
        built.contexts.values_mut().for_each(|context| context.from_scratch = options.rebuild);
        let mut ask = !carrying.yes && !carrying.dry_run && expected.is_none() && asks == Asks::Always;
        let containers = locked_containers(session, &built, &options);
        let on_engine = options.mode != Mode::PrewarmOnly || built.graph.resources.keys().any(|address| address.kind.on_engine());
        let mut provider = match (on_engine, options.mode) {
            (false, _) => live::this_host(session),
            (true, Mode::Remove) => live::connect(session, built.contexts.clone()).await?,
            (true, _) => live::connect_for_programs(session, built.contexts.clone()).await?,
        };
        // Nobody is kept waiting while a person thinks: without `--yes` the locks are taken after the answer.
        let mut locks = if ask || carrying.dry_run { Vec::new() } else { self.lock_all(session, &containers).await? };

        let mut sets = KeptSets::of(session);
        let (observed, mut plan) = match carrying.dry_run {
            true => self.look(&provider, &built, &options).await?,
            false => self.look_and_hold(&provider, &built, &options, &mut sets).await?,
        };
        self.write_observed(&observed);
        self.write_plan(&built, &options, &plan);
        if let Some(saved) = expected {
            refuse_stale(saved, &plan)?;
        }
        if carrying.dry_run {
            self.show(&plan, carrying.format, false);
            return Ok(if plan.is_blocked() { ERROR } else { DONE });
        }
        if plan.is_blocked() {
            self.ui.diagnostics(&plan.blockers);
            self.ui.talk("Nothing was changed.");
            return Err(Failure::Said(ERROR));
        }
        if plan.is_empty() {
            if carrying.format == Format::Json {
                self.ui.result(&plan.to_json());
            } else {
                self.ui.result(&plan_text(&plan, &self.ui.out, false));
            }
            return Ok(DONE);
        }
        let removing = options.mode == Mode::Remove;
        let losing = !removing && !plan.losses().is_empty() && !carrying.allow_loss;
        if asks == Asks::WhenInDoubt && !carrying.yes && (needs_consent(&plan) || losing) {
            ask = true;
            locks.clear();
        }
        // The end of a session needs no announcement.
        if carrying.format == Format::Human && options.command != SESSION_END {
            self.ui.talk(&plan_text(&plan, &self.ui.err, false));
        }
        if ask {
            sets.let_go();
            let question = match plan.losses().is_empty() {
                true => "Apply this plan?",
                false => "Apply this plan and lose what it says?",
            };
            let yes = tokio::task::spawn_blocking(move || prompt::confirm(question)).await.expect("BUG: asking does not panic")?;
            if !yes {
                self.ui.talk("Nothing was changed.");
                return Err(Failure::Said(CANCELLED));
            }
            locks = self.lock_all(session, &containers).await?;
            let (_, again) = self.look_and_hold(&provider, &built, &options, &mut sets).await?;
            refuse_stale(&plan, &again)?;
            plan = again;
        } else if losing {
            return Err(refuse_loss(&plan).into());
        }

        if plan.changes.iter().any(|change| matches!(change.action, Action::Build | Action::Rebuild)) {
            live::refuse_other_machine(session, &provider).await?;
        }
        session.refresh_releases();
        let limits = Limits { steps: usize::from(carrying.parallelism), ..Limits::default() };
        let mut report = self.apply(&provider, &plan, limits).await;
        if expected.is_none()
            && let Some(without) = self.without(session, &mut provider, &plan, &report, &options).await?
        {
            plan = without;
            report = self.apply(&provider, &plan, limits).await;
        }
        drop(locks);
        sets.release();
        if carrying.format == Format::Json {
            self.ui.result(&plan.to_json());
        }
        let code = match &report {
            report if report.interrupted => CANCELLED,
            report if report.succeeded() || self.only_programs_missing(options.mode, report) => DONE,
            _ => ERROR,
        };
        // A privileged container that was only to be tried does not outlive the command, whatever became of it.
        let swept = match options.sidecar {
            Some(SidecarGoal::Try) => self.sweep(session, &provider).await,
            Some(SidecarGoal::Keep) if code == DONE => self.sweep(session, &provider).await,
            _ => Ok(()),
        };
        if code != DONE {
            if let Err(Failure::Diagnostics(wrong)) = swept {
                self.ui.diagnostics(&wrong);
            }
            return Err(Failure::Said(code));
        }
        swept?;
        session.remember_history();
        Ok(code)
    }

    /// When nothing failed but downloads of agents: a plan that does without these, by what is cached or the vendor's installer. It is
    /// the one that the next run would make, so it is made at once, unless it would lose what the first one did not.
    async fn without(
        &mut self,
        session: &mut Session,
        provider: &mut Live,
        plan: &Plan,
        report: &Report,
        options: &PlanOptions,
    ) -> Result<Option<Plan>, Failure> {
        let agent = |id: &str| {
            let step = plan.steps.iter().find(|step| step.id == id && step.effect == Effect::Download)?;
            Agent::from_slug(&step.address.name)
        };
        let failed: Option<Vec<(Agent, &str)>> = report.failed.iter().map(|(id, why)| Some((agent(id)?, why.detail.as_str()))).collect();
        let Some(failed) = failed
            .filter(|failed| !failed.is_empty() && !report.interrupted && !session.wanted.is_empty() && options.mode != Mode::PrewarmOnly)
        else {
            return Ok(None);
        };
        for (agent, why) in failed {
            session.do_without(agent, why);
        }
        let mut built = build(&session.config, &session.facts, &session.wanted);
        built.contexts.values_mut().for_each(|context| context.from_scratch = options.rebuild);
        provider.turn_to(Arc::new(session.facts.clone()), built.contexts.clone());
        let (observed, again) = self.look(provider, &built, options).await?;
        let loses = again.losses().iter().any(|loss| !plan.losses().contains(loss));
        if again.is_blocked() || again.is_empty() || loses {
            return Ok(None);
        }
        self.write_observed(&observed);
        self.write_plan(&built, options, &again);
        let stands_in = |warning: &&Diagnostic| [FALLBACK, INSTALLER].contains(&warning.code.as_str());
        self.ui.warn(&again.warnings.iter().filter(stands_in).cloned().collect::<Vec<_>>());
        Ok(Some(again))
    }

    async fn lock_all(&mut self, session: &Session, containers: &BTreeSet<String>) -> Result<Vec<Lock>, Failure> {
        let mut locks = Vec::new();
        for container in containers {
            locks.push(match self.locks.remove(container) {
                Some(lock) => lock,
                None => Lock::exclusive(&session.paths.instance_lock(container), container, None, &notice).await?,
            });
        }
        Ok(locks)
    }

    pub async fn look(&self, provider: &Live, built: &Built, options: &PlanOptions) -> Result<(Observed, Plan), Failure> {
        let observed = provider.observe(&built.graph, &options.scope).await?;
        let plan = plan(&built.graph, &observed, options);
        Ok((observed, plan))
    }

    /// What a killed run had asked the engine for may have come into being only after the look, and this run may not have come to
    /// removing what it tried: removes it, without a word when there is nothing.
    async fn sweep(&mut self, session: &Session, provider: &Live) -> Result<(), Failure> {
        let graph = Graph { kept: Some(kept_recipe(&session.config, &session.facts)), ..Graph::default() };
        let built = Built { graph, ..Built::default() };
        let options = PlanOptions::new(Mode::PrewarmOnly, "prewarm", Scope::Instances(Vec::new()));
        let mut sets = KeptSets::of(session);
        let (_, plan) = self.look_and_hold(provider, &built, &options, &mut sets).await?;
        if plan.is_empty() {
            return Ok(());
        }
        self.write_plan(&built, &options, &plan);
        let failed = std::mem::take(&mut self.failed);
        let report = self.apply(provider, &plan, Limits::default()).await;
        self.failed = failed;
        sets.release();
        if report.succeeded() { Ok(()) } else { Err(Failure::Said(ERROR)) }
    }

    async fn look_with(&self, provider: &Live, built: &Built, options: &PlanOptions, sets: &KeptSets) -> Result<(Observed, Plan), Failure> {
        let mut observed = provider.observe(&built.graph, &options.scope).await?;
        sets.mark(&mut observed);
        let plan = plan(&built.graph, &observed, options);
        Ok((observed, plan))
    }

    /// Looks and plans until every kept set that the plan touches is held here. Who comes too late for one sees it in another's hands,
    /// and plans with the next, or without.
    async fn look_and_hold(
        &self,
        provider: &Live,
        built: &Built,
        options: &PlanOptions,
        sets: &mut KeptSets,
    ) -> Result<(Observed, Plan), Failure> {
        for _ in 0..MOST_LOOKS {
            let (observed, plan) = self.look_with(provider, built, options, sets).await?;
            if !sets.hold(&plan)? {
                return Ok((observed, plan));
            }
        }
        sets.give_up = true;
        self.look_with(provider, built, options, sets).await
    }

    /// A program that could not be fetched is no failure of prewarming, unless an image waited for it.
    fn only_programs_missing(&self, mode: Mode, report: &Report) -> bool {
        mode == Mode::PrewarmOnly && !report.interrupted && report.skipped.is_empty() && self.failed.iter().all(|(id, _)| is_program(id))
    }

    pub fn show(&self, plan: &Plan, format: Format, verbose: bool) {
        match format {
            Format::Human => self.ui.result(&plan_text(plan, &self.ui.out, verbose)),
            Format::Json => self.ui.result(&plan.to_json()),
        }
    }

    async fn apply(&mut self, provider: &Live, plan: &Plan, limits: Limits) -> Report {
        let interrupts = interrupts();
        self.heeds.set(true);
        let started = Instant::now();
        let mut screen = Screen { progress: Progress::new(plan, self.debug), drawn: 0, live: self.ui.live, style: self.ui.err, started };
        let (journal, timed) = (&mut self.journal, &mut self.timed);
        let shared = std::cell::RefCell::new(&mut screen);
        let applying = async {
            let mut emit = |event: Event| {
                if let Event::StepFinished { id, milliseconds } = &event {
                    timed.insert(id.clone(), *milliseconds);
                }
                journal.write(Entry::Event { event: event.clone() });
                shared.borrow_mut().take(&event);
            };
            apply::apply(provider, plan, limits, interrupts, &mut emit).await
        };
        let ticking = async {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                tick.tick().await;
                shared.borrow_mut().draw();
            }
        };
        let report = tokio::select! {
            report = applying => report,
            () = ticking => unreachable!("BUG: the ticker never ends"),
        };
        self.heeds.set(false);
        self.ui.talk(&screen.finish());
        self.failed = report.failed.clone();
        report
    }
}

/// When a person's word is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Before every change.
    Always,
    /// The command itself was the word; only loss, an untrusted role or a mount of credentials wants another.
    WhenInDoubt,
}

/// Of an agent.
fn is_program(id: &StepId) -> bool {
    id.starts_with(Kind::AgentBinary.as_str())
}

/// Every one of these steps that failed was an agent's download: whose, and why it failed.
pub fn failed_programs(failed: &[(StepId, Diagnostic)]) -> Option<BTreeMap<Agent, String>> {
    let agent = |id: &StepId| Agent::from_slug(id.strip_prefix(Kind::AgentBinary.as_str())?.strip_prefix('/')?.split('#').next()?);
    failed.iter().map(|(id, why)| Some((agent(id)?, why.detail.clone()))).collect()
}

fn needs_consent(plan: &Plan) -> bool {
    plan.warnings.iter().any(|w| [SENSITIVE_MOUNT, UNTRUSTED_ROLE].contains(&w.code.as_str()))
}

/// The live view, or plain lines.
struct Screen {
    progress: Progress,
    drawn: usize,
    live: bool,
    style: crate::render::Style,
    started: Instant,
}

impl Screen {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn take(&mut self, event: &Event) {
        let now = self.elapsed();
        let lines = self.progress.feed(event, now);
        if self.live {
            return self.draw();
        }
        for line in lines {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn erase(&mut self) -> String {
        let text = if self.drawn > 0 { format!("\x1b[{}A\r\x1b[J", self.drawn) } else { String::new() };
        self.drawn = 0;
        text
    }

    fn draw(&mut self) {
        if !self.live {
            return;
        }
        let height = crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows)).saturating_sub(2).max(3);
        let frame = self.progress.frame(self.elapsed(), &self.style, height);
        let mut text = self.erase();
        for line in &frame {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = frame.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// What remains to be said.
    fn finish(mut self) -> String {
        let text = self.erase();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        self.progress.report(&self.style)
    }
}

/// Said while waiting for another jackin.
pub fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Counts Ctrl-C, and SIGTERM as two of them at once.
fn interrupts() -> watch::Receiver<u32> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(0);
    // Under `nohup`, which leaves no terminal, a hang-up stays ignored.
    let hangs_up = [std::io::stdout().is_terminal(), std::io::stderr().is_terminal()].contains(&true);
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit(), SignalKind::hangup()];
    for kind in &kinds[..if hangs_up { 4 } else { 3 }] {
        let Ok(mut told) = signal(*kind) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = told.recv() => sender.send_modify(|n| *n += 1),
                    () = sender.closed() => return,
                }
            }
        });
    }
    receiver
}

/// Instances whose parts the plan may touch, in one order for everybody.
fn locked_containers(session: &Session, built: &Built, options: &PlanOptions) -> BTreeSet<String> {
    let mut out: BTreeSet<String> = built.graph.instances.values().map(|i| i.container.clone()).collect();
    out.extend(session.facts.records.values().filter(|r| options.scope.covers(&r.instance)).map(|r| r.role_container.clone()));
    out
}

/// A plan holds as long as planning again gives the same one.
fn refuse_stale(saved: &Plan, now: &Plan) -> Result<(), Failure> {
    if saved.digest == now.digest {
        return Ok(());
    }
    let moved: Vec<String> = saved.differing(now).iter().map(Address::to_string).collect();
    let what = if moved.is_empty() { "the goal or its blockers".to_owned() } else { moved.join(", ") };
    let again = match &saved.goal.scope {
        crate::plan::Scope::Workspaces(names) => format!("jackin plan {}", names.join(" ")),
        _ => format!("jackin {} --dry-run", saved.goal.command),
    };
    Err(Diagnostic::error("plan.stale", "The world has moved since the plan was made", format!("Changed: {what}."))
        .help(format!("Plan again: `{again}`. Nothing was changed."))
        .into())
}

fn refuse_loss(plan: &Plan) -> Diagnostic {
    let list: Vec<String> = plan.losses().iter().map(|(address, loss)| format!("{address}: {}", loss_words(loss))).collect();
    Diagnostic::error("plan.loss", "Applying would destroy something", list.join("; "))
        .help("Look at it with `jackin plan`, then apply with --allow-loss, or without --yes to be asked. Nothing was changed.")
}

fn loss_words(loss: &Loss) -> String {
    crate::render::loss_words(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn signals_that_end_a_program_interrupt_an_apply() {
        let mut interrupts = interrupts();
        for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
            kill_process(getpid(), signal).unwrap();
            tokio::time::timeout(Duration::from_secs(10), interrupts.changed()).await.expect("it is heard").unwrap();
        }
        assert_eq!(*interrupts.borrow(), 3);
    }
}
