//! `jackin observe`: a snapshot of what exists, for planning on another machine. Holds keyed digests where values may be secret.

use super::live::ArchBy;
use super::plan::{look, write_out};
use super::run::Run;
use super::select;
use super::ui::{DONE, Failure};
use crate::cli::{Looking, ObserveArgs};
use crate::gather::session::Freshness;
use crate::graph::want::declared;

pub async fn run(run: &mut Run, args: ObserveArgs) -> Result<i32, Failure> {
    let mut session = run.open(&args.answers.env, Freshness::Ttl, false, ArchBy::Engine).await?;
    let (names, scope) = select::workspaces(&session.config, &session.facts, &args.selection.workspaces, args.selection.all)?;
    let (wanted, diagnostics) = declared(&session.config, &session.facts, &names);
    run.ui.diagnostics(&diagnostics);
    if diagnostics.iter().any(crate::diagnostic::Diagnostic::is_error) {
        return Err(Failure::Said(super::ui::ERROR));
    }
    let built = run.graph(&mut session, &wanted).await?;
    let observed = look(&mut session, &built, &scope, &Looking { refresh: true, ..Looking::default() }, None).await?;
    run.write_observed(&observed);
    let mut text = serde_json::to_string_pretty(&observed).expect("BUG: an observation always serialises");
    text.push('\n');
    match &args.out {
        Some(file) => write_out(file, &text)?,
        None => run.ui.result(&text),
    }
    Ok(DONE)
}
