//! A real capsule in a temporary directory, and a client that speaks frames. Every wait has a deadline and ends with the
//! event; what was seen last is in the panic message.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod terminal;

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jackin_capsule::control::{self, Reply};
use jackin_capsule::screen::{Policy, Screen, Size};
use jackin_capsule::wire::{ClientFrame, HEADER_LEN, Hello, ServerFrame, ShutdownReason, Spawn, decode_header};

pub const BINARY: &str = env!("CARGO_BIN_EXE_jackin-capsule");
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

pub struct Capsule {
    pub init: Child,
    pub dir: tempfile::TempDir,
}

/// The program of every agent session: says who it is, then is a shell.
pub const SHELL_AGENT: &str = "echo agent $JACKIN_AGENT args \"$@\"\nPS1='$ ' exec sh";

impl Capsule {
    pub fn start(agent: &str) -> Self {
        Self::start_with(agent, &[])
    }

    pub fn start_with(agent: &str, env: &[(&str, &str)]) -> Self {
        Self::start_from("", agent, env)
    }

    /// As a spare: nothing begins before `release`.
    pub fn start_held(agent: &str) -> Self {
        Self::start_from("hold = true\n", agent, &[])
    }

    /// What the host does to take a spare, but asking.
    pub fn let_go(&self) {
        let config = std::fs::read_to_string(self.path("run/agent.toml")).unwrap();
        std::fs::write(self.path("run/agent.new"), config.replace("hold = true\n", "")).unwrap();
        std::fs::rename(self.path("run/agent.new"), self.path("run/agent.toml")).unwrap();
    }

    fn start_from(more: &str, agent: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["run", "state", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let workdir = path("work");
        let config = format!(
            "role = \"r\"\n{more}workdir = \"{}\"\nagents = [\"claude\", \"codex\"]\n[models]\nclaude = \"opus\"\n\
             [auth_modes]\nclaude = \"sync\"\ncodex = \"ignore\"\n",
            workdir.display()
        );
        std::fs::write(path("run/agent.toml"), config).unwrap();
        write_script(&path("entrypoint"), agent);
        let mut command = Command::new(BINARY);
        command
            .arg("claude")
            .env("JACKIN_CAPSULE_FORCE_DAEMON", "1")
            .env("JACKIN_RUN_DIR", path("run"))
            .env("JACKIN_STATE_DIR", path("state"))
            .env("JACKIN_ENTRYPOINT", path("entrypoint"))
            .env("HOME", dir.path())
            .env("ENV", "")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("stderr")).unwrap());
        Self { init: command.spawn().unwrap(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/jackin.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = eventually("the socket takes a connection", || UnixStream::connect(self.socket()).ok());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub fn attach(&self) -> Attached {
        self.attach_with(Hello::default())
    }

    /// Attached means answered: a mux that is just dying may still take a connection.
    pub fn attach_with(&self, hello: Hello) -> Attached {
        let size = Size::clamped(hello.rows, hello.cols);
        let frame = ClientFrame::Hello(Box::new(hello)).encode().unwrap();
        eventually("a client is answered", || {
            let mut attached =
                Attached { stream: self.connect(), terminal: Screen::new(size, Policy::default()), bytes_out: 0, first: None };
            attached.stream.write_all(&frame).ok()?;
            attached.first = Some(attached.next()?);
            Some(attached)
        })
    }

    pub fn attach_and_spawn(&self, spawn: Spawn) -> Attached {
        self.attach_with(Hello { spawn, ..Hello::default() })
    }

    pub fn ask_raw(&self, json: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(&control::frame(json)).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut reply).unwrap();
        String::from_utf8(reply).unwrap()
    }

    pub fn ask(&self, json: &str) -> Reply {
        serde_json::from_str(&self.ask_raw(json)).unwrap()
    }

    /// Of a session: so much of its history, and its screen.
    pub fn lines(&self, session: u64, history: usize) -> Vec<String> {
        match self.ask(&format!(r#"{{"type":"session_read","session_id":{session},"history":{history}}}"#)) {
            Reply::SessionRead(screen) => screen.text.lines().map(str::to_owned).collect(),
            other => panic!("session {session}: {other:?}"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.init.id()
    }

    pub fn mux_pid(&self) -> u32 {
        eventually("a mux runs", || {
            processes().into_iter().find(|p| p.parent == self.pid() && p.state != 'Z' && p.command.contains("\0serve\0")).map(|p| p.pid)
        })
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("state/multiplexer.log")).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    pub fn wait(&mut self) -> ExitStatus {
        eventually("init exits", || self.init.try_wait().unwrap())
    }

    pub fn assert_running(&mut self) {
        assert_eq!(self.init.try_wait().unwrap(), None, "{}", self.stderr());
    }
}

impl Drop for Capsule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let end = |text: String| text.lines().rev().take(60).fold(String::new(), |end, line| format!("{line}\n{end}"));
            eprintln!("capsule log:\n{}\nstderr:\n{}", end(self.log()), end(self.stderr()));
        }
        if self.init.try_wait().unwrap().is_none() {
            kill("TERM", self.pid());
            self.wait();
        }
    }
}

pub fn write_script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub state: char,
    pub command: String,
}

pub fn processes() -> Vec<Process> {
    let read = |pid: u32| -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Process { pid, parent, state, command })
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

pub fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub struct Attached {
    pub stream: UnixStream,
    pub terminal: Screen,
    pub bytes_out: usize,
    first: Option<ServerFrame>,
}

impl Attached {
    pub fn send(&mut self, frame: &ClientFrame) {
        self.stream.write_all(&frame.encode().unwrap()).unwrap();
    }

    pub fn type_keys(&mut self, text: &str) {
        self.send(&ClientFrame::Input(text.into()));
    }

    /// The next frame, or nothing when the capsule has closed the connection.
    pub fn next(&mut self) -> Option<ServerFrame> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut header = [0; HEADER_LEN];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                return None;
            }
            Err(error) => panic!("{error}; the screen shows\n{}", self.terminal.text()),
        }
        let (tag, len) = decode_header(header).unwrap();
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).unwrap();
        let frame = ServerFrame::decode(tag, &payload).unwrap();
        if let ServerFrame::Output(bytes) = &frame {
            self.bytes_out += bytes.len();
            self.terminal.process(bytes);
        }
        Some(frame)
    }

    pub fn wait_for(&mut self, what: &str, mut seen: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !seen(&self.terminal.text()) {
            assert!(Instant::now() < deadline, "{what} is not on the screen:\n{}", self.terminal.text());
            assert!(self.next().is_some(), "closed while waiting for {what}; the screen shows\n{}", self.terminal.text());
        }
    }

    pub fn wait_for_text(&mut self, text: &str) {
        self.wait_for(text, |screen| screen.contains(text));
    }

    /// Reads to the end, which must be said.
    pub fn wait_for_shutdown(&mut self) -> ShutdownReason {
        let mut reason = None;
        while let Some(frame) = self.next() {
            if let ServerFrame::Shutdown(why) = frame {
                reason = Some(why);
            }
        }
        reason.unwrap_or_else(|| panic!("closed without a word; the screen shows\n{}", self.terminal.text()))
    }

    pub fn wait_until_lost(&mut self) {
        while let Some(frame) = self.next() {
            assert!(!matches!(frame, ServerFrame::Shutdown(_)), "{frame:?}");
        }
    }
}
