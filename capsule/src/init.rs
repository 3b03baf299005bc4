//! PID 1: owns every session's process and terminal, runs the mux as its child and starts it again when it dies.
//! In: signals, dead children, spawn requests. Out: the table with its descriptors, and the exit code.
//! Absent: screens, clients, configuration. It stays small because nobody restarts it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::EXIT_CONFIG;
use crate::handover::{self, Door, SpawnRequest, ToMux};
use crate::log::{Log, unix_now};
use crate::mux::{Ended, MAX_ENDED, Record, SessionId};
use crate::paths::Paths;
use crate::pty;
use crate::spool::Spool;

/// Crashes within `CRASH_WINDOW` before the loop counts as one.
const MAX_CRASHES: usize = 5;
const CRASH_WINDOW: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// With sessions at stake init never gives up, it only slows down.
const SLOW_RETRY: Duration = Duration::from_secs(30);
/// What programs get to heed TERM before HUP, which shells need and which would cut other programs' farewell short.
const HANG_UP_AFTER: Duration = Duration::from_millis(500);
/// Between asking sessions to end and making them; docker gives ten seconds in all.
const GRACE: Duration = Duration::from_secs(4);
/// What the mux gets to flush its clients after the last session.
const MUX_GRACE: Duration = Duration::from_secs(5);

struct Held {
    record: Record,
    pid: Pid,
    master: OwnedFd,
    spool: OwnedFd,
}

struct MuxProcess {
    pid: Pid,
    /// Absent once the mux has closed its end: it is about to be reaped.
    door: Option<Door>,
    /// Messages it was too busy to take.
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

struct Init {
    initial: String,
    log: Log,
    live: BTreeMap<SessionId, Held>,
    ended: VecDeque<Record>,
    mux: Option<MuxProcess>,
    crashes: VecDeque<Instant>,
    restart_at: Option<Instant>,
    /// When the mux, or after a shutdown everything, is made to end.
    deadline: Option<Instant>,
    hang_up_at: Option<Instant>,
    stopping: bool,
    exit: Option<i32>,
}

/// Runs the container; the result is its exit code.
pub fn run(initial: &str) -> i32 {
    let log = Log::new(&Paths::from_env().log(), "init");
    log.catch_panics();
    log.line(&format!("started, version {}, initial agent {initial}", env!("CARGO_PKG_VERSION")));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log.report(&format!("no runtime: {error}"));
            return 1;
        }
    };
    let init = Init {
        initial: initial.to_owned(),
        log: log.clone(),
        live: BTreeMap::new(),
        ended: VecDeque::new(),
        mux: None,
        crashes: VecDeque::new(),
        restart_at: None,
        deadline: None,
        hang_up_at: None,
        stopping: false,
        exit: None,
    };
    runtime.block_on(init.run()).unwrap_or_else(|error| {
        log.report(&format!("stopped: {error}"));
        1
    })
}

impl Init {
    async fn run(mut self) -> io::Result<i32> {
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        if std::process::id() != 1 {
            // As PID 1 orphans come to us anyway.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        self.start_mux()?;
        loop {
            if let Some(code) = self.exit {
                self.log.line(&format!("exits with {code}"));
                return Ok(code);
            }
            let wake = [self.restart_at, self.hang_up_at, self.deadline].into_iter().flatten().min();
            let wants_to_send = self.mux.as_ref().is_some_and(|mux| !mux.waiting.is_empty());
            tokio::select! {
                _ = children.recv() => self.reap(),
                _ = terminate.recv() => self.stop("the container is being stopped"),
                _ = interrupt.recv() => self.stop("the container was interrupted"),
                request = from_mux(&self.mux) => match request {
                    Ok(Some(request)) => self.spawn(&request),
                    Ok(None) => self.close_door(),
                    Err(error) => {
                        self.log.report(&format!("the mux does not speak sense: {error}"));
                        self.close_door();
                        self.kill_mux();
                    }
                },
                () = mux_takes(&self.mux), if wants_to_send => self.send_waiting(),
                () = sleep_until(wake), if wake.is_some() => self.due(),
            }
        }
    }

    // ---- the mux ----

    fn start_mux(&mut self) -> io::Result<()> {
        self.restart_at = None;
        let (ours, theirs) = handover::pair()?;
        let child = Command::new(pty::own_binary())
            .arg0("jackin-capsule")
            .arg(crate::SERVE_VERB)
            .arg(&self.initial)
            .env_remove("JACKIN_CAPSULE_FORCE_DAEMON")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::other("a child without a pid"))?;
        self.mux = Some(MuxProcess { pid, door: Some(Door::new(ours)?), waiting: VecDeque::new() });
        for record in self.ended.clone() {
            self.tell(&ToMux::Session(record), Vec::new());
        }
        let rows: Vec<_> = (self.live.values())
            .map(|held| Ok((ToMux::Session(held.record.clone()), vec![held.master.try_clone()?, held.spool.try_clone()?])))
            .collect::<io::Result<_>>()?;
        for (row, fds) in rows {
            self.tell(&row, fds);
        }
        self.tell(&ToMux::Ready, Vec::new());
        Ok(())
    }

    /// Sends, or keeps for later: init never waits for the mux.
    fn tell(&mut self, message: &ToMux, fds: Vec<OwnedFd>) {
        let Some(mux) = &mut self.mux else { return };
        match serde_json::to_vec(message) {
            Ok(bytes) => mux.waiting.push_back((bytes, fds)),
            Err(error) => self.log.report(&format!("message to the mux: {error}")),
        }
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        let Some(mux) = &mut self.mux else { return };
        while let Some((bytes, fds)) = mux.waiting.front() {
            match mux.door.as_ref().map_or(Ok(true), |door| door.try_send(bytes, fds)) {
                Ok(true) => drop(mux.waiting.pop_front()),
                Ok(false) => return,
                // Dead; the next one is told everything anew.
                Err(_) => return mux.waiting.clear(),
            }
        }
    }

    fn close_door(&mut self) {
        if let Some(mux) = &mut self.mux {
            mux.door = None;
            mux.waiting.clear();
        }
    }

    fn kill_mux(&self) {
        if let Some(mux) = &self.mux {
            let _ = rustix::process::kill_process(mux.pid, Signal::KILL);
        }
    }

    fn mux_ended(&mut self, status: WaitStatus) {
        if let Some(door) = self.mux.take().and_then(|mux| mux.door) {
            // It may have asked for a session with its last breath, and somebody waits for that.
            while let Some(request) = door.recv_left_over() {
                self.spawn(&request);
            }
        }
        let code = status.exit_status();
        let how = describe(status);
        if self.stopping {
            return self.exit_when_empty();
        }
        if self.live.is_empty() && !self.ended.is_empty() {
            // All sessions are over, and there is nothing that another mux could do.
            self.exit = Some(0);
            return;
        }
        if self.live.is_empty() && matches!(code, Some(0 | 1 | EXIT_CONFIG)) {
            // It has said why; the same again would fare no better.
            self.exit = code.map(|code| code.max(1));
            return;
        }
        let now = Instant::now();
        self.crashes.retain(|crash| now.duration_since(*crash) < CRASH_WINDOW);
        self.crashes.push_back(now);
        let count = self.crashes.len();
        let delay = if count < MAX_CRASHES {
            FIRST_RETRY * (1 << (2 * (count - 1)))
        } else if self.live.is_empty() {
            self.log.report(&format!("the mux ended {count} times in a row, the last time {how}; giving up"));
            self.exit = Some(101);
            return;
        } else {
            SLOW_RETRY
        };
        self.log.report(&format!("the mux ended {how}; {} sessions live on, starting it again in {delay:?}", self.live.len()));
        self.restart_at = Some(now + delay);
    }

    // ---- sessions ----

    fn spawn(&mut self, request: &SpawnRequest) {
        let session = request.session;
        if self.stopping || self.live.contains_key(&session) {
            return;
        }
        let spawned = Spool::create(request.size).and_then(|spool| {
            let clones = |master: &OwnedFd, spool: &OwnedFd| io::Result::Ok(vec![master.try_clone()?, spool.try_clone()?]);
            let (master, pid) = pty::spawn(request)?;
            let fds = clones(&master, &spool)?;
            Ok((pid, master, spool, fds))
        });
        match spawned {
            Ok((pid, master, spool, fds)) => {
                let started_at = unix_now();
                let record = Record { id: session, meta: request.meta.clone(), started_at, ended: None };
                self.log.line(&format!("session {session} ({}) runs as {pid:?}", record.meta.label));
                self.live.insert(session, Held { record, pid, master, spool });
                self.deadline = None;
                self.tell(&ToMux::Spawned { session, started_at }, fds);
            }
            Err(error) => {
                self.log.report(&format!("session {session} could not be started: {error}"));
                self.tell(&ToMux::SpawnFailed { session, error: error.to_string() }, Vec::new());
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.mux.as_ref().is_some_and(|mux| mux.pid == pid) {
                self.mux_ended(status);
            } else if let Some(session) = self.live.values().find(|held| held.pid == pid).map(|held| held.record.id) {
                self.session_ended(session, status);
            }
            // Anything else was an orphan.
        }
    }

    fn session_ended(&mut self, session: SessionId, status: WaitStatus) {
        let Some(mut held) = self.live.remove(&session) else {
            return;
        };
        let ended = Ended { at: unix_now(), code: status.exit_status() };
        self.log.line(&format!("session {session} ended {}", describe(status)));
        held.record.ended = Some(ended);
        self.ended.push_back(held.record);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
        self.tell(&ToMux::Ended { session, ended }, Vec::new());
        if self.stopping {
            self.exit_when_empty();
        } else if self.live.is_empty() {
            if self.mux.is_none() {
                self.exit = Some(0);
            }
            self.deadline = Some(Instant::now() + MUX_GRACE);
        }
    }

    // ---- the end ----

    fn stop(&mut self, reason: &str) {
        if self.stopping {
            return;
        }
        self.log.line(reason);
        self.stopping = true;
        self.restart_at = None;
        self.deadline = Some(Instant::now() + GRACE);
        self.tell(&ToMux::Shutdown { reason: reason.to_owned() }, Vec::new());
        // A stopped program hears nothing until it goes on.
        self.signal_sessions(Signal::TERM);
        self.signal_sessions(Signal::CONT);
        self.hang_up_at = Some(Instant::now() + HANG_UP_AFTER);
        self.exit_when_empty();
    }

    fn signal_sessions(&self, signal: Signal) {
        for held in self.live.values() {
            let _ = rustix::process::kill_process_group(held.pid, signal);
        }
    }

    fn exit_when_empty(&mut self) {
        if self.live.is_empty() && self.mux.is_none() {
            self.exit = Some(0);
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        if self.restart_at.is_some_and(|at| at <= now)
            && let Err(error) = self.start_mux()
        {
            self.log.report(&format!("the mux could not be started: {error}"));
            self.restart_at = Some(now + SLOW_RETRY);
        }
        if self.hang_up_at.is_some_and(|at| at <= now) {
            self.hang_up_at = None;
            self.signal_sessions(Signal::HUP);
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.signal_sessions(Signal::KILL);
            self.kill_mux();
        }
    }
}

async fn from_mux(mux: &Option<MuxProcess>) -> io::Result<Option<SpawnRequest>> {
    match mux.as_ref().and_then(|mux| mux.door.as_ref()) {
        Some(door) => Ok(door.recv().await?.map(|(request, _)| request)),
        None => std::future::pending().await,
    }
}

async fn mux_takes(mux: &Option<MuxProcess>) {
    match mux.as_ref().and_then(|mux| mux.door.as_ref()) {
        // An error shows up in the next send.
        Some(door) => drop(door.writable().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("with {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}
