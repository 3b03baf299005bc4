//! What holds for every graph, every world and every plan, tried on random ones: order, determinism, reasons, edges, walking,
//! and that one round of applying is enough.

mod support;

use jackin::config::{Dind, NetworkMode, Profile};
use jackin::graph::{Graph, Resource};
use jackin::observed::{Engine, Found, Loss, Observed, PoolMember, State, Stranger};
use jackin::plan::{Action, Change, Effect, Mode, Plan, PlanOptions, Reason, Scope, Step, StepId, plan};
use jackin::provider::memory::{At, Fault, World};
use jackin::resource::{Address, Fields, Image, Kind, Spec, fingerprint};
use jackin::walk::{Limits, Outcome, StepState, Walk};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use support::*;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::with_cases(cases) }
}

// ---- addresses and fingerprints ----

fn any_kind() -> impl Strategy<Value = Kind> {
    select(&Kind::ALL[..])
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z=\n\"]{0,4}".prop_map(Value::from),
        vec("[a-z]{0,2}", 0..3).prop_map(Value::from),
    ]
}

fn any_fields() -> impl Strategy<Value = Fields> {
    btree_map("[ab=\n\".0-9]{1,4}", any_value(), 0..4)
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn an_address_reads_back(kind in any_kind(), name in "[^\\s\\p{C}]{1,20}") {
        let address = Address::new(kind, name);
        prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address.clone()));
        let json = serde_json::to_string(&address).unwrap();
        prop_assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }

    #[test]
    fn an_address_is_what_it_prints_or_no_address(text in "([a-z-]{0,9}|image|home)(/\\PC{0,9})?") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn fingerprints_are_equal_exactly_when_fields_are(a in any_fields(), b in any_fields()) {
        prop_assert_eq!(fingerprint(&a) == fingerprint(&b), a == b);
        prop_assert_eq!(fingerprint(&a), fingerprint(&a.clone()));
    }
}

/// A name may hold what separates fields.
#[test]
fn a_fingerprint_cannot_be_forged_by_a_name() {
    let two = Fields::from([("a".to_owned(), Value::from(1)), ("b".to_owned(), Value::from(2))]);
    let one = Fields::from([("a=1\nb".to_owned(), Value::from(2))]);
    assert_ne!(fingerprint(&two), fingerprint(&one));
}

// ---- order ----

fn node(n: usize) -> Address {
    Address::new(Kind::ALL[n % Kind::ALL.len()], format!("n{n:05}"))
}

fn graph_of(edges: impl IntoIterator<Item = (usize, usize)>, nodes: usize) -> Graph {
    let mut graph = Graph::default();
    for n in 0..nodes {
        let spec = Spec::Image(Image { reference: format!("n{n}"), platform: "linux/amd64".to_owned() });
        graph.resources.insert(node(n), Resource { spec, depends_on: BTreeSet::new(), sources: BTreeMap::new() });
    }
    for (from, to) in edges {
        graph.resources.get_mut(&node(from)).unwrap().depends_on.insert(node(to));
    }
    graph
}

/// Takes away what depends on nothing, again and again; what is left lies on or above a cycle.
fn has_cycle(graph: &Graph) -> bool {
    let mut left: BTreeSet<&Address> = graph.resources.keys().collect();
    loop {
        let free: Vec<&Address> =
            left.iter().copied().filter(|a| graph.resources[*a].depends_on.iter().all(|d| !left.contains(d))).collect();
        if free.is_empty() {
            return !left.is_empty();
        }
        free.iter().for_each(|a| {
            left.remove(a);
        });
    }
}

fn check_order(graph: &Graph) -> Result<(), TestCaseError> {
    match graph.order() {
        Ok(order) => {
            prop_assert!(!has_cycle(graph));
            prop_assert_eq!(order.len(), graph.resources.len());
            let place: BTreeMap<&Address, usize> = order.iter().enumerate().map(|(i, a)| (*a, i)).collect();
            prop_assert_eq!(place.len(), order.len());
            for (address, resource) in &graph.resources {
                for dependency in resource.depends_on.iter().filter(|d| place.contains_key(d)) {
                    prop_assert!(place[dependency] < place[address], "{} before {}", address, dependency);
                }
            }
        }
        Err(cycle) => {
            prop_assert!(has_cycle(graph));
            prop_assert!(cycle.0.len() > 1 && cycle.0.first() == cycle.0.last(), "{}", cycle);
            for pair in cycle.0.windows(2) {
                prop_assert!(graph.resources[&pair[0]].depends_on.contains(&pair[1]), "{} does not need {}", pair[0], pair[1]);
            }
            let once: BTreeSet<&Address> = cycle.0[1..].iter().collect();
            prop_assert_eq!(once.len(), cycle.0.len() - 1, "no address twice");
        }
    }
    let again = graph.clone();
    prop_assert_eq!(graph.order(), again.order());
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn order_is_topological_or_the_cycle_is_real(edges in vec((0usize..20, 0usize..20), 0..30)) {
        check_order(&graph_of(edges, 20))?;
    }

    #[test]
    fn without_a_cycle_there_is_always_an_order(edges in vec((0usize..30, 0usize..30), 0..80)) {
        let graph = graph_of(edges.into_iter().filter(|(a, b)| a > b), 30);
        prop_assert!(graph.order().is_ok());
        check_order(&graph)?;
    }

    #[test]
    fn a_closure_is_closed_and_smallest(edges in vec((0usize..20, 0usize..20), 0..40), root in 0usize..20) {
        let graph = graph_of(edges, 20);
        let closure = graph.closure([node(root)]);
        prop_assert!(closure.contains(&node(root)));
        for address in &closure {
            prop_assert!(graph.resources[address].depends_on.is_subset(&closure));
            let needed = *address == node(root) || closure.iter().any(|a| graph.resources[a].depends_on.contains(address));
            prop_assert!(needed, "{} for no reason", address);
        }
    }
}

#[test]
fn without_edges_the_order_is_that_of_addresses() {
    let graph = graph_of([], 50);
    assert!(graph.order().unwrap().into_iter().eq(graph.resources.keys()));
}

/// Recursion, or looking through all nodes for each, would show here as a crash or as minutes.
#[test]
fn long_chains_and_long_cycles_are_no_trouble() {
    let n = 20_000;
    let chain = graph_of((1..n).map(|i| (i, i - 1)), n);
    assert_eq!(chain.order().unwrap().len(), n);
    assert_eq!(chain.closure([node(n - 1)]).len(), n);
    let ring = graph_of((0..n).map(|i| (i, (i + 1) % n)), n);
    assert_eq!(ring.order().unwrap_err().0.len(), n + 1);
}

// ---- random worlds ----

const ROLES: [&str; 2] = ["architect", "painter"];

fn any_want() -> impl Strategy<Value = Want> {
    let place = (select(&["app", "site"][..]), select(&["one", "two"][..]), select(&ROLES[..]));
    let profile = select(&[Profile::Locked, Profile::Standard, Profile::Compat][..]);
    let dind = select(&[Dind::None, Dind::Privileged, Dind::Privileged, Dind::Rootless][..]);
    let network = select(&[NetworkMode::None, NetworkMode::Open][..]);
    let limits = (proptest::option::of(1i64..4), proptest::option::of(100i64..103), proptest::option::of(select(&[1.5, 2.0][..])));
    let values = (btree_map("[AB]", "[12]", 0..2), proptest::option::of("[12]"));
    (place, profile, dind, network, limits, values, any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        |((workspace, name, role), profile, dind, network_mode, (memory, pids, cpus), (env, token), isolated, declared)| Want {
            profile,
            dind,
            network_mode,
            memory: memory.map(|g| g << 30),
            pids,
            cpus,
            env,
            token,
            isolated,
            declared,
            ..Want::new(workspace, name, role)
        },
    )
}

/// Instances of distinct keys; one commit per role, as one cache holds it.
fn any_wants() -> impl Strategy<Value = Vec<Want>> {
    (vec(any_want(), 1..4), vec("[01]", ROLES.len())).prop_map(|(wants, commits)| {
        let mut by_key: BTreeMap<String, Want> = wants.into_iter().map(|w| (w.key(), w)).collect();
        for want in by_key.values_mut() {
            let role = ROLES.iter().position(|r| *r == want.role).unwrap();
            want.commit = commits[role].repeat(40);
        }
        by_key.into_values().collect()
    })
}

/// One thing done to the world; the index says to which object.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Stop,
    Kill,
    Pause,
    Dead,
    Remove,
    Rename,
    Memory,
    Disconnect,
    Strip,
    TwinContainer,
    TwinNetwork,
    RemoveNetwork,
    RemoveVolume,
    Retag,
    RemoveImage,
    RunBit,
    Corrupt,
    DeleteProgram,
    DeleteHomeFile,
    DeleteManifest,
    DeleteHome,
    DeleteCheckout,
}

const EDITS: [Edit; 22] = [
    Edit::Stop,
    Edit::Kill,
    Edit::Pause,
    Edit::Dead,
    Edit::Remove,
    Edit::Rename,
    Edit::Memory,
    Edit::Disconnect,
    Edit::Strip,
    Edit::TwinContainer,
    Edit::TwinNetwork,
    Edit::RemoveNetwork,
    Edit::RemoveVolume,
    Edit::Retag,
    Edit::RemoveImage,
    Edit::RunBit,
    Edit::Corrupt,
    Edit::DeleteProgram,
    Edit::DeleteHomeFile,
    Edit::DeleteManifest,
    Edit::DeleteHome,
    Edit::DeleteCheckout,
];

fn any_edits() -> impl Strategy<Value = Vec<(Edit, Index)>> {
    vec((select(&EDITS[..]), any::<Index>()), 0..5)
}

fn make(world: &World, nth: usize, edit: Edit, index: Index) {
    let inventory = world.inventory();
    let named = |kinds: &[Kind]| -> Vec<String> {
        inventory.iter().filter(|(a, _)| kinds.contains(&a.kind)).flat_map(|(_, names)| names.clone()).collect()
    };
    let (images, programs) = world.artifacts();
    let names = match edit {
        Edit::TwinNetwork | Edit::RemoveNetwork => named(&[Kind::Network]),
        Edit::RemoveVolume => named(&[Kind::Certs]),
        Edit::Retag | Edit::RemoveImage => images,
        Edit::RunBit | Edit::Corrupt | Edit::DeleteProgram => programs,
        Edit::DeleteHomeFile | Edit::DeleteManifest | Edit::DeleteHome => named(&[Kind::Home]),
        Edit::DeleteCheckout => named(&[Kind::Checkout]),
        // Two daemons that write into one certificate volume cannot be told apart by looking; nobody makes them by accident.
        Edit::TwinContainer => named(&[Kind::Capsule]),
        _ => named(&[Kind::Sidecar, Kind::Capsule]),
    };
    if names.is_empty() {
        return;
    }
    let name = index.get(&names);
    match edit {
        Edit::Stop => world.stop(name),
        Edit::Kill => world.kill(name, 137, true),
        Edit::Pause => world.pause(name),
        Edit::Dead => world.set_state(name, State::Dead),
        Edit::Remove => world.remove(name),
        Edit::Rename => world.rename(name, &format!("renamed-{nth}")),
        Edit::Memory => world.update_memory(name, 5 << 30),
        Edit::Disconnect => {
            if let Some(network) = world.networks_of(name).first() {
                world.disconnect(name, network);
            }
        }
        Edit::Strip => world.strip_spec_label(name),
        Edit::TwinContainer => world.duplicate_container(name, &format!("twin-{nth}")),
        Edit::TwinNetwork => world.duplicate_network(name),
        Edit::RemoveNetwork => drop(world.remove_network(name)),
        Edit::RemoveVolume => drop(world.remove_volume(name)),
        Edit::Retag => world.retag_image(name),
        Edit::RemoveImage => world.remove_image(name),
        Edit::RunBit => world.drop_run_bit(name),
        Edit::Corrupt => world.corrupt_program(name),
        Edit::DeleteProgram => world.delete_program(name),
        Edit::DeleteHomeFile => drop(world.delete_home_file(name, "directories")),
        Edit::DeleteManifest => world.delete_home_manifest(name),
        Edit::DeleteHome => world.delete_home(name),
        Edit::DeleteCheckout => world.delete_checkout(name),
    }
}

/// A world in which `before` was launched and then edited, and perhaps a kept sidecar waits.
fn world_after(before: &[Want], edits: &[(Edit, Index)], kept: bool) -> World {
    let world = new_world();
    converge(&world, before, &mut Dice(0));
    for (nth, (edit, index)) in edits.iter().enumerate() {
        make(&world, nth, *edit, *index);
    }
    if kept && world.artifacts().0.iter().any(|i| i == DIND) {
        world.add_kept_sidecar(&sidecar_spec(
            "jk-prewarm-dind-kept-dind",
            "jk-prewarm-dind-kept-net",
            "jk-prewarm-dind-kept-certs",
            Dind::Privileged,
            "jk-prewarm-dind-kept",
        ));
    }
    world
}

// ---- plans ----

/// Ids of all steps that must be done before each step.
fn before_each(steps: &[Step]) -> BTreeMap<&StepId, BTreeSet<&StepId>> {
    let mut out: BTreeMap<&StepId, BTreeSet<&StepId>> = BTreeMap::new();
    for step in steps {
        let mut before = BTreeSet::new();
        for need in &step.needs {
            before.extend(out[need].iter().copied());
            before.insert(need);
        }
        out.insert(&step.id, before);
    }
    out
}

fn removes(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::RemoveContainer { .. } | Effect::RemoveNetwork { .. } | Effect::RemoveVolume { .. } | Effect::RemoveHome { .. }
    )
}

/// All that must hold for a plan whatever it was made from.
fn check_plan(plan: &Plan, graph: &Graph) -> Result<(), TestCaseError> {
    let mut seen: BTreeSet<&StepId> = BTreeSet::new();
    for step in &plan.steps {
        for need in &step.needs {
            prop_assert!(seen.contains(need), "{} comes before {}", step.id, need);
        }
        prop_assert!(seen.insert(&step.id), "{} twice", step.id);
        let change = plan.change(&step.address);
        prop_assert!(change.is_some(), "{} belongs to no change", step.id);
        let change = change.unwrap();
        prop_assert!(removes(&step.effect) || change.desired.is_some(), "{} has no spec to work from", step.id);
        prop_assert!(!change.is_reuse() || (step.effect == Effect::AwaitReady && step.address.kind == Kind::Sidecar), "{}", step.id);
    }

    let before = before_each(&plan.steps);
    let steps_of = |address: &Address| plan.steps.iter().filter(|s| s.address == *address).collect::<Vec<_>>();
    for (address, resource) in &graph.resources {
        for dependency in &resource.depends_on {
            let (mine, theirs) = (steps_of(address), steps_of(dependency));
            for (first, then) in mine.iter().flat_map(|m| theirs.iter().map(move |t| (m, t))) {
                if removes(&first.effect) && removes(&then.effect) {
                    prop_assert!(before[&then.id].contains(&first.id), "{} must wait for {}", then.id, first.id);
                }
                let found_by_name = dependency.kind == Kind::Sidecar && matches!(then.effect.verb(), "start" | "unpause");
                if first.effect.verb() == "start" && (found_by_name || matches!(then.effect, Effect::CreateNetwork | Effect::Build)) {
                    prop_assert!(before[&first.id].contains(&then.id), "{} must wait for {}", first.id, then.id);
                }
                if first.effect == Effect::CreateContainer && then.effect.verb() == "create" && !dependency.kind.is_container() {
                    prop_assert!(before[&first.id].contains(&then.id), "{} must wait for {}", first.id, then.id);
                }
            }
        }
    }

    for change in &plan.changes {
        prop_assert!(change.is_reuse() || !change.reasons.is_empty(), "{} {:?} for no reason", change.address, change.action);
        let mut previous = None;
        for considered in &change.considered {
            let rung = considered.action.rung();
            match change.action.rung() {
                Some(of_action) => {
                    prop_assert!(rung < Some(of_action), "{} {:?}", change.address, change)
                }
                // Made for the first time: there was nothing to keep or to adopt.
                None => prop_assert!(matches!(considered.action, Action::Reuse | Action::Adopt), "{:?}", change),
            }
            prop_assert!(rung.is_none() || rung > previous, "cheapest first, each once: {:?}", change);
            previous = rung.or(previous);
            prop_assert!(considered.ruled_out_by != Reason::NotNeeded);
        }
        for reason in &change.reasons {
            match reason {
                Reason::FieldChanged { recorded, desired, .. } => prop_assert!(recorded != desired),
                Reason::Drifted { recorded, live, .. } => prop_assert!(recorded != live),
                Reason::DependencyReplaced { address } => {
                    let made = [Action::Create, Action::Replace, Action::Build, Action::Rebuild];
                    prop_assert!(plan.change(address).is_some_and(|c| made.contains(&c.action)), "{} {}", change.address, address);
                }
                _ => {}
            }
        }
        prop_assert_eq!(change.desired.as_ref().map(Spec::kind), change.desired.is_some().then_some(change.address.kind));
    }
    prop_assert_eq!(plan.counts.values().sum::<usize>(), plan.changes.len());
    let addresses: BTreeSet<&Address> = plan.changes.iter().map(|c| &c.address).collect();
    prop_assert_eq!(addresses.len(), plan.changes.len());
    Ok(())
}

/// One plan, however often and from whatever copy it is made; its file reads back and cannot be altered.
fn check_document(graph: &Graph, observed: &Observed, options: &PlanOptions, leaf: &Index) -> Result<Plan, TestCaseError> {
    let first = plan(graph, observed, options);
    let json = first.to_json();
    prop_assert_eq!(&plan(&graph.clone(), &observed.clone(), &options.clone()).to_json(), &json);
    let graph_again: Graph = serde_json::from_str(&serde_json::to_string(graph).unwrap()).unwrap();
    let observed_again: Observed = serde_json::from_str(&serde_json::to_string(observed).unwrap()).unwrap();
    prop_assert_eq!(&plan(&graph_again, &observed_again, options).to_json(), &json, "replayed from files");
    let read = Plan::from_json("plan.json", &json);
    prop_assert_eq!(read.as_ref().map(Plan::to_json), Ok(json.clone()));
    prop_assert!(first.differing(&read.unwrap()).is_empty());

    let mut value: Value = serde_json::from_str(&json).unwrap();
    let mut leaves = Vec::new();
    for part in ["goal", "instances", "changes", "steps", "blockers", "warnings", "counts"] {
        pointers(value.get(part).unwrap_or(&Value::Null), format!("/{part}"), &mut leaves);
    }
    if !leaves.is_empty() {
        let leaf: &String = leaf.get(&leaves);
        let at = value.pointer_mut(leaf).unwrap();
        *at = match &*at {
            Value::String(text) => Value::from(format!("{text}x")),
            Value::Bool(is) => Value::from(!is),
            Value::Number(_) => Value::from(7_654_321),
            _ => Value::from("x"),
        };
        prop_assert!(Plan::from_json("plan.json", &value.to_string()).is_err(), "altered at {}", leaf);
    }
    Ok(first)
}

fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                pointers(value, format!("{at}/{i}"), out);
            }
        }
        Value::Null => {}
        _ => out.push(at),
    }
}

/// After all is applied: empty plan, one of everything wanted; whoever is not wanted is left or gone as asked.
fn check_end(world: &World, wants: &[Want], options: &PlanOptions) -> Result<(), TestCaseError> {
    world.settle();
    let graph = graph(world, wants);
    let rest = plan_of(world, &graph, options);
    prop_assert!(rest.is_empty() && rest.changes.iter().all(Change::is_reuse), "not empty:\n{}", text(&rest));
    let inventory = world.inventory();
    for (address, resource) in graph.resources.iter().filter(|(a, _)| a.kind.per_instance()) {
        let names = inventory.get(address).map_or(&[][..], Vec::as_slice);
        let object = resource.spec.object_name();
        let durable = matches!(address.kind, Kind::Home | Kind::Checkout);
        prop_assert!(names == [object] || (durable && names.iter().any(|n| n == object)), "{}: {:?}", address, names);
    }
    for address in inventory.keys().filter(|a| !graph.resources.contains_key(a)) {
        let durable = matches!(address.kind, Kind::Home | Kind::Checkout);
        let declared_instance = address.instance().is_some_and(|i| graph.instances.contains_key(i));
        prop_assert!(durable || !declared_instance, "{} leaked", address);
    }
    let complaints: Vec<String> = world.complaints().into_iter().filter(|c| wants.iter().any(|w| c.contains(&w.container()))).collect();
    prop_assert!(complaints.is_empty(), "{:?}", complaints);
    Ok(())
}

proptest! {
    #![proptest_config(cases(70))]

    #[test]
    fn any_world_converges_in_one_round_by_a_sound_plan(
        before in any_wants(), edits in any_edits(), after in any_wants(), kept in any::<bool>(), prune in any::<bool>(),
        seed in any::<u64>(), leaf in any::<Index>(),
    ) {
        let world = world_after(&before, &edits, kept);
        let options = PlanOptions { prune, ..launch() };
        let graph = graph(&world, &after);
        let observed = observe(&world, &graph, &options.scope);
        let plan = check_document(&graph, &observed, &options, &leaf)?;
        check_plan(&plan, &graph)?;
        prop_assert!(!plan.is_blocked(), "{:?}", plan.blockers);
        let applied = apply(&world, &plan, &mut Dice(seed), usize::MAX);
        prop_assert!(applied.well(), "{:?}\n{}", applied, text(&plan));
        check_end(&world, &after, &options)?;
    }

    #[test]
    fn any_world_converges_although_things_go_wrong(
        before in any_wants(), edits in any_edits(), after in any_wants(),
        faults in vec((1usize..25, select(&Fault::ALL[..])), 1..4), seed in any::<u64>(),
    ) {
        let world = world_after(&before, &edits, false);
        for (nth, fault) in faults {
            world.fail_at(At::Effect(nth), fault);
        }
        apply(&world, &plan_of(&world, &graph(&world, &after), &launch()), &mut Dice(seed), usize::MAX);
        world.revive();
        let plan = plan_of(&world, &graph(&world, &after), &launch());
        let applied = apply(&world, &plan, &mut Dice(seed), usize::MAX);
        prop_assert!(applied.well(), "{:?}\n{}", applied, text(&plan));
        check_end(&world, &after, &launch())?;
    }

    #[test]
    fn any_world_can_be_emptied(before in any_wants(), edits in any_edits(), purge in any::<bool>(), seed in any::<u64>()) {
        let world = world_after(&before, &edits, false);
        let nothing = graph(&world, &[]);
        let options = PlanOptions { purge, ..eject() };
        let plan = plan_of(&world, &nothing, &options);
        check_plan(&plan, &nothing)?;
        let applied = apply(&world, &plan, &mut Dice(seed), usize::MAX);
        prop_assert!(applied.well(), "{:?}\n{}", applied, text(&plan));
        let left = world.inventory();
        // A home without a manifest says of nobody that it is his.
        let kept = |a: &Address| a.kind == Kind::Home && (!purge || a.name.starts_with("unknown/")) || a.kind == Kind::Checkout && !purge;
        prop_assert!(left.keys().all(kept), "{:?}", left);
        prop_assert!(plan_of(&world, &nothing, &options).is_empty());
    }
}

// ---- garbage ----

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        select(vec![
            State::Present,
            State::Running,
            State::Silent,
            State::Created,
            State::Paused,
            State::Restarting,
            State::Dead,
            State::Removing
        ]),
        (any::<i64>(), any::<bool>()).prop_map(|(code, oom)| State::Exited { code, oom }),
    ]
}

fn any_loss() -> impl Strategy<Value = Loss> {
    let count = || proptest::option::of(prop_oneof![Just(0u32), Just(u32::MAX)]);
    (count(), any::<bool>(), any::<bool>(), count(), count(), proptest::option::of(any::<u64>())).prop_map(
        |(sessions, sessions_unknown, docker_data, uncommitted_files, unpushed_commits, bytes)| Loss {
            sessions,
            sessions_unknown,
            docker_data,
            uncommitted_files,
            unpushed_commits,
            bytes,
        },
    )
}

/// How a found thing's fields come from the desired ones: kept, or replaced by anything.
fn any_found(desired: Option<Fields>) -> impl Strategy<Value = Found> {
    let desired = desired.unwrap_or_default();
    let bend = move |desired: &Fields, bends: &[(Index, Value)], extra: &Fields| {
        let mut out = desired.clone();
        out.extend(extra.clone());
        let names: Vec<String> = out.keys().cloned().collect();
        for (index, value) in bends.iter().filter(|_| !names.is_empty()) {
            out.insert(index.get(&names).clone(), value.clone());
        }
        out
    };
    let bends = || vec((any::<Index>(), any_value()), 0..3);
    let extra = || prop_oneof![3 => Just(Fields::new()), 1 => any_fields()];
    (
        ("[abc]{1,2}", prop::bool::ANY),
        (prop::bool::weighted(0.9), bends(), extra()),
        (prop::bool::weighted(0.7), bends(), extra()),
        any_state(),
        any::<bool>(),
        any_loss(),
        proptest::option::of("[ab]"),
    )
        .prop_map(move |((id, own_name), (has_record, recorded, more), (has_live, live, more_live), state, in_use, loss, image_id)| {
            let named = desired.get("name").or(desired.get("path")).and_then(Value::as_str).unwrap_or("name").to_owned();
            Found {
                name: if own_name { named } else { id.clone() },
                id,
                recorded: has_record.then(|| bend(&desired, &recorded, &more)),
                live: if has_live { bend(&desired, &live, &more_live) } else { Fields::new() },
                state,
                in_use,
                loss,
                image_id,
            }
        })
}

fn any_garbage(graph: &Graph) -> impl Strategy<Value = Observed> + use<> {
    let known: Vec<(Address, Option<Fields>)> = graph.resources.iter().map(|(a, r)| (a.clone(), Some(r.spec.fields()))).collect();
    let of_graph = select(known).prop_flat_map(|(address, fields)| (Just(address), vec(any_found(fields), 0..4)));
    let foreign = (any_kind(), "(app|site)/(one|gone)(:/w)?")
        .prop_flat_map(|(kind, name)| (Just(Address::new(kind, name)), vec(any_found(None), 0..3)));
    let resources = vec(prop_oneof![3 => of_graph, 1 => foreign], 0..20).prop_map(BTreeMap::from_iter);
    let addresses: Vec<Address> = graph.resources.keys().cloned().collect();
    let stranger = "[ab]".prop_map(|id| Stranger { name: id.clone(), id, why: "no jackin label".to_owned() });
    let strangers = btree_map(select(addresses), stranger, 0..3);
    let sidecar = graph.resources.values().find(|r| r.spec.kind() == Kind::Sidecar).map(|r| r.spec.fields());
    let parts = (vec(any_found(sidecar), 0..3), vec(any_found(None), 0..3), vec(any_found(None), 0..3));
    let member =
        ("[abc]", any::<bool>(), parts).prop_map(|(id, held, (sidecar, network, certs))| PoolMember { id, held, sidecar, network, certs });
    let version = prop_oneof!["1\\.[34][0-9]", "[0-9.]{0,4}", Just("x.y".to_owned())];
    let engine = proptest::option::of(version.prop_map(|api_version| Engine { api_version, arch: None }));
    (resources, strangers, vec(member, 0..3), engine).prop_map(|(resources, strangers, pool, engine)| Observed {
        resources,
        strangers,
        pool,
        engine,
        ..Observed::empty()
    })
}

fn any_options(graph: &Graph) -> impl Strategy<Value = PlanOptions> + use<> {
    let addresses: Vec<Address> = graph.resources.keys().cloned().chain([Address::new(Kind::Image, "unknown")]).collect();
    let some = move || prop_oneof![2 => Just(Vec::new()), 1 => vec(select(addresses.clone()), 1..3)];
    let scope = select(vec![
        Scope::All,
        Scope::Workspaces(vec!["app".to_owned()]),
        Scope::Instances(vec!["app/one".to_owned(), "app/gone".to_owned()]),
    ]);
    let history = btree_map("(create|build|start) (capsule|sidecar|derived-image)", prop_oneof![Just(u64::MAX), 0u64..100], 0..4);
    (select(vec![Mode::Launch, Mode::PrewarmOnly, Mode::Restore, Mode::Remove]), scope, some(), some(), any::<[bool; 3]>(), history)
        .prop_map(|(mode, scope, targets, replace, [prune, purge, rebuild], history)| PlanOptions {
            targets,
            replace,
            prune,
            purge,
            rebuild,
            history,
            ..PlanOptions::new(mode, "test", scope)
        })
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn planning_on_garbage_never_panics_and_is_sound(
        (graph, observed, options) in any_wants()
            .prop_map(|wants| graph(&new_world(), &wants))
            .prop_flat_map(|graph| {
                let (garbage, options) = (any_garbage(&graph), any_options(&graph));
                (Just(graph), garbage, options)
            }),
        leaf in any::<Index>(),
    ) {
        let plan = check_document(&graph, &observed, &options, &leaf)?;
        check_plan(&plan, &graph)?;
        // Durable folders go only by purge or by name.
        for step in plan.steps.iter().filter(|s| matches!(s.effect, Effect::RemoveHome { .. })) {
            prop_assert!(options.purge || options.replace.contains(&step.address), "{}", step.id);
        }
        // Nothing goes without its cost being known.
        for change in &plan.changes {
            let gone: Vec<&str> = plan
                .steps
                .iter()
                .filter(|s| s.address == change.address)
                .filter_map(|s| match &s.effect {
                    Effect::RemoveContainer { id } => Some(id.as_str()),
                    _ => None,
                })
                .collect();
            let costs = observed.found(&change.address).iter().filter(|f| gone.contains(&f.id.as_str()));
            prop_assert!(costs.clone().all(|f| f.loss.is_nothing()) || change.loss.is_some(), "{:?}", change);
        }
        prop_assert_eq!(options.targets.iter().chain(&options.replace).any(|a| a.name == "unknown"),
            plan.blockers.iter().any(|b| b.code == "plan.unknown_address"));
    }

    #[test]
    fn a_cycle_is_a_blocker_with_its_path(extra in vec((any::<Index>(), any::<Index>()), 1..6), wants in any_wants()) {
        let mut graph = graph(&new_world(), &wants);
        let addresses: Vec<Address> = graph.resources.keys().cloned().collect();
        for (from, to) in extra {
            graph.resources.get_mut(from.get(&addresses)).unwrap().depends_on.insert(to.get(&addresses).clone());
        }
        let plan = plan(&graph, &Observed::empty(), &launch());
        let blocker = plan.blockers.iter().find(|b| b.code == "graph.cycle");
        prop_assert_eq!(blocker.map(|b| b.detail.clone()), graph.order().err().map(|c| c.to_string()));
        prop_assert!(blocker.is_none() || plan.steps.is_empty());
    }
}

// ---- walking ----

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let effect = select(vec![Effect::Build, Effect::Pull, Effect::Download, Effect::CreateNetwork, Effect::AwaitReady]);
    vec((effect, vec(any::<Index>(), 0..4)), 0..25).prop_map(|drafts| {
        let id = |n: usize| format!("image/{n}#x");
        let step = |(n, (effect, needs)): (usize, (Effect, Vec<Index>))| Step {
            id: id(n),
            address: Address::new(Kind::Image, n.to_string()),
            effect,
            needs: if n == 0 { Vec::new() } else { needs.iter().map(|i| id(i.index(n))).collect::<BTreeSet<_>>().into_iter().collect() },
        };
        drafts.into_iter().enumerate().map(step).collect()
    })
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_walk_keeps_order_and_limits_and_skips_exactly_what_depends(
        steps in any_steps(),
        limits in (1usize..5, 1usize..3, 1usize..3),
        choices in vec((any::<Index>(), select(vec![Outcome::Done, Outcome::Done, Outcome::Done, Outcome::Failed, Outcome::Cancelled])), 25),
        stop_after in proptest::option::of(0usize..25),
    ) {
        let limits = Limits { steps: limits.0, builds: limits.1, pulls: limits.2 };
        let before = before_each(&steps);
        let mut walk = Walk::new(steps.clone(), limits);
        let mut running: Vec<Step> = Vec::new();
        let mut done: BTreeSet<StepId> = BTreeSet::new();
        let mut bad: BTreeSet<StepId> = BTreeSet::new();
        let mut skipped: BTreeSet<StepId> = BTreeSet::new();
        let mut stopped = false;
        for (round, (pick, outcome)) in choices.iter().enumerate() {
            if stop_after == Some(round) {
                walk.stop();
                stopped = true;
            }
            let new = walk.startable();
            prop_assert!(!stopped || new.is_empty());
            for step in &new {
                prop_assert!(step.needs.iter().all(|n| done.contains(n)), "{} started too early", step.id);
            }
            running.extend(new);
            let weight = |builds: bool| running.iter().filter(|s| match s.effect {
                Effect::Build => builds,
                Effect::Pull | Effect::Download => !builds,
                _ => false,
            }).count();
            prop_assert!(running.len() <= limits.steps && weight(true) <= limits.builds && weight(false) <= limits.pulls);
            // Nothing that could start is left waiting.
            let room = running.len() < limits.steps && weight(true) < limits.builds && weight(false) < limits.pulls;
            let idle = steps.iter().filter(|s| !running.contains(s) && !done.contains(&s.id) && !bad.contains(&s.id) && !skipped.contains(&s.id));
            let could_start = idle.clone().any(|s| s.needs.iter().all(|n| done.contains(n)));
            prop_assert!(stopped || !room || !could_start);
            prop_assert_eq!(walk.finished(), running.is_empty() && (stopped || idle.count() == 0));
            if running.is_empty() {
                break;
            }
            let step = running.remove(pick.index(running.len()));
            let now_skipped = walk.complete(&step.id, *outcome);
            if *outcome == Outcome::Done {
                prop_assert!(now_skipped.is_empty());
                done.insert(step.id);
            } else {
                let expected: Vec<StepId> =
                    before.iter().filter(|(id, b)| b.contains(&step.id) && !skipped.contains(**id)).map(|(id, _)| (*id).clone()).collect();
                prop_assert_eq!(&now_skipped, &expected);
                skipped.extend(now_skipped);
                bad.insert(step.id);
            }
        }
        prop_assert!(walk.finished());
        for (step, state) in walk.states() {
            match state {
                StepState::Ended(Outcome::Done) => prop_assert!(done.contains(&step.id)),
                StepState::Ended(_) => prop_assert!(bad.contains(&step.id)),
                StepState::Skipped(because) => prop_assert!(bad.contains(because) && before[&step.id].contains(because)),
                StepState::Waiting => prop_assert!(stopped, "{} was forgotten", step.id),
                StepState::Running => prop_assert!(false, "{} still runs", step.id),
            }
        }
    }
}

// ---- growth ----

#[test]
fn steps_edges_and_changes_grow_by_the_same_for_each_instance() {
    let size = |n: usize, launched: bool| {
        let wants: Vec<Want> = (0..n).map(|i| Want::new("app", &format!("i{i:03}"), "architect")).collect();
        let world = new_world();
        if launched {
            assert!(apply(&world, &plan_of(&world, &graph(&world, &wants), &launch()), &mut Dice(0), usize::MAX).well());
        }
        let options = if launched { eject() } else { launch() };
        let wants = if launched { &[] } else { &wants[..] };
        let plan = plan_of(&world, &graph(&world, wants), &options);
        [plan.changes.len(), plan.steps.len(), plan.steps.iter().map(|s| s.needs.len()).sum()]
    };
    for launched in [false, true] {
        let [one, two, many] = [1, 2, 50].map(|n| size(n, launched));
        for what in 0..3 {
            assert!(one[what] > 0);
            assert_eq!(many[what] - one[what], 49 * (two[what] - one[what]), "{what} of {one:?} {two:?} {many:?}");
        }
    }
}
