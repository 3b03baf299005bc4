//! The identity of this jackin home, which scopes names and labels on an engine shared with others.
//!
//! In: the jackin home. Out: 16 hex digits, made once. Absent: what they are used for.

use super::clock::random_hex;
use super::paths::{Paths, ensure_dir};
use super::{atomic, failure::io_failed};
use crate::diagnostic::Diagnostic;
use std::fs;
use std::io::ErrorKind;

pub fn installation(paths: &Paths) -> Result<String, Diagnostic> {
    let path = paths.installation();
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ensure_dir(&paths.data(), 0o755)?;
            atomic::create(&path, format!("{}\n", random_hex::<8>()?).as_bytes(), 0o644)?;
            // Read back: of several first runs at once, the one that came first has named the home.
            fs::read_to_string(&path)
        }
        read => read,
    };
    let text = text.map_err(|error| io_failed("read", &path, &error))?;
    let id = text.trim();
    if id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(id.to_owned());
    }
    let detail = format!("{} does not hold 16 hex digits", path.display());
    Err(Diagnostic::error("installation.invalid", "Installation id is damaged", detail)
        .help("restore the file from a backup; a new id would make existing containers look like somebody else's"))
}
