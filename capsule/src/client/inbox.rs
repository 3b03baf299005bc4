//! What the capsule sends, as it comes: bytes in, the picture and whole frames out. The bytes of a picture are passed on
//! from where they were read, before their frame is complete. Absent: sockets and time.

use crate::wire::{HEADER_LEN, ServerFrame, WireError, decode_header};

const READ_AT_ONCE: usize = 128 << 10;
const OUTPUT: u8 = 0x82;

#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Everything before is used up.
    at: usize,
    /// So much of a picture is still to be shown, there or not.
    picture: usize,
}

impl Inbox {
    /// Where to read into.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.reserve(READ_AT_ONCE);
        &mut self.bytes
    }

    /// What can be shown.
    pub fn picture(&self) -> &[u8] {
        let end = self.bytes.len().min(self.at + self.picture);
        &self.bytes[self.at..end]
    }

    pub fn shown(&mut self, count: usize) {
        self.at += count;
        self.picture -= count;
    }

    /// The next frame that is no picture; nothing while one has to be shown first, or more has to be read.
    pub fn next(&mut self) -> Result<Option<ServerFrame>, WireError> {
        while self.picture == 0 {
            let rest = &self.bytes[self.at..];
            let Some(header) = rest.first_chunk::<HEADER_LEN>() else { break };
            let (tag, len) = decode_header(*header)?;
            if tag == OUTPUT {
                self.at += HEADER_LEN;
                self.picture = len;
                continue;
            }
            let Some(payload) = rest.get(HEADER_LEN..HEADER_LEN + len) else { break };
            let frame = ServerFrame::decode(tag, payload)?;
            self.at += HEADER_LEN + len;
            return Ok(Some(frame));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = ServerFrame> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(ServerFrame::Output),
            "[a-z]{0,20}".prop_map(ServerFrame::HostOpenUrl),
            Just(ServerFrame::Bell),
            any::<u32>().prop_map(|sessions| ServerFrame::Welcome { sessions }),
        ]
    }

    proptest! {
        /// Whatever the reads and the writes are, pictures and frames come out whole and in order.
        #[test]
        fn frames_come_out_in_order(
            sent in proptest::collection::vec(frames(), 0..12),
            reads in proptest::collection::vec(1_usize..30, 1..9),
            writes in proptest::collection::vec(1_usize..30, 1..9),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.encode().unwrap()).collect();
            let (mut inbox, mut read, mut write) = (Inbox::default(), reads.iter().cycle(), writes.iter().cycle());
            let (mut rest, mut picture, mut seen) = (bytes.as_slice(), Vec::new(), Vec::new());
            loop {
                while let Some(frame) = inbox.next().unwrap() {
                    seen.push((picture.clone(), frame));
                }
                if !inbox.picture().is_empty() {
                    let count = inbox.picture().len().min(*write.next().unwrap());
                    picture.extend_from_slice(&inbox.picture()[..count]);
                    inbox.shown(count);
                } else if rest.is_empty() {
                    break;
                } else {
                    let (now, later) = rest.split_at(rest.len().min(*read.next().unwrap()));
                    inbox.room().extend_from_slice(now);
                    rest = later;
                }
            }
            let (mut expected_picture, mut expected) = (Vec::new(), Vec::new());
            for frame in sent {
                match frame {
                    ServerFrame::Output(bytes) => expected_picture.extend(bytes),
                    other => expected.push((expected_picture.clone(), other)),
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(picture, expected_picture);
        }

        #[test]
        fn garbage_is_an_error_or_waits_for_more(bytes in any::<Vec<u8>>()) {
            let mut inbox = Inbox::default();
            inbox.room().extend_from_slice(&bytes);
            for _ in 0..bytes.len() {
                let count = inbox.picture().len();
                inbox.shown(count);
                let _ = inbox.next();
            }
            prop_assert!(inbox.at <= inbox.bytes.len());
        }
    }
}
