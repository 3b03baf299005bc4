//! A small honest world in memory: an engine, a disk and git that keep the real ones' rules, so that a test says what it did to
//! the world and what then exists, never which calls it expects.
//!
//! In: effects, and edits made behind jackin's back. Out: the same observation the live provider would make. Absent: scripted
//! replies, clock, randomness; ids are counted, so one history always gives one world.

use super::{Provider, StepError, Task};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::graph::{Graph, names};
use crate::observed::{Engine, Found, Loss, Observed, State, Stranger, pool};
use crate::plan::{Effect, Scope, minds_pool};
use crate::resource::{
    Address, Capsule, EnvEntry, Fields, Home, InstanceRecord, Kind, Limits, MountKind, MountSpec, Sidecar, Spec, fields, label, labels,
    sha256_hex,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// Where a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The nth effect from now on, counted from 1.
    Effect(usize),
    /// The step of this id, the next time it runs.
    Step(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused, nothing was done; it would pass on a second try.
    Transient,
    /// Refused, nothing was done.
    Before,
    /// Done, but the answer was lost.
    After,
    /// jackin dies before the effect; nothing runs until `revive`.
    KilledBefore,
    /// jackin dies in the middle of an effect that is more than one call.
    KilledHalfway,
    /// jackin dies after the effect.
    KilledAfter,
}

impl Fault {
    pub const ALL: [Fault; 6] =
        [Fault::Transient, Fault::Before, Fault::After, Fault::KilledBefore, Fault::KilledHalfway, Fault::KilledAfter];
}

pub struct World {
    inner: Mutex<Inner>,
}

impl Clone for World {
    fn clone(&self) -> Self {
        Self { inner: Mutex::new(self.lock().clone()) }
    }
}

#[derive(Clone)]
struct Inner {
    installation: String,
    /// Objects made so far; the source of ids.
    made: u64,
    effects: usize,
    mutations: usize,
    faults: Vec<(At, Fault)>,
    killed: bool,
    /// By tag.
    images: BTreeMap<String, Image>,
    /// By id: two may bear one name.
    networks: BTreeMap<String, Network>,
    /// By name.
    volumes: BTreeMap<String, Volume>,
    /// By id.
    containers: BTreeMap<String, Container>,
    /// By path, as all that lies on the disk.
    repos: BTreeMap<String, Repo>,
    programs: BTreeMap<String, Program>,
    homes: BTreeMap<String, HomeOnDisk>,
    checkouts: BTreeMap<String, CheckoutOnDisk>,
    /// The operator's own files and folders.
    operator: BTreeSet<String>,
}

type Labels = BTreeMap<String, String>;

#[derive(Clone)]
struct Image {
    id: String,
    labels: Labels,
    platform: Option<String>,
}

#[derive(Clone)]
struct Network {
    id: String,
    name: String,
    internal: bool,
    labels: Labels,
}

#[derive(Clone)]
struct Volume {
    name: String,
    labels: Labels,
    /// Id of the sidecar that put its client certificates here.
    certs_of: Option<String>,
}

#[derive(Clone)]
struct Container {
    id: String,
    name: String,
    labels: Labels,
    image_id: String,
    setup: Setup,
    /// Network name -> the id it had when this was attached. Kept while stopped, even when that network is gone.
    networks: BTreeMap<String, String>,
    state: State,
    /// The folders it saw when it started: bind source -> inode.
    binds: BTreeMap<String, u64>,
    /// What runs inside answers.
    ready: bool,
    /// It never will again.
    hung: bool,
    sessions: u32,
    /// A sidecar that has served: it holds images and volumes of its own.
    has_data: bool,
}

/// The part of a container that `inspect` shows, under the names of the spec.
#[derive(Clone, Default, Serialize)]
struct Setup {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    privileged: bool,
    env: BTreeMap<String, EnvEntry>,
    mounts: BTreeMap<String, MountSpec>,
    limits: Limits,
    cap_drop_all: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cap_add: Vec<String>,
    no_new_privileges: bool,
    read_only_root: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tmpfs: Vec<String>,
}

#[derive(Clone)]
struct Repo {
    url: String,
    commit: String,
}

#[derive(Clone)]
struct Program {
    digest: Option<String>,
    executable: bool,
}

#[derive(Clone)]
struct HomeOnDisk {
    /// Of the folder; another one under the same path has another number.
    inode: u64,
    sockets: String,
    /// What jackin wrote about it; absent when a run died before that.
    manifest: Option<Home>,
    /// What lies there, as fields.
    content: Fields,
}

#[derive(Clone)]
struct CheckoutOnDisk {
    inode: u64,
    address: Address,
    recorded: Fields,
    uncommitted: u32,
}

impl World {
    /// An engine and a disk with nothing on them but `operator`'s paths. `installation` is what jackin's labels will say.
    pub fn new(installation: &str, operator: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                installation: installation.to_owned(),
                made: 0,
                effects: 0,
                mutations: 0,
                faults: Vec::new(),
                killed: false,
                images: BTreeMap::new(),
                networks: BTreeMap::new(),
                volumes: BTreeMap::new(),
                containers: BTreeMap::new(),
                repos: BTreeMap::new(),
                programs: BTreeMap::new(),
                homes: BTreeMap::new(),
                checkouts: BTreeMap::new(),
                operator: operator.into_iter().map(Into::into).collect(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    // ---- breaks ----

    pub fn fail_at(&self, at: At, fault: Fault) {
        let mut world = self.lock();
        let at = match at {
            At::Effect(nth) => At::Effect(world.effects + nth),
            step => step,
        };
        world.faults.push((at, fault));
    }

    /// True once a `Killed` fault struck.
    pub fn killed(&self) -> bool {
        self.lock().killed
    }

    /// A new jackin is started; faults that did not strike are gone.
    pub fn revive(&self) {
        let mut world = self.lock();
        world.killed = false;
        world.faults.clear();
    }

    // ---- questions that tests ask ----

    /// Mutating calls so far.
    pub fn mutations(&self) -> usize {
        self.lock().mutations
    }

    /// Everything of ours, by address: the names it bears. Claimed kept objects count as their instance's.
    pub fn inventory(&self) -> BTreeMap<Address, Vec<String>> {
        let world = self.lock();
        let mut out: BTreeMap<Address, Vec<String>> = BTreeMap::new();
        let objects = (world.containers.values().map(|c| (c.kind(), &c.labels, &c.name)))
            .chain(world.networks.values().map(|n| (Kind::Network, &n.labels, &n.name)))
            .chain(world.volumes.values().map(|v| (Kind::Certs, &v.labels, &v.name)));
        for (kind, labels, name) in objects {
            if let Some(address) = world.owner(kind, labels, name) {
                out.entry(address).or_default().push(name.clone());
            }
        }
        for (path, home) in &world.homes {
            let instance = home.manifest.as_ref().map_or_else(|| format!("unknown/{path}"), |m| m.record.instance.clone());
            out.entry(Address::new(Kind::Home, instance)).or_default().push(path.clone());
        }
        for (path, checkout) in &world.checkouts {
            out.entry(checkout.address.clone()).or_default().push(path.clone());
        }
        out
    }

    /// All that is not ours, as text, to be compared before and after.
    pub fn strangers(&self) -> String {
        let world = self.lock();
        let mut out = String::new();
        for c in world.containers.values().filter(|c| !world.is_ours(&c.labels)) {
            out += &format!("container {} {} {:?} {:?}\n", c.id, c.name, c.state, c.networks);
        }
        for n in world.networks.values().filter(|n| !world.is_ours(&n.labels)) {
            out += &format!("network {} {}\n", n.id, n.name);
        }
        for v in world.volumes.values().filter(|v| !world.is_ours(&v.labels)) {
            out += &format!("volume {}\n", v.name);
        }
        out
    }

    /// What a person would complain about although every object exists.
    pub fn complaints(&self) -> Vec<String> {
        let world = self.lock();
        let mut out = Vec::new();
        for container in world.containers.values().filter(|c| world.is_ours(&c.labels)) {
            if world.is_held(container) {
                if container.state != State::Paused {
                    out.push(format!("the spare {} is {}", container.name, container.state.word()));
                }
            } else if container.state != State::Running {
                out.push(format!("{} is {}", container.name, container.state.word()));
            } else if let Err(why) = world.docker_works_in(container) {
                out.push(format!("Docker does not work in {}: {why}", container.name));
            }
            if let Some((source, _)) = container.binds.iter().find(|(source, inode)| world.inode(source) != Some(**inode)) {
                out.push(format!("{} sees {source} as it was before it was deleted", container.name));
            }
        }
        out
    }

    /// Time passes: whatever is coming up has come up.
    pub fn settle(&self) {
        let mut world = self.lock();
        let running: Vec<String> = world.containers.values().filter(|c| c.state == State::Running).map(|c| c.id.clone()).collect();
        for id in running {
            world.come_up(&id);
        }
    }

    /// The record in a home, as the graph builder reads it.
    pub fn record(&self, home: &str) -> Option<InstanceRecord> {
        Some(self.lock().homes.get(home)?.manifest.as_ref()?.record.clone())
    }

    /// Networks that a container of this name is, or was last, attached to.
    pub fn networks_of(&self, container: &str) -> Vec<String> {
        self.lock().by_name(container).networks.keys().cloned().collect()
    }

    /// Tags of images and paths of cached programs.
    pub fn artifacts(&self) -> (Vec<String>, Vec<String>) {
        let world = self.lock();
        (world.images.keys().cloned().collect(), world.programs.keys().cloned().collect())
    }

    // ---- edits behind jackin's back; a name that does not exist is a mistake of the test ----

    /// `docker stop`.
    pub fn stop(&self, container: &str) {
        self.lock().by_name(container).end(State::Exited { code: 143, oom: false });
    }

    /// The process died by itself.
    pub fn kill(&self, container: &str, code: i64, oom: bool) {
        self.lock().by_name(container).end(State::Exited { code, oom });
    }

    /// A state that Docker got into by itself, such as dead or restarting.
    pub fn set_state(&self, container: &str, state: State) {
        self.lock().by_name(container).end(state);
    }

    /// What runs inside is stuck.
    pub fn hang(&self, container: &str) {
        let mut world = self.lock();
        let container = world.by_name(container);
        (container.hung, container.ready) = (true, false);
    }

    pub fn pause(&self, container: &str) {
        self.lock().by_name(container).state = State::Paused;
    }

    pub fn unpause(&self, container: &str) {
        self.lock().by_name(container).state = State::Running;
    }

    /// `docker rm -f`.
    pub fn remove(&self, container: &str) {
        let mut world = self.lock();
        let id = world.by_name(container).id.clone();
        world.containers.remove(&id);
    }

    pub fn rename(&self, container: &str, to: &str) {
        to.clone_into(&mut self.lock().by_name(container).name);
    }

    /// `docker update --memory`.
    pub fn update_memory(&self, container: &str, bytes: i64) {
        self.lock().by_name(container).setup.limits.memory = Some(bytes);
    }

    pub fn disconnect(&self, container: &str, network: &str) {
        assert!(self.lock().by_name(container).networks.remove(network).is_some(), "{container} is not attached to {network}");
    }

    /// Refused while something that runs is attached.
    pub fn remove_network(&self, network: &str) -> Result<(), String> {
        let mut world = self.lock();
        let id = world.networks.values().find(|n| n.name == network).expect("such a network").id.clone();
        world.remove_network(&id).map_err(|e| e.diagnostic.detail)
    }

    /// Refused while a container mounts it.
    pub fn remove_volume(&self, volume: &str) -> Result<(), String> {
        self.lock().remove_volume(volume).map_err(|e| e.diagnostic.detail)
    }

    /// A second network with the same name and labels, as an older engine allows.
    pub fn duplicate_network(&self, network: &str) {
        let mut world = self.lock();
        let mut copy = world.networks.values().find(|n| n.name == network).expect("such a network").clone();
        copy.id = world.next_id();
        world.networks.insert(copy.id.clone(), copy);
    }

    /// A second container with the same labels and setup under another name, running.
    pub fn duplicate_container(&self, container: &str, name: &str) {
        let mut world = self.lock();
        let mut copy = world.by_name(container).clone();
        copy.id = world.next_id();
        name.clone_into(&mut copy.name);
        world.containers.insert(copy.id.clone(), copy);
    }

    /// Something under this name that is not ours; `kind` is network, certs, sidecar or capsule. `installation`: made by another
    /// jackin, else by no jackin at all.
    pub fn add_stranger(&self, kind: Kind, name: &str, installation: Option<&str>) {
        let mut world = self.lock();
        let labels: Labels = installation
            .map(|i| {
                Labels::from([
                    (label::MANAGED.to_owned(), "true".to_owned()),
                    (label::INSTALLATION.to_owned(), i.to_owned()),
                    (label::ADDRESS.to_owned(), format!("{kind}/theirs/one")),
                ])
            })
            .unwrap_or_default();
        let id = world.next_id();
        let name = name.to_owned();
        match kind {
            Kind::Network => {
                world.networks.insert(id.clone(), Network { id, name, internal: false, labels });
            }
            Kind::Certs => {
                world.volumes.insert(name.clone(), Volume { name, labels, certs_of: None });
            }
            _ => {
                world.containers.insert(
                    id.clone(),
                    Container {
                        id,
                        name,
                        labels,
                        image_id: "sha256:theirs".to_owned(),
                        setup: Setup::default(),
                        networks: BTreeMap::new(),
                        state: State::Running,
                        binds: BTreeMap::new(),
                        ready: true,
                        hung: false,
                        sessions: 0,
                        has_data: false,
                    },
                );
            }
        }
    }

    /// As if a jackin from before that label had made it.
    pub fn strip_spec_label(&self, container: &str) {
        self.lock().by_name(container).labels.remove(label::SPEC);
    }

    /// The tag now names another image, without labels.
    pub fn retag_image(&self, reference: &str) {
        let mut world = self.lock();
        let id = format!("sha256:{}", world.next_id());
        let image = world.images.get_mut(reference).expect("such an image");
        image.id = id;
        image.labels.clear();
    }

    pub fn remove_image(&self, reference: &str) {
        assert!(self.lock().images.remove(reference).is_some(), "no image {reference}");
    }

    pub fn drop_run_bit(&self, path: &str) {
        self.lock().programs.get_mut(path).expect("such a program").executable = false;
    }

    pub fn corrupt_program(&self, path: &str) {
        self.lock().programs.get_mut(path).expect("such a program").digest = Some("0".repeat(64));
    }

    pub fn delete_program(&self, path: &str) {
        assert!(self.lock().programs.remove(path).is_some(), "no program {path}");
    }

    /// Somebody checked another commit out in the role cache.
    pub fn move_repo(&self, path: &str, commit: &str) {
        commit.clone_into(&mut self.lock().repos.get_mut(path).expect("such a clone").commit);
    }

    /// The file that holds this field, such as `agent_toml` or `auth.claude.files`. False when it was gone before.
    pub fn delete_home_file(&self, home: &str, field: &str) -> bool {
        let mut world = self.lock();
        let content = &mut world.homes.get_mut(home).expect("such a home").content;
        let before = content.len();
        content.retain(|name, _| name != field && !name.starts_with(&format!("{field}.")));
        content.len() < before
    }

    pub fn delete_home_manifest(&self, home: &str) {
        self.lock().homes.get_mut(home).expect("such a home").manifest = None;
    }

    /// The whole folder, sockets included.
    pub fn delete_home(&self, home: &str) {
        assert!(self.lock().homes.remove(home).is_some(), "no home {home}");
    }

    pub fn delete_checkout(&self, path: &str) {
        assert!(self.lock().checkouts.remove(path).is_some(), "no checkout {path}");
    }

    pub fn dirty_checkout(&self, path: &str, files: u32) {
        self.lock().checkouts.get_mut(path).expect("such a checkout").uncommitted = files;
    }

    /// What `prewarm` leaves behind: a running sidecar with its network and certificate volume, claimed by nobody.
    pub fn add_kept_sidecar(&self, sidecar: &Sidecar) {
        let mut world = self.lock();
        let id = names::pool_id(Kind::Sidecar, &sidecar.name).expect("the name of a kept sidecar").to_owned();
        let volume = volumes_of(&sidecar.mounts).next().expect("a sidecar has a certificate volume").to_owned();
        let parts = [
            Spec::Network(crate::resource::Network { name: sidecar.network.clone(), internal: false, owner: sidecar.owner.clone() }),
            Spec::Certs(crate::resource::Certs { name: volume, owner: sidecar.owner.clone() }),
            Spec::Sidecar(sidecar.clone()),
        ];
        for spec in parts {
            let bears = labels(&Address::pool(spec.kind(), &id), &spec, &world.installation);
            match &spec {
                Spec::Network(spec) => world.create_network(spec, bears),
                Spec::Certs(spec) => world.create_volume(&spec.name, bears),
                spec => world.create_container(spec, bears),
            }
            .expect("room for a kept sidecar");
        }
        world.start(&sidecar.name).expect("a kept sidecar starts");
        let id = world.by_name(&sidecar.name).id.clone();
        world.come_up(&id);
    }
}

impl Container {
    fn end(&mut self, state: State) {
        self.state = state;
        self.ready = false;
        self.sessions = 0;
    }

    /// A kept one is always a sidecar.
    fn kind(&self) -> Kind {
        address_of(&self.labels).map_or(if is_kept(&self.labels) { Kind::Sidecar } else { Kind::Capsule }, |address| address.kind)
    }

    fn runs(&self) -> bool {
        matches!(self.state, State::Running | State::Paused | State::Restarting)
    }
}

fn address_of(labels: &Labels) -> Option<Address> {
    labels.get(label::ADDRESS)?.parse().ok()
}

fn volumes_of(mounts: &BTreeMap<String, MountSpec>) -> impl Iterator<Item = &str> {
    mounts.values().filter(|m| m.kind == MountKind::Volume).map(|m| m.source.as_str())
}

fn refuse(code: &str, detail: impl Into<String>) -> StepError {
    Diagnostic::error(code, "The engine refused", detail).into()
}

// ---- the engine's and the disk's rules ----

impl Inner {
    fn next_id(&mut self) -> String {
        self.made += 1;
        sha256_hex(self.made.to_string())
    }

    fn next_inode(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn by_name(&mut self, name: &str) -> &mut Container {
        self.containers.values_mut().find(|c| c.name == name).unwrap_or_else(|| panic!("no container {name}"))
    }

    fn is_ours(&self, labels: &Labels) -> bool {
        labels.get(label::MANAGED).is_some_and(|v| v == "true") && labels.get(label::INSTALLATION) == Some(&self.installation)
    }

    /// The instance whose record names this kept object.
    fn claimed_by(&self, kind: Kind, name: &str) -> Option<&Home> {
        self.homes.values().filter_map(|h| h.manifest.as_ref()).find(|home| {
            let record = &home.record;
            let named = match kind {
                Kind::Network => &record.network,
                Kind::Certs => &record.certs_volume,
                Kind::Sidecar => &record.dind_container,
                _ => &None,
            };
            named.as_deref() == Some(name)
        })
    }

    /// The address an object of ours belongs to: of the instance that claimed it, else the one on its label.
    fn owner(&self, kind: Kind, labels: &Labels, name: &str) -> Option<Address> {
        if !self.is_ours(labels) {
            return None;
        }
        match (is_kept(labels), self.claimed_by(kind, name)) {
            (false, _) => address_of(labels),
            (true, Some(home)) => Some(Address::new(kind, &home.record.instance)),
            (true, None) => Some(Address::pool(kind, &kept_id(kind, labels, name)?)),
        }
    }

    /// The one network of this name; the engine refuses to choose between two.
    fn network_id(&self, name: &str) -> Result<String, StepError> {
        let mut found = self.networks.values().filter(|n| n.name == name);
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network.id.clone()),
            (None, _) => Err(refuse("docker.not_found", format!("network {name} not found"))),
            (Some(_), Some(_)) => Err(refuse("docker.ambiguous", format!("network {name} is ambiguous"))),
        }
    }

    fn create_network(&mut self, spec: &crate::resource::Network, labels: Labels) -> Result<(), StepError> {
        if let Some(existing) = self.networks.values().find(|n| n.name == spec.name) {
            return already(&existing.labels, &labels, &format!("network {}", spec.name));
        }
        let id = self.next_id();
        self.networks.insert(id.clone(), Network { id, name: spec.name.clone(), internal: spec.internal, labels });
        Ok(())
    }

    fn remove_network(&mut self, id: &str) -> Result<(), StepError> {
        if let Some(user) = self.containers.values().find(|c| c.runs() && c.networks.values().any(|n| n == id)) {
            return Err(refuse("docker.in_use", format!("network {id} has active endpoints: {}", user.name)));
        }
        self.networks.remove(id);
        Ok(())
    }

    fn create_volume(&mut self, name: &str, labels: Labels) -> Result<(), StepError> {
        if let Some(existing) = self.volumes.get(name) {
            return already(&existing.labels, &labels, &format!("volume {name}"));
        }
        self.volumes.insert(name.to_owned(), Volume { name: name.to_owned(), labels, certs_of: None });
        Ok(())
    }

    fn remove_volume(&mut self, name: &str) -> Result<(), StepError> {
        if let Some(user) = self.containers.values().find(|c| volumes_of(&c.setup.mounts).any(|v| v == name)) {
            return Err(refuse("docker.in_use", format!("volume {name} is in use by {}", user.name)));
        }
        self.volumes.remove(name);
        Ok(())
    }

    fn create_container(&mut self, spec: &Spec, labels: Labels) -> Result<(), StepError> {
        let (name, network, setup) = match spec {
            Spec::Sidecar(spec) => (&spec.name, &spec.network, sidecar_setup(spec)),
            Spec::Capsule(spec) => (&spec.name, &spec.network, capsule_setup(spec)),
            _ => return Err(refuse("docker.invalid", "not a container")),
        };
        if let Some(existing) = self.containers.values().find(|c| c.name == *name) {
            return already(&existing.labels, &labels, &format!("container {name}"));
        }
        let Some(image) = self.images.get(&setup.image) else {
            return Err(refuse("docker.not_found", format!("no such image: {}", setup.image)));
        };
        let image_id = image.id.clone();
        let networks = match network.as_str() {
            "none" => BTreeMap::new(),
            network => BTreeMap::from([(network.to_owned(), self.network_id(network)?)]),
        };
        // The engine would make a missing volume, nameless and ours no more; a plan that relies on that is wrong.
        if let Some(missing) = volumes_of(&setup.mounts).find(|v| !self.volumes.contains_key(*v)) {
            return Err(refuse("docker.not_found", format!("volume {missing} not found")));
        }
        let id = self.next_id();
        let container = Container {
            id: id.clone(),
            name: name.clone(),
            labels,
            image_id,
            setup,
            networks,
            state: State::Created,
            binds: BTreeMap::new(),
            ready: false,
            hung: false,
            sessions: 0,
            has_data: false,
        };
        self.containers.insert(id, container);
        Ok(())
    }

    fn start(&mut self, name: &str) -> Result<(), StepError> {
        let Some(container) = self.containers.values().find(|c| c.name == name) else {
            return Err(refuse("docker.not_found", format!("no such container: {name}")));
        };
        match container.state {
            State::Running => return Ok(()),
            State::Created | State::Exited { .. } => {}
            _ => {
                return Err(refuse("docker.conflict", format!("{name} is {}", container.state.word())));
            }
        }
        if let Some((network, id)) = container.networks.iter().find(|(_, id)| !self.networks.contains_key(*id)) {
            return Err(refuse("docker.not_found", format!("network {network} ({id}) not found")));
        }
        let mut binds = BTreeMap::new();
        for mount in container.setup.mounts.values().filter(|m| m.kind == MountKind::Bind) {
            let source = &mount.source;
            let inode = self.inode(source).ok_or_else(|| refuse("docker.invalid", format!("bind source path does not exist: {source}")))?;
            binds.insert(source.clone(), inode);
        }
        let id = container.id.clone();
        let container = self.containers.get_mut(&id).expect("just found");
        container.state = State::Running;
        container.hung = false;
        container.binds = binds;
        Ok(())
    }

    /// Which folder lies at, or above, this path now; the operator's own never change.
    fn inode(&self, path: &str) -> Option<u64> {
        let inside = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        let checkout = self.checkouts.iter().find(|(p, _)| inside(p)).map(|(_, c)| c.inode);
        let home = || self.homes.iter().find(|(p, home)| inside(p) || inside(&home.sockets)).map(|(_, h)| h.inode);
        let operator = || self.operator.iter().any(|p| inside(p)).then_some(0);
        checkout.or_else(home).or_else(operator)
    }

    /// What runs inside has come up: a sidecar has handed its certificates over, a capsule has a session.
    fn come_up(&mut self, id: &str) {
        let held = self.is_held(&self.containers[id]);
        let container = self.containers.get_mut(id).expect("just found");
        if container.kind() == Kind::Capsule {
            container.sessions = if held { 0 } else { container.sessions.max(1) };
        }
        if container.ready || container.hung {
            return;
        }
        container.ready = true;
        if container.kind() == Kind::Sidecar {
            container.has_data = true;
            let volumes: Vec<String> = volumes_of(&container.setup.mounts).map(str::to_owned).collect();
            for volume in volumes {
                self.volumes.get_mut(&volume).expect("BUG: a mounted volume cannot be removed").certs_of = Some(id.to_owned());
            }
        }
    }

    /// Of an instance whose home holds its agent back.
    fn is_held(&self, container: &Container) -> bool {
        let instance = self.owner(container.kind(), &container.labels, &container.name);
        let homes = self.homes.values().filter_map(|home| home.manifest.as_ref()).filter(|home| home.agent_toml.hold);
        instance
            .and_then(|address| address.instance().map(str::to_owned))
            .is_some_and(|key| homes.into_iter().any(|home| home.record.instance == key))
    }

    /// A container whose environment names a Docker can use it: it runs, answers, shares a network and its certificates fit.
    fn docker_works_in(&self, container: &Container) -> Result<(), String> {
        let Some(EnvEntry::Plain(host)) = container.setup.env.get("DOCKER_HOST") else {
            return Ok(());
        };
        let name = host.trim_start_matches("tcp://").split(':').next().unwrap_or_default();
        let sidecar = self.containers.values().find(|c| c.name == name).ok_or_else(|| format!("there is no {name}"))?;
        if sidecar.state != State::Running || !sidecar.ready {
            return Err(format!("{name} does not answer"));
        }
        if !container.networks.values().any(|id| sidecar.networks.values().any(|other| other == id)) {
            return Err(format!("{name} is on another network"));
        }
        let fits = |volume: &str| self.volumes.get(volume).is_some_and(|v| v.certs_of.as_deref() == Some(&sidecar.id));
        if !volumes_of(&container.setup.mounts).any(fits) {
            return Err(format!("the certificates of {name} are not mounted"));
        }
        Ok(())
    }

    fn build(&mut self, address: &Address, spec: &Spec) -> Result<(), StepError> {
        let present = |reference: &str| match self.images.contains_key(reference) {
            true => Ok(()),
            false => Err(refuse("docker.build", format!("FROM {reference}: no such image"))),
        };
        let reference = match spec {
            Spec::RoleImage(spec) => {
                present(&spec.construct_image)?;
                if !self.repos.values().any(|r| r.commit.starts_with(&spec.role_git_sha)) {
                    return Err(refuse("docker.build", format!("no clone of {} at {}", spec.role, spec.role_git_sha)));
                }
                &spec.reference
            }
            Spec::DerivedImage(spec) => {
                present(&spec.base)?;
                for digest in spec.recipe.agent_binaries.values().chain([&spec.recipe.capsule_digest]) {
                    if !self.programs.values().any(|p| p.digest.as_ref() == Some(digest) && p.executable) {
                        return Err(refuse("docker.build", format!("no program with digest {digest} that can run")));
                    }
                }
                &spec.reference
            }
            _ => return Err(refuse("docker.invalid", "not a build")),
        };
        let reference = reference.clone();
        let labels = labels(address, spec, &self.installation);
        let id = format!("sha256:{}", self.next_id());
        self.images.insert(reference, Image { id, labels, platform: None });
        Ok(())
    }

    fn write_home(&mut self, spec: &Home, halfway: bool) {
        let mut content = fields(spec);
        // Names and origins lie in the manifest, not beside it.
        content.retain(|name, _| !name.starts_with("record."));
        let manifest = if halfway { self.homes.get(&spec.path).and_then(|h| h.manifest.clone()) } else { Some(spec.clone()) };
        if halfway {
            content.retain(|name, _| name == "directories" || name == "path" || name == "sockets");
        }
        let inode = self.homes.get(&spec.path).map(|h| h.inode).unwrap_or_else(|| self.next_inode());
        self.homes.insert(spec.path.clone(), HomeOnDisk { inode, sockets: spec.sockets.clone(), manifest, content });
    }

    fn carry_out(&mut self, task: &Task, halfway: bool) -> Result<(), StepError> {
        let address = &task.step.address;
        let spec = || task.spec.as_ref().ok_or_else(|| refuse("step.invalid", format!("{} comes without a spec", task.step.id)));
        match &task.step.effect {
            Effect::CheckOut => {
                let Spec::RoleRepo(spec) = spec()? else {
                    return Err(wrong(task));
                };
                self.repos.insert(spec.path.clone(), Repo { url: spec.url.clone(), commit: spec.commit.clone() });
            }
            Effect::Download => {
                let (Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec)) = spec()? else {
                    return Err(wrong(task));
                };
                let path = spec.path.clone().ok_or_else(|| refuse("step.invalid", "a download needs a path"))?;
                self.programs.insert(path, Program { digest: spec.digest.clone(), executable: true });
            }
            Effect::RepairBinary => {
                let path = spec()?.object_name();
                let program = self.programs.get_mut(path).ok_or_else(|| refuse("host.not_found", format!("no file {path}")))?;
                program.executable = true;
            }
            Effect::Pull => {
                let Spec::Image(spec) = spec()? else {
                    return Err(wrong(task));
                };
                let id = format!("sha256:{}", sha256_hex(&spec.reference));
                let platform = Some(spec.platform.clone());
                self.images.insert(spec.reference.clone(), Image { id, labels: Labels::new(), platform });
            }
            Effect::Build => self.build(address, spec()?)?,
            Effect::WriteHome => match spec()? {
                Spec::Home(spec) => self.write_home(spec, halfway),
                Spec::Checkout(checkout) => {
                    if self.inode(&checkout.repo).is_none() {
                        return Err(refuse("git.not_found", format!("no repository {}", checkout.repo)));
                    }
                    let recorded = fields(checkout);
                    // What an agent did in it is kept.
                    let uncommitted = self.checkouts.get(&checkout.path).map_or(0, |c| c.uncommitted);
                    let inode = self.checkouts.get(&checkout.path).map(|c| c.inode).unwrap_or_else(|| self.next_inode());
                    let written = CheckoutOnDisk { inode, address: address.clone(), recorded, uncommitted };
                    self.checkouts.insert(checkout.path.clone(), written);
                }
                _ => return Err(wrong(task)),
            },
            Effect::RemoveHome { path } => {
                self.homes.remove(path);
                self.checkouts.remove(path);
            }
            Effect::CreateNetwork => {
                let Spec::Network(network) = spec()? else {
                    return Err(wrong(task));
                };
                self.create_network(network, labels(address, spec()?, &self.installation))?;
            }
            Effect::RemoveNetwork { id } => {
                let named = self.networks.values().find(|n| n.name == *id).map_or(id, |n| &n.id).clone();
                self.remove_network(&named)?;
            }
            Effect::CreateVolume => {
                let Spec::Certs(certs) = spec()? else {
                    return Err(wrong(task));
                };
                self.create_volume(&certs.name, labels(address, spec()?, &self.installation))?;
            }
            Effect::RemoveVolume { name } => self.remove_volume(name)?,
            Effect::CreateContainer => self.create_container(spec()?, labels(address, spec()?, &self.installation))?,
            Effect::StartContainer { name } => self.start(name)?,
            Effect::UnpauseContainer { id } => {
                let container = self.container(id)?;
                match container.state {
                    State::Paused => container.state = State::Running,
                    State::Running => {}
                    _ => {
                        return Err(refuse("docker.conflict", format!("{} is {}", container.name, container.state.word())));
                    }
                }
            }
            Effect::PauseContainer { name } => {
                let Some(container) = self.containers.values_mut().find(|c| c.name == *name) else {
                    return Err(refuse("docker.not_found", format!("no such container: {name}")));
                };
                match container.state {
                    State::Running | State::Paused => container.state = State::Paused,
                    _ => return Err(refuse("docker.conflict", format!("{name} is {}", container.state.word()))),
                }
            }
            Effect::AwaitReady => {
                let name = spec()?.object_name();
                let found = self.containers.values().find(|c| c.name == name);
                match found.map(|c| (&c.state, &c.id)) {
                    Some((State::Running, _)) => self.answers(name)?,
                    Some((state, _)) => {
                        return Err(refuse("docker.not_ready", format!("{name} is {}", state.word())));
                    }
                    None => {
                        return Err(refuse("docker.not_found", format!("no such container: {name}")));
                    }
                }
            }
            Effect::RenameContainer { id, to } => {
                if self.containers.values().any(|c| c.name == *to && c.id != *id) {
                    return Err(refuse("docker.conflict", format!("the name {to} is taken")));
                }
                to.clone_into(&mut self.container(id)?.name);
            }
            Effect::ConnectNetwork { id, network } => {
                let network_id = self.network_id(network)?;
                // Attaching anew under a name that it already bears changes nothing, not even when that network is gone.
                self.container(id)?.networks.entry(network.clone()).or_insert(network_id);
            }
            Effect::LimitContainer { id } => {
                let Spec::Capsule(spec) = spec()? else {
                    return Err(wrong(task));
                };
                let limits = &mut self.container(id)?.setup.limits;
                if spec.limits.cpus.is_none() && limits.cpus.is_some() {
                    return Err(refuse("docker.limit_stays", "a CPU limit cannot be lifted from a living container"));
                }
                // The number of open files is fixed when a container is made.
                *limits = Limits { nofile: limits.nofile, ..spec.limits.clone() };
            }
            // The engine takes a name for an id.
            Effect::RemoveContainer { id } => self.containers.retain(|_, c| c.id != *id && c.name != *id),
            Effect::Claim { name } => {
                let there = match address.kind {
                    Kind::Network => self.networks.values().any(|n| n.name == *name),
                    Kind::Certs => self.volumes.contains_key(name),
                    _ => self.containers.values().any(|c| c.name == *name && c.state == State::Running),
                };
                if !there {
                    return Err(refuse("docker.not_found", format!("the kept {name} is gone")));
                }
                if address.kind == Kind::Sidecar {
                    self.answers(name)?;
                }
                // The record is the claim; without it another instance could take the same thing.
                if self.claimed_by(address.kind, name).is_none_or(|home| Some(home.record.instance.as_str()) != address.instance()) {
                    return Err(refuse("step.invalid", format!("no record names {name}")));
                }
            }
        }
        Ok(())
    }

    /// Waits until what runs in it answers.
    fn answers(&mut self, name: &str) -> Result<(), StepError> {
        let id = self.by_name(name).id.clone();
        self.come_up(&id);
        if self.container(&id)?.hung { Err(refuse("docker.not_ready", format!("{name} does not answer"))) } else { Ok(()) }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, StepError> {
        self.containers.get_mut(id).ok_or_else(|| refuse("docker.not_found", format!("no such container: {id}")))
    }
}

fn is_kept(labels: &Labels) -> bool {
    labels.get(label::KIND).is_some_and(|k| k == label::KEPT)
}

/// By the name it was given; somebody may have renamed it.
fn kept_id(kind: Kind, labels: &Labels, name: &str) -> Option<String> {
    let given = recorded(labels).and_then(|fields| fields.get("name")?.as_str().map(str::to_owned));
    names::pool_id(kind, given.as_deref().unwrap_or(name)).map(str::to_owned)
}

fn wrong(task: &Task) -> StepError {
    refuse("step.invalid", format!("{} does not fit its spec", task.step.id))
}

/// A name that is taken: by what was to be made (a killed run came this far), or by something else.
fn already(existing: &Labels, wanted: &Labels, what: &str) -> Result<(), StepError> {
    let same = |name: &str| existing.get(name) == wanted.get(name);
    if existing.contains_key(label::FINGERPRINT) && [label::INSTALLATION, label::ADDRESS, label::FINGERPRINT].into_iter().all(same) {
        return Ok(());
    }
    Err(refuse("docker.conflict", format!("the name of {what} is taken")))
}

fn sidecar_setup(spec: &Sidecar) -> Setup {
    Setup { image: spec.image.clone(), privileged: spec.privileged, env: spec.env.clone(), mounts: spec.mounts.clone(), ..Setup::default() }
}

fn capsule_setup(spec: &Capsule) -> Setup {
    Setup {
        image: spec.image.clone(),
        argv: Some(spec.argv.clone()),
        workdir: Some(spec.workdir.clone()),
        user: Some(spec.user.clone()),
        privileged: false,
        env: spec.env.clone(),
        mounts: spec.mounts.clone(),
        limits: spec.limits.clone(),
        cap_drop_all: spec.cap_drop_all,
        cap_add: spec.cap_add.clone(),
        no_new_privileges: spec.no_new_privileges,
        read_only_root: spec.read_only_root,
        tmpfs: spec.tmpfs.clone(),
    }
}

// ---- looking ----

impl Inner {
    fn look(&self, graph: &Graph, scope: &Scope) -> Observed {
        let mut observed = Observed { engine: Some(Engine { api_version: "1.41".to_owned(), arch: None }), ..Observed::empty() };
        let mut put = |address: Address, found: Found| observed.resources.entry(address).or_default().push(found);
        for (address, resource) in &graph.resources {
            if let Some(found) = self.look_at_artifact(&resource.spec) {
                put(address.clone(), found);
            }
        }

        let wanted: BTreeMap<&str, &Address> =
            graph.resources.iter().filter(|(a, _)| a.kind == Kind::Home).map(|(a, r)| (r.spec.object_name(), a)).collect();
        for (path, home) in &self.homes {
            let own = home.manifest.as_ref().map(|m| Address::new(Kind::Home, &m.record.instance));
            let Some(address) = wanted.get(path.as_str()).map(|a| (*a).clone()).or(own) else {
                continue;
            };
            if in_scope(graph, scope, &address) {
                put(address, found_home(path, home));
            }
        }
        for (path, checkout) in &self.checkouts {
            if in_scope(graph, scope, &checkout.address) {
                let loss = Loss { uncommitted_files: Some(checkout.uncommitted), ..Loss::default() };
                let live = Fields::from([("path".to_owned(), path.clone().into())]);
                let recorded = Some(checkout.recorded.clone());
                put(checkout.address.clone(), Found { loss, ..Found::present(path, path, recorded, live) });
            }
        }

        let mut kept: Vec<(String, Kind, Found)> = Vec::new();
        let mut foreign: Vec<(&[Kind], Stranger)> = Vec::new();
        let mut sort = |kinds: &'static [Kind], kind: Kind, labels: &Labels, found: Found| {
            let name = found.name.clone();
            let Some(address) = self.owner(kind, labels, &name) else {
                let why = if labels.contains_key(label::MANAGED) { "another jackin home made it" } else { "it has no jackin label" };
                foreign.push((kinds, Stranger { id: found.id, name, why: why.to_owned() }));
                return;
            };
            if let Some(id) = address.pool_id() {
                kept.push((id.to_owned(), kind, found));
            } else if in_scope(graph, scope, &address) {
                put(address, found);
            }
        };
        for network in self.networks.values() {
            sort(&[Kind::Network], Kind::Network, &network.labels, self.found_network(network));
        }
        for volume in self.volumes.values() {
            sort(&[Kind::Certs], Kind::Certs, &volume.labels, self.found_volume(volume));
        }
        for container in self.containers.values() {
            sort(&[Kind::Sidecar, Kind::Capsule], container.kind(), &container.labels, self.found_container(container));
        }

        let mut names: BTreeMap<(Kind, &str), &Address> = BTreeMap::new();
        for (address, resource) in graph.resources.iter().filter(|(a, _)| a.kind.per_instance()) {
            names.insert((address.kind, resource.spec.object_name()), address);
        }
        for (kinds, stranger) in foreign {
            for address in kinds.iter().filter_map(|kind| names.get(&(*kind, stranger.name.as_str()))) {
                observed.strangers.insert((*address).clone(), stranger.clone());
            }
        }
        if minds_pool(graph, &observed) {
            let silent = |found: &Found| self.containers.get(&found.id).is_some_and(|c| c.state == State::Running && !c.ready);
            kept.iter_mut().filter(|(_, _, found)| silent(found)).for_each(|(_, _, found)| found.state = State::Silent);
        }
        observed.pool = pool(kept);
        observed
    }

    fn look_at_artifact(&self, spec: &Spec) -> Option<Found> {
        match spec {
            Spec::RoleRepo(spec) => {
                let repo = self.repos.get(&spec.path)?;
                let live = [("url", &repo.url), ("commit", &repo.commit)].map(|(name, value)| (name.to_owned(), value.clone().into()));
                Some(Found::present(&spec.path, &spec.path, None, Fields::from(live)))
            }
            Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) => {
                let path = spec.path.as_ref()?;
                let program = self.programs.get(path)?;
                let digest = program.digest.clone().map_or(Value::Null, Value::String);
                let live = Fields::from([("digest".to_owned(), digest), ("executable".to_owned(), program.executable.into())]);
                Some(Found::present(path, path, None, live))
            }
            Spec::Image(_) | Spec::RoleImage(_) | Spec::DerivedImage(_) => {
                let reference = spec.object_name();
                let image = self.images.get(reference)?;
                let mut live = Fields::from([("reference".to_owned(), reference.into())]);
                if let Some(platform) = &image.platform {
                    live.insert("platform".to_owned(), platform.clone().into());
                }
                Some(Found::present(&image.id, reference, recorded(&image.labels), live))
            }
            Spec::Checkout(_) | Spec::Home(_) | Spec::Network(_) | Spec::Certs(_) | Spec::Sidecar(_) | Spec::Capsule(_) => None,
        }
    }

    /// What the label says, with the owner that claimed it: labels cannot be rewritten.
    fn recorded_of(&self, kind: Kind, labels: &Labels, name: &str) -> Option<Fields> {
        let mut recorded = recorded(labels)?;
        if is_kept(labels)
            && let Some(home) = self.claimed_by(kind, name)
        {
            recorded.insert("owner".to_owned(), home.record.role_container.clone().into());
        }
        Some(recorded)
    }

    fn found_network(&self, network: &Network) -> Found {
        let live = Fields::from([("name".to_owned(), network.name.clone().into()), ("internal".to_owned(), network.internal.into())]);
        let in_use = self.containers.values().any(|c| c.networks.values().any(|id| *id == network.id));
        Found {
            in_use,
            ..Found::present(&network.id, &network.name, self.recorded_of(Kind::Network, &network.labels, &network.name), live)
        }
    }

    fn found_volume(&self, volume: &Volume) -> Found {
        let live = Fields::from([("name".to_owned(), volume.name.clone().into())]);
        let in_use = self.containers.values().any(|c| volumes_of(&c.setup.mounts).any(|v| v == volume.name));
        Found { in_use, ..Found::present(&volume.name, &volume.name, self.recorded_of(Kind::Certs, &volume.labels, &volume.name), live) }
    }

    fn found_container(&self, container: &Container) -> Found {
        let kind = container.kind();
        let recorded = self.recorded_of(kind, &container.labels, &container.name);
        let running = container.state == State::Running;
        let loss = Loss {
            sessions: (kind == Kind::Capsule && running).then_some(container.sessions),
            sessions_unknown: kind == Kind::Capsule && container.state == State::Paused,
            docker_data: container.has_data,
            ..Loss::default()
        };
        Found {
            state: container.state.clone(),
            loss,
            image_id: Some(container.image_id.clone()),
            ..Found::present(&container.id, &container.name, recorded.clone(), self.live_of(container, recorded.as_ref()))
        }
    }

    fn live_of(&self, container: &Container, recorded: Option<&Fields>) -> Fields {
        let mut live = fields(&container.setup);
        // Where a value came from cannot be seen on the value.
        live.retain(|name, _| !(name.starts_with("env.") && name.ends_with(".from")));
        live.insert("name".to_owned(), container.name.clone().into());
        let declared = recorded.and_then(|r| r.get("network")).and_then(Value::as_str);
        let attached = |name: &str| container.networks.get(name).is_some_and(|id| self.networks.contains_key(id));
        let network = match declared {
            Some(name) if attached(name) => Value::from(name),
            _ => match container.networks.keys().find(|name| attached(name)) {
                Some(name) => name.as_str().into(),
                None if container.networks.is_empty() && declared == Some("none") => "none".into(),
                None => Value::Null,
            },
        };
        live.insert("network".to_owned(), network);
        if let Some(recorded) = recorded {
            // Declared and looked for, but not there.
            let could_be_seen = |name: &str| {
                (name.starts_with("env.") && !name.ends_with(".from"))
                    || ["mounts.", "limits."].iter().any(|p| name.starts_with(p))
                    || ["cap_add", "tmpfs"].contains(&name)
            };
            for name in recorded.keys().filter(|n| could_be_seen(n)) {
                live.entry(name.clone()).or_insert(Value::Null);
            }
            // What the other kind of container has is no field of this one; a capsule may be given limits that it was not made with.
            let capsule = container.kind() == Kind::Capsule;
            live.retain(|name, _| recorded.contains_key(name) || (capsule && name.starts_with("limits.")));
        }
        live
    }
}

fn found_home(path: &str, home: &HomeOnDisk) -> Found {
    let recorded = home.manifest.as_ref().map(fields);
    let mut live = home.content.clone();
    for name in recorded.iter().flat_map(Fields::keys).filter(|n| !n.starts_with("record.")) {
        live.entry(name.clone()).or_insert(Value::Null);
    }
    Found::present(path, path, recorded, live)
}

fn recorded(labels: &Labels) -> Option<Fields> {
    serde_json::from_str(labels.get(label::SPEC)?).ok()
}

fn in_scope(graph: &Graph, scope: &Scope, address: &Address) -> bool {
    graph.resources.contains_key(address) || address.instance().is_some_and(|instance| scope.covers(instance))
}

impl Provider for World {
    async fn observe(&self, graph: &Graph, scope: &Scope) -> Result<Observed, Diagnostics> {
        Ok(self.lock().look(graph, scope))
    }

    async fn execute(&self, task: &Task, _report: &dyn Fn(String)) -> Result<(), StepError> {
        let mut world = self.lock();
        let dead = || refuse("jackin.killed", "jackin was killed");
        if world.killed {
            return Err(dead());
        }
        world.effects += 1;
        let now = world.effects;
        let strikes = |at: &At| *at == At::Effect(now) || *at == At::Step(task.step.id.clone());
        let fault = world.faults.iter().position(|(at, _)| strikes(at)).map(|i| world.faults.remove(i).1);
        match fault {
            Some(Fault::Transient) => {
                return Err(StepError { transient: true, ..refuse("docker.unreachable", "connection reset by peer") });
            }
            Some(Fault::Before) => return Err(refuse("docker.failed", "injected fault")),
            Some(Fault::KilledBefore) => {
                world.killed = true;
                return Err(dead());
            }
            Some(Fault::After | Fault::KilledHalfway | Fault::KilledAfter) | None => {}
        }
        if !matches!(task.step.effect, Effect::AwaitReady | Effect::Claim { .. }) {
            world.mutations += 1;
        }
        world.carry_out(task, fault == Some(Fault::KilledHalfway))?;
        match fault {
            Some(Fault::After) => Err(refuse("docker.failed", "injected fault: done, but the answer was lost")),
            Some(Fault::KilledHalfway | Fault::KilledAfter) => {
                world.killed = true;
                Err(dead())
            }
            _ => Ok(()),
        }
    }
}
