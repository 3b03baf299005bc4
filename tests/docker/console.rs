//! The console on a real engine: a spare taken, a person who comes and goes, an instance that goes, an engine that is away.

use super::proxy::{At, Proxy, Strike, What, When};
use super::sessions::Terminal;
use super::support::{COMPAT, Engine, Home, PATIENCE, STANDARD, files_below};
use rustix::process::Signal;

/// A console with workspace `w` selected; before that it stands on a folder that is none.
fn open(home: &Home, env: &[(&str, &str)]) -> Terminal {
    let mut console = Terminal::run_with(home, &["console"], 30, 110, env);
    console.wait_for("No saved workspace covers");
    console.type_in("j");
    console.wait_for("-> /workspace");
    console
}

/// Id and start of each container, which no pause changes.
fn identities(home: &Home) -> Vec<String> {
    let containers = home.objects().containers;
    containers.iter().map(|name| home.engine.docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name])).collect()
}

fn paused(home: &Home) -> usize {
    let state = |name: &String| home.engine.docker(&["inspect", "--format", "{{.State.Status}}", name]);
    home.objects().containers.iter().filter(|name| state(name) == "paused").count()
}

pub fn a_launch_from_the_console_takes_the_spare(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.good(&["prewarm", "--instance", "w", "--yes"]);
    let before = identities(&home);
    assert_eq!((before.len(), paused(&home)), (2, 2));
    let mut console = open(&home, &[]);
    console.wait_for("spare");
    console.type_in("\r");
    console.wait_for("agent is listening");
    assert_eq!((identities(&home), paused(&home)), (before, 0), "it was woken, and nothing was made");
    console.type_in("from the console\r");
    console.wait_for("you said: from the console");
    console.type_in("\x1cd");
    console.wait_for("Detached; w/");
    console.wait_for("1 live");
    console.wait_for("running");

    // Its sessions are on view, and one of them is chosen.
    console.type_in("j");
    console.wait_for("[1] ");
    console.type_in("\t\r");
    console.wait_for("you said: from the console");
    console.type_in("\x1cd");
    console.wait_for("1 live");
    // Of its only agent one more.
    console.type_in("a");
    console.wait_for("agent is listening");
    console.type_in("\x1cd");
    console.wait_for("[2] ");

    console.type_in("t");
    console.wait_for("destroys 2 live sessions");
    console.type_in("y");
    console.wait_for("saved");
    home.assert_nothing_left("after the console ejected it");
    console.type_in("q");
    assert_eq!(console.exit_code(), 0);
    console.assert_restored();
}

pub fn the_console_outlives_an_engine_that_goes_and_a_session_that_ends(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    let mut console = open(&home, &[]);
    console.type_in("\r");
    console.wait_for("agent is listening");
    console.type_in("exit\r");
    console.wait_for("ended. Its home stays");
    console.wait_for("saved");
    home.assert_nothing_left("after the session ended");
    console.type_in("v");
    console.wait_for("Plan for workspace w");
    console.type_in("q");
    console.wait_for("saved");
    console.type_in("q");
    assert_eq!(console.exit_code(), 0);

    // A console that cannot reach its engine shows what it knows and can still be used.
    let mut away = open(&home, &[("DOCKER_HOST", "unix:///tmp/nobody.sock")]);
    away.wait_for("no engine");
    away.wait_for("unknown");
    away.type_in("v");
    away.wait_for("docker.unreachable");
    // The command says it first, on the whole terminal.
    away.wait_for("Esc back");
    away.type_in("q");
    away.wait_for("no engine");
    away.type_in("q");
    assert_eq!(away.exit_code(), 0);
    away.assert_restored();
}

pub fn what_ends_the_console_ends_a_launch_in_order(engine: &Engine) {
    for signal in [Signal::HUP, Signal::QUIT] {
        let home = Home::new(engine, COMPAT);
        let strike = Strike { at: At::Write(2), when: When::Sent, what: What::Kill(signal) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let mut console = open(&home, &[("DOCKER_HOST", &proxy.host())]);
        proxy.victim(console.pid());
        console.type_in("\r");
        assert!(proxy.wait_for_strike(PATIENCE), "nothing was made");
        assert_eq!(console.exit_code(), 130);
        console.assert_restored();
        let diaries = files_below(&home.path("state/data/diagnostics/runs"));
        let stopped = |file: &std::path::PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains("stopping"));
        assert!(diaries.iter().any(stopped), "what was in flight was not finished: {diaries:?}");
        home.good(&["exile", "--yes"]);
        home.assert_nothing_left("after a launch was ended");
    }
}
