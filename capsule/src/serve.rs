//! The mux process: waits for events, turns each into an `Input`, carries out the `Effect`s. Init's end of the door is
//! standard input. Absent: decisions, which are `Mux::step`'s, and anything that may block, which is a `Worker`'s.
//!
//! One thread, one wait; a flood has a pump beside it. A turn serves whoever is ready, clients before terminals, and reads
//! from each so much that nobody waits long for the others: that is what keeps typing quick beside a flood.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use crate::EXIT_CONFIG;
use crate::agent::Packs;
use crate::changes;
use crate::client::FrameError;
use crate::control::Reply;
use crate::file;
use crate::handover::{DOOR_VERSION, Door, MAX_KEPT, Received, SpawnRequest, ToInit, ToMux};
use crate::keys::Bindings;
use crate::launch::LaunchConfig;
use crate::log::Log;
use crate::mux::{
    self, ClientId, Effect, Ended, Identity, Input, Millis, Mux, Program, Record, Recording, SESSION_UNSET, SessionId, Settings,
};
use crate::paths::{Paths, RUNTIME_DIR, policy_from_env, var};
use crate::poll::{Poll, Ready, Token, Wants};
use crate::probe::Prober;
use crate::provider;
use crate::pty::{self, InputQueue, SHELL, Taken};
use crate::pump::Pump;
use crate::record::Recorder;
use crate::screen::{Size, Stored};
use crate::socket::{self, Connection, FLUSH, MAX_CLIENTS, MAX_CONNECTIONS, Said};
use crate::spool::{self, Found, Spool};
use crate::status_hooks;
use crate::transfer::{self, Incoming};
use crate::wire::{ClientFrame, ServerFrame, ShutdownReason};
use crate::worker::Worker;

/// A terminal that gives so much within so long gets a pump.
const FLOOD: usize = 128 << 10;
const FLOOD_WITHIN: Millis = 50;
/// What one turn reads from a terminal: as much as is there, or beside typing what a terminal gives at once.
const MAX_READ: usize = 256 << 10;
const MAX_READ_ASIDE: usize = 4 << 10;
/// How long after a key somebody is typing.
const TYPING: Millis = 250;
/// What a background process may still write to the terminal of an ended session, and how much of it is read.
const DRAIN: Millis = 200;
const MAX_DRAIN: usize = 1 << 20;
/// How long input may take to leave for programs that do not read before another mux takes over.
const HAND_OVER: Duration = Duration::from_millis(300);
/// Of `agent.toml`; more does not parse.
const MAX_CONFIG: u64 = 1 << 20;
/// Connections accepted in one turn.
const ACCEPT_TURN: usize = 8;
/// A listener out of descriptors is left alone for so long.
const ACCEPT_PAUSE: Millis = 500;

struct Terminal {
    master: Arc<OwnedFd>,
    /// Absent when memory for it could not be had.
    spool: Option<Spool>,
    /// Output that a lost spool left behind.
    rest: Option<OwnedFd>,
    /// While it is there, output comes out of the pipe.
    pump: Option<Pump>,
    /// How much has come since when.
    flow: (Millis, usize),
    input: InputQueue,
    wants: Wants,
    recorder: Option<Recorder>,
    /// Nothing more will come.
    drained: bool,
    ended: Option<Ended>,
    /// When what has come is all.
    due: Option<Millis>,
}

impl Terminal {
    fn new(master: OwnedFd, spool: Option<Spool>) -> Self {
        Self {
            master: Arc::new(master),
            spool,
            rest: None,
            pump: None,
            flow: (0, 0),
            input: InputQueue::default(),
            wants: READ,
            recorder: None,
            drained: false,
            ended: None,
            due: None,
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        match &mut self.spool {
            Some(spool) if self.pump.is_some() => Ok(Taken { len: spool.take_piped(buffer)?, closed: false }),
            Some(spool) => spool.take(&self.master, buffer),
            None => {
                if let Some(rest) = self.rest.take()
                    && let len @ 1.. = pty::read(&rest, buffer).len
                {
                    self.rest = Some(rest);
                    return Ok(Taken { len, closed: false });
                }
                Ok(pty::read(&self.master, buffer))
            }
        }
    }

    fn wants(&self) -> Wants {
        Wants { read: self.pump.is_none(), write: !self.input.is_empty() }
    }
}

/// A session of an earlier mux, before this one is told of any in order.
struct Adopted {
    record: Record,
    size: Size,
    replay: Vec<u8>,
    history: Option<Stored>,
}

struct Serve {
    mux: Mux,
    paths: Paths,
    workdir: String,
    worktrees: Vec<String>,
    log: Log,
    started: Instant,
    poll: Poll,
    door: Door,
    /// Messages that init was too busy to take.
    to_init: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    listener: Option<OwnedFd>,
    accept_at: Option<Millis>,
    worker: Worker,
    terminals: BTreeMap<SessionId, Terminal>,
    codenames: BTreeMap<SessionId, String>,
    clients: BTreeMap<ClientId, Connection>,
    next_client: u64,
    images: BTreeMap<ClientId, Incoming>,
    exports: BTreeMap<ClientId, Receiver<ServerFrame>>,
    next_export: u64,
    /// Recorders that are writing their last lines.
    recorders: Vec<Recorder>,
    /// Inputs that arose while effects were carried out.
    pending: VecDeque<Input<'static>>,
    wake_at: Option<Millis>,
    /// The session that was typed into last, and when.
    typed: Option<(SessionId, Millis)>,
    /// What is written now was typed.
    typing: bool,
    /// The agent that the first session runs.
    initial: String,
    prober: Prober,
    looking: bool,
    inspecting: bool,
    finish: Option<i32>,
    /// One for all terminals; what is read is used at once.
    buffer: Vec<u8>,
    /// For tests: what it panics on when it is typed.
    fault: Option<String>,
}

/// Runs until there is nothing left to serve; the result is the exit code.
pub fn run(initial: &str) -> i32 {
    let paths = Paths::from_env();
    let log = Log::new(&paths.log(), "mux");
    log.catch_panics();
    log.line(&format!("started, version {}", env!("CARGO_PKG_VERSION")));
    if var("JACKIN_CAPSULE_FORCE_PANIC").is_some() && forced_panic("shown:").or_else(|| forced_panic("typed:")).is_none() {
        panic!("JACKIN_CAPSULE_FORCE_PANIC is set");
    }
    let config = match read_config(&paths) {
        Ok(config) => config,
        Err(error) => {
            log.report(&error);
            return EXIT_CONFIG;
        }
    };
    let code = serve(paths, config, initial, log.clone()).unwrap_or_else(|error| {
        log.report(&format!("stopped: {error}"));
        1
    });
    log.line(&format!("exits with {code}"));
    code
}

/// For tests: where the mux is to panic, if there.
fn forced_panic(place: &str) -> Option<String> {
    Some(var("JACKIN_CAPSULE_FORCE_PANIC")?.strip_prefix(place)?.to_owned())
}

fn packs(log: &Log) -> Packs {
    let (packs, warnings) = status_hooks::load_packs(&status_hooks::pack_dirs(RUNTIME_DIR.as_ref()));
    for warning in warnings {
        log.report(&warning);
    }
    packs
}

fn read_config(paths: &Paths) -> Result<LaunchConfig, String> {
    let path = paths.launch_config();
    let text = file::read(&path, MAX_CONFIG).map_err(|error| format!("{}: {error}", path.display()))?;
    LaunchConfig::parse(&text).map_err(|error| error.to_string())
}

fn serve(paths: Paths, config: LaunchConfig, initial: &str, log: Log) -> io::Result<i32> {
    let mut serve = Serve::new(paths, config, initial, log)?;
    let Some(kept) = serve.take_table()? else {
        return Ok(0);
    };
    // Sessions that outlived an earlier mux may have been told of theirs.
    if serve.terminals.is_empty()
        && let Err(error) = transfer::empty(&serve.paths.clipboard())
    {
        serve.log.line(&format!("{}: {error}", serve.paths.clipboard().display()));
    }
    serve.step(Input::Ready { initial, kept: kept.as_deref() });
    serve.tell_init(&ToInit::Ready, Vec::new());
    while serve.finish.is_none() {
        serve.turn()?;
    }
    serve.flush();
    Ok(serve.finish.unwrap_or(0))
}

impl Serve {
    fn new(paths: Paths, config: LaunchConfig, initial: &str, log: Log) -> io::Result<Self> {
        let door = Door::new(std::io::stdin().as_fd().try_clone_to_owned()?);
        let (poll, worker) = (Poll::new()?, Worker::new()?);
        poll.add(&door, Token::Door, READ)?;
        poll.add(&worker, Token::Worker, READ)?;
        let (workdir, worktrees) = (config.workdir.clone(), config.isolated_worktrees.clone());
        let settings = Settings {
            config,
            policy: policy_from_env(),
            bindings: Bindings::from_settings(var("JACKIN_PALETTE_KEY").as_deref(), var("JACKIN_PREFIX").as_deref()),
            escape_time: mux::escape_time(var("JACKIN_ESCAPE_TIME").as_deref()),
            packs: packs(&log),
            identity: Identity {
                instance: var("JACKIN_INSTANCE_ID").unwrap_or_default(),
                container: var("JACKIN_CONTAINER_NAME").unwrap_or_default(),
            },
            socket: paths.socket.to_string_lossy().into_owned(),
            keys: provider::keys(|key| var(key).is_some()),
            fault: forced_panic("shown:"),
        };
        Ok(Self {
            mux: Mux::new(settings),
            paths,
            workdir,
            worktrees,
            log,
            started: Instant::now(),
            poll,
            door,
            to_init: VecDeque::new(),
            listener: None,
            accept_at: None,
            worker,
            terminals: BTreeMap::new(),
            codenames: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 1,
            images: BTreeMap::new(),
            exports: BTreeMap::new(),
            next_export: 1,
            recorders: Vec::new(),
            pending: VecDeque::new(),
            wake_at: None,
            typed: None,
            typing: false,
            initial: initial.to_owned(),
            prober: Prober::default(),
            looking: false,
            inspecting: false,
            finish: None,
            buffer: vec![0; MAX_READ],
            fault: forced_panic("typed:"),
        })
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    /// The table first: a client must not see a capsule without the sessions it has. Nothing when init is gone;
    /// otherwise what the mux before this one kept.
    fn take_table(&mut self) -> io::Result<Option<Option<String>>> {
        let (mut adopted, mut held_back) = (Vec::new(), Vec::new());
        let kept = loop {
            match self.door.recv::<ToMux>()? {
                Received::Message(ToMux::Ready { version, kept }, fds) => {
                    if version != DOOR_VERSION {
                        self.log.line(&format!("init speaks version {version} of the door's language, this mux {DOOR_VERSION}"));
                    }
                    let listener = fds.into_iter().next().ok_or_else(|| io::Error::other("init sent no listening socket"))?;
                    self.poll.add(&listener, Token::Listener, READ)?;
                    self.listener = Some(listener);
                    break kept;
                }
                Received::Message(ToMux::Session(record), fds) if record.ended.is_none() => self.take_over(&mut adopted, record, fds),
                Received::Message(ToMux::Session(record), _) => self.step(Input::Recalled(record)),
                // A session may end while its mux is still being told of it.
                Received::Message(message, fds) => held_back.push((message, fds)),
                Received::Strange(error) => self.log.line(&format!("init says something strange: {error}")),
                Received::Nothing => drop(self.poll.wait(None)?),
                Received::Closed => return Ok(None),
            }
        };
        for Adopted { record, size, replay, history } in adopted {
            self.step(Input::Adopted { record, size, replay: &replay, history });
        }
        for (message, fds) in held_back {
            self.on_init(message, fds);
        }
        Ok(Some(kept))
    }

    // ---- turns ----

    fn turn(&mut self) -> io::Result<()> {
        let now = self.now();
        let limit = self.next_deadline().map(|at| Duration::from_millis(at.saturating_sub(now)));
        let ready = self.poll.wait(limit)?;
        for event in &ready {
            self.serve(*event)?;
            self.settle();
            if self.finish.is_some() {
                break;
            }
        }
        self.poll.done(ready);
        self.look_at_the_clock();
        Ok(())
    }

    fn serve(&mut self, event: Ready) -> io::Result<()> {
        match event.token {
            Token::Worker => {
                for input in self.worker.drain() {
                    self.looking &= !matches!(input, Input::Workdir(_));
                    self.inspecting &= !matches!(input, Input::Changes(_));
                    self.step(input);
                }
                for client in self.exports.keys().copied().collect::<Vec<_>>() {
                    self.feed_export(client);
                }
            }
            Token::Door => {
                self.send_to_init()?;
                loop {
                    match self.door.recv::<ToMux>()? {
                        Received::Message(message, fds) => self.on_init(message, fds),
                        Received::Strange(error) => self.log.line(&format!("init says something strange: {error}")),
                        Received::Nothing => break,
                        // Without init there is nobody to own a terminal.
                        Received::Closed => {
                            self.finish = Some(0);
                            break;
                        }
                    }
                }
            }
            Token::Listener => self.accept(),
            Token::Client(id) => self.on_client(ClientId(id), event),
            Token::Terminal(id) => self.on_terminal(SessionId(id), event),
            Token::Pump(id) => self.on_pump(SessionId(id)),
            Token::Pipe(id) => drop(self.read_some(SessionId(id))),
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Millis> {
        let connections = self.clients.values().filter_map(Connection::due);
        let images = self.images.values().map(Incoming::due);
        let terminals = self.terminals.values().filter_map(|terminal| terminal.due);
        connections.chain(images).chain(terminals).chain(self.wake_at).chain(self.accept_at).min()
    }

    fn look_at_the_clock(&mut self) {
        let now = self.now();
        if self.wake_at.take_if(|at| *at <= now).is_some() {
            self.step(Input::Tick);
        }
        if self.accept_at.take_if(|at| *at <= now).is_some()
            && let Some(listener) = &self.listener
        {
            let _ = self.poll.change(listener, Token::Listener, READ);
        }
        let late: Vec<_> = self.clients.iter().filter(|(_, c)| c.due().is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for client in late {
            self.lose(client, Some(&FrameError::TimedOut));
        }
        let late: Vec<_> = self.images.iter().filter(|(_, image)| image.due() <= now).map(|(id, _)| *id).collect();
        for client in late {
            self.images.remove(&client);
            self.step(Input::Frame { client, frame: ClientFrame::ImageError("the picture stopped arriving".to_owned()) });
        }
        let late: Vec<_> = self.terminals.iter().filter(|(_, t)| t.due.is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for session in late {
            // Whatever else comes is not this session's.
            self.end_pump(session);
            let mut read = 0;
            while read < MAX_DRAIN
                && let len @ 1.. = self.read_terminal(session, MAX_READ)
            {
                read += len;
            }
            self.end(session);
        }
        self.settle();
    }

    fn step(&mut self, input: Input<'_>) {
        let now = self.now();
        for effect in self.mux.step(now, input) {
            self.carry_out(effect);
        }
        self.settle();
    }

    /// Tells what arose on the way.
    fn settle(&mut self) {
        while let Some(input) = self.pending.pop_front() {
            let now = self.now();
            for effect in self.mux.step(now, input) {
                self.carry_out(effect);
            }
        }
    }

    // ---- init ----

    fn on_init(&mut self, message: ToMux, fds: Vec<OwnedFd>) {
        match message {
            ToMux::Spawned { session, started_at } => match self.add_terminal(session, fds) {
                Ok((.., history)) => self.step(Input::Spawned { session, started_at, history }),
                Err(error) => self.step(Input::SpawnFailed { session, error: &error.to_string() }),
            },
            ToMux::SpawnFailed { session, error } => self.step(Input::SpawnFailed { session, error: &error }),
            ToMux::Ended { session, ended } => {
                let due = self.now() + DRAIN;
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                terminal.ended = Some(ended);
                terminal.due = Some(due);
                if terminal.drained {
                    self.end(session);
                }
            }
            ToMux::Ping => self.tell_init(&ToInit::Pong, Vec::new()),
            ToMux::HandOver => self.hand_over(),
            ToMux::Upgraded { version, error } => self.upgraded(version, error, fds),
            ToMux::Shutdown { reason } => self.step(Input::Shutdown { reason: &reason }),
            ToMux::Session(_) | ToMux::Ready { .. } => {}
        }
    }

    fn take_over(&mut self, adopted: &mut Vec<Adopted>, record: Record, fds: Vec<OwnedFd>) {
        let session = record.id;
        match self.add_terminal(session, fds) {
            Ok((size, replay, history)) => {
                self.codenames.insert(session, record.meta.codename.clone());
                adopted.push(Adopted { record, size, replay, history });
            }
            Err(error) => self.log.report(&format!("session {session} could not be taken over: {error}")),
        }
    }

    fn add_terminal(&mut self, session: SessionId, fds: Vec<OwnedFd>) -> io::Result<(Size, Vec<u8>, Option<Stored>)> {
        let Ok([master, spool @ ..]) = <[OwnedFd; 1 + spool::FDS]>::try_from(fds) else {
            return Err(io::Error::other("the message lacks its descriptors"));
        };
        let (spool, size, replay, history) = match Spool::open(spool) {
            Ok(Found { spool, history, replay }) => (Some(spool), None, replay, Some(history)),
            Err(error) => {
                self.log.report(&format!("session {session} goes on without its spool: {error}"));
                // Its program can at least paint anew.
                pty::ask_for_redraw(&master);
                (None, pty::size(&master).ok(), Vec::new(), None)
            }
        };
        let size = spool.as_ref().map(Spool::size).or(size).unwrap_or(Size { rows: 24, cols: 80 });
        self.poll.add(&master, Token::Terminal(session.0), READ)?;
        self.terminals.insert(session, Terminal::new(master, spool));
        Ok((size, replay, history))
    }

    fn tell_init(&mut self, message: &ToInit, fds: Vec<OwnedFd>) {
        match serde_json::to_vec(message) {
            Ok(bytes) => self.to_init.push_back((bytes, fds)),
            Err(error) => self.log.report(&format!("message to init: {error}")),
        }
        if self.send_to_init().is_err() {
            // The end of the door says the same, and is heard.
            self.to_init.clear();
        }
    }

    fn send_to_init(&mut self) -> io::Result<()> {
        let was_waiting = self.to_init.len() > 1;
        while let Some((bytes, fds)) = self.to_init.front() {
            match self.door.send(bytes, fds) {
                Ok(true) => drop(self.to_init.pop_front()),
                Ok(false) => break,
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                    self.log.report("a message to init is too large; it was dropped");
                    if let Ok(ToInit::Spawn(request)) = serde_json::from_slice(bytes) {
                        let error = "its arguments and environment are too large";
                        self.pending.push_back(Input::SpawnFailed { session: request.session, error });
                    }
                    self.to_init.pop_front();
                }
                Err(error) => return Err(error),
            }
        }
        if was_waiting || !self.to_init.is_empty() {
            self.poll.change(&self.door, Token::Door, Wants { read: true, write: !self.to_init.is_empty() })?;
        }
        Ok(())
    }

    /// Leaves without a word to the clients, who will look for the next mux. Nothing of the sessions is in this process
    /// alone, but what was typed into programs that are slow to read.
    fn hand_over(&mut self) {
        self.log.line("hands over to another mux");
        let deadline = Instant::now() + HAND_OVER;
        let waits = |serve: &Self| !serve.to_init.is_empty() || serve.terminals.values().any(|terminal| !terminal.input.is_empty());
        while Instant::now() < deadline && waits(self) {
            let _ = self.send_to_init();
            for session in self.terminals.keys().copied().collect::<Vec<_>>() {
                self.flush_input(session);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A silent end is what tells a client to come again.
        self.clients.clear();
        self.finish = Some(0);
    }

    fn upgraded(&mut self, version: String, error: Option<String>, fds: Vec<OwnedFd>) {
        self.log.line(&error.as_ref().map_or_else(|| format!("upgraded to {version}"), |error| format!("not upgraded: {error}")));
        // The asker's connection outlived the mux that it asked.
        let Some(stream) = fds.into_iter().next() else {
            return;
        };
        let client = self.add_connection(Connection::asked(stream));
        match error {
            Some(error) => self.step(Input::UpgradeRefused { client, error: &error }),
            None => self.reply(client, &Reply::Version { version, protocol: crate::wire::VERSION }, true),
        }
    }

    // ---- terminals ----

    fn on_terminal(&mut self, session: SessionId, event: Ready) {
        if event.write {
            self.flush_input(session);
        }
        // While it is pumped only its end is told, and that is the pump's to find.
        if event.read && self.terminals.get(&session).is_some_and(|terminal| terminal.pump.is_none()) {
            let len = self.read_some(session);
            self.pump_flood(session, len);
        }
    }

    fn read_some(&mut self, session: SessionId) -> usize {
        let typing = self.typed.filter(|(_, at)| self.now() < at + TYPING);
        let limit = if typing.is_some_and(|(typed, _)| typed != session) { MAX_READ_ASIDE } else { MAX_READ };
        self.read_terminal(session, limit)
    }

    fn pump_flood(&mut self, session: SessionId, len: usize) {
        let now = self.now();
        let Some(terminal) = self.terminals.get_mut(&session).filter(|terminal| !terminal.drained) else {
            return;
        };
        let (since, before) = if now > terminal.flow.0 + FLOOD_WITHIN { (now, 0) } else { terminal.flow };
        terminal.flow = (since, before + len);
        let Some(spool) = terminal.spool.as_ref().filter(|_| terminal.flow.1 >= FLOOD) else {
            return;
        };
        terminal.flow = (now, 0);
        // Without one it is only slower.
        let Ok(Some(pump)) = spool.pump(&terminal.master) else { return };
        let watched =
            self.poll.add(&pump, Token::Pump(session.0), READ).and_then(|()| self.poll.add(spool.pipe(), Token::Pipe(session.0), READ));
        terminal.pump = Some(pump);
        match watched {
            Ok(()) => self.rewatch_terminal(session),
            Err(_) => self.end_pump(session),
        }
    }

    fn stop_pump(&mut self, session: SessionId) {
        let Some(terminal) = self.terminals.get_mut(&session) else { return };
        let Some(pump) = terminal.pump.take() else { return };
        self.poll.remove(&pump);
        if let Some(spool) = &terminal.spool {
            self.poll.remove(spool.pipe());
        }
        drop(pump);
        self.rewatch_terminal(session);
    }

    /// It has ended. What it left in the pipe is read like all else, a turn at a time, until there is no more.
    fn on_pump(&mut self, session: SessionId) {
        if let Some(pump) = self.terminals.get_mut(&session).and_then(|terminal| terminal.pump.as_mut()) {
            pump.stop();
            if self.read_some(session) == 0 {
                self.stop_pump(session);
            }
        }
    }

    /// And takes what it left in the pipe.
    fn end_pump(&mut self, session: SessionId) {
        let pump = |serve: &mut Self| serve.terminals.get_mut(&session)?.pump.as_mut().map(Pump::stop);
        while pump(self).is_some() && self.read_terminal(session, MAX_READ) > 0 {}
        self.stop_pump(session);
    }

    fn lose_spool(&mut self, session: SessionId, error: &io::Error) {
        self.stop_pump(session);
        if let Some(terminal) = self.terminals.get_mut(&session) {
            terminal.rest = terminal.spool.take().map(Spool::into_pipe);
        }
        self.pending.push_back(Input::Unspooled(session));
        self.log.report(&format!("session {session} goes on without its spool: {error}"));
    }

    fn rewatch_terminal(&mut self, session: SessionId) {
        let Some(terminal) = self.terminals.get_mut(&session) else { return };
        let wants = terminal.wants();
        if std::mem::replace(&mut terminal.wants, wants) != wants {
            let _ = self.poll.change(&terminal.master, Token::Terminal(session.0), wants);
        }
    }

    /// Reads once and tells; the result is how much.
    fn read_terminal(&mut self, session: SessionId, limit: usize) -> usize {
        let Some(terminal) = self.terminals.get_mut(&session) else {
            return 0;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        // Spooled before it is shown: what the operator has seen must survive.
        let taken = match terminal.take(&mut buffer[..limit]) {
            Ok(taken) => taken,
            Err(error) => {
                self.buffer = buffer;
                self.lose_spool(session, &error);
                return 0;
            }
        };
        if taken.closed && !terminal.drained {
            terminal.drained = true;
            self.poll.remove(&terminal.master);
        }
        let over = terminal.drained && terminal.ended.is_some();
        if taken.len > 0 {
            let bytes = &buffer[..taken.len];
            if let Some(recorder) = &mut terminal.recorder {
                recorder.output(bytes);
            }
            self.step(Input::Output { session, bytes });
        }
        self.buffer = buffer;
        if over {
            self.end(session);
        }
        taken.len
    }

    fn end(&mut self, session: SessionId) {
        self.stop_pump(session);
        let Some(mut terminal) = self.terminals.remove(&session) else {
            return;
        };
        self.codenames.remove(&session);
        self.retire(terminal.recorder.take());
        if !terminal.drained {
            self.poll.remove(&terminal.master);
        }
        if let Some(ended) = terminal.ended {
            self.step(Input::Ended { session, ended });
        }
    }

    fn write(&mut self, session: SessionId, bytes: Vec<u8>) {
        let Some(terminal) = self.terminals.get_mut(&session).filter(|terminal| !terminal.drained) else {
            return;
        };
        if !terminal.input.push(bytes) {
            return self.log.line(&format!("session {session} does not read; input was dropped"));
        }
        self.flush_input(session);
    }

    fn flush_input(&mut self, session: SessionId) {
        let Some(terminal) = self.terminals.get_mut(&session).filter(|terminal| !terminal.drained) else {
            return;
        };
        if let Err(error) = terminal.input.flush(&terminal.master) {
            self.log.line(&format!("session {session} takes no input: {error}"));
            terminal.input = InputQueue::default();
        }
        self.rewatch_terminal(session);
    }

    // ---- clients ----

    fn accept(&mut self) {
        for _ in 0..ACCEPT_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match socket::accept(listener) {
                // One too many is dropped without a word.
                Ok(Some(stream)) if self.clients.len() >= MAX_CONNECTIONS => drop(stream),
                Ok(Some(stream)) => {
                    self.add_connection(Connection::new(self.now(), stream));
                }
                Ok(None) => return,
                Err(error) => {
                    // Most likely no descriptors are left; whoever waits is served when there are.
                    self.log.line(&format!("accept: {error}"));
                    let _ = self.poll.change(listener, Token::Listener, Wants::default());
                    self.accept_at = Some(self.now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn add_connection(&mut self, connection: Connection) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        match self.poll.add(&connection, Token::Client(client.0), connection.wants()) {
            Ok(()) => drop(self.clients.insert(client, connection)),
            Err(error) => self.log.line(&format!("client {}: {error}", client.0)),
        }
        client
    }

    fn on_client(&mut self, client: ClientId, event: Ready) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        if event.write && connection.flush().is_err() {
            return self.lose(client, None);
        }
        self.after_sending(client);
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        if event.read && connection.wants().read {
            match connection.receive() {
                Ok(more) => {
                    self.listen(client);
                    if !more {
                        self.lose(client, None);
                    }
                }
                Err(_) => self.lose(client, None),
            }
        }
        // Nobody is there to take an answer.
        if event.gone && self.clients.get(&client).is_some_and(|connection| !connection.wants().read) {
            self.lose(client, None);
        }
        self.rewatch(client);
    }

    /// Passes on what the client has said.
    fn listen(&mut self, client: ClientId) {
        let now = self.now();
        while let Some(connection) = self.clients.get_mut(&client) {
            match connection.next(now) {
                Ok(None) => return,
                Ok(Some(Said::Asked { request, ctx })) => self.step(Input::Asked { client, request: *request, ctx }),
                Ok(Some(Said::Hello(hello))) => {
                    if self.clients.values().filter(|c| c.is_attached()).count() > MAX_CLIENTS {
                        return self.lose(client, None);
                    }
                    // Whoever comes may be the one who has just taken the spare.
                    if self.mux.is_held() {
                        self.look_at_hold(None);
                        self.settle();
                    }
                    self.step(Input::Attached { client, hello: *hello });
                }
                Ok(Some(Said::Frame(frame))) => self.frame(client, frame),
                Err(error) => {
                    // A client of another version can tell its operator why.
                    if let (FrameError::Wire(error), true) = (&error, connection.is_greeting()) {
                        let reason = ShutdownReason::Other(error.to_string());
                        let _ = connection.send(&ServerFrame::Shutdown(reason));
                    }
                    return self.lose(client, Some(&error));
                }
            }
        }
    }

    fn frame(&mut self, client: ClientId, frame: ClientFrame) {
        let typed = matches!(frame, ClientFrame::Input(_));
        if let (ClientFrame::Input(bytes), Some(fault)) = (&frame, &self.fault) {
            assert!(bytes != fault.as_bytes(), "JACKIN_CAPSULE_FORCE_PANIC was typed");
        }
        let frame = match frame {
            ClientFrame::AttachControl { kind, request, body, .. } if transfer::is_wrapped(kind) => {
                let inner = transfer::unwrap(kind, &body);
                let result = if inner.is_ok() { 0 } else { 2 };
                self.send(client, &ServerFrame::AttachControlResponse { request, result });
                match inner {
                    Ok(frame) => frame,
                    Err(_) => return,
                }
            }
            other => other,
        };
        match self.picture(client, frame) {
            Ok(Some(frame)) => {
                self.typing = typed;
                self.step(Input::Frame { client, frame });
                self.typing = false;
            }
            Ok(None) => {}
            Err(error) => self.step(Input::Frame { client, frame: ClientFrame::ImageError(error) }),
        }
    }

    /// Collects the parts of a picture, so that the mux only ever sees whole ones.
    fn picture(&mut self, client: ClientId, frame: ClientFrame) -> Result<Option<ClientFrame>, String> {
        let now = self.now();
        match frame {
            // A watcher's are nobody's, and must not take the room of somebody's.
            ClientFrame::ImageStart { .. } if !self.mux.may_type(client) => {}
            ClientFrame::ImageStart { transfer, format, size } => {
                if self.images.len() >= transfer::MAX_INCOMING && !self.images.contains_key(&client) {
                    return Err("too many pictures are on their way".to_owned());
                }
                self.images.insert(client, Incoming::start(now, transfer, format, size)?);
            }
            ClientFrame::ImageChunk { transfer, offset, bytes } => {
                let image = self.images.get_mut(&client).ok_or("a piece of no picture")?;
                if let Err(error) = image.chunk(now, transfer, offset, &bytes) {
                    self.images.remove(&client);
                    return Err(error);
                }
            }
            ClientFrame::ImageEnd { transfer, sha256 } => {
                let image = self.images.remove(&client).ok_or("the end of no picture")?;
                let (format, bytes) = image.end(transfer, sha256)?;
                return Ok(Some(ClientFrame::ClipboardImage { format, bytes }));
            }
            ClientFrame::ImageError(error) => {
                self.images.remove(&client);
                return Ok(Some(ClientFrame::ImageError(error)));
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn send(&mut self, client: ClientId, frame: &ServerFrame) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        match connection.send(frame) {
            Ok(true) => self.after_sending(client),
            Ok(false) => self.lose(client, Some(&FrameError::TimedOut)),
            Err(error) => self.lose(client, Some(&error)),
        }
    }

    fn reply(&mut self, client: ClientId, reply: &Reply, last: bool) {
        let now = self.now();
        // The asker may have left.
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        match connection.reply(now, reply, last) {
            Ok(true) => self.after_sending(client),
            Ok(false) => self.lose(client, Some(&FrameError::TimedOut)),
            Err(error) => self.lose(client, Some(&error)),
        }
    }

    fn after_sending(&mut self, client: ClientId) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        if connection.take_drained() {
            self.pending.push_back(Input::Drained(client));
        }
        if connection.has_left() {
            return self.lose(client, None);
        }
        self.rewatch(client);
        self.feed_export(client);
    }

    fn rewatch(&mut self, client: ClientId) {
        if let Some(connection) = self.clients.get_mut(&client)
            && let Some(wants) = connection.changed_wants()
        {
            let _ = self.poll.change(&*connection, Token::Client(client.0), wants);
        }
    }

    fn lose(&mut self, client: ClientId, error: Option<&FrameError>) {
        let Some(connection) = self.clients.remove(&client) else {
            return;
        };
        self.poll.remove(&connection);
        self.images.remove(&client);
        self.exports.remove(&client);
        if let Some(error) = error {
            self.log.line(&format!("client {}: {error}", client.0));
        }
        if connection.is_known() {
            self.pending.push_back(Input::Gone(client));
        }
    }

    /// The next piece, when everything before it has left: an export never outgrows one piece.
    fn feed_export(&mut self, client: ClientId) {
        let (Some(export), Some(connection)) = (self.exports.get(&client), self.clients.get(&client)) else {
            self.exports.remove(&client);
            return;
        };
        if connection.is_behind() {
            return;
        }
        match export.try_recv() {
            Ok(frame) => self.send(client, &frame),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => drop(self.exports.remove(&client)),
        }
    }

    /// What was sent may still leave, for a while; so may what recorders hold.
    fn flush(&mut self) {
        let deadline = self.now() + FLUSH;
        let now = self.now();
        for connection in self.clients.values_mut() {
            connection.dismiss(now);
        }
        let clients: Vec<_> = self.clients.keys().copied().collect();
        for client in clients {
            self.after_sending(client);
        }
        while !self.clients.is_empty() && self.now() < deadline {
            let limit = Duration::from_millis(deadline.saturating_sub(self.now()).max(1));
            let Ok(ready) = self.poll.wait(Some(limit)) else {
                break;
            };
            for event in ready {
                let Token::Client(id) = event.token else {
                    self.ignore(event.token);
                    continue;
                };
                if let Some(connection) = self.clients.get_mut(&ClientId(id))
                    && (event.gone || connection.flush().is_err())
                {
                    self.lose(ClientId(id), None);
                }
                self.after_sending(ClientId(id));
            }
        }
        for terminal in self.terminals.values_mut() {
            self.recorders.extend(terminal.recorder.take());
        }
        for recorder in self.recorders.drain(..) {
            recorder.finish();
        }
    }

    fn retire(&mut self, recorder: Option<Recorder>) {
        self.recorders.retain(|recorder| !recorder.has_finished());
        self.recorders.extend(recorder.inspect(Recorder::stop));
    }

    /// Readiness that nobody is there for any more would be told for ever.
    fn ignore(&mut self, token: Token) {
        match token {
            Token::Worker => drop(self.worker.drain()),
            Token::Door => self.poll.remove(&self.door),
            Token::Listener => {
                if let Some(listener) = self.listener.take() {
                    self.poll.remove(&listener);
                }
            }
            Token::Terminal(id) => {
                if let Some(terminal) = self.terminals.get(&SessionId(id)) {
                    self.poll.remove(&terminal.master);
                }
            }
            Token::Pump(id) | Token::Pipe(id) => self.stop_pump(SessionId(id)),
            Token::Client(_) => {}
        }
    }

    // ---- effects ----

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { session, meta, program, env, cwd, size } => {
                let argv = match program {
                    Program::Agent { args, .. } => std::iter::once(self.paths.entrypoint.clone()).chain(args).collect(),
                    Program::Shell => vec![SHELL.to_owned()],
                };
                self.codenames.insert(session, meta.codename.clone());
                let (env, taken_away) = provider::resolve(env, var);
                let unset = SESSION_UNSET.iter().map(|key| (*key).to_owned()).chain(taken_away).collect();
                let cwd = cwd.unwrap_or_else(|| self.workdir.clone());
                self.tell_init(&ToInit::Spawn(SpawnRequest { session, meta, argv, cwd, env, unset, size }), Vec::new());
            }
            Effect::Write { session, bytes } => {
                if self.typing {
                    self.typed = Some((session, self.now()));
                }
                self.write(session, bytes);
            }
            Effect::Resize { session, size } => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                if let Err(error) = pty::set_size(&terminal.master, size) {
                    self.log.line(&format!("session {session} keeps its size: {error}"));
                }
                if let Some(recorder) = &mut terminal.recorder {
                    recorder.resize(size);
                }
            }
            Effect::Repaint(session) => {
                if let Some(terminal) = self.terminals.get(&session) {
                    pty::ask_for_redraw(&terminal.master);
                }
            }
            Effect::Checkpoint { session, size, bytes, history } => {
                let Some(terminal) = self.terminals.get_mut(&session) else {
                    return;
                };
                if let Some(Err(error)) = terminal.spool.as_mut().map(|spool| spool.checkpoint(size, &bytes, &history)) {
                    self.lose_spool(session, &error);
                }
            }
            Effect::Keep(kept) if kept.len() > MAX_KEPT => self.log.report(&format!("{} bytes are too many to keep", kept.len())),
            Effect::Keep(kept) => self.tell_init(&ToInit::Keep(kept), Vec::new()),
            Effect::Kill(session) => self.tell_init(&ToInit::Kill(session), Vec::new()),
            Effect::Send { client, frame } => self.send(client, &frame),
            Effect::Close(client) => {
                let now = self.now();
                if let Some(connection) = self.clients.get_mut(&client) {
                    connection.dismiss(now);
                }
                self.exports.remove(&client);
                self.after_sending(client);
            }
            Effect::Reply { client, reply, last } => self.reply(client, &reply, last),
            Effect::Probe(sessions) => self.probe(&sessions),
            Effect::Capture { client, session, files } => {
                let dir = self.paths.captures();
                let codename = self.codenames.get(&session).cloned().unwrap_or_default();
                let started = self.worker.start("capture", move |report| {
                    let result = transfer::capture(&dir, session, &codename, &files).map_err(|error| error.to_string());
                    report.tell(Input::Captured { client, result: result.map(|path| path.to_string_lossy().into_owned()) });
                });
                if let Err(error) = started {
                    self.pending.push_back(Input::Captured { client, result: Err(error.to_string()) });
                }
            }
            Effect::LookAtWorkdir => self.look_at_workdir(),
            Effect::InspectChanges => self.inspect_changes(),
            Effect::WriteExitAction(action) => {
                // Small, and written once: no reason for a thread.
                if let Err(error) = file::write(&self.paths.exit_action(), format!("{action:?}").as_bytes(), file::PRIVATE) {
                    self.log.report(&format!("the choice to {action} could not be written: {error}"));
                }
            }
            Effect::StageImage { session, format, bytes } => {
                let dir = self.paths.clipboard();
                let started = self.worker.start("stage", move |report| {
                    let result = transfer::stage(&dir, format, &bytes).map(|path| path.to_string_lossy().into_owned());
                    report.tell(Input::Staged { session, result });
                });
                if let Err(error) = started {
                    self.pending.push_back(Input::Staged { session, result: Err(error.to_string()) });
                }
            }
            Effect::Export { client, path, reveal, open } => self.export(client, path, reveal, open),
            Effect::Record { session, on, size } => self.record(session, on, size),
            Effect::Upgrade { client, path } => {
                // The connection goes along: its answer comes from the mux that is there then.
                if let Some(connection) = self.clients.remove(&client) {
                    self.poll.remove(&connection);
                    self.pending.push_back(Input::Gone(client));
                    self.tell_init(&ToInit::Upgrade { path }, vec![connection.into_stream()]);
                }
            }
            Effect::LookAtHold(asker) => self.look_at_hold(asker),
            Effect::WakeAt(at) => self.wake_at = at,
            Effect::Log(line) => self.log.report(&line),
            Effect::Finish(code) => self.finish = Some(code),
        }
    }

    /// What was true when the spare was made may have changed, so all of the launch file counts anew.
    fn look_at_hold(&mut self, asker: Option<ClientId>) {
        let reply = match read_config(&self.paths) {
            Ok(config) if config.hold => Reply::Held,
            Ok(config) => {
                (self.workdir, self.worktrees) = (config.workdir.clone(), config.isolated_worktrees.clone());
                self.pending.push_back(Input::Released { config, initial: self.initial.clone() });
                Reply::Ack
            }
            Err(message) => Reply::Error { message },
        };
        if let Some(client) = asker {
            self.reply(client, &reply, true);
        }
    }

    fn probe(&mut self, sessions: &[SessionId]) {
        // The first process of a session leads its terminal's session.
        let first = |id: &SessionId| Some((*id, rustix::termios::tcgetsid(&self.terminals.get(id)?.master).ok()?));
        let firsts: Vec<_> = sessions.iter().filter_map(first).collect();
        let pids: Vec<_> = firsts.iter().map(|(_, pid)| pid.as_raw_nonzero().get()).collect();
        let probes = firsts.iter().zip(self.prober.probe(&pids)).filter_map(|((id, _), probe)| Some((*id, probe?)));
        self.pending.push_back(Input::Probed(probes.collect()));
    }

    fn look_at_workdir(&mut self) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let workdir = self.workdir.clone();
        let started = self.worker.start("workdir", move |report| report.tell(Input::Workdir(changes::look(workdir.as_ref()))));
        self.looking = started.is_ok();
    }

    fn inspect_changes(&mut self) {
        if std::mem::replace(&mut self.inspecting, true) {
            return;
        }
        let worktrees = self.worktrees.clone();
        let started = self.worker.start("changes", move |report| report.tell(Input::Changes(changes::inspect(&worktrees))));
        if let Err(error) = started {
            self.inspecting = false;
            self.pending.push_back(Input::Changes(changes::unknown(&self.worktrees, &error.to_string())));
        }
    }

    fn export(&mut self, client: ClientId, path: String, reveal: bool, open: bool) {
        if self.exports.contains_key(&client) {
            return self.pending.push_back(Input::Exported(Err("another file is still on its way".to_owned())));
        }
        let transfer = self.next_export;
        self.next_export += 1;
        let workdir = self.workdir.clone();
        let mounts = std::iter::once(&self.workdir).chain(&self.worktrees).map(Into::into);
        let mut roots: Vec<_> = mounts.chain([self.paths.run.clone()]).collect();
        let (frames, receiver) = transfer::pieces();
        let started = self.worker.start("export", move |report| {
            let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            roots.extend(var("HOME").into_iter().flat_map(|home| transfer::workspace_mounts(&mountinfo, home.as_ref())));
            let result = transfer::export(workdir.as_ref(), &roots, &path, |file| {
                transfer::stream(file, transfer, reveal, open, |frame| {
                    let taken = frames.send(frame).is_ok();
                    report.wake();
                    taken
                })
            });
            report.tell(Input::Exported(result));
        });
        match started {
            Ok(()) => drop(self.exports.insert(client, receiver)),
            Err(error) => self.pending.push_back(Input::Exported(Err(error.to_string()))),
        }
    }

    fn record(&mut self, session: SessionId, on: bool, size: Size) {
        let Some(terminal) = self.terminals.get_mut(&session) else {
            return;
        };
        let before = terminal.recorder.take();
        if let Some(recorder) = &before {
            let now = Recording::Ended(recorder.path().to_string_lossy().into_owned());
            self.pending.push_back(Input::Recording { session, now });
        }
        self.retire(before);
        if !on {
            return;
        }
        let Some(terminal) = self.terminals.get_mut(&session) else {
            return;
        };
        let codename = self.codenames.get(&session).map_or("session", String::as_str);
        // What is on the screen now is what the recording begins with.
        let screen = terminal.spool.as_ref().and_then(|spool| spool.replay().ok()).unwrap_or_default();
        match Recorder::start(&self.paths.recordings(), session, codename, size, &screen, self.worker.reporter()) {
            Ok(recorder) => {
                let path = recorder.path().to_string_lossy().into_owned();
                terminal.recorder = Some(recorder);
                self.pending.push_back(Input::Recording { session, now: Recording::Begun(path) });
            }
            Err(error) => self.pending.push_back(Input::Recording { session, now: Recording::Failed(error.to_string()) }),
        }
    }
}

const READ: Wants = Wants { read: true, write: false };

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_a_lost_spool_left_comes_before_what_the_terminal_has() {
        let (mut program, master) = std::os::unix::net::UnixStream::pair().unwrap();
        master.set_nonblocking(true).unwrap();
        let flags = rustix::pipe::PipeFlags::NONBLOCK;
        let (rest, writer) = rustix::pipe::pipe_with(flags).unwrap();
        rustix::io::write(&writer, b"left in the pipe").unwrap();
        program.write_all(b", printed since").unwrap();
        let mut terminal = Terminal { rest: Some(rest), ..Terminal::new(master.into(), None) };
        let mut got = Vec::new();
        for _ in 0..3 {
            let mut buffer = [0; 10];
            let taken = terminal.take(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..taken.len]);
        }
        assert_eq!(got, b"left in the pipe, printed ");
    }
}
