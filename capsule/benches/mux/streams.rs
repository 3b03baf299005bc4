//! The eight streams that multiplexers are measured with, for a terminal of 200 x 50. A name in, bytes as a program writes
//! them out. Deterministic, and none of them holds an `@`, which is what ends a measurement.

const ROWS: u64 = 50;
const COLS: u64 = 200;
const WORDS: [&str; 20] = [
    "the",
    "cargo",
    "build",
    "error",
    "warning",
    "src/main.rs",
    "compile",
    "agent",
    "function",
    "return",
    "unused",
    "variable",
    "let",
    "mut",
    "impl",
    "async",
    "tokio",
    "0x7ffe",
    "12345",
    "=>",
];

/// Appends a line, a screen or a frame.
type Piece = fn(&mut Vec<u8>, &mut Random);

pub const STREAMS: [(&str, Piece); 8] = [
    ("ascii", ascii),
    ("lscolor", lscolor),
    ("agent_tui", agent_tui),
    ("agent_clear", agent_clear),
    ("unicode", unicode),
    ("scroll_region", scroll_region),
    ("cursor", cursor),
    ("dense_sgr", dense_sgr),
];

/// At least `len` bytes of the stream of that name.
pub fn stream(name: &str, len: usize) -> Vec<u8> {
    let (_, piece) = STREAMS.iter().find(|(known, _)| *known == name).expect("BUG: a stream of another name");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::with_capacity(len + (1 << 20));
    while out.len() < len {
        piece(&mut out, &mut random);
    }
    out
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn range(&mut self, from: u64, end: u64) -> u64 {
        from + self.below(end - from)
    }

    fn printable(&mut self) -> u8 {
        let byte = self.range(33, 126) as u8;
        if byte < b'@' { byte } else { byte + 1 }
    }

    fn words(&mut self, out: &mut Vec<u8>, count: u64) {
        for _ in 0..count {
            out.extend_from_slice(WORDS[self.below(20) as usize].as_bytes());
            out.push(b' ');
        }
    }

    fn text(&mut self, out: &mut Vec<u8>, len: u64) {
        let start = out.len();
        while ((out.len() - start) as u64) < len {
            self.words(out, 1);
        }
    }
}

fn ascii(out: &mut Vec<u8>, r: &mut Random) {
    let len = r.range(20, 140);
    r.text(out, len);
    out.push(b'\n');
}

fn lscolor(out: &mut Vec<u8>, r: &mut Random) {
    for _ in 0..r.range(3, 8) {
        let word = WORDS[r.below(20) as usize];
        out.extend_from_slice(format!("\x1b[0m\x1b[01;{}m{word}\x1b[0m  ", 30 + r.below(8)).as_bytes());
    }
    out.push(b'\n');
}

fn dense_sgr(out: &mut Vec<u8>, r: &mut Random) {
    out.extend_from_slice(b"\x1b[H");
    for _ in 0..ROWS * COLS {
        let c = char::from(r.printable());
        out.extend_from_slice(format!("\x1b[38;5;{};48;5;{};1;3;4m{c}", r.below(256), r.below(256)).as_bytes());
    }
    out.extend_from_slice(b"\x1b[0m");
}

fn scroll_region(out: &mut Vec<u8>, r: &mut Random) {
    out.extend_from_slice(b"\x1b[10;30r\x1b[30;1H");
    for _ in 0..500 {
        let len = r.range(20, 100);
        r.text(out, len);
        out.push(b'\n');
    }
}

fn unicode(out: &mut Vec<u8>, r: &mut Random) {
    let (mut width, len) = (0, r.range(20, 120));
    while width < len {
        let (code, wide) = match r.below(10) {
            0..=4 => (r.range(0x4e00, 0x9e00), 2),
            5 => (r.range(0xac00, 0xcc00), 2),
            6 => (r.range(0x1f600, 0x1f640), 2),
            7 => (r.range(0x410, 0x450), 1),
            8 => (r.range(0xe0, 0xff), 1),
            _ => (u64::from(b'x'), 1),
        };
        let c = char::from_u32(code as u32).unwrap_or('x');
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        if wide == 1 && r.below(8) == 0 {
            out.extend_from_slice("\u{301}".as_bytes());
        }
        width += wide;
    }
    out.push(b'\n');
}

fn cursor(out: &mut Vec<u8>, r: &mut Random) {
    for _ in 0..400 {
        out.extend_from_slice(format!("\x1b[{};{}H", r.range(1, ROWS + 1), r.range(1, COLS - 12)).as_bytes());
        if r.below(3) == 0 {
            out.extend_from_slice(format!("\x1b[38;2;{};{};{}m", r.below(256), r.below(256), r.below(256)).as_bytes());
        }
        for _ in 0..r.range(1, 10) {
            let byte = r.printable();
            out.push(byte);
        }
        if r.below(8) == 0 {
            out.extend_from_slice(b"\x1b[K");
        }
    }
    out.extend_from_slice(b"\x1b[0m");
}

fn agent_tui(out: &mut Vec<u8>, r: &mut Random) {
    out.extend_from_slice(b"\x1b[?2026h\x1b[?25l");
    let rows = r.range(8, 24);
    for _ in 0..rows {
        out.extend_from_slice(b"\x1b[2K\x1b[1A");
    }
    out.extend_from_slice(b"\x1b[G");
    for row in 0..rows {
        out.extend_from_slice(match row % 4 {
            0 => "\x1b[38;2;215;119;87m✻\x1b[39m \x1b[1mThinking…\x1b[22m \x1b[2m(esc to interrupt)\x1b[22m".as_bytes(),
            1 => "\x1b[2m│\x1b[22m ".as_bytes(),
            2 => b"\x1b[48;2;34;92;43m\x1b[38;2;255;255;255m  42 + ",
            _ => b"",
        });
        let words = r.range(3, 14);
        r.words(out, words);
        out.extend_from_slice(b"\x1b[0m\r\n");
    }
    out.extend_from_slice(b"\x1b[?25h\x1b[?2026l");
}

fn agent_clear(out: &mut Vec<u8>, r: &mut Random) {
    out.extend_from_slice(b"\x1b[?2026h\x1b[2J\x1b[3J\x1b[H");
    let start = out.len();
    while out.len() - start < 94_500 {
        if r.below(5) == 0 {
            out.extend_from_slice("\x1b[38;2;153;153;153m⎿ \x1b[39m".as_bytes());
        }
        if r.below(6) == 0 {
            out.extend_from_slice(b"\x1b[48;2;34;92;43m\x1b[38;2;248;248;242m");
        }
        let words = r.range(4, 20);
        r.words(out, words);
        out.extend_from_slice(b"\x1b[0m\r\n");
    }
    out.extend_from_slice(b"\x1b[?2026l");
}
