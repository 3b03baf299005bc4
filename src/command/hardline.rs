//! `jackin hardline`: this instance runs, restarted or rebuilt round its saved state if need be; then attach.

use super::live::{self, ArchBy};
use super::run::{Asks, Run, SESSION_END};
use super::ui::{DONE, ERROR, Failure};
use super::{eject, select};
use crate::attach::desk::Desk;
use crate::attach::{Programs, Through, Visit, Way};
use crate::cli::{Carrying, Format, HardlineArgs};
use crate::diagnostic::Diagnostic;
use crate::gather::session::{Freshness, Session};
use crate::graph::want;
use crate::plan::{Mode, PlanOptions, Scope};
use crate::provider::endpoint;
use crate::resource::InstanceRecord;
use jackin_capsule::client::Outcome;
use jackin_capsule::control::{Reply, Request};
use jackin_capsule::wire::{AttachMode, Spawn};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

pub async fn run(run: &mut Run, args: HardlineArgs) -> Result<i32, Failure> {
    let mut session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    let candidates = select::recorded(&session.facts);
    let here = select::here(&session.config, &session.facts).filter(|w| !select::matching(&candidates, w).is_empty());
    let key = select::one(&candidates, args.selector.as_deref(), here.as_deref())?.key.clone();
    let record = session.facts.records[&key].clone();
    if args.inspect {
        return inspect(run, &session, &record, args.history).await;
    }
    let agent = || args.agent.unwrap_or(record.agent_runtime).slug().to_owned();
    let spawn = match (args.new, args.shell, args.provider) {
        (_, true, _) => Spawn::Shell,
        (true, _, Some(provider)) => Spawn::AgentWithProvider { agent: agent(), provider },
        (true, _, None) => Spawn::Agent(agent()),
        _ => Spawn::None,
    };
    let mode = match (args.watch, args.shared) {
        (true, _) => AttachMode::Watch,
        (_, true) => AttachMode::Shared,
        _ => AttachMode::Takeover,
    };
    if args.carrying.dry_run || session.facts.spares.contains(&key) || !live::answers(&session, &record.role_container).await {
        bring_back(run, &record, &args.carrying).await?;
        if args.carrying.dry_run {
            return Ok(DONE);
        }
        session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    }
    attach(run, &mut session, &record, Wish { spawn, focus: args.focus, mode }).await
}

/// Plan and apply for one recorded instance, at the role commit it was made from.
pub async fn bring_back(run: &mut Run, record: &InstanceRecord, carrying: &Carrying) -> Result<i32, Failure> {
    let pinned = BTreeMap::from([(record.instance.clone(), record.role_git_sha.clone())]);
    let mut session = run.open_pinned(&[], Freshness::Cached, !carrying.yes, ArchBy::Engine, pinned).await?;
    let wanted = want::recorded(&session.config, &session.facts, record)?;
    let built = run.graph(&mut session, &[wanted]).await?;
    let options = PlanOptions::new(Mode::Restore, "hardline", Scope::Instances(vec![record.instance.clone()]));
    run.carry_out(&mut session, built, &options, carrying, Asks::WhenInDoubt, None).await
}

/// What to show, and how.
#[derive(Default)]
pub struct Wish {
    pub spawn: Spawn,
    pub focus: Option<u64>,
    pub mode: AttachMode,
}

/// Attaches; when the last session has ended cleanly, the instance's Docker resources go and its home stays.
pub async fn attach(run: &mut Run, session: &mut Session, record: &InstanceRecord, wish: Wish) -> Result<i32, Failure> {
    let key = &record.instance;
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        run.ui.talk(&format!("{key} runs. There is no terminal here to attach; do so with `jackin hardline {key}`."));
        return Ok(DONE);
    }
    let container = &record.role_container;
    // Of an earlier end, which this one is not.
    exit_action(&session.paths.instance(container));
    let watching = wish.mode == AttachMode::Watch;
    let visit = Visit {
        spawn: wish.spawn,
        focus: wish.focus,
        mode: wish.mode,
        title: format!("jackin {key}"),
        colour: run.ui.out.colour,
        container: container.clone(),
        engine_env: live::engine_env(),
        desk: desk(session, record),
        listens: run.heeds.clone(),
    };
    let way = way(session, record).await?;
    let outcome = way.attach(visit).await;
    run.heeds.set(false);
    let outcome = outcome?;
    let asked_for = exit_action(&session.paths.instance(container));
    match outcome {
        Outcome::SessionEnded(_) if watching => {
            run.ui.talk(&format!("{key} ended."));
            Ok(DONE)
        }
        Outcome::Detached => {
            run.ui.talk(&format!("Detached; {key} goes on. `jackin hardline {key}` comes back, `jackin eject {key}` removes it."));
            Ok(DONE)
        }
        Outcome::TakenOver => {
            run.ui.talk(&format!("Another terminal has attached to {key}."));
            Ok(DONE)
        }
        // An exit that was asked for ends the sessions by signals.
        Outcome::SessionEnded(code) if code == Some(0) || asked_for.is_some() => {
            let keys = vec![key.clone()];
            // Either answer leaves the home: only `purge` deletes it. What "discard" gives up are isolated checkouts, of which an
            // instance has none yet.
            eject::remove(run, session, SESSION_END, keys, false, &quietly()).await?;
            let changes = if asked_for == Some(ExitAction::Keep) { "Its changes and its home stay" } else { "Its home stays" };
            run.ui.talk(&format!("{key} ended. {changes} for the next `jackin load`."));
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

/// What the person chose in the capsule's exit dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitAction {
    Keep,
    Discard,
}

/// Takes the choice out of the instance's state, so that it counts once. The capsule may put anything there.
pub fn exit_action(instance: &Path) -> Option<ExitAction> {
    use rustix::fs::OFlags;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let path = instance.join("state/exit-action.json");
    // A link must not lead out of there, and a pipe must not hold us up.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
    let mut text = String::new();
    let read = file.metadata().is_ok_and(|metadata| metadata.is_file()).then(|| file.take(64).read_to_string(&mut text));
    std::fs::remove_file(&path).ok()?;
    read?.ok()?;
    match text.trim() {
        "\"keep\"" => Some(ExitAction::Keep),
        "\"discard\"" => Some(ExitAction::Discard),
        _ => None,
    }
}

pub async fn way(session: &Session, record: &InstanceRecord) -> Result<Way, Failure> {
    if let Some(way) = Way::direct(&session.socket_of(&record.role_container)).await {
        return Ok(way);
    }
    let connection = endpoint::connect_by_env(&live::engine_env()).await?;
    Ok(Through::of(&connection).to(&record.role_container))
}

fn desk(session: &Session, record: &InstanceRecord) -> Desk {
    let home = session.paths.home.clone();
    let facts = &session.facts;
    let mounts = want::recorded(&session.config, facts, record).map(|wanted| wanted.mounts).unwrap_or_default();
    let denied = |key| std::env::var(key).is_ok_and(|value| jackin_capsule::launch::denies(&value));
    Desk {
        downloads: home.join("Downloads/jackin").join(&record.role_container),
        home,
        mounts: mounts.into_iter().map(|mount| (facts.expand(&mount.src.value).into(), mount.dst.value)).collect(),
        programs: Programs::from_env(),
        paste_paths: !denied("JACKIN_PASTE_IMAGE_PATHS"),
        opens_links: !denied("JACKIN_OPEN_LINKS"),
    }
}

/// State and screen, without touching anything.
async fn inspect(run: &Run, session: &Session, record: &InstanceRecord, history: Option<u64>) -> Result<i32, Failure> {
    let key = &record.instance;
    let way = way(session, record).await?;
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
    if let Ok(Reply::SessionRead(screen)) = way.ask(&Request::SessionRead { session_id: None, history }).await {
        let rule = "-".repeat(usize::from(screen.cols).min(run.ui.out.width));
        text.push_str(&format!("{rule}\n{}\n{rule}\n", screen.text.trim_end()));
    }
    run.ui.result(&text);
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_at_the_exit_counts_once_and_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (instance, file) = (dir.path(), dir.path().join("state/exit-action.json"));
        std::fs::create_dir(dir.path().join("state")).unwrap();
        assert_eq!(exit_action(instance), None);
        for (text, expected) in [
            ("\"keep\"", Some(ExitAction::Keep)),
            ("\"discard\"\n", Some(ExitAction::Discard)),
            ("keep", None),
            ("", None),
            (&"x".repeat(1 << 20), None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(exit_action(instance), expected);
            assert_eq!(exit_action(instance), None, "it was taken");
        }
        std::fs::write(instance.join("secret"), "\"keep\"").unwrap();
        std::os::unix::fs::symlink(instance.join("secret"), &file).unwrap();
        assert_eq!(exit_action(instance), None, "a link is not followed");
        std::fs::remove_file(&file).unwrap();
        std::process::Command::new("mkfifo").arg(&file).status().unwrap();
        assert_eq!(exit_action(instance), None, "a pipe is not waited for");
    }
}
