//! The mux process: waits for events, turns each into an `Input`, carries out the `Effect`s. Init's end of the door is
//! standard input. Absent: decisions; they are `Mux::step`'s.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::EXIT_CONFIG;
use crate::control::Reply;
use crate::handover::{Door, SpawnRequest, ToMux};
use crate::launch::LaunchConfig;
use crate::log::Log;
use crate::mux::{ClientId, Effect, Ended, Input, Mux, Program, Record, SESSION_UNSET, SessionId, Settings};
use crate::paths::{Paths, policy_from_env, var};
use crate::pty::{InputQueue, MAX_READ, Pty, SHELL};
use crate::screen::Size;
use crate::socket::{self, Event, FLUSH, Outbox};
use crate::spool::Spool;
use crate::wire::ServerFrame;

const TICK: Duration = Duration::from_micros(16_667);
/// What a background process may still write to the terminal of an ended session.
const DRAIN: Duration = Duration::from_millis(200);
/// Client events in a row before terminals get a turn.
const CLIENT_TURN: u32 = 32;
/// A frame beyond this is dropped when the client does not read: only bells can come so far.
const SPARE_OUTBOX: usize = 8;

enum PtyEvent {
    Readable(SessionId),
    Drained(SessionId),
}

/// Between a terminal's watcher and the loop, which does the reading: bytes that were read must reach the spool before
/// anything can happen to this process.
#[derive(Default)]
struct Watch {
    taken: Notify,
    closed: AtomicBool,
    /// No more than what is there will come.
    process_ended: Notify,
}

struct Terminal {
    pty: Arc<Pty>,
    spool: Option<Spool>,
    input: Arc<Mutex<InputQueue>>,
    input_waits: Arc<Notify>,
    watch: Arc<Watch>,
    drained: bool,
    ended: Option<Ended>,
}

/// A session of an earlier mux, before this one is told in the order in which they were looked at.
struct Adopted {
    record: Record,
    size: Size,
    replay: Vec<u8>,
    focused: u32,
}

struct Serve {
    mux: Mux,
    paths: Paths,
    workdir: String,
    log: Log,
    requests: mpsc::UnboundedSender<SpawnRequest>,
    pty_events: mpsc::Sender<PtyEvent>,
    terminals: BTreeMap<SessionId, Terminal>,
    clients: BTreeMap<ClientId, Outbox>,
    questions: BTreeMap<ClientId, oneshot::Sender<Reply>>,
    tick_at: Option<Instant>,
    finish: Option<i32>,
    /// Counts changes of focus.
    focused: u32,
    /// One for all terminals; what is read is used at once.
    buffer: Vec<u8>,
}

/// Runs until there is nothing left to serve; the result is the exit code.
pub fn run(initial: &str) -> i32 {
    let paths = Paths::from_env();
    let log = Log::new(&paths.log(), "mux");
    log.catch_panics();
    log.line(&format!("started, version {}", env!("CARGO_PKG_VERSION")));
    if var("JACKIN_CAPSULE_FORCE_PANIC").is_some() {
        panic!("JACKIN_CAPSULE_FORCE_PANIC is set");
    }
    let config = match read_config(&paths) {
        Ok(config) => config,
        Err(error) => {
            log.report(&error);
            return EXIT_CONFIG;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log.report(&format!("no runtime: {error}"));
            return 1;
        }
    };
    let result = runtime.block_on(serve(paths, config, initial, log.clone()));
    let code = result.unwrap_or_else(|error| {
        log.report(&format!("stopped: {error}"));
        1
    });
    log.line(&format!("exits with {code}"));
    code
}

fn read_config(paths: &Paths) -> Result<LaunchConfig, String> {
    let path = paths.launch_config();
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    LaunchConfig::parse(&text).map_err(|error| error.to_string())
}

async fn serve(paths: Paths, config: LaunchConfig, initial: &str, log: Log) -> io::Result<i32> {
    let door = Arc::new(Door::new(std::io::stdin().as_fd().try_clone_to_owned()?)?);
    let (requests, mut to_init) = mpsc::unbounded_channel::<SpawnRequest>();
    let (pty_events, mut from_ptys) = mpsc::channel(2);
    let (client_events, mut from_clients) = mpsc::channel(64);
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let workdir = config.workdir.clone();
    let settings = Settings {
        config,
        policy: policy_from_env(),
        leader: var("JACKIN_PALETTE_KEY"),
        socket: paths.socket.to_string_lossy().into_owned(),
    };
    let mut serve = Serve {
        mux: Mux::new(settings),
        workdir,
        log: log.clone(),
        requests,
        pty_events,
        terminals: BTreeMap::new(),
        clients: BTreeMap::new(),
        questions: BTreeMap::new(),
        tick_at: None,
        finish: None,
        focused: 0,
        buffer: vec![0; MAX_READ],
        paths,
    };
    // The table first: a client must not see a capsule without the sessions it has.
    let (mut adopted, mut held_back) = (Vec::new(), Vec::new());
    loop {
        match door.recv::<ToMux>().await? {
            Some((ToMux::Ready, _)) => break,
            Some((ToMux::Session(record), fds)) if record.ended.is_some() => serve.on_init(ToMux::Session(record), fds),
            Some((ToMux::Session(record), fds)) => serve.take_over(&mut adopted, record, fds),
            // A session may end while its mux is still being told of it.
            Some(message) => held_back.push(message),
            None => return Ok(0),
        }
    }
    adopted.sort_by_key(|adopted| adopted.focused);
    for Adopted { record, size, replay, .. } in adopted {
        serve.step(Input::Adopted { record, size, replay: &replay });
    }
    for (message, fds) in held_back {
        serve.on_init(message, fds);
    }
    let listener = socket::bind(&serve.paths.socket)?;
    tokio::spawn(socket::accept(listener, client_events, log, alive.downgrade()));
    tokio::spawn({
        let door = Arc::clone(&door);
        async move {
            while let Some(request) = to_init.recv().await {
                if door.send(&request).await.is_err() {
                    return;
                }
            }
        }
    });
    serve.step(Input::Ready { initial });

    let mut turn = 0;
    while serve.finish.is_none() {
        // Typing comes before floods, but a flood of typing may not starve the terminals either.
        if turn >= CLIENT_TURN {
            turn = 0;
            if let Ok(event) = from_ptys.try_recv() {
                serve.on_pty(event);
            }
        }
        let tick_at = serve.tick_at;
        tokio::select! {
            biased;
            Some(event) = from_clients.recv() => {
                turn += 1;
                serve.on_client(event)?;
            }
            message = door.recv::<ToMux>() => match message? {
                Some((message, fds)) => serve.on_init(message, fds),
                // Without init there is nobody to own a terminal.
                None => return Ok(0),
            },
            () = async { tokio::time::sleep_until(tick_at.unwrap_or_else(Instant::now)).await }, if tick_at.is_some() => {
                serve.tick_at = None;
                serve.step(Input::Tick);
            }
            Some(event) = from_ptys.recv() => {
                turn = 0;
                serve.on_pty(event);
            }
        }
    }
    // Closing the outboxes lets every client's task end once its last frame is out.
    serve.clients.clear();
    drop(alive);
    let _ = tokio::time::timeout(FLUSH, async {
        // The tasks report while they flush; nobody may wait on a full channel.
        tokio::select! {
            _ = all_gone.recv() => {}
            () = async { while from_clients.recv().await.is_some() {} std::future::pending().await } => {}
        }
    })
    .await;
    Ok(serve.finish.unwrap_or(0))
}

impl Serve {
    fn on_init(&mut self, message: ToMux, fds: Vec<OwnedFd>) {
        match message {
            ToMux::Session(record) => self.step(Input::Recalled(record)),
            ToMux::Spawned { session, started_at } => match self.add_terminal(session, fds) {
                Ok(_) => self.step(Input::Spawned { session, started_at }),
                Err(error) => self.step(Input::SpawnFailed { session, error: &error.to_string() }),
            },
            ToMux::SpawnFailed { session, error } => self.step(Input::SpawnFailed { session, error: &error }),
            ToMux::Ended { session, ended } => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                terminal.ended = Some(ended);
                if terminal.drained {
                    self.end(session);
                } else {
                    terminal.watch.process_ended.notify_one();
                }
            }
            ToMux::Shutdown { reason } => self.step(Input::Shutdown { reason: &reason }),
            ToMux::Ready => {}
        }
    }

    fn take_over(&mut self, adopted: &mut Vec<Adopted>, record: Record, fds: Vec<OwnedFd>) {
        let session = record.id;
        match self.add_terminal(session, fds) {
            Ok((size, replay)) => {
                let Some(terminal) = self.terminals.get(&session) else {
                    return;
                };
                terminal.pty.ask_for_redraw();
                let focused = terminal.spool.as_ref().map_or(0, Spool::focused);
                self.focused = self.focused.max(focused);
                adopted.push(Adopted { record, size, replay, focused });
            }
            Err(error) => self.log.report(&format!("session {session} could not be taken over: {error}")),
        }
    }

    fn add_terminal(&mut self, session: SessionId, fds: Vec<OwnedFd>) -> io::Result<(Size, Vec<u8>)> {
        let Ok([master, spool]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(io::Error::other("the message lacks its descriptors"));
        };
        let (spool, replay) = Spool::open(spool)?;
        let size = spool.size();
        let pty = Arc::new(Pty::new(master)?);
        let terminal = Terminal {
            pty,
            spool: Some(spool),
            input: Arc::default(),
            input_waits: Arc::default(),
            watch: Arc::default(),
            drained: false,
            ended: None,
        };
        tokio::spawn(watch_terminal(session, Arc::clone(&terminal.pty), self.pty_events.clone(), Arc::clone(&terminal.watch)));
        tokio::spawn(write_terminal(Arc::clone(&terminal.pty), Arc::clone(&terminal.input), Arc::clone(&terminal.input_waits)));
        self.terminals.insert(session, terminal);
        Ok((size, replay))
    }

    fn on_pty(&mut self, event: PtyEvent) {
        match event {
            PtyEvent::Readable(session) => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                let mut buffer = std::mem::take(&mut self.buffer);
                let taken = terminal.pty.try_read(&mut buffer);
                let bytes = &buffer[..taken.len];
                // Spooled before it is shown: what the operator has seen must survive.
                if let Some(Err(error)) = terminal.spool.as_mut().map(|spool| spool.append(bytes)) {
                    terminal.spool = None;
                    self.log.line(&format!("session {session} goes on without its spool: {error}"));
                }
                terminal.watch.closed.store(taken.closed, Ordering::Relaxed);
                terminal.watch.taken.notify_one();
                if !bytes.is_empty() {
                    self.step(Input::Output { session, bytes });
                }
                self.buffer = buffer;
            }
            PtyEvent::Drained(session) => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                terminal.drained = true;
                if terminal.ended.is_some() {
                    self.end(session);
                }
            }
        }
    }

    fn end(&mut self, session: SessionId) {
        if let Some(ended) = self.terminals.remove(&session).and_then(|terminal| {
            terminal.input_waits.notify_one();
            terminal.ended
        }) {
            self.step(Input::Ended { session, ended });
        }
    }

    fn on_client(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Asked { client, request, ctx, reply } => {
                self.questions.insert(client, reply);
                self.step(Input::Asked { client, request, ctx });
            }
            Event::Attached { client, hello, outbox } => {
                self.clients.insert(client, outbox);
                self.step(Input::Attached { client, hello });
            }
            Event::Frame { client, frame } => self.step(Input::Frame { client, frame }),
            Event::Drained(client) => self.step(Input::Drained(client)),
            Event::Gone(client) => {
                self.clients.remove(&client);
                self.step(Input::Gone(client));
            }
            Event::Deaf(error) => return Err(error),
        }
        Ok(())
    }

    fn step(&mut self, input: Input<'_>) {
        for effect in self.mux.step(input) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { session, meta, program, env, size } => {
                let argv = match program {
                    Program::Agent { args, .. } => std::iter::once(self.paths.entrypoint.clone()).chain(args).collect(),
                    Program::Shell => vec![SHELL.to_owned()],
                };
                let unset = SESSION_UNSET.map(str::to_owned).to_vec();
                // If init is gone the loop ends by itself.
                let _ = self.requests.send(SpawnRequest { session, meta, argv, cwd: self.workdir.clone(), env, unset, size });
            }
            Effect::Write { session, bytes } => self.write(session, bytes),
            Effect::Resize { session, size } => {
                if let Some(Err(error)) = self.terminals.get(&session).map(|terminal| terminal.pty.resize(size)) {
                    self.log.line(&format!("session {session} keeps its size: {error}"));
                }
            }
            Effect::Checkpoint { session, size, bytes } => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                if let Some(Err(error)) = terminal.spool.as_mut().map(|spool| spool.checkpoint(size, &bytes)) {
                    terminal.spool = None;
                    self.log.line(&format!("session {session} goes on without its spool: {error}"));
                }
            }
            Effect::Focused(session) => {
                self.focused += 1;
                if let Some(spool) = self.terminals.get_mut(&session).and_then(|terminal| terminal.spool.as_mut()) {
                    // Only where the next mux starts to look.
                    let _ = spool.set_focused(self.focused);
                }
            }
            Effect::Send { client, frame } => {
                let Some(outbox) = self.clients.get(&client) else {
                    return;
                };
                if frame == ServerFrame::Bell && outbox.frames.capacity() < SPARE_OUTBOX {
                    return;
                }
                if outbox.frames.try_send(frame).is_err() {
                    self.clients.remove(&client);
                }
            }
            Effect::Close(client) => {
                self.clients.remove(&client);
            }
            Effect::Reply { client, reply } => {
                if let Some(question) = self.questions.remove(&client) {
                    // The asker may have left.
                    let _ = question.send(reply);
                }
            }
            Effect::ArmTick => self.tick_at = Some(Instant::now() + TICK),
            Effect::Log(line) => self.log.report(&line),
            Effect::Finish(code) => self.finish = Some(code),
        }
    }

    fn write(&mut self, session: SessionId, bytes: Vec<u8>) {
        let Some(terminal) = self.terminals.get(&session) else {
            return;
        };
        let mut input = terminal.input.lock().unwrap_or_else(PoisonError::into_inner);
        if !input.push(bytes) {
            return self.log.line(&format!("session {session} does not read; input was dropped"));
        }
        // At once when it can be: a task switch is a fifth of the echo.
        if let Err(error) = input.flush(&terminal.pty) {
            self.log.line(&format!("session {session} takes no input: {error}"));
        }
        if !input.is_empty() {
            terminal.input_waits.notify_one();
        }
    }
}

async fn watch_terminal(session: SessionId, pty: Arc<Pty>, events: mpsc::Sender<PtyEvent>, watch: Arc<Watch>) {
    let mut deadline: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            ready = pty.readable() => if ready.is_err() { break },
            () = watch.process_ended.notified(), if deadline.is_none() => {
                deadline = Some(Instant::now() + DRAIN);
                continue;
            }
            () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => break,
        }
        // A background process that floods the terminal of an ended session does not get to keep it.
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        if events.send(PtyEvent::Readable(session)).await.is_err() {
            return;
        }
        watch.taken.notified().await;
        if watch.closed.load(Ordering::Relaxed) {
            break;
        }
    }
    let _ = events.send(PtyEvent::Drained(session)).await;
}

async fn write_terminal(pty: Arc<Pty>, input: Arc<Mutex<InputQueue>>, waits: Arc<Notify>) {
    loop {
        waits.notified().await;
        // The serve loop holds one end; when it has let go the session is over.
        if Arc::strong_count(&input) == 1 {
            return;
        }
        loop {
            {
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                if input.flush(&pty).is_err() || input.is_empty() {
                    break;
                }
            }
            if Arc::strong_count(&input) == 1 || pty.writable().await.is_err() {
                return;
            }
        }
    }
}
