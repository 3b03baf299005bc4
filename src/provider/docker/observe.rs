//! One look at the engine: four lists, one inspect per container and image in scope, all at once; and where a kept sidecar may be taken
//! over or counted, one question to each whether it answers.
//!
//! In: the graph, the scope, what the homes on disk say. Out: resources by address, strangers, kept sidecars. Live fields have the
//! names and the exact values of the recorded ones wherever both mean the same, so that an untouched world shows no difference.
//! Absent: `/images/json`, `/info` and `/version`, which are slow.

use super::{Engine, Marks, failed};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::graph::{Graph, names};
use crate::observed::{Found, Loss, Observed, State, Stranger, pool};
use crate::plan::{Scope, minds_pool};
use crate::provider::live::Capsules;
use crate::resource::{Address, Fields, Kind, label};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, HostConfig, ImageInspect, MountType,
    Network, Volume,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use futures_util::future::join_all;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A capsule that does not answer must not hold up a plan.
const SESSIONS: Duration = Duration::from_millis(500);
/// Reading takes an engine milliseconds; one that hangs is told of before a person gives up.
const READING: Duration = Duration::from_secs(60);

/// What an instance's home says it took over: kept objects bear no address.
#[derive(Debug, Clone)]
pub struct HomeRecord {
    pub instance: String,
    /// The instance's own container.
    pub container: String,
    /// Kind -> name.
    pub names: BTreeMap<Kind, String>,
}

/// What the look needs from outside.
pub struct Look<'a> {
    pub graph: &'a Graph,
    pub scope: &'a Scope,
    /// Keyed digest, as facts hold them.
    pub digest: &'a dyn Fn(&[u8]) -> String,
    /// How many sessions live in a running capsule.
    pub sessions: &'a dyn Capsules,
    pub homes: &'a [HomeRecord],
    /// Kept sidecars that an earlier look of this run found silent: they are not waited for again.
    pub silent: &'a RefCell<BTreeSet<String>>,
}

/// What the engine holds, before anything is matched: everything that can be asked without knowing the homes.
pub struct Inventory {
    lists: Lists,
    images: Vec<(Address, Vec<Found>)>,
}

/// What the four lists returned.
struct Lists {
    containers: Vec<ContainerSummary>,
    networks: Vec<Network>,
    volumes: Vec<Volume>,
}

impl Engine {
    pub async fn inventory(&self, graph: &Graph) -> Result<Inventory, Diagnostics> {
        let (lists, images) = futures_util::future::try_join(self.lists(), self.images(graph)).await.map_err(|error| unseen(&error))?;
        Ok(Inventory { lists, images })
    }

    pub async fn observe(&self, Inventory { lists, images }: Inventory, look: &Look<'_>) -> Result<Observed, Diagnostics> {
        let mut observed = Observed::empty();
        observed.engine = Some(crate::observed::Engine {
            api_version: self.connection.api_version(),
            arch: (!self.facts.arch_assumed).then_some(self.facts.arch),
        });
        observed.resources.extend(images);

        let in_scope = |address: &Address| {
            look.graph.resources.contains_key(address) || address.instance().is_some_and(|instance| look.scope.covers(instance))
        };
        let address_of = |kind: Kind, name: &str, labels: Option<&HashMap<String, String>>| {
            let marks = Marks::of(labels);
            if marks.installation() != Some(&self.facts.installation) {
                return None;
            }
            marks.address().or_else(|| {
                let home = look.homes.iter().find(|home| home.names.get(&kind).is_some_and(|n| n == name))?;
                (marks.get(label::KIND) == Some(label::KEPT)).then(|| Address::new(kind, home.instance.clone()))
            })
        };
        // What the label says, with the owner that took it over: labels cannot be rewritten.
        let owned = |mut found: Found, labels: Option<&HashMap<String, String>>| {
            let instance = |home: &&HomeRecord| home.names.values().any(|name| *name == found.name);
            if self.is_kept(labels)
                && let Some(home) = look.homes.iter().find(instance)
                && let Some(recorded) = &mut found.recorded
            {
                recorded.insert("owner".to_owned(), home.container.clone().into());
            }
            found
        };
        let mut kept: Vec<(String, Kind, Found)> = Vec::new();
        let mut keep = |kind: Kind, found: Found| {
            let recorded = found.recorded.as_ref().and_then(|fields| fields.get("name")).and_then(Value::as_str);
            if let Some(id) = recorded.and_then(|name| names::pool_id(kind, name)).or_else(|| names::pool_id(kind, &found.name)) {
                kept.push((id.to_owned(), kind, found));
            }
        };

        let mut inspections = Vec::new();
        let mut kept_sidecars = Vec::new();
        for container in &lists.containers {
            let Some(id) = &container.id else { continue };
            match address_of(Kind::Sidecar, name_of(container), container.labels.as_ref()) {
                Some(address) if in_scope(&address) && address.kind.is_container() => inspections.push((address, id, container)),
                Some(_) => {}
                None if self.is_kept(container.labels.as_ref()) => kept_sidecars.push((id, container)),
                None => {}
            }
        }
        let docker = &self.reader();
        let contained = join_all(inspections.into_iter().map(|(address, id, summary)| async move {
            let loss = self.loss(&address, summary, look);
            let (inspection, loss) = futures_util::future::join(docker.inspect_container(id, None), loss).await;
            (address, inspection, loss)
        }));
        let pooled = join_all(kept_sidecars.iter().map(|(id, _)| docker.inspect_container(id, None)));
        let (contained, pooled) = futures_util::future::join(contained, pooled).await;

        // Ids of networks that something of ours is attached to.
        let mut attached: BTreeSet<String> = BTreeSet::new();
        let ours = |c: &&ContainerSummary| Marks::of(c.labels.as_ref()).installation() == Some(&self.facts.installation);
        for container in lists.containers.iter().filter(ours) {
            let networks = container.network_settings.as_ref().and_then(|s| s.networks.as_ref());
            attached.extend(networks.into_iter().flatten().filter_map(|(_, endpoint)| endpoint.network_id.clone()));
        }
        let network_ids: BTreeSet<&str> = lists.networks.iter().filter_map(|n| n.id.as_deref()).collect();
        for (address, inspection, loss) in contained {
            match inspection {
                Ok(inspection) => {
                    let found = self.container(address.kind, &inspection, loss, look.digest, &network_ids);
                    let found = owned(found, inspection.config.as_ref().and_then(|c| c.labels.as_ref()));
                    observed.resources.entry(address).or_default().push(found);
                }
                // It went between the list and the inspect.
                Err(error) if super::status(&error) == Some(404) => {}
                Err(error) => return Err(unseen(&error)),
            }
        }
        let volumes_in_use: BTreeSet<&str> = lists
            .containers
            .iter()
            .filter(ours)
            .flat_map(|c| c.mounts.iter().flatten())
            .filter(|m| m.typ.as_deref() == Some("volume"))
            .filter_map(|m| m.name.as_deref())
            .collect();
        for network in &lists.networks {
            let (Some(name), Some(id)) = (&network.name, &network.id) else {
                continue;
            };
            let labels = network.labels.as_ref();
            let found = || owned(seen_network(network, name, id, attached.contains(id)), labels);
            match address_of(Kind::Network, name, labels) {
                Some(address) if in_scope(&address) => observed.resources.entry(address).or_default().push(found()),
                None if self.is_kept(labels) => keep(Kind::Network, found()),
                _ => {}
            }
        }
        for volume in &lists.volumes {
            let labels = Some(&volume.labels);
            let found = || owned(seen_volume(volume, volumes_in_use.contains(volume.name.as_str())), labels);
            match address_of(Kind::Certs, &volume.name, labels) {
                Some(address) if in_scope(&address) => observed.resources.entry(address).or_default().push(found()),
                None if self.is_kept(labels) => keep(Kind::Certs, found()),
                _ => {}
            }
        }
        // A set whose sidecar could not be looked at is not one that lacks a sidecar, which would be removed.
        let pooled = pooled.into_iter().filter(|result| !matches!(result, Err(error) if super::status(error) == Some(404)));
        let pooled: Vec<ContainerInspectResponse> = pooled.collect::<Result<_, _>>().map_err(|error| unseen(&error))?;
        let silent = match minds_pool(look.graph, &observed) {
            true => Engine::silent(&pooled, look.silent).await,
            false => BTreeSet::new(),
        };
        for inspection in &pooled {
            let mut found = self.container(Kind::Sidecar, inspection, Loss::default(), look.digest, &network_ids);
            if silent.contains(&found.id) {
                found.state = State::Silent;
            }
            keep(Kind::Sidecar, found);
        }
        observed.pool = pool(kept);
        for found in observed.resources.values_mut() {
            found.sort_by(|a, b| a.id.cmp(&b.id));
        }
        self.strangers(look.graph, &lists, &mut observed);
        Ok(observed)
    }

    fn reader(&self) -> Docker {
        self.connection.docker.clone().with_timeout(READING)
    }

    /// Two lists of containers, because ours may have been renamed and a stranger bears no label.
    async fn lists(&self) -> Result<Lists, Error> {
        let docker = self.reader();
        let filters = |pairs: &[(&str, &[String])]| -> HashMap<String, Vec<String>> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), v.to_vec())).collect()
        };
        let ours = [format!("{}=true", label::MANAGED), format!("{}={}", label::INSTALLATION, self.facts.installation)];
        let containers =
            |filters| docker.list_containers(Some(ListContainersOptionsBuilder::default().all(true).filters(&filters).build()));
        let by_label = containers(filters(&[("label", &ours)]));
        let by_name = containers(filters(&[("name", &["^/jk-".to_owned()])]));
        let ours_by_name = filters(&[("name", &["jk-".to_owned()])]);
        let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::default().filters(&ours_by_name).build()));
        let volumes = docker.list_volumes(Some(ListVolumesOptionsBuilder::default().filters(&ours_by_name).build()));
        let (mut containers, by_name, networks, volumes) = futures_util::future::try_join4(by_label, by_name, networks, volumes).await?;
        let known: BTreeSet<Option<String>> = containers.iter().map(|c| c.id.clone()).collect();
        containers.extend(by_name.into_iter().filter(|c| !known.contains(&c.id)));
        Ok(Lists { containers, networks, volumes: volumes.volumes.unwrap_or_default() })
    }

    /// By name, one each.
    async fn images(&self, graph: &Graph) -> Result<Vec<(Address, Vec<Found>)>, Error> {
        let wanted = graph.resources.iter().filter(|(a, _)| matches!(a.kind, Kind::Image | Kind::RoleImage | Kind::DerivedImage));
        let docker = &self.reader();
        let inspections = join_all(wanted.map(|(address, resource)| async move {
            let reference = resource.spec.object_name();
            (address, reference, docker.inspect_image(reference).await)
        }));
        let mut out = Vec::new();
        for (address, reference, inspection) in inspections.await {
            match inspection {
                Ok(image) => out.push((address.clone(), vec![seen_image(address.kind, reference, &image)])),
                Err(error) if super::status(&error) == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    pub(super) fn is_kept(&self, labels: Option<&HashMap<String, String>>) -> bool {
        let marks = Marks::of(labels);
        marks.installation() == Some(&self.facts.installation)
            && marks.get(label::KIND) == Some(label::KEPT)
            && marks.get(label::ADDRESS).is_none()
    }

    async fn loss(&self, address: &Address, container: &ContainerSummary, look: &Look<'_>) -> Loss {
        let running = container.state == Some(ContainerSummaryStateEnum::RUNNING);
        let paused = container.state == Some(ContainerSummaryStateEnum::PAUSED);
        let mut loss = Loss::default();
        match address.kind {
            Kind::Sidecar => loss.docker_data = running || paused,
            // Who is paused cannot answer.
            Kind::Capsule if paused => loss.sessions_unknown = true,
            Kind::Capsule if running => {
                let asked = tokio::time::timeout(SESSIONS, look.sessions.sessions(name_of(container)));
                loss.sessions = asked.await.unwrap_or_default();
                loss.sessions_unknown = loss.sessions.is_none();
            }
            _ => {}
        }
        loss
    }

    fn container(
        &self,
        kind: Kind,
        inspection: &ContainerInspectResponse,
        loss: Loss,
        digest: &dyn Fn(&[u8]) -> String,
        network_ids: &BTreeSet<&str>,
    ) -> Found {
        let recorded = Marks::of(inspection.config.as_ref().and_then(|c| c.labels.as_ref())).recorded();
        let seen = Seen { inspection, recorded: recorded.clone().unwrap_or_default(), podman: self.connection.greeting.podman };
        Found {
            id: inspection.id.clone().unwrap_or_default(),
            name: seen.name().to_owned(),
            live: seen.fields(kind, &self.facts.home, digest, network_ids),
            recorded,
            state: state(inspection),
            in_use: false,
            loss,
            image_id: inspection.image.clone(),
        }
    }

    /// Whatever else bears a name that the graph wants.
    fn strangers(&self, graph: &Graph, lists: &Lists, observed: &mut Observed) {
        let why = |address: &Address, labels: Option<&HashMap<String, String>>, id: &str, observed: &Observed| {
            let marks = Marks::of(labels);
            match (marks.installation(), marks.address()) {
                (None, _) => Some("it has no jackin label".to_owned()),
                (Some(other), _) if other != self.facts.installation => Some("another jackin home made it".to_owned()),
                (Some(_), Some(owner)) if owner != *address => Some(format!("it is {owner} of this jackin home")),
                (Some(_), _) => {
                    let known = observed.found(address).iter().any(|f| f.id == id)
                        || observed.pool.iter().any(|set| set.sidecar.iter().chain(&set.network).chain(&set.certs).any(|f| f.id == id));
                    (!known).then(|| "it does not say what it belongs to".to_owned())
                }
            }
        };
        let mut wanted: HashMap<(Kind, &str), &Address> = HashMap::new();
        for (address, resource) in &graph.resources {
            let kind = if address.kind.is_container() { Kind::Capsule } else { address.kind };
            if matches!(kind, Kind::Network | Kind::Certs | Kind::Capsule) {
                wanted.insert((kind, resource.spec.object_name()), address);
            }
        }
        let containers = lists.containers.iter().map(|c| (Kind::Capsule, name_of(c), c.id.as_deref(), c.labels.as_ref()));
        let networks =
            lists.networks.iter().map(|n| (Kind::Network, n.name.as_deref().unwrap_or_default(), n.id.as_deref(), n.labels.as_ref()));
        let volumes = lists.volumes.iter().map(|v| (Kind::Certs, v.name.as_str(), Some(v.name.as_str()), Some(&v.labels)));
        for (kind, name, id, labels) in containers.chain(networks).chain(volumes) {
            let (Some(address), Some(id)) = (wanted.get(&(kind, name)), id) else {
                continue;
            };
            if let Some(why) = why(address, labels, id, observed) {
                observed.strangers.insert((*address).clone(), Stranger { id: id.to_owned(), name: name.to_owned(), why });
            }
        }
    }
}

fn unseen(error: &Error) -> Diagnostics {
    let failure: Diagnostic = failed("Looking at the engine", error).diagnostic;
    failure.into()
}

fn name_of(container: &ContainerSummary) -> &str {
    // A container that others link to has further names with two slashes.
    let names = container.names.as_deref().unwrap_or_default();
    let own = names.iter().find(|n| n.matches('/').count() == 1).or(names.first());
    own.map_or("", |n| n.trim_start_matches('/'))
}

fn seen_network(network: &Network, name: &str, id: &str, in_use: bool) -> Found {
    let mut live = Fields::from([("name".to_owned(), name.into())]);
    live.insert("internal".to_owned(), network.internal.unwrap_or(false).into());
    present(name, id, Marks::of(network.labels.as_ref()).recorded(), live, in_use)
}

fn seen_volume(volume: &Volume, in_use: bool) -> Found {
    let live = Fields::from([("name".to_owned(), volume.name.clone().into())]);
    present(&volume.name, &volume.name, Marks::of(Some(&volume.labels)).recorded(), live, in_use)
}

fn seen_image(kind: Kind, reference: &str, image: &ImageInspect) -> Found {
    let mut live = Fields::new();
    let mut recorded = None;
    if kind == Kind::Image {
        live.insert("reference".to_owned(), reference.into());
        if let (Some(os), Some(architecture)) = (&image.os, &image.architecture) {
            live.insert("platform".to_owned(), format!("{os}/{architecture}").into());
        }
    } else {
        recorded = Marks::of(image.config.as_ref().and_then(|c| c.labels.as_ref())).recorded();
    }
    present(reference, image.id.as_deref().unwrap_or_default(), recorded, live, false)
}

fn present(name: &str, id: &str, recorded: Option<Fields>, live: Fields, in_use: bool) -> Found {
    Found { id: id.to_owned(), name: name.to_owned(), recorded, live, state: State::Present, in_use, loss: Loss::default(), image_id: None }
}

pub(super) fn state(inspection: &ContainerInspectResponse) -> State {
    let Some(state) = &inspection.state else {
        return State::Dead;
    };
    let yes = |flag: Option<bool>| flag == Some(true);
    let ended = State::Exited { code: state.exit_code.unwrap_or_default(), oom: yes(state.oom_killed) };
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => State::Running,
        Some(ContainerStateStatusEnum::PAUSED) => State::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => State::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => State::Removing,
        Some(ContainerStateStatusEnum::EXITED) => ended,
        Some(ContainerStateStatusEnum::DEAD) => State::Dead,
        Some(ContainerStateStatusEnum::EMPTY) | None if yes(state.paused) => State::Paused,
        Some(ContainerStateStatusEnum::EMPTY) | None if yes(state.restarting) => State::Restarting,
        Some(ContainerStateStatusEnum::EMPTY) | None if yes(state.running) => State::Running,
        Some(ContainerStateStatusEnum::EMPTY) | None if yes(state.dead) => State::Dead,
        Some(ContainerStateStatusEnum::EMPTY) | None => ended,
    }
}

/// A living container beside the spec it was made from.
struct Seen<'a> {
    inspection: &'a ContainerInspectResponse,
    recorded: Fields,
    podman: bool,
}

impl Seen<'_> {
    fn name(&self) -> &str {
        self.inspection.name.as_deref().unwrap_or_default().trim_start_matches('/')
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.recorded.get(field).and_then(Value::as_str)
    }

    /// Declared fields as the engine has them now. Without a recorded spec only the name is told.
    fn fields(&self, kind: Kind, home: &str, digest: &dyn Fn(&[u8]) -> String, network_ids: &BTreeSet<&str>) -> Fields {
        let mut live = Fields::from([("name".to_owned(), self.name().into())]);
        if self.recorded.is_empty() {
            return live;
        }
        let none = HostConfig::default();
        let host = self.inspection.host_config.as_ref().unwrap_or(&none);
        self.network(&mut live, network_ids);
        self.env(&mut live, digest);
        self.mounts(&mut live, host, home);
        if let Some(image) = self.inspection.config.as_ref().and_then(|c| c.image.as_deref()) {
            // Podman writes names in full.
            let same = self.text("image").filter(|want| image == *want || image.ends_with(&format!("/{want}")));
            live.insert("image".to_owned(), same.unwrap_or(image).into());
        }
        match kind {
            Kind::Sidecar => {
                live.insert("privileged".to_owned(), host.privileged.unwrap_or(false).into());
            }
            _ => self.capsule(&mut live, host),
        }
        live
    }

    /// The recorded network's name while attached to it; null when detached, or attached to a network that is gone.
    fn network(&self, live: &mut Fields, network_ids: &BTreeSet<&str>) {
        let Some(want) = self.text("network") else {
            return;
        };
        let empty = HashMap::new();
        let networks = self.inspection.network_settings.as_ref().and_then(|s| s.networks.as_ref()).unwrap_or(&empty);
        let is = match networks.get(want) {
            Some(endpoint) => {
                // A stopped container remembers the id of a network that may have been made anew since.
                let id = endpoint.network_id.as_deref().unwrap_or_default();
                let stale = want.starts_with("jk-") && !id.is_empty() && !network_ids.contains(id);
                if stale { Value::Null } else { want.into() }
            }
            None if want == "none" && !networks.is_empty() => networks.keys().min().map(String::as_str).into(),
            None => Value::Null,
        };
        live.insert("network".to_owned(), is);
    }

    fn env(&self, live: &mut Fields, digest: &dyn Fn(&[u8]) -> String) {
        let variables = self.inspection.config.as_ref().and_then(|c| c.env.as_deref()).unwrap_or_default();
        let values: HashMap<&str, &str> = variables.iter().filter_map(|v| v.split_once('=')).collect();
        for field in self.recorded.keys() {
            let Some(rest) = field.strip_prefix("env.") else {
                continue;
            };
            let secret = |name: &str| self.recorded.contains_key(&format!("env.{name}.from"));
            let is = match (rest.strip_suffix(".digest"), rest.strip_suffix(".from")) {
                (Some(name), _) if secret(name) => values.get(name).map(|value| digest(value.as_bytes())).into(),
                (_, Some(name)) if secret(name) => continue,
                _ => values.get(rest).copied().into(),
            };
            live.insert(field.clone(), is);
        }
    }

    /// `HostConfig` keeps what was asked for word for word; the resolved list is the fallback (Podman, old binds).
    fn mounts(&self, live: &mut Fields, host: &HostConfig, home: &str) {
        let mut mounts: HashMap<&str, (&str, &str, bool)> = HashMap::new();
        for mount in self.inspection.mounts.iter().flatten() {
            let Some(target) = mount.destination.as_deref() else {
                continue;
            };
            let writable = mount.rw.unwrap_or(true);
            match (mount.typ.as_deref(), &mount.name, &mount.source) {
                (Some("volume"), Some(name), _) => mounts.insert(target, ("volume", name, !writable)),
                (Some("bind"), _, Some(source)) => mounts.insert(target, ("bind", source, !writable)),
                _ => None,
            };
        }
        for mount in host.mounts.iter().flatten() {
            let (Some(target), Some(source)) = (mount.target.as_deref(), mount.source.as_deref()) else {
                continue;
            };
            let readonly = mount.read_only.unwrap_or(false);
            match mount.typ {
                Some(MountType::VOLUME) => mounts.insert(target, ("volume", source, readonly)),
                Some(MountType::BIND) => mounts.insert(target, ("bind", source, readonly)),
                _ => None,
            };
        }
        for field in self.recorded.keys() {
            let Some((target, part)) = field.strip_prefix("mounts.").and_then(|rest| rest.rsplit_once('.')) else {
                continue;
            };
            let is = match (mounts.get(target), part) {
                (Some((kind, _, _)), "kind") => (*kind).into(),
                (Some((kind, source, _)), "source") if *kind == "bind" => {
                    let short = crate::facts::shorten(home, source);
                    // The same place written in another way is the same place.
                    let same = self.text(field).filter(|want| expand(home, want) == *source);
                    same.map_or(short, str::to_owned).into()
                }
                (Some((_, source, _)), "source") => (*source).into(),
                (Some((_, _, readonly)), "readonly") => (*readonly).into(),
                _ => Value::Null,
            };
            live.insert(field.clone(), is);
        }
    }

    fn capsule(&self, live: &mut Fields, host: &HostConfig) {
        let config = self.inspection.config.as_ref();
        let declared = |field: &str| self.recorded.contains_key(field);
        if self.recorded.get("argv").and_then(Value::as_array).is_some_and(|argv| !argv.is_empty()) {
            live.insert("argv".to_owned(), config.and_then(|c| c.cmd.clone()).into());
        }
        if let Some(folder) = config.and_then(|c| c.working_dir.as_deref()) {
            let same = self.text("workdir").filter(|want| want.trim_end_matches('/') == folder.trim_end_matches('/'));
            live.insert("workdir".to_owned(), same.unwrap_or(folder).into());
        }
        live.insert("user".to_owned(), config.and_then(|c| c.user.clone()).into());
        live.insert("read_only_root".to_owned(), host.readonly_rootfs.unwrap_or(false).into());

        let mut limit = |name: &str, is: Option<Value>| {
            let field = format!("limits.{name}");
            match is {
                Some(value) => {
                    live.insert(field, value);
                }
                None if self.recorded.contains_key(&field) => {
                    live.insert(field, Value::Null);
                }
                None => {}
            }
        };
        let positive = |value: Option<i64>| value.filter(|v| limited(*v)).map(Value::from);
        limit("memory", positive(host.memory));
        limit("memory_reservation", positive(host.memory_reservation));
        limit(
            "cpus",
            cpus(host).map(|is| match self.recorded.get("limits.cpus") {
                Some(want) if want.as_f64().map(cpu_quota) == Some(cpu_quota(is)) => want.clone(),
                _ => is.into(),
            }),
        );
        // Podman gives every container a limit of its own accord; so may the engine's defaults for open files.
        if !self.podman || declared("limits.pids") {
            limit("pids", positive(host.pids_limit));
        }
        if declared("limits.nofile") {
            let nofile = host.ulimits.iter().flatten().find(|u| u.name.as_deref() == Some("nofile"));
            limit("nofile", nofile.and_then(|u| u.soft).map(Value::from));
        }

        self.list(live, "tmpfs", host.tmpfs.iter().flatten().map(|(path, _)| path.clone()).collect());
        // Podman rewrites capabilities into what they amount to.
        if !self.podman {
            let bare = |cap: &String| cap.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
            live.insert("cap_drop_all".to_owned(), host.cap_drop.iter().flatten().any(|c| bare(c) == "ALL").into());
            self.list(live, "cap_add", host.cap_add.iter().flatten().map(bare).collect());
            let options = host.security_opt.as_deref().unwrap_or_default();
            let locked = ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"];
            live.insert("no_new_privileges".to_owned(), options.iter().any(|o| locked.contains(&o.as_str())).into());
        }
    }

    /// A list without order: the recorded one when both hold the same, else sorted; null when it is empty but declared.
    fn list(&self, live: &mut Fields, field: &str, is: BTreeSet<String>) {
        let want = self.recorded.get(field);
        let names = want.and_then(Value::as_array).map(|list| {
            list.iter().filter_map(Value::as_str).map(|s| s.trim_start_matches("CAP_").to_owned()).collect::<BTreeSet<String>>()
        });
        match (names, is.is_empty()) {
            (Some(names), _) if names == is => live.insert(field.to_owned(), want.cloned().unwrap_or_default()),
            (None, true) => None,
            (Some(_), true) => live.insert(field.to_owned(), Value::Null),
            (_, false) => live.insert(field.to_owned(), is.into_iter().collect::<Vec<_>>().into()),
        };
    }
}

/// Stands for "no limit" on the memory of a living container; memory and swap together must be more.
pub(super) const UNLIMITED: i64 = 1 << 62;
/// The highest number of whole pages.
pub(super) const SWAP_UNLIMITED: i64 = i64::MAX - 4095;

/// A limit that limits anything.
pub(super) fn limited(value: i64) -> bool {
    value > 0 && value < UNLIMITED
}

/// Microseconds over which a quota of CPU time counts; the kernel's own.
pub(super) const CPU_PERIOD: i64 = 100_000;

pub(super) fn cpu_quota(cpus: f64) -> i64 {
    (cpus * CPU_PERIOD as f64).round() as i64
}

pub(super) fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

/// The limit on CPUs, in whichever of Docker's two ways it was given.
pub(super) fn cpus(host: &HostConfig) -> Option<f64> {
    if let Some(nano) = host.nano_cpus.filter(|n| *n > 0) {
        return Some(nano as f64 / 1e9);
    }
    let period = host.cpu_period.filter(|p| *p > 0).unwrap_or(CPU_PERIOD);
    host.cpu_quota.filter(|q| *q > 0).map(|quota| quota as f64 / period as f64)
}

fn expand(home: &str, path: &str) -> String {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_owned(),
    }
}
