//! The capsule's log file: lines in, a file of bounded size out. Absent: levels, formats, threads.
//! A line opens, appends and closes, so that init and mux may share the file and rotation needs no agreement.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mux::rfc3339;

const MAX_LOG: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
    who: &'static str,
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

impl Log {
    pub fn new(path: &Path, who: &'static str) -> Self {
        if let Some(dir) = path.parent() {
            // A log that cannot be written must not keep sessions from running.
            let _ = fs::create_dir_all(dir);
        }
        Self { path: path.to_owned(), who }
    }

    pub fn line(&self, text: &str) {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() > MAX_LOG) {
            let _ = fs::rename(&self.path, self.path.with_extension("log.1"));
        }
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&self.path) {
            let _ = writeln!(file, "{} {} {}: {text}", rfc3339(unix_now()), self.who, std::process::id());
        }
    }

    /// For what the operator should find in the container's own log as well.
    pub fn report(&self, text: &str) {
        self.line(text);
        eprintln!("jackin-capsule {}: {text}", self.who);
    }

    /// From now on a panic, in whatever task, is logged with its backtrace and ends the process with 101.
    pub fn catch_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = std::backtrace::Backtrace::force_capture();
            log.line(&format!("{panic}\n{backtrace}"));
            eprintln!("jackin-capsule {}: {panic}", log.who);
            std::process::exit(101);
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/multiplexer.log");
        let log = Log::new(&path, "test");
        let line = "x".repeat(100_000);
        for _ in 0..40 {
            log.line(&line);
        }
        let total: u64 = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!((MAX_LOG..3 * MAX_LOG).contains(&total), "{total}");
        assert!(fs::read_to_string(&path).unwrap().ends_with("x\n"));
    }
}
