//! Launching, looking again, and being cut off.

use super::proxy::{At, Call, Proxy, Strike, What, When};
use super::support::{COMPAT, Engine, Home, PATIENCE, STANDARD, files_below, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::time::{Duration, Instant};

/// At most four lists, one inspect per container and image, pings; nothing else, and above all no write.
fn assert_budget(calls: &[Call], containers_and_images: usize) {
    let lists = calls.iter().filter(|call| call.lists()).count();
    assert!(lists <= 4, "{lists} lists: {calls:?}");
    assert!(!calls.iter().any(|call| call.path == "/images/json"), "{calls:?}");
    assert!(!calls.iter().any(Call::writes), "{calls:?}");
    let mut inspects: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.inspects()) {
        *inspects.entry(&call.path).or_default() += 1;
    }
    assert!(inspects.values().all(|count| *count == 1), "{inspects:?}");
    assert_eq!(inspects.len(), containers_and_images, "{inspects:?}");
    let others: Vec<&Call> = calls.iter().filter(|c| !c.lists() && !c.inspects() && c.path != "/_ping").collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Capsule and sidecar; construct, private Docker, the role's image and what is derived from it.
const IN_SCOPE: usize = 2 + 4;

pub fn a_second_apply_changes_nothing(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    home.assert_one_of_each(true, "after the first apply");

    let proxy = Proxy::start(home.folder(), &engine.host, None);
    // An engine at an address that is not known yet is asked what it is, once.
    let first = home.jackin_by(&proxy, &["plan", "w", "--detailed-exitcode"]);
    assert_eq!(first.code, Some(0), "{first}");
    let (about, rest): (Vec<Call>, Vec<Call>) = proxy.calls().into_iter().partition(|call| call.path == "/version");
    assert_eq!(about.len(), 1, "{rest:?}");
    assert_budget(&rest, IN_SCOPE);

    proxy.forget();
    let again = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(again.code, Some(0), "{again}");
    assert!(again.out.contains("No changes"), "{again}");
    assert_budget(&proxy.calls(), IN_SCOPE);

    proxy.forget();
    let plan = home.jackin_by(&proxy, &["plan", "w", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "{plan}");
    assert_budget(&proxy.calls(), IN_SCOPE);
    assert_eq!(proxy.calls().len(), 1 + 4 + IN_SCOPE, "a ping, lists, and what is in scope: {:?}", proxy.calls());
    home.assert_one_of_each(true, "after the second apply");
}

pub fn plans_of_an_untouched_world_are_empty(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    let first = home.plan().text;
    for round in 0..20 {
        home.assert_settled(&format!("in round {round}"));
    }
    assert_eq!(home.plan().text, first);
}

pub fn a_kill_after_any_write_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let clean = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(clean.code, Some(0), "{clean}");
    let writes = proxy.calls().iter().filter(|call| call.writes()).count();
    // A network, a volume, two containers that are created and started.
    assert!(writes >= 6, "{:?}", proxy.calls());
    home.eject();

    for at in 1..=writes {
        for when in [When::Sent, When::Answered] {
            let after = format!("after a kill at call {at} of {writes}, {when:?}");
            let strike = Strike { at: At::Write(at), when, what: What::Kill(Signal::KILL) };
            let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
            let killed = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
            assert!(proxy.struck(), "{after}: {killed}");
            assert_eq!(killed.signal, Some(9), "{after}: {killed}");

            let mut volumes = home.mounted_volumes();
            home.apply();
            home.assert_settled(&after);
            home.assert_one_of_each(true, &after);
            volumes.extend(home.mounted_volumes());
            home.eject();
            home.assert_nothing_left(&after);
            home.assert_gone(&volumes, &after);
        }
    }
}

/// Between two calls jackin writes files; a kill while the engine is only being looked at falls into such a moment.
pub fn a_kill_at_any_call_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    let mut killed_in = 0;
    for at in 1.. {
        let after = format!("after a kill at call {at}");
        // The role's clone, the home and everything else is made anew in each round.
        let _ = fs::remove_dir_all(home.path("state/roles"));
        let strike = Strike { at: At::Call(at), when: When::Sent, what: What::Kill(Signal::KILL) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let killed = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
        if !proxy.struck() {
            assert_eq!(killed.code, Some(0), "{after}: {killed}");
            break;
        }
        assert_eq!(killed.signal, Some(9), "{after}: {killed}");
        killed_in += 1;
        home.apply();
        home.assert_settled(&after);
        home.assert_one_of_each(false, &after);
        home.good(&["eject", "--all", "--purge", "--yes"]);
        home.assert_nothing_left(&after);
    }
    // A ping, four lists, three images; two made, one started, and looks until it answers.
    assert!(killed_in >= 12, "{killed_in}");
}

pub fn a_kill_in_the_middle_of_a_build_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::with_own_role(engine, STANDARD);
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let clean = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(clean.code, Some(0), "{clean}");
    let calls = proxy.calls();
    let writes: Vec<&Call> = calls.iter().filter(|call| call.writes()).collect();
    let building = |call: &&Call| matches!(call.path.as_str(), "/build" | "/session");
    assert!(writes.iter().copied().filter(|c| building(c)).count() >= 2, "the role's image and the derived one: {calls:?}");
    let last = writes.iter().rposition(building).expect("a build") + 1;

    for at in 1..=last {
        for when in [When::Sent, When::Answered] {
            let after = format!("after a kill at call {at} of {}, {when:?}", writes.len());
            home.eject();
            home.hide_images();
            let strike = Strike { at: At::Write(at), when, what: What::Kill(Signal::KILL) };
            let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
            let killed = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
            assert!(proxy.struck(), "{after}: {killed}");
            home.apply();
            home.assert_settled(&after);
            home.assert_one_of_each(false, &after);
        }
    }
}

pub fn a_kill_of_eject_is_mended_by_the_next_eject(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let clean = home.jackin_by(&proxy, &["eject", "--all", "--yes"]);
    assert_eq!(clean.code, Some(0), "{clean}");
    let writes = proxy.calls().iter().filter(|call| call.writes()).count();
    // Two containers, a network, a volume.
    assert!(writes >= 4, "{:?}", proxy.calls());
    for at in 1..=writes {
        let after = format!("after a kill of eject at call {at} of {writes}");
        home.apply();
        let volumes = home.mounted_volumes();
        let strike = Strike { at: At::Write(at), when: When::Sent, what: What::Kill(Signal::KILL) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let killed = home.jackin_by(&proxy, &["eject", "--all", "--yes"]);
        assert!(proxy.struck(), "{after}: {killed}");
        home.eject();
        home.assert_nothing_left(&after);
        home.assert_gone(&volumes, &after);
    }
}

/// One step fails, what does not need it goes on; mended, the next apply does the rest.
pub fn a_build_that_fails_says_why_and_stops_nothing_else(engine: &Engine) {
    let home = Home::with_own_role(engine, STANDARD);
    home.write("role/Dockerfile", "FROM projectjackin/construct:0.1-trixie\nRUN echo 'the reason is in here' && exit 7\n");
    home.commit("role", "Break");
    let output = home.jackin(&["apply", "w", "--yes"]);
    assert_eq!(output.code, Some(1), "{output}");
    for word in ["[docker.build_failed]", "role-image/", "the reason is in here", "skipped capsule/w/default"] {
        assert!(output.err.contains(word), "no {word}: {output}");
    }
    let objects = home.objects();
    assert_eq!((objects.containers.len(), objects.networks.len()), (0, 1), "{objects:?}");
    home.git("role", &["revert", "--no-edit", "HEAD"]);
    // The role cache is fresh for a while; this asks for the newest.
    fs::remove_dir_all(home.path("state/roles")).unwrap();
    home.apply();
    home.assert_settled("after the Dockerfile was mended");
    home.assert_one_of_each(false, "after the Dockerfile was mended");
}

pub fn an_instance_that_is_declared_no_more_goes_when_asked(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.workspace("v", STANDARD);
    home.apply();
    assert_eq!(home.objects().containers.len(), 2);
    fs::remove_file(home.path("config/workspaces/v.toml")).unwrap();
    home.assert_settled("without a workspace's file");
    let careful = home.jackin(&["apply", "--all", "--prune", "--yes"]);
    assert_eq!(careful.code, Some(1), "a live session is lost: {careful}");
    assert!(careful.err.contains("[plan.loss]") && careful.err.contains("capsule/v/default"), "{careful}");
    assert_eq!(home.objects().containers.len(), 2);
    home.good(&["apply", "--all", "--prune", "--yes", "--allow-loss"]);
    home.assert_one_of_each(false, "after apply --prune");
    home.assert_settled("after apply --prune");
}

/// The first lets what is in flight end, the second ends the program.
pub fn ctrl_c_leaves_a_world_that_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    for at in [1, 3, 5] {
        let after = format!("after Ctrl-C at call {at}");
        let strike = Strike { at: At::Write(at), when: When::Sent, what: What::Kill(Signal::INT) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let stopped = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
        assert!(proxy.struck(), "{after}: {stopped}");
        assert_eq!(stopped.code, Some(130), "{after}: {stopped}");
        // What was begun has been brought to an end: nothing is new after the stop.
        let left = home.objects();
        home.apply();
        home.assert_settled(&after);
        home.assert_one_of_each(true, &after);
        let now = home.objects();
        assert!(left.containers.iter().all(|name| now.containers.contains(name)), "{after}: {left:?}");
        home.eject();
    }

    // An engine that does not answer keeps the first Ctrl-C waiting.
    let home = Home::new(engine, COMPAT);
    let strike = Strike { at: At::Write(3), when: When::Sent, what: What::Silence };
    let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
    let child = home.start(&["apply", "w", "--yes"], Some(&proxy));
    assert!(proxy.wait_for_strike(PATIENCE), "call 3 never came");
    let pid = Pid::from_child(&child);
    let talk = home.path("state/data/diagnostics/runs");
    kill_process(pid, Signal::INT).expect("kill");
    wait_until("the first Ctrl-C to be heard", || files_below(&talk).iter().any(|f| fs::read_to_string(f).unwrap().contains("stopping")));
    let begun = Instant::now();
    kill_process(pid, Signal::INT).expect("kill");
    let stopped = home.finish(&["apply"], child);
    assert_eq!(stopped.code, Some(130), "{stopped}");
    assert!(begun.elapsed() < Duration::from_secs(5), "the second Ctrl-C took {:?}", begun.elapsed());
    drop(proxy);
    home.apply();
    home.assert_settled("after the second Ctrl-C");
    home.assert_one_of_each(true, "after the second Ctrl-C");
}

pub fn eight_applies_at_once_make_one_of_everything(engine: &Engine) {
    for (docker, sidecar, rounds) in [(STANDARD, false, 12), (COMPAT, true, 4)] {
        let home = Home::new(engine, docker);
        for round in 0..rounds {
            let after = format!("round {round}, sidecar {sidecar}");
            let args = ["apply", "w", "--yes"];
            let children: Vec<Child> = (0..8).map(|_| home.start(&args, None)).collect();
            for child in children {
                let output = home.finish(&args, child);
                assert_eq!(output.code, Some(0), "{after}: {output}");
            }
            home.assert_one_of_each(sidecar, &after);
            home.assert_settled(&after);
            home.eject();
        }
    }
}

pub fn workspaces_that_share_an_image_to_be_built_all_come_up(engine: &Engine) {
    let home = Home::with_own_role(engine, STANDARD);
    home.workspace("v", STANDARD);
    let children: Vec<(&str, Child)> = ["v", "w", "v", "w"].into_iter().map(|w| (w, home.start(&["apply", w, "--yes"], None))).collect();
    for (workspace, child) in children {
        let output = home.finish(&["apply", workspace], child);
        assert_eq!(output.code, Some(0), "{workspace}: {output}");
    }
    let objects = home.objects();
    assert_eq!((objects.containers.len(), objects.networks.len()), (2, 2), "{objects:?}");
    home.assert_settled("after four applies on two workspaces");
}

pub fn an_engine_that_goes_away_is_one_clear_message(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    for at in [1, 3] {
        let strike = Strike { at: At::Write(at), when: When::Sent, what: What::EngineGone };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let output = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
        assert!(proxy.struck(), "{output}");
        assert_eq!(output.code, Some(1), "{output}");
        assert_eq!(output.err.matches("[docker.gone]").count(), 1, "{output}");
        assert!(output.err.contains("Start it again"), "{output}");
        home.apply();
        home.assert_settled("after the engine came back");
        home.assert_one_of_each(false, "after the engine came back");
        home.eject();
    }
    for host in [format!("unix://{}", home.path("nowhere.sock").display()), {
        // A socket that nobody listens on.
        let path = home.path("dead.sock");
        drop(UnixListener::bind(&path).expect("bind"));
        format!("unix://{}", path.display())
    }] {
        for args in [&["plan", "w"][..], &["apply", "w", "--yes"], &["status"], &["eject", "--all", "--yes"]] {
            let output = Home::output(home.command(args).env("DOCKER_HOST", &host));
            assert_eq!(output.code, Some(1), "{args:?}: {output}");
            assert_eq!(output.err.matches("error:").count(), 1, "{args:?}: {output}");
            assert!(output.err.contains(&host), "{args:?}: {output}");
        }
    }
}

pub fn a_saved_plan_is_carried_out_or_refused(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    let file = home.path("w.plan").to_string_lossy().into_owned();
    home.good(&["plan", "w", "--out", &file]);
    home.good(&["apply", &file]);
    home.assert_settled("after the saved plan");
    home.assert_one_of_each(false, "after the saved plan");

    // The world already is what the plan was to make of it.
    let stale = home.jackin(&["apply", &file]);
    assert_eq!(stale.code, Some(1), "{stale}");
    for word in ["[plan.stale]", "capsule/w/default", "network/w/default", "jackin plan w"] {
        assert!(stale.err.contains(word), "no {word}: {stale}");
    }

    home.engine.docker(&["stop", "--time", "10", &home.capsule()]);
    home.good(&["plan", "w", "--out", &file]);
    home.engine.docker(&["start", &home.capsule()]);
    let stale = home.jackin(&["apply", &file]);
    assert_eq!(stale.code, Some(1), "{stale}");
    assert!(stale.err.contains("capsule/w/default") && !stale.err.contains("network/w/default"), "{stale}");
}

pub fn a_capsule_that_ends_at_once_says_why(engine: &Engine) {
    let mut home = Home::with_own_role(engine, STANDARD);
    home.write("broken", "#!/usr/bin/env bash\necho 'the reason is a missing thing'\nexit 9\n");
    fs::set_permissions(home.path("broken"), fs::Permissions::from_mode(0o755)).unwrap();
    home.set_env("JACKIN_CAPSULE_BIN", &home.path("broken").to_string_lossy());
    let output = home.jackin(&["apply", "w", "--yes"]);
    assert_eq!(output.code, Some(1), "{output}");
    for word in ["[docker.exited_early]", "capsule/w/default", "the reason is a missing thing", "help:"] {
        assert!(output.err.contains(word), "no {word}: {output}");
    }
    let capsule = std::env::var("JACKIN_CAPSULE_BIN").unwrap();
    home.set_env("JACKIN_CAPSULE_BIN", &capsule);
    home.apply();
    home.assert_settled("after the capsule was mended");
    home.assert_one_of_each(false, "after the capsule was mended");
}

/// The engine says that it is of the other architecture.
pub fn programs_are_those_of_the_engine(engine: &Engine) {
    let mut home = Home::new(engine, STANDARD);
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let (own, x64) = if cfg!(target_arch = "aarch64") { ("arm64", "x64") } else { ("amd64", "arm64") };
    let other = if own == "arm64" { "amd64" } else { "arm64" };
    proxy.disguise(true);

    // The capsule is this host's.
    let refused = home.jackin_by(&proxy, &["plan", "w"]);
    let said = refused.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.code, Some(1), "{refused}");
    let words = format!("is built for {own}; the engine runs linux/{other}.");
    assert!(said.contains("[binary.architecture]") && said.contains(&words) && said.contains("JACKIN_CAPSULE_BIN"), "{refused}");
    assert!(!proxy.calls().iter().any(Call::writes), "{:?}", proxy.calls());

    home.write("script", "#!/bin/sh\n");
    let script = home.path("script").display().to_string();
    home.set_env("JACKIN_CAPSULE_BIN", &script);
    home.set_env("JACKIN_AGENT_BIN_CLAUDE", "");
    home.set_env("JACKIN_AGENT_MIRROR", &format!("file://{}", home.path("mirror").display()));
    let maker = "mirror/downloads.claude.ai/claude-code-releases";
    let sum = |platform: &str| jackin::resource::sha256_hex(format!("claude for {platform}"));
    let manifest = format!(
        r#"{{"platforms": {{"linux-x64": {{"binary": "claude", "checksum": "{}"}}, "linux-arm64": {{"binary": "claude", "checksum": "{}"}}}}}}"#,
        sum("x64"),
        sum("arm64")
    );
    home.write(&format!("{maker}/latest"), "9.9.9");
    home.write(&format!("{maker}/9.9.9/manifest.json"), &manifest);
    home.write(&format!("{maker}/9.9.9/linux-{x64}/claude"), &format!("claude for {x64}"));
    let plan = home.jackin_by(&proxy, &["plan", "w", "--format", "json"]);
    assert_eq!(plan.code, Some(0), "{plan}");
    assert!(plan.out.contains(&format!("9.9.9/linux-{x64}/claude\"")), "{plan}");
    assert!(plan.out.contains(&format!("agent-binaries/claude/9.9.9/linux-{other}/claude\"")), "{plan}");
    let fetched = home.jackin_by(&proxy, &["prewarm", "--agent", "claude", "--yes"]);
    assert_eq!(fetched.code, Some(0), "{fetched}");
    let cached = home.path(&format!("state/cache/agent-binaries/claude/9.9.9/linux-{other}/claude"));
    assert_eq!(fs::read_to_string(cached).expect("a program"), format!("claude for {x64}"));
    let snapshot = home.jackin_by(&proxy, &["observe"]);
    assert!(snapshot.out.contains(&format!(r#""arch": "{other}""#)), "{snapshot}");

    // Behind the same address there is another engine now: it is noticed when it names another version, or after a day. Here the day is
    // taken away.
    proxy.disguise(false);
    fs::remove_dir_all(home.path("state/cache/engines")).unwrap();
    let plan = home.jackin_by(&proxy, &["plan", "w", "--format", "json"]);
    assert!(plan.out.contains(&format!("linux-{own}/claude\"")), "{plan}");
}
