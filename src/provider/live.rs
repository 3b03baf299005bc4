//! The real world behind `Provider`: sends each kind to the engine or to this host.
//!
//! In: what cannot be found out here, as `LiveParts` (credentials, git, sessions of a capsule, build contexts). Out: observations
//! and carried-out effects. Absent: decisions; an effect already says all.

use super::docker::{Engine, Look};
use super::endpoint::Connection;
use super::host::Host;
use super::{Provider, StepError, Task};
use crate::config::Agent;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::facts::Facts;
use crate::graph::{BuildContext, Graph};
use crate::observed::Observed;
use crate::plan::{Effect, Scope};
use crate::resource::{Address, Binary, Checkout, RoleRepo, SecretSource, Spec};
use secrecy::{SecretSlice, SecretString};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// An answer that takes a while.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The keyed digest that facts show credentials by.
pub type Digest = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// Finds the value behind a reference. Values go into containers and nowhere else.
pub trait Vault {
    fn value<'a>(&'a self, source: &'a SecretSource) -> Later<'a, Result<SecretString, Diagnostic>>;
}

/// Talks to the capsule inside a running container.
pub trait Capsules {
    /// Live sessions; `None` = it could not be asked.
    fn sessions<'a>(&'a self, container: &'a str) -> Later<'a, Option<u32>>;

    /// Does its control socket answer? Being asked makes a spare look whether it is to begin. `socket` is where the socket lies on this host, when host and engine share a kernel.
    fn ready<'a>(&'a self, container: &'a str, socket: Option<&'a Path>) -> Later<'a, bool> {
        let _ = container;
        Box::pin(async move {
            match socket {
                Some(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
                None => false,
            }
        })
    }
}

/// Git, downloads and credential files: what comes onto this host from elsewhere.
pub trait Sources {
    /// Tar of a cached clone's files at a commit.
    fn archive<'a>(&'a self, cache: &'a str, commit: &'a str) -> Later<'a, Result<Vec<u8>, Diagnostic>>;

    /// Moves the cached clone's working tree to the pinned commit.
    fn check_out<'a>(&'a self, repo: &'a RoleRepo) -> Later<'a, Result<(), Diagnostic>>;

    /// Puts a program into the cache.
    fn download<'a>(&'a self, address: &'a Address, binary: &'a Binary, report: &'a dyn Fn(String)) -> Later<'a, Result<(), Diagnostic>>;

    /// Content of one hand-off file, `file` being its path below the instance's state folder; `None` = the host has none (any more).
    fn credential<'a>(&'a self, agent: Agent, file: &'a str) -> Later<'a, Result<Option<SecretSlice<u8>>, Diagnostic>>;

    /// Makes the isolated checkout of a mount's source; one that is there is taken as it is.
    fn make_checkout<'a>(&'a self, checkout: &'a Checkout) -> Later<'a, Result<(), Diagnostic>>;

    /// Held while an image of this name is built, so that two runs that need it build it once.
    fn build_lock<'a>(&'a self, image: &'a str) -> Later<'a, Result<Box<dyn Any>, Diagnostic>>;

    /// Is another jackin making, adopting or removing this kept set?
    fn held(&self, set: &str) -> bool {
        let _ = set;
        false
    }

    /// Removes an isolated checkout, and whatever the repository remembers of it.
    fn remove_checkout<'a>(&'a self, path: &'a Path) -> Later<'a, Result<(), Diagnostic>>;
}

/// What the live provider needs from its surroundings.
pub struct LiveParts {
    pub facts: Arc<Facts>,
    /// `None`: this host alone, for plans that want nothing of an engine.
    pub connection: Option<Connection>,
    pub contexts: BTreeMap<Address, BuildContext>,
    pub vault: Box<dyn Vault>,
    pub capsules: Box<dyn Capsules>,
    pub sources: Box<dyn Sources>,
    pub digest: Digest,
    /// Now, RFC 3339 in UTC; only instance records have it.
    pub now: Box<dyn Fn() -> String>,
}

pub struct Live {
    engine: Option<Engine>,
    host: Host,
    contexts: BTreeMap<Address, BuildContext>,
    vault: Box<dyn Vault>,
    capsules: Box<dyn Capsules>,
    sources: Box<dyn Sources>,
    digest: Digest,
    now: Box<dyn Fn() -> String>,
    silent: RefCell<BTreeSet<String>>,
}

impl Live {
    pub fn new(parts: LiveParts) -> Self {
        let LiveParts { facts, connection, contexts, vault, capsules, sources, digest, now } = parts;
        let engine = connection.map(|connection| Engine { connection, facts: facts.clone() });
        Self { engine, host: Host { facts }, contexts, vault, capsules, sources, digest, now, silent: RefCell::default() }
    }

    async fn build(
        &self,
        engine: &Engine,
        address: &Address,
        spec: &Spec,
        context: &BuildContext,
        report: &dyn Fn(String),
    ) -> Result<(), StepError> {
        let _lock = self.sources.build_lock(spec.object_name()).await?;
        if !context.from_scratch && engine.image_is(spec).await {
            report("another run has built it meanwhile".to_owned());
            return Ok(());
        }
        engine.build(address, spec, context, &*self.sources, report).await
    }

    /// The same world, for a graph that was built from other facts.
    pub fn turn_to(&mut self, facts: Arc<Facts>, contexts: BTreeMap<Address, BuildContext>) {
        if let Some(engine) = &mut self.engine {
            engine.facts = facts.clone();
        }
        self.host.facts = facts;
        self.contexts = contexts;
    }

    pub fn connection(&self) -> Option<&Connection> {
        self.engine.as_ref().map(|engine| &engine.connection)
    }
}

/// This host's part of an observation, for planning without an engine: homes, programs, cached role repos.
pub async fn observe_host(facts: Arc<Facts>, digest: Digest, graph: &Graph, scope: &Scope) -> Result<Observed, Diagnostics> {
    let seen = Host { facts }.observe(graph, scope, digest).await?;
    let mut observed = Observed::empty();
    for (address, found) in seen.resources {
        observed.resources.entry(address).or_default().push(found);
    }
    Ok(observed)
}

impl Provider for Live {
    async fn observe(&self, graph: &Graph, scope: &Scope) -> Result<Observed, Diagnostics> {
        tracing::debug!(resources = graph.resources.len(), "observe");
        let Some(engine) = &self.engine else {
            return observe_host(self.host.facts.clone(), self.digest.clone(), graph, scope).await;
        };
        let homes = self.host.observe(graph, scope, self.digest.clone());
        let (homes, inventory) = futures_util::future::try_join(homes, engine.inventory(graph)).await?;
        let look = Look { graph, scope, digest: &*self.digest, sessions: &*self.capsules, homes: &homes.records, silent: &self.silent };
        let mut observed = engine.observe(inventory, &look).await?;
        observed.pool.iter_mut().for_each(|member| member.held = self.sources.held(&member.id));
        for (address, found) in homes.resources {
            observed.resources.entry(address).or_default().push(found);
        }
        Ok(observed)
    }

    async fn execute(&self, task: &Task, report: &dyn Fn(String)) -> Result<(), StepError> {
        let address = &task.step.address;
        tracing::debug!(step = %task.step.id, "execute");
        let result = match (&task.step.effect, &task.spec, &self.engine) {
            (Effect::CheckOut, Some(Spec::RoleRepo(repo)), _) => self.sources.check_out(repo).await.map_err(StepError::from),
            (Effect::RepairBinary, Some(Spec::AgentBinary(binary) | Spec::CapsuleBinary(binary)), _) => self.host.repair(binary).await,
            (Effect::Download, Some(Spec::AgentBinary(binary) | Spec::CapsuleBinary(binary)), _) => {
                self.sources.download(address, binary, report).await.map_err(StepError::from)
            }
            (Effect::WriteHome, Some(Spec::Home(home)), _) => self.host.write_home(home, &*self.sources, (self.now)()).await,
            (Effect::WriteHome, Some(Spec::Checkout(checkout)), _) => {
                let made = self.sources.make_checkout(checkout).await;
                match made {
                    Ok(()) => self.host.record_checkout(address, checkout).await,
                    Err(diagnostic) => Err(diagnostic.into()),
                }
            }
            (Effect::RemoveHome { path }, _, _) => self.host.remove_home(path, address, &*self.sources, (self.now)()).await,
            (_, _, Some(engine)) => self.execute_on(engine, task, report).await,
            (_, _, None) => Err(mismatched(task)),
        };
        result.map_err(|error| StepError { diagnostic: error.diagnostic.on(address), ..error })
    }
}

impl Live {
    async fn execute_on(&self, engine: &Engine, task: &Task, report: &dyn Fn(String)) -> Result<(), StepError> {
        let address = &task.step.address;
        match (&task.step.effect, &task.spec) {
            (Effect::Pull, Some(Spec::Image(image))) => engine.pull(image, report).await,
            (Effect::Build, Some(spec)) => match self.contexts.get(address) {
                Some(context) => self.build(engine, address, spec, context, report).await,
                None => Err(mismatched(task)),
            },
            (Effect::CreateNetwork, Some(spec @ Spec::Network(network))) => engine.create_network(address, spec, network).await,
            (Effect::RemoveNetwork { id }, _) => engine.remove_network(id).await,
            (Effect::CreateVolume, Some(spec @ Spec::Certs(certs))) => engine.create_volume(address, spec, certs).await,
            (Effect::RemoveVolume { name }, _) => engine.remove_volume(name).await,
            (Effect::CreateContainer, Some(spec @ (Spec::Sidecar(_) | Spec::Capsule(_)))) => {
                engine.create_container(address, spec, &*self.vault).await
            }
            (Effect::StartContainer { name }, _) => engine.start_container(name).await,
            (Effect::UnpauseContainer { id }, _) => engine.unpause_container(id).await,
            (Effect::PauseContainer { name }, _) => engine.pause_container(name).await,
            (Effect::AwaitReady, Some(Spec::Sidecar(sidecar))) => engine.await_sidecar(sidecar).await,
            (Effect::AwaitReady, Some(Spec::Capsule(capsule))) => engine.await_capsule(capsule, &*self.capsules).await,
            (Effect::RenameContainer { id, to }, _) => engine.rename_container(id, to).await,
            (Effect::ConnectNetwork { id, network }, _) => engine.connect_network(id, network).await,
            (Effect::LimitContainer { id }, Some(Spec::Capsule(capsule))) => engine.limit_container(id, &capsule.limits).await,
            (Effect::RemoveContainer { id }, _) => engine.remove_container(id).await,
            (Effect::Claim { .. }, Some(Spec::Sidecar(sidecar))) => engine.claim_sidecar(sidecar).await,
            (Effect::Claim { name }, _) => engine.claim(address.kind, name).await,
            (
                Effect::CheckOut
                | Effect::RepairBinary
                | Effect::Download
                | Effect::Pull
                | Effect::Build
                | Effect::WriteHome
                | Effect::RemoveHome { .. }
                | Effect::CreateNetwork
                | Effect::CreateVolume
                | Effect::CreateContainer
                | Effect::AwaitReady
                | Effect::LimitContainer { .. },
                _,
            ) => Err(mismatched(task)),
        }
    }
}

/// A plan that this jackin's planner would not have made.
fn mismatched(task: &Task) -> StepError {
    Diagnostic::error("plan.bad_step", "A step of the plan makes no sense", format!("{} has nothing to work from.", task.step.id))
        .help("Make the plan again with this version of jackin.")
        .into()
}
