//! Attach frames: bytes in, frames out, and back. Tag u8, length u32, payload; every integer big-endian.
//! Absent: sockets, timeouts, and any idea of what a frame does. Decoding never panics and never allocates more than
//! the payload it was given.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The protocol version carried as `v` in every context.
pub const VERSION: u32 = 1;
pub const MAX_PAYLOAD: usize = 4 << 20;
pub const MAX_IMAGE_PAYLOAD: usize = 16 << 20;
pub const MAX_ENV_ENTRIES: usize = 64;
pub const MAX_ENV_KEY: usize = 1024;
pub const MAX_ENV_VALUE: usize = 8 << 10;
pub const MAX_PROVIDER_LABEL: usize = 64;
pub const MAX_TERMINAL_FIELD: usize = 1024;
pub const MAX_IMAGE_ERROR: usize = 1024;
pub const MAX_NOTICE: usize = 2048;
pub const MAX_PATH: usize = 4096;
pub const MAX_NAME: usize = 255;
pub const MAX_CHUNK: usize = 1 << 20;
/// The largest image or file that travels in chunks.
pub const MAX_TRANSFER: u64 = 64 << 20;
/// Tag and length, before any payload.
pub const HEADER_LEN: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("unknown frame tag {0:#04x}")]
    UnknownTag(u8),
    #[error("frame of {len} bytes exceeds the limit of {limit}")]
    TooLarge { len: usize, limit: usize },
    #[error("frame ends early")]
    Short,
    #[error("frame has {0} bytes too many")]
    Trailing(usize),
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    #[error("{field} has {len} bytes, the limit is {limit}")]
    FieldTooLong { field: &'static str, len: usize, limit: usize },
    #[error("{field} has the unknown value {value}")]
    BadValue { field: &'static str, value: u64 },
    #[error("the context is not valid here, the other side may be of another version: {0}")]
    Context(String),
}

/// Red, green, blue.
pub type Rgb = [u8; 3];

type Result<T> = std::result::Result<T, WireError>;

/// How a client takes part. Anything but `Takeover` is refused by capsules that do not know it, instead of being taken
/// for it; ask for `Version` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// Every other client that may type has to go.
    #[default]
    Takeover,
    /// Beside the others.
    Shared,
    /// Beside the others, and what it sends but its size is not listened to.
    Watch,
}

impl AttachMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What travels beside a request: version and correlation, and in a hello the mode. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ctx {
    pub v: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tracestate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub invocation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job_id: Option<String>,
    #[serde(skip_serializing_if = "AttachMode::is_default", default)]
    pub mode: AttachMode,
}

impl Default for Ctx {
    fn default() -> Self {
        let mode = AttachMode::default();
        Self { v: VERSION, traceparent: None, tracestate: None, invocation_id: None, session_id: None, job_id: None, mode }
    }
}

/// What a new client wants started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Spawn {
    #[default]
    None,
    Shell,
    Agent(String),
    AgentWithProvider {
        agent: String,
        provider: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tri {
    #[default]
    Unset,
    Off,
    On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageProtocol {
    #[default]
    Unset,
    None,
    Kitty,
}

/// What the client's user says about the terminal, overriding detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub pointer_shapes: Tri,
    pub truecolor: Tri,
    pub sync_output: Tri,
    pub osc8: Tri,
    pub underline_style: Tri,
    pub image_protocol: ImageProtocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub rows: u16,
    pub cols: u16,
    pub spawn: Spawn,
    pub env: Vec<(String, String)>,
    pub focus: Option<u64>,
    pub term: String,
    pub term_program: String,
    pub colorterm: String,
    pub foreground: Option<Rgb>,
    pub background: Option<Rgb>,
    pub capabilities: Capabilities,
    pub ctx: Ctx,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            rows: 24,
            cols: 80,
            spawn: Spawn::None,
            env: Vec::new(),
            focus: None,
            term: String::new(),
            term_program: String::new(),
            colorterm: String::new(),
            foreground: None,
            background: None,
            capabilities: Capabilities::default(),
            ctx: Ctx::default(),
        }
    }
}

/// What a client's terminal can do: what its names tell, then what its user says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminal {
    pub pointer_shapes: bool,
    pub truecolor: bool,
    pub sync_output: bool,
    pub osc8: bool,
    pub underline_style: bool,
    pub kitty_images: bool,
    pub color: bool,
}

impl Hello {
    /// The terminal is one of those that can do little, or nothing is known of it.
    pub fn is_plain(&self) -> bool {
        ["dumb", "linux"].contains(&self.term.as_str()) || self.term.is_empty() && self.term_program.is_empty()
    }

    pub fn terminal(&self) -> Terminal {
        let (term, program) = (self.term.as_str(), self.term_program.as_str());
        let (said, plain) = (&self.capabilities, self.is_plain());
        let (warp, kitty) = (program == "WarpTerminal", term == "xterm-kitty" || program == "kitty");
        let styled = kitty
            || ["xterm-ghostty", "wezterm"].contains(&term)
            || ["ghostty", "WezTerm", "iTerm.app", "Apple_Terminal"].contains(&program);
        let truecolor = ["truecolor", "24bit"].contains(&self.colorterm.as_str());
        // Not a field of its own: capsules that know nothing of it drop the variable.
        let no_color = self.env.iter().any(|(key, value)| key == NO_COLOR && !value.is_empty());
        let color = !no_color && term != "dumb";
        Terminal {
            pointer_shapes: said.pointer_shapes.or(!plain && !warp),
            truecolor: color && said.truecolor.or(!plain && truecolor),
            sync_output: said.sync_output.or(!plain),
            osc8: said.osc8.or(!plain),
            underline_style: said.underline_style.or(!plain && styled),
            kitty_images: match said.image_protocol {
                ImageProtocol::Unset => !plain && kitty,
                ImageProtocol::None => false,
                ImageProtocol::Kitty => true,
            },
            color,
        }
    }
}

/// The variable that the hello's env carries when the client's terminal is to show no colours.
pub const NO_COLOR: &str = "NO_COLOR";

impl Tri {
    fn or(self, detected: bool) -> bool {
        match self {
            Self::Unset => detected,
            Self::Off => false,
            Self::On => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ImageFormat {
    Png = 1,
    Jpeg,
    Gif,
    WebP,
    Tiff,
}

impl ImageFormat {
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::Gif, Self::WebP, Self::Tiff];

    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|format| *format as u8 == byte)
    }

    /// What the first bytes of a file say it is.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            _ => None,
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
        }
    }
}

/// The kind of `AttachControl` that tells the terminal's colours, which may be known only after the hello. Capsules that
/// do not know it reject it and go on.
pub const COLOURS: u8 = 9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    Hello(Box<Hello>),
    Resize { rows: u16, cols: u16 },
    Input(Vec<u8>),
    Command(Vec<u8>),
    Detach,
    FocusIn,
    FocusOut,
    ClipboardImage { format: u8, bytes: Vec<u8> },
    ImageStart { transfer: u64, format: u8, size: u64 },
    ImageChunk { transfer: u64, offset: u64, bytes: Vec<u8> },
    ImageEnd { transfer: u64, sha256: [u8; 32] },
    ImageError(String),
    HostNotice(String),
    AttachControl { kind: u8, request: u64, ctx: String, body: Vec<u8> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    Welcome { sessions: u32 },
    Output(Vec<u8>),
    SessionList(String),
    Shutdown(ShutdownReason),
    Bell,
    HostOpenUrl(String),
    FileExportStart { transfer: u64, size: u64, reveal: bool, open: bool, source: String, name: String },
    FileExportChunk { transfer: u64, offset: u64, bytes: Vec<u8> },
    FileExportEnd { transfer: u64, sha256: [u8; 32] },
    StageImageFromPath,
    PasteImage,
    StageImage,
    HostRevealPath(String),
    AttachControlResponse { request: u64, result: u8 },
}

/// Why the capsule ends an attachment. On the wire it is the optional text of the Shutdown frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShutdownReason {
    Unsaid,
    Detached,
    TakenOver,
    /// The last session ended; the code is absent when a signal ended it.
    SessionEnded(Option<i32>),
    Other(String),
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => Ok(()),
            Self::Detached => f.write_str("detached"),
            Self::TakenOver => f.write_str("taken over by another client"),
            Self::SessionEnded(None) => f.write_str("last session ended"),
            Self::SessionEnded(Some(code)) => write!(f, "last session ended with {code}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&str> for ShutdownReason {
    fn from(text: &str) -> Self {
        match text {
            "" => Self::Unsaid,
            "detached" => Self::Detached,
            "taken over by another client" => Self::TakenOver,
            "last session ended" => Self::SessionEnded(None),
            other => match other.strip_prefix("last session ended with ").map(str::parse) {
                Some(Ok(code)) => Self::SessionEnded(Some(code)),
                _ => Self::Other(other.to_owned()),
            },
        }
    }
}

/// The largest payload a frame of this tag may have; unknown tags get none, so that a stray byte cannot ask for memory.
pub fn payload_limit(tag: u8) -> Result<usize> {
    match tag {
        0x08..=0x0b | 0x0e => Ok(MAX_IMAGE_PAYLOAD),
        0x01..=0x0d | 0x81..=0x8e => Ok(MAX_PAYLOAD),
        other => Err(WireError::UnknownTag(other)),
    }
}

/// Splits a header into tag and checked payload length.
pub fn decode_header(header: [u8; HEADER_LEN]) -> Result<(u8, usize)> {
    let [tag, length @ ..] = header;
    let len = u32::from_be_bytes(length) as usize;
    let limit = payload_limit(tag)?;
    if len > limit {
        return Err(WireError::TooLarge { len, limit });
    }
    Ok((tag, len))
}

impl ClientFrame {
    /// An `AttachControl` of the kind `COLOURS`.
    pub fn colours(foreground: Option<Rgb>, background: Option<Rgb>) -> Self {
        let mut w = Writer(Vec::new());
        w.colours(foreground, background);
        Self::AttachControl { kind: COLOURS, request: 0, ctx: String::new(), body: w.0 }
    }

    /// Foreground and background out of the body of such a frame.
    pub fn read_colours(body: &[u8]) -> Result<(Option<Rgb>, Option<Rgb>)> {
        let mut r = Reader(body);
        let colours = r.colours()?;
        r.finish()?;
        Ok(colours)
    }

    pub fn decode(tag: u8, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let frame = match tag {
            0x01 => Self::Hello(Box::new(Hello::read(&mut r)?)),
            0x02 => Self::Resize { rows: r.u16()?, cols: r.u16()? },
            0x03 => Self::Input(r.rest()),
            0x04 => Self::Command(r.rest()),
            0x05 => Self::Detach,
            0x06 => Self::FocusIn,
            0x07 => Self::FocusOut,
            0x08 => Self::ClipboardImage { format: r.u8()?, bytes: r.rest() },
            0x09 => Self::ImageStart { transfer: r.u64()?, format: r.u8()?, size: r.u64()? },
            0x0a => Self::ImageChunk { transfer: r.u64()?, offset: r.u64()?, bytes: r.chunk()? },
            0x0b => Self::ImageEnd { transfer: r.u64()?, sha256: r.array()? },
            0x0c => Self::ImageError(r.text("image error", MAX_IMAGE_ERROR)?),
            0x0d => Self::HostNotice(r.text("notice", MAX_NOTICE)?),
            0x0e => Self::AttachControl {
                kind: r.u8()?,
                request: r.u64()?,
                ctx: r.string16("control context", usize::from(u16::MAX))?,
                body: r.rest(),
            },
            other => return Err(WireError::UnknownTag(other)),
        };
        r.finish()?;
        Ok(frame)
    }

    /// The whole frame, header included. Fails rather than emit a frame that the other side must refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut w = Writer::default();
        let tag = match self {
            Self::Hello(hello) => {
                hello.write(&mut w)?;
                0x01
            }
            Self::Resize { rows, cols } => {
                w.u16(*rows);
                w.u16(*cols);
                0x02
            }
            Self::Input(bytes) => {
                w.bytes(bytes);
                0x03
            }
            Self::Command(bytes) => {
                w.bytes(bytes);
                0x04
            }
            Self::Detach => 0x05,
            Self::FocusIn => 0x06,
            Self::FocusOut => 0x07,
            Self::ClipboardImage { format, bytes } => {
                w.u8(*format);
                w.bytes(bytes);
                0x08
            }
            Self::ImageStart { transfer, format, size } => {
                w.u64(*transfer);
                w.u8(*format);
                w.u64(*size);
                0x09
            }
            Self::ImageChunk { transfer, offset, bytes } => {
                w.u64(*transfer);
                w.u64(*offset);
                w.limited("image chunk", bytes, MAX_CHUNK)?;
                0x0a
            }
            Self::ImageEnd { transfer, sha256 } => {
                w.u64(*transfer);
                w.bytes(sha256);
                0x0b
            }
            Self::ImageError(text) => {
                w.limited("image error", text.as_bytes(), MAX_IMAGE_ERROR)?;
                0x0c
            }
            Self::HostNotice(text) => {
                w.limited("notice", text.as_bytes(), MAX_NOTICE)?;
                0x0d
            }
            Self::AttachControl { kind, request, ctx, body } => {
                w.u8(*kind);
                w.u64(*request);
                w.string16("control context", ctx, usize::from(u16::MAX))?;
                w.bytes(body);
                0x0e
            }
        };
        w.frame(tag)
    }
}

impl ServerFrame {
    pub fn decode(tag: u8, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let frame = match tag {
            0x81 => Self::Welcome { sessions: r.u32()? },
            0x82 => Self::Output(r.rest()),
            0x83 => Self::SessionList(r.text("session list", MAX_PAYLOAD)?),
            0x84 => Self::Shutdown(ShutdownReason::from(r.text("reason", MAX_PAYLOAD)?.as_str())),
            0x85 => Self::Bell,
            0x86 => Self::HostOpenUrl(r.text("url", MAX_PAYLOAD)?),
            0x87 => {
                let (transfer, size) = (r.u64()?, r.u64()?);
                let (source_len, name_len) = (usize::from(r.u16()?), usize::from(r.u16()?));
                let (reveal, open) = (r.flag("reveal")?, r.flag("open")?);
                Self::FileExportStart {
                    transfer,
                    size,
                    reveal,
                    open,
                    source: r.string("export path", source_len, MAX_PATH)?,
                    name: r.string("export name", name_len, MAX_NAME)?,
                }
            }
            0x88 => Self::FileExportChunk { transfer: r.u64()?, offset: r.u64()?, bytes: r.chunk()? },
            0x89 => Self::FileExportEnd { transfer: r.u64()?, sha256: r.array()? },
            0x8a => Self::StageImageFromPath,
            0x8b => Self::PasteImage,
            0x8c => Self::StageImage,
            0x8d => Self::HostRevealPath(r.text("reveal path", MAX_PATH)?),
            0x8e => Self::AttachControlResponse { request: r.u64()?, result: r.u8()? },
            other => return Err(WireError::UnknownTag(other)),
        };
        r.finish()?;
        Ok(frame)
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut w = Writer::default();
        let tag = match self {
            Self::Welcome { sessions } => {
                w.u32(*sessions);
                0x81
            }
            Self::Output(bytes) => {
                w.bytes(bytes);
                0x82
            }
            Self::SessionList(json) => {
                w.bytes(json.as_bytes());
                0x83
            }
            Self::Shutdown(reason) => {
                w.bytes(reason.to_string().as_bytes());
                0x84
            }
            Self::Bell => 0x85,
            Self::HostOpenUrl(url) => {
                w.bytes(url.as_bytes());
                0x86
            }
            Self::FileExportStart { transfer, size, reveal, open, source, name } => {
                w.u64(*transfer);
                w.u64(*size);
                w.length16("export path", source, MAX_PATH)?;
                w.length16("export name", name, MAX_NAME)?;
                w.u8(u8::from(*reveal));
                w.u8(u8::from(*open));
                w.bytes(source.as_bytes());
                w.bytes(name.as_bytes());
                0x87
            }
            Self::FileExportChunk { transfer, offset, bytes } => {
                w.u64(*transfer);
                w.u64(*offset);
                w.limited("export chunk", bytes, MAX_CHUNK)?;
                0x88
            }
            Self::FileExportEnd { transfer, sha256 } => {
                w.u64(*transfer);
                w.bytes(sha256);
                0x89
            }
            Self::StageImageFromPath => 0x8a,
            Self::PasteImage => 0x8b,
            Self::StageImage => 0x8c,
            Self::HostRevealPath(path) => {
                w.limited("reveal path", path.as_bytes(), MAX_PATH)?;
                0x8d
            }
            Self::AttachControlResponse { request, result } => {
                w.u64(*request);
                w.u8(*result);
                0x8e
            }
        };
        w.frame(tag)
    }
}

impl Hello {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let (rows, cols) = (r.u16()?, r.u16()?);
        let kind = r.u8()?;
        let agent = r.string16("agent", usize::from(u16::MAX))?;
        let spawn = match kind {
            0 => Spawn::None,
            1 => Spawn::Shell,
            2 => Spawn::Agent(agent),
            3 => Spawn::AgentWithProvider { agent, provider: r.string16("provider", MAX_PROVIDER_LABEL)? },
            other => {
                return Err(WireError::BadValue { field: "spawn kind", value: u64::from(other) });
            }
        };
        let count = usize::from(r.u16()?);
        if count > MAX_ENV_ENTRIES {
            return Err(WireError::FieldTooLong { field: "env", len: count, limit: MAX_ENV_ENTRIES });
        }
        let mut env = Vec::with_capacity(count);
        for _ in 0..count {
            let (key_len, value_len) = (usize::from(r.u16()?), r.u32()? as usize);
            let key = r.string("env key", key_len, MAX_ENV_KEY)?;
            env.push((key, r.string("env value", value_len, MAX_ENV_VALUE)?));
        }
        let focus = if r.flag("focus")? { Some(r.u64()?) } else { None };
        let term = r.string16("TERM", MAX_TERMINAL_FIELD)?;
        let term_program = r.string16("TERM_PROGRAM", MAX_TERMINAL_FIELD)?;
        let colorterm = r.string16("COLORTERM", MAX_TERMINAL_FIELD)?;
        let (foreground, background) = r.colours()?;
        // Older clients end here, or after the capabilities.
        let capabilities = if r.0.is_empty() { Capabilities::default() } else { Capabilities::read(r)? };
        let ctx = if r.0.is_empty() { Ctx::default() } else { read_ctx(r)? };
        Ok(Self { rows, cols, spawn, env, focus, term, term_program, colorterm, foreground, background, capabilities, ctx })
    }

    fn write(&self, w: &mut Writer) -> Result<()> {
        w.u16(self.rows);
        w.u16(self.cols);
        let (kind, agent, provider) = match &self.spawn {
            Spawn::None => (0, "", None),
            Spawn::Shell => (1, "", None),
            Spawn::Agent(agent) => (2, agent.as_str(), None),
            Spawn::AgentWithProvider { agent, provider } => (3, agent.as_str(), Some(provider)),
        };
        w.u8(kind);
        w.string16("agent", agent, usize::from(u16::MAX))?;
        if let Some(provider) = provider {
            w.string16("provider", provider, MAX_PROVIDER_LABEL)?;
        }
        if self.env.len() > MAX_ENV_ENTRIES {
            return Err(WireError::FieldTooLong { field: "env", len: self.env.len(), limit: MAX_ENV_ENTRIES });
        }
        w.u16(self.env.len() as u16);
        for (key, value) in &self.env {
            w.length16("env key", key, MAX_ENV_KEY)?;
            check_len("env value", value.len(), MAX_ENV_VALUE)?;
            w.u32(value.len() as u32);
            w.bytes(key.as_bytes());
            w.bytes(value.as_bytes());
        }
        w.u8(u8::from(self.focus.is_some()));
        if let Some(session) = self.focus {
            w.u64(session);
        }
        w.string16("TERM", &self.term, MAX_TERMINAL_FIELD)?;
        w.string16("TERM_PROGRAM", &self.term_program, MAX_TERMINAL_FIELD)?;
        w.string16("COLORTERM", &self.colorterm, MAX_TERMINAL_FIELD)?;
        w.colours(self.foreground, self.background);
        self.capabilities.write(w);
        let ctx = serde_json::to_string(&self.ctx).map_err(|e| WireError::Context(e.to_string()))?;
        w.string16("context", &ctx, usize::from(u16::MAX))
    }
}

fn read_ctx(r: &mut Reader<'_>) -> Result<Ctx> {
    let text = r.string16("context", usize::from(u16::MAX))?;
    if text.is_empty() {
        return Ok(Ctx::default());
    }
    serde_json::from_str(&text).map_err(|e| WireError::Context(e.to_string()))
}

impl Capabilities {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            pointer_shapes: r.tri()?,
            truecolor: r.tri()?,
            sync_output: r.tri()?,
            osc8: r.tri()?,
            underline_style: r.tri()?,
            image_protocol: match r.u8()? {
                0 => ImageProtocol::Unset,
                1 => ImageProtocol::None,
                2 => ImageProtocol::Kitty,
                other => {
                    return Err(WireError::BadValue { field: "image protocol", value: u64::from(other) });
                }
            },
        })
    }

    fn write(&self, w: &mut Writer) {
        for tri in [self.pointer_shapes, self.truecolor, self.sync_output, self.osc8, self.underline_style] {
            w.u8(tri as u8);
        }
        w.u8(self.image_protocol as u8);
    }
}

fn check_len(field: &'static str, len: usize, limit: usize) -> Result<()> {
    if len > limit { Err(WireError::FieldTooLong { field, len, limit }) } else { Ok(()) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        let head = *head;
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn flag(&mut self, field: &'static str) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::BadValue { field, value: u64::from(other) }),
        }
    }

    fn tri(&mut self) -> Result<Tri> {
        match self.u8()? {
            0 => Ok(Tri::Unset),
            1 => Ok(Tri::Off),
            2 => Ok(Tri::On),
            other => Err(WireError::BadValue { field: "capability", value: u64::from(other) }),
        }
    }

    fn colours(&mut self) -> Result<(Option<Rgb>, Option<Rgb>)> {
        let mut colour = |field| Ok(if self.flag(field)? { Some(self.array()?) } else { None });
        Ok((colour("foreground")?, colour("background")?))
    }

    fn string(&mut self, field: &'static str, len: usize, limit: usize) -> Result<String> {
        check_len(field, len, limit)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Utf8(field))
    }

    fn string16(&mut self, field: &'static str, limit: usize) -> Result<String> {
        let len = usize::from(self.u16()?);
        self.string(field, len, limit)
    }

    /// Everything left, as text.
    fn text(&mut self, field: &'static str, limit: usize) -> Result<String> {
        self.string(field, self.0.len(), limit)
    }

    fn chunk(&mut self) -> Result<Vec<u8>> {
        check_len("chunk", self.0.len(), MAX_CHUNK)?;
        Ok(self.rest())
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

/// Builds a payload behind room for the header, so that a frame is one allocation and one write.
struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self(vec![0; HEADER_LEN])
    }
}

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn limited(&mut self, field: &'static str, bytes: &[u8], limit: usize) -> Result<()> {
        check_len(field, bytes.len(), limit)?;
        self.bytes(bytes);
        Ok(())
    }

    fn colours(&mut self, foreground: Option<Rgb>, background: Option<Rgb>) {
        for colour in [foreground, background] {
            self.u8(u8::from(colour.is_some()));
            self.bytes(colour.as_ref().map_or(&[], |rgb| rgb.as_slice()));
        }
    }

    fn length16(&mut self, field: &'static str, text: &str, limit: usize) -> Result<()> {
        check_len(field, text.len(), limit.min(usize::from(u16::MAX)))?;
        self.u16(text.len() as u16);
        Ok(())
    }

    fn string16(&mut self, field: &'static str, text: &str, limit: usize) -> Result<()> {
        self.length16(field, text, limit)?;
        self.bytes(text.as_bytes());
        Ok(())
    }

    fn frame(mut self, tag: u8) -> Result<Vec<u8>> {
        let len = self.0.len() - HEADER_LEN;
        let limit = payload_limit(tag)?;
        if len > limit {
            return Err(WireError::TooLarge { len, limit });
        }
        self.0[0] = tag;
        self.0[1..HEADER_LEN].copy_from_slice(&(len as u32).to_be_bytes());
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_client(frame: &[u8]) -> Result<ClientFrame> {
        let (tag, len) = decode_header(frame[..HEADER_LEN].try_into().unwrap())?;
        assert_eq!(len, frame.len() - HEADER_LEN);
        ClientFrame::decode(tag, &frame[HEADER_LEN..])
    }

    fn decode_server(frame: &[u8]) -> Result<ServerFrame> {
        let (tag, len) = decode_header(frame[..HEADER_LEN].try_into().unwrap())?;
        assert_eq!(len, frame.len() - HEADER_LEN);
        ServerFrame::decode(tag, &frame[HEADER_LEN..])
    }

    fn spawns() -> impl Strategy<Value = Spawn> {
        prop_oneof![
            Just(Spawn::None),
            Just(Spawn::Shell),
            "[a-z]{1,9}".prop_map(Spawn::Agent),
            ("[a-z]{1,9}", "\\PC{0,12}").prop_map(|(agent, provider)| Spawn::AgentWithProvider { agent, provider }),
        ]
    }

    fn tris() -> impl Strategy<Value = Tri> {
        prop_oneof![Just(Tri::Unset), Just(Tri::Off), Just(Tri::On)]
    }

    fn capabilities() -> impl Strategy<Value = Capabilities> {
        let image = prop_oneof![Just(ImageProtocol::Unset), Just(ImageProtocol::None), Just(ImageProtocol::Kitty)];
        (tris(), tris(), tris(), tris(), tris(), image).prop_map(|(a, b, c, d, e, image_protocol)| Capabilities {
            pointer_shapes: a,
            truecolor: b,
            sync_output: c,
            osc8: d,
            underline_style: e,
            image_protocol,
        })
    }

    fn hellos() -> impl Strategy<Value = Hello> {
        let terminal = ("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}");
        let env = proptest::collection::vec(("[A-Z_]{1,12}", "\\PC{0,20}"), 0..5);
        let mode = prop_oneof![Just(AttachMode::Takeover), Just(AttachMode::Shared), Just(AttachMode::Watch)];
        let ids = (any::<Option<u64>>(), any::<Option<Rgb>>(), any::<Option<Rgb>>(), any::<Option<String>>(), mode);
        (any::<(u16, u16)>(), spawns(), env, terminal, capabilities(), ids).prop_map(
            |((rows, cols), spawn, env, (term, term_program, colorterm), capabilities, ids)| Hello {
                rows,
                cols,
                spawn,
                env,
                focus: ids.0,
                term,
                term_program,
                colorterm,
                foreground: ids.1,
                background: ids.2,
                capabilities,
                ctx: Ctx { session_id: ids.3, mode: ids.4, ..Ctx::default() },
            },
        )
    }

    fn client_frames() -> impl Strategy<Value = ClientFrame> {
        let bytes = || any::<Vec<u8>>();
        prop_oneof![
            hellos().prop_map(|hello| ClientFrame::Hello(Box::new(hello))),
            any::<(u16, u16)>().prop_map(|(rows, cols)| ClientFrame::Resize { rows, cols }),
            bytes().prop_map(ClientFrame::Input),
            bytes().prop_map(ClientFrame::Command),
            Just(ClientFrame::Detach),
            Just(ClientFrame::FocusIn),
            Just(ClientFrame::FocusOut),
            (any::<u8>(), bytes()).prop_map(|(format, bytes)| ClientFrame::ClipboardImage { format, bytes }),
            any::<(u64, u8, u64)>().prop_map(|(transfer, format, size)| ClientFrame::ImageStart { transfer, format, size }),
            (any::<(u64, u64)>(), bytes()).prop_map(|((transfer, offset), bytes)| { ClientFrame::ImageChunk { transfer, offset, bytes } }),
            any::<(u64, [u8; 32])>().prop_map(|(transfer, sha256)| ClientFrame::ImageEnd { transfer, sha256 }),
            "\\PC{0,20}".prop_map(ClientFrame::ImageError),
            "\\PC{0,20}".prop_map(ClientFrame::HostNotice),
            (any::<(u8, u64)>(), "\\PC{0,20}", bytes())
                .prop_map(|((kind, request), ctx, body)| { ClientFrame::AttachControl { kind, request, ctx, body } }),
        ]
    }

    fn server_frames() -> impl Strategy<Value = ServerFrame> {
        let reason = prop_oneof![
            Just(ShutdownReason::Unsaid),
            Just(ShutdownReason::Detached),
            Just(ShutdownReason::TakenOver),
            any::<Option<i32>>().prop_map(ShutdownReason::SessionEnded),
            "[a-k ]{1,20}".prop_map(ShutdownReason::Other),
        ];
        prop_oneof![
            any::<u32>().prop_map(|sessions| ServerFrame::Welcome { sessions }),
            any::<Vec<u8>>().prop_map(ServerFrame::Output),
            "\\PC{0,40}".prop_map(ServerFrame::SessionList),
            reason.prop_map(ServerFrame::Shutdown),
            Just(ServerFrame::Bell),
            "\\PC{0,40}".prop_map(ServerFrame::HostOpenUrl),
            (any::<(u64, u64, bool, bool)>(), "\\PC{0,40}", "\\PC{0,40}").prop_map(|((transfer, size, reveal, open), source, name)| {
                ServerFrame::FileExportStart { transfer, size, reveal, open, source, name }
            }),
            any::<(u64, u64, Vec<u8>)>().prop_map(|(transfer, offset, bytes)| { ServerFrame::FileExportChunk { transfer, offset, bytes } }),
            any::<(u64, [u8; 32])>().prop_map(|(transfer, sha256)| ServerFrame::FileExportEnd { transfer, sha256 }),
            Just(ServerFrame::StageImageFromPath),
            Just(ServerFrame::PasteImage),
            Just(ServerFrame::StageImage),
            "\\PC{0,40}".prop_map(ServerFrame::HostRevealPath),
            any::<(u64, u8)>().prop_map(|(request, result)| ServerFrame::AttachControlResponse { request, result }),
        ]
    }

    proptest! {
        #[test]
        fn client_frames_survive_the_wire(frame in client_frames()) {
            prop_assert_eq!(decode_client(&frame.encode().unwrap()), Ok(frame));
        }

        #[test]
        fn server_frames_survive_the_wire(frame in server_frames()) {
            prop_assert_eq!(decode_server(&frame.encode().unwrap()), Ok(frame));
        }

        #[test]
        fn colours_survive_the_wire(foreground in any::<Option<Rgb>>(), background in any::<Option<Rgb>>()) {
            let ClientFrame::AttachControl { kind: COLOURS, body, .. } = ClientFrame::colours(foreground, background) else { panic!() };
            prop_assert_eq!(ClientFrame::read_colours(&body), Ok((foreground, background)));
            prop_assert!(ClientFrame::read_colours(&body[1..]).is_err());
        }

        #[test]
        fn a_cut_hello_is_an_error_or_an_older_hello(hello in hellos(), cut in any::<prop::sample::Index>()) {
            let frame = ClientFrame::Hello(Box::new(hello)).encode().unwrap();
            let payload = &frame[HEADER_LEN..];
            let shorter = &payload[..cut.index(payload.len())];
            match ClientFrame::decode(0x01, shorter) {
                Ok(ClientFrame::Hello(older)) => prop_assert_eq!(older.ctx, Ctx::default()),
                Ok(other) => prop_assert!(false, "a hello became {other:?}"),
                Err(_) => {}
            }
        }

        #[test]
        fn random_bytes_never_panic(tag in any::<u8>(), payload in any::<Vec<u8>>(), header in any::<[u8; HEADER_LEN]>()) {
            if let Ok(frame) = ClientFrame::decode(tag, &payload) {
                prop_assert_eq!(ClientFrame::decode(tag, &frame.encode().unwrap()[HEADER_LEN..]), Ok(frame));
            }
            if let Ok(frame) = ServerFrame::decode(tag, &payload) {
                prop_assert_eq!(ServerFrame::decode(tag, &frame.encode().unwrap()[HEADER_LEN..]), Ok(frame));
            }
            if let Ok((tag, len)) = decode_header(header) {
                prop_assert!(len <= payload_limit(tag).unwrap());
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_reference() {
        assert_eq!(ClientFrame::Resize { rows: 24, cols: 80 }.encode().unwrap(), [0x02, 0, 0, 0, 4, 0, 24, 0, 80]);
        assert_eq!(ServerFrame::Welcome { sessions: 1 }.encode().unwrap(), [0x81, 0, 0, 0, 4, 0, 0, 0, 1]);
        let hello = Hello {
            rows: 2,
            cols: 3,
            spawn: Spawn::AgentWithProvider { agent: "ab".into(), provider: "c".into() },
            env: vec![("K".into(), "v".into())],
            focus: Some(7),
            foreground: Some([1, 2, 3]),
            capabilities: Capabilities { sync_output: Tri::On, image_protocol: ImageProtocol::Kitty, ..Default::default() },
            ..Hello::default()
        };
        let frame = ClientFrame::Hello(Box::new(hello)).encode().unwrap();
        let expected = [
            &[0, 2, 0, 3, 3, 0, 2, b'a', b'b', 0, 1, b'c'][..],
            &[0, 1, 0, 1, 0, 0, 0, 1, b'K', b'v'],
            &[1, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0],
            &[1, 1, 2, 3, 0],
            &[0, 0, 2, 0, 0, 2],
            &[0, 7],
            b"{\"v\":1}",
        ]
        .concat();
        assert_eq!(&frame[HEADER_LEN..], expected);
    }

    #[test]
    fn limits_hold_both_ways() {
        assert!(matches!(decode_header([0x03, 0, 0x40, 0, 1]), Err(WireError::TooLarge { .. })));
        assert_eq!(decode_header([0x08, 0, 0x40, 0, 1]), Ok((0x08, MAX_PAYLOAD + 1)));
        assert_eq!(decode_header([0x7f, 0, 0, 0, 0]), Err(WireError::UnknownTag(0x7f)));
        assert!(ClientFrame::Input(vec![0; MAX_PAYLOAD + 1]).encode().is_err());
        assert!(ClientFrame::HostNotice("x".repeat(MAX_NOTICE + 1)).encode().is_err());
        let crowded = Hello { env: vec![("A".into(), "b".into()); MAX_ENV_ENTRIES + 1], ..Hello::default() };
        assert!(ClientFrame::Hello(Box::new(crowded)).encode().is_err());
        assert_eq!(ClientFrame::decode(0x05, b"x"), Err(WireError::Trailing(1)));
    }

    #[test]
    fn the_mode_is_written_only_when_an_older_capsule_must_not_take_it_for_another() {
        let context = |mode| serde_json::to_string(&Ctx { mode, ..Ctx::default() }).unwrap();
        assert_eq!(context(AttachMode::Takeover), r#"{"v":1}"#);
        assert_eq!(context(AttachMode::Watch), r#"{"v":1,"mode":"watch"}"#);
        // A key of a later version is an error that says so.
        let later = serde_json::from_str::<Ctx>(r#"{"v":1,"mode":"watch","colour":"loud"}"#).unwrap_err().to_string();
        assert!(later.contains("unknown field `colour`"), "{later}");
    }

    #[test]
    fn terminals_are_known_by_their_names() {
        let of = |term: &str, term_program: &str, colorterm: &str| Hello {
            term: term.into(),
            term_program: term_program.into(),
            colorterm: colorterm.into(),
            ..Hello::default()
        };
        let all = Terminal {
            pointer_shapes: true,
            truecolor: true,
            sync_output: true,
            osc8: true,
            underline_style: true,
            kitty_images: true,
            color: true,
        };
        assert_eq!(of("xterm-kitty", "", "truecolor").terminal(), all);
        assert_eq!(of("xterm-ghostty", "ghostty", "24bit").terminal(), Terminal { kitty_images: false, ..all });
        assert_eq!(of("dumb", "WezTerm", "truecolor").terminal(), Terminal::default());
        for (term, program) in [("linux", ""), ("", "")] {
            assert_eq!(of(term, program, "").terminal(), Terminal { color: true, ..Terminal::default() });
        }
        let xterm = Terminal { truecolor: false, underline_style: false, kitty_images: false, ..all };
        assert_eq!(of("xterm-256color", "", "").terminal(), xterm);
        assert_eq!(of("xterm-256color", "WarpTerminal", "").terminal(), Terminal { pointer_shapes: false, ..xterm });
        assert_eq!(of("xterm-256color", "Apple_Terminal", "").terminal(), Terminal { underline_style: true, ..xterm });
    }

    #[test]
    fn what_the_user_says_wins_over_names_and_no_color_over_both() {
        let mut hello = Hello { term: "linux".into(), ..Hello::default() };
        hello.capabilities =
            Capabilities { truecolor: Tri::On, osc8: Tri::On, image_protocol: ImageProtocol::Kitty, ..Capabilities::default() };
        let expected = Terminal { truecolor: true, osc8: true, kitty_images: true, color: true, ..Terminal::default() };
        assert_eq!(hello.terminal(), expected);
        hello.env.push((NO_COLOR.into(), "1".into()));
        assert_eq!(hello.terminal(), Terminal { truecolor: false, color: false, ..expected });
        hello.env = vec![(NO_COLOR.into(), String::new())];
        assert!(hello.terminal().color, "an empty NO_COLOR means nothing");
        let mut kitty = Hello { term: "xterm-kitty".into(), ..Hello::default() };
        kitty.capabilities = Capabilities { sync_output: Tri::Off, image_protocol: ImageProtocol::None, ..Capabilities::default() };
        assert!(!kitty.terminal().sync_output && !kitty.terminal().kitty_images);
    }

    #[test]
    fn images_are_known_by_their_first_bytes() {
        for format in ImageFormat::ALL {
            assert_eq!(ImageFormat::from_wire(format as u8), Some(format));
        }
        assert_eq!(ImageFormat::from_wire(0), None);
        for (bytes, extension) in [
            (&b"\x89PNG\r\n\x1a\n..."[..], "png"),
            (b"\xff\xd8\xff\xe0", "jpg"),
            (b"GIF89a.", "gif"),
            (b"RIFF\0\0\0\0WEBPVP8", "webp"),
            (b"II*\0", "tiff"),
            (b"MM\0*", "tiff"),
        ] {
            assert_eq!(ImageFormat::of(bytes).map(ImageFormat::extension), Some(extension));
        }
        assert_eq!(ImageFormat::of(b"\x89PNG"), None);
        assert_eq!(ImageFormat::of(b""), None);
    }
}
