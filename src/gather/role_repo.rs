//! The cache of role repos: one clone per role, read at one commit.
//!
//! In: a role key, its URL, a branch or a recorded commit, how fresh it must be. Out: a `RoleSnapshot`, whose problems are data; an
//! error only when the cache itself cannot be used. Absent: trust, validation of the manifest, the image.
//!
//! One clone serves all branches, for contents are read from git objects and never from the working tree. The working tree is moved by
//! `checkout`, when a plan is applied. Everything here happens under the role's one lock, which git holds too while it runs.

use super::failure::io_failed;
use super::git;
use super::lock::{Lock, Notice};
use super::paths::{Paths, ensure_dir};
use super::program::{self, Failure};
use super::role_url::RoleUrl;
use super::{atomic, role_objects};
use crate::config::role_key::RoleKey;
use crate::diagnostic::Diagnostic;
use crate::facts::{RoleProblem, RoleSnapshot};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::process::Command;

/// Paths that a dirty clone is reported with, at most.
const DIRTY_SHOWN: usize = 50;

/// The remote's `HEAD` as of our last fetch. `origin/HEAD` is not moved by a fetch, so a renamed default branch would go unseen.
const REMOTE_HEAD: &str = "refs/jackin/head";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Clone when absent; fetch when the last fetch is older. Zero fetches always, and so does asking for a branch.
    Ttl(Duration),
    /// Clone when absent, else take what is there.
    CacheOnly,
    /// No network.
    Offline,
}

/// One role and where it comes from.
#[derive(Debug, Clone)]
pub struct RoleRepo {
    pub key: RoleKey,
    /// As configured.
    pub url: String,
    /// `None` = the remote's default.
    pub branch: Option<String>,
    /// A commit recorded earlier, to be used instead of the head of a branch; fetched only when the clone lacks it.
    pub pinned: Option<String>,
}

impl RoleRepo {
    pub async fn resolve(&self, paths: &Paths, refresh: Refresh, notice: Notice<'_>) -> Result<RoleSnapshot, Diagnostic> {
        let cache = paths.role_cache(&self.key);
        let mut snapshot = RoleSnapshot {
            key: self.key.to_string(),
            url: String::new(),
            elsewhere: false,
            branch: self.branch.clone(),
            cache: cache.to_string_lossy().into_owned(),
            commit: None,
            checked_out: None,
            dirty: Vec::new(),
            tree: BTreeMap::new(),
            files: BTreeMap::new(),
            problem: None,
        };
        let url = match RoleUrl::parse(&self.url) {
            Ok(url) => url,
            Err(message) => {
                snapshot.problem = Some(RoleProblem::CloneFailed { message });
                return Ok(snapshot);
            }
        };
        snapshot.url = url.shown().to_owned();
        if self.branch.as_deref().is_some_and(|branch| !is_branch_name(branch)) {
            snapshot.problem = self.branch.clone().map(|branch| RoleProblem::NoSuchBranch { branch });
            return Ok(snapshot);
        }

        let clone = Clone { lock: lock(paths, &self.key, notice).await?, cache };
        clone.tidy(&paths.role_dir(&self.key)).await?;
        let ready = match fs::symlink_metadata(&clone.cache) {
            Err(_) if refresh == Refresh::Offline => Err(RoleProblem::NotCached),
            Err(_) => clone.make(&url).await?,
            Ok(_) => self.bring_up_to_date(&clone, &url, refresh).await?,
        };
        match ready {
            Ok(()) => {}
            // What an unreachable remote gave earlier is still worth knowing; the problem says that it may be old.
            Err(problem @ RoleProblem::FetchFailed { .. }) => snapshot.problem = Some(problem),
            Err(problem) => {
                snapshot.problem = Some(problem);
                return Ok(snapshot);
            }
        }
        self.read(&clone, snapshot).await
    }

    async fn bring_up_to_date(&self, clone: &Clone, url: &RoleUrl, refresh: Refresh) -> Result<Result<(), RoleProblem>, Diagnostic> {
        if !clone.cache.join(".git").is_dir() {
            return Ok(Err(RoleProblem::NotARepository { message: "it has no `.git` folder".to_owned() }));
        }
        let origin = clone.origin().await?;
        let same = match &origin {
            Some(origin) if origin.same_repository(url) => origin.shown() == url.shown(),
            found => {
                let found = found.as_ref().map_or("no remote named origin", RoleUrl::shown).to_owned();
                return Ok(Err(RoleProblem::ForeignOrigin { found }));
            }
        };
        let fetch = match (refresh, &self.pinned) {
            (Refresh::Offline, _) => false,
            (_, Some(commit)) => !role_objects::has_commit(&clone.cache, commit).await?,
            // Over another protocol a host may show another repository, so its contents are fetched, not believed.
            (_, None) if !same => true,
            (Refresh::CacheOnly, _) => false,
            (Refresh::Ttl(ttl), None) => self.branch.is_some() || !clone.is_fresh(ttl),
        };
        if !fetch {
            return Ok(Ok(()));
        }
        if let Err(message) = clone.fetch(&clone.cache, url).await? {
            return Ok(Err(RoleProblem::FetchFailed { message }));
        }
        if !same {
            let mut config = clone.git();
            config.args(["config", "remote.origin.url", url.shown()]);
            if let Err(message) = run(&mut config).await? {
                return Ok(Err(RoleProblem::NotARepository { message }));
            }
        }
        Ok(Ok(()))
    }

    /// Two git processes at the same time: one looks at the working tree, one reads objects.
    async fn read(&self, clone: &Clone, mut snapshot: RoleSnapshot) -> Result<RoleSnapshot, Diagnostic> {
        let names = match (&self.pinned, &self.branch) {
            (Some(commit), _) => vec![commit.clone()],
            (None, Some(branch)) => vec![format!("refs/remotes/origin/{branch}")],
            (None, None) => vec![REMOTE_HEAD.to_owned(), "refs/remotes/origin/HEAD".to_owned()],
        };
        let (status, contents) = tokio::join!(clone.status(), role_objects::read(&clone.cache, &names));
        match status? {
            Ok(status) => {
                snapshot.checked_out = status.commit;
                snapshot.dirty = status.dirty;
            }
            Err(message) => {
                snapshot.problem = Some(RoleProblem::NotARepository { message });
                return Ok(snapshot);
            }
        }
        match contents? {
            Ok(Some(contents)) => {
                snapshot.commit = Some(contents.commit);
                snapshot.tree = contents.tree;
                snapshot.files = contents.files;
            }
            Ok(None) => {
                let problem = match (&self.pinned, &self.branch) {
                    (Some(commit), _) => RoleProblem::FetchFailed { message: format!("the repository does not hold commit {commit}") },
                    (None, Some(branch)) => RoleProblem::NoSuchBranch { branch: branch.clone() },
                    (None, None) => RoleProblem::NoCommit,
                };
                // A fetch that failed explains why something is missing.
                snapshot.problem.get_or_insert(problem);
            }
            Err(message) => snapshot.problem = Some(RoleProblem::NotARepository { message }),
        }
        Ok(snapshot)
    }
}

/// Moves the working tree of a role's clone to a commit. Refuses when there are changes that it would lose.
pub async fn checkout(paths: &Paths, key: &RoleKey, commit: &str, notice: Notice<'_>) -> Result<(), Diagnostic> {
    let clone = Clone { lock: lock(paths, key, notice).await?, cache: paths.role_cache(key) };
    clone.tidy(&paths.role_dir(key)).await?;
    let status = clone.status().await?.map_err(|message| unusable(&clone.cache, message))?;
    if !status.dirty.is_empty() {
        let detail = format!("{} has {}", clone.cache.display(), status.dirty.join(", "));
        return Err(Diagnostic::error("role.dirty", "Role clone has changes", detail)
            .help("commit and push them elsewhere, or undo them with git; then run the command again"));
    }
    if status.commit.as_deref() == Some(commit) {
        return Ok(());
    }
    if !role_objects::has_commit(&clone.cache, commit).await? {
        return Err(unusable(&clone.cache, format!("it does not hold commit {commit}")));
    }
    clone.check_out(commit).await
}

/// The tree of a commit as a tar archive, for a build context. Reads only objects, so it needs no lock.
pub async fn archive(cache: &Path, commit: &str) -> Result<Vec<u8>, Diagnostic> {
    if !is_commit(commit) {
        return Err(unusable(cache, format!("`{commit}` is not a commit")));
    }
    write_attributes(&cache.join(".git"))?;
    let mut command = git::in_clone(cache);
    command.args(["archive", "--format=tar", commit]);
    match program::output(&mut command, None).await {
        Ok(tar) => Ok(tar),
        Err(failure) => Err(unusable(cache, git::refusal(failure)?)),
    }
}

/// Removes a role's clone, so that the next `resolve` makes it anew. The lock stays.
pub async fn forget(paths: &Paths, key: &RoleKey, notice: Notice<'_>) -> Result<(), Diagnostic> {
    let _lock = lock(paths, key, notice).await?;
    let cache = paths.role_cache(key);
    if fs::symlink_metadata(&cache).is_err() {
        return Ok(());
    }
    // Under its temporary name first: a half-removed clone must not be taken for one.
    let doomed = atomic::temp_sibling(&cache);
    fs::rename(&cache, &doomed).and_then(|()| fs::remove_dir_all(&doomed)).map_err(|error| io_failed("remove", &cache, &error))
}

async fn lock(paths: &Paths, key: &RoleKey, notice: Notice<'_>) -> Result<Lock, Diagnostic> {
    Lock::exclusive(&paths.role_lock(key), &format!("the repository of role {key}"), None, notice).await
}

/// A role's clone, locked.
struct Clone {
    lock: Lock,
    cache: PathBuf,
}

struct Status {
    commit: Option<String>,
    dirty: Vec<String>,
}

impl Clone {
    fn git(&self) -> Command {
        git::in_clone(&self.cache)
    }

    /// Clears what killed runs left, and moves a clone of the oldest layout (directly in `roles/<key>`) to its place.
    async fn tidy(&self, role_dir: &Path) -> Result<(), Diagnostic> {
        atomic::remove_leftovers(&self.cache);
        let failed = |error| io_failed("move the role clone to", &self.cache, &error);
        let moving = role_dir.with_file_name(format!(".{}.moving", role_dir.file_name().unwrap_or_default().to_string_lossy()));
        if role_dir.join(".git").is_dir() && !moving.exists() {
            fs::rename(role_dir, &moving).map_err(failed)?;
        }
        if moving.exists() && !self.cache.exists() {
            ensure_dir(role_dir, 0o755)?;
            fs::rename(&moving, &self.cache).map_err(failed)?;
        }
        let dot_git = self.cache.join(".git");
        if !dot_git.is_dir() {
            return Ok(());
        }
        for name in ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"] {
            let _ = fs::remove_file(dot_git.join(name));
        }
        let marker = dot_git.join(CHECKING_OUT);
        match fs::read_to_string(&marker) {
            Ok(commit) if role_objects::has_commit(&self.cache, commit.trim()).await? => self.check_out(commit.trim()).await,
            Ok(_) => fs::remove_file(&marker).map_err(|error| io_failed("remove", &marker, &error)),
            Err(_) => Ok(()),
        }
    }

    /// Built beside its place and renamed into it, so that what is there is whole.
    async fn make(&self, url: &RoleUrl) -> Result<Result<(), RoleProblem>, Diagnostic> {
        if let Some(dir) = self.cache.parent() {
            ensure_dir(dir, 0o755)?;
        }
        let mut made = self.make_with(url, "sha1").await?;
        if matches!(&made, Err(message) if message.contains("mismatched algorithms")) {
            made = self.make_with(url, "sha256").await?;
        }
        Ok(made.map_err(|message| RoleProblem::CloneFailed { message }))
    }

    /// `git init` and a fetch rather than `git clone`: no checkout (and none of its filters) while only planning, the URL stays out
    /// of the process list, its password out of the clone, and there is one way to fetch.
    async fn make_with(&self, url: &RoleUrl, format: &str) -> Result<Result<(), String>, Diagnostic> {
        let temp = Leftover(atomic::temp_sibling(&self.cache));
        let mut init = git::command();
        init.args(["-c", "init.defaultBranch=main", "init", "--quiet", "--template="]);
        if format != "sha1" {
            init.arg(format!("--object-format={format}"));
        }
        init.arg(&temp.0);
        if let Err(message) = run(&mut init).await? {
            return Ok(Err(message));
        }
        let dot_git = temp.0.join(".git");
        write_attributes(&dot_git)?;
        let config = dot_git.join("config");
        let failed = |error| io_failed("write", &config, &error);
        let mut text = fs::read_to_string(&config).map_err(failed)?;
        // `RoleUrl` holds no quote, backslash or line end.
        text.push_str(&format!("[remote \"origin\"]\n\turl = \"{}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", url.shown()));
        fs::write(&config, text).map_err(failed)?;
        if let Err(message) = self.fetch(&temp.0, url).await? {
            return Ok(Err(message));
        }
        fs::rename(&temp.0, &self.cache).map_err(|error| io_failed("create", &self.cache, &error))?;
        atomic::sync_parent(&self.cache).map_err(|error| io_failed("create", &self.cache, &error))?;
        Ok(Ok(()))
    }

    async fn fetch(&self, clone: &Path, url: &RoleUrl) -> Result<Result<(), String>, Diagnostic> {
        let head = format!("+HEAD:{REMOTE_HEAD}");
        let heads = "+refs/heads/*:refs/remotes/origin/*";
        let first = self.fetch_refs(clone, url, &[&head, heads]).await?;
        if !matches!(&first, Err(message) if message.contains("couldn't find remote ref HEAD")) {
            return Ok(first);
        }
        // The remote's HEAD names a branch without a commit; there may still be others.
        let mut delete = git::in_clone(clone);
        delete.args(["update-ref", "-d", REMOTE_HEAD]);
        if let Err(message) = run(&mut delete).await? {
            return Ok(Err(message));
        }
        self.fetch_refs(clone, url, &[heads]).await
    }

    async fn fetch_refs(&self, clone: &Path, url: &RoleUrl, refs: &[&str]) -> Result<Result<(), String>, Diagnostic> {
        let mut fetch = git::in_clone(clone);
        git::secret_setting(&mut fetch, "remote.jackin.url", url.fetch());
        fetch.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
        fetch.args(["fetch", "--quiet", "--prune", "--no-tags", "--no-recurse-submodules", "jackin"]).args(refs);
        fetch.stdin(self.lock.as_stdin()?);
        run(&mut fetch).await
    }

    /// Was there a complete fetch within the time? git empties `FETCH_HEAD` when it starts, so one that failed leaves it empty. A time
    /// in the future is a clock that was set, and proves nothing.
    fn is_fresh(&self, ttl: Duration) -> bool {
        let Ok(found) = fs::metadata(self.cache.join(".git/FETCH_HEAD")) else {
            return false;
        };
        let age = found.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        found.len() > 0 && age.is_some_and(|age| age < ttl)
    }

    /// Read from the file, which git wrote for us, to save a process; asked of git when that file looks unusual.
    async fn origin(&self) -> Result<Option<RoleUrl>, Diagnostic> {
        let text = fs::read_to_string(self.cache.join(".git/config")).unwrap_or_default();
        let url = match origin_url(&text) {
            Some(url) => url,
            None => {
                let mut get = self.git();
                get.args(["config", "--get", "remote.origin.url"]);
                match program::output(&mut get, None).await {
                    Ok(url) => String::from_utf8_lossy(&url).trim().to_owned(),
                    Err(Failure::Missing) => return Err(git::missing()),
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(RoleUrl::parse(&url).ok())
    }

    async fn status(&self) -> Result<Result<Status, String>, Diagnostic> {
        let mut status = self.git();
        status.args(["status", "--porcelain=v2", "--branch", "--untracked-files=normal", "-z"]);
        Ok(match program::output(&mut status, None).await {
            Ok(output) => Ok(read_status(&String::from_utf8_lossy(&output))),
            Err(failure) => Err(git::refusal(failure)?),
        })
    }

    /// Forced, because it is only reached for a clean tree, or for one that this very step was killed in: the marker tells the two
    /// from a tree the operator changed.
    async fn check_out(&self, commit: &str) -> Result<(), Diagnostic> {
        let marker = self.cache.join(".git").join(CHECKING_OUT);
        atomic::write(&marker, commit.as_bytes(), 0o644)?;
        let mut checkout = self.git();
        checkout.args(["checkout", "--quiet", "--force", "--detach", commit]).stdin(self.lock.as_stdin()?);
        // Refused half-way (a full disk) leaves the marker, so that the next run finishes what this one began.
        run(&mut checkout).await?.map_err(|message| unusable(&self.cache, message))?;
        fs::remove_file(&marker).map_err(|error| io_failed("remove", &marker, &error))
    }
}

/// In `.git`, while a checkout runs: the commit it goes to.
const CHECKING_OUT: &str = "jackin-checkout";

/// A folder that is removed unless it was renamed away.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn run(command: &mut Command) -> Result<Result<(), String>, Diagnostic> {
    Ok(match program::output(command, None).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(git::refusal(failure)?),
    })
}

fn unusable(cache: &Path, message: String) -> Diagnostic {
    Diagnostic::error("role.clone_unusable", "Role clone cannot be used", format!("{}: {message}", cache.display()))
        .help("remove the folder to have it cloned again")
}

pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// git's rules for names, as far as they keep a name from being read as something else.
fn is_branch_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !["..", "//", "@{", "/.", ".lock/"].iter().any(|part| name.contains(part))
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}

/// Whole trees are wanted, so a repository may not thin its own archive or stamp it (`export-ignore`, `export-subst`).
fn write_attributes(dot_git: &Path) -> Result<(), Diagnostic> {
    const RULE: &str = "* -export-ignore -export-subst\n";
    let path = dot_git.join("info/attributes");
    let text = fs::read_to_string(&path).unwrap_or_default();
    if text.contains(RULE) {
        return Ok(());
    }
    ensure_dir(&dot_git.join("info"), 0o755)?;
    atomic::write(&path, format!("{text}{RULE}").as_bytes(), 0o644)
}

/// `url` of `[remote "origin"]` in a config file as git writes it.
fn origin_url(config: &str) -> Option<String> {
    let mut inside = false;
    let mut found = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[remote \"origin\"]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim() == "url"
        {
            found = Some(value.trim().trim_matches('"').to_owned());
        }
    }
    found
}

/// Entries end in NUL; a rename is followed by its old name as an entry of its own.
fn read_status(text: &str) -> Status {
    let mut status = Status { commit: None, dirty: Vec::new() };
    let mut entries = text.split('\0');
    while let Some(entry) = entries.next() {
        let path = match entry.split_at_checked(2) {
            Some(("# ", header)) => {
                status.commit = header.strip_prefix("branch.oid ").filter(|id| is_commit(id)).map(str::to_owned).or(status.commit);
                None
            }
            Some(("1 ", rest)) => rest.splitn(8, ' ').nth(7),
            Some(("2 ", rest)) => {
                entries.next();
                rest.splitn(9, ' ').nth(8)
            }
            Some(("u ", rest)) => rest.splitn(10, ' ').nth(9),
            Some(("? ", path)) => Some(path),
            _ => None,
        };
        if let Some(path) = path.filter(|_| status.dirty.len() < DIRTY_SHOWN) {
            status.dirty.push(path.to_owned());
        }
    }
    status
}
