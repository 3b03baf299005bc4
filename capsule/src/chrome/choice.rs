//! What an overlay says to a key or a click, and what it leaves to others to do. Sessions go by their ids, so that an
//! answer still means the right one when others have come or gone meanwhile.

use crate::keys::Command;
use crate::layout::{Axis, SessionId};
use crate::wire::Spawn;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Stay,
    Close,
    /// Closes too.
    Do(Choice),
    /// To be done while the overlay stays.
    Tell(Choice),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Run(Command),
    Spawn { spawn: Spawn, place: Place },
    Confirmed(Question),
    DirtyExit(ExitChoice),
    Rename { tab: SessionId, name: Option<String> },
    Search { needle: String, backwards: bool, go: Go },
    Path { command: Command, path: String },
    Copy(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    NewTab,
    Split(Axis),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    ClosePane(SessionId),
    /// The tab that has this session.
    CloseTab(SessionId),
    Exit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitChoice {
    Keep,
    Discard,
    /// A shell in this worktree, and no exit.
    Inspect(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// The needle changed: look again from where the search began.
    Here,
    Next,
    Previous,
    /// Leave the view at the hit.
    Done,
}
