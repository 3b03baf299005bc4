//! Running another program to its end.
//!
//! In: a command and a time limit. Out: its output, or how it failed as data. Absent: what the output means. A program that is
//! no longer waited for is killed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Bytes of a program's complaints that are kept.
const STDERR_KEPT: usize = 4096;

#[derive(Debug)]
pub enum Failure {
    Missing,
    TimedOut,
    /// It ran and said no; the end of its standard error.
    Refused {
        message: String,
    },
    Io(io::Error),
}

/// Where a program lies, by `PATH`.
pub fn find(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

pub fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Standard output, when the program succeeds within the limit.
pub async fn output(command: &mut Command, limit: Option<Duration>) -> Result<Vec<u8>, Failure> {
    // The program's name alone: arguments and environment may hold values.
    tracing::debug!(program = ?command.as_std().get_program(), "run");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing,
        _ => Failure::Io(error),
    })?;
    let done = child.wait_with_output();
    let output = match limit {
        Some(limit) => tokio::time::timeout(limit, done).await.map_err(|_| Failure::TimedOut)?,
        None => done.await,
    };
    let output = output.map_err(Failure::Io)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let kept = &output.stderr[output.stderr.len().saturating_sub(STDERR_KEPT)..];
    let message = match String::from_utf8_lossy(kept).trim() {
        "" => output.status.to_string(),
        text => text.to_owned(),
    };
    Err(Failure::Refused { message })
}
