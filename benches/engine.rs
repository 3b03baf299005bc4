//! jackin beside the bare engine and beside docker-compose: nothing to do, everything to create, a launch to its first frame, and
//! starting up at all.
//!
//! Needs an engine on a unix socket and what `./dev bench` sets up; without them it says so and ends. Makes its own jackin home
//! and its own labels, and removes both, and its images, afterwards.

#[path = "engine/launch.rs"]
mod launch;
mod support;

use jackin::facts::Facts;
use jackin::plan::Plan;
use jackin::provider::docker::Engine;
use jackin::provider::endpoint;
use jackin::provider::live::{Capsules, Later, Vault};
use jackin::resource::{Address, Kind, SecretSource, Spec};
use jackin_capsule::control::Request;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use support::{Race, Wanted, chosen, runs, timed, verdict};

const JACKIN: &str = env!("CARGO_BIN_EXE_jackin");
const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");

fn main() {
    if chosen("startup") {
        startup();
    }
    if !["noop", "fresh", "launch"].into_iter().any(chosen) {
        return;
    }
    let place = match Place::new() {
        Ok(place) => place,
        Err(why) => return println!("\nLeft out, for {why}: `./dev bench` sets up what is needed."),
    };
    place.jackin(&["apply", "bench", "--yes"]);
    if chosen("noop") {
        nothing_to_do(&place);
    }

    if chosen("fresh") {
        all_to_create(&place);
    }
    if chosen("launch") {
        launch::launches(&place);
    }
}

// ---- starting up ----

fn startup() {
    let mut race = Race::new(&["jackin --version", "/bin/true"]);
    for _ in 0..runs(200) {
        race.add("jackin --version", timed(|| silent(Command::new(JACKIN).arg("--version"))).1);
        race.add("/bin/true", timed(|| silent(&mut Command::new("/bin/true"))).1);
    }
    race.print("Starting up");
    println!("  -> jackin --version / /bin/true: {:.2}", race.median("jackin --version") / race.median("/bin/true"));
    verdict("jackin --version", race.median("jackin --version"), " ms", 3.0, Wanted::AtMost);
    let size = fs::metadata(JACKIN).map_or(0, |m| m.len()) as f64 / 1e6;
    verdict("size of jackin", size, " MB", 15.0, Wanted::AtMost);
    if let Some(size) = std::env::var_os("JACKIN_CAPSULE_BIN").and_then(|path| fs::metadata(path).ok()).map(|m| m.len() as f64 / 1e6) {
        verdict("size of the capsule", size, " MB", 6.0, Wanted::AtMost);
    }
}

// ---- nothing to do ----

fn nothing_to_do(place: &Place) {
    let reads = place.reads_of(&["plan", "bench"]);
    let asked = reads.iter().filter(|line| !line.starts_with("GET ")).count();
    println!("\n`jackin plan` sends {} requests, {asked} of them no reads:", reads.len());
    for line in &reads {
        println!("  {}", line.chars().take(110).collect::<String>());
    }
    let paths: Vec<&str> = reads.iter().filter_map(|line| line.strip_prefix("GET ")?.split(' ').next()).collect();
    // An id is known only from a list.
    let (first, rest): (Vec<&str>, Vec<&str>) = paths.iter().copied().partition(|p| p.ends_with("/_ping"));
    let (second, third): (Vec<&str>, Vec<&str>) =
        rest.iter().copied().partition(|p| !(p.contains("/containers/") && p.contains("/json") && !p.contains("containers/json")));

    let compose = Compose::up(place);
    let names = ["jackin plan", "jackin apply --yes", "bare reads, each when it can be", "bare reads, all at once", "docker-compose up -d"];
    let mut race = Race::new(&names);
    for _ in 0..runs(15) {
        race.add(names[0], timed(|| place.jackin(&["plan", "bench"])).1);
        race.add(names[1], timed(|| place.jackin(&["apply", "bench", "--yes"])).1);
        let waves = || [&first, &second, &third].into_iter().for_each(|wave| place.get_all(wave));
        race.add(names[2], timed(waves).1);
        race.add(names[3], timed(|| place.get_all(&paths)).1);
        race.add(names[4], timed(|| compose.run(&["up", "-d"])).1);
    }
    race.print("Nothing to do, live engine, whole process");
    for who in [names[0], names[1]] {
        let (own, bare, peer) = (race.median(who), race.median(names[2]), race.median(names[4]));
        println!("  -> {who} / bare reads: {:.2}", own / bare);
        verdict(&format!("{who} beyond the bare reads"), own - bare, " ms", 10.0, Wanted::AtMost);
        verdict(&format!("docker-compose / {who}"), peer / own, "x", 5.0, Wanted::AtLeast);
    }
}

// ---- everything to create ----

fn all_to_create(place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let names = ["jackin apply --yes", "bare calls, in parallel", "bare calls, one after another"];
    let mut race = Race::new(&names);
    let eject = || place.jackin(&["eject", "bench", "--yes", "--allow-loss"]);
    eject();
    let plan: Plan = serde_json::from_str(&place.jackin(&["plan", "bench", "--format", "json"])).expect("jackin's own plan");
    runtime.block_on(async {
        let connection = endpoint::connect_by_env(&place.env).await.expect("the engine answers");
        let bare = Bare::new(place, &plan, Engine { connection, facts: Arc::new(place.facts()) });
        for _ in 0..runs(6) {
            race.add(names[0], timed(|| place.jackin(&["apply", "bench", "--yes"])).1);
            eject();
            let started = std::time::Instant::now();
            bare.in_parallel().await;
            race.add(names[1], started.elapsed());
            bare.remove().await;
            let started = std::time::Instant::now();
            bare.one_by_one().await;
            race.add(names[2], started.elapsed());
            bare.remove().await;
        }
    });
    race.print("Everything to create (network, volume, sidecar, capsule; images there), until both answer");
    println!("  -> one after another / in parallel: {:.2}", race.median(names[2]) / race.median(names[1]));
    verdict("jackin apply / the same calls in parallel", race.median(names[0]) / race.median(names[1]), "x", 1.05, Wanted::AtMost);
}

/// The calls of an apply without plan, look or record: jackin's own functions, in the order that a person would script.
struct Bare {
    engine: Engine,
    specs: BTreeMap<Kind, (Address, Spec)>,
    sockets: Sockets,
}

impl Bare {
    fn new(place: &Place, plan: &Plan, engine: Engine) -> Bare {
        let specs = plan
            .changes
            .iter()
            .filter(|change| matches!(change.address.kind, Kind::Network | Kind::Certs | Kind::Sidecar | Kind::Capsule))
            .map(|change| (change.address.kind, (change.address.clone(), change.desired.clone().expect("it is to be created"))))
            .collect();
        Bare { engine, specs, sockets: Sockets { root: place.root.join("state/sockets") } }
    }

    async fn network(&self) {
        let (address, spec) = &self.specs[&Kind::Network];
        let Spec::Network(network) = spec else { unreachable!() };
        self.engine.create_network(address, spec, network).await.expect("network");
    }

    async fn certs(&self) {
        let (address, spec) = &self.specs[&Kind::Certs];
        let Spec::Certs(certs) = spec else { unreachable!() };
        self.engine.create_volume(address, spec, certs).await.expect("volume");
    }

    async fn container(&self, kind: Kind) {
        let (address, spec) = &self.specs[&kind];
        self.engine.create_container(address, spec, &NoSecrets).await.expect("container");
    }

    async fn start(&self, kind: Kind) {
        self.engine.start_container(self.specs[&kind].1.object_name()).await.expect("start");
    }

    async fn sidecar_answers(&self) {
        let Spec::Sidecar(sidecar) = &self.specs[&Kind::Sidecar].1 else { unreachable!() };
        self.engine.await_sidecar(sidecar).await.expect("the sidecar's Docker");
    }

    async fn capsule_answers(&self) {
        let Spec::Capsule(capsule) = &self.specs[&Kind::Capsule].1 else { unreachable!() };
        self.engine.await_capsule(capsule, &self.sockets).await.expect("the capsule");
    }

    async fn in_parallel(&self) {
        tokio::join!(self.network(), self.certs());
        let sidecar = async {
            self.container(Kind::Sidecar).await;
            self.start(Kind::Sidecar).await;
            self.sidecar_answers().await;
        };
        tokio::join!(sidecar, self.container(Kind::Capsule));
        self.start(Kind::Capsule).await;
        self.capsule_answers().await;
    }

    async fn one_by_one(&self) {
        self.network().await;
        self.certs().await;
        self.container(Kind::Sidecar).await;
        self.start(Kind::Sidecar).await;
        self.sidecar_answers().await;
        self.container(Kind::Capsule).await;
        self.start(Kind::Capsule).await;
        self.capsule_answers().await;
    }

    async fn remove(&self) {
        let name = |kind| self.specs[&kind].1.object_name();
        self.engine.remove_container(name(Kind::Capsule)).await.expect("capsule goes");
        self.engine.remove_container(name(Kind::Sidecar)).await.expect("sidecar goes");
        self.engine.remove_network(name(Kind::Network)).await.expect("network goes");
        self.engine.remove_volume(name(Kind::Certs)).await.expect("volume goes");
    }
}

struct NoSecrets;

impl Vault for NoSecrets {
    fn value<'a>(&'a self, source: &'a SecretSource) -> Later<'a, Result<SecretString, jackin::diagnostic::Diagnostic>> {
        unreachable!("the benchmark's workspace has no secrets, such as {}", String::from(source.clone()))
    }
}

struct Sockets {
    root: PathBuf,
}

impl Capsules for Sockets {
    fn sessions<'a>(&'a self, _: &'a str) -> Later<'a, Option<u32>> {
        Box::pin(async { None })
    }

    fn ready<'a>(&'a self, container: &'a str, _: Option<&'a Path>) -> Later<'a, bool> {
        Box::pin(async move {
            let Ok(stream) = tokio::net::UnixStream::connect(self.root.join(container).join("jackin.sock")).await else { return false };
            jackin_capsule::client::ask(stream, &Request::Status, &jackin_capsule::wire::Ctx::default()).await.is_ok()
        })
    }
}

// ---- where it happens ----

/// A jackin home of its own with one workspace, gone when dropped.
struct Place {
    root: PathBuf,
    socket: PathBuf,
    env: BTreeMap<String, String>,
}

impl Place {
    fn new() -> Result<Place, String> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = PathBuf::from(match host.strip_prefix("unix://") {
            Some(path) => path,
            None if host.is_empty() => "/var/run/docker.sock",
            None => return Err(format!("the engine is not on a unix socket ({host})")),
        });
        UnixStream::connect(&socket).map_err(|error| format!("no engine answers at {}: {error}", socket.display()))?;
        if std::env::var_os("JACKIN_CAPSULE_BIN").is_none() {
            return Err("JACKIN_CAPSULE_BIN is not set".to_owned());
        }
        // Short: the path of a unix socket may have 104 bytes.
        let root = PathBuf::from(format!("/tmp/jkb{}", std::process::id()));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        fs::create_dir_all(root.join("config/workspaces"))
            .and_then(|()| fs::create_dir_all(root.join("src")))
            .map_err(|e| e.to_string())?;
        let mut env: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| !name.starts_with("JACKIN_") || name.ends_with("_IMAGE") || name == "JACKIN_CAPSULE_BIN")
            .collect();
        env.extend([
            ("DOCKER_HOST".to_owned(), format!("unix://{}", text(&socket))),
            ("JACKIN_CONFIG_DIR".to_owned(), text(&root.join("config"))),
            ("JACKIN_HOME_DIR".to_owned(), text(&root.join("state"))),
            ("JACKIN_AGENT_BIN_CLAUDE".to_owned(), format!("{CHECKOUT}/setup/demo/agent")),
            ("JACKIN_AGENT_MIRROR".to_owned(), "off".to_owned()),
            ("COMPOSE_PROJECT_NAME".to_owned(), format!("jkb{}", std::process::id())),
        ]);
        let place = Place { root, socket, env };
        place.write_files();
        Ok(place)
    }

    fn write_files(&self) {
        let root = self.root.display();
        let script = format!(
            "cp -r {CHECKOUT}/setup/demo/role {root}/role && cd {root}/role && git init -q -b main && git add -A && \
             git -c user.name=bench -c user.email=bench@localhost -c commit.gpgsign=false -c core.hooksPath=/dev/null commit -q -m bench"
        );
        silent(Command::new("sh").args(["-c", &script]));
        // Fetching is no part of what is measured.
        let global = format!(
            "version = \"v1alpha9\"\nrole_repo_refresh_ttl_seconds = 86400\n\n[github]\nauth_forward = \"ignore\"\n\n[claude]\nauth_forward = \"ignore\"\n\n\
             [roles.bench]\ngit = \"file://{root}/role\"\ntrusted = true\n"
        );
        let workspace = format!(
            "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"bench\"\ndefault_agent = \"claude\"\n\n\
             [[mounts]]\nsrc = \"{root}/src\"\ndst = \"/workspace\"\n"
        );
        fs::write(self.root.join("config/config.toml"), global).expect("config.toml");
        fs::write(self.root.join("config/workspaces/bench.toml"), workspace).expect("bench.toml");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(&self.root);
        command
    }

    fn jackin(&self, words: &[&str]) -> String {
        output(self.command(JACKIN).args(words))
    }

    fn facts(&self) -> Facts {
        let installation = fs::read_to_string(self.root.join("state/data/installation")).expect("an installation");
        serde_json::from_value(serde_json::json!({
            "home": self.env["HOME"], "config_dir": self.env["JACKIN_CONFIG_DIR"], "jackin_home": self.env["JACKIN_HOME_DIR"],
            "cwd": self.env["JACKIN_HOME_DIR"], "uid": 0, "gid": 0, "arch": "amd64", "installation": installation.trim(), "version": "bench",
        }))
        .expect("BUG: these are all that facts need")
    }

    /// What a command sends, seen by a relay between it and the engine.
    fn reads_of(&self, words: &[&str]) -> Vec<String> {
        let path = self.root.join("relay.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, engine) = (seen.clone(), self.socket.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                relay(client, UnixStream::connect(&engine).expect("the engine"), log.clone());
            }
        });
        output(self.command(JACKIN).args(words).env("DOCKER_HOST", format!("unix://{}", path.display())));
        let seen = seen.lock().expect("not poisoned");
        seen.clone()
    }

    /// One connection each, all at once.
    fn get_all(&self, paths: &[&str]) {
        thread::scope(|scope| {
            for path in paths {
                scope.spawn(move || request(&self.socket, "GET", path));
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let images = self.command(JACKIN).args(["plan", "bench", "--offline", "--format", "json"]).output().ok();
        let plan: Option<Plan> = images.and_then(|out| serde_json::from_slice(&out.stdout).ok());
        let _ = self.command(JACKIN).args(["exile", "--yes", "--allow-loss"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        for change in plan.iter().flat_map(|p| &p.changes) {
            if let (Kind::DerivedImage | Kind::RoleImage, Some(spec)) = (change.address.kind, &change.desired) {
                request(&self.socket, "DELETE", &format!("/images/{}?force=1", spec.object_name()));
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The same things as a compose file. Its capsule sleeps.
struct Compose<'a> {
    place: &'a Place,
}

impl<'a> Compose<'a> {
    fn up(place: &'a Place) -> Compose<'a> {
        let plan: Plan = serde_json::from_str(&place.jackin(&["plan", "bench", "--format", "json"])).expect("jackin's own plan");
        let image = |kind: Kind| {
            let spec = plan.changes.iter().filter(|c| c.address.kind == kind).find_map(|c| c.desired.as_ref()).expect("it is in the plan");
            match spec {
                Spec::Sidecar(spec) => spec.image.clone(),
                other => other.object_name().to_owned(),
            }
        };
        let text = format!(
            "version: '2.4'\nnetworks: {{net: {{}}}}\nvolumes: {{certs: {{}}}}\nservices:\n\
             \x20 dind:\n    image: {}\n    privileged: true\n    networks: [net]\n    volumes: ['certs:/certs/client']\n\
             \x20   environment: {{DOCKER_TLS_CERTDIR: /certs, DOCKER_TLS_SAN: 'DNS:dind'}}\n\
             \x20 capsule:\n    image: {}\n    entrypoint: [sleep, infinity]\n    networks: [net]\n    depends_on: [dind]\n\
             \x20   volumes: ['certs:/jackin/run/dind-certs/client:ro', '{}:/workspace']\n    working_dir: /workspace\n",
            image(Kind::Sidecar),
            image(Kind::DerivedImage),
            place.root.join("src").display()
        );
        fs::write(place.root.join("docker-compose.yml"), text).expect("docker-compose.yml");
        let compose = Compose { place };
        compose.run(&["up", "-d"]);
        compose
    }

    fn run(&self, words: &[&str]) {
        output(self.place.command("docker-compose").args(words));
    }
}

impl Drop for Compose<'_> {
    fn drop(&mut self) {
        let mut down = self.place.command("docker-compose");
        let _ = down.args(["down", "-v", "-t", "0"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

// ---- small things ----

fn silent(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()), "{command:?} failed");
}

fn output(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(out.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn request(socket: &Path, method: &str, path: &str) {
    let mut stream = UnixStream::connect(socket).expect("the engine");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").expect("a request");
    stream.read_to_end(&mut Vec::with_capacity(64 * 1024)).expect("an answer");
}

/// Passes bytes both ways and notes the first line of every request.
fn relay(client: UnixStream, engine: UnixStream, log: Arc<Mutex<Vec<String>>>) {
    let (mut from_engine, mut to_client) = (engine.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_engine, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let (mut client, mut engine) = (client, engine);
        let mut buffer = [0; 64 * 1024];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..n]).lines().next().unwrap_or_default().to_owned();
            if line.ends_with("HTTP/1.1") {
                log.lock().expect("not poisoned").push(line.trim_end_matches(" HTTP/1.1").to_owned());
            }
            if engine.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = engine.shutdown(Shutdown::Write);
    });
}
