//! A program from its maker into the cache: in parallel ranges, resumed where an earlier run was cut off, checked, then put in its place at once.
//!
//! In: what to fetch and where it belongs. Out: a program with its run bit, and beside it `release.json`, which says what it was
//! published as. Absent: which version is wanted. What is under the final name was checked whole; a half-fetched file is
//! `<name>.part`, and what of it is there stands in `<name>.part.json`.

use super::digest::sha256_file;
use super::failure::io_failed;
use super::http::{Http, Reply, Trouble};
use super::lock::{Lock, Notice};
use super::paths::ensure_dir;
use super::{atomic, program};
use crate::diagnostic::Diagnostic;
use crate::facts::Arch;
use crate::graph::programs::MACHINE;
use crate::resource::Download;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;

const FORMAT: u32 = 1;
/// Handed to the disk at once.
const BLOCK: usize = 256 << 10;
/// After so many bytes the file beside the partial one is brought up to date.
const SAVED_EVERY: u64 = 4 << 20;
/// No program is near it; a server that sends without end is stopped here.
const LARGEST: u64 = 2 << 30;
const REPORTED_EVERY: Duration = Duration::from_millis(500);

/// A program that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `claude`, for people.
    pub name: String,
    pub version: String,
    pub path: PathBuf,
    pub digest: String,
    pub download: Download,
    /// Names a file instead, in the help of a failure.
    pub variable: String,
    /// Of the engine that is to run it.
    pub arch: Arch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    Downloaded,
    /// Another run was faster.
    AlreadyThere,
}

/// `release.json`: what the program beside it was published as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format_version: u32,
    pub version: String,
    /// Digest in specs and recipes.
    pub digest: String,
    /// Hex sha256 of the file itself.
    sha256: String,
    url: String,
}

/// The published digest of a cached program, as long as the file is the one that was downloaded.
pub fn published(program: &Path, sha256: &str) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(record_file(program)).ok()?).ok()?;
    (record.format_version == FORMAT).then_some(record).filter(|record| record.sha256 == sha256)
}

/// A file that jackin downloaded and that is not what it was any more.
pub fn damaged(program: &Path, sha256: &str) -> bool {
    record_file(program).is_file() && published(program, sha256).is_none()
}

fn record_file(program: &Path) -> PathBuf {
    program.with_file_name("release.json")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// What is there of a partial file. Bytes are counted only once they are in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Partial {
    format_version: u32,
    url: String,
    sha256: Option<String>,
    total: u64,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Piece {
    first: u64,
    /// Behind its last byte.
    end: u64,
    done: u64,
}

impl Partial {
    fn new(download: &Download, total: u64, least: u64, most: u64) -> Partial {
        let count = (total / least.max(1)).clamp(1, most.max(1));
        let size = total.div_ceil(count);
        let pieces = (0..count).map(|n| Piece { first: n * size, end: total.min((n + 1) * size), done: 0 });
        let pieces = pieces.filter(|piece| piece.first < piece.end).collect();
        Partial { format_version: FORMAT, url: download.url.clone(), sha256: download.sha256.clone(), total, pieces }
    }

    /// Of this very download, and sound; anything else is as good as nothing.
    fn load(file: &Path, part: &Path, download: &Download) -> Option<Partial> {
        let partial: Partial = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let same = partial.format_version == FORMAT && partial.url == download.url && partial.sha256 == download.sha256;
        let mut at = 0;
        let whole = partial.pieces.iter().all(|p| {
            let follows = p.first == at && p.end > p.first && p.done <= p.end - p.first;
            at = p.end;
            follows
        });
        let length = fs::metadata(part).ok()?.len();
        let reached = partial.pieces.iter().filter(|p| p.done > 0).map(|p| p.first + p.done).max().unwrap_or(0);
        (same && whole && at == partial.total && partial.total <= LARGEST && reached <= length).then_some(partial)
    }

    fn done(&self) -> u64 {
        self.pieces.iter().map(|p| p.done).sum()
    }
}

/// Fetches the program unless it is there by now. Safe to repeat, and for many processes at once.
pub async fn install(http: &Http, wanted: &Wanted, report: &dyn Fn(String), notice: Notice<'_>) -> Result<Installed, Diagnostic> {
    let folder = wanted.path.parent().unwrap_or(Path::new("/"));
    ensure_dir(folder, 0o755)?;
    let guards = format!("the download of {} {}", wanted.name, wanted.version);
    let _lock = Lock::exclusive(&beside(&wanted.path, ".lock"), &guards, None, notice).await?;
    if is_there(wanted).await? {
        return Ok(Installed::AlreadyThere);
    }
    atomic::remove_leftovers(&wanted.path);
    let part = beside(&wanted.path, ".part");
    let fetching = Fetching { http, wanted, part: &part, notes: beside(&wanted.path, ".part.json"), report, reported: Cell::new(None) };
    let sha256 = fetching.checked().await?;
    let program = match wanted.download.member {
        Some(_) => unpack(wanted, &part).await,
        None => Ok(part.clone()),
    };
    let placed = match &program {
        Ok(program) => place(http, wanted, program, sha256).await,
        Err(diagnostic) => Err(diagnostic.clone()),
    };
    // What was of no use once is of no use again.
    fetching.forget();
    if let (Err(_), Ok(program)) = (&placed, &program) {
        let _ = fs::remove_file(program);
    }
    placed.map(|()| Installed::Downloaded)
}

/// Whole, and as it was published.
async fn is_there(wanted: &Wanted) -> Result<bool, Diagnostic> {
    let wanted = wanted.clone();
    blocking(move || {
        if !wanted.path.is_file() {
            return Ok(false);
        }
        let sha256 = sha256_file(&wanted.path).map_err(|error| io_failed("read", &wanted.path, &error))?;
        let same = published(&wanted.path, &sha256).is_some_and(|record| record.digest == wanted.digest) || sha256 == wanted.digest;
        if same && !program::is_executable(&wanted.path) {
            let executable = fs::set_permissions(&wanted.path, fs::Permissions::from_mode(0o755));
            executable.map_err(|error| io_failed("change", &wanted.path, &error))?;
        }
        Ok(same)
    })
    .await
}

struct Fetching<'a> {
    http: &'a Http,
    wanted: &'a Wanted,
    part: &'a Path,
    notes: PathBuf,
    report: &'a dyn Fn(String),
    reported: Cell<Option<Instant>>,
}

impl Fetching<'_> {
    /// The whole file, with the digest it should have.
    async fn checked(&self) -> Result<String, Diagnostic> {
        let mut resumed = self.fetch().await?;
        loop {
            let path = self.part.to_owned();
            let sha256 = blocking(move || sha256_file(&path).map_err(|error| io_failed("read", &path, &error))).await?;
            match &self.wanted.download.sha256 {
                Some(published) if *published != sha256 => {
                    self.forget();
                    // Something may have happened to what lay here meanwhile.
                    if !resumed {
                        return Err(self.wrong_digest(published, &sha256));
                    }
                    (self.report)("what an earlier run had fetched is damaged; fetching all of it".to_owned());
                    resumed = self.fetch().await?;
                }
                _ => return Ok(sha256),
            }
        }
    }

    /// True when a part of it was there before.
    async fn fetch(&self) -> Result<bool, Diagnostic> {
        let limits = &self.http.limits;
        let found = Partial::load(&self.notes, self.part, &self.wanted.download);
        let resumed = found.as_ref().is_some_and(|partial| partial.done() > 0);
        let partial = RefCell::new(found);
        let trying = async {
            let mut tried = 0;
            loop {
                tried += 1;
                let file = self.open()?;
                match self.attempt(&file, &partial).await {
                    Ok(()) => return Ok(()),
                    Err(Failed::Disk(diagnostic)) => return Err(diagnostic),
                    Err(Failed::Net(trouble)) => {
                        self.save(&partial.borrow());
                        if !trouble.passes() || tried >= limits.download_tries {
                            return Err(self.failed(&trouble.to_string()));
                        }
                        tracing::debug!(%trouble, tried, "download tried again");
                        tokio::time::sleep(limits.pause).await;
                    }
                }
            }
        };
        let result = tokio::time::timeout(limits.download, trying).await.unwrap_or_else(|_| {
            self.save(&partial.borrow());
            Err(self.failed(&format!("it was not whole after {}", seconds(limits.download))))
        });
        result.map(|()| resumed)
    }

    async fn attempt(&self, file: &Arc<File>, partial: &RefCell<Option<Partial>>) -> Result<(), Failed> {
        if partial.borrow().is_none() {
            let url = &self.wanted.download.url;
            let mut reply = self.http.get(url, None, Some((0, 0))).await?;
            match reply.status {
                206 => {
                    let total = content_range(&reply).map(|(_, total)| total).ok_or_else(|| odd("it does not say how long the file is"))?;
                    while reply.chunk().await?.is_some() {}
                    let limits = &self.http.limits;
                    check_size(total)?;
                    *partial.borrow_mut() = Some(Partial::new(&self.wanted.download, total, limits.least_range, limits.ranges));
                }
                200 => return self.whole(file, reply).await,
                status => return Err(Trouble::Status(status).into()),
            }
        }
        let count = partial.borrow().as_ref().map_or(0, |partial| partial.pieces.len());
        let results = join_all((0..count).map(|piece| self.piece(file, partial, piece))).await;
        let mut failed: Vec<Failed> = results.into_iter().filter_map(Result::err).collect();
        self.save(&partial.borrow());
        if failed.iter().any(|failed| matches!(failed, Failed::Net(Trouble::Broken(text)) if text == NO_RANGES)) {
            *partial.borrow_mut() = None;
        }
        // What no further try would mend decides.
        failed.sort_by_key(|failed| matches!(failed, Failed::Net(trouble) if trouble.passes()));
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// A server that knows no ranges, in one go.
    async fn whole(&self, file: &Arc<File>, mut reply: Reply) -> Result<(), Failed> {
        let total = reply.header("content-length").and_then(|length| length.parse::<u64>().ok());
        check_size(total.unwrap_or(0))?;
        file.set_len(0).map_err(|error| self.disk(&error))?;
        let mut at = 0;
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            let chunk = reply.chunk().await?;
            block.extend_from_slice(chunk.as_deref().unwrap_or_default());
            if block.len() >= BLOCK || chunk.is_none() {
                at += self.write(file, &mut block, at).await?;
                check_size(at)?;
                self.say(at, total);
            }
            if chunk.is_none() {
                break;
            }
        }
        match total {
            Some(total) if total != at => Err(Trouble::Broken("the answer ended early".to_owned()).into()),
            _ => Ok(()),
        }
    }

    /// What is missing of one piece.
    async fn piece(&self, file: &Arc<File>, partial: &RefCell<Option<Partial>>, index: usize) -> Result<(), Failed> {
        let of = |partial: &RefCell<Option<Partial>>| {
            let partial = partial.borrow();
            let partial = partial.as_ref().expect("BUG: pieces of nothing");
            (partial.pieces[index].clone(), partial.total)
        };
        let (piece, total) = of(partial);
        let mut at = piece.first + piece.done;
        if at == piece.end {
            return Ok(());
        }
        let mut reply = self.http.get(&self.wanted.download.url, None, Some((at, piece.end - 1))).await?;
        match (reply.status, content_range(&reply)) {
            (206, Some(found)) if found == (at, total) => {}
            (206, _) => return Err(odd("it sends other bytes than it was asked for").into()),
            (200, _) => return Err(Trouble::Broken(NO_RANGES.to_owned()).into()),
            (status, _) => return Err(Trouble::Status(status).into()),
        }
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            let chunk = reply.chunk().await;
            if let Ok(Some(chunk)) = &chunk {
                let room = usize::try_from(piece.end - at).unwrap_or(usize::MAX).saturating_sub(block.len());
                block.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            // What came before a connection broke counts.
            let last = !matches!(chunk, Ok(Some(_)));
            if block.len() >= BLOCK || last {
                at += self.write(file, &mut block, at).await?;
                let mut partial = partial.borrow_mut();
                let all = partial.as_mut().expect("BUG: pieces of nothing");
                let before = all.done();
                all.pieces[index].done = at - piece.first;
                if before / SAVED_EVERY != all.done() / SAVED_EVERY {
                    self.save(&partial);
                }
                let done = partial.as_ref().map_or(0, Partial::done);
                self.say(done, Some(total));
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) if at == piece.end => return Ok(()),
                Ok(None) => return Err(Trouble::Broken("the answer ended early".to_owned()).into()),
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    async fn write(&self, file: &Arc<File>, block: &mut Vec<u8>, at: u64) -> Result<u64, Failed> {
        let (file, bytes) = (file.clone(), std::mem::take(block));
        let length = bytes.len() as u64;
        let mut empty = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at).map(|()| bytes))
            .await
            .expect("BUG: writing does not panic")
            .map_err(|error| self.disk(&error))?;
        empty.clear();
        *block = empty;
        Ok(length)
    }

    fn open(&self) -> Result<Arc<File>, Diagnostic> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(self.part);
        opened.map(Arc::new).map_err(|error| io_failed("write", self.part, &error))
    }

    /// Best effort: without it the next run fetches more than it had to.
    fn save(&self, partial: &Option<Partial>) {
        match partial {
            Some(partial) => {
                let temp = atomic::temp_sibling(&self.notes);
                let text = serde_json::to_vec(partial).expect("BUG: it serialises");
                let _ = fs::write(&temp, text).and_then(|()| fs::rename(&temp, &self.notes));
            }
            None => self.forget_notes(),
        }
    }

    fn forget_notes(&self) {
        let _ = fs::remove_file(&self.notes);
    }

    fn forget(&self) {
        self.forget_notes();
        let _ = fs::remove_file(self.part);
    }

    fn say(&self, done: u64, total: Option<u64>) {
        let due = self.reported.get().is_none_or(|last| last.elapsed() >= REPORTED_EVERY) || Some(done) == total;
        if due {
            self.reported.set(Some(Instant::now()));
            (self.report)(match total {
                Some(total) => format!("\r{} of {}", mebibytes(done), mebibytes(total)),
                None => format!("\r{}", mebibytes(done)),
            });
        }
    }

    fn disk(&self, error: &io::Error) -> Failed {
        Failed::Disk(io_failed("write", self.part, error))
    }

    fn failed(&self, why: &str) -> Diagnostic {
        let Wanted { name, version, download, variable, .. } = self.wanted;
        Diagnostic::error("binary.download", "A program could not be downloaded", format!("{name} {version} from {}: {why}.", download.url))
            .help(format!(
                "What has come is kept, and the next try goes on from there. Without a network name a mirror with JACKIN_AGENT_MIRROR, or the program itself with {variable}=PATH."
            ))
    }

    fn wrong_digest(&self, published: &str, found: &str) -> Diagnostic {
        let Wanted { name, version, download, variable, .. } = self.wanted;
        let detail = format!("{name} {version} from {} has sha256 {found}, its maker published {published}.", download.url);
        Diagnostic::error("binary.wrong_digest", "A download is not what its maker published", detail).help(format!(
            "It was thrown away and nothing was installed. Try again later or over another network; a program you trust can be named with {variable}=PATH."
        ))
    }
}

const NO_RANGES: &str = "the server sends no ranges any more";

enum Failed {
    Net(Trouble),
    Disk(Diagnostic),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Failed::Net(trouble)
    }
}

fn odd(text: &str) -> Trouble {
    Trouble::Odd(text.to_owned())
}

fn check_size(bytes: u64) -> Result<(), Trouble> {
    if bytes > LARGEST { Err(odd("it is larger than any program")) } else { Ok(()) }
}

/// First byte and whole length.
fn content_range(reply: &Reply) -> Option<(u64, u64)> {
    let (range, total) = reply.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// The one member of the archive, beside the program's final place.
async fn unpack(wanted: &Wanted, part: &Path) -> Result<PathBuf, Diagnostic> {
    let (wanted, part) = (wanted.clone(), part.to_owned());
    blocking(move || {
        let member = wanted.download.member.clone().unwrap_or_default();
        let bad = |why: &str| {
            let detail = format!("{} {} from {}: {why}.", wanted.name, wanted.version, wanted.download.url);
            Diagnostic::error("binary.archive", "An archive does not hold the program", detail)
                .help(format!("Nothing was installed. Name a program with {}=PATH until its maker has mended it.", wanted.variable))
        };
        let file = File::open(&part).map_err(|error| io_failed("read", &part, &error))?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(io::BufReader::new(file)).take(LARGEST));
        let unreadable = |error: io::Error| bad(&format!("it cannot be unpacked: {error}"));
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let named = entry.path().is_ok_and(|path| path.file_name().is_some_and(|name| name.to_str() == Some(&member)));
            if !named || !entry.header().entry_type().is_file() {
                continue;
            }
            let temp = atomic::temp_sibling(&wanted.path);
            let failed = |error: io::Error| io_failed("write", &temp, &error);
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&temp).map_err(failed)?;
            let mut block = vec![0; BLOCK];
            loop {
                match entry.read(&mut block) {
                    Ok(0) => return Ok(temp),
                    Ok(n) => {
                        if let Err(error) = out.write_all(&block[..n]) {
                            let _ = fs::remove_file(&temp);
                            return Err(failed(error));
                        }
                    }
                    Err(error) => {
                        let _ = fs::remove_file(&temp);
                        return Err(unreadable(error));
                    }
                }
            }
        }
        Err(bad(&format!("it has no `{member}`")))
    })
    .await
}

/// On the disk and runnable before it bears its name.
async fn place(http: &Http, wanted: &Wanted, program: &Path, fetched: String) -> Result<(), Diagnostic> {
    {
        let program = program.to_owned();
        blocking(move || {
            let ready = || -> io::Result<()> {
                let file = File::open(&program)?;
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
                file.sync_all()
            };
            ready().map_err(|error| io_failed("write", &program, &error))
        })
        .await?;
    }
    if wanted.download.sha256.is_none() {
        try_out(http, wanted, program).await?;
    }
    if let Some(machine) = program::built_for(program).filter(|machine| machine != wanted.arch.as_str()) {
        let Wanted { name, version, download, variable, arch, .. } = wanted;
        let detail = format!("{name} {version} from {} is built for {machine}; it was asked for as one for linux/{arch}.", download.url);
        return Err(Diagnostic::error(MACHINE, "A program is built for another machine", detail)
            .help(format!("Nothing was installed. Check the mirror, if one is named; a program can be named with {variable}=PATH.")));
    }
    let (program, wanted) = (program.to_owned(), wanted.clone());
    blocking(move || {
        let failed = |error: io::Error| io_failed("write", &wanted.path, &error);
        let sha256 = if wanted.download.member.is_some() { sha256_file(&program).map_err(failed)? } else { fetched };
        let (version, digest, url) = (wanted.version.clone(), wanted.digest.clone(), wanted.download.url.clone());
        let record = Record { format_version: FORMAT, version, digest, sha256, url };
        let text = serde_json::to_vec_pretty(&record).expect("BUG: it serialises");
        // A record whose program is missing or another one counts as none.
        atomic::write(&record_file(&wanted.path), &text, 0o644)?;
        fs::rename(&program, &wanted.path).map_err(failed)?;
        atomic::sync_parent(&wanted.path).map_err(failed)
    })
    .await
}

/// Nobody vouches for it, so it has to show that it is a whole program: it tells its version.
async fn try_out(http: &Http, wanted: &Wanted, program: &Path) -> Result<(), Diagnostic> {
    let refuse = |why: &str| {
        let detail = format!("{} {} from {} is published without a checksum, and {why}.", wanted.name, wanted.version, wanted.download.url);
        Diagnostic::error("binary.not_runnable", "A program without a checksum does not run", detail)
            .help(format!("Nothing was installed. Name a program with {}=PATH.", wanted.variable))
    };
    for pause in [10, 50, 250, 0] {
        let folder = wanted.path.parent().unwrap_or(Path::new("/"));
        let mut command = Command::new(program);
        command
            .arg("--version")
            .env_clear()
            .env("HOME", folder)
            .env("PATH", "/usr/bin:/bin")
            .stdin(std::process::Stdio::null())
            .current_dir(folder);
        match program::output(&mut command, Some(http.limits.probe)).await {
            Ok(_) => return Ok(()),
            // Another thread was just starting a program and had this file open.
            Err(program::Failure::Io(error)) if error.kind() == ErrorKind::ExecutableFileBusy && pause > 0 => {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Err(program::Failure::TimedOut) => return Err(refuse("`--version` does not end")),
            Err(program::Failure::Refused { message }) => return Err(refuse(&format!("`--version` fails: {}", one_line(&message)))),
            Err(program::Failure::Missing) => return Err(refuse("it cannot be started")),
            Err(program::Failure::Io(error)) => return Err(refuse(&format!("it cannot be started: {error}"))),
        }
    }
    Err(refuse("it cannot be started"))
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Diagnostic> + Send + 'static) -> Result<T, Diagnostic> {
    tokio::task::spawn_blocking(work).await.expect("BUG: working on files does not panic")
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

fn seconds(limit: Duration) -> String {
    if limit >= Duration::from_secs(60) { format!("{} min", limit.as_secs() / 60) } else { format!("{:.1} s", limit.as_secs_f64()) }
}
