//! The life of an attachment: keys to the capsule, its picture to the terminal, and the search for it when it is lost.
//! One task, and nothing in it waits for one side only: a terminal that does not take the picture makes the capsule
//! wait, never the keys. Absent: how streams are opened, what frames look like, what the host does at its desk.

use std::future::{Future, pending};
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::inbox::Inbox;
use super::keys::{ASK_COLOURS, Answers, WayOut, image_paste};
use super::terminal::{self, Keyboard, Picture, RawTerminal, Signals};
use super::{Face, FromDesk, Outcome, STARTING, ToDesk};
use crate::wire::{AttachMode, ClientFrame, Hello, ServerFrame, ShutdownReason, Spawn};

/// How long a lost connection is sought again; a mux that died is back long before.
const SEEK: Duration = Duration::from_secs(30);
const NOTICE_AFTER: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What is typed faster than it can be sent; more waits in the terminal, or is dropped while there is no capsule.
const MAX_TYPED: usize = 64 << 10;
/// A terminal that answers, does so within this time.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Half an answer is held no longer.
const HOLD: Duration = Duration::from_millis(50);
const REFUSED: &str = "the capsule closes every connection without a word: it has too many clients, or is of another version";
const NO_HOST: &str = "this client runs inside the container, `jackin hardline` on the host can do that";

pub struct Relay {
    hello: Hello,
    guard: RawTerminal,
    keyboard: Keyboard,
    picture: Picture,
    signals: Signals,
    started: Instant,
    answers: Answers,
    /// When what `answers` holds is let go.
    hold_until: Option<Instant>,
    way_out: WayOut,
    /// Typed and not yet on its way.
    typed: Vec<u8>,
    to_desk: Option<mpsc::Sender<ToDesk>>,
    from_desk: Option<mpsc::Receiver<FromDesk>>,
    /// For the desk, which is busy. Nothing more is taken from the capsule meanwhile.
    for_desk: Option<ToDesk>,
    /// What the desk is asked about; keys wait for the answer, or they would overtake it.
    pasted: Option<Vec<u8>>,
    /// Of our own, for the terminal, before the next piece of the picture.
    notes: Vec<u8>,
}

enum Ended {
    Said(Outcome),
    /// The stream broke off.
    Silent {
        welcomed: bool,
    },
}

/// For a capsule that is lost.
struct Search {
    since: Instant,
    pause: Duration,
    notice_at: Option<Instant>,
}

impl Search {
    fn begin() -> Self {
        let since = Instant::now();
        Self { since, pause: FIRST_PAUSE, notice_at: Some(since + NOTICE_AFTER) }
    }
}

/// Frames on their way to the capsule.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// What of it was typed, to be typed again if it does not leave.
    typed: Vec<u8>,
}

impl Outbox {
    fn push(&mut self, frame: &ClientFrame) {
        // Only a frame beyond its limits cannot be encoded, and none here comes near them.
        if let Ok(bytes) = frame.encode() {
            self.bytes.extend(bytes);
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            *self = Self::default();
        }
    }
}

enum Flow {
    Goes,
    TerminalGone,
    CapsuleGone,
}

/// The next thing between capsule and terminal that waits for one of them. Nothing is lost when this is dropped.
async fn flow<R: AsyncRead + Unpin>(inbox: &mut Inbox, notes: &mut Vec<u8>, picture: &mut Picture, reader: &mut R, held_up: bool) -> Flow {
    let written = if !notes.is_empty() {
        picture.write(notes).await.map(|count| drop(notes.drain(..count)))
    } else if !inbox.picture().is_empty() {
        picture.write(inbox.picture()).await.map(|count| inbox.shown(count))
    } else if held_up {
        pending().await
    } else {
        return match reader.read_buf(inbox.room()).await {
            Ok(1..) => Flow::Goes,
            Ok(0) | Err(_) => Flow::CapsuleGone,
        };
    };
    match written {
        Ok(()) => Flow::Goes,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Flow::Goes,
        Err(_) => Flow::TerminalGone,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits until the desk takes what is for it.
async fn hand_over(desk: Option<&mpsc::Sender<ToDesk>>, question: &mut Option<ToDesk>) {
    match desk {
        Some(desk) if question.is_some() => {
            let room = desk.reserve().await;
            if let (Ok(room), Some(question)) = (room, question.take()) {
                room.send(question);
            }
        }
        _ => pending().await,
    }
}

async fn said_by(desk: Option<&mut mpsc::Receiver<FromDesk>>) -> Option<FromDesk> {
    match desk {
        Some(desk) => desk.recv().await,
        None => pending().await,
    }
}

impl Relay {
    pub fn start(face: Face) -> io::Result<Self> {
        let (terminal, asks) = (face.hello.terminal(), !face.hello.is_plain());
        let mut first = Vec::new();
        if let Some(title) = &face.title {
            let title: String = title.chars().filter(|c| !c.is_control()).collect();
            first.extend(format!("\x1b]2;{title}\x07").into_bytes());
        }
        if asks {
            first.extend_from_slice(ASK_COLOURS);
        }
        let (keyboard, picture, signals) = (Keyboard::of_stdin()?, Picture::of_stdout()?, Signals::listen()?);
        let (to_desk, from_desk) = face.desk.map_or((None, None), |desk| (Some(desk.ask), Some(desk.said)));
        Ok(Self {
            hello: face.hello,
            guard: RawTerminal::enter(terminal.pointer_shapes, &first)?,
            keyboard,
            picture,
            signals,
            started: Instant::now(),
            answers: if asks { Answers::awaited() } else { Answers::default() },
            hold_until: None,
            way_out: WayOut::default(),
            typed: Vec::new(),
            to_desk,
            from_desk,
            for_desk: None,
            pasted: None,
            notes: Vec::new(),
        })
    }

    pub async fn run<S, F, C>(mut self, stream: S, mut connect: C) -> io::Result<Outcome>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = io::Result<S>>,
        C: FnMut() -> F,
    {
        let mut stream = stream;
        let mut search: Option<Search> = None;
        let mut ever_welcomed = false;
        loop {
            (self.hello.rows, self.hello.cols) = terminal::size();
            (self.hello.foreground, self.hello.background) = (self.answers.foreground, self.answers.background);
            match self.converse(stream).await {
                Ended::Said(outcome) => return Ok(outcome),
                Ended::Silent { welcomed } => {
                    if welcomed {
                        // What was to be started is; the new mux has it.
                        (self.hello.spawn, self.hello.focus) = (Spawn::None, None);
                        // Whoever was beside us comes back as well, and is not to be thrown out.
                        if self.hello.ctx.mode == AttachMode::Takeover {
                            self.hello.ctx.mode = AttachMode::Shared;
                        }
                        (search, ever_welcomed) = (None, true);
                    }
                    let search = search.get_or_insert_with(Search::begin);
                    if search.since.elapsed() > if ever_welcomed { SEEK } else { STARTING } {
                        return Ok(Outcome::Lost(REFUSED.to_owned()));
                    }
                    stream = match self.seek(&mut connect, search).await {
                        Ok(stream) => stream,
                        Err(outcome) => return Ok(outcome),
                    };
                }
            }
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: S) -> Ended {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
        let (mut welcomed, mut listened_to) = (false, true);
        outbox.push(&ClientFrame::Hello(Box::new(self.hello.clone())));
        let ended = loop {
            if self.for_desk.is_none() {
                match inbox.next() {
                    Ok(None) => {}
                    Ok(Some(frame)) => {
                        welcomed = true;
                        match self.obey(frame, &mut outbox) {
                            Some(outcome) => break Ended::Said(outcome),
                            None => continue,
                        }
                    }
                    Err(error) => break Ended::Said(Outcome::Lost(format!("the capsule sent something else than frames: {error}"))),
                }
            }
            if outbox.is_empty() && listened_to && !self.typed.is_empty() {
                outbox.typed = std::mem::take(&mut self.typed);
                outbox.push(&ClientFrame::Input(outbox.typed.clone()));
            }
            tokio::select! {
                biased;
                () = self.signals.ending.comes() => break Ended::Said(Outcome::Detached),
                read = self.keyboard.read(), if self.pasted.is_none() && self.typed.len() < MAX_TYPED => {
                    if self.leaves(read, &mut outbox) {
                        break Ended::Said(Outcome::Detached);
                    }
                }
                sent = writer.write(&outbox.bytes[outbox.sent..]), if listened_to && !outbox.is_empty() => match sent {
                    Ok(count @ 1..) => outbox.sent(count),
                    // Why nobody listens any more may still be there to be read.
                    Ok(0) | Err(_) => listened_to = false,
                },
                flow = flow(&mut inbox, &mut self.notes, &mut self.picture, &mut reader, self.for_desk.is_some()) => match flow {
                    Flow::Goes => {}
                    Flow::TerminalGone => break Ended::Said(Outcome::Detached),
                    Flow::CapsuleGone => break Ended::Silent { welcomed },
                },
                () = at(self.hold_until) => self.let_go(),
                _ = self.signals.resized.recv() => self.tell_size(&mut outbox),
                _ = self.signals.continued.recv() => {
                    if self.guard.enter_again().is_err() {
                        break Ended::Said(Outcome::Detached);
                    }
                    // Whatever the size, that is what makes it draw everything.
                    self.tell_size(&mut outbox);
                }
                () = hand_over(self.to_desk.as_ref(), &mut self.for_desk) => {}
                // An image must not fill the memory while the capsule does not read.
                said = said_by(self.from_desk.as_mut()), if outbox.is_empty() => self.hear(said, &mut outbox),
            }
        };
        // The capsule cannot have understood half a frame.
        let mut unsent = outbox.typed;
        unsent.append(&mut self.typed);
        self.typed = unsent;
        ended
    }

    fn tell_size(&self, outbox: &mut Outbox) {
        let (rows, cols) = terminal::size();
        outbox.push(&ClientFrame::Resize { rows, cols });
    }

    /// Takes what was typed; says whether it was the end.
    fn leaves(&mut self, read: Vec<u8>, outbox: &mut Outbox) -> bool {
        if read.is_empty() {
            return true;
        }
        let Some(read) = self.without_answers(read, Some(outbox)) else {
            return false;
        };
        if self.hello.ctx.mode == AttachMode::Watch {
            return self.way_out.is_taken_by(&read, true);
        }
        if let Some(desk) = &self.to_desk
            && let Some(paste) = image_paste(&read)
            && desk.try_send(ToDesk::Pasted { paste, read: read.clone() }).is_ok()
        {
            self.pasted = Some(read);
        } else {
            self.typed.extend(read);
        }
        false
    }

    /// What is left without the terminal's own answers, if anything is. The capsule is told what they say.
    fn without_answers(&mut self, read: Vec<u8>, outbox: Option<&mut Outbox>) -> Option<Vec<u8>> {
        if self.started.elapsed() > ANSWER_WITHIN {
            self.answers.be_late();
        }
        let known = (self.answers.foreground, self.answers.background);
        let read = self.answers.take(read);
        let (foreground, background) = (self.answers.foreground, self.answers.background);
        if let Some(outbox) = outbox.filter(|_| known != (foreground, background)) {
            outbox.push(&ClientFrame::colours(foreground, background));
        }
        self.hold_until = self.answers.is_holding().then(|| Instant::now() + HOLD);
        Some(read).filter(|read| !read.is_empty())
    }

    fn let_go(&mut self) {
        self.hold_until = None;
        let held = self.answers.release();
        if self.hello.ctx.mode != AttachMode::Watch {
            self.typed.extend(held);
        }
    }

    fn hear(&mut self, said: Option<FromDesk>, outbox: &mut Outbox) {
        match said {
            Some(FromDesk::Frame(frame)) => outbox.push(&frame),
            Some(FromDesk::Typed(bytes)) => {
                self.pasted = None;
                self.typed.extend(bytes);
            }
            None => {
                (self.to_desk, self.from_desk, self.for_desk) = (None, None, None);
                self.typed.extend(self.pasted.take().unwrap_or_default());
            }
        }
    }

    fn obey(&mut self, frame: ServerFrame, outbox: &mut Outbox) -> Option<Outcome> {
        match frame {
            ServerFrame::Shutdown(reason) => {
                return Some(match reason {
                    ShutdownReason::Detached => Outcome::Detached,
                    ShutdownReason::TakenOver => Outcome::TakenOver,
                    ShutdownReason::SessionEnded(code) => Outcome::SessionEnded(code),
                    ShutdownReason::Unsaid => Outcome::Lost("the capsule ended the attachment".to_owned()),
                    ShutdownReason::Other(text) => Outcome::Lost(text),
                });
            }
            ServerFrame::Bell => self.notes.push(0x07),
            // Pictures do not come here; welcome and lists are for programs.
            ServerFrame::Output(_)
            | ServerFrame::Welcome { .. }
            | ServerFrame::SessionList(_)
            | ServerFrame::AttachControlResponse { .. } => {}
            asked if self.to_desk.is_some() => self.for_desk = Some(ToDesk::Frame(asked)),
            ServerFrame::StageImageFromPath | ServerFrame::PasteImage | ServerFrame::StageImage => {
                outbox.push(&ClientFrame::ImageError(NO_HOST.to_owned()));
            }
            ServerFrame::HostOpenUrl(_) | ServerFrame::HostRevealPath(_) | ServerFrame::FileExportStart { .. } => {
                outbox.push(&ClientFrame::HostNotice(NO_HOST.to_owned()));
            }
            ServerFrame::FileExportChunk { .. } | ServerFrame::FileExportEnd { .. } => {}
        }
        None
    }

    /// Connects again, however often it takes. Keys are kept meanwhile.
    async fn seek<S, F, C>(&mut self, connect: &mut C, search: &mut Search) -> Result<S, Outcome>
    where
        F: Future<Output = io::Result<S>>,
        C: FnMut() -> F,
    {
        let (mut inbox, mut silence) = (Inbox::default(), tokio::io::empty());
        loop {
            let pause = search.pause;
            search.pause = (pause * 2).min(LONGEST_PAUSE);
            let attempt = async {
                sleep(pause).await;
                timeout(CONNECT_WITHIN, connect()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            tokio::pin!(attempt);
            let connected = loop {
                tokio::select! {
                    biased;
                    () = self.signals.ending.comes() => return Err(Outcome::Detached),
                    read = self.keyboard.read() => if self.leaves_unheard(read) {
                        return Err(Outcome::Detached);
                    },
                    () = at(self.hold_until) => self.let_go(),
                    () = at(search.notice_at) => {
                        search.notice_at = None;
                        self.notes.extend(notice());
                    }
                    flow = flow(&mut inbox, &mut self.notes, &mut self.picture, &mut silence, true) => {
                        if matches!(flow, Flow::TerminalGone) {
                            return Err(Outcome::Detached);
                        }
                    }
                    connected = &mut attempt => break connected,
                }
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::HostUnreachable => return Err(Outcome::Lost(error.to_string())),
                Err(_) if search.since.elapsed() > SEEK => {
                    return Err(Outcome::Lost(format!("the capsule has not answered for {} s", SEEK.as_secs())));
                }
                Err(_) => {}
            }
        }
    }

    fn leaves_unheard(&mut self, read: Vec<u8>) -> bool {
        if read.is_empty() {
            return true;
        }
        let Some(read) = self.without_answers(read, None) else {
            return false;
        };
        let watching = self.hello.ctx.mode == AttachMode::Watch;
        let leaves = self.way_out.is_taken_by(&read, watching);
        if !watching && self.typed.len() + read.len() <= MAX_TYPED {
            self.typed.extend(read);
        }
        leaves
    }
}

/// One line at the bottom, after whatever the capsule broke off in.
fn notice() -> Vec<u8> {
    let (rows, cols) = terminal::size();
    let text: String = " jackin: the capsule does not answer; trying again (Ctrl+\\ d leaves) ".chars().take(cols.into()).collect();
    format!("\x18\x1b[?2026l\x1b7\x1b[r\x1b[{rows};1H\x1b[0;7m\x1b[2K{text}\x1b[0m\x1b8").into_bytes()
}
