//! The attach client: this process's terminal on one side, a byte stream to the capsule on the other. The stream may be
//! a unix socket or an exec's standard streams. Out comes how the attachment ended, with the terminal as it was found.
//! Absent: how a stream is opened, and every decision about sessions.

mod inbox;
mod keys;
mod relay;
mod stream;
mod terminal;

use std::future::Future;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::control::{self, Reply, Request};
use crate::wire::{
    AttachMode, Capabilities, ClientFrame, Ctx, HEADER_LEN, Hello, ImageProtocol, NO_COLOR, ServerFrame, Spawn, Tri, VERSION, WireError,
    decode_header,
};
pub use keys::ImagePaste;
pub use stream::Stream;
pub use terminal::{Keyboard, RawTerminal};

/// A capsule that is starting, or whose mux is, is waited for so long before anything is shown.
const STARTING: Duration = Duration::from_secs(5);
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

/// How a client presents itself.
pub struct Face {
    pub hello: Hello,
    /// Shown by the terminal until a session says otherwise.
    pub title: Option<String>,
    /// Absent where this client is not on the operator's own machine.
    pub desk: Option<Desk>,
}

/// The operator's own machine, for what only it can do. Who holds the other ends answers each `Pasted` with a `Typed`.
pub struct Desk {
    pub ask: mpsc::Sender<ToDesk>,
    pub said: mpsc::Receiver<FromDesk>,
}

#[derive(Debug)]
pub enum ToDesk {
    /// Links, exports, images: what the capsule asks of the host.
    Frame(ServerFrame),
    /// `read` may mean an image.
    Pasted { paste: ImagePaste, read: Vec<u8> },
}

#[derive(Debug)]
pub enum FromDesk {
    Frame(ClientFrame),
    /// What is to be taken as typed; nothing when it was an image, which goes its own way.
    Typed(Vec<u8>),
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

/// One question to the capsule and its answers, on a stream of its own.
pub struct Question<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Question<S> {
    pub async fn put(mut stream: S, request: &Request, ctx: &Ctx) -> io::Result<Self> {
        stream.write_all(&control::frame(&request.to_json(ctx))).await?;
        stream.flush().await?;
        Ok(Self(stream))
    }

    /// The next answer as JSON; nothing when there are no more.
    pub async fn answer(&mut self) -> io::Result<Option<String>> {
        let mut length = [0; 4];
        if self.0.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut length[1..]).await?;
        let len = u32::from_be_bytes(length) as usize;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if len > control::MAX_MESSAGE {
            return Err(invalid(format!("reply of {len} bytes")));
        }
        let mut json = Vec::new();
        // Memory grows with what arrives, not with what was announced.
        (&mut self.0).take(len as u64).read_to_end(&mut json).await?;
        if json.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        String::from_utf8(json).map(Some).map_err(|_| invalid("the reply is not UTF-8".to_owned()))
    }
}

/// Asks one control question on a fresh stream.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: S, request: &Request, ctx: &Ctx) -> io::Result<Reply> {
    let limit = match request {
        // The capsule keeps that time itself; it is only watched for being gone.
        Request::WaitSessionStatus { timeout_ms, .. } => CONTROL_TIMEOUT.saturating_add(Duration::from_millis(*timeout_ms)),
        // It is tried out first, then has to take over.
        Request::Upgrade { .. } => 6 * CONTROL_TIMEOUT,
        _ => CONTROL_TIMEOUT,
    };
    let conversation = async {
        let answer = Question::put(stream, request, ctx).await?.answer().await?;
        understood(&answer.ok_or(io::ErrorKind::UnexpectedEof)?)
    };
    timeout(limit, conversation).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

pub fn understood(json: &str) -> io::Result<Reply> {
    serde_json::from_str(json).map_err(|error| {
        let text = format!("the capsule's answer is not understood, it may be newer than this program: {error}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// A hello that describes this process's terminal.
pub fn hello(spawn: Spawn, focus: Option<u64>, mut env: Vec<(String, String)>) -> Hello {
    let var = |key: &str| std::env::var(key).unwrap_or_default();
    if !var(NO_COLOR).is_empty() && env.iter().all(|(key, _)| key != NO_COLOR) {
        env.push((NO_COLOR.to_owned(), "1".to_owned()));
    }
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
    let (rows, cols) = terminal::size();
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

/// Shows the capsule in this process's terminal until one of them goes. `connect` is called again when the connection
/// is lost without a word, which is what a crash of the mux looks like; its error of the kind `HostUnreachable` means
/// that there is no use in trying again. An error of this function means that nothing was ever shown.
pub async fn attach<S, F, C>(mut connect: C, face: Face) -> io::Result<Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
    C: FnMut() -> F,
{
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(io::Error::other("attaching needs a terminal on standard input and output"));
    }
    let mut stream = first_connection(&mut connect).await?;
    if face.hello.ctx.mode != AttachMode::Takeover {
        knows_modes(stream).await?;
        stream = connect().await?;
    }
    relay::Relay::start(face)?.run(stream, connect).await
}

/// A capsule that is starting, or whose mux is, is worth a moment's wait; any other obstacle is not.
async fn first_connection<S, F, C>(connect: &mut C) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
    C: FnMut() -> F,
{
    let deadline = Instant::now() + STARTING;
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

/// A capsule that knows only one mode would drop the connection without a word.
async fn knows_modes<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<()> {
    match ask(stream, &Request::Version, &Ctx::default()).await? {
        Reply::Version { protocol: VERSION, .. } => Ok(()),
        Reply::Version { version, protocol } => {
            let text = format!("the capsule ({version}) speaks version {protocol} of the protocol, this program version {VERSION}");
            Err(io::Error::other(text))
        }
        _ => Err(io::Error::other("the capsule is older than this program: it knows neither shared nor watching clients")),
    }
}
