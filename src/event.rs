//! Everything that applying can report, and the lines of a run's diary. Rendering turns events into a live view or lines, the
//! journal writes them down. Absent: the clock and the file; a line gets its time from outside.

use crate::diagnostic::Diagnostic;
use crate::graph::Graph;
use crate::observed::Observed;
use crate::plan::{Plan, PlanOptions, Step, StepId};
use crate::resource::Address;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Waiting for another jackin; text says for what and for whom.
    Waiting {
        what: String,
    },
    ApplyStarted {
        steps: usize,
    },
    StepStarted {
        id: StepId,
        step: Step,
    },
    /// A line of a builder, or of what a step is doing.
    StepOutput {
        id: StepId,
        line: String,
    },
    /// A passing error; the step is tried again.
    StepRetried {
        id: StepId,
        attempt: u32,
        error: String,
    },
    StepFinished {
        id: StepId,
        milliseconds: u64,
    },
    /// A cached program has its run bit back, and nothing was downloaded.
    AgentBinaryCacheRepaired {
        address: Address,
        path: String,
    },
    CapsuleBinaryCacheRepaired {
        address: Address,
        path: String,
    },
    StepFailed {
        id: StepId,
        milliseconds: u64,
        error: Diagnostic,
    },
    StepSkipped {
        id: StepId,
        because: StepId,
    },
    StepCancelled {
        id: StepId,
    },
    /// The person asked to stop; what is in flight is finished.
    Stopping,
    ApplyFinished {
        done: usize,
        failed: usize,
        skipped: usize,
        cancelled: usize,
        milliseconds: u64,
    },
}

pub const JOURNAL_FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Line {
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    #[serde(flatten)]
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    RunStarted {
        format_version: u32,
        run_id: String,
        /// The verb; arguments may hold values, so they are not written.
        command: String,
        version: String,
        pid: u32,
    },
    /// What the plan rests on, whole only under `--debug`.
    Observed {
        digest: String,
        resources: usize,
        observed: Option<Box<Observed>>,
    },
    Planned {
        digest: String,
        counts: BTreeMap<String, usize>,
        blockers: Vec<Diagnostic>,
        estimate_milliseconds: Option<u64>,
        graph: Option<Box<Graph>>,
        options: Option<Box<PlanOptions>>,
        plan: Option<Box<Plan>>,
    },
    /// A step or apply event; `kind` and `effect` of a finished step feed the history.
    Event {
        event: Event,
    },
    RunFinished {
        exit_code: i32,
        predicted_milliseconds: Option<u64>,
        actual_milliseconds: u64,
        diagnostics: Vec<Diagnostic>,
    },
}
