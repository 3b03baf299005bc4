//! `jackin prewarm`: what the next launch needs is there before it asks. Everything goes through one plan, mode `prewarm_only`.

use super::live::{ArchBy, endpoint_by_env};
use super::run::{Asks, Run, failed_programs, notice};
use super::ui::{DONE, ERROR, Failure, USAGE};
use crate::cli::{Format, PrewarmArgs};
use crate::config::Agent;
use crate::diagnostic::Diagnostic;
use crate::gather::Paths;
use crate::gather::env::variable;
use crate::gather::lock::Lock;
use crate::gather::releases::Asking;
use crate::gather::session::{Freshness, RoleAsked, Session};
use crate::graph::prewarm::{self, Choice, Goal, KeptGoal, SidecarGoal};
use crate::graph::spare::{self, SpareGoal};
use crate::graph::want::Wanted;
use crate::plan::{Mode, PlanOptions, Scope};
use crate::resource::Kind;
use std::collections::BTreeMap;

pub async fn run(run: &mut Run, mut args: PrewarmArgs) -> Result<i32, Failure> {
    let goal = match goal(&args) {
        Ok(goal) => goal,
        Err(wrong) => {
            run.ui.diagnostics(&[wrong]);
            return Err(Failure::Said(USAGE));
        }
    };
    args.carrying.dry_run |= args.plan;
    let mut without = BTreeMap::new();
    loop {
        let ended = once(run, &args, &goal, &without).await;
        let known = without.len();
        if let Err(Failure::Said(ERROR)) = ended {
            without.extend(failed_programs(&run.failed).unwrap_or_default());
        }
        // Planned again with what is cached, or the vendor's installer, in the place of what could not be fetched.
        if without.len() == known {
            return ended;
        }
    }
}

/// `without`: whose programs were tried to be had by this run, and why they could not.
async fn once(run: &mut Run, args: &PrewarmArgs, goal: &Goal, without: &BTreeMap<Agent, String>) -> Result<i32, Failure> {
    run.failed.clear();
    let freshness = match (args.plan, args.carrying.dry_run) {
        (true, _) => Freshness::Offline,
        (_, true) => Freshness::Ttl,
        (_, false) => Freshness::Always,
    };
    // Two that fill the pool at once would both fill it; so nothing is looked at before.
    let _filling = match (goal.sidecar.is_some() || goal.spare.is_some()) && !args.carrying.dry_run {
        true => Some(Lock::exclusive(&Paths::from_env(variable)?.pool_lock(), "what is kept for launches", None, &notice).await?),
        false => None,
    };
    let mut session = run.open(&args.answers.env, freshness, !args.carrying.yes, ArchBy::Engine).await?;
    // Programs are wanted for their own sake, so an older one in the cache does not do. A plan may ask as well: it reads, and what it
    // shows is what would be downloaded. Who tries a second time asks for nothing that was answered a moment ago.
    session.asking = if without.is_empty() { Asking::Fresh } else { Asking::WhenNeeded };
    let (mut wishes, mut said) = prewarm::wishes(&session.config, goal);
    // A name that is wrong is said before anything is asked of a remote or an engine.
    if said.iter().any(Diagnostic::is_error) {
        return Err(Failure::Diagnostics(said));
    }
    let mut spares = match &goal.spare {
        Some(spare) => spares(&session, spare).await?,
        None => Vec::new(),
    };
    if !spares.is_empty() {
        session.complete(&spares, &notice).await?;
    }
    let asked =
        |wish: &prewarm::RoleWish| RoleAsked { role: wish.role.clone(), branch: wish.branch.clone(), url: wish.url.clone(), pinned: None };
    let roles = wishes.iter().map(|(slot, wish)| (slot.clone(), asked(wish))).collect();
    session.programs_and_roles(goal.programs(), roles, &notice).await?;
    // An image holds every agent of its role, whichever were named.
    if goal.images {
        session.programs_of_roles(&notice).await?;
    }
    // Also where the failure could not be remembered.
    for (agent, why) in without {
        session.do_without(*agent, why);
    }
    if args.plan {
        said.extend(prewarm::leave_out_unknown(&mut session.facts, &mut wishes, &mut spares));
    }
    let mut built = prewarm::build(&session.config, &session.facts, goal, &wishes, &spares);
    built.graph.diagnostics.extend(said);
    if without.is_empty() && !built.graph.resources.keys().any(|address| address.kind.on_engine()) {
        say_whose_machine(run, &session);
    }
    let options = options(goal, &spares);
    let left_out = built.graph.diagnostics.iter().filter(|said| said.code == prewarm::LEFT_OUT).count();
    let code = run.carry_out(&mut session, built, &options, &args.carrying, Asks::WhenInDoubt, None).await?;
    if code == DONE {
        say_latencies(run, args.carrying.format);
    }
    if code != DONE || left_out == 0 || args.carrying.dry_run {
        return Ok(code);
    }
    run.ui.diagnostics(&[Diagnostic::error(
        "prewarm.incomplete",
        "Not everything was prewarmed",
        format!("{left_out} of the roles were left out."),
    )
    .help("What is wrong with them stands before the plan.")]);
    Ok(ERROR)
}

/// The spares that are wanted; those that exist already come first.
async fn spares(session: &Session, goal: &SpareGoal) -> Result<Vec<Wanted>, Failure> {
    // A name that is wrong is wrong whatever there is.
    spare::spares(&session.config, &session.facts, goal, |_| false)?;
    let there = super::live::containers(session).await?;
    Ok(spare::spares(&session.config, &session.facts, goal, |container| there.contains_key(container))?)
}

pub fn options(goal: &Goal, spares: &[Wanted]) -> PlanOptions {
    let keys = spares.iter().map(|spare| spare.key.clone()).collect();
    let mut options = PlanOptions::new(Mode::PrewarmOnly, "prewarm", Scope::Instances(keys));
    options.sidecar = goal.sidecar.as_ref().map(|kept| kept.then);
    options
}

/// Programs are fetched without an engine too; then they may be for another machine than the one that will want them.
fn say_whose_machine(run: &Run, session: &Session) {
    let Some(silent) = &session.silent else { return };
    if !endpoint_by_env().is_ok_and(|endpoint| endpoint.is_nowhere()) {
        run.ui.talk(&format!("No engine tells its architecture, so programs are for linux/{}: {}", session.facts.arch, silent.detail));
    }
}

/// How long each sidecar took from its start until its Docker answered.
fn say_latencies(run: &Run, format: Format) {
    for (id, ready) in &run.timed {
        let Some(address) = id.strip_suffix("#ready").filter(|address| address.starts_with(Kind::Sidecar.as_str())) else {
            continue;
        };
        let started = run.timed.get(&format!("{address}#start")).copied().unwrap_or_default();
        let text = format!("{address} was ready after {} ms.", started + ready);
        match format {
            Format::Human => run.ui.result(&text),
            Format::Json => run.ui.talk(&text),
        }
    }
}

/// What the options say together; combinations that the synopsis does not have are refused, with the way out.
pub fn goal(args: &PrewarmArgs) -> Result<Goal, Diagnostic> {
    let refused =
        |detail: String, help: &str| Err(Diagnostic::error("prewarm.combination", "These options do not go together", detail).help(help));
    if args.keep_sidecar_container && args.daemon {
        return refused("--daemon keeps its sidecar anyway.".to_owned(), "Leave --keep-sidecar-container out.");
    }
    if args.keep_sidecar_container && !args.sidecar_container {
        return refused(
            "--keep-sidecar-container says what becomes of the sidecar of --sidecar-container.".to_owned(),
            "Add --sidecar-container, or use --daemon.",
        );
    }
    if args.daemon && args.sidecar_container {
        return refused(
            "--daemon is --sidecar-container with --keep-sidecar-container.".to_owned(),
            "Use one of them: --daemon keeps the sidecar, --sidecar-container alone removes it.",
        );
    }
    let keeps = args.daemon || args.keep_sidecar_container;
    if args.count.is_some() && !keeps && args.instance.is_none() {
        return refused("--count says how many sidecars or spares are kept.".to_owned(), "Add --daemon or --instance.");
    }
    if args.count.is_some() && keeps && args.instance.is_some() {
        return refused("--count may mean sidecars or spares.".to_owned(), "Run the command once for each.");
    }
    let chosen: Vec<&str> = [
        (args.role.is_some(), "--role"),
        (args.workspace.is_some(), "--workspace"),
        (args.all_workspaces, "--all-workspaces"),
        (args.all_roles, "--all-roles"),
    ]
    .into_iter()
    .filter_map(|(given, flag)| given.then_some(flag))
    .collect();
    if chosen.len() > 1 {
        return refused(format!("{} each choose the roles.", chosen.join(", ")), "Keep one of them; run the command once for each.");
    }
    if args.all_roles && !args.image {
        return refused(
            "--all-roles chooses whose images --image builds.".to_owned(),
            "Add --image. `--roles` alone takes every configured role.",
        );
    }
    if let [flag] = chosen[..]
        && !args.image
        && !args.roles
    {
        return refused(
            format!("{flag} chooses roles, and nothing is to be done with them."),
            "Add --roles to clone them, --image to build their images.",
        );
    }
    if args.image && chosen.is_empty() {
        return refused(
            "--image does not know whose images to build.".to_owned(),
            "Add --role ROLE, --workspace NAME, --all-workspaces or --all-roles.",
        );
    }
    if args.role_git.is_some() && args.role.is_none() {
        return refused("--role-git is the source of the role that --role names.".to_owned(), "Add --role ROLE.");
    }
    if args.role_branch.is_some() && !args.image {
        return refused("--role-branch chooses the branch of which --image builds an image.".to_owned(), "Add --image.");
    }
    let choice = match (&args.role, &args.workspace) {
        (Some(role), _) => Choice::Role { role: role.to_ascii_lowercase(), git: args.role_git.clone() },
        (_, Some(workspace)) => Choice::Workspace(workspace.clone()),
        _ if args.all_workspaces => Choice::AllWorkspaces,
        _ => Choice::Configured,
    };
    let then = if keeps { SidecarGoal::Keep } else { SidecarGoal::Try };
    let flag = if args.daemon { "--daemon" } else { "--sidecar-container" };
    Ok(Goal {
        spare: args.instance.as_deref().map(|instance| SpareGoal::parse(instance, args.count.unwrap_or(1))),
        agents: args.agent.iter().copied().collect(),
        sidecar_image: args.sidecar,
        sidecar: (args.daemon || args.sidecar_container).then_some(KeptGoal { then, count: args.count.unwrap_or(1), flag }),
        roles: args.roles,
        images: args.image,
        choice,
        branch: args.role_branch.clone(),
    })
}
