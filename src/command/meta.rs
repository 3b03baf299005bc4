//! Commands about jackin itself: help, schemas, completions, manual pages.

use super::ui::{DONE, Failure, Ui};
use crate::cli::{Cli, SchemaArgs};
use crate::diagnostic::Diagnostic;
use crate::render::schema;
use clap::CommandFactory;

pub fn help() -> String {
    Cli::command().render_long_help().to_string()
}

/// Prints a result or what went wrong.
pub fn said(ui: &Ui, result: Result<String, Failure>) -> i32 {
    match result {
        Ok(text) => {
            ui.result(&text);
            DONE
        }
        Err(Failure::Said(code)) => code,
        Err(Failure::Diagnostics(diagnostics)) => {
            ui.diagnostics(&diagnostics);
            super::ui::ERROR
        }
    }
}

pub fn schema(_: &Ui, args: &SchemaArgs) -> Result<String, Failure> {
    let Some(name) = &args.name else {
        return Ok(schema::names().collect::<Vec<_>>().join("\n"));
    };
    schema::text(name).ok_or_else(|| {
        Diagnostic::error("schema.unknown", "No such schema", format!("`{name}`"))
            .help(format!("There are {}.", schema::names().collect::<Vec<_>>().join(", ")))
            .into()
    })
}

pub fn completions(shell: clap_complete::Shell) -> Result<String, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "jackin", &mut out);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

pub fn man(path: &[String]) -> Result<String, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut found = &command;
    for name in path {
        found = found.find_subcommand(name).ok_or_else(|| {
            Failure::from(
                Diagnostic::error("man.unknown", "No such command", format!("`{}`", path.join(" "))).help("`jackin --help` lists them."),
            )
        })?;
    }
    let mut out = Vec::new();
    clap_mangen::Man::new(found.clone())
        .render(&mut out)
        .map_err(|error| Diagnostic::error("man.failed", "The manual page cannot be made", error.to_string()))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
