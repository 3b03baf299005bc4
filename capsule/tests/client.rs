//! The client as the operator meets it: the real binary in a real terminal.

mod common;

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{BINARY, Capsule, SHELL_AGENT, eventually, kill};
use jackin_capsule::screen::{Policy, Screen, Size};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    raw: Vec<u8>,
    screen: Screen,
    child: Box<dyn Child + Send + Sync>,
}

const SIZE: Size = Size { rows: 24, cols: 80 };

impl Terminal {
    /// A shell that runs the client and then tells how it left the terminal.
    fn run(capsule: &Capsule, client: &str) -> Self {
        let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new("/bin/sh");
        command.args([
            "-c",
            &format!("before=$(stty -g); {client}; echo \"code $?\"; [ \"$before\" = \"$(stty -g)\" ] && echo restored; read x"),
        ]);
        command.env("CAPSULE", BINARY);
        command.env("JACKIN_RUN_DIR", capsule.path("run"));
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
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
    terminal.wait_for("24 80");
    terminal.master.resize(PtySize { rows: 30, cols: 90, pixel_width: 0, pixel_height: 0 }).unwrap();
    terminal.screen.resize(Size { rows: 30, cols: 90 });
    eventually("the session has the new size", || {
        terminal.type_keys("stty size\r");
        let reply = capsule.ask_raw(r#"{"type":"session_read"}"#);
        reply.contains("30 90").then_some(())
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

#[test]
fn the_client_finds_the_mux_again() {
    let capsule = Capsule::start(SHELL_AGENT);
    let mut terminal = Terminal::run(&capsule, "\"$CAPSULE\"");
    terminal.wait_for("agent claude");
    for round in 0..2 {
        kill("KILL", capsule.mux_pid());
        // What was typed into the dying mux is gone, as in any crash; the next try arrives.
        eventually("the client talks to the new mux", || {
            terminal.type_keys(&format!("echo a''live-{round}\r"));
            terminal.shows(&format!("alive-{round}"), Duration::from_millis(200)).then_some(())
        });
    }
    terminal.type_keys("\x1cd");
    terminal.wait_for("detached");
    terminal.assert_left_clean();
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
