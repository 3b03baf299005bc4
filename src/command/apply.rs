//! `jackin apply`: the declared instances of these workspaces exist and are healthy; or a saved plan is carried out.

use super::live::ArchBy;
use super::run::{Asks, Run};
use super::select;
use super::ui::{DONE, Failure};
use crate::cli::ApplyArgs;
use crate::diagnostic::Diagnostic;
use crate::gather::session::Freshness;
use crate::graph::want::declared;
use crate::plan::{Mode, Plan, PlanOptions, Scope};
use std::path::Path;

pub async fn run(run: &mut Run, args: ApplyArgs) -> Result<i32, Failure> {
    let may_ask = !args.carrying.yes;
    let mut session = run.open(&args.answers.env, Freshness::Ttl, may_ask, ArchBy::Engine).await?;
    let saved = match &args.what[..] {
        [one] if !session.config.workspaces.contains_key(one) && Path::new(one).is_file() => Some(read_plan(one)?),
        _ => None,
    };
    let (names, options) = match &saved {
        Some(plan) => {
            let names = match &plan.goal.scope {
                Scope::Workspaces(names) => names.clone(),
                Scope::All => Vec::new(),
                Scope::Instances(_) => return Err(not_a_launch().into()),
            };
            if plan.goal.mode != Mode::Launch {
                return Err(not_a_launch().into());
            }
            (names, plan.goal.clone())
        }
        None => {
            let (names, scope) = select::workspaces(&session.config, &session.facts, &args.what, args.all)?;
            let mut options = PlanOptions::new(Mode::Launch, "apply", scope);
            options.targets = args.narrowing.target.clone();
            options.replace = args.narrowing.replace.clone();
            options.rebuild = args.narrowing.rebuild;
            options.prune = args.prune;
            (names, options)
        }
    };
    let (wanted, diagnostics) = declared(&session.config, &session.facts, &names);
    let instances: Vec<String> = wanted.iter().map(|wanted| wanted.key.clone()).collect();
    let mut built = match options.prune {
        true => run.graph_to_prune(&mut session, &wanted, &options.scope).await?,
        false => run.graph(&mut session, &wanted).await?,
    };
    built.graph.diagnostics.extend(diagnostics);
    let code = run.carry_out(&mut session, built, &options, &args.carrying, Asks::Always, saved.as_ref()).await?;
    if code == DONE && !args.carrying.dry_run && !instances.is_empty() {
        let more = if instances.len() > 1 { format!(" ({} more run as well)", instances.len() - 1) } else { String::new() };
        run.ui.talk(&format!("Attach with `jackin hardline {}`{more}.", instances[0]));
    }
    Ok(code)
}

fn read_plan(file: &str) -> Result<Plan, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Diagnostic::error("plan.unreadable", "This is not a plan that jackin can read", format!("{file}: {error}")))?;
    Ok(Plan::from_json(file, &text)?)
}

fn not_a_launch() -> Diagnostic {
    Diagnostic::error("plan.mode", "This plan was not made for apply", "It was made by another command.")
        .help("Make one with `jackin plan --out FILE`.")
}
