//! Every folder `agent/<agent>/<case>`: a screen in, the rule that speaks for it and the state out. `status capture` writes
//! such folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jackin_capsule::agent::{Detector, Explanation, Packs, Progress, RawState, RuleState, View, capture_files};
use jackin_capsule::launch::AGENTS;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    agent: String,
    /// working, blocked, idle, freeze; unknown when no strong rule may match.
    state: String,
    rule: Option<String>,
    progress: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent")
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut list: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    list.sort();
    list
}

fn cases(agent: &str) -> Vec<PathBuf> {
    folders(&root().join(agent))
}

struct Case {
    expect: Expect,
    rows: Vec<String>,
    title: String,
}

impl Case {
    fn read(dir: &Path) -> Self {
        let file = |name: &str| fs::read_to_string(dir.join(name));
        let expect = file("expect.toml").unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        Self {
            expect: toml::from_str(&expect).unwrap_or_else(|error| panic!("{}: {error}", dir.display())),
            rows: file("screen.txt").unwrap().lines().map(str::to_owned).collect(),
            title: file("title.txt").map_or(String::new(), |title| title.trim_end().to_owned()),
        }
    }

    fn view(&self) -> View<'_> {
        let progress = self.expect.progress.as_deref().map(|text| Progress::parse(text).expect("progress as 4;<state>[;<percent>]"));
        View { rows: &self.rows, title: &self.title, progress }
    }

    fn explain(&self) -> Explanation {
        let mut detector = Detector::new(Some(&self.expect.agent), &Packs::embedded());
        detector.look(0, &self.view());
        detector.explain(0)
    }
}

#[test]
fn every_screen_is_understood() {
    let mut wrong = Vec::new();
    for agent in AGENTS {
        for dir in cases(agent.slug) {
            let case = Case::read(&dir);
            assert_eq!(case.expect.agent, agent.slug, "{}", dir.display());
            let explanation = case.explain();
            let rule = explanation.rules.iter().find(|rule| rule.strong);
            let (state, id) = rule.map_or(("unknown", None), |rule| (rule.state.as_str(), Some(rule.id.clone())));
            if state != case.expect.state || id != case.expect.rule {
                wrong.push(format!(
                    "{}: expected {} by {:?}, is {state} by {id:?}\n{}",
                    dir.display(),
                    case.expect.state,
                    case.expect.rule,
                    explanation.text()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_state_becomes_the_sessions() {
    for agent in AGENTS {
        for dir in cases(agent.slug) {
            let case = Case::read(&dir);
            let raw = case.explain().report.raw_state;
            let expected = match case.expect.state.as_str() {
                "working" => RawState::Working,
                "blocked" => RawState::Blocked,
                "idle" => RawState::Idle,
                _ => RawState::Unknown,
            };
            assert_eq!(raw, expected, "{}", dir.display());
        }
    }
}

/// No rule without a screen that shows what it is for, and each agent in each state.
#[test]
fn every_agent_has_its_cases() {
    let packs = Packs::embedded();
    let mut missing = Vec::new();
    for agent in AGENTS {
        let cases: Vec<_> = cases(agent.slug).iter().map(|dir| Case::read(dir)).collect();
        assert!(cases.len() >= 4, "{} has {} cases", agent.slug, cases.len());
        let mut states = BTreeMap::new();
        for case in &cases {
            *states.entry(case.expect.state.clone()).or_insert(0) += 1;
        }
        for state in ["working", "blocked", "idle"] {
            assert!(states.contains_key(state), "{} has no case that is {state}", agent.slug);
        }
        let shown: Vec<_> = cases.iter().flat_map(|case| case.explain().rules).map(|rule| rule.id).collect();
        for rule in &packs.get(agent.slug).unwrap().rules {
            if !shown.contains(&rule.id) {
                missing.push(format!("{}/{}", agent.slug, rule.id));
            }
        }
    }
    assert!(missing.is_empty(), "no screen shows these rules: {missing:?}");
}

/// Text that an agent quotes, or that somebody types, is not its state: with the prompt below it everything of a blocker
/// scrolls away at last.
#[test]
fn a_blocker_that_has_scrolled_up_is_none() {
    for agent in AGENTS {
        let all: Vec<_> = cases(agent.slug).iter().map(|dir| Case::read(dir)).collect();
        let idle = all.iter().find(|case| case.expect.state == "idle").unwrap();
        for blocked in all.iter().filter(|case| case.expect.state == "blocked" && case.title.is_empty()) {
            let mut rows = blocked.rows.clone();
            rows.extend((0..40).map(|line| format!("  line {line}")));
            rows.extend(idle.rows.iter().cloned());
            let case = Case {
                expect: Expect { agent: agent.slug.to_owned(), state: String::new(), rule: None, progress: None },
                rows,
                title: idle.title.clone(),
            };
            assert_eq!(case.explain().report.raw_state, RawState::Idle, "{}: {:?}", agent.slug, blocked.expect.rule);
        }
    }
}

#[test]
fn a_capture_is_a_case() {
    for agent in AGENTS {
        for dir in cases(agent.slug) {
            let case = Case::read(&dir);
            let explanation = case.explain();
            let copy = tempfile::tempdir().unwrap();
            for (name, contents) in capture_files(&case.view(), &explanation) {
                fs::write(copy.path().join(name), contents).unwrap();
            }
            let again = Case::read(copy.path());
            assert_eq!((&again.title, &again.expect.progress), (&case.title, &case.expect.progress), "{}", dir.display());
            assert_eq!((&again.expect.state, &again.expect.rule), (&case.expect.state, &case.expect.rule), "{}", dir.display());
            assert_eq!(again.explain(), explanation, "{}", dir.display());
        }
    }
    assert_eq!(RuleState::Freeze.to_string(), "freeze");
}
