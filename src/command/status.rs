//! `jackin status`: what runs, what is stopped, what is left.

use super::live::{self, ArchBy};
use super::run::Run;
use super::select;
use super::ui::{DONE, Failure};
use crate::cli::{Format, StatusArgs};
use crate::gather::session::{Freshness, Session};
use crate::graph::prewarm::kept_recipe;
use crate::graph::{Graph, names};
use crate::observed::{Observed, PoolMember, State};
use crate::plan::{Mode, PlanOptions, Scope, plan};
use crate::provider::Provider;
use crate::render::status::{Health, KeptRow, KeptState, Status, StatusRow, kept_text, reason_text, status_json, status_text};
use crate::resource::{Address, Kind};
use std::collections::{BTreeMap, BTreeSet};

pub async fn run(run: &mut Run, args: StatusArgs) -> Result<i32, Failure> {
    let mut session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    // With what would be kept now, so that kept sidecars are asked whether they answer.
    let graph = Graph { kept: args.selector.is_none().then(|| kept_recipe(&session.config, &session.facts)), ..Graph::default() };
    let provider = live::connect(&mut session, BTreeMap::new()).await?;
    let observed = provider.observe(&graph, &Scope::All).await?;
    let mut keys = keys(&session, &observed);
    if let Some(selector) = &args.selector {
        let candidates = select::recorded(&session.facts);
        let fitting: BTreeSet<String> = select::matching(&candidates, selector).into_iter().map(|c| c.key.clone()).collect();
        keys.retain(|key| fitting.contains(key) || key == selector);
        if keys.is_empty() {
            select::one(&candidates, Some(selector), None)?;
        }
    }
    let instances = rows(&session, &observed, keys).await;
    let kept = if graph.kept.is_some() { kept(&graph, &observed) } else { Vec::new() };
    let status = Status { instances, kept };
    let (rows, kept) = (&status.instances, kept_text(&status.kept));
    match args.format {
        Format::Human if rows.is_empty() && !kept.is_empty() => run.ui.result(kept.trim_start()),
        Format::Human if rows.is_empty() => run.ui.talk("There is no instance. `jackin apply` or `jackin load` starts one."),
        Format::Human => run.ui.result(&format!("{}{kept}", status_text(rows, &run.ui.out))),
        Format::Json => run.ui.result(&status_json(&status)),
    }
    Ok(DONE)
}

/// Of every instance that has a record here or anything on the engine.
pub fn keys(session: &Session, observed: &Observed) -> BTreeSet<String> {
    let there = observed.resources.iter().filter(|(_, found)| !found.is_empty()).filter_map(|(address, _)| address.instance());
    session.facts.records.keys().cloned().chain(there.map(str::to_owned)).collect()
}

/// How these instances are, their sessions included.
pub async fn rows(session: &Session, observed: &Observed, keys: BTreeSet<String>) -> Vec<StatusRow> {
    let mut instances: Vec<StatusRow> = keys
        .into_iter()
        .map(|key| {
            let record = session.facts.records.get(&key);
            let capsule = observed.found(&Address::new(Kind::Capsule, key.clone())).first();
            let sidecar = observed.found(&Address::new(Kind::Sidecar, key.clone())).first();
            let text = |f: Option<&String>| f.cloned().unwrap_or_default();
            StatusRow {
                role: text(record.map(|r| &r.role_key)),
                agent: record.map(|r| r.agent_runtime.slug().to_owned()).unwrap_or_default(),
                state: match (capsule.map(|f| &f.state), sidecar.map(|f| &f.state)) {
                    (Some(State::Paused), _) if session.facts.spares.contains(&key) => Health::Spare,
                    (Some(State::Running), None) if record.is_none_or(|r| r.dind_container.is_none()) => Health::Running,
                    (Some(State::Running), Some(State::Running)) => Health::Running,
                    (Some(State::Running), _) => Health::Degraded,
                    (Some(State::Paused), _) => Health::Paused,
                    (Some(State::Exited { code: 0, oom: false } | State::Created), _) => Health::Stopped,
                    (Some(State::Exited { .. } | State::Dead | State::Restarting), _) => Health::Crashed,
                    (Some(State::Silent | State::Removing | State::Present), _) | (None, Some(_)) => Health::Degraded,
                    (None, None) => Health::Saved,
                },
                sessions: capsule.and_then(|f| f.loss.sessions),
                session_states: BTreeMap::new(),
                age_seconds: None,
                container: capsule.map(|f| f.name.clone()).unwrap_or_else(|| text(record.map(|r| &r.role_container))),
                instance: key,
            }
        })
        .collect();
    let states =
        futures_util::future::join_all(instances.iter().map(|row| live::session_states(session, row.sessions, &row.container))).await;
    for (row, states) in instances.iter_mut().zip(states) {
        row.session_states = states;
    }
    instances
}

/// Kept sidecars as the next prewarm sees them: what it would remove is of no use to anybody.
fn kept(graph: &Graph, observed: &Observed) -> Vec<KeptRow> {
    let plan = plan(graph, observed, &PlanOptions::new(Mode::PrewarmOnly, "prewarm", Scope::Instances(Vec::new())));
    let row = |set: &PoolMember| {
        let removed = plan.changes.iter().find(|change| change.address.pool_id() == Some(&set.id));
        let state = match (set.held, removed) {
            (true, _) => KeptState::Held,
            (false, None) => KeptState::Ready,
            (false, Some(_)) => KeptState::Useless,
        };
        KeptRow { id: set.id.clone(), name: names::pool_base(&set.id), state, reason: removed.and_then(reason_text) }
    };
    observed.pool.iter().map(row).collect()
}
