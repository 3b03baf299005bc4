//! `jackin explain ADDRESS`: from the line of configuration through the field and the node to everything that depends on it.

use super::plan::{arch_by, freshness, look, snapshot};
use super::run::Run;
use super::ui::{DONE, Failure};
use crate::cli::{ExplainArgs, Format};
use crate::diagnostic::Diagnostic;
use crate::graph::want::declared;
use crate::plan::{Mode, PlanOptions, Scope, plan};
use crate::render::explain::{explain_json, explain_text};
use crate::render::json::envelope;

pub async fn run(run: &mut Run, args: ExplainArgs) -> Result<i32, Failure> {
    let snapshot = snapshot(&args.looking)?;
    let arch = arch_by(&args.looking, snapshot.as_ref());
    let mut session = run.open(&args.answers.env, freshness(&args.looking), false, arch).await?;
    let (wanted, diagnostics) = declared(&session.config, &session.facts, &[]);
    let mut built = run.graph(&mut session, &wanted).await?;
    built.graph.diagnostics.extend(diagnostics);
    if !built.graph.resources.contains_key(&args.address) {
        run.ui.diagnostics(&built.graph.diagnostics);
        return Err(Diagnostic::error("plan.unknown_address", "No such resource in this plan", args.address.to_string())
            .help("`jackin graph --format json` lists every address.")
            .into());
    }
    let observed = look(&mut session, &built, &Scope::All, &args.looking, snapshot).await?;
    let plan = plan(&built.graph, &observed, &PlanOptions::new(Mode::Launch, "apply", Scope::All));
    run.ui.result(&match args.format {
        Format::Human => explain_text(&built.graph, &plan, &observed, &args.address, &run.ui.out),
        Format::Json => envelope(&explain_json(&built.graph, &plan, &observed, &args.address)),
    });
    Ok(DONE)
}
