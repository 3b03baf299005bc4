//! The client as the operator meets it: the real binary in a real terminal.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{BINARY, Capsule, SHELL_AGENT, eventually, kill};
use jackin_capsule::client::RawTerminal;
use jackin_capsule::control::{self, Event, Reply, Request, SessionState};
use jackin_capsule::screen::{Policy, Screen, Size};
use jackin_capsule::wire::{
    AttachMode, COLOURS, ClientFrame, HEADER_LEN, Hello, ServerFrame, ShutdownReason, Spawn, VERSION, decode_header,
};
use portable_pty::{Child, CommandBuilder, MasterPty, PtyPair, PtySize, native_pty_system};

struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    raw: Vec<u8>,
    screen: Screen,
    child: Box<dyn Child + Send + Sync>,
}

const SIZE: Size = Size { rows: 24, cols: 80 };

/// A shell in a new terminal that runs the client and then tells how it left the terminal.
fn shell(run: &Path, client: &str, env: &[(&str, &str)]) -> (PtyPair, Box<dyn Child + Send + Sync>) {
    let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 }).unwrap();
    let mut command = CommandBuilder::new("/bin/sh");
    command
        .args(["-c", &format!("before=$(stty -g); {client}; echo \"code $?\"; [ \"$before\" = \"$(stty -g)\" ] && echo restored; read x")]);
    command.env("CAPSULE", BINARY);
    command.env("JACKIN_RUN_DIR", run);
    command.env("TERM", "xterm-256color");
    for variable in ["NO_COLOR", "COLORTERM", "TERM_PROGRAM"] {
        command.env_remove(variable);
    }
    for (key, value) in env {
        command.env(key, value);
    }
    let child = pair.slave.spawn_command(command).unwrap();
    (pair, child)
}

impl Terminal {
    fn run(capsule: &Capsule, client: &str) -> Self {
        Self::run_in(&capsule.path("run"), client, &[])
    }

    fn run_in(run: &Path, client: &str, env: &[(&str, &str)]) -> Self {
        let (pair, child) = shell(run, client, env);
        drop(pair.slave);
        let keys = pair.master.take_writer().unwrap();
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
        Self { master: pair.master, keys, output, raw: Vec::new(), screen: Screen::new(SIZE, Policy::default()), child }
    }

    fn wait_for_raw(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !String::from_utf8_lossy(&self.raw).contains(text) {
            let bytes = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let bytes = bytes.unwrap_or_else(|_| panic!("{text:?} was not sent: {:?}", String::from_utf8_lossy(&self.raw)));
            self.raw.extend_from_slice(&bytes);
            self.screen.process(&bytes);
        }
    }

    fn wait_for(&mut self, text: &str) {
        assert!(self.shows(text, Duration::from_secs(30)), "{text:?} is not on the screen:\n{}", self.screen.text());
    }

    fn shows(&mut self, text: &str, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !self.screen.text().contains(text) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    self.raw.extend_from_slice(&bytes);
                    self.screen.process(&bytes);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn type_keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    fn assert_left_clean(&mut self) {
        self.wait_for("restored");
        let text = String::from_utf8_lossy(&self.raw).into_owned();
        let leave = text.rfind("\x1b[?1049l").expect("the alternate screen was left");
        assert!(leave > text.rfind("\x1b[?1049h").unwrap());
        for undone in ["\x1b[=0u", "\x1b[>4m", "\x1b[0 q", "\x1b>", "\x1b]22;default"] {
            assert!(text[..leave].contains(undone), "{undone:?}");
        }
        assert!(text[leave..].contains("\x1b[23;0t"), "the title comes back");
        for undone in ["\x1b[?1003l", "\x1b[?1006l", "\x1b[?2004l", "\x1b[?1004l", "\x1b[?25h"] {
            assert!(
                text[..leave].rfind(undone) > text[..leave].rfind(&undone.replace('l', "h")).filter(|_| undone.ends_with('l')),
                "{undone:?}"
            );
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn attach_type_resize_and_detach() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    terminal.type_keys("printf '\\033[?1003h\\033[?1006h\\033[?2004h'; stty size\r");
    // The strip and the bar take a row each.
    terminal.wait_for("22 80");
    terminal.master.resize(PtySize { rows: 30, cols: 90, pixel_width: 0, pixel_height: 0 }).unwrap();
    terminal.screen.resize(Size { rows: 30, cols: 90 });
    eventually("the session has the new size", || {
        terminal.type_keys("stty size\r");
        let reply = capsule.ask_raw(r#"{"type":"session_read"}"#);
        reply.contains("28 90").then_some(())
    });
    terminal.type_keys("\x1cd");
    terminal.wait_for("detached; the sessions go on");
    terminal.wait_for("code 0");
    terminal.assert_left_clean();
    capsule.assert_running();
}

#[test]
fn the_exit_code_of_the_last_session_is_the_clients() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    terminal.type_keys("exit 7\r");
    terminal.wait_for("code 7");
    terminal.assert_left_clean();
    assert_eq!(capsule.wait().code(), Some(0));
}

/// One that took over, one that types as well, one that only looks.
fn beside_each_other(capsule: &Capsule) -> [Terminal; 3] {
    ["", " --shared", " --watch"].map(|mode| {
        let mut terminal = Terminal::run(capsule, &format!("\"$CAPSULE\"{mode}"));
        terminal.wait_for("agent claude");
        terminal
    })
}

/// Again and again: what is typed into a dying mux is gone, as in any crash. The echo of the keys is not the answer.
fn talks_to_the_new_mux(terminal: &mut Terminal, word: &str) {
    let (first, rest) = word.split_at(1);
    eventually("the client talks to the new mux", || {
        terminal.type_keys(&format!("echo {first}''{rest}\r"));
        terminal.shows(word, Duration::from_millis(200)).then_some(())
    });
}

#[test]
fn the_client_finds_the_mux_again() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    for round in 0..2 {
        kill("KILL", capsule.mux_pid());
        talks_to_the_new_mux(&mut terminal, &format!("alive-{round}"));
    }
    terminal.type_keys("\x1cd");
    terminal.wait_for("detached");
    terminal.assert_left_clean();
}

#[test]
fn clients_beside_each_other_all_find_the_mux_again() {
    let capsule = Capsule::start(SHELL_AGENT);
    let [mut first, mut second, mut watcher] = beside_each_other(&capsule);
    for round in 0..4 {
        kill("KILL", capsule.mux_pid());
        // Whoever comes back last throws nobody out.
        for (who, terminal) in [("first", &mut first), ("second", &mut second)] {
            talks_to_the_new_mux(terminal, &format!("{who}-{round}"));
        }
        watcher.wait_for(&format!("second-{round}"));
    }
    watcher.type_keys("q");
    for terminal in [&mut first, &mut second] {
        terminal.type_keys("\x1cd");
    }
    for terminal in [&mut first, &mut second, &mut watcher] {
        terminal.wait_for("detached");
        terminal.assert_left_clean();
    }
}

#[test]
fn a_client_that_is_terminated_leaves_the_terminal_clean() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\" </dev/tty & echo $! > $JACKIN_RUN_DIR/client; wait $!");
    let pid =
        eventually("the client's pid is known", || std::fs::read_to_string(capsule.path("run/client")).ok()?.trim().parse::<u32>().ok());
    terminal.wait_for("agent claude");
    kill("TERM", pid);
    terminal.wait_for("detached");
    terminal.assert_left_clean();
    capsule.assert_running();
}

#[test]
fn attaching_through_the_proxy() {
    let capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    let mut proxy = std::process::Command::new(BINARY)
        .arg("attach-proxy")
        .env("JACKIN_RUN_DIR", capsule.path("run"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = proxy.stdin.take().unwrap();
    stdin.write_all(&jackin_capsule::control::frame(r#"{"type":"status"}"#)).unwrap();
    drop(stdin);
    let mut reply = Vec::new();
    proxy.stdout.take().unwrap().read_to_end(&mut reply).unwrap();
    assert!(String::from_utf8_lossy(&reply[4..]).starts_with(r#"{"type":"session_list""#));
    assert!(proxy.wait().unwrap().success());
}

#[test]
fn the_verbs_print_what_the_host_parses() {
    let capsule = Capsule::start(SHELL_AGENT);
    capsule.attach().wait_for_text("agent claude");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(BINARY).args(args).env("JACKIN_RUN_DIR", capsule.path("run")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["status"]), (Some(0), "Sessions: 1\n  [1] Claude (claude) state=unknown active=true\n".to_owned()));
    let (code, snapshot) = run(&["snapshot"]);
    assert_eq!(code, Some(0));
    assert!(snapshot.contains("\"focused_pane\": 1"), "{snapshot}");
    assert!(run(&["read"]).1.contains("agent claude"));
    assert_eq!(run(&["read", "99"]).0, Some(1));
    assert!(run(&["agents"]).1.starts_with("amber  claude  running"));
    assert!(run(&["agents", "--format", "json"]).1.contains("\"codename\": \"amber\""));
    assert!(run(&["--version"]).1.starts_with("jackin-capsule 0."));
    assert!(run(&["--help"]).1.contains("attach-proxy"));
    assert_eq!(run(&["fly"]).0, Some(2));
    // Without a terminal attaching is refused rather than half done.
    assert_eq!(run(&[]).0, Some(1));
}

#[test]
fn every_signal_that_ends_the_client_leaves_the_terminal_clean() {
    let server = Server::new();
    for signal in ["HUP", "INT", "QUIT"] {
        let mut terminal = server.terminal("\"$CAPSULE\" </dev/tty & echo $! > $JACKIN_RUN_DIR/client; wait $!", &[]);
        let mut client = server.accept();
        client.hello();
        client.send(&ServerFrame::Output(b"here".to_vec()));
        terminal.wait_for("here");
        let file = server.run.path().join("client");
        let pid = eventually("the client's pid is known", || std::fs::read_to_string(&file).ok()?.trim().parse().ok());
        std::fs::remove_file(file).unwrap();
        kill(signal, pid);
        terminal.wait_for("detached");
        terminal.assert_left_clean();
        assert_eq!(client.next(), None, "{signal}");
    }
}

/// Run by the next test, in a terminal.
#[test]
#[ignore = "panics on purpose"]
fn panics_with_a_raw_terminal() {
    let _guard = RawTerminal::enter(true, b"shown").unwrap();
    panic!("on purpose");
}

#[test]
fn a_panic_leaves_the_terminal_clean_and_is_seen() {
    let run = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let command = format!("'{}' --exact panics_with_a_raw_terminal --ignored --nocapture", this.display());
    let mut terminal = Terminal::run_in(run.path(), &command, &[]);
    terminal.wait_for("code 101");
    terminal.assert_left_clean();
    let text = String::from_utf8_lossy(&terminal.raw);
    assert!(text.rfind("on purpose") > text.find("\x1b[?1049l"), "the message is on the screen that stays");
}

/// A capsule whose every word the test says.
struct Server {
    run: tempfile::TempDir,
    listener: UnixListener,
}

struct Peer(UnixStream);

impl Server {
    fn new() -> Self {
        let run = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(run.path().join("jackin.sock")).unwrap();
        Self { run, listener }
    }

    /// Dies, with everything that is on its way, and is there again when the result is called.
    fn die(self) -> impl FnOnce() -> Self {
        let Self { run, listener } = self;
        drop(listener);
        std::fs::remove_file(run.path().join("jackin.sock")).unwrap();
        move || Self { listener: UnixListener::bind(run.path().join("jackin.sock")).unwrap(), run }
    }

    fn terminal(&self, client: &str, env: &[(&str, &str)]) -> Terminal {
        Terminal::run_in(self.run.path(), client, env)
    }

    fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Peer(stream)
    }

    /// Answers one control question.
    fn answer(&self, replies: &[Reply]) -> Request {
        let mut peer = self.accept();
        let mut length = [0; 4];
        peer.0.read_exact(&mut length).unwrap();
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        peer.0.read_exact(&mut json).unwrap();
        for reply in replies {
            peer.0.write_all(&control::frame(&serde_json::to_string(reply).unwrap())).unwrap();
        }
        Request::parse(&json).0
    }

    /// Runs the client with these arguments against these answers.
    fn run(&self, args: &[&str], env: &[(&str, &str)], replies: &[Reply]) -> (Request, Option<i32>, String, String) {
        let mut command = std::process::Command::new(BINARY);
        command.args(args).env("JACKIN_RUN_DIR", self.run.path()).envs(env.iter().copied());
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A client that reads nothing closes it, and that is fine.
        let _ = child.stdin.take().unwrap().write_all(br#"{"tool":"Bash"}"#);
        let request = self.answer(replies);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (request, output.status.code(), text(output.stdout), text(output.stderr))
    }
}

impl Peer {
    fn send(&mut self, frame: &ServerFrame) {
        self.0.write_all(&frame.encode().unwrap()).unwrap();
    }

    fn next(&mut self) -> Option<ClientFrame> {
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header).ok()?;
        let (tag, len) = decode_header(header).unwrap();
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).unwrap();
        Some(ClientFrame::decode(tag, &payload).unwrap())
    }

    fn hello(&mut self) -> Hello {
        let Some(ClientFrame::Hello(hello)) = self.next() else { panic!("no hello") };
        self.send(&ServerFrame::Welcome { sessions: 1 });
        *hello
    }

    /// Input until it ends with this.
    fn typed(&mut self, end: &str) -> String {
        let mut typed = String::new();
        while !typed.ends_with(end) {
            match self.next() {
                Some(ClientFrame::Input(bytes)) => typed.push_str(std::str::from_utf8(&bytes).unwrap()),
                Some(ClientFrame::AttachControl { kind: COLOURS, .. } | ClientFrame::Resize { .. }) => {}
                other => panic!("{other:?} after {typed:?}"),
            }
        }
        typed
    }
}

#[test]
fn the_terminals_answers_reach_the_capsule_as_colours_and_nobody_as_keys() {
    let server = Server::new();
    let mut terminal = server.terminal("\"$CAPSULE\"", &[]);
    let mut client = server.accept();
    let hello = client.hello();
    assert_eq!((hello.foreground, hello.background), (None, None), "the hello does not wait for the terminal");
    terminal.wait_for_raw("\x1b]10;?\x1b\\\x1b]11;?\x1b\\");
    terminal.type_keys("a\x1b]10;rgb:ffff/8080/0000\x1b\\b\x1b]11;rgb:10/20/30\x07c\r");
    let (mut typed, mut colours) = (Vec::new(), Vec::new());
    while !typed.ends_with(b"\r") {
        match client.next() {
            Some(ClientFrame::Input(bytes)) => typed.extend(bytes),
            Some(ClientFrame::AttachControl { kind: COLOURS, body, .. }) => colours.push(ClientFrame::read_colours(&body).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(typed, b"abc\r");
    assert_eq!(colours.last(), Some(&(Some([255, 128, 0]), Some([16, 32, 48]))));
    client.send(&ServerFrame::Shutdown(ShutdownReason::Detached));
    terminal.assert_left_clean();
}

#[test]
fn the_hello_says_what_the_terminal_can_do() {
    let server = Server::new();
    let hello = |env: &[(&str, &str)]| {
        let mut terminal = server.terminal("\"$CAPSULE\" --focus=3", env);
        let mut client = server.accept();
        let hello = client.hello();
        client.send(&ServerFrame::Shutdown(ShutdownReason::Detached));
        terminal.wait_for("restored");
        let asked = String::from_utf8_lossy(&terminal.raw).contains("\x1b]10;?");
        assert_eq!((hello.rows, hello.cols, hello.focus, hello.ctx.mode), (24, 80, Some(3), AttachMode::Takeover));
        (hello.terminal(), asked)
    };
    let (terminal, asked) = hello(&[("COLORTERM", "truecolor")]);
    assert!(terminal.truecolor && terminal.color && terminal.osc8 && asked);
    let (terminal, _) = hello(&[("COLORTERM", "truecolor"), ("NO_COLOR", "1")]);
    assert!(!terminal.truecolor && !terminal.color && terminal.osc8);
    let (terminal, asked) = hello(&[("TERM", "dumb")]);
    assert!(!terminal.color && !terminal.osc8 && !terminal.sync_output && !asked);
    let (terminal, _) = hello(&[("JACKIN_ATTACH_OSC8", "off"), ("JACKIN_ATTACH_UNDERLINE_STYLE", "1")]);
    assert!(!terminal.osc8 && terminal.underline_style);
}

#[test]
fn keys_typed_while_the_capsule_is_away_arrive_when_it_is_back() {
    let server = Server::new();
    let mut terminal = server.terminal("\"$CAPSULE\" new codex", &[]);
    let mut client = server.accept();
    assert_eq!(client.hello().spawn, Spawn::Agent("codex".into()));
    client.send(&ServerFrame::Output(b"first".to_vec()));
    terminal.wait_for("first");
    // It dies in the middle of a frame.
    client.0.write_all(&ServerFrame::Output(b"never whole".to_vec()).encode().unwrap()[..9]).unwrap();
    let back = server.die();
    drop(client);
    terminal.type_keys("typed meanwhile\r");
    terminal.wait_for("the capsule does not answer; trying again");
    let server = back();
    let mut client = server.accept();
    let hello = client.hello();
    assert_eq!((hello.spawn, hello.focus), (Spawn::None, None), "what was to be started is");
    assert_eq!(client.typed("\r"), "typed meanwhile\r");
    client.send(&ServerFrame::Output(b"\x1b[2J\x1b[Hsecond".to_vec()));
    terminal.wait_for("second");
    client.send(&ServerFrame::Shutdown(ShutdownReason::Detached));
    terminal.assert_left_clean();
}

#[test]
fn one_can_leave_while_the_capsule_is_away() {
    let server = Server::new();
    let mut terminal = server.terminal("\"$CAPSULE\"", &[]);
    let mut client = server.accept();
    client.hello();
    let _back = server.die();
    drop(client);
    terminal.wait_for("trying again");
    terminal.type_keys("\x1cd");
    terminal.wait_for("detached");
    terminal.assert_left_clean();
}

#[test]
fn a_watcher_sends_no_key_and_leaves_with_q() {
    for (leave, flag) in [("q", "--watch"), ("\x03", "--watch"), ("\x1cd", "--watch")] {
        let server = Server::new();
        let mut terminal = server.terminal(&format!("\"$CAPSULE\" {flag}"), &[]);
        let version = Reply::Version { version: "1".into(), protocol: VERSION };
        assert_eq!(server.answer(&[version]), Request::Version);
        let mut client = server.accept();
        assert_eq!(client.hello().ctx.mode, AttachMode::Watch);
        client.send(&ServerFrame::Output(b"watched".to_vec()));
        terminal.wait_for("watched");
        terminal.type_keys("abc");
        terminal.master.resize(PtySize { rows: 30, cols: 90, pixel_width: 0, pixel_height: 0 }).unwrap();
        assert_eq!(client.next(), Some(ClientFrame::Resize { rows: 30, cols: 90 }), "its size is all that is told");
        terminal.type_keys(leave);
        assert_eq!(client.next(), None);
        terminal.wait_for("detached");
        terminal.assert_left_clean();
    }
}

#[test]
fn a_capsule_that_is_too_old_to_be_watched_is_not_taken_over() {
    let server = Server::new();
    let mut terminal = server.terminal("\"$CAPSULE\" --shared", &[]);
    assert_eq!(server.answer(&[Reply::Unknown]), Request::Version);
    terminal.wait_for("the capsule is older than this program");
    terminal.wait_for("code 1");
}

#[test]
fn a_terminal_that_does_not_read_makes_the_capsule_wait_but_not_the_keys() {
    let server = Server::new();
    let (pair, mut child) = shell(server.run.path(), "\"$CAPSULE\"", &[]);
    let mut keys = pair.master.take_writer().unwrap();
    let mut client = server.accept();
    client.hello();
    let frame = ServerFrame::Output(vec![b'x'; 64 << 10]).encode().unwrap();
    client.0.set_nonblocking(true).unwrap();
    let (mut sent, mut rest) = (0, frame.as_slice());
    let mut quiet_since = Instant::now();
    // Enough is in the pipes when nothing has moved for a while.
    while quiet_since.elapsed() < Duration::from_millis(300) {
        match client.0.write(rest) {
            Ok(count) => {
                sent += count;
                rest = if count == rest.len() { &frame } else { &rest[count..] };
                quiet_since = Instant::now();
                assert!(sent < 16 << 20, "the client takes everything");
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                std::thread::park_timeout(Duration::from_millis(3));
            }
        }
    }
    keys.write_all(b"\x03").unwrap();
    client.0.set_nonblocking(false).unwrap();
    assert_eq!(client.typed("\x03"), "\x03");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_only_a_host_can_do_is_declined() {
    let server = Server::new();
    let mut terminal = server.terminal("\"$CAPSULE\"", &[]);
    let mut client = server.accept();
    client.hello();
    let start = ServerFrame::FileExportStart { transfer: 1, size: 1, reveal: false, open: false, source: "/a".into(), name: "a".into() };
    for frame in [ServerFrame::HostOpenUrl("https://example.org".into()), ServerFrame::HostRevealPath("/a".into()), start] {
        client.send(&frame);
        assert!(matches!(client.next(), Some(ClientFrame::HostNotice(text)) if text.contains("jackin hardline")));
    }
    for frame in [ServerFrame::PasteImage, ServerFrame::StageImage, ServerFrame::StageImageFromPath] {
        client.send(&frame);
        assert!(matches!(client.next(), Some(ClientFrame::ImageError(text)) if text.contains("jackin hardline")));
    }
    terminal.type_keys("\x16/tmp/a.png\r");
    assert_eq!(client.typed("\r"), "\x16/tmp/a.png\r", "without a host they are keys");
    client.send(&ServerFrame::Shutdown(ShutdownReason::SessionEnded(Some(3))));
    terminal.wait_for("code 3");
}

#[test]
fn verbs_ask_and_print() {
    use SessionState::{Blocked, Idle};
    let server = Server::new();
    let ok = |args: &[&str], reply: Reply| {
        let (request, code, out, err) = server.run(args, &[], &[reply]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        (request, out)
    };
    // In the order of the alphabet: whether maps keep another is a feature of the build.
    let explanation = serde_json::json!({"evidence": [{"rule": "prompt"}], "none": [], "raw_state": "idle"});
    let (request, out) = ok(&["status", "explain", "2"], Reply::Explained { session_id: 2, explanation: explanation.clone() });
    assert_eq!(request, Request::SessionStatusExplain { session_id: 2 });
    assert_eq!(out, "evidence:\n  -\n    rule: prompt\nnone: none\nraw state: idle\n");
    let (_, out) = ok(&["status", "explain", "2", "--format", "json"], Reply::Explained { session_id: 2, explanation });
    assert!(out.contains("\"raw_state\": \"idle\""), "{out}");
    let (request, out) = ok(&["status", "capture", "2"], Reply::Captured { path: "/state/x".into() });
    assert_eq!((request, out.as_str()), (Request::StatusCapture { session_id: 2 }, "/state/x\n"));
    let screen =
        control::ScreenText { session_id: 2, rows: 1, cols: 1, cursor_row: 0, cursor_col: 0, title: String::new(), text: "t\n\n".into() };
    let (request, out) = ok(&["read", "2", "--history=all"], Reply::SessionRead(screen.clone()));
    assert_eq!((request, out.as_str()), (Request::SessionRead { session_id: Some(2), history: Some(u64::MAX) }, "t\n"));
    let (request, _) = ok(&["read", "--history", "9"], Reply::SessionRead(screen));
    assert_eq!(request, Request::SessionRead { session_id: None, history: Some(9) });
    let (request, out) =
        ok(&["wait", "2", "--for", "blocked,idle", "--timeout", "1.5"], Reply::Waited { session_id: 2, state: Idle, timed_out: false });
    let Request::WaitSessionStatus { session_id: 2, states, timeout_ms } = request else { panic!("{request:?}") };
    assert!(states == [Blocked, Idle] && (1..=1500).contains(&timeout_ms) && out == "idle\n", "{timeout_ms} {out}");
    let recording = Reply::Recording { session_id: 2, path: "/r.cast".into() };
    assert_eq!(ok(&["record", "2", "start"], recording), (Request::Record { session_id: 2, on: true }, "/r.cast\n".into()));
    assert_eq!(ok(&["upgrade", "/bin/new"], Reply::Ack), (Request::Upgrade { path: "/bin/new".into() }, String::new()));
    let spawn = Request::SessionSpawn { agent: Some("codex".into()), provider: Some("p".into()), cwd: None };
    assert_eq!(ok(&["new", "codex", "--provider=p", "--detached"], Reply::Spawned { session_id: 4 }), (spawn, "4\n".into()));
    assert_eq!(ok(&["close", "2"], Reply::Ack).0, Request::SessionClose { session_id: 2 });
}

#[test]
fn events_are_printed_as_they_come_until_the_capsule_closes() {
    let server = Server::new();
    let change = Reply::Event { event: Event::StateChanged { session_id: 1, from: SessionState::Working, to: SessionState::Blocked } };
    let replies = [change, Reply::Event { event: Event::Missed { events: 2 } }];
    let (request, code, out, _) = server.run(&["events"], &[], &replies);
    assert_eq!((request, code), (Request::EventsSubscribe, Some(0)));
    assert_eq!(out, "[1] working -> blocked\n(2 events missed)\n");
    let (_, _, out, _) = server.run(&["events", "--format", "json"], &[], &replies);
    let lines: Vec<Reply> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, replies);
}

#[test]
fn a_hook_reports_its_session_and_never_disturbs_the_agent() {
    let server = Server::new();
    let env = [("JACKIN_SESSION_ID", "7"), ("JACKIN_AGENT_RUNTIME", "claude"), ("JACKIN_STATUS_SOURCE", "hook-claude-7")];
    let (request, code, out, err) = server.run(&["report-event", "--event", "tool-start", "--payload-stdin"], &env, &[Reply::Ack]);
    let Request::ReportRuntimeEvent { session_id: 7, source_id, runtime, event, payload, sequence: Some(_) } = request else {
        panic!("{request:?}");
    };
    assert_eq!((source_id.as_str(), runtime.as_str(), event.as_str()), ("hook-claude-7", "claude", "tool-start"));
    // The tool's arguments are nobody's business.
    assert_eq!(payload, Some(serde_json::json!({})));
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    let (_, code, _, err) = server.run(&["report-event", "--event=stop"], &env, &[Reply::Error { message: "no such session".into() }]);
    assert_eq!((code, err.as_str()), (Some(0), "jackin-capsule: no such session\n"));
    let quiet =
        std::process::Command::new(BINARY).args(["report-event", "--event", "stop"]).env_remove("JACKIN_SESSION_ID").output().unwrap();
    assert_eq!((quiet.status.code(), quiet.stderr.as_slice()), (Some(0), &b""[..]), "outside a session it has nothing to say");
}

#[test]
fn what_cannot_be_is_said_with_an_exit_code() {
    let server = Server::new();
    let refused = |args: &[&str], reply: Reply| {
        let (_, code, out, err) = server.run(args, &[], &[reply]);
        assert_eq!(out, "");
        (code, err)
    };
    let timed_out = Reply::Waited { session_id: 1, state: SessionState::Working, timed_out: true };
    assert_eq!(refused(&["wait", "1", "--for", "idle"], timed_out), (Some(124), String::new()));
    let (code, err) = refused(&["close", "9"], Reply::Error { message: "there is no session 9".into() });
    assert_eq!((code, err.as_str()), (Some(1), "jackin-capsule: there is no session 9\n"));
    let (code, err) = refused(&["events"], Reply::Unknown);
    assert!(code == Some(1) && err.contains("older"), "{err}");
    let (code, err) = refused(&["close", "9"], Reply::Unknown);
    assert!(code == Some(1) && err.contains("older"), "{err}");
    for args in [
        &["wait", "1"][..],
        &["wait", "1", "--for", "happy"],
        &["wait", "--for", "idle"],
        &["wait", "1", "--for", "idle", "--timeout", "-1"],
        &["close"],
        &["close", "x"],
        &["close", "1", "2"],
        &["record", "1"],
        &["status", "fly"],
        &["read", "--history"],
        &["agents", "--format", "xml"],
        &["--focus"],
        &["--fly"],
    ] {
        let output = std::process::Command::new(BINARY).args(args).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("see jackin-capsule --help"), "{args:?}");
    }
}

#[test]
fn a_wait_survives_the_mux() {
    let server = Server::new();
    let mut command = std::process::Command::new(BINARY);
    command.args(["wait", "1", "--for", "idle"]).env("JACKIN_RUN_DIR", server.run.path()).stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    assert!(matches!(server.answer(&[]), Request::WaitSessionStatus { .. }), "and then it dies");
    let server = server.die()();
    server.answer(&[Reply::Waited { session_id: 1, state: SessionState::Idle, timed_out: false }]);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"idle\n"[..]));
}

#[test]
fn several_terminals_on_one_capsule() {
    let mut capsule = Capsule::start(SHELL_AGENT);
    let [mut first, mut second, mut watcher] = beside_each_other(&capsule);
    watcher.type_keys("echo wrong\r");
    second.type_keys("echo fr''om-two\r");
    for terminal in [&mut first, &mut second, &mut watcher] {
        terminal.wait_for("from-two");
        assert!(!terminal.screen.text().contains("wrong"), "{}", terminal.screen.text());
    }
    second.type_keys("\x1cd");
    second.wait_for("detached");
    second.assert_left_clean();
    first.type_keys("echo st''ill\r");
    first.wait_for("still");
    watcher.wait_for("still");
    // Who takes over sends those away who may type, and no others.
    let mut third = Terminal::run(&capsule, "\"$CAPSULE\"");
    first.wait_for("another terminal has attached");
    first.assert_left_clean();
    third.wait_for("still");
    third.type_keys("echo th''ird\r");
    watcher.wait_for("third");
    watcher.type_keys("q");
    watcher.wait_for("detached");
    watcher.assert_left_clean();
    capsule.assert_running();
}

#[test]
fn without_colours_there_are_none() {
    let capsule = Capsule::start(SHELL_AGENT);
    let coloured = |env: &[(&str, &str)]| {
        let mut terminal = Terminal::run_in(&capsule.path("run"), "\"$CAPSULE\"", env);
        terminal.wait_for("agent claude");
        terminal.type_keys("printf '\\033[31;44mre''d \\033[38;2;1;2;3mrg''b\\033[m\\n'\r");
        terminal.wait_for("red rgb");
        let text = String::from_utf8_lossy(&terminal.raw).into_owned();
        let is_colour = |parameter: &str| match parameter.parse() {
            Ok(39 | 49) | Err(_) => false,
            Ok(number) => (30..50).contains(&number) || (90..108).contains(&number),
        };
        text.split("\x1b[").skip(1).any(|sequence| {
            let parameters = sequence.split_once('m').map_or("", |(parameters, _)| parameters);
            parameters.chars().all(|c| c.is_ascii_digit() || ";:".contains(c)) && parameters.split([';', ':']).any(is_colour)
        })
    };
    assert!(coloured(&[("COLORTERM", "truecolor")]));
    assert!(!coloured(&[("COLORTERM", "truecolor"), ("NO_COLOR", "1")]));
}

#[test]
fn an_agent_asks_for_the_colours_of_the_operators_terminal() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    terminal.type_keys("\x1b]10;rgb:0101/0202/0303\x1b\\\x1b]11;rgb:f1f1/f2f2/f3f3\x1b\\");
    eventually("the session's answer is the terminal's", || {
        terminal.type_keys("stty -echo; printf '\\033]11;?\\007'; IFS= read -r -d \"$(printf '\\007')\" x; stty echo; echo \"$x\" | tail -c +2 | tr ';' '='\r");
        terminal.shows("f1f1/f2f2/f3f3", Duration::from_millis(300)).then_some(())
    });
}

#[test]
fn verbs_of_a_real_capsule() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(BINARY).args(args).env("JACKIN_RUN_DIR", capsule.path("run")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let mut events = std::process::Command::new(BINARY)
        .args(["events", "--format", "json"])
        .env("JACKIN_RUN_DIR", capsule.path("run"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    let mut next = || match serde_json::from_str(&told.next().unwrap().unwrap()).unwrap() {
        Reply::Event { event } => event,
        other => panic!("{other:?}"),
    };
    assert!(matches!(next(), Event::Sessions { sessions } if sessions.len() == 1));
    assert_eq!(run(&["new", "codex", "--detached"]), (Some(0), "2\n".to_owned()));
    while !matches!(next(), Event::SessionStarted { session } if session.id == 2) {}
    eventually("it shows something", || run(&["read", "2"]).1.contains("agent codex").then_some(()));
    assert_eq!(run(&["wait", "2", "--for", "done", "--timeout", "0"]).0, Some(124));
    let (code, explained) = run(&["status", "explain", "2"]);
    assert!(code == Some(0) && !explained.is_empty(), "{explained}");
    assert_eq!(run(&["close", "2"]).0, Some(0));
    while !matches!(next(), Event::SessionEnded { session_id: 2, .. }) {}
    assert_eq!(run(&["close", "2"]).0, Some(1));
    events.kill().unwrap();
    events.wait().unwrap();
}
