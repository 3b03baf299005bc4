//! Sidecars that are started before anybody needs them: tried, kept, taken over, fought for, left behind.

use super::proxy::{At, Call, Proxy, Strike, What, When};
use super::support::{COMPAT, Engine, Home, Objects, Output, STANDARD, construct_image};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Child;

const TRY: [&str; 5] = ["prewarm", "--agent", "claude", "--sidecar-container", "--yes"];
const KEEP: [&str; 5] = ["prewarm", "--agent", "claude", "--daemon", "--yes"];

/// The milliseconds that prewarming told.
fn latency(output: &Output) -> u64 {
    let text = output
        .out
        .lines()
        .find_map(|line| line.split_once(" was ready after ")?.1.strip_suffix(" ms."))
        .unwrap_or_else(|| panic!("{output}"));
    text.parse().unwrap_or_else(|_| panic!("{output}"))
}

/// `count` whole kept sets, everything running, and nothing of ours besides.
fn assert_kept(home: &Home, count: usize, after: &str) -> Vec<String> {
    let objects = home.objects();
    let bases: Vec<String> = objects.containers.iter().filter_map(|name| name.strip_suffix("-dind").map(str::to_owned)).collect();
    let named = |suffix: &str| bases.iter().map(|base| format!("{base}{suffix}")).collect::<Vec<_>>();
    let wanted = Objects { containers: named("-dind"), networks: named("-net"), volumes: named("-certs") };
    assert_eq!((objects, bases.len()), (wanted, count), "{after}");
    for base in &bases {
        assert!(base.starts_with("jk-prewarm-dind-"), "{after}: {base}");
        let state = home.engine.docker(&["inspect", "--format", "{{.State.Status}}", &format!("{base}-dind")]);
        assert_eq!(state, "running", "{after}: {base}");
    }
    bases
}

fn inside(home: &Home, container: &str, script: &str) -> Output {
    home.engine.try_docker(&["exec", container, "sh", "-c", script])
}

/// Its private Docker answers, under the kept sidecar's name, and runs containers.
fn assert_docker_works(home: &Home, capsule: &str, sidecar: &str) {
    let version =
        inside(home, capsule, "docker version --format '{{.Server.Os}}' && docker info --format '{{.Name}}' && echo $DOCKER_HOST");
    assert_eq!((version.code, version.out.as_str()), (Some(0), format!("linux\n{sidecar}\ntcp://{sidecar}:2376\n").as_str()), "{version}");
    let nested =
        "tar -C /jackin/runtime -c jackin-capsule | docker import - nested >/dev/null && docker run --rm nested /jackin-capsule --version";
    let nested = inside(home, capsule, nested);
    assert!(nested.code == Some(0) && nested.out.contains("jackin-capsule"), "{nested}");
}

pub fn a_tried_sidecar_tells_its_latency_and_goes(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    for round in 0..2 {
        let output = home.good(&TRY);
        println!("ready after {} ms", latency(&output));
        home.assert_nothing_left(&format!("in round {round}"));
    }
    let json = home.good(&[&TRY[..], &["--format", "json"]].concat());
    let plan: Value = serde_json::from_str(&json.out).expect("a plan");
    assert_eq!(plan["goal"]["sidecar"], "try");
    assert!(json.err.contains(" was ready after "), "{json}");
    let dry = home.good(&[&TRY[..], &["--plan"]].concat());
    assert!(dry.out.contains("create and remove") && dry.out.contains("Takes about"), "the history of three runs: {dry}");
    // What lasts of it is what the next launch saves; what is only tried saves nothing.
    assert!(dry.out.contains("The next launch is as long as before."), "{dry}");
    let dry = home.good(&[&KEEP[..], &["--plan"]].concat());
    for words in ["sidecar/@prewarm/", "Takes about", "The next launch that needs all of it is about"] {
        assert!(dry.out.contains(words), "no {words}: {dry}");
    }
    let dry = home.good(&[&KEEP[..], &["--plan", "--format", "json"]].concat());
    let plan: Value = serde_json::from_str(&dry.out).expect("a plan");
    let milliseconds = |part: &str| plan[part]["milliseconds"].as_u64().unwrap_or_else(|| panic!("no {part}: {dry}"));
    assert!(milliseconds("saving") > 0 && milliseconds("saving") <= milliseconds("estimate"), "{dry}");
    home.assert_nothing_left("after a plan");
}

/// It is privileged, and nobody will ever use it.
pub fn a_tried_sidecar_that_fails_or_is_interrupted_goes_as_well(engine: &Engine) {
    let mut home = Home::new(engine, COMPAT);
    // A network, a volume, a container that is created and started.
    for at in [3, 4] {
        let strike = Strike { at: At::Write(at), when: When::Answered, what: What::Kill(Signal::INT) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let interrupted = home.jackin_by(&proxy, &TRY);
        assert!(proxy.struck() && interrupted.code == Some(130), "{interrupted}");
        home.assert_nothing_left(&format!("after Ctrl-C at write {at}"));
    }
    // Its container ends at once, so its Docker never answers.
    home.set_env("JACKIN_DIND_IMAGE", &construct_image());
    let failed = home.jackin(&TRY);
    assert_eq!(failed.code, Some(1), "{failed}");
    home.assert_nothing_left("after a failure");
}

pub fn a_kept_sidecar_is_taken_over_by_a_launch(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let made = home.good(&KEEP);
    println!("ready after {} ms", latency(&made));
    let kept = assert_kept(&home, 1, "after prewarm").remove(0);
    for (what, name) in [("container", format!("{kept}-dind")), ("network", format!("{kept}-net")), ("volume", format!("{kept}-certs"))] {
        let path = if what == "container" { ".Config.Labels" } else { ".Labels" };
        let labels = engine.docker(&["inspect", "--type", what, "--format", &format!("{{{{json {path}}}}}"), &name]);
        let labels: Value = serde_json::from_str(&labels).expect("labels");
        assert_eq!(labels["jackin.kind"], "prewarm-dind", "{what}");
        assert_eq!(labels["jackin.prewarm"], "true", "{what}");
        assert_eq!(labels["jackin.installation"], home.installation().as_str(), "{what}");
        assert!(labels["jackin.address"].is_null() && labels["jackin.spec"].is_string(), "{what}: {labels}");
    }
    let again = home.good(&KEEP);
    assert!(again.out.contains("No changes."), "{again}");
    let status = home.good(&["status"]);
    assert!(status.out.contains(&format!("{kept}: ready for the next launch")), "{status}");

    // A launch that must not have one leaves it alone, and says why.
    home.workspace("v", STANDARD);
    home.good(&["apply", "v", "--yes"]);
    assert!(home.objects().containers.contains(&format!("{kept}-dind")));
    home.good(&["eject", "v", "--yes"]);
    fs::remove_file(home.path("config/workspaces/v.toml")).unwrap();

    let applied = home.good(&["apply", "w", "--yes"]);
    assert!(applied.err.contains(&format!("kept {kept}-dind fits")), "{applied}");
    let capsule = home.capsule();
    assert_docker_works(&home, &capsule, &format!("{kept}-dind"));
    home.assert_settled("after adoption");
    let objects = home.objects();
    assert_eq!(
        (objects.containers.len(), objects.networks, objects.volumes),
        (2, vec![format!("{kept}-net")], vec![format!("{kept}-certs")])
    );
    let manifest = fs::read_to_string(home.path(&format!("state/data/{capsule}/.jackin/instance.json"))).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["docker"]["dind_container"], format!("{kept}-dind"));
    assert_eq!(manifest["docker"]["network"], format!("{kept}-net"));
    assert_eq!(manifest["docker"]["certs_volume"], format!("{kept}-certs"));
    let status = home.good(&["status"]);
    assert!(!status.out.contains("no instance uses"), "{status}");
    // It is nobody else's any more, and mended like one's own.
    home.workspace("u", COMPAT);
    let plan = home.jackin(&["plan", "u"]);
    assert!(plan.out.contains("sidecar/u/default  create"), "{plan}");
    fs::remove_file(home.path("config/workspaces/u.toml")).unwrap();
    engine.docker(&["stop", "--time", "1", &format!("{kept}-dind")]);
    home.good(&["apply", "w", "--yes"]);
    home.assert_settled("after it was stopped");
    home.eject();
    home.assert_nothing_left("after eject");
    // The names in the record are those of something that is gone: a launch makes its own under them.
    home.good(&["apply", "w", "--yes"]);
    home.assert_settled("after eject and apply");
    home.good(&["eject", "--all", "--purge", "--yes"]);
    home.assert_nothing_left("after purge");
}

pub fn a_kept_sidecar_that_could_not_be_looked_at_stays(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.good(&KEEP);
    let kept = assert_kept(&home, 1, "after prewarm");
    let trouble = Strike { at: At::Inspect(1), when: When::Sent, what: What::Trouble };
    let proxy = Proxy::start(home.folder(), &engine.host, Some(trouble));
    let failed = home.jackin_by(&proxy, &KEEP);
    assert!(proxy.struck() && failed.code == Some(1), "{failed}");
    assert_eq!(assert_kept(&home, 1, "after a passing error"), kept, "{failed}");
}

/// Trust is in what the configured URL gives.
pub fn a_trusted_role_from_another_url_is_asked_about(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    let configured = format!("file://{}", home.path("role").display());
    let image =
        |url: &str, last: &str| home.jackin(&["prewarm", "--agent", "claude", "--image", "--role", home.role(), "--role-git", url, last]);
    let same = image(&configured, "--dry-run");
    assert!(same.code == Some(0) && !same.out.contains("[role.untrusted]"), "{same}");
    fs::remove_dir_all(home.path("state/roles")).unwrap();

    home.git("", &["clone", "-q", "role", "other"]);
    home.write("other/Dockerfile", "FROM projectjackin/construct:0.1-trixie\nRUN false\n");
    home.commit("other", "Somebody else's");
    let other = format!("file://{}", home.path("other").display());
    let planned = image(&other, "--dry-run");
    assert!(planned.code == Some(0) && planned.out.contains("[role.untrusted]"), "{planned}");
    assert!(planned.out.contains("The trust in"), "{planned}");
    // Nobody is there to say yes, so it is not built: the build would fail.
    let refused = image(&other, "--parallelism=1");
    assert!(refused.code != Some(0) && !refused.err.contains("RUN false"), "{refused}");
}

pub fn eight_launches_share_three_kept_sidecars(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let names: Vec<String> = (1..=8).map(|n| format!("w{n}")).collect();
    for name in &names {
        home.workspace(name, COMPAT);
    }
    home.good(&[&KEEP[..], &["--count", "3"]].concat());
    let kept = assert_kept(&home, 3, "after prewarm");
    let children: Vec<(&String, Child)> = names.iter().map(|name| (name, home.start(&["apply", name, "--yes"], None))).collect();
    let mut adopted = 0;
    for (name, child) in children {
        let output = home.finish(&["apply", name], child);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        adopted += usize::from(output.err.contains("fits"));
    }
    assert_eq!(adopted, 3);
    let objects = home.objects();
    assert_eq!((objects.containers.len(), objects.networks.len(), objects.volumes.len()), (16, 8, 8), "{objects:?}");
    let mut owners = BTreeSet::new();
    for name in &names {
        let plan = home.jackin(&["plan", name, "--verbose", "--detailed-exitcode"]);
        assert_eq!(plan.code, Some(0), "{name}: {plan}");
        owners.extend(kept.iter().filter(|base| plan.out.contains(&format!("{base}-dind"))).map(|base| (base.clone(), name.clone())));
    }
    assert_eq!(owners.iter().map(|(base, _)| base).collect::<BTreeSet<_>>().len(), 3, "each kept one is somebody's: {owners:?}");
    assert_eq!(owners.len(), 3, "and nobody else's: {owners:?}");
    for (_, name) in &owners {
        let capsules = objects.containers.iter().filter(|c| !c.ends_with("-dind") && c.contains(&format!("-{name}-")));
        let capsule = capsules.into_iter().next().expect("a capsule");
        assert_eq!(inside(&home, capsule, "docker version >/dev/null").code, Some(0), "{capsule}");
    }
    let locks = fs::read_dir(home.path("state/data/prewarm-dind-adoption.locks")).map(|e| e.count()).unwrap_or_default();
    assert_eq!(locks, 0, "no lock outlives its set");
    home.eject();
    home.assert_nothing_left("after eject");
}

pub fn a_kill_of_prewarm_leaves_nothing_that_the_next_does_not_take_or_remove(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    for (args, reads) in [(KEEP, true), (TRY, false)] {
        let mut killed_in = 0;
        for at in 1.. {
            let at = if reads { At::Call(at) } else { At::Write(at) };
            let after = format!("after a kill of {args:?} at {at:?}");
            let strike = Strike { at, when: When::Sent, what: What::Kill(Signal::KILL) };
            let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
            let killed = home.jackin_by(&proxy, &args);
            if !proxy.struck() {
                assert_eq!(killed.code, Some(0), "{after}: {killed}");
                break;
            }
            // The struck connection breaks at once, so the end may come a little before the kill.
            assert!(killed.signal == Some(9) || killed.code == Some(1), "{after}: {killed}");
            killed_in += 1;
            home.good(&KEEP);
            assert_kept(&home, 1, &after);
            home.clear_up();
        }
        assert!(killed_in >= 5, "{args:?}: {killed_in}");
        home.clear_up();
    }
}

pub fn a_kill_of_prewarm_between_images_is_made_up_for_by_the_next(engine: &Engine) {
    let home = Home::with_own_role(engine, STANDARD);
    let image = ["prewarm", "--agent", "claude", "--image", "--role", home.role(), "--yes"];
    let mut killed_in = 0;
    for at in 1.. {
        let after = format!("after a kill at call {at}");
        home.hide_images();
        let _ = fs::remove_dir_all(home.path("state/roles"));
        let strike = Strike { at: At::Call(at), when: When::Sent, what: What::Kill(Signal::KILL) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let killed = home.jackin_by(&proxy, &image);
        if !proxy.struck() {
            assert_eq!(killed.code, Some(0), "{after}: {killed}");
            break;
        }
        assert!(killed.signal == Some(9) || killed.code == Some(1), "{after}: {killed}");
        killed_in += 1;
        home.good(&image);
        let again = home.good(&image);
        assert!(again.out.contains("No changes."), "{after}: {again}");
    }
    // A ping, lists, images, and two builds.
    assert!(killed_in >= 7, "{killed_in}");
    home.assert_nothing_left("but images");
}

pub fn what_nobody_can_use_is_told_and_pruned(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.good(&[&KEEP[..], &["--count", "3"]].concat());
    let kept = assert_kept(&home, 3, "after prewarm");
    engine.docker(&["rm", "-fv", &format!("{}-dind", kept[0])]);
    engine.docker(&["stop", "--time", "1", &format!("{}-dind", kept[1])]);
    let status = home.good(&["status"]);
    for words in [
        format!("{}: of no use, kept {} has no sidecar", kept[0], kept[0]),
        format!("{}: of no use, kept {} is exited", kept[1], kept[1]),
        format!("{}: ready for the next launch", kept[2]),
    ] {
        assert!(status.out.contains(&words), "no {words}: {status}");
    }
    let status: Value = serde_json::from_str(&home.good(&["status", "--format", "json"]).out).expect("JSON");
    let rows = status["data"]["kept"].as_array().expect("kept sets");
    let mut states: Vec<(&str, &str, bool)> = rows
        .iter()
        .map(|row| (row["name"].as_str().expect("a name"), row["state"].as_str().expect("a state"), row["reason"].is_string()))
        .collect();
    states.sort();
    let mut expected = [(kept[0].as_str(), "useless", true), (kept[1].as_str(), "useless", true), (kept[2].as_str(), "ready", false)];
    expected.sort();
    assert_eq!(states, expected);
    home.workspace("w", STANDARD);
    let plan = home.good(&["plan", "w"]);
    assert!(!plan.out.contains("prewarm"), "only when asked to: {plan}");
    home.good(&["apply", "w", "--prune", "--yes"]);
    let objects = home.objects();
    assert_eq!(objects.volumes, [format!("{}-certs", kept[2])]);
    home.eject();
    assert_kept(&home, 1, "after apply --prune");

    // The next prewarm does as well, and whoever asks the engine anyway.
    engine.docker(&["network", "disconnect", "-f", &format!("{}-net", kept[2]), &format!("{}-dind", kept[2])]);
    let told = home.good(&["prewarm", "--agent", "claude", "--sidecar", "--yes"]);
    assert!(told.err.contains("network"), "{told}");
    home.assert_nothing_left("after prewarm --sidecar");
}

/// One that runs and is stuck costs a launch a moment, and the next launches too until somebody clears it away.
pub fn a_kept_sidecar_that_hangs_is_left_alone_and_cleared_away(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.good(&KEEP);
    let hung = assert_kept(&home, 1, "after prewarm").remove(0);
    let stopped = inside(&home, &format!("{hung}-dind"), "kill -STOP $(cat /var/run/docker.pid)");
    assert_eq!(stopped.code, Some(0), "{stopped}");
    if engine.second {
        // Its networks are not this host's, so the look cannot tell.
        return;
    }
    let why = format!("kept {hung} is running, but its Docker does not answer");
    let tells = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&why);

    let status = home.good(&["status"]);
    assert!(status.out.contains(&format!("of no use, {why}")), "{status}");
    let plan = home.good(&["plan", "w"]);
    assert!(plan.out.contains("sidecar/w/default  create") && tells(&plan.out), "{plan}");
    let applied = home.good(&["apply", "w", "--yes"]);
    assert!(tells(&applied.err), "{applied}");
    let capsule = home.capsule();
    assert_docker_works(&home, &capsule, &format!("{capsule}-dind"));
    home.assert_settled("beside a hung one");
    home.eject();

    let told = home.good(&KEEP);
    assert!(tells(&told.err), "{told}");
    let kept = assert_kept(&home, 1, "after prewarm again").remove(0);
    assert_ne!(kept, hung);
    let stopped = inside(&home, &format!("{kept}-dind"), "kill -STOP $(cat /var/run/docker.pid)");
    assert_eq!(stopped.code, Some(0), "{stopped}");
    home.good(&["apply", "w", "--prune", "--yes"]);
    home.assert_one_of_each(true, "after apply --prune");
}

/// The engine's calls of a launch that takes a kept sidecar over: no second sidecar is made, and looking twice is all that it costs.
pub fn taking_over_makes_only_the_capsule(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.good(&KEEP);
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let output = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(output.code, Some(0), "{output}");
    // It is asked whether it answers, but not through the engine.
    assert!(engine.second || !proxy.calls().iter().any(|call| call.path.ends_with("/archive")), "{:?}", proxy.calls());
    let writes: Vec<Call> = proxy.calls().into_iter().filter(Call::writes).collect();
    let made = |call: &&Call| call.path.starts_with("/containers/") && ["/create", "/start"].iter().any(|end| call.path.ends_with(end));
    let made: Vec<&Call> = writes.iter().filter(made).collect();
    assert_eq!(made.len(), 2, "one container is created and started: {writes:?}");
}

/// Runs that need one image at once, in processes of their own: whoever comes first builds it, the others take it.
pub fn runs_at_once_build_an_image_once(engine: &Engine) {
    for (count, launches) in [(2, 0), (4, 0), (1, 1)] {
        let home = Home::with_own_role(engine, STANDARD);
        let prewarm = ["prewarm", "--agent", "claude", "--image", "--role", home.role(), "--yes"];
        let apply = ["apply", "w", "--yes"];
        let together: Vec<&[&str]> = std::iter::repeat_n(&prewarm[..], count).chain(std::iter::repeat_n(&apply[..], launches)).collect();
        let proxy = Proxy::start(home.folder(), &engine.host, None);
        let builds = || proxy.calls().iter().filter(|call| call.path == "/build").count();
        let children: Vec<Child> = together.iter().map(|args| home.start(args, Some(&proxy))).collect();
        for (args, child) in together.iter().zip(children) {
            let output = home.finish(args, child);
            assert_eq!(output.code, Some(0), "{args:?} beside {together:?}: {output}");
        }
        assert_eq!(builds(), 2, "the role's image and the derived one, for {together:?}: {:?}", proxy.calls());
        let again = home.jackin_by(&proxy, &prewarm);
        assert!(again.code == Some(0) && again.out.contains("No changes."), "{again}");
        assert_eq!(builds(), 2, "nothing is built again");
    }
}

/// What a new capsule changes in an image is its last layer.
pub fn a_new_capsule_rebuilds_the_last_layer(engine: &Engine) {
    let mut home = Home::with_own_role(engine, STANDARD);
    let capsule = home.path("capsule").display().to_string();
    fs::copy(&home.env()["JACKIN_CAPSULE_BIN"], &capsule).expect("a capsule");
    home.set_env("JACKIN_CAPSULE_BIN", &capsule);
    let role = home.role().to_owned();
    let prewarm = ["prewarm", "--agent", "claude", "--image", "--role", &role, "--yes"];
    let layers = || -> Vec<String> {
        let names = home.images();
        let derived: Vec<&String> = names.iter().filter(|name| name.starts_with(&format!("jk_{role}:"))).collect();
        assert_eq!(derived.len(), 1, "{names:?}");
        let layers = engine.docker(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", derived[0]]);
        serde_json::from_str(&layers).expect("layers")
    };
    home.good(&prewarm);
    let before = layers();
    let mut program = fs::OpenOptions::new().append(true).open(&capsule).expect("a capsule");
    std::io::Write::write_all(&mut program, b"another version").expect("a capsule");
    drop(program);
    let told = home.good(&prewarm);
    assert!(told.err.contains("capsule"), "{told}");
    let after = layers();
    assert_eq!(after.len(), before.len());
    assert_ne!(after.last(), before.last());
    assert_eq!(after[..after.len() - 1], before[..before.len() - 1], "all but the last layer stay");
}
