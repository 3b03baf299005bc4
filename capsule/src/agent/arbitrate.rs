//! Which evidence decides. Facts in, what each row of the table says out; the first that matches wins. The explanation
//! prints the same rows, so it cannot tell another story. Absent: time (ages are facts here), holding back, `done`.

use super::{Confidence, Millis, RawState};

/// How long a reported event and a shell mark are believed.
pub const FRESH: Millis = 30_000;

/// What the strongest rule that matches the screen says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    Freeze,
    Shows(RawState),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    pub age: Millis,
    /// Nothing, when all that came were signs of life.
    pub state: Option<RawState>,
    pub permission: bool,
    pub grade: Confidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub previous: RawState,
    pub exited: bool,
    pub back_at_shell: bool,
    /// Not contradicted by what is known of the processes.
    pub agent_in_front: bool,
    pub screen: Option<Screen>,
    pub authority: Option<Authority>,
    pub mark: Option<(RawState, Millis)>,
    pub progress_cleared: bool,
    pub children: bool,
    pub cpu: bool,
    /// No output for long and nothing runs; only known with a probe.
    pub lifeless: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Matches(RawState, Confidence),
    /// And why not.
    No(&'static str),
}

/// The rows in order, counted from one in `status explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    Ended,
    Freeze,
    Permission,
    Blocker,
    Authority,
    ShellMark,
    Shown,
    ProgressCleared,
    StillRunning,
    Nothing,
}

pub const ROWS: [Row; 10] = [
    Row::Ended,
    Row::Freeze,
    Row::Permission,
    Row::Blocker,
    Row::Authority,
    Row::ShellMark,
    Row::Shown,
    Row::ProgressCleared,
    Row::StillRunning,
    Row::Nothing,
];

impl Row {
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "process exited or foreground returned to shell",
            Self::Freeze => "screen rule says freeze",
            Self::Permission => "reported permission pending",
            Self::Blocker => "strong screen rule: blocked",
            Self::Authority => "reported state",
            Self::ShellMark => "shell mark (OSC 133)",
            Self::Shown => "strong screen rule: working or idle",
            Self::ProgressCleared => "progress cleared (OSC 9;4)",
            Self::StillRunning => "was working, processes still run",
            Self::Nothing => "no evidence",
        }
    }

    pub fn says(self, facts: &Facts) -> Said {
        use Confidence::{Strong, Weak};
        use Said::{Matches, No};
        match self {
            Self::Ended if facts.exited || facts.back_at_shell => Matches(RawState::Idle, Strong),
            Self::Ended => No("the process runs and is in the foreground"),

            Self::Freeze => match facts.screen {
                Some(Screen::Freeze) => Matches(facts.previous, Strong),
                _ => No("no such rule matches"),
            },

            Self::Permission => match fresh(facts) {
                Ok(authority) if authority.permission => Matches(RawState::Blocked, authority.grade),
                Ok(_) => No("nothing is pending"),
                Err(why) => No(why),
            },

            Self::Blocker => match facts.screen {
                Some(Screen::Shows(RawState::Blocked)) => Matches(RawState::Blocked, Strong),
                _ => No("no such rule matches"),
            },

            Self::Authority => match fresh(facts).map(|authority| (authority.state, authority.grade)) {
                Ok((Some(state), grade)) => Matches(state, grade),
                Ok((None, _)) => No("only signs of life were reported"),
                Err(why) => No(why),
            },

            Self::ShellMark => match facts.mark {
                None => No("there was none"),
                Some((_, age)) if age > FRESH => No("it is too old"),
                Some(_) if !facts.agent_in_front => No("another program is in the foreground"),
                Some((state, _)) => Matches(state, Strong),
            },

            Self::Shown => match facts.screen {
                Some(Screen::Shows(state @ (RawState::Working | RawState::Idle))) => Matches(state, Strong),
                _ => No("no such rule matches"),
            },

            Self::ProgressCleared if facts.progress_cleared => Matches(RawState::Idle, Weak),
            Self::ProgressCleared => No("it was not"),

            Self::StillRunning if facts.previous != RawState::Working => No("it was not working"),
            Self::StillRunning if facts.children || facts.cpu => Matches(RawState::Working, Weak),
            Self::StillRunning => No("no new processes, no CPU time"),

            Self::Nothing => Matches(RawState::Unknown, Confidence::Unknown),
        }
    }
}

fn fresh(facts: &Facts) -> Result<Authority, &'static str> {
    match facts.authority {
        None => Err("nothing was reported"),
        Some(authority) if authority.age > FRESH => Err("the last report is too old"),
        Some(_) if !facts.agent_in_front => Err("another program is in the foreground"),
        Some(authority) => Ok(authority),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub row: Row,
    pub state: RawState,
    pub confidence: Confidence,
    /// Working was said, but nothing has moved for long.
    pub demoted: bool,
}

pub fn arbitrate(facts: &Facts) -> Verdict {
    let decided = ROWS.into_iter().find_map(|row| match row.says(facts) {
        Said::Matches(state, confidence) => Some((row, state, confidence)),
        Said::No(_) => None,
    });
    let (row, state, confidence) = decided.unwrap_or((Row::Nothing, RawState::Unknown, Confidence::Unknown));
    if state == RawState::Working && facts.lifeless {
        return Verdict { row, state: RawState::Unknown, confidence: Confidence::Unknown, demoted: true };
    }
    Verdict { row, state, confidence, demoted: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Confidence::{Authoritative, Strong, Weak};
    use RawState::{Blocked, Idle, Unknown, Working};

    const NOTHING: Facts = Facts {
        previous: Unknown,
        exited: false,
        back_at_shell: false,
        agent_in_front: true,
        screen: None,
        authority: None,
        mark: None,
        progress_cleared: false,
        children: false,
        cpu: false,
        lifeless: false,
    };

    /// Every row matches at once, from each row on; so taking the first away must let the second win, and so on.
    fn everything() -> Facts {
        Facts {
            previous: Working,
            exited: true,
            screen: Some(Screen::Freeze),
            authority: Some(Authority { age: 0, state: Some(Idle), permission: true, grade: Authoritative }),
            mark: Some((Idle, 0)),
            progress_cleared: true,
            children: true,
            cpu: true,
            ..NOTHING
        }
    }

    fn check(facts: &Facts, row: Row, state: RawState, confidence: Confidence) {
        let verdict = arbitrate(facts);
        assert_eq!((verdict.row, verdict.state, verdict.confidence), (row, state, confidence), "{facts:?}");
    }

    #[test]
    fn each_row_yields_to_the_one_above() {
        let mut facts = everything();
        check(&facts, Row::Ended, Idle, Strong);
        facts.exited = false;
        check(&facts, Row::Freeze, Working, Strong);
        facts.screen = Some(Screen::Shows(Blocked));
        check(&facts, Row::Permission, Blocked, Authoritative);
        facts.authority = facts.authority.map(|a| Authority { permission: false, ..a });
        check(&facts, Row::Blocker, Blocked, Strong);
        facts.screen = Some(Screen::Shows(Working));
        check(&facts, Row::Authority, Idle, Authoritative);
        facts.authority = None;
        check(&facts, Row::ShellMark, Idle, Strong);
        facts.mark = None;
        check(&facts, Row::Shown, Working, Strong);
        facts.screen = None;
        check(&facts, Row::ProgressCleared, Idle, Weak);
        facts.progress_cleared = false;
        check(&facts, Row::StillRunning, Working, Weak);
        facts.children = false;
        check(&facts, Row::StillRunning, Working, Weak);
        facts.cpu = false;
        check(&facts, Row::Nothing, Unknown, Confidence::Unknown);
    }

    #[test]
    fn back_at_the_shell_is_the_end_too() {
        check(&Facts { back_at_shell: true, ..NOTHING }, Row::Ended, Idle, Strong);
    }

    #[test]
    fn grades_are_kept() {
        let authority = |grade| Some(Authority { age: 0, state: Some(Working), permission: false, grade });
        check(&Facts { authority: authority(Strong), ..NOTHING }, Row::Authority, Working, Strong);
        check(&Facts { authority: authority(Authoritative), ..NOTHING }, Row::Authority, Working, Authoritative);
    }

    #[test]
    fn age_and_another_program_in_front_take_the_authority_away() {
        let authority = Authority { age: FRESH, state: Some(Idle), permission: true, grade: Strong };
        let facts = Facts { authority: Some(authority), ..NOTHING };
        check(&facts, Row::Permission, Blocked, Strong);
        check(&Facts { agent_in_front: false, ..facts }, Row::Nothing, Unknown, Confidence::Unknown);
        let old = Facts { authority: Some(Authority { age: FRESH + 1, ..authority }), ..facts };
        check(&old, Row::Nothing, Unknown, Confidence::Unknown);
    }

    #[test]
    fn a_mark_ages_likewise() {
        let facts = Facts { mark: Some((Working, FRESH)), ..NOTHING };
        check(&facts, Row::ShellMark, Working, Strong);
        check(&Facts { mark: Some((Working, FRESH + 1)), ..facts }, Row::Nothing, Unknown, Confidence::Unknown);
        check(&Facts { agent_in_front: false, ..facts }, Row::Nothing, Unknown, Confidence::Unknown);
    }

    #[test]
    fn signs_of_life_say_nothing() {
        let authority = Authority { age: 0, state: None, permission: false, grade: Strong };
        check(&Facts { authority: Some(authority), ..NOTHING }, Row::Nothing, Unknown, Confidence::Unknown);
    }

    #[test]
    fn processes_alone_do_not_make_it_working() {
        for previous in [Unknown, Blocked, Idle] {
            let facts = Facts { previous, children: true, cpu: true, ..NOTHING };
            check(&facts, Row::Nothing, Unknown, Confidence::Unknown);
        }
    }

    #[test]
    fn lifeless_work_is_unknown_and_other_states_do_not_care() {
        let facts = Facts { screen: Some(Screen::Shows(Working)), lifeless: true, ..NOTHING };
        let verdict = arbitrate(&facts);
        assert_eq!((verdict.row, verdict.state, verdict.demoted), (Row::Shown, Unknown, true));
        let verdict = arbitrate(&Facts { screen: Some(Screen::Shows(Blocked)), ..facts });
        assert_eq!((verdict.state, verdict.demoted), (Blocked, false));
    }

    #[test]
    fn rows_are_numbered_as_in_the_reference() {
        assert!(ROWS.iter().enumerate().all(|(index, row)| usize::from(row.number()) == index + 1));
    }
}
