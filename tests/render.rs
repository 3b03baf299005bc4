//! What people read: plans, explanations, graphs, diagnostics and progress, compared with the files in `tests/golden/`.
//! `UPDATE_GOLDEN=1` rewrites them.

#[path = "support/golden.rs"]
mod golden;

use golden::golden;
use jackin::config::{Agent, AuthMode, Dind, NetworkMode, Profile};
use jackin::diagnostic::{Diagnostic, Span};
use jackin::event::Event;
use jackin::graph::{Graph, InstanceInfo, Resource};
use jackin::observed::{Engine, Found, Loss, Observed, PoolMember, State, Stranger};
use jackin::plan::{Effect, Mode, Plan, PlanOptions, Scope, plan};
use jackin::render::Style;
use jackin::render::diagnostic::{diagnostics_json, diagnostics_text};
use jackin::render::explain::{explain_json, explain_text};
use jackin::render::graph::{dot, mermaid};
use jackin::render::plan::{plan_markdown, plan_text};
use jackin::render::progress::Progress;
use jackin::render::status::{Health, KeptRow, KeptState, Status, StatusRow, kept_text, status_json, status_text};
use jackin::resource::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const APP: &str = "app/default";

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
        (
            Kind::RoleRepo,
            "agent-smith",
            Spec::RoleRepo(RoleRepo {
                url: "https://github.com/jackin-project/jackin-agent-smith.git".into(),
                branch: None,
                commit: recipe().role_git_sha,
                path: "~/.jackin/roles/agent-smith".into(),
            }),
        ),
        (Kind::Image, "docker:29-dind", Spec::Image(Image { reference: "docker:29-dind".into(), platform: "linux/amd64".into() })),
        (
            Kind::DerivedImage,
            "agent-smith",
            Spec::DerivedImage(Box::new(DerivedImage {
                reference: image.clone(),
                role: "agent-smith".into(),
                base: "jackin/construct:trixie".into(),
                recipe: recipe(),
            })),
        ),
    ];
    for (kind, name, spec) in shared {
        let depends_on =
            if kind == Kind::DerivedImage { BTreeSet::from([Address::new(Kind::RoleRepo, "agent-smith")]) } else { BTreeSet::new() };
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
                ad_hoc_mounts: Vec::new(),
                workdir: "/workspace".to_owned(),
            },
            uid: 1000,
            gid: 1000,
        })),
        &[],
        &[],
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
    graph
        .instances
        .insert(key, InstanceInfo { workspace: workspace.into(), role: "agent-smith".into(), agent: "claude".into(), container });
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    instance(&mut graph, "app");
    graph
}

fn nothing() -> Observed {
    Observed { engine: Some(Engine { api_version: "1.47".into(), arch: None }), ..Observed::empty() }
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
        observed
            .strangers
            .insert(at(kind), Stranger { id: "8d5a2c".repeat(10), name: name.into(), why: "it bears no jackin label".into() });
    }
    plan(&graph(), &observed, &options())
}

fn adopt() -> Plan {
    let graph = graph();
    let mut observed = nothing();
    let (base, names) = ("jk-prewarm-dind-3f9a", ["jk-prewarm-dind-3f9a-dind", "jk-prewarm-dind-3f9a-net", "jk-prewarm-dind-3f9a-certs"]);
    let kinds = [Kind::Sidecar, Kind::Network, Kind::Certs];
    let own = kinds.map(|kind| graph.resources[&at(kind)].spec.object_name().to_owned());
    // As the kept set was made: with names of its own wherever the instance's stand.
    let kept = |text: &str| {
        own.iter().zip(names).fold(text.to_owned(), |text, (own, kept)| {
            if text == *own || text == format!("DNS:{own}") { text.replace(own.as_str(), kept) } else { text }
        })
    };
    let member = |kind: Kind, name: &str| {
        let mut one = found(&at(kind), &graph.resources[&at(kind)].spec);
        one.name = name.to_owned();
        for fields in [one.recorded.as_mut(), Some(&mut one.live)].into_iter().flatten() {
            for (field, value) in fields {
                let text = value.as_str().map(&kept);
                *value = match (field.as_str(), text) {
                    ("owner", _) => base.into(),
                    (_, Some(text)) => text.into(),
                    (_, None) => value.clone(),
                };
            }
        }
        vec![one]
    };
    let [sidecar, network, certs] = [0, 1, 2].map(|i| member(kinds[i], names[i]));
    observed.pool.push(PoolMember { id: "3f9a".to_owned(), held: false, sidecar, network, certs });
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

#[test]
fn no_digest_is_shown_in_an_explanation() {
    let graph = graph();
    let mut observed = settled(&graph);
    record(of(&mut observed, &at(Kind::Capsule)), "env.GH_TOKEN.digest", json!("1".repeat(64)));
    let plan = plan(&graph, &observed, &options());
    let text = explain_text(&graph, &plan, &observed, &at(Kind::Capsule), &Style { width: 400, ..Style::PLAIN });
    assert!(text.contains("env GH_TOKEN"), "{text}");
    assert!(!text.contains("000000000000") && !text.contains("111111111111"), "{text}");
}

// ---- explain, graph, lists ----

#[test]
fn explanations() {
    let graph = graph();
    let mut observed = settled(&graph);
    let capsule = of(&mut observed, &at(Kind::Capsule));
    capsule.live = Fields::from([("limits.memory".to_owned(), json!(8i64 << 30)), ("network".to_owned(), Value::Null)]);
    let plan = plan(&graph, &observed, &options());
    golden("explain-drift.txt", &explain_text(&graph, &plan, &observed, &at(Kind::Capsule), &Style { width: 120, ..Style::PLAIN }));
    let network = at(Kind::Network);
    golden("explain-network.txt", &explain_text(&graph, &plan, &observed, &network, &Style { unicode: true, ..Style::PLAIN }));
    let unknown = Address::new(Kind::Network, "nobody/default");
    assert_eq!(
        explain_text(&graph, &plan, &observed, &unknown, &Style::PLAIN),
        "network/nobody/default is neither declared nor there. `jackin graph` lists every\n  address.\n"
    );
    assert_eq!(explain_json(&graph, &plan, &observed, &unknown), None);
    let json = explain_json(&graph, &plan, &observed, &at(Kind::Capsule)).expect("declared");
    let memory = json["fields"].as_array().expect("list").iter().find(|f| f["field"] == "limits.memory").expect("has a limit");
    assert_eq!(
        *memory,
        json!({"field": "limits.memory", "value": 4i64 << 30, "recorded": 4i64 << 30, "live": 8i64 << 30, "source": "workspaces/app.toml:12:5"})
    );
    assert_eq!(json["change"]["action"], "update");
    assert_eq!(
        explain_json(&graph, &plan, &observed, &network).expect("declared")["needed_by"],
        json!(["sidecar/app/default", "capsule/app/default"])
    );
}

#[test]
fn graphs() {
    let mut graph = graph();
    golden("graph.dot", &dot(&graph));
    golden("graph.mmd", &mermaid(&graph));
    let back: Graph = serde_json::from_str(&jackin::render::graph::json(&graph)).expect("a graph can be read back");
    assert_eq!(back, graph);

    let odd = Address::new(Kind::Image, "a\"b\\c<d>");
    let spec = Spec::Image(Image { reference: "x".into(), platform: "linux/amd64".into() });
    graph.resources = BTreeMap::from([(odd, Resource { spec, depends_on: BTreeSet::new(), sources: BTreeMap::new() })]);
    assert!(dot(&graph).contains(r#"  "image/a\"b\\c<d>";"#), "{}", dot(&graph));
    assert!(mermaid(&graph).contains(r#"  n0["image/a#quot;b\c#lt;d#gt;"]"#), "{}", mermaid(&graph));
}

#[test]
fn status_list() {
    let row = |instance: &str, state, sessions| StatusRow {
        instance: instance.into(),
        role: "agent-smith".into(),
        agent: "claude".into(),
        state,
        sessions,
        session_states: BTreeMap::new(),
        container: "jk-k7p9m2xq-app-agentsmith".into(),
        age_seconds: Some(7200),
    };
    let rows = [row("app/default", Health::Running, Some(2)), row("app/second", Health::Crashed, None)];
    let states = BTreeMap::from([("working".to_owned(), 2), ("blocked".to_owned(), 1)]);
    let busy = StatusRow { session_states: states, ..row("app/default", Health::Running, Some(4)) };
    assert!(status_text(&[busy], &Style { width: 140, ..Style::PLAIN }).contains(" 4 (1 blocked, 2 working) "));
    assert_eq!(
        status_text(&rows, &Style { width: 100, ..Style::PLAIN }),
        "INSTANCE      ROLE          AGENT    STATE     SESSIONS   AGE   CONTAINER\n\
         app/default   agent-smith   claude   running   2          2h    jk-k7p9m2xq-app-agentsmith\n\
         app/second    agent-smith   claude   crashed   -          2h    jk-k7p9m2xq-app-agentsmith\n"
    );
    assert!(status_text(&rows, &Style::PLAIN).lines().all(|l| l.len() <= 80));
    assert_eq!(status_text(&[], &Style::PLAIN), "No instances.\n");
    let kept = |id: &str, state, reason: Option<&str>| {
        let (id, name) = (id.to_owned(), format!("jk-prewarm-dind-{id}"));
        KeptRow { id, name, state, reason: reason.map(str::to_owned) }
    };
    let kept = vec![
        kept("3f9a", KeptState::Ready, None),
        kept("4b1c", KeptState::Held, None),
        kept("77aa", KeptState::Useless, Some("kept jk-prewarm-dind-77aa has no sidecar")),
    ];
    assert_eq!(
        kept_text(&kept),
        "\nSidecars that no instance uses:\n\
         jk-prewarm-dind-3f9a: ready for the next launch\n\
         jk-prewarm-dind-4b1c: in another jackin's hands\n\
         jk-prewarm-dind-77aa: of no use, kept jk-prewarm-dind-77aa has no sidecar; `jackin apply --prune` removes it\n"
    );
    let json: Value = serde_json::from_str(&status_json(&Status { instances: rows.to_vec(), kept })).expect("JSON");
    assert_eq!(json["schema_version"], "v1");
    assert_eq!(json["data"]["instances"][1]["state"], "crashed");
    assert_eq!(json["data"]["kept"][0], serde_json::json!({ "id": "3f9a", "name": "jk-prewarm-dind-3f9a", "state": "ready" }));
    assert_eq!(json["data"]["kept"][2]["reason"], "kept jk-prewarm-dind-77aa has no sidecar");
}

// ---- diagnostics ----

fn unknown_field() -> Diagnostic {
    let line = "memroy = \"8G\" # \u{1b}[31mred";
    let span = Span { file: "workspaces/app.toml".into(), line: 112, column: 1, length: 6, source_line: line.into() };
    Diagnostic::error("config.unknown_field", "Unknown field", "`memroy` is not a field of [docker.grants].")
        .at(Some(span))
        .help("Did you mean `memory`?")
}

#[test]
fn diagnostics() {
    let long = format!("{}wrong{}", "x".repeat(90), "y".repeat(90));
    let span = Span { file: "config.toml".into(), line: 3, column: 91, length: 5, source_line: long };
    let all = [
        unknown_field(),
        Diagnostic::warning("config.long", "A long line", "Its middle is wrong.").at(Some(span)),
        Diagnostic::notice("plan.note", "A note", "Line one.\nLine two, which says more.").on("network/app/default"),
    ];
    golden("diagnostics.txt", &diagnostics_text(&all, &Style::PLAIN));
    let coloured = diagnostics_text(&all, &Style { colour: true, ..Style::PLAIN });
    assert!(coloured.contains("\u{1b}[31m"), "the word `error` is red");
    assert_eq!(bare(&coloured), diagnostics_text(&all, &Style::PLAIN));
    assert_eq!(diagnostics_json(&all).as_array().expect("list").len(), 3);
    assert_eq!(diagnostics_json(&all)[0]["code"], "config.unknown_field");
}

#[test]
fn marks_stand_under_wide_characters() {
    let span = Span { file: "f".into(), line: 1, column: 4, length: 2, source_line: "\t世=ab".into() };
    let text = diagnostics_text(&[Diagnostic::error("a.b", "S", "d").at(Some(span))], &Style::PLAIN);
    assert!(text.contains("1 |     世=ab\n  |        ^^\n"), "{text}");
}

// ---- progress ----

/// Plays a plan: every step takes 100 ms, one after the other; the named step fails and what needs it is skipped.
fn play(plan: &Plan, failing: Option<&str>, verbose: bool) -> (Progress, Vec<String>) {
    let mut progress = Progress::new(plan, verbose);
    let mut lines = Vec::new();
    let mut now = 0;
    let mut bad: BTreeSet<String> = BTreeSet::new();
    let mut feed = |progress: &mut Progress, event: Event, now| lines.extend(progress.feed(&event, now));
    feed(&mut progress, Event::ApplyStarted { steps: plan.steps.len() }, 0);
    for step in &plan.steps {
        let id = step.id.clone();
        if let Some(because) = step.needs.iter().find(|n| bad.contains(*n)) {
            feed(&mut progress, Event::StepSkipped { id: id.clone(), because: because.clone() }, now);
            bad.insert(id);
            continue;
        }
        feed(&mut progress, Event::StepStarted { id: id.clone(), step: step.clone() }, now);
        if step.effect == Effect::Build {
            for line in 1..=25 {
                feed(&mut progress, Event::StepOutput { id: id.clone(), line: format!("#{line} RUN \u{1b}[1mit") }, now);
            }
        }
        now += 100;
        if failing == Some(id.as_str()) {
            let error = Diagnostic::error("docker.build", "The image could not be built", "exit code 1").help("Read the output above.");
            feed(&mut progress, Event::StepFailed { id: id.clone(), milliseconds: 100, error }, now);
            bad.insert(id);
        } else {
            feed(&mut progress, Event::StepFinished { id, milliseconds: 100 }, now);
        }
    }
    let event = Event::ApplyFinished { done: 0, failed: 0, skipped: 0, cancelled: 0, milliseconds: now };
    feed(&mut progress, event, now);
    (progress, lines)
}

#[test]
fn progress_in_lines() {
    let (progress, lines) = play(&create(), None, false);
    golden("progress.txt", &(lines.join("\n") + "\n\n" + &progress.report(&Style::PLAIN)));
    let (progress, lines) = play(&create(), Some("derived-image/agent-smith#build"), false);
    golden("progress-failed.txt", &(lines.join("\n") + "\n\n" + &progress.report(&Style::PLAIN)));
    let (_, lines) = play(&create(), Some("derived-image/agent-smith#build"), true);
    assert_eq!(lines.iter().filter(|l| l.contains("| #1 RUN \\x1b[1mit")).count(), 1, "shown as it comes, not again: {lines:#?}");
}

#[test]
fn progress_in_frames() {
    let plan = create();
    let mut progress = Progress::new(&plan, false);
    let step = |id: &str| plan.steps.iter().find(|s| s.id == id).unwrap_or_else(|| panic!("{id}")).clone();
    let start = |id: &str| Event::StepStarted { id: id.into(), step: step(id) };
    let done = |id: &str| Event::StepFinished { id: id.into(), milliseconds: 50 };
    for (event, now) in [
        (start("network/app/default#create"), 0),
        (start("certs/app/default#create"), 0),
        (done("network/app/default#create"), 50),
        (start("derived-image/agent-smith#build"), 60),
        (Event::StepOutput { id: "derived-image/agent-smith#build".into(), line: format!("#7 RUN {}", "npm ".repeat(40)) }, 70),
        (Event::StepRetried { id: "certs/app/default#create".into(), attempt: 2, error: "connection reset".into() }, 80),
    ] {
        progress.feed(&event, now);
    }
    let style = Style { unicode: true, ..Style::PLAIN };
    golden("frame.txt", &(progress.frame(1_500, &style, 24).join("\n") + "\n"));
    golden("frame-small.txt", &(progress.frame(1_500, &style, 5).join("\n") + "\n"));
    for height in 1..20 {
        for width in [10, 40, 80] {
            for colour in [false, true] {
                let frame = progress.frame(1_500, &Style { width, colour, unicode: true }, height);
                assert!(frame.len() <= height, "{height}: {frame:#?}");
                assert!(frame.iter().all(|l| bare(l).chars().count() <= width), "{width}: {frame:#?}");
                assert!(bare(frame.last().expect("never empty")).starts_with("1/8 done"), "{frame:#?}");
            }
        }
        let frame = progress.frame(1_500, &style, height).join("\n");
        assert_eq!(frame.contains("building"), height >= 3, "what runs comes first: {frame}");
    }
}

/// What is skipped because of something skipped names the failure behind both.
#[test]
fn skipped_names_the_first_failure() {
    let (progress, lines) = play(&create(), Some("network/app/default#create"), false);
    for address in ["sidecar/app/default", "capsule/app/default"] {
        let report = progress.report(&Style::PLAIN);
        assert!(report.contains(&format!("skipped {address} because network/app/default failed\n")), "{report}");
    }
    let told = lines.iter().filter(|l| l.contains("skipped because network/app/default failed")).count();
    assert_eq!(told, 2, "one line for each thing: {lines:#?}");
}

#[test]
fn stopping_is_told_and_counted() {
    let plan = create();
    let mut progress = Progress::new(&plan, false);
    let first = plan.steps[0].clone();
    progress.feed(&Event::StepStarted { id: first.id.clone(), step: first.clone() }, 0);
    assert_eq!(progress.feed(&Event::Stopping, 1), ["stopping: nothing new is begun, what has begun is finished"]);
    progress.feed(&Event::StepFinished { id: first.id.clone(), milliseconds: 5 }, 5);
    for step in plan.steps.iter().filter(|s| s.id != first.id) {
        progress.feed(&Event::StepCancelled { id: step.id.clone() }, 6);
    }
    let report = progress.report(&Style::PLAIN);
    assert!(report.starts_with("Stopped. 1 done, 7 cancelled.\n"), "{report}");
}

// ---- width, whatever the names ----

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_line_is_wider_than_the_window(
        workspace in "[a-z][a-z0-9-]{0,30}",
        value in "\\PC{0,60}",
        source in "[ -~]{0,50}",
        width in 30usize..130,
        verbose: bool,
    ) {
        let mut graph = Graph::default();
        instance(&mut graph, &workspace);
        let address = Address::new(Kind::Capsule, format!("{workspace}/default"));
        graph.resources.get_mut(&address).expect("made").sources.insert("limits.memory".into(), source);
        let mut observed = settled(&graph);
        let capsule = of(&mut observed, &address);
        record(capsule, "workdir", json!(value));
        record(capsule, "limits.memory", json!(1));
        capsule.loss.sessions = Some(3);
        let mut options = options();
        options.scope = Scope::All;
        let plans = [plan(&graph, &observed, &options), plan(&graph, &nothing(), &options)];
        for plan in plans {
            let style = Style { width, ..Style::PLAIN };
            let text = plan_text(&plan, &style, verbose);
            for line in text.lines() {
                let columns = tabled::grid::util::string::get_line_width(line);
                let longest = line.split(' ').map(tabled::grid::util::string::get_line_width).max().unwrap_or(0);
                // One word may be wider than the window; then it stands with at most its symbol before it.
                prop_assert!(columns <= width || longest + 4 > width, "{columns} > {width}: {line:?}\n{text}");
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
