//! One binary, several faces: init (PID 1), the mux, a session's first process, and the client's verbs.
//! Arguments in, exit code out. Absent: everything else.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jackin_capsule::agent::Explanation;
use jackin_capsule::client::{self, Face, Outcome, Question};
use jackin_capsule::control::{AgentRecord, Event, Reply, Request, SessionState, SessionSummary};
use jackin_capsule::launch::{AGENTS, CLIENT_ENV, LaunchConfig};
use jackin_capsule::paths::{Paths, var};
use jackin_capsule::pty::{SESSION_VERB, session_exec};
use jackin_capsule::wire::{AttachMode, Ctx, Spawn};
use jackin_capsule::{SERVE_VERB, hook, init, serve, setup, status_hooks};
use serde_json::Value;
use tokio::net::UnixStream;

const HELP: &str = "\
jackin-capsule: the terminals of a jackin container

Attach this terminal (Ctrl+\\ opens the menu with every key, Ctrl+\\ d detaches):
  jackin-capsule [--focus ID] [--shared | --watch]
      takes over from other clients; --shared leaves them attached, --watch
      also only looks (q leaves)
  jackin-capsule new [AGENT] [--provider=LABEL] [--detached]
      start an agent, or a shell; --detached prints its id instead of attaching

Ask:
  jackin-capsule status [--format json]        sessions, one per line
  jackin-capsule status explain ID [--format json]
                                               on what evidence a state rests
  jackin-capsule snapshot                      tabs and panes as JSON
  jackin-capsule agents [--format json]        everything that ran
  jackin-capsule read [ID] [--history N|all] [--format json]
                                               the text on a session's screen;
                                               without ID of the focused one
  jackin-capsule wait ID --for STATE[,STATE] [--timeout SECONDS]
                                               prints the state when reached
  jackin-capsule events [--format json]        what happens, until it is stopped

Change:
  jackin-capsule close ID                      end a session
  jackin-capsule record ID start|stop          record what a session shows
  jackin-capsule status capture ID             save what detection sees as a fixture
  jackin-capsule upgrade PATH                  go on as another binary; no session ends

For programs:
  jackin-capsule report-event --event NAME [--payload-stdin]
  jackin-capsule attach-proxy                  relay the socket over standard input and output
  jackin-capsule runtime-setup                 prepare home and git; run by the entrypoint
  jackin-capsule setup-once FILE               run a role's own setup, once per instance
  jackin-capsule prepare-commit-msg FILE [SOURCE]
  jackin-capsule commit-msg FILE               trailers, for repositories with hooks of their own
  jackin-capsule --version | --help

States: working, blocked, done, idle, unknown.

Examples:
  jackin-capsule new codex --detached          prints 2
  jackin-capsule wait 2 --for blocked,done,idle --timeout 600
  jackin-capsule read 2 --history 200
  jackin-capsule events --format json | jq -c .event
  jackin-capsule status explain 2              why it is said to be blocked

Exit codes: 0 done or detached, 1 an error, 2 wrong usage, 124 wait's time is
over; when the last session ends, an attached client exits with its code.

As PID 1: jackin-capsule [AGENT] starts the container's first session.
";

/// What `timeout` of coreutils says too.
const TIMED_OUT: i32 = 124;
/// A connection that breaks while somebody waits is sought again so long: that is a mux that starts anew.
const SEEK: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(name) = hook::called_as() {
        std::process::exit(hook::run(name));
    }
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let code = match args.as_slice() {
        [verb, cwd, argv @ ..] if *verb == SESSION_VERB => {
            let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
            let error = session_exec(cwd, &argv);
            eprintln!("jackin: {}: {error}\r", argv.join(" "));
            127
        }
        [verb, initial] if *verb == SERVE_VERB => serve::run(initial),
        args if is_init(args) => init::run(args.first().unwrap_or(&"claude")),
        args => run_client(args),
    };
    // Not by returning: a blocking read of standard input in another thread must not delay the exit.
    std::process::exit(code)
}

fn is_init(args: &[&str]) -> bool {
    let as_daemon = std::process::id() == 1 || var("JACKIN_CAPSULE_FORCE_DAEMON").is_some();
    match args {
        [] => as_daemon,
        [slug] => as_daemon && AGENTS.iter().any(|agent| agent.slug == *slug),
        _ => false,
    }
}

fn run_client(args: &[&str]) -> i32 {
    match args {
        ["--version" | "-V"] => return print(&format!("jackin-capsule {}\n", env!("CARGO_PKG_VERSION"))),
        ["--help" | "-h" | "help"] => return print(HELP),
        ["attach-proxy"] => return relay(&Paths::from_env()),
        ["runtime-setup"] => return setup::run(),
        ["setup-once", path] => return setup::run_once(std::path::Path::new(path)),
        ["prepare-commit-msg", message, rest @ ..] => return hook::prepare(message, rest),
        ["commit-msg", message] => return hook::finish(message),
        _ => {}
    }
    let verb = match verb(args) {
        Ok(verb) => verb,
        Err(text) => {
            eprintln!("jackin-capsule: {text}; see jackin-capsule --help");
            // Some agents take 2 from a hook as a wish to be stopped.
            return if args.first() == Some(&"report-event") { 1 } else { 2 };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let paths = Paths::from_env();
    match verb {
        Verb::Attach { spawn, focus, mode } => runtime.block_on(attach(&paths, spawn, focus, mode)),
        Verb::Ask(request, form) => runtime.block_on(ask(&paths, &request, form)),
        Verb::Wait { session_id, states, timeout } => runtime.block_on(wait(&paths, session_id, states, timeout)),
        Verb::Events(form) => runtime.block_on(events(&paths, form)),
        Verb::Report { event, payload } => runtime.block_on(report(&paths, event, payload)),
    }
}

enum Verb {
    Attach { spawn: Spawn, focus: Option<u64>, mode: AttachMode },
    Ask(Request, Form),
    Wait { session_id: u64, states: Vec<SessionState>, timeout: Option<Duration> },
    Events(Form),
    Report { event: String, payload: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

fn verb(args: &[&str]) -> Result<Verb, String> {
    let mut options = Options(args.to_vec());
    let form = match options.value("--format")?.as_deref() {
        None => Form::Text,
        Some("json") => Form::Json,
        Some(other) => return Err(format!("there is no format {other:?}, only json")),
    };
    let verb = match options.word().as_deref() {
        None => {
            let focus = options.value("--focus")?.map(|id| session(&id)).transpose()?;
            let mode = match (options.flag("--shared"), options.flag("--watch")) {
                (_, true) => AttachMode::Watch,
                (true, false) => AttachMode::Shared,
                (false, false) => AttachMode::Takeover,
            };
            Verb::Attach { spawn: Spawn::None, focus, mode }
        }
        Some("new") => {
            let provider = options.value("--provider")?;
            let detached = options.flag("--detached");
            let agent = options.word();
            if detached {
                // The agent's own folder is the workspace's; whoever calls this may be elsewhere.
                Verb::Ask(Request::SessionSpawn { agent, provider, cwd: None }, form)
            } else {
                let spawn = match (agent, provider) {
                    (None, None) => Spawn::Shell,
                    (None, Some(_)) => return Err("a provider goes with an agent".to_owned()),
                    (Some(agent), None) => Spawn::Agent(agent),
                    (Some(agent), Some(provider)) => Spawn::AgentWithProvider { agent, provider },
                };
                Verb::Attach { spawn, focus: None, mode: AttachMode::Takeover }
            }
        }
        Some("status") => match options.word().as_deref() {
            None => Verb::Ask(Request::Status, form),
            Some("explain") => Verb::Ask(Request::SessionStatusExplain { session_id: options.session()? }, form),
            Some("capture") => Verb::Ask(Request::StatusCapture { session_id: options.session()? }, form),
            Some(other) => return Err(format!("status knows explain and capture, not {other:?}")),
        },
        Some("snapshot") => Verb::Ask(Request::Snapshot, Form::Json),
        Some("agents") => Verb::Ask(Request::Agents, form),
        Some("read") => {
            let history = match options.value("--history")?.as_deref() {
                None => None,
                Some("all") => Some(u64::MAX),
                Some(lines) => Some(lines.parse().map_err(|_| format!("--history takes a number of lines or all, not {lines:?}"))?),
            };
            let session_id = options.word().map(|id| session(&id)).transpose()?;
            Verb::Ask(Request::SessionRead { session_id, history }, form)
        }
        Some("wait") => {
            let states = options.value("--for")?.ok_or("wait needs --for STATE")?;
            let states = states.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
            let timeout = options.value("--timeout")?.map(|text| seconds(&text)).transpose()?;
            Verb::Wait { session_id: options.session()?, states, timeout }
        }
        Some("events") => Verb::Events(form),
        Some("record") => {
            let session_id = options.session()?;
            let on = match options.word().as_deref() {
                Some("start") => true,
                Some("stop") => false,
                _ => return Err("record takes start or stop".to_owned()),
            };
            Verb::Ask(Request::Record { session_id, on }, form)
        }
        Some("upgrade") => {
            let path = options.word().ok_or("upgrade needs the path of a binary")?;
            let path = std::path::absolute(&path).map_err(|error| format!("{path}: {error}"))?;
            Verb::Ask(Request::Upgrade { path: path.to_string_lossy().into_owned() }, form)
        }
        Some("close") => Verb::Ask(Request::SessionClose { session_id: options.session()? }, form),
        Some("report-event") => {
            let event = options.value("--event")?.ok_or("report-event needs --event NAME")?;
            Verb::Report { event, payload: options.flag("--payload-stdin") }
        }
        Some(_) => return Err(format!("cannot make sense of {:?}", args.join(" "))),
    };
    match options.0.first() {
        None => Ok(verb),
        Some(_) => Err(format!("cannot make sense of {:?}", args.join(" "))),
    }
}

/// The arguments not yet understood.
struct Options<'a>(Vec<&'a str>);

impl Options<'_> {
    fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|arg| *arg != name);
        self.0.len() < before
    }

    /// `--name VALUE` or `--name=VALUE`.
    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|arg| arg.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
        else {
            return Ok(None);
        };
        if let Some((_, value)) = self.0.remove(at).split_once('=') {
            return Ok(Some(value.to_owned()));
        }
        if at == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        Ok(Some(self.0.remove(at).to_owned()))
    }

    fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|arg| !arg.starts_with('-'))?;
        Some(self.0.remove(at).to_owned())
    }

    fn session(&mut self) -> Result<u64, String> {
        session(&self.word().ok_or("the id of a session is missing")?)
    }
}

fn session(id: &str) -> Result<u64, String> {
    id.parse().map_err(|_| format!("{id:?} is no id of a session"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is no length of time"))
}

fn fail(error: &io::Error) -> i32 {
    eprintln!("jackin-capsule: {error}");
    1
}

fn print(text: &str) -> i32 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

async fn attach(paths: &Paths, mut spawn: Spawn, focus: Option<u64>, mode: AttachMode) -> i32 {
    if let Spawn::Agent(slug) | Spawn::AgentWithProvider { agent: slug, .. } = &spawn {
        // The capsule only drops what is not allowed; here is somebody who can be told.
        let allowed = std::fs::read_to_string(paths.launch_config()).ok().and_then(|text| LaunchConfig::parse(&text).ok());
        if allowed.is_some_and(|config| !config.agents.contains(slug)) {
            eprintln!("jackin-capsule: agent {slug:?} is not available here; attaching without starting it");
            spawn = Spawn::None;
        }
    }
    // What the operator's exec set beside PID 1's own environment.
    let env = CLIENT_ENV.into_iter().filter_map(|key| Some((key.to_owned(), var(key)?))).collect();
    let mut hello = client::hello(spawn, focus, env);
    hello.ctx.mode = mode;
    let face = Face { hello, title: None, desk: None };
    match client::attach(|| client::Stream::connect(&paths.socket), face).await {
        Ok(Outcome::Detached) => print("[detached; the sessions go on]\n"),
        Ok(Outcome::SessionEnded(code)) => code.unwrap_or(1),
        Ok(Outcome::TakenOver) => print("[another terminal has attached]\n"),
        Ok(Outcome::Lost(reason)) => {
            eprintln!("jackin-capsule: {reason}");
            1
        }
        Err(error) => fail(&error),
    }
}

fn ctx() -> Ctx {
    Ctx { session_id: var("JACKIN_SESSION_ID"), ..Ctx::default() }
}

async fn answer(paths: &Paths, request: &Request) -> io::Result<Reply> {
    let stream = UnixStream::connect(&paths.socket).await.map_err(|error| unreached(paths, &error))?;
    match client::ask(stream, request, &ctx()).await? {
        Reply::Error { message } => Err(io::Error::other(message)),
        Reply::Unknown if matches!(request, Request::SessionRead { .. }) => Err(io::Error::other("there is no such session")),
        Reply::Unknown => Err(io::Error::other("the capsule does not know this question; it may be older than this program")),
        reply => Ok(reply),
    }
}

fn unreached(paths: &Paths, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("no capsule answers at {}: {error}", paths.socket.display()))
}

async fn ask(paths: &Paths, request: &Request, form: Form) -> i32 {
    let reply = match answer(paths, request).await {
        Ok(reply) => reply,
        Err(error) => return fail(&error),
    };
    match (reply, form) {
        (reply, Form::Json) => match serde_json::to_string_pretty(&reply) {
            Ok(json) => print(&(json + "\n")),
            Err(error) => fail(&error.into()),
        },
        (Reply::SessionList { sessions }, Form::Text) => {
            print(&format!("Sessions: {}\n{}", sessions.len(), sessions.iter().map(session_line).collect::<String>()))
        }
        (Reply::AgentRegistry { records }, Form::Text) => print(&records.iter().map(agent_line).collect::<String>()),
        (Reply::SessionRead(screen), Form::Text) => print(&(screen.text.trim_end().to_owned() + "\n")),
        (Reply::Explained { explanation, .. }, Form::Text) => {
            // That of another version is shown as it comes.
            let known = serde_json::from_value::<Explanation>(explanation.clone());
            print(&known.map_or_else(|_| outline(&explanation, 0), |known| known.text()))
        }
        (Reply::Captured { path } | Reply::Recording { path, .. }, Form::Text) => print(&(path + "\n")),
        (Reply::Spawned { session_id }, Form::Text) => print(&format!("{session_id}\n")),
        (Reply::Version { version, protocol }, Form::Text) => print(&format!("{version} (protocol {protocol})\n")),
        // Nothing to say: that it was done is the exit code.
        (
            Reply::Ack
            | Reply::Held
            | Reply::Snapshot { .. }
            | Reply::Waited { .. }
            | Reply::Event { .. }
            | Reply::Error { .. }
            | Reply::Unknown,
            Form::Text,
        ) => 0,
    }
}

/// The host parses this.
fn session_line(session: &SessionSummary) -> String {
    let agent = session.agent.as_deref().unwrap_or("shell");
    format!("  [{}] {} ({agent}) state={} active={}\n", session.id, session.label, session.state, session.active)
}

/// JSON for people.
fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let item = |name: &str, value: &Value| match value {
        Value::Object(inside) if inside.is_empty() => format!("{indent}{name} none\n"),
        Value::Array(inside) if inside.is_empty() => format!("{indent}{name} none\n"),
        Value::Object(_) | Value::Array(_) => format!("{indent}{name}\n{}", outline(value, depth + 1)),
        Value::String(text) => format!("{indent}{name} {text}\n"),
        Value::Null => format!("{indent}{name} none\n"),
        other => format!("{indent}{name} {other}\n"),
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| item(&format!("{}:", name.replace('_', " ")), value)).collect(),
        Value::Array(items) => items.iter().map(|value| item("-", value)).collect(),
        Value::String(text) => format!("{indent}{text}\n"),
        other => format!("{indent}{other}\n"),
    }
}

async fn wait(paths: &Paths, session_id: u64, states: Vec<SessionState>, timeout: Option<Duration>) -> i32 {
    let started = Instant::now();
    let mut broke_off: Option<Instant> = None;
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let timeout_ms = left.map_or(u64::MAX, |left| left.as_millis().try_into().unwrap_or(u64::MAX));
        let request = Request::WaitSessionStatus { session_id, states: states.clone(), timeout_ms };
        let asked = Instant::now();
        match answer(paths, &request).await {
            Ok(Reply::Waited { timed_out: true, .. }) => return TIMED_OUT,
            Ok(Reply::Waited { state, .. }) => return print(&format!("{state}\n")),
            Ok(_) => return fail(&io::Error::other("the capsule answered something else")),
            Err(error) => {
                use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
                let broken = [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind());
                let absent = [ConnectionRefused, NotFound].contains(&error.kind());
                if asked.elapsed() > SEEK {
                    broke_off = None;
                }
                if !(broken || absent && broke_off.is_some()) || broke_off.get_or_insert_with(Instant::now).elapsed() > SEEK {
                    return fail(&error);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn events(paths: &Paths, form: Form) -> i32 {
    let watching = async {
        let stream = UnixStream::connect(&paths.socket).await.map_err(|error| unreached(paths, &error))?;
        let mut question = Question::put(stream, &Request::EventsSubscribe, &ctx()).await?;
        while let Some(json) = question.answer().await? {
            let line = match (client::understood(&json), form) {
                (Ok(Reply::Unknown), _) => return Err(io::Error::other("the capsule is older than this program and tells no events")),
                (Ok(Reply::Error { message }), _) => return Err(io::Error::other(message)),
                // What a newer capsule tells is passed on as well.
                (_, Form::Json) => json + "\n",
                (Ok(Reply::Event { event }), Form::Text) => event_text(&event),
                (_, Form::Text) => continue,
            };
            let mut stdout = io::stdout().lock();
            stdout.write_all(line.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    };
    match watching.await {
        Ok(()) => 0,
        // Who reads us has what they wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(&error),
    }
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Sessions { sessions } => format!("Sessions: {}\n{}", sessions.len(), sessions.iter().map(session_line).collect::<String>()),
        Event::SessionStarted { session } => format!("started\n{}", session_line(session)),
        Event::SessionEnded { session_id, code: Some(code) } => format!("[{session_id}] ended with {code}\n"),
        Event::SessionEnded { session_id, code: None } => format!("[{session_id}] ended by a signal\n"),
        Event::StateChanged { session_id, from, to } => format!("[{session_id}] {from} -> {to}\n"),
        Event::Focused { session_id } => format!("[{session_id}] focused\n"),
        Event::ClientsChanged { clients } => format!("clients: {clients}\n"),
        Event::Missed { events } => format!("({events} events missed)\n"),
    }
}

/// For the hooks of agents. Not to be heard must not disturb the agent.
async fn report(paths: &Paths, event: String, payload: bool) -> i32 {
    let mut stdin = io::stdin();
    let Some(told) = status_hooks::runtime_event(&event, payload.then_some(&mut stdin as &mut dyn Read)) else {
        return 0;
    };
    let request = Request::ReportRuntimeEvent {
        session_id: told.session_id,
        source_id: told.source_id,
        runtime: told.runtime,
        event: told.event,
        payload: serde_json::to_value(told.payload).ok(),
        sequence: told.sequence,
    };
    let socket = var("JACKIN_STATUS_SOCKET").map_or_else(|| paths.socket.clone(), Into::into);
    if let Err(error) = answer(&Paths { socket, ..paths.clone() }, &request).await {
        // Not by `eprintln!`, which panics when nobody reads.
        let _ = writeln!(io::stderr(), "jackin-capsule: {error}");
    }
    0
}

fn agent_line(record: &AgentRecord) -> String {
    let agent = record.agent.as_deref().unwrap_or("shell");
    let mark = if record.is_self { " (this session)" } else { "" };
    let until = record.exited_at.as_ref().map_or(String::new(), |at| format!(" to {at}"));
    format!("{}  {agent}  {}  {}{until}{mark}\n", record.codename, record.status, record.started_at)
}

/// Both directions until the capsule closes. Threads, because each direction may wait for its own reader, and blocking
/// calls are the shortest way.
fn relay(paths: &Paths) -> i32 {
    use std::os::fd::AsFd;
    let relayed = (|| {
        let mut socket = std::os::unix::net::UnixStream::connect(&paths.socket)?;
        let mut from_socket = socket.try_clone()?;
        let mut stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut stdout = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        std::thread::spawn(move || {
            let _ = pass_on(&mut stdin, &mut socket);
            // The capsule may still answer what was asked before.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        });
        pass_on(&mut from_socket, &mut stdout)
    })();
    relayed.map_or_else(|error: io::Error| fail(&error), |()| 0)
}

fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
