//! What people read: plans, explanations, graphs, diagnostics and progress, compared with the files in `tests/golden/`.
//! `UPDATE_GOLDEN=1` rewrites them.

use jackin::config::{Agent, AuthMode, Dind, NetworkMode, Profile};
use jackin::diagnostic::{Diagnostic, Span};
use jackin::graph::{Graph, InstanceInfo, Resource};
use jackin::observed::{Engine, Found, Loss, Observed, PoolMember, State, Stranger};
use jackin::plan::{Mode, Plan, PlanOptions, Scope, plan};
use jackin::render::Style;
use jackin::render::diagnostic::{diagnostics_json, diagnostics_text};
use jackin::render::plan::{plan_markdown, plan_text};
use jackin::resource::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const APP: &str = "app/default";

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("golden file can be written");
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}; make it with UPDATE_GOLDEN=1"));
    assert!(wanted == text, "{path} differs; UPDATE_GOLDEN=1 rewrites it\n--- wanted\n{wanted}\n--- got\n{text}");
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

fn at(kind: Kind) -> Address {
    Address::new(kind, APP)
}

fn recipe() -> Recipe {
    Recipe {
        version: "2".into(),
        manifest_version: "v1".into(),
        role_git_sha: "5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f".into(),
        role_source_ref: None,
        base_image: None,
        construct_image: "jackin/construct:trixie".into(),
        generated_runtime_hash: "d".repeat(64),
        supported_agents: vec![Agent::Claude, Agent::Codex],
        agent_binaries: BTreeMap::from([(Agent::Claude, "a".repeat(64))]),
        capsule_version: "0.1.0".into(),
        capsule_digest: "c".repeat(64),
        hooks: BTreeMap::from([("preflight".to_owned(), "e".repeat(64))]),
        plugins: Vec::new(),
        host_identity_strategy: "runtime".into(),
        host_uid: 1000,
    }
}

fn bind(source: &str, readonly: bool) -> MountSpec {
    MountSpec { kind: MountKind::Bind, source: source.into(), readonly }
}

/// One instance with all it needs; `name` is the workspace.
fn instance(graph: &mut Graph, workspace: &str) {
    let key = format!("{workspace}/default");
    let container = format!("jk-k7p9m2xq-{workspace}-agentsmith");
    let image = "jk-agent-smith:latest".to_owned();
    let (network, certs, dind) = (format!("{container}-net"), format!("{container}-dind-certs"), format!("{container}-dind"));
    let shared = [
        (Kind::RoleRepo, "agent-smith", Spec::RoleRepo(RoleRepo {
            url: "https://github.com/jackin-project/jackin-agent-smith.git".into(),
            branch: None,
            commit: recipe().role_git_sha,
            path: "~/.jackin/roles/agent-smith".into(),
        })),
        (Kind::Image, "docker:29-dind", Spec::Image(Image { reference: "docker:29-dind".into(), platform: "linux/amd64".into() })),
        (Kind::DerivedImage, "agent-smith", Spec::DerivedImage(Box::new(DerivedImage {
            reference: image.clone(),
            role: "agent-smith".into(),
            base: "jackin/construct:trixie".into(),
            recipe: recipe(),
        }))),
    ];
    for (kind, name, spec) in shared {
        let depends_on = if kind == Kind::DerivedImage {
            BTreeSet::from([Address::new(Kind::RoleRepo, "agent-smith")])
        } else {
            BTreeSet::new()
        };
        graph.resources.insert(Address::new(kind, name), Resource { spec, depends_on, sources: BTreeMap::new() });
    }
    let own = |kind| Address::new(kind, key.clone());
    let mut put = |kind: Kind, spec: Spec, depends_on: &[Address], sources: &[(&str, &str)]| {
        let sources = sources.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        graph.resources.insert(own(kind), Resource { spec, depends_on: depends_on.iter().cloned().collect(), sources });
    };
    put(
        Kind::Home,
        Spec::Home(Box::new(Home {
            path: format!("~/.jackin/data/{container}"),
            sockets: format!("~/.jackin/sockets/{container}"),
            directories: strings(&[".claude"]),
            agent_toml: AgentToml {
                role: "agent-smith".into(),
                workdir: "/workspace".into(),
                agents: vec![Agent::Claude],
                models: BTreeMap::new(),
                auth_modes: BTreeMap::from([(Agent::Claude, AuthMode::Sync)]),
                provider_models: BTreeMap::new(),
                dirty_exit_policy: None,
            },
            auth: BTreeMap::from([(
                Agent::Claude,
                Handoff {
                    mode: AuthMode::Sync,
                    from: Some("~/.claude".into()),
                    files: BTreeMap::from([(".credentials.json".to_owned(), "f".repeat(64))]),
                },
            )]),
            record: InstanceRecord {
                instance_id: "k7p9m2xq".into(),
                instance: key.clone(),
                workspace_name: Some(workspace.into()),
                workspace_label: workspace.into(),
                role_key: "agent-smith".into(),
                role_display_name: "Agent Smith".into(),
                agent_runtime: Agent::Claude,
                role_source_git: "https://github.com/jackin-project/jackin-agent-smith.git".into(),
                role_source_ref: None,
                role_git_sha: recipe().role_git_sha,
                image_tag: image.clone(),
                role_container: container.clone(),
                dind_container: Some(dind.clone()),
                network: Some(network.clone()),
                certs_volume: Some(certs.clone()),
                declared: true,
            },
            uid: 1000,
            gid: 1000,
        })),
        &[],
        &[("", "default")],
    );
    put(Kind::Network, Spec::Network(Network { name: network.clone(), internal: false, owner: container.clone() }), &[], &[]);
    put(Kind::Certs, Spec::Certs(Certs { name: certs.clone(), owner: container.clone() }), &[], &[]);
    put(
        Kind::Sidecar,
        Spec::Sidecar(Sidecar {
            name: dind.clone(),
            image: "docker:29-dind".into(),
            tier: Dind::Privileged,
            privileged: true,
            network: network.clone(),
            env: BTreeMap::from([("DOCKER_TLS_SAN".to_owned(), EnvEntry::Plain(format!("DNS:{dind}")))]),
            mounts: BTreeMap::from([(
                "/certs/client".to_owned(),
                MountSpec { kind: MountKind::Volume, source: certs.clone(), readonly: false },
            )]),
            owner: container.clone(),
        }),
        &[own(Kind::Network), own(Kind::Certs), Address::new(Kind::Image, "docker:29-dind")],
        &[],
    );
    put(
        Kind::Capsule,
        Spec::Capsule(Box::new(Capsule {
            name: container.clone(),
            image: image.clone(),
            recipe: recipe(),
            argv: strings(&["/jackin/capsule", "init"]),
            workdir: "/workspace".into(),
            user: "1000:1000".into(),
            network: network.clone(),
            network_mode: NetworkMode::Open,
            profile: Profile::Compat,
            env: BTreeMap::from([
                (
                    "GH_TOKEN".to_owned(),
                    EnvEntry::Secret(SecretEntry { from: SecretSource::Host("GH_TOKEN".into()), digest: Some("0".repeat(64)) }),
                ),
                ("JACKIN_ROLE".to_owned(), EnvEntry::Plain("agent-smith".into())),
            ]),
            mounts: BTreeMap::from([
                ("/workspace".to_owned(), bind("~/src/app", false)),
                ("/docs".to_owned(), bind("~/src/docs", true)),
                ("/jackin/run".to_owned(), bind(&format!("~/.jackin/sockets/{container}"), false)),
            ]),
            limits: Limits { memory: Some(4 << 30), cpus: Some(2.0), ..Limits::default() },
            cap_drop_all: false,
            cap_add: Vec::new(),
            no_new_privileges: false,
            read_only_root: false,
            tmpfs: Vec::new(),
            sudo: true,
            role_key: "agent-smith".into(),
            display_name: "Agent Smith".into(),
            keep_awake: false,
            declared: true,
        })),
        &[own(Kind::Home), own(Kind::Network), own(Kind::Sidecar), Address::new(Kind::DerivedImage, "agent-smith")],
        &[
            ("image", "role agent-smith"),
            ("limits", "default"),
            ("limits.memory", "workspaces/app.toml:12:5"),
            ("mounts./workspace", "workspaces/app.toml:3:1"),
            ("mounts./docs", "workspaces/app.toml:7:1"),
            ("env.GH_TOKEN", "config.toml:20:1"),
        ],
    );
    graph.instances.insert(
        key,
        InstanceInfo { workspace: workspace.into(), role: "agent-smith".into(), agent: "claude".into(), container },
    );
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    instance(&mut graph, "app");
    graph
}

fn nothing() -> Observed {
    Observed { engine: Some(Engine { api_version: "1.47".into() }), ..Observed::empty() }
}

fn found(address: &Address, spec: &Spec) -> Found {
    let id = if address.kind.is_container() { sha256_hex(spec.object_name()) } else { spec.object_name().to_owned() };
    Found {
        id,
        name: spec.object_name().to_owned(),
        recorded: Some(spec.fields()),
        live: Fields::new(),
        state: if address.kind.is_container() { State::Running } else { State::Present },
        in_use: false,
        loss: Loss::default(),
        image_id: None,
    }
}

/// Everything of the graph exists and is as it should be.
fn settled(graph: &Graph) -> Observed {
    let mut observed = nothing();
    for (address, resource) in &graph.resources {
        observed.resources.insert(address.clone(), vec![found(address, &resource.spec)]);
    }
    observed
}

fn options() -> PlanOptions {
    PlanOptions::new(Mode::Launch, "apply", Scope::Workspaces(vec!["app".into()]))
}

fn of<'a>(observed: &'a mut Observed, address: &Address) -> &'a mut Found {
    &mut observed.resources.get_mut(address).expect("settled")[0]
}

fn record(found: &mut Found, field: &str, value: Value) {
    found.recorded.as_mut().expect("recorded").insert(field.to_owned(), value);
}

// ---- the cases ----

fn create() -> Plan {
    let mut options = options();
    options.history = BTreeMap::from([
        ("build derived-image".to_owned(), 61_000),
        ("create capsule".to_owned(), 120),
        ("start capsule".to_owned(), 340),
        ("create sidecar".to_owned(), 110),
        ("start sidecar".to_owned(), 300),
        ("ready sidecar".to_owned(), 900),
    ]);
    plan(&graph(), &nothing(), &options)
}

fn unchanged() -> Plan {
    let graph = graph();
    plan(&graph, &settled(&graph), &options())
}

fn drift() -> Plan {
    let graph = graph();
    let mut observed = settled(&graph);
    let capsule = of(&mut observed, &at(Kind::Capsule));
    capsule.name = "renamed-by-hand".into();
    capsule.live = Fields::from([
        ("limits.memory".to_owned(), json!(8i64 << 30)),
        ("name".to_owned(), json!("renamed-by-hand")),
        ("network".to_owned(), Value::Null),
    ]);
    plan(&graph, &observed, &options())
}

fn replace() -> Plan {
    let graph = graph();
    let mut observed = settled(&graph);
    let capsule = of(&mut observed, &at(Kind::Capsule));
    record(capsule, "limits.memory", json!(8i64 << 30));
    record(capsule, "image", json!("jk-agent-brown:latest"));
    record(capsule, "env.JACKIN_ROLE", json!("agent-brown"));
    record(capsule, "env.GH_TOKEN.digest", json!("1".repeat(64)));
    let recorded = capsule.recorded.as_mut().expect("recorded");
    recorded.retain(|field, _| !field.starts_with("mounts./docs"));
    recorded.insert("mounts./old.kind".into(), json!("bind"));
    recorded.insert("mounts./old.source".into(), json!("~/old"));
    recorded.insert("mounts./old.readonly".into(), json!(false));
    capsule.loss.sessions = Some(2);
    let sidecar = of(&mut observed, &at(Kind::Sidecar));
    record(sidecar, "tier", json!("rootless"));
    sidecar.loss.docker_data = true;
    plan(&graph, &observed, &options())
}

fn blocked() -> Plan {
    let mut observed = nothing();
    for (kind, name) in [(Kind::Network, "jk-k7p9m2xq-app-agentsmith-net"), (Kind::Capsule, "jk-k7p9m2xq-app-agentsmith")] {
        observed.strangers.insert(
            at(kind),
            Stranger { id: "8d5a2c".repeat(10), name: name.into(), why: "it bears no jackin label".into() },
        );
    }
    plan(&graph(), &observed, &options())
}

fn adopt() -> Plan {
    let graph = graph();
    let mut observed = nothing();
    let member = |kind: Kind, name: &str| {
        let mut one = found(&at(kind), &graph.resources[&at(kind)].spec);
        one.name = name.to_owned();
        one
    };
    observed.pool.push(PoolMember {
        sidecar: member(Kind::Sidecar, "jk-pool-3f9a-dind"),
        network: member(Kind::Network, "jk-pool-3f9a-net"),
        certs: member(Kind::Certs, "jk-pool-3f9a-certs"),
    });
    for kind in [Kind::RoleRepo, Kind::DerivedImage] {
        let address = Address::new(kind, "agent-smith");
        observed.resources.insert(address.clone(), vec![found(&address, &graph.resources[&address].spec)]);
    }
    plan(&graph, &observed, &options())
}

fn prune() -> Plan {
    let mut both = graph();
    instance(&mut both, "old");
    let mut observed = settled(&both);
    let capsule = observed.resources.get_mut(&Address::new(Kind::Capsule, "old/default")).expect("settled");
    capsule[0].loss = Loss { sessions_unknown: true, ..Loss::default() };
    let mut options = options();
    options.scope = Scope::All;
    options.prune = true;
    plan(&graph(), &observed, &options)
}

fn undeclared() -> Plan {
    let mut both = graph();
    instance(&mut both, "old");
    let mut options = options();
    options.scope = Scope::All;
    plan(&graph(), &settled(&both), &options)
}

fn duplicates() -> Plan {
    let graph = graph();
    let mut observed = settled(&graph);
    let networks = observed.resources.get_mut(&at(Kind::Network)).expect("settled");
    networks[0].in_use = true;
    let mut twin = networks[0].clone();
    twin.id = "9".repeat(64);
    twin.in_use = false;
    networks.push(twin);
    plan(&graph, &observed, &options())
}

fn rebuild() -> Plan {
    let graph = graph();
    let mut observed = settled(&graph);
    let image = Address::new(Kind::DerivedImage, "agent-smith");
    for address in [image, at(Kind::Capsule)] {
        let one = of(&mut observed, &address);
        record(one, "recipe.capsule_version", json!("0.0.9"));
        record(one, "recipe.capsule_digest", json!("b".repeat(64)));
        record(one, "recipe.hooks.preflight", json!("b".repeat(64)));
    }
    plan(&graph, &observed, &options())
}

fn every_plan() -> Vec<(&'static str, Plan)> {
    vec![
        ("create", create()),
        ("unchanged", unchanged()),
        ("drift", drift()),
        ("replace", replace()),
        ("blocked", blocked()),
        ("adopt", adopt()),
        ("prune", prune()),
        ("undeclared", undeclared()),
        ("duplicates", duplicates()),
        ("rebuild", rebuild()),
    ]
}

#[test]
fn plans_at_80_columns() {
    for (name, plan) in every_plan() {
        golden(&format!("plan-{name}.txt"), &plan_text(&plan, &Style::PLAIN, false));
    }
}

#[test]
fn plans_at_40_columns() {
    for (name, plan) in [("create", create()), ("replace", replace()), ("blocked", blocked())] {
        golden(&format!("plan-{name}-40.txt"), &plan_text(&plan, &Style { width: 40, ..Style::PLAIN }, false));
    }
}

#[test]
fn verbose_plan_tells_every_field() {
    golden("plan-replace-verbose.txt", &plan_text(&replace(), &Style::PLAIN, true));
}

#[test]
fn markdown() {
    for (name, plan) in [("replace", replace()), ("blocked", blocked()), ("unchanged", unchanged())] {
        golden(&format!("plan-{name}.md"), &plan_markdown(&plan));
    }
}

/// Strips colour codes.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c == 'm' {
                    break;
                }
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[test]
fn colour_adds_codes_and_changes_nothing_else() {
    for (name, plan) in every_plan() {
        for verbose in [false, true] {
            let plain = plan_text(&plan, &Style::PLAIN, verbose);
            let coloured = plan_text(&plan, &Style { colour: true, ..Style::PLAIN }, verbose);
            assert!(!plain.contains('\u{1b}'), "{name}");
            assert!(coloured.contains('\u{1b}'), "{name}");
            assert_eq!(bare(&coloured), plain, "{name}");
        }
    }
}

#[test]
fn no_digest_of_a_credential_is_shown() {
    for (name, plan) in every_plan() {
        for text in [plan_text(&plan, &Style::PLAIN, true), plan_markdown(&plan)] {
            for digest in ["0000000000000", "1111111111111", "ffffffffffff", "aaaaaaaaaaaaa", "bbbbbbbbbbbb"] {
                assert!(!text.contains(digest), "{name}: {text}");
            }
        }
    }
}
