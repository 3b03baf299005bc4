//! The rendition a client's terminal writes in: the style of a cell in; the escapes that change from the last one out.
//! Absent: where on the screen it is.

use super::{Caps, Cell, Color, Frame, Glyph, Hue, Style, attr};

/// What shows on a cell without a character.
const ON_BLANK: u16 = attr::INVERSE | attr::UNDERLINE | attr::STRIKE | attr::OVERLINE;

pub(super) const END_LINK: &[u8] = b"\x1b]8;;\x1b\\";

impl Cell {
    /// Nothing but a background: what erasing leaves.
    pub(super) fn is_blank(&self) -> bool {
        self.glyph == Glyph::EMPTY && self.style.attrs & ON_BLANK == 0 && self.style.link == 0
    }

    pub(super) fn looks_like(&self, other: &Self) -> bool {
        self == other
            || self.glyph.is_continuation() && other.glyph.is_continuation()
            || self.is_blank() && other.is_blank() && self.style.bg == other.style.bg
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pen {
    /// What the terminal has, `link` included.
    has: Style,
    /// What it was last asked for, before that was cut to its capabilities.
    asked: Style,
}

impl Pen {
    /// True if a cell of this style could be written right now.
    pub fn writes(&self, style: &Style) -> bool {
        self.asked == *style
    }

    pub fn set(&mut self, out: &mut Vec<u8>, style: &Style, frame: &Frame, caps: &Caps) {
        if self.asked == *style {
            return;
        }
        self.asked = *style;
        let mut wanted = cut(*style, caps);
        if wanted.attrs & attr::UNDERLINE == 0 {
            wanted.underline = self.has.underline;
        }
        self.change(out, wanted);
        self.follow(out, style.link, frame, caps);
    }

    /// For a blank: only the background counts, the rest may stay as it is unless it would show.
    pub fn set_blank(&mut self, out: &mut Vec<u8>, bg: Color, caps: &Caps) {
        let bg = cut(Style { bg, ..Style::default() }, caps).bg;
        if self.has.bg != bg || self.has.attrs & ON_BLANK != 0 {
            let wanted = Style { bg, attrs: self.has.attrs & !ON_BLANK, ..self.has };
            self.change(out, wanted);
            self.asked = self.has;
        }
        self.end_link(out);
    }

    pub fn reset(&mut self, out: &mut Vec<u8>) {
        self.change(out, Style::default());
        self.asked = self.has;
        self.end_link(out);
    }

    pub fn end_link(&mut self, out: &mut Vec<u8>) {
        if self.has.link != 0 {
            out.extend_from_slice(END_LINK);
            self.has.link = 0;
        }
        self.asked.link = 0;
    }

    fn follow(&mut self, out: &mut Vec<u8>, link: u32, frame: &Frame, caps: &Caps) {
        if !caps.hyperlinks || link == self.has.link {
            return;
        }
        let Some((params, uri)) = frame.link_of(link).and_then(|link| link.split_once(';')).filter(|(_, uri)| !uri.is_empty()) else {
            if self.has.link != 0 {
                out.extend_from_slice(END_LINK);
                self.has.link = 0;
            }
            return;
        };
        out.extend_from_slice(b"\x1b]8;");
        out.extend_from_slice(params.as_bytes());
        // One link in several rows is written in pieces: an id tells the terminal that they are one.
        if !params.split(':').any(|param| param.starts_with("id=")) {
            out.extend_from_slice(format!("{}id=j{link:x}", if params.is_empty() { "" } else { ":" }).as_bytes());
        }
        out.push(b';');
        out.extend_from_slice(uri.as_bytes());
        out.extend_from_slice(b"\x1b\\");
        self.has.link = link;
    }

    /// Everything but the link.
    fn change(&mut self, out: &mut Vec<u8>, wanted: Style) {
        let wanted = Style { link: self.has.link, ..wanted };
        let has = std::mem::replace(&mut self.has, wanted);
        if has == wanted {
            return;
        }
        let plain = Style { link: has.link, ..Style::default() };
        // Without an underline its colour is anything.
        if (Style { underline: Color::DEFAULT, ..wanted }) == plain {
            out.extend_from_slice(b"\x1b[m");
            self.has = plain;
            return;
        }
        let mut change = Params::default();
        if change.lead(&has, &wanted) {
            let mut anew = Params::default();
            anew.push(*b"0;");
            anew.lead(&plain, &wanted);
            if anew.len < change.len {
                change = anew;
            }
        }
        out.extend_from_slice(change.sequence());
    }
}

/// An SGR sequence in the making. Dense colours make one per cell, so it is built in place.
struct Params {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Params {
    fn default() -> Self {
        let mut params = Self { bytes: [0; 128], len: 0 };
        params.push(*b"\x1b[");
        params
    }
}

impl Params {
    fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }

    /// With a `;` behind it.
    fn number(&mut self, number: u8) {
        self.push(DIGITS[usize::from(number)]);
        self.len -= usize::from(number < 10) + usize::from(number < 100);
    }

    fn sequence(&mut self) -> &[u8] {
        self.bytes[self.len - 1] = b'm';
        &self.bytes[..self.len]
    }

    /// Adds the parameters that lead from one style to the other, each with a `;` behind it. True if any takes something
    /// away: then starting from nothing may be shorter.
    fn lead(&mut self, has: &Style, wanted: &Style) -> bool {
        let mut takes_away = false;
        if has.attrs != wanted.attrs {
            takes_away = has.attrs & !wanted.attrs != 0;
            self.attrs(has.attrs, wanted.attrs);
        }
        for (has, wanted, place) in [(has.fg, wanted.fg, 30), (has.bg, wanted.bg, 40), (has.underline, wanted.underline, 50)] {
            if has != wanted {
                takes_away |= wanted == Color::DEFAULT;
                self.colour(wanted, place);
            }
        }
        takes_away
    }

    fn attrs(&mut self, has: u16, wanted: u16) {
        let mut off = has & !wanted;
        let mut on = wanted & !has;
        if off & (attr::BOLD | attr::DIM) != 0 {
            // One sequence ends both.
            self.push(*b"22;");
            on |= wanted & (attr::BOLD | attr::DIM);
            off &= !(attr::BOLD | attr::DIM);
        }
        if has & attr::UNDERLINE != wanted & attr::UNDERLINE {
            match (wanted & attr::UNDERLINE) >> attr::UNDERLINE_SHIFT {
                0 => self.push(*b"24;"),
                1 => self.push(*b"4;"),
                kind => self.push([b'4', b':', b'0' + kind as u8, b';']),
            }
        }
        for (bit, number) in NUMBERS {
            if on & bit != 0 {
                self.number(number);
            } else if off & bit != 0 {
                self.number(if bit == attr::OVERLINE { 55 } else { number + 20 });
            }
        }
    }

    /// `place` is 30, 40 or 50, for the character, what is behind and what is under it.
    fn colour(&mut self, colour: Color, place: u8) {
        match colour.hue() {
            Hue::Default => self.number(place + 9),
            // Only terminals that know styled underlines know these, and they all know colons.
            Hue::Index(index) if place == 50 => {
                self.push(*b"58:5:");
                self.number(index);
            }
            Hue::Rgb(r, g, b) if place == 50 => {
                self.push(*b"58:2::");
                for part in [r, g, b] {
                    self.number(part);
                    self.bytes[self.len - 1] = b':';
                }
                self.bytes[self.len - 1] = b';';
            }
            Hue::Index(index @ 0..8) => self.number(place + index),
            Hue::Index(index @ 8..16) => self.number(place + 60 - 8 + index),
            Hue::Index(index) => {
                self.number(place + 8);
                self.push(*b"5;");
                self.number(index);
            }
            Hue::Rgb(r, g, b) => {
                self.number(place + 8);
                self.push(*b"2;");
                self.number(r);
                self.number(g);
                self.number(b);
            }
        }
    }
}

/// Every `u8` in decimal, a `;` behind it. With a colour per cell the branches of a conversion cost more than the rest.
const DIGITS: [[u8; 4]; 256] = {
    let mut all = [[b';'; 4]; 256];
    let mut number = 0;
    while number < 256 {
        let (mut rest, mut place) = (
            number,
            if number < 10 {
                1
            } else if number < 100 {
                2
            } else {
                3
            },
        );
        while place > 0 {
            place -= 1;
            all[number][place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        number += 1;
    }
    all
};

/// What sets an attribute; 20 more, except for the last, clears it.
const NUMBERS: [(u16, u8); 8] = [
    (attr::BOLD, 1),
    (attr::DIM, 2),
    (attr::ITALIC, 3),
    (attr::BLINK, 5),
    (attr::INVERSE, 7),
    (attr::HIDDEN, 8),
    (attr::STRIKE, 9),
    (attr::OVERLINE, 53),
];

/// The style as this terminal can show it.
fn cut(mut style: Style, caps: &Caps) -> Style {
    if caps.underline_style && caps.truecolor && caps.color {
        return style;
    }
    if !caps.underline_style {
        style.underline = Color::DEFAULT;
        if style.attrs & attr::UNDERLINE != 0 {
            style.attrs = style.attrs & !attr::UNDERLINE | attr::SINGLE_UNDERLINE;
        }
    }
    for colour in [&mut style.fg, &mut style.bg, &mut style.underline] {
        match colour.hue() {
            _ if !caps.color => *colour = Color::DEFAULT,
            Hue::Rgb(r, g, b) if !caps.truecolor => *colour = Color::index(nearest(r, g, b)),
            _ => {}
        }
    }
    style
}

/// The nearest of the 256 colours beyond the first 16, which the operator may have redefined.
fn nearest(r: u8, g: u8, b: u8) -> u8 {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let step = |c: u8| match c {
        0..48 => 0,
        48..115 => 1,
        _ => (c - 35) / 40,
    };
    let distance = |(x, y, z): (u8, u8, u8)| [(r, x), (g, y), (b, z)].map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).iter().sum::<u32>();
    let cube = (step(r), step(g), step(b));
    let shown = (STEPS[usize::from(cube.0)], STEPS[usize::from(cube.1)], STEPS[usize::from(cube.2)]);
    let average = ((u16::from(r) + u16::from(g) + u16::from(b)) / 3) as u8;
    let grey = (average.saturating_sub(3) / 10).min(23);
    let level = 8 + 10 * grey;
    if distance((level, level, level)) < distance(shown) { 232 + grey } else { 16 + 36 * cube.0 + 6 * cube.1 + cube.2 }
}
