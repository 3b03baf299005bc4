//! Whatever was done to the world, and wherever a run was cut off: planning and applying once more gives one of everything, all
//! of it working, and then an empty plan. The world is `provider::memory`; a case is an edit, never a list of expected calls.

mod support;

use jackin::config::{Dind, NetworkMode, Profile};
use jackin::observed::State;
use jackin::plan::{Action, Effect, Mode, PlanOptions, Reason, Scope};
use jackin::provider::memory::{At, Fault, World};
use jackin::resource::{Address, Kind};
use support::*;

/// The graphs every rule is tried on.
fn cases() -> Vec<(&'static str, Vec<Want>)> {
    let one = || Want::new("app", "default", "architect");
    let quiet = |name: &str| Want { dind: Dind::None, ..Want::new("app", name, "architect") };
    vec![
        ("one", vec![one()]),
        ("three of one role", ["one", "two", "three"].map(|n| Want::new("app", n, "architect")).to_vec()),
        ("two roles", vec![Want::new("app", "default", "architect"), Want::new("site", "default", "painter")]),
        ("without sidecar", vec![Want { profile: Profile::Standard, memory: Some(16 << 30), pids: Some(2048), ..quiet("default") }]),
        ("locked", vec![Want { profile: Profile::Locked, network_mode: NetworkMode::Allowlist, memory: Some(4 << 30), ..quiet("x") }]),
        ("no network", vec![Want { profile: Profile::Locked, network_mode: NetworkMode::None, ..quiet("x") }]),
        ("isolated", vec![Want { isolated: true, token: Some("t".to_owned()), ..one() }]),
    ]
}

fn launched(wants: &[Want]) -> World {
    let world = new_world();
    converge(&world, wants, &mut Dice(0));
    world
}

/// Names of the first instance's objects.
struct Names {
    capsule: String,
    sidecar: String,
    network: String,
    certs: String,
    home: String,
}

impl Names {
    fn of(want: &Want) -> Self {
        let c = want.container();
        Self { sidecar: format!("{c}-dind"), network: format!("{c}-net"), certs: format!("{c}-dind-certs"), home: want.home(), capsule: c }
    }
}

struct Edit {
    name: &'static str,
    /// What the plan then does to an instance with a sidecar.
    expect: &'static str,
    needs_sidecar: bool,
    needs_network: bool,
    make: fn(&World, &Names),
}

fn edits() -> Vec<Edit> {
    let edit = |name, expect, make| Edit { name, expect, needs_sidecar: false, needs_network: false, make };
    let networked = |name, expect, make| Edit { needs_network: true, ..edit(name, expect, make) };
    let docker = |name, expect, make| Edit { needs_sidecar: true, ..networked(name, expect, make) };
    vec![
        edit("capsule stopped", "capsule start", |w, n| w.stop(&n.capsule)),
        edit("capsule crashed", "capsule start", |w, n| w.kill(&n.capsule, 1, false)),
        edit("capsule out of memory", "capsule start", |w, n| w.kill(&n.capsule, 137, true)),
        edit("capsule paused", "capsule start", |w, n| w.pause(&n.capsule)),
        edit("capsule dead", "capsule replace", |w, n| w.set_state(&n.capsule, State::Dead)),
        edit("capsule being removed", "capsule replace", |w, n| w.set_state(&n.capsule, State::Removing)),
        edit("capsule removed", "capsule create", |w, n| w.remove(&n.capsule)),
        edit("capsule renamed", "capsule update", |w, n| w.rename(&n.capsule, "other")),
        edit("capsule renamed and stopped", "capsule start", |w, n| {
            w.rename(&n.capsule, "other");
            w.stop("other");
        }),
        edit("capsule without spec label", "capsule replace", |w, n| w.strip_spec_label(&n.capsule)),
        edit("capsule twice", "capsule update", |w, n| w.duplicate_container(&n.capsule, "twin")),
        edit("capsule twice, the first renamed", "capsule update", |w, n| {
            w.rename(&n.capsule, "other");
            w.duplicate_container("other", &n.capsule);
        }),
        networked("capsule disconnected", "capsule update", |w, n| w.disconnect(&n.capsule, &n.network)),
        networked("capsule disconnected and paused", "capsule start", |w, n| {
            w.disconnect(&n.capsule, &n.network);
            w.pause(&n.capsule);
        }),
        networked("capsule disconnected and stopped", "capsule replace", |w, n| {
            w.disconnect(&n.capsule, &n.network);
            w.stop(&n.capsule);
        }),
        networked("network twice", "network update", |w, n| w.duplicate_network(&n.network)),
        networked("network twice, nothing runs on it", "capsule create, network update", |w, n| {
            w.remove(&n.capsule);
            w.duplicate_network(&n.network);
        }),
        docker("network twice, nobody on it", "capsule create, network update, sidecar create", |w, n| {
            w.remove(&n.capsule);
            w.remove(&n.sidecar);
            w.duplicate_network(&n.network);
        }),
        docker("network gone under stopped containers", "capsule replace, network create, sidecar replace", |w, n| {
            w.stop(&n.capsule);
            w.stop(&n.sidecar);
            w.remove_network(&n.network).unwrap();
        }),
        docker("network gone under a living sidecar", "capsule replace, network create, sidecar update", |w, n| {
            w.stop(&n.capsule);
            w.disconnect(&n.sidecar, &n.network);
            w.remove_network(&n.network).unwrap();
        }),
        docker("sidecar stopped", "sidecar start", |w, n| w.stop(&n.sidecar)),
        docker("sidecar paused", "sidecar start", |w, n| w.pause(&n.sidecar)),
        docker("sidecar removed", "sidecar create", |w, n| w.remove(&n.sidecar)),
        docker("sidecar renamed", "sidecar update", |w, n| w.rename(&n.sidecar, "other")),
        docker("sidecar disconnected", "sidecar update", |w, n| w.disconnect(&n.sidecar, &n.network)),
        docker("sidecar dead", "sidecar replace", |w, n| w.set_state(&n.sidecar, State::Dead)),
        docker("sidecar restarting", "sidecar replace", |w, n| w.set_state(&n.sidecar, State::Restarting)),
        docker("sidecar and capsule stopped", "capsule start, sidecar start", |w, n| {
            w.stop(&n.sidecar);
            w.stop(&n.capsule);
        }),
        docker("sidecar image retagged", "sidecar replace", |w, _| w.retag_image(DIND)),
        docker("everything of Docker removed", "capsule create, certs create, network create, sidecar create", |w, n| {
            w.remove(&n.sidecar);
            w.remove(&n.capsule);
            w.remove_network(&n.network).unwrap();
            w.remove_volume(&n.certs).unwrap();
        }),
        edit("home file deleted", "home update", |w, n| assert!(w.delete_home_file(&n.home, "agent_toml"))),
        edit("hand-off file deleted", "home update", |w, n| assert!(w.delete_home_file(&n.home, "auth.claude.files"))),
        edit("home manifest deleted", "home update", |w, n| w.delete_home_manifest(&n.home)),
        edit("home deleted under a stopped capsule", "capsule start, home create", |w, n| {
            w.stop(&n.capsule);
            w.delete_home(&n.home);
        }),
        edit("home deleted under a living capsule", "capsule replace, home create", |w, n| w.delete_home(&n.home)),
        edit("run bit lost", "agent-binary repair", |w, _| w.drop_run_bit(CLAUDE)),
        edit("program corrupted", "agent-binary download", |w, _| w.corrupt_program(CLAUDE)),
        edit("capsule program and its run bit lost", "capsule-binary download", |w, _| {
            w.corrupt_program(CAPSULE);
            w.drop_run_bit(CAPSULE);
        }),
        edit("role cache moved", "role-repo fetch", |w, _| w.move_repo("~/.jackin/roles/architect", &"0".repeat(40))),
        edit("derived image retagged, nothing needs it", "", |w, n| {
            let _ = n;
            w.retag_image(&derived_reference());
        }),
        edit("derived image gone, nothing needs it", "", |w, _| w.remove_image(&derived_reference())),
        edit("program gone, nothing needs it", "", |w, _| w.delete_program(CLAUDE)),
        edit("derived image gone and capsule too", "capsule create, derived-image build", |w, n| {
            w.remove(&n.capsule);
            w.remove_image(&derived_reference());
        }),
        edit("derived image retagged and capsule gone", "capsule create, derived-image rebuild", |w, n| {
            w.remove(&n.capsule);
            w.retag_image(&derived_reference());
        }),
        edit(
            "all that an image is made of is gone",
            "agent-binary download, capsule create, derived-image build, role-image build",
            |w, n| {
                w.remove(&n.capsule);
                w.remove_image(&derived_reference());
                w.remove_image(&base_reference());
                w.delete_program(CLAUDE);
            },
        ),
    ]
}

fn commit() -> String {
    Want::new("app", "default", "architect").commit
}

fn derived_reference() -> String {
    format!("jk_architect:{}", &commit()[..7])
}

fn base_reference() -> String {
    format!("jk_architect__base:{}", &commit()[..7])
}

/// Four cases that differ in what there is to repair, with every edit that makes sense there.
fn edited() -> impl Iterator<Item = (String, Vec<Want>, Edit, World)> {
    let tried = ["one", "two roles", "without sidecar", "no network"];
    cases().into_iter().filter(move |(case, _)| tried.contains(case)).flat_map(|(case, wants)| {
        let world = launched(&wants);
        let (docker, network) = (wants[0].dind != Dind::None, case != "no network");
        edits()
            .into_iter()
            .filter(move |e| (docker || !e.needs_sidecar) && (network || !e.needs_network))
            .map(move |e| (format!("{case}, {}", e.name), wants.clone(), e, world.clone()))
            .collect::<Vec<_>>()
    })
}

#[test]
fn a_launch_in_any_order_then_an_empty_plan_and_no_mutating_call() {
    for (case, wants) in cases() {
        for seed in 0..20 {
            let world = new_world();
            converge(&world, &wants, &mut Dice(seed));
            let before = world.mutations();
            let plan = plan_of(&world, &graph(&world, &wants), &launch());
            assert!(apply(&world, &plan, &mut Dice(seed), usize::MAX).well());
            assert_eq!(world.mutations(), before, "{case}");
        }
    }
}

#[test]
fn the_first_launch_makes_each_thing_once() {
    let wants = cases().remove(1).1;
    let world = new_world();
    let plan = plan_of(&world, &graph(&world, &wants), &launch());
    let count = |effect: fn(&Effect) -> bool| plan.steps.iter().filter(|s| effect(&s.effect)).count();
    assert_eq!(count(|e| *e == Effect::Pull), 2, "construct and sidecar image, once for all three");
    assert_eq!(count(|e| *e == Effect::Build), 2);
    assert_eq!(count(|e| *e == Effect::CreateContainer), 6);
    assert_eq!(count(|e| *e == Effect::CreateNetwork), 3);
}

#[test]
fn every_edit_gets_the_lowest_sufficient_action() {
    let wants = vec![Want::new("app", "default", "architect")];
    let world = launched(&wants);
    for edit in edits() {
        let world = world.clone();
        (edit.make)(&world, &Names::of(&wants[0]));
        let plan = plan_of(&world, &graph(&world, &wants), &launch());
        assert_eq!(summary(&plan), edit.expect, "{}\n{}", edit.name, text(&plan));
    }
}

#[test]
fn every_edit_converges_in_any_order() {
    for (name, wants, edit, launched) in edited() {
        for seed in [0, 1, 9] {
            let world = launched.clone();
            (edit.make)(&world, &Names::of(&wants[0]));
            println!("{name}, seed {seed}");
            converge(&world, &wants, &mut Dice(seed));
        }
    }
}

/// Applies only the first `n` steps for every n, then converges.
fn cut_off_everywhere(name: &str, world: &World, wants: &[Want], seed: u64) {
    let whole = plan_of(world, &graph(world, wants), &launch());
    for n in 0..whole.steps.len() {
        let world = world.clone();
        apply(&world, &whole, &mut Dice(seed), n);
        println!("{name}, cut off after {n} of\n{}", text(&whole));
        converge(&world, wants, &mut Dice(seed));
    }
}

#[test]
fn a_launch_cut_off_after_any_step_converges() {
    for (name, wants) in cases() {
        for seed in 0..3 {
            cut_off_everywhere(name, &new_world(), &wants, seed);
        }
    }
}

#[test]
fn a_repair_cut_off_after_any_step_converges() {
    for (name, wants, edit, world) in edited() {
        (edit.make)(&world, &Names::of(&wants[0]));
        let seeds = if wants.len() == 1 { 0..2 } else { 5..6 };
        for seed in seeds {
            cut_off_everywhere(&name, &world, &wants, seed);
        }
    }
}

/// Lets every step of the plan go wrong once in each of these ways, then converges.
fn fail_everywhere(name: &str, world: &World, wants: &[Want], faults: &[Fault]) {
    let whole = plan_of(world, &graph(world, wants), &launch());
    for step in &whole.steps {
        for &fault in faults {
            let world = world.clone();
            world.fail_at(At::Step(step.id.clone()), fault);
            let applied = apply(&world, &whole, &mut Dice(0), usize::MAX);
            assert_eq!(applied.well(), fault == Fault::Transient, "{name}: {fault:?} at {}: {applied:?}", step.id);
            world.revive();
            println!("{name}, {fault:?} at {}", step.id);
            converge(&world, wants, &mut Dice(0));
        }
    }
}

#[test]
fn a_launch_with_any_step_going_wrong_converges() {
    for (name, wants) in cases() {
        let faults = if wants.len() == 1 { &Fault::ALL[..] } else { &[Fault::Before, Fault::After] };
        fail_everywhere(name, &new_world(), &wants, faults);
    }
}

#[test]
fn a_repair_with_any_step_going_wrong_converges() {
    for (name, wants, edit, world) in edited() {
        if wants.len() == 1 && !name.starts_with("no network") {
            (edit.make)(&world, &Names::of(&wants[0]));
            fail_everywhere(&name, &world, &wants, &[Fault::Before, Fault::After, Fault::KilledHalfway]);
        }
    }
}

/// A change of the configuration, and what it does to the instance.
type Mind = (&'static str, fn(&mut Want), fn(&mut Want), &'static str);

fn changes_of_mind() -> Vec<Mind> {
    let as_is: fn(&mut Want) = |_| ();
    vec![
        ("env added", as_is, |w| drop(w.env.insert("A".to_owned(), "1".to_owned())), "capsule replace"),
        ("env removed", |w| drop(w.env.insert("A".to_owned(), "1".to_owned())), as_is, "capsule replace"),
        ("token changed", |w| w.token = Some("1".to_owned()), |w| w.token = Some("2".to_owned()), "capsule replace"),
        ("memory set", as_is, |w| w.memory = Some(8 << 30), "capsule update"),
        ("memory changed", |w| w.memory = Some(4 << 30), |w| w.memory = Some(8 << 30), "capsule update"),
        ("memory set free", |w| w.memory = Some(4 << 30), as_is, "capsule update"),
        ("cpus changed", |w| w.cpus = Some(2.0), |w| w.cpus = Some(1.5), "capsule update"),
        ("cpus set free", |w| w.cpus = Some(2.0), as_is, "capsule replace"),
        ("pids set free", |w| w.pids = Some(100), as_is, "capsule update"),
        (
            "role moved on",
            as_is,
            |w| w.commit = "1".repeat(40),
            "capsule replace, derived-image build, home update, role-image build, role-repo fetch",
        ),
        ("sidecar dropped", as_is, |w| w.dind = Dind::None, "capsule replace, certs remove, home update, sidecar remove"),
        ("sidecar wanted", |w| w.dind = Dind::None, as_is, "capsule replace, certs create, home update, image pull, sidecar create"),
        ("tier changed", as_is, |w| w.dind = Dind::Rootless, "sidecar replace"),
        ("locked", |w| w.dind = Dind::None, |w| (w.dind, w.profile) = (Dind::None, Profile::Locked), "capsule replace, network replace"),
        (
            "network dropped",
            |w| w.dind = Dind::None,
            |w| (w.dind, w.network_mode) = (Dind::None, NetworkMode::None),
            "capsule replace, home update, network remove",
        ),
        ("isolated", as_is, |w| w.isolated = true, "capsule replace, checkout create"),
        ("no longer isolated", |w| w.isolated = true, as_is, "capsule replace"),
        ("no longer declared", as_is, |w| w.declared = false, "capsule replace, home update"),
    ]
}

#[test]
fn every_change_of_mind_converges_and_back() {
    for (name, before, after, expect) in changes_of_mind() {
        let (mut first, mut second) = (Want::new("app", "default", "architect"), Want::new("app", "default", "architect"));
        before(&mut first);
        after(&mut second);
        let world = launched(std::slice::from_ref(&first));
        let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&second)), &launch());
        assert_eq!(summary(&plan), expect, "{name}\n{}", text(&plan));
        if first.isolated {
            // Work in a checkout outlives its use.
            continue;
        }
        fail_everywhere(name, &world, std::slice::from_ref(&second), &[Fault::Before, Fault::After, Fault::KilledHalfway]);
        for seed in 0..2 {
            let world = world.clone();
            println!("{name}, seed {seed}");
            cut_off_everywhere(name, &world, std::slice::from_ref(&second), seed);
            converge(&world, std::slice::from_ref(&second), &mut Dice(seed));
            if !second.isolated {
                converge(&world, std::slice::from_ref(&first), &mut Dice(seed));
            }
        }
    }
}

/// An edit in place cannot rewrite labels, so the recorded spec stays behind for good.
#[test]
fn a_limit_set_in_place_can_be_taken_off_again() {
    let want = Want::new("app", "default", "architect");
    let limited = Want { memory: Some(8 << 30), cpus: Some(2.0), ..want.clone() };
    let less = Want { cpus: Some(2.0), ..want.clone() };
    let world = launched(std::slice::from_ref(&want));
    converge(&world, std::slice::from_ref(&limited), &mut Dice(0));
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&less)), &launch());
    assert_eq!(summary(&plan), "capsule update");
    converge(&world, &[less], &mut Dice(0));
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_eq!(summary(&plan), "capsule replace");
    converge(&world, &[want], &mut Dice(0));
}

#[test]
fn docker_update_is_seen_and_undone() {
    let want = Want { memory: Some(4 << 30), ..Want::new("app", "default", "architect") };
    let world = launched(std::slice::from_ref(&want));
    world.update_memory(&want.container(), 1 << 30);
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_eq!(summary(&plan), "capsule update");
    assert!(
        matches!(&plan.change(&want.at(Kind::Capsule)).unwrap().reasons[..], [Reason::Drifted { field, .. }] if field == "limits.memory")
    );
    converge(&world, &[want], &mut Dice(0));
}

#[test]
fn a_stale_network_is_seen_after_only_the_network_was_made_anew() {
    let want = Want::new("app", "default", "architect");
    let world = launched(std::slice::from_ref(&want));
    let names = Names::of(&want);
    world.stop(&names.capsule);
    world.stop(&names.sidecar);
    world.remove_network(&names.network).unwrap();
    let graph = graph(&world, std::slice::from_ref(&want));
    let only = PlanOptions { targets: vec![want.at(Kind::Network)], ..launch() };
    let plan = plan_of(&world, &graph, &only);
    assert_eq!(summary(&plan), "network create");
    assert!(apply(&world, &plan, &mut Dice(0), usize::MAX).well());
    converge(&world, &[want], &mut Dice(0));
}

#[test]
fn a_plan_of_a_part_leaves_the_rest_and_later_converges() {
    for (name, wants) in cases() {
        let whole = graph(&new_world(), &wants);
        for target in whole.resources.keys() {
            let world = new_world();
            let plan = plan_of(&world, &whole, &PlanOptions { targets: vec![target.clone()], ..launch() });
            let closure = whole.closure([target.clone()]);
            assert!(plan.changes.iter().all(|c| closure.contains(&c.address)), "{name}, {target}");
            assert!(plan.change(target).is_some_and(|c| !c.is_reuse()), "{name}: {target} is made");
            let applied = apply(&world, &plan, &mut Dice(0), usize::MAX);
            assert!(applied.well(), "{name}, {target}: {applied:?}");
            converge(&world, &wants, &mut Dice(0));
        }
    }
}

#[test]
fn replace_by_flag_replaces_and_converges() {
    for (name, wants) in cases() {
        let world = launched(&wants);
        let whole = graph(&world, &wants);
        for address in whole.resources.keys() {
            let options = PlanOptions { replace: vec![address.clone()], ..launch() };
            let plan = plan_of(&world, &whole, &options);
            let change = plan.change(address).unwrap();
            assert!(change.reasons.contains(&Reason::Requested { flag: "--replace".to_owned() }), "{name}, {address}: {change:?}");
            for n in 0..=plan.steps.len() {
                let world = world.clone();
                println!("{name}, --replace {address}, cut off after {n} of\n{}", text(&plan));
                let applied = apply(&world, &plan, &mut Dice(7), n);
                assert!(applied.failed.is_empty(), "{applied:?}");
                converge(&world, &wants, &mut Dice(0));
            }
        }
    }
}

#[test]
fn a_base_image_made_anew_takes_along_what_is_built_on_it() {
    let want = Want::new("app", "default", "architect");
    let world = launched(std::slice::from_ref(&want));
    let options = PlanOptions { replace: vec![Address::new(Kind::RoleImage, "architect")], ..launch() };
    let plan = plan_of(&world, &graph(&world, &[want]), &options);
    assert_eq!(summary(&plan), "capsule replace, derived-image rebuild, role-image rebuild");
}

#[test]
fn remove_leaves_nothing_but_homes_and_purge_not_even_those() {
    for (name, wants) in cases() {
        for (purge, options) in [(false, eject()), (true, PlanOptions { purge: true, ..eject() })] {
            let world = launched(&wants);
            let nothing = graph(&world, &[]);
            let whole = plan_of(&world, &nothing, &options);
            let check = |world: &World| {
                let left: Vec<Address> =
                    world.inventory().into_keys().filter(|a| purge || !matches!(a.kind, Kind::Home | Kind::Checkout)).collect();
                assert!(left.is_empty(), "{name}: {left:?}");
                assert_empty(&plan_of(world, &nothing, &options));
                assert!(purge || world.record(&wants[0].home()).is_some());
            };
            for n in 0..=whole.steps.len() {
                for seed in 0..3 {
                    let world = world.clone();
                    apply(&world, &whole, &mut Dice(seed), n);
                    let rest = plan_of(&world, &nothing, &options);
                    let applied = apply(&world, &rest, &mut Dice(seed), usize::MAX);
                    assert!(applied.well(), "{name}: {applied:?}\n{}", text(&rest));
                    check(&world);
                }
            }
            for step in &whole.steps {
                for fault in Fault::ALL {
                    let world = world.clone();
                    world.fail_at(At::Step(step.id.clone()), fault);
                    apply(&world, &whole, &mut Dice(0), usize::MAX);
                    world.revive();
                    assert!(apply(&world, &plan_of(&world, &nothing, &options), &mut Dice(0), usize::MAX).well());
                    check(&world);
                }
            }
        }
    }
}

#[test]
fn remove_keeps_to_its_scope() {
    let wants = cases().remove(2).1;
    let world = launched(&wants);
    let options = PlanOptions::new(Mode::Remove, "eject", Scope::Instances(vec!["app/default".to_owned()]));
    let plan = plan_of(&world, &graph(&world, &[]), &options);
    assert!(plan.changes.iter().all(|c| c.address.instance() == Some("app/default") && c.action == Action::Remove));
    assert!(apply(&world, &plan, &mut Dice(0), usize::MAX).well());
    let rest = graph(&world, &wants[1..]);
    assert_healthy(&world, &rest, &[wants[0].at(Kind::Home)]);
}

#[test]
fn an_ejected_instance_comes_back_round_its_home() {
    for (name, wants) in cases() {
        let world = launched(&wants);
        assert!(apply(&world, &plan_of(&world, &graph(&world, &[]), &eject()), &mut Dice(0), usize::MAX).well());
        let plan = plan_of(&world, &graph(&world, &wants), &launch());
        for want in &wants {
            assert_eq!(plan.change(&want.at(Kind::Home)).unwrap().action, Action::Reuse, "{name}");
        }
        converge(&world, &wants, &mut Dice(0));
    }
}

#[test]
fn prune_removes_exactly_the_instances_that_were_declared_once() {
    let [kept, gone, ad_hoc] = ["kept", "gone", "adhoc"].map(|n| Want::new("app", n, "architect"));
    let ad_hoc = Want { declared: false, ..ad_hoc };
    let world = new_world();
    converge(&world, &[kept.clone(), gone.clone(), ad_hoc.clone()], &mut Dice(0));
    let declared = graph(&world, std::slice::from_ref(&kept));

    let plan = plan_of(&world, &declared, &launch());
    assert_empty(&plan);
    let told: Vec<&str> = plan.warnings.iter().filter(|w| w.code == "plan.not_declared").map(|w| w.detail.as_str()).collect();
    assert_eq!(told, ["app/gone exists, but no workspace declares it."]);

    let prune = PlanOptions { prune: true, ..launch() };
    let whole = plan_of(&world, &declared, &prune);
    for n in 0..=whole.steps.len() {
        let world = world.clone();
        apply(&world, &whole, &mut Dice(n as u64), n);
        assert!(apply(&world, &plan_of(&world, &declared, &prune), &mut Dice(0), usize::MAX).well());
        assert_empty(&plan_of(&world, &declared, &prune));
        let both = graph(&world, &[kept.clone(), ad_hoc.clone()]);
        assert_healthy(&world, &both, &[gone.at(Kind::Home)]);
    }
}

const KEPT: &str = "jk-prewarm-dind-kept-dind";

/// A world with base images and one kept sidecar of this tier.
fn prewarmed(tier: Dind) -> World {
    let world = new_world();
    let mut images = graph(&world, &[Want::new("app", "default", "architect")]);
    images.resources.retain(|a, _| !a.kind.per_instance());
    images.instances.clear();
    let plan = plan_of(&world, &images, &PlanOptions::new(Mode::PrewarmOnly, "prewarm", Scope::All));
    assert!(apply(&world, &plan, &mut Dice(0), usize::MAX).well());
    assert!(plan.changes.iter().all(|c| !c.is_reuse()), "prewarm makes every artifact");
    world.add_kept_sidecar(&sidecar_spec(KEPT, "jk-prewarm-dind-kept-net", "jk-prewarm-dind-kept-certs", tier, "jk-prewarm-dind-kept"));
    world
}

#[test]
fn a_kept_sidecar_is_adopted_whole_and_stays_adopted() {
    let want = Want::new("app", "default", "architect");
    let world = prewarmed(Dind::Privileged);
    let whole = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_eq!(summary(&whole), "capsule create, certs adopt, home create, network adopt, sidecar adopt");
    cut_off_everywhere("adopt", &world, std::slice::from_ref(&want), 0);
    cut_off_everywhere("adopt", &world, std::slice::from_ref(&want), 5);
    fail_everywhere("adopt", &world, std::slice::from_ref(&want), &Fault::ALL);
    converge(&world, std::slice::from_ref(&want), &mut Dice(0));
    assert_eq!(world.inventory()[&want.at(Kind::Sidecar)], [KEPT]);
    // It is the instance's own from now on: mended like any other, and removed with it.
    world.stop(KEPT);
    world.stop(&want.container());
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_eq!(summary(&plan), "capsule start, sidecar start");
    converge(&world, &[want], &mut Dice(0));
    assert!(apply(&world, &plan_of(&world, &graph(&world, &[]), &eject()), &mut Dice(0), usize::MAX).well());
    assert!(world.inventory().keys().all(|a| a.kind == Kind::Home));
}

/// Trap of the original: a privileged kept sidecar went to an instance that must not have one.
#[test]
fn a_kept_sidecar_of_another_tier_is_left_alone() {
    let world = prewarmed(Dind::Privileged);
    let want = Want { dind: Dind::Rootless, ..Want::new("app", "default", "architect") };
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    let change = plan.change(&want.at(Kind::Sidecar)).unwrap();
    assert_eq!(change.action, Action::Create);
    assert!(
        change
            .considered
            .iter()
            .any(|c| c.action == Action::Adopt && matches!(&c.ruled_out_by, Reason::Mismatch { field, .. } if field == "tier"))
    );
    converge(&world, std::slice::from_ref(&want), &mut Dice(0));
    let none = Want { dind: Dind::None, ..want };
    converge(&world, &[none], &mut Dice(0));
    assert_eq!(world.inventory().keys().filter(|a| a.pool_id() == Some("kept")).count(), 3, "still there for somebody else");
}

#[test]
fn one_kept_sidecar_goes_to_one_instance() {
    let world = prewarmed(Dind::Privileged);
    let wants = ["one", "two"].map(|n| Want::new("app", n, "architect"));
    let plan = plan_of(&world, &graph(&world, &wants), &launch());
    assert_eq!(plan.counts.get(&Action::Adopt), Some(&3));
    for seed in 0..5 {
        converge(&world.clone(), &wants, &mut Dice(seed));
    }
}

#[test]
fn strangers_block_and_are_never_touched() {
    for installation in [None, Some("theirs")] {
        for kind in [Kind::Network, Kind::Certs, Kind::Sidecar, Kind::Capsule] {
            let want = Want::new("app", "default", "architect");
            let names = Names::of(&want);
            let name = match kind {
                Kind::Network => &names.network,
                Kind::Certs => &names.certs,
                Kind::Sidecar => &names.sidecar,
                _ => &names.capsule,
            };
            let world = new_world();
            world.add_stranger(kind, name, installation);
            let before = world.strangers();
            let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
            let codes: Vec<_> = plan.blockers.iter().map(|b| (b.code.as_str(), b.address.clone())).collect();
            assert_eq!(codes, [("plan.stranger", Some(want.at(kind).to_string()))], "{kind}");
            // Even somebody who does not heed the blocker does no harm.
            apply(&world, &plan, &mut Dice(0), usize::MAX);
            assert!(apply(&world, &plan_of(&world, &graph(&world, &[]), &eject()), &mut Dice(0), usize::MAX).well());
            assert_eq!(world.strangers(), before, "{kind}");
        }
    }
}

#[test]
fn a_stranger_under_the_name_of_a_renamed_container_blocks() {
    for stopped in [false, true] {
        let want = Want::new("app", "default", "architect");
        let world = launched(std::slice::from_ref(&want));
        world.rename(&want.container(), "other");
        if stopped {
            world.stop("other");
        }
        world.add_stranger(Kind::Capsule, &want.container(), None);
        let plan = plan_of(&world, &graph(&world, &[want]), &launch());
        assert!(plan.is_blocked(), "stopped: {stopped}");
    }
}

#[test]
fn strangers_elsewhere_are_not_even_mentioned() {
    let wants = cases().remove(0).1;
    let world = new_world();
    for (kind, name) in [(Kind::Network, "net"), (Kind::Certs, "volume"), (Kind::Capsule, "box")] {
        world.add_stranger(kind, name, None);
        world.add_stranger(kind, &format!("{name}-2"), Some("theirs"));
    }
    let before = world.strangers();
    converge(&world, &wants, &mut Dice(0));
    assert!(apply(&world, &plan_of(&world, &graph(&world, &[]), &PlanOptions { purge: true, ..eject() }), &mut Dice(0), usize::MAX).well());
    assert_eq!(world.strangers(), before);
    assert!(world.inventory().is_empty());
}

/// The loop above is only a stand-in that can run steps in any order; here is the one that people get.
#[test]
fn the_real_apply_converges_too() {
    use jackin::walk::Limits;
    let really = |world: &World, wants: &[Want], limits: Limits| {
        let plan = plan_of(world, &graph(world, wants), &launch());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (_interrupt, interrupts) = tokio::sync::watch::channel(0);
        runtime.block_on(jackin::apply::apply(world, &plan, limits, interrupts, &mut |_| ()))
    };
    for (name, wants) in cases() {
        for limits in [Limits::default(), Limits { steps: 1, builds: 1, pulls: 1 }] {
            let world = new_world();
            // One step fails for good, and all that hangs on it is left for the second run.
            world.fail_at(At::Step(format!("home/{}#write", wants[0].key())), Fault::Before);
            let report = really(&world, &wants, limits);
            assert_eq!((report.failed.len(), report.succeeded()), (1, false), "{name}: {report:?}");
            assert!(report.skipped.iter().all(|(_, because)| *because == report.failed[0].0));
            assert!(really(&world, &wants, limits).succeeded(), "{name}");
            let after = graph(&world, &wants);
            assert_empty(&plan_of(&world, &after, &launch()));
            assert_healthy(&world, &after, &[]);
        }
    }
    let world = new_world();
    let wants = cases().remove(0).1;
    world.fail_at(At::Effect(3), Fault::Transient);
    assert!(really(&world, &wants, Limits::default()).succeeded(), "what can pass is tried again");
}

#[test]
fn a_checkout_deleted_under_a_living_capsule_converges() {
    let want = Want { isolated: true, ..Want::new("app", "default", "architect") };
    let world = launched(std::slice::from_ref(&want));
    world.delete_checkout(&want.checkout());
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_eq!(summary(&plan), "capsule replace, checkout create");
    cut_off_everywhere("checkout deleted", &world, &[want], 0);
}

/// The old role's home holds the conversations of that role; it is neither overwritten nor removed.
#[test]
fn another_role_gets_another_home_and_the_old_one_stays() {
    let old = Want::new("app", "default", "architect");
    let new = Want::new("app", "default", "painter");
    let world = launched(std::slice::from_ref(&old));
    converge(&world, std::slice::from_ref(&new), &mut Dice(0));
    assert_eq!(world.inventory()[&old.at(Kind::Home)].len(), 2);
    converge(&world, std::slice::from_ref(&old), &mut Dice(0));
    assert_eq!(world.inventory()[&old.at(Kind::Home)].len(), 2, "back in the first home");
}

/// What is lost is said also for the one of two that goes.
#[test]
fn removing_a_duplicate_states_its_cost() {
    let want = Want::new("app", "default", "architect");
    let world = launched(std::slice::from_ref(&want));
    world.duplicate_container(&want.container(), "twin");
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    let change = plan.change(&want.at(Kind::Capsule)).unwrap();
    assert_eq!(change.loss.as_ref().and_then(|l| l.sessions), Some(1), "{change:?}");
}

#[test]
fn purging_a_dirty_checkout_states_its_cost() {
    let want = Want { isolated: true, ..Want::new("app", "default", "architect") };
    let world = launched(std::slice::from_ref(&want));
    world.dirty_checkout(&want.checkout(), 3);
    let plan = plan_of(&world, &graph(&world, &[]), &PlanOptions { purge: true, ..eject() });
    let lost: Vec<_> = plan.losses().into_iter().filter_map(|(_, l)| l.uncommitted_files).collect();
    assert_eq!(lost, [3]);
    // Not even a plan that writes it again throws the work away.
    let plan = plan_of(&world, &graph(&world, std::slice::from_ref(&want)), &launch());
    assert_empty(&plan);
}
