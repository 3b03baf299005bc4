//! Carries what one terminal prints into the pipe of its spool, on a thread beside the mux, so that the program prints on
//! while the mux works on what came. For floods only: to the echo of a key one more thread is one more wait.
//!
//! A terminal has one reader at a time, or its output comes out of order: whoever starts a pump leaves the terminal alone
//! until the pump has ended. It ends by itself when the terminal gives little, is closed, or cannot be spliced; which of
//! them it was, the next read shows.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::poll;
use crate::pty;

/// Less than this within so long, with room for more, is no flood any more.
const LITTLE: usize = 16 << 10;
const WHILE: Duration = Duration::from_millis(50);
const STACK: usize = 64 << 10;

/// Its descriptor is readable when it has ended; dropping it ends it.
pub struct Pump {
    /// Each side hangs up when it is done.
    here: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// `pipe` is the end that is written to.
    pub fn start(terminal: Arc<OwnedFd>, pipe: Arc<OwnedFd>) -> io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        let run = move || carry(&terminal, &pipe, &there);
        let thread = std::thread::Builder::new().name("pump".to_owned()).stack_size(STACK).spawn(run)?;
        Ok(Self { here, thread: Some(thread) })
    }

    /// Nothing is carried any more when this returns.
    pub fn stop(&mut self) {
        let _ = self.here.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl AsFd for Pump {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

fn carry(terminal: &OwnedFd, pipe: &OwnedFd, other_side: &UnixStream) {
    let (mut since, mut carried, mut held_up) = (Instant::now(), 0, false);
    loop {
        match pty::splice(terminal, pipe, usize::MAX) {
            Ok(len @ 1..) => carried += len,
            Err(Errno::INTR) => {}
            // One of the two is not ready. Room comes first, because a full pipe says nothing of the terminal.
            Err(Errno::AGAIN) => match wait(pipe, PollFlags::OUT, other_side, Some(Duration::ZERO)) {
                Waited::Over => return,
                Waited::InVain => {
                    held_up = true;
                    if wait(pipe, PollFlags::OUT, other_side, None) == Waited::Over {
                        return;
                    }
                }
                Waited::Ready => {
                    if since.elapsed() >= WHILE {
                        if carried < LITTLE && !held_up {
                            return;
                        }
                        (since, carried, held_up) = (Instant::now(), 0, false);
                    }
                    if wait(terminal, PollFlags::IN, other_side, Some(WHILE)) != Waited::Ready {
                        return;
                    }
                }
            },
            _ => return,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Waited {
    Ready,
    InVain,
    /// The other side is done.
    Over,
}

fn wait(fd: &OwnedFd, wanted: PollFlags, other_side: &UnixStream, limit: Option<Duration>) -> Waited {
    let limit = limit.map(poll::timespec);
    let mut fds = [PollFd::new(fd, wanted), PollFd::new(other_side, PollFlags::empty())];
    match rustix::event::poll(&mut fds, limit.as_ref()) {
        Ok(_) if !fds[1].revents().is_empty() => Waited::Over,
        Ok(0) => Waited::InVain,
        Ok(_) | Err(Errno::INTR) => Waited::Ready,
        Err(_) => Waited::Over,
    }
}
