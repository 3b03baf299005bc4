//! Programs as files, and running one to its end.
//!
//! In: a file; a command and a time limit. Out: what machine it is for; its output, or how it failed as data. Absent: what the output
//! means. A program that is no longer waited for is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
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

/// The machine that a program is for, by Docker's name where Docker has one; `None`: a script, which runs on every one, or no program at
/// all.
pub fn built_for(file: &Path) -> Option<String> {
    let mut head = Vec::with_capacity(20);
    File::open(file).and_then(|file| file.take(20).read_to_end(&mut head)).ok()?;
    machine(&head)
}

/// By the head of an ELF or Mach-O file.
fn machine(head: &[u8]) -> Option<String> {
    if let [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] = head {
        return Some("macOS".to_owned());
    }
    let (true, Some(&[low, high])) = (head.starts_with(b"\x7fELF"), head.get(18..20)) else { return None };
    // The fifth byte after the name tells the order of the others.
    let machine = if head[5] == 2 { u16::from_be_bytes([low, high]) } else { u16::from_le_bytes([low, high]) };
    Some(match machine {
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        3 => "386".to_owned(),
        40 => "arm".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("ELF machine {other}"),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_what_it_is_for() {
        let elf = |order: u8, machine: [u8; 2]| {
            let mut head = [0; 20];
            head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order]);
            head[18..].copy_from_slice(&machine);
            head.to_vec()
        };
        let check = |head: &[u8], wanted: Option<&str>| assert_eq!(machine(head).as_deref(), wanted, "{head:?}");
        check(&elf(1, [62, 0]), Some("amd64"));
        check(&elf(1, [183, 0]), Some("arm64"));
        check(&elf(1, [3, 0]), Some("386"));
        check(&elf(2, [0, 22]), Some("ELF machine 22"));
        check(&elf(1, [62, 0])[..19], None);
        check(b"#!/bin/sh\nexec something\n", None);
        check(b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01", Some("macOS"));
        check(b"", None);
        assert_eq!(built_for(Path::new("/nonexistent")), None);
        let own = std::env::current_exe().unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(built_for(&own).as_deref(), Some(super::super::binaries::host_arch().as_str()));
        }
    }
}
