//! Gathering, composed: environment and files -> `Config`, then roles, mounts, credentials and values -> complete `Facts`.
//!
//! Two steps, because which roles matter is known only after the configuration has been read: `open`, then `complete` for the
//! wanted instances. Absent: Docker, and what should be done.

use super::binaries::{FileDigests, agent_binary, cached_agent, capsule_binary, host_arch};
use super::http::Http;
use super::lock::{Lock, Notice};
use super::mirror::Mirrors;
use super::releases::{Asking, Makers, Program};
use super::role_repo::{Refresh, RoleRepo};
use super::role_url::RoleUrl;
use super::vault::Vault;
use super::{KeyedDigest, Paths, clock, credentials, env, files, git, github, installation, mounts, prompt};
use crate::config::prompts::{self, Answer, State};
use crate::config::role_key::RoleKey;
use crate::config::{self, Agent, AuthMode, Config, EnvMap, EnvValue, FileKind, GithubMode, layer};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::facts::{Arch, BinaryFact, BinarySource, Facts, Lookup, RoleProblem, RoleSnapshot, RoleValue};
use crate::graph::build::role_slot;
use crate::graph::role::CheckedRole;
use crate::graph::want::{Wanted, place};
use crate::resource::{AgentToml, HOLD, InstanceRecord};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How far gathering may go.
#[derive(Debug, Clone)]
pub struct Request {
    /// From `--env`.
    pub answers: BTreeMap<String, SecretString>,
    pub freshness: Freshness,
    /// May a person be asked?
    pub may_ask: bool,
    /// `NAME` -> commit, for coming back to an instance as it was.
    pub pinned: BTreeMap<String, String>,
}

/// What is known of the engine before anything is gathered for it.
#[derive(Debug, Default)]
pub struct EngineFacts {
    /// `None`: nobody told, so it is taken to be this host's.
    pub arch: Option<Arch>,
    /// Why the engine could not be asked.
    pub silent: Option<Diagnostic>,
    /// It was asked and does not tell.
    pub warning: Option<Diagnostic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Fetch role repos that are older than their time to live.
    Ttl,
    /// Fetch them all.
    Always,
    /// Take what the cache has.
    Cached,
    /// Like `Cached`, and never clone.
    Offline,
}

/// A role repository to be looked at.
#[derive(Debug, Clone)]
pub struct RoleAsked {
    pub role: String,
    pub branch: Option<String>,
    /// In the place of the configured one.
    pub url: Option<String>,
    /// A commit recorded earlier.
    pub pinned: Option<String>,
}

pub struct Session {
    pub paths: Paths,
    pub config: Config,
    pub warnings: Vec<Diagnostic>,
    pub facts: Facts,
    pub digest: Arc<KeyedDigest>,
    pub vault: Vault,
    /// Whom to ask for releases and downloads.
    pub makers: Arc<Makers>,
    /// Why the engine could not be asked what it is; who needs it further on need not wait for it again.
    pub silent: Option<Diagnostic>,
    /// How far looking up releases may go; at first what the request's freshness says.
    pub asking: Asking,
    source_dirs: BTreeMap<Agent, PathBuf>,
    /// The instances that the facts are complete for.
    pub wanted: Vec<Wanted>,
    request: Request,
}

/// Environment, configuration and the records of instances. Writes only the installation id and the digest key, once. `engine` is waited
/// for when the configuration has been read: what is wrong there is told first.
pub async fn open(
    request: Request,
    engine: impl Future<Output = Result<EngineFacts, Diagnostics>>,
    notice: Notice<'_>,
) -> Result<Session, Diagnostics> {
    let paths = Paths::from_env(env::variable)?;
    refuse_reserved(&request)?;
    paths.check()?;
    let (sources, _, wrong) = config_files(&paths, notice).await?;
    match config::load(&sources) {
        Ok((config, warnings)) if wrong.is_empty() => with(paths, config, warnings, engine.await?, request),
        Ok(_) => Err(Diagnostics(wrong)),
        Err(mistakes) => Err(Diagnostics(wrong.into_iter().chain(mistakes.0).collect())),
    }
}

/// For looking only: files with mistakes are left out, and all that is wrong is among the warnings. Also the names of all workspaces
/// that have a file.
pub async fn open_sound(request: Request, engine: EngineFacts, notice: Notice<'_>) -> Result<(Session, BTreeSet<String>), Diagnostics> {
    let paths = Paths::from_env(env::variable)?;
    paths.check()?;
    let (sources, unreadable, mut wrong) = config_files(&paths, notice).await?;
    let names = sources.iter().filter_map(|source| match &source.kind {
        FileKind::Workspace { name } => Some(name.clone()),
        FileKind::Global => None,
    });
    let names = names.chain(unreadable);
    let (config, said) = config::load_sound(&sources);
    wrong.extend(said);
    Ok((with(paths, config, wrong, engine, request)?, names.collect()))
}

fn refuse_reserved(request: &Request) -> Result<(), Diagnostics> {
    let reserved = config::validate::reserved_among(request.answers.keys().map(String::as_str));
    if !reserved.is_empty() {
        return Err(Diagnostic::error("env.reserved", "A reserved name cannot be set", format!("--env {}", reserved.join(", ")))
            .help("jackin sets these itself; choose other names.")
            .into());
    }
    Ok(())
}

fn with(
    paths: Paths,
    config: Config,
    mut warnings: Vec<Diagnostic>,
    engine: EngineFacts,
    request: Request,
) -> Result<Session, Diagnostics> {
    let digest = Arc::new(KeyedDigest::open(&paths)?);
    let image = |name: &str, warnings: &mut Vec<Diagnostic>| {
        let value = env::variable(name).filter(|v| !v.is_empty())?;
        match value.to_str().filter(|v| env::is_image_reference(v)) {
            Some(value) => Some(value.to_owned()),
            None => {
                warnings.push(
                    Diagnostic::warning(
                        "env.image_name",
                        "An image name is malformed and ignored",
                        format!("{name} is not an image reference."),
                    )
                    .help("Use letters, digits and `. _ - / : @ +`, at most 256."),
                );
                None
            }
        }
    };
    let construct_image = image("JACKIN_CONSTRUCT_IMAGE", &mut warnings);
    let dind_image = image("JACKIN_DIND_IMAGE", &mut warnings);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let EngineFacts { arch, silent, warning } = engine;
    warnings.extend(warning);
    let arch_assumed = arch.is_none();
    let arch = arch.unwrap_or_else(host_arch);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut digests = FileDigests::load(&paths);
    let executable = std::env::current_exe().ok();
    let mut agent_binaries = BTreeMap::new();
    for agent in Agent::ALL {
        if let Some(fact) = agent_binary(agent, &paths, env::variable, arch, &mut digests)? {
            agent_binaries.insert(agent, fact);
        }
    }
    let capsule: Option<BinaryFact> = capsule_binary(&paths, env::variable, executable.as_deref(), &version, arch, &mut digests)?;
    digests.save();
    let mirrors = Mirrors::new(env::variable, &config.global.binaries)?;
    let can_run = cfg!(target_os = "linux") && arch == host_arch();
    let makers = Arc::new(Makers::new(Http::from_env(&version), mirrors, &paths, arch, can_run));
    let passthrough_env = env::passthrough(std::env::vars_os());
    let (records, spares) = read_records(&paths);
    let facts = Facts {
        home: text(&paths.home),
        config_dir: text(&paths.config_dir),
        jackin_home: text(&paths.jackin_home),
        cwd: super::paths::current_dir()?,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        arch,
        arch_assumed,
        installation: installation(&paths)?,
        seed: clock::seed()?,
        version,
        construct_image,
        dind_image,
        capsule_binary: capsule,
        agent_binaries,
        agent_releases: BTreeMap::new(),
        capsule_release: None,
        host_env: BTreeMap::new(),
        literal_env: BTreeMap::new(),
        passthrough_env,
        paths: BTreeMap::new(),
        roles: BTreeMap::new(),
        credentials: BTreeMap::new(),
        github_token: None,
        git_user_name: String::new(),
        git_user_email: String::new(),
        role_env: BTreeMap::new(),
        records,
        spares,
        history: BTreeMap::new(),
    };
    Ok(Session {
        paths,
        config,
        warnings,
        facts,
        digest,
        vault: Vault::default(),
        makers,
        silent,
        asking: match request.freshness {
            Freshness::Ttl => Asking::WhenNeeded,
            Freshness::Always => Asking::Always,
            Freshness::Cached | Freshness::Offline => Asking::Never,
        },
        source_dirs: BTreeMap::new(),
        wanted: Vec::new(),
        request,
    })
}

/// With the names of workspaces whose files cannot be read, and what is wrong with these.
async fn config_files(
    paths: &Paths,
    notice: Notice<'_>,
) -> Result<(Vec<config::SourceFile>, BTreeSet<String>, Vec<Diagnostic>), Diagnostics> {
    let _lock = Lock::shared(&paths.config_lock(), "the configuration", Some(Duration::from_secs(5)), notice).await?;
    let (files, wrong) = files::read_config(paths);
    let mut sources = Vec::new();
    if let Some(global) = files.global {
        sources.push(config::SourceFile { kind: FileKind::Global, shown: global.name, bytes: global.text.into_bytes() });
    }
    for file in files.workspaces {
        let kind = FileKind::Workspace { name: file.stem().to_owned() };
        sources.push(config::SourceFile { kind, shown: file.name, bytes: file.text.into_bytes() });
    }
    Ok((sources, files.unreadable, wrong))
}

/// What instances say of themselves, by instance key; and which of them are spares. A record that cannot be read is as good as none.
fn read_records(paths: &Paths) -> (BTreeMap<String, InstanceRecord>, BTreeSet<String>) {
    let (mut records, mut spares) = (BTreeMap::new(), BTreeSet::new());
    for entry in std::fs::read_dir(paths.data()).into_iter().flatten().flatten() {
        if let Some((record, spare)) = read_record(paths, &entry.path()) {
            if spare {
                spares.insert(record.instance.clone());
            }
            records.insert(record.instance.clone(), record);
        }
    }
    (records, spares)
}

/// The record in an instance's folder, and whether the instance is a spare.
fn read_record(paths: &Paths, folder: &Path) -> Option<(InstanceRecord, bool)> {
    let text = std::fs::read_to_string(folder.join(".jackin/spec.json")).ok()?;
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
    let held = || {
        let file = paths.instance_socket_dir(folder.file_name()?.to_str()?).join("agent.toml");
        toml::from_str::<AgentToml>(&std::fs::read_to_string(file).ok()?).ok().map(|launch| launch.hold)
    };
    let spare = fields.get(HOLD).is_some_and(|hold| *hold == true) && held() == Some(true);
    let record: serde_json::Map<String, serde_json::Value> =
        fields.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("record.")?.to_owned(), v))).collect();
    Some((serde_json::from_value(record.into()).ok()?, spare))
}

impl Session {
    /// Everything the wanted instances need to know. Role repos are cloned and fetched here, concurrently.
    pub async fn complete(&mut self, wanted: &[Wanted], notice: Notice<'_>) -> Result<(), Diagnostics> {
        // git is asked for both at once: starting it is most of what a plan without changes costs on this host.
        let (roles, (name, email)) = tokio::join!(self.roles(wanted, notice), git::identity());
        (self.facts.git_user_name, self.facts.git_user_email) = (name, email);
        roles?;
        let hosts: BTreeSet<String> = wanted
            .iter()
            .flat_map(|w| {
                let global = layer::global_mounts(&self.config.global, &w.role).into_iter().map(|m| &m.src.value);
                w.mounts.iter().map(|m| &m.src.value).chain(global)
            })
            .map(|src| self.facts.expand(src))
            .collect();
        self.facts.paths = mounts::path_facts(hosts.iter().map(String::as_str));
        // Makers are asked while a person is.
        let agents = self.agents_of_roles();
        let looking = self.look_up(agents, !wanted.is_empty(), self.asking, notice);
        let (found, rest) = tokio::join!(looking, async {
            self.values(wanted).await?;
            self.role_values(wanted).await?;
            self.credentials(wanted).await
        });
        rest?;
        self.take(found)?;
        self.wanted = wanted.to_vec();
        Ok(())
    }

    /// Is the instance in this container a spare right now?
    pub fn is_spare(&self, container: &str) -> bool {
        read_record(&self.paths, &self.paths.instance(container)).is_some_and(|(_, spare)| spare)
    }

    /// The release of this agent could not be had after all.
    pub fn do_without(&mut self, agent: Agent, why: &str) {
        self.facts.agent_releases.insert(agent, Lookup::Failed { why: why.trim_end_matches('.').to_owned() });
    }

    /// The newest releases of these agents and the capsule's, and these roles, into the facts, all at once. `complete` looks up what
    /// the wanted instances need.
    pub async fn programs_and_roles(
        &mut self,
        agents: Vec<Agent>,
        roles: BTreeMap<String, RoleAsked>,
        notice: Notice<'_>,
    ) -> Result<(), Diagnostics> {
        let looking = self.look_up(agents.into_iter().collect(), true, self.asking, notice);
        let (found, fetched) = tokio::join!(looking, self.look_at_roles(roles, notice));
        fetched?;
        self.take(found)
    }

    /// The newest releases of the agents of the roles that were looked at, as far as nobody was asked for them.
    pub async fn programs_of_roles(&mut self, notice: Notice<'_>) -> Result<(), Diagnostics> {
        let mut agents = self.agents_of_roles();
        agents.retain(|agent| !self.facts.agent_releases.contains_key(agent));
        let found = self.look_up(agents, false, self.asking, notice).await;
        self.take(found)
    }

    fn agents_of_roles(&self) -> BTreeSet<Agent> {
        let checked = self.facts.roles.values().filter_map(|snapshot| crate::graph::role::check(snapshot).0);
        checked.flat_map(|role| role.manifest.agents).collect()
    }

    /// Borrows nothing, so that facts can be gathered meanwhile.
    fn look_up<'n>(
        &self,
        agents: BTreeSet<Agent>,
        with_capsule: bool,
        asking: Asking,
        notice: Notice<'n>,
    ) -> impl Future<Output = Vec<(Program, Option<Lookup>)>> + use<'n> {
        let given = |agent: &Agent| self.facts.agent_binaries.get(agent).is_some_and(|fact| fact.source != BinarySource::Cache);
        let mut programs: Vec<(Program, bool)> = agents
            .into_iter()
            .filter(|agent| !given(agent))
            .map(|agent| (Program::Agent(agent), self.facts.agent_binaries.contains_key(&agent)))
            .collect();
        if with_capsule && self.facts.capsule_binary.is_none() {
            programs.push((Program::Capsule(self.facts.version.clone()), false));
        }
        let makers = self.makers.clone();
        let now = clock::seconds();
        async move {
            let asked = programs.iter().map(|(program, cached)| makers.look_up(program, *cached, asking, now, notice));
            let answers = futures_util::future::join_all(asked).await;
            programs.into_iter().map(|(program, _)| program).zip(answers).collect()
        }
    }

    fn take(&mut self, found: Vec<(Program, Option<Lookup>)>) -> Result<(), Diagnostics> {
        let mut digests = FileDigests::load(&self.paths);
        for (program, lookup) in found {
            match (program, lookup) {
                (_, None) => {}
                (Program::Capsule(_), found) => self.facts.capsule_release = found,
                (Program::Agent(agent), Some(lookup)) => {
                    // The newest in the cache need not be the one that is the newest release.
                    if let Lookup::Newest(release) = &lookup
                        && let Some(fact) = cached_agent(agent, &self.paths, &release.version, self.facts.arch, &mut digests)?
                    {
                        self.facts.agent_binaries.insert(agent, fact);
                    }
                    self.facts.agent_releases.insert(agent, lookup);
                }
            }
        }
        digests.save();
        Ok(())
    }

    /// Asks for what was not looked up lately, while something else goes on. Given up when the command ends before.
    pub fn refresh_releases(&self) {
        for (agent, _) in self.facts.agent_releases.iter().filter(|(_, lookup)| **lookup == Lookup::Stale) {
            let (makers, program, now) = (self.makers.clone(), Program::Agent(*agent), clock::seconds());
            tokio::spawn(async move { makers.refresh(&program, now).await });
        }
    }

    async fn roles(&mut self, wanted: &[Wanted], notice: Notice<'_>) -> Result<(), Diagnostics> {
        let pinned = |w: &Wanted| self.request.pinned.get(&w.key).cloned();
        let asked = wanted
            .iter()
            .map(|w| (role_slot(w), RoleAsked { role: w.role.clone(), branch: w.branch.clone(), url: None, pinned: pinned(w) }));
        let asked = asked.collect();
        self.look_at_roles(asked, notice).await
    }

    /// Clones and fetches these roles concurrently, each once, by slot.
    async fn look_at_roles(&mut self, asked: BTreeMap<String, RoleAsked>, notice: Notice<'_>) -> Result<(), Diagnostics> {
        let ttl = Duration::from_secs(layer::role_refresh_seconds(&self.config.global));
        let refresh = match self.request.freshness {
            Freshness::Ttl => Refresh::Ttl(ttl),
            Freshness::Always => Refresh::Ttl(Duration::ZERO),
            Freshness::Cached => Refresh::CacheOnly,
            Freshness::Offline => Refresh::Offline,
        };
        let resolving = asked.into_iter().map(|(slot, asked)| {
            let configured = self.role_url(&asked.role);
            let elsewhere = asked.url.as_ref().is_some_and(|url| {
                let of = |url: &String| RoleUrl::parse(url).ok();
                of(url) != configured.as_ref().and_then(of)
            });
            let url = asked.url.clone().or(configured);
            let paths = &self.paths;
            async move {
                let key = RoleKey::parse(&asked.role)?;
                let Some(url) = url else {
                    return Ok((slot, unknown_role(&asked.role)));
                };
                let repo = RoleRepo { key, url, branch: asked.branch, pinned: asked.pinned };
                repo.resolve(paths, refresh, notice).await.map(|snapshot| (slot, RoleSnapshot { elsewhere, ..snapshot }))
            }
        });
        let mut wrong = Vec::new();
        for result in futures_util::future::join_all(resolving).await {
            match result {
                Ok((slot, snapshot)) => {
                    self.facts.roles.insert(slot, snapshot);
                }
                Err(diagnostic) => wrong.push(diagnostic),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Diagnostics(wrong)) }
    }

    fn role_url(&self, role: &str) -> Option<String> {
        let configured = self.config.global.roles.get(role).map(|r| r.git.value.clone());
        configured.or_else(|| config::role_key::builtin_url(role).map(str::to_owned)).or_else(|| RoleKey::parse(role).ok()?.derived_url())
    }

    /// Host variables and literals of every env layer that the instances use.
    async fn values(&mut self, wanted: &[Wanted]) -> Result<(), Diagnostics> {
        let mut maps: Vec<&EnvMap> = vec![&self.config.global.env, &self.config.global.github.env];
        maps.extend(self.config.global.roles.values().map(|r| &r.env));
        let names: BTreeSet<&String> = wanted.iter().filter_map(|w| w.workspace.as_ref()).collect();
        for workspace in names.into_iter().filter_map(|n| self.config.workspaces.get(n)) {
            maps.extend([&workspace.env, &workspace.github.env]);
            maps.extend(workspace.roles.values().flat_map(|r| [&r.env, &r.github.env]));
        }
        let mut hosts = BTreeSet::new();
        for (name, located) in maps.into_iter().flatten() {
            match &located.value {
                EnvValue::Literal { value, .. } => {
                    let at = place(&located.span, name);
                    self.facts.literal_env.insert(at.clone(), self.digest.of_secret(value));
                    self.vault.literals.insert(at, value.clone());
                }
                EnvValue::Host { name, .. } => {
                    hosts.insert(name.as_str());
                }
                EnvValue::Op { .. } => {}
            }
        }
        let found = env::host_values(hosts, env::variable);
        self.facts.host_env = env::digests(&found, &self.digest);
        self.vault.host = found;
        Ok(())
    }

    /// The variables that roles declare: operator's values, `--env`, a person's answers, defaults.
    async fn role_values(&mut self, wanted: &[Wanted]) -> Result<(), Diagnostics> {
        let mut wrong = Vec::new();
        // One reading of a manifest serves all instances of its role.
        let sound = |(slot, snapshot): (&String, &RoleSnapshot)| Some((slot.clone(), crate::graph::role::check(snapshot).0?));
        let roles: BTreeMap<String, CheckedRole> = self.facts.roles.iter().filter_map(sound).collect();
        for instance in wanted {
            let Some(role) = roles.get(&role_slot(instance)) else {
                continue;
            };
            let declared = &role.manifest.env;
            let workspace = instance.workspace.as_ref().and_then(|n| self.config.workspaces.get(n));
            let operator: BTreeMap<String, Option<SecretString>> = layer::env(&self.config.global, workspace, &instance.role)
                .into_iter()
                .map(|(name, chosen)| {
                    let value = match chosen.value {
                        EnvValue::Literal { value, .. } => Some(value),
                        EnvValue::Host { name, .. } => self.vault.host.get(&name).cloned(),
                        EnvValue::Op { .. } => None,
                    };
                    (name, value)
                })
                .collect();
            let mut answers: BTreeMap<String, Answer> =
                self.request.answers.iter().map(|(name, value)| (name.clone(), Answer::Value(value.clone()))).collect();
            let may_ask = self.request.may_ask && prompt::is_interactive();
            let variables = loop {
                if !may_ask {
                    break prompts::settle(declared, &operator, &answers);
                }
                let variables = prompts::resolve(declared, &operator, &answers);
                let Some((name, question)) = variables.iter().find_map(|v| match &v.state {
                    State::Ask(question) => Some((v.name.clone(), question.clone())),
                    _ => None,
                }) else {
                    break variables;
                };
                answers.insert(name, ask(question).await?);
            };
            let mut values = BTreeMap::new();
            for variable in variables {
                let value = match variable.state {
                    State::Operator(_) => continue,
                    State::Default(value) | State::Answered(value) => {
                        let digest = self.digest.of_secret(&value);
                        self.vault.role.insert(format!("{}:{}", instance.key, variable.name), value);
                        RoleValue::Set { digest }
                    }
                    State::Skipped { .. } => RoleValue::Skipped,
                    State::Ask(question) => RoleValue::Unanswered { prompt: question.text.expose_secret().to_owned() },
                    State::Waiting { on } => RoleValue::Unanswered { prompt: format!("after {on}") },
                    State::Refused(diagnostic) => {
                        wrong.push(diagnostic);
                        continue;
                    }
                };
                values.insert(variable.name, value);
            }
            self.facts.role_env.insert(instance.key.clone(), values);
        }
        if wrong.is_empty() { Ok(()) } else { Err(Diagnostics(wrong)) }
    }

    async fn credentials(&mut self, wanted: &[Wanted]) -> Result<(), Diagnostics> {
        let mut github = false;
        for instance in wanted {
            let workspace = instance.workspace.as_ref().and_then(|n| self.config.workspaces.get(n));
            github |= layer::github(&self.config.global, workspace, &instance.role).mode.value == GithubMode::Sync;
            for agent in Agent::ALL {
                let auth = layer::auth(&self.config.global, workspace, &instance.role, agent);
                if auth.mode.value != AuthMode::Sync || self.facts.credentials.contains_key(&agent) {
                    continue;
                }
                let dir = auth.sync_source_dir.map(|dir| self.paths.expand(&dir.value));
                if let Some(dir) = &dir {
                    self.source_dirs.insert(agent, dir.clone());
                }
                if let Some(fact) = credentials::credential_fact(agent, &self.paths.home, dir.as_deref(), &self.digest).await? {
                    self.facts.credentials.insert(agent, fact);
                }
            }
        }
        if github {
            let config = self.paths.home.join(".config/gh");
            let token = github::github_token(None, &config, std::env::var_os("PATH").as_deref()).await;
            self.facts.github_token = token.as_ref().map(|t| self.digest.of_secret(t));
            self.vault.github = token;
        }
        Ok(())
    }

    /// Configured credential folders, by agent.
    pub fn sync_source_dirs(&self) -> BTreeMap<Agent, PathBuf> {
        self.source_dirs.clone()
    }

    /// Durations of earlier steps, for estimates.
    pub fn history(&self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string(self.paths.cache().join("history.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Learns from the diaries; failing to costs an estimate.
    pub fn remember_history(&self) {
        let history = crate::journal::history(&self.paths.runs());
        if let Ok(text) = serde_json::to_vec(&history)
            && super::paths::ensure_dir(&self.paths.cache(), 0o700).is_ok()
        {
            let _ = super::atomic::write(&self.paths.cache().join("history.json"), &text, 0o600);
        }
    }

    /// Where the capsule of a home spec listens, on this host.
    pub fn socket_of(&self, container: &str) -> PathBuf {
        self.paths.instance_socket_dir(container).join("jackin.sock")
    }
}

async fn ask(question: prompts::Question) -> Result<Answer, Diagnostic> {
    let asked = tokio::task::spawn_blocking(move || {
        let default = question.default.as_ref().map(|d| d.expose_secret().to_owned());
        prompt::ask(&prompt::Question {
            text: question.text.expose_secret(),
            default: default.as_deref(),
            options: &question.options,
            skippable: question.skippable,
            secret: false,
        })
    });
    match asked.await.expect("BUG: asking does not panic")? {
        prompt::Answer::Given(value) => Ok(Answer::Value(value)),
        prompt::Answer::Skipped => Ok(Answer::Skip),
    }
}

fn unknown_role(key: &str) -> RoleSnapshot {
    RoleSnapshot {
        key: key.to_owned(),
        url: String::new(),
        elsewhere: false,
        branch: None,
        cache: String::new(),
        commit: None,
        checked_out: None,
        dirty: Vec::new(),
        tree: BTreeMap::new(),
        files: BTreeMap::new(),
        problem: Some(RoleProblem::Unknown),
    }
}
