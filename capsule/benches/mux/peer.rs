//! What is measured side by side: the capsule, Debian's tmux, and a bare pty as the most there can be. Started, attached
//! to, given panes, looked at from outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::pane::{PANE_VERB, Pane};
use crate::terminal::{SIZE, Terminal};

const TMUX_CONF: &str = "\
set -g history-limit 10000
set -g default-terminal tmux-256color
set -ga terminal-features ',xterm-256color:RGB'
set -g escape-time 0
";
const LAUNCH_CONFIG: &str = "\
role = 'bench'
workdir = '/tmp'
agents = ['claude']
[auth_modes]
claude = 'sync'
";
const WINDOWS: usize = 25;
const QUIET: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bare,
    Tmux,
    Capsule,
}

pub struct Peer {
    kind: Kind,
    dir: TempDir,
    /// Panes report here.
    listener: UnixListener,
    init: Option<Child>,
}

impl Peer {
    pub fn start(kind: Kind) -> Self {
        let dir = tempfile::Builder::new().prefix("muxbench").tempdir().expect("a folder");
        let listener = UnixListener::bind(dir.path().join("panes")).expect("a socket");
        let own = std::env::current_exe().expect("a path of its own");
        let mut peer = Self { kind, dir, listener, init: None };
        let script = format!("#!/bin/sh\nexec {} {PANE_VERB} {}\n", own.display(), peer.path("panes"));
        fs::write(peer.path("pane"), script).expect("a script");
        fs::set_permissions(peer.path("pane"), fs::Permissions::from_mode(0o755)).expect("its run bit");
        match kind {
            Kind::Bare => {}
            Kind::Tmux => {
                fs::write(peer.path("conf"), TMUX_CONF).expect("a file");
                let (cols, rows) = (SIZE.cols.to_string(), SIZE.rows.to_string());
                peer.tmux(&["-f", &peer.path("conf"), "new-session", "-d", "-x", &cols, "-y", &rows, &peer.path("pane")])
                    .expect("a server");
            }
            Kind::Capsule => {
                fs::create_dir(peer.path("run")).expect("a folder");
                fs::create_dir(peer.path("state")).expect("a folder");
                fs::write(peer.path("run/agent.toml"), LAUNCH_CONFIG).expect("a file");
                let log = fs::File::create(peer.path("log")).expect("a file");
                let mut init = Command::new(capsule());
                init.arg("claude").env("JACKIN_CAPSULE_FORCE_DAEMON", "1").envs(peer.env());
                peer.init = Some(init.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a capsule"));
            }
        }
        peer
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn env(&self) -> Vec<(String, String)> {
        let constant = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("LC_ALL", "C.UTF-8"), ("SHELL", "/bin/sh")];
        let own = [("JACKIN_RUN_DIR", "run"), ("JACKIN_STATE_DIR", "state"), ("JACKIN_ENTRYPOINT", "pane")];
        let constant = constant.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        constant.chain(own.iter().map(|(key, name)| ((*key).to_owned(), self.path(name)))).collect()
    }

    /// Nothing when it refuses, or its server has gone.
    fn tmux(&self, args: &[&str]) -> Option<String> {
        let done = Command::new("tmux").arg("-S").arg(self.path("tmux")).args(args).env_remove("TMUX").envs(self.env()).output();
        let done = done.expect("tmux runs: `./dev bench` installs it");
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    }

    pub fn attach(&self) -> Terminal {
        let argv = match self.kind {
            Kind::Bare => vec![self.path("pane")],
            Kind::Tmux => vec!["tmux".to_owned(), "-S".to_owned(), self.path("tmux"), "attach".to_owned()],
            Kind::Capsule => vec![capsule()],
        };
        Terminal::open(argv, &self.env())
    }

    /// With a client, and the pane that it shows.
    pub fn up(&self) -> (Terminal, Pane) {
        let mut terminal = self.attach();
        let pane = self.next_pane(&mut terminal);
        terminal.settle(QUIET);
        (terminal, pane)
    }

    fn next_pane(&self, terminal: &mut Terminal) -> Pane {
        terminal.show_until(&self.listener);
        Pane::new(self.listener.accept().expect("a pane").0)
    }

    /// The next one after so many: in a window of its own, until there are as many as a capsule likes to have. Then they
    /// are cut in two.
    pub fn add_pane(&self, before: usize, terminal: &mut Terminal) -> Pane {
        let cut = before.checked_sub(WINDOWS);
        match (self.kind, cut) {
            (Kind::Bare, _) => panic!("BUG: a bare terminal has one pane"),
            (Kind::Tmux, None) => drop(self.tmux(&["new-window", "-d", &self.path("pane")]).expect("a window")),
            (Kind::Tmux, Some(window)) => {
                self.tmux(&["split-window", "-d", "-t", &format!(":{window}"), &self.path("pane")]).expect("a pane");
            }
            (Kind::Capsule, None) => {
                let done = Command::new(capsule()).args(["new", "claude", "--detached"]).envs(self.env()).stdout(Stdio::null()).status();
                assert!(done.is_ok_and(|status| status.success()), "the capsule starts another session");
            }
            (Kind::Capsule, Some(_)) => terminal.send(b"\x1cn\x1c\"1"),
        }
        self.next_pane(terminal)
    }

    /// Beside the first one, and the one that is typed into.
    pub fn split(&self, terminal: &mut Terminal) -> Pane {
        match self.kind {
            Kind::Bare => panic!("BUG: a bare terminal has one pane"),
            Kind::Tmux => drop(self.tmux(&["split-window", "-h", &self.path("pane")]).expect("a pane")),
            Kind::Capsule => terminal.send(b"\x1c%1"),
        }
        let pane = self.next_pane(terminal);
        terminal.settle(QUIET);
        pane
    }

    /// What serves, without clients and panes; whose end is the end of all comes last.
    pub fn servers(&self) -> Vec<Pid> {
        match (self.kind, &self.init) {
            (Kind::Tmux, _) => {
                let pid = self.tmux(&["display-message", "-p", "#{pid}"]);
                pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)).into_iter().collect()
            }
            (_, Some(init)) => {
                let init = init.id();
                let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
                let is_mux = |pid: &&str| {
                    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| memchr::memmem::find(&line, b"\0serve\0").is_some())
                };
                let muxes = children.split_whitespace().filter(is_mux).filter_map(|pid| pid.parse().ok());
                muxes.chain([init as i32]).filter_map(Pid::from_raw).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A mux whose init has gone follows by itself.
        if let Some(server) = self.servers().last() {
            let _ = rustix::process::kill_process(*server, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while let Some(init) = &mut self.init
            && let Ok(None) = init.try_wait()
        {
            if Instant::now() > until {
                let _ = init.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The one that goes into containers if its place is told, otherwise the one cargo has built along with this.
fn capsule() -> String {
    std::env::var("JACKIN_CAPSULE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_jackin-capsule").to_owned())
}

// ---- from outside ----

/// Seconds on a processor, of all threads there are.
pub fn cpu_seconds(processes: &[Pid]) -> f64 {
    let threads =
        processes.iter().flat_map(|pid| fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter().flatten().flatten());
    let spent = threads.filter_map(|thread| {
        let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedule.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub rss: f64,
    /// Shared pages by their share: what two processes of one binary have in common counts once.
    pub pss: f64,
    /// Files that are memory, which no process has mapped.
    pub files: f64,
}

/// In binary megabytes, as tools that show memory count.
pub fn memory(processes: &[Pid]) -> Memory {
    let mut memory = Memory::default();
    let mut files = std::collections::BTreeMap::new();
    for pid in processes.iter().map(|pid| pid.as_raw_nonzero()) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let of = |name: &str| -> f64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
        };
        memory.rss += of("Rss:");
        memory.pss += of("Pss:");
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|path| path.to_string_lossy().starts_with("/memfd:"))
                && let Ok(file) = fs::metadata(descriptor.path())
            {
                files.insert(file.ino(), file.blocks() as f64 / 2048.0);
            }
        }
    }
    memory.files = files.into_values().fold(0.0, |all, file| all + file);
    memory
}

/// Megabytes that a process has written.
pub fn written(pid: Pid) -> f64 {
    let io = fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
