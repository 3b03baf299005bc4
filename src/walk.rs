//! The scheduler as a table: steps and completions in, startable steps out. No clock, no locks, no I/O.
//!
//! One owner calls it: `startable` says what may run now, `complete` records how a step ended. A failed or cancelled step skips
//! everything that needs it; unrelated steps go on.

use crate::plan::{Effect, Step, StepId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    /// Given up cleanly because the person asked.
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    Waiting,
    Running,
    Ended(Outcome),
    /// Not started because this step did not end well.
    Skipped(StepId),
}

/// How many steps of each weight may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub steps: usize,
    pub builds: usize,
    pub pulls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 10, builds: 2, pulls: 3 }
    }
}

pub struct Walk {
    limits: Limits,
    steps: Vec<Step>,
    index: BTreeMap<StepId, usize>,
    states: Vec<StepState>,
    /// Needs not yet done, by step.
    open: Vec<usize>,
    unlocks: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    running: usize,
    running_builds: usize,
    running_pulls: usize,
    stopping: bool,
}

impl Walk {
    /// `steps` in topological order, as a plan holds them.
    pub fn new(steps: Vec<Step>, limits: Limits) -> Self {
        let index: BTreeMap<StepId, usize> = steps.iter().enumerate().map(|(i, s)| (s.id.clone(), i)).collect();
        let mut unlocks = vec![Vec::new(); steps.len()];
        let mut open = vec![0; steps.len()];
        for (i, step) in steps.iter().enumerate() {
            for need in &step.needs {
                let need = *index.get(need).expect("BUG: a step needs one that is not in the plan");
                unlocks[need].push(i);
                open[i] += 1;
            }
        }
        let ready = (0..steps.len()).filter(|i| open[*i] == 0).collect();
        let states = vec![StepState::Waiting; steps.len()];
        Self { limits, steps, index, states, open, unlocks, ready, running: 0, running_builds: 0, running_pulls: 0, stopping: false }
    }

    /// Marks as running, and returns, the steps that may start now.
    pub fn startable(&mut self) -> Vec<Step> {
        if self.stopping {
            return Vec::new();
        }
        let mut out = Vec::new();
        for index in self.ready.clone() {
            if self.running >= self.limits.steps {
                break;
            }
            let effect = &self.steps[index].effect;
            let (build, pull) = (is_build(effect), is_pull(effect));
            if (build && self.running_builds >= self.limits.builds) || (pull && self.running_pulls >= self.limits.pulls) {
                continue;
            }
            self.ready.remove(&index);
            self.set(index, StepState::Running);
            out.push(self.steps[index].clone());
        }
        out
    }

    /// Returns the steps that are skipped in consequence.
    pub fn complete(&mut self, id: &StepId, outcome: Outcome) -> Vec<StepId> {
        let index = self.index[id];
        assert_eq!(self.states[index], StepState::Running, "BUG: {id} ended without having started");
        self.set(index, StepState::Ended(outcome));
        let mut skipped = Vec::new();
        if outcome == Outcome::Done {
            for next in self.unlocks[index].clone() {
                self.open[next] -= 1;
                if self.open[next] == 0 && self.states[next] == StepState::Waiting {
                    self.ready.insert(next);
                }
            }
        } else {
            let mut todo = self.unlocks[index].clone();
            while let Some(next) = todo.pop() {
                if self.states[next] == StepState::Waiting {
                    self.ready.remove(&next);
                    self.set(next, StepState::Skipped(id.clone()));
                    skipped.push(self.steps[next].id.clone());
                    todo.extend(&self.unlocks[next]);
                }
            }
            skipped.sort();
        }
        skipped
    }

    /// From now on nothing new starts.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Nothing runs and nothing will.
    pub fn finished(&self) -> bool {
        self.running == 0 && (self.stopping || self.ready.is_empty())
    }

    pub fn states(&self) -> impl Iterator<Item = (&Step, &StepState)> {
        self.steps.iter().zip(&self.states)
    }

    /// The only place where a state changes, so that the counters always agree.
    fn set(&mut self, index: usize, state: StepState) {
        let was_running = self.states[index] == StepState::Running;
        let is_running = state == StepState::Running;
        let (build, pull) = (is_build(&self.steps[index].effect), is_pull(&self.steps[index].effect));
        if is_running && !was_running {
            self.running += 1;
            self.running_builds += usize::from(build);
            self.running_pulls += usize::from(pull);
        } else if was_running && !is_running {
            self.running -= 1;
            self.running_builds -= usize::from(build);
            self.running_pulls -= usize::from(pull);
        }
        self.states[index] = state;
        debug_assert_eq!(self.running, self.states.iter().filter(|s| **s == StepState::Running).count());
    }
}

fn is_build(effect: &Effect) -> bool {
    matches!(effect, Effect::Build)
}

fn is_pull(effect: &Effect) -> bool {
    matches!(effect, Effect::Pull | Effect::Download)
}
