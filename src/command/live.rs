//! Wires the live provider to what was gathered: the vault, git, credential files, the capsules' sockets.

use super::ui::Failure;
use crate::attach::{SOCKET_PATH_LIMIT, Through, Way};
use crate::config::Agent;
use crate::config::role_key::RoleKey;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::facts::Arch;
use crate::gather::binaries::host_arch;
use crate::gather::download::{self, Installed, Wanted};
use crate::gather::engines::Engine;
use crate::gather::env::variable as environment;
use crate::gather::releases::{Makers, Program};
use crate::gather::session::{EngineFacts, Session};
use crate::gather::vault::Vault;
use crate::gather::{Lock, Paths, clock, credentials, role_repo};
use crate::graph::BuildContext;
use crate::graph::programs::variable;
use crate::provider::docker;
use crate::provider::endpoint::{self, Connection, Endpoint};
use crate::provider::live::{Capsules, Later, Live, LiveParts, Sources};
use crate::resource::{Address, Binary, Checkout, RoleRepo, SecretSource};
use jackin_capsule::control::{Reply, Request, SessionState};
use secrecy::{SecretSlice, SecretString};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Who tells a command the architecture that programs are looked up for.
#[derive(Debug, Clone, Copy)]
pub enum ArchBy {
    /// The engine; what it said is kept for a day.
    Engine,
    /// What an engine said last, however long ago: for commands that put no program anywhere.
    Memory,
    Snapshot(Option<Arch>),
}

/// Of an engine that does not answer what it said last, if it ever did.
pub async fn engine_facts(by: ArchBy) -> Result<EngineFacts, Diagnostics> {
    if let ArchBy::Snapshot(arch) = by {
        return Ok(EngineFacts { arch, ..EngineFacts::default() });
    }
    let paths = Paths::from_env(environment)?;
    let endpoint = match endpoint_by_env() {
        Ok(endpoint) => endpoint,
        Err(wrong) => return Ok(EngineFacts { silent: Some(wrong), ..EngineFacts::default() }),
    };
    let known = Engine::remembered(&paths, &endpoint.url());
    let arch = known.as_ref().map(|known| known.arch);
    if matches!(by, ArchBy::Memory) || known.is_some_and(|known| known.holds(clock::seconds())) {
        return Ok(EngineFacts { arch, ..EngineFacts::default() });
    }
    match endpoint::connect(endpoint).await {
        Ok(connection) => {
            let arch = ask_arch(&paths, &connection).await?.or(arch);
            Ok(EngineFacts { arch, silent: None, warning: arch.is_none().then(|| untold(&connection)) })
        }
        Err(silent) => Ok(EngineFacts { arch, silent: Some(silent), warning: None }),
    }
}

fn untold(connection: &Connection) -> Diagnostic {
    let detail =
        format!("{} does not answer GET /version; it is taken to be this host's, linux/{}.", connection.endpoint.url(), host_arch());
    Diagnostic::warning("docker.architecture_untold", "The engine does not tell its architecture", detail)
        .help("Let what stands before the engine pass GET /version.")
}

/// `None`: it does not tell, as when something stands before it that lets only some questions through.
async fn ask_arch(paths: &Paths, connection: &Connection) -> Result<Option<Arch>, Diagnostic> {
    let Ok(Some(word)) = docker::arch(connection).await else { return Ok(None) };
    let url = connection.endpoint.url();
    let Some(arch) = Arch::parse(&word) else {
        let detail = format!("{url} runs on `{word}`.");
        return Err(Diagnostic::error("docker.architecture", "There are no programs for this engine", detail).help(
            "Agents and the capsule exist for amd64 and arm64. Point DOCKER_HOST or the Docker context at an engine of one of them.",
        ));
    };
    Engine::remember(paths, &url, &connection.greeting.server, arch);
    Ok(Some(arch))
}

pub fn endpoint_by_env() -> Result<Endpoint, Diagnostic> {
    endpoint::resolve(&engine_env(), &|path| std::fs::read(path))
}

async fn engine(session: &Session) -> Result<Connection, Diagnostic> {
    match &session.silent {
        Some(silent) => Err(silent.clone()),
        None => endpoint::connect(endpoint_by_env()?).await,
    }
}

/// For plans that put programs into images: only to an engine of the architecture that these were looked up for.
pub async fn connect_for_programs(session: &mut Session, contexts: BTreeMap<Address, BuildContext>) -> Result<Live, Failure> {
    let live = connect(session, contexts).await?;
    let Some(connection) = live.connection() else { return Ok(live) };
    let (url, arch) = (connection.endpoint.url(), session.facts.arch);
    let same = |known: &Engine| known.server == connection.greeting.server && known.arch == arch;
    if !Engine::remembered(&session.paths, &url).as_ref().is_some_and(same) {
        refuse_other_machine(session, &live).await?;
    }
    Ok(live)
}

/// Asks the engine itself. An engine of another machine may have the same address, name and version, so nothing is built before.
pub async fn refuse_other_machine(session: &Session, live: &Live) -> Result<(), Diagnostic> {
    let Some(connection) = live.connection() else { return Ok(()) };
    let (url, arch) = (connection.endpoint.url(), session.facts.arch);
    match ask_arch(&session.paths, connection).await? {
        Some(found) if found != arch => {
            let detail = format!("{url} runs linux/{found} by now; programs were looked up for linux/{arch}.");
            Err(Diagnostic::error("docker.other_engine", "Another engine answers than before", detail)
                .help("Run the command again: it goes by the engine that answers now. Nothing was changed."))
        }
        _ => Ok(()),
    }
}

pub async fn connect(session: &mut Session, contexts: BTreeMap<Address, BuildContext>) -> Result<Live, Failure> {
    let connection = engine(session).await?;
    let capsules = Sockets { root: session.paths.sockets(), engine: Through::of(&connection) };
    Ok(wire(session, Some(connection), Box::new(capsules), contexts))
}

/// For plans that want nothing of an engine.
pub fn this_host(session: &mut Session) -> Live {
    wire(session, None, Box::new(NoCapsules), BTreeMap::new())
}

fn wire(
    session: &mut Session,
    connection: Option<Connection>,
    capsules: Box<dyn Capsules>,
    contexts: BTreeMap<Address, BuildContext>,
) -> Live {
    let digest = session.digest.clone();
    let parts = LiveParts {
        facts: Arc::new(session.facts.clone()),
        capsules,
        connection,
        contexts,
        vault: Box::new(SessionVault(std::mem::take(&mut session.vault))),
        sources: Box::new(SessionSources {
            paths: session.paths.clone(),
            dirs: session.sync_source_dirs(),
            makers: session.makers.clone(),
        }),
        digest: Arc::new(move |bytes: &[u8]| digest.of(bytes)),
        now: Box::new(|| format!("{:.0}", jiff::Timestamp::now())),
    };
    Live::new(parts)
}

struct NoCapsules;

impl Capsules for NoCapsules {
    fn sessions<'a>(&'a self, _: &'a str) -> Later<'a, Option<u32>> {
        Box::pin(std::future::ready(None))
    }
}

/// The variables that say where the engine is.
pub fn engine_env() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

struct SessionVault(Vault);

impl crate::provider::live::Vault for SessionVault {
    fn value<'a>(&'a self, source: &'a SecretSource) -> Later<'a, Result<SecretString, Diagnostic>> {
        Box::pin(self.0.value(source))
    }
}

/// The capsules' bind-mounted sockets on this host, and the way in through the engine where they cannot be connected to.
struct Sockets {
    root: PathBuf,
    engine: Through,
}

/// One control question; `None` when nobody answers in time.
async fn ask(way: &Way, request: &Request, patience: Duration) -> Option<Reply> {
    tokio::time::timeout(patience, way.ask(request)).await.ok()?.ok()
}

impl Capsules for Sockets {
    /// By the socket alone: going through the engine would be a write, and looking only reads.
    fn sessions<'a>(&'a self, container: &'a str) -> Later<'a, Option<u32>> {
        Box::pin(async move {
            let way = Way::direct(&self.root.join(container).join("jackin.sock")).await?;
            match ask(&way, &Request::Status, Duration::from_secs(2)).await? {
                Reply::SessionList { sessions } => u32::try_from(sessions.len()).ok(),
                _ => None,
            }
        })
    }

    fn ready<'a>(&'a self, container: &'a str, socket: Option<&'a Path>) -> Later<'a, bool> {
        Box::pin(async move {
            if let Some(path) = socket.filter(|path| path.as_os_str().len() <= SOCKET_PATH_LIMIT) {
                let Some(way) = Way::direct(path).await else { return false };
                return ask(&way, &Request::Release, Duration::from_secs(2)).await.is_some();
            }
            ask(&self.engine.to(container), &Request::Release, Duration::from_secs(5)).await.is_some()
        })
    }
}

/// The containers of this jackin home on the engine, by name, each with whether it runs.
pub async fn containers(session: &Session) -> Result<BTreeMap<String, bool>, Failure> {
    let connection = engine(session).await?;
    Ok(docker::containers(&connection, &session.facts.installation).await?)
}

/// Those of these containers that run, paused ones among them: by their sockets, whose listening tells it without the engine. Where
/// the engine is elsewhere, or a path too long for a socket, the engine is asked.
pub async fn running<'a>(session: &Session, containers: impl IntoIterator<Item = &'a str>) -> Result<BTreeSet<String>, Failure> {
    let sockets: Vec<(&str, PathBuf)> = containers.into_iter().map(|container| (container, session.socket_of(container))).collect();
    let near = endpoint_by_env()?.shares_kernel();
    if sockets.iter().any(|(_, socket)| !near || socket.as_os_str().len() > SOCKET_PATH_LIMIT) {
        let all = self::containers(session).await?;
        return Ok(sockets.into_iter().filter(|(name, _)| all.get(*name) == Some(&true)).map(|(name, _)| name.to_owned()).collect());
    }
    let asked = sockets.into_iter().map(async |(name, socket)| Way::direct(&socket).await.map(|_| name.to_owned()));
    Ok(futures_util::future::join_all(asked).await.into_iter().flatten().collect())
}

/// Does the capsule in this container answer? One that is paused takes connections all the same.
pub async fn answers(session: &Session, container: &str) -> bool {
    match Way::direct(&session.socket_of(container)).await {
        Some(way) => ask(&way, &Request::Status, Duration::from_secs(1)).await.is_some(),
        None => false,
    }
}

/// How many sessions of a capsule are in which state; nothing when it does not answer, or detects none.
pub async fn session_states(session: &Session, sessions: Option<u32>, container: &str) -> BTreeMap<String, u32> {
    let mut states = BTreeMap::new();
    if sessions.is_some()
        && let Some(way) = Way::direct(&session.socket_of(container)).await
        && let Some(Reply::SessionList { sessions }) = ask(&way, &Request::Status, Duration::from_secs(2)).await
    {
        for session in sessions.iter().filter(|session| session.state != SessionState::Unknown) {
            *states.entry(session.state.to_string()).or_default() += 1;
        }
    }
    states
}

struct SessionSources {
    paths: Paths,
    /// `sync_source_dir` of an agent, when one is configured.
    dirs: BTreeMap<Agent, PathBuf>,
    makers: Arc<Makers>,
}

impl Sources for SessionSources {
    fn archive<'a>(&'a self, cache: &'a str, commit: &'a str) -> Later<'a, Result<Vec<u8>, Diagnostic>> {
        Box::pin(role_repo::archive(Path::new(cache), commit))
    }

    fn check_out<'a>(&'a self, repo: &'a RoleRepo) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async move {
            let cache = self.paths.expand(&repo.path);
            let key = cache
                .strip_prefix(self.paths.roles())
                .ok()
                .and_then(Path::parent)
                // The folder of a key that ends in `default` bears a sign, see `RoleKey::cache_folder`.
                .map(|key| key.to_string_lossy().replace("/+", "/"))
                .unwrap_or_default();
            role_repo::checkout(&self.paths, &RoleKey::parse(&key)?, &repo.commit, &super::run::notice).await
        })
    }

    fn download<'a>(&'a self, address: &'a Address, binary: &'a Binary, report: &'a dyn Fn(String)) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async move {
            let (Some(path), Some(digest), Some(download)) = (&binary.path, &binary.digest, &binary.download) else {
                return Err(Diagnostic::error("binary.unknown_source", "It is not known where a program comes from", address.to_string())
                    .help("Plan again while the network can be used."));
            };
            let agent = Agent::from_slug(&address.name);
            let wanted = Wanted {
                name: address.name.clone(),
                version: binary.version.clone().unwrap_or_default(),
                path: self.paths.expand(path),
                digest: digest.clone(),
                download: download.clone(),
                arch: self.makers.arch,
                variable: agent.map_or_else(|| "JACKIN_CAPSULE_BIN".to_owned(), variable),
            };
            let installed = download::install(&self.makers.http, &wanted, report, &super::run::notice).await;
            if let (Err(refused), Some(agent)) = (&installed, agent) {
                // The next plan does without, and says why.
                self.makers.remember_failure(&Program::Agent(agent), refused.detail.trim_end_matches('.'), clock::seconds());
            }
            if let Ok(Installed::AlreadyThere) = installed {
                report("another run has downloaded it meanwhile".to_owned());
            }
            installed.map(|_| ())
        })
    }

    fn credential<'a>(&'a self, agent: Agent, file: &'a str) -> Later<'a, Result<Option<SecretSlice<u8>>, Diagnostic>> {
        Box::pin(async move {
            let dir = self.dirs.get(&agent).map(PathBuf::as_path);
            let found = credentials::handoff_files(agent, &self.paths.home, dir)?.into_iter().find(|h| h.to == file);
            match found {
                Some(handoff) => Ok(credentials::read(&handoff.from).await?.map(|bytes| SecretSlice::from(bytes.to_vec()))),
                None => Ok(None),
            }
        })
    }

    fn make_checkout<'a>(&'a self, checkout: &'a Checkout) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(async move { Err(Diagnostic::error("mount.isolation", "Isolated mounts are not supported yet", checkout.path.clone())) })
    }

    fn build_lock<'a>(&'a self, image: &'a str) -> Later<'a, Result<Box<dyn Any>, Diagnostic>> {
        Box::pin(async move {
            let name: String = image.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
            let path = self.paths.data().join("builds.locks").join(format!("{name}.lock"));
            let lock = Lock::exclusive(&path, &format!("the build of {image}"), None, &super::run::notice).await?;
            Ok(Box::new(lock) as Box<dyn Any>)
        })
    }

    fn held(&self, set: &str) -> bool {
        Lock::is_held(&self.paths.kept_lock(set))
    }

    fn remove_checkout<'a>(&'a self, path: &'a Path) -> Later<'a, Result<(), Diagnostic>> {
        Box::pin(
            async move { Err(Diagnostic::error("mount.isolation", "Isolated mounts are not supported yet", path.display().to_string())) },
        )
    }
}
