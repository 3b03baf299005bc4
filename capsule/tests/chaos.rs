//! What must not be able to hurt: killing the mux at any moment, upgrades to good and bad binaries, thousands of
//! sessions. Everything through a real init and a real mux.

mod common;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{BINARY, Capsule, SHELL_AGENT, eventually, kill, processes, write_script};
use jackin_capsule::control::{self, Reply};
use jackin_capsule::wire::Spawn;

/// Numbers with a rest that would show a missing byte, for ever, in one session as fast as it can be done; the other agent
/// is for talking to.
const COUNTING: &str = r#"[ $JACKIN_AGENT = codex ] && exec cat
[ $JACKIN_SESSION_ID = 3 ] && exec awk 'BEGIN { for (;;) { n++; print n ":ä" n ";" } }'
n=0; while :; do n=$((n+1)); echo "$n:ä$n;"; done"#;

/// Whatever the history and the screen hold must be a run of whole lines.
fn assert_counts_on(lines: &[String], what: &str) -> u64 {
    // The first may have lost its beginning to the limit of the history, the last is being written.
    let complete = &lines[1..lines.len().saturating_sub(1)];
    let number = |line: &String| -> u64 {
        let parsed = line.split_once(':').and_then(|(number, rest)| {
            let number = number.parse().ok()?;
            (rest == format!("ä{number};")).then_some(number)
        });
        parsed.unwrap_or_else(|| panic!("{what}: {line:?} is no whole line"))
    };
    let numbers: Vec<u64> = complete.iter().map(number).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "{what}: lines are missing or doubled");
    }
    *numbers.last().unwrap_or_else(|| panic!("{what}: no lines in {lines:?}"))
}

#[test]
fn two_hundred_kills_lose_nothing() {
    const KILLS: usize = 200;
    let mut capsule = Capsule::start(COUNTING);
    let mut client = capsule.attach();
    client.wait_for("a number", |text| text.contains(";"));
    for _ in 0..2 {
        assert!(matches!(capsule.ask(r#"{"type":"session_spawn","agent":"claude"}"#), Reply::Spawned { .. }));
    }
    assert!(matches!(capsule.ask(r#"{"type":"session_spawn","agent":"codex"}"#), Reply::Spawned { session_id: 4 }));
    eventually("all sessions run", || match capsule.ask(r#"{"type":"status"}"#) {
        Reply::SessionList { sessions } => (sessions.len() == 4).then_some(()),
        _ => None,
    });
    let counting = [1, 2, 3];
    eventually("all count", || counting.iter().all(|id| capsule.lines(*id, 0).len() > 3).then_some(()));
    let layout = capsule.ask_raw(r#"{"type":"snapshot"}"#);
    let sessions = session_pids(&capsule);
    assert_eq!(sessions.len(), 4);

    let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut random = seed | 1;
    let mut reached = [0; 3];
    let mut mux = 0;
    let mut pumped = 0;
    for round in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // At any moment of its life: from before it has taken the table over until it is long at work.
        let most = if round % 4 == 0 { 400_000 } else { 60_000 };
        std::thread::sleep(Duration::from_micros(random % most));
        // The one killed last may still be on its way out.
        mux = eventually("another mux runs", || Some(capsule.mux_pid()).filter(|pid| *pid != mux));
        pumped += usize::from(threads(mux).iter().any(|name| name == "pump"));
        kill("KILL", mux);
        if round % 4 == 3 {
            for (id, reached) in counting.iter().zip(&mut reached) {
                let last = assert_counts_on(&capsule.lines(*id, 3000), &format!("session {id}, round {round}, seed {seed}"));
                assert!(last > *reached, "session {id} does not go on");
                *reached = last;
            }
        }
        if round % 20 == 19 {
            client = capsule.attach_with(jackin_capsule::wire::Hello { focus: Some(4), ..Default::default() });
            client.type_keys(&format!("still here {round}\r"));
            client.wait_for_text(&format!("still here {round}"));
        }
    }
    assert!(pumped > 0, "no flood was pumped, of all muxes");
    assert_eq!(session_pids(&capsule), sessions, "seed {seed}");
    // Only the tab that is shown was changed since, by this test.
    let tabs = |snapshot: &str| match serde_json::from_str(snapshot).unwrap() {
        Reply::Snapshot { tabs, .. } => tabs.iter().map(|tab| (tab.label.clone(), tab.panes.len())).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(tabs(&capsule.ask_raw(r#"{"type":"snapshot"}"#)), tabs(&layout));
    let echoes = capsule.lines(4, 1000);
    for round in (19..KILLS).step_by(20) {
        assert!(echoes.contains(&format!("still here {round}")), "{echoes:?}");
    }
    capsule.assert_running();
}

fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).map(|name| name.trim_end().to_owned()).collect()
}

fn session_pids(capsule: &Capsule) -> BTreeSet<u32> {
    let is_session = |p: &common::Process| p.parent == capsule.pid() && p.state != 'Z' && !p.command.contains("\0serve\0");
    processes().into_iter().filter(is_session).map(|p| p.pid).collect()
}

#[test]
fn who_connects_while_there_is_no_mux_waits() {
    let capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    let mut mux = 0;
    for _ in 0..20 {
        mux = eventually("another mux runs", || Some(capsule.mux_pid()).filter(|pid| *pid != mux));
        kill("KILL", mux);
        // Not refused, not even for a moment.
        let mut stream = UnixStream::connect(capsule.socket()).unwrap();
        stream.write_all(&control::frame(r#"{"type":"status"}"#)).unwrap();
        let mut length = [0; 4];
        // The dying mux may have accepted it; then it is cut off, and the next one is asked.
        if stream.read_exact(&mut length).is_err() {
            assert!(matches!(capsule.ask(r#"{"type":"status"}"#), Reply::SessionList { .. }));
        }
    }
    let modes = [capsule.socket(), capsule.path("run")].map(|path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o600, 0o700]);
}

#[test]
fn a_mux_that_is_stopped_goes_on() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    let mux = capsule.mux_pid();
    for round in 0..5 {
        kill("STOP", mux);
        client.type_keys(&format!("echo go''es-on-{round}\r"));
        client.wait_for_text(&format!("goes-on-{round}"));
    }
    assert_eq!(capsule.mux_pid(), mux);
    assert!(capsule.log().contains("the mux was stopped"));
}

#[test]
fn ten_thousand_sessions_leave_nothing_behind() {
    const SESSIONS: u64 = 10_000;
    let mut capsule = Capsule::start("[ $JACKIN_AGENT = codex ] && exit 0\nexec cat");
    capsule.attach().wait_for("anything", |_| true);
    let spawn = || match capsule.ask(r#"{"type":"session_spawn","agent":"codex"}"#) {
        Reply::Spawned { session_id } => Some(session_id),
        // As many as may be run already.
        Reply::Error { .. } => {
            std::thread::park_timeout(Duration::from_millis(5));
            None
        }
        other => panic!("{other:?}"),
    };
    let quiet = || eventually("only the first session is left", || (session_pids(&capsule).len() == 1).then_some(()));
    while spawn().is_none_or(|id| id < 100) {}
    quiet();
    let pids = [capsule.pid(), capsule.mux_pid()];
    let held = || pids.map(|pid| ["fd", "task"].map(|what| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count()));
    let before = eventually("the descriptors settle", || {
        let before = held();
        std::thread::park_timeout(Duration::from_millis(50));
        (before == held()).then_some(before)
    });
    // Of the capsule and everything it has started: a machine that is busy elsewhere is no fault of ours.
    let cpu = || -> u64 { pids.iter().map(|pid| cpu_seconds(*pid)).sum() };
    let spend = |until: u64| {
        let before = cpu();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while spawn().is_none_or(|id| id < until) {});
            }
        });
        quiet();
        cpu() - before
    };
    let (first, second) = (spend(SESSIONS / 2), spend(SESSIONS));
    eventually("every descriptor and thread is given back", || (held() == before).then_some(()));
    let zombies: Vec<_> = processes().into_iter().filter(|p| pids.contains(&p.parent) && p.state == 'Z').collect();
    assert!(zombies.is_empty(), "{zombies:?}");
    // What has ended costs the others nothing.
    assert!(second < 2 * first + 10, "{first} seconds of CPU for the first half, {second} for the other");
    assert_eq!(pids, [capsule.pid(), capsule.mux_pid()], "the mux was restarted");
    capsule.assert_running();
}

/// Its own, and that of the children it has reaped.
fn cpu_seconds(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() / 100
}

fn upgrade(capsule: &Capsule, path: &str) -> Reply {
    capsule.ask(&serde_json::json!({"type": "upgrade", "path": path}).to_string())
}

fn refusal(capsule: &Capsule, path: &str) -> String {
    match upgrade(capsule, path) {
        Reply::Error { message } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upgrade_keeps_everything() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    client.type_keys("KEPT=still-known; echo be''fore\r");
    client.wait_for_text("before");
    let (mux, sessions) = (capsule.mux_pid(), session_pids(&capsule));
    let copy = capsule.path("jackin-capsule-next");
    std::fs::copy(BINARY, &copy).unwrap();
    let reply = upgrade(&capsule, copy.to_str().unwrap());
    assert!(matches!(&reply, Reply::Version { version, .. } if version == env!("CARGO_PKG_VERSION")), "{reply:?}");
    client.wait_until_lost();
    for _ in 0..2 {
        let mut client = capsule.attach();
        client.wait_for_text("before");
        client.type_keys("echo $KEPT\r");
        client.wait_for_text("still-known");
        let now = capsule.mux_pid();
        assert_ne!(now, mux);
        assert_eq!(std::fs::read_link(format!("/proc/{now}/exe")).unwrap(), copy.canonicalize().unwrap());
        assert_eq!(session_pids(&capsule), sessions);
        // Also after a crash it is the new one that comes back.
        kill("KILL", now);
        client.wait_until_lost();
    }
    capsule.assert_running();
}

#[test]
fn an_upgrade_to_something_else_is_refused_or_taken_back() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    let (mux, sessions) = (capsule.mux_pid(), session_pids(&capsule));
    let script = |name: &str, body: &str| {
        let path = capsule.path(name);
        write_script(&path, body);
        path.to_str().unwrap().to_owned()
    };
    let plain = capsule.path("plain");
    std::fs::write(&plain, "no program").unwrap();
    for (path, why) in [
        ("relative", "not absolute"),
        ("/does/not/exist", "No such file"),
        (capsule.path("run").to_str().unwrap(), "not a regular file"),
        (plain.to_str().unwrap(), "denied"),
        (&script("fails", "exit 3"), "ended with 3"),
        (&script("other", "echo tmux 3.3a"), "no jackin-capsule"),
        (&script("slow", "exec sleep 1000"), "within 5s"),
    ] {
        let message = refusal(&capsule, path);
        assert!(message.contains(why), "{path}: {message}");
    }
    // Nobody noticed.
    client.type_keys("echo un''moved\r");
    client.wait_for_text("unmoved");
    assert_eq!(capsule.mux_pid(), mux);

    let pretends = |rest: &str| format!("[ \"$1\" = --version ] && {{ echo jackin-capsule 9.9; exit 0; }}\n{rest}");
    for (name, rest, why) in
        [("crashes", "exit 7", "the new mux ended with 7"), ("hangs", "exec sleep 1000", "the new mux ended by signal 9")]
    {
        let message = refusal(&capsule, &script(name, &pretends(rest)));
        assert!(message.contains(why) && message.contains("the one before is back"), "{message}");
        let mut client = capsule.attach();
        client.wait_for_text("unmoved");
        client.type_keys(&format!("echo ba''ck-after-{name}\r"));
        client.wait_for_text(&format!("back-after-{name}"));
        assert_eq!(session_pids(&capsule), sessions);
    }
    capsule.assert_running();
}

#[test]
fn an_upgrade_that_turns_out_bad_later_is_taken_back() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    let sessions = session_pids(&capsule);
    // It serves until it is told to fail, and fails at every start from then on.
    let bad = capsule.path("bad");
    let failing = capsule.path("failing");
    write_script(
        &bad,
        &format!(
            "[ \"$1\" = --version ] && {{ echo jackin-capsule 9.9; exit 0; }}\n[ -e {failing} ] && exit 7\nexec {BINARY} \"$@\"",
            failing = failing.display()
        ),
    );
    let reply = upgrade(&capsule, bad.to_str().unwrap());
    assert!(matches!(&reply, Reply::Version { version, .. } if version == "9.9"), "{reply:?}");
    std::fs::write(&failing, "").unwrap();
    kill("ABRT", capsule.mux_pid());
    let mut client = capsule.attach();
    client.type_keys("echo ba''ck\r");
    client.wait_for_text("back");
    assert!(capsule.log().contains("the one of before is back"), "{}", capsule.log());
    assert_eq!(session_pids(&capsule), sessions);
    capsule.assert_running();
}

#[test]
fn a_recording_goes_on_after_its_mux() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    capsule.ask(r#"{"type":"record","session_id":1,"on":true}"#);
    kill("KILL", capsule.mux_pid());
    let mut client = capsule.attach();
    client.wait_for_text("is recorded to");
    client.type_keys("echo af''ter\r");
    client.wait_for_text("after");
    let Reply::Recording { path, .. } = capsule.ask(r#"{"type":"record","session_id":1,"on":false}"#) else { panic!() };
    assert!(std::fs::read_to_string(path).unwrap().contains("after"));
    assert_eq!(std::fs::read_dir(capsule.path("state/recordings")).unwrap().count(), 2);
}

#[test]
fn a_recording_survives_its_session() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut client = capsule.attach();
    client.wait_for_text("agent claude");
    let answer = capsule.ask(r#"{"type":"record","session_id":1,"on":true}"#);
    assert!(matches!(&answer, Reply::Recording { session_id: 1, path } if path.ends_with(".cast")), "{answer:?}");
    client.type_keys("echo re''corded; exit 0\r");
    client.wait_for_shutdown();
    assert_eq!(capsule.wait().code(), Some(0));
    let files: Vec<_> = std::fs::read_dir(capsule.path("state/recordings")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    // It begins with what was on the screen, and ends with the last output.
    assert!(text.contains("agent claude") && text.contains("recorded"), "{text}");
}

#[test]
fn closing_a_session_ends_it_however_deaf_it_is() {
    let capsule = Capsule::start("[ $JACKIN_AGENT = codex ] && trap '' HUP TERM INT\necho there; while :; do sleep 1; done");
    capsule.attach().wait_for_text("there");
    capsule.attach_and_spawn(Spawn::Agent("codex".into())).wait_for_text("there");
    assert_eq!(session_pids(&capsule).len(), 2);
    assert_eq!(capsule.ask(r#"{"type":"session_close","session_id":2}"#), Reply::Ack);
    eventually("it is gone", || (session_pids(&capsule).len() == 1).then_some(()));
}
