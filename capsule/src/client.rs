//! The attach client: this process's terminal on one side, a byte stream to the capsule on the other. The stream may be
//! a unix socket or an exec's standard streams. Out comes how the attachment ended, with the terminal as it was found.
//! Absent: how a stream is opened, and every decision about sessions.

use std::future::Future;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::control::{self, Reply, Request};
use crate::wire::{
    Capabilities, ClientFrame, Ctx, HEADER_LEN, Hello, ImageProtocol, ServerFrame, ShutdownReason, Spawn, Tri, WireError, decode_header,
};

/// How long a lost connection is sought again; a mux that died is back long before.
const RECONNECT: Duration = Duration::from_secs(5);
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sessions go on: asked for, or this terminal closed.
    Detached,
    /// The last session ended; the code is absent when a signal ended it.
    SessionEnded(Option<i32>),
    /// Another client has attached.
    TakenOver,
    /// The capsule stopped, refused, or cannot be reached any more.
    Lost(String),
}

/// Relays standard input until it closes, then closes the writing side.
pub async fn copy_stdin<W: AsyncWrite + Unpin>(writer: &mut W) -> io::Result<()> {
    let mut keyboard = Keyboard::start()?;
    while let Some(bytes) = keyboard.bytes.recv().await {
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

pub async fn copy_to_stdout<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            n => to_terminal(&buffer[..n])?,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a frame was begun and not finished in time")]
    TimedOut,
}

/// Reads one frame; nothing at a clean end. A frame may be long in coming but not in arriving.
pub async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R, limit: Duration) -> Result<Option<(u8, Vec<u8>)>, FrameError> {
    let mut header = [0; HEADER_LEN];
    if reader.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        reader.read_exact(&mut header[1..]).await?;
        let (tag, len) = decode_header(header)?;
        let mut payload = Vec::new();
        // Memory grows with what arrives, not with what was announced.
        reader.take(len as u64).read_to_end(&mut payload).await?;
        if payload.len() < len {
            return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Some((tag, payload)))
    };
    timeout(limit, rest).await.map_err(|_| FrameError::TimedOut)?
}

/// Asks one control question on a fresh stream.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &Request, ctx: &Ctx) -> io::Result<Reply> {
    let conversation = async {
        stream.write_all(&control::frame(&request.to_json(ctx))).await?;
        stream.flush().await?;
        let len = stream.read_u32().await? as usize;
        if len > control::MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("reply of {len} bytes")));
        }
        let mut json = Vec::new();
        (&mut stream).take(len as u64).read_to_end(&mut json).await?;
        Ok(serde_json::from_slice(&json)?)
    };
    timeout(CONTROL_TIMEOUT, conversation).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A hello that describes this process's terminal.
pub fn hello(spawn: Spawn, focus: Option<u64>, env: Vec<(String, String)>) -> Hello {
    let var = |key: &str| std::env::var(key).unwrap_or_default();
    let tri = |key: &str| match var(key).as_str() {
        "" => Tri::Unset,
        "0" | "no" | "off" | "false" => Tri::Off,
        _ => Tri::On,
    };
    let capabilities = Capabilities {
        pointer_shapes: tri("JACKIN_ATTACH_POINTER_SHAPES"),
        truecolor: tri("JACKIN_ATTACH_TRUECOLOR"),
        sync_output: tri("JACKIN_ATTACH_SYNC"),
        osc8: tri("JACKIN_ATTACH_OSC8"),
        underline_style: tri("JACKIN_ATTACH_UNDERLINE_STYLE"),
        image_protocol: match var("JACKIN_ATTACH_IMAGE_PROTOCOL").as_str() {
            "none" => ImageProtocol::None,
            "kitty" => ImageProtocol::Kitty,
            _ => ImageProtocol::Unset,
        },
    };
    let (rows, cols) = terminal_size();
    Hello {
        rows,
        cols,
        spawn,
        env,
        focus,
        term: var("TERM"),
        term_program: var("TERM_PROGRAM"),
        colorterm: var("COLORTERM"),
        capabilities,
        ..Hello::default()
    }
}

fn terminal_size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

/// Shows the capsule in this process's terminal until one of them goes. `connect` is called again when the connection
/// is lost without a word, which is what a crash of the mux looks like. An error means that nothing was ever shown.
pub async fn attach<S, F, C>(mut connect: C, hello: Hello) -> io::Result<Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
    C: FnMut() -> F,
{
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(io::Error::other("attaching needs a terminal on standard input and output"));
    }
    let stream = first_connection(&mut connect).await?;
    let mut signals = Signals::listen()?;
    let guard = RawTerminal::enter()?;
    let mut keyboard = Keyboard::start()?;
    let outcome = stay_attached(stream, &mut connect, hello, &mut keyboard, &mut signals).await;
    drop(guard);
    outcome
}

/// A capsule that is starting, or whose mux is, is worth a moment's wait; any other obstacle is not.
async fn first_connection<S, F, C>(connect: &mut C) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
    C: FnMut() -> F,
{
    let deadline = Instant::now() + RECONNECT;
    loop {
        match connect().await {
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            connected => return connected,
        }
    }
}

async fn stay_attached<S, F, C>(
    stream: S,
    connect: &mut C,
    mut hello: Hello,
    keyboard: &mut Keyboard,
    signals: &mut Signals,
) -> io::Result<Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
    C: FnMut() -> F,
{
    let mut stream = Some(stream);
    let mut seek_until = Instant::now() + RECONNECT;
    let mut pause = Duration::from_millis(20);
    loop {
        if let Some(stream) = stream.take() {
            (hello.rows, hello.cols) = terminal_size();
            match converse(stream, &hello, keyboard, signals).await {
                Ended::Said(outcome) => return Ok(outcome),
                Ended::Silent { welcomed: true } => {
                    // What was to be started is; the new mux has it.
                    (hello.spawn, hello.focus) = (Spawn::None, None);
                    (seek_until, pause) = (Instant::now() + RECONNECT, Duration::from_millis(20));
                }
                Ended::Silent { welcomed: false } => {}
            }
        }
        if Instant::now() + pause > seek_until {
            return Ok(Outcome::Lost("the capsule does not answer any more".to_owned()));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.hang_up() => return Ok(Outcome::Detached),
        }
        pause = (pause * 2).min(Duration::from_millis(500));
        stream = connect().await.ok();
    }
}

enum Ended {
    Said(Outcome),
    /// The stream broke off.
    Silent {
        welcomed: bool,
    },
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, hello: &Hello, keyboard: &mut Keyboard, signals: &mut Signals) -> Ended {
    let (reader, mut writer) = tokio::io::split(stream);
    let (server_frames, mut frames) = mpsc::channel(4);
    // A future of its own, because a frame half read must not be forgotten when a key comes first.
    let read = async move {
        let mut reader = BufReader::new(reader);
        loop {
            let frame = match read_frame(&mut reader, FRAME_TIMEOUT).await {
                Ok(Some((tag, payload))) => ServerFrame::decode(tag, &payload).map_err(FrameError::Wire),
                Ok(None) => return None,
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => server_frames.send(frame).await.ok()?,
                Err(FrameError::Wire(error)) => return Some(error),
                Err(_) => return None,
            }
        }
    };
    let mut welcomed = false;
    let talk = async {
        send(&mut writer, &ClientFrame::Hello(Box::new(hello.clone()))).await?;
        loop {
            tokio::select! {
                biased;
                frame = frames.recv() => match frame {
                    Some(frame) => {
                        welcomed = true;
                        if let Some(outcome) = show(frame)? {
                            return Ok::<_, io::Error>(Some(outcome));
                        }
                    }
                    None => return Ok(None),
                },
                bytes = keyboard.bytes.recv() => match bytes {
                    Some(bytes) => send(&mut writer, &ClientFrame::Input(bytes)).await?,
                    None => return Ok(Some(Outcome::Detached)),
                },
                _ = signals.resized.recv() => {
                    let (rows, cols) = terminal_size();
                    send(&mut writer, &ClientFrame::Resize { rows, cols }).await?;
                }
                () = async { tokio::select! { _ = signals.hung_up.recv() => {} _ = signals.terminated.recv() => {} } } => {
                    // The capsule sees the stream close in any case.
                    let _ = send(&mut writer, &ClientFrame::Detach).await;
                    return Ok(Some(Outcome::Detached));
                }
            }
        }
    };
    let (mut garbled, mut said) = (None, None);
    {
        tokio::pin!(read, talk);
        let mut reading = true;
        loop {
            tokio::select! {
                biased;
                end = &mut read, if reading => {
                    garbled = end;
                    // Its channel closes; what is still in it comes first.
                    reading = false;
                }
                end = &mut talk => {
                    if let Ok(end) = end {
                        said = end;
                    }
                    break;
                }
            }
        }
    }
    match (said, garbled) {
        (Some(outcome), _) => Ended::Said(outcome),
        (None, Some(error)) => Ended::Said(Outcome::Lost(format!("the capsule sent something else than frames: {error}"))),
        (None, None) => Ended::Silent { welcomed },
    }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, frame: &ClientFrame) -> io::Result<()> {
    let bytes = frame.encode().map_err(io::Error::other)?;
    writer.write_all(&bytes).await?;
    writer.flush().await
}

fn show(frame: ServerFrame) -> io::Result<Option<Outcome>> {
    match frame {
        ServerFrame::Output(bytes) => to_terminal(&bytes)?,
        ServerFrame::Bell => to_terminal(b"\x07")?,
        ServerFrame::Shutdown(reason) => {
            return Ok(Some(match reason {
                ShutdownReason::Detached => Outcome::Detached,
                ShutdownReason::TakenOver => Outcome::TakenOver,
                ShutdownReason::SessionEnded(code) => Outcome::SessionEnded(code),
                ShutdownReason::Unsaid => Outcome::Lost("the capsule ended the attachment".to_owned()),
                ShutdownReason::Other(text) => Outcome::Lost(text),
            }));
        }
        // Welcome and lists are for programs; affordances of the host come with their own issue.
        _ => {}
    }
    Ok(None)
}

fn to_terminal(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

struct Signals {
    resized: Signal,
    hung_up: Signal,
    terminated: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            hung_up: signal(SignalKind::hangup())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    async fn hang_up(&mut self) {
        tokio::select! {
            _ = self.hung_up.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

/// Raw mode and the alternate screen, undone on drop and therefore on panic, return and every signal handled above.
pub struct RawTerminal {
    before: Termios,
}

const ENTER: &[u8] = b"\x1b[22;0t\x1b[?1049h\x1b[H\x1b[2J";
/// Undoes every mode a session may have set: synchronized output, mouse, focus, paste, keypad, cursor, colours.
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[r\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1004l\x1b[?2004l\
\x1b[?1l\x1b>\x1b[0 q\x1b[?25h\x1b[m\x1b[?1049l\x1b[23;0t";

impl RawTerminal {
    pub fn enter() -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let guard = Self { before };
        to_terminal(ENTER)?;
        Ok(guard)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to restore.
        let _ = to_terminal(LEAVE);
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Standard input as a channel. A thread of its own, because making a shared terminal non-blocking would outlive us in
/// the shell; it is woken and joined on drop, so that it steals no key from whoever reads next.
struct Keyboard {
    bytes: mpsc::Receiver<Vec<u8>>,
    wake: Option<StdUnixStream>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Keyboard {
    fn start() -> io::Result<Self> {
        let (sender, bytes) = mpsc::channel(8);
        let (wake, woken) = StdUnixStream::pair()?;
        let thread = std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || read_keys(&sender, &woken))?;
        Ok(Self { bytes, wake: Some(wake), thread: Some(thread) })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.bytes.close();
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_keys(sender: &mpsc::Sender<Vec<u8>>, woken: &StdUnixStream) {
    let stdin = io::stdin();
    let Ok(copy) = stdin.as_fd().try_clone_to_owned() else {
        return;
    };
    // Not `Stdin`: its buffer would keep what we do not take.
    let mut keys = std::fs::File::from(copy);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let mut fds = [PollFd::new(&keys, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match keys.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        }
    }
}
