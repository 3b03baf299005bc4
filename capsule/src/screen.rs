//! One session's screen: program output in; text, repaints, differences and the answers to terminal queries out.
//! Absent: who looks at it, files, and time. `vt100` holds the grid; what it lacks is kept beside it here.

use std::num::NonZeroU16;

use vt100::{Callbacks, Parser};

pub const MIN_ROWS: u16 = 6;
pub const MIN_COLS: u16 = 3;
/// A client may claim any u16; the grid it asks for is memory, so the claim is cut.
pub const MAX_ROWS: u16 = 500;
pub const MAX_COLS: u16 = 1000;
const MAX_TITLE: usize = 512;
const MAX_NOTIFICATION: usize = 1024;
const MAX_CLIPBOARD: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

impl Size {
    pub fn clamped(rows: u16, cols: u16) -> Self {
        Self { rows: rows.clamp(MIN_ROWS, MAX_ROWS), cols: cols.clamp(MIN_COLS, MAX_COLS) }
    }

    fn cells(self) -> (NonZeroU16, NonZeroU16) {
        (NonZeroU16::new(self.rows).unwrap_or(NonZeroU16::MIN), NonZeroU16::new(self.cols).unwrap_or(NonZeroU16::MIN))
    }
}

/// Which escapes beyond the grid may reach the operator's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub title: bool,
    pub notify: bool,
    /// Clipboard writes are off unless asked for: any program in the container could fill the operator's clipboard.
    pub clipboard: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { title: true, notify: true, clipboard: false }
    }
}

/// Colours that answer OSC 10 and 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    pub foreground: [u8; 3],
    pub background: [u8; 3],
}

impl Default for Colours {
    fn default() -> Self {
        Self { foreground: [0xe5, 0xe5, 0xe5], background: [0, 0, 0] }
    }
}

/// What output asked for besides changing the grid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Bytes to write back to the program.
    pub replies: Vec<u8>,
    pub bell: bool,
    /// Escapes for the operator's terminal, already checked against the policy.
    pub passed: Vec<u8>,
}

#[derive(Default)]
struct Beside {
    policy: Policy,
    colours: Colours,
    title: String,
    focus_events: bool,
    synchronized: bool,
    requests: Requests,
}

pub struct Screen {
    parser: Parser<Beside>,
    scan: Scan,
}

/// What a client's terminal shows now; the base of the next difference.
pub struct Shown {
    screen: vt100::Screen,
    title: String,
    focus_events: bool,
}

impl Screen {
    pub fn new(size: Size, policy: Policy) -> Self {
        let (rows, cols) = size.cells();
        let beside = Beside { policy, ..Beside::default() };
        Self { parser: Parser::new_with_callbacks(rows, cols, 0, beside), scan: Scan::Ground }
    }

    pub fn process(&mut self, bytes: &[u8]) -> Requests {
        self.parser.process(bytes);
        self.scan = bytes.iter().fold(self.scan, |scan, &byte| scan.next(byte));
        std::mem::take(&mut self.parser.callbacks_mut().requests)
    }

    /// False in the midst of an escape or a character, where `checkpoint` must not be called.
    pub fn is_between_sequences(&self) -> bool {
        self.scan == Scan::Ground
    }

    pub fn size(&self) -> Size {
        let (rows, cols) = self.parser.screen().size();
        Size { rows: rows.get(), cols: cols.get() }
    }

    pub fn resize(&mut self, size: Size) {
        let (rows, cols) = size.cells();
        self.parser.set_size(rows, cols);
    }

    pub fn set_colours(&mut self, colours: Colours) {
        self.parser.callbacks_mut().colours = colours;
    }

    pub fn title(&self) -> &str {
        &self.parser.callbacks().title
    }

    pub fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Row and column, from zero.
    pub fn cursor(&self) -> (u16, u16) {
        self.parser.screen().cursor_position()
    }

    pub fn wants_focus_events(&self) -> bool {
        self.parser.callbacks().focus_events
    }

    /// True between the program's `?2026h` and `l`: it is still painting.
    pub fn is_painting(&self) -> bool {
        self.parser.callbacks().synchronized
    }

    /// A program that never finishes its frame does not get to blank the screen for ever.
    pub fn stop_waiting_for_painting(&mut self) {
        self.parser.callbacks_mut().synchronized = false;
    }

    pub fn shown(&self) -> Shown {
        Shown { screen: self.parser.screen().clone(), title: self.title().to_owned(), focus_events: self.wants_focus_events() }
    }

    /// Bytes that turn a terminal showing `shown` (or anything at all) into this screen; empty when nothing differs.
    pub fn draw(&self, shown: Option<&Shown>) -> Vec<u8> {
        let screen = self.parser.screen();
        let shown = shown.filter(|shown| shown.screen.size() == screen.size());
        let mut out = match shown {
            Some(shown) => screen.state_diff(&shown.screen),
            // Scroll region and origin mode first: a repaint relies on neither, but a left-over one would break it.
            None => format!("\x1b[r\x1b[?6l\x1b[m{}{}", RESET_MODES, screen.state_formatted()),
        };
        if shown.is_none_or(|shown| shown.title != self.title()) && !(shown.is_none() && self.title().is_empty()) {
            out.push_str(&format!("\x1b]2;{}\x07", self.title()));
        }
        if shown.is_some_and(|shown| shown.focus_events) != self.wants_focus_events() {
            out.push_str(if self.wants_focus_events() { "\x1b[?1004h" } else { "\x1b[?1004l" });
        }
        out.into_bytes()
    }

    /// Bytes that rebuild this screen in a new one of the same size, main screen behind the alternate one included.
    /// Only between escape sequences: it writes to the parser.
    pub fn checkpoint(&mut self) -> Vec<u8> {
        let mut out = String::new();
        if self.parser.screen().alternate_screen() {
            // vt100 shows only the current grid. Mode 47 swaps without clearing or moving a cursor, so it is a window
            // onto the other one.
            self.parser.process(b"\x1b[?47l");
            out.push_str(&self.parser.screen().contents_formatted());
            self.parser.process(b"\x1b[?47h");
            out.push_str("\x1b[?1049h");
        }
        out.push_str(&self.parser.screen().state_formatted());
        let beside = self.parser.callbacks();
        if !beside.title.is_empty() {
            out.push_str(&format!("\x1b]2;{}\x07", beside.title));
        }
        if beside.focus_events {
            out.push_str("\x1b[?1004h");
        }
        out.into_bytes()
    }
}

/// Just enough of the parser's state, which vt100 keeps to itself, to know when it is between sequences. Errs towards
/// "inside": that only delays a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    Ground,
    /// So many bytes of a UTF-8 character are missing.
    Character(u8),
    Escape,
    Csi,
    Osc,
    /// DCS, APC, PM and SOS, which only ST ends.
    Str,
}

impl Scan {
    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            (_, 0x1b) => Self::Escape,
            (Self::Character(missing @ 2..), 0x80..=0xbf) => Self::Character(missing - 1),
            (Self::Character(1), 0x80..=0xbf) => Self::Ground,
            (Self::Ground | Self::Character(_), 0xc2..=0xdf) => Self::Character(1),
            (Self::Ground | Self::Character(_), 0xe0..=0xef) => Self::Character(2),
            (Self::Ground | Self::Character(_), 0xf0..=0xf4) => Self::Character(3),
            (Self::Ground | Self::Character(_), _) => Self::Ground,
            (_, 0x18 | 0x1a) => Self::Ground,
            (Self::Escape, b'[') => Self::Csi,
            (Self::Escape, b']') => Self::Osc,
            (Self::Escape, b'P' | b'X' | b'^' | b'_') => Self::Str,
            (Self::Escape, 0x30..=0x7e) => Self::Ground,
            (Self::Csi, 0x40..=0x7e) => Self::Ground,
            (Self::Osc, 0x07) => Self::Ground,
            (inside, _) => inside,
        }
    }
}

/// Every mode a program may have set and `input_mode_formatted` only sets, never clears.
pub const RESET_MODES: &str = "\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1004l";

impl Beside {
    fn reply(&mut self, text: &str) {
        self.requests.replies.extend_from_slice(text.as_bytes());
    }

    fn reply_colour(&mut self, code: u8, [r, g, b]: [u8; 3]) {
        self.reply(&format!("\x1b]{code};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}\x1b\\"));
    }

    fn mode_is_set(&self, screen: &vt100::Screen, mode: u16) -> Option<bool> {
        use vt100::{MouseProtocolEncoding as Encoding, MouseProtocolMode as Mouse};
        Some(match mode {
            1 => screen.application_cursor(),
            9 => screen.mouse_protocol_mode() == Mouse::Press,
            25 => !screen.hide_cursor(),
            47 | 1049 => screen.alternate_screen(),
            1000 => screen.mouse_protocol_mode() == Mouse::PressRelease,
            1002 => screen.mouse_protocol_mode() == Mouse::ButtonMotion,
            1003 => screen.mouse_protocol_mode() == Mouse::AnyMotion,
            1004 => self.focus_events,
            1005 => screen.mouse_protocol_encoding() == Encoding::Utf8,
            1006 => screen.mouse_protocol_encoding() == Encoding::Sgr,
            2004 => screen.bracketed_paste(),
            2026 => self.synchronized,
            _ => return None,
        })
    }
}

impl Callbacks for Beside {
    fn audible_bell(&mut self, _: &mut vt100::Screen) {
        self.requests.bell = true;
    }

    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        if self.policy.title {
            self.title = printable(title, MAX_TITLE);
        }
    }

    fn copy_to_clipboard(&mut self, _: &mut vt100::Screen, ty: &[u8], data: &[u8]) {
        // vt100 has checked both for their alphabets, so neither can end the escape early.
        if self.policy.clipboard && data.len() <= MAX_CLIPBOARD && self.requests.passed.len() <= MAX_CLIPBOARD {
            self.requests.passed.extend_from_slice(&[b"\x1b]52;", ty, b";", data, b"\x07"].concat());
        }
    }

    fn unhandled_csi(&mut self, screen: &mut vt100::Screen, i1: Option<u8>, i2: Option<u8>, params: &[&[u16]], c: char) {
        let first = params.first().and_then(|p| p.first()).copied().unwrap_or(0);
        match (i1, i2, c) {
            (None, None, 'c') if first == 0 => self.reply("\x1b[?62;22c"),
            (Some(b'>'), None, 'c') if first == 0 => self.reply("\x1b[>1;100;0c"),
            (Some(b'>'), None, 'q') if first == 0 => {
                self.reply(concat!("\x1bP>|jackin-capsule ", env!("CARGO_PKG_VERSION"), "\x1b\\"));
            }
            (None, None, 'n') if first == 5 => self.reply("\x1b[0n"),
            (None | Some(b'?'), None, 'n') if first == 6 => {
                let (row, col) = screen.cursor_position();
                let (_, cols) = screen.size();
                let mark = if i1.is_some() { "?" } else { "" };
                // vt100 keeps a cursor that waits to wrap one past the last column.
                self.reply(&format!("\x1b[{mark}{};{}R", row + 1, (col + 1).min(cols.get())));
            }
            (None, None, 't') if first == 18 => {
                let (rows, cols) = screen.size();
                self.reply(&format!("\x1b[8;{rows};{cols}t"));
            }
            (Some(b'?'), Some(b'$'), 'p') => {
                let state = self.mode_is_set(screen, first).map_or(0, |set| if set { 1 } else { 2 });
                self.reply(&format!("\x1b[?{first};{state}$y"));
            }
            (Some(b'?'), None, 'h' | 'l') => {
                for mode in params.iter().filter_map(|p| p.first()) {
                    match mode {
                        1004 => self.focus_events = c == 'h',
                        2026 => self.synchronized = c == 'h',
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn unhandled_osc(&mut self, _: &mut vt100::Screen, params: &[&[u8]]) {
        match params {
            [b"10", b"?"] => self.reply_colour(10, self.colours.foreground),
            [b"11", b"?"] => self.reply_colour(11, self.colours.background),
            // `9;4` is progress, not a message.
            [b"9", b"4", ..] => {}
            [b"9", text @ ..] if self.policy.notify && self.requests.passed.len() <= MAX_CLIPBOARD => {
                let text = printable(&text.join(&b';'), MAX_NOTIFICATION);
                self.requests.passed.extend_from_slice(format!("\x1b]9;{text}\x07").as_bytes());
            }
            _ => {}
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { rows: 6, cols: 20 };

    fn screen_of(bytes: &[u8]) -> Screen {
        let mut screen = Screen::new(SIZE, Policy::default());
        screen.process(bytes);
        screen
    }

    fn replies(bytes: &str) -> String {
        let mut screen = Screen::new(SIZE, Policy::default());
        String::from_utf8(screen.process(bytes.as_bytes()).replies).unwrap()
    }

    /// Everything of a screen that a client can see.
    fn visible(screen: &Screen) -> String {
        format!("{}|{}|{:?}", screen.parser.screen().state_formatted(), screen.title(), screen.wants_focus_events())
    }

    #[test]
    fn queries_are_answered() {
        assert_eq!(replies("\x1b[5n"), "\x1b[0n");
        assert_eq!(replies("ab\r\ncd\x1b[6n"), "\x1b[2;3R");
        assert_eq!(replies("12345678901234567890\x1b[6n"), "\x1b[1;20R");
        assert_eq!(replies("\x1b[c"), "\x1b[?62;22c");
        assert_eq!(replies("\x1b[>c"), "\x1b[>1;100;0c");
        assert_eq!(replies("\x1b[?2026$p\x1b[?2004h\x1b[?2004$p\x1b[?77$p"), "\x1b[?2026;2$y\x1b[?2004;1$y\x1b[?77;0$y");
        assert_eq!(replies("\x1b]11;?\x07"), "\x1b]11;rgb:0000/0000/0000\x1b\\");
        assert_eq!(replies("\x1b[18t"), "\x1b[8;6;20t");
        assert!(replies("\x1b[>q").contains("jackin-capsule"));
        assert_eq!(replies("plain text \x1b[31mred\x1b[?u"), "");
    }

    #[test]
    fn titles_and_notifications_cannot_smuggle_escapes() {
        let mut screen = Screen::new(SIZE, Policy::default());
        let requests = screen.process("\x1b]2;a\u{9b}31mb\x07\x1b]9;hi\u{9d}there\x07\x1b]9;4;1;50\x07".as_bytes());
        assert_eq!(screen.title(), "a31mb");
        assert_eq!(requests.passed, b"\x1b]9;hithere\x07");
    }

    #[test]
    fn the_clipboard_is_closed_unless_allowed() {
        let write = b"\x1b]52;c;aGk=\x07";
        assert_eq!(Screen::new(SIZE, Policy::default()).process(write).passed, b"");
        let open = Policy { clipboard: true, ..Policy::default() };
        assert_eq!(Screen::new(SIZE, open).process(write).passed, write);
    }

    #[test]
    fn painting_is_seen() {
        let mut screen = screen_of(b"\x1b[?2026h");
        assert!(screen.is_painting());
        screen.process(b"x\x1b[?2026l");
        assert!(!screen.is_painting());
    }

    #[test]
    fn a_checkpoint_keeps_the_screen_behind_the_alternate_one() {
        let mut screen = screen_of(b"shell$ vi\x1b]2;vi\x07\x1b[?1049h\x1b[2;2Hedited\x1b[?2004h\x1b[?1004h");
        let mut copy = screen_of(&screen.checkpoint());
        assert_eq!(visible(&copy), visible(&screen));
        for screen in [&mut screen, &mut copy] {
            screen.process(b"\x1b[?1049l!");
            assert_eq!(screen.text(), "shell$ vi!");
        }
        assert_eq!(visible(&copy), visible(&screen));
    }

    #[test]
    fn a_repaint_clears_what_an_earlier_session_left() {
        let mouse = screen_of(b"\x1b[?1003h\x1b[?1006h\x1b[?1004h");
        let mut terminal = Screen::new(SIZE, Policy::default());
        terminal.process(&mouse.draw(None));
        let plain = screen_of(b"plain");
        terminal.process(&plain.draw(None));
        assert_eq!(visible(&terminal), visible(&plain));
    }

    #[test]
    fn sequences_are_not_cut() {
        for (bytes, between) in [
            ("text", true),
            ("\x1b", false),
            ("\x1b[3", false),
            ("\x1b[31m", true),
            ("\x1b]2;title", false),
            ("\x1b]2;title\x07", true),
            ("\x1b]2;title\x1b\\", true),
            ("\x1bP+q", false),
            ("\x1bP+q\x07", false),
            ("\x1b(", false),
            ("\x1b(B", true),
        ] {
            assert_eq!(screen_of(bytes.as_bytes()).is_between_sequences(), between, "{bytes:?}");
        }
        assert!(!screen_of(b"\xe2\x82").is_between_sequences());
        assert!(screen_of("€".as_bytes()).is_between_sequences());
    }

    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece =
            prop_oneof![
                "[ -~]{0,30}".prop_map(String::into_bytes),
                "\\PC{0,8}".prop_map(String::into_bytes),
                Just(b"\r\n".to_vec()),
                (0..9u16, 0..25u16).prop_map(|(r, c)| format!("\x1b[{r};{c}H").into_bytes()),
                (0..3u16).prop_map(|n| format!("\x1b[{n}J").into_bytes()),
                (0..3u16).prop_map(|n| format!("\x1b[{n}K").into_bytes()),
                (30..50u16).prop_map(|n| format!("\x1b[{n}m").into_bytes()),
                prop_oneof![Just(1u16), Just(25), Just(1000), Just(1004), Just(1006), Just(1049), Just(2004)]
                    .prop_flat_map(|n| prop_oneof![Just('h'), Just('l')].prop_map(move |c| format!("\x1b[?{n}{c}").into_bytes())),
                "[a-z]{0,5}".prop_map(|t| format!("\x1b]2;{t}\x07").into_bytes()),
            ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn repaint_then_differences_equal_the_screen(first in output(), second in output()) {
            let mut screen = screen_of(&first);
            let mut terminal = Screen::new(SIZE, Policy::default());
            terminal.process(&screen.draw(None));
            prop_assert_eq!(terminal.text(), screen.text());
            let shown = screen.shown();
            screen.process(&second);
            terminal.process(&screen.draw(Some(&shown)));
            prop_assert_eq!(terminal.text(), screen.text());
            prop_assert_eq!(terminal.cursor(), screen.cursor());
            prop_assert_eq!(terminal.title(), screen.title());
            prop_assert_eq!(terminal.wants_focus_events(), screen.wants_focus_events());
            prop_assert!(screen.draw(Some(&screen.shown())).is_empty());
        }

        #[test]
        fn random_bytes_never_panic(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..6), rows in 6..40u16, cols in 3..90u16) {
            let mut screen = Screen::new(SIZE, Policy::default());
            for chunk in chunks {
                screen.process(&chunk);
                screen.resize(Size { rows, cols });
                screen.draw(None);
            }
        }
    }
}
