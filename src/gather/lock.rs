//! Locks between processes: `flock` on a file that names its holder.
//!
//! In: the path of the lock, what it guards in words, and whom to tell about waiting. Out: a `Lock`, released when dropped or
//! when the process dies in any way. Absent: which lock guards what; that is `paths.rs`.
//!
//! Waiting is polling, so that it can be cancelled by dropping the future. Lock files stay: removing one while another process
//! waits on it would give both the lock. `Lock::remove` is the exception that is safe, because waiters look again.

use super::failure::io_failed;
use super::paths::ensure_dir;
use crate::diagnostic::Diagnostic;
use fs4::{FileExt, TryLockError};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// How long readers and writers of the configuration wait for each other.
pub const CONFIG_TIMEOUT: Duration = Duration::from_secs(5);

/// Told once per wait, such as "waiting for the role agent-smith, held by PID 4711".
pub type Notice<'a> = &'a (dyn Fn(&str) + Send + Sync);

#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Alone. `guards` completes "waiting for …". Without a `timeout` it waits as long as the holder lives.
    pub async fn exclusive(path: &Path, guards: &str, timeout: Option<Duration>, notice: Notice<'_>) -> Result<Lock, Diagnostic> {
        if let Some(dir) = path.parent() {
            ensure_dir(dir, 0o755)?;
        }
        let mut lock = wait(path, guards, timeout, notice, true).await?.ok_or_else(|| gone(path))?;
        lock.sign().map_err(|error| io_failed("write", path, &error))?;
        Ok(lock)
    }

    /// Together with other readers. `None` when nobody ever locked this: a reader creates nothing.
    pub async fn shared(path: &Path, guards: &str, timeout: Option<Duration>, notice: Notice<'_>) -> Result<Option<Lock>, Diagnostic> {
        wait(path, guards, timeout, notice, false).await
    }

    /// Alone and at once, or `None` when somebody else has it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>, Diagnostic> {
        if let Some(dir) = path.parent() {
            ensure_dir(dir, 0o755)?;
        }
        let mut lock = attempt(path, true)?;
        if let Attempt::Got(lock) = &mut lock {
            lock.sign().map_err(|error| io_failed("write", path, &error))?;
        }
        Ok(match lock {
            Attempt::Got(lock) => Some(lock),
            Attempt::Held | Attempt::Replaced | Attempt::Absent => None,
        })
    }

    /// Does anybody hold it, however?
    pub fn is_held(path: &Path) -> bool {
        matches!(attempt(path, false), Ok(Attempt::Held))
    }

    /// The lock as the standard input of a program, which then holds it too: if jackin is killed, the lock is free only when
    /// the program has ended. Reading from it gives end-of-file at once, for the position is behind the last byte.
    pub fn as_stdin(&self) -> Result<Stdio, Diagnostic> {
        let file = self.file.try_clone().map_err(|error| io_failed("share the lock", &self.path, &error))?;
        Ok(Stdio::from(file))
    }

    /// Releases and deletes the lock of something that exists no more.
    pub fn remove(self) -> Result<(), Diagnostic> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io_failed("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }

    /// Our number, for the message of those who wait.
    fn sign(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// The number in a lock file; of a holder that was killed, if nobody took the lock since.
pub fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

enum Attempt {
    Got(Lock),
    Held,
    /// The file was removed between opening and locking it.
    Replaced,
    Absent,
}

fn attempt(path: &Path, exclusive: bool) -> Result<Attempt, Diagnostic> {
    let opened = OpenOptions::new().read(true).write(exclusive).create(exclusive).truncate(false).mode(0o600).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if !exclusive && error.kind() == ErrorKind::NotFound => {
            return Ok(Attempt::Absent);
        }
        Err(error) => return Err(io_failed("open the lock", path, &error)),
    };
    match if exclusive { FileExt::try_lock(&file) } else { FileExt::try_lock_shared(&file) } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Held),
        Err(TryLockError::Error(error)) => {
            return Err(Diagnostic::error("lock.failed", "Cannot lock", format!("could not lock {}: {error}", path.display()))
                .help("locks need a file system with flock; set JACKIN_HOME_DIR to a folder on a local disk"));
        }
    }
    let ours = file.metadata().map_err(|error| io_failed("read", path, &error))?;
    match fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Attempt::Got(Lock { file, path: path.to_owned() })),
        _ => Ok(Attempt::Replaced),
    }
}

async fn wait(
    path: &Path,
    guards: &str,
    timeout: Option<Duration>,
    notice: Notice<'_>,
    exclusive: bool,
) -> Result<Option<Lock>, Diagnostic> {
    let started = Instant::now();
    let mut told = false;
    loop {
        match attempt(path, exclusive)? {
            Attempt::Got(lock) => return Ok(Some(lock)),
            Attempt::Absent => return Ok(None),
            Attempt::Replaced => continue,
            Attempt::Held => {}
        }
        let held = match holder(path) {
            Some(pid) if pid == std::process::id() => "held by another task of this command".to_owned(),
            Some(pid) => format!("held by PID {pid}"),
            None => "held by another process".to_owned(),
        };
        if timeout.is_some_and(|limit| started.elapsed() >= limit) {
            let detail = format!("waited {} s for {guards}, {held} ({})", started.elapsed().as_secs(), path.display());
            return Err(Diagnostic::error("lock.timeout", "Locked by another process", detail)
                .help("wait for the other jackin to finish, or end it"));
        }
        if !told {
            notice(&format!("waiting for {guards}, {held}"));
            told = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn gone(path: &Path) -> Diagnostic {
    io_failed("open the lock", path, &ErrorKind::NotFound.into())
}
