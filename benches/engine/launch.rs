//! A launch as a person sees it: from the command in a real terminal to the capsule's first frame. Cold, warm, with a kept sidecar, from a spare, and
//! the same containers by docker-compose; beside them a bare container start, and coming back to what runs.
//!
//! A frame counts when the terminal is on its alternate screen and the capsule's bar stands in the last row: the picture is drawn from the
//! top, so all of it has arrived. The agent's first line is timed apart.

use crate::support::{Race, Wanted, runs, verdict};
use crate::{Bare, JACKIN, Place, output, request};
use jackin::plan::Plan;
use jackin::provider::docker::Engine;
use jackin::provider::endpoint;
use jackin::resource::{Capsule, EnvEntry, Kind, MountKind, Sidecar, Spec};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Read;
use std::num::NonZero;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;
/// In the capsule's bar: the key of its palette.
const BAR: &str = "Ctrl+\\";
/// The first line of the demo agent.
const AGENT: &str = "jackin demo agent";

const COLD: &str = "cold: images, sidecar, capsule";
const WARM: &str = "warm: images there, new sidecar";
const ADOPTED: &str = "adopted: a kept sidecar";
const SPARE: &str = "adopted: a paused spare";
const COMPOSE: &str = "docker-compose up -d, docker exec";
const HARDLINE: &str = "hardline to what runs";
const START: &str = "one container start, bare";

pub fn launches(place: &Place) {
    place.jackin(&["apply", "bench", "--yes"]);
    let plan: Plan = serde_json::from_str(&place.jackin(&["plan", "bench", "--format", "json"])).expect("jackin's own plan");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connection = runtime.block_on(endpoint::connect_by_env(&place.env)).expect("the engine answers");
    let bare = Bare::new(place, &plan, Engine { connection, facts: Arc::new(place.facts()) });
    let peer = Peer::new(place, &plan);
    let names = [COLD, WARM, ADOPTED, SPARE, COMPOSE, HARDLINE, START];
    let (mut frames, mut lines) = (Race::new(&names), Race::new(&names[..6]));
    let mut add = |name: &'static str, shown: Shown| {
        frames.add(name, shown.frame);
        lines.add(name, shown.line);
    };
    let mut starts = Vec::new();
    place.eject(&["--purge"]);
    let load = [JACKIN, "load", "bench", "bench", "--yes"];
    for _ in 0..runs(7) {
        place.forget_images(&plan);
        let cold = place.with_home("cold");
        add(COLD, cold.shown(&load));
        cold.eject(&["--purge"]);
        drop(cold);

        add(WARM, place.shown(&load));
        (0..3).for_each(|_| add(HARDLINE, place.shown(&[JACKIN, "hardline", "bench"])));
        place.eject(&[]);
        runtime.block_on(async {
            tokio::join!(bare.network(), bare.certs());
            bare.container(Kind::Capsule).await;
            let begun = Instant::now();
            bare.start(Kind::Capsule).await;
            starts.push(begun.elapsed());
            bare.remove().await;
        });
        place.eject(&["--purge"]);

        place.jackin(&["prewarm", "--agent", "claude", "--daemon", "--yes"]);
        add(ADOPTED, place.shown(&load));
        place.eject(&["--purge"]);

        place.jackin(&["prewarm", "--instance", "bench", "--yes"]);
        add(SPARE, place.shown(&load));
        place.eject(&["--purge"]);

        add(COMPOSE, peer.shown());
        peer.down();
    }
    starts.into_iter().for_each(|took| frames.add(START, took));
    frames.print("A launch to the first frame, whole process in a terminal");
    lines.print("The same to the agent's first line");
    let [cold, warm, adopted, spare, compose, hardline, start] = names.map(|name| frames.median(name));
    println!("  -> cold / warm: {:.2}", cold / warm);
    println!("  -> docker-compose / warm: {:.2}, / adopted: {:.2}", compose / warm, compose / adopted);
    verdict("warm launch", warm, " ms", 1300.0, Wanted::AtMost);
    verdict("adopted launch beyond one container start", adopted - start, " ms", 150.0, Wanted::AtMost);
    verdict("launch from a spare", spare, " ms", 100.0, Wanted::AtMost);
    verdict("hardline", hardline, " ms", 60.0, Wanted::AtMost);
}

/// When it was to be seen.
struct Shown {
    frame: Duration,
    line: Duration,
}

impl Place {
    /// The same configuration and a jackin folder that was never used, gone when dropped.
    fn with_home(&self, name: &str) -> OtherHome<'_> {
        let mut env = self.env.clone();
        env.insert("JACKIN_HOME_DIR".to_owned(), self.root.join(name).to_string_lossy().into_owned());
        OtherHome { place: self, env }
    }

    fn eject(&self, options: &[&str]) {
        self.jackin(&[&["eject", "bench", "--yes", "--allow-loss"], options].concat());
    }

    /// Without the layers that only they have, which are the classic builder's cache.
    fn forget_images(&self, plan: &Plan) {
        for kind in [Kind::DerivedImage, Kind::RoleImage] {
            let specs = plan.changes.iter().filter(|change| change.address.kind == kind).filter_map(|change| change.desired.as_ref());
            specs.for_each(|spec| request(&self.socket, "DELETE", &format!("/images/{}?force=1", spec.object_name())));
        }
    }

    fn shown(&self, words: &[&str]) -> Shown {
        shown(words, self.env.iter(), self)
    }
}

struct OtherHome<'a> {
    place: &'a Place,
    env: std::collections::BTreeMap<String, String>,
}

impl OtherHome<'_> {
    fn shown(&self, words: &[&str]) -> Shown {
        shown(words, self.env.iter(), self.place)
    }

    fn eject(&self, options: &[&str]) {
        let words = [&["eject", "bench", "--yes", "--allow-loss"], options].concat();
        output(self.place.command(JACKIN).args(words).envs(&self.env));
    }
}

impl Drop for OtherHome<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.env["JACKIN_HOME_DIR"]);
    }
}

/// Runs a command in a terminal until it shows a capsule with its agent, and ends it.
fn shown<'a>(words: &[&str], env: impl Iterator<Item = (&'a String, &'a String)>, place: &Place) -> Shown {
    let size = PtySize { rows: ROWS, cols: COLUMNS, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).expect("a pty");
    let mut command = CommandBuilder::new(words[0]);
    command.args(&words[1..]);
    command.env_clear();
    env.for_each(|(name, value)| command.env(name, value));
    command.env("TERM", "xterm-256color");
    command.env("LANG", "C.UTF-8");
    command.cwd(&place.root);
    let mut output = pair.master.try_clone_reader().expect("a reader");
    let cells = |count| NonZero::new(count).expect("a size");
    let mut parser = vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0);
    let mut buffer = vec![0; 64 << 10];
    let (mut frame, mut line) = (None, None);

    let begun = Instant::now();
    let mut child = pair.slave.spawn_command(command).expect("the command starts");
    drop(pair.slave);
    while frame.is_none() || line.is_none() {
        let count = output.read(&mut buffer).unwrap_or(0);
        let now = begun.elapsed();
        let screen = parser.screen();
        assert!(count > 0, "{words:?} ended early:\n{}", screen.contents());
        parser.process(&buffer[..count]);
        let screen = parser.screen();
        if screen.alternate_screen() {
            let bar = || screen.rows(0, COLUMNS).last().is_some_and(|row| row.contains(BAR));
            frame = frame.or_else(|| bar().then_some(now));
            line = line.or_else(|| screen.contents().contains(AGENT).then_some(now));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Shown { frame: frame.expect("just seen"), line: line.expect("just seen") }
}

/// The same containers as somebody would write them down who knows compose: the capsule waits until the sidecar is healthy.
struct Peer<'a> {
    place: &'a Place,
}

impl<'a> Peer<'a> {
    fn new(place: &'a Place, plan: &Plan) -> Peer<'a> {
        let spec = |kind: Kind| {
            plan.changes.iter().filter(|c| c.address.kind == kind).find_map(|c| c.desired.as_ref()).expect("it is in the plan")
        };
        let (Spec::Sidecar(sidecar), Spec::Capsule(capsule)) = (spec(Kind::Sidecar), spec(Kind::Capsule)) else { unreachable!() };
        let peer = Peer { place };
        // A home of its own, as jackin has prepared it.
        output(place.command("cp").arg("-a").arg(place.root.join("state")).arg(place.root.join("peer")));
        let text = serde_json::to_string_pretty(&peer.file(sidecar, capsule)).expect("JSON");
        fs::write(place.root.join("peer.json"), text).expect("a compose file");
        peer
    }

    /// JSON, which YAML includes.
    fn file(&self, sidecar: &Sidecar, capsule: &Capsule) -> Value {
        let env = |entries: &std::collections::BTreeMap<String, EnvEntry>| -> Map<String, Value> {
            let plain = |entry: &EnvEntry| match entry {
                EnvEntry::Plain(text) => text.replace(&sidecar.name, "dind").replace('$', "$$"),
                EnvEntry::Secret(_) => unreachable!("the benchmark's workspace has no secrets"),
            };
            entries.iter().map(|(name, entry)| (name.clone(), plain(entry).into())).collect()
        };
        let (ours, peers) = (self.place.root.join("state"), self.place.root.join("peer"));
        let volumes: Vec<String> = capsule
            .mounts
            .iter()
            .map(|(target, mount)| {
                let source = match mount.kind {
                    MountKind::Volume => "certs".to_owned(),
                    MountKind::Bind => {
                        mount.source.replacen('~', &self.place.env["HOME"], 1).replace(&*ours.to_string_lossy(), &peers.to_string_lossy())
                    }
                };
                format!("{source}:{target}{}", if mount.readonly { ":ro" } else { "" })
            })
            .collect();
        json!({
            "version": "2.4",
            "networks": { "net": {} },
            "volumes": { "certs": {} },
            "services": {
                "dind": {
                    "image": sidecar.image,
                    "hostname": "dind",
                    "privileged": true,
                    "networks": ["net"],
                    "environment": env(&sidecar.env),
                    "volumes": ["certs:/certs/client"],
                    "healthcheck": { "test": ["CMD", "docker", "info"], "interval": "1s", "timeout": "5s", "retries": 30 },
                },
                "capsule": {
                    "image": capsule.image,
                    "container_name": self.capsule(),
                    "command": capsule.argv,
                    "user": capsule.user,
                    "group_add": ["0"],
                    "working_dir": capsule.workdir,
                    "networks": ["net"],
                    "depends_on": { "dind": { "condition": "service_healthy" } },
                    "environment": env(&capsule.env),
                    "volumes": volumes,
                },
            },
        })
    }

    fn capsule(&self) -> String {
        format!("{}-capsule", self.place.env["COMPOSE_PROJECT_NAME"])
    }

    /// Up, then attached; what is not ready yet is tried again at once.
    fn shown(&self) -> Shown {
        let script = format!(
            "docker-compose -f peer.json up -d && until docker exec -it {} /jackin/runtime/jackin-capsule; do :; done",
            self.capsule()
        );
        self.place.shown(&["sh", "-c", &script])
    }

    fn down(&self) {
        let mut down = self.place.command("docker-compose");
        let _ = down.args(["-f", "peer.json", "down", "-v", "-t", "0"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.down();
    }
}
