//! Which instances a person means: workspaces for planning, a selector for coming back or removing.

use super::ui::Failure;
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::graph::want::unknown_workspace;
use crate::plan::Scope;
use std::collections::BTreeSet;

/// The workspaces of `plan` and `apply`: named ones, else the one whose folder this is, else all. A name that is wrong is said
/// before anything is asked of an engine.
pub fn workspaces(config: &Config, facts: &Facts, named: &[String], all: bool) -> Result<(Vec<String>, Scope), Failure> {
    let unknown: Vec<Diagnostic> =
        named.iter().filter(|name| !config.workspaces.contains_key(*name)).map(|name| unknown_workspace(config, name)).collect();
    if !unknown.is_empty() {
        return Err(Failure::Diagnostics(unknown));
    }
    let names: Vec<String> = if all {
        Vec::new()
    } else if named.is_empty() {
        here(config, facts).into_iter().collect()
    } else {
        named.to_vec()
    };
    let scope = if names.is_empty() { Scope::All } else { Scope::Workspaces(names.clone()) };
    Ok((names, scope))
}

/// The saved workspace that covers the current folder: its workdir is this folder, or a mount's source contains it; the deepest wins.
pub fn here(config: &Config, facts: &Facts) -> Option<String> {
    let cwd = std::fs::canonicalize(&facts.cwd).unwrap_or_else(|_| facts.cwd.clone().into());
    let mut best: Option<(usize, &str)> = None;
    for workspace in config.workspaces.values() {
        let sources = workspace.mounts.iter().map(|m| &m.src.value).chain([&workspace.workdir.value]);
        for source in sources {
            let Ok(source) = std::fs::canonicalize(facts.expand(source)) else {
                continue;
            };
            let depth = source.components().count();
            // A mount of `/` would claim every folder.
            if depth > 1 && cwd.starts_with(&source) && best.is_none_or(|(known, _)| depth > known) {
                best = Some((depth, &workspace.name));
            }
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// One thing that can be selected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Instance key.
    pub key: String,
    pub id: String,
    pub container: String,
    pub role: String,
    /// It waits to be taken; whoever means it says so.
    pub spare: bool,
}

/// Every instance that has a record on this host.
pub fn recorded(facts: &Facts) -> Vec<Candidate> {
    facts
        .records
        .values()
        .map(|r| Candidate {
            key: r.instance.clone(),
            id: r.instance_id.clone(),
            container: r.role_container.clone(),
            role: r.role_key.clone(),
            spare: facts.spares.contains(&r.instance),
        })
        .collect()
}

/// Exact key, then id or container name, then workspace, then role. The first kind that fits anything decides.
pub fn matching<'a>(candidates: &'a [Candidate], selector: &str) -> Vec<&'a Candidate> {
    let tests: [fn(&Candidate, &str) -> bool; 4] = [
        |c, s| c.key == s,
        |c, s| c.id == s || c.container == s,
        |c, s| c.key.rsplit_once('/').is_some_and(|(workspace, _)| workspace == s),
        |c, s| c.role == s,
    ];
    tests
        .into_iter()
        .map(|fits| candidates.iter().filter(|c| fits(c, selector)).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// Exactly one, or a message that lists what there is.
pub fn one<'a>(candidates: &'a [Candidate], selector: Option<&str>, here: Option<&str>) -> Result<&'a Candidate, Failure> {
    let mut found: Vec<&Candidate> = match (selector, here) {
        (Some(selector), _) => matching(candidates, selector),
        (None, Some(workspace)) => matching(candidates, workspace),
        (None, None) => candidates.iter().collect(),
    };
    if found.len() > 1 && found.iter().any(|candidate| !candidate.spare) {
        found.retain(|candidate| !candidate.spare);
    }
    match (found[..].len(), selector) {
        (1, _) => Ok(found[0]),
        (0, Some(selector)) => {
            let help = if candidates.is_empty() {
                "There are none. `jackin apply` or `jackin load` starts one.".to_owned()
            } else {
                format!("There are: {}.", list(candidates.iter()))
            };
            Err(Diagnostic::error("instance.unknown", "No such instance", format!("Nothing fits `{selector}`.")).help(help).into())
        }
        (0, None) => Err(Diagnostic::error("instance.none", "There is no instance", "Nothing has been started from here.")
            .help("`jackin apply` or `jackin load` starts one.")
            .into()),
        _ => Err(Diagnostic::error("instance.ambiguous", "Which instance?", format!("{} fit.", list(found.into_iter())))
            .help("Name one of them.")
            .into()),
    }
}

fn list<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> String {
    candidates.map(|c| c.key.as_str()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}
