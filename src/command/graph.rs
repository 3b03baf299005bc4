//! `jackin graph`: the resources that the workspaces ask for, and what hangs on what. Asks no engine.

use super::live::ArchBy;
use super::run::Run;
use super::select;
use super::ui::{DONE, ERROR, Failure};
use crate::cli::{GraphArgs, GraphFormat};
use crate::diagnostic::Diagnostic;
use crate::gather::session::Freshness;
use crate::graph::want::declared;
use crate::render::graph::{dot, json, mermaid};

pub async fn run(run: &mut Run, args: GraphArgs) -> Result<i32, Failure> {
    let mut session = run.open(&args.answers.env, Freshness::Ttl, false, ArchBy::Memory).await?;
    let (names, _) = select::workspaces(&session.config, &session.facts, &args.selection.workspaces, args.selection.all)?;
    let (wanted, diagnostics) = declared(&session.config, &session.facts, &names);
    let mut built = run.graph(&mut session, &wanted).await?;
    built.graph.diagnostics.extend(diagnostics);
    run.ui.diagnostics(&built.graph.diagnostics);
    run.ui.result(&match args.format {
        GraphFormat::Dot => dot(&built.graph),
        GraphFormat::Mermaid => mermaid(&built.graph),
        GraphFormat::Json => json(&built.graph),
    });
    Ok(if built.graph.diagnostics.iter().any(Diagnostic::is_error) { ERROR } else { DONE })
}
