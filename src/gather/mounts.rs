//! What lies at the host paths that mounts name.
//!
//! In: absolute paths. Out: a `PathFact` for each. Absent: whether a mount may use it.

use crate::facts::{PathFact, PathKind};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

pub fn path_facts<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, PathFact> {
    paths.into_iter().map(|path| (path.to_owned(), path_fact(path))).collect()
}

/// Where symlinks cannot be resolved, `canonical` is the path as given.
pub fn path_fact(path: &str) -> PathFact {
    let kind = match fs::metadata(path) {
        Ok(found) if found.is_dir() => PathKind::Directory,
        Ok(found) if found.is_file() => PathKind::File,
        Ok(_) => PathKind::Other,
        Err(error) => match error.kind() {
            // A dangling symlink counts as missing as well: a mount of it would fail the same way.
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput => PathKind::Missing,
            _ => PathKind::Unreadable,
        },
    };
    let resolved = fs::canonicalize(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    PathFact { kind, canonical: resolved.unwrap_or_else(|| path.to_owned()) }
}
