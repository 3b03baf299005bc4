//! The desired fields of each kind. A field is here because something observable follows from it.

use super::{Address, Fields, Kind, fields, fingerprint};
use crate::config::{Agent, AuthMode, Dind, NetworkMode, Profile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A role's git repository in the cache, at one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRepo {
    /// User-info and query taken off.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    pub commit: String,
    /// Where the clone lies, home as `~`.
    pub path: String,
}

/// Where a program that goes into an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Environment,
    Beside,
    Cache,
    /// Not here yet: what its maker offers now.
    Release,
    /// The vendor's installer runs inside the image build.
    VendorInstaller,
}

/// An agent's or the capsule's program file on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    pub origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Hex sha256 of the file, or of the archive that its maker published it in; `unpublished-VERSION` where its maker publishes
    /// none. Absent with the vendor's installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub executable: bool,
    /// Only with a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
}

/// How a release comes onto this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// With a mirror, the mirror's.
    pub url: String,
    /// Hex sha256 of what the URL gives; absent where none is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Name of the program in the `.tar.gz` that the URL gives; absent when it gives the program itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// A base image that jackin does not build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub reference: String,
    /// `linux/amd64` or `linux/arm64`.
    pub platform: String,
}

/// The role's own Dockerfile, built from its repository at the pinned commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleImage {
    pub reference: String,
    pub role: String,
    pub role_git_sha: String,
    /// Path in the repository.
    pub dockerfile: String,
    /// The construct image after an override; the last `FROM`.
    pub construct_image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub construct_override: Option<String>,
}

/// Every input of a derived image. A rebuild is explained by the input that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Recipe schema.
    pub version: String,
    pub manifest_version: String,
    pub role_git_sha: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_source_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image: Option<String>,
    pub construct_image: String,
    /// Hex sha256 of the generated Dockerfile and of the runtime files beside it.
    pub generated_runtime_hash: String,
    pub supported_agents: Vec<Agent>,
    /// Digest of each binary that is copied in; agents without one are installed by their vendor's script.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent_binaries: BTreeMap<Agent, String>,
    pub capsule_version: String,
    pub capsule_digest: String,
    /// Hook -> hex sha256 of its content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<String, String>,
    /// Claude marketplaces and plugins, in manifest order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    pub host_identity_strategy: String,
    pub host_uid: u32,
}

/// The role image with agents, capsule and hooks layered on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DerivedImage {
    pub reference: String,
    pub role: String,
    /// What it is built `FROM`.
    pub base: String,
    pub recipe: Recipe,
}

/// An isolated checkout of a mount's source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkout {
    pub repo: String,
    pub mode: crate::config::Isolation,
    pub branch: String,
    pub path: String,
}

/// How one agent's credential reaches the instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    pub mode: AuthMode,
    /// The host folder or file, home as `~`; absent when nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Path relative to the instance's state folder -> keyed digest of its content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// `agent.toml` as the capsule reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentToml {
    pub role: String,
    pub workdir: String,
    pub agents: Vec<Agent>,
    /// A spare: no agent begins before this is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<Agent, String>,
    pub auth_modes: BTreeMap<Agent, AuthMode>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_models: BTreeMap<Agent, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_exit_policy: Option<String>,
}

/// The names and origins that `instance.json` keeps, so that an instance can be found and rebuilt without its workspace file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceRecord {
    pub instance_id: String,
    /// Instance key, `workspace/name`.
    pub instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_name: Option<String>,
    pub workspace_label: String,
    pub role_key: String,
    pub role_display_name: String,
    pub agent_runtime: Agent,
    pub role_source_git: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_source_ref: Option<String>,
    pub role_git_sha: String,
    pub image_tag: String,
    pub role_container: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dind_container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs_volume: Option<String>,
    /// From a workspace file, or loaded ad hoc.
    pub declared: bool,
    /// An ad hoc load of a folder: its workdir and mounts as `SRC:DST[:ro]`, home as `~`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ad_hoc_mounts: Vec<String>,
    pub workdir: String,
}

/// The durable home and the runtime files of one instance on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// `~/.jackin/data/<container>`.
    pub path: String,
    /// `~/.jackin/sockets/<container>`.
    pub sockets: String,
    /// Folders below `home/` that are mounted into `/home/agent`.
    pub directories: Vec<String>,
    pub agent_toml: AgentToml,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: BTreeMap<Agent, Handoff>,
    pub record: InstanceRecord,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub name: String,
    pub internal: bool,
    /// Container name of the capsule it belongs to.
    pub owner: String,
}

/// The volume through which the sidecar hands its client certificates over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certs {
    pub name: String,
    /// Container name of the capsule it belongs to.
    pub owner: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    pub name: String,
    pub image: String,
    pub tier: Dind,
    pub privileged: bool,
    pub network: String,
    pub env: BTreeMap<String, EnvEntry>,
    pub mounts: BTreeMap<String, MountSpec>,
    /// Container name of the capsule it belongs to.
    pub owner: String,
}

/// A value the container gets. Only values that jackin itself makes are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum EnvEntry {
    Plain(String),
    Secret(SecretEntry),
}

/// A value that may be a credential: where it comes from, and a keyed digest that shows only that it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretEntry {
    pub from: SecretSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// How the provider finds the value when it creates the container. Shown as text such as `$GH_TOKEN` or `workspaces/app.toml:12:5`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(into = "String", try_from = "String")]
pub enum SecretSource {
    /// A literal in a file of the operator.
    File { place: String },
    /// A variable of the host.
    Host(String),
    /// A 1Password reference, with its account.
    Op { reference: String, account: Option<String> },
    /// An answer to a prompt of the role, or its default.
    Role(String),
    /// The GitHub token found on the host.
    Github,
}

impl From<SecretSource> for String {
    fn from(source: SecretSource) -> String {
        match source {
            SecretSource::File { place } => format!("file {place}"),
            SecretSource::Host(name) => format!("${name}"),
            SecretSource::Op { reference, account: None } => reference,
            SecretSource::Op { reference, account: Some(account) } => format!("{reference} account {account}"),
            SecretSource::Role(name) => format!("role {name}"),
            SecretSource::Github => "github token".to_owned(),
        }
    }
}

impl TryFrom<String> for SecretSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "github token" {
            return Ok(SecretSource::Github);
        }
        if let Some(place) = text.strip_prefix("file ") {
            return Ok(SecretSource::File { place: place.to_owned() });
        }
        if let Some(name) = text.strip_prefix('$') {
            return Ok(SecretSource::Host(name.to_owned()));
        }
        if let Some(name) = text.strip_prefix("role ") {
            return Ok(SecretSource::Role(name.to_owned()));
        }
        if text.starts_with("op://") {
            return Ok(match text.split_once(" account ") {
                Some((reference, account)) => SecretSource::Op { reference: reference.to_owned(), account: Some(account.to_owned()) },
                None => SecretSource::Op { reference: text, account: None },
            });
        }
        Err(format!("`{text}` is not a source of a value"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    Volume,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    pub kind: MountKind,
    /// Host path (home as `~`) or volume name.
    pub source: String,
    pub readonly: bool,
}

/// Limits of a profile; absent = none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nofile: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capsule {
    pub name: String,
    pub image: String,
    /// Fingerprint of the derived image's recipe; a change of it is explained by the image's own change.
    pub recipe: Recipe,
    pub argv: Vec<String>,
    pub workdir: String,
    /// `uid:gid`.
    pub user: String,
    /// Network name, or `none`.
    pub network: String,
    pub network_mode: NetworkMode,
    pub profile: Profile,
    pub env: BTreeMap<String, EnvEntry>,
    /// By container path.
    pub mounts: BTreeMap<String, MountSpec>,
    pub limits: Limits,
    pub cap_drop_all: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    /// Paths, for a read-only root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    pub sudo: bool,
    pub role_key: String,
    pub display_name: String,
    pub keep_awake: bool,
    pub declared: bool,
}

/// One managed thing as it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spec {
    RoleRepo(RoleRepo),
    AgentBinary(Binary),
    CapsuleBinary(Binary),
    Image(Image),
    RoleImage(RoleImage),
    DerivedImage(Box<DerivedImage>),
    Checkout(Checkout),
    Home(Box<Home>),
    Network(Network),
    Certs(Certs),
    Sidecar(Sidecar),
    Capsule(Box<Capsule>),
}

impl Spec {
    pub fn kind(&self) -> Kind {
        match self {
            Spec::RoleRepo(_) => Kind::RoleRepo,
            Spec::AgentBinary(_) => Kind::AgentBinary,
            Spec::CapsuleBinary(_) => Kind::CapsuleBinary,
            Spec::Image(_) => Kind::Image,
            Spec::RoleImage(_) => Kind::RoleImage,
            Spec::DerivedImage(_) => Kind::DerivedImage,
            Spec::Checkout(_) => Kind::Checkout,
            Spec::Home(_) => Kind::Home,
            Spec::Network(_) => Kind::Network,
            Spec::Certs(_) => Kind::Certs,
            Spec::Sidecar(_) => Kind::Sidecar,
            Spec::Capsule(_) => Kind::Capsule,
        }
    }

    /// The name under which Docker or the disk knows it.
    pub fn object_name(&self) -> &str {
        match self {
            Spec::RoleRepo(spec) => &spec.path,
            Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) => spec.path.as_deref().unwrap_or("vendor installer"),
            Spec::Image(spec) => &spec.reference,
            Spec::RoleImage(spec) => &spec.reference,
            Spec::DerivedImage(spec) => &spec.reference,
            Spec::Checkout(spec) => &spec.path,
            Spec::Home(spec) => &spec.path,
            Spec::Network(spec) => &spec.name,
            Spec::Certs(spec) => &spec.name,
            Spec::Sidecar(spec) => &spec.name,
            Spec::Capsule(spec) => &spec.name,
        }
    }

    pub fn fields(&self) -> Fields {
        match self {
            Spec::RoleRepo(spec) => fields(spec),
            Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) => fields(spec),
            Spec::Image(spec) => fields(spec),
            Spec::RoleImage(spec) => fields(spec),
            Spec::DerivedImage(spec) => fields(spec),
            Spec::Checkout(spec) => fields(spec),
            Spec::Home(spec) => fields(spec),
            Spec::Network(spec) => fields(spec),
            Spec::Certs(spec) => fields(spec),
            Spec::Sidecar(spec) => fields(spec),
            Spec::Capsule(spec) => fields(spec),
        }
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.fields())
    }
}

/// Docker labels; the one place where their names are spelled. See `reference/docker.md` §2, §3.
pub mod label {
    pub const MANAGED: &str = "jackin.managed";
    pub const KIND: &str = "jackin.kind";
    pub const ROLE: &str = "jackin.role";
    pub const CLASS: &str = "jackin.class";
    pub const DISPLAY_NAME: &str = "jackin.display.name";
    pub const IMAGE: &str = "jackin.image";
    pub const KEEP_AWAKE: &str = "jackin.keep.awake";
    pub const PREWARM: &str = "jackin.prewarm";
    /// The kind that kept sidecars, their networks and volumes bear.
    pub const KEPT: &str = "prewarm-dind";
    /// Ours: the address in the model.
    pub const ADDRESS: &str = "jackin.address";
    /// Ours: which jackin home made it.
    pub const INSTALLATION: &str = "jackin.installation";
    /// Ours: the spec as flat fields, JSON.
    pub const SPEC: &str = "jackin.spec";
    pub const FINGERPRINT: &str = "jackin.fingerprint";
}

/// The labels an object made from this spec bears.
pub fn labels(address: &Address, spec: &Spec, installation: &str) -> BTreeMap<String, String> {
    let spec_fields = spec.fields();
    let mut labels = BTreeMap::from([
        (label::MANAGED.to_owned(), "true".to_owned()),
        (label::INSTALLATION.to_owned(), installation.to_owned()),
        (label::FINGERPRINT.to_owned(), fingerprint(&spec_fields)),
        (label::SPEC.to_owned(), serde_json::to_string(&spec_fields).expect("BUG: fields always serialise")),
    ]);
    let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
    // A kept set belongs to nobody yet; whoever takes it over says so in its own record, for labels cannot be rewritten.
    if address.pool_id().is_some() {
        put(label::KIND, label::KEPT);
        put(label::PREWARM, "true");
        return labels;
    }
    put(label::ADDRESS, &address.to_string());
    match spec {
        Spec::Capsule(spec) => {
            put(label::KIND, "role");
            put(label::CLASS, &spec.role_key);
            put(label::DISPLAY_NAME, &spec.display_name);
            put(label::IMAGE, &spec.image);
            if spec.keep_awake {
                put(label::KEEP_AWAKE, "true");
            }
        }
        Spec::Sidecar(spec) => {
            put(label::KIND, "dind");
            put(label::ROLE, &spec.owner);
        }
        Spec::RoleImage(spec) => {
            put("jackin.role.git.sha", &spec.role_git_sha);
            put("jackin.construct.image", &spec.construct_image);
        }
        Spec::DerivedImage(spec) => {
            put("jackin.image.recipe.version", &spec.recipe.version);
            put("jackin.image.recipe.hash", &super::fingerprint(&fields(&spec.recipe)));
            put("jackin.role.git.sha", &spec.recipe.role_git_sha);
            put("jackin.manifest.version", &spec.recipe.manifest_version);
            put("jackin.construct.image", &spec.recipe.construct_image);
            put("jackin.capsule.version", &spec.recipe.capsule_version);
        }
        Spec::Network(spec) => {
            put(label::ROLE, &spec.owner);
        }
        Spec::Certs(spec) => {
            put(label::KIND, "dind");
            put(label::ROLE, &spec.owner);
        }
        Spec::RoleRepo(_) | Spec::AgentBinary(_) | Spec::CapsuleBinary(_) | Spec::Image(_) | Spec::Checkout(_) | Spec::Home(_) => {}
    }
    labels
}
