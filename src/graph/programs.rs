//! Which program goes into an image: one given, one cached, a release to be downloaded, or the vendor's installer in its stead.
//!
//! In: what is there and what its maker says of it. Out: its spec, and what a person should know about the choice. Absent: asking
//! anybody, and whether it is needed at all; that is the planner's question, and what is said here of a program that nothing
//! needs is not shown.

use super::{Graph, Resource};
use crate::config::Agent;
use crate::diagnostic::Diagnostic;
use crate::facts::{BinaryFact, BinarySource, Facts, Lookup, Release, version_folder};
use crate::resource::{Address, Binary, Kind, Origin, Spec};
use std::collections::BTreeMap;

/// Codes of what is said about a choice.
pub const FALLBACK: &str = "binary.fallback";
pub const STALE: &str = "binary.stale";
pub const INSTALLER: &str = "binary.installer";
pub const MACHINE: &str = "binary.architecture";

pub const CAPSULE: &str = "jackin-capsule";

/// A program and where it lies or will lie, absolute; no path = the vendor's installer.
pub struct Chosen {
    pub address: Address,
    pub spec: Binary,
    pub path: Option<String>,
    pub source: String,
    pub said: Option<Diagnostic>,
}

pub fn agent(facts: &Facts, agent: Agent) -> Chosen {
    let address = Address::new(Kind::AgentBinary, agent.slug());
    let variable = variable(agent);
    let cached = facts.agent_binaries.get(&agent);
    let given = cached.filter(|fact| fact.source != BinarySource::Cache);
    let reuse = |fact: &BinaryFact, said: Option<Diagnostic>| Chosen {
        address: address.clone(),
        spec: present(facts, fact),
        path: Some(fact.path.clone()),
        source: if fact.source == BinarySource::Environment { variable.clone() } else { "cache".to_owned() },
        said: of_another_machine(facts, fact, agent.slug(), &variable).or(said).map(|said| said.on(&address)),
    };
    let name_one = format!("Name a mirror with JACKIN_AGENT_MIRROR, or a program with {variable}=PATH.");
    match (given.or(cached), facts.agent_releases.get(&agent)) {
        (Some(fact), _) if given.is_some() => reuse(fact, None),
        (Some(fact), Some(Lookup::Newest(release)))
            if fact.version == version_folder(&release.version)
                && release.download.sha256.as_ref().is_none_or(|sha256| *sha256 == fact.digest) =>
        {
            reuse(fact, None)
        }
        (_, Some(Lookup::Newest(newest))) => {
            let place = format!("agent-binaries/{agent}/{}/linux-{}/{agent}", version_folder(&newest.version), facts.arch);
            release(facts, address, newest, &place)
        }
        (Some(fact), Some(Lookup::Failed { why })) => {
            let detail = format!("The newest {agent} cannot be had, so {} from the cache is used: {why}.", fact.version);
            let said = Diagnostic::warning(FALLBACK, "An older program is used", detail);
            reuse(fact, Some(said.help(format!("`jackin prewarm --agent {agent}` tries again. {name_one}"))))
        }
        (Some(fact), Some(Lookup::Stale)) => {
            let detail = format!("Which {agent} is the newest was not looked up lately: {} from the cache is used.", fact.version);
            let said = Diagnostic::notice(STALE, "A program may not be the newest", detail);
            reuse(fact, Some(said.help("It is looked up while this plan is applied, for the next one. `--rebuild` looks it up first.")))
        }
        (Some(fact), None) => reuse(fact, None),
        (None, lookup) => {
            let said = match lookup {
                Some(Lookup::Failed { why }) => {
                    let detail = format!("{agent} cannot be downloaded, so its vendor's installer runs inside the image build: {why}.");
                    let said = Diagnostic::warning(INSTALLER, "A program is installed by its vendor's script", detail);
                    Some(said.help(name_one).on(&address))
                }
                _ => None,
            };
            let spec =
                Binary { origin: Origin::VendorInstaller, version: None, digest: None, path: None, executable: true, download: None };
            Chosen { address, spec, path: None, source: "default".to_owned(), said }
        }
    }
}

/// Unlike an agent, the capsule has no installer.
pub fn capsule(facts: &Facts) -> Result<Chosen, Diagnostic> {
    let address = Address::new(Kind::CapsuleBinary, CAPSULE);
    match (&facts.capsule_binary, &facts.capsule_release) {
        (Some(fact), _) => {
            if let Some(wrong) = of_another_machine(facts, fact, CAPSULE, "JACKIN_CAPSULE_BIN") {
                return Err(wrong.on(&address));
            }
            let source = match fact.source {
                BinarySource::Environment => "JACKIN_CAPSULE_BIN",
                BinarySource::Beside => "beside the executable",
                BinarySource::Cache => "cache",
            };
            Ok(Chosen { address, spec: present(facts, fact), path: Some(fact.path.clone()), source: source.to_owned(), said: None })
        }
        (None, Some(Lookup::Newest(found))) => {
            let place = format!("{CAPSULE}/{}/linux-{}/{CAPSULE}", version_folder(&found.version), facts.arch);
            Ok(release(facts, address, found, &place))
        }
        (None, lookup) => {
            let release = match lookup {
                Some(Lookup::Failed { why }) => format!(" The release of this version cannot be had: {why}."),
                _ => String::new(),
            };
            let detail = format!("None beside the executable, in the cache, or named by JACKIN_CAPSULE_BIN.{release}");
            Err(Diagnostic::error("capsule.binary_missing", "There is no capsule binary to put into images", detail)
                .help("Build it with `./dev setup`, or set JACKIN_CAPSULE_BIN=PATH to a static Linux build of jackin-capsule."))
        }
    }
}

/// Puts programs into a graph for their own sake: for filling the cache before an instance needs them.
pub fn add(graph: &mut Graph, facts: &Facts, agents: impl IntoIterator<Item = Agent>, with_capsule: bool) {
    let mut chosen: Vec<Chosen> = agents.into_iter().map(|one| agent(facts, one)).collect();
    if with_capsule {
        match capsule(facts) {
            Ok(found) => chosen.push(found),
            Err(diagnostic) => graph.diagnostics.push(diagnostic),
        }
    }
    for one in chosen {
        one.put(graph);
    }
}

impl Chosen {
    /// Once, however many images need it.
    pub fn put(self, graph: &mut Graph) -> Address {
        let Chosen { address, spec, source, said, .. } = self;
        if !graph.resources.contains_key(&address) {
            graph.diagnostics.extend(said);
            let spec = if address.kind == Kind::CapsuleBinary { Spec::CapsuleBinary(spec) } else { Spec::AgentBinary(spec) };
            let sources = BTreeMap::from([("origin".to_owned(), source)]);
            graph.resources.insert(address.clone(), Resource { spec, depends_on: Default::default(), sources });
        }
        address
    }
}

/// `JACKIN_AGENT_BIN_CLAUDE`.
pub fn variable(agent: Agent) -> String {
    format!("JACKIN_AGENT_BIN_{}", agent.slug().to_uppercase())
}

/// A container would find it only when it is started, and then say `exec format error`.
fn of_another_machine(facts: &Facts, fact: &BinaryFact, name: &str, variable: &str) -> Option<Diagnostic> {
    let built_for = fact.built_for.as_deref().filter(|machine| !facts.arch_assumed && *machine != facts.arch.as_str())?;
    let (path, arch) = (facts.shorten(&fact.path), facts.arch);
    let (from, help) = match fact.source {
        BinarySource::Environment => {
            (variable, format!("Set {variable} to {name} for linux/{arch}, or unset it: then the right one is looked for."))
        }
        BinarySource::Beside | BinarySource::Cache => ("the cache", format!("Remove {path}: then the right one is looked for.")),
    };
    let detail = format!("{name} from {from}, {path}, is built for {built_for}; the engine runs linux/{arch}.");
    Some(Diagnostic::error(MACHINE, "A program is built for another machine", detail).help(help))
}

fn present(facts: &Facts, fact: &BinaryFact) -> Binary {
    Binary {
        origin: match fact.source {
            BinarySource::Environment => Origin::Environment,
            BinarySource::Beside => Origin::Beside,
            BinarySource::Cache => Origin::Cache,
        },
        version: Some(fact.version.clone()),
        digest: Some(fact.digest.clone()),
        path: Some(facts.shorten(&fact.path)),
        executable: true,
        download: None,
    }
}

fn release(facts: &Facts, address: Address, release: &Release, place: &str) -> Chosen {
    let path = format!("{}/cache/{place}", facts.jackin_home);
    let spec = Binary {
        origin: Origin::Release,
        version: Some(release.version.clone()),
        digest: Some(release.digest()),
        path: Some(facts.shorten(&path)),
        executable: true,
        download: Some(release.download.clone()),
    };
    Chosen { address, spec, path: Some(path), source: "release".to_owned(), said: None }
}
