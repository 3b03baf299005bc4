//! A refusal of the file system as a message to a person.
//!
//! In: what was tried, on which path, and the error. Out: a `Diagnostic` with a code per cause and the way out.
//! Absent: contents of files. Paths are absolute; who prints them shortens the home.

use crate::diagnostic::Diagnostic;
use std::io::{self, ErrorKind};
use std::path::Path;

/// `action` completes "could not …": `read`, `write`, `create the folder`.
pub fn io_failed(action: &str, path: &Path, error: &io::Error) -> Diagnostic {
    let (code, summary, reason, help) = match error.kind() {
        ErrorKind::NotFound => ("file.missing", "File not found", "it does not exist".to_owned(), "check the path"),
        ErrorKind::PermissionDenied => (
            "file.denied",
            "Permission denied",
            "permission denied".to_owned(),
            "give your user access to it, or point jackin at another folder",
        ),
        ErrorKind::NotADirectory => (
            "file.not_a_directory",
            "Not a directory",
            "part of the path is not a directory".to_owned(),
            "move the file away that is in the place of a folder",
        ),
        ErrorKind::IsADirectory => {
            ("file.is_a_directory", "Is a directory", "it is a directory".to_owned(), "move the folder away that is in the place of a file")
        }
        ErrorKind::ReadOnlyFilesystem => (
            "file.read_only",
            "Read-only file system",
            "the file system is read-only".to_owned(),
            "set JACKIN_HOME_DIR or JACKIN_CONFIG_DIR to a folder that can be written",
        ),
        ErrorKind::StorageFull => {
            ("file.disk_full", "Disk full", "no space is left on the disk".to_owned(), "free some space, then run the command again")
        }
        ErrorKind::QuotaExceeded => {
            ("file.disk_full", "Disk full", "the disk quota is used up".to_owned(), "free some space, then run the command again")
        }
        _ => ("file.failed", "File system error", error.to_string(), "see the reason above; nothing was left half-written"),
    };
    Diagnostic::error(code, summary, format!("could not {action} {}: {reason}", path.display())).help(help)
}
