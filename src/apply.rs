//! Drives the walk: starts every step whose needs are done, retries what can pass, emits events, stops when asked.
//!
//! In: a plan and a provider. Out: events and a report. Absent: deciding (the plan has), showing (render does). No rollback: what
//! exists is labelled, and the next plan deals with it.

use crate::diagnostic::Diagnostic;
use crate::event::Event;
use crate::plan::{Effect, Plan, Step, StepId};
use crate::provider::{Provider, StepError, Task};
use crate::resource::{Address, Kind, Spec};
use crate::walk::{Limits, Outcome, StepState, Walk};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often the person asked to stop: 0, 1 (finish what is in flight), 2 (stop now).
pub type Interrupts = watch::Receiver<u32>;

#[derive(Debug, Default)]
pub struct Report {
    pub done: usize,
    pub failed: Vec<(StepId, Diagnostic)>,
    /// Step -> the step because of which it was not started.
    pub skipped: Vec<(StepId, StepId)>,
    /// In flight when the person insisted, or never started because of that.
    pub cancelled: Vec<StepId>,
    pub interrupted: bool,
}

impl Report {
    pub fn succeeded(&self) -> bool {
        self.failed.is_empty() && !self.interrupted
    }
}

/// Pauses before the second and third try of a step that failed for a reason that can pass.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

pub async fn apply<P: Provider>(
    provider: &P,
    plan: &Plan,
    limits: Limits,
    mut interrupts: Interrupts,
    emit: &mut dyn FnMut(Event),
) -> Report {
    let started = Instant::now();
    let specs: BTreeMap<&Address, &Spec> = plan.changes.iter().filter_map(|c| Some((&c.address, c.desired.as_ref()?))).collect();
    let mut walk = Walk::new(plan.steps.clone(), limits);
    let mut report = Report::default();
    let (lines, mut line_events) = mpsc::unbounded_channel::<Event>();
    let mut running = FuturesUnordered::new();
    let mut in_flight: BTreeMap<StepId, Instant> = BTreeMap::new();
    emit(Event::ApplyStarted { steps: plan.steps.len() });

    loop {
        for step in walk.startable() {
            emit(Event::StepStarted { id: step.id.clone(), step: step.clone() });
            in_flight.insert(step.id.clone(), Instant::now());
            let task = Task { spec: specs.get(&step.address).map(|s| (*s).clone()), step };
            running.push(attempt(provider, task, lines.clone()));
        }
        if walk.finished() && running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some(event) = line_events.recv() => emit(event),
            Some((id, result)) = running.next() => {
                let milliseconds = in_flight.remove(&id).map_or(0, |t| millis(t.elapsed()));
                while let Ok(event) = line_events.try_recv() {
                    emit(event);
                }
                let outcome = match result {
                    Ok(()) => {
                        report.done += 1;
                        emit(Event::StepFinished { id: id.clone(), milliseconds });
                        if let Some(event) = plan.steps.iter().find(|s| s.id == id).and_then(|s| repaired(s, specs.get(&s.address))) {
                            emit(event);
                        }
                        Outcome::Done
                    }
                    Err(error) => {
                        emit(Event::StepFailed { id: id.clone(), milliseconds, error: error.diagnostic.clone() });
                        report.failed.push((id.clone(), error.diagnostic));
                        Outcome::Failed
                    }
                };
                for skipped in walk.complete(&id, outcome) {
                    emit(Event::StepSkipped { id: skipped.clone(), because: id.clone() });
                    report.skipped.push((skipped, id.clone()));
                }
            }
            Ok(()) = interrupts.changed() => {
                report.interrupted = true;
                walk.stop();
                if *interrupts.borrow() >= 2 {
                    break;
                }
                emit(Event::Stopping);
            }
        }
    }
    drop(running);
    for id in in_flight.into_keys() {
        walk.complete(&id, Outcome::Cancelled);
        emit(Event::StepCancelled { id: id.clone() });
        report.cancelled.push(id);
    }
    for (step, state) in walk.states() {
        if *state == StepState::Waiting {
            emit(Event::StepCancelled { id: step.id.clone() });
            report.cancelled.push(step.id.clone());
        }
    }
    emit(Event::ApplyFinished {
        done: report.done,
        failed: report.failed.len(),
        skipped: report.skipped.len(),
        cancelled: report.cancelled.len(),
        milliseconds: millis(started.elapsed()),
    });
    report
}

/// Given back its run bit.
fn repaired(step: &Step, spec: Option<&&Spec>) -> Option<Event> {
    let (Effect::RepairBinary, Some(spec)) = (&step.effect, spec) else {
        return None;
    };
    let (address, path) = (step.address.clone(), spec.object_name().to_owned());
    Some(match step.address.kind {
        Kind::CapsuleBinary => Event::CapsuleBinaryCacheRepaired { address, path },
        _ => Event::AgentBinaryCacheRepaired { address, path },
    })
}

async fn attempt<P: Provider>(provider: &P, task: Task, lines: mpsc::UnboundedSender<Event>) -> (StepId, Result<(), StepError>) {
    let id = task.step.id.clone();
    let mut tried = 0;
    loop {
        let say = |line: String| {
            // The receiver lives as long as the apply that owns this future.
            let _ = lines.send(Event::StepOutput { id: id.clone(), line });
        };
        match provider.execute(&task, &say).await {
            Err(error) if error.transient && tried < RETRY_AFTER.len() => {
                let attempt = u32::try_from(tried).unwrap_or(u32::MAX) + 2;
                let _ = lines.send(Event::StepRetried { id: id.clone(), attempt, error: error.diagnostic.to_string() });
                tokio::time::sleep(RETRY_AFTER[tried]).await;
                tried += 1;
            }
            result => return (id, result),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
