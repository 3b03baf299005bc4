//! `jackin console` in a real terminal, without an engine: it opens, moves, edits, asks, and gives the terminal back as it was found,
//! however it ends.

use jackin_capsule::control::{self, Reply, Request, SessionState};
use jackin_capsule::wire::{ClientFrame, HEADER_LEN, ServerFrame, ShutdownReason, Spawn, decode_header};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const JACKIN: &str = env!("CARGO_BIN_EXE_jackin");
const DEADLINE: Duration = Duration::from_secs(20);
const CONFIG: &str = "version = \"v1alpha9\"\n\n[roles.local]\ngit = \"ROLE\"\ntrusted = true\n";
const APP: &str =
    "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"local\"\n\n[[mounts]]\nsrc = \"~/src/app\"\ndst = \"/workspace\"\n";
const CONTAINER: &str = "jk-one-app-local";

/// A home with workspace `app` and a role that asks a question.
struct Site {
    root: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { root: tempfile::tempdir().unwrap() };
        for folder in ["home/src/app", "home/src/bare", "bin"] {
            std::fs::create_dir_all(site.path(folder)).unwrap();
        }
        site.write("home/.config/jackin/config.toml", &CONFIG.replace("ROLE", &site.path("role").to_string_lossy()));
        site.write("home/.config/jackin/workspaces/app.toml", APP);
        site.write(
            "role/jackin.role.toml",
            "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\n\n[claude]\n\n[env.COLOUR]\ninteractive = true\nprompt = \"Which colour?\"\n",
        );
        // Stands in for the capsule as well, whose digest is wanted.
        site.editor("exit 1");
        site.write("role/Dockerfile", "FROM projectjackin/construct:0.1-trixie\n");
        let script = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.org commit -q -m role";
        let made = Command::new("sh").args(["-c", script]).current_dir(site.path("role")).env("HOME", site.path("home")).status();
        assert!(made.unwrap().success());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A program to edit with. `sh` writes it, so that no descriptor of ours keeps it from being run.
    fn editor(&self, script: &str) {
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let path = self.path("bin/edit");
        assert!(Command::new("sh").args(["-c", write, "sh", &format!("#!/bin/sh\n{script}\n")]).arg(path).status().unwrap().success());
    }

    fn env(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        vec![
            ("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()).into()),
            ("HOME", self.path("home").into()),
            ("DOCKER_HOST", "unix:///nonexistent/docker.sock".into()),
            ("JACKIN_AGENT_MIRROR", "off".into()),
            ("JACKIN_CAPSULE_BIN", self.path("bin/edit").into()),
            ("VISUAL", "edit --now".into()),
            ("TERM", "xterm-256color".into()),
            ("LANG", "C.UTF-8".into()),
        ]
    }

    fn open(&self, args: &[&str], columns: u16, rows: u16) -> Terminal {
        self.open_with(args, columns, rows, &[])
    }

    fn open_with(&self, args: &[&str], columns: u16, rows: u16, more: &[(&str, &str)]) -> Terminal {
        let pair = native_pty_system().openpty(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(JACKIN);
        command.args(args);
        command.env_clear();
        for (name, value) in self.env() {
            command.env(name, value);
        }
        for (name, value) in more {
            command.env(name, value);
        }
        command.cwd(self.path("home/src/bare"));
        let before = modes(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let cells = |count| NonZero::new(count).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 1000)));
        let mut output = pair.master.try_clone_reader().unwrap();
        let drawing = screen.clone();
        let bytes = Arc::new(AtomicUsize::new(0));
        let drawn = bytes.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                bytes.fetch_add(count, Ordering::SeqCst);
                drawing.lock().unwrap().process(&buffer[..count]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Terminal { master: pair.master, keys, child, before, screen, drawn }
    }
}

fn modes(terminal: &dyn MasterPty) -> String {
    let modes = terminal.get_termios().unwrap();
    format!("{:?} {:?} {:?}", modes.input_flags, modes.output_flags, modes.local_flags)
}

struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    before: String,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Bytes that came.
    drawn: Arc<AtomicUsize>,
}

impl Terminal {
    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Is the console on show, or the screen that was there before?
    fn is_console(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    #[track_caller]
    fn wait(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !so() {
            assert!(Instant::now() < deadline, "waited for {what}:\n{}", self.contents());
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        self.wait(&format!("{text:?}"), || self.contents().contains(text));
    }

    /// On the console's own screen.
    #[track_caller]
    fn console_shows(&self, text: &str) {
        self.wait(&format!("{text:?} in the console"), || self.is_console() && self.contents().contains(text));
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.process_id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    #[track_caller]
    fn ends(&mut self) -> u32 {
        let deadline = Instant::now() + DEADLINE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.exit_code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.contents());
            thread::sleep(Duration::from_millis(5));
        };
        self.wait("the screen of before", || !self.is_console());
        self.is_restored();
        code
    }

    #[track_caller]
    fn is_restored(&self) {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.hide_cursor() && !screen.bracketed_paste() && !screen.application_cursor());
        assert_eq!(modes(&*self.master), self.before, "the terminal is as it was");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn opens_moves_filters_and_leaves() {
    let site = Site::new();
    for (args, leave) in [(&["console"][..], "q"), (&[], "\x1b"), (&["--no-color", "console"], "\x11"), (&["console"], "\x03")] {
        let mut terminal = site.open(args, 100, 30);
        terminal.console_shows("~/src/bare");
        terminal.console_shows("/nonexistent/docker.sock");
        terminal.console_shows("no engine");
        terminal.types("\x1b[B");
        terminal.console_shows("~/src/app -> /workspace");
        terminal.types("/bare");
        terminal.wait("the filter", || !terminal.contents().contains("local"));
        terminal.types("\r");
        terminal.console_shows("/bare\n");
        terminal.types("\x1b");
        terminal.console_shows("local");
        terminal.master.resize(PtySize { rows: 20, cols: 60, pixel_width: 0, pixel_height: 0 }).unwrap();
        terminal.screen.lock().unwrap().screen_mut().set_size(NonZero::new(20).unwrap(), NonZero::new(60).unwrap());
        terminal.wait("no preview", || !terminal.contents().contains("/workspace") && terminal.contents().contains("app"));
        terminal.types("?");
        terminal.console_shows("On the folder and on workspaces");
        terminal.types("q");
        terminal.console_shows("no engine");
        terminal.types(leave);
        assert_eq!(terminal.ends(), 0);
    }
}

#[test]
fn signals_end_it_with_the_terminal_restored() {
    let site = Site::new();
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut terminal = site.open(&["console"], 80, 24);
        terminal.console_shows("no engine");
        terminal.signal(signal);
        assert_eq!(terminal.ends(), 130);
    }
}

#[test]
fn a_stop_gives_the_picture_back() {
    let site = Site::new();
    let mut terminal = site.open(&["console"], 80, 24);
    terminal.console_shows("no engine");
    terminal.signal(Signal::STOP);
    terminal.screen.lock().unwrap().process(b"\x1b[?2004l\x1b[2J\x1b[Hthe shell was here");
    terminal.signal(Signal::CONT);
    terminal.wait("the picture", || !terminal.contents().contains("the shell") && terminal.contents().contains("no engine"));
    assert!(terminal.screen.lock().unwrap().screen().bracketed_paste());
    terminal.types("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn where_it_cannot_be_shown_one_message_says_so() {
    let site = Site::new();
    for (columns, rows, term, why) in [(39, 24, "xterm", "39x24"), (80, 14, "xterm", "80x14"), (80, 24, "dumb", "TERM is `dumb`")] {
        let mut terminal = site.open_with(&["console"], columns, rows, &[("TERM", term)]);
        terminal.wait("the message", || terminal.contents().replace('\n', " ").contains("console.no_terminal"));
        let said = terminal.contents();
        assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(why) && said.matches("error").count() == 1, "{said}");
        assert_eq!(terminal.ends(), 1);
        // Alone it is the help, as it is for a pipe.
        let mut terminal = site.open_with(&[], columns, rows, &[("TERM", term)]);
        terminal.wait_for("Exit codes");
        assert_eq!(terminal.ends(), 0);
    }
    let piped = Command::new(JACKIN).arg("console").env_clear().envs(site.env()).output().unwrap();
    let said = String::from_utf8_lossy(&piped.stderr);
    assert!(piped.status.code() == Some(1) && said.contains("console.no_terminal") && piped.stdout.is_empty(), "{piped:?}");
}

#[test]
fn a_broken_file_is_shown_and_mended_in_the_editor() {
    let site = Site::new();
    let file = site.path("home/.config/jackin/workspaces/app.toml");
    std::fs::write(&file, APP.replace("workdir", "wrkdir")).unwrap();
    site.write("good.toml", APP);
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("not in order");
    terminal.types("j");
    terminal.console_shows("A required field is missing");
    terminal.types("\r");
    terminal.console_shows("E edits it");

    // An editor that gives up, one that makes it no better, and one that mends it. It has the terminal to itself.
    site.editor("exit 3");
    terminal.types("e");
    terminal.console_shows("editor.failed");
    terminal.types("q");
    site.editor(&format!("echo \"editing $1\"; stty raw -echo; read x; cp '{}' /dev/null", file.display()));
    terminal.types("e");
    terminal.wait_for("editing --now");
    assert!(!terminal.is_console());
    terminal.types("x\n");
    terminal.console_shows("workspaces/app.toml: not in order");
    terminal.console_shows("A required field is missing");
    site.editor(&format!("cp '{}' \"$2\"", site.path("good.toml").display()));
    terminal.types("e");
    terminal.console_shows("workspaces/app.toml is in order.");
    terminal.wait("the list to see it", || !terminal.contents().contains("not in order"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), APP);

    site.editor("echo \"colour =\" >> \"$2\"");
    terminal.types("s");
    terminal.console_shows("config.toml: not in order");
    terminal.types("q");
    terminal.types("q");
    assert_eq!(terminal.ends(), 0, "the terminal is as before all editors");
}

#[test]
fn a_file_that_is_no_text_is_shown_as_what_it_is() {
    let site = Site::new();
    std::fs::write(site.path("home/.config/jackin/workspaces/latin.toml"), b"a = \"\xe9\"\n").unwrap();
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("not in order");
    terminal.types("jj");
    terminal.console_shows("File is not UTF-8");
    site.editor("exit 0");
    terminal.types("s");
    terminal.console_shows("config.toml is in order.");
    terminal.types("e");
    terminal.console_shows("workspaces/latin.toml: not in order");
    terminal.types("qq");
    assert_eq!(terminal.ends(), 0);
}

/// One that asks on the terminal, as ssh does, unless it is told not to.
const SSH: &str = "#!/bin/sh
echo \"askpass=$SSH_ASKPASS_REQUIRE $*\" >> LOG
echo noise >&2
case \"$*$SSH_ASKPASS_REQUIRE\" in *BatchMode*|*force) ;; *) echo 'Password?' > /dev/tty ;; esac
exit 255
";

#[test]
fn what_runs_in_the_background_leaves_the_terminal_alone() {
    let site = Site::new();
    let log = site.path("ssh.log");
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let made = Command::new("sh").args(["-c", write, "sh", &SSH.replace("LOG", &log.to_string_lossy())]).arg(site.path("bin/ssh")).status();
    assert!(made.unwrap().success());
    site.write("home/.config/jackin/config.toml", &CONFIG.replace("ROLE", "ssh://git@elsewhere/role.git"));
    let mut terminal = site.open_with(&["console"], 100, 30, &[("DOCKER_HOST", "ssh://me@far")]);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let calls = |of: &str| said().lines().filter(|line| line.contains(of)).map(str::to_owned).collect::<Vec<_>>();
    terminal.wait("three looks", || calls("me@far").len() >= 3);
    let looks = calls("me@far");
    assert!(looks.iter().all(|look| look == &looks[0] && look.contains("BatchMode=yes")), "one connection for all: {looks:?}");
    assert!(terminal.is_console() && !terminal.contents().contains("noise") && !terminal.contents().contains("Password?"));
    // The role is looked at silently; the launch may ask.
    terminal.types("j\r");
    terminal.console_shows("jackin load");
    assert!(calls("elsewhere")[0].starts_with("askpass=force "), "{}", said());
    assert!(calls("me@far").iter().any(|call| call.starts_with("askpass= ") && !call.contains("BatchMode")), "{}", said());
    terminal.types("qq");
    assert_eq!(terminal.ends(), 0);
    terminal.wait_for("Password?");
}

#[test]
fn a_workspace_is_created_and_deleted() {
    let site = Site::new();
    let file = site.path("home/.config/jackin/workspaces/bare.toml");
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("~/src/bare");
    terminal.types("n");
    terminal.console_shows("New workspace");
    terminal.types("\r\r");
    terminal.console_shows("Saved ~/.config/jackin/workspaces/bare.toml");
    terminal.console_shows("~/src/bare -> ");
    assert!(file.is_file());
    terminal.types("d");
    terminal.console_shows("Delete workspace bare?");
    terminal.types("y");
    terminal.console_shows("Removed ~/.config/jackin/workspaces/bare.toml");
    assert!(!file.exists());
    terminal.types("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_question_is_answered_or_taken_back() {
    let site = Site::new();
    let mut terminal = site.open(&["console"], 100, 30);
    let mut asked = 0;
    let mut ask = |terminal: &mut Terminal| {
        terminal.console_shows("no engine");
        terminal.types("\r");
        asked += 1;
        // As from a shell, where the earlier ones stand as well.
        terminal.wait("the question", || !terminal.is_console() && terminal.contents().matches("Which colour?").count() == asked);
    };
    terminal.console_shows("app");
    terminal.types("j");
    ask(&mut terminal);
    terminal.is_restored();
    terminal.types("blue\r");
    // The answer is taken, and then there is no engine.
    terminal.console_shows("docker.unreachable");
    terminal.types("q");
    // A Ctrl-C leaves no reader behind that would swallow what is typed next.
    for _ in 0..3 {
        ask(&mut terminal);
        terminal.types("\x03");
        terminal.console_shows("prompt.cancelled");
        terminal.types("q");
    }
    ask(&mut terminal);
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn an_editor_goes_with_the_console() {
    let site = Site::new();
    site.editor("trap '' INT; trap 'echo told; exit' TERM; echo editing; while :; do sleep 0.05; done");
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("no engine");
    terminal.types("s");
    terminal.wait_for("editing");
    terminal.types("\x03");
    terminal.signal(Signal::HUP);
    assert_eq!(terminal.ends(), 130);
    terminal.wait_for("told");
}

/// An engine that takes connections, as many as are told, and does this with each.
fn engine(site: &Site, with: impl Fn(UnixStream) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let path = site.path("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            with(stream.unwrap());
        }
    });
    (format!("unix://{}", path.display()), asked)
}

#[test]
fn an_engine_that_hangs_holds_up_nothing() {
    let site = Site::new();
    let held = Mutex::new(Vec::new());
    let (host, asked) = engine(&site, move |stream| held.lock().unwrap().push(stream));
    let mut terminal = site.open_with(&["console"], 100, 30, &[("DOCKER_HOST", &host)]);
    terminal.wait("the engine to be asked", || asked.load(Ordering::SeqCst) > 0);
    terminal.console_shows("asking the engine");
    terminal.types("j");
    terminal.console_shows("~/src/app -> /workspace");
    site.editor("echo 'workdir =' > \"$2\"");
    terminal.types("e");
    terminal.console_shows("workspaces/app.toml: not in order");
    terminal.types("q");
    terminal.console_shows("asking the engine");
    // A command that waits for it is ended by Ctrl-C.
    site.write("home/.config/jackin/workspaces/app.toml", APP);
    let before = asked.load(Ordering::SeqCst);
    terminal.types("v");
    terminal.wait("the plan to ask", || !terminal.is_console() && asked.load(Ordering::SeqCst) > before);
    terminal.types("\x03");
    terminal.console_shows("Cancelled.");
    // And the one that is gone on as.
    let before = asked.load(Ordering::SeqCst);
    terminal.types("w");
    terminal.wait("the prewarm to ask", || !terminal.is_console() && asked.load(Ordering::SeqCst) > before);
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn nothing_is_drawn_when_nothing_changed() {
    let site = Site::new();
    // Always the same answer.
    let (host, asked) = engine(&site, |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let mut terminal = site.open_with(&["console"], 100, 30, &[("DOCKER_HOST", &host)]);
    terminal.console_shows("no engine");
    let look = |terminal: &Terminal| {
        let before = asked.load(Ordering::SeqCst);
        terminal.wait("another look", || asked.load(Ordering::SeqCst) > before);
    };
    look(&terminal);
    let drawn = terminal.drawn.load(Ordering::SeqCst);
    look(&terminal);
    look(&terminal);
    assert_eq!(terminal.drawn.load(Ordering::SeqCst), drawn);
    terminal.types("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_prewarm_is_gone_on_as() {
    let site = Site::new();
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("no engine");
    terminal.types("jw");
    // Whatever becomes of it, it is the command's own.
    terminal.wait("the end", || !terminal.is_console() && terminal.contents().contains("docker.unreachable"));
    assert_eq!(terminal.ends(), 1);
}

/// A capsule that answers every look, and shows what the test says.
fn capsule(site: &Site) -> Receiver<Spawn> {
    for folder in [format!("home/.jackin/data/{CONTAINER}/.jackin"), format!("home/.jackin/sockets/{CONTAINER}")] {
        std::fs::create_dir_all(site.path(&folder)).unwrap();
    }
    let record = serde_json::json!({
        "record.instance_id": "one", "record.instance": "app/default", "record.workspace_name": "app", "record.workspace_label": "app",
        "record.role_key": "local", "record.role_display_name": "Local", "record.agent_runtime": "claude",
        "record.role_source_git": "/none", "record.role_git_sha": "0", "record.image_tag": "x", "record.role_container": CONTAINER,
        "record.declared": true, "record.workdir": "/workspace",
    });
    site.write(&format!("home/.jackin/data/{CONTAINER}/.jackin/spec.json"), &record.to_string());
    let sockets = format!("home/.jackin/sockets/{CONTAINER}");
    site.write(
        &format!("{sockets}/agent.toml"),
        "role = \"local\"\nworkdir = \"/workspace\"\nagents = [\"claude\", \"codex\"]\n\n[auth_modes]\n",
    );
    let listener = UnixListener::bind(site.path(&format!("{sockets}/jackin.sock"))).unwrap();
    let (sender, spawned) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || {
                let mut start = [0; 4];
                if stream.read_exact(&mut start).is_err() {
                    return;
                }
                // A control message begins with its length, which is small; a frame with its tag.
                if start[0] == 0 {
                    let mut json = vec![0; u32::from_be_bytes(start) as usize];
                    stream.read_exact(&mut json).unwrap();
                    let pane = control::Pane {
                        session_id: 1,
                        label: "Claude".into(),
                        agent: Some("claude".into()),
                        state: SessionState::Idle,
                        agent_status_report: None,
                    };
                    let reply = match Request::parse(&json).0 {
                        Request::Snapshot => {
                            let tab = control::Tab { label: "Claude".into(), focused_pane: 1, panes: vec![pane] };
                            Reply::Snapshot { tabs: vec![tab], active_tab: 0 }
                        }
                        _ => Reply::SessionList { sessions: Vec::new() },
                    };
                    let _ = stream.write_all(&control::frame(&serde_json::to_string(&reply).unwrap()));
                    return;
                }
                let mut header = [0; HEADER_LEN];
                header[..4].copy_from_slice(&start);
                stream.read_exact(&mut header[4..]).unwrap();
                let (tag, length) = decode_header(header).unwrap();
                let mut payload = vec![0; length];
                stream.read_exact(&mut payload).unwrap();
                let ClientFrame::Hello(hello) = ClientFrame::decode(tag, &payload).unwrap() else { panic!("no hello") };
                for frame in [ServerFrame::Welcome { sessions: 1 }, ServerFrame::Output(b"\x1b[2J\x1b[Hthe agent is here".to_vec())] {
                    stream.write_all(&frame.encode().unwrap()).unwrap();
                }
                let _ = sender.send(hello.spawn.clone());
                // Until something is typed; the client has more to tell than that.
                loop {
                    let mut header = [0; HEADER_LEN];
                    if stream.read_exact(&mut header).is_err() {
                        return;
                    }
                    let (tag, length) = decode_header(header).unwrap();
                    let mut payload = vec![0; length];
                    stream.read_exact(&mut payload).unwrap();
                    if let Ok(ClientFrame::Input(keys)) = ClientFrame::decode(tag, &payload)
                        && keys.contains(&b'\r')
                    {
                        break;
                    }
                }
                let _ = stream.write_all(&ServerFrame::Shutdown(ShutdownReason::Detached).encode().unwrap());
            });
        }
    });
    spawned
}

#[test]
fn an_attachment_comes_and_goes() {
    let site = Site::new();
    let spawned = capsule(&site);
    let mut terminal = site.open(&["console"], 100, 30);
    terminal.console_shows("no engine");
    terminal.types("jj");
    terminal.console_shows(CONTAINER);
    for (keys, expected) in [("\r", Spawn::None), ("x", Spawn::Shell), ("a", Spawn::Agent("codex".to_owned())), ("r", Spawn::None)] {
        terminal.types(keys);
        if keys == "a" {
            terminal.console_shows("Which agent?");
            terminal.types("j\r");
        }
        terminal.wait_for("the agent is here");
        assert_eq!(spawned.recv_timeout(DEADLINE).unwrap(), expected);
        terminal.types("gone\r");
        terminal.console_shows("Detached; app/default goes on.");
    }
    // What ends the console ends an attachment as well.
    terminal.types("\r");
    terminal.wait_for("the agent is here");
    spawned.recv_timeout(DEADLINE).unwrap();
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.ends(), 130);
}
