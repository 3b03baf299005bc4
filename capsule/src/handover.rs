//! The door between init and mux: messages and descriptors in, the same out on the other side. One packet is one JSON
//! message; descriptors ride beside it. Absent: what either side does with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::mux::{Ended, Meta, Record, SessionId};
use crate::screen::Size;

/// Descriptors in one message: a terminal's master and its spool.
const MAX_FDS: usize = 2;
const SEND_BUFFER: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub enum ToMux {
    /// One row of the table, told at the start; with descriptors unless it has ended.
    Session(Record),
    Ready,
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
    Shutdown {
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SpawnRequest {
    pub session: SessionId,
    pub meta: Meta,
    pub argv: Vec<String>,
    pub cwd: String,
    pub env: Vec<(String, String)>,
    pub unset: Vec<String>,
    pub size: Size,
}

/// Two connected ends; the second is for the child's standard input.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ours, &theirs] {
        // A packet must fit whole, and a session's environment may be large.
        rustix::net::sockopt::set_socket_send_buffer_size(end, SEND_BUFFER)?;
    }
    Ok((ours, theirs))
}

/// One end. Tokio knows no packet sockets, but a stream socket's readiness is the same thing.
pub struct Door {
    socket: UnixStream,
}

impl Door {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::from_std(socket.into())? })
    }

    /// False when the other side is not reading; the message was not sent.
    pub fn try_send(&self, message: &[u8], fds: &[OwnedFd]) -> io::Result<bool> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        // Without asking tokio first: a socket it has not polled yet would seem full.
        match rustix::net::sendmsg(&self.socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => {
                // Tells tokio, so that `writable` waits.
                let full = self.socket.try_io(Interest::WRITABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
                debug_assert!(full.is_err());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        while !self.try_send(&bytes, &[])? {
            self.writable().await?;
        }
        Ok(())
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// The next message, or nothing when the other side is gone. Dropping the future loses nothing.
    pub async fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_io(Interest::READABLE, || receive(self.socket.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return decode(received),
            }
        }
    }

    /// What the other side said before it died.
    pub fn recv_left_over<T: DeserializeOwned>(&self) -> Option<T> {
        decode(receive(self.socket.as_fd())).ok().flatten().map(|(message, _)| message)
    }
}

fn decode<T: DeserializeOwned>(received: io::Result<(Vec<u8>, Vec<OwnedFd>)>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    match received {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        Ok((bytes, _)) if bytes.is_empty() => Ok(None),
        Ok((bytes, fds)) => Ok(Some((serde_json::from_slice(&bytes)?, fds))),
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

    #[tokio::test]
    async fn messages_and_descriptors_cross() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Door::new(ours).unwrap(), Door::new(theirs).unwrap());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the door").unwrap();
        let message = serde_json::to_vec(&ToMux::Spawned { session: SessionId(7), started_at: 1 }).unwrap();
        assert!(ours.try_send(&message, &[file.into()]).unwrap());
        let big = "x".repeat(150_000);
        ours.send(&ToMux::Shutdown { reason: big.clone() }).await.unwrap();
        drop(ours);

        let (message, fds) = theirs.recv::<ToMux>().await.unwrap().unwrap();
        assert!(matches!(message, ToMux::Spawned { session: SessionId(7), .. }));
        let mut file = std::fs::File::from(fds.into_iter().next().unwrap());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the door");
        let (message, fds) = theirs.recv::<ToMux>().await.unwrap().unwrap();
        assert!(matches!(message, ToMux::Shutdown { reason } if reason == big) && fds.is_empty());
        assert!(theirs.recv::<ToMux>().await.unwrap().is_none());
        assert!(theirs.recv_left_over::<ToMux>().is_none());
    }

    #[tokio::test]
    async fn a_reader_that_sleeps_is_noticed() {
        let (ours, theirs) = pair().unwrap();
        let ours = Door::new(ours).unwrap();
        let mut sent = 0;
        while ours.try_send(&[b'1'; 1000], &[]).unwrap() {
            sent += 1;
            assert!(sent < 10_000, "never said no");
        }
        drop(theirs);
        assert!(ours.try_send(b"1", &[]).is_err());
    }
}
