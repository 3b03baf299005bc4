//! Pseudo-terminals: open one and start a program on it (init), read and write it without blocking (mux).
//! Absent: what the bytes mean, and who asked.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;

use crate::handover::SpawnRequest;
use crate::screen::Size;

/// What one wake-up reads at most: enough to be quick, little enough that typing does not wait behind a flood.
pub const MAX_READ: usize = 32 << 10;
/// Input that a session has not read yet. Two whole paste frames fit.
const MAX_QUEUED: usize = 8 << 20;

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

/// What a read found; after `closed` nothing will come.
pub struct Taken {
    pub len: usize,
    pub closed: bool,
}

/// The mux's end of a session's terminal. To tokio it is a pair of pipe ends: all it needs to know is that they poll.
pub struct Pty {
    reader: pipe::Receiver,
    writer: pipe::Sender,
}

impl Pty {
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        let writer = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        Ok(Self { reader: pipe::Receiver::from_owned_fd_unchecked(master)?, writer })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.reader.readable().await
    }

    /// Takes what is there, up to the buffer.
    pub fn try_read(&self, buffer: &mut [u8]) -> Taken {
        let mut len = 0;
        // The kernel gives at most a page at a time.
        while len < buffer.len() {
            match self.reader.try_read(&mut buffer[len..]) {
                Ok(n @ 1..) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An I/O error is how Linux says that the last program has closed the terminal.
                Ok(0) | Err(_) => return Taken { len, closed: true },
            }
        }
        Taken { len, closed: false }
    }

    pub fn resize(&self, size: Size) -> io::Result<()> {
        set_size(&self.reader, size)
    }

    /// Asks the program in the foreground to paint anew.
    pub fn ask_for_redraw(&self) {
        if let Ok(group) = rustix::termios::tcgetpgrp(&self.reader) {
            let _ = rustix::process::kill_process_group(group, Signal::WINCH);
        }
    }

    /// Zero when the terminal takes nothing now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.try_write(bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            other => other,
        }
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.writer.writable().await
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
        self.len += bytes.len();
        self.chunks.push_back(bytes);
        true
    }

    /// Writes what the terminal takes now.
    pub fn flush(&mut self, pty: &Pty) -> io::Result<()> {
        while let Some(chunk) = self.chunks.front() {
            let n = pty.try_write(&chunk[self.offset..])?;
            if n == 0 {
                return Ok(());
            }
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
