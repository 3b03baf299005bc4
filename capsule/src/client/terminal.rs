//! This process's terminal: raw and on its second screen as long as a client shows something, its keys, its picture and
//! its signals. Out of drop, panic and every signal that can be caught the terminal comes as it was found.
//! Absent: what the bytes mean.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::stream::Writer;

const KEYS_AT_ONCE: usize = 16 << 10;
const FEW_KEYS: usize = 1 << 10;
/// How long the last bytes may wait for a terminal that does not read.
const LEAVE_WITHIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

const ENTER: &[u8] = b"\x1b[22;0t\x1b[?1049h\x1b[H\x1b[2J";
/// Ends a sequence that was cut off, then undoes every mode a session may have set: synchronized output, scroll region,
/// link, mouse, focus, paste, keypad, Kitty and xterm keys, cursor, colours.
const LEAVE: &[u8] = b"\x18\x1b[?2026l\x1b[r\x1b]8;;\x1b\\\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\
\x1b[?1004l\x1b[?2004l\x1b[?1l\x1b>\x1b[=0u\x1b[>4m\x1b[0 q\x1b[?25h\x1b[m";
const LEAVE_POINTER: &[u8] = b"\x1b]22;default\x1b\\";
const LEAVE_SCREEN: &[u8] = b"\x1b[?1049l\x1b[23;0t";

pub fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

struct Found {
    before: Termios,
    pointer_shapes: bool,
}

/// How the terminal was found, for whoever leaves first: the guard, or the panic hook of any thread.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);

/// Raw mode and the alternate screen, until dropped.
pub struct RawTerminal(());

impl RawTerminal {
    /// `first` is shown at once, on the new screen.
    pub fn enter(pointer_shapes: bool, first: &[u8]) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // Or the message would stand on the screen that is about to go.
                leave();
                print(panic);
            }));
        });
        let before = rustix::termios::tcgetattr(io::stdin())?;
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(Found { before: before.clone(), pointer_shapes });
        let guard = Self(());
        set_raw(before)?;
        write_all(&[ENTER, first].concat())?;
        Ok(guard)
    }

    /// After a stop, during which the shell had the terminal.
    pub fn enter_again(&self) -> io::Result<()> {
        set_raw(rustix::termios::tcgetattr(io::stdin())?)?;
        write_all(ENTER)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        leave();
    }
}

fn set_raw(mut termios: Termios) -> io::Result<()> {
    termios.make_raw();
    Ok(rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &termios)?)
}

fn leave() {
    let Some(found) = FOUND.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    // The terminal may be gone, and then there is nothing to restore.
    let stdout = io::stdout();
    let takes = rustix::event::poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&LEAVE_WITHIN));
    if takes.is_ok_and(|ready| ready > 0) {
        let pointer = if found.pointer_shapes { LEAVE_POINTER } else { b"" };
        let _ = write_all(&[LEAVE, pointer, LEAVE_SCREEN].concat());
    }
    let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &found.before);
}

/// Past the line buffer of `Stdout`, which would make two writes of one.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(io::stdout(), bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Standard input, read without a thread and without making it non-blocking, which the shell would inherit. To tokio
/// anything that can be waited for is a pipe.
pub struct Keyboard {
    waits: pipe::Receiver,
    reads: OwnedFd,
}

impl Keyboard {
    pub fn of_stdin() -> io::Result<Self> {
        let copy = || io::stdin().as_fd().try_clone_to_owned();
        Ok(Self { waits: pipe::Receiver::from_owned_fd_unchecked(copy()?)?, reads: copy()? })
    }

    /// What was typed; empty when there is no terminal any more. Nothing is lost when this future is dropped.
    pub async fn read(&self) -> Vec<u8> {
        loop {
            if self.waits.readable().await.is_err() {
                return Vec::new();
            }
            let mut keys = Vec::new();
            let more = self.waits.try_io(|| {
                keys = read_now(&self.reads)?;
                // That was all, and what comes now is told anew: tokio need not look.
                if (1..FEW_KEYS).contains(&keys.len()) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match more {
                Err(error) if keys.is_empty() && [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                _ => return keys,
            }
        }
    }
}

fn read_now(terminal: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut look = [PollFd::new(terminal, PollFlags::IN)];
    if rustix::event::poll(&mut look, Some(&Timespec::default()))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut keys = vec![0; KEYS_AT_ONCE];
    let count = rustix::io::read(terminal, &mut keys)?;
    keys.truncate(count);
    Ok(keys)
}

/// Standard output. The terminal is opened a second time if possible: non-blocking, so that keys are read while a slow
/// terminal makes the picture wait, and only for us, because the mode belongs to the opening.
pub enum Picture {
    Own(Writer),
    Shared(File),
}

impl Picture {
    pub fn of_stdout() -> io::Result<Self> {
        let own = || {
            let name = rustix::termios::ttyname(io::stdout(), Vec::new()).ok()?;
            let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
            let file = OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
            Some(Writer::new(file.into()))
        };
        match own() {
            Some(writer) => Ok(Self::Own(writer)),
            None => Ok(Self::Shared(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
        }
    }

    /// How many bytes the terminal took. Nothing was written when this future is dropped.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Own(writer) => poll_fn(|cx| writer.poll_write(cx, bytes)).await,
            Self::Shared(file) => file.write(bytes),
        }
    }
}

pub struct Signals {
    pub resized: Signal,
    pub continued: Signal,
    pub ending: Ending,
}

pub struct Ending([Signal; 4]);

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let ending = [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [hangup, terminate, interrupt, quit] = ending.map(signal);
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            continued: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            ending: Ending([hangup?, terminate?, interrupt?, quit?]),
        })
    }
}

impl Ending {
    /// This process is to end.
    pub async fn comes(&mut self) {
        let [hangup, terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
