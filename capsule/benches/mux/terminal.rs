//! The terminal that a client runs in: its program on a pty, its keys in, what it shows out as it comes.
//! Absent: which multiplexer is behind the client.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jackin_capsule::handover::SpawnRequest;
use jackin_capsule::mux::{Meta, SessionId};
use jackin_capsule::pty;
use jackin_capsule::screen::Size;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

pub const SIZE: Size = Size { rows: 50, cols: 200 };
/// What the last thing on a screen looks like; no stream holds any of it.
pub const MARK: &[u8] = b"@@@@@@@@@@@@";
/// Nothing that is measured takes so long.
const GIVE_UP: Duration = Duration::from_secs(120);
/// Questions that clients ask first, and what an xterm would say.
const ANSWERS: [(&[u8], &[u8]); 4] = [
    (b"\x1b[c", b"\x1b[?62;22c"),
    (b"\x1b[>c", b"\x1b[>41;390;0c"),
    (b"\x1b]10;?", b"\x1b]10;rgb:cccc/cccc/cccc\x1b\\"),
    (b"\x1b]11;?", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
];

pub struct Terminal {
    master: OwnedFd,
    pub pid: Pid,
    buffer: Vec<u8>,
    /// All that was shown.
    pub bytes: u64,
    /// How much of `MARK` came last.
    marked: usize,
}

impl Terminal {
    pub fn open(argv: Vec<String>, env: &[(String, String)]) -> Self {
        let nobody = Meta { codename: String::new(), label: String::new(), agent: None, provider: None };
        let unset = ["TMUX", "TMUX_PANE", "JACKIN_CAPSULE_FORCE_DAEMON"].map(str::to_owned).to_vec();
        let request =
            SpawnRequest { session: SessionId(0), meta: nobody, argv, cwd: "/tmp".to_owned(), env: env.to_vec(), unset, size: SIZE };
        let (master, pid) = pty::spawn(&request).expect("a program on a terminal");
        Self { master, pid, buffer: vec![0; 1 << 20], bytes: 0, marked: 0 }
    }

    pub fn send(&self, keys: &[u8]) {
        rustix::io::write(&self.master, keys).expect("the terminal takes keys");
    }

    /// What comes next, if anything comes in time.
    pub fn read(&mut self, limit: Duration) -> Option<&[u8]> {
        if !is_ready(&[self.master.as_fd()], limit)[0] {
            return None;
        }
        let len = match rustix::io::read(&self.master, &mut self.buffer) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => panic!("the client has gone: {error}"),
        };
        self.bytes += len as u64;
        Some(&self.buffer[..len])
    }

    /// Shows what comes, and answers what is asked, until nothing has come for so long.
    pub fn settle(&mut self, quiet: Duration) {
        while let Some(shown) = self.read(quiet) {
            let answers: Vec<u8> = ANSWERS
                .iter()
                .filter(|(ask, _)| memchr::memmem::find(shown, ask).is_some())
                .flat_map(|(_, answer)| answer.to_vec())
                .collect();
            self.send(&answers);
        }
    }

    /// Shows what comes for as long.
    pub fn show_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.read(left);
        }
    }

    /// Shows what comes until the mark does.
    pub fn show_until_mark(&mut self) {
        let until = Instant::now() + GIVE_UP;
        loop {
            assert!(Instant::now() < until, "the mark never came");
            let mut marked = self.marked;
            let shown = self.read(Duration::from_secs(1)).unwrap_or_default();
            // Looking at every byte of a fast stream would slow it down.
            if marked > 0 || memchr::memchr(MARK[0], shown).is_some() {
                for byte in shown {
                    marked = if *byte == MARK[0] { marked + 1 } else { 0 };
                    if marked == MARK.len() {
                        self.marked = 0;
                        return;
                    }
                }
            }
            self.marked = marked;
        }
    }

    /// Shows what comes until there is something to read from another.
    pub fn show_until(&mut self, other: impl AsFd) {
        let until = Instant::now() + GIVE_UP;
        loop {
            assert!(Instant::now() < until, "nobody answered");
            let [shows, answers] = is_ready(&[self.master.as_fd(), other.as_fd()], Duration::from_secs(1))[..] else {
                unreachable!("two were asked");
            };
            if shows {
                self.settle(Duration::ZERO);
            }
            if answers {
                return;
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid, Signal::HUP);
        let until = Instant::now() + Duration::from_secs(2);
        while let Ok(None) = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG) {
            if Instant::now() > until {
                let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            }
            // A client restores its terminal, which has to be read.
            let _ = rustix::io::read(&self.master, &mut self.buffer);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn is_ready(sources: &[std::os::fd::BorrowedFd<'_>], limit: Duration) -> Vec<bool> {
    let mut polled: Vec<_> = sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    match rustix::event::poll(&mut polled, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("poll: {}", io::Error::from(error)),
    }
    polled.iter().map(|polled| !polled.revents().is_empty()).collect()
}
