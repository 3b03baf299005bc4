//! What the detector is told: the screen as text, shell marks, progress, processes. Values only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RawState;

/// A session's screen at the moment of looking.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// From the top; trailing blanks do not matter.
    pub rows: &'a [String],
    pub title: &'a str,
    pub progress: Option<Progress>,
}

/// OSC 9;4, as the program last set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 cleared, 1 so many per cent, 2 error, 3 busy without end, 4 paused.
    pub state: u8,
    pub percent: Option<u8>,
}

impl Progress {
    pub fn is_cleared(self) -> bool {
        self.state == 0
    }

    /// What comes after `9;`, which is what rules see, too.
    pub fn parse(text: &str) -> Option<Self> {
        let (state, percent) = match text.strip_prefix("4;")?.split_once(';') {
            None => (text.strip_prefix("4;")?, None),
            Some((state, percent)) => (state, percent.parse().ok()),
        };
        Some(Self { state: state.parse().ok()?, percent })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.percent {
            Some(percent) => write!(f, "4;{};{percent}", self.state),
            None => write!(f, "4;{}", self.state),
        }
    }
}

/// OSC 133.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    PromptStart,
    PromptEnd,
    CommandStart,
    CommandEnd,
}

impl Mark {
    pub(super) fn state(self) -> RawState {
        match self {
            Self::CommandStart => RawState::Working,
            Self::PromptStart | Self::PromptEnd | Self::CommandEnd => RawState::Idle,
        }
    }
}

/// The processes of a session at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probe {
    /// The session's first process is there.
    pub alive: bool,
    pub foreground_pgid: Option<i32>,
    /// The program that leads the foreground group, or else the first of that group: `claude`, `zsh`.
    pub program: Option<String>,
    /// The agent among the foreground group, by its slug.
    pub agent: Option<String>,
    /// The session's first process is in the foreground.
    pub first_in_front: bool,
    /// That first process is a shell, and no agent is in its group.
    pub shell_in_front: bool,
    /// Beneath the first process.
    pub descendants: u32,
    /// Used by the whole tree since the last probe, in hundredths of a second; absent the first time.
    pub cpu_ticks: Option<u64>,
}
