//! `jackin workspace`: the files of saved workspaces, created, listed, shown, removed. Written whole, under the config lock.

use super::live::ArchBy;
use super::load::parse_mount;
use super::run::{Run, notice};
use super::ui::{CANCELLED, DONE, Failure};
use crate::cli::{Format, WorkspaceCommand, WorkspaceCreateArgs};
use crate::config::write::{NewMount, NewWorkspace, render_workspace};
use crate::config::{self, FileKind, Isolation, Workspace};
use crate::diagnostic::Diagnostic;
use crate::gather::lock::{CONFIG_TIMEOUT, Lock};
use crate::gather::session::{Freshness, Session};
use crate::gather::{atomic, paths, prompt};
use crate::graph::want::unknown_workspace;
use crate::render::json::envelope;
use crate::render::table::table;
use serde_json::{Value, json};

pub async fn run(run: &mut Run, command: WorkspaceCommand) -> Result<i32, Failure> {
    let session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    match command {
        WorkspaceCommand::Create(args) => create(run, &session, args).await,
        WorkspaceCommand::List { format } => {
            list(run, &session, format);
            Ok(DONE)
        }
        WorkspaceCommand::Show { name, format } => show(run, &session, &name, format),
        WorkspaceCommand::Remove { name, yes, dry_run } => remove(run, &session, &name, yes, dry_run).await,
    }
}

async fn create(run: &Run, session: &Session, args: WorkspaceCreateArgs) -> Result<i32, Failure> {
    if let Some(problem) = config::validate::check_new_workspace_name(&args.name) {
        return Err(problem.into());
    }
    let facts = &session.facts;
    let mut mounts = Vec::new();
    for spec in &args.mount {
        let mount = parse_mount(facts, spec)?;
        mounts.push(NewMount { src: mount.src.value, dst: mount.dst.value, readonly: mount.readonly, isolation: Isolation::Shared });
    }
    for choice in &args.mount_isolation {
        let (dst, kind) = choice.rsplit_once('=').unwrap_or((choice, ""));
        let isolation = match kind {
            "shared" => Isolation::Shared,
            "worktree" => Isolation::Worktree,
            "clone" => Isolation::Clone,
            _ => {
                return Err(Diagnostic::error("mount.isolation_kind", "An isolation is malformed", format!("`{choice}`"))
                    .help("Write DST=shared, DST=worktree or DST=clone.")
                    .into());
            }
        };
        let Some(mount) = mounts.iter_mut().find(|m| m.dst == dst) else {
            return Err(Diagnostic::error("mount.isolation_target", "No mount has this target", format!("`{dst}`"))
                .help("Name the DST of a --mount.")
                .into());
        };
        mount.isolation = isolation;
    }
    let workdir = facts.expand(&args.workdir);
    let new = NewWorkspace {
        workdir: if workdir.starts_with('/') { workdir } else { config::validate::clean_path(&format!("{}/{workdir}", facts.cwd)) },
        mounts,
        allowed_roles: args.allowed_role,
        default_role: args.default_role,
        default_agent: args.default_agent,
        git_pull_on_entry: args.git_pull,
        keep_awake: args.keep_awake,
    };
    let text = render_workspace(&new);
    // The same reader and rules as for a file written by hand, together with the global configuration.
    let kind = FileKind::Workspace { name: args.name.clone() };
    let shown = kind.shown();
    let mut sources = vec![config::SourceFile { kind, shown: shown.clone(), bytes: text.clone().into_bytes() }];
    if let Ok(bytes) = std::fs::read(session.paths.config_file()) {
        sources.push(config::SourceFile { kind: FileKind::Global, shown: FileKind::Global.shown(), bytes });
    }
    let (_, warnings) = config::load(&sources)?;
    run.ui.warn(&warnings);
    if args.dry_run {
        run.ui.result(&text);
        return Ok(DONE);
    }
    let directory = session.paths.workspaces();
    paths::ensure_dir(&directory, 0o700)?;
    let _lock = Lock::exclusive(&session.paths.config_lock(), "the configuration", Some(CONFIG_TIMEOUT), &notice).await?;
    let file = directory.join(format!("{}.toml", args.name));
    if !atomic::create(&file, text.as_bytes(), 0o600)? {
        return Err(Diagnostic::error("workspace.exists", "The workspace exists already", shown)
            .help(format!("Look at it with `jackin workspace show {}`, or choose another name.", args.name))
            .into());
    }
    run.ui.talk(&format!("Saved {}. See what it needs with `jackin plan {}`.", session.paths.shorten(&file), args.name));
    Ok(DONE)
}

fn list(run: &Run, session: &Session, format: Format) {
    let all: Vec<&Workspace> = session.config.workspaces.values().collect();
    match format {
        Format::Json => run.ui.result(&envelope(&all.iter().map(|w| as_json(session, w)).collect::<Vec<_>>())),
        Format::Human if all.is_empty() => {
            run.ui.talk("There is no workspace. Save one with `jackin workspace create NAME --workdir PATH --mount PATH`.");
        }
        Format::Human => {
            let rows: Vec<Vec<String>> = all
                .iter()
                .map(|w| {
                    vec![
                        w.name.clone(),
                        w.workdir.value.clone(),
                        w.mounts.len().to_string(),
                        w.default_role.as_ref().map(|r| r.value.clone()).unwrap_or_default(),
                        w.declared().iter().map(|d| d.name.value.clone()).collect::<Vec<_>>().join(" "),
                    ]
                })
                .collect();
            run.ui.result(&table(&rows, &["WORKSPACE", "WORKDIR", "MOUNTS", "ROLE", "INSTANCES"], &run.ui.out));
        }
    }
}

/// Everything but env values, which may be credentials.
fn as_json(session: &Session, w: &Workspace) -> Value {
    json!({
        "name": w.name,
        "workdir": w.workdir.value,
        "mounts": w.mounts.iter().map(|m| json!({
            "src": session.facts.shorten(&session.facts.expand(&m.src.value)),
            "dst": m.dst.value,
            "readonly": m.readonly,
            "isolation": m.isolation.value,
        })).collect::<Vec<_>>(),
        "allowed_roles": w.allowed_roles.iter().map(|r| &r.value).collect::<Vec<_>>(),
        "default_role": w.default_role.as_ref().map(|r| &r.value),
        "default_agent": w.default_agent.as_ref().map(|a| a.value),
        "last_role": w.last_role,
        "env": w.env.keys().collect::<Vec<_>>(),
        "instances": w.declared().iter().map(|d| json!({
            "name": d.name.value,
            "role": d.role.value,
            "agent": d.agent.as_ref().map(|a| a.value),
        })).collect::<Vec<_>>(),
    })
}

fn show(run: &Run, session: &Session, name: &str, format: Format) -> Result<i32, Failure> {
    let workspace = session.config.workspaces.get(name).ok_or_else(|| Failure::from(unknown_workspace(&session.config, name)))?;
    match format {
        Format::Json => run.ui.result(&envelope(&as_json(session, workspace))),
        Format::Human => {
            let mut text = format!("workspace  {name}\nfile       {}\nworkdir    {}\n", workspace.file, workspace.workdir.value);
            for m in &workspace.mounts {
                let mode = if m.readonly { " (read-only)" } else { "" };
                text.push_str(&format!("mount      {} -> {}{mode}\n", session.facts.shorten(&m.src.value), m.dst.value));
            }
            for d in workspace.declared() {
                let agent = d.agent.map_or_else(|| "the role's only agent".to_owned(), |a| format!("agent {}", a.value));
                text.push_str(&format!("instance   {name}/{}: role {}, {agent}\n", d.name.value, d.role.value));
            }
            if !workspace.env.is_empty() {
                text.push_str(&format!("env        {}\n", workspace.env.keys().cloned().collect::<Vec<_>>().join(" ")));
            }
            run.ui.result(&text);
        }
    }
    Ok(DONE)
}

async fn remove(run: &Run, session: &Session, name: &str, yes: bool, dry_run: bool) -> Result<i32, Failure> {
    let workspace = session.config.workspaces.get(name).ok_or_else(|| Failure::from(unknown_workspace(&session.config, name)))?;
    let file = session.paths.workspaces().join(format!("{name}.toml"));
    if !file.is_file() {
        return Err(Diagnostic::error(
            "workspace.embedded",
            "The workspace has no file of its own",
            format!("`{name}` stands in {}.", workspace.file),
        )
        .help("Remove its table from config.toml.")
        .into());
    }
    let left: Vec<&str> =
        session.facts.records.values().filter(|r| r.workspace_name.as_deref() == Some(name)).map(|r| r.instance.as_str()).collect();
    let shown = session.paths.shorten(&file);
    if !left.is_empty() {
        run.ui.talk(&format!("Its instances stay until ejected: {}.", left.join(", ")));
    }
    if dry_run {
        run.ui.result(&format!("Would remove {shown}."));
        return Ok(DONE);
    }
    if !yes {
        let question = format!("Remove {shown}?");
        let sure = tokio::task::spawn_blocking(move || prompt::confirm(&question)).await.expect("BUG: asking does not panic")?;
        if !sure {
            return Err(Failure::Said(CANCELLED));
        }
    }
    let _lock = Lock::exclusive(&session.paths.config_lock(), "the configuration", Some(CONFIG_TIMEOUT), &notice).await?;
    std::fs::remove_file(&file)
        .map_err(|error| Diagnostic::error("workspace.remove", "The workspace cannot be removed", format!("{shown}: {error}")))?;
    run.ui.talk(&format!("Removed {shown}."));
    Ok(DONE)
}
