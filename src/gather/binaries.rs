//! Programs that go into images: the capsule and the agents.
//!
//! In: environment variables, the running executable's folder, the cache. Out: a `BinaryFact` for what is there. Absent: downloads (`download.rs`),
//! running any of them.

use super::digest::sha256_file;
use super::failure::io_failed;
use super::paths::Paths;
use super::{atomic, download, program};
use crate::config::Agent;
use crate::diagnostic::Diagnostic;
use crate::facts::{Arch, BinaryFact, BinarySource, version_folder};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CAPSULE: &str = "jackin-capsule";

/// sha256 of files by path, as long as size and time of change stay: hashing 200 MB would be most of a plan that changes nothing.
#[derive(Debug, Default)]
pub struct FileDigests {
    path: PathBuf,
    known: BTreeMap<String, Known>,
    changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    /// Seconds and nanoseconds of the last change to content or inode, and the inode: a file put in the place of another with its
    /// time restored still differs.
    changed: (i64, i64),
    inode: u64,
    sha256: String,
}

impl FileDigests {
    /// A missing or damaged file is an empty one: it is a cache.
    pub fn load(paths: &Paths) -> FileDigests {
        let path = paths.file_digests();
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        FileDigests { path, known, changed: false }
    }

    pub fn of(&mut self, file: &Path) -> Result<String, Diagnostic> {
        let failed = |error| io_failed("read", file, &error);
        let found = fs::metadata(file).map_err(failed)?;
        let name = file.to_string_lossy().into_owned();
        let stamp = |sha256: String| Known { size: found.len(), changed: (found.ctime(), found.ctime_nsec()), inode: found.ino(), sha256 };
        if let Some(known) = self.known.get(&name)
            && *known == stamp(known.sha256.clone())
        {
            return Ok(known.sha256.clone());
        }
        let sha256 = sha256_file(file).map_err(failed)?;
        self.known.insert(name, stamp(sha256.clone()));
        self.changed = true;
        Ok(sha256)
    }

    /// Writes what was learnt. Failure costs time, not correctness, so it is not reported; a cache folder that does not exist yet
    /// is not made for it.
    pub fn save(&mut self) {
        if !self.changed {
            return;
        }
        self.known.retain(|name, _| Path::new(name).exists());
        if let Ok(bytes) = serde_json::to_vec(&self.known)
            && self.path.parent().is_some_and(Path::is_dir)
            && atomic::write(&self.path, &bytes, 0o644).is_ok()
        {
            self.changed = false;
        }
    }
}

/// What an engine is taken for that did not tell. A host of another architecture than programs are made for has its engine elsewhere.
pub fn host_arch() -> Arch {
    Arch::parse(std::env::consts::ARCH).unwrap_or(Arch::Amd64)
}

/// `JACKIN_CAPSULE_BIN`, else beside the executable, else the cache.
pub fn capsule_binary(
    paths: &Paths,
    lookup: impl Fn(&str) -> Option<OsString>,
    executable: Option<&Path>,
    version: &str,
    arch: Arch,
    digests: &mut FileDigests,
) -> Result<Option<BinaryFact>, Diagnostic> {
    if let Some(fact) = from_environment("JACKIN_CAPSULE_BIN", &lookup, digests)? {
        return Ok(Some(fact));
    }
    // Through a symlink (Homebrew's `bin`) the capsule may lie beside either end.
    let ends = executable.into_iter().flat_map(|path| [Some(path.to_owned()), fs::canonicalize(path).ok()]).flatten();
    let dirs: Vec<PathBuf> = ends.filter_map(|path| path.parent().map(Path::to_owned)).collect();
    let beside = dirs.iter().map(|dir| dir.join(CAPSULE));
    let installed = dirs.iter().map(|dir| dir.join(format!("../libexec/{CAPSULE}/linux-{arch}/{CAPSULE}")));
    // It may be built for macOS, or for another engine's machine: of no use in this one's containers.
    if let Some(path) = beside.chain(installed).find(|path| program::built_for(path).as_deref() == Some(arch.as_str())) {
        return fact(&path, version.to_owned(), BinarySource::Beside, digests).map(Some);
    }
    cached(&capsule_place(paths, version, arch), version.to_owned(), digests)
}

/// Where a downloaded capsule belongs.
pub fn capsule_place(paths: &Paths, version: &str, arch: Arch) -> PathBuf {
    paths.capsule_binaries().join(format!("{}/linux-{arch}/{CAPSULE}", version_folder(version)))
}

/// One version from the cache, given or taken out of a release.
pub fn cached_agent(
    agent: Agent,
    paths: &Paths,
    version: &str,
    arch: Arch,
    digests: &mut FileDigests,
) -> Result<Option<BinaryFact>, Diagnostic> {
    let folder = version_folder(version);
    let file = paths.agent_binaries().join(format!("{agent}/{folder}/linux-{arch}/{agent}"));
    cached(&file, folder, digests)
}

/// A program that jackin downloaded goes by what it was published as; one that was damaged since is as good as none.
fn cached(file: &Path, version: String, digests: &mut FileDigests) -> Result<Option<BinaryFact>, Diagnostic> {
    if !file.is_file() {
        return Ok(None);
    }
    let mut fact = fact(file, version, BinarySource::Cache, digests)?;
    if download::damaged(file, &fact.digest) {
        return Ok(None);
    }
    if let Some(record) = download::published(file, &fact.digest) {
        fact.digest = record.digest;
    }
    Ok(Some(fact))
}

/// `JACKIN_AGENT_BIN_<SLUG>`, else the newest version in the cache.
pub fn agent_binary(
    agent: Agent,
    paths: &Paths,
    lookup: impl Fn(&str) -> Option<OsString>,
    arch: Arch,
    digests: &mut FileDigests,
) -> Result<Option<BinaryFact>, Diagnostic> {
    let variable = format!("JACKIN_AGENT_BIN_{}", agent.slug().to_uppercase());
    if let Some(fact) = from_environment(&variable, &lookup, digests)? {
        return Ok(Some(fact));
    }
    let dir = paths.agent_binaries().join(agent.slug());
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let versions = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let file = |version: &str| dir.join(format!("{version}/linux-{arch}/{agent}"));
    let mut versions: Vec<String> = versions.filter(|version| file(version).is_file()).collect();
    versions.sort_by(|a, b| compare_versions(b, a));
    for version in versions {
        if let Some(fact) = cached(&file(&version), version, digests)? {
            return Ok(Some(fact));
        }
    }
    Ok(None)
}

fn from_environment(
    variable: &str,
    lookup: &impl Fn(&str) -> Option<OsString>,
    digests: &mut FileDigests,
) -> Result<Option<BinaryFact>, Diagnostic> {
    let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(value);
    let wrong = |reason: &str| {
        Err(Diagnostic::error("binary.unusable", "Binary cannot be used", format!("{variable} is {}, which {reason}", path.display()))
            .help(format!("set {variable} to the absolute path of a Linux program, or unset it")))
    };
    if !path.is_absolute() || path.to_str().is_none() {
        return wrong("is not an absolute UTF-8 path");
    }
    match fs::metadata(&path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return wrong("is not a file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return wrong("does not exist");
        }
        Err(error) => return wrong(&format!("cannot be read: {error}")),
    }
    let mut fact = fact(&path, String::new(), BinarySource::Environment, digests)?;
    // Not asked for its version: it need not run on this machine.
    fact.version = format!("env-{}", &fact.digest[..8]);
    Ok(Some(fact))
}

fn fact(path: &Path, version: String, source: BinarySource, digests: &mut FileDigests) -> Result<BinaryFact, Diagnostic> {
    let (digest, built_for) = (digests.of(path)?, program::built_for(path));
    Ok(BinaryFact {
        path: path.to_string_lossy().into_owned(),
        version,
        digest,
        executable: program::is_executable(path),
        source,
        built_for,
    })
}

/// Numbers by value, other parts as text: `1.9` < `1.10` < `1.10.1`, and `1.0-rc` < `1.0`.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let split = |version: &str| {
        let (release, pre) = version
            .trim_start_matches('v')
            .split_once('-')
            .map_or((version.trim_start_matches('v').to_owned(), None), |(r, p)| (r.to_owned(), Some(p.to_owned())));
        (parts(&release), pre)
    };
    let ((a_release, a_pre), (b_release, b_pre)) = (split(a), split(b));
    a_release.cmp(&b_release).then_with(|| match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => parts(&a).cmp(&parts(&b)),
    })
}

/// Text sorts before numbers, so that a stray folder name never beats a version.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    Number(u64),
}

fn parts(text: &str) -> Vec<Part> {
    let part = |part: &str| part.parse().map_or_else(|_| Part::Text(part.to_owned()), Part::Number);
    text.split(['.', '_', '+', '-']).map(part).collect()
}
