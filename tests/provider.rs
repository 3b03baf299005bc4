//! The live provider against a real engine. Only when asked for: JACKIN_TEST_DOCKER=1.
//!
//! Each test is its own jackin home with its own installation id and name prefix; what it made is removed even when it fails.

use futures_util::FutureExt;
use jackin::config::{Agent, AuthMode, Dind, NetworkMode, Profile};
use jackin::diagnostic::Diagnostic;
use jackin::facts::Facts;
use jackin::graph::{BuildContext, Graph, InstanceInfo, Resource};
use jackin::observed::{Observed, State};
use jackin::plan::{Action, Effect, Mode, Plan, PlanOptions, Reason, Scope, Step, plan};
use jackin::provider::endpoint::{Connection, connect_by_env};
use jackin::provider::live::{Capsules, Later, Live, LiveParts, Sources, Vault};
use jackin::provider::{Provider, StepError, Task};
use jackin::resource::*;
use secrecy::{SecretSlice, SecretString};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const KEY: &str = "w/default";

struct OneSecret;

impl Vault for OneSecret {
    fn value<'a>(&'a self, source: &'a SecretSource) -> Later<'a, Result<SecretString, Diagnostic>> {
        Box::pin(async move {
            match source {
                SecretSource::Host(name) if name == "TOKEN" => Ok("tok-123456".to_owned().into()),
                other => Err(Diagnostic::error("env.missing", "missing", String::from(other.clone()))),
            }
        })
    }
}

/// A capsule that sleeps cannot answer; what matters here is that it runs.
struct Sleepers;

impl Capsules for Sleepers {
    fn sessions<'a>(&'a self, _: &'a str) -> Later<'a, Option<u32>> {
        Box::pin(async { Some(0) })
    }

    fn ready<'a>(&'a self, _: &'a str, _: Option<&'a Path>) -> Later<'a, bool> {
        Box::pin(async { true })
    }
}

struct Files(Vec<u8>);

impl Sources for Files {
    fn build_lock<'a>(&'a self, _: &'a str) -> Later<'a, Result<Box<dyn std::any::Any>, Diagnostic>> {
        Box::pin(async { Ok(Box::new(()) as Box<dyn std::any::Any>) })
    }

    fn archive<'a>(&'a self, _: &'a str, _: &'a str) -> Later<'a, Result<Vec<u8>, Diagnostic>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
    fn check_out<'a>(&'a self, _: &'a RoleRepo) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async { Ok(()) })
    }
    fn download<'a>(&'a self, _: &'a Address, _: &'a Binary, _: &'a dyn Fn(String)) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async { Ok(()) })
    }
    fn credential<'a>(&'a self, _: Agent, file: &'a str) -> Later<'a, Result<Option<SecretSlice<u8>>, Diagnostic>> {
        Box::pin(async move { Ok(Some(format!("secret of {file}").into_bytes().into())) })
    }
    fn make_checkout<'a>(&'a self, _: &'a Checkout) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async { Ok(()) })
    }
    fn remove_checkout<'a>(&'a self, _: &'a Path) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async { Ok(()) })
    }
}

fn digest(value: &[u8]) -> String {
    sha256_hex([b"test key", value].concat())
}

/// One jackin home beside others on the engine.
struct World {
    folder: tempfile::TempDir,
    id: String,
    facts: Arc<Facts>,
    graph: RefCell<Graph>,
    contexts: RefCell<BTreeMap<Address, BuildContext>>,
    repo: RefCell<Vec<u8>>,
    buildkit: Cell<Option<bool>>,
    output: RefCell<Vec<String>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let filter = format!("label=jackin.installation={}", self.id);
        let list = |args: &[&str]| {
            let out = Command::new("docker").args(args).args(["-q", "--filter", &filter]).output().expect("docker");
            String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        for (what, remove) in [
            (["ps", "-a"], ["rm", "-fv"]),
            (["network", "ls"], ["network", "rm"]),
            (["volume", "ls"], ["volume", "rm"]),
            (["image", "ls"], ["image", "rm"]),
        ] {
            for id in list(&what) {
                let _ = Command::new("docker").args(remove).arg(id).output();
            }
        }
    }
}

fn asked() -> bool {
    let asked = std::env::var_os("JACKIN_TEST_DOCKER").is_some_and(|v| v == "1");
    if !asked {
        println!("not asked to run against an engine: set JACKIN_TEST_DOCKER=1");
    }
    asked
}

fn image(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn construct() -> String {
    image("JACKIN_CONSTRUCT_IMAGE", "jackin-local/construct:0.1-trixie")
}

/// Runs the test on one thread, as jackin itself does.
fn run(test: impl AsyncFnOnce(&World)) {
    if !asked() {
        return;
    }
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(std::panic::AssertUnwindSafe(test(&world)).catch_unwind());
    drop(world);
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().expect("docker");
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

impl World {
    fn new() -> Self {
        let mut random = [0u8; 4];
        getrandom::fill(&mut random).unwrap();
        let id = hex(&random);
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_string_lossy().into_owned();
        let facts: Facts = serde_json::from_value(serde_json::json!({
            "home": home, "config_dir": format!("{home}/.config/jackin"), "jackin_home": format!("{home}/.jackin"), "cwd": home,
            "uid": 1000, "gid": 1000, "arch": "amd64", "installation": id, "version": "0.1.0",
        }))
        .unwrap();
        let world = Self {
            folder,
            id,
            facts: Arc::new(facts),
            graph: RefCell::new(Graph::default()),
            contexts: RefCell::new(BTreeMap::new()),
            repo: RefCell::new(Vec::new()),
            buildkit: Cell::new(None),
            output: RefCell::new(Vec::new()),
        };
        world.declare();
        world
    }

    fn base(&self) -> String {
        format!("jk-t{}", self.id)
    }

    /// An instance whose parts use every declared field.
    fn declare(&self) {
        let base = self.base();
        let (sidecar, network, certs) = (format!("{base}-dind"), format!("{base}-net"), format!("{base}-dind-certs"));
        let plain = |text: &str| EnvEntry::Plain(text.to_owned());
        let bind = |source: String, readonly| MountSpec { kind: MountKind::Bind, source, readonly };
        let volume = |readonly| MountSpec { kind: MountKind::Volume, source: certs.clone(), readonly };
        std::fs::create_dir_all(self.folder.path().join("src.app")).unwrap();
        let home_path = format!("~/.jackin/data/{base}");
        let sockets = format!("~/.jackin/sockets/{base}");
        let home = Home {
            path: home_path.clone(),
            sockets: sockets.clone(),
            directories: vec![".claude".to_owned(), ".config/amp".to_owned()],
            agent_toml: AgentToml {
                role: "demo".to_owned(),
                workdir: "/workspace/app".to_owned(),
                agents: vec![Agent::Claude],
                hold: false,
                models: BTreeMap::from([(Agent::Claude, "opus".to_owned())]),
                auth_modes: BTreeMap::from([(Agent::Claude, AuthMode::Sync)]),
                provider_models: BTreeMap::new(),
                dirty_exit_policy: Some("keep".to_owned()),
            },
            auth: BTreeMap::from([(
                Agent::Claude,
                Handoff {
                    mode: AuthMode::Sync,
                    from: Some("~/.claude".to_owned()),
                    files: BTreeMap::from([("claude/credentials.json".to_owned(), digest(b"secret of claude/credentials.json"))]),
                },
            )]),
            record: InstanceRecord {
                instance_id: self.id.clone(),
                instance: KEY.to_owned(),
                workspace_name: Some("w".to_owned()),
                workspace_label: "w".to_owned(),
                role_key: "demo".to_owned(),
                role_display_name: "Demo".to_owned(),
                agent_runtime: Agent::Claude,
                role_source_git: "https://example.invalid/demo".to_owned(),
                role_source_ref: None,
                role_git_sha: "0123456".to_owned(),
                image_tag: construct(),
                role_container: base.clone(),
                dind_container: Some(sidecar.clone()),
                network: Some(network.clone()),
                certs_volume: Some(certs.clone()),
                declared: true,
                ad_hoc_mounts: Vec::new(),
                workdir: "/workspace".to_owned(),
            },
            uid: 1000,
            gid: 1000,
        };
        let dind = Sidecar {
            name: sidecar.clone(),
            image: image("JACKIN_DIND_IMAGE", "jackin-local/dind:bookworm"),
            tier: Dind::Privileged,
            privileged: true,
            network: network.clone(),
            env: BTreeMap::from([
                ("DOCKER_TLS_CERTDIR".to_owned(), plain("/certs")),
                ("DOCKER_TLS_SAN".to_owned(), plain(&format!("DNS:{sidecar}"))),
            ]),
            mounts: BTreeMap::from([("/certs/client".to_owned(), volume(false))]),
            owner: base.clone(),
        };
        let recipe = Recipe {
            version: "v1".to_owned(),
            manifest_version: "v1".to_owned(),
            role_git_sha: "0123456".to_owned(),
            role_source_ref: None,
            base_image: None,
            construct_image: construct(),
            generated_runtime_hash: "00".to_owned(),
            supported_agents: vec![Agent::Claude],
            agent_binaries: BTreeMap::new(),
            capsule_version: "0".to_owned(),
            capsule_digest: "00".to_owned(),
            hooks: BTreeMap::new(),
            plugins: Vec::new(),
            host_identity_strategy: "host-uid-owned-runtime-home-v1".to_owned(),
            host_uid: 1000,
        };
        let capsule = Capsule {
            name: base.clone(),
            image: construct(),
            recipe,
            argv: vec!["sleep".to_owned(), "1000".to_owned()],
            workdir: "/workspace/app".to_owned(),
            user: "1000:1000".to_owned(),
            network: network.clone(),
            network_mode: NetworkMode::Open,
            profile: Profile::Standard,
            env: BTreeMap::from([
                ("JACKIN".to_owned(), plain("1")),
                ("EMPTY".to_owned(), plain("")),
                ("WITH.DOT".to_owned(), plain("a=b\nc")),
                ("DOCKER_HOST".to_owned(), plain(&format!("tcp://{sidecar}:2376"))),
                (
                    "TOKEN".to_owned(),
                    EnvEntry::Secret(SecretEntry { from: SecretSource::Host("TOKEN".to_owned()), digest: Some(digest(b"tok-123456")) }),
                ),
            ]),
            mounts: BTreeMap::from([
                ("/jackin/state".to_owned(), bind(format!("{home_path}/state"), false)),
                ("/jackin/run".to_owned(), bind(sockets, false)),
                ("/home/agent/.claude".to_owned(), bind(format!("{home_path}/home/.claude"), false)),
                ("/var/lib/extrausers/passwd".to_owned(), bind("~/.jackin/extrausers/passwd".to_owned(), true)),
                ("/workspace/app".to_owned(), bind("~/src.app".to_owned(), false)),
                ("/jackin/run/dind-certs/client".to_owned(), volume(true)),
            ]),
            limits: Limits {
                memory: Some(512 << 20),
                memory_reservation: Some(256 << 20),
                cpus: Some(1.5),
                pids: Some(512),
                nofile: Some(2048),
            },
            cap_drop_all: true,
            cap_add: ["SETUID", "CHOWN", "KILL"].map(str::to_owned).to_vec(),
            no_new_privileges: true,
            read_only_root: true,
            tmpfs: ["/tmp", "/run", "/home/agent/.cache"].map(str::to_owned).to_vec(),
            sudo: false,
            role_key: "demo".to_owned(),
            display_name: "Demo".to_owned(),
            keep_awake: false,
            declared: true,
        };
        let image_of = |reference: &str| Spec::Image(Image { reference: reference.to_owned(), platform: "linux/amd64".to_owned() });
        let images = [dind.image.clone(), construct()].map(|reference| (Address::new(Kind::Image, &reference), image_of(&reference)));
        let at = |kind| Address::new(kind, KEY);
        let needs = |kinds: &[Kind], image: Option<&Address>| kinds.iter().map(|k| at(*k)).chain(image.cloned()).collect::<BTreeSet<_>>();
        let (dind_image, construct_image) = (images[0].0.clone(), images[1].0.clone());
        let mut graph = self.graph.borrow_mut();
        let mut add = |address, spec, depends_on| {
            graph.resources.insert(address, Resource { spec, depends_on, sources: BTreeMap::new() });
        };
        for (address, spec) in images {
            add(address, spec, BTreeSet::new());
        }
        add(at(Kind::Home), Spec::Home(Box::new(home)), BTreeSet::new());
        add(at(Kind::Network), Spec::Network(Network { name: network, internal: false, owner: base.clone() }), BTreeSet::new());
        add(at(Kind::Certs), Spec::Certs(Certs { name: certs, owner: base.clone() }), BTreeSet::new());
        add(at(Kind::Sidecar), Spec::Sidecar(dind), needs(&[Kind::Network, Kind::Certs], Some(&dind_image)));
        let all = [Kind::Home, Kind::Network, Kind::Certs, Kind::Sidecar];
        add(at(Kind::Capsule), Spec::Capsule(Box::new(capsule)), needs(&all, Some(&construct_image)));
        let info = InstanceInfo { workspace: "w".to_owned(), role: "demo".to_owned(), agent: "claude".to_owned(), container: base };
        graph.instances.insert(KEY.to_owned(), info);
    }

    /// Only these kinds stay declared.
    fn keep(&self, kinds: &[Kind]) {
        let mut graph = self.graph.borrow_mut();
        graph.resources.retain(|address, _| kinds.contains(&address.kind));
        let left: BTreeSet<Address> = graph.resources.keys().cloned().collect();
        for resource in graph.resources.values_mut() {
            resource.depends_on.retain(|d| left.contains(d));
        }
    }

    fn with_capsule(&self, edit: impl FnOnce(&mut Capsule)) {
        let mut graph = self.graph.borrow_mut();
        let Spec::Capsule(capsule) = &mut graph.resources.get_mut(&Address::new(Kind::Capsule, KEY)).unwrap().spec else { unreachable!() };
        edit(capsule);
    }

    /// A capsule alone, without a network of its own.
    fn lone_capsule(&self) {
        self.keep(&[Kind::Home, Kind::Network, Kind::Capsule]);
        self.with_capsule(|capsule| {
            capsule.mounts.remove("/jackin/run/dind-certs/client");
        });
    }

    async fn live(&self) -> Live {
        let mut env: BTreeMap<String, String> = std::env::vars().collect();
        env.retain(|name, _| name.starts_with("DOCKER") || name == "HOME" || name == "XDG_RUNTIME_DIR");
        let mut connection = connect_by_env(&env).await.unwrap();
        if let Some(buildkit) = self.buildkit.get() {
            connection.greeting.buildkit = buildkit;
        }
        self.live_on(connection)
    }

    fn live_on(&self, connection: Connection) -> Live {
        Live::new(LiveParts {
            facts: self.facts.clone(),
            connection: Some(connection),
            contexts: self.contexts.borrow().clone(),
            vault: Box::new(OneSecret),
            capsules: Box::new(Sleepers),
            sources: Box::new(Files(self.repo.borrow().clone())),
            digest: Arc::new(digest),
            now: Box::new(|| "2026-01-01T00:00:00Z".to_owned()),
        })
    }

    async fn observe(&self) -> Observed {
        let graph = self.graph.borrow().clone();
        self.live().await.observe(&graph, &Scope::Workspaces(vec!["w".to_owned()])).await.unwrap()
    }

    async fn plan(&self) -> Plan {
        self.plan_as(Mode::Launch).await
    }

    async fn plan_as(&self, mode: Mode) -> Plan {
        let mut options = PlanOptions::new(mode, "test", Scope::Workspaces(vec!["w".to_owned()]));
        options.purge = mode == Mode::Remove;
        let observed = self.observe().await;
        let graph = if mode == Mode::Remove { Graph::default() } else { self.graph.borrow().clone() };
        plan(&graph, &observed, &options)
    }

    async fn apply(&self, plan: &Plan) -> Result<(), StepError> {
        assert!(plan.blockers.is_empty(), "{:#?}", plan.blockers);
        let live = self.live().await;
        for step in &plan.steps {
            let spec = plan.changes.iter().find(|c| c.address == step.address).and_then(|c| c.desired.clone());
            let begun = Instant::now();
            let report = |line: String| self.output.borrow_mut().push(line);
            live.execute(&Task { step: step.clone(), spec }, &report).await?;
            println!("{:>6.1} ms  {}", begun.elapsed().as_secs_f64() * 1e3, step.id);
        }
        Ok(())
    }

    async fn converge(&self) {
        let plan = self.plan().await;
        self.apply(&plan).await.unwrap();
        self.assert_settled().await;
    }

    async fn assert_settled(&self) {
        let plan = self.plan().await;
        let open: Vec<_> = plan.changes.iter().filter(|c| c.action != Action::Reuse).collect();
        assert!(open.is_empty() && plan.steps.is_empty(), "{open:#?}");
    }

    /// Does one effect on one resource by itself.
    async fn execute(&self, kind: Kind, effect: Effect) -> Result<(), StepError> {
        let address = Address::new(kind, KEY);
        let spec = self.graph.borrow().resources.get(&address).map(|r| r.spec.clone());
        let step = Step { id: format!("{address}#{}", effect.verb()), address, effect, needs: Vec::new() };
        self.live().await.execute(&Task { step, spec }, &|line| self.output.borrow_mut().push(line)).await
    }

    async fn change(&self, kind: Kind) -> (Action, Vec<Reason>) {
        let plan = self.plan().await;
        let change = plan.changes.iter().find(|c| c.address == Address::new(kind, KEY)).unwrap();
        (change.action, change.reasons.clone())
    }

    /// The change of this kind is `action`, some reason's debug text has `part`; carrying it out settles everything.
    async fn mends(&self, kind: Kind, action: Action, part: &str) {
        let (is, reasons) = self.change(kind).await;
        assert_eq!(is, action, "{reasons:?}");
        assert!(reasons.iter().any(|r| format!("{r:?}").contains(part)), "{part}: {reasons:?}");
        self.converge().await;
    }
}

#[test]
fn a_fresh_instance_is_made_and_then_left_alone() {
    run(async |world| {
        let begun = Instant::now();
        world.converge().await;
        println!("fresh instance, one step after the other: {:?}", begun.elapsed());
        let live = world.live().await;
        let graph = world.graph.borrow().clone();
        let scope = Scope::Workspaces(vec!["w".to_owned()]);
        let mut times = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            live.observe(&graph, &scope).await.unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        println!("observe of one instance: median {:?}, least {:?}", times[10], times[0]);
        let begun = Instant::now();
        world.live().await;
        println!("connect: {:?}", begun.elapsed());

        let observed = world.observe().await;
        let text = serde_json::to_string(&observed).unwrap();
        assert!(!text.contains("tok-123456") && !text.contains("secret of"), "a credential in an observation");
        assert!(!text.contains(&world.facts.home), "the home folder in an observation");
        let sidecar = &observed.found(&Address::new(Kind::Sidecar, KEY))[0];
        assert!(sidecar.loss.docker_data && sidecar.state == State::Running);
        assert!(observed.found(&Address::new(Kind::Network, KEY))[0].in_use);
        let options = PlanOptions::new(Mode::Launch, "test", scope);
        let first = serde_json::to_string(&plan(&graph, &observed, &options)).unwrap();
        for _ in 0..20 {
            assert_eq!(serde_json::to_string(&world.plan().await).unwrap(), first);
        }

        // Four lists and one inspect each of two images and two containers, after one ping; every request has its own connection.
        let real = live.connection().expect("an engine").endpoint.url();
        if let Some(socket) = real.strip_prefix("unix://").map(str::to_owned) {
            let path = world.folder.path().join("counted.sock");
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counted = count.clone();
            tokio::spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let socket = socket.clone();
                    tokio::spawn(async move {
                        let mut far = tokio::net::UnixStream::connect(socket).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            });
            let env = BTreeMap::from([("DOCKER_HOST".to_owned(), format!("unix://{}", path.display()))]);
            let connection = connect_by_env(&env).await.unwrap();
            world.live_on(connection).observe(&graph, &Scope::Workspaces(vec!["w".to_owned()])).await.unwrap();
            assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1 + 4 + 2 + 2);
        }

        // Docker inside answers to a client with the volume's certificates.
        let name = format!("{}-dind", world.base());
        let inside = docker(&["exec", &name, "docker", "version", "--format", "{{.Server.Version}}"]);
        println!("docker in the sidecar: {inside}");

        let removal = world.plan_as(Mode::Remove).await;
        world.apply(&removal).await.unwrap();
        world.apply(&removal).await.unwrap();
        let left = world.observe().await;
        assert!(left.resources.keys().all(|a| !a.kind.per_instance()), "{:?}", left.resources.keys());
        assert!(!world.folder.path().join(".jackin/data").join(world.base()).exists());
    });
}

#[test]
fn each_drift_of_a_capsule_is_seen_and_mended() {
    run(async |world| {
        world.lone_capsule();
        world.converge().await;
        let base = world.base();
        let net = format!("{base}-net");

        docker(&["update", "--memory", "300m", "--memory-swap", "600m", &base]);
        world.mends(Kind::Capsule, Action::Update, "limits.memory").await;
        docker(&["update", "--memory", "900m", "--memory-swap", "-1", &base]);
        world.mends(Kind::Capsule, Action::Update, "limits.memory").await;
        docker(&["update", "--cpus", "0.25", "--pids-limit", "77", &base]);
        world.mends(Kind::Capsule, Action::Update, "limits.cpus").await;
        docker(&["update", "--pids-limit", "-1", &base]);
        world.mends(Kind::Capsule, Action::Update, "limits.pids").await;

        docker(&["rename", &base, &format!("{base}-moved")]);
        world.mends(Kind::Capsule, Action::Update, "name").await;
        docker(&["network", "disconnect", &net, &base]);
        world.mends(Kind::Capsule, Action::Update, "network").await;
        docker(&["network", "disconnect", &net, &base]);
        docker(&["network", "rm", &net]);
        world.mends(Kind::Network, Action::Create, "Missing").await;
        docker(&["pause", &base]);
        world.mends(Kind::Capsule, Action::Start, "paused").await;
        docker(&["kill", &base]);
        world.mends(Kind::Capsule, Action::Start, "exited with code 137").await;

        // Stopped, its network gone, and another one under the name made by a run that was killed before it went on.
        docker(&["kill", &base]);
        docker(&["network", "rm", &net]);
        world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
        let (action, _) = world.change(Kind::Capsule).await;
        println!("stopped beside a new network: {action:?}");
        world.converge().await;

        docker(&["rm", "-f", &base]);
        world.mends(Kind::Capsule, Action::Create, "Missing").await;

        world.with_capsule(|capsule| capsule.limits.memory = Some(400 << 20));
        world.mends(Kind::Capsule, Action::Update, "limits.memory").await;
    });
}

#[test]
fn limits_that_nobody_asked_for_are_lifted() {
    run(async |world| {
        world.lone_capsule();
        world.with_capsule(|capsule| capsule.limits = Limits::default());
        world.converge().await;
        docker(&["update", "--memory", "300m", "--memory-swap", "600m", "--pids-limit", "50", &world.base()]);
        world.mends(Kind::Capsule, Action::Update, "limits.memory").await;
        // A limit on processors stays for as long as the container lives.
        docker(&["update", "--cpus", "0.5", &world.base()]);
        world.mends(Kind::Capsule, Action::Replace, "limits.cpus").await;
    });
}

#[test]
fn homes_are_watched_as_well() {
    run(async |world| {
        world.keep(&[Kind::Home]);
        world.converge().await;
        let data = world.folder.path().join(".jackin/data").join(world.base());
        let sockets = world.folder.path().join(".jackin/sockets").join(world.base());
        println!("{}", std::fs::read_to_string(sockets.join("agent.toml")).unwrap());
        println!("{}", std::fs::read_to_string(data.join(".jackin/instance.json")).unwrap());
        println!("{}", std::fs::read_to_string(world.folder.path().join(".jackin/data/instances.json")).unwrap());
        assert_eq!(std::fs::read_to_string(data.join("claude/credentials.json")).unwrap(), "secret of claude/credentials.json");

        std::fs::write(data.join("claude/credentials.json"), "other").unwrap();
        world.mends(Kind::Home, Action::Update, "credentials.json").await;
        std::fs::write(sockets.join("agent.toml"), "role = 7").unwrap();
        world.mends(Kind::Home, Action::Update, "agent_toml.role").await;
        std::fs::remove_dir_all(data.join("home/.config")).unwrap();
        world.mends(Kind::Home, Action::Update, "directories").await;
        std::fs::remove_dir_all(&sockets).unwrap();
        world.mends(Kind::Home, Action::Update, "sockets").await;
        std::fs::remove_file(data.join(".jackin/instance.json")).unwrap();
        world.mends(Kind::Home, Action::Update, "record.instance_id").await;
        std::fs::remove_file(data.join(".jackin/spec.json")).unwrap();
        world.mends(Kind::Home, Action::Update, "LabelMissing").await;

        // A symlink that a container left behind is not followed.
        std::fs::remove_dir_all(data.join("claude")).unwrap();
        std::os::unix::fs::symlink("/tmp", data.join("claude")).unwrap();
        let error = world.execute(Kind::Home, Effect::WriteHome).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "host.unwritable");
        for (path, code) in [
            ("/etc", "host.not_ours"),
            ("~/.jackin/data", "host.not_ours"),
            ("~/.jackin/data/../x", "host.not_ours"),
            ("~/.jackin/data/x/home", "host.not_whole"),
        ] {
            let error = world.execute(Kind::Home, Effect::RemoveHome { path: path.to_owned() }).await.unwrap_err();
            assert_eq!(error.diagnostic.code, code, "{path}");
        }
    });
}

#[test]
fn strangers_are_seen_and_never_touched() {
    run(async |world| {
        world.lone_capsule();
        let base = world.base();
        let ours = format!("jackin.installation={}", world.id);
        let other = format!("jackin.installation=other-{}", world.id);
        let stray = docker(&["create", "--name", &base, "--label", &other, &construct(), "sleep", "1"]);
        let plan = world.plan().await;
        let blocked = plan.blockers.iter().find(|d| d.code == "plan.stranger").expect("a stranger in the plan");
        assert!(blocked.detail.contains("another jackin home made it"), "{blocked}");
        world.execute(Kind::Home, Effect::WriteHome).await.unwrap();
        world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
        let error = world.execute(Kind::Capsule, Effect::CreateContainer).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.name_conflict", "{}", error.diagnostic);
        docker(&["rm", "-f", &stray]);

        // A volume without any label.
        let certs = format!("{base}-dind-certs");
        docker(&["volume", "create", &certs]);
        let address = Address::new(Kind::Certs, KEY);
        let spec = Spec::Certs(Certs { name: certs.clone(), owner: base.clone() });
        world
            .graph
            .borrow_mut()
            .resources
            .insert(address.clone(), Resource { spec, depends_on: BTreeSet::new(), sources: BTreeMap::new() });
        let observed = world.observe().await;
        assert_eq!(observed.strangers[&address].why, "it has no jackin label");
        let error = world.execute(Kind::Certs, Effect::CreateVolume).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.name_conflict");
        docker(&["volume", "rm", &certs]);

        // A stranger in our network keeps it.
        let guest =
            docker(&["run", "-d", "--network", &format!("{base}-net"), "--name", &format!("{base}-guest"), &construct(), "sleep", "99"]);
        let id = docker(&["network", "inspect", "--format", "{{.Id}}", &format!("{base}-net")]);
        let error = world.execute(Kind::Network, Effect::RemoveNetwork { id: id.clone() }).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.network_in_use");
        docker(&["rm", "-f", &guest]);
        // One of ours does not.
        docker(&["run", "-d", "--label", &ours, "--network", &format!("{base}-net"), &construct(), "sleep", "99"]);
        world.execute(Kind::Network, Effect::RemoveNetwork { id }).await.unwrap();
    });
}

#[test]
fn two_networks_of_one_name_become_one() {
    run(async |world| {
        world.lone_capsule();
        let observed = world.observe().await;
        if observed.engine.as_ref().unwrap().api_version.as_str() > "1.43" {
            println!("this engine keeps names unique");
            return;
        }
        world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
        world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
        let address = Address::new(Kind::Network, KEY);
        assert_eq!(world.observe().await.found(&address).len(), 1, "CheckDuplicate");
        let spec = world.graph.borrow().resources[&address].spec.clone();
        let given = labels(&address, &spec, &world.id);
        let socket = "/var/run/docker.sock";
        let body = serde_json::json!({ "Name": spec.object_name(), "Labels": given }).to_string();
        let out = Command::new("curl")
            .args(["-sf", "--unix-socket", socket, "-H", "Content-Type: application/json", "-d", &body, "http://d/v1.41/networks/create"])
            .output()
            .unwrap();
        assert!(out.status.success());
        assert_eq!(world.observe().await.found(&address).len(), 2);
        world.converge().await;
        assert_eq!(world.observe().await.found(&address).len(), 1);
    });
}

#[test]
fn repeating_an_effect_ends_well() {
    run(async |world| {
        world.keep(&[Kind::Home, Kind::Network, Kind::Certs, Kind::Sidecar, Kind::Capsule]);
        let base = world.base();
        for _ in 0..2 {
            world.execute(Kind::Home, Effect::WriteHome).await.unwrap();
            world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
            world.execute(Kind::Certs, Effect::CreateVolume).await.unwrap();
            world.execute(Kind::Sidecar, Effect::CreateContainer).await.unwrap();
            let name = format!("{base}-dind");
            world.execute(Kind::Sidecar, Effect::StartContainer { name }).await.unwrap();
            let begun = Instant::now();
            world.execute(Kind::Sidecar, Effect::AwaitReady).await.unwrap();
            println!("sidecar ready {:?} after its start", begun.elapsed());
            world.execute(Kind::Capsule, Effect::CreateContainer).await.unwrap();
            world.execute(Kind::Capsule, Effect::StartContainer { name: base.clone() }).await.unwrap();
        }
        let id = docker(&["inspect", "--format", "{{.Id}}", &base]);
        for _ in 0..2 {
            world.execute(Kind::Capsule, Effect::RenameContainer { id: id.clone(), to: format!("{base}-x") }).await.unwrap();
            let connect = Effect::ConnectNetwork { id: id.clone(), network: format!("{base}-net") };
            world.execute(Kind::Capsule, connect).await.unwrap();
            world.execute(Kind::Capsule, Effect::LimitContainer { id: id.clone() }).await.unwrap();
            world.execute(Kind::Capsule, Effect::UnpauseContainer { id: id.clone() }).await.unwrap();
        }
        for _ in 0..2 {
            world.execute(Kind::Capsule, Effect::RemoveContainer { id: id.clone() }).await.unwrap();
            world.execute(Kind::Sidecar, Effect::RemoveContainer { id: format!("{base}-dind") }).await.unwrap();
            world.execute(Kind::Network, Effect::RemoveNetwork { id: format!("{base}-net") }).await.unwrap();
            world.execute(Kind::Certs, Effect::RemoveVolume { name: format!("{base}-dind-certs") }).await.unwrap();
            world.execute(Kind::Home, Effect::RemoveHome { path: format!("~/.jackin/data/{base}") }).await.unwrap();
        }
    });
}

#[test]
fn an_early_end_is_told_with_the_last_lines() {
    run(async |world| {
        world.lone_capsule();
        world.with_capsule(|capsule| capsule.argv = ["sh", "-c", "echo cannot find my hat; exit 3"].map(str::to_owned).to_vec());
        world.execute(Kind::Home, Effect::WriteHome).await.unwrap();
        world.execute(Kind::Network, Effect::CreateNetwork).await.unwrap();
        world.execute(Kind::Capsule, Effect::CreateContainer).await.unwrap();
        world.execute(Kind::Capsule, Effect::StartContainer { name: world.base() }).await.unwrap();
        docker(&["wait", &world.base()]);
        let error = world.execute(Kind::Capsule, Effect::AwaitReady).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.exited_early");
        assert!(error.diagnostic.detail.contains("exited with code 3") && error.diagnostic.detail.contains("hat"), "{}", error.diagnostic);

        world.with_capsule(|capsule| capsule.image = "jackin-local/no-such-image:1".to_owned());
        docker(&["rm", "-f", &world.base()]);
        let error = world.execute(Kind::Capsule, Effect::CreateContainer).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.image_missing", "{}", error.diagnostic);
        world.with_capsule(|capsule| {
            capsule.image = construct();
            capsule.mounts.get_mut("/workspace/app").unwrap().source = "~/nowhere".to_owned();
        });
        let error = world.execute(Kind::Capsule, Effect::CreateContainer).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.mount_missing", "{}", error.diagnostic);

        let address = Address::new(Kind::Image, "x");
        let image = Image { reference: "jackin-local/no-such-image:1".to_owned(), platform: "linux/amd64".to_owned() };
        let step = Step { id: "x#pull".to_owned(), address, effect: Effect::Pull, needs: Vec::new() };
        let error = world.live().await.execute(&Task { step, spec: Some(Spec::Image(image)) }, &|_| {}).await.unwrap_err();
        assert!(error.diagnostic.help.unwrap().contains("./dev setup"));
    });
}

fn builds(world: &World, buildkit: bool) -> Address {
    world.buildkit.set(Some(buildkit));
    world.keep(&[]);
    let address = Address::new(Kind::RoleImage, "demo");
    let spec = RoleImage {
        reference: format!("jk_t{}:0123456", world.id),
        role: "demo".to_owned(),
        role_git_sha: "0123456".to_owned(),
        dockerfile: "Dockerfile".to_owned(),
        construct_image: construct(),
        construct_override: None,
    };
    let mut graph = world.graph.borrow_mut();
    graph.instances.clear();
    graph
        .resources
        .insert(address.clone(), Resource { spec: Spec::RoleImage(spec), depends_on: BTreeSet::new(), sources: BTreeMap::new() });
    let mut repo = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    repo.append_data(&mut header, "greeting", &b"hello"[..]).unwrap();
    *world.repo.borrow_mut() = repo.into_inner().unwrap();
    address
}

fn context(dockerfile: String) -> BuildContext {
    let tool = jackin::graph::ContextFile::Text { text: "#!/bin/sh\necho from the tool\n".to_owned(), executable: true };
    BuildContext {
        dockerfile,
        dockerfile_path: ".jackin-runtime/BaseDockerfile".to_owned(),
        files: BTreeMap::from([(".jackin-runtime/tool".to_owned(), tool)]),
        repo: Some(jackin::graph::RepoFiles { cache: "/cache".to_owned(), commit: "0".repeat(40) }),
        build_args: BTreeMap::from([("WHO".to_owned(), "world".to_owned())]),
        from_scratch: false,
    }
}

fn built(buildkit: bool) {
    run(async |world| {
        let address = builds(world, buildkit);
        // Its own cache key: what an earlier run built says nothing any more.
        let from = format!("FROM {}\nENV RUN={}\nARG WHO\nCOPY greeting .jackin-runtime/tool /opt/\n", construct(), world.id);
        let good = format!("{from}RUN cat /opt/greeting && echo \" $WHO\" && /opt/tool\n");
        world.contexts.borrow_mut().insert(address.clone(), context(good));
        let begun = Instant::now();
        let options = PlanOptions::new(Mode::PrewarmOnly, "test", Scope::All);
        let graph = world.graph.borrow().clone();
        let made = plan(&graph, &world.observe().await, &options);
        assert_eq!(made.steps.len(), 1);
        world.apply(&made).await.unwrap();
        println!("built in {:?}", begun.elapsed());
        let output = world.output.borrow().join("\n");
        assert!(output.contains("hello world") && output.contains("from the tool"), "{output}");
        let again = plan(&graph, &world.observe().await, &options);
        assert!(again.steps.is_empty(), "{:#?}", again.changes);

        world.output.borrow_mut().clear();
        let failing = context(format!("{from}RUN echo the hat is lost && exit 5\n"));
        // The image is there already; only an order to build it from scratch builds it again.
        world.contexts.borrow_mut().insert(address.clone(), BuildContext { from_scratch: true, ..failing });
        let step = Step { id: "b".to_owned(), address: address.clone(), effect: Effect::Build, needs: Vec::new() };
        let task = Task { step, spec: Some(graph.resources[&address].spec.clone()) };
        let error = world.live().await.execute(&task, &|_| {}).await.unwrap_err();
        println!("{}", error.diagnostic.detail);
        assert_eq!(error.diagnostic.code, "docker.build_failed", "{}", error.diagnostic);
        assert!(error.diagnostic.detail.contains("the hat is lost"), "{}", error.diagnostic);

        let missing = jackin::graph::ContextFile::Program { path: "/no/such/program".to_owned() };
        world.contexts.borrow_mut().get_mut(&address).unwrap().files.insert("program".to_owned(), missing);
        let error = world.live().await.execute(&task, &|_| {}).await.unwrap_err();
        assert_eq!(error.diagnostic.code, "docker.context_unreadable", "{}", error.diagnostic);
    });
}

#[test]
fn an_image_is_built_by_the_classic_builder() {
    built(false);
}

#[test]
fn an_image_is_built_by_buildkit() {
    built(true);
}

#[test]
fn a_kept_sidecar_is_adopted_and_found_again() {
    run(async |world| {
        let kept = format!("jk-prewarm-dind-{}", world.id);
        let (name, net, certs) = (format!("{kept}-dind"), format!("{kept}-net"), format!("{kept}-certs"));
        let Spec::Sidecar(mut sidecar) = world.graph.borrow().resources[&Address::new(Kind::Sidecar, KEY)].spec.clone() else {
            unreachable!()
        };
        sidecar.name.clone_from(&name);
        sidecar.network.clone_from(&net);
        sidecar.mounts.get_mut("/certs/client").unwrap().source.clone_from(&certs);
        let san = format!("DNS:{name}");
        sidecar.env.insert("DOCKER_TLS_SAN".to_owned(), EnvEntry::Plain(san.clone()));
        let label = |spec: Spec| {
            let labels = labels(&Address::pool(spec.kind(), &world.id), &spec, &world.id);
            assert!(!labels.contains_key("jackin.address"));
            labels.into_iter().flat_map(|(k, v)| ["--label".to_owned(), format!("{k}={v}")]).collect::<Vec<_>>()
        };
        let make = |words: &[&str], spec: Spec, rest: &[&str]| {
            let labels = label(spec);
            let words: Vec<&str> = words.iter().copied().chain(labels.iter().map(String::as_str)).chain(rest.iter().copied()).collect();
            docker(&words)
        };
        make(&["network", "create"], Spec::Network(Network { name: net.clone(), internal: false, owner: kept.clone() }), &[&net]);
        make(&["volume", "create"], Spec::Certs(Certs { name: certs.clone(), owner: kept.clone() }), &[&certs]);
        let volume = format!("{certs}:/certs/client");
        let env = format!("DOCKER_TLS_SAN={san}");
        let words =
            ["run", "-d", "--privileged", "--name", &name, "--network", &net, "-v", &volume, "-e", &env, "-e", "DOCKER_TLS_CERTDIR=/certs"];
        make(&words, Spec::Sidecar(sidecar.clone()), &[&sidecar.image]);
        // Nobody takes over what does not answer yet.
        docker(&["exec", &name, "sh", "-c", "until docker version >/dev/null 2>&1; do sleep 0.05; done"]);

        assert_eq!(world.observe().await.pool.len(), 1);
        let made = world.plan().await;
        let adopted = made.changes.iter().filter(|c| c.action == Action::Adopt).count();
        assert_eq!(adopted, 3, "{:#?}", made.changes);
        world.apply(&made).await.unwrap();
        let observed = world.observe().await;
        assert!(observed.pool.is_empty());
        for (kind, name) in [(Kind::Network, &net), (Kind::Certs, &certs), (Kind::Sidecar, &name)] {
            let found = observed.found(&Address::new(kind, KEY));
            assert_eq!(found.iter().map(|f| &f.name).collect::<Vec<_>>(), [name], "{kind}");
        }
        let gone = world.execute(Kind::Sidecar, Effect::Claim { name: "jk-no-such".to_owned() }).await.unwrap_err();
        assert_eq!(gone.diagnostic.code, "docker.missing");
    });
}

#[test]
fn an_engine_behind_tls() {
    run(async |world| {
        if std::env::var("DOCKER_HOST").is_ok_and(|host| host != "unix:///var/run/docker.sock") {
            println!("addresses of containers may lead elsewhere on an engine that is not this host's own");
            return;
        }
        for kind in [Kind::Network, Kind::Certs, Kind::Sidecar] {
            world
                .execute(
                    kind,
                    match kind {
                        Kind::Network => Effect::CreateNetwork,
                        Kind::Certs => Effect::CreateVolume,
                        _ => Effect::CreateContainer,
                    },
                )
                .await
                .unwrap();
        }
        let name = format!("{}-dind", world.base());
        world.execute(Kind::Sidecar, Effect::StartContainer { name: name.clone() }).await.unwrap();
        world.execute(Kind::Sidecar, Effect::AwaitReady).await.unwrap();
        let certs = world.folder.path().join("certs");
        docker(&["cp", &format!("{name}:/certs/client"), &certs.to_string_lossy()]);
        let ip = docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &name]);
        let env = |host: &str| {
            let pairs = [("DOCKER_HOST", host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", certs.to_str().unwrap())];
            pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>()
        };
        // The certificate names it localhost; a plain relay makes it so.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = format!("{ip}:2376");
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let connection = connect_by_env(&env(&format!("tcp://localhost:{port}"))).await.unwrap();
        let begun = Instant::now();
        let images = connection.docker.inspect_image("none/such").await;
        println!("a call over TLS: {:?}", begun.elapsed());
        assert!(images.unwrap_err().to_string().contains("404"));
        assert!(!connection.shares_kernel());
        // A name that its certificate does not have, and a client whom nobody vouches for.
        let error = connect_by_env(&env(&format!("tcp://{ip}:2376"))).await.err();
        println!("by address: {:?}", error.map(|e| e.to_string()));
        let ca = docker(&["exec", &name, "cat", "/certs/server/cert.pem"]);
        std::fs::write(certs.join("ca.pem"), ca + "\n").unwrap();
        let error = connect_by_env(&env(&format!("tcp://localhost:{port}"))).await.err().expect("an unknown authority");
        assert_eq!(error.code, "docker.tls", "{error}");
    });
}

#[test]
fn an_engine_behind_ssh() {
    if !asked() {
        return;
    }
    const INNER: &str = "JACKIN_TEST_SSH_INNER";
    if std::env::var_os(INNER).is_none() {
        // An `ssh` that stays on this machine. The search path is the process's own, so it takes another process.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ssh");
        std::fs::write(&program, "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nunset DOCKER_HOST\nexec \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_engine_behind_ssh", "--nocapture"])
            .env("PATH", path)
            .env(INNER, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = BTreeMap::from([("DOCKER_HOST".to_owned(), "ssh://me@far:2222".to_owned())]);
        let connection = connect_by_env(&env).await.unwrap();
        assert!(!connection.shares_kernel());
        let calls = (0..4).map(|_| connection.docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>));
        for answer in futures_util::future::join_all(calls).await {
            answer.unwrap();
        }
        let env = BTreeMap::from([("DOCKER_HOST".to_owned(), "ssh://far/no/such.sock".to_owned())]);
        let error = connect_by_env(&env).await.err().expect("no engine there");
        assert_eq!(error.code, "docker.unreachable", "{error}");
    });
}

#[test]
fn no_engine_is_told_plainly() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let silent = folder.path().join("s.sock");
    for (host, code) in [
        (format!("unix://{}", silent.display()), "docker.unreachable"),
        ("tcp://127.0.0.1:1".to_owned(), "docker.unreachable"),
        ("npipe://x".to_owned(), "docker.endpoint"),
    ] {
        let env = BTreeMap::from([("DOCKER_HOST".to_owned(), host)]);
        let error = runtime.block_on(connect_by_env(&env)).err().expect("nothing answers there");
        assert_eq!(error.code, code);
        assert!(error.help.is_some());
    }
}
