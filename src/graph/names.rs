//! Names of Docker objects and folders, all chosen here. Bounded lengths, a hash tail where something is cut.
//! Source: `reference/docker.md` §1.

use crate::resource::Kind;
use sha2::{Digest, Sha256};

/// No i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_LENGTH: usize = 8;
/// `<base>-dind` must fit a DNS label of 63.
const BASE_LIMIT: usize = 58;

/// Id of a declared instance: the same for the same home, workspace and instance, so that no state file is needed to find it.
pub fn declared_id(installation: &str, instance: &str) -> String {
    id_of(&format!("declared\n{installation}\n{instance}"))
}

/// Id of a new, undeclared instance; `seed` is fresh in every run.
pub fn fresh_id(installation: &str, seed: &str, instance_label: &str) -> String {
    id_of(&format!("fresh\n{installation}\n{seed}\n{instance_label}"))
}

fn id_of(text: &str) -> String {
    let hash = Sha256::digest(text);
    let bits = hash[..5].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..ID_LENGTH).map(|i| ALPHABET[(bits >> (5 * i) & 31) as usize] as char).collect()
}

/// `jk-<id>-<workspace>-<role>`, or `jk-<id>-<role>` without a workspace.
pub fn container_base(id: &str, workspace: Option<&str>, role: &str) -> String {
    let role_name = role.rsplit('/').next().unwrap_or(role);
    let role = compact(role_name, "role");
    let room = BASE_LIMIT - "jk-".len() - ID_LENGTH - "-".len();
    let Some(workspace) = workspace else {
        return format!("jk-{id}-{}", cut(&role, room));
    };
    let workspace = compact(workspace, "workspace");
    let room = room - "-".len();
    // Each may use what the other leaves free.
    let (for_workspace, for_role) = if workspace.len() + role.len() <= room {
        (workspace.len(), role.len())
    } else {
        let half = room / 2;
        if workspace.len() <= half {
            (workspace.len(), room - workspace.len())
        } else if role.len() <= room - half {
            (room - role.len(), role.len())
        } else {
            (half, room - half)
        }
    };
    format!("jk-{id}-{}-{}", cut(&workspace, for_workspace), cut(&role, for_role))
}

pub fn sidecar(base: &str) -> String {
    format!("{base}-dind")
}

pub fn network(base: &str) -> String {
    format!("{base}-net")
}

pub fn certs(base: &str) -> String {
    format!("{base}-dind-certs")
}

/// Base name of a set that is kept for adoption.
pub fn pool_base(id: &str) -> String {
    format!("{POOL_PREFIX}{id}")
}

/// Id of a set that goes as soon as it has come up. Its name says so, lest somebody takes it over while it goes.
pub fn tried_id(id: &str) -> String {
    format!("{TRIED}{id}")
}

pub fn is_tried(id: &str) -> bool {
    id.starts_with(TRIED)
}

const TRIED: &str = "try-";
const POOL_PREFIX: &str = "jk-prewarm-dind-";
const POOL_CERTS: &str = "-certs";

pub fn pool_certs(base: &str) -> String {
    format!("{base}{POOL_CERTS}")
}

/// The id in the name of a kept sidecar, network or volume.
pub fn pool_id(kind: Kind, name: &str) -> Option<&str> {
    let suffix = match kind {
        Kind::Sidecar => "-dind",
        Kind::Network => "-net",
        Kind::Certs => POOL_CERTS,
        _ => return None,
    };
    name.strip_prefix(POOL_PREFIX)?.strip_suffix(suffix).filter(|id| !id.is_empty())
}

/// `jk_<role>` or `jk_<ns>_<role>`, with a branch suffix when one is asked for.
pub fn image_repository(role: &str, branch: Option<&str>) -> String {
    let mut name = format!("jk_{}", role.replace('/', "_"));
    if let Some(branch) = branch {
        let slug: String =
            branch.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' }).collect();
        let slug = slug.trim_matches(['-', '.']);
        // Different branches may slug alike; Docker also refuses most punctuation.
        let tail = &crate::resource::sha256_hex(branch)[..4];
        name.push_str(&format!("_{}-{tail}", if slug.is_empty() { "branch" } else { &slug[..slug.len().min(80)] }));
    }
    name
}

pub fn derived_image(role: &str, branch: Option<&str>, commit: &str) -> String {
    format!("{}:{}", image_repository(role, branch), short_commit(commit))
}

pub fn role_image(role: &str, branch: Option<&str>, commit: &str) -> String {
    format!("{}__base:{}", image_repository(role, branch), short_commit(commit))
}

pub fn short_commit(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Lower-case ASCII letters and digits only.
fn compact(text: &str, fallback: &str) -> String {
    let out: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if out.is_empty() { fallback.to_owned() } else { out }
}

/// At most `limit` characters; a cut name ends in four hex digits of the whole name's hash.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let tail = &crate::resource::sha256_hex(text)[..4];
    if limit <= 4 { tail[..limit].to_owned() } else { format!("{}{tail}", &text[..limit - 4]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        let long = "a-very-long-workspace-name-that-nobody-should-use-but-somebody-will";
        let other = "a-very-long-workspace-name-that-nobody-should-use-but-someone-does";
        for workspace in [long, "w", "", "日本語"] {
            for role in [long, "ns/role", "r"] {
                let base = container_base("0123abcd", Some(workspace), role);
                assert!(sidecar(&base).len() <= 63, "{base}");
                assert!(base.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{base}");
            }
        }
        assert_ne!(container_base("0123abcd", Some(long), "r"), container_base("0123abcd", Some(other), "r"));
        assert_eq!(container_base("0123abcd", Some("My App"), "acme/the-architect"), "jk-0123abcd-myapp-thearchitect");
        assert_eq!(container_base("0123abcd", None, "agent-smith"), "jk-0123abcd-agentsmith");
    }

    /// Trap: when only one of the two is long, the other's room was lost.
    #[test]
    fn a_short_part_leaves_its_room_to_the_long_one() {
        let base = container_base("0123abcd", Some("w"), "abcdefghijabcdefghijabcdefghijabcdefghij");
        assert!(base.ends_with("abcdefghijabcdefghijabcdefghijabcdefghij"), "{base}");
    }

    /// Trap: a `+` or `#` in a branch gave an invalid image name.
    #[test]
    fn a_branch_makes_a_valid_image_name() {
        for branch in ["feat/a+b", "#1", "Ünïcode", "a..b", "-"] {
            let name = derived_image("ns/role", Some(branch), "0123456789abcdef");
            let repository = name.split(':').next().unwrap();
            assert!(repository.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)), "{name}");
            assert!(name.ends_with(":0123456"));
        }
        assert_ne!(image_repository("r", Some("a/b")), image_repository("r", Some("a-b")));
    }

    #[test]
    fn ids_use_the_alphabet_and_differ() {
        let id = declared_id("home", "app/default");
        assert_eq!(id.len(), ID_LENGTH);
        assert!(id.bytes().all(|b| ALPHABET.contains(&b)));
        assert_ne!(id, declared_id("other", "app/default"));
        assert_ne!(fresh_id("home", "1", "app"), fresh_id("home", "2", "app"));
    }
}
