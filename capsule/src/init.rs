//! PID 1: owns every session's process and terminal, runs the mux as its child and starts it again when it dies.
//! In: signals, dead children, the mux's requests. Out: the table with its descriptors, and the exit code.
//! Absent: screens, clients, configuration. It stays small because nobody restarts it, and nothing that the mux says
//! can end it.
//!
//! **Upgrades.** Init itself stays what it was until the container ends. Asked for another mux it tries whether that
//! binary runs at all, has the running mux finish what is half done, and starts the new one with the table. That is on
//! trial: if it does not take the table over in time, or dies soon after, init goes back to the binary before it, with
//! every session alive. Whoever asked gets the answer on the same connection, which init keeps meanwhile.
//!
//! **A mux that is stuck.** Nobody polls: an idle capsule stays asleep. Init sends a ping behind every message it sends
//! anyway, and when somebody connects, which it sees because the listening socket is its own. Only while a ping is
//! unanswered does a clock run. A mux that was stopped by a signal is made to go on at once; one that spins is killed
//! and started anew when it owes an answer for too long.
//!
//! **The listening socket** is init's as well, so a client that connects while there is no mux waits in the queue.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::EXIT_CONFIG;
use crate::file;
use crate::handover::{self, DOOR_VERSION, Door, MAX_KEPT, Received, SpawnRequest, ToInit, ToMux};
use crate::log::{Log, unix_now};
use crate::mux::{Ended, MAX_ENDED, Record, SessionId};
use crate::paths::Paths;
use crate::pty;
use crate::socket;
use crate::spool::{self, Spool};

/// Crashes within `CRASH_WINDOW` before the loop counts as one. A mux that is killed was killed by somebody else, be it
/// a kernel without memory; that is no loop so soon, and sessions should not wait for their screens.
const MAX_CRASHES: usize = 5;
const MAX_KILLS: usize = 500;
const CRASH_WINDOW: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// With sessions at stake init never gives up, it only slows down, and less when somebody waits.
const SLOW_RETRY: Duration = Duration::from_secs(30);
const WANTED_RETRY: Duration = Duration::from_secs(1);
/// What programs get to heed TERM before HUP, which shells need and which would cut other programs' farewell short.
const HANG_UP_AFTER: Duration = Duration::from_millis(500);
/// Between asking sessions to end and making them; docker gives ten seconds in all.
const GRACE: Duration = Duration::from_secs(4);
/// What the mux gets to flush its clients after the last session.
const MUX_GRACE: Duration = Duration::from_secs(5);
/// An answer that is owed for so long will not come.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// Time that a paused container spent asleep counts for the clock as well, so the last word is a second chance.
const SECOND_CHANCE: Duration = Duration::from_secs(2);
const TRY_OUT: Duration = Duration::from_secs(5);
const HAND_OVER: Duration = Duration::from_secs(5);
/// For a new mux to take the table over, and then to prove itself.
const TAKE_OVER: Duration = Duration::from_secs(10);
const PROBATION: Duration = Duration::from_secs(2);
const MAX_VERSION_TEXT: u64 = 256;

struct Held {
    record: Record,
    pid: Pid,
    master: OwnedFd,
    spool: [OwnedFd; spool::FDS],
    /// When it is made to end, after it was asked to.
    kill_at: Option<Instant>,
}

impl Held {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        std::iter::once(&self.master).chain(&self.spool).map(OwnedFd::try_clone).collect()
    }
}

struct MuxProcess {
    pid: Pid,
    /// Absent once the mux has closed its end: it is about to be reaped.
    door: Option<Watched<Door>>,
    /// Messages it was too busy to take.
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    watchdog: Watchdog,
}

/// Whether the mux owes an answer, and since when.
#[derive(Debug, Default)]
struct Watchdog {
    due: Option<Instant>,
    warned: bool,
    gave_up: bool,
}

impl Watchdog {
    /// True when a ping is to be sent.
    fn expect(&mut self, now: Instant) -> bool {
        if self.due.is_some() {
            return false;
        }
        (self.due, self.warned) = (Some(now + STUCK_AFTER), false);
        true
    }

    fn answered(&mut self) {
        self.due = None;
    }

    /// True when all patience is used up.
    fn is_stuck(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        let was_warned = std::mem::replace(&mut self.warned, true);
        self.due = (!was_warned).then_some(now + SECOND_CHANCE);
        self.gave_up = was_warned;
        was_warned
    }
}

/// What happened within the last `CRASH_WINDOW`.
#[derive(Debug, Default)]
struct Recent(VecDeque<Instant>);

impl Recent {
    /// How often, with this time.
    fn add(&mut self, now: Instant) -> usize {
        self.0.retain(|time| now.duration_since(*time) < CRASH_WINDOW);
        self.0.push_back(now);
        self.0.len()
    }
}

/// An upgrade on its way.
struct Upgrade {
    /// For the answer.
    asker: Vec<OwnedFd>,
    binary: File,
    version: String,
    stage: Stage,
    due: Instant,
}

enum Stage {
    /// `BINARY --version` runs.
    TriedOut { pid: Pid, output: io::PipeReader },
    /// The old mux finishes.
    HandingOver,
    /// The new mux runs; what was there before is kept for when it fails.
    OnTrial { before: Option<File>, took_over: bool },
}

struct Init {
    initial: String,
    paths: Paths,
    log: Log,
    live: BTreeMap<SessionId, Held>,
    ended: VecDeque<Record>,
    mux: Option<MuxProcess>,
    /// Kept open, so that its path may go or change. Absent: the same binary as init's.
    mux_binary: Option<File>,
    upgrade: Option<Upgrade>,
    kept: Option<String>,
    listener: Option<Watched<OwnedFd>>,
    crashes: Recent,
    kills: Recent,
    restart_at: Option<Instant>,
    /// When the mux, or after a shutdown everything, is made to end.
    deadline: Option<Instant>,
    hang_up_at: Option<Instant>,
    stopping: bool,
    exit: Option<i32>,
}

/// Runs the container; the result is its exit code.
pub fn run(initial: &str) -> i32 {
    let paths = Paths::from_env();
    let log = Log::new(&paths.log(), "init");
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
        paths,
        log: log.clone(),
        live: BTreeMap::new(),
        ended: VecDeque::new(),
        mux: None,
        mux_binary: None,
        upgrade: None,
        kept: None,
        listener: None,
        crashes: Recent::default(),
        kills: Recent::default(),
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
        // Nothing to us, but what is caught is at its default again in sessions, even where init was started with it ignored.
        drop(signal(SignalKind::hangup())?);
        if std::process::id() != 1 {
            // As PID 1 orphans come to us anyway.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        self.listen()?;
        self.start_mux()?;
        loop {
            if let Some(code) = self.exit {
                self.log.line(&format!("exits with {code}"));
                return Ok(code);
            }
            let wake = self.next_deadline();
            let door = self.mux.as_ref().and_then(|mux| mux.door.as_ref());
            let wants_to_send = self.mux.as_ref().is_some_and(|mux| !mux.waiting.is_empty());
            tokio::select! {
                _ = children.recv() => self.reap(),
                _ = terminate.recv() => self.stop("the container is being stopped"),
                _ = interrupt.recv() => self.stop("the container was interrupted"),
                () = ready(door, Interest::READABLE) => self.hear_mux(),
                () = ready(door, Interest::WRITABLE), if wants_to_send => self.send_waiting(),
                // Only seen: the connection is for the mux to accept.
                () = ready(self.listener.as_ref(), Interest::READABLE) => self.somebody_connected(),
                () = sleep_until(wake), if wake.is_some() => self.due(),
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stuck = self.mux.as_ref().and_then(|mux| mux.watchdog.due);
        let kills = self.live.values().filter_map(|held| held.kill_at);
        let upgrade = self.upgrade.as_ref().map(|upgrade| upgrade.due);
        [self.restart_at, self.hang_up_at, self.deadline, stuck, upgrade].into_iter().flatten().chain(kills).min()
    }

    // ---- the socket ----

    fn listen(&mut self) -> io::Result<()> {
        self.listener = Some(Watched::new(socket::bind(&self.paths.socket)?)?);
        Ok(())
    }

    fn somebody_connected(&mut self) {
        if self.mux.is_some() {
            self.ping();
        } else if let Some(at) = &mut self.restart_at {
            *at = (*at).min(Instant::now() + WANTED_RETRY);
        }
    }

    /// Somebody has connected and was not accepted yet.
    fn somebody_waits(&self) -> bool {
        let Some(listener) = &self.listener else { return false };
        let mut fds = [PollFd::new(&listener.inner, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    // ---- the mux ----

    fn start_mux(&mut self) -> io::Result<()> {
        self.restart_at = None;
        if !self.paths.socket.exists() {
            // Somebody has cleaned up too eagerly; nobody could connect ever again.
            self.listen()?;
        }
        let Some(listener) = &self.listener else { return Ok(()) };
        let listener = listener.inner.try_clone()?;
        let (ours, theirs) = handover::pair()?;
        let program = self.mux_binary.as_ref().map_or_else(pty::own_binary, path_of);
        let child = Command::new(program)
            .arg0("jackin-capsule")
            .arg(crate::SERVE_VERB)
            .arg(&self.initial)
            .env_remove("JACKIN_CAPSULE_FORCE_DAEMON")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::other("a child without a pid"))?;
        let door = Watched::new(Door::new(ours))?;
        self.mux = Some(MuxProcess { pid, door: Some(door), waiting: VecDeque::new(), watchdog: Watchdog::default() });
        for record in self.ended.clone() {
            self.tell(&ToMux::Session(record), Vec::new());
        }
        let rows: Vec<_> =
            self.live.values().map(|held| Ok((ToMux::Session(held.record.clone()), held.descriptors()?))).collect::<io::Result<_>>()?;
        for (row, fds) in rows {
            self.tell(&row, fds);
        }
        self.tell(&ToMux::Ready { version: DOOR_VERSION, kept: self.kept.clone() }, vec![listener]);
        self.ping();
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

    fn ping(&mut self) {
        if self.mux.as_mut().is_some_and(|mux| mux.watchdog.expect(Instant::now())) {
            self.tell(&ToMux::Ping, Vec::new());
        }
    }

    fn send_waiting(&mut self) {
        let Some(mux) = &mut self.mux else { return };
        while let Some((bytes, fds)) = mux.waiting.front() {
            match mux.door.as_ref().map_or(Ok(true), |door| door.inner.send(bytes, fds)) {
                Ok(true) => drop(mux.waiting.pop_front()),
                Ok(false) => return,
                // Dead; the next one is told everything anew.
                Err(_) => return mux.waiting.clear(),
            }
        }
    }

    /// Everything the mux has said by now.
    fn hear_mux(&mut self) {
        loop {
            let Some(door) = self.mux.as_ref().and_then(|mux| mux.door.as_ref()) else { return };
            match door.inner.recv() {
                Ok(Received::Message(message, fds)) => self.on_mux(message, fds),
                Ok(Received::Strange(error)) => self.log.line(&format!("the mux says something strange: {error}")),
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => return self.close_door(),
                Err(error) => {
                    self.log.report(&format!("the mux cannot be understood: {error}"));
                    self.close_door();
                    return self.kill_mux();
                }
            }
        }
    }

    fn on_mux(&mut self, message: ToInit, fds: Vec<OwnedFd>) {
        match message {
            ToInit::Ready => {
                let now = Instant::now();
                if let Some(Upgrade { stage: Stage::OnTrial { took_over, .. }, due, .. }) = &mut self.upgrade {
                    (*took_over, *due) = (true, now + PROBATION);
                }
            }
            ToInit::Spawn(request) => self.spawn(&request),
            ToInit::Keep(kept) if kept.len() > MAX_KEPT => self.log.report(&format!("{} bytes are too many to keep", kept.len())),
            ToInit::Keep(kept) => self.kept = Some(kept),
            ToInit::Kill(session) => self.kill(session),
            ToInit::Upgrade { path } => self.try_out(path.into(), fds),
            ToInit::Pong => {
                if let Some(mux) = &mut self.mux {
                    mux.watchdog.answered();
                }
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
        // It may have asked for a session with its last breath, and somebody waits for that.
        self.hear_mux();
        let was_stuck = self.mux.take().is_some_and(|mux| mux.watchdog.gave_up);
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
        if self.upgrade.is_some() {
            return self.mux_ended_for_another(&how);
        }
        if self.live.is_empty() && matches!(code, Some(0 | 1 | EXIT_CONFIG)) {
            // It has said why; the same again would fare no better.
            self.exit = code.map(|code| code.max(1));
            return;
        }
        let now = Instant::now();
        let by_somebody = status.terminating_signal() == Some(Signal::KILL.as_raw()) && !was_stuck;
        let (delay, in_a_loop, count) = if by_somebody {
            let count = self.kills.add(now);
            (FIRST_RETRY, count >= MAX_KILLS, count)
        } else {
            let count = self.crashes.add(now);
            (FIRST_RETRY * (1 << (2 * (count.min(MAX_CRASHES) - 1))), count >= MAX_CRASHES, count)
        };
        if in_a_loop && self.live.is_empty() {
            self.log.report(&format!("the mux ended {count} times in a row, the last time {how}; giving up"));
            self.exit = Some(101);
            return;
        }
        if in_a_loop && !by_somebody && self.mux_binary.take().is_some() {
            self.log.report(&format!("the upgraded mux ended {count} times in a row, the last time {how}; the one of before is back"));
            self.crashes = Recent::default();
            self.restart_at = Some(now);
            return;
        }
        let delay = match in_a_loop {
            false => delay,
            true if self.somebody_waits() => WANTED_RETRY,
            true => SLOW_RETRY,
        };
        self.log.report(&format!("the mux ended {how}; {} sessions live on, starting it again in {delay:?}", self.live.len()));
        self.restart_at = Some(now + delay);
    }

    // ---- upgrades ----

    fn try_out(&mut self, path: PathBuf, asker: Vec<OwnedFd>) {
        if self.upgrade.is_some() || self.stopping {
            return self.answer(asker, String::new(), Some("another upgrade, or the end, is on its way".to_owned()));
        }
        match start_trying(&path) {
            Ok((binary, pid, output)) => {
                self.log.line(&format!("trying {} out", path.display()));
                let (stage, due) = (Stage::TriedOut { pid, output }, Instant::now() + TRY_OUT);
                self.upgrade = Some(Upgrade { asker, binary, version: String::new(), stage, due });
            }
            Err(error) => self.answer(asker, String::new(), Some(format!("{}: {error}", path.display()))),
        }
    }

    fn answer(&mut self, asker: Vec<OwnedFd>, version: String, error: Option<String>) {
        match &error {
            Some(error) => self.log.report(&format!("not upgraded: {error}")),
            None => self.log.line(&format!("upgraded to {version}")),
        }
        self.tell(&ToMux::Upgraded { version, error }, asker);
    }

    /// It printed its version, or something else.
    fn tried_out(&mut self, status: WaitStatus) {
        let Some(mut upgrade) = self.upgrade.take() else { return };
        let mut text = String::new();
        if let Stage::TriedOut { output, .. } = &mut upgrade.stage {
            // It has ended. What it may have left behind with the other end open is not waited for.
            let _ = output.take(MAX_VERSION_TEXT).read_to_string(&mut text);
        }
        match text.trim().strip_prefix("jackin-capsule ").filter(|_| status.exit_status() == Some(0)) {
            Some(version) => {
                upgrade.version = version.to_owned();
                (upgrade.stage, upgrade.due) = (Stage::HandingOver, Instant::now() + HAND_OVER);
                self.upgrade = Some(upgrade);
                if self.mux.is_some() {
                    self.tell(&ToMux::HandOver, Vec::new());
                } else {
                    self.start_new_mux();
                }
            }
            None => {
                let how = describe(status);
                self.answer(upgrade.asker, String::new(), Some(format!("it is no jackin-capsule: asked for its version it ended {how}")));
            }
        }
    }

    fn mux_ended_for_another(&mut self, how: &str) {
        match self.upgrade.as_ref().map(|upgrade| &upgrade.stage) {
            Some(Stage::OnTrial { .. }) => self.go_back(&format!("the new mux ended {how}")),
            Some(Stage::HandingOver) => self.start_new_mux(),
            // It died of itself while the other was tried out; the upgrade comes when it is back.
            _ => self.restart_at = Some(Instant::now() + FIRST_RETRY),
        }
    }

    fn start_new_mux(&mut self) {
        let Some(mut upgrade) = self.upgrade.take() else { return };
        let binary = match upgrade.binary.try_clone() {
            Ok(binary) => binary,
            Err(error) => {
                self.restart_at = Some(Instant::now());
                return self.answer(upgrade.asker, String::new(), Some(error.to_string()));
            }
        };
        let before = self.mux_binary.replace(binary);
        (upgrade.stage, upgrade.due) = (Stage::OnTrial { before, took_over: false }, Instant::now() + TAKE_OVER);
        self.upgrade = Some(upgrade);
        if let Err(error) = self.start_mux() {
            self.mux = None;
            self.go_back(&error.to_string());
        }
    }

    /// To the binary before. The mux on trial has ended.
    fn go_back(&mut self, reason: &str) {
        let Some(Upgrade { asker, stage: Stage::OnTrial { before, .. }, .. }) = self.upgrade.take() else { return };
        self.mux_binary = before;
        if let Err(error) = self.start_mux() {
            self.log.report(&format!("the mux could not be started: {error}"));
            self.restart_at = Some(Instant::now() + SLOW_RETRY);
        }
        self.answer(asker, String::new(), Some(format!("{reason}; the one before is back")));
    }

    fn upgrade_due(&mut self) {
        match self.upgrade.as_mut().map(|upgrade| &mut upgrade.stage) {
            Some(Stage::TriedOut { pid, .. }) => {
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
                if let Some(upgrade) = self.upgrade.take() {
                    self.answer(upgrade.asker, String::new(), Some(format!("it did not tell its version within {TRY_OUT:?}")));
                }
            }
            Some(Stage::OnTrial { took_over: true, .. }) => {
                if let Some(Upgrade { asker, version, .. }) = self.upgrade.take() {
                    self.answer(asker, version, None);
                }
            }
            Some(stage) => {
                // Its end is what brings the next one.
                let on_trial = matches!(stage, Stage::OnTrial { .. });
                self.log.report(if on_trial { "the new mux does not take over" } else { "the mux does not hand over" });
                if let Some(upgrade) = &mut self.upgrade {
                    upgrade.due = Instant::now() + STUCK_AFTER;
                }
                self.kill_mux();
            }
            None => {}
        }
    }

    // ---- sessions ----

    fn spawn(&mut self, request: &SpawnRequest) {
        let session = request.session;
        if self.stopping || self.live.contains_key(&session) {
            return;
        }
        let spawned = Spool::create(request.size).and_then(|spool| {
            let (master, pid) = pty::spawn(request)?;
            let record = Record { id: session, meta: request.meta.clone(), started_at: unix_now(), ended: None };
            Ok(Held { record, pid, master, spool, kill_at: None })
        });
        match spawned.and_then(|held| Ok((held.descriptors()?, held))) {
            Ok((fds, held)) => {
                let (started_at, label) = (held.record.started_at, &held.record.meta.label);
                self.log.line(&format!("session {session} ({label}) runs as {}", held.pid));
                self.live.insert(session, held);
                self.deadline = None;
                self.tell(&ToMux::Spawned { session, started_at }, fds);
            }
            Err(error) => {
                self.log.report(&format!("session {session} could not be started: {error}"));
                self.tell(&ToMux::SpawnFailed { session, error: error.to_string() }, Vec::new());
            }
        }
        self.ping();
    }

    /// What closing a terminal's window does, and in the end more.
    fn kill(&mut self, session: SessionId) {
        let Some(held) = self.live.get_mut(&session) else { return };
        pty::signal_foreground(&held.master, Signal::HUP);
        signal_session(held.pid, Signal::HUP);
        // A stopped program hears nothing until it goes on.
        signal_session(held.pid, Signal::CONT);
        held.kill_at.get_or_insert(Instant::now() + GRACE);
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            if self.mux.as_ref().is_some_and(|mux| mux.pid == pid) {
                if status.stopped() {
                    self.log.report("the mux was stopped; it is made to go on");
                    let _ = rustix::process::kill_process(pid, Signal::CONT);
                } else {
                    self.mux_ended(status);
                }
            } else if status.stopped() {
                // A session may stop itself; going on is its operator's business.
            } else if matches!(&self.upgrade, Some(Upgrade { stage: Stage::TriedOut { pid: tried, .. }, .. }) if *tried == pid) {
                self.tried_out(status);
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
        self.ping();
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
        self.upgrade = None;
        self.deadline = Some(Instant::now() + GRACE);
        self.tell(&ToMux::Shutdown { reason: reason.to_owned() }, Vec::new());
        self.signal_sessions(Signal::TERM);
        self.signal_sessions(Signal::CONT);
        self.hang_up_at = Some(Instant::now() + HANG_UP_AFTER);
        self.exit_when_empty();
    }

    fn signal_sessions(&self, signal: Signal) {
        for held in self.live.values() {
            signal_session(held.pid, signal);
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
            self.mux = None;
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
        for held in self.live.values_mut() {
            if held.kill_at.take_if(|at| *at <= now).is_some() {
                signal_session(held.pid, Signal::KILL);
            }
        }
        if self.mux.as_mut().is_some_and(|mux| mux.watchdog.is_stuck(now)) {
            self.log.report(&format!("the mux has not answered for {STUCK_AFTER:?}; it is started anew"));
            self.kill_mux();
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.due <= now) {
            self.upgrade_due();
        }
    }
}

/// A program that may become the mux, and the process that tells its version.
fn start_trying(path: &std::path::Path) -> io::Result<(File, Pid, io::PipeReader)> {
    if !path.is_absolute() {
        return Err(io::Error::other("the path is not absolute"));
    }
    let binary = file::open(path)?;
    let (output, ours) = io::pipe()?;
    let child = Command::new(path_of(&binary)).arg("--version").stdin(Stdio::null()).stdout(ours).stderr(Stdio::null()).spawn()?;
    let flags = rustix::fs::fcntl_getfl(&output)?;
    rustix::fs::fcntl_setfl(&output, flags | rustix::fs::OFlags::NONBLOCK)?;
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::other("a child without a pid"))?;
    Ok((binary, pid, output))
}

/// Of this very file, whatever its name is now. Through init, because a script's interpreter opens it once more.
fn path_of(binary: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), binary.as_raw_fd()).into()
}

fn signal_session(pid: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(pid, signal);
}

/// A descriptor of a kind that tokio has no type for, and its readiness: to tokio that is a stream's.
struct Watched<T> {
    inner: T,
    readiness: UnixStream,
}

impl<T: AsFd> Watched<T> {
    fn new(inner: T) -> io::Result<Self> {
        let readiness = UnixStream::from_std(inner.as_fd().try_clone_to_owned()?.into())?;
        Ok(Self { inner, readiness })
    }

    /// Told once; from here on something new has to come, so whoever is told reads everything there is.
    async fn ready(&self, interest: Interest) {
        // An error shows up where the descriptor is used.
        let _ = self.readiness.ready(interest).await;
        let _ = self.readiness.try_io(interest, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    }
}

async fn ready<T: AsFd>(watched: Option<&Watched<T>>, interest: Interest) {
    match watched {
        Some(watched) => watched.ready(interest).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_file_is_tried_out() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Init that waited for its other end would be the end of the container.
        for (path, why) in [(pipe.as_path(), "not a regular file"), (dir.path(), "not a regular file"), ("x".as_ref(), "not absolute")] {
            assert!(start_trying(path).unwrap_err().to_string().contains(why), "{}", path.display());
        }
    }

    #[test]
    fn a_mux_that_owes_an_answer_gets_a_second_chance_and_no_third() {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        assert!(!watchdog.is_stuck(start + STUCK_AFTER * 100), "nothing was asked");
        assert!(watchdog.expect(start));
        assert!(!watchdog.expect(start), "one question at a time");
        assert!(!watchdog.is_stuck(start + STUCK_AFTER / 2));
        // As when the container was paused for an hour.
        let woken = start + Duration::from_secs(3600);
        assert!(!watchdog.is_stuck(woken));
        watchdog.answered();
        assert!(!watchdog.is_stuck(woken + STUCK_AFTER));
        assert!(watchdog.expect(woken));
        assert!(!watchdog.is_stuck(woken + STUCK_AFTER));
        assert!(watchdog.is_stuck(woken + STUCK_AFTER + SECOND_CHANCE));
    }
}
