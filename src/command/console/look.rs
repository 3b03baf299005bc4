//! What the console looks at: configuration, instances, roles, capsules. Reads only, silently, and never for long; what fails is part
//! of the answer.

use crate::command::ui::Failure;
use crate::command::{hardline, live, select, status};
use crate::config::Agent;
use crate::console::{Engine, Pane, Tab, World};
use crate::diagnostic::Diagnostic;
use crate::gather::releases::Asking;
use crate::gather::session::{self, Freshness, Request, RoleAsked, Session};
use crate::graph::{Graph, role};
use crate::observed::Observed;
use crate::plan::{Mode, PlanOptions, Scope, plan};
use crate::provider::Provider;
use crate::render::loss_words;
use crate::resource::AgentToml;
use futures_util::future::LocalBoxFuture;
use jackin_capsule::control;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// An engine that has not answered by then counts as silent.
const PATIENCE: Duration = Duration::from_secs(10);
const TABS_WITHIN: Duration = Duration::from_secs(2);

/// What the last look found.
pub struct Seen {
    session: Rc<Session>,
}

/// The configuration and the records, before any engine is asked.
pub async fn at_configuration() -> Result<(World, Seen), Vec<Diagnostic>> {
    let (session, files) = open(Freshness::Offline).await?;
    let here = select::here(&session.config, &session.facts);
    let world = World::new(&session.config, &session.facts, &files, &session.warnings, here, None, Engine::NotAsked);
    Ok((world, Seen { session: Rc::new(session) }))
}

/// Everything, by the same snapshot as `jackin status`.
pub async fn look() -> Result<(World, Seen), Vec<Diagnostic>> {
    let (mut session, files) = open(Freshness::Offline).await?;
    let (observed, engine) = match observe(&mut session).await {
        Ok(observed) => (Some(observed), Engine::Answers),
        Err(why) => (None, Engine::Silent(why)),
    };
    let rows = match &observed {
        Some(observed) => Some(status::rows(&session, observed, status::keys(&session, observed)).await),
        None => None,
    };
    let here = select::here(&session.config, &session.facts);
    let world = World::new(&session.config, &session.facts, &files, &session.warnings, here, rows.as_deref(), engine);
    Ok((world, Seen { session: Rc::new(session) }))
}

/// What the engine holds, or why it does not tell.
async fn observe(session: &mut Session) -> Result<Observed, String> {
    let observing = async {
        let provider = live::connect(session, BTreeMap::new()).await?;
        Ok::<Observed, Failure>(provider.observe(&Graph::default(), &Scope::All).await?)
    };
    match timeout(PATIENCE, observing).await {
        Ok(Ok(observed)) => Ok(observed),
        Ok(Err(Failure::Diagnostics(wrong))) => Err(told(wrong)),
        Ok(Err(Failure::Said(_))) | Err(_) => Err("The engine does not answer.".to_owned()),
    }
}

/// What removing an instance destroys now, as the plan of that says it.
pub async fn losses(instance: String, purge: bool) -> Result<Vec<String>, String> {
    let unknown = |why: String| format!("What {instance} would lose cannot be told. {why}");
    let (mut session, _) = open(Freshness::Offline).await.map_err(|wrong| unknown(told(wrong)))?;
    let observed = observe(&mut session).await.map_err(unknown)?;
    if !status::keys(&session, &observed).contains(&instance) {
        return Err(format!("{instance} is gone."));
    }
    let mut options = PlanOptions::new(Mode::Remove, "eject", Scope::Instances(vec![instance]));
    options.purge = purge;
    let plan = plan(&Graph::default(), &observed, &options);
    Ok(plan.losses().into_iter().map(|(_, loss)| loss_words(loss)).filter(|words| !words.is_empty()).collect())
}

fn told(wrong: Vec<Diagnostic>) -> String {
    wrong.first().map(Diagnostic::to_string).unwrap_or_default()
}

/// What is wrong in this file of the configuration.
pub async fn mistakes_of(shown: &str) -> Vec<Diagnostic> {
    match open(Freshness::Offline).await {
        Ok((session, _)) => {
            let here = |d: &Diagnostic| d.is_error() && d.span.as_ref().is_none_or(|span| span.file == shown);
            session.warnings.into_iter().filter(here).collect()
        }
        Err(wrong) => wrong,
    }
}

/// Fetches the role when it is not there yet.
pub async fn agents_of_role(role: String) -> Result<Vec<Agent>, String> {
    let (mut session, _) = open(Freshness::Ttl).await.map_err(told)?;
    session.asking = Asking::Never;
    let asked = RoleAsked { role: role.clone(), branch: None, url: None, pinned: None };
    session.programs_and_roles(Vec::new(), BTreeMap::from([(role.clone(), asked)]), &silent).await.map_err(|wrong| told(wrong.0))?;
    let checked = session.facts.roles.get(&role).map(role::check);
    match checked {
        Some((Some(checked), _)) => Ok(checked.manifest.agents),
        Some((None, wrong)) => Err(told(wrong)),
        None => Err(format!("There is no role {role}.")),
    }
}

/// The tabs and panes of a live instance; nothing when its capsule does not answer.
pub fn tabs(seen: &Seen, instance: String) -> LocalBoxFuture<'static, (String, Option<Vec<Tab>>)> {
    let session = seen.session.clone();
    Box::pin(async move {
        let asking = async {
            let record = session.facts.records.get(&instance)?;
            let way = hardline::way(&session, record).await.ok()?;
            match way.ask(&control::Request::Snapshot).await.ok()? {
                control::Reply::Snapshot { tabs, active_tab } => {
                    Some(tabs.into_iter().enumerate().map(|(at, t)| tab(t, at == active_tab)).collect())
                }
                _ => None,
            }
        };
        let tabs = timeout(TABS_WITHIN, asking).await.ok().flatten();
        (instance, tabs)
    })
}

fn tab(tab: control::Tab, active: bool) -> Tab {
    let panes = tab.panes.into_iter().map(|pane| Pane {
        active: active && pane.session_id == tab.focused_pane,
        session: pane.session_id,
        label: pane.label,
        agent: pane.agent,
        state: pane.state.to_string(),
    });
    Tab { label: tab.label, panes: panes.collect() }
}

impl Seen {
    /// The agents that an instance was made with.
    pub fn agents_of(&self, instance: &str) -> Result<Vec<Agent>, String> {
        let unknown = || format!("Which agents {instance} has is not recorded here.");
        let record = self.session.facts.records.get(instance).ok_or_else(unknown)?;
        let file = self.session.paths.instance_socket_dir(&record.role_container).join("agent.toml");
        let text = std::fs::read_to_string(file).map_err(|_| unknown())?;
        toml::from_str::<AgentToml>(&text).map(|launch| launch.agents).map_err(|_| unknown())
    }
}

async fn open(freshness: Freshness) -> Result<(Session, BTreeSet<String>), Vec<Diagnostic>> {
    let request = Request { answers: BTreeMap::new(), freshness, may_ask: false, pinned: BTreeMap::new() };
    let engine = live::engine_facts(live::ArchBy::Memory).await.map_err(|wrong| wrong.0)?;
    session::open_sound(request, engine, &silent).await.map_err(|wrong| wrong.0)
}

/// Somebody waits for a lock; the console goes on showing what it knows.
fn silent(_: &str) {}
