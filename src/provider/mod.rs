//! The world behind two verbs: observe, execute. Two implementations, so the seam is real: `live` (Docker, git, the disk) and
//! `memory` (the same rules in memory, breaks on demand).

pub mod docker;
pub mod endpoint;
pub mod host;
pub mod live;
pub mod memory;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::graph::Graph;
use crate::observed::Observed;
use crate::plan::{Scope, Step};
use crate::resource::Spec;
use std::future::Future;

/// One step with all that is needed to carry it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub step: Step,
    /// The change's desired spec; `None` for removals.
    pub spec: Option<Spec>,
}

/// How a step went wrong.
#[derive(Debug, Clone)]
pub struct StepError {
    pub diagnostic: Diagnostic,
    /// It may go away by itself: connection reset, 5xx, a registry's time-out.
    pub transient: bool,
}

impl From<Diagnostic> for StepError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostic, transient: false }
    }
}

pub trait Provider {
    /// Looks once at everything the graph names and everything of ours in scope. Reads only.
    fn observe(&self, graph: &Graph, scope: &Scope) -> impl Future<Output = Result<Observed, Diagnostics>>;

    /// Carries out one effect. Repeating an effect that was already carried out, or half carried out by a killed run, must end
    /// well. `report` takes lines for the person watching.
    fn execute(&self, task: &Task, report: &dyn Fn(String)) -> impl Future<Output = Result<(), StepError>>;
}
