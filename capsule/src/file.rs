//! Files written whole or not at all, and read without being caught: whoever runs beside us may have put a pipe where
//! a file was. Bytes in, a file that nobody else may read out, and the other way round. Absent: what is written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub const PRIVATE: u32 = 0o600;
/// For opening: a pipe that nobody has at the other end is not waited for.
pub const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
pub const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// A regular file, for reading.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// The text of a regular file, of a longer one the first `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces the file at once; a reader sees the old one or the new one. Folders on the way are made for the owner alone.
/// Two writers of one file at the same time need a lock between them.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, mode, |file| file.write_all(bytes)).map_err(|error| named(path, &error))
}

pub fn copy(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let mut source = File::open(from).map_err(|error| named(from, &error))?;
    replace(to, mode, |file| io::copy(&mut source, file).map(drop)).map_err(|error| named(to, &error))
}

/// Errors of the system do not say which file they mean.
pub fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| named(path, &error))
}

fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    make_dir(dir)?;
    // Always the same name, so that what a killed writer left is taken away by the next.
    let partial = dir.join(format!(".{}.jackin-new", name.to_string_lossy()));
    let _ = fs::remove_file(&partial);
    // Never readable by others, not even for a moment.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&partial)?;
    let written = fill(&mut file).and_then(|()| file.set_permissions(Permissions::from_mode(mode))).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| match fs::rename(&partial, path) {
        // A file that is itself a mount point can only be written in place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            fs::copy(&partial, path)?;
            fs::remove_file(&partial)
        }
        other => other,
    });
    if renamed.is_err() {
        let _ = fs::remove_file(&partial);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(dir.path().join("a/b/.file.jackin-new"), "left by one that was killed").unwrap();
        fs::write(&path, "old").unwrap();
        let kept = File::open(&path).unwrap();
        write(&path, b"new", PRIVATE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_ne!(kept.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_a_file_is_read_and_only_so_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!((read(&path, 4).unwrap(), read(&path, 100).unwrap()), ("0123".to_owned(), "0123456789".to_owned()));
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for strange in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            assert!(read(strange, 4).unwrap_err().to_string().contains("not a regular file"), "{}", strange.display());
        }
    }

    #[test]
    fn errors_name_the_file_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "").unwrap();
        let error = write(&path, b"new", PRIVATE).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
