//! Whole instances that wait, paused, for somebody to take them: made, taken, fought for, refused, cut off.

use super::proxy::{At, Call, Proxy, Strike, What, When};
use super::support::{COMPAT, Engine, Home, STANDARD, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::process::Child;

const MAKE: [&str; 4] = ["prewarm", "--instance", "w", "--yes"];
const TAKE: [&str; 3] = ["apply", "w", "--yes"];

/// Tells which credentials it began with, and when it began.
const AGENT: &str = r#"#!/usr/bin/env bash
case ${1:-} in
  --version | -v) echo '0.0.1 (test agent)'; exit 0 ;;
  install | mcp | plugin | config | update) exit 0 ;;
esac
date +%s%N >>~/.claude/begun
echo "began with $(cat ~/.claude/.credentials.json 2>/dev/null), asked for $ASKED"
while IFS= read -r line; do echo "you said: $line"; done
"#;

fn states(home: &Home) -> Vec<String> {
    let containers = home.objects().containers;
    containers.iter().map(|name| home.engine.docker(&["inspect", "--format", "{{.State.Status}}", name])).collect()
}

/// `count` spares and nothing besides, of two containers each when they have a private Docker.
fn assert_spares(home: &Home, count: usize, containers: usize, after: &str) {
    assert_eq!(states(home), vec!["paused"; count * containers], "{after}: {:?}", home.objects());
    let objects = home.objects();
    assert_eq!((objects.networks.len(), objects.volumes.len()), (count, count * (containers - 1)), "{after}: {objects:?}");
    let status = home.good(&["status"]);
    assert_eq!(status.out.matches(" spare ").count(), count, "{after}: {status}");
}

/// How often an agent began in the homes of this installation.
fn begun(home: &Home) -> usize {
    let homes = fs::read_dir(home.path("state/data")).into_iter().flatten().flatten();
    homes.filter_map(|entry| fs::read_to_string(entry.path().join("home/.claude/begun")).ok()).map(|text| text.lines().count()).sum()
}

fn wait_for_screen(home: &Home, selector: &str, text: &str) {
    wait_until(&format!("{text:?} on the screen of {selector}"), || home.jackin(&["hardline", selector, "--inspect"]).out.contains(text));
}

pub fn a_spare_is_taken_by_apply(engine: &Engine) {
    let home = Home::with_own_role(engine, COMPAT);
    home.write_agent(AGENT);
    home.write("config/config.toml", &home.global_config().replace("\"ignore\"", "\"sync\""));
    home.write(".claude/.credentials.json", "{\"token\": \"of yesterday\"}");
    home.good(&MAKE);
    assert_spares(&home, 1, 2, "after prewarm");
    assert_eq!(begun(&home), 0, "no agent begins in a spare");
    let again = home.good(&MAKE);
    assert!(again.out.contains("No changes."), "{again}");

    home.write(".claude/.credentials.json", "{\"token\": \"of today\"}");
    let plan = home.jackin(&["plan", "w"]);
    assert!(plan.out.contains("adopt") && plan.out.contains("spare") && !plan.out.contains("destroys"), "{plan}");
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let taken = home.jackin_by(&proxy, &TAKE);
    assert_eq!(taken.code, Some(0), "{taken}");
    // An engine whose networks are not this host's is asked by an exec whether the private Docker answers.
    let made = |call: &Call| call.writes() && !call.path.contains("/exec");
    let writes: Vec<String> = proxy.calls().into_iter().filter(made).map(|call| call.path).collect();
    assert!(writes.len() == 2 && writes.iter().all(|path| path.ends_with("/unpause")), "nothing is made: {writes:?}");
    wait_for_screen(&home, "w", "began with {\"token\": \"of today\"}");
    home.assert_one_of_each(true, "after it was taken");
    home.assert_settled("after it was taken");
    let capsule = home.capsule();
    let docker = engine.try_docker(&["exec", &capsule, "docker", "info", "--format", "{{.Name}}"]);
    assert_eq!(docker.out.trim(), format!("{capsule}-dind"), "{docker}");
    assert_eq!(begun(&home), 1);

    // Its owner is at work: the next spare is another one, for `jackin load`.
    home.good(&MAKE);
    assert_eq!(states(&home).iter().filter(|state| *state == "paused").count(), 2);
    let beside = home.good(&["load", home.role(), "w", "--yes", "--no-attach"]);
    assert!(beside.err.contains("spare"), "{beside}");
    assert_eq!(states(&home), vec!["running"; 4]);
    home.good(&["eject", "--all", "--purge", "--yes"]);
    home.assert_nothing_left("after purge");
}

pub fn five_loads_share_three_spares(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.good(&[&MAKE[..], &["--count", "3"]].concat());
    assert_spares(&home, 3, 1, "after prewarm");
    let args = ["load", home.role(), "w", "--yes", "--no-attach"];
    let children: Vec<Child> = (0..5).map(|_| home.start(&args, None)).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| home.finish(&args, child)).collect();
    for output in &outputs {
        assert_eq!(output.code, Some(0), "{output}");
    }
    assert_eq!(outputs.iter().filter(|output| output.err.contains("spare jk-")).count(), 3, "{outputs:#?}");
    let objects = home.objects();
    assert_eq!((states(&home), objects.networks.len()), (vec!["running".to_owned(); 5], 5), "{objects:?}");
    let keys: BTreeSet<String> = home.good(&["status"]).out.lines().filter(|l| l.starts_with("w/")).map(str::to_owned).collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    home.eject();
    home.assert_nothing_left("after eject");
}

pub fn a_spare_that_no_longer_fits_is_made_anew(engine: &Engine) {
    let mut home = Home::with_own_role(engine, STANDARD);
    home.write_agent(AGENT);
    home.workspace("w", &format!("[env]\nASKED = \"$ASKED\"\n\n{STANDARD}"));
    home.set_env("ASKED", "first");
    home.good(&[&MAKE[..], &["--count", "2"]].concat());
    assert_spares(&home, 2, 1, "after prewarm");

    // A launch says why it does not take it, and nothing is lost by that.
    home.set_env("ASKED", "second");
    let plan = home.jackin(&["plan", "w"]);
    assert!(plan.out.contains("env ASKED") && plan.out.contains("why not") && !plan.out.contains("destroys"), "{plan}");
    home.good(&TAKE);
    wait_for_screen(&home, "w/default", "asked for second");
    assert_eq!(begun(&home), 1, "the one that was refused never began");

    // The other is no use to anybody either.
    let left = home.good(&["apply", "w", "--yes"]);
    assert!(left.out.contains("No changes."), "only when asked to: {left}");
    home.good(&["apply", "w", "--prune", "--yes"]);
    assert_eq!(states(&home), ["running"]);
    home.good(&MAKE);
    home.good(&["apply", "w", "--prune", "--yes"]);
    assert_eq!(states(&home).iter().filter(|state| *state == "paused").count(), 1, "one that fits stays");
    // The host is started anew: what was paused has exited.
    let containers = home.objects().containers;
    let paused = |name: &&String| engine.docker(&["inspect", "--format", "{{.State.Status}}", name]) == "paused";
    let spare = containers.iter().find(paused).expect("a spare").clone();
    engine.docker(&["kill", &spare]);
    home.good(&MAKE);
    assert_eq!(engine.docker(&["inspect", "--format", "{{.State.Status}}", &spare]), "paused");
    assert_eq!(begun(&home), 1);
    // And by hand.
    engine.docker(&["unpause", &spare]);
    let load = home.good(&["load", home.role(), "w", "--yes", "--no-attach"]);
    assert!(load.err.contains("spare"), "{load}");
    wait_until("its agent to begin", || begun(&home) == 2);
    home.eject();
    home.assert_nothing_left("after eject");
}

pub fn a_kill_while_a_spare_is_made_leaves_one_spare_to_the_next(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    let mut killed_in = 0;
    for at in 1.. {
        let after = format!("after a kill at call {at}");
        let strike = Strike { at: At::Call(at), when: When::Sent, what: What::Kill(Signal::KILL) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let killed = home.jackin_by(&proxy, &MAKE);
        if !proxy.struck() {
            assert_eq!(killed.code, Some(0), "{after}: {killed}");
            break;
        }
        killed_in += 1;
        home.good(&MAKE);
        assert_spares(&home, 1, 1, &after);
        home.clear_up();
        // The next one finds no home either.
        let installation = home.installation();
        fs::remove_dir_all(home.path("state/data")).unwrap();
        home.write("state/data/installation", &format!("{installation}\n"));
    }
    assert!(killed_in >= 8, "{killed_in}");
}

pub fn a_kill_while_a_spare_is_taken_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::with_own_role(engine, COMPAT);
    home.write_agent(AGENT);
    let mut killed_in = 0;
    for at in 1.. {
        let after = format!("after a kill at call {at}");
        home.good(&MAKE);
        let before = begun(&home);
        let strike = Strike { at: At::Call(at), when: When::Answered, what: What::Kill(Signal::KILL) };
        let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
        let killed = home.jackin_by(&proxy, &TAKE);
        let struck = proxy.struck();
        assert!(struck || killed.code == Some(0), "{after}: {killed}");
        home.good(&TAKE);
        home.assert_one_of_each(true, &after);
        home.assert_settled(&after);
        println!("{after}: {} begun before, {} now, struck {struck} {killed}", before, begun(&home));
        println!("{:?}", proxy.calls().last());
        wait_until(&format!("its agent to begin {after}"), || begun(&home) > before);
        assert_eq!(begun(&home), before + 1, "{after}: it begins once");
        home.eject();
        if !struck {
            break;
        }
        killed_in += 1;
    }
    assert!(killed_in >= 8, "{killed_in}");
}
