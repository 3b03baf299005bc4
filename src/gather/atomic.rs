//! Writing files so that a reader sees the old content or the new, never a part, whenever the machine stops.
//!
//! In: a path, bytes, a mode. Out: the file, or a diagnostic that names path and reason. Absent: locks; two writers do not
//! corrupt each other here, but the later one wins.

use super::failure::io_failed;
use crate::diagnostic::Diagnostic;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// `<path>.tmp.<pid>.<counter>`. The ending comes after the whole name, so that a `*.toml` scan never picks up a leftover.
pub fn temp_sibling(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tmp.{}.{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

/// New content that is on the disk but not yet under its name. Dropped without `commit`, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    temp: PathBuf,
    target: PathBuf,
    committed: bool,
}

/// Several files are saved together by staging all of them before the first `commit`.
pub fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<Staged, Diagnostic> {
    // A file that its user keeps elsewhere and links here (dotfiles) is to be changed there, not replaced by a copy.
    let target = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::canonicalize(path).map_err(|error| io_failed("follow the link", path, &error))?,
        _ => path.to_owned(),
    };
    let failed = |error: io::Error| io_failed("write", path, &error);
    let (mut file, temp) = create_temp(&target, mode).map_err(failed)?;
    let staged = Staged { temp, target, committed: false };
    // The mode given at creation is cut by the umask; a mode of ours is meant exactly.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(staged)
}

impl Staged {
    pub fn commit(mut self) -> Result<(), Diagnostic> {
        fs::rename(&self.temp, &self.target).map_err(|error| io_failed("write", &self.target, &error))?;
        self.committed = true;
        sync_parent(&self.target).map_err(|error| io_failed("write", &self.target, &error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

/// Replaces or creates `path`, whose folder must exist.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Diagnostic> {
    stage(path, bytes, mode)?.commit()
}

/// Creates `path` with its whole content, or leaves the one that is there: true when this call made it.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, Diagnostic> {
    let mut staged = stage(path, bytes, mode)?;
    let made = match fs::hard_link(&staged.temp, path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            // A file system without hard links. Of two that get here at once the later rename wins, and `false` is not told to
            // the earlier; readers therefore always read back what is under the name.
            let made = !path.exists();
            if made {
                fs::rename(&staged.temp, path).map_err(|error| io_failed("create", path, &error))?;
                staged.committed = true;
            }
            made
        }
        Err(error) => return Err(io_failed("create", path, &error)),
    };
    sync_parent(path).map_err(|error| io_failed("create", path, &error))?;
    Ok(made)
}

/// Removes what killed writers of `path` left. Only for one who holds the lock that every writer of `path` takes.
pub fn remove_leftovers(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!("{}.tmp.", name.to_string_lossy());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Best effort: a leftover is only waste, and the next holder of the lock tries again.
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
        }
    }
}

fn create_temp(target: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    loop {
        let temp = temp_sibling(target);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp) {
            Ok(file) => return Ok((file, temp)),
            // A process with our number was killed here before; the counter moves on.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
    }
}

/// Makes a rename survive a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        // A bare name lies in the current folder.
        Some(dir) if dir.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
