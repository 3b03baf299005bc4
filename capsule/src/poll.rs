//! The one place where the mux waits. Descriptors and what is wanted of them in, those that are ready out.
//! Absent: what is done with them. Readiness is told again as long as it lasts, so nobody has to read to the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// One turn's worth: every client and every session at their limits.
const MAX_READY: usize = 320;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    Worker,
    Door,
    Client(u64),
    Listener,
    Terminal(u64),
    /// A terminal's pump, and what it carries into.
    Pump(u64),
    Pipe(u64),
}

/// What a descriptor is watched for. That its other end has gone is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    pub read: bool,
    pub write: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: Token,
    pub read: bool,
    pub write: bool,
    /// The other end is gone in both directions.
    pub gone: bool,
}

pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
    ready: Vec<Ready>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(MAX_READY), ready: Vec::new() })
    }

    pub fn add(&self, source: impl AsFd, token: Token, wants: Wants) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, data(token), flags(wants))?)
    }

    pub fn change(&self, source: impl AsFd, token: Token, wants: Wants) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, data(token), flags(wants))?)
    }

    /// Closing the descriptor would do only if nobody else had it open, and init has.
    pub fn remove(&self, source: impl AsFd) {
        let _ = epoll::delete(&self.epoll, source);
    }

    /// Waits, without a limit when none is given. What is ready comes in the order of `Token`: clients before terminals.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<Ready>> {
        let limit = limit.map(timespec);
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend(self.events.iter().map(|&Event { flags, data, .. }| Ready {
            token: token(data.u64()),
            read: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
            write: flags.contains(EventFlags::OUT),
            gone: flags.intersects(EventFlags::HUP | EventFlags::ERR),
        }));
        ready.sort_unstable_by_key(|ready| ready.token);
        Ok(ready)
    }

    /// Takes the list back, so that a turn costs no allocation.
    pub fn done(&mut self, mut ready: Vec<Ready>) {
        ready.clear();
        self.ready = ready;
    }
}

pub fn timespec(limit: Duration) -> Timespec {
    Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) }
}

fn flags(wants: Wants) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, wants.read);
    flags.set(EventFlags::OUT, wants.write);
    flags
}

/// The kind goes into the top bits; no number of clients or sessions reaches them.
const KIND: u32 = 60;

fn data(token: Token) -> EventData {
    let (kind, id) = match token {
        Token::Worker => (0, 0),
        Token::Door => (1, 0),
        Token::Client(id) => (2, id),
        Token::Listener => (3, 0),
        Token::Terminal(id) => (4, id),
        Token::Pump(id) => (5, id),
        Token::Pipe(id) => (6, id),
    };
    EventData::new_u64(kind << KIND | id)
}

fn token(data: u64) -> Token {
    let id = data & ((1 << KIND) - 1);
    match data >> KIND {
        0 => Token::Worker,
        1 => Token::Door,
        2 => Token::Client(id),
        3 => Token::Listener,
        4 => Token::Terminal(id),
        5 => Token::Pump(id),
        _ => Token::Pipe(id),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_ready_is_told_clients_first_and_until_it_is_read() {
        let mut poll = Poll::new().unwrap();
        let (mut a, client) = UnixStream::pair().unwrap();
        let (mut b, terminal) = UnixStream::pair().unwrap();
        poll.add(&terminal, Token::Terminal(7), Wants { read: true, write: false }).unwrap();
        poll.add(&client, Token::Client(3), Wants { read: true, write: false }).unwrap();
        let tokens = |poll: &mut Poll, limit| -> Vec<Token> { poll.wait(Some(limit)).unwrap().iter().map(|ready| ready.token).collect() };
        assert_eq!(tokens(&mut poll, Duration::ZERO), []);
        b.write_all(b"x").unwrap();
        a.write_all(b"x").unwrap();
        for _ in 0..2 {
            assert_eq!(tokens(&mut poll, Duration::from_secs(5)), [Token::Client(3), Token::Terminal(7)]);
        }
        poll.change(&terminal, Token::Terminal(7), Wants::default()).unwrap();
        poll.remove(&client);
        assert_eq!(tokens(&mut poll, Duration::ZERO), []);
        drop(b);
        let ready = poll.wait(None).unwrap();
        assert!(ready[0].gone && ready[0].token == Token::Terminal(7));
    }
}
