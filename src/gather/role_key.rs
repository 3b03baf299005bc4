//! The key of a role: `name` or `ns/name`.
//!
//! In: text from a person or a file. Out: a key that is safe to build paths from. Absent: which roles exist.

use crate::diagnostic::Diagnostic;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleKey(String);

impl RoleKey {
    pub fn parse(text: &str) -> Result<RoleKey, Diagnostic> {
        let refused = |detail: String, help: &str| Err(Diagnostic::error("role.key_invalid", "Invalid role name", detail).help(help));
        let key = text.to_ascii_lowercase();
        let parts: Vec<&str> = key.split('/').collect();
        let well_formed = |part: &&str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if parts.len() > 2 || !parts.iter().all(well_formed) {
            return refused(format!("`{text}` is not a role"), "write `name` or `namespace/name`, with letters, digits and `-`");
        }
        if parts.len() == 1 && key.starts_with("jk-") {
            return refused(format!("`{text}` is the name of a container"), "names starting with `jk-` are kept for containers");
        }
        if parts.len() == 2 && matches!(parts[1], "default" | "branches") {
            // The clone of role `ns` lies in `roles/ns/default`, and the original's branch clones in `roles/ns/branches`.
            return refused(format!("`{text}` would lie inside the clone of the role `{}`", parts[0]), "give the role another name");
        }
        Ok(RoleKey(key))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as one file name. `_` is not in the alphabet of keys, so two keys never share a slug.
    pub fn slug(&self) -> String {
        self.0.replace('/', "_")
    }
}

impl fmt::Display for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
