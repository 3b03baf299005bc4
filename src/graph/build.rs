//! Config + Facts -> Graph. Names, tags and values are all chosen here; what cannot be chosen becomes a diagnostic in the graph.
//!
//! In: wanted instances, the configuration, facts. Out: the graph and the build contexts of its images. Absent: Docker, files,
//! credentials (a value that may be one is a source and a keyed digest).

use super::context::{BuildContext, RepoFiles};
use super::derived::{self, DerivedInputs, agent_paths};
use super::role::{self, CheckedRole};
use super::want::{Wanted, place};
use super::{Graph, InstanceInfo, Resource, names, programs};
use crate::config::layer;
use crate::config::validate::sensitive;
use crate::config::{Agent, AuthMode, Config, Dind, DirtyExit, EnvValue, GithubMode, Isolation, NetworkMode, Workspace};
use crate::diagnostic::Diagnostic;
use crate::facts::{Facts, PathKind, RoleSnapshot, RoleValue};
use crate::resource::*;
use std::collections::{BTreeMap, BTreeSet};

/// A graph and what its images are built from.
#[derive(Debug, Default)]
pub struct Built {
    pub graph: Graph,
    pub contexts: BTreeMap<Address, BuildContext>,
}

/// Warnings that want a person's word before anything is carried out.
pub const SENSITIVE_MOUNT: &str = "mount.sensitive";
pub const UNTRUSTED_ROLE: &str = "role.untrusted";

/// Image of the sidecar when `JACKIN_DIND_IMAGE` does not say otherwise.
const DIND_IMAGE: &str = "docker:29-dind";
const DIND_ROOTLESS_IMAGE: &str = "docker:29-dind-rootless";

pub fn build(config: &Config, facts: &Facts, wanted: &[Wanted]) -> Built {
    let mut builder = Builder::new(config, facts);
    for instance in wanted {
        builder.instance(instance);
    }
    builder.built
}

pub(super) struct Builder<'a> {
    pub config: &'a Config,
    pub facts: &'a Facts,
    pub built: Built,
    /// Roles already checked; `None` = its diagnostics are in the graph.
    roles: BTreeMap<String, Option<CheckedRole>>,
}

/// A role's resources that instances hang on.
pub(super) struct RoleParts {
    role: CheckedRole,
    pub derived: Address,
    derived_reference: String,
    recipe: Recipe,
    commit: String,
}

impl<'a> Builder<'a> {
    pub fn new(config: &'a Config, facts: &'a Facts) -> Self {
        Builder { config, facts, built: Built::default(), roles: BTreeMap::new() }
    }

    pub fn say(&mut self, diagnostic: Diagnostic) {
        self.built.graph.diagnostics.push(diagnostic);
    }

    pub fn add(&mut self, address: Address, spec: Spec, depends_on: impl IntoIterator<Item = Address>, sources: &[(&str, String)]) {
        let resource = Resource {
            spec,
            depends_on: depends_on.into_iter().collect(),
            sources: sources.iter().map(|(field, source)| ((*field).to_owned(), source.clone())).collect(),
        };
        self.built.graph.resources.insert(address, resource);
    }

    pub fn instance(&mut self, wanted: &Wanted) {
        let workspace = wanted.workspace.as_ref().and_then(|name| self.config.workspaces.get(name));
        if let Some(refusal) = refused_role(workspace, wanted) {
            self.say(refusal);
        }
        let Some(parts) = self.role_parts(&wanted.role, wanted.branch.as_deref()) else {
            return;
        };
        let Some(agent) = self.agent(wanted, &parts.role) else {
            return;
        };
        let grants =
            match layer::grants(&self.config.global, workspace, Some(&wanted.docker), wanted.profile_flag, &parts.role.manifest.docker) {
                Ok((grants, warnings)) => {
                    self.built.graph.diagnostics.extend(warnings);
                    grants
                }
                Err(mistakes) => {
                    self.built.graph.diagnostics.extend(mistakes);
                    return;
                }
            };
        let backend = layer::backend(&self.config.global, workspace);
        if backend.value != "docker" {
            self.say(
                Diagnostic::error("runtime.unsupported", "This runtime backend is not supported", format!("`{}`", backend.value))
                    .at(backend.span.clone())
                    .help("Set `backend = \"docker\"`."),
            );
        }

        let profile = layer::profile(&self.config.global, workspace, Some(&wanted.docker), wanted.profile_flag);

        let key = &wanted.key;
        let at = |kind| Address::new(kind, key.clone());
        let base = &wanted.container;
        let info = InstanceInfo {
            workspace: key.rsplit_once('/').map_or(key.as_str(), |(w, _)| w).to_owned(),
            role: wanted.role.clone(),
            agent: agent.slug().to_owned(),
            container: base.clone(),
        };
        self.built.graph.instances.insert(key.clone(), info);

        let record = self.facts.records.get(key).filter(|r| r.role_container == *base);
        // Adopted objects keep the names they had; the record knows them.
        let kept = |of: fn(&InstanceRecord) -> &Option<String>, otherwise: String| record.and_then(|r| of(r).clone()).unwrap_or(otherwise);
        let sidecar_wanted = grants.dind != Dind::None;
        let sidecar_name = kept(|r| &r.dind_container, names::sidecar(base));
        let network_name = kept(|r| &r.network, names::network(base));
        let certs_name = kept(|r| &r.certs_volume, names::certs(base));
        let network_needed = sidecar_wanted || grants.network != NetworkMode::None;
        let grant_source = |field: &'static str| match grants.sources.get(field) {
            Some((layer, span)) => place(span, layer_word(*layer)),
            None => format!("profile {}", layer::word(grants.profile)),
        };

        let mut capsule_needs = vec![parts.derived.clone(), at(Kind::Home)];
        if network_needed {
            let spec = Network { name: network_name.clone(), internal: grants.internal_network && !sidecar_wanted, owner: base.clone() };
            self.add(at(Kind::Network), Spec::Network(spec), [], &[("internal", grant_source("profile"))]);
            capsule_needs.push(at(Kind::Network));
        }
        if sidecar_wanted {
            let image = self.dind_image(grants.dind);
            self.add(at(Kind::Certs), Spec::Certs(Certs { name: certs_name.clone(), owner: base.clone() }), [], &[]);
            let spec = sidecar_spec(&sidecar_name, &image.name, grants.dind, &network_name, &certs_name, base);
            let sources = [("tier", grant_source("dind")), ("privileged", grant_source("dind")), ("image", self.dind_source())];
            self.add(at(Kind::Sidecar), Spec::Sidecar(spec), [image, at(Kind::Network), at(Kind::Certs)], &sources);
            capsule_needs.extend([at(Kind::Certs), at(Kind::Sidecar)]);
        }

        let mut sources: Vec<(String, String)> = vec![
            ("argv".to_owned(), wanted.agent_source.clone()),
            ("image".to_owned(), wanted.role_source.clone()),
            ("role_key".to_owned(), wanted.role_source.clone()),
            ("profile".to_owned(), place(&profile.span, layer_word(profile.layer))),
            ("workdir".to_owned(), place(&wanted.workdir.span, "command line")),
            ("network".to_owned(), grant_source("network")),
            ("network_mode".to_owned(), grant_source("network")),
        ];
        for (field, grant) in [
            ("limits.memory", "memory"),
            ("limits.memory_reservation", "memory_reservation"),
            ("limits.cpus", "cpus"),
            ("limits.pids", "pids"),
            ("limits.nofile", "nofile"),
            ("cap_add", "capabilities_add"),
            ("sudo", "sudo"),
            ("no_new_privileges", "sudo"),
            ("read_only_root", "system_writes"),
        ] {
            sources.push((field.to_owned(), grant_source(grant)));
        }

        let mut mounts = self.runtime_mounts(base, &parts.role.manifest.agents, sidecar_wanted.then_some(certs_name.as_str()));
        let auth = self.auth(wanted, workspace, &parts.role, agent, &mut mounts);
        self.workspace_mounts(wanted, workspace, &mut mounts, &mut sources);
        let mut env = self.env(wanted, workspace, &parts.role, &mut sources);
        self.github_env(wanted, workspace, &mut env, &mut sources);
        let plain = |env: &mut BTreeMap<String, EnvEntry>, name: &str, value: String| {
            env.insert(name.to_owned(), EnvEntry::Plain(value));
        };
        let trusted: BTreeSet<&str> =
            std::iter::once(wanted.workdir.value.as_str()).chain(wanted.mounts.iter().map(|m| m.dst.value.as_str())).collect();
        env.entry("MISE_TRUSTED_CONFIG_PATHS".to_owned())
            .or_insert_with(|| EnvEntry::Plain(trusted.into_iter().collect::<Vec<_>>().join(":")));
        for (name, value) in &self.facts.passthrough_env {
            env.entry(name.clone()).or_insert_with(|| EnvEntry::Plain(value.clone()));
        }
        plain(&mut env, "HOME", "/home/agent".to_owned());
        plain(&mut env, "JACKIN", "1".to_owned());
        plain(&mut env, "JACKIN_CONTAINER_NAME", base.clone());
        plain(&mut env, "JACKIN_INSTANCE_ID", wanted.instance_id.clone());
        plain(&mut env, "JACKIN_NETWORK_MODE", network_word(grants.network).to_owned());
        plain(&mut env, "GIT_AUTHOR_NAME", self.facts.git_user_name.clone());
        plain(&mut env, "GIT_AUTHOR_EMAIL", self.facts.git_user_email.clone());
        if sidecar_wanted {
            plain(&mut env, "DOCKER_HOST", format!("tcp://{sidecar_name}:2376"));
            plain(&mut env, "DOCKER_TLS_VERIFY", "1".to_owned());
            plain(&mut env, "DOCKER_CERT_PATH", "/jackin/run/dind-certs/client".to_owned());
            plain(&mut env, "JACKIN_DIND_HOSTNAME", sidecar_name.clone());
            plain(&mut env, "TESTCONTAINERS_HOST_OVERRIDE", sidecar_name.clone());
            for name in ["NO_PROXY", "no_proxy"] {
                if let Some(EnvEntry::Plain(list)) = env.get_mut(name)
                    && !list.split(',').any(|host| host == sidecar_name)
                {
                    *list = if list.is_empty() { sidecar_name.clone() } else { format!("{list},{sidecar_name}") };
                }
            }
        }
        if self.config.global.coauthor_trailer {
            plain(&mut env, "JACKIN_GIT_COAUTHOR_TRAILER", "1".to_owned());
        }
        if self.config.global.dco {
            plain(&mut env, "JACKIN_GIT_DCO", "1".to_owned());
        }
        if grants.sudo {
            plain(&mut env, "JACKIN_SUDO", "1".to_owned());
        }
        if !grants.system_writes {
            plain(&mut env, "GIT_CONFIG_GLOBAL", "/jackin/state/gitconfig".to_owned());
        }
        let mut hosts = grants.allowed_hosts.clone();
        if grants.network == NetworkMode::Allowlist {
            // Any supported agent may run in the container, not only the first.
            hosts.extend(parts.role.manifest.agents.iter().flat_map(|a| api_hosts(*a)).map(|h| (*h).to_owned()));
            if env.contains_key("GH_TOKEN") {
                hosts.extend(["github.com", "api.github.com"].map(str::to_owned));
            }
            hosts.sort();
            hosts.dedup();
            plain(&mut env, "JACKIN_ALLOWED_HOSTS", hosts.join(","));
            let enforcement = if sidecar_wanted {
                "partial (inner containers bypass the rules)"
            } else if grants.sudo {
                "partial (sudo can change the rules)"
            } else {
                "full"
            };
            plain(&mut env, "JACKIN_NETWORK_ENFORCEMENT", enforcement.to_owned());
            self.say(
                Diagnostic::error(
                    "network.allowlist",
                    "Allowlist networks are not supported yet",
                    format!("{key} asks for network `allowlist`."),
                )
                .on(at(Kind::Capsule))
                .help("Use profile `standard` or `compat`, or grant `network = \"open\"`."),
            );
        }

        if wanted.spare {
            self.judge_spare(wanted, &env);
        }

        let models = parts.role.manifest.models.clone();
        let record = InstanceRecord {
            instance_id: wanted.instance_id.clone(),
            instance: key.clone(),
            workspace_name: wanted.workspace.clone(),
            workspace_label: self.built.graph.instances[key].workspace.clone(),
            role_key: wanted.role.clone(),
            role_display_name: parts.role.display_name.clone(),
            agent_runtime: agent,
            role_source_git: self.facts.roles.get(&role_slot(wanted)).map(|r| r.url.clone()).unwrap_or_default(),
            role_source_ref: wanted.branch.clone(),
            role_git_sha: parts.commit.clone(),
            image_tag: parts.derived_reference.clone(),
            role_container: base.clone(),
            dind_container: sidecar_wanted.then(|| sidecar_name.clone()),
            network: network_needed.then(|| network_name.clone()),
            certs_volume: sidecar_wanted.then(|| certs_name.clone()),
            declared: wanted.declared,
            ad_hoc_mounts: wanted.ad_hoc_mounts.clone(),
            workdir: wanted.workdir.value.clone(),
        };
        let policy = layer::dirty_exit(&self.config.global, workspace);
        let home = Home {
            path: self.below_home(&format!("data/{base}")),
            sockets: self.below_home(&format!("sockets/{base}")),
            directories: parts.role.manifest.agents.iter().flat_map(|a| agent_paths(*a).directories).map(|d| (*d).to_owned()).collect(),
            agent_toml: AgentToml {
                role: wanted.role.clone(),
                workdir: wanted.workdir.value.clone(),
                agents: parts.role.manifest.agents.clone(),
                hold: wanted.spare,
                models,
                auth_modes: auth.iter().map(|(agent, handoff)| (*agent, handoff.mode)).collect(),
                provider_models: parts.role.manifest.provider_models.clone(),
                dirty_exit_policy: Some(dirty_word(policy.value).to_owned()),
            },
            auth,
            record,
            uid: self.facts.uid,
            gid: self.facts.gid,
        };
        let role_repo = Address::new(Kind::RoleRepo, role_slot(wanted));
        let home_sources =
            [("agent_toml.workdir", place(&wanted.workdir.span, "command line")), ("record.agent_runtime", wanted.agent_source.clone())];
        self.add(at(Kind::Home), Spec::Home(Box::new(home)), [role_repo], &home_sources);

        let capsule = Capsule {
            name: base.clone(),
            image: parts.derived_reference.clone(),
            recipe: parts.recipe.clone(),
            argv: vec![agent.slug().to_owned()],
            workdir: wanted.workdir.value.clone(),
            user: format!("{}:{}", self.facts.uid, self.facts.gid),
            network: if network_needed { network_name } else { "none".to_owned() },
            network_mode: grants.network,
            profile: grants.profile,
            env,
            mounts,
            limits: Limits {
                memory: grants.memory,
                memory_reservation: grants.memory_reservation,
                cpus: grants.cpus,
                pids: grants.pids,
                nofile: grants.nofile,
            },
            cap_drop_all: grants.cap_drop_all,
            cap_add: grants.cap_add.clone(),
            no_new_privileges: grants.no_new_privileges,
            read_only_root: !grants.system_writes,
            tmpfs: if grants.system_writes { Vec::new() } else { tmpfs(grants.profile, grants.sudo) },
            sudo: grants.sudo,
            role_key: wanted.role.clone(),
            display_name: parts.role.display_name.clone(),
            keep_awake: workspace.is_some_and(|w| w.keep_awake),
            declared: wanted.declared,
        };
        let sources: Vec<(&str, String)> = sources.iter().map(|(field, source)| (field.as_str(), source.clone())).collect();
        self.add(at(Kind::Capsule), Spec::Capsule(Box::new(capsule)), capsule_needs, &sources);
    }

    /// What a role says of itself, looked at once; `None` = its diagnostics are in the graph.
    pub fn checked_role(&mut self, role: &str, branch: Option<&str>) -> Option<CheckedRole> {
        let slot = slot(role, branch);
        let Some(snapshot) = self.facts.roles.get(&slot) else {
            self.say(
                Diagnostic::error("role.unknown", "A role has no source", format!("`{role}` has no source."))
                    .help("Add `[roles.\"NAME\"] git = \"URL\"` to config.toml, or name a role as `namespace/name`."),
            );
            return None;
        };
        if !self.roles.contains_key(&slot) {
            let shown = RoleSnapshot { cache: self.facts.shorten(&snapshot.cache), ..snapshot.clone() };
            let (checked, diagnostics) = role::check(&shown);
            self.built.graph.diagnostics.extend(diagnostics);
            self.roles.insert(slot.clone(), checked);
        }
        self.roles[&slot].clone()
    }

    /// The clone of a role, at its pinned commit.
    pub fn role_repo(&mut self, role: &str, branch: Option<&str>) -> Option<Address> {
        let slot = slot(role, branch);
        let snapshot = self.facts.roles.get(&slot)?;
        let spec = RoleRepo {
            url: snapshot.url.clone(),
            branch: snapshot.branch.clone(),
            commit: snapshot.commit.clone()?,
            path: self.facts.shorten(&snapshot.cache),
        };
        let source = self.config.global.roles.get(role);
        let configured = source.map_or_else(|| "default".to_owned(), |r| place(&r.git.span, "default"));
        let repo = Address::new(Kind::RoleRepo, slot);
        self.add(repo.clone(), Spec::RoleRepo(spec), [], &[("url", configured), ("commit", "role repository".to_owned())]);
        Some(repo)
    }

    /// Repository, images and programs of a role; several instances share them.
    pub fn role_parts(&mut self, role_key: &str, branch: Option<&str>) -> Option<RoleParts> {
        let role = self.checked_role(role_key, branch)?;
        let slot = slot(role_key, branch);
        let snapshot = &self.facts.roles[&slot];
        let commit = snapshot.commit.clone()?;
        let role_image = Address::new(Kind::RoleImage, slot.clone());
        let derived = Address::new(Kind::DerivedImage, slot.clone());
        let derived_reference = names::derived_image(role_key, branch, &commit);
        if let Some(Spec::DerivedImage(spec)) = self.built.graph.resources.get(&derived).map(|r| &r.spec) {
            let recipe = spec.recipe.clone();
            return Some(RoleParts { role, derived, derived_reference, recipe, commit });
        }

        let repo = self.role_repo(role_key, branch)?;
        let trusted = self.config.global.roles.get(role_key).is_some_and(|r| r.trusted);
        if !trusted || branch.is_some() || snapshot.elsewhere {
            let what = branch.map_or_else(String::new, |b| format!(", branch `{b}`"));
            let help = match trusted && snapshot.elsewhere {
                true => format!("Read it first. The trust in `{role_key}` is for what its configured `git` URL gives."),
                false => format!("Read it first. `trusted = true` under `[roles.\"{role_key}\"]` says that you have."),
            };
            self.say(
                Diagnostic::warning(
                    UNTRUSTED_ROLE,
                    "A role is not marked as trusted",
                    format!("Building `{role_key}`{what} runs what {} says.", snapshot.url),
                )
                .on(&repo)
                .help(help),
            );
        }

        let construct = self.facts.construct_image.clone().unwrap_or_else(|| role.construct.clone());
        let construct_source = match self.facts.construct_image {
            Some(_) => "JACKIN_CONSTRUCT_IMAGE".to_owned(),
            None => format!("role {}", role.manifest.dockerfile.value),
        };
        let construct_address = self.image(&construct, construct_source.clone());
        let base_reference = names::role_image(role_key, branch, &commit);
        let spec = RoleImage {
            reference: base_reference.clone(),
            role: role_key.to_owned(),
            role_git_sha: names::short_commit(&commit).to_owned(),
            dockerfile: role.manifest.dockerfile.value.clone(),
            construct_image: construct.clone(),
            construct_override: self.facts.construct_image.clone(),
        };
        self.add(
            role_image.clone(),
            Spec::RoleImage(spec),
            [repo.clone(), construct_address],
            &[("role_git_sha", "role repository".to_owned()), ("construct_image", construct_source.clone())],
        );
        self.built.contexts.insert(
            role_image.clone(),
            BuildContext {
                dockerfile: role.dockerfile_with(self.facts.construct_image.as_deref()),
                dockerfile_path: ".jackin-runtime/BaseDockerfile".to_owned(),
                files: BTreeMap::new(),
                repo: Some(RepoFiles { cache: snapshot.cache.clone(), commit: commit.clone() }),
                build_args: BTreeMap::new(),
                from_scratch: false,
            },
        );

        let mut needs = vec![role_image];
        let mut agent_programs = BTreeMap::new();
        let mut agent_digests = BTreeMap::new();
        for agent in &role.manifest.agents {
            let chosen = programs::agent(self.facts, *agent);
            if let (Some(path), Some(digest)) = (&chosen.path, &chosen.spec.digest) {
                agent_programs.insert(*agent, path.clone());
                agent_digests.insert(*agent, digest.clone());
            }
            needs.push(chosen.put(&mut self.built.graph));
        }
        let capsule = match programs::capsule(self.facts) {
            Ok(capsule) => capsule,
            Err(missing) => {
                self.say(missing);
                return None;
            }
        };
        let (capsule_path, capsule_source) = (capsule.path.clone().unwrap_or_default(), capsule.source.clone());
        let (capsule_version, capsule_digest) =
            (capsule.spec.version.clone().unwrap_or_default(), capsule.spec.digest.clone().unwrap_or_default());
        needs.push(capsule.put(&mut self.built.graph));

        let context = derived::derived_context(&DerivedInputs {
            base: &base_reference,
            manifest: &role.manifest,
            agent_programs: &agent_programs,
            capsule_program: &capsule_path,
            hooks: &role.hooks,
            host_uid: self.facts.uid,
        });
        let recipe = Recipe {
            version: derived::RECIPE_VERSION.to_owned(),
            manifest_version: role.manifest.version.clone(),
            role_git_sha: names::short_commit(&commit).to_owned(),
            role_source_ref: branch.map(str::to_owned),
            base_image: None,
            construct_image: construct,
            generated_runtime_hash: derived::runtime_hash(&context),
            supported_agents: role.manifest.agents.clone(),
            agent_binaries: agent_digests,
            capsule_version,
            capsule_digest,
            hooks: role.hooks.iter().map(|(name, text)| (name.clone(), sha256_hex(text))).collect(),
            plugins: plugin_list(&role),
            host_identity_strategy: derived::HOST_IDENTITY.to_owned(),
            host_uid: self.facts.uid,
        };
        let spec =
            DerivedImage { reference: derived_reference.clone(), role: role_key.to_owned(), base: base_reference, recipe: recipe.clone() };
        let manifest = "role jackin.role.toml".to_owned();
        self.add(
            derived.clone(),
            Spec::DerivedImage(Box::new(spec)),
            needs,
            &[
                ("recipe.role_git_sha", "role repository".to_owned()),
                ("recipe.construct_image", construct_source),
                ("recipe.supported_agents", manifest.clone()),
                ("recipe.manifest_version", manifest.clone()),
                ("recipe.hooks", manifest.clone()),
                ("recipe.plugins", manifest),
                ("recipe.capsule_version", capsule_source.clone()),
                ("recipe.capsule_digest", capsule_source),
                ("recipe.host_uid", "this host".to_owned()),
            ],
        );
        self.built.contexts.insert(derived.clone(), context);
        Some(RoleParts { role, derived, derived_reference, recipe, commit })
    }

    fn image(&mut self, reference: &str, source: String) -> Address {
        let address = Address::new(Kind::Image, reference);
        let spec = Image { reference: reference.to_owned(), platform: format!("linux/{}", self.facts.arch) };
        self.add(address.clone(), Spec::Image(spec), [], &[("reference", source)]);
        address
    }

    pub fn dind_image(&mut self, tier: Dind) -> Address {
        let reference = match (&self.facts.dind_image, tier) {
            (Some(image), _) => image.clone(),
            (None, Dind::Rootless) => DIND_ROOTLESS_IMAGE.to_owned(),
            (None, _) => DIND_IMAGE.to_owned(),
        };
        let source = self.dind_source();
        self.image(&reference, source)
    }

    pub fn dind_source(&self) -> String {
        if self.facts.dind_image.is_some() { "JACKIN_DIND_IMAGE".to_owned() } else { "default".to_owned() }
    }

    fn agent(&mut self, wanted: &Wanted, role: &CheckedRole) -> Option<Agent> {
        let supported = &role.manifest.agents;
        let list = || supported.iter().map(|a| a.slug()).collect::<Vec<_>>().join(", ");
        match &wanted.agent {
            Some(agent) if supported.contains(&agent.value) => Some(agent.value),
            Some(agent) => {
                self.say(
                    Diagnostic::error(
                        "agent.unsupported",
                        "The role does not support this agent",
                        format!("Role `{}` supports {}, not `{}`.", wanted.role, list(), agent.value),
                    )
                    .at(agent.span.clone())
                    .help("Choose one of them, or add the agent to the role's `agents`."),
                );
                None
            }
            None if supported.len() == 1 => Some(supported[0]),
            None => {
                self.say(
                    Diagnostic::error(
                        "agent.undecided",
                        "Which agent is to run?",
                        format!("Role `{}` supports {}, and nothing chooses one for {}.", wanted.role, list(), wanted.key),
                    )
                    .help("Give `--agent NAME`, or set `default_agent` in the workspace or `agent` in its `[[instance]]`."),
                );
                None
            }
        }
    }

    /// `~/.jackin/…` as people see it.
    fn below_home(&self, rest: &str) -> String {
        self.facts.shorten(&format!("{}/{rest}", self.facts.jackin_home))
    }

    fn runtime_mounts(&self, base: &str, agents: &[Agent], certs: Option<&str>) -> BTreeMap<String, MountSpec> {
        let bind = |rest: &str, readonly| MountSpec { kind: MountKind::Bind, source: self.below_home(rest), readonly };
        let mut mounts = BTreeMap::from([
            ("/jackin/state".to_owned(), bind(&format!("data/{base}/state"), false)),
            ("/jackin/run".to_owned(), bind(&format!("sockets/{base}"), false)),
            ("/home/agent/.config/gh".to_owned(), bind(&format!("data/{base}/.config/gh"), false)),
            ("/var/lib/extrausers/passwd".to_owned(), bind("extrausers/passwd", true)),
            ("/var/lib/extrausers/group".to_owned(), bind("extrausers/group", true)),
        ]);
        for directory in agents.iter().flat_map(|a| agent_paths(*a).directories) {
            mounts.insert(format!("/home/agent/{directory}"), bind(&format!("data/{base}/home/{directory}"), false));
        }
        if let Some(certs) = certs {
            mounts.insert("/jackin/run/dind-certs/client".to_owned(), volume(certs, true));
        }
        mounts
    }

    /// Hand-off of every supported agent's credential; only the chosen agent's are required.
    fn auth(
        &mut self,
        wanted: &Wanted,
        workspace: Option<&Workspace>,
        role: &CheckedRole,
        chosen: Agent,
        mounts: &mut BTreeMap<String, MountSpec>,
    ) -> BTreeMap<Agent, Handoff> {
        let env = layer::env(&self.config.global, workspace, &wanted.role);
        let mut out = BTreeMap::new();
        for agent in &role.manifest.agents {
            let auth = layer::auth(&self.config.global, workspace, &wanted.role, *agent);
            let mode = auth.mode.value;
            let mut handoff = Handoff { mode, from: None, files: BTreeMap::new() };
            if mode == AuthMode::Sync
                && let Some(fact) = self.facts.credentials.get(agent)
            {
                handoff.from = Some(self.facts.shorten(&fact.source));
                handoff.files = fact.files.clone();
                // By folder: a container goes on seeing a file that was mounted by itself after it has been replaced.
                for folder in fact.files.keys().filter_map(|file| Some(file.split_once('/')?.0)) {
                    let source = self.below_home(&format!("data/{}/{folder}", wanted.container));
                    mounts.insert(format!("/jackin/{folder}"), MountSpec { kind: MountKind::Bind, source, readonly: true });
                }
            }
            let needed = match mode {
                AuthMode::ApiKey => Some(api_key_variable(*agent)),
                AuthMode::OauthToken => Some("CLAUDE_CODE_OAUTH_TOKEN"),
                AuthMode::Sync | AuthMode::Ignore => None,
            };
            if let Some(name) = needed
                && *agent == chosen
                && !env.contains_key(name)
            {
                self.say(
                    Diagnostic::error(
                        "auth.key_missing",
                        "The agent's credential is not configured",
                        format!("`{agent}` runs with auth_forward `{}`, which needs `{name}`, and no env layer sets it.", auth_word(mode)),
                    )
                    .at(auth.mode.span.clone())
                    .help(format!("Write `{name} = \"${name}\"` under `[env]`, or use auth_forward = \"sync\".")),
                );
            }
            out.insert(*agent, handoff);
        }
        out
    }

    fn workspace_mounts(
        &mut self,
        wanted: &Wanted,
        workspace: Option<&Workspace>,
        mounts: &mut BTreeMap<String, MountSpec>,
        sources: &mut Vec<(String, String)>,
    ) {
        let _ = workspace;
        let mut all: Vec<(String, String, bool, Option<crate::diagnostic::Span>)> = Vec::new();
        for mount in &wanted.mounts {
            if mount.isolation.value != Isolation::Shared {
                self.check_source(&mount.src.value, &mount.dst.value, &mount.src.span);
                let mode = if mount.isolation.value == Isolation::Worktree { "worktree" } else { "clone" };
                self.say(
                    Diagnostic::error(
                        "mount.isolation",
                        "Isolated mounts are not supported yet",
                        format!("{} asks for isolation `{mode}` at {}.", wanted.key, mount.dst.value),
                    )
                    .at(mount.isolation.span.clone())
                    .help("Use `isolation = \"shared\"`, or mount a checkout made for the purpose."),
                );
                continue;
            }
            all.push((mount.src.value.clone(), mount.dst.value.clone(), mount.readonly, mount.src.span.clone()));
        }
        for mount in layer::global_mounts(&self.config.global, &wanted.role) {
            all.push((mount.src.value.clone(), mount.dst.value.clone(), mount.readonly, mount.src.span.clone()));
        }
        for (src, dst, readonly, span) in all {
            let host = self.facts.expand(&src);
            self.check_source(&src, &dst, &span);
            let canonical = self.facts.paths.get(&host).map_or(host.as_str(), |fact| fact.canonical.as_str());
            if let Some(what) = sensitive(canonical) {
                self.say(
                    Diagnostic::warning(
                        SENSITIVE_MOUNT,
                        "A mount gives credentials of this host away",
                        format!("{} sees `{src}` (`{what}`) at {dst}.", wanted.key),
                    )
                    .at(span.clone())
                    .help("Leave it out unless the agent is to have them."),
                );
            }
            let spec = MountSpec { kind: MountKind::Bind, source: self.facts.shorten(&host), readonly };
            if let Some(other) = mounts.insert(dst.clone(), spec) {
                self.say(
                    Diagnostic::error(
                        "mount.twice",
                        "Two mounts have the same target",
                        format!("{dst} is the target of `{src}` and of `{}`.", other.source),
                    )
                    .at(span.clone())
                    .help("Give one of them another `dst`."),
                );
            }
            sources.push((format!("mounts.{dst}"), place(&span, "command line")));
        }
    }

    /// Is there something to mount?
    fn check_source(&mut self, src: &str, dst: &str, span: &Option<crate::diagnostic::Span>) {
        let problem = match self.facts.paths.get(&self.facts.expand(src)).map(|f| f.kind) {
            Some(PathKind::Missing) => {
                Diagnostic::error("mount.missing", "A mount's source does not exist", format!("`{src}` (mounted at {dst}) does not exist."))
                    .help("Create it, or correct `src`.")
            }
            Some(PathKind::Unreadable) => Diagnostic::error(
                "mount.unreadable",
                "A mount's source cannot be looked at",
                format!("`{src}` (mounted at {dst}): permission denied."),
            )
            .help("Give yourself access to it, or mount another folder."),
            Some(PathKind::Directory | PathKind::File | PathKind::Other) | None => return,
        };
        self.say(problem.at(span.clone()));
    }

    /// The operator's layers and the role's own variables; runtime variables come on top.
    fn env(
        &mut self,
        wanted: &Wanted,
        workspace: Option<&Workspace>,
        role: &CheckedRole,
        sources: &mut Vec<(String, String)>,
    ) -> BTreeMap<String, EnvEntry> {
        let mut out = BTreeMap::new();
        if let Some(values) = self.facts.role_env.get(&wanted.key) {
            for (name, value) in values {
                match value {
                    RoleValue::Set { digest } => {
                        let from = SecretSource::Role(format!("{}:{name}", wanted.key));
                        out.insert(name.clone(), EnvEntry::Secret(SecretEntry { from, digest: Some(digest.clone()) }));
                        sources.push((format!("env.{name}"), "role manifest".to_owned()));
                    }
                    RoleValue::Skipped => {}
                    RoleValue::Unanswered { prompt } => self.say(
                        Diagnostic::error(
                            "env.unanswered",
                            "The role asks for a value",
                            format!("Role `{}` needs `{name}` ({prompt}), and nobody could be asked.", wanted.role),
                        )
                        .help(format!("Give `--env {name}=VALUE`, or set it in an env layer of the configuration.")),
                    ),
                }
            }
        }
        for (name, chosen) in layer::env(&self.config.global, workspace, &wanted.role) {
            let somewhere = place(&chosen.span, "default");
            if chosen.value.on_demand() {
                self.say(
                    Diagnostic::warning(
                        "env.on_demand",
                        "An on-demand value is left out",
                        format!("`{name}` is handed out on demand, which this version does not do yet."),
                    )
                    .at(chosen.span.clone()),
                );
                continue;
            }
            if let Some(owner) = credential_owner(&name)
                && !role.manifest.agents.contains(&owner)
            {
                continue;
            }
            if let Some(entry) = self.secret(&name, &chosen.value, &chosen.span) {
                out.insert(name.clone(), EnvEntry::Secret(entry));
                sources.push((format!("env.{name}"), somewhere));
            }
        }
        out
    }

    /// A value of which nobody can tell later whether it is still the one that the container got.
    fn judge_spare(&mut self, wanted: &Wanted, env: &BTreeMap<String, EnvEntry>) {
        let untold = |entry: &EnvEntry| matches!(entry, EnvEntry::Secret(SecretEntry { digest: None, .. }));
        let names: Vec<&str> = env.iter().filter(|(_, entry)| untold(entry)).map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            let detail = format!("{} gets {} from where it is read only when a container is made.", wanted.key, names.join(", "));
            self.say(
                Diagnostic::error("prewarm.unverifiable", "A spare could not tell whether its credentials are still right", detail)
                    .on(Address::new(Kind::Capsule, wanted.key.clone()))
                    .help("Prewarm `--image --workspace` and `--daemon` instead, or give the value by a host variable."),
            );
        }
    }

    fn secret(&mut self, name: &str, value: &EnvValue, span: &Option<crate::diagnostic::Span>) -> Option<SecretEntry> {
        match value {
            EnvValue::Literal { .. } => {
                let at = place(span, name);
                Some(SecretEntry { digest: self.facts.literal_env.get(&at).cloned(), from: SecretSource::File { place: at } })
            }
            EnvValue::Host { name: host, .. } => match self.facts.host_env.get(host) {
                Some(digest) => Some(SecretEntry { from: SecretSource::Host(host.clone()), digest: Some(digest.clone()) }),
                None => {
                    self.say(
                        Diagnostic::error(
                            "env.unset",
                            "A host variable is not set",
                            format!("`{name}` takes its value from `${host}`, which is not set."),
                        )
                        .at(span.clone())
                        .help(format!("Export {host} before running jackin, or remove the entry.")),
                    );
                    None
                }
            },
            EnvValue::Op { reference, account, .. } => {
                Some(SecretEntry { from: SecretSource::Op { reference: reference.clone(), account: account.clone() }, digest: None })
            }
        }
    }

    fn github_env(
        &mut self,
        wanted: &Wanted,
        workspace: Option<&Workspace>,
        env: &mut BTreeMap<String, EnvEntry>,
        sources: &mut Vec<(String, String)>,
    ) {
        let github = layer::github(&self.config.global, workspace, &wanted.role);
        if github.mode.value == GithubMode::Ignore {
            return;
        }
        let mut configured = BTreeMap::new();
        for (name, chosen) in &github.env {
            if let Some(entry) = self.secret(name, &chosen.value, &chosen.span) {
                configured.insert(name.clone(), (entry, place(&chosen.span, "default")));
            }
        }
        let token = match (configured.remove("GH_TOKEN"), github.mode.value, &self.facts.github_token) {
            (Some(found), _, _) => Some(found),
            (None, GithubMode::Sync, Some(digest)) => {
                Some((SecretEntry { from: SecretSource::Github, digest: Some(digest.clone()) }, "GitHub login of this host".to_owned()))
            }
            (None, GithubMode::Token, _) => {
                self.say(
                    Diagnostic::error(
                        "github.token_missing",
                        "The GitHub token is not configured",
                        "GitHub auth_forward is `token`, and no `[github.env]` sets GH_TOKEN.",
                    )
                    .at(github.mode.span.clone())
                    .help("Set `GH_TOKEN = \"$GH_TOKEN\"` under `[github.env]`, or use auth_forward = \"sync\"."),
                );
                None
            }
            (None, _, _) => None,
        };
        if let Some((entry, source)) = token {
            for name in ["GH_TOKEN", "GITHUB_TOKEN"] {
                env.entry(name.to_owned()).or_insert_with(|| EnvEntry::Secret(entry.clone()));
                sources.push((format!("env.{name}"), source.clone()));
            }
        }
        for (name, (entry, source)) in configured {
            sources.push((format!("env.{name}"), source));
            env.insert(name, EnvEntry::Secret(entry));
        }
    }
}

/// Facts hold one snapshot per role and branch.
pub fn role_slot(wanted: &Wanted) -> String {
    slot(&wanted.role, wanted.branch.as_deref())
}

pub fn slot(role: &str, branch: Option<&str>) -> String {
    match branch {
        Some(branch) => format!("{role}@{branch}"),
        None => role.to_owned(),
    }
}

/// The private Docker daemon. `owner` is the base name of whoever it belongs to.
pub(super) fn sidecar_spec(name: &str, image: &str, tier: Dind, network: &str, certs: &str, owner: &str) -> Sidecar {
    Sidecar {
        name: name.to_owned(),
        image: image.to_owned(),
        tier,
        privileged: tier == Dind::Privileged,
        network: network.to_owned(),
        env: BTreeMap::from([
            ("DOCKER_TLS_CERTDIR".to_owned(), EnvEntry::Plain("/certs".to_owned())),
            ("DOCKER_TLS_SAN".to_owned(), EnvEntry::Plain(format!("DNS:{name}"))),
        ]),
        mounts: BTreeMap::from([("/certs/client".to_owned(), volume(certs, false))]),
        owner: owner.to_owned(),
    }
}

fn refused_role(workspace: Option<&Workspace>, wanted: &Wanted) -> Option<Diagnostic> {
    let workspace = workspace?;
    let allowed = &workspace.allowed_roles;
    if allowed.is_empty() || allowed.iter().any(|r| r.value == wanted.role) {
        return None;
    }
    let list = allowed.iter().map(|r| r.value.as_str()).collect::<Vec<_>>().join(", ");
    Some(
        Diagnostic::error(
            "role.not_allowed",
            "The workspace does not allow this role",
            format!("`{}` allows {list}, not `{}`.", workspace.name, wanted.role),
        )
        .at(allowed[0].span.clone())
        .help("Add it to `allowed_roles`, or choose one of them."),
    )
}

fn volume(name: &str, readonly: bool) -> MountSpec {
    MountSpec { kind: MountKind::Volume, source: name.to_owned(), readonly }
}

fn plugin_list(role: &CheckedRole) -> Vec<String> {
    let marketplaces = role.manifest.claude_marketplaces.iter().map(|m| {
        let sparse = if m.sparse.is_empty() { String::new() } else { format!(" ({})", m.sparse.join(" ")) };
        format!("marketplace {}{sparse}", m.source)
    });
    marketplaces.chain(role.manifest.claude_plugins.iter().map(|p| format!("plugin {p}"))).collect()
}

fn layer_word(layer: layer::Layer) -> &'static str {
    match layer {
        layer::Layer::Default => "default",
        layer::Layer::Profile => "profile",
        layer::Layer::Global => "config.toml",
        layer::Layer::Role => "config.toml",
        layer::Layer::Workspace | layer::Layer::WorkspaceRole => "workspace",
        layer::Layer::Instance => "instance",
        layer::Layer::Manifest => "role manifest",
        layer::Layer::Flag => "--docker-profile",
    }
}

fn network_word(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Allowlist => "allowlist",
        NetworkMode::Open => "open",
    }
}

fn dirty_word(policy: DirtyExit) -> &'static str {
    match policy {
        DirtyExit::Ask => "ask",
        DirtyExit::Keep => "keep",
        DirtyExit::Discard => "discard",
    }
}

fn auth_word(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Sync => "sync",
        AuthMode::ApiKey => "api_key",
        AuthMode::OauthToken => "oauth_token",
        AuthMode::Ignore => "ignore",
    }
}

fn api_key_variable(agent: Agent) -> &'static str {
    match agent {
        Agent::Claude => "ANTHROPIC_API_KEY",
        Agent::Codex => "OPENAI_API_KEY",
        Agent::Amp => "AMP_API_KEY",
        Agent::Kimi => "KIMI_API_KEY",
        Agent::Opencode => "OPENCODE_API_KEY",
        Agent::Grok => "XAI_API_KEY",
    }
}

/// Keys that only one agent can use; they stay out of containers that do not run it. ANTHROPIC_API_KEY and OPENAI_API_KEY serve
/// OpenCode's providers too and are always passed.
fn credential_owner(name: &str) -> Option<Agent> {
    match name {
        "CLAUDE_CODE_OAUTH_TOKEN" => Some(Agent::Claude),
        "AMP_API_KEY" => Some(Agent::Amp),
        "KIMI_API_KEY" => Some(Agent::Kimi),
        "OPENCODE_API_KEY" => Some(Agent::Opencode),
        "XAI_API_KEY" | "GROK_DEPLOYMENT_KEY" => Some(Agent::Grok),
        _ => None,
    }
}

fn api_hosts(agent: Agent) -> &'static [&'static str] {
    match agent {
        Agent::Claude => &["api.anthropic.com"],
        Agent::Codex => &["api.openai.com"],
        Agent::Amp => &["ampcode.com", "sourcegraph.com"],
        Agent::Kimi => &["api.kimi.com", "kimi.moonshot.cn"],
        Agent::Opencode => &["api.z.ai", "api.anthropic.com", "api.openai.com"],
        Agent::Grok => &["api.x.ai"],
    }
}

/// What a read-only root needs writable. Source: `reference/docker.md` §9.
fn tmpfs(profile: crate::config::Profile, sudo: bool) -> Vec<String> {
    let mut paths = vec!["/tmp", "/run", "/var/run"];
    if profile == crate::config::Profile::Hardened {
        paths.extend([
            "/var/tmp",
            "/var/cache",
            "/var/log",
            "/var/lib/apt/lists",
            "/var/cache/apt/archives",
            "/var/lib/dpkg",
            "/home/agent/.cache",
        ]);
    }
    if sudo {
        paths.push("/etc/sudoers.d");
    }
    paths.into_iter().map(str::to_owned).collect()
}
