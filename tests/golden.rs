//! Every folder of `plans/` is a case: what the operator wrote and what exists, in; the plan as text and JSON, out. A bug report
//! becomes one more folder. `docs/planning.md` tells the rules, `plans/README.md` what lies in a case.
//!
//! `UPDATE_PLANS=1` rewrites plan.txt and plan.json. `UPDATE_OBSERVED=1` makes observed.json anew from the world in memory and the
//! edits of case.toml; otherwise it is a plain file like the others.

mod support;

use clap::Parser;
use jackin::cli::{Cli, Command};
use jackin::config::{self, Agent, EnvValue, FileKind, Profile, SourceFile};
use jackin::facts::{Facts, RoleSnapshot, TreeKind};
use jackin::graph::Graph;
use jackin::graph::build::build;
use jackin::graph::prewarm::{self, Goal};
use jackin::graph::spare;
use jackin::graph::want::{self, Load, Target, Wanted, declared, place};
use jackin::observed::{Engine, Found, Observed, State};
use jackin::plan::{Mode, Plan, PlanOptions, Scope, SidecarGoal, plan};
use jackin::provider::memory::{At, Fault, World};
use jackin::render::Style;
use jackin::render::plan::plan_text;
use jackin::resource::{Address, EnvEntry, HOLD, InstanceRecord, Kind, Sidecar, Spec, sha256_hex};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::{Dice, apply, observe};

const HOME: &str = "/home/neo";

/// `case.toml`: the command line of the case, and how its world came to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// One line for people.
    #[allow(dead_code, reason = "it is read by people")]
    about: String,
    #[serde(default)]
    command: Verb,
    /// Which workspaces; none = all.
    #[serde(default)]
    workspaces: Vec<String>,
    /// Which instances, for hardline and eject.
    #[serde(default)]
    instances: Vec<String>,
    load: Option<LoadCase>,
    /// What follows `jackin prewarm`.
    #[serde(default)]
    prewarm: String,
    #[serde(default)]
    targets: Vec<Address>,
    #[serde(default)]
    replace: Vec<Address>,
    #[serde(default)]
    rebuild: bool,
    #[serde(default)]
    prune: bool,
    #[serde(default)]
    purge: bool,
    #[serde(default)]
    world: Start,
    /// A case whose files are read where this one has none.
    like: Option<String>,
    /// Containers that exist when spares are chosen, in whatever state.
    #[serde(default)]
    there: Vec<String>,
    /// In the place of the shared facts' seed: another run of the same command.
    #[serde(skip)]
    seed: Option<String>,
    /// Configured roles that `roles/` does not hold and the case is not about.
    #[serde(default)]
    without: Vec<String>,
    /// What happened in it afterwards, see `edit`.
    #[serde(default)]
    edits: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    #[default]
    Apply,
    Load,
    Hardline,
    Eject,
    Prewarm,
}

/// `jackin load ROLE TARGET`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadCase {
    role: String,
    workspace: Option<String>,
    folder: Option<String>,
    /// Where the folder appears in the container; none = at its own path.
    container: Option<String>,
    agent: Option<Agent>,
    profile: Option<String>,
    branch: Option<String>,
}

/// Where observed.json starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// Everything that the case (or its `before/`) declares was applied.
    #[default]
    Launched,
    /// An engine with nothing on it; the role is cloned, programs are cached.
    Files,
    /// Programs are cached, and that is all.
    Bare,
    /// The same without an engine that was asked, as with --offline.
    Offline,
    /// No observed.json: nothing was looked at. For cases that are blocked before anything could exist.
    Unasked,
}

// ---- reading a case ----

fn plans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plans")
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Names in a folder, sorted; nothing when there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut out: Vec<String> = entries.map(|e| e.expect("a readable folder").file_name().into_string().expect("UTF-8 names")).collect();
    out.sort();
    out
}

fn cases() -> Vec<String> {
    names(&plans()).into_iter().filter(|name| plans().join(name).join("case.toml").is_file()).collect()
}

/// Folders in which an input is looked for: `before/` when the world was made from something else, the case, what all share.
struct Inputs {
    layers: Vec<PathBuf>,
}

impl Inputs {
    fn of(case: &str, before: bool) -> Inputs {
        let folder = plans().join(case);
        let before = before.then(|| folder.join("before"));
        let like = self::case(case).like.map(|like| plans().join(like));
        Inputs { layers: before.into_iter().chain([folder]).chain(like).chain([plans()]).collect() }
    }

    /// The first that has it; a folder counts as a whole.
    fn find(&self, name: &str) -> Option<PathBuf> {
        self.layers.iter().map(|layer| layer.join(name)).find(|path| path.exists())
    }

    fn config(&self) -> config::Config {
        let mut sources = Vec::new();
        if let Some(file) = self.find("config.toml") {
            sources.push(SourceFile { kind: FileKind::Global, shown: "config.toml".to_owned(), bytes: read(&file).into_bytes() });
        }
        let folder = self.find("workspaces").expect("every case has workspaces");
        for file in names(&folder) {
            let name = file.strip_suffix(".toml").expect("a workspace file").to_owned();
            let bytes = read(&folder.join(&file)).into_bytes();
            sources.push(SourceFile { kind: FileKind::Workspace { name }, shown: format!("workspaces/{file}"), bytes });
        }
        config::load(&sources).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).0
    }

    /// The case states only what differs from the facts that all share; roles' files come from their folders.
    fn facts(&self, config: &config::Config) -> Facts {
        let mut all = toml::Table::new();
        for layer in self.layers.iter().rev() {
            let file = layer.join("facts.toml");
            if file.is_file() {
                merge(&mut all, read(&file).parse().unwrap_or_else(|error| panic!("{}: {error}", file.display())));
            }
        }
        for name in all.remove("absent").and_then(|names| names.as_array().cloned()).unwrap_or_default() {
            all.remove(name.as_str().expect("the name of a fact"));
        }
        let table = |t: &mut toml::Table, key: &str| {
            t.entry(key.to_owned()).or_insert_with(|| toml::Table::new().into()).as_table_mut().expect("a table").clone()
        };
        let mut roles = table(&mut all, "roles");
        for (key, folder) in self.role_folders() {
            let mut role = toml::Table::new();
            let mut put = |name: &str, value: String| role.insert(name.to_owned(), value.into());
            put("key", key.clone());
            put("url", format!("https://git.example/{key}.git"));
            put("cache", format!("{HOME}/.jackin/roles/{key}/default"));
            put("commit", sha256_hex(&key)[..40].to_owned());
            let mut tree = toml::Table::new();
            let mut files = toml::Table::new();
            walk(&folder, "", &mut |path, text| {
                tree.insert(path.clone(), "file".into());
                files.insert(path, text.into());
            });
            role.insert("tree".to_owned(), tree.into());
            role.insert("files".to_owned(), files.into());
            merge(&mut role, table(&mut roles, &key));
            // A problem and a commit exclude each other, as they do in the cache.
            if role.contains_key("problem") {
                role.remove("commit");
            }
            roles.insert(key, role.into());
        }
        all.insert("roles".to_owned(), roles.into());
        let mut facts: Facts = toml::Value::from(all).try_into().expect("facts.toml holds facts");
        facts.literal_env = literals(config);
        facts
    }

    fn role_folders(&self) -> Vec<(String, PathBuf)> {
        for layer in &self.layers {
            if layer.join("role").is_dir() {
                return vec![("agent-smith".to_owned(), layer.join("role"))];
            }
            let roles = layer.join("roles");
            if roles.is_dir() {
                return names(&roles).into_iter().map(|key| (key.clone(), roles.join(key))).collect();
            }
        }
        panic!("every case has a role")
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(more)) => merge(known, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn walk(folder: &Path, prefix: &str, found: &mut dyn FnMut(String, String)) {
    for name in names(folder) {
        let (path, shown) = (folder.join(&name), format!("{prefix}{name}"));
        if path.is_dir() {
            walk(&path, &format!("{shown}/"), found);
        } else {
            found(shown, read(&path));
        }
    }
}

/// Stands for the keyed digests that gathering makes.
fn literals(config: &config::Config) -> BTreeMap<String, String> {
    let workspaces = config.workspaces.values().flat_map(|w| std::iter::once(&w.env).chain(w.roles.values().map(|r| &r.env)));
    let all = std::iter::once(&config.global.env).chain(config.global.roles.values().map(|r| &r.env)).chain(workspaces);
    all.flatten()
        .filter_map(|(name, located)| match &located.value {
            EnvValue::Literal { value, .. } => Some((place(&located.span, name), sha256_hex(value.expose_secret())[..16].to_owned())),
            _ => None,
        })
        .collect()
}

/// What homes on the disk say of instances.
#[derive(Default)]
struct Known {
    /// By instance key.
    records: BTreeMap<String, InstanceRecord>,
    spares: BTreeSet<String>,
}

fn known(observed: &Observed) -> Known {
    let mut known = Known::default();
    let homes = observed.resources.iter().filter(|(address, _)| address.kind == Kind::Home).flat_map(|(_, found)| found);
    for fields in homes.filter_map(|found| found.recorded.as_ref()) {
        let record = fields.iter().filter_map(|(name, value)| Some((name.strip_prefix("record.")?.to_owned(), value.clone()))).collect();
        let record: InstanceRecord = serde_json::from_value(Value::Object(record)).expect("a home's record");
        if fields.get(HOLD).is_some_and(|hold| *hold == true) {
            known.spares.insert(record.instance.clone());
        }
        known.records.insert(record.instance.clone(), record);
    }
    known
}

/// Configuration and facts -> the graph and what was asked for.
fn desired(case: &Case, inputs: &Inputs, known: Known) -> (Graph, PlanOptions) {
    let config = inputs.config();
    let mut facts = inputs.facts(&config);
    (facts.records, facts.spares) = (known.records, known.spares);
    facts.seed = case.seed.clone().unwrap_or(facts.seed);
    let (wanted, said, mut options): (Vec<Wanted>, Vec<_>, PlanOptions) = match case.command {
        Verb::Prewarm => {
            let goal = goal(&case.prewarm);
            let (mut wishes, said) = prewarm::wishes(&config, &goal);
            // A branch is a snapshot of its own; a URL is what the clone then comes from.
            for (slot, wish) in &wishes {
                if let Some(known) = facts.roles.get(&wish.role).cloned() {
                    let url = wish.url.clone().unwrap_or(known.url.clone());
                    let elsewhere = url != known.url;
                    facts.roles.insert(slot.clone(), RoleSnapshot { branch: wish.branch.clone(), url, elsewhere, ..known });
                }
            }
            wishes.retain(|_, wish| !case.without.contains(&wish.role));
            // Which those are is part of the case: what is no spare is not looked at by the plan.
            let exists = |name: &str| case.there.iter().any(|there| there == name);
            let spares = goal.spare.as_ref().map(|goal| spare::spares(&config, &facts, goal, exists));
            let (spares, refused) =
                spares.map_or_else(Default::default, |found| found.map_or_else(|d| (Vec::new(), Some(d)), |s| (s, None)));
            let mut graph = prewarm::build(&config, &facts, &goal, &wishes, &spares).graph;
            graph.diagnostics.extend(said.into_iter().chain(refused));
            let mut options = jackin::command::prewarm::options(&goal, &spares);
            options.history = facts.history.clone();
            return (graph, options);
        }
        Verb::Apply => {
            let (mut wanted, said) = declared(&config, &facts, &case.workspaces);
            let scope = if case.workspaces.is_empty() { Scope::All } else { Scope::Workspaces(case.workspaces.clone()) };
            if case.prune {
                wanted.extend(want::loaded_spares(&config, &facts, &wanted, |key| scope.covers(key)).0);
            }
            (wanted, said, PlanOptions::new(Mode::Launch, "apply", scope))
        }
        Verb::Load => {
            let wanted = loaded(case.load.as_ref().expect("[load]"), &config, &facts);
            let scope = Scope::Instances(vec![wanted.key.clone()]);
            (vec![wanted], Vec::new(), PlanOptions::new(Mode::Launch, "load", scope))
        }
        Verb::Hardline => {
            let back = case.instances.iter().map(|key| want::recorded(&config, &facts, &facts.records[key]).expect("its workspace exists"));
            (back.collect(), Vec::new(), PlanOptions::new(Mode::Restore, "hardline", Scope::Instances(case.instances.clone())))
        }
        Verb::Eject => (Vec::new(), Vec::new(), PlanOptions::new(Mode::Remove, "eject", Scope::Instances(case.instances.clone()))),
    };
    options.targets = case.targets.clone();
    options.replace = case.replace.clone();
    options.rebuild = case.rebuild;
    options.prune = case.prune;
    options.purge = case.purge;
    options.history = facts.history.clone();
    let mut graph = build(&config, &facts, &wanted).graph;
    graph.diagnostics.extend(said);
    if case.prune {
        graph.kept = Some(prewarm::kept_recipe(&config, &facts));
    }
    (graph, options)
}

/// The command line as the program reads it.
fn goal(options: &str) -> Goal {
    let words = ["jackin", "prewarm"].into_iter().chain(options.split_whitespace());
    match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command {
        Some(Command::Prewarm(args)) => jackin::command::prewarm::goal(&args).unwrap_or_else(|refused| panic!("{refused}")),
        other => panic!("{other:?}"),
    }
}

fn loaded(load: &LoadCase, config: &config::Config, facts: &Facts) -> Wanted {
    let target = match (&load.workspace, &load.folder) {
        (Some(name), None) => Target::Workspace(&config.workspaces[name]),
        (None, Some(host)) => Target::Folder { host: host.clone(), container: load.container.clone().unwrap_or(host.clone()) },
        _ => panic!("[load] has a workspace or a folder"),
    };
    let profile: Option<Profile> = load.profile.as_deref().map(|p| config::file::parse_profile(p).expect("a profile"));
    let branch = load.branch.clone();
    want::fresh(facts, Load { role: load.role.clone(), target, agent: load.agent, mounts: Vec::new(), profile, branch, number: 0 })
}

fn case(name: &str) -> Case {
    toml::from_str(&read(&plans().join(name).join("case.toml"))).unwrap_or_else(|error| panic!("{name}/case.toml: {error}"))
}

fn observed(name: &str, case: &Case) -> Observed {
    let file = plans().join(name).join("observed.json");
    assert_eq!(file.is_file(), case.world != Start::Unasked, "{name}: observed.json and `world` do not fit");
    if case.world == Start::Unasked {
        return Observed::empty();
    }
    serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{name}/observed.json: {error}"))
}

fn plan_of(name: &str) -> Plan {
    let case = case(name);
    let observed = observed(name, &case);
    let (graph, options) = desired(&case, &Inputs::of(name, false), known(&observed));
    plan(&graph, &observed, &options)
}

// ---- making a world ----

/// The world of a case, and those of its edits that only a snapshot can hold.
fn make_world<'c>(name: &str, case: &'c Case) -> (World, Vec<Vec<&'c str>>) {
    let launch = Case { command: Verb::Apply, workspaces: Vec::new(), ..case.clone() };
    let (base, _) = desired(&launch, &Inputs::of(name, true), Known::default());
    let world = World::new("ours", ["~"]);
    if case.world != Start::Bare {
        place_files(&world, &base);
    }
    if case.world == Start::Launched {
        launch_all(&world, &base);
    }
    if case.world != Start::Bare {
        place_later_files(&world, &base, &desired(&launch, &Inputs::of(name, false), Known::default()).0);
    }
    if case.command == Verb::Prewarm {
        place_programs(&world, &desired(case, &Inputs::of(name, false), Known::default()).0);
    }
    let mut late = Vec::new();
    for text in &case.edits {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["prewarm", ..] => prewarm(&world, &Inputs::of(name, true), case, text),
            ["engine" | "live" | "recorded" | "loss" | "pool-state", ..] => late.push(words),
            _ => edit(&world, &base, &words),
        }
    }
    (world, late)
}

/// The graph and the goal as this world's own records have them.
fn desired_in(world: &World, name: &str, case: &Case) -> (Graph, PlanOptions) {
    desired(case, &Inputs::of(name, false), known(&observe(world, &Graph::default(), &Scope::All)))
}

fn make_observed(name: &str, case: &Case) -> Observed {
    let (world, late) = make_world(name, case);
    let (graph, options) = desired_in(&world, name, case);
    let mut observed = observe(&world, &graph, &options.scope);
    for words in late {
        edit_observed(&mut observed, &words);
    }
    if case.world == Start::Offline {
        observed.engine = None;
    }
    observed
}

/// Clones and cached programs lie on the disk before any plan is made.
fn place_files(world: &World, graph: &Graph) {
    let files = |kind| matches!(kind, Kind::RoleRepo | Kind::AgentBinary | Kind::CapsuleBinary);
    let here = |address: &Address| files(address.kind) && !to_be_downloaded(graph, address);
    run(world, graph, graph.resources.keys().filter(|a| here(a)).cloned().collect());
}

/// A release is here only after a plan has fetched it.
fn to_be_downloaded(graph: &Graph, address: &Address) -> bool {
    matches!(&graph.resources[address].spec, Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) if spec.download.is_some())
}

/// Prewarming is about programs of agents that no workspace's role has, too.
fn place_programs(world: &World, graph: &Graph) {
    let wanted = |a: &&Address| matches!(a.kind, Kind::AgentBinary | Kind::CapsuleBinary);
    run(world, graph, graph.resources.keys().filter(wanted).cloned().collect());
}

/// Facts name only programs and clones that are there, so those that came later are there too.
fn place_later_files(world: &World, base: &Graph, graph: &Graph) {
    let later = |address: &Address| match address.kind {
        Kind::AgentBinary | Kind::CapsuleBinary => !to_be_downloaded(graph, address),
        // A clone that was there stays at its commit until a plan moves it.
        Kind::RoleRepo => !base.resources.contains_key(address),
        _ => false,
    };
    let targets: Vec<Address> = graph.resources.keys().filter(|a| later(a)).cloned().collect();
    if !targets.is_empty() {
        run(world, graph, targets);
    }
}

/// What an earlier `jackin prewarm` made.
fn prewarm(world: &World, inputs: &Inputs, case: &Case, command: &str) {
    let options = command.trim_start_matches("prewarm").to_owned();
    let earlier = Case { command: Verb::Prewarm, prewarm: options, seed: Some("earlier".to_owned()), ..case.clone() };
    let (graph, options) = desired(&earlier, inputs, known(&observe(world, &Graph::default(), &Scope::All)));
    let plan = plan(&graph, &observe(world, &graph, &options.scope), &options);
    assert!(!plan.is_blocked(), "{command}: {:#?}", plan.blockers);
    let applied = apply(world, &plan, &mut Dice(0), usize::MAX);
    assert!(applied.well(), "{command}: {applied:?}");
}

fn launch_all(world: &World, graph: &Graph) {
    run(world, graph, Vec::new());
}

fn run(world: &World, graph: &Graph, targets: Vec<Address>) {
    let mut options = PlanOptions::new(Mode::Launch, "apply", Scope::All);
    options.targets = targets;
    let graph = &Graph { diagnostics: Vec::new(), kept: None, ..graph.clone() };
    let plan = plan(graph, &observe(world, graph, &Scope::All), &options);
    assert!(!plan.is_blocked(), "the world cannot be made: {:#?}", plan.blockers);
    let applied = apply(world, &plan, &mut Dice(0), usize::MAX);
    assert!(applied.well(), "the world cannot be made: {applied:?}");
    world.settle();
}

/// One thing that happened behind jackin's back.
fn edit(world: &World, graph: &Graph, words: &[&str]) {
    let named = |address: &str| -> String {
        let address: Address = address.parse().expect("an address");
        graph.resources.get(&address).unwrap_or_else(|| panic!("no {address}")).spec.object_name().to_owned()
    };
    let number = |text: &str| text.parse::<i64>().expect("a number");
    match *words {
        ["stop", of] if of.starts_with("jk-") => world.stop(of),
        ["remove", of] if of.starts_with("jk-") && of.ends_with("-dind") => world.remove(of),
        ["remove", of] if of.starts_with("jk-") && of.ends_with("-net") => world.remove_network(of).expect("nothing runs on it"),
        ["remove", of] if of.starts_with("jk-") => world.remove_volume(of).expect("nothing mounts it"),
        ["hang", of] => world.hang(of),
        ["stop", of] => world.stop(&named(of)),
        ["kill", of, code] => world.kill(&named(of), number(code), false),
        ["kill", of, code, "oom"] => world.kill(&named(of), number(code), true),
        ["pause", of] => world.pause(&named(of)),
        ["unpause", of] => world.unpause(&named(of)),
        ["dead", of] => world.set_state(&named(of), State::Dead),
        ["remove", of] if of.starts_with("network/") => world.remove_network(&named(of)).expect("nothing runs on it"),
        ["remove", of] if of.starts_with("certs/") => world.remove_volume(&named(of)).expect("nothing mounts it"),
        ["remove", of] if of.contains("image/") => world.remove_image(&named(of)),
        ["remove", of] if of.starts_with("home/") => world.delete_home(&named(of)),
        ["remove", of] if of.contains("-binary/") => world.delete_program(&named(of)),
        ["remove", of] => world.remove(&named(of)),
        ["rename", of, to] => world.rename(&named(of), to),
        ["memory", of, bytes] => world.update_memory(&named(of), number(bytes)),
        ["disconnect", of, from] => world.disconnect(&named(of), &named(from)),
        ["duplicate", of] => world.duplicate_network(&named(of)),
        ["duplicate", of, name] => world.duplicate_container(&named(of), name),
        ["stranger", of] => world.add_stranger(of.parse::<Address>().expect("an address").kind, &named(of), None),
        ["stranger", of, home] => world.add_stranger(of.parse::<Address>().expect("an address").kind, &named(of), Some(home)),
        ["retag", of] => world.retag_image(&named(of)),
        ["strip-label", of] => world.strip_spec_label(&named(of)),
        ["drop-run-bit", of] => world.drop_run_bit(&named(of)),
        ["corrupt", of] => world.corrupt_program(&named(of)),
        ["check-out", of, commit] => world.move_repo(&named(of), commit),
        ["delete-file", of, field] => assert!(world.delete_home_file(&named(of), field), "{of} has no {field}"),
        ["keep", instance, id] => world.add_kept_sidecar(&kept(graph, instance, id)),
        ["images"] => run(world, graph, graph.resources.keys().filter(|a| !a.kind.per_instance()).cloned().collect()),
        ["launch"] => launch_all(world, graph),
        _ => panic!("unknown edit: {words:?}"),
    }
}

/// What prewarming would leave for this instance.
fn kept(graph: &Graph, instance: &str, id: &str) -> Sidecar {
    let Some(Spec::Sidecar(own)) = graph.resources.get(&Address::new(Kind::Sidecar, instance)).map(|r| &r.spec) else {
        panic!("{instance} has no sidecar")
    };
    let base = format!("jk-prewarm-dind-{id}");
    let name = format!("{base}-dind");
    let mut sidecar = Sidecar { name: name.clone(), network: format!("{base}-net"), owner: base.clone(), ..own.clone() };
    sidecar.env.insert("DOCKER_TLS_SAN".to_owned(), EnvEntry::Plain(format!("DNS:{name}")));
    sidecar.mounts.values_mut().for_each(|mount| mount.source = format!("{base}-certs"));
    sidecar
}

fn first<'o>(observed: &'o mut Observed, address: &str) -> &'o mut Found {
    let address: Address = address.parse().expect("an address");
    observed.resources.get_mut(&address).unwrap_or_else(|| panic!("no {address}")).first_mut().expect("it is there")
}

/// What the world in memory cannot do, written into the snapshot itself.
fn edit_observed(observed: &mut Observed, words: &[&str]) {
    let json = |words: &[&str]| -> Value { serde_json::from_str(&words.join(" ")).expect("JSON") };
    match *words {
        ["engine", api] => observed.engine = Some(Engine { api_version: api.to_owned(), arch: None }),
        ["live", of, field, ref value @ ..] => {
            let before = first(observed, of).live.insert(field.to_owned(), json(value));
            assert_ne!(before, Some(json(value)), "{of} has this {field} anyway");
        }
        ["recorded", of, field, ref value @ ..] => {
            let recorded = first(observed, of).recorded.as_mut().expect("it says what it was made from");
            assert_ne!(recorded.insert(field.to_owned(), json(value)), Some(json(value)), "{of} was made so anyway");
        }
        ["pool-state", "held"] => observed.pool.iter_mut().for_each(|kept| kept.held = true),
        ["loss", of, "sessions", count] => first(observed, of).loss.sessions = Some(count.parse().expect("a number")),
        ["loss", of, "bytes", count] => first(observed, of).loss.bytes = Some(count.parse().expect("a number")),
        ["loss", of, "uncommitted", count] => first(observed, of).loss.uncommitted_files = Some(count.parse().expect("a number")),
        _ => panic!("unknown edit: {words:?}"),
    }
}

// ---- the tests ----

fn update(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0")
}

/// The first line that differs, for a message that fits a screen.
fn first_difference(wanted: &str, got: &str) -> Option<String> {
    if wanted == got {
        return None;
    }
    let mut lines = wanted.lines().zip(got.lines()).enumerate();
    Some(match lines.find(|(_, (a, b))| a != b) {
        Some((at, (a, b))) => format!("line {}:\n  - {a}\n  + {b}", at + 1),
        None => format!("{} lines in the file, {} now", wanted.lines().count(), got.lines().count()),
    })
}

#[test]
fn every_case_gives_its_plan() {
    let names = cases();
    assert!(names.len() >= 34, "only {} cases", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let folder = plans().join(name);
        let case = case(name);
        if update("UPDATE_OBSERVED") && case.world != Start::Unasked {
            let text = serde_json::to_string_pretty(&make_observed(name, &case)).expect("an observation serialises");
            std::fs::write(folder.join("observed.json"), text + "\n").expect("plans/ can be written");
        }
        let plan = plan_of(name);
        for (file, got) in [("plan.txt", plan_text(&plan, &Style::PLAIN, false)), ("plan.json", plan.to_json())] {
            let path = folder.join(file);
            if update("UPDATE_PLANS") {
                std::fs::write(&path, &got).expect("plans/ can be written");
            }
            if let Some(difference) = first_difference(&std::fs::read_to_string(&path).unwrap_or_default(), &got) {
                wrong.push(format!("plans/{name}/{file}, {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_PLANS=1 rewrites them; read the difference before you commit it.", wrong.join("\n"));
}

/// What a flag asked for once is not asked for again.
fn plan_again(world: &World, name: &str, case: &Case) -> Plan {
    let seed = (case.command == Verb::Prewarm).then(|| "another".to_owned());
    let once = Case { replace: Vec::new(), rebuild: false, seed, ..case.clone() };
    let (graph, options) = desired_in(world, name, &once);
    plan(&graph, &observe(world, &graph, &options.scope), &options)
}

/// Plans and applies until nothing is left; one round must do when nothing breaks.
fn finish(world: &World, name: &str, case: &Case, when: &str) {
    let plan = plan_again(world, name, case);
    assert!(!plan.is_blocked(), "{name}, {when}: blocked: {:?}", plan.blockers);
    let applied = apply(world, &plan, &mut Dice(0), usize::MAX);
    assert!(applied.well(), "{name}, {when}: {applied:?}");
    world.settle();
    nothing_left(world, name, case, when);
}

/// What is only tried is tried again each time, and each time nothing of it is left.
fn nothing_left(world: &World, name: &str, case: &Case, when: &str) {
    let left = plan_again(world, name, case);
    if left.goal.sidecar == Some(SidecarGoal::Try) {
        assert!(left.changes.iter().all(|c| c.is_reuse() || c.disposable), "{name}, {when}: still to do: {}", support::text(&left));
        let kept: Vec<String> =
            observe(world, &Graph::default(), &Scope::All).pool.into_iter().map(|set| set.id).filter(|id| id != "3f9a").collect();
        assert!(kept.is_empty(), "{name}, {when}: left behind: {kept:?}");
        return;
    }
    assert!(left.is_empty(), "{name}, {when}: still to do: {}", support::text(&left));
}

/// Apply, then the plan is empty; so it is after a stop behind any step, and after any step has failed once.
#[test]
fn every_case_converges() {
    let mut converged = 0;
    for name in cases() {
        let case = case(&name);
        // Snapshots that no world can be in, and plans that nobody may apply, are for reading only.
        if matches!(case.world, Start::Unasked | Start::Offline) || !case.targets.is_empty() {
            continue;
        }
        let (world, late) = make_world(&name, &case);
        let (graph, options) = desired_in(&world, &name, &case);
        let first = plan(&graph, &observe(&world, &graph, &options.scope), &options);
        if !late.is_empty() || first.is_blocked() {
            continue;
        }
        let whole = world.clone();
        let applied = apply(&whole, &first, &mut Dice(0), usize::MAX);
        assert!(applied.well(), "{name}: {applied:?}");
        whole.settle();
        nothing_left(&whole, &name, &case, "at once");
        for stop in 0..first.steps.len() {
            let world = world.clone();
            apply(&world, &first, &mut Dice(0), stop);
            finish(&world, &name, &case, &format!("stopped after {stop} steps"));
        }
        for step in &first.steps {
            for fault in [Fault::Before, Fault::After] {
                let world = world.clone();
                world.fail_at(At::Step(step.id.clone()), fault);
                apply(&world, &first, &mut Dice(0), usize::MAX);
                finish(&world, &name, &case, &format!("{} failed ({fault:?})", step.id));
            }
        }
        converged += 1;
    }
    assert!(converged >= 30, "only {converged} cases could be applied");
}

/// `jackin load --agent` and a workspace that names none, because its role has only one.
#[test]
fn a_declared_instance_is_known_by_the_agent_it_has() {
    let name = "prewarm-instance-again";
    let inputs = Inputs::of(name, false);
    let config = inputs.config();
    let mut facts = inputs.facts(&config);
    facts.records = known(&observed(name, &case(name))).records;
    let record = facts.records["app/default"].clone();
    let alike = |facts: &Facts, agent| want::declared_alike(&config, facts, &config.workspaces["app"], &record.role_key, agent).len();
    assert!(declared(&config, &facts, &[]).0[0].agent.is_none(), "the file names none");
    let other = Agent::ALL.into_iter().find(|agent| *agent != record.agent_runtime);
    assert_eq!([None, Some(record.agent_runtime), other].map(|agent| alike(&facts, agent)), [1, 1, 0]);
    facts.records.clear();
    assert_eq!(alike(&facts, Some(record.agent_runtime)), 0, "what was never made has none");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    for name in cases() {
        let (one, two) = (plan_of(&name), plan_of(&name));
        assert_eq!(one.to_json(), two.to_json(), "{name}");
        assert_eq!(plan_text(&one, &Style::PLAIN, true), plan_text(&two, &Style::PLAIN, true), "{name}");
    }
}

#[test]
fn documents_fit_their_schemas() {
    let validator = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.schema.json"));
        jsonschema::validator_for(&serde_json::from_str(&read(&file)).expect("a schema is JSON")).expect("a schema is valid")
    };
    let (plan, observed) = (validator("plan"), validator("observed"));
    for name in cases() {
        for (schema, file) in [(&plan, "plan.json"), (&observed, "observed.json")] {
            let path = plans().join(&name).join(file);
            if file == "observed.json" && !path.is_file() {
                continue;
            }
            let document: Value = serde_json::from_str(&read(&path)).expect("JSON");
            let errors: Vec<String> = schema.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{name}/{file}: {errors:#?}");
        }
    }
}

#[test]
fn a_saved_plan_reads_back() {
    for name in cases() {
        let text = read(&plans().join(&name).join("plan.json"));
        let plan = Plan::from_json("plan.json", &text).unwrap_or_else(|d| panic!("{name}: {d:?}"));
        assert_eq!(plan.to_json(), text, "{name}");
    }
}

#[test]
fn plans_travel() {
    for name in cases() {
        for file in ["plan.txt", "plan.json"] {
            let text = read(&plans().join(&name).join(file));
            assert!(!text.contains(HOME), "{name}/{file} names the home folder");
            assert!(!holds_a_clock(&text), "{name}/{file} holds a time of day");
            assert!(!text.contains('\x1b'), "{name}/{file} holds colour");
            if file == "plan.txt" {
                let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
                assert!(wide.is_empty(), "{name}/{file} is wider than 80 columns: {wide:#?}");
                assert!(text.lines().all(|line| line.trim_end() == line), "{name}/{file} has blanks at a line's end");
            }
        }
    }
}

/// `12:34:56`.
fn holds_a_clock(text: &str) -> bool {
    text.as_bytes()
        .windows(8)
        .any(|w| w.iter().enumerate().all(|(at, byte)| if at == 2 || at == 5 { *byte == b':' } else { byte.is_ascii_digit() }))
}

#[test]
fn the_checks_above_can_fail() {
    assert!(holds_a_clock("at 2026-07-01T09:30:00Z"));
    assert!(!holds_a_clock("workspaces/app.toml:12:5"));
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(first_difference("a\nb\n", "a\nc\n").unwrap(), "line 2:\n  - b\n  + c");
    assert!(first_difference("a\n", "a\nb\n").unwrap().contains("1 lines"));
}

/// What all cases share is no part of a real home, and a tree's kinds are known.
#[test]
fn shared_facts_are_facts() {
    let inputs = Inputs { layers: vec![plans()] };
    let facts = inputs.facts(&inputs.config());
    assert_eq!(facts.home, HOME);
    assert!(facts.roles["agent-smith"].tree.values().all(|kind| *kind == TreeKind::File));
}
