//! Planning from a recorded snapshot, by number of instances: no engine, no process, no file. Is it linear?
//!
//! Each stage of `jackin plan --observed FILE` is timed on its own, in processor time, from configuration text to plan text.

mod support;

use jackin::config::{self, FileKind, SourceFile};
use jackin::facts::{BinaryFact, BinarySource, Facts, PathFact, PathKind, RoleSnapshot, TreeKind};
use jackin::graph::build::build;
use jackin::graph::{Graph, want};
use jackin::observed::{Engine, Found, Loss, Observed, State};
use jackin::plan::{Mode, PlanOptions, Scope, plan};
use jackin::render::Style;
use jackin::render::plan::plan_text;
use jackin::resource::{Fields, Kind, Spec};
use std::collections::BTreeMap;
use support::{Race, Wanted, chosen, timed_alone, verdict};

const STAGES: [&str; 7] =
    ["configuration", "graph", "snapshot", "plan, nothing to do", "plan, all to create", "text, all to create", "JSON, all to create"];
/// What a person waits for with nothing to do: text in, plan out.
const PATH: [&str; 4] = ["configuration", "graph", "snapshot", "plan, nothing to do"];
const INSTANCES_PER_WORKSPACE: usize = 10;

fn main() {
    if !chosen("plan") {
        return;
    }
    let style = Style { colour: false, width: 80, unicode: true };
    let mut per_instance = BTreeMap::new();
    for (instances, runs) in [(10, 50), (100, 20), (1_000, 9), (10_000, 3)] {
        let files = files(instances);
        let facts = facts();
        let mut race = Race::new(&STAGES);
        let mut resources = 0;
        for _ in 0..support::runs(runs) {
            let (config, took) = timed_alone(|| config::load(&files).expect("BUG: the generated configuration is right").0);
            race.add("configuration", took);
            let (built, took) = timed_alone(|| {
                let (wanted, diagnostics) = want::declared(&config, &facts, &[]);
                assert!(diagnostics.is_empty(), "{diagnostics:?}");
                build(&config, &facts, &wanted)
            });
            race.add("graph", took);
            let graph = built.graph;
            assert!(graph.diagnostics.is_empty(), "{:?}", graph.diagnostics);
            resources = graph.resources.len();
            let snapshot = serde_json::to_string(&as_made(&graph)).expect("BUG: an observation always serialises");
            let (observed, took) = timed_alone(|| serde_json::from_str::<Observed>(&snapshot).expect("BUG: it was just written"));
            race.add("snapshot", took);
            let options = PlanOptions::new(Mode::Launch, "apply", Scope::All);
            let (quiet, took) = timed_alone(|| plan(&graph, &observed, &options));
            race.add("plan, nothing to do", took);
            assert!(quiet.is_empty() && !quiet.is_blocked(), "{}", plan_text(&quiet, &style, false));
            let (busy, took) = timed_alone(|| plan(&graph, &Observed::empty(), &options));
            race.add("plan, all to create", took);
            assert!(busy.steps.len() > instances);
            race.add("text, all to create", timed_alone(|| plan_text(&busy, &style, false)).1);
            race.add("JSON, all to create", timed_alone(|| busy.to_json()).1);
        }
        race.print(&format!("{instances} instances, {resources} resources"));
        let whole: f64 = PATH.iter().map(|stage| race.median(stage)).sum();
        let deciding = race.median("plan, nothing to do");
        println!("  -> text to plan: {whole:.2} ms, {:.4} ms per instance; deciding alone {deciding:.2} ms", whole / instances as f64);
        per_instance.insert(instances, whole / instances as f64);
        if instances == 1_000 {
            verdict("1,000 instances, text to plan", whole, " ms", 100.0, Wanted::AtMost);
        }
    }
    println!("\nCost of an instance, relative to that among 100 (1 = linear; there is no budget in figures)");
    for (instances, cost) in &per_instance {
        println!("  {instances:>6} instances  {:>6.2}", cost / per_instance[&100]);
    }
}

fn files(instances: usize) -> Vec<SourceFile> {
    let global = "version = \"v1alpha9\"\n\n[github]\nauth_forward = \"ignore\"\n\n[claude]\nauth_forward = \"ignore\"\n\n\
                  [roles.tools]\ngit = \"https://git.example/tools.git\"\ntrusted = true\n";
    let mut files = vec![SourceFile { kind: FileKind::Global, shown: "config.toml".to_owned(), bytes: global.as_bytes().to_vec() }];
    for workspace in 0..instances.div_ceil(INSTANCES_PER_WORKSPACE) {
        let name = format!("w{workspace:04}");
        let mut text = String::from(
            "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"tools\"\n\n[[mounts]]\nsrc = \"/src/app\"\ndst = \"/workspace\"\n",
        );
        for instance in 0..INSTANCES_PER_WORKSPACE.min(instances - workspace * INSTANCES_PER_WORKSPACE) {
            text.push_str(&format!("\n[[instance]]\nname = \"i{instance}\"\nagent = \"claude\"\n"));
        }
        let shown = format!("workspaces/{name}.toml");
        files.push(SourceFile { kind: FileKind::Workspace { name }, shown, bytes: text.into_bytes() });
    }
    files
}

fn facts() -> Facts {
    let binary = |path: &str, source| BinaryFact {
        path: path.to_owned(),
        version: "1.0.0".to_owned(),
        digest: "b".repeat(64),
        executable: true,
        source,
        built_for: None,
    };
    let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
    let role = RoleSnapshot {
        key: "tools".to_owned(),
        url: "https://git.example/tools.git".to_owned(),
        elsewhere: false,
        branch: None,
        cache: "/home/me/.jackin/roles/tools/default".to_owned(),
        commit: Some(commit.clone()),
        checked_out: Some(commit),
        dirty: Vec::new(),
        tree: BTreeMap::from([("Dockerfile".to_owned(), TreeKind::File), ("jackin.role.toml".to_owned(), TreeKind::File)]),
        files: BTreeMap::from([
            ("Dockerfile".to_owned(), "FROM projectjackin/construct:0.1-trixie\nUSER agent\n".to_owned()),
            (
                "jackin.role.toml".to_owned(),
                "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\nagents = [\"claude\"]\n\n[claude]\n".to_owned(),
            ),
        ]),
        problem: None,
    };
    let nothing = serde_json::json!({
        "home": "/home/me", "config_dir": "/home/me/.config/jackin", "jackin_home": "/home/me/.jackin", "cwd": "/home/me",
        "uid": 1000, "gid": 1000, "arch": "amd64", "installation": "bench", "version": env!("CARGO_PKG_VERSION"),
    });
    let mut facts: Facts = serde_json::from_value(nothing).expect("BUG: these are all that facts need");
    facts.capsule_binary = Some(binary("/home/me/.jackin/cache/jackin-capsule/1/jackin-capsule", BinarySource::Cache));
    facts.agent_binaries.insert(config::Agent::Claude, binary("/home/me/.jackin/cache/agent-binaries/claude", BinarySource::Cache));
    facts.paths.insert("/src/app".to_owned(), PathFact { kind: PathKind::Directory, canonical: "/src/app".to_owned() });
    facts.roles.insert("tools".to_owned(), role);
    facts
}

/// The world after an apply, as the live provider would tell it.
fn as_made(graph: &Graph) -> Observed {
    let mut observed = Observed::empty();
    observed.engine = Some(Engine { api_version: "1.41".to_owned(), arch: None });
    for (address, resource) in &graph.resources {
        let spec = resource.spec.fields();
        let live: Fields = match &resource.spec {
            Spec::RoleRepo(_) => only(&spec, &["url", "commit"]),
            Spec::AgentBinary(_) | Spec::CapsuleBinary(_) => only(&spec, &["digest", "executable"]),
            Spec::RoleImage(_) | Spec::DerivedImage(_) => Fields::new(),
            _ => spec.clone(),
        };
        let bears_spec = !matches!(address.kind, Kind::RoleRepo | Kind::AgentBinary | Kind::CapsuleBinary | Kind::Image);
        let name = resource.spec.object_name().to_owned();
        let found = Found {
            id: name.clone(),
            name,
            recorded: bears_spec.then_some(spec),
            live,
            state: if address.kind.is_container() { State::Running } else { State::Present },
            in_use: false,
            loss: Loss::default(),
            image_id: None,
        };
        observed.resources.insert(address.clone(), vec![found]);
    }
    observed
}

fn only(spec: &Fields, names: &[&str]) -> Fields {
    names.iter().filter_map(|name| Some(((*name).to_owned(), spec.get(*name)?.clone()))).collect()
}
