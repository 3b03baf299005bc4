//! What is typed, before it goes to the capsule: the terminal's own answers are taken out of it, and the few keys that the
//! client itself obeys are known in every spelling. Bytes in, bytes out. Absent: terminals, time, and all other keys.

use crate::wire::Rgb;

/// Asks the terminal for its foreground and background.
pub const ASK_COLOURS: &[u8] = b"\x1b]10;?\x1b\\\x1b]11;?\x1b\\";
/// Longer than any answer is.
const MAX_ANSWER: usize = 64;

/// Takes the answers to `ASK_COLOURS` out of what is typed, however late they come. Nobody but the terminal sends them.
#[derive(Default)]
pub struct Answers {
    /// The questions that have no answer yet, foreground first.
    awaited: [bool; 2],
    held: Vec<u8>,
    /// So long after the question that a lone Escape is more likely a key than the beginning of an answer.
    late: bool,
    pub foreground: Option<Rgb>,
    pub background: Option<Rgb>,
}

enum Begins {
    Nothing,
    /// Perhaps an answer: more must come.
    Part,
    Answer {
        len: usize,
        background: bool,
        colour: Option<Rgb>,
    },
}

impl Answers {
    pub fn awaited() -> Self {
        Self { awaited: [true; 2], ..Self::default() }
    }

    /// What of these bytes was typed. What may be half an answer is held until more comes or `release` is called.
    pub fn take(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if self.awaited == [false; 2] && self.held.is_empty() {
            return bytes;
        }
        let mut rest = std::mem::take(&mut self.held);
        rest.extend_from_slice(&bytes);
        let mut typed = Vec::with_capacity(rest.len());
        let mut at = 0;
        while let Some(escape) = rest[at..].iter().position(|byte| *byte == 0x1b) {
            typed.extend_from_slice(&rest[at..at + escape]);
            at += escape;
            match begins(&rest[at..]) {
                Begins::Answer { len, background, colour } => {
                    at += len;
                    self.awaited[usize::from(background)] = false;
                    let known = if background { &mut self.background } else { &mut self.foreground };
                    *known = colour.or(*known);
                }
                Begins::Part if !self.late || rest.len() - at > 2 => {
                    self.held = rest.split_off(at);
                    return typed;
                }
                Begins::Part | Begins::Nothing => {
                    typed.push(0x1b);
                    at += 1;
                }
            }
        }
        typed.extend_from_slice(&rest[at..]);
        typed
    }

    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Nothing more came: it was typed after all.
    pub fn release(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// The time in which a terminal answers is over.
    pub fn be_late(&mut self) {
        self.late = true;
    }
}

fn begins(bytes: &[u8]) -> Begins {
    const NUMBERS: [&[u8]; 2] = [b"\x1b]10;", b"\x1b]11;"];
    let Some(background) = NUMBERS.iter().position(|number| bytes.starts_with(number)) else {
        return if NUMBERS.iter().any(|number| number.starts_with(bytes)) { Begins::Part } else { Begins::Nothing };
    };
    let text = &bytes[NUMBERS[0].len()..];
    let Some(end) = text.iter().position(|byte| *byte < 0x20) else {
        return if text.len() < MAX_ANSWER { Begins::Part } else { Begins::Nothing };
    };
    let terminator = match &text[end..] {
        [0x07, ..] => 1,
        [0x1b, b'\\', ..] => 2,
        [0x1b] => return Begins::Part,
        _ => return Begins::Nothing,
    };
    let len = bytes.len() - text.len() + end + terminator;
    Begins::Answer { len, background: background == 1, colour: colour(&text[..end]) }
}

/// `rgb:r/g/b` with one to four digits each, `rgba:` alike, or `#rrggbb`.
fn colour(text: &[u8]) -> Option<Rgb> {
    let text = std::str::from_utf8(text).ok()?;
    let part = |digits: &str| {
        let most = (1_u32 << (4 * digits.len().clamp(1, 4))) - 1;
        let value = u32::from_str_radix(digits, 16).ok().filter(|value| *value <= most)?;
        Some((value * 255 / most) as u8)
    };
    if let Some(digits) = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii()) {
        return Some([part(&digits[..2])?, part(&digits[2..4])?, part(&digits[4..])?]);
    }
    let mut parts = text.strip_prefix("rgb:").or_else(|| text.strip_prefix("rgba:"))?.split('/');
    Some([part(parts.next()?)?, part(parts.next()?)?, part(parts.next()?)?])
}

/// A key that the client may obey: what it would be without Ctrl, and whether Ctrl was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub char: char,
    pub ctrl: bool,
}

pub const LEADER: Key = Key { char: '\\', ctrl: true };
pub const PASTE: Key = Key { char: 'v', ctrl: true };

/// The key that one read stands for, in the plain, Kitty (CSI u) or modifyOtherKeys spelling; nothing when it is more
/// or something else.
pub fn key(read: &[u8]) -> Option<Key> {
    match read {
        [byte @ 1..=26] => return Some(Key { char: char::from(byte | 0x60), ctrl: true }),
        [0x1c] => return Some(LEADER),
        [byte @ 0x20..=0x7e] => return Some(Key { char: char::from(*byte), ctrl: false }),
        _ => {}
    }
    let body = std::str::from_utf8(read.strip_prefix(b"\x1b[")?).ok()?;
    let (code, mods) = if let Some(body) = body.strip_suffix('u') {
        let mut fields = body.split(';');
        (fields.next()?.split(':').next()?, fields.next().unwrap_or("1"))
    } else {
        let (mods, code) = body.strip_prefix("27;")?.strip_suffix('~')?.split_once(';')?;
        (code, mods)
    };
    let (mods, event) = mods.split_once(':').unwrap_or((mods, "1"));
    // Caps Lock and Num Lock change nothing.
    let mods = mods.parse::<u32>().ok()?.checked_sub(1)? & !0b1100_0000;
    let ctrl = match mods {
        0 => false,
        4 => true,
        _ => return None,
    };
    let char = char::from_u32(code.parse().ok()?)?;
    (event != "3").then_some(Key { char, ctrl })
}

/// A read with more bytes than that was pasted, not typed.
const TYPED_AT_ONCE: usize = 8;

/// Finds the leader followed by d, in one read or two; for a watcher also q and Ctrl+C. A busy machine gives several keys in one read.
#[derive(Default)]
pub struct WayOut {
    leader: bool,
}

impl WayOut {
    pub fn is_taken_by(&mut self, read: &[u8], watching: bool) -> bool {
        if (2..=TYPED_AT_ONCE).contains(&read.len()) && !read.contains(&0x1b) {
            return read.iter().any(|key| self.is_taken_by(&[*key], watching));
        }
        if let [0x1c, rest @ ..] = read
            && !rest.is_empty()
        {
            self.leader = true;
            return self.is_taken_by(rest, watching);
        }
        if read.starts_with(b"\x1b[") && read.ends_with(b"u") && read.windows(3).any(|part| part == b":3u" || part == b":3;") {
            return false;
        }
        let key = key(read);
        let led = std::mem::replace(&mut self.leader, key == Some(LEADER));
        match key {
            Some(Key { char: 'd', ctrl: false }) => led,
            Some(Key { char: 'q', ctrl: false } | Key { char: 'c', ctrl: true }) => watching,
            _ => false,
        }
    }
}

/// What a bracketed paste that is one whole read holds.
pub fn pasted(read: &[u8]) -> Option<&str> {
    std::str::from_utf8(read.strip_prefix(b"\x1b[200~")?.strip_suffix(b"\x1b[201~")?).ok()
}

/// What a terminal sends when somebody pastes an image, or the path of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePaste {
    /// Ctrl+V, which reaches us only when the terminal found no text to paste.
    Clipboard,
    /// As it came, perhaps quoted.
    Path(String),
}

pub fn image_paste(read: &[u8]) -> Option<ImagePaste> {
    if key(read) == Some(PASTE) {
        return Some(ImagePaste::Clipboard);
    }
    // A program that does not know of bracketed paste gets the bare text; nobody types that much at once.
    let text = pasted(read).or_else(|| std::str::from_utf8(read).ok().filter(|text| text.len() > 4))?;
    let path = text.trim().trim_matches(['\'', '"']).to_ascii_lowercase();
    let fits = !text.contains(|c: char| c.is_control()) && IMAGE_ENDINGS.iter().any(|ending| path.ends_with(ending));
    fits.then(|| ImagePaste::Path(text.to_owned()))
}

const IMAGE_ENDINGS: [&str; 7] = [".png", ".jpg", ".jpeg", ".gif", ".webp", ".tiff", ".tif"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_in_every_spelling() {
        for (text, expected) in [
            ("rgb:ffff/8080/0000", Some([255, 128, 0])),
            ("rgb:f/8/0", Some([255, 136, 0])),
            ("rgb:ff/80/00", Some([255, 128, 0])),
            ("rgba:ffff/ffff/ffff/ffff", Some([255, 255, 255])),
            ("#1e1e2e", Some([30, 30, 46])),
            ("rgb:ff/80", None),
            ("rgb:fffff/0/0", None),
            ("rgb:/0/0", None),
            ("#ééé", None),
            ("?", None),
        ] {
            assert_eq!(colour(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn when_both_answers_are_there_nothing_is_held_any_more() {
        let mut answers = Answers::awaited();
        assert_eq!(answers.take(b"a\x1b]10;rgb:0/0/0\x07b\x1b]11;rgb:f/f/f\x1b\\c".to_vec()), b"abc");
        assert_eq!((answers.foreground, answers.background), (Some([0; 3]), Some([255; 3])));
        assert_eq!(answers.take(b"\x1b".to_vec()), b"\x1b");
        assert!(!answers.is_holding());
    }

    #[test]
    fn escape_waits_only_while_an_answer_is_likely() {
        let mut answers = Answers::awaited();
        assert_eq!(answers.take(b"\x1b".to_vec()), b"");
        assert!(answers.is_holding());
        assert_eq!(answers.release(), b"\x1b");
        answers.be_late();
        assert_eq!(answers.take(b"\x1b".to_vec()), b"\x1b");
        assert_eq!(answers.take(b"\x1b]".to_vec()), b"\x1b]", "Alt+] is a key too");
        // A late answer is still none of the agent's business.
        assert_eq!(answers.take(b"\x1b]1".to_vec()), b"");
        assert_eq!(answers.take(b"0;rgb:1/1/1\x1b\\x".to_vec()), b"x");
        assert_eq!(answers.foreground, Some([17; 3]));
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let mut answers = Answers::awaited();
        let endless = [b"\x1b]11;".as_slice(), &[b'x'; MAX_ANSWER]].concat();
        assert_eq!(answers.take(endless.clone()), endless);
    }

    #[test]
    fn keys_in_every_spelling() {
        for read in [&b"\x1c"[..], b"\x1b[92;5u", b"\x1b[92:124;5u", b"\x1b[92;69:1u", b"\x1b[27;5;92~", b"\x1b[92;133:2u"] {
            assert_eq!(key(read), Some(LEADER), "{read:?}");
        }
        for read in [&b"\x16"[..], b"\x1b[118;5u", b"\x1b[27;5;118~"] {
            assert_eq!(key(read), Some(PASTE), "{read:?}");
        }
        assert_eq!(key(b"q"), Some(Key { char: 'q', ctrl: false }));
        assert_eq!(key(b"\x1b[113u"), Some(Key { char: 'q', ctrl: false }));
        for read in
            [&b""[..], b"qq", b"\x1b", b"\x1b[A", b"\x1b[92;5:3u", b"\x1b[92;6u", b"\x1b[u", b"\x1b[;u", b"\x1b[27;5~", b"\x1b[<0;1;1M"]
        {
            assert_eq!(key(read), None, "{read:?}");
        }
    }

    #[test]
    fn the_way_out() {
        let takes = |reads: &[&[u8]], watching| {
            let mut out = WayOut::default();
            reads.iter().any(|read| out.is_taken_by(read, watching))
        };
        for watching in [false, true] {
            assert!(takes(&[b"\x1cd"], watching));
            assert!(takes(&[b"\x1c", b"d"], watching));
            assert!(takes(&[b"\x1b[92;5u", b"d"], watching));
            assert!(takes(&[b"\x1b[92;5u", b"\x1b[92;5:3u", b"d"], watching), "letting go of the leader is not a key");
            assert!(!takes(&[b"\x1c", b"x", b"d"], watching));
            assert!(takes(&[b"abc\x1cd"], watching) && !takes(&[b"abc\x1cxd"], watching), "several keys in one read");
            assert!(takes(&[b"abc\x1c", b"d"], watching));
            assert!(!takes(&[b"a long quotation\x1cd"], watching), "pasted");
            assert!(!takes(&[b"d", b"\x1b[<35;3;4M", b"\x1b[200~q\x1b[201~"], watching));
        }
        for read in [&b"q"[..], b"\x03", b"\x1b[99;5u", b"abcq", b"abc\x03"] {
            assert!(takes(&[read], true) && !takes(&[read], false));
        }
    }

    #[test]
    fn a_paste_is_known_as_a_whole() {
        assert_eq!(pasted(b"\x1b[200~/tmp/a.png\x1b[201~"), Some("/tmp/a.png"));
        assert_eq!(pasted(b"\x1b[200~/tmp/a"), None);
        assert_eq!(pasted(b"/tmp/a.png"), None);
        for read in [&b"\x16"[..], b"/tmp/a.png", b"\x1b[200~'/tmp/A B.JPG' \x1b[201~", b"file:///x.tif"] {
            assert!(image_paste(read).is_some(), "{read:?}");
        }
        for read in [&b"v"[..], b".png", b"/tmp/a.png\r", b"/tmp/a.txt", b"\x1b[200~a.png\nb\x1b[201~"] {
            assert_eq!(image_paste(read), None, "{read:?}");
        }
    }

    proptest! {
        /// However the bytes are cut, the keys come through and the answers do not.
        #[test]
        fn answers_and_keys_part(
            keys in proptest::collection::vec("[a-z\r]{0,4}|\x1b\\[A|\x1b[a-z]", 3),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
            late in any::<bool>(),
        ) {
            let (foreground, background) = ("\x1b]10;rgb:ffff/0000/8080\x1b\\", "\x1b]11;rgb:11/22/33\x07");
            let stream = format!("{}{foreground}{}{background}{}", keys[0], keys[1], keys[2]).into_bytes();
            // Once it is late, an answer that is cut right behind its Escape cannot be told from that key.
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len()))
                .filter(|cut| !late || !stream[..*cut].ends_with(b"\x1b") && !stream[..*cut].ends_with(b"\x1b]")).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let mut answers = Answers::awaited();
            if late {
                answers.be_late();
            }
            let (mut typed, mut from) = (Vec::new(), 0);
            for cut in cuts {
                typed.extend(answers.take(stream[from..cut].to_vec()));
                from = cut;
            }
            typed.extend(answers.release());
            prop_assert_eq!(String::from_utf8(typed).unwrap(), keys.concat());
            prop_assert_eq!((answers.foreground, answers.background), (Some([255, 0, 128]), Some([0x11, 0x22, 0x33])));
        }

        #[test]
        fn nothing_typed_is_lost(reads in any::<Vec<Vec<u8>>>()) {
            let mut answers = Answers::awaited();
            let mut typed: Vec<u8> = reads.iter().flat_map(|read| answers.take(read.clone())).collect();
            typed.extend(answers.release());
            prop_assert_eq!(typed, reads.concat());
            for read in &reads {
                key(read);
            }
        }
    }
}
