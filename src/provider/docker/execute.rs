//! One effect on the engine each. Repeating one that was carried out, or half carried out by a killed run, ends well.
//!
//! In: specs, ids and names from the plan. Out: nothing, or why not. A name that is taken counts as done only when what bears it is
//! ours, for the same address, made from the same spec.

use super::observe::{CPU_PERIOD, SWAP_UNLIMITED, UNLIMITED, cpu_quota, cpus, limited, nano_cpus};
use super::{Engine, Marks, doing, message, name_conflict, scrub, short_id, status};
use crate::diagnostic::Diagnostic;
use crate::graph::names;
use crate::observed::State;
use crate::provider::StepError;
use crate::provider::live::Vault;
use crate::resource::{Address, Capsule, Certs, EnvEntry, Kind, Limits, MountKind, MountSpec, Network, Sidecar, Spec, label, labels};
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, EndpointSettings, HostConfig, Mount, MountType, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest, NetworkingConfig, ResourcesUlimits, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RenameContainerOptionsBuilder,
};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long to wait for something that is going away by itself.
const GOING: Duration = Duration::from_secs(60);
/// How long a volume may still be held by a container that was just removed.
const RELEASING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
const TMPFS: &str = "rw,nosuid,nodev";

impl Engine {
    fn marks_of(&self, address: &Address, spec: &Spec) -> HashMap<String, String> {
        labels(address, spec, &self.facts.installation).into_iter().collect()
    }

    /// Ours, for this address, from this spec.
    fn same(&self, found: Option<&HashMap<String, String>>, wanted: &HashMap<String, String>) -> bool {
        let found = Marks::of(found);
        [label::INSTALLATION, label::ADDRESS, label::FINGERPRINT]
            .into_iter()
            .all(|name| found.get(name) == wanted.get(name).map(String::as_str))
    }

    pub async fn create_network(&self, address: &Address, spec: &Spec, network: &Network) -> Result<(), StepError> {
        let what = format!("Creating network {}", network.name);
        let labels = self.marks_of(address, spec);
        // bollard follows the newest API, which has dropped CheckDuplicate; engines before 25 make a second network without it.
        let body = serde_json::json!({ "Name": network.name, "CheckDuplicate": true, "Internal": network.internal, "Labels": labels });
        let body = body.to_string();
        let docker = self.connection.docker.clone().with_request_modifier(move |mut request| {
            *request.body_mut() = bollard::body_full(body.clone().into_bytes().into());
            request
        });
        match docker.create_network(NetworkCreateRequest { name: network.name.clone(), ..Default::default() }).await {
            Ok(made) => self.only_network(&what, network, &made.id, &labels).await,
            Err(error) if status(&error) == Some(409) => {
                let found = self.connection.docker.inspect_network(&network.name, None).await.map_err(|e| doing(&what).failed(e))?;
                if self.same(found.labels.as_ref(), &labels) { Ok(()) } else { Err(name_conflict(&what, &message(&error)).into()) }
            }
            Err(error) => Err(doing(&what).failed(error)),
        }
    }

    /// A killed run's request may still have been under way; engines before 25 then end up with two of one name, which no container
    /// can start on. Nothing is attached to the other one: who made it is gone.
    async fn only_network(&self, what: &str, network: &Network, made: &str, labels: &HashMap<String, String>) -> Result<(), StepError> {
        let filters = HashMap::from([("name".to_owned(), vec![network.name.clone()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = self.connection.docker.list_networks(Some(options)).await.map_err(|e| doing(what).failed(e))?;
        for other in found.into_iter().filter(|n| n.name.as_ref() == Some(&network.name) && self.same(n.labels.as_ref(), labels)) {
            if let Some(id) = other.id.filter(|id| id != made) {
                self.remove_network(&id).await?;
            }
        }
        Ok(())
    }

    pub async fn remove_network(&self, id: &str) -> Result<(), StepError> {
        let what = format!("Removing network {}", short_id(id));
        let docker = &self.connection.docker;
        let begun = Instant::now();
        loop {
            let error = match docker.remove_network(id).await {
                Ok(()) => return Ok(()),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) => error,
            };
            let busy = message(&error).contains("active endpoints") || status(&error) == Some(409);
            if !busy || begun.elapsed() > RELEASING {
                return Err(doing(&what).failed(error));
            }
            // Somebody is still attached: ours is let go of, a stranger's is not.
            let network = match docker.inspect_network(id, None).await {
                Ok(network) => network,
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) => return Err(doing(&what).failed(error)),
            };
            for container in network.containers.unwrap_or_default().into_keys() {
                let inspection = match docker.inspect_container(&container, None).await {
                    Ok(inspection) => inspection,
                    Err(error) if status(&error) == Some(404) => continue,
                    Err(error) => return Err(doing(&what).failed(error)),
                };
                let labels = inspection.config.as_ref().and_then(|c| c.labels.as_ref());
                if Marks::of(labels).installation() != Some(&self.facts.installation) {
                    let name = inspection.name.unwrap_or_default();
                    let name = name.trim_start_matches('/');
                    return Err(Diagnostic::error(
                        "docker.network_in_use",
                        "A container that jackin did not make uses the network",
                        format!("{what}: {name} is attached to it."),
                    )
                    .help(format!("Detach it: `docker network disconnect {} {name}`. Then run the command again.", short_id(id)))
                    .into());
                }
                self.disconnect(id, &container).await.map_err(|e| doing(&what).failed(e))?;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn create_volume(&self, address: &Address, spec: &Spec, certs: &Certs) -> Result<(), StepError> {
        let what = format!("Creating volume {}", certs.name);
        let labels = self.marks_of(address, spec);
        let request = VolumeCreateRequest { name: Some(certs.name.clone()), labels: Some(labels.clone()), ..Default::default() };
        // Creating a volume that exists returns it as it is.
        let volume = self.connection.docker.create_volume(request).await.map_err(|e| doing(&what).failed(e))?;
        if self.same(Some(&volume.labels), &labels) { Ok(()) } else { Err(name_conflict(&what, "a volume of that name exists").into()) }
    }

    pub async fn remove_volume(&self, name: &str) -> Result<(), StepError> {
        let what = format!("Removing volume {name}");
        let begun = Instant::now();
        loop {
            match self.connection.docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
                Ok(()) => return Ok(()),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) if status(&error) == Some(409) && begun.elapsed() < RELEASING => {
                    self.remove_latecomer(name).await?;
                    tokio::time::sleep(POLL).await;
                }
                Err(error) if status(&error) == Some(409) => {
                    return Err(Diagnostic::error(
                        "docker.volume_in_use",
                        "A container still uses the volume",
                        format!("{what}: {}", message(&error)),
                    )
                    .help(format!("`docker ps -a --filter volume={name}` shows which."))
                    .into());
                }
                Err(error) => return Err(doing(&what).failed(error)),
            }
        }
    }

    /// A killed run's request for the sidecar of a kept set may be granted while what is left of the set is being removed.
    async fn remove_latecomer(&self, volume: &str) -> Result<(), StepError> {
        let Some(id) = names::pool_id(Kind::Certs, volume) else {
            return Ok(());
        };
        let sidecar = names::sidecar(&names::pool_base(id));
        match self.connection.docker.inspect_container(&sidecar, None).await {
            Ok(found) if self.is_kept(found.config.as_ref().and_then(|c| c.labels.as_ref())) => self.remove_container(&sidecar).await,
            _ => Ok(()),
        }
    }

    pub async fn create_container(&self, address: &Address, spec: &Spec, vault: &dyn Vault) -> Result<(), StepError> {
        let name = spec.object_name();
        let what = format!("Creating container {name}");
        let labels = self.marks_of(address, spec);
        let (env, secrets, body) = match spec {
            Spec::Sidecar(sidecar) => {
                let (env, secrets) = resolve(&sidecar.env, vault).await?;
                (env, secrets, self.sidecar_body(sidecar))
            }
            Spec::Capsule(capsule) => {
                let (env, secrets) = resolve(&capsule.env, vault).await?;
                (env, secrets, self.capsule_body(capsule))
            }
            _ => unreachable!("BUG: only sidecars and capsules are containers"),
        };
        let mut body = ContainerCreateBody { env: Some(env), labels: Some(labels.clone()), ..body };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let docker = &self.connection.docker;
        let begun = Instant::now();
        loop {
            let error = match docker.create_container(Some(options.clone()), body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if too_many_cpus(&error)
                && let (Spec::Capsule(capsule), Some(host)) = (spec, &mut body.host_config)
                && host.nano_cpus.take().is_some()
            {
                host.cpu_period = Some(CPU_PERIOD);
                host.cpu_quota = capsule.limits.cpus.map(cpu_quota);
                continue;
            }
            if status(&error) != Some(409) {
                let mut error = doing(&what).failed(error);
                scrub(&mut error.diagnostic.detail, &secrets);
                return Err(error);
            }
            match docker.inspect_container(name, None).await {
                Ok(found) => {
                    let found = found.config.and_then(|c| c.labels);
                    return if self.same(found.as_ref(), &labels) { Ok(()) } else { Err(name_conflict(&what, &message(&error)).into()) };
                }
                // A killed run's request is still under way: the name is taken, and nothing bears it yet or any more.
                Err(error) if status(&error) == Some(404) && begun.elapsed() < GOING => tokio::time::sleep(POLL).await,
                Err(error) => return Err(doing(&what).failed(error)),
            }
        }
    }

    fn sidecar_body(&self, sidecar: &Sidecar) -> ContainerCreateBody {
        let host = HostConfig {
            privileged: Some(sidecar.privileged),
            network_mode: Some(sidecar.network.clone()),
            mounts: Some(self.mounts(&sidecar.mounts)),
            ..Default::default()
        };
        ContainerCreateBody {
            image: Some(sidecar.image.clone()),
            hostname: Some(sidecar.name.clone()),
            networking_config: networking(&sidecar.network),
            host_config: Some(host),
            ..Default::default()
        }
    }

    fn capsule_body(&self, capsule: &Capsule) -> ContainerCreateBody {
        let limits = &capsule.limits;
        let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
        let host = HostConfig {
            network_mode: Some(capsule.network.clone()),
            mounts: Some(self.mounts(&capsule.mounts)),
            group_add: Some(vec!["0".to_owned()]),
            security_opt: capsule.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
            cap_drop: capsule.cap_drop_all.then(|| vec!["ALL".to_owned()]),
            cap_add: list(&capsule.cap_add),
            readonly_rootfs: Some(capsule.read_only_root),
            tmpfs: (!capsule.tmpfs.is_empty()).then(|| capsule.tmpfs.iter().map(|path| (path.clone(), tmpfs_options(path))).collect()),
            memory: limits.memory,
            memory_reservation: limits.memory_reservation,
            nano_cpus: limits.cpus.map(nano_cpus),
            pids_limit: limits.pids,
            ulimits: limits.nofile.map(|n| vec![ResourcesUlimits { name: Some("nofile".to_owned()), soft: Some(n), hard: Some(n) }]),
            ..Default::default()
        };
        ContainerCreateBody {
            image: Some(capsule.image.clone()),
            hostname: Some(capsule.name.clone()),
            cmd: list(&capsule.argv),
            working_dir: Some(capsule.workdir.clone()),
            user: Some(capsule.user.clone()),
            networking_config: networking(&capsule.network),
            host_config: Some(host),
            ..Default::default()
        }
    }

    /// As mounts, not as binds: a bind would make a missing source, owned by root.
    fn mounts(&self, mounts: &BTreeMap<String, MountSpec>) -> Vec<Mount> {
        mounts
            .iter()
            .map(|(target, mount)| Mount {
                target: Some(target.clone()),
                typ: Some(match mount.kind {
                    MountKind::Bind => MountType::BIND,
                    MountKind::Volume => MountType::VOLUME,
                }),
                source: Some(match mount.kind {
                    MountKind::Bind => self.facts.expand(&mount.source),
                    MountKind::Volume => mount.source.clone(),
                }),
                read_only: Some(mount.readonly),
                ..Default::default()
            })
            .collect()
    }

    pub async fn start_container(&self, name: &str) -> Result<(), StepError> {
        let what = format!("Starting container {name}");
        self.connection.docker.start_container(name, None).await.map_err(|error| {
            let text = message(&error);
            let network_gone = status(&error) == Some(404) && text.contains("network");
            if network_gone {
                return Diagnostic::error("docker.network_missing", "The container's network is gone", format!("{what}: {text}"))
                    .help("Plan again: the next plan connects it to its network.")
                    .into();
            }
            let mut failed = doing(&what).failed(error);
            if failed.diagnostic.code == "docker.refused" {
                failed.diagnostic.code = "docker.start_failed".to_owned();
                failed.diagnostic.summary = "The container could not be started".to_owned();
            }
            failed
        })
    }

    pub async fn unpause_container(&self, id: &str) -> Result<(), StepError> {
        let done = self.connection.docker.unpause_container(id).await;
        self.unless(State::Running, id, done, &format!("Unpausing container {}", short_id(id))).await
    }

    pub async fn pause_container(&self, name: &str) -> Result<(), StepError> {
        let done = self.connection.docker.pause_container(name).await;
        self.unless(State::Paused, name, done, &format!("Pausing container {name}")).await
    }

    /// What was refused because it is so already is no failure.
    async fn unless(&self, wanted: State, container: &str, done: Result<(), Error>, what: &str) -> Result<(), StepError> {
        let Err(error) = done else {
            return Ok(());
        };
        match self.connection.docker.inspect_container(container, None).await {
            Ok(inspection) if super::observe::state(&inspection) == wanted => Ok(()),
            _ => Err(doing(what).failed(error)),
        }
    }

    pub async fn rename_container(&self, id: &str, to: &str) -> Result<(), StepError> {
        let what = format!("Renaming container {} to {to}", short_id(id));
        let options = RenameContainerOptionsBuilder::default().name(to).build();
        let Err(error) = self.connection.docker.rename_container(id, options).await else {
            return Ok(());
        };
        let inspection = self.connection.docker.inspect_container(id, None).await.map_err(|e| doing(&what).failed(e))?;
        let named = inspection.name.is_some_and(|name| name.trim_start_matches('/') == to);
        if named { Ok(()) } else { Err(doing(&what).failed(error)) }
    }

    pub async fn connect_network(&self, id: &str, network: &str) -> Result<(), StepError> {
        let what = format!("Connecting container {} to {network}", short_id(id));
        let docker = &self.connection.docker;
        let inspection = docker.inspect_container(id, None).await.map_err(|e| doing(&what).failed(e))?;
        let attached = inspection.network_settings.and_then(|s| s.networks).unwrap_or_default();
        if let Some(endpoint) = attached.get(network) {
            let current = docker.inspect_network(network, None).await.ok().and_then(|n| n.id);
            if endpoint.network_id.is_some() && endpoint.network_id == current {
                return Ok(());
            }
            // It remembers a network that was made anew under the same name.
            self.disconnect(network, id).await.map_err(|e| doing(&what).failed(e))?;
        }
        // "none" cannot be combined with another network, neither way round.
        let excluded = attached.keys().filter(|name| *name != network && (network == "none" || *name == "none"));
        for other in excluded {
            self.disconnect(other, id).await.map_err(|e| doing(&what).failed(e))?;
        }
        let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(EndpointSettings::default()) };
        match docker.connect_network(network, request).await {
            Ok(()) => Ok(()),
            Err(error) if message(&error).contains("already exists in network") => Ok(()),
            Err(error) => Err(doing(&what).failed(error)),
        }
    }

    async fn disconnect(&self, network: &str, container: &str) -> Result<(), bollard::errors::Error> {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        match self.connection.docker.disconnect_network(network, request).await {
            Err(error) if status(&error) == Some(404) || message(&error).contains("is not connected to") => Ok(()),
            other => other,
        }
    }

    /// Docker has no word for lifting a limit. On processes -1 does it; on memory a number beyond all memory (-1 is refused, and
    /// for swap not passed on to the kernel); on CPUs nothing does.
    pub async fn limit_container(&self, id: &str, limits: &Limits) -> Result<(), StepError> {
        let what = format!("Limiting container {}", short_id(id));
        let docker = &self.connection.docker;
        let inspection = docker.inspect_container(id, None).await.map_err(|e| doing(&what).failed(e))?;
        let host = inspection.host_config.unwrap_or_default();
        let had_cpus = cpus(&host);
        if let (None, Some(had_cpus)) = (limits.cpus, had_cpus) {
            return Err(Diagnostic::error(
                "docker.limit_stays",
                "Docker cannot lift a CPU limit from a living container",
                format!("{what}: it has {had_cpus} CPUs and should have no limit."),
            )
            .help("Have the container made anew: `jackin apply --replace ADDRESS`.")
            .into());
        }
        let new_cpus = limits.cpus.filter(|want| had_cpus.map(cpu_quota) != Some(cpu_quota(*want)));
        let changed = |want: Option<i64>, had: Option<i64>, none: i64| {
            let had = had.filter(|had| limited(*had));
            (want != had).then(|| want.unwrap_or(none))
        };
        let memory = changed(limits.memory, host.memory, UNLIMITED);
        let has_nano = host.nano_cpus.is_some_and(|n| n > 0);
        let mut update = ContainerUpdateBody {
            memory,
            // Swap must not be below memory; twice the memory is what the engine itself gives at creation.
            memory_swap: memory.map(|memory| if memory == UNLIMITED { SWAP_UNLIMITED } else { memory.saturating_mul(2) }),
            memory_reservation: changed(limits.memory_reservation, host.memory_reservation, UNLIMITED),
            pids_limit: changed(limits.pids, host.pids_limit, -1),
            ..Default::default()
        };
        match new_cpus {
            // The two ways cannot be mixed in one container.
            Some(new) if had_cpus.is_some() && !has_nano => {
                (update.cpu_period, update.cpu_quota) = (Some(CPU_PERIOD), Some(cpu_quota(new)));
            }
            new => update.nano_cpus = new.map(nano_cpus),
        }
        let error = match docker.update_container(id, update.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if has_nano || !too_many_cpus(&error) {
            return Err(doing(&what).failed(error));
        }
        let quota = new_cpus.map(cpu_quota);
        let update = ContainerUpdateBody { nano_cpus: None, cpu_period: quota.map(|_| CPU_PERIOD), cpu_quota: quota, ..update };
        docker.update_container(id, update).await.map_err(|e| doing(&what).failed(e))?;
        Ok(())
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), StepError> {
        let what = format!("Removing container {}", short_id(id));
        let docker = &self.connection.docker;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.remove_container(id, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            // Somebody else, or a killed run, has begun it.
            Err(error) if status(&error) == Some(409) && message(&error).contains("already in progress") => {}
            Err(error) => return Err(doing(&what).failed(error)),
        }
        let begun = Instant::now();
        while begun.elapsed() < GOING {
            match docker.inspect_container(id, None).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) => return Err(doing(&what).failed(error)),
                Ok(_) => tokio::time::sleep(POLL).await,
            }
        }
        Err(Diagnostic::error(
            "docker.removal_stuck",
            "A removal does not come to an end",
            format!("{what}: still there after 60 seconds."),
        )
        .help("Restart the engine, then run the command again.")
        .into())
    }

    /// Taking over needs no call, but what is taken over must still be there.
    pub async fn claim(&self, kind: Kind, name: &str) -> Result<(), StepError> {
        let what = format!("Taking over {name}");
        let docker = &self.connection.docker;
        let looked = match kind {
            Kind::Network => docker.inspect_network(name, None).await.map(|_| ()),
            Kind::Certs => docker.inspect_volume(name).await.map(|_| ()),
            _ => docker.inspect_container(name, None).await.map(|_| ()),
        };
        looked.map_err(|error| doing(&what).failed(error))
    }
}

/// `NanoCpus` of more than the machine has; as a quota the same number is taken, and limits nothing, as wanted.
fn too_many_cpus(error: &bollard::errors::Error) -> bool {
    status(error) == Some(400) && message(error).contains("Range of CPUs")
}

fn networking(network: &str) -> Option<NetworkingConfig> {
    let endpoints = HashMap::from([(network.to_owned(), EndpointSettings::default())]);
    (network != "none").then_some(NetworkingConfig { endpoints_config: Some(endpoints) })
}

fn tmpfs_options(path: &str) -> String {
    // sudo refuses a folder that others may write to.
    if path == "/etc/sudoers.d" { format!("{TMPFS},mode=0755") } else { TMPFS.to_owned() }
}

/// `NAME=value` lines, and the values that must not be seen.
async fn resolve(env: &BTreeMap<String, EnvEntry>, vault: &dyn Vault) -> Result<(Vec<String>, Vec<SecretString>), StepError> {
    let mut lines = Vec::with_capacity(env.len());
    let mut secrets = Vec::new();
    for (name, entry) in env {
        match entry {
            EnvEntry::Plain(value) => lines.push(format!("{name}={value}")),
            EnvEntry::Secret(entry) => {
                let value = vault.value(&entry.from).await?;
                if value.expose_secret().contains('\0') {
                    let detail = format!("{name} from {} contains a NUL byte.", String::from(entry.from.clone()));
                    return Err(Diagnostic::error("docker.env_nul", "A variable cannot be handed over", detail)
                        .help("Correct the value where it comes from.")
                        .into());
                }
                lines.push(format!("{name}={}", value.expose_secret()));
                secrets.push(value);
            }
        }
    }
    Ok((lines, secrets))
}
