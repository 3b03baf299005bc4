//! Carries what one terminal prints into the pipe of its spool, on a thread beside the mux, so that the program prints on
//! while the mux works on what came. For floods only: to the echo of a key one more thread is one more wait.
//!
//! A terminal has one reader at a time, or its output comes out of order: whoever starts a pump leaves the terminal alone
//! until the pump has ended. It ends by itself when the terminal is quiet, closed, or cannot be spliced; which of them it
//! was, the next read shows.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::pty;

/// Without output for so long a terminal is quiet.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const STACK: usize = 64 << 10;

/// Its descriptor is readable when it has ended; dropping it ends it.
pub struct Pump {
    /// Each side hangs up when it is done.
    here: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// `pipe` is the end that is written to.
    pub fn start(terminal: OwnedFd, pipe: OwnedFd) -> io::Result<Self> {
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
    loop {
        match pty::splice(terminal, pipe, usize::MAX) {
            Ok(1..) | Err(Errno::INTR) => {}
            // One of the two is not ready. Room comes first, because a full pipe says nothing of the terminal.
            Err(Errno::AGAIN)
                if wait(pipe, PollFlags::OUT, other_side, None) && wait(terminal, PollFlags::IN, other_side, Some(&QUIET)) => {}
            _ => return,
        }
    }
}

/// False when there is nothing to wait for any more.
fn wait(fd: &OwnedFd, wanted: PollFlags, other_side: &UnixStream, limit: Option<&Timespec>) -> bool {
    let mut fds = [PollFd::new(fd, wanted), PollFd::new(other_side, PollFlags::empty())];
    match rustix::event::poll(&mut fds, limit) {
        Ok(0) => false,
        Ok(_) => fds[1].revents().is_empty(),
        Err(error) => error == Errno::INTR,
    }
}
