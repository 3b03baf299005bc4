//! The style that the next character gets: SGR parameters in, a style out, and back into SGR. It knows every attribute
//! a terminal has, also those for which vt100 has no room. Absent: cells, and where the bytes come from.

use std::sync::Arc;

use crate::frame::{Color, Hue, Style, attr};

/// `style.link` stays 0: what a link is called is a frame's business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pen {
    pub style: Style,
    /// The `params;uri` of OSC 8.
    pub link: Option<Arc<str>>,
}

/// The attributes vt100 cannot keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extra {
    attrs: u16,
    underline: Color,
    pub link: Option<Arc<str>>,
}

const EXTRA: u16 = attr::STRIKE | attr::HIDDEN | attr::BLINK | attr::OVERLINE;

/// What vt100 would make of a sequence: the same as the pen, or something else, so that it must be told in other words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Same,
    Other,
}

impl Extra {
    pub fn onto(&self, style: &mut Style) {
        if self.attrs & attr::UNDERLINE != 0 {
            style.attrs &= !attr::UNDERLINE;
        }
        style.attrs |= self.attrs;
        style.underline = self.underline;
    }
}

impl Pen {
    pub fn extra(&self) -> Option<Extra> {
        let kind = self.style.attrs & attr::UNDERLINE;
        let attrs = self.style.attrs & EXTRA | if kind > attr::SINGLE_UNDERLINE { kind } else { 0 };
        (attrs != 0 || self.style.underline != Color::DEFAULT || self.link.is_some()).then(|| Extra {
            attrs,
            underline: self.style.underline,
            link: self.link.clone(),
        })
    }

    /// Applies what stands between `CSI` and `m`.
    pub fn apply(&mut self, params: &[u8]) -> Told {
        let mut told = Told::Same;
        let mut groups = Groups { rest: Some(params), count: 0 };
        while let Some((code, sub)) = groups.next() {
            if let Some(sub) = sub {
                told = Told::Other;
                match code {
                    4 => self.underline(number(sub).min(5)),
                    38 | 48 | 58 => match colon_color(sub) {
                        Some(color) => self.color(code, color),
                        None => return Told::Other,
                    },
                    _ => {}
                }
                continue;
            }
            match code {
                38 | 48 | 58 => {
                    let color = match groups.plain() {
                        Some(5) => indexed(groups.plain()),
                        Some(2) => rgb([groups.plain(), groups.plain(), groups.plain()]),
                        _ => None,
                    };
                    let Some(color) = color else {
                        return Told::Other;
                    };
                    self.color(code, color);
                    if code == 58 {
                        told = Told::Other;
                    }
                }
                _ => self.plain(code),
            }
        }
        // vte keeps no more than 32.
        if groups.count > 30 { Told::Other } else { told }
    }

    fn color(&mut self, code: u16, color: Color) {
        match code {
            38 => self.style.fg = color,
            48 => self.style.bg = color,
            _ => self.style.underline = color,
        }
    }

    fn underline(&mut self, kind: u16) {
        self.style.attrs = self.style.attrs & !attr::UNDERLINE | kind << attr::UNDERLINE_SHIFT;
    }

    fn plain(&mut self, code: u16) {
        let style = &mut self.style;
        match code {
            0 => *style = Style::default(),
            // vt100 has one intensity.
            1 => style.attrs = style.attrs & !attr::DIM | attr::BOLD,
            2 => style.attrs = style.attrs & !attr::BOLD | attr::DIM,
            3 => style.attrs |= attr::ITALIC,
            4 => self.underline(1),
            5 | 6 => style.attrs |= attr::BLINK,
            7 => style.attrs |= attr::INVERSE,
            8 => style.attrs |= attr::HIDDEN,
            9 => style.attrs |= attr::STRIKE,
            21 => self.underline(2),
            22 => style.attrs &= !(attr::BOLD | attr::DIM),
            23 => style.attrs &= !attr::ITALIC,
            24 => style.attrs &= !attr::UNDERLINE,
            25 => style.attrs &= !attr::BLINK,
            27 => style.attrs &= !attr::INVERSE,
            28 => style.attrs &= !attr::HIDDEN,
            29 => style.attrs &= !attr::STRIKE,
            30..=37 => style.fg = Color::index(code as u8 - 30),
            39 => style.fg = Color::DEFAULT,
            40..=47 => style.bg = Color::index(code as u8 - 40),
            49 => style.bg = Color::DEFAULT,
            53 => style.attrs |= attr::OVERLINE,
            55 => style.attrs &= !attr::OVERLINE,
            59 => style.underline = Color::DEFAULT,
            90..=97 => style.fg = Color::index(code as u8 - 82),
            100..=107 => style.bg = Color::index(code as u8 - 92),
            _ => {}
        }
    }

    /// A sequence that puts any pen into this one, in words vt100 knows.
    pub fn tell_vt100(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\x1b[0");
        self.write_codes(false, out);
        out.push(b'm');
    }

    /// What changes a terminal's pen from `from` to this one.
    pub fn write_change(&self, from: &Self, out: &mut Vec<u8>) {
        if self.style != from.style {
            out.extend_from_slice(b"\x1b[");
            if self.style != Style::default() {
                out.push(b'0');
                self.write_codes(true, out);
            }
            out.push(b'm');
        }
        if self.link != from.link {
            out.extend_from_slice(b"\x1b]8;");
            out.extend_from_slice(self.link.as_deref().unwrap_or(";").as_bytes());
            out.extend_from_slice(b"\x1b\\");
        }
    }

    fn write_codes(&self, extras: bool, out: &mut Vec<u8>) {
        let Style { fg, bg, underline, attrs, .. } = self.style;
        for (bit, code) in [(attr::BOLD, 1), (attr::DIM, 2), (attr::ITALIC, 3), (attr::INVERSE, 7)] {
            if attrs & bit != 0 {
                push_codes(out, &[code]);
            }
        }
        match attrs >> attr::UNDERLINE_SHIFT & 7 {
            0 => {}
            kind @ 2.. if extras => out.extend_from_slice(&[b';', b'4', b':', b'0' + kind as u8]),
            _ => push_codes(out, &[4]),
        }
        push_color(out, fg, 30, 90, 38);
        push_color(out, bg, 40, 100, 48);
        if extras {
            for (bit, code) in [(attr::BLINK, 5), (attr::HIDDEN, 8), (attr::STRIKE, 9), (attr::OVERLINE, 53)] {
                if attrs & bit != 0 {
                    push_codes(out, &[code]);
                }
            }
            match underline.hue() {
                Hue::Default => {}
                Hue::Index(index) => push_codes(out, &[58, 5, index.into()]),
                Hue::Rgb(r, g, b) => push_codes(out, &[58, 2, r.into(), g.into(), b.into()]),
            }
        }
    }
}

fn push_color(out: &mut Vec<u8>, color: Color, low: u16, bright: u16, long: u16) {
    match color.hue() {
        Hue::Default => {}
        Hue::Index(index @ 0..8) => push_codes(out, &[low + u16::from(index)]),
        Hue::Index(index @ 8..16) => push_codes(out, &[bright + u16::from(index) - 8]),
        Hue::Index(index) => push_codes(out, &[long, 5, index.into()]),
        Hue::Rgb(r, g, b) => push_codes(out, &[long, 2, r.into(), g.into(), b.into()]),
    }
}

fn push_codes(out: &mut Vec<u8>, codes: &[u16]) {
    for &code in codes {
        out.push(b';');
        let digits = [(code / 100 % 10) as u8, (code / 10 % 10) as u8, (code % 10) as u8];
        let skip = if code >= 100 {
            0
        } else if code >= 10 {
            1
        } else {
            2
        };
        out.extend(digits[skip..].iter().map(|digit| b'0' + digit));
    }
}

/// What stands between semicolons, from left to right: a number, and what a colon parts from it.
struct Groups<'a> {
    rest: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Groups<'a> {
    fn next(&mut self) -> Option<(u16, Option<&'a [u8]>)> {
        let bytes = self.rest?;
        self.count += 1;
        let mut n = 0u16;
        for (i, &byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => n = n.saturating_mul(10).saturating_add(u16::from(byte - b'0')),
                b';' => {
                    self.rest = Some(&bytes[i + 1..]);
                    return Some((n, None));
                }
                _ => {
                    let end = memchr::memchr(b';', bytes);
                    self.rest = end.map(|end| &bytes[end + 1..]);
                    return Some((n, Some(&bytes[i + 1..end.unwrap_or(bytes.len())])));
                }
            }
        }
        self.rest = None;
        Some((n, None))
    }

    fn plain(&mut self) -> Option<u16> {
        self.next().filter(|(_, sub)| sub.is_none()).map(|(n, _)| n)
    }
}

/// The number at the start of a parameter; what is missing is 0.
pub fn number(digits: &[u8]) -> u16 {
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u16, |n, digit| n.saturating_mul(10).saturating_add(u16::from(digit - b'0')))
}

fn indexed(index: Option<u16>) -> Option<Color> {
    u8::try_from(index?).ok().map(Color::index)
}

fn rgb([r, g, b]: [Option<u16>; 3]) -> Option<Color> {
    let part = |n: Option<u16>| u8::try_from(n?).ok();
    Some(Color::rgb(part(r)?, part(g)?, part(b)?))
}

/// `5:n`, `2:r:g:b` or `2:colourspace:r:g:b`.
fn colon_color(sub: &[u8]) -> Option<Color> {
    let parts: Vec<_> = sub.split(|byte| *byte == b':').take(6).map(number).collect();
    match parts[..] {
        [5, index, ..] => indexed(Some(index)),
        [2, r, g, b] | [2, _, r, g, b, ..] => rgb([Some(r), Some(g), Some(b)]),
        _ => None,
    }
}
