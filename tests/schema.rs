//! The schemas in `schemas/` are those of the types, and real documents fit them. `UPDATE_SCHEMAS=1` rewrites the files.

use jackin::diagnostic::{Diagnostic, Span};
use jackin::event::{Entry, Event, Line};
use jackin::facts::Arch;
use jackin::graph::{Graph, InstanceInfo, Resource};
use jackin::observed::{Engine, Found, Loss, Observed, PoolMember, State, Stranger};
use jackin::plan::{Effect, Mode, PlanOptions, Scope, Step, plan};
use jackin::render::schema::{NAMES, schema};
use jackin::render::status::{Health, KeptRow, KeptState, Status, StatusRow, status_json};
use jackin::resource::{Address, Certs, EnvEntry, Image, Kind, MountKind, MountSpec, Network, SecretEntry, SecretSource, Sidecar, Spec};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn path(name: &str) -> String {
    format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn files_are_as_generated() {
    for name in NAMES {
        let generated = schema(name).expect("a name of NAMES has a schema");
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(path(name), &generated).expect("schema file can be written");
        }
        let checked_in = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}; run with UPDATE_SCHEMAS=1"));
        assert!(checked_in == generated, "schemas/{name}.schema.json is not that of the types; UPDATE_SCHEMAS=1 rewrites it");
    }
    assert_eq!(schema("nonsense"), None);
}

#[track_caller]
fn fits(name: &str, document: &Value) {
    let schema: Value = serde_json::from_str(&schema(name).expect("known name")).expect("a schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema is valid");
    let errors: Vec<String> = validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{document:#}");
}

#[track_caller]
fn does_not_fit(name: &str, document: &Value) {
    let schema: Value = serde_json::from_str(&schema(name).expect("known name")).expect("a schema is JSON");
    assert!(!jsonschema::is_valid(&schema, document), "{name} accepts {document:#}");
}

fn at(kind: Kind) -> Address {
    Address::new(kind, "app/default")
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    let mut put = |address: Address, spec: Spec, depends_on: &[Address]| {
        let sources = BTreeMap::from([("name".to_owned(), "workspaces/app.toml:1:1".to_owned())]);
        graph.resources.insert(address, Resource { spec, depends_on: depends_on.iter().cloned().collect::<BTreeSet<_>>(), sources });
    };
    let image = Address::new(Kind::Image, "docker:29-dind");
    put(image.clone(), Spec::Image(Image { reference: "docker:29-dind".into(), platform: "linux/amd64".into() }), &[]);
    put(at(Kind::Network), Spec::Network(Network { name: "n".into(), internal: false, owner: "c".into() }), &[]);
    put(at(Kind::Certs), Spec::Certs(Certs { name: "v".into(), owner: "c".into() }), &[]);
    let secret = SecretEntry { from: SecretSource::Host("TOKEN".into()), digest: Some("00".into()) };
    put(
        at(Kind::Sidecar),
        Spec::Sidecar(Sidecar {
            name: "s".into(),
            image: "docker:29-dind".into(),
            tier: jackin::config::Dind::Privileged,
            privileged: true,
            network: "n".into(),
            env: BTreeMap::from([("A".to_owned(), EnvEntry::Plain("1".into())), ("B".to_owned(), EnvEntry::Secret(secret))]),
            mounts: BTreeMap::from([("/certs".to_owned(), MountSpec { kind: MountKind::Volume, source: "v".into(), readonly: false })]),
            owner: "c".into(),
        }),
        &[at(Kind::Network), at(Kind::Certs), image],
    );
    graph.instances.insert(
        "app/default".into(),
        InstanceInfo { workspace: "app".into(), role: "r".into(), agent: "claude".into(), container: "c".into() },
    );
    graph.diagnostics.push(diagnostic());
    graph
}

fn diagnostic() -> Diagnostic {
    let span = Span { file: "workspaces/app.toml".into(), line: 1, column: 1, length: 4, source_line: "name = 1".into() };
    Diagnostic::warning("config.odd", "Odd", "It is odd.").at(Some(span)).on("network/app/default").help("Make it even.")
}

fn found(address: &Address, spec: &Spec, state: State) -> Found {
    Found {
        id: format!("id-of-{}", address.kind),
        name: spec.object_name().to_owned(),
        recorded: Some(spec.fields()),
        live: spec.fields(),
        state,
        in_use: true,
        loss: Loss { sessions: Some(1), docker_data: true, bytes: Some(7), ..Loss::default() },
        image_id: Some("sha256:00".into()),
    }
}

fn observed(graph: &Graph) -> Observed {
    let mut observed = Observed { engine: Some(Engine { api_version: "1.47".into(), arch: Some(Arch::Arm64) }), ..Observed::empty() };
    for (address, resource) in &graph.resources {
        let mut one = found(address, &resource.spec, State::Exited { code: 137, oom: true });
        if address.kind == Kind::Sidecar {
            one.recorded.as_mut().expect("recorded").insert("tier".into(), "rootless".into());
        }
        observed.resources.insert(address.clone(), vec![one.clone(), Found { id: "twin".into(), ..one }]);
    }
    let one = |kind| found(&at(kind), &graph.resources[&at(kind)].spec, State::Running);
    observed.pool.push(PoolMember {
        id: "3f9a".to_owned(),
        held: true,
        sidecar: vec![one(Kind::Sidecar)],
        network: vec![one(Kind::Network)],
        certs: vec![one(Kind::Certs)],
    });
    observed.strangers.insert(at(Kind::Capsule), Stranger { id: "1".into(), name: "c".into(), why: "it bears no label".into() });
    observed
}

#[test]
fn documents_fit() {
    let graph = graph();
    let observed = observed(&graph);
    fits("graph", &serde_json::to_value(&graph).expect("serialises"));
    fits("observed", &serde_json::to_value(&observed).expect("serialises"));
    fits("observed", &serde_json::to_value(Observed::empty()).expect("serialises"));
    fits("diagnostics", &serde_json::to_value([diagnostic()]).expect("serialises"));
    let mut options = PlanOptions::new(Mode::Launch, "apply", Scope::Workspaces(vec!["app".into()]));
    options.history = BTreeMap::from([("create sidecar".to_owned(), 5)]);
    let all = PlanOptions::new(Mode::Remove, "eject", Scope::All);
    for (observed, options) in [(&observed, &options), (&Observed::empty(), &options), (&observed, &all)] {
        for graph in [&graph, &Graph::default()] {
            let plan = plan(graph, observed, options);
            fits("plan", &serde_json::from_str(&plan.to_json()).expect("a plan is JSON"));
        }
    }
}

#[test]
fn a_status_fits() {
    let row = StatusRow {
        instance: "app/default".into(),
        role: "agent-smith".into(),
        agent: "claude".into(),
        state: Health::Running,
        sessions: Some(1),
        session_states: BTreeMap::from([("idle".into(), 1)]),
        container: "jk-1".into(),
        age_seconds: Some(1),
    };
    let kept = [KeptState::Ready, KeptState::Held, KeptState::Useless];
    let kept = kept.map(|state| KeptRow { id: "a".into(), name: "b".into(), state, reason: Some("why".into()) });
    let whole = status_json(&Status { instances: vec![row], kept: kept.to_vec() });
    for text in [whole, status_json(&Status::default())] {
        fits("status", &serde_json::from_str(&text).expect("JSON"));
    }
}

#[test]
fn events_fit() {
    let id = "network/app/default#create".to_owned();
    let step =
        Step { id: id.clone(), address: at(Kind::Network), effect: Effect::RemoveNetwork { id: "n".into() }, needs: vec![id.clone()] };
    let events = [
        Event::Waiting { what: "x".into() },
        Event::ApplyStarted { steps: 1 },
        Event::StepStarted { id: id.clone(), step },
        Event::StepFailed { id: id.clone(), milliseconds: 3, error: diagnostic() },
        Event::StepSkipped { id: id.clone(), because: id },
        Event::Stopping,
        Event::ApplyFinished { done: 0, failed: 1, skipped: 1, cancelled: 0, milliseconds: 9 },
    ];
    for event in events {
        let line = Line { time: "2026-11-20T15:55:44.000000Z".to_owned(), entry: Entry::Event { event } };
        fits("events", &serde_json::to_value(&line).expect("serialises"));
    }
}

#[test]
fn what_is_wrong_does_not_fit() {
    let graph = graph();
    let good =
        serde_json::to_value(plan(&graph, &observed(&graph), &PlanOptions::new(Mode::Launch, "apply", Scope::All))).expect("serialises");
    let mut unknown = good.clone();
    unknown["surprise"] = true.into();
    does_not_fit("plan", &unknown);
    let mut action = good.clone();
    action["changes"][0]["action"] = "explode".into();
    does_not_fit("plan", &action);
    let mut address = good;
    address["changes"][0]["address"] = "castle/app".into();
    does_not_fit("plan", &address);
}
