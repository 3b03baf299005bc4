//! `jackin.sock`: one task per connection turns bytes into requests and frames, and frames into bytes.
//! Absent: what requests mean. A connection can only waste its own time: everything it may hold is bounded.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::client::{FrameError, read_frame};
use crate::control::{self, Reply, Request};
use crate::log::Log;
use crate::mux::ClientId;
use crate::wire::{ClientFrame, Ctx, Hello, ServerFrame};

pub const MAX_CLIENTS: usize = 16;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last frames of a dismissed client may take to leave.
pub const FLUSH: Duration = Duration::from_secs(2);
/// Frames waiting for a client. The mux sends one Output at a time and little else.
const OUTBOX: usize = 32;
const OUTPUT_PIECE: usize = 1 << 20;
const MAX_ACCEPT_FAILURES: u32 = 10;

/// The serve loop's end of an attached connection. Dropping it ends the connection, once what is in it has left or
/// `FLUSH` has passed: a client that stopped reading may not keep its place for ever.
pub struct Outbox {
    pub frames: mpsc::Sender<ServerFrame>,
    _kept: oneshot::Sender<()>,
}

/// What connections tell the serve loop.
pub enum Event {
    Asked {
        client: ClientId,
        request: Request,
        ctx: Ctx,
        reply: oneshot::Sender<Reply>,
    },
    Attached {
        client: ClientId,
        hello: Hello,
        outbox: Outbox,
    },
    Frame {
        client: ClientId,
        frame: ClientFrame,
    },
    Drained(ClientId),
    Gone(ClientId),
    /// Nobody can connect any more.
    Deaf(io::Error),
}

/// Binds the socket, only for this user, in place of a stale one.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
        // A bind-mounted directory of another owner cannot be changed; the socket's own mode still holds.
        let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// `alive` is held by every attached connection until its last byte has left.
pub async fn accept(listener: UnixListener, events: mpsc::Sender<Event>, log: Log, alive: mpsc::WeakSender<()>) {
    let permits = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut next = 0;
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failures = 0;
                // One too many is dropped without a word.
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    continue;
                };
                next += 1;
                let (client, events, log, alive) = (ClientId(next), events.clone(), log.clone(), alive.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, client, events, alive).await {
                        log.line(&format!("client {}: {error}", client.0));
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                failures += 1;
                log.line(&format!("accept: {error}"));
                if failures == MAX_ACCEPT_FAILURES {
                    let _ = events.send(Event::Deaf(error)).await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(25 << failures).min(Duration::from_secs(5))).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    client: ClientId,
    events: mpsc::Sender<Event>,
    alive: mpsc::WeakSender<()>,
) -> Result<(), FrameError> {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let first = timeout(READ_TIMEOUT, tokio::io::AsyncBufReadExt::fill_buf(&mut reader)).await.map_err(|_| FrameError::TimedOut)??;
    match first.first() {
        None => Ok(()),
        // The length of a control message stays below 16 MB, so its first byte is zero, which is no attach tag.
        Some(0) => answer(reader, writer, client, events).await,
        Some(_) => attached(reader, writer, client, events, alive).await,
    }
}

async fn answer(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    client: ClientId,
    events: mpsc::Sender<Event>,
) -> Result<(), FrameError> {
    let json = timeout(READ_TIMEOUT, async {
        let len = reader.read_u32().await? as usize;
        if len > control::MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("control message of {len} bytes")));
        }
        let mut json = Vec::new();
        // Memory grows with what arrives, not with what was announced.
        (&mut reader).take(len as u64).read_to_end(&mut json).await?;
        if json.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(json) }
    })
    .await
    .map_err(|_| FrameError::TimedOut)??;
    let (request, ctx) = Request::parse(&json);
    let (reply, answered) = oneshot::channel();
    if events.send(Event::Asked { client, request, ctx, reply }).await.is_err() {
        return Ok(());
    }
    let Ok(reply) = answered.await else {
        return Ok(());
    };
    let json = serde_json::to_string(&reply).map_err(io::Error::from)?;
    timeout(CONTROL_WRITE_TIMEOUT, writer.write_all(&control::frame(&json))).await.map_err(|_| FrameError::TimedOut)??;
    Ok(())
}

async fn attached(
    mut reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    client: ClientId,
    events: mpsc::Sender<Event>,
    alive: mpsc::WeakSender<()>,
) -> Result<(), FrameError> {
    let _alive = alive.upgrade();
    let hello = match read_client_frame(&mut reader).await? {
        Some(ClientFrame::Hello(hello)) => *hello,
        Some(_) => {
            return Err(FrameError::Io(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not a hello")));
        }
        None => return Ok(()),
    };
    let (sender, frames) = mpsc::channel(OUTBOX);
    let (kept, dismissed) = oneshot::channel();
    let outbox = Outbox { frames: sender, _kept: kept };
    if events.send(Event::Attached { client, hello, outbox }).await.is_err() {
        return Ok(());
    }
    let outcome = tokio::select! {
        read = read_frames(reader, client, &events) => read,
        // The mux has closed the outbox and everything in it is out.
        written = write_frames(writer, frames, client, &events) => written.map_err(FrameError::Io),
        () = async { let _ = dismissed.await; tokio::time::sleep(FLUSH).await } => Err(FrameError::TimedOut),
    };
    let _ = events.send(Event::Gone(client)).await;
    outcome
}

async fn read_client_frame(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<ClientFrame>, FrameError> {
    match read_frame(reader, READ_TIMEOUT).await? {
        Some((tag, payload)) => Ok(Some(ClientFrame::decode(tag, &payload)?)),
        None => Ok(None),
    }
}

async fn read_frames(mut reader: BufReader<OwnedReadHalf>, client: ClientId, events: &mpsc::Sender<Event>) -> Result<(), FrameError> {
    while let Some(frame) = read_client_frame(&mut reader).await? {
        if events.send(Event::Frame { client, frame }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn write_frames(
    mut writer: OwnedWriteHalf,
    mut frames: mpsc::Receiver<ServerFrame>,
    client: ClientId,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        match frame {
            ServerFrame::Output(bytes) => {
                for piece in bytes.chunks(OUTPUT_PIECE) {
                    write_frame(&mut writer, &ServerFrame::Output(piece.to_vec())).await?;
                }
                let _ = events.send(Event::Drained(client)).await;
            }
            other => write_frame(&mut writer, &other).await?,
        }
    }
    writer.shutdown().await
}

async fn write_frame(writer: &mut OwnedWriteHalf, frame: &ServerFrame) -> io::Result<()> {
    let bytes = frame.encode().map_err(io::Error::other)?;
    writer.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dismissed_client_that_does_not_read_gives_its_place_back() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let (events, mut received) = mpsc::channel(8);
        let (alive, _) = mpsc::channel(1);
        let connection = tokio::spawn(converse(ours, ClientId(1), events, alive.downgrade()));
        theirs.write_all(&ClientFrame::Hello(Box::default()).encode().unwrap()).await.unwrap();
        let Some(Event::Attached { outbox, .. }) = received.recv().await else { panic!("no hello") };
        outbox.frames.send(ServerFrame::Output(vec![b'x'; 8 << 20])).await.unwrap();
        assert!(timeout(FLUSH * 3, received.recv()).await.is_err(), "it is kept as long as the mux keeps it");
        drop(outbox);
        assert!(matches!(received.recv().await, Some(Event::Gone(ClientId(1)))));
        assert!(matches!(connection.await.unwrap(), Err(FrameError::TimedOut)));
    }
}
