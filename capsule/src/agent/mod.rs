//! What an agent is doing, from what it shows, what it runs and what it reports. Evidence in, state, report and the
//! reasons for both out; times arrive as data. Absent: the screen model, `/proc`, sockets, files.

mod report;
pub use report::{AgentStatusReport, Confidence, RawState, Source};

#[cfg(feature = "capsule")]
mod arbitrate;
#[cfg(feature = "capsule")]
mod detector;
#[cfg(feature = "capsule")]
mod events;
#[cfg(feature = "capsule")]
mod evidence;
#[cfg(feature = "capsule")]
mod explain;
#[cfg(feature = "capsule")]
mod packs;
#[cfg(feature = "capsule")]
mod regions;
#[cfg(feature = "capsule")]
mod rules;

#[cfg(feature = "capsule")]
pub use {
    detector::{Detector, Due},
    events::{Hints, MAX_PAYLOAD, RuntimeEvent},
    evidence::{Mark, Probe, Progress, View},
    explain::{Explanation, capture_files},
    packs::{MAX_PACK, Packs},
    rules::{Pack, PackError, RuleState},
};

/// Monotonic milliseconds.
#[cfg(feature = "capsule")]
pub type Millis = u64;

/// What attracts attention first, for tabs and whole containers.
#[cfg(feature = "capsule")]
pub fn roll_up(states: impl IntoIterator<Item = crate::control::SessionState>) -> crate::control::SessionState {
    use crate::control::SessionState::{Blocked, Done, Idle, Unknown, Working};
    let urgency = |state: &crate::control::SessionState| match state {
        Blocked => 4,
        Done => 3,
        Working => 2,
        Idle => 1,
        Unknown => 0,
    };
    states.into_iter().max_by_key(urgency).unwrap_or(Unknown)
}
