//! Which instances `jackin prewarm --instance` wants as spares: started and paused with their agent held back, for a later launch to take.
//!
//! In: configuration, facts, and which containers exist. Out: wanted instances. A spare is an ordinary instance of its workspace, so that
//! whoever takes it takes its names and its home with it. First comes what a launch would take up anyway: the declared instance itself,
//! then idle ones of the same kind that were loaded; only what is still missing is made anew. Absent: Docker.

use super::names;
use super::want::{self, Load, Target, Wanted};
use crate::config::{Config, Workspace};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;

/// `--instance WORKSPACE[/NAME]`, so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpareGoal {
    pub workspace: String,
    /// None: one kind for each that the workspace declares.
    pub name: Option<String>,
    pub count: u16,
}

impl SpareGoal {
    pub fn parse(text: &str, count: u16) -> Self {
        let (workspace, name) = text.split_once('/').map_or((text, None), |(workspace, name)| (workspace, Some(name.to_owned())));
        Self { workspace: workspace.to_owned(), name, count }
    }
}

/// `exists` tells whether there is a container of that name, in whatever state. One that is there and no spare has been at work: its
/// instance is nobody's spare any more, and another takes its place.
pub fn spares(config: &Config, facts: &Facts, goal: &SpareGoal, exists: impl Fn(&str) -> bool) -> Result<Vec<Wanted>, Diagnostic> {
    let Some(workspace) = config.workspaces.get(&goal.workspace) else {
        return Err(want::unknown_workspace(config, &goal.workspace));
    };
    let (declared, _) = want::declared(config, facts, std::slice::from_ref(&workspace.name));
    if declared.is_empty() {
        return Err(Diagnostic::error("prewarm.declares_nothing", "The workspace declares no instance", format!("`{}`", workspace.name))
            .at(workspace.workdir.span.clone())
            .help("Set `default_role` in it, or add an `[[instance]]`."));
    }
    let named = |wanted: &Wanted| goal.name.as_ref().is_none_or(|name| wanted.key.rsplit_once('/').is_some_and(|(_, n)| n == name));
    if let (Some(name), false) = (&goal.name, declared.iter().any(named)) {
        let known: Vec<&str> = declared.iter().map(|wanted| wanted.key.as_str()).collect();
        return Err(Diagnostic::error(
            "prewarm.unknown_instance",
            "No such instance",
            format!("`{}/{name}` is not declared.", workspace.name),
        )
        .at(workspace.workdir.span.clone())
        .help(format!("Declared: {}.", known.join(", "))));
    }
    let mut out: Vec<Wanted> = Vec::new();
    for kind in declared.iter().filter(|wanted| named(wanted)) {
        let mut missing = usize::from(goal.count);
        for candidate in of_kind(config, facts, workspace, kind, missing) {
            let sidecar = facts.records.get(&candidate.key).and_then(|record| record.dind_container.clone());
            let sidecar = sidecar.unwrap_or_else(|| names::sidecar(&candidate.container));
            let idle = facts.spares.contains(&candidate.key) || !(exists(&candidate.container) || exists(&sidecar));
            if missing > 0 && idle && out.iter().all(|taken| taken.key != candidate.key) {
                out.push(Wanted { spare: true, ..candidate });
                missing -= 1;
            }
        }
    }
    Ok(out)
}

/// The declared one, what was loaded like it (spares first), and as many again that do not exist yet.
fn of_kind(config: &Config, facts: &Facts, workspace: &Workspace, declared: &Wanted, count: usize) -> Vec<Wanted> {
    let fresh = |number| {
        let load = Load {
            role: declared.role.clone(),
            target: Target::Workspace(workspace),
            agent: declared.agent.as_ref().map(|agent| agent.value),
            mounts: Vec::new(),
            profile: None,
            branch: None,
            number,
        };
        want::fresh(facts, load)
    };
    let probe = fresh(0);
    let agent = declared.agent.as_ref().map(|agent| agent.value);
    let mut loaded: Vec<Wanted> = facts
        .records
        .values()
        .filter(|record| want::loaded_alike(record, &probe, agent))
        .filter_map(|record| want::recorded(config, facts, record).ok())
        .collect();
    loaded.sort_by_key(|wanted| !facts.spares.contains(&wanted.key));
    let new = (0..count).map(fresh);
    std::iter::once(declared.clone()).chain(loaded).chain(new).collect()
}
