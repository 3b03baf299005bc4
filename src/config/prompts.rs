//! A role's declared variables: which have a value, which need a person, which fall away.
//!
//! In: the declarations, what the operator's layers already set, answers so far. Out: every variable's state, in the order to ask.
//! Absent: asking. Called again after each answer; nothing is remembered between calls.

use super::model::EnvDecl;
use super::reader::quote;
use crate::diagnostic::Diagnostic;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub enum Answer {
    Value(SecretString),
    Skip,
}

#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    pub state: State,
}

#[derive(Debug, Clone)]
pub enum State {
    /// The operator's layers set it, so nobody is asked. The value is absent when it is only read later (`op://`, host variables).
    Operator(Option<SecretString>),
    /// The manifest's default, interpolated.
    Default(SecretString),
    Answered(SecretString),
    Ask(Question),
    /// An earlier question is open, named here.
    Waiting {
        on: String,
    },
    /// This variable's question was skipped, or that of one it depends on.
    Skipped {
        because: String,
    },
    Refused(Diagnostic),
}

/// One question. The texts may hold interpolated values, so they are kept as secrets until shown.
#[derive(Debug, Clone)]
pub struct Question {
    pub text: SecretString,
    pub default: Option<SecretString>,
    /// Empty = any text.
    pub options: Vec<String>,
    pub skippable: bool,
}

/// `operator` holds every name that the operator's layers set, with its value where that is known already.
pub fn resolve(
    declared: &BTreeMap<String, EnvDecl>,
    operator: &BTreeMap<String, Option<SecretString>>,
    answers: &BTreeMap<String, Answer>,
) -> Vec<Variable> {
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    let order = order(declared);
    for name in &order {
        let Some(declaration) = declared.get(name) else {
            continue;
        };
        let state = decide(name, declaration, &states, operator, answers);
        states.insert(name.clone(), state);
    }
    order.into_iter().filter_map(|name| states.remove(&name).map(|state| Variable { name, state })).collect()
}

fn decide(
    name: &str,
    declaration: &EnvDecl,
    states: &BTreeMap<String, State>,
    operator: &BTreeMap<String, Option<SecretString>>,
    answers: &BTreeMap<String, Answer>,
) -> State {
    if let Some(value) = operator.get(name) {
        return State::Operator(value.clone());
    }
    // A skip reaches everything below it; an open question only holds back what needs its answer.
    let dependencies = || declaration.depends_on.iter().filter_map(|other| states.get(other).map(|state| (other, state)));
    for (other, state) in dependencies() {
        match state {
            State::Skipped { because } => {
                return State::Skipped { because: because.clone() };
            }
            State::Refused(_) => return State::Waiting { on: other.clone() },
            State::Operator(_) | State::Default(_) | State::Answered(_) | State::Ask(_) | State::Waiting { .. } => {}
        }
    }
    for (other, state) in dependencies() {
        match state {
            State::Ask(_) => return State::Waiting { on: other.clone() },
            State::Waiting { on } => return State::Waiting { on: on.clone() },
            State::Operator(_) | State::Default(_) | State::Answered(_) | State::Skipped { .. } | State::Refused(_) => {}
        }
    }
    let fill = |text: &str| SecretString::from(interpolate(text, states));
    let default = declaration.default.as_ref().map(|default| fill(&default.value));
    if !declaration.interactive {
        return match default {
            Some(value) => State::Default(value),
            // The manifest's reader refuses this; a value is better than a panic if one slips by.
            None => State::Default(SecretString::from(String::new())),
        };
    }
    match answers.get(name) {
        Some(Answer::Value(value)) => {
            let known = declaration.options.is_empty() || declaration.options.iter().any(|o| o == value.expose_secret());
            if known {
                return State::Answered(value.clone());
            }
            // The answer itself may be a credential typed into the wrong question.
            State::Refused(
                Diagnostic::error("role.answer", "An answer is not one of the options", format!("the answer for `{}`", quote(name)))
                    .at(declaration.span.clone())
                    .help(format!(
                        "give one of {}",
                        declaration.options.iter().map(|o| format!("`{}`", quote(o))).collect::<Vec<_>>().join(", ")
                    )),
            )
        }
        Some(Answer::Skip) if declaration.skippable => State::Skipped { because: name.to_owned() },
        Some(Answer::Skip) => State::Refused(
            Diagnostic::error("role.answer_needed", "A question cannot be skipped", format!("the role needs `{}`", quote(name)))
                .at(declaration.span.clone())
                .help(format!("answer it, or set it with `--env {}=VALUE`", quote(name))),
        ),
        None => State::Ask(Question {
            text: fill(declaration.prompt.as_deref().unwrap_or(name)),
            default,
            options: declaration.options.clone(),
            skippable: declaration.skippable,
        }),
    }
}

/// One pass from left to right; what an inserted value holds is not looked at again, and a name without a value stays as typed.
fn interpolate(text: &str, states: &BTreeMap<String, State>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${env.") {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 6..];
        let value = tail.find('}').and_then(|end| match states.get(&tail[..end])? {
            State::Operator(Some(value)) | State::Default(value) | State::Answered(value) => Some((end, value)),
            State::Operator(None) | State::Ask(_) | State::Waiting { .. } | State::Skipped { .. } | State::Refused(_) => None,
        });
        match value {
            Some((end, value)) => {
                out.push_str(value.expose_secret());
                rest = &tail[end + 1..];
            }
            None => {
                out.push_str("${env.");
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Dependencies first, ties by name. Members of a circle, which a sound manifest has none of, come last.
pub fn order(declared: &BTreeMap<String, EnvDecl>) -> Vec<String> {
    let mut needed_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, declaration) in declared {
        let needs: BTreeSet<&str> = declaration.depends_on.iter().map(String::as_str).filter(|d| declared.contains_key(*d)).collect();
        open.insert(name, needs.len());
        for other in needs {
            needed_by.entry(other).or_default().push(name);
        }
    }
    let mut ready: BTreeSet<&str> = open.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    let mut ordered: Vec<String> = Vec::new();
    while let Some(name) = ready.pop_first() {
        ordered.push(name.to_owned());
        open.remove(name);
        for dependant in needed_by.remove(name).unwrap_or_default() {
            if let Some(count) = open.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependant);
                }
            }
        }
    }
    ordered.extend(open.into_keys().map(str::to_owned));
    ordered
}

/// `resolve` for a run in which nobody can be asked: a question's default is its answer.
pub fn settle(
    declared: &BTreeMap<String, EnvDecl>,
    operator: &BTreeMap<String, Option<SecretString>>,
    answers: &BTreeMap<String, Answer>,
) -> Vec<Variable> {
    let mut answers = answers.clone();
    loop {
        let variables = resolve(declared, operator, &answers);
        let defaults: Vec<(String, SecretString)> = variables
            .iter()
            .filter_map(|v| match &v.state {
                State::Ask(question) => question.default.clone().map(|d| (v.name.clone(), d)),
                State::Operator(_)
                | State::Default(_)
                | State::Answered(_)
                | State::Waiting { .. }
                | State::Skipped { .. }
                | State::Refused(_) => None,
            })
            .collect();
        if defaults.is_empty() {
            return variables;
        }
        answers.extend(defaults.into_iter().map(|(name, value)| (name, Answer::Value(value))));
    }
}

/// What still stands in the way when nobody can be asked; for the outcome of `settle`.
pub fn unanswered(variables: &[Variable], declared: &BTreeMap<String, EnvDecl>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for variable in variables {
        match &variable.state {
            State::Ask(_) => found.push(
                Diagnostic::error(
                    "role.open_question",
                    "A role has an open question",
                    format!("the role needs `{}`", quote(&variable.name)),
                )
                .at(declared.get(&variable.name).and_then(|d| d.span.clone()))
                .help(format!("pass `--env {}=VALUE`, or run the command in a terminal", quote(&variable.name))),
            ),
            State::Refused(refusal) => found.push(refusal.clone()),
            State::Operator(_) | State::Default(_) | State::Answered(_) | State::Waiting { .. } | State::Skipped { .. } => {}
        }
    }
    found
}
