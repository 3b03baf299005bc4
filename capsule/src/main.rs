//! One binary, several faces: init (PID 1), the mux, a session's first process, and the client's verbs.
//! Arguments in, exit code out. Absent: everything else.

use std::io::{self, Write};
use std::process::ExitCode;

use jackin_capsule::client::{self, Outcome};
use jackin_capsule::control::{AgentRecord, Reply, Request};
use jackin_capsule::launch::{AGENTS, CLIENT_ENV, LaunchConfig};
use jackin_capsule::paths::{Paths, var};
use jackin_capsule::pty::{SESSION_VERB, session_exec};
use jackin_capsule::wire::{Ctx, Spawn};
use jackin_capsule::{SERVE_VERB, init, serve, setup};
use tokio::net::UnixStream;

const HELP: &str = "\
jackin-capsule: the terminals of a jackin container

  jackin-capsule                     attach this terminal (Ctrl+\\ d detaches, Ctrl+\\ Ctrl+\\ sends Ctrl+\\)
  jackin-capsule new [AGENT]         start an agent, or a shell, and attach
  jackin-capsule --focus ID          attach and show this session
  jackin-capsule status              sessions, one per line
  jackin-capsule snapshot            tabs and panes as JSON
  jackin-capsule agents [--format json]
  jackin-capsule read [ID]           the text on a session's screen
  jackin-capsule attach-proxy        relay the socket over standard input and output
  jackin-capsule runtime-setup       prepare home and git; run by the entrypoint
  jackin-capsule --version | --help

As PID 1: jackin-capsule [AGENT] starts the container's first session.
";

fn main() -> ExitCode {
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
    let verb = match args {
        [] => Verb::Attach(Spawn::None, None),
        ["--version" | "-V"] => {
            return print(&format!("jackin-capsule {}\n", env!("CARGO_PKG_VERSION")));
        }
        ["--help" | "-h" | "help"] => return print(HELP),
        ["new"] => Verb::Attach(Spawn::Shell, None),
        ["new", option, ..] if option.starts_with('-') => return usage(args),
        ["new", slug] => Verb::Attach(Spawn::Agent((*slug).to_owned()), None),
        ["new", slug, provider] => match provider.strip_prefix("--provider=") {
            Some(label) => Verb::Attach(Spawn::AgentWithProvider { agent: (*slug).to_owned(), provider: label.to_owned() }, None),
            None => return usage(args),
        },
        ["--focus", id] => match id.parse() {
            Ok(id) => Verb::Attach(Spawn::None, Some(id)),
            Err(_) => return usage(args),
        },
        [focus] if focus.starts_with("--focus=") => match focus["--focus=".len()..].parse() {
            Ok(id) => Verb::Attach(Spawn::None, Some(id)),
            Err(_) => return usage(args),
        },
        ["status"] => Verb::Ask(Request::Status, Form::Text),
        ["snapshot"] => Verb::Ask(Request::Snapshot, Form::Json),
        ["agents"] => Verb::Ask(Request::Agents, Form::Text),
        ["agents", "--format", "json"] | ["agents", "--format=json"] => Verb::Ask(Request::Agents, Form::Json),
        ["read"] => Verb::Ask(Request::SessionRead { session_id: None }, Form::Text),
        ["read", id] => match id.parse() {
            Ok(id) => Verb::Ask(Request::SessionRead { session_id: Some(id) }, Form::Text),
            Err(_) => return usage(args),
        },
        ["attach-proxy"] => Verb::Proxy,
        ["runtime-setup"] => return setup::run(),
        _ => return usage(args),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let paths = Paths::from_env();
    match verb {
        Verb::Attach(spawn, focus) => runtime.block_on(attach(&paths, spawn, focus)),
        Verb::Ask(request, form) => runtime.block_on(ask(&paths, &request, form)),
        Verb::Proxy => runtime.block_on(relay(&paths)),
    }
}

enum Verb {
    Attach(Spawn, Option<u64>),
    Ask(Request, Form),
    Proxy,
}

enum Form {
    Text,
    Json,
}

fn usage(args: &[&str]) -> i32 {
    eprintln!("jackin-capsule: cannot make sense of {:?}; see jackin-capsule --help", args.join(" "));
    2
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

async fn attach(paths: &Paths, mut spawn: Spawn, focus: Option<u64>) -> i32 {
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
    let hello = client::hello(spawn, focus, env);
    match client::attach(|| UnixStream::connect(&paths.socket), hello).await {
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

async fn ask(paths: &Paths, request: &Request, form: Form) -> i32 {
    let ctx = Ctx { session_id: var("JACKIN_SESSION_ID"), ..Ctx::default() };
    let reply = match UnixStream::connect(&paths.socket).await {
        Ok(stream) => client::ask(stream, request, &ctx).await,
        Err(error) => Err(error),
    };
    match (reply, form) {
        (Err(error), _) => fail(&error),
        (Ok(Reply::Unknown), _) => fail(&io::Error::other("there is no such session")),
        (Ok(reply), Form::Json) => match serde_json::to_string_pretty(&reply) {
            Ok(json) => print(&(json + "\n")),
            Err(error) => fail(&error.into()),
        },
        (Ok(Reply::SessionList { sessions }), Form::Text) => {
            let mut text = format!("Sessions: {}\n", sessions.len());
            for session in sessions {
                let agent = session.agent.as_deref().unwrap_or("shell");
                text += &format!("  [{}] {} ({agent}) state={} active={}\n", session.id, session.label, session.state, session.active);
            }
            print(&text)
        }
        (Ok(Reply::AgentRegistry { records }), Form::Text) => print(&records.iter().map(agent_line).collect::<String>()),
        (Ok(Reply::SessionRead(screen)), Form::Text) => print(&(screen.text.trim_end().to_owned() + "\n")),
        (Ok(Reply::Snapshot { .. }), Form::Text) => 0,
    }
}

fn agent_line(record: &AgentRecord) -> String {
    let agent = record.agent.as_deref().unwrap_or("shell");
    let mark = if record.is_self { " (this session)" } else { "" };
    let until = record.exited_at.as_ref().map_or(String::new(), |at| format!(" to {at}"));
    format!("{}  {agent}  {}  {}{until}{mark}\n", record.codename, record.status, record.started_at)
}

/// Both directions until either side closes.
async fn relay(paths: &Paths) -> i32 {
    let socket = match UnixStream::connect(&paths.socket).await {
        Ok(socket) => socket,
        Err(error) => return fail(&error),
    };
    let (mut from_socket, mut to_socket) = socket.into_split();
    let outgoing = client::copy_to_stdout(&mut from_socket);
    tokio::pin!(outgoing);
    let result = tokio::select! {
        // The capsule may still answer what was asked before standard input closed.
        sent = client::copy_stdin(&mut to_socket) => match sent {
            Ok(()) => outgoing.await,
            Err(error) => Err(error),
        },
        received = &mut outgoing => received,
    };
    result.map_or_else(|error| fail(&error), |()| 0)
}
