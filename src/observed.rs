//! A snapshot of what exists, possibly old: own types, labels parsed, duplicates and strangers kept.
//!
//! In: nothing (a provider fills it, or a file holds it). Out: plain values for `plan`. Absent: bollard types, credentials
//! (live env values appear as keyed digests), and any opinion on what should be done.

use crate::facts::Arch;
use crate::resource::{Address, Fields, Kind, fingerprint, sha256_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const OBSERVED_FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    pub format_version: u32,
    /// `None`: no engine was asked (offline).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Ours, by address. More than one entry = duplicates.
    #[serde(default)]
    pub resources: BTreeMap<Address, Vec<Found>>,
    /// Not ours, but under a name that a resource of the graph wants.
    #[serde(default)]
    pub strangers: BTreeMap<Address, Stranger>,
    /// Kept sets that no instance has taken over, by id: whole ones, and what is left of others.
    #[serde(default)]
    pub pool: Vec<PoolMember>,
}

impl Observed {
    /// Nothing exists, nobody was asked.
    pub fn empty() -> Self {
        Self { format_version: OBSERVED_FORMAT, engine: None, resources: BTreeMap::new(), strangers: BTreeMap::new(), pool: Vec::new() }
    }

    pub fn found(&self, address: &Address) -> &[Found] {
        match address.pool_id() {
            Some(id) => self.pool.iter().find(|member| member.id == id).map_or(&[], |member| member.parts(address.kind)),
            None => self.resources.get(address).map_or(&[], Vec::as_slice),
        }
    }

    /// Identity of the snapshot, for comparing what a plan rests on.
    pub fn digest(&self) -> String {
        sha256_json(self)
    }
}

/// Facts about the engine that planning needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Such as `1.41`.
    pub api_version: String,
    /// What its programs were looked up for; absent in older snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
}

/// One thing that exists and is ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// What the provider needs to act on it: a Docker id, a volume name, an image id, a path.
    pub id: String,
    /// The name it bears now.
    pub name: String,
    /// The spec it was made from; `None` = it bears none that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Fields>,
    /// The declared fields that could be checked on the living thing, under the names of `recorded`. A field that is absent
    /// here could not be checked.
    #[serde(default)]
    pub live: Fields,
    pub state: State,
    /// Something of ours is attached to it (networks, volumes); decides which of two duplicates stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
    #[serde(default, skip_serializing_if = "Loss::is_unknown")]
    pub loss: Loss,
    /// Image id a container was made from, to be compared with the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
}

impl State {
    pub fn word(&self) -> String {
        match self {
            State::Present => "present".to_owned(),
            State::Running => "running".to_owned(),
            State::Silent => "running, but its Docker does not answer".to_owned(),
            State::Created => "created, never started".to_owned(),
            State::Paused => "paused".to_owned(),
            State::Restarting => "restarting".to_owned(),
            State::Exited { oom: true, .. } => "killed: out of memory".to_owned(),
            State::Exited { code, .. } => format!("exited with code {code}"),
            State::Dead => "dead".to_owned(),
            State::Removing => "being removed".to_owned(),
        }
    }
}

impl Found {
    /// A thing that has no life of its own and is in nobody's way.
    pub fn present(id: &str, name: &str, recorded: Option<Fields>, live: Fields) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            recorded,
            live,
            state: State::Present,
            in_use: false,
            loss: Loss::default(),
            image_id: None,
        }
    }

    pub fn recorded_fingerprint(&self) -> Option<String> {
        self.recorded.as_ref().map(fingerprint)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// Exists; it has no life of its own (image, volume, network, file).
    Present,
    Running,
    /// A kept sidecar that runs, and whose Docker was asked and did not answer.
    Silent,
    Created,
    Paused,
    Restarting,
    Exited {
        code: i64,
        oom: bool,
    },
    Dead,
    Removing,
}

/// What removing it would destroy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Live sessions of a capsule; `Some(0)` = asked and none; `None` = could not be asked, or not a capsule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// It runs and nobody could tell how many sessions live in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sessions_unknown: bool,
    /// The private Docker daemon's images, containers and volumes go with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub docker_data: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncommitted_files: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpushed_commits: Option<u32>,
    /// Bytes of a volume or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl Loss {
    /// Nobody looked. Not the same as having looked and found nothing, which is written down too.
    fn is_unknown(&self) -> bool {
        *self == Loss::default()
    }

    pub fn is_nothing(&self) -> bool {
        self.sessions.unwrap_or(0) == 0
            && !self.sessions_unknown
            && !self.docker_data
            && self.uncommitted_files.unwrap_or(0) == 0
            && self.unpushed_commits.unwrap_or(0) == 0
            && self.bytes.unwrap_or(0) == 0
    }
}

/// In our way but not ours; never touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stranger {
    pub id: String,
    pub name: String,
    /// Why it is not ours: `it has no jackin label`, `another jackin home made it`.
    pub why: String,
}

/// A prewarmed sidecar with its network and certificate volume, claimed by no instance. A whole one has one of each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolMember {
    /// What its names have in common.
    pub id: String,
    /// Another jackin is making, adopting or removing it right now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    #[serde(default)]
    pub sidecar: Vec<Found>,
    #[serde(default)]
    pub network: Vec<Found>,
    #[serde(default)]
    pub certs: Vec<Found>,
}

impl PoolMember {
    pub fn parts(&self, kind: Kind) -> &[Found] {
        match kind {
            Kind::Sidecar => &self.sidecar,
            Kind::Network => &self.network,
            Kind::Certs => &self.certs,
            _ => &[],
        }
    }
}

/// Parts that were found, put together to sets by id. What a person would miss of them is nothing: nobody uses them yet.
pub fn pool(parts: impl IntoIterator<Item = (String, Kind, Found)>) -> Vec<PoolMember> {
    let mut members: BTreeMap<String, PoolMember> = BTreeMap::new();
    for (id, kind, found) in parts {
        let member = members.entry(id.clone()).or_insert_with(|| PoolMember { id, ..PoolMember::default() });
        let list = match kind {
            Kind::Sidecar => &mut member.sidecar,
            Kind::Network => &mut member.network,
            _ => &mut member.certs,
        };
        list.push(Found { loss: Loss::default(), ..found });
        list.sort_by(|a, b| a.id.cmp(&b.id));
    }
    members.into_values().collect()
}
