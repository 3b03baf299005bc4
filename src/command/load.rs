//! `jackin load`: one instance of a role in a workspace or folder exists; then attach.
//!
//! An instance of the same workspace, role and agent that does not run is taken up again with its home, a spare before others; one
//! that runs, or that another jackin has its hands on, is left alone, and a new one is made beside it.

use super::live::{self, ArchBy};
use super::run::{Asks, Run};
use super::ui::{DONE, Failure};
use super::{hardline, select};
use crate::cli::LoadArgs;
use crate::config::{Config, Isolation, Located, Mount, Workspace};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::gather::Lock;
use crate::gather::session::{Freshness, Session};
use crate::graph::want::{self, Load, Target, Wanted};
use crate::plan::{Mode, PlanOptions, Scope};
use crate::resource::{Kind, Spec};

pub async fn run(run: &mut Run, args: LoadArgs) -> Result<i32, Failure> {
    let freshness = if args.rebuild { Freshness::Always } else { Freshness::Ttl };
    let mut session = run.open(&args.answers.env, freshness, !args.carrying.yes, ArchBy::Engine).await?;
    let (wanted, lock) = choose(&session, &args).await?;
    let key = wanted.key.clone();
    run.locks.extend(lock.map(|lock| (wanted.container.clone(), lock)));
    let built = run.graph(&mut session, &[wanted]).await?;
    let record = built.graph.resources.iter().find_map(|(address, resource)| match (&address.kind, &resource.spec) {
        (Kind::Home, Spec::Home(home)) => Some(home.record.clone()),
        _ => None,
    });
    let mut options = PlanOptions::new(Mode::Launch, "load", Scope::Instances(vec![key]));
    options.rebuild = args.rebuild;
    let code = run.carry_out(&mut session, built, &options, &args.carrying, Asks::WhenInDoubt, None).await?;
    if args.carrying.dry_run || args.no_attach {
        return Ok(code);
    }
    let Some(record) = record else {
        return Ok(DONE);
    };
    hardline::attach(run, &mut session, &record, hardline::Wish::default()).await
}

/// With the lock of an instance that exists already, so that no two loads take the same.
async fn choose(session: &Session, args: &LoadArgs) -> Result<(Wanted, Option<Lock>), Failure> {
    let (config, facts) = (&session.config, &session.facts);
    let mounts = args.mount.iter().map(|spec| parse_mount(facts, spec)).collect::<Result<Vec<_>, _>>()?;
    let target = target(config, facts, args)?;
    let role = match (&args.role, &target) {
        (Some(role), _) => role.to_ascii_lowercase(),
        (None, Target::Workspace(workspace)) => workspace_role(workspace)?,
        (None, Target::Folder { .. }) => {
            return Err(Diagnostic::error(
                "role.undecided",
                "Which role?",
                "No saved workspace covers this folder, and no role was named.",
            )
            .help("`jackin load ROLE .`, or save a workspace with `jackin workspace create`.")
            .into());
        }
    };
    let mut idle = Vec::new();
    let plain = args.mount.is_empty() && args.role_branch.is_none() && args.docker_profile.is_none() && !args.rebuild;
    if plain && let Target::Workspace(workspace) = &target {
        idle.extend(want::declared_alike(config, facts, workspace, &role, args.agent));
    }
    if args.role_branch.is_none() && !args.rebuild {
        idle.extend(loaded_alike(session, &target, &role, args, &mounts)?);
    }
    // Of an ejected spare only the home is left.
    let running = live::running(session, idle.iter().map(|wanted| wanted.container.as_str())).await?;
    let mut idle: Vec<(bool, Wanted)> = idle.into_iter().map(|wanted| (running.contains(&wanted.container), wanted)).collect();
    idle.sort_by_key(|(runs, wanted)| !(*runs && facts.spares.contains(&wanted.key)));
    for (runs, wanted) in idle {
        if args.carrying.dry_run {
            if facts.spares.contains(&wanted.key) || !runs {
                return Ok((wanted, None));
            }
        } else if let Some(lock) = take(session, &wanted).await? {
            return Ok((wanted, Some(lock)));
        }
    }
    let load = Load { role, target, agent: args.agent, mounts, profile: args.docker_profile, branch: args.role_branch.clone(), number: 0 };
    Ok((want::fresh(facts, load), None))
}

/// Nobody else has hands on it, and nobody has taken it since we looked.
async fn take(session: &Session, wanted: &Wanted) -> Result<Option<Lock>, Failure> {
    let Some(lock) = Lock::try_exclusive(&session.paths.instance_lock(&wanted.container))? else {
        return Ok(None);
    };
    let free = session.is_spare(&wanted.container) || live::running(session, [wanted.container.as_str()]).await?.is_empty();
    Ok(free.then_some(lock))
}

fn workspace_role(workspace: &Workspace) -> Result<String, Failure> {
    workspace.default_role.as_ref().map(|r| r.value.clone()).or_else(|| workspace.last_role.clone()).ok_or_else(|| {
        Diagnostic::error("role.undecided", "Which role?", format!("Workspace `{}` has neither a default nor a last role.", workspace.name))
            .help(format!("`jackin load ROLE {}`, or set `default_role` in it.", workspace.name))
            .into()
    })
}

fn target<'a>(config: &'a Config, facts: &Facts, args: &LoadArgs) -> Result<Target<'a>, Failure> {
    let Some(text) = &args.target else {
        // One word alone may be a workspace rather than a role.
        return Ok(match select::here(config, facts).and_then(|name| config.workspaces.get(&name)) {
            Some(workspace) => Target::Workspace(workspace),
            None => folder(facts, ".")?,
        });
    };
    if text.contains('/') || text.starts_with('.') || text.starts_with('~') {
        return folder(facts, text);
    }
    match config.workspaces.get(text) {
        Some(workspace) => Ok(Target::Workspace(workspace)),
        None => Err(want::unknown_workspace(config, text).into()),
    }
}

/// `PATH` or `PATH:CONTAINER_PATH`; the first `:` before a `/` splits.
fn folder(facts: &Facts, text: &str) -> Result<Target<'static>, Failure> {
    let (host, container) = match text.find(":/") {
        Some(at) => (&text[..at], Some(text[at + 1..].to_owned())),
        None => (text, None),
    };
    let host = absolute(facts, host);
    let canonical = std::fs::canonicalize(&host).ok().filter(|p| p.is_dir()).ok_or_else(|| {
        Failure::from(
            Diagnostic::error("load.no_folder", "No such folder", format!("{host} is not a folder."))
                .help("Name a saved workspace (`jackin workspace list`) or an existing folder."),
        )
    })?;
    let host = canonical.to_string_lossy().into_owned();
    Ok(Target::Folder { container: container.unwrap_or_else(|| host.clone()), host })
}

fn absolute(facts: &Facts, path: &str) -> String {
    let expanded = facts.expand(path);
    if expanded.starts_with('/') { expanded } else { crate::config::validate::clean_path(&format!("{}/{expanded}", facts.cwd)) }
}

/// `SRC[:DST][:ro]`.
pub fn parse_mount(facts: &Facts, spec: &str) -> Result<Mount, Failure> {
    let (rest, readonly) = spec.strip_suffix(":ro").map_or((spec, false), |rest| (rest, true));
    let (src, dst) = rest.split_once(':').map_or((rest, None), |(src, dst)| (src, Some(dst)));
    let bad = |detail: &str| {
        Failure::from(
            Diagnostic::error("mount.spec", "A mount is malformed", format!("`{spec}`: {detail}."))
                .help("Write SRC[:DST][:ro], DST absolute."),
        )
    };
    if src.is_empty() {
        return Err(bad("the source is empty"));
    }
    let src = absolute(facts, src);
    let dst = dst.map_or_else(|| src.clone(), str::to_owned);
    if !dst.starts_with('/') {
        return Err(bad("the target is not absolute"));
    }
    if dst.split('/').any(|part| part == ".." || part == ".") {
        return Err(bad("the target contains `.` or `..`"));
    }
    Ok(Mount { src: Located::bare(src), dst: Located::bare(dst), readonly, isolation: Located::bare(Isolation::Shared) })
}

/// Earlier loads of the same thing.
fn loaded_alike(session: &Session, target: &Target<'_>, role: &str, args: &LoadArgs, mounts: &[Mount]) -> Result<Vec<Wanted>, Failure> {
    let load = Load {
        role: role.to_owned(),
        target: target.clone(),
        agent: args.agent,
        mounts: mounts.to_vec(),
        profile: args.docker_profile,
        branch: None,
        number: 0,
    };
    let probe = want::fresh(&session.facts, load);
    let records = session.facts.records.values().filter(|record| want::loaded_alike(record, &probe, args.agent));
    records
        .map(|record| {
            let mut wanted = want::recorded(&session.config, &session.facts, record)?;
            wanted.profile_flag = args.docker_profile;
            Ok(wanted)
        })
        .collect()
}
