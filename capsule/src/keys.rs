//! What the operator types: bytes in, bytes for the session and commands out.
//! Absent: sessions, and time — the leader waits for the next byte however long it takes.

/// Control-backslash.
const DEFAULT_LEADER: u8 = 0x1c;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    Bytes(Vec<u8>),
    Detach,
}

#[derive(Debug, Clone, Copy)]
pub struct Keys {
    leader: Option<u8>,
    armed: bool,
}

impl Keys {
    /// `setting` is `C-x`, `0xNN`, one character, or `none`; anything else means the default.
    pub fn new(setting: Option<&str>) -> Self {
        let leader = match setting {
            Some("none") => None,
            Some(text) => Some(parse_key(text).unwrap_or(DEFAULT_LEADER)),
            None => Some(DEFAULT_LEADER),
        };
        Self { leader, armed: false }
    }

    /// Leader then `d` detaches, leader twice sends it once, leader and anything else does nothing: a slip must not
    /// reach the agent, to which a bare Control-backslash means quit.
    pub fn typed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut out = Vec::new();
        let mut plain = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.armed {
                self.armed = false;
                match byte {
                    b'd' | b'D' => {
                        if !plain.is_empty() {
                            out.push(Typed::Bytes(std::mem::take(&mut plain)));
                        }
                        out.push(Typed::Detach);
                    }
                    byte if Some(byte) == self.leader => plain.push(byte),
                    _ => {}
                }
            } else if Some(byte) == self.leader {
                self.armed = true;
            } else {
                plain.push(byte);
            }
        }
        if !plain.is_empty() {
            out.push(Typed::Bytes(plain));
        }
        out
    }
}

fn parse_key(text: &str) -> Option<u8> {
    if let Some(key) = text.strip_prefix("C-") {
        return match key.as_bytes() {
            [key @ (b'@'..=b'_' | b'a'..=b'z')] => Some(key.to_ascii_uppercase() & 0x1f),
            _ => None,
        };
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u8::from_str_radix(hex, 16).ok();
    }
    match text.as_bytes() {
        [key] => Some(*key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &[&str], expected: &[Typed]) {
        let mut keys = Keys::new(None);
        let out: Vec<_> = typed.iter().flat_map(|bytes| keys.typed(bytes.as_bytes())).collect();
        assert_eq!(out, expected, "{typed:?}");
    }

    fn bytes(text: &str) -> Typed {
        Typed::Bytes(text.into())
    }

    #[test]
    fn the_leader() {
        check(&["ls\r"], &[bytes("ls\r")]);
        check(&["\x1cd"], &[Typed::Detach]);
        check(&["a\x1c", "d", "b"], &[bytes("a"), Typed::Detach, bytes("b")]);
        check(&["\x1c\x1c"], &[bytes("\x1c")]);
        check(&["a\x1cxb"], &[bytes("ab")]);
        check(&["\x1c"], &[]);
    }

    #[test]
    fn the_setting() {
        for (setting, leader) in [
            ("C-x", Some(0x18)),
            ("C-\\", Some(0x1c)),
            ("0x02", Some(2)),
            ("`", Some(b'`')),
            ("none", None),
            ("C-", Some(DEFAULT_LEADER)),
            ("0xzz", Some(DEFAULT_LEADER)),
            ("", Some(DEFAULT_LEADER)),
        ] {
            assert_eq!(Keys::new(Some(setting)).leader, leader, "{setting}");
        }
        assert_eq!(Keys::new(Some("none")).typed(b"\x1cd"), [bytes("\x1cd")]);
    }
}
