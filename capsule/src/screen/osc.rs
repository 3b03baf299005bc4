//! What OSC and DCS strings mean: titles, folders, links, marks, progress, colours; and which may go on to the
//! operator's terminal. Nothing that passes can hide an escape.

use std::sync::Arc;

use super::pen::number;
use super::state::{Mark, MarkKind, Progress};
use super::{Screen, state::Colours};

const MAX_TITLE: usize = 512;
const MAX_NOTIFICATION: usize = 1024;
const MAX_PASSED: usize = 256 << 10;
const MAX_LINK: usize = 2083;
const MAX_FOLDER: usize = 4096;

impl Screen {
    pub(super) fn osc(&mut self, data: &[u8]) {
        let (code, rest) = split(data);
        match code {
            b"0" | b"1" | b"2" if self.policy.title => {
                let text = printable(rest, MAX_TITLE);
                match code {
                    b"1" => self.told.icon = text,
                    // It names both, so that there is one name.
                    b"0" => (self.told.title, self.told.icon) = (text, String::new()),
                    _ => self.told.title = text,
                }
                self.requests.title = true;
            }
            b"4" => self.palette(rest),
            b"7" => self.folder(rest),
            b"8" => self.link(rest),
            b"9" => match split(rest) {
                (b"4", progress) => self.progress_told(progress),
                // ConEmu's: 9;9 is the folder, the other numbers are nothing a terminal here could do.
                (b"9", path) => self.folder(&[b"file://", path].concat()),
                (number, _) if rest.contains(&b';') && !number.is_empty() && number.iter().all(u8::is_ascii_digit) => {}
                _ => self.notify("9;", rest),
            },
            b"10" => self.colour_asked("10", rest, |colours| colours.foreground),
            b"11" => self.colour_asked("11", rest, |colours| colours.background),
            b"12" => self.colour_asked("12", rest, |colours| colours.foreground),
            b"52" => self.clipboard(rest),
            b"99" => self.notify("99;", rest),
            b"133" => self.shell_mark(rest),
            b"777" if rest.starts_with(b"notify;") => self.notify("777;", rest),
            _ => {}
        }
    }

    /// XTGETTCAP and DECRQSS are answered with "no"; everything else is swallowed.
    pub(super) fn dcs(&mut self, data: &[u8]) {
        if data.starts_with(b"+q") {
            self.reply("\x1bP0+r\x1b\\");
        } else if data.starts_with(b"$q") {
            self.reply("\x1bP0$r\x1b\\");
        }
    }

    fn colour_asked(&mut self, code: &str, question: &[u8], of: impl Fn(&Colours) -> [u8; 3]) {
        if question == b"?" {
            let [r, g, b] = of(&self.colours);
            self.reply(&format!("\x1b]{code};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}\x1b\\"));
        }
    }

    fn palette(&mut self, rest: &[u8]) {
        let parts: Vec<_> = rest.split(|byte| *byte == b';').collect();
        for pair in parts.chunks_exact(2).take(256) {
            if let (b"?", Ok(index)) = (pair[1], u8::try_from(number(pair[0]))) {
                let [r, g, b] = standard(index);
                self.reply(&format!("\x1b]4;{index};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}\x1b\\"));
            }
        }
    }

    fn folder(&mut self, url: &[u8]) {
        let Some(rest) = url.strip_prefix(b"file://") else {
            return;
        };
        let path = &rest[rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())..];
        let path = printable(&percent_decoded(path), MAX_FOLDER);
        if path.starts_with('/') {
            self.told.cwd = Some(path);
            self.requests.cwd = true;
        }
    }

    fn link(&mut self, rest: &[u8]) {
        let (_, uri) = split(rest);
        let open = [&b"http://"[..], b"https://", b"mailto:"]
            .iter()
            .any(|scheme| uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        let link = std::str::from_utf8(rest)
            .ok()
            .filter(|link| open && self.policy.hyperlink && link.len() <= MAX_LINK && !link.chars().any(char::is_control));
        self.pen.link = link.map(Arc::from);
        self.repen();
    }

    fn progress_told(&mut self, rest: &[u8]) {
        let (state, percent) = split(rest);
        let percent = number(percent).min(100) as u8;
        self.told.progress = match number(state) {
            1 => Some(Progress::Percent(percent)),
            2 => Some(Progress::Error(percent)),
            3 => Some(Progress::Indeterminate),
            4 => Some(Progress::Paused(percent)),
            _ => None,
        };
        self.requests.progress = true;
    }

    fn shell_mark(&mut self, rest: &[u8]) {
        let (kind, rest) = split(rest);
        let kind = match kind {
            b"A" => MarkKind::Prompt,
            b"B" => MarkKind::Command,
            b"C" => MarkKind::Output,
            b"D" => MarkKind::Finished(std::str::from_utf8(split(rest).0).ok().and_then(|code| code.parse().ok())),
            _ => return,
        };
        let line = self.first_line() + self.history_len() + usize::from(self.at.0);
        self.told.mark = Some(Mark { kind, line });
        self.requests.mark = true;
    }

    fn notify(&mut self, code: &str, rest: &[u8]) {
        if self.policy.notify {
            self.pass(format!("\x1b]{code}{}\x07", printable(rest, MAX_NOTIFICATION)).as_bytes());
        }
    }

    fn clipboard(&mut self, rest: &[u8]) {
        let (to, data) = split(rest);
        let known = to.iter().all(|byte| b"cpqs01234567".contains(byte));
        let base64 = data.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
        // A question is not answered: the operator's clipboard is none of a program's business.
        if self.policy.clipboard && known && base64 && data.len() <= MAX_PASSED {
            self.pass(&[b"\x1b]52;", to, b";", data, b"\x07"].concat());
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        if self.requests.passed.len() <= MAX_PASSED {
            self.requests.passed.extend_from_slice(bytes);
        }
    }
}

/// Before and behind the first semicolon.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b';', data) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// Text that cannot hide an escape.
fn printable(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > limit {
            break;
        }
        out.push(c);
    }
    out
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                rest = &behind[2..];
            }
            None => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    out
}

/// xterm's colours, which the operator's terminal may well have changed.
fn standard(index: u8) -> [u8; 3] {
    const NAMED: [[u8; 3]; 16] = [
        [0, 0, 0],
        [205, 0, 0],
        [0, 205, 0],
        [205, 205, 0],
        [0, 0, 238],
        [205, 0, 205],
        [0, 205, 205],
        [229, 229, 229],
        [127, 127, 127],
        [255, 0, 0],
        [0, 255, 0],
        [255, 255, 0],
        [92, 92, 255],
        [255, 0, 255],
        [0, 255, 255],
        [255, 255, 255],
    ];
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        0..16 => NAMED[usize::from(index)],
        16..232 => [level((index - 16) / 36), level((index - 16) / 6 % 6), level((index - 16) % 6)],
        232.. => [8 + 10 * (index - 232); 3],
    }
}
