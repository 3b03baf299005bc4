//! What is typed, as keys: bytes in, inputs out, however they are cut into reads. Absent: the terminal and time; whether a lone Escape is
//! the key or the beginning of another one is told by `release`, some time later.

use super::state::{Input, Key};

const PASTE: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";
/// Longer than any key is.
const MAX_KEY: usize = 32;
/// Nobody pastes more into a filter.
const MAX_PASTE: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Keys {
    /// Not yet a whole key.
    held: Vec<u8>,
}

/// How the beginning of some bytes is to be understood.
enum Begins {
    Part,
    /// So many bytes that mean something, or nothing.
    Whole(usize, Option<Input>),
}

impl Keys {
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Input> {
        self.held.extend_from_slice(bytes);
        let (mut out, mut at) = (Vec::new(), 0);
        while at < self.held.len() {
            match begins(&self.held[at..]) {
                Begins::Part => break,
                Begins::Whole(length, input) => {
                    at += length;
                    out.extend(input);
                }
            }
        }
        self.held.drain(..at);
        out
    }

    /// Something waits for its rest, which comes at once or not at all.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty() && !self.held.starts_with(PASTE)
    }

    /// The rest did not come.
    pub fn release(&mut self) -> Vec<Input> {
        match std::mem::take(&mut self.held)[..] {
            [0x1b] => vec![Input::Key(Key::Esc)],
            _ => Vec::new(),
        }
    }
}

fn begins(bytes: &[u8]) -> Begins {
    let key = |length, key| Begins::Whole(length, Some(Input::Key(key)));
    match bytes {
        [0x1b, b'[', ..] if bytes.starts_with(PASTE) => pasted(bytes),
        // Function keys of the Linux console.
        [0x1b, b'[', b'[', _, ..] => Begins::Whole(4, None),
        [0x1b, b'[', b'['] | [0x1b] | [0x1b, b'O'] => Begins::Part,
        [0x1b, b'[', rest @ ..] => match rest.iter().position(|byte| !(0x20..0x40).contains(byte)) {
            Some(end) => Begins::Whole(end + 3, sequence(&rest[..end], rest[end]).map(Input::Key)),
            None if bytes.len() < MAX_KEY => Begins::Part,
            None => Begins::Whole(bytes.len(), None),
        },
        [0x1b, b'O', letter, ..] => Begins::Whole(3, sequence(b"", *letter).map(Input::Key)),
        [0x1b, 0x1b, ..] => key(1, Key::Esc),
        // Alt and a key mean nothing here; the key alone might.
        [0x1b, rest @ ..] => match begins(rest) {
            Begins::Whole(length, _) => Begins::Whole(length + 1, None),
            Begins::Part => Begins::Part,
        },
        [b'\r' | b'\n', ..] => key(1, Key::Enter),
        [b'\t', ..] => key(1, Key::Tab),
        [0x08 | 0x7f, ..] => key(1, Key::Backspace),
        [byte @ 1..=26, ..] => key(1, Key::Ctrl(char::from(byte | 0x60))),
        [0..0x20, ..] => Begins::Whole(1, None),
        _ => letter(bytes),
    }
}

fn letter(bytes: &[u8]) -> Begins {
    let start = &bytes[..bytes.len().min(4)];
    let (text, wrong) = match std::str::from_utf8(start) {
        Ok(text) => (text, None),
        Err(error) => (std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(), Some(error.error_len())),
    };
    match (text.chars().next(), wrong) {
        (Some(letter), _) => Begins::Whole(letter.len_utf8(), (!letter.is_control()).then_some(Input::Key(Key::Char(letter)))),
        (None, Some(Some(length))) => Begins::Whole(length, None),
        (None, _) => Begins::Part,
    }
}

fn pasted(bytes: &[u8]) -> Begins {
    let text = &bytes[PASTE.len()..];
    match text.windows(PASTE_END.len()).position(|part| part == PASTE_END) {
        Some(end) => {
            let length = PASTE.len() + end + PASTE_END.len();
            Begins::Whole(length, Some(Input::Pasted(String::from_utf8_lossy(&text[..end]).into_owned())))
        }
        None if text.len() < MAX_PASTE => Begins::Part,
        None => Begins::Whole(bytes.len(), None),
    }
}

/// A key by the end of its sequence; modifiers change nothing.
fn sequence(parameters: &[u8], end: u8) -> Option<Key> {
    let number = parameters.split(|byte| *byte == b';').next().unwrap_or_default();
    Some(match (end, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        (b'Z', _) => Key::Tab,
        (b'M', b"") => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Vec<Input> {
        let mut keys = Keys::default();
        let mut out = keys.take(bytes);
        out.extend(keys.release());
        out
    }

    #[test]
    fn keys_in_every_spelling() {
        for (bytes, expected) in [
            (&b"a"[..], Some(Key::Char('a'))),
            ("漢".as_bytes(), Some(Key::Char('漢'))),
            (b"\x1b", Some(Key::Esc)),
            (b"\r", Some(Key::Enter)),
            (b"\x03", Some(Key::Ctrl('c'))),
            (b"\x7f", Some(Key::Backspace)),
            (b"\x1b[A", Some(Key::Up)),
            (b"\x1bOA", Some(Key::Up)),
            (b"\x1b[1;5B", Some(Key::Down)),
            (b"\x1b[Z", Some(Key::Tab)),
            (b"\x1b[6~", Some(Key::PageDown)),
            (b"\x1b[1~", Some(Key::Home)),
            (b"\x1b[F", Some(Key::End)),
            // Not one of ours; above all no letter that stands in it.
            (b"\x1b[3~", None),
            (b"\x1b[[A", None),
            (b"\x1b[?1;2c", None),
            (b"\x1bx", None),
            (b"\x1b[", None),
            (b"\xff", None),
            ("\u{85}".as_bytes(), None),
        ] {
            assert_eq!(all(bytes), expected.map(Input::Key).into_iter().collect::<Vec<_>>(), "{bytes:?}");
        }
        let paste = all(b"x\x1b[200~t\x1b[Ap\r\x1b[201~y");
        assert_eq!(paste, [Input::Key(Key::Char('x')), Input::Pasted("t\x1b[Ap\r".to_owned()), Input::Key(Key::Char('y'))]);
    }

    proptest! {
        /// How the bytes are cut into reads changes nothing.
        #[test]
        fn cuts_do_not_matter(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                &b"a"[..], "é".as_bytes(), b"\x1b[A", b"\x1bOB", b"\x1b[5~", b"\r", b"\x1b[200~pq\x1b[201~", b"\x03", b"\xe6", b"\x1b[[A",
            ]), 0..12),
            cuts in proptest::collection::vec(1_usize..5, 1..9),
        ) {
            let bytes = parts.concat();
            let (mut keys, mut cuts, mut rest, mut out) = (Keys::default(), cuts.iter().cycle(), &bytes[..], Vec::new());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                out.extend(keys.take(now));
                rest = later;
            }
            out.extend(keys.release());
            prop_assert_eq!(out, all(&bytes));
        }

        #[test]
        fn nothing_typed_brings_it_down(bytes in any::<Vec<u8>>()) {
            all(&bytes);
        }
    }
}
