//! What the operator's terminal sends: bytes in; keys, mouse events and pastes out, and which commands keys stand for. What is
//! not ours keeps its bytes, so that a pane gets them as they came. Absent: panes, overlays, and time: how long half a
//! sequence may wait for its rest is for the caller to say.

use crate::layout::Direction;
use crate::mouse::{Button, Kind, Mouse, Wheel};

/// A sequence longer than this is no sequence.
pub const MAX_SEQUENCE: usize = 16 << 10;
/// A longer paste comes as several.
pub const MAX_PASTE: usize = 4 << 20;
const PASTE_END: &[u8] = b"\x1b[201~";
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

// ---- keys ----

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// What the key types: with Shift already applied, unless Control is held too.
    Char(char),
    Enter,
    Tab,
    /// Shift and Tab.
    BackTab,
    Backspace,
    Escape,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    Insert,
    Delete,
    F(u8),
    /// Only its bytes are known.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mods {
    pub shift: bool,
    pub alt: bool,
    pub ctrl: bool,
    /// Super or Hyper.
    pub logo: bool,
}

/// Only Kitty's protocol tells them apart; all else is a press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    Press,
    Repeat,
    Release,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub code: Code,
    pub mods: Mods,
    pub stroke: Stroke,
    /// As it came.
    pub raw: Vec<u8>,
}

impl From<Code> for Key {
    fn from(code: Code) -> Self {
        let chord = Chord { code, mods: Mods::default() };
        Self::of(chord, &chord.legacy(false))
    }
}

impl Key {
    fn of(chord: Chord, raw: &[u8]) -> Self {
        Self { code: chord.code, mods: chord.mods, stroke: Stroke::Press, raw: raw.to_vec() }
    }

    pub fn chord(&self) -> Chord {
        Chord { code: self.code, mods: self.mods }
    }

    /// The first key of bytes that arrived as `Event::Bytes`, and the rest of them. What is left of a broken sequence is one key.
    pub fn first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&byte, rest) = bytes.split_first()?;
        let plain = |code, len| Some((Self::of(Chord { code, mods: Mods::default() }, &bytes[..len]), &bytes[len..]));
        match byte {
            ESC => plain(if rest.is_empty() { Code::Escape } else { Code::Other }, bytes.len()),
            0..0x20 | 0x7f => Some((Self::of(Chord::of_control(byte), &[byte]), rest)),
            _ => match first_char(bytes) {
                Some(c) => plain(Code::Char(c), c.len_utf8()),
                None => plain(Code::Other, 1),
            },
        }
    }

    /// The bytes for a program that did not ask for Kitty's or xterm's long forms, although the terminal sent one.
    pub fn to_legacy(&self, app_cursor: bool) -> Vec<u8> {
        match self.stroke {
            _ if !is_long_form(&self.raw) => self.raw.clone(),
            Stroke::Release => Vec::new(),
            Stroke::Press | Stroke::Repeat => self.chord().legacy(app_cursor),
        }
    }
}

/// A key with its modifiers, whichever way it was spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    pub code: Code,
    pub mods: Mods,
}

const NAMES: [(&str, Code); 15] = [
    ("Space", Code::Char(' ')),
    ("Enter", Code::Enter),
    ("Tab", Code::Tab),
    ("Backspace", Code::Backspace),
    ("Escape", Code::Escape),
    ("Up", Code::Up),
    ("Down", Code::Down),
    ("Left", Code::Left),
    ("Right", Code::Right),
    ("Home", Code::Home),
    ("End", Code::End),
    ("PageUp", Code::PageUp),
    ("PageDown", Code::PageDown),
    ("Insert", Code::Insert),
    ("Delete", Code::Delete),
];

impl Chord {
    /// `C-x`, `A-S-Left`, `PageUp`, `0xNN` or one character.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix("0x") {
            let byte = u8::from_str_radix(hex, 16).ok().filter(u8::is_ascii)?;
            return Key::first(&[byte]).map(|(key, _)| key.chord());
        }
        let (mut mods, mut rest) = (Mods::default(), text);
        while let Some((mark @ ("C" | "A" | "S"), tail)) = rest.split_once('-') {
            match mark {
                "C" => mods.ctrl = true,
                "A" => mods.alt = true,
                _ => mods.shift = true,
            }
            rest = tail;
        }
        let mut chars = rest.chars();
        let code = match (NAMES.iter().find(|(name, _)| *name == rest), chars.next(), chars.next()) {
            (Some((_, code)), ..) => *code,
            (None, Some(c), None) if !mods.ctrl && c.is_control() => return Key::first(text.as_bytes()).map(|(key, _)| key.chord()),
            // With Shift it is another character.
            (None, Some(_), None) if mods.shift => return None,
            (None, Some(c), None) if !mods.ctrl => Code::Char(c),
            // Other than these a terminal cannot send with Control.
            (None, Some(c @ ('@'..='_' | 'a'..='z')), None) => Code::Char(c.to_ascii_lowercase()),
            _ => return None,
        };
        Some(Self { code, mods })
    }

    fn of_control(byte: u8) -> Self {
        let (code, ctrl) = match byte {
            b'\t' => (Code::Tab, false),
            b'\r' => (Code::Enter, false),
            ESC => (Code::Escape, false),
            0x7f => (Code::Backspace, false),
            0 => (Code::Char(' '), true),
            _ => (Code::Char((byte | 0x40).to_ascii_lowercase().into()), true),
        };
        Self { code, mods: Mods { ctrl, ..Mods::default() } }
    }

    /// Some chords share a byte, as Tab and `C-i` do; then the byte is either.
    fn is(self, key: &Key) -> bool {
        key.chord() == self || key.raw.len() == 1 && key.raw == self.legacy(false)
    }

    /// As terminals have always sent it. Empty when they never did.
    pub fn legacy(self, app_cursor: bool) -> Vec<u8> {
        let Mods { shift, alt, ctrl, .. } = self.mods;
        let typed = |c: char| [if alt { "\x1b" } else { "" }, c.encode_utf8(&mut [0; 4])].concat().into_bytes();
        let number = 1 + u8::from(shift) + 2 * u8::from(alt) + 4 * u8::from(ctrl);
        let letter = |letter: char, application: bool| match number {
            1 if application => format!("\x1bO{letter}").into_bytes(),
            1 => format!("\x1b[{letter}").into_bytes(),
            _ => format!("\x1b[1;{number}{letter}").into_bytes(),
        };
        let tilde = |key: u8| if number == 1 { format!("\x1b[{key}~") } else { format!("\x1b[{key};{number}~") }.into_bytes();
        match self.code {
            Code::Char(c) if ctrl => typed(control_of(c).map_or(c, char::from)),
            Code::Char(c) => typed(c),
            Code::Enter => typed('\r'),
            Code::Tab => typed('\t'),
            Code::BackTab => b"\x1b[Z".to_vec(),
            Code::Backspace => typed(if ctrl { '\x08' } else { '\x7f' }),
            Code::Escape => typed('\x1b'),
            Code::Up => letter('A', app_cursor),
            Code::Down => letter('B', app_cursor),
            Code::Right => letter('C', app_cursor),
            Code::Left => letter('D', app_cursor),
            Code::End => letter('F', app_cursor),
            Code::Home => letter('H', app_cursor),
            Code::Insert => tilde(2),
            Code::Delete => tilde(3),
            Code::PageUp => tilde(5),
            Code::PageDown => tilde(6),
            Code::F(n @ 1..=4) => letter(char::from(b'P' + n - 1), true),
            Code::F(n) => F_KEYS.iter().find(|(f, _)| *f == n).map_or_else(Vec::new, |(_, key)| tilde(*key)),
            Code::Other => Vec::new(),
        }
    }
}

/// The numbers before the tilde.
const F_KEYS: [(u8, u8); 16] = [
    (5, 15),
    (6, 17),
    (7, 18),
    (8, 19),
    (9, 20),
    (10, 21),
    (11, 23),
    (12, 24),
    (13, 25),
    (14, 26),
    (15, 28),
    (16, 29),
    (17, 31),
    (18, 32),
    (19, 33),
    (20, 34),
];

fn control_of(c: char) -> Option<u8> {
    match c {
        '@'..='_' | 'a'..='z' => Some(c as u8 & 0x1f),
        ' ' | '2' => Some(0),
        '3'..='7' => Some(c as u8 - b'3' + 0x1b),
        '/' => Some(0x1f),
        '8' | '?' => Some(0x7f),
        _ => None,
    }
}

/// Would a program that knows only the old forms misread it?
fn is_long_form(raw: &[u8]) -> bool {
    let Some(sequence) = raw.strip_prefix(b"\x1b[").and_then(|rest| std::str::from_utf8(rest).ok()) else { return false };
    let locks = || Params(sequence.trim_end_matches(|c: char| !c.is_ascii_digit())).get(1, 0).is_some_and(|mods| mods > 16);
    sequence.ends_with('u') || sequence.contains(':') || sequence.ends_with('~') && sequence.starts_with("27;") || locks()
}

// ---- events ----

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A key that may mean something to us.
    Key(Key),
    /// Typing, and whatever else goes to the pane as it came. `Key::first` takes it apart.
    Bytes(Vec<u8>),
    Mouse(Mouse),
    /// Without the brackets.
    Paste(Vec<u8>),
    FocusIn,
    FocusOut,
    /// The terminal answers a question of ours, or reports what no pane asked for.
    Reply(Vec<u8>),
}

enum Found {
    Event(Event),
    PasteStart,
}

/// One client's input.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The beginning of a sequence or a character.
    waiting: Vec<u8>,
    paste: Option<Vec<u8>>,
    /// Bytes that begin something other than typing.
    special: [bool; 256],
}

impl Reader {
    /// Keys of the bindings never hide among `Bytes`, even if they are letters.
    pub fn new(bindings: &Bindings) -> Self {
        let mut special = [false; 256];
        for byte in (0..0x20u8).filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\t' | 0x08)) {
            special[usize::from(byte)] = true;
        }
        for chord in [bindings.leader, bindings.prefix].into_iter().flatten() {
            if let Some(&byte) = chord.legacy(false).first() {
                special[usize::from(byte)] = true;
            }
        }
        Self { waiting: Vec::new(), paste: None, special }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let joined;
        let mut rest = bytes;
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.waiting);
            rest = &joined;
        }
        let mut events = Vec::new();
        while !rest.is_empty() {
            if self.paste.is_some() {
                rest = self.pasted(rest, &mut events);
            } else if let Some((found, len)) = self.next(rest) {
                match found {
                    Found::Event(event) => events.push(event),
                    Found::PasteStart => self.paste = Some(Vec::new()),
                }
                rest = &rest[len..];
            } else {
                self.waiting = rest.to_vec();
                break;
            }
        }
        events
    }

    /// The beginning of a sequence was read, and nothing tells whether the rest will come.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// All that waits is an Escape. Most likely it is the key.
    pub fn holds_escape(&self) -> bool {
        self.waiting == [ESC]
    }

    /// What waited was all. A paste goes on.
    pub fn flush(&mut self) -> Vec<Event> {
        let waited = std::mem::take(&mut self.waiting);
        let mut rest = waited.as_slice();
        let mut events = Vec::new();
        while let [ESC, ESC, ..] = rest {
            events.push(Event::Key(Key::from(Code::Escape)));
            rest = &rest[1..];
        }
        match *rest {
            [] => {}
            [ESC] => events.push(Event::Key(Key::from(Code::Escape))),
            [ESC, c] if c.is_ascii() => {
                events.push(Event::Key(alt(Key::of(Chord { code: Code::Char(c.into()), mods: Mods::default() }, &[c]))))
            }
            _ => events.push(Event::Bytes(rest.to_vec())),
        }
        events
    }

    pub fn is_pasting(&self) -> bool {
        self.paste.is_some()
    }

    /// The end of the paste will not come: what is there of it, and typing from here on.
    pub fn end_paste(&mut self) -> Option<Event> {
        self.paste.take().map(Event::Paste)
    }

    /// Returns what comes after the paste.
    fn pasted<'a>(&mut self, bytes: &'a [u8], events: &mut Vec<Event>) -> &'a [u8] {
        let Some(paste) = &mut self.paste else { return bytes };
        let seen = paste.len().saturating_sub(PASTE_END.len() - 1);
        paste.extend_from_slice(bytes);
        let end = paste[seen..].windows(PASTE_END.len()).position(|window| window == PASTE_END).map(|at| seen + at);
        let after = end.map_or(0, |end| paste.len() - end - PASTE_END.len());
        // Without an end, its first bytes may be there already.
        let (text, most) = end.map_or((paste.len(), MAX_PASTE + PASTE_END.len() - 1), |end| (end, MAX_PASTE));
        paste.truncate(text);
        while paste.len() > most {
            let rest = paste.split_off(whole_chars(&paste[..MAX_PASTE]));
            events.push(Event::Paste(std::mem::replace(paste, rest)));
        }
        if end.is_some() {
            events.extend(self.end_paste());
        }
        &bytes[bytes.len() - after..]
    }

    /// The first thing in the bytes and its length; none until more is known. What is decided here no later byte can change.
    fn next(&self, bytes: &[u8]) -> Option<(Found, usize)> {
        let run = bytes.iter().position(|byte| self.special[usize::from(*byte)]).unwrap_or(bytes.len());
        if run > 0 {
            let len = if run == bytes.len() { whole_chars(bytes) } else { run };
            return (len > 0).then(|| as_bytes(&bytes[..len]));
        }
        if bytes[0] == ESC {
            return escape(bytes);
        }
        if whole_chars(&bytes[..bytes.len().min(4)]) == 0 {
            return None;
        }
        let (key, rest) = Key::first(bytes)?;
        Some(if key.code == Code::Other { as_bytes(&bytes[..1]) } else { found(Event::Key(key), bytes.len() - rest.len()) })
    }
}

fn found(event: Event, len: usize) -> (Found, usize) {
    (Found::Event(event), len)
}

fn as_bytes(bytes: &[u8]) -> (Found, usize) {
    found(Event::Bytes(bytes.to_vec()), bytes.len())
}

fn alt(mut key: Key) -> Key {
    key.mods.alt = true;
    key.raw.insert(0, ESC);
    key
}

fn alone(byte: u8) -> Option<(Found, usize)> {
    let key = if byte == ESC { Key::from(Code::Escape) } else { alt(Key::first(&[byte])?.0) };
    let len = key.raw.len();
    Some(found(Event::Key(key), len))
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let start = &bytes[..bytes.len().min(4)];
    match std::str::from_utf8(start) {
        Ok(text) => text.chars().next(),
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?.chars().next(),
    }
}

/// How far the bytes go without the beginning of a character at their end.
fn whole_chars(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3).position(|byte| *byte >= 0xc0).map_or(0, |back| back + 1);
    let needed = match bytes.len().checked_sub(tail).and_then(|at| bytes.get(at)) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 0,
    };
    let unfinished = tail < needed && bytes[bytes.len() - tail..].iter().skip(1).all(|byte| (0x80..0xc0).contains(byte));
    bytes.len() - if unfinished { tail } else { 0 }
}

// ---- sequences ----

fn escape(bytes: &[u8]) -> Option<(Found, usize)> {
    let (second, third) = (*bytes.get(1)?, bytes.get(2));
    match second {
        b'[' => csi(bytes),
        b'O' => Some(match ss3(*third?) {
            Some(code) => found(Event::Key(Key::of(Chord { code, mods: Mods::default() }, &bytes[..3])), 3),
            None => return alone(b'O'),
        }),
        // These keys are typed with Alt as well.
        b']' if third?.is_ascii_digit() => string(bytes),
        b'P' if matches!(third?, b'0'..=b'9' | b'>' | b'!') => string(bytes),
        b'_' if *third? == b'G' => string(bytes),
        ESC => match third? {
            // Some terminals put an Escape before the sequence of a key to say Alt.
            b'[' | b'O' => match escape(&bytes[1..])? {
                (Found::Event(Event::Key(key)), len) if !key.mods.alt => Some(found(Event::Key(alt(key)), len + 1)),
                _ => alone(ESC),
            },
            _ => alone(ESC),
        },
        _ if whole_chars(&bytes[1..bytes.len().min(5)]) == 0 => None,
        _ => match Key::first(&bytes[1..])? {
            (key, _) if key.code == Code::Other => alone(ESC),
            (key, rest) => Some(found(Event::Key(alt(key)), bytes.len() - rest.len())),
        },
    }
}

/// An answer: it ends with ST, an OSC with BEL too.
fn string(bytes: &[u8]) -> Option<(Found, usize)> {
    for (at, &byte) in bytes.iter().enumerate().take(MAX_SEQUENCE).skip(2) {
        match byte {
            BEL if bytes[1] == b']' => return Some(found(Event::Reply(bytes[..=at].to_vec()), at + 1)),
            ESC if *bytes.get(at + 1)? == b'\\' => return Some(found(Event::Reply(bytes[..at + 2].to_vec()), at + 2)),
            0..0x20 => return Some(as_bytes(&bytes[..at])),
            _ => {}
        }
    }
    (bytes.len() >= MAX_SEQUENCE).then(|| as_bytes(&bytes[..MAX_SEQUENCE]))
}

fn csi(bytes: &[u8]) -> Option<(Found, usize)> {
    let body = &bytes[2..bytes.len().min(MAX_SEQUENCE)];
    let params = body.iter().position(|byte| !(0x30..0x40).contains(byte)).unwrap_or(body.len());
    let end = params + body[params..].iter().position(|byte| !(0x20..0x30).contains(byte)).unwrap_or(body.len() - params);
    let Some(&last) = body.get(end) else {
        return (bytes.len() >= MAX_SEQUENCE).then(|| as_bytes(&bytes[..MAX_SEQUENCE]));
    };
    let len = 2 + end + 1;
    match last {
        // The Linux console's F1 to F5.
        b'[' if end == 0 => {
            return match bytes.get(3)? {
                letter @ b'A'..=b'E' => {
                    Some(found(Event::Key(Key::of(Chord { code: Code::F(letter - b'A' + 1), mods: Mods::default() }, &bytes[..4])), 4))
                }
                _ => alone(b'['),
            };
        }
        // The mouse of a terminal that does not know SGR.
        b'M' if end == 0 => {
            let [button, col, row] = *bytes.get(3..6)? else { return None };
            let number = |byte: u8| u16::from(byte).saturating_sub(32);
            let mouse = mouse(number(button), number(col), number(row), false);
            return Some(found(mouse.map_or(Event::Reply(bytes[..6].to_vec()), Event::Mouse), 6));
        }
        0x40..0x7f => {}
        _ if end == 0 => return alone(b'['),
        _ => return Some(as_bytes(&bytes[..len - 1])),
    }
    let raw = &bytes[..len];
    // The grammar has let through nothing but ASCII.
    let text = std::str::from_utf8(&body[..params]).unwrap_or_default();
    let event = match (text, last) {
        ("200", b'~') if end == params => return Some((Found::PasteStart, len)),
        ("201", b'~') => Event::Reply(raw.to_vec()),
        ("", b'I') => Event::FocusIn,
        ("", b'O') => Event::FocusOut,
        (text, b'M' | b'm') if text.starts_with('<') => {
            sgr_mouse(&text[1..], last == b'm').map_or(Event::Reply(raw.to_vec()), Event::Mouse)
        }
        _ if end > params || text.starts_with(['<', '=', '>', '?']) => Event::Reply(raw.to_vec()),
        // A cursor position looks like F3 with modifiers; only in the first row is it one.
        (text, b'R') if !is_f3(Params(text)) => Event::Reply(raw.to_vec()),
        (_, b'c' | b'n' | b't' | b'x' | b'y') if !text.is_empty() => Event::Reply(raw.to_vec()),
        (text, last) => Event::Key(csi_key(Params(text), last, raw)),
    };
    Some(found(event, len))
}

fn is_f3(params: Params<'_>) -> bool {
    params.0.is_empty() || params.get(0, 0) == Some(1) && params.get(1, 0).is_some_and(|mods| (2..=16).contains(&mods))
}

/// Numbers with `;` between them, each with more behind `:`.
#[derive(Clone, Copy)]
struct Params<'a>(&'a str);

impl Params<'_> {
    /// None: absent, empty or no number.
    fn get(self, index: usize, sub: usize) -> Option<u32> {
        self.0.split(';').nth(index)?.split(':').nth(sub)?.parse().ok()
    }
}

fn csi_key(params: Params<'_>, last: u8, raw: &[u8]) -> Key {
    let bits = params.get(1, 0).unwrap_or(1).max(1) - 1;
    let mut mods = Mods { shift: bits & 1 != 0, alt: bits & (2 | 32) != 0, ctrl: bits & 4 != 0, logo: bits & (8 | 16) != 0 };
    let stroke = match params.get(1, 1) {
        Some(2) => Stroke::Repeat,
        Some(3) => Stroke::Release,
        _ => Stroke::Press,
    };
    let code = match last {
        b'A' => Code::Up,
        b'B' => Code::Down,
        b'C' => Code::Right,
        b'D' => Code::Left,
        b'F' => Code::End,
        b'H' => Code::Home,
        b'P'..=b'S' => Code::F(last - b'P' + 1),
        b'Z' => Code::BackTab,
        // rxvt's way to say Shift.
        b'a'..=b'd' => {
            mods.shift = true;
            [Code::Up, Code::Down, Code::Right, Code::Left][usize::from(last - b'a')]
        }
        b'u' => {
            let typed = params.get(2, 0).filter(|_| params.get(2, 1).is_none());
            let caps = bits & 64 != 0;
            coded(params.get(0, 0), params.get(0, 1), params.get(0, 2), typed, caps, &mut mods)
        }
        // modifyOtherKeys sends the character that Shift makes.
        b'~' if params.get(0, 0) == Some(27) && params.get(2, 0).is_some() => {
            coded(params.get(2, 0), params.get(2, 0), None, None, false, &mut mods)
        }
        b'~' => match params.get(0, 0) {
            Some(1 | 7) => Code::Home,
            Some(2) => Code::Insert,
            Some(3) => Code::Delete,
            Some(4 | 8) => Code::End,
            Some(5) => Code::PageUp,
            Some(6) => Code::PageDown,
            Some(key @ 11..=14) => Code::F(key as u8 - 10),
            Some(key) => F_KEYS.iter().find(|(_, number)| u32::from(*number) == key).map_or(Code::Other, |(f, _)| Code::F(*f)),
            None => Code::Other,
        },
        _ => Code::Other,
    };
    mods.shift &= code != Code::BackTab;
    Key { code, mods, stroke, raw: raw.to_vec() }
}

/// The key with this number: a character, or one of Kitty's names for the others. `shifted` is what Shift makes of it, `base` what
/// stands there on a Latin keyboard, `typed` the text it makes.
fn coded(code: Option<u32>, shifted: Option<u32>, base: Option<u32>, typed: Option<u32>, caps: bool, mods: &mut Mods) -> Code {
    let char_of = |code: Option<u32>| code.and_then(char::from_u32).filter(|c| !c.is_control());
    match code {
        Some(9) if mods.shift => return Code::BackTab,
        Some(9) => return Code::Tab,
        Some(13 | 57414) => return Code::Enter,
        Some(27) => return Code::Escape,
        Some(8 | 127) => return Code::Backspace,
        Some(code @ 57376..=57398) => return Code::F((code - 57376 + 13) as u8),
        Some(code @ 57399..=57408) => return Code::Char(char::from((code - 57399) as u8 + b'0')),
        Some(code @ 57409..=57413) => return Code::Char(char::from(b"./*-+"[code as usize - 57409])),
        Some(57415) => return Code::Char('='),
        Some(57416) => return Code::Char(','),
        Some(57417) => return Code::Left,
        Some(57418) => return Code::Right,
        Some(57419) => return Code::Up,
        Some(57420) => return Code::Down,
        Some(57421) => return Code::PageUp,
        Some(57422) => return Code::PageDown,
        Some(57423) => return Code::Home,
        Some(57424) => return Code::End,
        Some(57425) => return Code::Insert,
        Some(57426) => return Code::Delete,
        Some(57344..=63743) => return Code::Other,
        _ => {}
    }
    let Some(mut c) = char_of(code) else { return Code::Other };
    if (mods.ctrl || mods.alt) && !c.is_ascii() {
        c = char_of(base).unwrap_or(c);
    }
    let upper = |c: char| Some(c.to_uppercase()).filter(|upper| upper.len() == 1).and_then(|mut upper| upper.next()).unwrap_or(c);
    let lower = |c: char| Some(c.to_lowercase()).filter(|lower| lower.len() == 1).and_then(|mut lower| lower.next()).unwrap_or(c);
    let shifted = char_of(shifted).filter(|_| mods.shift);
    if let Some(typed) = char_of(typed).filter(|_| !mods.ctrl && !mods.alt && !mods.logo) {
        mods.shift = false;
        Code::Char(typed)
    } else if let Some(shifted) = shifted.filter(|shifted| lower(*shifted) != lower(c) || !shifted.is_alphabetic()) {
        // A key of its own, such as `|` above `\`.
        mods.shift = false;
        Code::Char(shifted)
    } else if mods.ctrl || mods.logo {
        Code::Char(lower(c))
    } else {
        let big = mods.shift != caps;
        mods.shift &= !c.is_alphabetic();
        Code::Char(if big { upper(c) } else { c })
    }
}

/// Keypad and function keys.
fn ss3(last: u8) -> Option<Code> {
    Some(match last {
        b'A' => Code::Up,
        b'B' => Code::Down,
        b'C' => Code::Right,
        b'D' => Code::Left,
        b'F' => Code::End,
        b'H' => Code::Home,
        b'M' => Code::Enter,
        b'P'..=b'S' => Code::F(last - b'P' + 1),
        b'X' => Code::Char('='),
        // The keypad's characters, 64 further on.
        b'j'..=b'y' => Code::Char((last - 64).into()),
        b'E' => Code::Other,
        _ => return None,
    })
}

fn sgr_mouse(params: &str, release: bool) -> Option<Mouse> {
    let mut numbers = params.split(';').map(|number| number.parse().ok());
    let mouse = mouse(numbers.next()??, numbers.next()??, numbers.next()??, release);
    mouse.filter(|_| numbers.next().is_none())
}

/// `button` with its modifier bits, as the terminal numbers them; row and column count from 1.
fn mouse(button: u16, col: u16, row: u16, release: bool) -> Option<Mouse> {
    let number = u8::try_from(button).ok()?;
    let named = match number & 0xc3 {
        0 => Some(Button::Left),
        1 => Some(Button::Middle),
        2 => Some(Button::Right),
        other @ 128.. => Some(Button::Other(other)),
        _ => None,
    };
    let wheels = [Wheel::Up, Wheel::Down, Wheel::Left, Wheel::Right];
    let kind = match (number & 0xc0, named, number & 32 != 0) {
        (64, _, false) if !release => Kind::Wheel(wheels[usize::from(number & 3)]),
        (64, ..) => return None,
        (_, Some(button), true) => Kind::Drag(button),
        (_, Some(button), false) if release => Kind::Release(button),
        (_, Some(button), false) => Kind::Press(button),
        (_, None, true) => Kind::Move,
        // The old encoding does not say which button went up.
        (_, None, false) => Kind::Release(Button::Left),
    };
    let (row, col) = (row.saturating_sub(1), col.saturating_sub(1));
    Some(Mouse { kind, row, col, shift: number & 4 != 0, alt: number & 8 != 0, ctrl: number & 16 != 0 })
}

// ---- bindings ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    NewTab,
    SplitStacked,
    SplitSideBySide,
    Zoom,
    Focus(Direction),
    NextPane,
    NextTab,
    PreviousTab,
    /// Tabs count from 0.
    Jump(usize),
    Resize(Direction),
    RenameTab,
    Scroll,
    Search,
    ExportFile {
        source: Source,
        then: Then,
    },
    /// The image whose path is on the clipboard.
    ImageFromPath,
    /// The image on the clipboard, its new path typed into the pane.
    PasteImage,
    /// The same without typing.
    StageImage,
    OpenLink,
    ClearPane,
    Redraw,
    Record,
    Info,
    Detach,
    ClosePane,
    CloseTab,
    Exit,
    /// Opens the list; in the list, begins to filter it.
    Palette,
    /// The leader itself, for the pane.
    SendLeader,
}

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Typed,
    Cursor,
    Selection,
}

/// What the host does with an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Reveal,
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Spellings for `Chord::parse` with spaces between. Of `Jump` each is for the next tab.
    pub keys: &'static str,
    pub command: Command,
    pub text: &'static str,
}

const fn entry(keys: &'static str, command: Command, text: &'static str) -> Entry {
    Entry { keys, command, text }
}

const fn export(source: Source, then: Then, text: &'static str) -> Entry {
    entry("", Command::ExportFile { source, then }, text)
}

/// Everything that can be asked for, in the palette's order. The keys are those after the leader.
pub const ENTRIES: &[Entry] = &[
    entry("c", Command::NewTab, "new tab"),
    entry("\"", Command::SplitStacked, "split: one above the other"),
    entry("%", Command::SplitSideBySide, "split: side by side"),
    entry("z", Command::Zoom, "zoom the pane, or show all again"),
    entry("h Left", Command::Focus(Direction::Left), "focus the pane to the left"),
    entry("j Down", Command::Focus(Direction::Down), "focus the pane below"),
    entry("k Up", Command::Focus(Direction::Up), "focus the pane above"),
    entry("l Right", Command::Focus(Direction::Right), "focus the pane to the right"),
    entry("o", Command::NextPane, "next pane"),
    entry("n", Command::NextTab, "next tab"),
    entry("p", Command::PreviousTab, "previous tab"),
    entry("1 2 3 4 5 6 7 8 9 0", Command::Jump(0), "go to the tab with this number"),
    entry(",", Command::RenameTab, "rename the tab"),
    entry("[ PageUp", Command::Scroll, "scroll back"),
    entry("/", Command::Search, "search the history"),
    export(Source::Typed, Then::Nothing, "export a file"),
    export(Source::Typed, Then::Reveal, "export a file and show it in its folder"),
    export(Source::Typed, Then::Open, "export a file and open it"),
    export(Source::Cursor, Then::Nothing, "export the file under the cursor"),
    export(Source::Cursor, Then::Reveal, "export the file under the cursor and show it in its folder"),
    export(Source::Cursor, Then::Open, "export the file under the cursor and open it"),
    export(Source::Selection, Then::Nothing, "export the selected file"),
    export(Source::Selection, Then::Reveal, "export the selected file and show it in its folder"),
    export(Source::Selection, Then::Open, "export the selected file and open it"),
    entry("", Command::ImageFromPath, "image from the path on the clipboard"),
    entry("", Command::PasteImage, "paste the image on the clipboard"),
    entry("", Command::StageImage, "take the image on the clipboard without pasting its path"),
    entry("", Command::OpenLink, "open the link under the cursor"),
    entry("C-l", Command::ClearPane, "clear the pane"),
    entry("r", Command::Redraw, "draw everything again"),
    entry("R", Command::Record, "start or stop recording the pane"),
    entry("u", Command::Info, "about this container"),
    entry("d", Command::Detach, "detach; everything keeps running"),
    entry("x", Command::ClosePane, "close the pane"),
    entry("&", Command::CloseTab, "close the tab"),
    entry("q", Command::Exit, "exit: end every session"),
    entry("Space :", Command::Palette, "this list"),
];

/// Keys that need no leader.
pub const DIRECT: &[Entry] = &[
    entry("C-q", Command::Exit, "exit: end every session"),
    entry("A-S-Left", Command::Resize(Direction::Left), "move the border to the left"),
    entry("A-S-Right", Command::Resize(Direction::Right), "move the border to the right"),
    entry("A-S-Up", Command::Resize(Direction::Up), "move the border up"),
    entry("A-S-Down", Command::Resize(Direction::Down), "move the border down"),
];

/// Control-backslash.
const DEFAULT_LEADER: Chord = Chord { code: Code::Char('\\'), mods: Mods { shift: false, alt: false, ctrl: true, logo: false } };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bindings {
    pub leader: Option<Chord>,
    pub prefix: Option<Chord>,
}

impl Default for Bindings {
    fn default() -> Self {
        Self { leader: Some(DEFAULT_LEADER), prefix: None }
    }
}

impl Bindings {
    /// `none` is no key. A palette key that cannot be read is the default one, a prefix that cannot be read is none.
    pub fn from_settings(palette: Option<&str>, prefix: Option<&str>) -> Self {
        let leader = match palette {
            Some("none") => None,
            setting => Some(setting.and_then(Chord::parse).unwrap_or(DEFAULT_LEADER)),
        };
        Self { leader, prefix: prefix.filter(|setting| *setting != "none").and_then(Chord::parse) }
    }

    pub fn leader(&self, key: &Key) -> bool {
        // Held down, it would open and close the palette.
        key.stroke == Stroke::Press && self.leader.is_some_and(|chord| chord.is(key))
    }

    pub fn prefix(&self, key: &Key) -> bool {
        key.stroke == Stroke::Press && self.prefix.is_some_and(|chord| chord.is(key))
    }

    pub fn direct(&self, key: &Key) -> Option<Command> {
        find(DIRECT, key)
    }

    /// After the leader or the prefix.
    pub fn after_leader(&self, key: &Key) -> Option<Command> {
        if self.leader(key) || self.prefix(key) {
            return Some(Command::SendLeader);
        }
        find(ENTRIES, key).or_else(|| match key.code {
            // With Caps Lock on.
            Code::Char(c) if c.is_ascii_uppercase() => find(ENTRIES, &Key { code: Code::Char(c.to_ascii_lowercase()), ..key.clone() }),
            _ => None,
        })
    }
}

fn find(entries: &[Entry], key: &Key) -> Option<Command> {
    if key.stroke == Stroke::Release {
        return None;
    }
    entries.iter().find_map(|entry| {
        let at = entry.keys.split_whitespace().position(|spelling| Chord::parse(spelling) == Some(key.chord()))?;
        Some(if let Command::Jump(first) = entry.command { Command::Jump(first + at) } else { entry.command })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mouse;

    fn reader() -> Reader {
        Reader::new(&Bindings::default())
    }

    fn read(bytes: &[u8]) -> Vec<Event> {
        let mut reader = reader();
        let mut events = reader.feed(bytes);
        events.extend(reader.flush());
        assert!(!reader.is_waiting());
        events
    }

    fn only_key(bytes: &[u8]) -> Key {
        match read(bytes).as_slice() {
            [Event::Key(key)] => key.clone(),
            [Event::Bytes(typed)] if Key::first(typed).is_some_and(|(_, rest)| rest.is_empty()) => Key::first(typed).unwrap().0,
            events => panic!("{:?}: {events:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn mods(spelled: &str) -> Mods {
        let has = |c| spelled.contains(c);
        Mods { shift: has('S'), alt: has('A'), ctrl: has('C'), logo: has('L') }
    }

    fn check(spellings: &[&str], expected: Code, with: &str) {
        for spelling in spellings {
            let key = only_key(spelling.as_bytes());
            assert_eq!((key.code, key.mods), (expected, mods(with)), "{spelling:?}");
            assert_eq!(key.raw, spelling.as_bytes());
        }
    }

    #[test]
    fn spellings() {
        let char = Code::Char;
        check(&["a", "\x1b[97u", "\x1b[97;1u", "\x1b[97;129u", "\x1b[97;1:2u", "\x1b[97;;97u", "\x1b[27;1;97~"], char('a'), "");
        check(&["A", "\x1b[97;2u", "\x1b[97:65;2u", "\x1b[97;65u", "\x1b[97;2;65u", "\x1b[27;2;65~"], char('A'), "");
        check(&["ł", "\x1b[322u"], char('ł'), "");
        check(&["\"", "\x1b[39:34;2u", "\x1b[39;2;34u", "\x1b[27;2;34~"], char('"'), "");
        check(&["\x01", "\x1b[97;5u", "\x1b[97:65;69u", "\x1b[1092::97;5u", "\x1b[27;5;97~"], char('a'), "C");
        check(&["\x1b[97;6u", "\x1b[97:65;6u", "\x1b[27;6;65~"], char('a'), "CS");
        check(&["\x1ba", "\x1b[97;3u", "\x1b[27;3;97~"], char('a'), "A");
        check(&["\x1bA", "\x1b[97;4u", "\x1b[27;4;65~"], char('A'), "A");
        check(&["\x1b\x01", "\x1b[97;7u", "\x1b[27;7;97~"], char('a'), "AC");
        check(&["\x1bé"], char('é'), "A");
        check(&["\x1b[97;9u"], char('a'), "L");
        check(&["\0", "\x1b[32;5u"], char(' '), "C");
        check(&["\x1c", "\x1b[92;5u", "\x1b[92;5:1u", "\x1b[92:124;197u", "\x1b[27;5;92~", "\x1b[47:92;6u"], char('\\'), "C");
        check(&["\x1b[92:124;6u", "\x1b[27;6;124~"], char('|'), "C");
        check(&["\x1b[", "\x1b[91;3u"], char('['), "A");
        check(&["\x1bO"], char('O'), "A");
        check(&["\x1b]"], char(']'), "A");
        check(&["\x1bP"], char('P'), "A");
        check(&["\r", "\x1bOM", "\x1b[13u", "\x1b[57414u"], Code::Enter, "");
        check(&["\x1b[13;2u", "\x1b[27;2;13~"], Code::Enter, "S");
        check(&["\x1b\r", "\x1b[13;3u"], Code::Enter, "A");
        check(&["\t", "\x1b[9u"], Code::Tab, "");
        check(&["\x1b[Z", "\x1b[1;2Z", "\x1b[9;2u", "\x1b[27;2;9~"], Code::BackTab, "");
        check(&["\x7f", "\x1b[127u", "\x1b[8u"], Code::Backspace, "");
        check(&["\x1b\x7f", "\x1b[127;3u"], Code::Backspace, "A");
        check(&["\x1b", "\x1b[27u", "\x1b[27;129u"], Code::Escape, "");
        check(&["\x1b[A", "\x1bOA", "\x1b[1A", "\x1b[1;1:1A", "\x1b[57419u"], Code::Up, "");
        check(&["\x1b[1;4D", "\x1b[1;4:2D", "\x1b[1;132D"], Code::Left, "AS");
        check(&["\x1b\x1b[A", "\x1b\x1bOA", "\x1b[1;3A"], Code::Up, "A");
        check(&["\x1b\x1b[a"], Code::Up, "AS");
        check(&["\x1b[a", "\x1b[1;2A"], Code::Up, "S");
        check(&["\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"], Code::Home, "");
        check(&["\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"], Code::End, "");
        check(&["\x1b[1;5F", "\x1b[4;5~"], Code::End, "C");
        check(&["\x1b[2~"], Code::Insert, "");
        check(&["\x1b[3~"], Code::Delete, "");
        check(&["\x1b[5~", "\x1b[57421u"], Code::PageUp, "");
        check(&["\x1b[6;2~"], Code::PageDown, "S");
        check(&["\x1bOP", "\x1b[P", "\x1b[11~", "\x1b[[A"], Code::F(1), "");
        check(&["\x1bOR", "\x1b[R", "\x1b[13~", "\x1b[[C"], Code::F(3), "");
        check(&["\x1b[1;2R", "\x1b[13;2~"], Code::F(3), "S");
        check(&["\x1b[15~", "\x1b[[E"], Code::F(5), "");
        check(&["\x1b[24;5~"], Code::F(12), "C");
        check(&["\x1b[57376u", "\x1b[25~"], Code::F(13), "");
        check(&["\x1bOp", "\x1b[57399u", "0"], char('0'), "");
        check(&["\x1bOk", "\x1b[57413u", "+"], char('+'), "");
        check(&["\x1b[57358u", "\x1b[E", "\x1b[99~", "\x1b[u"], Code::Other, "");
    }

    #[test]
    fn an_escape_before_alt_is_a_key_of_its_own() {
        for tail in ["\x1b[1;3A", "\x1bO", "\x1ba", "\x1b[<0;1;1M", "\x1b[200~x\x1b[201~"] {
            let events = read(format!("\x1b{tail}").as_bytes());
            assert_eq!(events[0], Event::Key(Key::from(Code::Escape)), "{tail:?}");
            assert_eq!(events[1..], read(tail.as_bytes()), "{tail:?}");
        }
    }

    #[test]
    fn strokes() {
        for (raw, stroke) in [
            ("\x1b[97;1u", Stroke::Press),
            ("\x1b[97;1:1u", Stroke::Press),
            ("\x1b[1;5:2A", Stroke::Repeat),
            ("\x1b[3;1:3~", Stroke::Release),
        ] {
            assert_eq!(only_key(raw.as_bytes()).stroke, stroke, "{raw:?}");
        }
    }

    #[test]
    fn replies_never_become_keys() {
        for reply in [
            "\x1b[?62;4c",
            "\x1b[>1;10;0c",
            "\x1b[12;40R",
            "\x1b[1;40R",
            "\x1b[?1;1R",
            "\x1b[0n",
            "\x1b[?997;1n",
            "\x1b[?2026;2$y",
            "\x1b[4;1$y",
            "\x1b[?5u",
            "\x1b[8;24;80t",
            "\x1b]10;rgb:ffff/ffff/ffff\x07",
            "\x1b]11;rgb:0000/0000/0000\x1b\\",
            "\x1bP>|kitty(0.40)\x1b\\",
            "\x1bP1$r0m\x1b\\",
            "\x1b_Gi=1;OK\x1b\\",
            "\x1b[201~",
            "\x1b[<1M",
            "\x1b[<64;1;1m",
            "\x1b[<999;1;1M",
            "\x1b[<0;1;1;1M",
        ] {
            assert_eq!(read(reply.as_bytes()), [Event::Reply(reply.into())], "{reply:?}");
        }
    }

    #[test]
    fn the_mouse() {
        let mouse = |kind, row, col, with: &str| {
            let Mods { shift, alt, ctrl, .. } = mods(with);
            Mouse { kind, row, col, shift, alt, ctrl }
        };
        for (bytes, expected) in [
            (&b"\x1b[<0;10;1M"[..], mouse(Kind::Press(Button::Left), 0, 9, "")),
            (b"\x1b[<2;500;300m", mouse(Kind::Release(Button::Right), 299, 499, "")),
            (b"\x1b[<33;1;1M", mouse(Kind::Drag(Button::Middle), 0, 0, "")),
            (b"\x1b[<35;2;3M", mouse(Kind::Move, 2, 1, "")),
            (b"\x1b[<65;1;1M", mouse(Kind::Wheel(Wheel::Down), 0, 0, "")),
            (b"\x1b[<80;1;1M", mouse(Kind::Wheel(Wheel::Up), 0, 0, "C")),
            (b"\x1b[<28;1;1M", mouse(Kind::Press(Button::Left), 0, 0, "CAS")),
            (b"\x1b[<129;1;1M", mouse(Kind::Press(Button::Other(129)), 0, 0, "")),
            (b"\x1b[M\x20\x21\xff", mouse(Kind::Press(Button::Left), 222, 0, "")),
            (b"\x1b[M\x23\x21\x21", mouse(Kind::Release(Button::Left), 0, 0, "")),
        ] {
            assert_eq!(read(bytes), [Event::Mouse(expected)], "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn pastes_and_focus() {
        assert_eq!(
            read(b"a\x1b[200~x\x1b[A\x1c\xff\x1b[20\x1b[201~b\x1b[I\x1b[O"),
            [
                Event::Bytes(b"a".into()),
                Event::Paste(b"x\x1b[A\x1c\xff\x1b[20".into()),
                Event::Bytes(b"b".into()),
                Event::FocusIn,
                Event::FocusOut
            ]
        );
        assert_eq!(read(b"\x1b[200~\x1b[201~"), [Event::Paste(vec![])]);
        let mut reader = reader();
        assert_eq!(reader.feed(b"\x1b[200~half"), []);
        assert_eq!((reader.is_waiting(), reader.is_pasting(), reader.flush()), (false, true, vec![]));
        assert_eq!(reader.feed(b"\x1b[2"), []);
        assert_eq!(reader.end_paste(), Some(Event::Paste(b"half\x1b[2".into())));
        assert_eq!(reader.feed(b"x"), [Event::Bytes(b"x".into())]);
    }

    #[test]
    fn a_huge_paste_comes_as_several_and_is_not_held_whole() {
        let text = "zażółć ".repeat(MAX_PASTE / 5).into_bytes();
        for chunk in [text.len() + 12, 1 << 20, 4093] {
            let mut reader = reader();
            let mut out = Vec::new();
            for bytes in [b"\x1b[200~", text.as_slice(), PASTE_END].concat().chunks(chunk) {
                for event in reader.feed(bytes) {
                    let Event::Paste(piece) = event else { panic!("{event:?}") };
                    assert!(piece.len() <= MAX_PASTE && String::from_utf8(piece.clone()).is_ok());
                    out.extend(piece);
                }
                assert!(reader.paste.as_ref().is_none_or(|paste| paste.len() <= MAX_PASTE + 8));
            }
            assert!(!reader.is_pasting() && out == text);
        }
    }

    #[test]
    fn half_a_sequence_waits() {
        let check = |bytes: &[u8], flushed: &[Event]| {
            let mut reader = reader();
            assert_eq!(reader.feed(bytes), []);
            assert!(reader.is_waiting());
            assert_eq!(reader.holds_escape(), bytes == [ESC]);
            assert_eq!(reader.flush(), flushed, "{:?}", String::from_utf8_lossy(bytes));
            assert!(!reader.is_waiting());
        };
        let escape = || Event::Key(Key::from(Code::Escape));
        check(b"\x1b", &[escape()]);
        check(b"\x1b\x1b", &[escape(), escape()]);
        check(b"\x1b\x1b[", &[escape(), Event::Key(only_key(b"\x1b["))]);
        check(b"\x1b[1;", &[Event::Bytes(b"\x1b[1;".into())]);
        check(b"\x1b]10;", &[Event::Bytes(b"\x1b]10;".into())]);
        check(b"\xf0\x9f\x98", &[Event::Bytes(b"\xf0\x9f\x98".into())]);
        check(b"\x1b\xc3", &[Event::Bytes(b"\x1b\xc3".into())]);
        let mut reader = reader();
        assert_eq!(reader.feed("x\u{1f600}".as_bytes()[..3].into()), [Event::Bytes(b"x".into())]);
        assert_eq!(reader.feed(&"\u{1f600}y".as_bytes()[2..]), [Event::Bytes("\u{1f600}y".into())]);
    }

    #[test]
    fn garbage_is_bounded() {
        for start in ["\x1b]1", "\x1b[", "\x1bP1"] {
            let mut reader = reader();
            let garbage = [start.as_bytes(), &vec![b'1'; 3 * MAX_SEQUENCE]].concat();
            let mut out = Vec::new();
            for chunk in garbage.chunks(1000) {
                out.extend(reader.feed(chunk));
                assert!(reader.waiting.len() < MAX_SEQUENCE + 2);
            }
            out.extend(reader.flush());
            assert_eq!(joined(out), joined(vec![Event::Bytes(garbage)]));
        }
    }

    #[test]
    fn plain_text_is_one_event() {
        let text = "fn main() { println!(\"zażółć\"); }\r\n\t".repeat(30_000).into_bytes();
        assert_eq!(reader().feed(&text), [Event::Bytes(text.clone())]);
    }

    #[test]
    fn settings() {
        let ctrl = |c| Some(Chord { code: Code::Char(c), mods: mods("C") });
        let plain = |code| Some(Chord { code, mods: mods("") });
        for (setting, leader) in [
            ("C-x", ctrl('x')),
            ("C-X", ctrl('x')),
            ("C-\\", ctrl('\\')),
            ("C-Space", ctrl(' ')),
            ("0x02", ctrl('b')),
            ("0x1c", ctrl('\\')),
            ("\x02", ctrl('b')),
            ("`", plain(Code::Char('`'))),
            ("§", plain(Code::Char('§'))),
            ("0x09", plain(Code::Tab)),
            ("none", None),
            ("C-", ctrl('\\')),
            ("C-;", ctrl('\\')),
            ("0xzz", ctrl('\\')),
            ("0xff", ctrl('\\')),
            ("", ctrl('\\')),
            ("ab", ctrl('\\')),
            ("S-a", ctrl('\\')),
        ] {
            assert_eq!(Bindings::from_settings(Some(setting), None).leader, leader, "{setting:?}");
        }
        assert_eq!(Bindings::from_settings(None, None), Bindings::default());
        for (setting, prefix) in [("C-b", ctrl('b')), ("none", None), ("", None), ("C-", None)] {
            assert_eq!(Bindings::from_settings(None, Some(setting)).prefix, prefix, "{setting:?}");
        }
    }

    #[test]
    fn a_leader_is_found_in_the_midst_of_typing() {
        for (setting, typed) in
            [("C-\\", "\x1c"), ("`", "`"), ("§", "§"), ("C-i", "\t"), ("C-m", "\r"), ("C-h", "\x08"), ("C-i", "\x1b[105;5u")]
        {
            let bindings = Bindings::from_settings(Some(setting), None);
            let events = Reader::new(&bindings).feed(format!("ab{typed}dc").as_bytes());
            let [Event::Bytes(before), Event::Key(key), Event::Bytes(after)] = events.as_slice() else { panic!("{setting}: {events:?}") };
            assert!(bindings.leader(key) && !bindings.prefix(key), "{setting}");
            let (next, rest) = Key::first(after).unwrap();
            assert_eq!((before.as_slice(), bindings.after_leader(&next), rest), (&b"ab"[..], Some(Command::Detach), &b"c"[..]));
        }
        // A character that begins with the same byte.
        let events = Reader::new(&Bindings::from_settings(Some("§"), None)).feed("¶".as_bytes());
        assert!(matches!(events.as_slice(), [Event::Key(key)] if key.code == Code::Char('¶')), "{events:?}");
    }

    #[test]
    fn commands() {
        let bindings = Bindings::from_settings(None, Some("C-b"));
        let after = |typed: &str| bindings.after_leader(&only_key(typed.as_bytes()));
        for (typed, command) in [
            ("d", Some(Command::Detach)),
            ("D", Some(Command::Detach)),
            ("\x1b[100u", Some(Command::Detach)),
            ("\x1b[100;65u", Some(Command::Detach)),
            ("r", Some(Command::Redraw)),
            ("R", Some(Command::Record)),
            ("\x1b[114;2u", Some(Command::Record)),
            ("\"", Some(Command::SplitStacked)),
            ("\x1b[39:34;2u", Some(Command::SplitStacked)),
            ("%", Some(Command::SplitSideBySide)),
            ("0", Some(Command::Jump(9))),
            ("9", Some(Command::Jump(8))),
            ("\x1bOA", Some(Command::Focus(Direction::Up))),
            ("h", Some(Command::Focus(Direction::Left))),
            ("\x1b[5~", Some(Command::Scroll)),
            ("\x0c", Some(Command::ClearPane)),
            (" ", Some(Command::Palette)),
            (":", Some(Command::Palette)),
            ("\x1c", Some(Command::SendLeader)),
            ("\x1b[92;5u", Some(Command::SendLeader)),
            ("\x02", Some(Command::SendLeader)),
            ("y", None),
            ("\x1b", None),
            ("\x1bd", None),
            ("\x04", None),
            ("\x1b[100;1:3u", None),
            ("\x1b[92;5:3u", None),
        ] {
            assert_eq!(after(typed), command, "{typed:?}");
        }
        let direct = |typed: &str| bindings.direct(&only_key(typed.as_bytes()));
        for (typed, command) in [
            ("\x11", Some(Command::Exit)),
            ("\x1b[113;5u", Some(Command::Exit)),
            ("\x1b[27;5;113~", Some(Command::Exit)),
            ("\x1b[113;6u", None),
            ("\x1b[113;5:3u", None),
            ("\x1b[1;4C", Some(Command::Resize(Direction::Right))),
            ("\x1b[1;4:2C", Some(Command::Resize(Direction::Right))),
            ("\x1b[1;4:3C", None),
            ("\x1b[1;2C", None),
            ("q", None),
        ] {
            assert_eq!(direct(typed), command, "{typed:?}");
        }
        let held = only_key(b"\x1b[92;5:2u");
        assert!(!bindings.leader(&held));
        assert!(bindings.prefix(&only_key(b"\x02")) && !bindings.prefix(&only_key(b"b")));
        assert!(!Bindings::from_settings(Some("none"), None).leader(&only_key(b"\x1c")));
    }

    #[test]
    fn every_entry_can_be_typed_and_none_twice() {
        for entries in [ENTRIES, DIRECT] {
            let mut seen = std::collections::BTreeSet::new();
            for spelling in entries.iter().flat_map(|entry| entry.keys.split_whitespace()) {
                let chord = Chord::parse(spelling).unwrap_or_else(|| panic!("{spelling}"));
                let key = only_key(&chord.legacy(false));
                assert_eq!(key.chord(), chord, "{spelling}");
                assert!(seen.insert(spelling), "{spelling}");
                assert!(find(entries, &key).is_some());
            }
        }
    }

    #[test]
    fn long_forms_become_short() {
        for (long, short) in [
            ("\x1b[97u", "a"),
            ("\x1b[97:65;2u", "A"),
            ("\x1b[97;5u", "\x01"),
            ("\x1b[97;7u", "\x1b\x01"),
            ("\x1b[97;3u", "\x1ba"),
            ("\x1b[13u", "\r"),
            ("\x1b[13;2u", "\r"),
            ("\x1b[27;2;13~", "\r"),
            ("\x1b[9;2u", "\x1b[Z"),
            ("\x1b[127;5u", "\x08"),
            ("\x1b[27u", "\x1b"),
            ("\x1b[92;5:1u", "\x1c"),
            ("\x1b[1;1:2A", "\x1b[A"),
            ("\x1b[1;133A", "\x1b[1;5A"),
            ("\x1b[3;129~", "\x1b[3~"),
            ("\x1b[1;1:1P", "\x1bOP"),
            ("\x1b[57399u", "0"),
            ("\x1b[57376u", "\x1b[25~"),
            ("\x1b[97;1:3u", ""),
            ("\x1b[57441;2u", ""),
            ("\x1b[47;5u", "\x1f"),
            ("\x1b[322u", "ł"),
            // These are short already.
            ("\x1bOA", "\x1bOA"),
            ("\x1b[1;5A", "\x1b[1;5A"),
            ("\x1b[99~", "\x1b[99~"),
            ("\x1b[15;5~", "\x1b[15;5~"),
        ] {
            assert_eq!(String::from_utf8(only_key(long.as_bytes()).to_legacy(false)).unwrap(), short, "{long:?}");
        }
        assert_eq!(Key::from(Code::Up).to_legacy(true), b"\x1b[A");
        assert_eq!(only_key(b"\x1b[1;1:1A").to_legacy(true), b"\x1bOA");
    }

    /// What came, from what it became.
    fn raw(event: &Event) -> Vec<u8> {
        match event {
            Event::Key(key) => key.raw.clone(),
            Event::Bytes(bytes) | Event::Reply(bytes) => bytes.clone(),
            Event::Mouse(mouse) => {
                mouse::encode(mouse, vt100::MouseProtocolMode::AnyMotion, vt100::MouseProtocolEncoding::Sgr).expect("it came so")
            }
            Event::Paste(text) => [b"\x1b[200~", text.as_slice(), PASTE_END].concat(),
            Event::FocusIn => b"\x1b[I".into(),
            Event::FocusOut => b"\x1b[O".into(),
        }
    }

    /// Runs of bytes may be cut anywhere.
    fn joined(events: Vec<Event>) -> Vec<Event> {
        events.into_iter().fold(Vec::new(), |mut out, event| {
            match (out.last_mut(), event) {
                (Some(Event::Bytes(last)), Event::Bytes(bytes)) => last.extend(bytes),
                (_, event) => out.push(event),
            }
            out
        })
    }

    fn in_chunks(bytes: &[u8], cuts: &[usize]) -> Vec<Event> {
        let mut reader = reader();
        let mut events = Vec::new();
        let mut rest = bytes;
        for cut in cuts {
            let (chunk, tail) = rest.split_at(cut % (rest.len() + 1));
            events.extend(reader.feed(chunk));
            rest = tail;
        }
        events.extend(reader.feed(rest));
        events.extend(reader.flush());
        events.extend(reader.end_paste());
        joined(events)
    }

    /// Input as terminals send it, whole and broken.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let text = |strings: &'static [&'static str]| proptest::sample::select(strings).prop_map(|s| s.as_bytes().to_vec());
        let piece = prop_oneof![
            text(&[
                "a",
                "ls -l\r",
                "zażółć",
                "漢字",
                "\u{1f600}",
                "\t",
                "\x7f",
                "\x1c",
                "\x11",
                "\0",
                "\x1b",
                "\x1b\x1b",
                "[",
                "O",
                "1;5",
                "~",
                "u",
                "M"
            ]),
            text(&[
                "\x1b[A",
                "\x1b[1;5:2A",
                "\x1bOP",
                "\x1b[3~",
                "\x1b[97;5u",
                "\x1b[27;5;92~",
                "\x1b[[A",
                "\x1b\x1b[A",
                "\x1ba",
                "\x1b[Z"
            ]),
            text(&["\x1b[<0;10;20M", "\x1b[<35;1;1M", "\x1b[<64;5;5M", "\x1b[<2;500;300m", "\x1b[I", "\x1b[O"]),
            text(&["\x1b[200~", "pasted \x1b text", "\x1b[201~", "\x1b[200~x\x1b[201~"]),
            text(&[
                "\x1b]11;rgb:00/00/00\x07",
                "\x1bP>|x\x1b\\",
                "\x1b[?62c",
                "\x1b[?2026;2$y",
                "\x1b[3;4R",
                "\x1b_Gi=1;OK\x1b\\",
                "\x1b]1",
                "\x1bP1"
            ]),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_is_lost(bytes in input(), cuts in proptest::collection::vec(any::<usize>(), 0..20)) {
            // The mouse of old terminals has no bytes to compare.
            let old_mouse = bytes.windows(3).any(|window| window == b"\x1b[M");
            let whole = in_chunks(&bytes, &[]);
            prop_assert_eq!(&in_chunks(&bytes, &cuts), &whole);
            prop_assert_eq!(&in_chunks(&bytes, &vec![1; bytes.len()]), &whole);
            let mut came: Vec<u8> = whole.iter().flat_map(raw).collect();
            if !bytes.ends_with(PASTE_END) && came.len() == bytes.len() + PASTE_END.len() {
                // The paste had no end.
                came.truncate(bytes.len());
            }
            prop_assert!(old_mouse || came == bytes, "{:?} from {:?}", whole, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(any::<usize>(), 0..9)) {
            prop_assert_eq!(in_chunks(&bytes, &cuts), in_chunks(&bytes, &[]));
            let (mut rest, mut out) = (bytes.as_slice(), Vec::<u8>::new());
            while let Some((key, tail)) = Key::first(rest) {
                out.extend(&key.raw);
                rest = tail;
            }
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn a_short_form_means_the_same_key(bits in 0..8u8, code in proptest::sample::select(vec![
            Code::Up, Code::Left, Code::Home, Code::End, Code::PageUp, Code::Delete, Code::F(1), Code::F(3), Code::F(5), Code::F(12), Code::F(20)
        ])) {
            let chord = Chord { code, mods: Mods { shift: bits & 1 != 0, alt: bits & 2 != 0, ctrl: bits & 4 != 0, logo: false } };
            prop_assert_eq!(only_key(&chord.legacy(false)).chord(), chord);
            prop_assert_eq!(only_key(&chord.legacy(true)).chord(), chord);
        }
    }
}
