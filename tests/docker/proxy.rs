//! A relay between jackin and an engine's socket that writes down every request, and strikes at a chosen one.
//!
//! In: HTTP/1.1 on a unix socket. Out: the list of calls, in order of arrival. After `Upgrade` a connection is bytes both ways. It can
//! make an engine say that it runs on the other architecture.
//! Absent: any opinion on what the calls should be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: String,
    /// Without the API version and the query.
    pub path: String,
}

impl Call {
    pub fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }

    pub fn lists(&self) -> bool {
        self.method == "GET" && matches!(self.path.as_str(), "/containers/json" | "/networks" | "/volumes" | "/images/json")
    }

    pub fn inspects(&self) -> bool {
        let part = |kind: &str| self.path.strip_prefix(kind).is_some_and(|rest| rest.ends_with("/json") && rest != "/json");
        self.method == "GET" && (part("/containers") || part("/images"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The engine has the whole request, jackin no answer.
    Sent,
    /// The first bytes of the answer are on their way to jackin.
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Kill(Signal),
    /// No answer ever comes.
    Silence,
    /// Every connection breaks, and no new one is taken.
    EngineGone,
    /// The engine is not asked, and an error that can pass is its answer.
    Trouble,
}

/// Numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Call(usize),
    Write(usize),
    /// Looks at single containers.
    Inspect(usize),
}

/// What happens at one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    pub at: At,
    pub when: When,
    pub what: What,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    writes: usize,
    inspects: usize,
    strike: Option<Strike>,
    struck: bool,
    pid: Option<Pid>,
    /// Nothing comes back from the engine any more.
    mute: bool,
    gone: bool,
    /// The engine says it is of the other architecture.
    disguised: bool,
    open: Vec<UnixStream>,
}

struct Shared {
    engine: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

pub struct Proxy {
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl Proxy {
    /// `host` is the engine's `unix://` address.
    pub fn start(folder: &Path, host: &str, strike: Option<Strike>) -> Proxy {
        let engine = PathBuf::from(host.strip_prefix("unix://").expect("tests need an engine on a unix socket"));
        let socket = (0..).map(|n| folder.join(format!("p{n}.sock"))).find(|path| !path.exists()).expect("a free name");
        let listener = UnixListener::bind(&socket).expect("bind the proxy's socket");
        let shared = Arc::new(Shared { engine, state: Mutex::new(State { strike, ..State::default() }), changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.serve(client);
            }
        });
        Proxy { socket, shared }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whom a strike kills.
    pub fn victim(&self, pid: u32) {
        self.shared.state.lock().unwrap().pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        self.shared.changed.notify_all();
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.state.lock().unwrap().calls.clone()
    }

    pub fn disguise(&self, disguised: bool) {
        self.shared.state.lock().unwrap().disguised = disguised;
    }

    pub fn forget(&self) {
        self.shared.state.lock().unwrap().calls.clear();
    }

    pub fn struck(&self) -> bool {
        self.shared.state.lock().unwrap().struck
    }

    pub fn wait_for_strike(&self, patience: Duration) -> bool {
        let state = self.shared.state.lock().unwrap();
        let (state, _) = self.shared.changed.wait_timeout_while(state, patience, |state| !state.struck).unwrap();
        state.struck
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.break_all();
        // Its thread goes with the process; nobody can reach it any more.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: UnixStream) {
        if self.state.lock().unwrap().gone {
            return;
        }
        let Ok(engine) = UnixStream::connect(&self.engine) else { return };
        let copies = (client.try_clone().unwrap(), engine.try_clone().unwrap());
        self.state.lock().unwrap().open.extend([client.try_clone().unwrap(), engine.try_clone().unwrap()]);
        let answered = Arc::new(Mutex::new(false));
        let (up, down) = (self.clone(), self.clone());
        let strike_on_answer = answered.clone();
        thread::spawn(move || {
            let hijacked = up.requests(client.try_clone().unwrap(), &engine, &answered);
            // Half of a hijacked connection may close while the other still talks.
            if hijacked.unwrap_or(false) {
                let _ = engine.shutdown(Shutdown::Write);
            } else {
                hang_up(&client, &engine);
            }
        });
        thread::spawn(move || {
            let (client, engine) = copies;
            let _ = down.answers(&engine, &client, &strike_on_answer);
            hang_up(&client, &engine);
        });
    }

    /// True when the connection ended as bytes both ways.
    fn requests(&self, client: UnixStream, mut engine: &UnixStream, answered: &Mutex<bool>) -> std::io::Result<bool> {
        let mut client = BufReader::new(client);
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if client.read_until(b'\n', &mut head)? == 0 {
                    return Ok(false);
                }
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let strike = self.note(&text);
            if strike.is_some_and(|s| s.what == What::Trouble) {
                self.strike();
                client.get_mut().write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                return Ok(false);
            }
            let header = |name: &str| {
                text.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
                })
            };
            if strike.is_some_and(|s| s.when == When::Answered) {
                *answered.lock().unwrap() = true;
            }
            let at_once = strike.is_some_and(|s| s.when == When::Sent);
            if at_once && !matches!(strike.map(|s| s.what), Some(What::Kill(Signal::INT | Signal::HUP | Signal::QUIT))) {
                self.state.lock().unwrap().mute = true;
            }
            engine.write_all(&head)?;
            if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
                copy_chunks(&mut client, &mut engine)?;
            } else if let Some(length) = header("content-length").and_then(|value| value.parse().ok()) {
                std::io::copy(&mut (&mut client).take(length), &mut engine)?;
            }
            engine.flush()?;
            if at_once {
                self.strike();
            }
            if header("upgrade").is_some() {
                std::io::copy(&mut client, &mut engine)?;
                return Ok(true);
            }
        }
    }

    fn answers(&self, mut engine: &UnixStream, mut client: &UnixStream, answered: &Mutex<bool>) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = engine.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let (mute, disguised) = {
                let state = self.state.lock().unwrap();
                (state.mute, state.disguised)
            };
            if mute {
                continue;
            }
            if disguised {
                exchange_arch(&mut buffer[..count]);
            }
            client.write_all(&buffer[..count])?;
            if std::mem::take(&mut *answered.lock().unwrap()) {
                self.strike();
            }
        }
    }

    /// Writes a request down; the strike, when it is this one's turn.
    fn note(&self, head: &str) -> Option<Strike> {
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.split('?').next().unwrap_or_default();
        let version = path.split('/').nth(1).filter(|part| part.starts_with("v1."));
        let path = version.map_or(path, |version| &path[version.len() + 1..]);
        let call = Call { method: method.to_owned(), path: path.to_owned() };
        let mut state = self.state.lock().unwrap();
        let (writes, inspects) = (call.writes(), call.inspects() && call.path.starts_with("/containers/"));
        state.calls.push(call);
        state.writes += usize::from(writes);
        state.inspects += usize::from(inspects);
        state.strike.filter(|strike| match strike.at {
            At::Call(number) => number == state.calls.len(),
            At::Write(number) => writes && number == state.writes,
            At::Inspect(number) => inspects && number == state.inspects,
        })
    }

    fn strike(&self) {
        let state = self.state.lock().unwrap();
        let what = state.strike.expect("a strike").what;
        match what {
            What::Kill(signal) => {
                // The first request may come before the test knows the pid.
                let mut state = self.changed.wait_while(state, |state| state.pid.is_none()).unwrap();
                // It may have come to its end over the broken connection before it could be killed.
                let killed = kill_process(state.pid.expect("a pid"), signal);
                assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
                state.struck = true;
            }
            What::EngineGone => {
                drop(state);
                self.break_all();
                self.state.lock().unwrap().struck = true;
            }
            What::Silence | What::Trouble => {
                let mut state = state;
                state.struck = true;
            }
        }
        self.changed.notify_all();
    }

    fn break_all(&self) {
        let mut state = self.state.lock().unwrap();
        state.gone = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// In what `/version` answers; an image's is under another name.
fn exchange_arch(answer: &mut [u8]) {
    let (amd, arm) = (br#""Arch":"amd64""#, br#""Arch":"arm64""#);
    for at in 0..answer.len().saturating_sub(amd.len() - 1) {
        let here = &mut answer[at..at + amd.len()];
        if here == amd {
            here.copy_from_slice(arm);
        } else if here == arm {
            here.copy_from_slice(amd);
        }
    }
}

fn hang_up(client: &UnixStream, engine: &UnixStream) {
    let _ = client.shutdown(Shutdown::Both);
    let _ = engine.shutdown(Shutdown::Both);
}

fn copy_chunks(from: &mut impl BufRead, to: &mut impl Write) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).map_err(std::io::Error::other)?;
        // A chunk's own line end, or after the last one the empty line.
        let mut rest = from.take(size + 2);
        std::io::copy(&mut rest, to)?;
        to.flush()?;
        if size == 0 {
            return Ok(());
        }
    }
}
