//! What git says of a working directory: its branch, and what would be lost with it. Paths in, values out. It blocks,
//! for a bounded time. Absent: threads, and what is made of the answers.
//!
//! The branch is read from git's files, which is cheap and needs no git; the rest needs git. Nothing is written, and
//! nothing that the repository configures is run.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::file;
use crate::mux::{Change, Workdir};

/// For the bar, which is in no hurry but should not lag by minutes.
const LOOK: Duration = Duration::from_secs(5);
/// For somebody who waits to leave.
const INSPECT: Duration = Duration::from_secs(10);
/// A file of git's that is larger is none.
const MAX_FILE: u64 = 64 << 10;
/// For what a program that has ended wrote before.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Beyond so much output of git the answer is "many".
const MAX_OUTPUT: u64 = 4 << 20;

pub fn look(workdir: &Path) -> Workdir {
    match branch(workdir) {
        None => Workdir::default(),
        branch => Workdir { branch, dirty: git(workdir, LOOK, STATUS).is_ok_and(|status| !status.is_empty()) },
    }
}

/// Checkouts in which something is changed or not pushed, or of which that cannot be said.
pub fn inspect(worktrees: &[String]) -> Vec<Change> {
    let deadline = Instant::now() + INSPECT;
    worktrees.iter().filter_map(|path| change(path, deadline)).collect()
}

/// The same when nothing can be said of any.
pub fn unknown(worktrees: &[String], reason: &str) -> Vec<Change> {
    worktrees.iter().map(|path| not_inspected(path, reason)).collect()
}

fn change(path: &str, deadline: Instant) -> Option<Change> {
    if !Path::new(path).exists() {
        return None;
    }
    let left = || deadline.saturating_duration_since(Instant::now());
    let counts = git(path.as_ref(), left(), STATUS).and_then(|status| {
        // A repository without any commit has nothing to push.
        let unpushed = match git(path.as_ref(), left(), &["rev-parse", "--verify", "--quiet", "HEAD"]) {
            Ok(_) => git(path.as_ref(), left(), &["rev-list", "--count", "HEAD", "--branches", "--not", "--remotes"])?,
            Err(Failure::Said(_)) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let unpushed = String::from_utf8_lossy(&unpushed).trim().parse().unwrap_or(0);
        Ok((status.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()).count(), unpushed))
    });
    match counts {
        Ok((0, 0)) => None,
        Ok((changed, unpushed)) => Some(Change { path: path.to_owned(), changed, unpushed, unknown: None }),
        Err(failure) => Some(not_inspected(path, &failure.to_string())),
    }
}

/// Better one question too many than work that nobody was asked about.
fn not_inspected(path: &str, reason: &str) -> Change {
    Change { path: path.to_owned(), changed: 0, unpushed: 0, unknown: Some(format!("cannot be inspected: {reason}")) }
}

/// The branch's name, or of a detached head the first of its digits.
fn branch(workdir: &Path) -> Option<String> {
    let head = read(&git_dir(workdir)?.join("HEAD"))?;
    match head.strip_prefix("ref: ") {
        Some(name) => Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()),
        None if head.len() >= 40 && head.bytes().all(|byte| byte.is_ascii_hexdigit()) => Some(head[..8].to_owned()),
        None => None,
    }
}

/// Of the repository or worktree that the directory is in.
fn git_dir(workdir: &Path) -> Option<PathBuf> {
    workdir.ancestors().find_map(|dir| {
        let git = dir.join(".git");
        match fs::metadata(&git).ok()? {
            meta if meta.is_dir() => Some(git),
            // A worktree or a submodule: the file names the place.
            _ => Some(dir.join(read(&git)?.strip_prefix("gitdir: ")?)),
        }
    })
}

fn read(path: &Path) -> Option<String> {
    Some(file::read(path, MAX_FILE).ok()?.trim_end().to_owned())
}

const STATUS: &[&str] = &["status", "--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=none"];

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("git took too long")]
    TimedOut,
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn git(dir: &Path, limit: Duration, args: &[&str]) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new("git");
    command
        // Neither a lock of the index nor a program that the repository names.
        .args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C"])
        .arg(dir)
        .args(args)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0");
    output(command, limit)
}

/// Whatever the program starts may hold its output open for longer than it lives: that is not waited for either.
fn output(mut command: Command, limit: Duration) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + limit;
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let group = Pid::from_child(&child);
    let result = child.stdout.take().zip(child.stderr.take()).map(|(out, err)| Ok::<_, Failure>((collect(out)?, collect(err)?)));
    let result = result.unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())).and_then(|(out, err)| {
        let status = wait(&mut child, deadline)?;
        let rest = |stream: Receiver<Vec<u8>>| {
            stream.recv_timeout(deadline.saturating_duration_since(Instant::now()).max(LAST_WORDS)).map_err(|_| Failure::TimedOut)
        };
        Ok((status, rest(out)?, rest(err)?))
    });
    if result.is_err() {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        // It may be stuck in the kernel, so nobody waits for it; init reaps what outlives the mux.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
    let (status, out, err) = result?;
    if status.success() || out.len() as u64 == MAX_OUTPUT {
        return Ok(out);
    }
    let said = String::from_utf8_lossy(&err).lines().next().unwrap_or_default().trim().to_owned();
    Err(Failure::Said(if said.is_empty() { format!("git ended with {status}") } else { said }))
}

/// Not by `thread::spawn`, which panics where no more threads are to be had.
fn collect(stream: impl Read + Send + 'static) -> std::io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let mut bytes = Vec::new();
        // Cut off: what is closed early is as good as ended.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

fn wait(child: &mut Child, deadline: Instant) -> Result<ExitStatus, Failure> {
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Failure::TimedOut);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, args: &str) {
        let status = Command::new("git")
            .args(["-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main", "-C"])
            .arg(dir)
            .args(args.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "git {args}");
    }

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), "init");
        fs::write(dir.path().join("file"), "one").unwrap();
        run(dir.path(), "add .");
        run(dir.path(), "commit -m one");
        dir
    }

    fn clean(branch: &str) -> Workdir {
        Workdir { branch: Some(branch.to_owned()), dirty: false }
    }

    #[test]
    fn branches_are_read_from_gits_own_files() {
        let dir = repository();
        assert_eq!(look(dir.path()), clean("main"));
        run(dir.path(), "checkout -b feature/one");
        run(dir.path(), "pack-refs --all");
        fs::create_dir(dir.path().join("deep")).unwrap();
        assert_eq!(look(&dir.path().join("deep")), clean("feature/one"));
        run(dir.path(), "worktree add -b side tree");
        assert_eq!(look(&dir.path().join("tree")), clean("side"));
        assert!(look(dir.path()).dirty, "the worktree is an untracked directory");
        run(&dir.path().join("tree"), "checkout --detach");
        let digits = branch(&dir.path().join("tree")).unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
        assert_eq!(look(tempfile::tempdir().unwrap().path()), Workdir::default());
    }

    #[test]
    fn changes_and_unpushed_commits_are_counted() {
        let origin = tempfile::tempdir().unwrap();
        run(origin.path(), "init --bare");
        let dir = repository();
        let path = dir.path().to_str().unwrap().to_owned();
        let inspect = || inspect(std::slice::from_ref(&path));
        assert_eq!(inspect(), [Change { path: path.clone(), changed: 0, unpushed: 1, unknown: None }]);
        run(dir.path(), &format!("remote add origin {}", origin.path().display()));
        run(dir.path(), "push origin main");
        assert_eq!(inspect(), []);
        fs::write(dir.path().join("new one"), "").unwrap();
        fs::write(dir.path().join("file"), "two").unwrap();
        run(dir.path(), "commit --allow-empty -m two");
        assert_eq!(inspect(), [Change { path: path.clone(), changed: 2, unpushed: 1, unknown: None }]);
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let shell = |script: &str, limit| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            output(command, limit)
        };
        assert_eq!(shell("echo said", Duration::from_secs(60)).unwrap(), b"said\n");
        assert!(matches!(shell("echo no >&2; exit 3", Duration::from_secs(60)), Err(Failure::Said(text)) if text == "no"));
        let began = Instant::now();
        for script in ["sleep 1000 & echo $! > pid", "sleep 1000 & echo $! > pid; wait"] {
            let dir = tempfile::tempdir().unwrap();
            let script = format!("cd {}; {script}", dir.path().display());
            assert!(matches!(shell(&script, Duration::from_secs(1)), Err(Failure::TimedOut)), "{script}");
            // It is gone, or nobody's child that waits to be reaped.
            let stat = format!("/proc/{}/stat", fs::read_to_string(dir.path().join("pid")).unwrap().trim());
            while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(began.elapsed() < Duration::from_secs(60), "{script}");
                std::thread::yield_now();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_cannot_be_inspected_is_not_taken_for_clean() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let changes = inspect(std::slice::from_ref(&path));
        assert!(
            changes[0].unknown.as_ref().is_some_and(|why| why.contains("cannot be inspected: fatal: not a git repository")),
            "{changes:?}"
        );
        assert_eq!(inspect(&[format!("{path}/gone")]), []);
    }
}
