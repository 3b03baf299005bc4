//! Why a session is in its state: every piece of evidence with its age, every row of the table with what it says, and the
//! rules that match; as a value, as text, and as a test case to keep. Absent: where that is printed or written.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::arbitrate::{self, ROWS, Said};
use super::detector::Detector;
use super::{AgentStatusReport, Millis, RawState, View};
use crate::control::SessionState;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub state: SessionState,
    pub report: AgentStatusReport,
    /// The row that matches now.
    pub decided_by: u8,
    /// Why the published state is another than that row's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pack: Option<PackSeen>,
    pub rows: Vec<RowSaid>,
    pub evidence: Vec<Evidence>,
    /// All that match; the first strong one is the screen's word.
    pub rules: Vec<RuleSeen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackSeen {
    pub agent: String,
    pub origin: String,
    pub validated_versions: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSaid {
    pub row: u8,
    pub name: String,
    pub says: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_ms: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSeen {
    pub id: String,
    pub state: String,
    pub strong: bool,
    pub priority: i64,
    pub region: String,
}

impl Detector {
    pub fn explain(&self, now: Millis) -> Explanation {
        let facts = self.facts(now);
        let verdict = arbitrate::arbitrate(&facts);
        let decided_by = verdict.row.number();
        let says = |row: arbitrate::Row| match row.says(&facts) {
            Said::No(why) => format!("no: {why}"),
            Said::Matches(state, confidence) if row == verdict.row => format!("decides: {state} ({confidence})"),
            Said::Matches(state, confidence) => format!("{state} ({confidence}), but row {decided_by} comes first"),
        };
        let rows = ROWS.map(|row| RowSaid { row: row.number(), name: row.name().to_owned(), says: says(row) }).to_vec();
        let held = match self.held {
            Some(held) => Some(format!(
                "{} stays until {} has been seen often or long enough ({} times in {})",
                self.verdict().state,
                held.state,
                held.seen,
                duration(now.saturating_sub(held.since))
            )),
            None if verdict.demoted => Some("nothing has moved for long, so work is not believed".to_owned()),
            None => None,
        };
        let pack = self.seen.as_ref().and_then(|seen| seen.pack.as_ref()).map(|pack| PackSeen {
            agent: pack.agent.clone(),
            origin: pack.origin.clone(),
            validated_versions: pack.validated_versions.clone(),
        });
        let rules = self.seen.iter().flat_map(|seen| seen.rules()).map(|rule| RuleSeen {
            id: rule.id.clone(),
            state: rule.state.to_string(),
            strong: rule.strong,
            priority: rule.priority,
            region: rule.region.to_string(),
        });
        Explanation {
            state: self.state(),
            report: self.report().clone(),
            decided_by,
            held,
            pack,
            rows,
            evidence: self.evidence(now, &facts),
            rules: rules.collect(),
        }
    }

    fn evidence(&self, now: Millis, facts: &arbitrate::Facts) -> Vec<Evidence> {
        let mut list = Vec::new();
        let mut add = |name: &str, value: String, at: Option<Millis>| {
            list.push(Evidence { name: name.to_owned(), value, age_ms: at.map(|at| now.saturating_sub(at)) });
        };
        add("output", if self.last_output.is_some() { "last" } else { "none yet" }.to_owned(), self.last_output);
        match &self.seen {
            None => add("screen", "not looked at yet".to_owned(), None),
            Some(seen) if seen.pack.is_none() => add("screen", "no rules for what runs here".to_owned(), Some(seen.at)),
            Some(seen) => add("screen", format!("{} rules match", seen.matching.len()), Some(seen.at)),
        }
        if let Some(progress) = self.progress {
            add("progress", progress.to_string(), None);
        }
        if let Some((mark, at)) = self.mark {
            add("shell mark", format!("{mark:?}: {}", mark.state()), Some(at));
        }
        match &self.reports.authority {
            None => add("reported", "nothing".to_owned(), None),
            Some(authority) => {
                let state = authority.state.map_or("no state".to_owned(), |state| state.to_string());
                let pending = if authority.permission { ", a question is pending" } else { "" };
                let agents = match authority.subagents {
                    0 => String::new(),
                    count => format!(", {count} sub-agents"),
                };
                let value = format!("{state}{pending}{agents}; last {} from {}", authority.last_event, authority.source_id);
                add("reported", value, Some(authority.at));
            }
        }
        if let Some(refused) = self.reports.refused {
            add("not believed", format!("the last event: {}", refused.why()), None);
        }
        match &self.probed {
            None => add("processes", "not looked at yet".to_owned(), None),
            Some(probed) => {
                let probe = &probed.probe;
                let program = probe.program.as_deref().unwrap_or("nothing");
                let value = format!(
                    "{program} in the foreground, {} beneath the first ({} at rest), {} hundredths of a second used",
                    probe.descendants,
                    self.resting.map_or("unknown".to_owned(), |count| count.to_string()),
                    probe.cpu_ticks.map_or("unknown".to_owned(), |ticks| ticks.to_string()),
                );
                add("processes", value, Some(probed.at));
            }
        }
        if self.has_exited() {
            add("process", "exited".to_owned(), None);
        }
        add("before", facts.previous.to_string(), None);
        list
    }
}

impl Explanation {
    pub fn text(&self) -> String {
        let mut text = String::new();
        let agent = self.report.detected_agent.as_deref().unwrap_or("none");
        let _ = writeln!(text, "state     {} ({}), revision {}", self.state, self.report.confidence, self.report.revision);
        let _ = writeln!(text, "agent     {agent}");
        if let Some(pack) = &self.pack {
            let _ = writeln!(text, "rules     {}, {}, for versions {}", pack.agent, pack.origin, pack.validated_versions);
        }
        if let Some(held) = &self.held {
            let _ = writeln!(text, "held      {held}");
        }
        text.push_str("\nwhat decides, the first that matches:\n");
        for row in &self.rows {
            let sign = if row.row == self.decided_by { '>' } else { ' ' };
            let _ = writeln!(text, "{sign} {:>2}  {:<46}  {}", row.row, row.name, row.says);
        }
        text.push_str("\nevidence:\n");
        for evidence in &self.evidence {
            let age = evidence.age_ms.map_or(String::new(), |age| format!(", {} ago", duration(age)));
            let _ = writeln!(text, "  {:<12}  {}{age}", evidence.name, evidence.value);
        }
        text.push_str("\nrules that match:\n");
        if self.rules.is_empty() {
            text.push_str("  none\n");
        }
        for rule in &self.rules {
            let strength = if rule.strong { "strong" } else { "weak" };
            let _ = writeln!(text, "  {}: {} ({strength}), priority {}, in {}", rule.id, rule.state, rule.priority, rule.region);
        }
        text
    }
}

fn duration(ms: Millis) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

/// A case for `capsule/tests/agent/<agent>/`: what was on the screen, and what was made of it. The screen is the operator's
/// and may show secrets, so the files are for nobody else to read.
pub fn capture_files(view: &View<'_>, explanation: &Explanation) -> Vec<(&'static str, String)> {
    let mut screen = String::new();
    for row in view.rows {
        screen.push_str(row.trim_end());
        screen.push('\n');
    }
    let rule = explanation.rules.iter().find(|rule| rule.strong);
    let state = rule.map_or(RawState::Unknown.to_string(), |rule| rule.state.clone());
    let mut expect =
        String::from("# What the screen alone says. Correct this where it is wrong; the test then fails until the rules are right.\n");
    if let Some(pack) = &explanation.pack {
        let _ = writeln!(expect, "agent = {}", quoted(&pack.agent));
    }
    let _ = writeln!(expect, "state = {}", quoted(&state));
    if let Some(rule) = rule {
        let _ = writeln!(expect, "rule = {}", quoted(&rule.id));
    }
    if let Some(progress) = view.progress {
        let _ = writeln!(expect, "progress = {}", quoted(&progress.to_string()));
    }
    expect.push_str("\n# At the time:\n");
    for line in explanation.text().lines() {
        expect.push_str(format!("# {line}").trim_end());
        expect.push('\n');
    }
    let mut files = vec![("screen.txt", screen), ("expect.toml", expect)];
    if !view.title.is_empty() {
        files.push(("title.txt", format!("{}\n", view.title)));
    }
    files
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
