//! `jackin runs`: the diaries of earlier runs.

use super::run::Run;
use super::ui::{DONE, Failure};
use crate::cli::{Format, RunsCommand};
use crate::event::{Entry, Event, Line};
use crate::gather::Paths;
use crate::journal;
use crate::render::diagnostic::diagnostics_text;
use crate::render::json::envelope;
use crate::render::table::table;
use serde::Serialize;

#[derive(Serialize)]
struct Summary {
    run_id: String,
    time: String,
    command: String,
    /// Absent while it runs, or when it was killed.
    exit_code: Option<i32>,
    milliseconds: Option<u64>,
}

pub fn run(run: &mut Run, command: RunsCommand) -> Result<i32, Failure> {
    let directory = Paths::from_env(crate::gather::env::variable)?.runs();
    match command {
        RunsCommand::List { format } => {
            let own = run.journal.run_id.clone();
            let rows: Vec<Summary> = journal::runs(&directory)
                .into_iter()
                .filter(|id| *id != own)
                .filter_map(|id| summary(&journal::read(&directory, &id).ok()?.1))
                .collect();
            match format {
                Format::Json => run.ui.result(&envelope(&rows)),
                Format::Human => {
                    let cells: Vec<Vec<String>> = rows
                        .iter()
                        .map(|row| {
                            vec![
                                row.run_id.clone(),
                                row.command.clone(),
                                row.exit_code.map_or_else(|| "unfinished".to_owned(), |c| c.to_string()),
                                row.milliseconds.map_or_else(String::new, |ms| format!("{:.2} s", ms as f64 / 1000.0)),
                            ]
                        })
                        .collect();
                    run.ui.result(&table(&cells, &["RUN", "COMMAND", "EXIT", "TOOK"], &run.ui.out));
                }
            }
        }
        RunsCommand::Show { run: wanted, format } => {
            let own = run.journal.run_id.clone();
            let wanted = if wanted == "last" { journal::newest(&directory, &own, |_| true).unwrap_or(wanted) } else { wanted };
            let (_, lines) = journal::read(&directory, &wanted)?;
            match format {
                Format::Json => run.ui.result(&envelope(&lines)),
                Format::Human => run.ui.result(&story(run, &lines)),
            }
        }
    }
    Ok(DONE)
}

fn summary(lines: &[Line]) -> Option<Summary> {
    let first = lines.first()?;
    let Entry::RunStarted { run_id, command, .. } = &first.entry else {
        return None;
    };
    let end = lines.iter().rev().find_map(|line| match &line.entry {
        Entry::RunFinished { exit_code, actual_milliseconds, .. } => Some((*exit_code, *actual_milliseconds)),
        _ => None,
    });
    Some(Summary {
        run_id: run_id.clone(),
        time: first.time.clone(),
        command: command.clone(),
        exit_code: end.map(|(code, _)| code),
        milliseconds: end.map(|(_, ms)| ms),
    })
}

fn story(run: &Run, lines: &[Line]) -> String {
    let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1000.0);
    let mut out = String::new();
    let mut say = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for line in lines {
        match &line.entry {
            Entry::RunStarted { run_id, command, version, .. } => {
                say(format!("run {run_id}: jackin {version} {command}, started {}", line.time));
            }
            Entry::Observed { digest, resources, .. } => {
                say(format!("observed {resources} resources (digest {})", &digest[..digest.len().min(12)]));
            }
            Entry::Planned { digest, counts, blockers, estimate_milliseconds, .. } => {
                let counts: Vec<String> = counts.iter().map(|(action, count)| format!("{count} {action}")).collect();
                let estimate = estimate_milliseconds.map_or_else(String::new, |ms| format!(", predicted {}", seconds(ms)));
                say(format!("planned {} (digest {}){estimate}", counts.join(", "), &digest[..digest.len().min(12)]));
                if !blockers.is_empty() {
                    say(diagnostics_text(blockers, &run.ui.out));
                }
            }
            Entry::Event { event } => match event {
                Event::StepFinished { id, milliseconds } => say(format!("  done     {id}  {}", seconds(*milliseconds))),
                Event::StepFailed { id, milliseconds, error } => say(format!("  failed   {id}  {}: {error}", seconds(*milliseconds))),
                Event::StepSkipped { id, because } => say(format!("  skipped  {id} because of {because}")),
                Event::StepCancelled { id } => say(format!("  cancelled {id}")),
                Event::StepRetried { id, attempt, error } => say(format!("  retried  {id} (attempt {attempt}): {error}")),
                Event::AgentBinaryCacheRepaired { address, path } | Event::CapsuleBinaryCacheRepaired { address, path } => {
                    say(format!("  repaired {address} at {path}"));
                }
                Event::Waiting { .. }
                | Event::ApplyStarted { .. }
                | Event::StepStarted { .. }
                | Event::StepOutput { .. }
                | Event::Stopping
                | Event::ApplyFinished { .. } => {}
            },
            Entry::RunFinished { exit_code, predicted_milliseconds, actual_milliseconds, diagnostics } => {
                if !diagnostics.is_empty() {
                    say(diagnostics_text(diagnostics, &run.ui.out));
                }
                let predicted = predicted_milliseconds.map_or_else(String::new, |ms| format!(", predicted {}", seconds(ms)));
                say(format!("exit {exit_code} after {}{predicted}", seconds(*actual_milliseconds)));
            }
        }
    }
    out
}
