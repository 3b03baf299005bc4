//! Git's hooks. This program stands in git's hook folder under every hook's name: it passes on to the hook of the repository that it
//! hides, and adds the trailers to commit messages. In: the name it was called by, git's arguments, the environment. Out: an exit code,
//! the repository's own; a trailer that cannot be added is said and stops no commit.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};

use crate::paths::{Paths, switched_on, var};

/// Git's folder of hooks, below the state.
pub const GIT_HOOKS: &str = "git-hooks";
/// In it: the folder that git looked in before, if one was configured.
pub const EARLIER_HOOKS: &str = ".earlier";
/// Below the state: the person who signs off.
pub const DCO_IDENTITY: &str = "git-dco-identity";

/// All that git calls, but for `BUSY_HOOKS` and two more: where there is a `push-to-checkout` or a `proc-receive`, git leaves its own work to it, which passing
/// on to nothing would not do.
pub const HOOKS: [&str; 23] = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "post-receive",
    "post-update",
    "pre-auto-gc",
    "post-rewrite",
    "sendemail-validate",
    "p4-changelist",
    "p4-prepare-changelist",
    "p4-post-changelist",
    "p4-pre-submit",
];

/// Called a dozen times for one commit, and hardly ever used: to be there for nothing would make a rebase ten times slower.
pub const BUSY_HOOKS: [&str; 2] = ["reference-transaction", "post-index-change"];

/// In the git folder while an editor is open: the message as it was before. See `prepare`.
const WAITING: &str = "jackin-trailers";

/// The hook's name, when this program was called by one.
pub fn called_as() -> Option<&'static str> {
    let program = std::env::args_os().next()?;
    let name = Path::new(&program).file_name()?;
    HOOKS.into_iter().chain(BUSY_HOOKS).find(|hook| OsStr::new(hook) == name)
}

pub fn run(hook: &str) -> i32 {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let own = hidden(hook);
    let text = |at: usize| args.get(at).map(|arg| arg.to_string_lossy().into_owned());
    match (hook, text(0)) {
        // The repository's hook may rewrite the message, so it comes first.
        ("prepare-commit-msg", Some(message)) => {
            let code = own.map_or(0, |own| call(&own, &args));
            if code != 0 {
                return code;
            }
            let rest: Vec<String> = (1..args.len()).filter_map(text).collect();
            prepare(&message, &rest.iter().map(String::as_str).collect::<Vec<_>>())
        }
        // And here it judges the message as it will be.
        ("commit-msg", Some(message)) => {
            finish(&message);
            own.map_or(0, |own| replace_by(&own, &args))
        }
        _ => own.map_or(0, |own| replace_by(&own, &args)),
    }
}

/// Also a verb, for those whose repository has a hook folder of its own. Never anything but 0: no commit fails for a trailer.
pub fn prepare(message: &str, rest: &[&str]) -> i32 {
    complain(prepare_message(Path::new(message), rest.first().copied()));
    0
}

/// The other half, as a verb for the same people.
pub fn finish(message: &str) -> i32 {
    complain(finish_message(Path::new(message)));
    0
}

fn complain(result: Result<(), String>) {
    if let Err(error) = result {
        say(&format!("the commit carries no trailer: {error}"));
    }
}

/// Not by `eprintln!`, which panics when nobody reads: that would stop the commit.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "jackin: {text}");
}

fn prepare_message(message: &Path, source: Option<&str>) -> Result<(), String> {
    let trailers = wanted();
    if trailers.is_empty() {
        return Ok(());
    }
    let git_dir = git_dir().ok_or("there is no repository")?;
    let waiting = git_dir.join(WAITING);
    let _ = fs::remove_file(&waiting);
    // A rebase or cherry-pick carries over somebody's finished commit.
    if git_dir.join("CHERRY_PICK_HEAD").exists() {
        return Ok(());
    }
    // Given by `-m` or `-F`, a line that begins like a comment is none.
    let comments = if source == Some("message") { Comments::None } else { Comments::AsConfigured };
    let text = said(message, comments)?;
    match source {
        // An editor comes up. To leave it without a word cancels the commit, which a trailer would undo: it has to wait.
        None | Some("template") => fs::write(&waiting, text).map_err(|error| error.to_string()),
        Some(_) if text.is_empty() => Ok(()),
        Some(_) => add(message, &trailers, comments),
    }
}

#[derive(Clone, Copy)]
enum Comments {
    AsConfigured,
    None,
}

impl Comments {
    fn setting(self) -> &'static [&'static str] {
        match self {
            Self::AsConfigured => &[],
            // A character that no line begins with.
            Self::None => &["-c", "core.commentChar=\x01"],
        }
    }
}

/// After the editor.
fn finish_message(message: &Path) -> Result<(), String> {
    let Some(git_dir) = git_dir() else {
        return Ok(());
    };
    let waiting = git_dir.join(WAITING);
    let Ok(before) = fs::read_to_string(&waiting) else {
        return Ok(());
    };
    let _ = fs::remove_file(&waiting);
    let text = said(message, Comments::AsConfigured)?;
    if text.is_empty() || text == before { Ok(()) } else { add(message, &wanted(), Comments::AsConfigured) }
}

struct Trailer {
    key: &'static str,
    person: String,
}

/// What this session's commits are to carry. Says so where the agent has no name to put there.
fn wanted() -> Vec<Trailer> {
    let is_on = |name: &str| var(name).is_some_and(|value| switched_on(&value));
    let mut trailers = Vec::new();
    if is_on("JACKIN_GIT_COAUTHOR_TRAILER") {
        let agent = var("JACKIN_AGENT");
        match agent.as_deref().and_then(coauthor) {
            Some(person) => trailers.push(Trailer { key: "Co-authored-by", person: person.to_owned() }),
            None => say(&format!("{} has no name to commit under; no co-author trailer", agent.as_deref().unwrap_or("a shell"))),
        }
    }
    if is_on("JACKIN_GIT_DCO") {
        match signer() {
            Ok(person) => trailers.push(Trailer { key: "Signed-off-by", person }),
            Err(error) => say(&format!("the commit is not signed off: {error}")),
        }
    }
    trailers
}

fn coauthor(agent: &str) -> Option<&'static str> {
    match agent {
        "claude" => Some("Claude <noreply@anthropic.com>"),
        "codex" => Some("Codex <codex@openai.com>"),
        "amp" => Some("Amp <amp@ampcode.com>"),
        "opencode" => Some("opencode-agent[bot] <opencode-agent[bot]@users.noreply.github.com>"),
        _ => None,
    }
}

fn signer() -> Result<String, String> {
    let kept = fs::read_to_string(Paths::from_env().state.join(DCO_IDENTITY)).unwrap_or_default();
    if !kept.trim().is_empty() {
        return Ok(kept.trim().to_owned());
    }
    let name = git(&["config", "--get", "user.name"], None)?;
    let email = git(&["config", "--get", "user.email"], None)?;
    Ok(format!("{name} <{email}>"))
}

/// The message without comments, and without the difference that `commit -v` shows below it.
fn said(message: &Path, comments: Comments) -> Result<String, String> {
    let text = fs::read(message).map_err(|error| format!("{}: {error}", message.display()))?;
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let scissors = lines.iter().position(|line| line.trim_ascii_end().ends_with(b" ------------------------ >8 ------------------------"));
    let above = lines[..scissors.unwrap_or(lines.len())].concat();
    git(&[comments.setting(), &["stripspace", "--strip-comments"]].concat(), Some(above))
}

/// Somebody with this address may stand there already, under this name or another.
fn add(message: &Path, trailers: &[Trailer], comments: Comments) -> Result<(), String> {
    let path = message.to_str().ok_or("the message's path is not UTF-8")?;
    let interpret = [comments.setting(), &["interpret-trailers", "--no-divider"]].concat();
    let there = git(&[&interpret[..], &["--parse", path]].concat(), None)?.to_lowercase();
    let is_there = |Trailer { key, person }: &&Trailer| {
        let address = person.rsplit_once('<').map_or(person.as_str(), |(_, address)| address).to_lowercase();
        there
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(other, person)| other == key.to_lowercase() && person.contains(&format!("<{address}")))
    };
    let missing: Vec<_> =
        trailers.iter().filter(|trailer| !is_there(trailer)).map(|t| format!("--trailer={}: {}", t.key, t.person)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let how = ["--in-place", "--if-exists", "addIfDifferent", "--if-missing", "add", "--where", "end"];
    let missing: Vec<_> = missing.iter().map(String::as_str).collect();
    git(&[&interpret[..], &how, &missing, &[path]].concat(), None).map(drop)
}

fn git(args: &[&str], input: Option<Vec<u8>>) -> Result<String, String> {
    let verb = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('=')).unwrap_or(&"");
    let failed = |error: io::Error| format!("git {verb}: {error}");
    let mut command = Command::new("git");
    command.args(args).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let writer = child.stdin.take().zip(input).map(|(mut stdin, input)| {
        // Beside the reading: a long message fills the pipe in both directions.
        std::thread::spawn(move || stdin.write_all(&input))
    });
    let output = child.wait_with_output().map_err(failed)?;
    if let Some(Ok(Err(error))) = writer.map(std::thread::JoinHandle::join) {
        return Err(failed(error));
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {verb}: {}: {}", output.status, said.lines().next().unwrap_or("")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// Where git would look for its hooks without us, seen from the repository we are in.
pub fn hidden_hooks(ours: &Path) -> Option<PathBuf> {
    let earlier = fs::read_to_string(ours.join(EARLIER_HOOKS)).unwrap_or_default();
    if earlier.is_empty() { Some(common_dir()?.join("hooks")) } else { Some(PathBuf::from(earlier)) }
}

fn hidden(hook: &str) -> Option<PathBuf> {
    let path = hidden_hooks(&Paths::from_env().state.join(GIT_HOOKS))?.join(hook);
    let (meta, ourselves) = (fs::metadata(&path).ok()?, std::env::current_exe().and_then(fs::metadata).ok()?);
    // A copy or link of this program would call itself for ever.
    if !meta.is_file() || (meta.dev(), meta.ino()) == (ourselves.dev(), ourselves.ino()) {
        return None;
    }
    if access(&path, Access::EXEC_OK).is_err() {
        say(&format!("{} is not executable and was not run", path.display()));
        return None;
    }
    Some(path)
}

/// Without asking git where it can be seen: some hooks are called for every reference. They start at the top of the working tree.
fn git_dir() -> Option<PathBuf> {
    let said = std::env::var_os("GIT_DIR").map(PathBuf::from);
    let usual = || Some(PathBuf::from(".git")).filter(|path| path.is_dir());
    said.or_else(usual).or_else(|| git(&["rev-parse", "--git-dir"], None).ok().map(PathBuf::from))
}

fn common_dir() -> Option<PathBuf> {
    let git_dir = git_dir()?;
    match fs::read_to_string(git_dir.join("commondir")) {
        Ok(common) => Some(git_dir.join(common.trim_end())),
        Err(_) => Some(git_dir),
    }
}

fn call(hook: &Path, args: &[OsString]) -> i32 {
    let status = match Command::new(hook).args(args).status() {
        // Without a first line that names its program it is the shell's, as git holds it.
        Err(error) if is_bare_script(&error) => Command::new("sh").arg(hook).args(args).status(),
        other => other,
    };
    match status {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => refused(hook, &error),
    }
}

fn replace_by(hook: &Path, args: &[OsString]) -> i32 {
    let mut error = Command::new(hook).args(args).exec();
    if is_bare_script(&error) {
        error = Command::new("sh").arg(hook).args(args).exec();
    }
    refused(hook, &error)
}

fn is_bare_script(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())
}

fn refused(hook: &Path, error: &io::Error) -> i32 {
    say(&format!("{}: {error}", hook.display()));
    1
}
