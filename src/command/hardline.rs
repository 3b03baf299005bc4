//! `jackin hardline`: this instance runs, restarted or rebuilt round its saved state if need be; then attach.

use super::run::{Asks, Run, SESSION_END};
use super::ui::{DONE, ERROR, Failure};
use super::{eject, live, select};
use crate::attach::{Through, Way};
use crate::cli::{Carrying, Format, HardlineArgs};
use crate::diagnostic::Diagnostic;
use crate::gather::session::{Freshness, Session};
use crate::graph::want;
use crate::plan::{Mode, PlanOptions, Scope};
use crate::provider::endpoint;
use crate::resource::InstanceRecord;
use jackin_capsule::client::Outcome;
use jackin_capsule::control::{Reply, Request};
use jackin_capsule::wire::Spawn;
use std::collections::BTreeMap;
use std::io::IsTerminal;

pub async fn run(run: &mut Run, args: HardlineArgs) -> Result<i32, Failure> {
    let mut session = run.open(&[], Freshness::Offline, false).await?;
    let candidates = select::recorded(&session.facts);
    let here = select::here(&session.config, &session.facts).filter(|w| !select::matching(&candidates, w).is_empty());
    let key = select::one(&candidates, args.selector.as_deref(), here.as_deref())?.key.clone();
    let record = session.facts.records[&key].clone();
    if args.inspect {
        return inspect(run, &session, &record).await;
    }
    let spawn = match (args.new, args.shell) {
        (_, true) => Spawn::Shell,
        (true, _) => Spawn::Agent(args.agent.unwrap_or(record.agent_runtime).slug().to_owned()),
        _ => Spawn::None,
    };
    if args.carrying.dry_run || !answers(&session, &record).await {
        bring_back(run, &record, &args.carrying).await?;
        if args.carrying.dry_run {
            return Ok(DONE);
        }
    }
    session = run.open(&[], Freshness::Offline, false).await?;
    attach(run, &mut session, &record, spawn).await
}

async fn answers(session: &Session, record: &InstanceRecord) -> bool {
    Way::direct(&session.socket_of(&record.role_container)).await.is_some()
}

/// Plan and apply for one recorded instance, at the role commit it was made from.
pub async fn bring_back(run: &mut Run, record: &InstanceRecord, carrying: &Carrying) -> Result<i32, Failure> {
    let pinned = BTreeMap::from([(record.instance.clone(), record.role_git_sha.clone())]);
    let mut session = run.open_pinned(&[], Freshness::Cached, !carrying.yes, pinned).await?;
    let wanted = want::recorded(&session.config, &session.facts, record)?;
    let built = run.graph(&mut session, &[wanted]).await?;
    let options = PlanOptions::new(Mode::Restore, "hardline", Scope::Instances(vec![record.instance.clone()]));
    run.carry_out(&mut session, built, &options, carrying, Asks::WhenInDoubt, None).await
}

/// Attaches; when the last session has ended cleanly, the instance's Docker resources go and its home stays.
pub async fn attach(run: &mut Run, session: &mut Session, record: &InstanceRecord, spawn: Spawn) -> Result<i32, Failure> {
    let key = &record.instance;
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        run.ui.talk(&format!("{key} runs. There is no terminal here to attach; do so with `jackin hardline {key}`."));
        return Ok(DONE);
    }
    let socket = session.socket_of(&record.role_container);
    let outcome = match Way::direct(&socket).await {
        Some(way) => way.attach(spawn).await?,
        None => {
            let connection = endpoint::connect_by_env(&live::engine_env()).await?;
            Through::of(&connection).to(&record.role_container).attach(spawn).await?
        }
    };
    match outcome {
        Outcome::Detached => {
            run.ui.talk(&format!("Detached; {key} goes on. `jackin hardline {key}` comes back, `jackin eject {key}` removes it."));
            Ok(DONE)
        }
        Outcome::TakenOver => {
            run.ui.talk(&format!("Another terminal has attached to {key}."));
            Ok(DONE)
        }
        Outcome::SessionEnded(Some(0)) => {
            let keys = vec![key.clone()];
            eject::remove(run, session, SESSION_END, keys, false, &quietly()).await?;
            run.ui.talk(&format!("{key} ended. Its home stays for the next `jackin load`."));
            Ok(DONE)
        }
        Outcome::SessionEnded(code) => {
            let how = code.map_or_else(|| "by a signal".to_owned(), |c| format!("with code {c}"));
            Err(Diagnostic::error("session.crashed", "The session ended badly", format!("{key} ended {how}; everything of it is kept."))
                .help(format!("`jackin hardline {key}` restarts it, `jackin eject {key}` removes it."))
                .into())
        }
        Outcome::Lost(reason) => Err(Diagnostic::error("attach.lost", "The connection was lost", reason)
            .help(format!("`jackin status {key}` says how it is, `jackin hardline {key}` comes back."))
            .into()),
    }
}

fn quietly() -> Carrying {
    Carrying { yes: true, allow_loss: true, dry_run: false, parallelism: 10, format: Format::Human }
}

/// State and screen, without touching anything.
async fn inspect(run: &Run, session: &Session, record: &InstanceRecord) -> Result<i32, Failure> {
    let key = &record.instance;
    let connection;
    let way = match Way::direct(&session.socket_of(&record.role_container)).await {
        Some(way) => way,
        None => {
            connection = endpoint::connect_by_env(&live::engine_env()).await?;
            Through::of(&connection).to(&record.role_container)
        }
    };
    let Ok(Reply::SessionList { sessions }) = way.ask(&Request::Status).await else {
        run.ui.talk(&format!("{key} is not running. `jackin hardline {key}` brings it back."));
        return Ok(ERROR);
    };
    let mut text = format!("{key}: role {}, agent {}, container {}\n", record.role_key, record.agent_runtime, record.role_container);
    text.push_str(&format!("Sessions: {}\n", sessions.len()));
    for session in &sessions {
        let what = session.agent.as_deref().unwrap_or("shell");
        text.push_str(&format!("  [{}] {} ({what}) state={} active={}\n", session.id, session.label, session.state, session.active));
    }
    if let Ok(Reply::SessionRead(screen)) = way.ask(&Request::SessionRead { session_id: None }).await {
        let rule = "-".repeat(usize::from(screen.cols).min(run.ui.out.width));
        text.push_str(&format!("{rule}\n{}\n{rule}\n", screen.text.trim_end()));
    }
    run.ui.result(&text);
    Ok(DONE)
}
