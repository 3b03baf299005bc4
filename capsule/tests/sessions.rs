//! Sessions from start to end, through a real init, a real mux and real terminals.

mod common;

use std::io::{Read, Write};

use common::{Capsule, SHELL_AGENT, eventually, kill, processes, resident_kb};
use jackin_capsule::control::Reply;
use jackin_capsule::wire::{AttachMode, ClientFrame, Ctx, Hello, ServerFrame, ShutdownReason, Spawn};

#[test]
fn typing_is_echoed_and_the_model_reaches_the_agent() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    assert!(matches!(client.next(), Some(ServerFrame::Welcome { .. })));
    client.wait_for_text("agent claude args --model opus");
    client.type_keys("echo $((40+2))-$TERM-$COLORTERM-$JACKIN_SESSION_ID-$JACKIN_AUTH_MODE-$PWD\r");
    client.wait_for_text("42-xterm-256color-truecolor-1-sync-");
    client.type_keys("[ \"$PWD\" -ef \"$HOME/work\" ] && echo in-the-work''dir\r");
    client.wait_for_text("in-the-workdir");
}

#[test]
fn a_resize_reaches_the_program_and_the_repaint_has_the_new_size() {
    let capsule = Capsule::start("trap 'stty size' WINCH\nstty size\nwhile :; do read line; done");
    let mut client = capsule.attach_with(Hello { rows: 20, cols: 70, ..Hello::default() });
    // Two of the rows are the capsule's.
    client.wait_for_text("18 70");
    client.terminal.resize(jackin_capsule::screen::Size { rows: 33, cols: 111 });
    client.send(&ClientFrame::Resize { rows: 33, cols: 111 });
    client.wait_for_text("31 111");
}

#[test]
fn sizes_beyond_reason_are_cut() {
    let capsule = Capsule::start("stty size; exec cat");
    let mut client = capsule.attach_with(Hello { rows: u16::MAX, cols: u16::MAX, ..Hello::default() });
    client.terminal.resize(jackin_capsule::screen::Size { rows: 500, cols: 1000 });
    client.type_keys("still here\r");
    client.wait_for_text("still here");
    client.terminal.resize(jackin_capsule::screen::Size { rows: 6, cols: 3 });
    client.send(&ClientFrame::Resize { rows: 0, cols: 0 });
    client.type_keys("ok\r");
    client.wait_for_text("ok");
}

#[test]
fn detaching_keeps_everything_and_the_next_client_sees_it() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut first = capsule.attach();
    first.wait_for_text("agent claude");
    first.type_keys("printf '\\033]2;the title\\007\\033[1;31mmark%s\\033[m\\n' er; KEPT=kept-value\r");
    first.wait_for_text("marker\n$");
    first.type_keys("\x1cd");
    assert_eq!(first.wait_for_shutdown(), ShutdownReason::Detached);
    capsule.assert_running();

    let mut second = capsule.attach();
    second.wait_for_text("marker");
    assert_eq!(second.terminal.text(), first.terminal.text());
    assert_eq!(second.terminal.title(), "the title");
    second.type_keys("echo $KEPT\r");
    second.wait_for_text("kept-value");
    second.send(&ClientFrame::Detach);
    assert_eq!(second.wait_for_shutdown(), ShutdownReason::Detached);
    capsule.assert_running();
}

#[test]
fn a_session_has_its_terminal_and_no_other_descriptor() {
    let capsule = Capsule::start("exec cat");
    let targets = |pid: &str| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
    };
    let mut client = capsule.attach();
    // A mux that has everything open, and one that took it over.
    for _ in 0..2 {
        let Reply::Spawned { .. } = capsule.ask(r#"{"type": "session_spawn", "agent": "codex"}"#) else { panic!("no session") };
        kill("KILL", capsule.mux_pid());
        client.wait_until_lost();
        client = capsule.attach();
        client.type_keys("so far\r");
        client.wait_for_text("so far");
    }
    let mux = capsule.mux_pid();
    let sessions = eventually("all sessions run", || {
        let all: Vec<_> = processes().into_iter().filter(|p| p.parent == capsule.pid() && p.pid != mux).collect();
        (all.len() == 3 && all.iter().all(|p| p.command.starts_with("cat"))).then_some(all)
    });
    // What the test itself was started with is not init's doing.
    let inherited = targets("self");
    for session in sessions {
        let own: Vec<_> = targets(&session.pid.to_string()).into_iter().filter(|target| !inherited.contains(target)).collect();
        assert!(own.len() == 3 && own.iter().all(|target| target.starts_with("/dev/pts") && *target == own[0]), "{own:?}");
    }
}

#[test]
fn a_session_that_is_too_large_to_start_does_not_stay_on_its_way() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    capsule.ask(&format!(r#"{{"type": "session_spawn", "cwd": "/{}"}}"#, "x".repeat(3 << 20)));
    // Said by init, or by the mux where the system's packets are smaller than that.
    client.wait_for_text("session 2 could not be started");
    client.type_keys("exit 3\r");
    assert_eq!(client.wait_for_shutdown(), ShutdownReason::SessionEnded(Some(3)));
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn a_new_client_takes_over() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut first = capsule.attach();
    first.wait_for_text("agent claude");
    let mut second = capsule.attach();
    assert_eq!(first.wait_for_shutdown(), ShutdownReason::TakenOver);
    second.wait_for_text("agent claude");
    second.type_keys("echo st''ill\r");
    second.wait_for_text("still");
}

#[test]
fn kill_nine_of_the_mux_loses_no_session_and_no_screen() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    client.type_keys("KEPT=still-known; echo be''fore the crash\r");
    client.wait_for_text("before the crash");
    let agent = session_process(&capsule);
    for round in 0..3 {
        let mux = capsule.mux_pid();
        kill("KILL", mux);
        client.wait_until_lost();
        client = capsule.attach();
        client.wait_for_text("before the crash");
        client.type_keys(&format!("echo $KEPT-{round}\r"));
        client.wait_for_text(&format!("still-known-{round}"));
        assert_ne!(capsule.mux_pid(), mux);
    }
    assert_eq!(session_process(&capsule), agent);
    capsule.assert_running();
    assert!(capsule.log().contains("by signal 9; 1 sessions live on"));
    // The new mux has the whole table: it knows when the last session ends, and how.
    client.type_keys("exit 5\r");
    assert_eq!(client.wait_for_shutdown(), ShutdownReason::SessionEnded(Some(5)));
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn a_flood_survives_the_mux_in_order() {
    let capsule = Capsule::start("read x; seq 1 400000; exec cat");
    let mut client = capsule.attach();
    client.type_keys("\r");
    for _ in 0..3 {
        client.wait_for("some numbers", |text| text.lines().filter(|line| line.parse::<u32>().is_ok()).count() > 10);
        kill("KILL", capsule.mux_pid());
        client.wait_until_lost();
        client = capsule.attach();
    }
    client.wait_for_text("400000");
    let lines = capsule.lines(1, 5000);
    let numbers: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.len() >= 5000 && numbers.is_sorted_by(|a, b| a + 1 == *b) && numbers.last() == Some(&400_000), "{numbers:?}");
}

#[test]
fn a_screen_behind_an_editor_survives_the_mux() {
    let capsule = Capsule::start("printf 'main screen\\n'; printf '\\033[?1049h\\033[Hinside'; read x; printf '\\033[?1049l'; exec cat");
    capsule.attach().wait_for_text("inside");
    kill("KILL", capsule.mux_pid());
    let mut client = capsule.attach();
    client.wait_for_text("inside");
    client.type_keys("\r");
    client.wait_for_text("main screen");
}

#[test]
fn a_session_that_ends_while_the_mux_is_dead_still_ends_the_container() {
    let mut capsule = Capsule::start("read x; exit 0");
    capsule.attach().wait_for("anything", |_| true);
    let (mux, agent) = (capsule.mux_pid(), session_process(&capsule));
    kill("KILL", mux);
    kill("KILL", agent);
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn the_last_session_ends_the_container_after_its_final_frame() {
    let mut capsule = Capsule::start("read x; seq 1 20000; echo the last words; exit 3");
    let mut client = capsule.attach();
    client.wait_for("anything", |_| true);
    client.type_keys("\r");
    assert_eq!(client.wait_for_shutdown(), ShutdownReason::SessionEnded(Some(3)));
    assert!(client.terminal.text().contains("20000\nthe last words"), "{}", client.terminal.text());
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn an_agent_that_fails_unseen_leaves_its_screen_in_the_log() {
    let mut capsule = Capsule::start("echo cannot find my brain; exit 9");
    assert_eq!(capsule.wait().code(), Some(0));
    assert!(capsule.stderr().contains("ended with 9"), "{}", capsule.stderr());
    assert!(capsule.stderr().contains("cannot find my brain"));
}

#[test]
fn sigterm_is_an_orderly_shutdown() {
    let mut capsule = Capsule::start("trap 'echo bye > $HOME/farewell; exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done");
    let mut client = capsule.attach();
    client.wait_for_text("ready");
    let agent = session_process(&capsule);
    kill("TERM", capsule.pid());
    assert!(matches!(client.wait_for_shutdown(), ShutdownReason::Other(reason) if reason.contains("stopped")));
    assert_eq!(capsule.wait().code(), Some(0));
    assert!(!processes().iter().any(|p| p.pid == agent));
    assert!(capsule.path("farewell").exists(), "the agent had no time to leave: {}", capsule.log());
}

#[test]
fn a_shell_that_ignores_the_first_signal_is_hung_up() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    capsule.attach_and_spawn(Spawn::Shell).wait_for("a prompt", |text| !text.trim().is_empty());
    kill("TERM", capsule.pid());
    assert_eq!(capsule.wait().code(), Some(0));
    assert!(!capsule.log().contains("by signal 9"), "{}", capsule.log());
}

#[test]
fn a_session_deaf_to_every_signal_does_not_hold_up_the_shutdown() {
    let mut capsule = Capsule::start("trap '' TERM HUP INT; echo deaf; while :; do sleep 1; done");
    capsule.attach().wait_for_text("deaf");
    kill("INT", capsule.pid());
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn no_zombies() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    // Each of these loses its parent while alive and dies as init's child.
    client.type_keys("for i in 1 2 3 4 5; do sh -c 'sleep 0.1 & echo $! >> $HOME/orphans'; done; echo all laun''ched\r");
    client.wait_for_text("all launched");
    let orphans: Vec<u32> = std::fs::read_to_string(capsule.path("orphans")).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(orphans.len(), 5);
    eventually("all orphans are reaped", || (!processes().iter().any(|p| orphans.contains(&p.pid))).then_some(()));
    let mut other = capsule.attach_and_spawn(Spawn::Shell);
    other.type_keys("exit 0\r");
    eventually("the shell has ended", || capsule.log().contains("session 2 ended").then_some(()));
    eventually("no child of init is a zombie", || (!processes().iter().any(|p| p.parent == capsule.pid() && p.state == 'Z')).then_some(()));
}

#[test]
fn sessions_are_many_and_the_focus_moves() {
    let capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    let mut shell = capsule.attach_and_spawn(Spawn::Shell);
    // A shell has no agent, and nothing of PID 1's that is not its business.
    shell.type_keys("echo \"<$JACKIN_AGENT$JACKIN_AUTH_MODE$JACKIN_CAPSULE_FORCE_DAEMON>\" $JACKIN_SESSION_ID\r");
    shell.wait_for_text("<> 2");
    let env = vec![("GIT_AUTHOR_NAME".to_owned(), "Ada".to_owned()), ("LD_PRELOAD".to_owned(), "evil".to_owned())];
    let mut codex = capsule.attach_with(Hello { spawn: Spawn::Agent("codex".into()), env, ..Hello::default() });
    codex.wait_for_text("agent codex");
    codex.type_keys("echo \"<$GIT_AUTHOR_NAME|$LD_PRELOAD>\"\r");
    codex.wait_for_text("<Ada|>");

    let mut focused = capsule.attach_with(Hello { focus: Some(1), ..Hello::default() });
    focused.wait_for_text("agent claude");
    let Reply::SessionList { sessions } = capsule.ask(r#"{"ctx":{"v":1},"msg":{"type":"status"}}"#) else { panic!() };
    let rows: Vec<_> = sessions.iter().map(|s| (s.id, s.label.as_str(), s.agent.as_deref(), s.active)).collect();
    assert_eq!(rows, [(1, "Claude", Some("claude"), true), (2, "shell", None, false), (3, "Codex", Some("codex"), false)]);
    let Reply::SessionRead(read) = capsule.ask(r#"{"type":"session_read","session_id":3}"#) else { panic!() };
    assert!(read.text.contains("agent codex"));

    // A new mux looks where the old one looked.
    kill("KILL", capsule.mux_pid());
    focused.wait_until_lost();
    let mut focused = capsule.attach();
    focused.wait_for_text("agent claude");

    // The focused one ends, and the tab beside it is shown.
    focused.type_keys("exit 0\r");
    focused.wait_for_text("<> 2");
    let Reply::AgentRegistry { records } = capsule.ask(r#"{"ctx":{"v":1,"session_id":"2"},"msg":{"type":"agents"}}"#) else { panic!() };
    let rows: Vec<_> = records.iter().map(|r| (r.status.as_str(), r.exited_at.is_some(), r.is_self)).collect();
    assert_eq!(rows, [("exited", true, false), ("running", false, true), ("running", false, false)]);
    let mut names: Vec<_> = records.iter().map(|r| &r.codename).collect();
    names.dedup();
    assert_eq!(names.len(), 3);
}

#[test]
fn queries_are_answered_without_a_client() {
    let capsule = Capsule::start(
        "stty raw -echo; printf '\\033[6n'; a=$(dd bs=1 count=6 2>/dev/null | od -An -c | tr -d ' \\n'); stty sane; echo \"got $a\"; exec cat",
    );
    eventually("the answer is on the screen", || match capsule.ask(r#"{"type":"session_read"}"#) {
        Reply::SessionRead(screen) => screen.text.contains("got 033[1;1R").then_some(()),
        _ => None,
    });
}

#[test]
fn a_missing_workdir_is_said_and_survived() {
    let capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    std::fs::remove_dir(capsule.path("work")).unwrap();
    let mut client = capsule.attach_and_spawn(Spawn::Agent("codex".into()));
    // The row may be too short for the whole of it.
    client.wait_for_text("agent codex");
    assert!(capsule.lines(2, 0).join("").contains("starting in / instead"));
    client.type_keys("pwd | sed s/^/at/\r");
    client.wait_for_text("at/");
}

#[test]
fn a_hello_of_another_version_is_told_so() {
    let capsule = Capsule::start("exec cat");
    let ctx = Ctx { v: 2, ..Ctx::default() };
    let mut client = capsule.attach_with(Hello { ctx, ..Hello::default() });
    assert!(matches!(client.wait_for_shutdown(), ShutdownReason::Other(text) if text.contains("version 2")));
}

#[test]
fn what_is_typed_before_the_session_is_there_is_for_it() {
    let capsule = Capsule::start("read x; echo first got $x; exec cat");
    let mut client = capsule.attach();
    client.type_keys("early\r");
    client.wait_for_text("first got early");
    let mut second = capsule.attach_and_spawn(Spawn::Agent("codex".into()));
    second.type_keys("later\r");
    second.wait_for_text("first got later");
}

#[test]
fn a_client_that_does_not_read_slows_nobody_and_costs_no_memory() {
    let capsule = Capsule::start("read x; seq 1 2000000; touch $HOME/flooded; exec cat");
    let mut client = capsule.attach();
    client.wait_for("anything", |_| true);
    client.type_keys("\r");
    eventually("the flood runs to its end", || capsule.path("flooded").exists().then_some(()));
    assert!(resident_kb(capsule.mux_pid()) < 40_000, "{} KB", resident_kb(capsule.mux_pid()));
    client.wait_for_text("2000000");
    assert!(client.bytes_out < 15_000_000 / 4, "{} bytes were sent for 15 MB", client.bytes_out);
    client.type_keys("and on\r");
    client.wait_for_text("and on");
}

#[test]
fn garbage_harms_no_session() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    for json in ["", "{", "null", "{\"type\":\"fly\"}", "\u{0}\u{0}", "{\"ctx\":{\"v\":1,\"x\":1},\"msg\":{\"type\":\"status\"}}"] {
        assert_eq!(capsule.ask_raw(json), r#"{"type":"unknown"}"#, "{json}");
    }
    let garbage: [&[u8]; 6] = [
        &[0xff; 64],
        // Control and attach frames larger than allowed.
        &[0x00, 0xff, 0xff, 0xff, b'{'],
        &[0x03, 0xff, 0xff, 0xff, 0xff],
        // Input before any hello, and a hello that stops in its midst.
        &[0x03, 0, 0, 0, 1, b'x'],
        &[0x01, 0, 0, 0, 200, 1, 2, 3],
        &[0x81, 0, 0, 0, 4, 0, 0, 0, 1],
    ];
    for bytes in garbage {
        let mut stream = capsule.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The capsule closes; whether by reset depends on what it left unread.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bytes:?}");
    }
    // A hello that makes no sense is answered, because its sender may be a client of another version.
    let mut stream = capsule.connect();
    stream.write_all(&[0x01, 0, 0, 0, 0]).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&0x84));
    // The attached client was not displaced by any of it.
    client.type_keys("echo un''moved\r");
    client.wait_for_text("unmoved");
    capsule.assert_running();
}

#[test]
fn the_seventeenth_client_is_refused_and_questions_are_not() {
    let capsule = Capsule::start(SHELL_AGENT);
    let hello = || Hello { ctx: Ctx { mode: AttachMode::Shared, ..Ctx::default() }, ..Hello::default() };
    let mut client = capsule.attach_with(hello());
    client.wait_for_text("agent claude");
    let mut others: Vec<_> = (0..15).map(|_| capsule.attach_with(hello())).collect();
    let mut one_too_many = capsule.connect();
    one_too_many.write_all(&ClientFrame::Hello(Box::new(hello())).encode().unwrap()).unwrap();
    let mut answer = Vec::new();
    let _ = one_too_many.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    client.type_keys("echo un''moved\r");
    client.wait_for_text("unmoved");
    assert!(matches!(capsule.ask(r#"{"type":"status"}"#), Reply::SessionList { .. }));
    // Connections that say nothing have a limit of their own.
    let idle: Vec<_> = (0..48).map(|_| capsule.connect()).collect();
    let mut one_too_many = capsule.connect();
    answer.clear();
    let _ = one_too_many.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    drop(idle);
    drop(others.pop());
    capsule.attach_with(hello());
}

#[test]
fn a_mux_that_cannot_start_is_given_up_and_reported() {
    let mut capsule = Capsule::start_with(SHELL_AGENT, &[("JACKIN_CAPSULE_FORCE_PANIC", "1")]);
    assert_eq!(capsule.wait().code(), Some(101));
    assert!(capsule.stderr().contains("giving up"), "{}", capsule.stderr());
    assert!(capsule.log().contains("JACKIN_CAPSULE_FORCE_PANIC"));
    // With the names of functions, for whoever has to find out.
    assert!(capsule.log().contains("jackin_capsule::main"), "{}", capsule.log());
}

#[test]
fn what_breaks_a_screen_ends_no_mux_and_no_session() {
    let capsule = Capsule::start_with(SHELL_AGENT, &[("JACKIN_CAPSULE_FORCE_PANIC", "shown:unspeakable")]);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    let mux = capsule.mux_pid();
    client.type_keys("seq 1 100\r");
    client.wait_for_text("100\n$");
    client.type_keys("echo un''speak''able\r");
    client.wait_for_text("began anew");
    client.type_keys("echo still he''re\r");
    client.wait_for_text("still here");
    assert_eq!(capsule.mux_pid(), mux, "{}", capsule.log());
    assert!(capsule.log().contains("this was to be a fault"), "{}", capsule.log());
    assert!(capsule.lines(1, 200).iter().any(|line| line == "42"), "the scrollback is gone");
    // Nor does it come back with the next mux.
    kill("KILL", mux);
    let mut client = capsule.attach();
    client.wait_for_text("still here");
    assert_eq!(capsule.log().matches("this was to be a fault").count(), 1, "{}", capsule.log());
}

#[test]
fn a_panic_of_the_mux_brings_every_session_back() {
    let capsule = Capsule::start_with(SHELL_AGENT, &[("JACKIN_CAPSULE_FORCE_PANIC", "typed:panic now")]);
    capsule.attach().wait_for_text("agent claude");
    let mut client = capsule.attach_and_spawn(Spawn::Agent("codex".into()));
    client.wait_for_text("agent codex");
    client.type_keys("seq 1 100; kept=whole\r");
    client.wait_for_text("100");
    for count in 1..=2 {
        let mux = capsule.mux_pid();
        client.type_keys("panic now");
        eventually("another mux", || (capsule.mux_pid() != mux).then_some(()));
        client = capsule.attach();
        client.wait_for_text("100");
        assert_eq!(capsule.log().matches("JACKIN_CAPSULE_FORCE_PANIC was typed").count(), count, "{}", capsule.log());
    }
    client.type_keys("echo it is $kept\r");
    client.wait_for_text("it is whole");
    assert!(capsule.lines(2, 200).iter().any(|line| line == "42"), "the scrollback is gone");
    assert!(capsule.lines(1, 0).join("").contains("agent claude"));
    // With the names of functions, for whoever has to find out.
    assert!(capsule.log().contains("Serve::frame"), "{}", capsule.log());
}

#[test]
fn a_bad_configuration_is_said_once() {
    let mut capsule =
        Capsule::start_with(SHELL_AGENT, &[("JACKIN_CAPSULE_SOCKET", "/tmp/jackin-no-config.sock"), ("JACKIN_RUN_DIR", "/nonexistent")]);
    assert_eq!(capsule.wait().code(), Some(78));
    assert_eq!(capsule.stderr().matches("agent.toml").count(), 1, "{}", capsule.stderr());
}

#[test]
fn an_idle_capsule_uses_no_cpu() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    let switches = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let pids = [capsule.pid(), capsule.mux_pid()];
    // Quiet is reached when two looks agree; from there on nothing may wake up.
    let quiet = eventually("both processes come to rest", || {
        let before = pids.map(switches);
        std::thread::park_timeout(std::time::Duration::from_millis(400));
        (pids.map(switches) == before).then_some(before)
    });
    let (_keep, silence) = std::sync::mpsc::channel::<()>();
    assert!(silence.recv_timeout(std::time::Duration::from_millis(500)).is_err());
    assert_eq!(pids.map(switches), quiet);
}

fn session_process(capsule: &Capsule) -> u32 {
    let mux = capsule.mux_pid();
    eventually("the agent runs", || processes().into_iter().find(|p| p.parent == capsule.pid() && p.pid != mux).map(|p| p.pid))
}

#[test]
fn a_spare_begins_when_it_is_taken() {
    let capsule = Capsule::start_held("echo began; exec cat");
    let none = Reply::SessionList { sessions: Vec::new() };
    assert_eq!(capsule.ask(r#"{"type": "status"}"#), none);
    assert_eq!(capsule.ask(r#"{"type": "release"}"#), Reply::Held);
    let mut early = capsule.attach();
    assert!(matches!(early.wait_for_shutdown(), ShutdownReason::Other(why) if why.contains("spare")));
    // A mux that comes back holds as well.
    kill("KILL", capsule.mux_pid());
    assert_eq!(eventually("the next mux answers", || Some(capsule.ask(r#"{"type": "release"}"#))), Reply::Held);

    capsule.let_go();
    // Before it has looked by itself.
    let mut client = capsule.attach();
    client.wait_for_text("began");
    assert_eq!(capsule.ask(r#"{"type": "release"}"#), Reply::Ack);
    kill("KILL", capsule.mux_pid());
    client.wait_until_lost();
    capsule.attach().wait_for_text("began");
}

#[test]
fn a_spare_begins_by_itself_when_its_taker_was_killed_before_it_asked() {
    let capsule = Capsule::start_held("echo began; exec cat");
    assert_eq!(capsule.ask(r#"{"type": "release"}"#), Reply::Held);
    capsule.let_go();
    eventually("a session", || {
        matches!(capsule.ask(r#"{"type": "status"}"#), Reply::SessionList { sessions } if !sessions.is_empty()).then_some(())
    });
}
