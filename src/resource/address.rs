//! The stable name of a resource: `kind/name`. Parse, display, order. What exists under a name is not known here.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// First half of the addresses of kept sidecars, their networks and volumes; `@` begins no workspace's and no folder's name.
pub const POOL: &str = "@prewarm";

/// The closed set of kinds, roughly in dependency order; the order of a plan follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    RoleRepo,
    AgentBinary,
    CapsuleBinary,
    Image,
    RoleImage,
    DerivedImage,
    Checkout,
    Home,
    Network,
    Certs,
    Sidecar,
    Capsule,
}

impl Kind {
    pub const ALL: [Kind; 12] = [
        Kind::RoleRepo,
        Kind::AgentBinary,
        Kind::CapsuleBinary,
        Kind::Image,
        Kind::RoleImage,
        Kind::DerivedImage,
        Kind::Checkout,
        Kind::Home,
        Kind::Network,
        Kind::Certs,
        Kind::Sidecar,
        Kind::Capsule,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::RoleRepo => "role-repo",
            Kind::AgentBinary => "agent-binary",
            Kind::CapsuleBinary => "capsule-binary",
            Kind::Image => "image",
            Kind::RoleImage => "role-image",
            Kind::DerivedImage => "derived-image",
            Kind::Checkout => "checkout",
            Kind::Home => "home",
            Kind::Network => "network",
            Kind::Certs => "certs",
            Kind::Sidecar => "sidecar",
            Kind::Capsule => "capsule",
        }
    }

    /// Kinds of which every instance has its own; their address name is the instance key `workspace/name`.
    pub fn per_instance(self) -> bool {
        matches!(self, Kind::Checkout | Kind::Home | Kind::Network | Kind::Certs | Kind::Sidecar | Kind::Capsule)
    }

    /// Kinds that an engine holds; the others lie on this host.
    pub fn on_engine(self) -> bool {
        !matches!(self, Kind::RoleRepo | Kind::AgentBinary | Kind::CapsuleBinary | Kind::Checkout | Kind::Home)
    }

    pub fn is_container(self) -> bool {
        matches!(self, Kind::Sidecar | Kind::Capsule)
    }

    /// The public stage name under which progress shows this kind.
    pub fn stage(self) -> &'static str {
        match self {
            Kind::RoleRepo => "role",
            Kind::AgentBinary | Kind::CapsuleBinary => "agent binaries",
            Kind::Image | Kind::RoleImage => "construct",
            Kind::DerivedImage => "derived image",
            Kind::Checkout | Kind::Home => "workspace",
            Kind::Network => "network",
            Kind::Certs | Kind::Sidecar => "sidecar",
            Kind::Capsule => "capsule",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub kind: Kind,
    /// Not empty; may contain `/` (a role key, an instance key, an image reference).
    pub name: String,
}

impl Address {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The instance this belongs to, `workspace/name`.
    pub fn instance(&self) -> Option<&str> {
        match self.kind {
            Kind::Checkout => self.name.split_once(':').map(|(instance, _)| instance),
            kind if kind.per_instance() => Some(&self.name),
            _ => None,
        }
    }

    /// A part of a kept set, which belongs to no instance.
    pub fn pool(kind: Kind, id: &str) -> Self {
        Self::new(kind, format!("{POOL}/{id}"))
    }

    /// The id of the kept set this is a part of.
    pub fn pool_id(&self) -> Option<&str> {
        self.instance().and_then(pool_id)
    }
}

/// The id in an instance key that is none.
pub fn pool_id(key: &str) -> Option<&str> {
    key.strip_prefix(POOL)?.strip_prefix('/')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.kind.as_str(), self.name))
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an address; write KIND/NAME with KIND one of {kinds}", kinds = kinds())]
pub struct ParseAddressError(pub String);

fn kinds() -> String {
    Kind::ALL.map(Kind::as_str).join(", ")
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.to_owned());
        let (kind, name) = text.split_once('/').ok_or_else(error)?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(error)?;
        if name.trim().is_empty() || name.trim() != name || name.chars().any(char::is_control) {
            return Err(error());
        }
        Ok(Address::new(kind, name))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": format!("^({})/\\S", Kind::ALL.map(Kind::as_str).join("|")) })
    }
}
