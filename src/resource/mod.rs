//! What one managed thing should be: a closed enum with one variant per kind, each holding exactly its own data.
//!
//! In: nothing. Out: specs that serialise, flatten to fields and have a fingerprint. Absent: credentials (references and keyed
//! digests stand for them), Docker's inventions (ids, addresses), and any knowledge of what exists.

mod address;
mod fingerprint;
mod spec;

pub use address::{Address, Kind, POOL, ParseAddressError, pool_id};
pub use fingerprint::{Fields, fields, fingerprint, hex, sha256_hex, sha256_json};
pub use spec::*;

/// The field of a home that makes its instance a spare.
pub const HOLD: &str = "agent_toml.hold";

use serde::{Deserialize, Serialize};

/// How much has to happen to change a field; a lower rung is cheaper and loses less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    Reuse,
    /// In place, without a stop.
    Update,
    /// The process stops and starts; the container stays.
    Restart,
    /// The thing is removed and made again.
    Replace,
    /// An artifact is made anew.
    Rebuild,
}

/// The rung that a difference in this field of this kind needs. Fields are named as `fields` flattens them.
pub fn rung_of(kind: Kind, field: &str) -> Rung {
    match kind {
        Kind::RoleRepo | Kind::Home | Kind::Checkout => Rung::Update,
        // A run bit is given back; other content has to be fetched.
        Kind::AgentBinary | Kind::CapsuleBinary if field == "executable" => Rung::Update,
        Kind::AgentBinary | Kind::CapsuleBinary => Rung::Rebuild,
        Kind::Image | Kind::RoleImage | Kind::DerivedImage => Rung::Rebuild,
        Kind::Network | Kind::Certs => Rung::Replace,
        Kind::Sidecar | Kind::Capsule => match field {
            // Docker renames, reconnects and re-limits a living container.
            "name" | "network" | "limits.memory" | "limits.memory_reservation" | "limits.cpus" | "limits.pids" => Rung::Update,
            _ => Rung::Replace,
        },
    }
}
