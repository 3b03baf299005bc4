//! The capsule's log file: lines in, a file of bounded size out. Absent: levels, formats, threads.
//! A line opens, appends and closes, so that init and mux may share the file. Nothing here waits or fails: sessions may
//! put anything in the file's place, and what they call themselves may be anything.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::dates::rfc3339;
use crate::{fault, file};

const MAX_LOG: u64 = 1 << 20;
/// Full files that are kept, the newest as `.log.1`.
const KEPT: u32 = 2;
/// More than that takes; whoever holds the lock for longer means no good.
const ROTATING: Duration = Duration::from_millis(50);

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
            let _ = file::make_dir(dir);
        }
        Self { path: path.to_owned(), who }
    }

    pub fn line(&self, text: &str) {
        if self.is_full() {
            self.rotate();
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(file::PRIVATE).custom_flags(file::NONBLOCK | file::NOFOLLOW);
        if let Ok(mut file) = options.open(&self.path)
            && file.metadata().is_ok_and(|meta| meta.is_file())
        {
            // In one piece, or the other's line comes between.
            let line = format!("{} {} {}: {}\n", rfc3339(unix_now()), self.who, std::process::id(), printable(text));
            let _ = file.write_all(line.as_bytes());
        }
    }

    fn is_full(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.len() > MAX_LOG)
    }

    /// Init and mux may come here at once: who gets the lock second finds a new file. Who never gets it writes on.
    fn rotate(&self) {
        let Ok(full) = file::open(&self.path) else { return };
        let mut tries = 0..ROTATING.as_millis();
        while full.try_lock().is_err() {
            if tries.next().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.is_full() {
            let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
            for number in (1..KEPT).rev() {
                let _ = fs::rename(numbered(number), numbered(number + 1));
            }
            let _ = fs::rename(&self.path, numbered(1));
        }
    }

    /// For what the operator should find in the container's own log as well.
    pub fn report(&self, text: &str) {
        self.line(text);
        self.tell_container(text);
    }

    /// Not by `eprintln!`, which panics when nobody reads: that would be the end of the container.
    fn tell_container(&self, text: &str) {
        let _ = writeln!(io::stderr(), "jackin-capsule {}: {}", self.who, printable(text));
    }

    /// From now on a panic, on whatever thread, is logged with its backtrace and ends the process with 101, unless it is
    /// contained.
    pub fn catch_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = std::backtrace::Backtrace::force_capture();
            log.line(&format!("{panic}\n{backtrace}"));
            log.tell_container(&panic.to_string());
            if !fault::is_contained() {
                std::process::exit(101);
            }
        }));
    }
}

/// Somebody will read it in a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !['\n', '\t'].contains(&c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_way_holds_up_a_line() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("multiplexer.log");
        let log = Log::new(&path, "test");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        log.line("into a pipe");
        fs::remove_file(&path).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        log.line("through a link");
        assert!(!elsewhere.exists());
        fs::remove_file(&path).unwrap();
        log.line("a \x1b[31mname\r\u{9b}\nof two lines");
        assert!(fs::read_to_string(&path).unwrap().ends_with(": a \u{fffd}[31mname\u{fffd}\u{fffd}\nof two lines\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Full, and somebody never gives the lock back.
        let held = OpenOptions::new().write(true).open(&path).unwrap();
        held.set_len(MAX_LOG + 1).unwrap();
        held.lock().unwrap();
        log.line("kept all the same");
        assert!(fs::read_to_string(&path).unwrap().ends_with("kept all the same\n"));
        drop(held);
        log.line("in the next file");
        assert!(fs::metadata(&path).unwrap().len() < 1000);
    }

    #[test]
    fn the_file_stays_bounded_whoever_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/multiplexer.log");
        let line = "x".repeat(10_000);
        std::thread::scope(|scope| {
            for who in ["one", "two"] {
                scope.spawn(|| (0..300).for_each(|_| Log::new(&path, who).line(&line)));
            }
        });
        let size = |name: &str| fs::metadata(dir.path().join("state").join(name)).map_or(0, |meta| meta.len());
        let sizes = ["multiplexer.log", "multiplexer.log.1", "multiplexer.log.2"].map(size);
        assert!(sizes.iter().all(|size| (10_000..MAX_LOG + 50_000).contains(size)), "{sizes:?}");
        assert!(sizes[1..].iter().all(|size| *size > MAX_LOG), "rotated before it was full: {sizes:?}");
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 3);
        assert!(fs::read_to_string(&path).unwrap().ends_with("x\n"));
    }
}
