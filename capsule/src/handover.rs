//! The door between init and mux: messages and descriptors in, the same out on the other side. One packet is one JSON
//! message; descriptors ride beside it. Absent: what either side does with them.
//!
//! After an upgrade init is older than the mux. So fields are only ever added, with a default; a message that a side
//! does not know is told as `Strange` and harms nothing; `Ready` carries the version that init speaks.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::mux::{Ended, Meta, Record, SessionId};
use crate::screen::Size;

/// What init speaks. It grows when a message is added that a mux may want to count on.
pub const DOOR_VERSION: u32 = 1;
/// Descriptors in one message: a terminal's master and the three of its spool.
const MAX_FDS: usize = 4;
const SEND_BUFFER: usize = 4 << 20;
/// What a mux may have kept for the next one.
pub const MAX_KEPT: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub enum ToMux {
    /// One row of the table, told at the start; with descriptors unless it has ended.
    Session(Record),
    /// The table is complete. With the listening socket.
    Ready {
        #[serde(default)]
        version: u32,
        #[serde(default)]
        kept: Option<String>,
    },
    /// With descriptors.
    Spawned {
        session: SessionId,
        started_at: u64,
    },
    SpawnFailed {
        session: SessionId,
        error: String,
    },
    Ended {
        session: SessionId,
        ended: Ended,
    },
    /// To be answered by `Pong`: is it still there?
    Ping,
    /// Finish what is half done and exit; another mux is to go on with the sessions and the clients.
    HandOver,
    /// How an upgrade went. With the connection of whoever asked for it.
    Upgraded {
        version: String,
        error: Option<String>,
    },
    Shutdown {
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// The table is taken over, and clients are served.
    Ready,
    Spawn(SpawnRequest),
    /// For the next mux.
    Keep(String),
    /// End the session's processes, the polite way first.
    Kill(SessionId),
    /// Go on with another binary. With the connection of whoever asked.
    Upgrade {
        path: String,
    },
    Pong,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct SpawnRequest {
    pub session: SessionId,
    pub meta: Meta,
    pub argv: Vec<String>,
    pub cwd: String,
    pub env: Vec<(String, String)>,
    pub unset: Vec<String>,
    pub size: Size,
}

/// Keys are among its variables, and what can be printed is printed one day.
impl fmt::Debug for SpawnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("SpawnRequest")
            .field("session", &self.session)
            .field("argv", &self.argv)
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

/// Two connected ends; the second is for the child's standard input.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ours, &theirs] {
        // A packet must fit whole, and what is kept, or a session's environment, may be large. The system may grant
        // less; then such a message is refused and nothing else is harmed.
        rustix::net::sockopt::set_socket_send_buffer_size(end, SEND_BUFFER)?;
    }
    Ok((ours, theirs))
}

pub enum Received<T> {
    Message(T, Vec<OwnedFd>),
    /// From a newer program, or a broken one.
    Strange(String),
    /// Nothing now.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// One end, which never blocks.
pub struct Door {
    socket: OwnedFd,
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Door {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// False when the other side is not reading; the message was not sent.
    pub fn send(&self, message: &[u8], fds: &[OwnedFd]) -> io::Result<bool> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        match rustix::net::sendmsg(&self.socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        match receive(self.socket.as_fd()) {
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Received::Closed),
            Err(error) => Err(error),
            Ok((bytes, _)) if bytes.is_empty() => Ok(Received::Closed),
            Ok((bytes, fds)) => Ok(match serde_json::from_slice(&bytes) {
                Ok(message) => Received::Message(message, fds),
                Err(error) => Received::Strange(error.to_string()),
            }),
        }
    }
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    // Packets differ in size by four orders of magnitude, so ask first.
    let (_, len) = rustix::net::recv(socket, &mut [0u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    let mut bytes = vec![0; len];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(message.bytes);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((bytes, fds.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    fn ends() -> (Door, Door) {
        let (ours, theirs) = pair().unwrap();
        (Door::new(ours), Door::new(theirs))
    }

    #[test]
    fn messages_and_descriptors_cross() {
        let (ours, theirs) = ends();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the door").unwrap();
        let message = serde_json::to_vec(&ToMux::Spawned { session: SessionId(7), started_at: 1 }).unwrap();
        assert!(ours.send(&message, &[file.into()]).unwrap());
        let big = "x".repeat(150_000);
        assert!(ours.send(&serde_json::to_vec(&ToMux::Shutdown { reason: big.clone() }).unwrap(), &[]).unwrap());
        drop(ours);

        let Received::Message(message, fds) = theirs.recv::<ToMux>().unwrap() else { panic!("no message") };
        assert!(matches!(message, ToMux::Spawned { session: SessionId(7), .. }));
        let mut file = std::fs::File::from(fds.into_iter().next().unwrap());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the door");
        let Received::Message(message, fds) = theirs.recv::<ToMux>().unwrap() else { panic!("no message") };
        assert!(matches!(message, ToMux::Shutdown { reason } if reason == big) && fds.is_empty());
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Closed));
    }

    #[test]
    fn keys_cannot_be_printed() {
        let request = SpawnRequest {
            session: SessionId(1),
            meta: Meta { codename: "amber".to_owned(), label: "Claude".to_owned(), agent: None, provider: None },
            argv: vec!["agent".to_owned()],
            cwd: "/".to_owned(),
            env: vec![("ANTHROPIC_AUTH_TOKEN".to_owned(), "canary".to_owned())],
            unset: Vec::new(),
            size: Size { rows: 24, cols: 80 },
        };
        assert!(serde_json::to_string(&request).unwrap().contains("canary"));
        let printed = format!("{:?}", ToInit::Spawn(request));
        assert!(printed.contains("ANTHROPIC_AUTH_TOKEN") && !printed.contains("canary"), "{printed}");
    }

    #[test]
    fn a_reader_that_sleeps_is_noticed() {
        let (ours, theirs) = ends();
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Nothing));
        let mut sent = 0;
        while ours.send(&[b'1'; 1000], &[]).unwrap() {
            sent += 1;
            assert!(sent < 10_000, "never said no");
        }
        drop(theirs);
        assert!(ours.send(b"1", &[]).is_err());
    }

    #[test]
    fn versions_understand_each_other() {
        let (ours, theirs) = ends();
        for message in
            [r#"{"Ready":{"version":9,"kept":"x","colour":"blue"}}"#, r#""Ping""#, r#"{"Fly":{"to":"the moon"}}"#, r#"{"Ready":{}}"#]
        {
            assert!(ours.send(message.as_bytes(), &[]).unwrap());
        }
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Message(ToMux::Ready { version: 9, kept: Some(_) }, _)));
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Message(ToMux::Ping, _)));
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Strange(text) if text.contains("Fly")));
        assert!(matches!(theirs.recv::<ToMux>().unwrap(), Received::Message(ToMux::Ready { version: 0, kept: None }, _)));
    }
}
