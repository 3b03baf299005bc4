//! The mouse: an event in; bytes in the encoding that a pane's program asked for out; and how often was clicked.
//! Absent: panes, what a click on the chrome means, and the clock.

use vt100::{MouseProtocolEncoding as Encoding, MouseProtocolMode as Protocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    Left,
    Middle,
    Right,
    /// As the terminal numbers it in the low bits: 128 and up are the extra buttons.
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wheel {
    Up,
    Down,
    Left,
    Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Press(Button),
    Release(Button),
    Drag(Button),
    Move,
    Wheel(Wheel),
}

/// Row and column from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mouse {
    pub kind: Kind,
    pub row: u16,
    pub col: u16,
    pub shift: bool,
    pub alt: bool,
    pub ctrl: bool,
}

const DRAG: u8 = 32;
/// The button number of "none": a move, or a release in the encodings that cannot say which button.
const NONE: u8 = 3;
/// The default encoding adds 32 to a number from 1 and must stay within a byte.
const MAX_BYTE: u16 = 223;
/// Two bytes of UTF-8 end at 2047.
const MAX_UTF8: u16 = 2015;

/// The bytes for a program in this mode; none when the mode does not cover the event or the encoding cannot hold it.
pub fn encode(mouse: &Mouse, protocol: Protocol, encoding: Encoding) -> Option<Vec<u8>> {
    let covered = match (protocol, mouse.kind) {
        (Protocol::None, _) => false,
        (_, Kind::Press(_)) => true,
        // X10 knows three buttons going down, and neither wheel nor modifiers.
        (Protocol::Press, _) => false,
        (_, Kind::Release(_) | Kind::Wheel(_)) => true,
        (Protocol::PressRelease, _) => false,
        (_, Kind::Drag(_)) => true,
        (Protocol::ButtonMotion, Kind::Move) => false,
        (Protocol::AnyMotion, Kind::Move) => true,
    };
    let x10 = protocol == Protocol::Press;
    let (button, release) = match mouse.kind {
        Kind::Press(Button::Other(_)) if x10 => return None,
        Kind::Press(button) => (number(button), false),
        Kind::Release(button) => (number(button), true),
        Kind::Drag(button) => (number(button) | DRAG, false),
        Kind::Move => (NONE | DRAG, false),
        Kind::Wheel(wheel) => (64 + wheel as u8, false),
    };
    let modifiers = if x10 { 0 } else { u8::from(mouse.shift) * 4 + u8::from(mouse.alt) * 8 + u8::from(mouse.ctrl) * 16 };
    let (row, col) = (mouse.row.checked_add(1)?, mouse.col.checked_add(1)?);
    if !covered {
        return None;
    }
    if encoding == Encoding::Sgr {
        let end = if release { 'm' } else { 'M' };
        return Some(format!("\x1b[<{};{col};{row}{end}", button | modifiers).into_bytes());
    }
    let button = if release { button & 0xc0 | NONE } else { button } | modifiers;
    let mut out = b"\x1b[M".to_vec();
    if encoding == Encoding::Default {
        let byte = |n: u16| (n <= MAX_BYTE).then(|| n as u8 + 32);
        out.extend([byte(button.into())?, byte(col)?, byte(row)?]);
    } else {
        for n in [button.into(), col, row] {
            let c = (n <= MAX_UTF8).then(|| char::from_u32(u32::from(n) + 32))??;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(out)
}

fn number(button: Button) -> u8 {
    match button {
        Button::Left => 0,
        Button::Middle => 1,
        Button::Right => 2,
        // The bits of modifiers and motion are not the button's.
        Button::Other(number) => number & 0xc3,
    }
}

/// Lines per notch of the wheel.
pub const WHEEL_LINES: usize = 3;

/// What a notch of the wheel types into a program on the alternate screen that did not ask for the mouse.
pub fn wheel_keys(up: bool, app_cursor: bool) -> Vec<u8> {
    let key: &[u8] = match (up, app_cursor) {
        (true, false) => b"\x1b[A",
        (false, false) => b"\x1b[B",
        (true, true) => b"\x1bOA",
        (false, true) => b"\x1bOB",
    };
    key.repeat(WHEEL_LINES)
}

/// A click this much later, in milliseconds, or in another cell, is a first one again.
const DOUBLE_CLICK: u64 = 500;

/// Counts clicks in one place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clicks {
    last: Option<(u64, u16, u16, u8)>,
}

impl Clicks {
    /// 1, 2 or 3; a fourth click begins again.
    pub fn count(&mut self, now: u64, row: u16, col: u16) -> u8 {
        let count = match self.last {
            Some((at, r, c, count @ 1..=2)) if (r, c) == (row, col) && now.saturating_sub(at) <= DOUBLE_CLICK => count + 1,
            _ => 1,
        };
        self.last = Some((now, row, col, count));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Kind = Kind::Press(Button::Left);

    fn mouse(kind: Kind, row: u16, col: u16) -> Mouse {
        Mouse { kind, row, col, shift: false, alt: false, ctrl: false }
    }

    fn check(mouse: Mouse, protocol: Protocol, encoding: Encoding, expected: Option<&[u8]>) {
        assert_eq!(encode(&mouse, protocol, encoding).as_deref(), expected, "{mouse:?} {protocol:?} {encoding:?}");
    }

    #[test]
    fn each_mode_covers_its_events() {
        let up = Kind::Release(Button::Left);
        let drag = Kind::Drag(Button::Left);
        let wheel = Kind::Wheel(Wheel::Down);
        for (protocol, covered) in [
            (Protocol::None, [false; 5]),
            (Protocol::Press, [true, false, false, false, false]),
            (Protocol::PressRelease, [true, true, true, false, false]),
            (Protocol::ButtonMotion, [true, true, true, true, false]),
            (Protocol::AnyMotion, [true; 5]),
        ] {
            for (kind, covered) in [LEFT, up, wheel, drag, Kind::Move].into_iter().zip(covered) {
                for encoding in [Encoding::Default, Encoding::Utf8, Encoding::Sgr] {
                    assert_eq!(encode(&mouse(kind, 1, 1), protocol, encoding).is_some(), covered, "{kind:?} {protocol:?}");
                }
            }
        }
    }

    #[test]
    fn sgr_says_which_button_goes_up() {
        let any = Protocol::AnyMotion;
        check(mouse(LEFT, 0, 9), any, Encoding::Sgr, Some(b"\x1b[<0;10;1M"));
        check(mouse(Kind::Release(Button::Right), 299, 499), any, Encoding::Sgr, Some(b"\x1b[<2;500;300m"));
        check(mouse(Kind::Drag(Button::Middle), 0, 0), any, Encoding::Sgr, Some(b"\x1b[<33;1;1M"));
        check(mouse(Kind::Move, 0, 0), any, Encoding::Sgr, Some(b"\x1b[<35;1;1M"));
        check(mouse(Kind::Wheel(Wheel::Right), 0, 0), any, Encoding::Sgr, Some(b"\x1b[<67;1;1M"));
        check(mouse(Kind::Press(Button::Other(128)), 0, 0), any, Encoding::Sgr, Some(b"\x1b[<128;1;1M"));
        check(Mouse { shift: true, alt: true, ctrl: true, ..mouse(LEFT, 0, 0) }, any, Encoding::Sgr, Some(b"\x1b[<28;1;1M"));
        check(mouse(LEFT, u16::MAX, 0), any, Encoding::Sgr, None);
    }

    #[test]
    fn the_old_encodings_end_somewhere() {
        let normal = Protocol::PressRelease;
        check(mouse(LEFT, 1, 0), normal, Encoding::Default, Some(b"\x1b[M\x20\x21\x22"));
        check(mouse(Kind::Release(Button::Right), 0, 0), normal, Encoding::Default, Some(b"\x1b[M\x23\x21\x21"));
        check(mouse(Kind::Wheel(Wheel::Up), 0, 0), normal, Encoding::Default, Some(b"\x1b[M\x60\x21\x21"));
        check(mouse(LEFT, 222, 0), normal, Encoding::Default, Some(b"\x1b[M\x20\x21\xff"));
        check(mouse(LEFT, 0, 223), normal, Encoding::Default, None);
        check(mouse(LEFT, 0, 223), normal, Encoding::Utf8, Some(b"\x1b[M\x20\xc4\x80\x21"));
        check(mouse(LEFT, 0, 2014), normal, Encoding::Utf8, Some(b"\x1b[M\x20\xdf\xbf\x21"));
        check(mouse(LEFT, 0, 2015), normal, Encoding::Utf8, None);
    }

    #[test]
    fn x10_has_three_buttons_and_no_modifiers() {
        check(Mouse { ctrl: true, ..mouse(LEFT, 0, 0) }, Protocol::Press, Encoding::Default, Some(b"\x1b[M\x20\x21\x21"));
        check(mouse(Kind::Press(Button::Other(128)), 0, 0), Protocol::Press, Encoding::Default, None);
    }

    #[test]
    fn clicks_are_counted_in_one_place_and_in_time() {
        let mut clicks = Clicks::default();
        let counts = [(0, 1, 1), (400, 1, 1), (900, 1, 1), (1000, 1, 1), (1100, 1, 2), (1700, 1, 2)]
            .map(|(now, row, col)| clicks.count(now, row, col));
        assert_eq!(counts, [1, 2, 3, 1, 1, 1]);
    }

    #[test]
    fn the_wheel_types_three_keys() {
        assert_eq!(wheel_keys(true, false), b"\x1b[A\x1b[A\x1b[A");
        assert_eq!(wheel_keys(false, true), b"\x1bOB\x1bOB\x1bOB");
    }
}
