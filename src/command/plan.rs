//! `jackin plan`: gather -> Config -> Graph -> observe -> plan -> render. Sends nothing but reads.

use super::live::{self, ArchBy};
use super::run::Run;
use super::select;
use super::ui::{CHANGES, DONE, ERROR, Failure};
use crate::cli::{Looking, PlanArgs, PlanFormat};
use crate::diagnostic::Diagnostic;
use crate::event::{Entry, Line};
use crate::gather::env::variable;
use crate::gather::session::{Freshness, Session};
use crate::gather::{Paths, atomic};
use crate::graph::build::Built;
use crate::graph::want::declared;
use crate::journal;
use crate::observed::{OBSERVED_FORMAT, Observed};
use crate::plan::{Mode, Plan, PlanOptions, Scope, plan};
use crate::provider::Provider;
use crate::provider::live::observe_host;
use crate::render::plan::{plan_markdown, plan_text};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub async fn run(run: &mut Run, args: PlanArgs) -> Result<i32, Failure> {
    if let Some(id) = &args.replay {
        let plan = replay(run, id)?;
        return print(run, &args, &plan);
    }
    let snapshot = snapshot(&args.looking)?;
    let arch = arch_by(&args.looking, snapshot.as_ref());
    let mut session = run.open(&args.answers.env, freshness(&args.looking), !args.yes, arch).await?;
    let (names, scope) = select::workspaces(&session.config, &session.facts, &args.selection.workspaces, args.selection.all)?;
    let (wanted, diagnostics) = declared(&session.config, &session.facts, &names);
    let mut built = match args.prune {
        true => run.graph_to_prune(&mut session, &wanted, &scope).await?,
        false => run.graph(&mut session, &wanted).await?,
    };
    built.graph.diagnostics.extend(diagnostics);

    let mut options = PlanOptions::new(Mode::Launch, "apply", scope.clone());
    options.targets = args.narrowing.target.clone();
    options.replace = args.narrowing.replace.clone();
    options.rebuild = args.narrowing.rebuild;
    options.prune = args.prune;
    options.history = session.history();
    let observed = look(&mut session, &built, &scope, &args.looking, snapshot).await?;
    let plan = plan(&built.graph, &observed, &options);
    run.write_observed(&observed);
    run.write_plan(&built, &options, &plan);
    if let Some(file) = &args.out {
        write_out(file, &plan.to_json())?;
        run.ui.talk(&format!("Saved to {}. Apply it with `jackin apply {}`.", file.display(), file.display()));
    }
    print(run, &args, &plan)
}

fn print(run: &Run, args: &PlanArgs, plan: &Plan) -> Result<i32, Failure> {
    run.ui.result(&match args.format {
        PlanFormat::Human => plan_text(plan, &run.ui.out, args.verbose),
        PlanFormat::Json => plan.to_json(),
        PlanFormat::Markdown => plan_markdown(plan),
    });
    Ok(if plan.is_blocked() {
        ERROR
    } else if args.detailed_exitcode && !plan.is_empty() {
        CHANGES
    } else {
        DONE
    })
}

pub fn freshness(looking: &Looking) -> Freshness {
    if looking.offline || looking.observed.is_some() {
        Freshness::Offline
    } else if looking.refresh {
        Freshness::Ttl
    } else {
        Freshness::Cached
    }
}

/// What is looked at in the place of the engine: the snapshot that was named, or the last one.
pub fn snapshot(looking: &Looking) -> Result<Option<Observed>, Failure> {
    if let Some(file) = &looking.observed {
        return read_observed(file).map(Some);
    }
    if looking.offline || looking.refresh {
        return Ok(None);
    }
    let last = read_observed(&last_observed(&Paths::from_env(variable)?)).map_err(|_| {
        Failure::from(
            Diagnostic::error(
                "observed.none",
                "There is no earlier snapshot",
                "--refresh=false plans against the last one that was taken.",
            )
            .help("Run `jackin plan` once with the engine at hand."),
        )
    })?;
    Ok(Some(last))
}

/// A plan against a snapshot is for the engine that the snapshot is of.
pub fn arch_by(looking: &Looking, snapshot: Option<&Observed>) -> ArchBy {
    match snapshot {
        Some(snapshot) => ArchBy::Snapshot(snapshot.engine.as_ref().and_then(|engine| engine.arch)),
        None if looking.offline => ArchBy::Memory,
        None => ArchBy::Engine,
    }
}

fn last_observed(paths: &Paths) -> PathBuf {
    paths.cache().join("last-observed.json")
}

/// The snapshot, the engine, or nothing but this host.
pub async fn look(
    session: &mut Session,
    built: &Built,
    scope: &Scope,
    looking: &Looking,
    snapshot: Option<Observed>,
) -> Result<Observed, Failure> {
    if let Some(snapshot) = snapshot {
        return Ok(snapshot);
    }
    if looking.offline {
        let digest = session.digest.clone();
        let digest = Arc::new(move |bytes: &[u8]| digest.of(bytes));
        return Ok(observe_host(Arc::new(session.facts.clone()), digest, &built.graph, scope).await?);
    }
    let provider = live::connect_for_programs(session, Default::default()).await?;
    let observed = provider.observe(&built.graph, scope).await?;
    // For `--refresh=false`; a cache that cannot be written costs only that.
    if let Ok(text) = serde_json::to_vec(&observed)
        && crate::gather::paths::ensure_dir(&session.paths.cache(), 0o700).is_ok()
    {
        let _ = atomic::write(&last_observed(&session.paths), &text, 0o600);
    }
    Ok(observed)
}

fn read_observed(file: &Path) -> Result<Observed, Failure> {
    let bad = |detail: String| {
        Diagnostic::error("observed.unreadable", "This is not a snapshot that jackin can read", detail)
            .help("Make one with `jackin observe --out FILE`.")
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(format!("{}: {error}", file.display())))?;
    let observed: Observed = serde_json::from_str(&text).map_err(|error| bad(format!("{}: {error}", file.display())))?;
    if observed.format_version != OBSERVED_FORMAT {
        return Err(bad(format!("{} has format {}, this jackin reads {OBSERVED_FORMAT}.", file.display(), observed.format_version)).into());
    }
    Ok(observed)
}

/// Plans again from what an earlier run embedded.
fn replay(run: &Run, id: &str) -> Result<Plan, Failure> {
    let paths = Paths::from_env(variable)?;
    let (id, lines) = if Path::new(id).extension().is_some_and(|e| e == "jsonl") {
        (id.to_owned(), journal::read_file(Path::new(id))?)
    } else {
        let embeds = |lines: &[Line]| lines.iter().any(|l| matches!(&l.entry, Entry::Planned { graph: Some(_), .. }));
        let newest = || journal::newest(&paths.runs(), &run.journal.run_id, embeds);
        let id = if id == "last" { newest().unwrap_or_else(|| id.to_owned()) } else { id.to_owned() };
        journal::read(&paths.runs(), &id)?
    };
    let mut graph = None;
    let mut options = None;
    let mut observed = None;
    for line in lines {
        match line.entry {
            Entry::Observed { observed: Some(found), .. } => observed = Some(found),
            Entry::Planned { graph: Some(g), options: Some(o), .. } => (graph, options) = (Some(g), Some(o)),
            _ => {}
        }
    }
    match (graph, options, observed) {
        (Some(graph), Some(options), Some(observed)) => Ok(plan(&graph, &observed, &options)),
        _ => Err(Diagnostic::error("run.not_embedded", "This run cannot be replayed", format!("{id} did not record its inputs."))
            .help("Run the command once more with --debug.")
            .into()),
    }
}

/// Whole or not at all; a symlink or device is written through.
pub fn write_out(file: &Path, text: &str) -> Result<(), Failure> {
    let plain = std::fs::symlink_metadata(file).map_or(true, |m| m.is_file());
    if plain {
        atomic::write(file, text.as_bytes(), 0o644)?;
    } else {
        std::fs::write(file, text)
            .map_err(|error| Diagnostic::error("file.write", "A file cannot be written", format!("{}: {error}", file.display())))?;
    }
    Ok(())
}
