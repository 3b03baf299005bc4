//! Pseudo-terminals: open one and start a program on it (init), read and write it without blocking (mux).
//! Absent: what the bytes mean, and who asked.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::handover::SpawnRequest;
use crate::screen::Size;

/// Input that a session has not read yet. Two whole paste frames fit.
const MAX_QUEUED: usize = 8 << 20;
const PAGE: usize = 4 << 10;

/// The argument by which the binary becomes a session's first process.
pub const SESSION_VERB: &str = "session-exec";
/// Instead of a program: the best shell there is.
pub const SHELL: &str = "--shell";

/// Opens a terminal and starts the program on it; the child is init's to reap.
pub fn spawn(request: &SpawnRequest) -> io::Result<(OwnedFd, Pid)> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    set_size(&master, request.size)?;
    set_nonblocking(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let mut command = Command::new(own_binary());
    command.arg0("jackin-capsule").arg(SESSION_VERB).arg(&request.cwd).args(&request.argv);
    for key in &request.unset {
        command.env_remove(key);
    }
    command.envs(request.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave.try_clone()?)).stderr(Stdio::from(slave));
    let child = command.spawn()?;
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| io::Error::other("a child without a pid"))?;
    Ok((master, pid))
}

/// This program, also after its file was replaced by an upgrade.
pub fn own_binary() -> std::path::PathBuf {
    let link = std::path::PathBuf::from("/proc/self/exe");
    if link.exists() { link } else { std::env::current_exe().unwrap_or(link) }
}

/// The session's first process: takes the terminal on its standard streams, then becomes the program. Doing this in a
/// process of our own rather than between fork and exec is what keeps it free of unsafe code, and its errors go to
/// the terminal where the operator looks.
pub fn session_exec(cwd: &str, argv: &[String]) -> io::Error {
    if let Err(error) = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(std::io::stdin())) {
        return error.into();
    }
    if let Err(error) = std::env::set_current_dir(cwd) {
        eprintln!("jackin: {cwd}: {error}; starting in / instead\r");
        if let Err(error) = std::env::set_current_dir("/") {
            return error;
        }
    }
    match argv.split_first() {
        Some((program, args)) if program != SHELL => Command::new(program).args(args).exec(),
        _ => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for shell in ["/bin/zsh", "/bin/bash", "/bin/sh"] {
                last = Command::new(shell).env("SHELL", shell).exec();
            }
            last
        }
    }
}

pub fn set_size(master: impl AsFd, size: Size) -> io::Result<()> {
    let winsize = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, winsize)?)
}

pub fn size(master: impl AsFd) -> io::Result<Size> {
    let size = rustix::termios::tcgetwinsize(master)?;
    Ok(Size::clamped(size.ws_row, size.ws_col))
}

/// What a read found; after `closed` nothing will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub len: usize,
    pub closed: bool,
}

/// Less than this is not the beginning of much. To look for more is not cheap beside a flood, and the terminal will tell.
pub const FEW: usize = 1 << 10;

/// Takes what is there, up to the buffer.
pub fn read(master: impl AsFd, buffer: &mut [u8]) -> Taken {
    let mut len = 0;
    // The kernel gives at most a page at a time.
    while len == 0 || buffer.len() - len >= FEW {
        match rustix::io::read(&master, &mut buffer[len..]) {
            Ok(n @ 1..) => {
                len += n;
                if n < FEW {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            // An I/O error is how Linux says that the last program has closed the terminal.
            Ok(0) | Err(_) => return Taken { len, closed: true },
        }
    }
    Taken { len, closed: false }
}

/// The same into a pipe. A page at a time is all that a terminal gives, and a page of the pipe is taken for each.
pub fn splice(master: impl AsFd, pipe: impl AsFd, limit: usize) -> rustix::io::Result<usize> {
    rustix::pipe::splice(master, None, pipe, None, limit.min(PAGE), SpliceFlags::NONBLOCK)
}

/// From now on a read or a write that would wait says so instead.
pub fn set_nonblocking(master: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&master)?;
    Ok(rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?)
}

/// Asks the program in the foreground to paint anew.
pub fn ask_for_redraw(master: impl AsFd) {
    signal_foreground(master, Signal::WINCH);
}

pub fn signal_foreground(master: impl AsFd, signal: Signal) {
    if let Ok(group) = rustix::termios::tcgetpgrp(master) {
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Input on its way to a program that may not be reading.
#[derive(Default)]
pub struct InputQueue {
    chunks: VecDeque<Vec<u8>>,
    offset: usize,
    len: usize,
}

impl InputQueue {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// False when the program is so far behind that the bytes were dropped.
    pub fn push(&mut self, bytes: Vec<u8>) -> bool {
        if self.len + bytes.len() > MAX_QUEUED {
            return false;
        }
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.chunks.push_back(bytes);
        }
        true
    }

    /// Writes what the terminal takes now.
    pub fn flush(&mut self, master: impl AsFd) -> io::Result<()> {
        while let Some(chunk) = self.chunks.front() {
            let n = match rustix::io::write(&master, &chunk[self.offset..]) {
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Ok(n) => n,
                Err(error) => return Err(error.into()),
            };
            self.offset += n;
            self.len -= n;
            if self.offset == chunk.len() {
                self.chunks.pop_front();
                self.offset = 0;
            }
        }
        Ok(())
    }
}
