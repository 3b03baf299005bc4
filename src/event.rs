//! Everything that applying can report. Rendering turns events into a live view or lines, the journal writes them down.

use crate::diagnostic::Diagnostic;
use crate::plan::{Step, StepId};
use serde::{Deserialize, Serialize};

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
