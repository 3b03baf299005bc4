//! Hostile input for as long as wished: `fuzz wire|control|output [CPU-MINUTES] [SEED]`. A case that breaks a promise
//! panics; its seed is printed before, so that `fuzz TARGET 0 SEED` repeats it alone.
//!
//! Cases are grown from valid ones: cut, spliced, repeated, with bits and numbers changed, so that most get past the
//! first check of what reads them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use jackin_capsule::control::{self, Request};
use jackin_capsule::frame::{Frame, Rect};
use jackin_capsule::keys::{Bindings, Event, Reader};
use jackin_capsule::screen::{Policy, Screen, Size, Store, Stored};
use jackin_capsule::wire::{self, AttachMode, ClientFrame, Ctx, HEADER_LEN, Hello, ServerFrame, Spawn};

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// Changes a few things, as a broken or hostile sender would.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, self.bytes(9))),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 if at < bytes.len() => bytes[at] = *self.pick(&[&0, &0x7f, &0x80, &0xff, &b'"', &b'\\', &0x1b]),
                4 => {
                    let end = (at + self.below(20)).min(bytes.len());
                    bytes.drain(at..end);
                }
                5 => {
                    let piece = bytes[at..(at + self.below(40)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.extend(self.bytes(6)),
            }
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let target: fn(&mut Random) = match args.first().map(String::as_str) {
        Some("wire") => wire_case,
        Some("control") => control_case,
        Some("output") => output_case,
        _ => {
            eprintln!("usage: fuzz wire|control|output [CPU-MINUTES] [SEED]");
            return ExitCode::from(2);
        }
    };
    let minutes: f64 = args.get(1).and_then(|text| text.parse().ok()).unwrap_or(0.1);
    let first: u64 = args.get(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let (mut seed, mut cases) = (first, 0u64);
    loop {
        // Neighbouring seeds would begin alike.
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        if catch_unwind(AssertUnwindSafe(|| target(&mut random))).is_err() {
            eprintln!("fuzz: {} breaks with seed {seed}", args[0]);
            return ExitCode::FAILURE;
        }
        cases += 1;
        seed += 1;
        if cases % 64 == 0 && cpu_minutes() >= minutes || minutes == 0.0 {
            println!("{}: {cases} cases from seed {first} in {:.1} CPU minutes, none broke", args[0], cpu_minutes());
            return ExitCode::SUCCESS;
        }
    }
}

/// Of this process, from /proc in the kernel's hundredths of a second.
fn cpu_minutes() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after_name.split_whitespace().nth(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (field(11) + field(12)) / 100.0 / 60.0
}

fn wire_case(random: &mut Random) {
    let hello = Hello {
        rows: random.next() as u16,
        cols: random.next() as u16,
        spawn: match random.below(4) {
            0 => Spawn::None,
            1 => Spawn::Shell,
            2 => Spawn::Agent("claude".into()),
            _ => Spawn::AgentWithProvider { agent: "claude".into(), provider: "Z.AI".into() },
        },
        env: (0..random.below(4)).map(|i| (format!("K{i}"), "value".into())).collect(),
        focus: (random.below(2) == 0).then(|| random.next()),
        foreground: (random.below(2) == 0).then_some([1, 2, 3]),
        ctx: Ctx { mode: if random.below(2) == 0 { AttachMode::Shared } else { AttachMode::Takeover }, ..Ctx::default() },
        ..Hello::default()
    };
    let frame = match random.below(6) {
        0 => ClientFrame::Hello(Box::new(hello)),
        1 => ClientFrame::Resize { rows: random.next() as u16, cols: random.next() as u16 },
        2 => ClientFrame::Input(random.bytes(64)),
        3 => ClientFrame::ImageChunk { transfer: random.next(), offset: random.next(), bytes: random.bytes(64) },
        4 => ClientFrame::AttachControl {
            kind: random.next() as u8,
            request: random.next(),
            ctx: "{\"v\":1}".into(),
            body: random.bytes(32),
        },
        _ => ClientFrame::HostNotice("notice".into()),
    };
    let mut bytes = frame.encode().expect("a valid frame can be encoded");
    random.spoil(&mut bytes);
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    if let Ok((tag, len)) = wire::decode_header(*header) {
        let payload = &payload[..len.min(payload.len())];
        if let Ok(frame) = ClientFrame::decode(tag, payload) {
            let again = frame.encode().expect("what was decoded can be encoded");
            assert_eq!(ClientFrame::decode(tag, &again[HEADER_LEN..]), Ok(frame), "decoding is not stable");
        }
        if let Ok(frame) = ServerFrame::decode(tag, payload) {
            let again = frame.encode().expect("what was decoded can be encoded");
            assert_eq!(ServerFrame::decode(tag, &again[HEADER_LEN..]), Ok(frame), "decoding is not stable");
        }
    }
    // What an attached terminal types: nothing of it may be lost, however it is cut.
    let typed = typing(random);
    let bindings = Bindings::default();
    let (mut whole, mut cut) = (Reader::new(&bindings), Reader::new(&bindings));
    let mut expected = whole.feed(&typed);
    expected.extend(whole.flush());
    let at = random.below(typed.len() + 1);
    let mut events = cut.feed(&typed[..at]);
    events.extend(cut.feed(&typed[at..]));
    events.extend(cut.flush());
    assert_eq!(told(&events), told(&expected), "cutting changes what was typed");
}

/// Events as text, plain typing joined: where it was cut does not matter.
fn told(events: &[Event]) -> String {
    let mut plain = Vec::new();
    let mut text = String::new();
    for event in events {
        if let Event::Bytes(bytes) = event {
            plain.extend_from_slice(bytes);
        } else {
            text += &format!("{:?} {event:?} ", std::mem::take(&mut plain));
        }
    }
    text + &format!("{plain:?}")
}

fn typing(random: &mut Random) -> Vec<u8> {
    let mut typed = Vec::new();
    for _ in 0..random.below(12) {
        typed.extend_from_slice(random.pick::<[u8]>(&[
            b"ls\r",
            b"\x1b[A",
            b"\x1bOP",
            b"\x1b[92;5u",
            b"\x1b[27;5;92~",
            b"\x1b[<0;10;5M",
            b"\x1b[<35;200;50M",
            b"\x1b[200~pasted\x1b[201~",
            b"\x1b[I",
            b"\x1b[?62;22c",
            b"\x1b]11;rgb:0000/0000/0000\x1b\\",
            b"\x1c",
            b"\x1b",
            "é漢👩".as_bytes(),
        ]));
        if random.below(4) == 0 {
            random.spoil(&mut typed);
        }
    }
    typed
}

fn control_case(random: &mut Random) {
    let message = random.pick::<str>(&[
        r#"{"type":"status"}"#,
        r#"{"ctx":{"v":1,"session_id":"3"},"msg":{"type":"snapshot"}}"#,
        r#"{"ctx":{"v":1},"msg":{"type":"session_read","session_id":1,"history":100}}"#,
        r#"{"type":"wait_session_status","session_id":1,"states":["idle","done"],"timeout_ms":1000}"#,
        r#"{"type":"report_runtime_event","session_id":1,"source_id":"s","runtime":"claude","event":"stop","payload":{"a":[1,2,{"b":null}]}}"#,
        r#"{"type":"session_spawn","agent":"claude","provider":"Z.AI"}"#,
        r#"{"type":"upgrade","path":"/x"}"#,
        r#"{"type":"fly","deep":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}"#,
    ]);
    let mut bytes = message.as_bytes().to_vec();
    random.spoil(&mut bytes);
    let (request, ctx) = Request::parse(&bytes);
    let again = request.to_json(&ctx);
    assert_eq!(Request::parse(again.as_bytes()), (request, ctx), "a request does not survive the wire");
    assert_eq!(control::frame(&again).len(), again.len() + 4);
}

/// A spool's history.
#[derive(Default, Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Store for Memory {
    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        self.0.lock().expect("one thread")[at as usize..at as usize + len].to_vec()
    }
}

fn output_case(random: &mut Random) {
    let size = Size { rows: 1 + random.below(30) as u16, cols: 1 + random.below(100) as u16 };
    let mut screen = Screen::new(size, Policy::default());
    let mut plain = Screen::new(size, Policy::default());
    let memory = Memory::default();
    screen.keep_history_in(Stored { store: Box::new(memory.clone()), at: 0, records: Vec::new() });
    let mut picture = Frame::new(size);
    for _ in 0..1 + random.below(6) {
        let bytes = output(random);
        screen.process(&bytes);
        plain.process(&bytes);
        if random.below(5) == 0 {
            let size = Size { rows: 1 + random.below(40) as u16, cols: 1 + random.below(120) as u16 };
            screen.resize(size);
            plain.resize(size);
        }
        if random.below(2) == 0 {
            memory.0.lock().expect("one thread").extend(screen.news().records);
        }
        let size = screen.size();
        let all = picture.size() != size;
        if all {
            picture.resize(size);
        }
        screen.paint(&mut picture, Rect::of(size), 0, all);
        let mut whole = Frame::new(size);
        screen.paint(&mut whole, Rect::of(size), 0, true);
        assert_eq!(picture.text(), whole.text(), "painting what changed is not painting all");
        let offset = random.below(screen.history_len() + 1);
        screen.paint(&mut whole, Rect::of(size), offset, true);
    }
    assert_eq!(screen.text_with_history(None), plain.text_with_history(None), "what was stored does not come back");
    if screen.is_between_sequences() {
        let mut copy = Screen::new(screen.size(), Policy::default());
        copy.process(&screen.checkpoint());
        assert_eq!(copy.text(), screen.text(), "a checkpoint is another screen");
    }
    screen.search("e", 0, random.below(2) == 0);
}

fn output(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.below(60) {
        let piece = random.pick::<str>(&[
            "text ",
            "\r\n",
            "\n",
            "\t",
            "漢字",
            "e\u{301}",
            "👩\u{200d}👩",
            "\u{fe0f}",
            "\x1b[31;1m",
            "\x1b[4:3;58:2::255:0:0m",
            "\x1b[38;2;1;2;3m",
            "\x1b[0m",
            "\x1b[H",
            "\x1b[5;70H",
            "\x1b[2J",
            "\x1b[3J",
            "\x1b[K",
            "\x1b[3;8r",
            "\x1b[r",
            "\x1b[?6h",
            "\x1b[?6l",
            "\x1b[?1049h",
            "\x1b[?1049l",
            "\x1b[?7l",
            "\x1b[?7h",
            "\x1b[4h",
            "\x1b[4l",
            "\x1b[5L",
            "\x1b[5M",
            "\x1b[3@",
            "\x1b[3P",
            "\x1b[9X",
            "\x1b[5b",
            "\x1b[3S",
            "\x1b[3T",
            "\x1bM",
            "\x1bD",
            "\x1b7",
            "\x1b8",
            "\x1b(0lqk\x1b(B",
            "\x0e\x0f",
            "\x1b]8;;https://x.y/z\x1b\\link\x1b]8;;\x1b\\",
            "\x1b]2;title\x07",
            "\x1b]52;c;aGk=\x07",
            "\x1b[?2026h",
            "\x1b[?2026l",
            "\x1b[>1u",
            "\x1b[<u",
            "\x1b[=5;1u",
            "\x1bP+q544e\x1b\\",
            "\x1b_Gf=100;AAAA\x1b\\",
            "\x1bc",
            "\x1b[!p",
            "\x1b#8",
        ]);
        for _ in 0..1 + random.below(8) * random.below(2) {
            out.extend_from_slice(piece.as_bytes());
        }
        if random.below(20) == 0 {
            random.spoil(&mut out);
        }
    }
    out
}
