//! Schema versions: their grammar and order, and which are read.
//!
//! In: the `version` field. Out: `Version`. Absent: rewriting old files (`write.rs`).

use super::reader::{Table, quote};
use std::fmt;
use toml::de::DeValue;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Alpha,
    Beta,
    Stable,
}

/// `v1alpha9` and the like. A file without one is `LEGACY`, older than all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub stage: Stage,
    pub number: u32,
}

pub const LEGACY: Version = Version { major: 0, stage: Stage::Alpha, number: 0 };

pub const fn alpha(number: u32) -> Version {
    Version { major: 1, stage: Stage::Alpha, number }
}

/// What this program writes. Prose about the original still says `v1alpha8` for the first.
pub const GLOBAL_VERSION: Version = alpha(9);
pub const WORKSPACE_VERSION: Version = alpha(8);
pub const ROLE_VERSION: Version = alpha(6);

/// The first workspace version whose 1Password references carry their own account.
pub const OP_ACCOUNT_MOVED: Version = alpha(5);

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        let rest = text.strip_prefix('v')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let major = whole(&rest[..digits])?;
        let (stage, number) = match &rest[digits..] {
            "" => (Stage::Stable, 0),
            tail => match (tail.strip_prefix("alpha"), tail.strip_prefix("beta")) {
                (Some(n), _) => (Stage::Alpha, whole(n)?),
                (_, Some(n)) => (Stage::Beta, whole(n)?),
                _ => return None,
            },
        };
        Some(Version { major, stage, number })
    }
}

/// At least 1, no leading zero.
fn whole(text: &str) -> Option<u32> {
    (text.starts_with(|c: char| ('1'..='9').contains(&c)) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            _ if *self == LEGACY => write!(f, "legacy"),
            Stage::Alpha => write!(f, "v{}alpha{}", self.major, self.number),
            Stage::Beta => write!(f, "v{}beta{}", self.major, self.number),
            Stage::Stable => write!(f, "v{}", self.major),
        }
    }
}

/// `None` after a report: then nothing else in the file can be trusted to mean what it seems to.
pub fn read_version(table: &Table<'_>, newest: Version) -> Option<Version> {
    let Some((_, value)) = table.get("version") else {
        return Some(LEGACY);
    };
    let DeValue::String(text) = value.get_ref() else {
        table.reader.wrong_type("version", value, "a string", &format!("write `version = \"{newest}\"`"));
        return None;
    };
    let Some(version) = Version::parse(text) else {
        table.reader.error(
            value.span(),
            "version",
            "A schema version is malformed",
            format!("`version` is `{}`", quote(text)),
            format!("the newest version is `{newest}`; remove the line if the file never had one"),
        );
        return None;
    };
    if version > newest {
        table.reader.error(
            value.span(),
            "version_too_new",
            "A file was written for a newer jackin",
            format!("its schema is `{version}`; this jackin reads up to `{newest}`"),
            "upgrade jackin",
        );
        return None;
    }
    Some(version)
}
