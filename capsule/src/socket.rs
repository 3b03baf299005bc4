//! `jackin.sock`: the listening socket, and connections to it as machines that turn what has come into requests and
//! frames, and frames into bytes. Absent: waiting, and what requests mean.
//! A connection can only waste its own time: everything it may hold is bounded, and nothing of it ever blocks.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::client::FrameError;
use crate::control::{self, Reply, Request};
use crate::mux::Millis;
use crate::poll::Wants;
use crate::wire::{ClientFrame, Ctx, HEADER_LEN, Hello, ServerFrame, decode_header};

/// Attached clients.
pub const MAX_CLIENTS: usize = 16;
/// Connections of every kind: a crowd of watchers must not keep the host's questions out.
pub const MAX_CONNECTIONS: usize = 64;
/// Clients that wait while there is no mux.
const BACKLOG: i32 = 64;
/// From the first byte of a message to its last, and from connecting to the first byte.
const READ_TIMEOUT: Millis = 10_000;
/// How long the last bytes for a dismissed client may take to leave.
pub const FLUSH: Millis = 2_000;
/// One read. A larger message takes several, so that memory grows with what arrives and not with what was announced.
const READ: usize = 64 << 10;
/// Larger outputs become several frames.
const OUTPUT_PIECE: usize = 1 << 20;
/// What may wait for a client beside the one Output that the mux sends at a time.
const MAX_WAITING: usize = 4 << 20;

/// Binds the socket, only for this user, in place of a stale one.
pub fn bind(path: &Path) -> io::Result<OwnedFd> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A bind-mounted directory of another owner cannot be changed; the socket's own mode still holds.
        let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    // Nobody can connect before this.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// The next connection, if one waits.
pub fn accept(listener: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(stream) => Ok(Some(stream)),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a connection has said.
#[derive(Debug)]
pub enum Said {
    Asked { request: Box<Request>, ctx: Ctx },
    Hello(Box<Hello>),
    Frame(ClientFrame),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not said what it is.
    New,
    /// It has put its question.
    Asked,
    Attached,
    /// Nothing counts any more but getting rid of what waits for it.
    Leaving,
}

pub struct Connection {
    stream: OwnedFd,
    stage: Stage,
    /// What has come and is no whole message yet, from `read` on.
    input: Vec<u8>,
    read: usize,
    /// What has not left yet, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// When it is given up.
    due: Option<Millis>,
    /// The other side will say nothing more.
    silent: bool,
    /// An Output is among what waits.
    owes_drained: bool,
    watched: Wants,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    pub fn new(now: Millis, stream: OwnedFd) -> Self {
        Self {
            stream,
            stage: Stage::New,
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            sent: 0,
            due: Some(now + READ_TIMEOUT),
            silent: false,
            owes_drained: false,
            watched: Wants { read: true, write: false },
        }
    }

    /// One whose question an earlier mux has heard.
    pub fn asked(stream: OwnedFd) -> Self {
        Self { stage: Stage::Asked, due: None, ..Self::new(0, stream) }
    }

    pub fn into_stream(self) -> OwnedFd {
        self.stream
    }

    pub fn wants(&self) -> Wants {
        Wants { read: !self.silent && self.stage != Stage::Leaving, write: self.is_behind() }
    }

    /// The same, when it has changed since this was last asked.
    pub fn changed_wants(&mut self) -> Option<Wants> {
        let wants = self.wants();
        (std::mem::replace(&mut self.watched, wants) != wants).then_some(wants)
    }

    pub fn due(&self) -> Option<Millis> {
        self.due
    }

    pub fn is_attached(&self) -> bool {
        self.stage == Stage::Attached
    }

    /// Something has not left yet.
    pub fn is_behind(&self) -> bool {
        self.sent < self.output.len()
    }

    /// The mux knows of it.
    pub fn is_known(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Attached)
    }

    /// Takes what has come, in one read. False when nothing more will.
    pub fn receive(&mut self) -> io::Result<bool> {
        if self.read > 0 {
            self.input.drain(..self.read);
            self.read = 0;
        }
        self.input.reserve(READ);
        match rustix::io::read(&self.stream, spare_capacity(&mut self.input)) {
            Ok(0) => {
                self.silent = true;
                // Who has asked may close its writing side and wait for the answer.
                Ok(self.stage == Stage::Asked)
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole message of what has come.
    pub fn next(&mut self, now: Millis) -> Result<Option<Said>, FrameError> {
        let said = match self.stage {
            // The length of a control message stays below 16 MB, so its first byte is zero, which is no attach tag.
            Stage::New if self.input.get(self.read) == Some(&0) => self.question()?,
            // Said before there is room for a picture.
            Stage::New if self.input.get(self.read).is_some_and(|tag| *tag != HELLO) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not a hello").into());
            }
            Stage::New => self.frame()?.and_then(|frame| match frame {
                ClientFrame::Hello(hello) => Some(Said::Hello(hello)),
                _ => None,
            }),
            Stage::Attached => self.frame()?.map(Said::Frame),
            // It may go on talking as long as it waits for answers, but not fill our memory.
            Stage::Asked | Stage::Leaving => {
                (self.input, self.read) = (Vec::new(), 0);
                None
            }
        };
        match &said {
            Some(Said::Asked { .. }) => (self.stage, self.due) = (Stage::Asked, None),
            Some(Said::Hello(_)) => (self.stage, self.due) = (Stage::Attached, None),
            Some(Said::Frame(_)) => self.due = None,
            None if self.stage == Stage::Attached && self.read == self.input.len() => {
                self.due = None;
                // A long paste is no reason to keep its room.
                if self.input.capacity() > 2 * READ {
                    (self.input, self.read) = (Vec::new(), 0);
                }
            }
            // A message may be long in coming but not in arriving.
            None if self.stage == Stage::Attached && self.due.is_none() => self.due = Some(now + READ_TIMEOUT),
            None => {}
        }
        Ok(said)
    }

    fn question(&mut self) -> Result<Option<Said>, FrameError> {
        let Some((len, rest)) = self.input[self.read..].split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len > control::MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("control message of {len} bytes")).into());
        }
        let Some(json) = rest.get(..len) else {
            return Ok(None);
        };
        let (request, ctx) = Request::parse(json);
        self.read += 4 + len;
        Ok(Some(Said::Asked { request: Box::new(request), ctx }))
    }

    fn frame(&mut self) -> Result<Option<ClientFrame>, FrameError> {
        let Some((header, rest)) = self.input[self.read..].split_first_chunk::<HEADER_LEN>() else {
            // What cannot become a frame is not waited for.
            if let Some(&tag) = self.input.get(self.read) {
                crate::wire::payload_limit(tag)?;
            }
            return Ok(None);
        };
        let (tag, len) = decode_header(*header)?;
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = ClientFrame::decode(tag, payload)?;
        self.read += HEADER_LEN + len;
        Ok(Some(frame))
    }

    /// Sends, or keeps for when the client reads. False when it is so far behind that it is given up.
    pub fn send(&mut self, frame: &ServerFrame) -> Result<bool, FrameError> {
        match frame {
            ServerFrame::Output(bytes) => {
                for piece in bytes.chunks(OUTPUT_PIECE) {
                    self.push(&[&output_header(piece.len()), piece])?;
                }
                self.owes_drained = true;
                return Ok(true);
            }
            // It is behind with more important things.
            ServerFrame::Bell if self.is_behind() => return Ok(true),
            other => self.push(&[&other.encode()?])?,
        }
        Ok(self.output.len() - self.sent <= MAX_WAITING)
    }

    pub fn reply(&mut self, now: Millis, reply: &Reply, last: bool) -> Result<bool, FrameError> {
        let json = serde_json::to_string(reply).map_err(io::Error::from)?;
        self.push(&[&control::frame(&json)])?;
        if last {
            self.dismiss(now);
        }
        Ok(self.output.len() - self.sent <= MAX_WAITING)
    }

    /// Whether it began with a hello: then what is wrong with that is worth a word.
    pub fn is_greeting(&self) -> bool {
        self.stage == Stage::New && self.input.get(self.read) == Some(&HELLO)
    }

    /// What is on its way may still leave; then it is over.
    pub fn dismiss(&mut self, now: Millis) {
        (self.stage, self.due) = (Stage::Leaving, Some(now + FLUSH));
    }

    pub fn has_left(&self) -> bool {
        self.stage == Stage::Leaving && !self.is_behind()
    }

    /// An Output has left since this was last asked.
    pub fn take_drained(&mut self) -> bool {
        !self.is_behind() && std::mem::take(&mut self.owes_drained)
    }

    /// Directly into the socket as far as that takes it: no copy, no second wake-up.
    fn push(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut written = 0;
        if !self.is_behind() {
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            written = match rustix::io::writev(&self.stream, &slices) {
                Ok(written) => written,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
        }
        for part in parts {
            let skipped = written.min(part.len());
            self.output.extend_from_slice(&part[skipped..]);
            written -= skipped;
        }
        Ok(())
    }

    /// Writes what waits, as far as the client takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.is_behind() {
            match rustix::io::write(&self.stream, &self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.sent = 0;
        self.output.clear();
        if self.output.capacity() > READ {
            self.output = Vec::new();
        }
        Ok(())
    }
}

const HELLO: u8 = 0x01;

/// So that a picture need not be copied behind its header.
fn output_header(len: usize) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [0x82, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn connection() -> (UnixStream, Connection) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Connection::new(0, ours.into()))
    }

    fn hello() -> Vec<u8> {
        ClientFrame::Hello(Box::default()).encode().unwrap()
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let (mut theirs, mut connection) = connection();
        let mut bytes = hello();
        bytes.extend(ClientFrame::Input(b"typed".to_vec()).encode().unwrap());
        bytes.extend(ClientFrame::Detach.encode().unwrap());
        let mut said = Vec::new();
        for byte in bytes {
            theirs.write_all(&[byte]).unwrap();
            assert!(connection.receive().unwrap());
            said.extend(connection.next(5).unwrap());
        }
        let [Said::Hello(_), Said::Frame(ClientFrame::Input(typed)), Said::Frame(ClientFrame::Detach)] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert_eq!(typed, b"typed");
        drop(theirs);
        assert!(!connection.receive().unwrap());
    }

    #[test]
    fn a_message_must_arrive_in_time_but_may_be_long_in_coming() {
        let (mut theirs, mut connection) = connection();
        assert_eq!(connection.due(), Some(READ_TIMEOUT));
        theirs.write_all(&hello()).unwrap();
        connection.receive().unwrap();
        assert!(connection.next(3).unwrap().is_some());
        assert!(connection.next(3).unwrap().is_none());
        assert_eq!(connection.due(), None);
        theirs.write_all(&[3, 0]).unwrap();
        connection.receive().unwrap();
        assert!(connection.next(100).unwrap().is_none());
        assert!(connection.next(200).unwrap().is_none());
        assert_eq!(connection.due(), Some(100 + READ_TIMEOUT));
        theirs.write_all(&[0, 0, 1, b'x']).unwrap();
        connection.receive().unwrap();
        assert!(connection.next(300).unwrap().is_some());
        assert_eq!(connection.due(), None);
    }

    #[test]
    fn what_is_said_after_the_question_is_not_kept() {
        let (mut theirs, mut connection) = connection();
        theirs.write_all(&control::frame(r#"{"type": "events_subscribe"}"#)).unwrap();
        theirs.write_all(b"and more").unwrap();
        for _ in 0..100 {
            assert!(connection.receive().unwrap());
            while connection.next(0).unwrap().is_some() {}
            assert!(connection.input.is_empty());
            theirs.write_all(&[0; 10_000]).unwrap();
        }
    }

    #[test]
    fn what_does_not_begin_with_a_hello_is_not_waited_for() {
        let (mut theirs, mut connection) = connection();
        theirs.write_all(&[0x08]).unwrap();
        connection.receive().unwrap();
        assert!(connection.next(0).unwrap_err().to_string().contains("not a hello"));
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_when_dismissed() {
        let (mut theirs, mut connection) = connection();
        theirs.write_all(&hello()).unwrap();
        connection.receive().unwrap();
        connection.next(0).unwrap();
        let picture = ServerFrame::Output(vec![b'x'; 3 << 20]);
        assert!(connection.send(&picture).unwrap());
        assert!(connection.is_behind() && !connection.take_drained());
        assert!(connection.wants().write);
        connection.dismiss(50);
        assert_eq!(connection.due(), Some(50 + FLUSH));
        assert!(!connection.has_left());
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; (3 << 20) + 3 * HEADER_LEN];
            theirs.read_exact(&mut bytes).map(|()| bytes)
        });
        while connection.is_behind() {
            connection.flush().unwrap();
        }
        assert!(connection.has_left() && connection.take_drained() && !connection.take_drained());
        let bytes = reader.join().unwrap().unwrap();
        let piece = ServerFrame::Output(vec![b'x'; OUTPUT_PIECE]).encode().unwrap();
        assert_eq!(bytes[..HEADER_LEN], piece[..HEADER_LEN]);
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'x').count(), 3 << 20);
    }

    #[test]
    fn small_frames_do_not_pile_up() {
        let (_theirs, mut connection) = connection();
        connection.send(&ServerFrame::Output(vec![b'x'; 1 << 20])).unwrap();
        for _ in 0..100_000 {
            assert!(connection.send(&ServerFrame::Bell).unwrap());
        }
        assert!(connection.output.len() <= (1 << 20) + HEADER_LEN);
        let list = ServerFrame::SessionList("x".repeat(1 << 20));
        let kept = (0..100).take_while(|_| connection.send(&list).unwrap()).count();
        assert!(kept < 5, "{kept} lists were kept");
    }

    #[test]
    fn the_socket_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/jackin.sock");
        let listener = bind(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(accept(&listener).unwrap().is_none());
        let _client = UnixStream::connect(&path).unwrap();
        assert!(accept(&listener).unwrap().is_some());
        assert!(bind(&path).is_ok(), "a stale socket is in nobody's way");
    }
}
