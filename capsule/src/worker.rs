//! Work that may block, on threads of its own; what comes of it goes back to the serve loop as an `Input`.
//! Absent: what the work is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::EventfdFlags;

use crate::mux::Input;

pub struct Worker {
    report: Report,
    done: Receiver<Input<'static>>,
}

/// A job's way back into the loop.
#[derive(Clone)]
pub struct Report {
    done: Sender<Input<'static>>,
    bell: Arc<OwnedFd>,
}

impl Report {
    pub fn tell(&self, input: Input<'static>) {
        // A loop that has ended listens to nobody.
        let _ = self.done.send(input);
        self.wake();
    }

    /// Makes the loop look at what only this thread has changed.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.bell.as_fd()
    }
}

impl Worker {
    pub fn new() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sender, done) = channel();
        Ok(Self { report: Report { done: sender, bell: Arc::new(bell) }, done })
    }

    pub fn reporter(&self) -> Report {
        self.report.clone()
    }

    pub fn start(&self, name: &str, job: impl FnOnce(&Report) + Send + 'static) -> io::Result<()> {
        let report = self.reporter();
        std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(move || job(&report))?;
        Ok(())
    }

    /// Everything reported since.
    pub fn drain(&self) -> Vec<Input<'static>> {
        let _ = rustix::io::read(&self.report.bell, &mut [0; 8]);
        self.done.try_iter().collect()
    }
}
