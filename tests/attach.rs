//! `jackin hardline` in a terminal, attached to a capsule whose every word the test says. No engine is needed.

use jackin_capsule::control::{self, Reply, Request, ScreenText, SessionState, SessionSummary};
use jackin_capsule::wire::{AttachMode, ClientFrame, HEADER_LEN, Hello, ServerFrame, ShutdownReason, Spawn, VERSION, decode_header};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const CONTAINER: &str = "jk-one-app-smith";
const DEADLINE: Duration = Duration::from_secs(30);
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

/// A home with one recorded instance, and its capsule's socket.
struct Site {
    root: tempfile::TempDir,
    listener: UnixListener,
}

impl Site {
    fn new() -> Site {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["bin", &format!("home/.jackin/data/{CONTAINER}/.jackin"), &format!("home/.jackin/sockets/{CONTAINER}")] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        let record = serde_json::json!({
            "record.instance_id": "one", "record.instance": "app/default", "record.workspace_name": "app", "record.workspace_label": "app",
            "record.role_key": "smith", "record.role_display_name": "Smith", "record.agent_runtime": "claude",
            "record.role_source_git": "/none", "record.role_git_sha": "0", "record.image_tag": "x", "record.role_container": CONTAINER,
            "record.declared": true, "record.workdir": "/work",
        });
        std::fs::write(path(&format!("home/.jackin/data/{CONTAINER}/.jackin/spec.json")), record.to_string()).unwrap();
        let listener = UnixListener::bind(path(&format!("home/.jackin/sockets/{CONTAINER}/jackin.sock"))).unwrap();
        Site { root, listener }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A desktop program that notes its arguments.
    fn program(&self, name: &str) {
        let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n", self.path(name).display());
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let path = self.path("bin").join(name);
        assert!(std::process::Command::new("sh").args(["-c", write, "sh", &text]).arg(path).status().unwrap().success());
    }

    fn jackin(&self, args: &[&str]) -> Terminal {
        let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 100, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new("/bin/sh");
        let script = "before=$(stty -g); \"$0\" \"$@\"; echo \"code $?\"; [ \"$before\" = \"$(stty -g)\" ] && echo restored; read x";
        command.args(["-c", script, env!("CARGO_BIN_EXE_jackin")]);
        command.args(args);
        command.env_clear();
        command.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        command.env("HOME", self.path("home"));
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Terminal { _master: pair.master, keys, output, raw: String::new(), child }
    }

    /// The next connection that says something; jackin also looks whether there is anybody at all.
    fn accept(&self) -> Peer {
        loop {
            let (stream, _) = self.listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut peer = Peer { stream, first: None };
            let mut first = [0];
            if peer.stream.read(&mut first).unwrap() == 1 {
                peer.first = Some(first[0]);
                return peer;
            }
        }
    }

    fn answer(&self, reply: &Reply) -> Request {
        let mut peer = self.accept();
        let mut length = [0; 4];
        peer.read(&mut length);
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        peer.read(&mut json);
        peer.stream.write_all(&control::frame(&serde_json::to_string(reply).unwrap())).unwrap();
        Request::parse(&json).0
    }

    /// A capsule that is paused takes connections too, so it is asked for a word first.
    fn alive(&self) {
        assert_eq!(self.answer(&Reply::SessionList { sessions: Vec::new() }), Request::Status);
    }

    /// Attaches and shows that.
    fn attached(&self, args: &[&str]) -> (Terminal, Peer, Hello) {
        let mut terminal = self.jackin(args);
        self.alive();
        let mut peer = self.accept();
        let Some(ClientFrame::Hello(hello)) = peer.next() else { panic!("no hello") };
        peer.send(&ServerFrame::Welcome { sessions: 1 });
        peer.send(&ServerFrame::Output(b"here".to_vec()));
        terminal.wait_for("here");
        (terminal, peer, *hello)
    }
}

struct Peer {
    stream: UnixStream,
    first: Option<u8>,
}

impl Peer {
    fn read(&mut self, into: &mut [u8]) -> bool {
        let (taken, rest) = into.split_at_mut(usize::from(self.first.is_some()));
        taken.fill(self.first.take().unwrap_or_default());
        self.stream.read_exact(rest).is_ok()
    }

    fn next(&mut self) -> Option<ClientFrame> {
        let mut header = [0; HEADER_LEN];
        if !self.read(&mut header) {
            return None;
        }
        let (tag, len) = decode_header(header).unwrap();
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).unwrap();
        Some(ClientFrame::decode(tag, &payload).unwrap())
    }

    fn send(&mut self, frame: &ServerFrame) {
        self.stream.write_all(&frame.encode().unwrap()).unwrap();
    }
}

struct Terminal {
    _master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    raw: String,
    child: Box<dyn Child + Send + Sync>,
}

impl Terminal {
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.raw.contains(text) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.raw.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} is not shown:\n{}", self.raw),
            }
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_wish_reaches_the_capsule() {
    let site = Site::new();
    for (args, expected) in [
        (&["hardline"][..], (Spawn::None, None, AttachMode::Takeover)),
        (&["hardline", "app", "--shell"], (Spawn::Shell, None, AttachMode::Takeover)),
        (&["hardline", "app", "--focus", "3"], (Spawn::None, Some(3), AttachMode::Takeover)),
        (&["hardline", "--new", "--agent", "codex"], (Spawn::Agent("codex".into()), None, AttachMode::Takeover)),
        (
            &["hardline", "--new", "--provider", "Z.ai"],
            (Spawn::AgentWithProvider { agent: "claude".into(), provider: "Z.ai".into() }, None, AttachMode::Takeover),
        ),
    ] {
        let (mut terminal, mut peer, hello) = site.attached(args);
        assert_eq!((hello.spawn, hello.focus, hello.ctx.mode), expected, "{args:?}");
        peer.send(&ServerFrame::Shutdown(ShutdownReason::Detached));
        terminal.wait_for("Detached; app/default goes on.");
        terminal.wait_for("code 0");
        terminal.wait_for("restored");
        let at = |text| terminal.raw.find(text).unwrap_or_else(|| panic!("{text:?} in {:?}", terminal.raw));
        // The terminal keeps its own title while ours is shown.
        assert!(at("\x1b[22;0t") < at("\x1b]2;jackin app/default\x07") && at("here") < at("\x1b[23;0t"));
    }
}

#[test]
fn a_watcher_looks_and_leaves() {
    let site = Site::new();
    let mut terminal = site.jackin(&["--no-color", "hardline", "app", "--watch"]);
    site.alive();
    assert_eq!(site.answer(&Reply::Version { version: "1".into(), protocol: VERSION }), Request::Version);
    let mut peer = site.accept();
    let Some(ClientFrame::Hello(hello)) = peer.next() else { panic!("no hello") };
    assert_eq!(hello.ctx.mode, AttachMode::Watch);
    assert!(!hello.terminal().color, "--no-color holds in there too");
    peer.send(&ServerFrame::Output(b"here".to_vec()));
    terminal.wait_for("here");
    terminal.type_keys("q");
    assert_eq!(peer.next(), None);
    terminal.wait_for("code 0");
}

#[test]
fn the_host_opens_links_takes_files_and_gives_images() {
    let site = Site::new();
    site.program("xdg-open");
    std::fs::write(site.path("home/a.png"), PNG).unwrap();
    let (mut terminal, mut peer, _) = site.attached(&["hardline", "app"]);
    peer.send(&ServerFrame::HostOpenUrl("https://example.org/".into()));
    let (transfer, bytes) = (7, b"exported".to_vec());
    let sha256 = Sha256::digest(&bytes).into();
    peer.send(&ServerFrame::FileExportStart {
        transfer,
        size: 8,
        reveal: false,
        open: false,
        source: "/work/r.txt".into(),
        name: "r.txt".into(),
    });
    peer.send(&ServerFrame::FileExportChunk { transfer, offset: 0, bytes });
    peer.send(&ServerFrame::FileExportEnd { transfer, sha256 });
    let saved = format!("saved ~/Downloads/jackin/{CONTAINER}/r.txt");
    assert_eq!(peer.next(), Some(ClientFrame::HostNotice(saved)));
    let file = site.path("home/Downloads/jackin").join(CONTAINER).join("r.txt");
    assert_eq!(std::fs::read(file).unwrap(), b"exported");
    assert_eq!(std::fs::read_to_string(site.path("xdg-open")).unwrap(), "https://example.org/\n");

    // There is no clipboard here, so Ctrl+V is a key; the path of an image is the image.
    terminal.type_keys("\x16");
    assert_eq!(peer.next(), Some(ClientFrame::Input(b"\x16".to_vec())));
    terminal.type_keys("\x1b[200~~/a.png\x1b[201~");
    let Some(ClientFrame::ImageStart { transfer, format: 1, size }) = peer.next() else { panic!("no image") };
    assert_eq!(size, PNG.len() as u64);
    assert_eq!(peer.next(), Some(ClientFrame::ImageChunk { transfer, offset: 0, bytes: PNG.to_vec() }));
    assert_eq!(peer.next(), Some(ClientFrame::ImageEnd { transfer, sha256: Sha256::digest(PNG).into() }));
    terminal.type_keys("after");
    assert_eq!(peer.next(), Some(ClientFrame::Input(b"after".to_vec())), "and no path is typed");
    peer.send(&ServerFrame::Shutdown(ShutdownReason::SessionEnded(Some(3))));
    terminal.wait_for("app/default ended with code 3");
    terminal.wait_for("code 1");
}

#[test]
fn inspecting_shows_sessions_their_states_and_the_history() {
    let site = Site::new();
    let mut terminal = site.jackin(&["hardline", "app", "--inspect", "--history", "5"]);
    let session = SessionSummary { id: 2, label: "Codex".into(), agent: Some("codex".into()), state: SessionState::Blocked, active: true };
    assert_eq!(site.answer(&Reply::SessionList { sessions: vec![session] }), Request::Status);
    let screen =
        ScreenText { session_id: 2, rows: 1, cols: 9, cursor_row: 0, cursor_col: 0, title: String::new(), text: "old\nnew".into() };
    assert_eq!(site.answer(&Reply::SessionRead(screen)), Request::SessionRead { session_id: None, history: Some(5) });
    terminal.wait_for("[2] Codex (codex) state=blocked active=true");
    terminal.wait_for("old\r\nnew");
    terminal.wait_for("code 0");
}
