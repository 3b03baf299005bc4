//! What converge.rs and properties.rs share: graphs as the graph builder makes them, and an apply loop that runs startable steps
//! in any order. The loop is small on purpose; a test that wants the real one replaces `apply`.

#![allow(dead_code, reason = "each test program uses its own part")]

use futures_util::FutureExt;
use jackin::config::{Agent, AuthMode, Dind, Isolation, NetworkMode, Profile};
use jackin::graph::{Graph, InstanceInfo, Resource};
use jackin::observed::Observed;
use jackin::plan::{Mode, Plan, PlanOptions, Scope, plan};
use jackin::provider::memory::World;
use jackin::provider::{Provider, Task};
use jackin::resource::*;
use jackin::walk::{Limits as WalkLimits, Outcome, Walk};
use std::collections::{BTreeMap, BTreeSet};

pub const CONSTRUCT: &str = "ghcr.io/jackin/construct:1";
pub const DIND: &str = "docker:29-dind";
pub const CLAUDE: &str = "~/.jackin/cache/agent-binaries/claude/2.0/claude";
pub const CAPSULE: &str = "~/.jackin/cache/capsule/0.1.0/jackin-capsule";
pub const SOURCE: &str = "/src/app";

/// One instance that somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    pub workspace: String,
    pub name: String,
    pub role: String,
    pub commit: String,
    pub profile: Profile,
    pub dind: Dind,
    pub network_mode: NetworkMode,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
    pub cpus: Option<f64>,
    pub env: BTreeMap<String, String>,
    pub token: Option<String>,
    pub isolated: bool,
    pub declared: bool,
}

impl Want {
    pub fn new(workspace: &str, name: &str, role: &str) -> Self {
        Self {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            role: role.to_owned(),
            commit: sha256_hex(role)[..40].to_owned(),
            profile: Profile::Compat,
            dind: Dind::Privileged,
            network_mode: NetworkMode::Open,
            memory: None,
            pids: None,
            cpus: None,
            env: BTreeMap::new(),
            token: None,
            isolated: false,
            declared: true,
        }
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.workspace, self.name)
    }

    pub fn container(&self) -> String {
        format!("jk-{}-{}-{}", &sha256_hex(self.key())[..8], self.workspace, self.role)
    }

    pub fn at(&self, kind: Kind) -> Address {
        Address::new(kind, self.key())
    }

    pub fn home(&self) -> String {
        format!("~/.jackin/data/{}", self.container())
    }

    pub fn checkout(&self) -> String {
        format!("{}/isolated/workspace", self.home())
    }

    fn has_sidecar(&self) -> bool {
        self.dind != Dind::None
    }

    fn has_network(&self) -> bool {
        self.has_sidecar() || self.network_mode != NetworkMode::None
    }
}

pub fn new_world() -> World {
    World::new("ours", [SOURCE])
}

/// The graph of these instances. Names of Docker objects come from the instance's record where there is one, as the graph
/// builder does it; that is how an adopted sidecar stays the instance's own.
pub fn graph(world: &World, wants: &[Want]) -> Graph {
    let mut graph = Graph::default();
    for want in wants {
        add_instance(&mut graph, world.record(&want.home()), want);
    }
    graph
}

fn put(graph: &mut Graph, address: Address, spec: Spec, depends_on: impl IntoIterator<Item = Address>) {
    let depends_on: BTreeSet<Address> = depends_on.into_iter().collect();
    graph.resources.insert(address, Resource { spec, depends_on, sources: BTreeMap::new() });
}

fn recipe(want: &Want) -> Recipe {
    Recipe {
        version: "v1".to_owned(),
        manifest_version: "v1".to_owned(),
        role_git_sha: want.commit[..7].to_owned(),
        role_source_ref: None,
        base_image: None,
        construct_image: CONSTRUCT.to_owned(),
        generated_runtime_hash: sha256_hex("runtime"),
        supported_agents: vec![Agent::Claude],
        agent_binaries: BTreeMap::from([(Agent::Claude, sha256_hex("claude"))]),
        capsule_version: "0.1.0".to_owned(),
        capsule_digest: sha256_hex("capsule"),
        hooks: BTreeMap::new(),
        plugins: Vec::new(),
        host_identity_strategy: "host-uid".to_owned(),
        host_uid: 1000,
    }
}

/// What several instances of a role share; returns the repository, the derived image and its reference.
fn add_role(graph: &mut Graph, want: &Want) -> (Address, Address, String) {
    let platform = || "linux/amd64".to_owned();
    let construct = Address::new(Kind::Image, CONSTRUCT);
    put(graph, construct.clone(), Spec::Image(Image { reference: CONSTRUCT.to_owned(), platform: platform() }), []);
    let binary = |name: &str, path: &str| Binary {
        download: None,
        origin: Origin::Cache,
        version: None,
        digest: Some(sha256_hex(name)),
        path: Some(path.to_owned()),
        executable: true,
    };
    let claude = Address::new(Kind::AgentBinary, "claude");
    put(graph, claude.clone(), Spec::AgentBinary(binary("claude", CLAUDE)), []);
    let capsule = Address::new(Kind::CapsuleBinary, "jackin-capsule");
    put(graph, capsule.clone(), Spec::CapsuleBinary(binary("capsule", CAPSULE)), []);
    let repo = Address::new(Kind::RoleRepo, &want.role);
    let spec = RoleRepo {
        url: format!("https://git.example/{}.git", want.role),
        branch: None,
        commit: want.commit.clone(),
        path: format!("~/.jackin/roles/{}", want.role),
    };
    put(graph, repo.clone(), Spec::RoleRepo(spec), []);
    let role_image = Address::new(Kind::RoleImage, &want.role);
    let base = format!("jk_{}__base:{}", want.role, &want.commit[..7]);
    let spec = RoleImage {
        reference: base.clone(),
        role: want.role.clone(),
        role_git_sha: want.commit[..7].to_owned(),
        dockerfile: "Dockerfile".to_owned(),
        construct_image: CONSTRUCT.to_owned(),
        construct_override: None,
    };
    put(graph, role_image.clone(), Spec::RoleImage(spec), [construct, repo.clone()]);
    let derived = Address::new(Kind::DerivedImage, &want.role);
    let reference = format!("jk_{}:{}", want.role, &want.commit[..7]);
    let spec = DerivedImage { reference: reference.clone(), role: want.role.clone(), base, recipe: recipe(want) };
    put(graph, derived.clone(), Spec::DerivedImage(Box::new(spec)), [role_image, repo.clone(), claude, capsule]);
    (repo, derived, reference)
}

fn mount(kind: MountKind, source: impl Into<String>) -> MountSpec {
    MountSpec { kind, source: source.into(), readonly: false }
}

fn plain(text: impl Into<String>) -> EnvEntry {
    EnvEntry::Plain(text.into())
}

fn add_instance(graph: &mut Graph, record: Option<InstanceRecord>, want: &Want) {
    let (repo, derived, image) = add_role(graph, want);
    let container = want.container();
    let kept =
        |of: fn(InstanceRecord) -> Option<String>, own: &str| record.clone().and_then(of).unwrap_or_else(|| format!("{container}{own}"));
    let sidecar = want.has_sidecar().then(|| kept(|r| r.dind_container, "-dind"));
    let network = want.has_network().then(|| kept(|r| r.network, "-net"));
    let certs = want.has_sidecar().then(|| kept(|r| r.certs_volume, "-dind-certs"));
    let owner = || container.clone();
    let mut needs = vec![derived];

    let sockets = format!("~/.jackin/sockets/{container}");
    let home = Home {
        path: want.home(),
        sockets: sockets.clone(),
        directories: vec![".claude".to_owned()],
        agent_toml: AgentToml {
            role: want.role.clone(),
            workdir: "/workspace".to_owned(),
            agents: vec![Agent::Claude],
            hold: false,
            models: BTreeMap::new(),
            auth_modes: BTreeMap::from([(Agent::Claude, AuthMode::Sync)]),
            provider_models: BTreeMap::new(),
            dirty_exit_policy: None,
        },
        auth: BTreeMap::from([(
            Agent::Claude,
            Handoff {
                mode: AuthMode::Sync,
                from: Some("~/.claude".to_owned()),
                files: BTreeMap::from([("claude/credentials".to_owned(), "keyed:1".to_owned())]),
            },
        )]),
        record: InstanceRecord {
            instance_id: sha256_hex(want.key())[..8].to_owned(),
            instance: want.key(),
            workspace_name: Some(want.workspace.clone()),
            workspace_label: want.workspace.clone(),
            role_key: want.role.clone(),
            role_display_name: want.role.clone(),
            agent_runtime: Agent::Claude,
            role_source_git: format!("https://git.example/{}.git", want.role),
            role_source_ref: None,
            role_git_sha: want.commit[..7].to_owned(),
            image_tag: image.clone(),
            role_container: container.clone(),
            dind_container: sidecar.clone(),
            network: network.clone(),
            certs_volume: certs.clone(),
            declared: want.declared,
            ad_hoc_mounts: Vec::new(),
            workdir: "/workspace".to_owned(),
        },
        uid: 1000,
        gid: 1000,
    };
    needs.push(want.at(Kind::Home));
    put(graph, want.at(Kind::Home), Spec::Home(Box::new(home)), [repo]);

    let mut mounts = BTreeMap::from([
        ("/jackin/state".to_owned(), mount(MountKind::Bind, format!("{}/state", want.home()))),
        ("/jackin/run".to_owned(), mount(MountKind::Bind, sockets)),
    ]);
    if want.isolated {
        let at = Address::new(Kind::Checkout, format!("{}:/workspace", want.key()));
        let spec = Checkout {
            repo: SOURCE.to_owned(),
            mode: Isolation::Worktree,
            branch: format!("jackin/scratch/{container}"),
            path: want.checkout(),
        };
        put(graph, at.clone(), Spec::Checkout(spec), []);
        mounts.insert("/workspace".to_owned(), mount(MountKind::Bind, want.checkout()));
        needs.push(at);
    } else {
        mounts.insert("/workspace".to_owned(), mount(MountKind::Bind, SOURCE));
    }
    let mut env: BTreeMap<String, EnvEntry> = want.env.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    env.insert("JACKIN".to_owned(), plain("1"));
    if let Some(token) = &want.token {
        let secret = SecretEntry { from: SecretSource::Host("GH_TOKEN".to_owned()), digest: Some(format!("keyed:{token}")) };
        env.insert("GH_TOKEN".to_owned(), EnvEntry::Secret(secret));
    }
    if let Some(network) = &network {
        let spec = Network { name: network.clone(), internal: want.profile == Profile::Locked && !want.has_sidecar(), owner: owner() };
        put(graph, want.at(Kind::Network), Spec::Network(spec), []);
        needs.push(want.at(Kind::Network));
    }
    if let (Some(sidecar), Some(certs), Some(network)) = (&sidecar, &certs, &network) {
        put(graph, want.at(Kind::Certs), Spec::Certs(Certs { name: certs.clone(), owner: owner() }), []);
        let image = Address::new(Kind::Image, DIND);
        put(graph, image.clone(), Spec::Image(Image { reference: DIND.to_owned(), platform: "linux/amd64".to_owned() }), []);
        let spec = sidecar_spec(sidecar, network, certs, want.dind, &container);
        put(graph, want.at(Kind::Sidecar), Spec::Sidecar(spec), [image, want.at(Kind::Network), want.at(Kind::Certs)]);
        needs.extend([want.at(Kind::Certs), want.at(Kind::Sidecar)]);
        env.insert("DOCKER_HOST".to_owned(), plain(format!("tcp://{sidecar}:2376")));
        mounts.insert("/jackin/run/dind-certs/client".to_owned(), mount(MountKind::Volume, certs));
    }
    let spec = jackin::resource::Capsule {
        name: container.clone(),
        image,
        recipe: recipe(want),
        argv: vec!["claude".to_owned()],
        workdir: "/workspace".to_owned(),
        user: "1000:1000".to_owned(),
        network: network.unwrap_or_else(|| "none".to_owned()),
        network_mode: want.network_mode,
        profile: want.profile,
        env,
        mounts,
        limits: Limits { memory: want.memory, pids: want.pids, cpus: want.cpus, ..Limits::default() },
        cap_drop_all: want.profile <= Profile::Hardened,
        cap_add: if want.profile <= Profile::Hardened { vec!["CHOWN".to_owned()] } else { Vec::new() },
        no_new_privileges: want.profile != Profile::Compat,
        read_only_root: want.profile <= Profile::Hardened,
        tmpfs: if want.profile <= Profile::Hardened { vec!["/tmp".to_owned()] } else { Vec::new() },
        sudo: want.profile == Profile::Compat,
        role_key: want.role.clone(),
        display_name: want.role.clone(),
        keep_awake: false,
        declared: want.declared,
    };
    put(graph, want.at(Kind::Capsule), Spec::Capsule(Box::new(spec)), needs);
    let info = InstanceInfo { workspace: want.workspace.clone(), role: want.role.clone(), agent: "claude".to_owned(), container };
    graph.instances.insert(want.key(), info);
}

pub fn sidecar_spec(name: &str, network: &str, certs: &str, tier: Dind, owner: &str) -> Sidecar {
    Sidecar {
        name: name.to_owned(),
        image: DIND.to_owned(),
        tier,
        privileged: tier == Dind::Privileged,
        network: network.to_owned(),
        env: BTreeMap::from([
            ("DOCKER_TLS_CERTDIR".to_owned(), plain("/certs")),
            ("DOCKER_TLS_SAN".to_owned(), plain(format!("DNS:{name}"))),
        ]),
        mounts: BTreeMap::from([("/certs/client".to_owned(), mount(MountKind::Volume, certs))]),
        owner: owner.to_owned(),
    }
}

pub fn launch() -> PlanOptions {
    PlanOptions::new(Mode::Launch, "apply", Scope::All)
}

pub fn eject() -> PlanOptions {
    PlanOptions::new(Mode::Remove, "eject", Scope::All)
}

pub fn observe(world: &World, graph: &Graph, scope: &Scope) -> Observed {
    world.observe(graph, scope).now_or_never().expect("the world in memory answers at once").expect("it always answers")
}

/// Looks and plans.
pub fn plan_of(world: &World, graph: &Graph, options: &PlanOptions) -> Plan {
    plan(graph, &observe(world, graph, &options.scope), options)
}

/// xorshift; 0 means: always the first.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        if self.0 == 0 {
            return 0;
        }
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    pub done: usize,
    /// With what the provider said.
    pub failed: Vec<String>,
    pub skipped: usize,
}

impl Applied {
    pub fn well(&self) -> bool {
        self.failed.is_empty() && self.skipped == 0
    }
}

/// Runs a plan; of the steps that may run, the dice choose which ends next. Stops dead after `at_most` steps or when killed.
pub fn apply(world: &World, plan: &Plan, dice: &mut Dice, at_most: usize) -> Applied {
    let specs: BTreeMap<&Address, &Spec> = plan.changes.iter().filter_map(|c| Some((&c.address, c.desired.as_ref()?))).collect();
    let mut walk = Walk::new(plan.steps.clone(), WalkLimits::default());
    let mut running = Vec::new();
    let mut out = Applied::default();
    loop {
        running.extend(walk.startable());
        if running.is_empty() {
            assert!(walk.finished(), "nothing runs, yet the walk is not finished");
            return out;
        }
        if out.done + out.failed.len() == at_most || world.killed() {
            return out;
        }
        let step = running.remove(dice.below(running.len()));
        let task = Task { spec: specs.get(&step.address).map(|s| (*s).clone()), step };
        let attempt = || world.execute(&task, &|_| ()).now_or_never().expect("the world in memory answers at once");
        let result = match attempt() {
            Err(error) if error.transient => attempt(),
            result => result,
        };
        match result {
            Ok(()) => {
                out.done += 1;
                walk.complete(&task.step.id, Outcome::Done);
            }
            Err(error) => {
                out.failed.push(format!("{}: {}", task.step.id, error.diagnostic.detail));
                out.skipped += walk.complete(&task.step.id, Outcome::Failed).len();
            }
        }
    }
}

/// Everything but reuse, as `kind action` lines.
pub fn summary(plan: &Plan) -> String {
    let mut lines: Vec<String> =
        plan.changes.iter().filter(|c| !c.is_reuse()).map(|c| format!("{} {}", c.address.kind, c.action.as_str())).collect();
    lines.sort();
    lines.join(", ")
}

/// Nothing to do, and every change says so.
#[track_caller]
pub fn assert_empty(plan: &Plan) {
    let busy: Vec<_> = plan.changes.iter().filter(|c| !c.is_reuse()).map(|c| (c.address.to_string(), c.action, &c.reasons)).collect();
    assert!(busy.is_empty() && plan.steps.is_empty(), "the plan is not empty: {busy:#?}\nsteps: {:#?}", plan.steps);
    assert!(!plan.is_blocked(), "blocked: {:?}", plan.blockers);
}

/// One of everything that the graph wants for its instances, nothing besides but `also`, and it works.
#[track_caller]
pub fn assert_healthy(world: &World, graph: &Graph, also: &[Address]) {
    world.settle();
    let inventory = world.inventory();
    let wanted: BTreeSet<&Address> = graph.resources.keys().filter(|a| a.kind.per_instance()).collect();
    for address in &wanted {
        let names = inventory.get(*address).map_or(&[][..], Vec::as_slice);
        let object = graph.resources[*address].spec.object_name();
        // Durable folders of an instance's earlier life may lie beside the one in use.
        let beside = matches!(address.kind, Kind::Home | Kind::Checkout) && names.iter().any(|n| n == object);
        assert!(names == [object] || beside, "{address}: {names:?}, should be {object}");
    }
    let leaked: Vec<_> = inventory.iter().filter(|(a, _)| !wanted.contains(a) && !also.contains(a)).collect();
    assert!(leaked.is_empty(), "leaked: {leaked:?}");
    assert_eq!(world.complaints(), Vec::<String>::new());
}

/// Plans and applies once, then all must be well.
#[track_caller]
pub fn converge(world: &World, wants: &[Want], dice: &mut Dice) {
    let before = graph(world, wants);
    let plan = plan_of(world, &before, &launch());
    assert!(!plan.is_blocked(), "blocked: {:?}", plan.blockers);
    let applied = apply(world, &plan, dice, usize::MAX);
    assert!(applied.well(), "{applied:?}\n{}", text(&plan));
    let after = graph(world, wants);
    let plan = plan_of(world, &after, &launch());
    assert_empty(&plan);
    let kept: Vec<Address> = world.inventory().into_keys().filter(|a| a.pool_id().is_some()).collect();
    assert_healthy(world, &after, &kept);
}

/// Steps with their needs, for messages.
pub fn text(plan: &Plan) -> String {
    let changes = plan.changes.iter().filter(|c| !c.is_reuse()).map(|c| format!("{} {:?} {:?}\n", c.address, c.action, c.reasons));
    let steps = plan.steps.iter().map(|s| format!("  {} <- {:?}\n", s.id, s.needs));
    changes.chain(steps).collect()
}
