//! What is to be done to one resource, and why: closed enums, each variant with exactly its own data. Words are rendered elsewhere.

use crate::resource::{Address, Kind, Rung};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Reuse,
    Adopt,
    Create,
    Update,
    Start,
    Restart,
    Replace,
    Remove,
    /// No longer kept track of; nothing is touched.
    Forget,
    Pull,
    Build,
    Rebuild,
    Download,
    Fetch,
    Repair,
}

impl Action {
    pub const ALL: [Action; 15] = [
        Action::Reuse,
        Action::Adopt,
        Action::Create,
        Action::Update,
        Action::Start,
        Action::Restart,
        Action::Replace,
        Action::Remove,
        Action::Forget,
        Action::Pull,
        Action::Build,
        Action::Rebuild,
        Action::Download,
        Action::Fetch,
        Action::Repair,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Reuse => "reuse",
            Action::Adopt => "adopt",
            Action::Create => "create",
            Action::Update => "update",
            Action::Start => "start",
            Action::Restart => "restart",
            Action::Replace => "replace",
            Action::Remove => "remove",
            Action::Forget => "forget",
            Action::Pull => "pull",
            Action::Build => "build",
            Action::Rebuild => "rebuild",
            Action::Download => "download",
            Action::Fetch => "fetch",
            Action::Repair => "repair",
        }
    }

    /// Two columns wide at most; the legend of a plan lists those that occur.
    pub fn symbol(self) -> &'static str {
        match self {
            Action::Reuse => "=",
            Action::Adopt => "<=",
            Action::Create | Action::Pull | Action::Build | Action::Download => "+",
            Action::Update | Action::Fetch | Action::Repair => "~",
            Action::Start | Action::Restart => ">",
            Action::Replace | Action::Rebuild => "-/+",
            Action::Remove => "-",
            Action::Forget => "x",
        }
    }

    /// True when applying it destroys what existed.
    pub fn destructive(self) -> bool {
        matches!(self, Action::Replace | Action::Remove)
    }

    /// Where it stands on the ladder, for `considered`; `None` for actions that are not on it.
    pub fn rung(self) -> Option<Rung> {
        match self {
            Action::Reuse => Some(Rung::Reuse),
            Action::Update | Action::Fetch | Action::Repair => Some(Rung::Update),
            Action::Start | Action::Restart => Some(Rung::Restart),
            Action::Replace => Some(Rung::Replace),
            Action::Rebuild | Action::Download => Some(Rung::Rebuild),
            Action::Adopt | Action::Create | Action::Remove | Action::Forget | Action::Pull | Action::Build => None,
        }
    }

    /// The action that carries out a rung for a kind.
    pub fn for_rung(kind: Kind, rung: Rung) -> Action {
        match rung {
            Rung::Reuse => Action::Reuse,
            Rung::Update if kind == Kind::RoleRepo => Action::Fetch,
            Rung::Update if matches!(kind, Kind::AgentBinary | Kind::CapsuleBinary) => Action::Repair,
            Rung::Update => Action::Update,
            Rung::Restart => Action::Start,
            Rung::Replace => Action::Replace,
            Rung::Rebuild if matches!(kind, Kind::AgentBinary | Kind::CapsuleBinary) => Action::Download,
            Rung::Rebuild => Action::Rebuild,
        }
    }
}

/// Why. Only `Reuse` may come without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reason {
    /// Nothing of that name exists.
    Missing,
    /// The configuration asks for another value than the one it was made from.
    FieldChanged { field: String, recorded: Option<Value>, desired: Option<Value> },
    /// Somebody changed it behind jackin's back.
    Drifted { field: String, recorded: Option<Value>, live: Option<Value> },
    /// It exists, but does not say what it was made from.
    LabelMissing { label: String },
    /// Something it is built on is made anew.
    DependencyReplaced { address: Address },
    /// A person asked for it by a flag.
    Requested { flag: String },
    /// It is ours, but no workspace declares it.
    NotDeclared,
    /// Something that fits is there already.
    Adoptable { from: String },
    /// It exists but does not work.
    Unhealthy { state: String },
    /// There is more than one of it.
    Duplicate { kept: String },
    /// The image it was made from has been replaced under the same name.
    ImageChanged { recorded: String, live: String },
    /// Its container is removed, and it belongs to nothing else.
    OwnerRemoved { address: Address },
    /// A cached file lost its run bit.
    NotExecutable,
    /// Nothing is cached: the vendor's installer runs in the build.
    NotCached,
    /// Nothing that is made now is built on it.
    NotNeeded,
    /// Why a cheaper action is out: there is nothing to do it to.
    Absent,
    /// Why adoption is out: this field of the candidate differs.
    Mismatch { candidate: String, field: String, desired: Option<Value>, found: Option<Value> },
    /// Why adoption is out: nothing to adopt.
    NoCandidate,
}

impl Reason {
    /// The field it is about, where it is about one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Reason::FieldChanged { field, .. } | Reason::Drifted { field, .. } | Reason::Mismatch { field, .. } => Some(field),
            _ => None,
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::FieldChanged { .. } => "field_changed",
            Reason::Drifted { .. } => "drifted",
            Reason::LabelMissing { .. } => "label_missing",
            Reason::DependencyReplaced { .. } => "dependency_replaced",
            Reason::Requested { .. } => "requested",
            Reason::NotDeclared => "not_declared",
            Reason::Adoptable { .. } => "adoptable",
            Reason::Unhealthy { .. } => "unhealthy",
            Reason::Duplicate { .. } => "duplicate",
            Reason::ImageChanged { .. } => "image_changed",
            Reason::OwnerRemoved { .. } => "owner_removed",
            Reason::NotExecutable => "not_executable",
            Reason::NotCached => "not_cached",
            Reason::NotNeeded => "not_needed",
            Reason::Absent => "absent",
            Reason::Mismatch { .. } => "mismatch",
            Reason::NoCandidate => "no_candidate",
        }
    }
}

/// A cheaper action that was looked at, and what ruled it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Considered {
    pub action: Action,
    pub ruled_out_by: Reason,
}
