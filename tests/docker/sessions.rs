//! Inside a capsule: its own Docker, its terminal, what it knows.

use super::support::{COMPAT, Engine, Home, PATIENCE, STANDARD, construct_image, files_below, wait_until};
use portable_pty::{CommandBuilder, MasterPty, NativePtySystem, PtySize, PtySystem};
use std::fs;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub fn the_private_docker_runs_containers_over_tls(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    let capsule = home.capsule();
    let inside = |script: &str| engine.try_docker(&["exec", &capsule, "sh", "-c", script]);

    let info = inside("docker info --format '{{.Name}}'");
    assert_eq!((info.code, info.out.trim()), (Some(0), format!("{capsule}-dind").as_str()), "{info}");
    let host = inside("echo $DOCKER_HOST $DOCKER_TLS_VERIFY");
    assert_eq!(host.out.trim(), format!("tcp://{capsule}-dind:2376 1"));
    // An image from one static program needs no registry.
    let nested = inside(
        "tar -C /jackin/runtime -c jackin-capsule | docker import - nested >/dev/null && docker run --rm nested /jackin-capsule --version",
    );
    assert_eq!(nested.code, Some(0), "{nested}");
    assert!(nested.out.contains("jackin-capsule"), "{nested}");
    // Nobody without a certificate of this instance gets an answer.
    let bare = inside("env -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH DOCKER_CERT_PATH=/nowhere docker --tls=false info");
    assert_ne!(bare.code, Some(0), "{bare}");
    // What runs in there is not on the engine.
    assert!(!engine.docker(&["images", "--format", "{{.Repository}}"]).lines().any(|name| name == "nested"));
}

pub fn an_agent_finds_its_docker_at_work(engine: &Engine) {
    let home = Home::with_own_role(engine, COMPAT);
    let ask = "docker version --format '{{.Server.Os}}' >>~/.claude/docker 2>&1 </dev/null || echo none >>~/.claude/docker";
    home.write_agent(&format!("#!/bin/sh\n[ \"${{1:-}}\" != --version ] || {{ echo '0.0.1 (test agent)'; exit; }}\n{ask}\nexec cat\n"));
    home.write("role/hooks/preflight.sh", &format!("#!/bin/sh\n{ask}\n"));
    home.write(
        "role/jackin.role.toml",
        "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\nagents = [\"claude\"]\n\n[identity]\nname = \"Test\"\n\n[claude]\n\n[hooks]\npreflight = \"hooks/preflight.sh\"\n",
    );
    home.commit("role", "Hook");
    let told = || files_below(&home.path("state/data")).into_iter().filter(|path| path.ends_with(".claude/docker")).map(fs::read_to_string);
    let lines = || told().flatten().flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>();
    // A new daemon; then one that has data and certificates of an earlier run; then only the capsule is new.
    for (round, again) in [&[][..], &["-dind", ""], &[""]].into_iter().enumerate() {
        for part in again {
            engine.docker(&["kill", &format!("{}{part}", home.capsule())]);
        }
        home.apply();
        home.assert_one_of_each(true, &format!("round {round}"));
        wait_until("the hook and the agent to ask", || lines().len() == 2 * (round + 1));
    }
    assert!(lines().iter().all(|line| line == "linux"), "{:?}", lines());
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a size")
}

fn modes(terminal: &dyn MasterPty) -> String {
    let modes = terminal.get_termios().expect("termios");
    format!("{:?} {:?} {:?}", modes.input_flags, modes.output_flags, modes.local_flags)
}

/// A person at a terminal.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    /// As it was before the program had it.
    before: String,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    pub fn run(home: &Home, args: &[&str], rows: u16, cols: u16) -> Terminal {
        Terminal::run_with(home, args, rows, cols, &[])
    }

    pub fn run_with(home: &Home, args: &[&str], rows: u16, cols: u16, env: &[(&str, &str)]) -> Terminal {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = NativePtySystem::default().openpty(size).expect("a pty");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_jackin"));
        command.args(args);
        command.env_clear();
        for (name, value) in home.env() {
            command.env(name, value);
        }
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        for (name, value) in env {
            command.env(name, value);
        }
        command.cwd(home.folder());
        let before = modes(&*pair.master);
        let child = pair.slave.spawn_command(command).expect("start jackin");
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(cols), 1000)));
        let mut output = pair.master.try_clone_reader().expect("a reader");
        let drawing = screen.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                drawing.lock().unwrap().process(&buffer[..count]);
            }
        });
        let keys = pair.master.take_writer().expect("a writer");
        Terminal { master: pair.master, keys, child, before, screen }
    }

    pub fn pid(&self) -> u32 {
        self.child.process_id().expect("a process")
    }

    pub fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("type");
        self.keys.flush().expect("type");
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub fn wait_for(&self, text: &str) {
        let begun = Instant::now();
        while !self.contents().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "waited {} s for {text:?} on the terminal:\n{}", PATIENCE.as_secs(), self.contents());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Rows from the top.
    fn row(&self, row: u16) -> String {
        let screen = self.screen.lock().unwrap();
        let (_, cols) = screen.screen().size();
        screen.screen().rows(0, cols.get()).nth(usize::from(row)).unwrap_or_default()
    }

    /// The tab strip and the bar; what is between them is the agent's.
    fn chrome(&self) -> (String, String) {
        let (rows, _) = self.screen.lock().unwrap().screen().size();
        (self.row(0), self.row(rows.get() - 1))
    }

    pub fn assert_restored(&self) {
        // The last bytes may still be on their way to our screen.
        wait_until("the terminal to be restored", || !self.screen.lock().unwrap().screen().alternate_screen());
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.hide_cursor() && !screen.bracketed_paste() && !screen.application_cursor() && !screen.application_keypad());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert_eq!(modes(&*self.master), self.before, "the terminal is as it was");
    }

    fn resize(&self, rows: u16, cols: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(cells(rows), cells(cols));
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).expect("resize");
    }

    pub fn exit_code(&mut self) -> u32 {
        let mut code = None;
        wait_until("jackin to end", || {
            code = self.child.try_wait().expect("wait").map(|status| status.exit_code());
            code.is_some()
        });
        code.unwrap()
    }

    /// The size that the agent sees: rows and columns.
    fn asked_size(&mut self) -> (u16, u16) {
        self.type_in("size\r");
        let mut size = None;
        wait_until("the agent to tell its size", || {
            let contents = self.contents();
            let told = contents.lines().rev().find_map(|line| line.trim().strip_prefix("size is ").map(str::to_owned));
            size = told.and_then(|told| {
                let (rows, cols) = told.split_once(' ')?;
                Some((rows.parse().ok()?, cols.parse().ok()?))
            });
            size.is_some()
        });
        size.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

pub fn a_person_loads_types_resizes_detaches_and_comes_back(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let mut first = Terminal::run(&home, &["load", home.role(), "w", "--yes"], 24, 80);
    first.wait_for("agent is listening");
    assert!(first.screen.lock().unwrap().screen().alternate_screen());
    assert_ne!(modes(&*first.master), first.before, "the terminal is raw while attached");
    first.type_in("hello out there\r");
    first.wait_for("you said: hello out there");
    let (rows, cols) = first.asked_size();
    // All but the tab strip and the bar.
    assert_eq!((rows, cols), (22, 80));
    let (strip, bar) = first.chrome();
    assert!(strip.contains("Claude") && bar.contains(home.role()), "{}", first.contents());
    first.resize(34, 101);
    let mut now = (0, 0);
    wait_until("the agent to see the new size", || {
        now = first.asked_size();
        now == (32, 101)
    });
    first.type_in("\x1cd");
    assert_eq!(first.exit_code(), 0);
    first.wait_for("Detached");
    first.assert_restored();
    home.assert_one_of_each(true, "after detaching");

    let mut second = Terminal::run(&home, &["hardline", "w"], 30, 90);
    second.wait_for("you said: hello out there");
    second.type_in("back again\r");
    second.wait_for("you said: back again");

    // A second terminal takes over; the first is told and ends well.
    let mut third = Terminal::run(&home, &["hardline", "w"], 24, 80);
    third.wait_for("you said: back again");
    assert_eq!(second.exit_code(), 0);
    second.wait_for("Another terminal");

    third.type_in("exit\r");
    assert_eq!(third.exit_code(), 0);
    third.wait_for("ended");
    home.assert_nothing_left("after the agent ended");
    let homes = fs::read_dir(home.path("state/data")).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with("jk-"));
    assert!(homes.filter(|e| e.path().is_dir()).count() == 1, "the home stays");
}

pub fn a_kept_sidecar_is_free_while_a_person_is_asked(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.workspace("u", COMPAT);
    let keep = || home.good(&["prewarm", "--agent", "claude", "--daemon", "--yes"]);
    keep();
    let mut asked = Terminal::run(&home, &["apply", "w"], 24, 80);
    asked.wait_for("Apply this plan?");
    let other = home.good(&["apply", "u", "--yes"]);
    assert!(other.err.contains("-dind fits"), "{other}");
    asked.type_in("y\r");
    asked.wait_for("plan.stale");
    assert_eq!(asked.exit_code(), 1, "what was shown cannot be done any more");

    keep();
    let mut asked = Terminal::run(&home, &["apply", "w"], 24, 80);
    asked.wait_for("Apply this plan?");
    asked.type_in("y\r");
    assert_eq!(asked.exit_code(), 0);
    home.assert_settled("after both");
    assert_eq!(home.objects().containers.len(), 4, "two capsules, each with a sidecar that was kept");
}

pub fn a_crashed_agent_keeps_everything_and_comes_back(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let mut terminal = Terminal::run(&home, &["hardline", "w"], 24, 80);
    terminal.wait_for("agent is listening");
    terminal.type_in("crash\r");
    assert_eq!(terminal.exit_code(), 1);
    terminal.wait_for("session.crashed");
    assert_eq!(home.objects().containers.len(), 1, "the container is kept");
    let mut again = Terminal::run(&home, &["hardline", "w"], 24, 80);
    again.wait_for("agent is listening");
    again.type_in("\x1cd");
    assert_eq!(again.exit_code(), 0);
    home.assert_one_of_each(false, "after coming back");
}

/// Applies, looks, attaches, types, detaches and ejects where the capsule's socket cannot be connected to from here.
fn lives_without_a_socket(home: &Home, sidecar: bool) {
    home.apply();
    home.assert_one_of_each(sidecar, "without a socket");
    home.assert_settled("without a socket");
    let screen = home.good(&["hardline", "w", "--inspect"]).out;
    assert!(screen.contains("Sessions: 1"), "{screen}");
    let mut terminal = Terminal::run(home, &["hardline", "w"], 24, 80);
    terminal.wait_for("agent is listening");
    terminal.type_in("hello from afar\r");
    terminal.wait_for("you said: hello from afar");
    terminal.resize(30, 99);
    let mut now = (0, 0);
    wait_until("the agent to see the new size", || {
        now = terminal.asked_size();
        now.1 == 99
    });
    terminal.type_in("\x1cd");
    assert_eq!(terminal.exit_code(), 0);
    // What is at work is left alone, by those who load and by those who make spares.
    let before = home.objects().networks;
    home.good(&["load", home.role(), "w", "--yes", "--no-attach"]);
    assert_eq!(home.objects().networks.len(), 2, "another one beside it");
    home.good(&["prewarm", "--instance", "w", "--yes"]);
    let after = home.objects().networks;
    assert!(after.len() == 3 && before.iter().all(|network| after.contains(network)), "a spare beside both: {after:?}");
    home.eject();
    home.assert_nothing_left("without a socket");
}

pub fn an_engine_that_may_be_far_away_is_reached_through_its_api(engine: &Engine) {
    let mut home = Home::new(engine, COMPAT);
    home.over_tcp();
    lives_without_a_socket(&home, true);
}

pub fn a_home_too_deep_for_a_socket_is_reached_through_the_engine(engine: &Engine) {
    let mut home = Home::new(engine, STANDARD);
    home.deep_down();
    lives_without_a_socket(&home, false);
}

/// In the capsule's container, as its user.
fn inside(home: &Home, script: &str) -> String {
    home.engine.docker(&["exec", &home.capsule(), "sh", "-c", script])
}

/// Process of the mux, inside.
fn mux(home: &Home) -> Option<String> {
    let script =
        "for p in /proc/[0-9]*; do [ \"$(tr '\\0' '\\n' <$p/cmdline 2>/dev/null | sed -n 2p)\" = serve ] && echo ${p#/proc/}; done; true";
    let found = inside(home, script);
    assert!(found.lines().count() <= 1, "one mux: {found}");
    (!found.is_empty()).then_some(found)
}

fn sessions(home: &Home) -> Vec<String> {
    let screen = home.good(&["hardline", "w", "--inspect"]).out;
    screen.lines().filter(|line| line.starts_with("  [")).map(|line| line.trim().to_owned()).collect()
}

/// What the engine says of a container's end, asked before it comes.
fn end_of(engine: &Engine, container: &str) -> std::process::Child {
    let mut wait = Command::new("docker");
    wait.args(["--host", &engine.host, "wait", container]).stdout(Stdio::piped()).stderr(Stdio::null());
    wait.spawn().expect("docker wait")
}

fn code_of(wait: std::process::Child) -> String {
    let output = wait.wait_with_output().expect("docker wait");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn tabs_are_opened_and_inspected_from_the_host(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let mut terminal = Terminal::run(&home, &["hardline", "w", "--new", "--agent", "claude"], 24, 80);
    wait_until("two agents", || sessions(&home).len() == 2);
    terminal.wait_for("agent is listening");
    let (strip, bar) = terminal.chrome();
    assert!(strip.contains('1') && strip.contains('2') && strip.contains("Claude"), "{strip}");
    assert!(bar.contains(home.role()), "{bar}");
    terminal.type_in("the second\r");
    terminal.wait_for("you said: the second");
    terminal.type_in("\x1c1");
    wait_until("the first tab", || !terminal.contents().contains("the second"));
    terminal.type_in("\x1cd");
    assert_eq!(terminal.exit_code(), 0);

    let mut shell = Terminal::run(&home, &["hardline", "w", "--shell"], 24, 80);
    wait_until("a shell", || sessions(&home).len() == 3);
    wait_until("the shell's tab", || shell.chrome().0.contains('3'));
    shell.type_in("echo $((40+2)) in $PWD\r");
    shell.wait_for("42 in /workspace");
    let listed = sessions(&home);
    for (line, (id, what)) in listed.iter().zip([(1, "(claude)"), (2, "(claude)"), (3, "(shell)")]) {
        assert!(line.starts_with(&format!("[{id}] ")) && line.contains(what) && line.contains("state="), "{listed:?}");
        assert_eq!(line.contains("active=true"), id == 3, "{listed:?}");
    }
    let shown = home.good(&["hardline", "w", "--inspect", "--history", "100"]).out;
    assert!(shown.contains("42 in /workspace"), "{shown}");
    // One that ends takes its tab along, and nothing else.
    shell.type_in("exit\r");
    wait_until("the shell to go", || sessions(&home).len() == 2);
    shell.type_in("\x1cd");
    assert_eq!(shell.exit_code(), 0);
    let mut focused = Terminal::run(&home, &["hardline", "w", "--focus", "2"], 24, 80);
    focused.wait_for("you said: the second");
    focused.type_in("\x1cd");
    assert_eq!(focused.exit_code(), 0);
}

pub fn terminals_share_and_watch_one_picture(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let mut first = Terminal::run(&home, &["hardline", "w"], 30, 100);
    first.wait_for("agent is listening");
    let mut second = Terminal::run(&home, &["hardline", "w", "--shared"], 24, 80);
    second.wait_for("agent is listening");
    let mut watcher = Terminal::run(&home, &["hardline", "w", "--watch"], 20, 60);
    watcher.wait_for("agent is listening");
    // The smaller of those that may type; the watcher does not count.
    let mut size = (0, 0);
    wait_until("the smaller size", || {
        size = first.asked_size();
        size == (22, 80)
    });
    watcher.type_in("nobody hears\r");
    second.type_in("all hear\r");
    for terminal in [&first, &second, &watcher] {
        terminal.wait_for("you said: all hear");
        assert!(!terminal.contents().contains("nobody"), "a watcher's keys count: {}", terminal.contents());
    }
    watcher.type_in("q");
    assert_eq!(watcher.exit_code(), 0);
    second.type_in("\x1cd");
    assert_eq!(second.exit_code(), 0);
    wait_until("the first's own size", || first.asked_size() == (28, 100));
    first.type_in("\x1cd");
    assert_eq!(first.exit_code(), 0);
    assert_eq!(sessions(&home).len(), 1);
}

pub fn a_killed_mux_comes_back_under_an_attached_terminal(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let mut terminal = Terminal::run(&home, &["hardline", "w", "--shell"], 24, 80);
    wait_until("the shell's tab", || sessions(&home).len() == 2);
    terminal.type_in("mark=kept; echo $((40+2))\r");
    terminal.wait_for("42");
    // A neighbour, chosen from the list: the agent.
    terminal.type_in("\x1c%");
    terminal.wait_for("Enter");
    terminal.type_in("\r");
    terminal.wait_for("agent is listening");
    // States may change meanwhile.
    let tabs = |terminal: &Terminal| terminal.chrome().0.replace(['▲', '✓', '●', '○', '·'], "");
    let before = tabs(&terminal);
    let snapshot = || {
        let text = inside(&home, "jackin-capsule snapshot");
        let json: serde_json::Value = serde_json::from_str(&text).expect(&text);
        json["tabs"].as_array().expect("tabs").iter().map(|tab| tab["panes"].as_array().map_or(0, Vec::len)).collect::<Vec<_>>()
    };
    assert_eq!(snapshot(), [1, 2]);
    for round in 0..3 {
        let old = mux(&home).expect("a mux");
        inside(&home, &format!("kill -9 {old}"));
        wait_until("another mux", || mux(&home).is_some_and(|new| new != old));
        terminal.type_in(&format!("round {round}\r"));
        terminal.wait_for(&format!("you said: round {round}"));
        terminal.wait_for("42");
        assert_eq!(tabs(&terminal), before);
        assert_eq!(snapshot(), [1, 2]);
    }
    terminal.type_in("\x1ch");
    terminal.type_in("echo $mark-$mark\r");
    terminal.wait_for("kept-kept");
    let log = home.path(&format!("state/data/{}/state/multiplexer.log", home.capsule()));
    let log = fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    assert!(log.contains("signal 9") || log.contains("SIGKILL") || log.contains("killed"), "{log}");
    terminal.type_in("\x1cd");
    assert_eq!(terminal.exit_code(), 0);
}

pub fn an_upgrade_in_the_container_ends_no_session(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let mut terminal = Terminal::run(&home, &["hardline", "w"], 24, 80);
    terminal.wait_for("agent is listening");
    terminal.type_in("before\r");
    terminal.wait_for("you said: before");
    let old = mux(&home).expect("a mux");
    inside(&home, "cp /jackin/runtime/jackin-capsule /tmp/newer && jackin-capsule upgrade /tmp/newer");
    let new = mux(&home).expect("a mux");
    assert_ne!(old, new);
    assert_eq!(inside(&home, &format!("readlink /proc/{new}/exe")), "/tmp/newer");
    terminal.type_in("after\r");
    terminal.wait_for("you said: after");
    assert!(terminal.contents().contains("you said: before"), "{}", terminal.contents());
    // What is no capsule is refused and changes nothing.
    let refused = engine.try_docker(&["exec", &home.capsule(), "jackin-capsule", "upgrade", "/bin/false"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert_eq!(mux(&home), Some(new));
    terminal.type_in("still\r");
    terminal.wait_for("you said: still");
    terminal.type_in("\x1cd");
    assert_eq!(terminal.exit_code(), 0);
}

pub fn an_exit_ends_the_container_and_keeps_the_home(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    let container = home.capsule();
    inside(&home, "echo mine > ~/.claude/of-the-agent");
    let end = end_of(engine, &container);
    let mut terminal = Terminal::run(&home, &["hardline", "w", "--shell"], 24, 80);
    wait_until("the shell's tab", || sessions(&home).len() == 2);
    // Asked, and stayed.
    terminal.type_in("\x11");
    terminal.wait_for("End the sessions");
    terminal.type_in("n");
    wait_until("the question to go", || !terminal.contents().contains("End the sessions"));
    assert_eq!(sessions(&home).len(), 2);
    terminal.type_in("\x11");
    terminal.wait_for("End the sessions");
    terminal.type_in("y");
    assert_eq!(terminal.exit_code(), 0);
    terminal.wait_for("ended");
    terminal.assert_restored();
    assert_eq!(code_of(end), "0");
    home.assert_nothing_left("after the exit");
    let kept = files_below(&home.path(&format!("state/data/{container}")));
    assert!(kept.iter().any(|file| file.ends_with("of-the-agent")), "the home stays: {kept:?}");
}

pub fn an_engine_that_stops_the_container_waits_for_a_polite_end(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let container = home.capsule();
    let mut terminal = Terminal::run(&home, &["hardline", "w"], 24, 80);
    terminal.wait_for("agent is listening");
    let begun = std::time::Instant::now();
    engine.docker(&["stop", "--time", "30", &container]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    // Not 137, as after a kill.
    assert_eq!(engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &container]), "0");
    terminal.exit_code();
    wait_until("the terminal to be restored", || !terminal.screen.lock().unwrap().screen().alternate_screen());
}

pub fn a_terminal_that_is_told_to_go_is_restored(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let mut terminal = Terminal::run(&home, &["hardline", "w"], 24, 80);
        terminal.wait_for("agent is listening");
        assert_ne!(modes(&*terminal.master), terminal.before, "the terminal is raw while attached");
        let pid = terminal.child.process_id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())).expect("a process");
        rustix::process::kill_process(pid, signal).expect("kill");
        terminal.exit_code();
        terminal.assert_restored();
        home.assert_one_of_each(false, "after the terminal went");
    }
    assert_eq!(sessions(&home).len(), 1);
}

pub fn what_the_agent_reports_is_seen_on_the_host(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let capsule = home.capsule();
    let mode = |path: &str| fs::metadata(home.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o777;
    assert_eq!(mode(&format!("state/sockets/{capsule}/jackin.sock")), 0o600);
    assert_eq!(mode(&format!("state/sockets/{capsule}")), 0o700);

    let mut terminal = Terminal::run(&home, &["hardline", "w"], 24, 80);
    terminal.wait_for("agent is listening");
    // What the agent's own hooks run is in its settings.
    let settings = inside(&home, "cat ~/.claude/settings.json");
    assert!(settings.contains("report-hook.sh claude PermissionRequest"), "{settings}");
    // The question is asked, answered, and the turn ends.
    for (hook, state) in [("Notification permission_prompt", "blocked"), ("PostToolUse", "unknown"), ("Notification idle_prompt", "idle")] {
        terminal.type_in(&format!("hook {hook}\r"));
        terminal.wait_for(&format!("reported {hook}"));
        wait_until(&format!("{state} after {hook}"), || sessions(&home)[0].contains(&format!("state={state}")));
        let explained = inside(&home, "jackin-capsule status explain 1");
        assert!(explained.lines().any(|line| line.starts_with("state") && line.contains(state)), "{explained}");
        let status = home.good(&["status"]).out;
        assert_eq!(status.contains(&format!("1 (1 {state})")), state != "unknown", "{status}");
    }
    terminal.type_in("\x1cd");
    assert_eq!(terminal.exit_code(), 0);
}

pub fn a_mux_that_cannot_start_ends_the_container_with_a_report(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let image = engine.docker(&["inspect", "--format", "{{.Config.Image}}", &home.capsule()]);
    let run = home.path(&format!("state/sockets/{}/agent.toml", home.capsule()));
    assert!(run.exists(), "{}", run.display());
    // Another container of the same image, which the test ends with.
    let launch = fs::read_to_string(&run).unwrap();
    let script = format!("cat >/jackin/run/agent.toml <<'TOML'\n{launch}\nTOML\nexec /jackin/runtime/jackin-capsule claude");
    let broken = engine.try_docker(&["run", "--rm", "-e", "JACKIN_CAPSULE_FORCE_PANIC=1", "--entrypoint", "sh", &image, "-c", &script]);
    assert_eq!(broken.code, Some(101), "{broken}");
    assert!(broken.err.contains("JACKIN_CAPSULE_FORCE_PANIC is set"), "{broken}");
    assert!(broken.err.contains("serve.rs"), "{broken}");
}

const CANARIES: [&str; 4] = ["CANARY-literal-5f1c", "CANARY-host-77aa", "CANARY-answer-90b3", "CANARY-github-41d0"];

pub fn secrets_reach_the_container_and_nothing_else(engine: &Engine) {
    let [literal, host, answer, github] = CANARIES;
    let mut home = Home::with_own_role(engine, STANDARD);
    let manifest = fs::read_to_string(home.path("role/jackin.role.toml")).unwrap();
    home.write("role/jackin.role.toml", &format!("{manifest}\n[env.ANSWER]\ninteractive = true\nprompt = \"The answer?\"\n"));
    home.commit("role", "Ask");
    home.workspace(
        "w",
        &format!("[env]\nLITERAL = \"{literal}\"\nHOSTED = \"$HOST_CANARY\"\n\n[github]\nauth_forward = \"token\"\n\n[github.env]\nGH_TOKEN = \"{github}\"\n\n{STANDARD}"),
    );
    home.set_env("HOST_CANARY", host);
    let reply = format!("ANSWER={answer}");

    let spy = Spy::start();
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let output = home.jackin(args);
        said.push_str(&format!("$ jackin {}\n{output}", args[0]));
        output.code
    };
    assert_eq!(run(&["plan", "w", "--env", &reply, "--format", "json"]), Some(0), "plan");
    assert_eq!(run(&["--debug", "plan", "w", "--env", &reply, "--verbose"]), Some(0), "plan --debug");
    assert_eq!(run(&["--debug", "apply", "w", "--yes", "--env", &reply]), Some(0), "apply --debug");
    assert_eq!(run(&["explain", "capsule/w/default"]), Some(0), "explain");
    assert_eq!(run(&["observe"]), Some(0), "observe");
    assert_eq!(run(&["status", "--format", "json"]), Some(0), "status");
    // It takes no answers, and says so.
    assert_eq!(run(&["graph", "w", "--format", "json"]), Some(1), "graph");
    assert_eq!(run(&["runs", "show"]), Some(0), "runs");
    let capsule = home.capsule();
    let inspected = engine.docker(&["inspect", &capsule]);
    let labels = engine.docker(&["inspect", "--format", "{{json .Config.Labels}} {{json .Config.Cmd}} {{json .HostConfig}}", &capsule]);
    let logs = engine.docker(&["logs", &capsule]);
    engine.docker(&["rm", "-fv", &capsule]);
    // An apply that fails at the very container that holds them.
    engine.docker(&["network", "rm", &format!("{capsule}-net")]);
    engine.docker(&["create", "--name", &capsule, &construct_image(), "true"]);
    assert_eq!(run(&["--debug", "apply", "w", "--yes", "--env", &reply]), Some(1), "a failing apply");
    engine.docker(&["rm", "-f", &capsule]);
    let commands = spy.stop();

    for canary in CANARIES {
        assert!(inspected.contains(canary), "{canary} did not reach the container");
        assert!(!said.contains(canary), "{canary} was said: {said}");
        assert!(!labels.contains(canary), "{canary} is in labels or options");
        assert!(!logs.contains(canary), "{canary} is in the container's log");
        for file in files_below(&home.path("state")) {
            let bytes = fs::read(&file).unwrap_or_default();
            assert!(!contains(&bytes, canary), "{canary} is in {}", file.display());
        }
        let shown: Vec<&String> = commands.iter().filter(|c| c.contains(canary) && !c.starts_with(env!("CARGO_BIN_EXE_jackin"))).collect();
        assert!(shown.is_empty(), "{canary} was on a command line: {shown:?}");
    }
    // The person's own command line, which shows that the spy sees any.
    assert!(commands.iter().any(|c| c.contains(&reply)), "the spy saw nothing");

    let images = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    for image in images.lines().filter(|name| name.contains(home.role())) {
        let history = engine.docker(&["history", "--no-trunc", image]);
        let inspected = engine.docker(&["image", "inspect", image]);
        assert!(!history.contains("CANARY") && !inspected.contains("CANARY"), "{image}");
        let mut save = Command::new("docker").args(["--host", &engine.host, "save", image]).stdout(Stdio::piped()).spawn().expect("docker");
        assert!(!stream_contains(save.stdout.take().unwrap(), "CANARY-"), "{image} holds a canary");
        assert!(save.wait().expect("docker").success());
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn stream_contains(mut stream: impl Read, text: &str) -> bool {
    let mut buffer = vec![0; 1 << 20];
    let mut kept = 0;
    let mut found = false;
    while let Ok(count @ 1..) = stream.read(&mut buffer[kept..]) {
        let end = kept + count;
        // Looking for the first byte first: an unoptimised search over 400 MB would take minutes.
        found |= memchr_all(&buffer[..end], text.as_bytes());
        kept = end.min(text.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
    found
}

fn memchr_all(bytes: &[u8], text: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == text[0]) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Command lines of every process, as often as can be read.
struct Spy {
    stop: Arc<Mutex<bool>>,
    thread: thread::JoinHandle<std::collections::BTreeSet<String>>,
}

impl Spy {
    fn start() -> Spy {
        let stop = Arc::new(Mutex::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            let begun = std::time::Instant::now();
            while !*stopped.lock().unwrap() && begun.elapsed() < 2 * PATIENCE {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())
                        && let Ok(line) = fs::read(entry.path().join("cmdline"))
                        && contains(&line, "CANARY-")
                    {
                        seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
                thread::sleep(std::time::Duration::from_millis(5));
            }
            seen
        });
        Spy { stop, thread }
    }

    fn stop(self) -> std::collections::BTreeSet<String> {
        *self.stop.lock().unwrap() = true;
        self.thread.join().expect("the spy")
    }
}
