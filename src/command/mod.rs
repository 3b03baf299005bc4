//! One verb, one file. This file parses the command line and hands it over.

mod apply;
mod console;
mod doctor;
mod eject;
mod explain;
mod graph;
mod hardline;
mod kept;
mod live;
mod load;
mod meta;
mod observe;
mod plan;
pub mod prewarm;
mod run;
mod runs;
mod select;
mod status;
mod ui;
mod workspace;

use crate::cli::{Cli, Command};
use clap::Parser;
use run::Run;
use ui::{Failure, Ui};

/// Runs one command; the result is the exit code.
pub fn main() -> i32 {
    let cli = Cli::parse();
    let ui = Ui::new(cli.no_color);
    trace();
    let command = match cli.command {
        Some(command) => command,
        None if console::fits() => Command::Console,
        None => {
            ui.result(&meta::help());
            return ui::DONE;
        }
    };
    // These need nothing of this machine and leave no diary.
    match command {
        Command::Schema(args) => return meta::said(&ui, meta::schema(&ui, &args)),
        Command::Completions { shell } => return meta::said(&ui, meta::completions(shell)),
        Command::Man { command } => return meta::said(&ui, meta::man(&command)),
        _ => {}
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.talk(&format!("jackin: the runtime cannot start: {error}"));
            return ui::ERROR;
        }
    };
    let code = match command {
        Command::Console => runtime.block_on(console::run(ui, cli.no_color, cli.debug)),
        command => runtime.block_on(dispatch(ui, cli.debug, command)),
    };
    // A question that nobody answered may still sit in a blocking thread.
    runtime.shutdown_background();
    code
}

/// For jackin's own developers: `JACKIN_LOG=debug` traces to standard error.
fn trace() {
    let level = std::env::var("JACKIN_LOG").ok().and_then(|level| level.parse::<tracing::Level>().ok());
    if let Some(level) = level {
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
    }
}

async fn dispatch(ui: Ui, debug: bool, command: Command) -> i32 {
    let mut run = Run::start(ui, debug, verb(&command));
    let result = carry(&mut run, command).await;
    run.finish(result)
}

/// Carries out one command.
async fn carry(run: &mut Run, command: Command) -> Result<i32, Failure> {
    match command {
        Command::Plan(args) => plan::run(run, args).await,
        Command::Apply(args) => apply::run(run, args).await,
        Command::Load(args) => load::run(run, args).await,
        Command::Prewarm(args) => prewarm::run(run, args).await,
        Command::Hardline(args) => hardline::run(run, args).await,
        Command::Eject(args) => eject::run(run, args).await,
        Command::Exile(args) => eject::exile(run, args).await,
        Command::Status(args) => status::run(run, args).await,
        Command::Explain(args) => explain::run(run, args).await,
        Command::Graph(args) => graph::run(run, args).await,
        Command::Observe(args) => observe::run(run, args).await,
        Command::Doctor(args) => doctor::run(run, args).await,
        Command::Runs(args) => runs::run(run, args),
        Command::Workspace(args) => workspace::run(run, args).await,
        Command::Console | Command::Schema(_) | Command::Completions { .. } | Command::Man { .. } => {
            unreachable!("BUG: handled before")
        }
    }
}

fn verb(command: &Command) -> &'static str {
    match command {
        Command::Plan(_) => "plan",
        Command::Apply(_) => "apply",
        Command::Load(_) => "load",
        Command::Prewarm(_) => "prewarm",
        Command::Hardline(_) => "hardline",
        Command::Eject(_) => "eject",
        Command::Exile(_) => "exile",
        Command::Status(_) => "status",
        Command::Explain(_) => "explain",
        Command::Graph(_) => "graph",
        Command::Observe(_) => "observe",
        Command::Schema(_) => "schema",
        Command::Doctor(_) => "doctor",
        Command::Runs(_) => "runs",
        Command::Workspace(_) => "workspace",
        Command::Console => "console",
        Command::Completions { .. } => "completions",
        Command::Man { .. } => "man",
    }
}
