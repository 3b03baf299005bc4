//! Files that leave a capsule: chunks in, files in the downloads folder out. The capsule is not trusted: names are cleaned, sizes
//! bounded, nothing is overwritten, and a file bears its name only when all of it is there. Absent: frames' transport, programs.

use jackin_capsule::wire::MAX_TRANSFER;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Of one attachment at a time.
const MAX_RUNNING: usize = 8;
const MAX_SAME_NAME: u32 = 1000;
/// Leaves room in a file name for the number that makes it unique.
const MAX_STEM: usize = 200;
const MAX_EXTENSION: usize = 20;

pub struct Exports {
    folder: PathBuf,
    running: BTreeMap<u64, Running>,
}

struct Running {
    file: NamedTempFile,
    digest: Sha256,
    written: u64,
    wanted: Wanted,
}

/// What the capsule announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub size: u64,
    pub name: String,
    pub reveal: bool,
    pub open: bool,
}

/// A file that has arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    pub path: PathBuf,
    pub reveal: bool,
    pub open: bool,
}

/// Why a file does not arrive, for the person who asked for it.
type Refused = String;

impl Exports {
    pub fn into(folder: PathBuf) -> Exports {
        Exports { folder, running: BTreeMap::new() }
    }

    /// What has come of unfinished files goes.
    pub fn give_up(&mut self) {
        self.running.clear();
    }

    pub fn start(&mut self, transfer: u64, wanted: Wanted) -> Result<(), Refused> {
        self.running.remove(&transfer);
        if wanted.size > MAX_TRANSFER {
            return Err(format!("{} is larger than {} MB", clean_name(&wanted.name), MAX_TRANSFER >> 20));
        }
        if self.running.len() == MAX_RUNNING {
            return Err(format!("{MAX_RUNNING} exports run already"));
        }
        let file = std::fs::create_dir_all(&self.folder)
            .and_then(|()| tempfile::Builder::new().prefix(".export-").tempfile_in(&self.folder))
            .map_err(|error| format!("{} cannot be written: {error}", self.folder.display()))?;
        self.running.insert(transfer, Running { file, digest: Sha256::new(), written: 0, wanted });
        Ok(())
    }

    /// A chunk of an export that was refused before is dropped without a word.
    pub fn chunk(&mut self, transfer: u64, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let Some(running) = self.running.get_mut(&transfer) else {
            return Ok(());
        };
        let length = running.written + bytes.len() as u64;
        let taken = if offset != running.written || length > running.wanted.size {
            Err("it came out of order".to_owned())
        } else {
            running.file.write_all(bytes).map_err(|error| error.to_string())
        };
        running.digest.update(bytes);
        running.written = length;
        taken.map_err(|why| self.refuse(transfer, &why))
    }

    pub fn end(&mut self, transfer: u64, sha256: [u8; 32]) -> Result<Option<Arrived>, Refused> {
        let Some(running) = self.running.get(&transfer) else {
            return Ok(None);
        };
        if running.written != running.wanted.size || running.digest.clone().finalize()[..] != sha256 {
            return Err(self.refuse(transfer, "it is not what the capsule announced"));
        }
        let Some(Running { file, wanted: Wanted { name, reveal, open, .. }, .. }) = self.running.remove(&transfer) else {
            return Ok(None);
        };
        let path = keep(file, &self.folder, &clean_name(&name))?;
        Ok(Some(Arrived { path, reveal, open }))
    }

    fn refuse(&mut self, transfer: u64, why: &str) -> Refused {
        let name = self.running.remove(&transfer).map(|running| clean_name(&running.wanted.name));
        format!("{} was not saved: {why}", name.unwrap_or_default())
    }
}

/// Under its name, or that with the first number that is free.
fn keep(mut file: NamedTempFile, folder: &Path, name: &str) -> Result<PathBuf, Refused> {
    file.as_file().sync_all().map_err(|error| format!("{name} was not saved: {error}"))?;
    let (stem, extension) = split(name);
    for number in 0..MAX_SAME_NAME {
        let path = folder.join(if number == 0 { name.to_owned() } else { format!("{stem}-{number}{extension}") });
        match file.persist_noclobber(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => file = error.file,
            Err(error) => return Err(format!("{name} was not saved: {}", error.error)),
        }
    }
    Err(format!("{name} was not saved: there are {MAX_SAME_NAME} files of that name"))
}

/// The extension with its dot.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    }
}

/// A name that is one, everywhere, and looks like what it is.
pub fn clean_name(name: &str) -> String {
    // Characters that change the direction of text can make `gpj.exe` look like `exe.jpg`.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':') || turns(c);
    let name: String = name.chars().map(|c| if bad(c) { '_' } else { c }).collect();
    let name = name.trim_matches(['.', ' ']);
    let (stem, extension) = split(name);
    let mut end = stem.len().min(MAX_STEM);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    if stem.is_empty() { "export".to_owned() } else { format!("{}{extension}", &stem[..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(name: &str, bytes: &[u8]) -> Wanted {
        Wanted { size: bytes.len() as u64, name: name.to_owned(), reveal: false, open: true }
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_arrives_in_chunks_and_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("jackin/c");
        let mut exports = Exports::into(folder.clone());
        for (number, expected) in ["a.tar.gz", "a.tar-1.gz", "a.tar-2.gz"].into_iter().enumerate() {
            let transfer = number as u64;
            exports.start(transfer, wanted("a.tar.gz", b"hello")).unwrap();
            exports.chunk(transfer, 0, b"hel").unwrap();
            assert!(!names(&folder).contains(&expected.to_owned()), "a file has its name only when it is whole");
            exports.chunk(transfer, 3, b"lo").unwrap();
            let arrived = exports.end(transfer, sha256(b"hello")).unwrap().unwrap();
            assert_eq!(arrived, Arrived { path: folder.join(expected), reveal: false, open: true });
            assert_eq!(std::fs::read(arrived.path).unwrap(), b"hello");
        }
        assert_eq!(names(&folder).len(), 3);
    }

    #[test]
    fn what_is_not_as_announced_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut exports = Exports::into(dir.path().to_owned());
        let begin = |exports: &mut Exports| exports.start(1, wanted("a", b"hello")).unwrap();
        begin(&mut exports);
        exports.chunk(1, 0, b"hello").unwrap();
        assert!(exports.end(1, sha256(b"other")).unwrap_err().contains("not what"));
        begin(&mut exports);
        assert!(exports.chunk(1, 2, b"llo").unwrap_err().contains("order"));
        begin(&mut exports);
        assert!(exports.chunk(1, 0, b"hello!").unwrap_err().contains("order"));
        begin(&mut exports);
        exports.chunk(1, 0, b"hell").unwrap();
        assert!(exports.end(1, sha256(b"hell")).is_err(), "too short");
        assert!(exports.start(1, Wanted { size: MAX_TRANSFER + 1, ..wanted("a", b"") }).unwrap_err().contains("larger"));
        // The rest of a refused file is not an error of its own.
        assert_eq!(exports.chunk(1, 0, b"x"), Ok(()));
        assert_eq!(exports.end(1, [0; 32]), Ok(None));
        begin(&mut exports);
        exports.give_up();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn there_is_an_end_to_what_runs_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut exports = Exports::into(dir.path().to_owned());
        let started = (0..20).filter(|transfer| exports.start(*transfer, wanted("a", b"x")).is_ok()).count();
        assert_eq!(started, MAX_RUNNING);
    }

    #[test]
    fn names_become_harmless() {
        for (name, clean) in [
            ("report.pdf", "report.pdf"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("C:\\x", "C__x"),
            ("a\nb\x1b[31m", "a_b_[31m"),
            (" .hidden. ", "hidden"),
            ("...", "export"),
            ("", "export"),
            ("ab\u{202e}gpj.exe", "ab_gpj.exe"),
            ("Bericht für Änne.txt", "Bericht für Änne.txt"),
        ] {
            assert_eq!(clean_name(name), clean, "{name:?}");
        }
        assert_eq!(clean_name(&format!("{}.png", "ä".repeat(300))), format!("{}.png", "ä".repeat(100)));
    }

    proptest! {
        #[test]
        fn a_name_is_always_one_component(name in "\\PC{0,300}|[./\\\\: a]{0,20}") {
            let clean = clean_name(&name);
            prop_assert!(!clean.is_empty() && clean.len() <= 255 - 5);
            let path = Path::new(&clean);
            prop_assert_eq!(path.components().count(), 1);
            prop_assert_eq!(path.file_name().unwrap(), clean.as_str());
        }
    }
}
