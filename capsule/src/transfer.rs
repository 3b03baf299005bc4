//! Files between the operator's machine and the container: pictures from a clipboard in, exports out, and the note
//! that says what is to become of the work. Frames and paths in, files and frames out. What touches files blocks.
//! Absent: whose turn it is, and what a client is.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::dates::rfc3339;
use crate::file;
use crate::mux::{Millis, SessionId};
use crate::wire::{ClientFrame, ImageFormat, MAX_NAME, MAX_PATH, ServerFrame, WireError};

pub const MAX_TRANSFER: u64 = 64 << 20;
/// Pictures on their way at the same time, all clients together: each may take its whole size in memory.
pub const MAX_INCOMING: usize = 2;
const IDLE: Millis = 5 * 60 * 1000;
/// Smaller than a chunk may be, so that pictures of the screen need not wait long behind one.
const PIECE: usize = 256 << 10;

// ---- pictures ----

/// What wraps an operation on pictures, and the frame that is in it.
pub fn is_wrapped(kind: u8) -> bool {
    (4..=8).contains(&kind)
}

pub fn unwrap(kind: u8, body: &[u8]) -> Result<ClientFrame, WireError> {
    // The kinds follow each other as the tags do.
    ClientFrame::decode(kind + 4, body)
}

/// A picture that comes in pieces.
pub struct Incoming {
    transfer: u64,
    format: ImageFormat,
    size: u64,
    bytes: Vec<u8>,
    due: Millis,
}

impl Incoming {
    pub fn start(now: Millis, transfer: u64, format: u8, size: u64) -> Result<Self, String> {
        let format = ImageFormat::from_wire(format).ok_or_else(|| format!("picture format {format} is not known"))?;
        if size == 0 || size > MAX_TRANSFER {
            return Err(format!("a picture of {size} bytes; at most {MAX_TRANSFER} are taken"));
        }
        Ok(Self { transfer, format, size, bytes: Vec::new(), due: now + IDLE })
    }

    pub fn due(&self) -> Millis {
        self.due
    }

    pub fn chunk(&mut self, now: Millis, transfer: u64, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let have = self.bytes.len() as u64;
        if transfer != self.transfer || offset != have || have + bytes.len() as u64 > self.size {
            return Err(format!("a piece of the picture does not fit: {} bytes at {offset} after {have} of {}", bytes.len(), self.size));
        }
        self.bytes.extend_from_slice(bytes);
        self.due = now + IDLE;
        Ok(())
    }

    /// The whole picture, if it is what was sent.
    pub fn end(self, transfer: u64, sha256: [u8; 32]) -> Result<(u8, Vec<u8>), String> {
        if transfer != self.transfer || self.bytes.len() as u64 != self.size {
            return Err(format!("the picture ended after {} of {} bytes", self.bytes.len(), self.size));
        }
        if <[u8; 32]>::from(Sha256::digest(&self.bytes)) != sha256 {
            return Err("the picture was damaged on its way".to_owned());
        }
        Ok((self.format as u8, self.bytes))
    }
}

/// Puts a picture where an agent can read it.
pub fn stage(dir: &Path, format: ImageFormat, bytes: &[u8]) -> Result<PathBuf, String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let extension = format.extension();
    if ImageFormat::of(bytes) != Some(format) {
        return Err(format!("that is no picture of format {extension}"));
    }
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("clipboard-{nanos}-{}-{count}.{extension}", std::process::id()));
    let written = private_dir(dir)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path))
        .and_then(|mut file| file.write_all(bytes));
    if let Err(error) = written {
        let _ = fs::remove_file(&path);
        return Err(format!("{}: {error}", path.display()));
    }
    Ok(path)
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Removes the pictures of an earlier container.
pub fn empty(dir: &Path) -> io::Result<()> {
    private_dir(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("clipboard-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

// ---- exports ----

/// A file that may leave the container.
#[derive(Debug)]
pub struct Exported {
    file: File,
    source: String,
    name: String,
    size: u64,
}

/// One piece at a time: the sender waits until the client has taken the one before.
pub fn pieces() -> (SyncSender<ServerFrame>, Receiver<ServerFrame>) {
    sync_channel(0)
}

/// Where folders of the host are mounted for the work: of all mounts those that are neither the system's nor ours nor an
/// agent's own home.
pub fn workspace_mounts(mountinfo: &str, home: &Path) -> Vec<PathBuf> {
    const OTHERS: [&str; 6] = ["/proc", "/sys", "/dev", "/etc", "/run", "/jackin"];
    let is_agents = |place: &Path| {
        place.strip_prefix(home).is_ok_and(|rest| rest.iter().next().is_none_or(|first| first.as_encoded_bytes().starts_with(b".")))
    };
    let places = mountinfo.lines().filter_map(|line| Some(PathBuf::from(unescaped(line.split(' ').nth(4)?))));
    let is_work = |place: &PathBuf| place.parent().is_some() && !OTHERS.iter().any(|other| place.starts_with(other)) && !is_agents(place);
    places.filter(is_work).collect()
}

/// The kernel writes four characters of names as octal numbers.
fn unescaped(place: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(place.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Finds the file and has it sent; the result is its path.
pub fn export(workdir: &Path, roots: &[PathBuf], path: &str, send: impl FnOnce(Exported) -> Result<(), String>) -> Result<String, String> {
    let exported = find(workdir, roots, path)?;
    let source = exported.source.clone();
    send(exported)?;
    Ok(source)
}

/// Only what lies, in truth and not by way of links, under one of the roots.
fn find(workdir: &Path, roots: &[PathBuf], path: &str) -> Result<Exported, String> {
    let says = |error: io::Error| format!("{path}: {error}");
    let real = workdir.join(path).canonicalize().map_err(says)?;
    if !roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root)) {
        return Err(format!("{path} is outside of the workspace"));
    }
    // Opened before it is looked at, so that it is the same file; a pipe would make opening wait.
    let file = OpenOptions::new().read(true).custom_flags(file::NONBLOCK | file::NOFOLLOW).open(&real).map_err(says)?;
    let meta = file.metadata().map_err(says)?;
    if !meta.is_file() {
        return Err(format!("{path} is not a regular file"));
    }
    if meta.len() > MAX_TRANSFER {
        return Err(format!("{path} has {} bytes; at most {MAX_TRANSFER} are exported", meta.len()));
    }
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = real.to_string_lossy().into_owned();
    if source.len() > MAX_PATH || name.len() > MAX_NAME {
        return Err(format!("the name of {path} is too long"));
    }
    Ok(Exported { file, source, name, size: meta.len() })
}

/// `send` is false when nobody takes it any more.
pub fn stream(
    exported: Exported,
    transfer: u64,
    reveal: bool,
    open: bool,
    mut send: impl FnMut(ServerFrame) -> bool,
) -> Result<(), String> {
    let gone = || "the client has left".to_owned();
    let Exported { mut file, source, name, size } = exported;
    if !send(ServerFrame::FileExportStart { transfer, size, reveal, open, source: source.clone(), name }) {
        return Err(gone());
    }
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let mut bytes = vec![0; PIECE.min((size - offset) as usize)];
        // The receiver counts on the size that it was told.
        file.read_exact(&mut bytes).map_err(|error| format!("{source}: {error}"))?;
        hash.update(&bytes);
        let len = bytes.len() as u64;
        if !send(ServerFrame::FileExportChunk { transfer, offset, bytes }) {
            return Err(gone());
        }
        offset += len;
    }
    if send(ServerFrame::FileExportEnd { transfer, sha256: hash.finalize().into() }) { Ok(()) } else { Err(gone()) }
}

/// Writes what detection saw into a folder of its own, for nobody else to read.
pub fn capture(dir: &Path, session: SessionId, codename: &str, files: &[(&str, String)]) -> io::Result<PathBuf> {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let dir = dir.join(format!("{}-{session}-{codename}", rfc3339(second).replace(':', "-")));
    for (name, contents) in files {
        file::write(&dir.join(name), contents.as_bytes(), file::PRIVATE)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand so on";

    #[test]
    fn pictures_are_staged_privately_and_only_when_they_are_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("clipboard");
        let path = stage(&dir, ImageFormat::Png, PNG).unwrap();
        assert_eq!(fs::read(&path).unwrap(), PNG);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir)), (0o600, 0o700));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("clipboard-") && name.ends_with(".png"), "{name}");
        for bytes in [&b"\xff\xd8\xff\xe0"[..], b"GIF89a..", b"RIFF....WEBPVP8 ", b"II*\0....", b"MM\0*"] {
            assert_ne!(stage(&dir, ImageFormat::of(bytes).unwrap(), bytes).unwrap(), path);
            assert!(stage(&dir, ImageFormat::Png, bytes).unwrap_err().contains("no picture of format png"));
        }
        assert!(stage(&dir, ImageFormat::Png, b"").is_err());
        empty(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn pieces_make_a_picture_only_in_order_and_undamaged() {
        let sum: [u8; 32] = Sha256::digest(PNG).into();
        let begun = || Incoming::start(100, 7, 1, PNG.len() as u64).unwrap();
        let mut image = begun();
        assert_eq!(image.due(), 100 + IDLE);
        image.chunk(200, 7, 0, &PNG[..5]).unwrap();
        image.chunk(300, 7, 5, &PNG[5..]).unwrap();
        assert_eq!(image.due(), 300 + IDLE);
        assert_eq!(image.end(7, sum).unwrap(), (1, PNG.to_vec()));

        assert!(begun().end(7, sum).unwrap_err().contains("ended after 0 of"));
        for (transfer, offset, bytes) in [(8, 0, &PNG[..5]), (7, 1, &PNG[..5]), (7, 0, &[0; 100][..])] {
            assert!(begun().chunk(0, transfer, offset, bytes).unwrap_err().contains("does not fit"));
        }
        let mut damaged = begun();
        damaged.chunk(0, 7, 0, PNG).unwrap();
        assert!(damaged.end(7, [0; 32]).unwrap_err().contains("damaged"));
        assert!(Incoming::start(0, 1, 1, MAX_TRANSFER + 1).is_err());
        assert!(Incoming::start(0, 1, 6, 10).is_err());
    }

    #[test]
    fn wrapped_operations_are_those_of_the_frames() {
        let frame = ClientFrame::ImageStart { transfer: 1, format: 2, size: 3 };
        let bytes = frame.encode().unwrap();
        assert_eq!(unwrap(5, &bytes[crate::wire::HEADER_LEN..]), Ok(frame));
        assert_eq!(unwrap(8, b"no"), Ok(ClientFrame::ImageError("no".to_owned())));
        assert!(!is_wrapped(3) && is_wrapped(4) && is_wrapped(8) && !is_wrapped(9));
    }

    #[test]
    fn only_regular_files_of_the_workspace_leave() {
        let dir = tempfile::tempdir().unwrap();
        let (work, other, secret) = (dir.path().join("work"), dir.path().join("other"), dir.path().join("secret"));
        fs::create_dir_all(work.join("sub")).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(work.join("sub/file"), "hello").unwrap();
        fs::write(other.join("file"), "other").unwrap();
        std::os::unix::fs::symlink(&secret, work.join("link")).unwrap();
        std::os::unix::fs::symlink("sub/file", work.join("inside")).unwrap();
        let big = File::create(work.join("big")).unwrap();
        big.set_len(MAX_TRANSFER + 1).unwrap();
        let roots = [work.clone(), other.clone()];
        let find = |path: &str| find(&work, &roots, path);
        assert_eq!(find("sub/file").unwrap().size, 5);
        assert_eq!(find("inside").unwrap().name, "file");
        assert_eq!(find(other.join("file").to_str().unwrap()).unwrap().size, 5);
        for (path, why) in [
            ("link", "outside of the workspace"),
            ("../secret", "outside of the workspace"),
            ("/etc/passwd", "outside of the workspace"),
            ("sub", "not a regular file"),
            ("big", "at most"),
            ("gone", "No such file"),
        ] {
            let error = find(path).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn folders_of_the_host_are_the_workspace_and_credentials_are_not() {
        let mount = |place: &str| format!("36 35 0:9 /x {place} rw,relatime master:1 - ext4 /dev/sda rw\n");
        let all = [
            "/",
            "/proc",
            "/sys/fs/cgroup",
            "/dev/pts",
            "/etc/hosts",
            "/run/secrets/key",
            "/jackin/claude",
            "/home/agent",
            "/home/agent/.claude",
            "/home/agent/.local/share/amp",
            "/home/agent/notes",
            "/workspace/app",
            r"/Users/me/My\040Work",
        ];
        let mounts = workspace_mounts(&all.map(mount).concat(), Path::new("/home/agent"));
        assert_eq!(mounts, ["/home/agent/notes", "/workspace/app", "/Users/me/My Work"].map(PathBuf::from));
        assert!(workspace_mounts("garbage\n", Path::new("/")).is_empty());
    }

    #[test]
    fn a_capture_is_private_and_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("screen.txt", "one".to_owned()), ("facts.json", "{}".to_owned())];
        let capture = || capture(&dir.path().join("captures"), SessionId(3), "cedar", &files).unwrap();
        let made = capture();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made), mode(&made.join("screen.txt"))), (0o700, 0o600));
        assert_eq!(fs::read_to_string(made.join("facts.json")).unwrap(), "{}");
        fs::remove_file(made.join("screen.txt")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(made.join("screen.txt")).status().unwrap().success());
        assert_eq!(fs::read_to_string(capture().join("screen.txt")).unwrap(), "one");
    }

    #[test]
    fn an_export_is_the_file_in_pieces_with_its_sum() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..PIECE * 2 + 17).map(|i| (i * 7) as u8).collect();
        fs::write(dir.path().join("out.bin"), &content).unwrap();
        let mut frames = Vec::new();
        let result = export(dir.path(), &[dir.path().to_owned()], "out.bin", |file| {
            stream(file, 4, true, false, |frame| {
                frames.push(frame);
                true
            })
        });
        assert!(result.unwrap().ends_with("/out.bin"));
        let ServerFrame::FileExportStart { transfer: 4, size, reveal: true, open: false, name, .. } = &frames[0] else { panic!() };
        assert_eq!((*size as usize, name.as_str()), (content.len(), "out.bin"));
        let mut got = Vec::new();
        for frame in &frames[1..frames.len() - 1] {
            let ServerFrame::FileExportChunk { transfer: 4, offset, bytes } = frame else { panic!() };
            assert_eq!(*offset as usize, got.len());
            got.extend_from_slice(bytes);
        }
        assert_eq!(got, content);
        let sum: [u8; 32] = Sha256::digest(&content).into();
        assert_eq!(frames.last(), Some(&ServerFrame::FileExportEnd { transfer: 4, sha256: sum }));
        let file = find(dir.path(), &[dir.path().to_owned()], "out.bin").unwrap();
        assert!(stream(file, 4, true, false, |_| false).unwrap_err().contains("left"));
    }
}
