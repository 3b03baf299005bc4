//! What is drawn is fed to a second parser, which must then show the frame, cell by cell.

use proptest::prelude::*;

use super::*;

const ALL: Caps = Caps { truecolor: true, sync_output: true, hyperlinks: true, underline_style: true, pointer_shapes: true, color: true };
/// No brackets, so that a test can state the bytes.
const BARE: Caps = Caps { sync_output: false, ..ALL };

fn terminal(size: Size) -> vt100::Parser {
    vt100::Parser::new(size.rows.try_into().unwrap(), size.cols.try_into().unwrap(), 0)
}

fn colour(colour: Color, caps: &Caps) -> vt100::Color {
    match colour.hue() {
        _ if !caps.color => vt100::Color::Default,
        Hue::Default => vt100::Color::Default,
        Hue::Index(index) => vt100::Color::Idx(index),
        Hue::Rgb(r, g, b) if caps.truecolor => vt100::Color::Rgb(r, g, b),
        Hue::Rgb(r, g, b) => vt100::Color::Idx(nearest_by_search(r, g, b)),
    }
}

/// The first of the 240 fixed colours at the least distance.
fn nearest_by_search(r: u8, g: u8, b: u8) -> u8 {
    let steps = [0, 95, 135, 175, 215, 255];
    let shown = |index: u8| match index {
        232.. => [8 + 10 * (index - 232); 3],
        _ => [(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6].map(|step| steps[usize::from(step)]),
    };
    let distance = |index: u8| shown(index).iter().zip([r, g, b]).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>();
    (16..=255).min_by_key(|&index| distance(index)).unwrap()
}

/// Does the terminal show this frame?
fn compare(terminal: &vt100::Parser, frame: &Frame, modes: &Modes, view: Size, caps: &Caps) {
    let screen = terminal.screen();
    for row in 0..view.rows {
        for col in 0..view.cols {
            let inside = row < frame.size.rows && col < frame.size.cols;
            let mut cell = if inside { frame.row(row)[usize::from(col)] } else { Cell::default() };
            let next = if inside && col + 1 < view.cols { frame.row(row).get(usize::from(col) + 1) } else { None };
            let whole = match cell.glyph {
                glyph if glyph.is_continuation() => col > 0 && frame.row(row)[usize::from(col) - 1].glyph.is_wide(),
                glyph if glyph.is_wide() => next.is_some_and(|next| next.glyph.is_continuation()),
                _ => true,
            };
            if !whole {
                cell.glyph = Glyph::EMPTY;
            }
            let shown = screen.cell(row, col).unwrap();
            let at = || format!("{row},{col}: {cell:?} is {shown:?}\n{}", frame.text());
            assert_eq!(shown.is_wide_continuation(), cell.glyph.is_continuation(), "{}", at());
            if cell.glyph.is_continuation() {
                continue;
            }
            let text = frame.show(cell.glyph);
            assert_eq!(if shown.has_contents() { shown.contents() } else { " " }, text, "{}", at());
            assert_eq!(shown.is_wide(), cell.glyph.is_wide(), "{}", at());
            assert_eq!(shown.bgcolor(), colour(cell.style.bg, caps), "{}", at());
            assert_eq!(shown.inverse(), cell.style.attrs & attr::INVERSE != 0, "{}", at());
            // vt100 does not know the styled ones.
            if !caps.underline_style || cell.style.attrs & attr::UNDERLINE <= attr::SINGLE_UNDERLINE {
                assert_eq!(shown.underline(), cell.style.attrs & attr::UNDERLINE != 0, "{}", at());
            }
            if !cell.is_blank() {
                assert_eq!(shown.fgcolor(), colour(cell.style.fg, caps), "{}", at());
                assert_eq!(shown.bold(), cell.style.attrs & attr::BOLD != 0, "{}", at());
                assert_eq!(shown.dim(), cell.style.attrs & attr::DIM != 0, "{}", at());
                assert_eq!(shown.italic(), cell.style.attrs & attr::ITALIC != 0, "{}", at());
            }
        }
    }
    match frame.cursor.filter(|at| at.row < view.rows.min(frame.size.rows) && at.col < view.cols.min(frame.size.cols)) {
        None => assert!(screen.hide_cursor()),
        Some(cursor) => {
            assert!(!screen.hide_cursor());
            assert_eq!(screen.cursor_position(), (cursor.row, cursor.col));
            assert_eq!(screen.cursor_style() as u8, cursor.shape);
        }
    }
    assert_eq!(screen.bracketed_paste(), modes.bracketed_paste);
    assert_eq!(screen.application_cursor(), modes.app_cursor);
    assert_eq!(screen.application_keypad(), modes.app_keypad);
    let mouse = if modes.mouse { vt100::MouseProtocolMode::AnyMotion } else { vt100::MouseProtocolMode::None };
    assert_eq!(screen.mouse_protocol_mode(), mouse);
    assert_eq!(screen.mouse_protocol_encoding() == vt100::MouseProtocolEncoding::Sgr, modes.mouse);
}

fn check_caps(bytes: &[u8], caps: &Caps) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(caps.sync_output || !text.contains("?2026"), "{text:?}");
    assert!(caps.hyperlinks || !text.contains("\x1b]8"), "{text:?}");
    assert!(caps.pointer_shapes || !text.contains("\x1b]22"), "{text:?}");
    for sequence in text.split("\x1b[").skip(1) {
        let end = sequence.find(|c: char| ('@'..='~').contains(&c)).unwrap();
        if !sequence[end..].starts_with('m') || sequence.starts_with('>') {
            continue;
        }
        let params: Vec<&str> = sequence[..end].split(';').collect();
        let starts = |start: &str| params.iter().any(|param| param.starts_with(start));
        assert!(caps.underline_style || !starts("4:") && !starts("58") && !starts("59"), "{text:?}");
        let mut numbers = params.iter().copied();
        while let Some(param) = numbers.next() {
            let is_colour = match param.parse() {
                Ok(38 | 48) => {
                    let kind = numbers.next().unwrap();
                    assert!(kind == "5" || kind == "2" && caps.truecolor, "{text:?}");
                    numbers.nth(if kind == "5" { 0 } else { 2 }).unwrap();
                    true
                }
                Ok(30..=37 | 40..=47 | 90..=97 | 100..=107) => true,
                _ => param.starts_with("58"),
            };
            assert!(caps.color || !is_colour, "{text:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Put {
        row: u16,
        col: u16,
        style: usize,
        text: &'static str,
    },
    Fill {
        area: Rect,
        style: usize,
    },
    Scroll {
        top: u16,
        rows: u16,
        by: u16,
        up: bool,
    },
    /// A full screen of lines, as a program prints them.
    Lines {
        from: u16,
    },
    /// Half a character, from a painter that cuts at the edge of a pane.
    Half {
        row: u16,
        col: u16,
        wide: bool,
    },
    Cursor(Option<(u16, u16, u8)>),
    Modes(u8),
    Resize(u16, u16),
    View(u16, u16),
    Forget,
}

const TEXTS: [&str; 12] = [
    "a",
    "hello world",
    "x          y",
    "wide 世界 text",
    "界",
    "e\u{301}o\u{308}\u{304} marks",
    "\u{2764}\u{fe0f} heart",
    "👩\u{200d}🚀🎉 joined",
    "──────────┬────",
    "a\x1b[31mb\tc\u{7}d\u{9b}e",
    "                                        ",
    "the quick brown fox jumps over the lazy dog and the quick brown fox jumps over it",
];

fn styles(frame: &mut Frame) -> [Style; 11] {
    let short = frame.link(";https://example.com/");
    let named = frame.link("id=7;https://example.com/a");
    let plain = Style::default();
    [
        plain,
        Style { fg: Color::index(1), ..plain },
        Style { fg: Color::index(12), bg: Color::index(200), attrs: attr::BOLD, ..plain },
        Style { bg: Color::rgb(10, 20, 30), ..plain },
        Style { fg: Color::rgb(250, 120, 7), attrs: attr::ITALIC | attr::DIM, ..plain },
        Style { attrs: attr::INVERSE, ..plain },
        Style { attrs: attr::SINGLE_UNDERLINE | attr::STRIKE | attr::OVERLINE, ..plain },
        Style { attrs: 3 << attr::UNDERLINE_SHIFT | attr::BLINK, underline: Color::rgb(255, 0, 0), ..plain },
        Style { attrs: 2 << attr::UNDERLINE_SHIFT | attr::HIDDEN, underline: Color::index(9), ..plain },
        Style { link: short, fg: Color::index(4), ..plain },
        Style { link: named, attrs: attr::BOLD, ..plain },
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let style = 0..11usize;
    let cursor = prop::option::of((0..30u16, 0..90u16, 0..7u8));
    prop_oneof![
        8 => (0..30u16, 0..90u16, style.clone(), prop::sample::select(&TEXTS[..]))
            .prop_map(|(row, col, style, text)| Op::Put { row, col, style, text }),
        3 => (0..30u16, 0..90u16, 0..8u16, 0..90u16, style)
            .prop_map(|(row, col, rows, cols, style)| Op::Fill { area: Rect { row, col, rows, cols }, style }),
        4 => (0..30u16, 0..30u16, 1..6u16, any::<bool>()).prop_map(|(top, rows, by, up)| Op::Scroll { top, rows, by, up }),
        2 => (0..60u16).prop_map(|from| Op::Lines { from }),
        1 => (0..30u16, 0..90u16, any::<bool>()).prop_map(|(row, col, wide)| Op::Half { row, col, wide }),
        3 => cursor.prop_map(Op::Cursor),
        1 => any::<u8>().prop_map(Op::Modes),
        1 => (3..30u16, 3..90u16).prop_map(|(rows, cols)| Op::Resize(rows, cols)),
        1 => (3..30u16, 3..90u16).prop_map(|(rows, cols)| Op::View(rows, cols)),
        1 => Just(Op::Forget),
    ]
}

/// One client and the terminal it draws on.
struct Client {
    terminal: vt100::Parser,
    shown: Shown,
    view: Size,
    modes: Modes,
    caps: Caps,
}

impl Client {
    fn new(view: Size, caps: Caps) -> Self {
        Self { terminal: terminal(view), shown: Shown::unknown(), view, modes: Modes::default(), caps }
    }

    fn show(&mut self, frame: &Frame) -> Vec<u8> {
        let out = frame.draw(&self.modes, &mut self.shown, self.view, &self.caps);
        check_caps(&out, &self.caps);
        self.terminal.process(&out);
        compare(&self.terminal, frame, &self.modes, self.view, &self.caps);
        assert_eq!(frame.draw(&self.modes, &mut self.shown, self.view, &self.caps), b"", "nothing has changed");
        out
    }

    /// With `^` for the escape.
    fn bytes(&mut self, frame: &Frame) -> String {
        String::from_utf8(self.show(frame)).unwrap().replace('\x1b', "^")
    }
}

fn carry_out(op: &Op, frame: &mut Frame, client: &mut Client) {
    let styles = styles(frame);
    let Size { rows, cols } = frame.size;
    match *op {
        Op::Put { row, col, style, text } => {
            let used = frame.put(row, col, cols, styles[style], text);
            assert!(used <= cols.saturating_sub(col));
        }
        Op::Fill { area, style } => frame.fill(area, styles[style]),
        Op::Scroll { top, rows: far, by, up } => {
            let (top, bottom) = (top.min(rows), top.saturating_add(far).min(rows));
            let source = frame.clone();
            for row in top..bottom {
                let from = if up { row + by } else { row.wrapping_sub(by) };
                if (top..bottom).contains(&from) {
                    frame.row_mut(row).copy_from_slice(source.row(from));
                }
            }
        }
        Op::Lines { from } => {
            frame.fill(Rect::of(frame.size), Style::default());
            for row in 0..rows {
                let number = row + from;
                frame.put(
                    row,
                    0,
                    cols,
                    styles[usize::from(number % 4)],
                    &format!("line {number} {}", "*".repeat(usize::from(number * 7 % 40))),
                );
            }
        }
        Op::Half { row, col, wide } if row < rows && col < cols => {
            frame.row_mut(row)[usize::from(col)].glyph = if wide { Glyph::char('界', true) } else { Glyph::CONTINUATION };
        }
        Op::Half { .. } => {}
        Op::Cursor(cursor) => frame.cursor = cursor.map(|(row, col, shape)| Cursor { row, col, shape }),
        Op::Modes(bits) => {
            let bit = |n: u8| bits >> n & 1 != 0;
            client.modes = Modes {
                title: if bit(0) { "title\x1b[2J".to_owned() } else { String::new() },
                icon: if bit(2) { "short".to_owned() } else { String::new() },
                bracketed_paste: bit(1),
                focus: bit(2),
                app_cursor: bit(3),
                app_keypad: bit(4),
                kitty_flags: bits >> 5,
                modify_other_keys: bits >> 6,
                mouse: bit(7),
                pointer: bit(6).then_some("pointer"),
            };
        }
        Op::Resize(rows, cols) => frame.resize(Size { rows, cols }),
        Op::View(rows, cols) => {
            client.view = Size { rows, cols };
            client.terminal.set_size(rows.try_into().unwrap(), cols.try_into().unwrap());
        }
        Op::Forget => {
            client.shown.forget();
            client.terminal.process(b"\x1b[2;3r\x1b[?6h\x1b[1;4;7;31mleft by another\x1b[5 q\x1b[?1000h\x1b[?1005h");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_terminal_shows_the_frame(
        size in (3..30u16, 3..90u16),
        view in (3..30u16, 3..90u16),
        same in any::<bool>(),
        bits in any::<u8>(),
        steps in prop::collection::vec(prop::collection::vec(op(), 1..6), 1..10),
    ) {
        let bit = |n: u8| bits >> n & 1 != 0;
        let caps = Caps { truecolor: bit(0), sync_output: bit(1), hyperlinks: bit(2), underline_style: bit(3), pointer_shapes: bit(4), color: bit(5) };
        let size = Size { rows: size.0, cols: size.1 };
        let view = if same { size } else { Size { rows: view.0, cols: view.1 } };
        let mut frame = Frame::new(size);
        let mut client = Client::new(view, caps);
        for ops in &steps {
            for op in ops {
                carry_out(op, &mut frame, &mut client);
            }
            client.show(&frame);
            Client { modes: client.modes.clone(), ..Client::new(client.view, caps) }.show(&frame);
        }
    }

    #[test]
    fn colours_of_256_are_the_nearest(r: u8, g: u8, b: u8) {
        let caps = Caps { truecolor: false, ..BARE };
        let mut frame = Frame::new(Size { rows: 1, cols: 2 });
        frame.put(0, 0, 1, Style { fg: Color::rgb(r, g, b), ..Style::default() }, "x");
        let mut terminal = terminal(frame.size);
        terminal.process(&frame.draw(&Modes::default(), &mut Shown::unknown(), frame.size, &caps));
        let vt100::Color::Idx(shown) = terminal.screen().cell(0, 0).unwrap().fgcolor() else { panic!("a colour by index") };
        let distance = |index: u8| {
            let steps = [0, 95, 135, 175, 215, 255];
            let shown = match index {
                232.. => [8 + 10 * (index - 232); 3],
                _ => [(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6].map(|step| steps[usize::from(step)]),
            };
            shown.iter().zip([r, g, b]).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>()
        };
        let best = nearest_by_search(r, g, b);
        prop_assert!(distance(shown) <= distance(best) + 100, "{shown} for {best}");
    }

    #[test]
    fn text_takes_the_columns_it_says(text in "\\PC{0,40}", limit in 0..40u16) {
        let mut frame = Frame::new(Size { rows: 1, cols: 60 });
        let used = frame.put(0, 0, limit, Style::default(), &text);
        prop_assert!(used <= limit);
        let all = columns(&text);
        prop_assert!(all <= usize::from(limit) && usize::from(used) == all || all > usize::from(limit) && used + 1 >= limit);
    }
}

fn small() -> (Frame, Client) {
    let size = Size { rows: 24, cols: 80 };
    let mut frame = Frame::new(size);
    frame.cursor = Some(Cursor { row: 3, col: 2, shape: 0 });
    let mut client = Client::new(size, BARE);
    client.show(&frame);
    (frame, client)
}

#[test]
fn a_typed_character_is_one_byte() {
    let (mut frame, mut client) = small();
    frame.put(3, 2, 9, Style::default(), "a");
    frame.cursor = Some(Cursor { row: 3, col: 3, shape: 0 });
    assert_eq!(client.bytes(&frame), "a");
}

#[test]
fn the_shorter_way() {
    let red = Style { fg: Color::index(1), ..Style::default() };
    let (mut frame, mut client) = small();
    frame.cursor = None;
    frame.put(3, 2, 9, red, "ab cd");
    assert_eq!(client.bytes(&frame), "^[31mab cd^[?25l");
    // Over the gap rather than around it.
    frame.put(3, 2, 1, red, "x");
    frame.put(3, 6, 1, red, "y");
    assert_eq!(client.bytes(&frame), "^[5Dxb cy");
    // A blank takes the colour that is set; the rest of a row is erased.
    frame.put(4, 0, 9, red, "z");
    frame.fill(Rect { row: 3, col: 3, rows: 1, cols: 70 }, Style::default());
    assert_eq!(client.bytes(&frame), "\u{8}\u{8}\u{8}\u{8}^[K\n\rz");
    frame.fill(Rect::of(frame.size), Style { bg: Color::index(4), ..Style::default() });
    let all = client.bytes(&frame);
    assert!(all.starts_with("^[H^[44m^[K\n^[K\n^[K"), "{all}");
}

/// One like no other.
fn line(number: u16) -> String {
    let letter = |at: u16| char::from(b'a' + (number.wrapping_mul(7919).wrapping_add(at * number + at) % 26) as u8);
    (0..40).map(letter).collect()
}

#[test]
fn rows_that_moved_are_moved() {
    let (mut frame, mut client) = small();
    frame.cursor = None;
    let lines = |frame: &mut Frame, from: u16| {
        for row in 1..23 {
            frame.fill(Rect { row, col: 0, rows: 1, cols: 80 }, Style::default());
            frame.put(row, 0, 80, Style::default(), &line(from + row));
        }
    };
    frame.put(0, 0, 80, Style::default(), "tabs");
    frame.put(23, 0, 80, Style::default(), "bar");
    lines(&mut frame, 0);
    client.show(&frame);
    lines(&mut frame, 2);
    let moved = format!("^[2;23r^[2S^[r^[22H{}\n\r{}", line(23), line(24));
    assert_eq!(client.bytes(&frame), moved);
    lines(&mut frame, 1);
    assert_eq!(client.bytes(&frame), format!("^[2;23r^[T^[r^[2H{}", line(2)));
}

#[test]
fn two_blocks_may_move_at_once() {
    let (mut frame, mut client) = small();
    let lines = |frame: &mut Frame, first: u16, second: u16| {
        for row in 0..12 {
            for (row, number) in [(row, first), (row + 12, second)] {
                frame.fill(Rect { row, col: 0, rows: 1, cols: 80 }, Style::default());
                frame.put(row, 0, 80, Style::default(), &line(number + row));
            }
        }
    };
    lines(&mut frame, 100, 200);
    client.show(&frame);
    lines(&mut frame, 101, 197);
    let out = client.bytes(&frame);
    assert_eq!(out.matches('S').count() + out.matches('T').count(), 2, "{out}");
}

#[test]
fn styles_change_by_their_difference() {
    let style = |fg: u8, attrs: u16| Style { fg: Color::index(fg), attrs, ..Style::default() };
    let mut frame = Frame::new(Size { rows: 3, cols: 80 });
    let mut client = Client::new(frame.size, BARE);
    client.show(&frame);
    for (col, style) in [
        style(1, attr::BOLD | attr::DIM),
        style(1, attr::DIM),
        style(1, 0),
        Style { fg: Color::rgb(1, 2, 3), attrs: attr::BOLD | attr::ITALIC | attr::STRIKE, bg: Color::index(9), ..Style::default() },
        style(1, 0),
        style(1, 3 << attr::UNDERLINE_SHIFT),
        Style { underline: Color::rgb(1, 2, 3), ..style(1, attr::SINGLE_UNDERLINE) },
        Style::default(),
    ]
    .into_iter()
    .enumerate()
    {
        frame.put(0, col as u16, 1, style, "x");
    }
    let expected = "^[1;2;31mx^[22;2mx^[22mx^[1;3;9;38;2;1;2;3;101mx^[0;31mx^[4:3mx^[4;58:2::1:2:3mx^[mx";
    // vt100 has either bold or dim, so it cannot compare.
    let out = frame.draw(&client.modes, &mut client.shown, client.view, &client.caps);
    assert_eq!(String::from_utf8(out).unwrap().replace('\x1b', "^"), expected);
}

#[test]
fn links_keep_together_and_are_closed() {
    let (mut frame, mut client) = small();
    frame.cursor = None;
    let link = frame.link(";https://a.b/\x1b]52;c;\x07");
    frame.put(3, 2, 9, Style { link, ..Style::default() }, "ab");
    frame.put(5, 2, 9, Style { link, ..Style::default() }, "c");
    let id = format!("id=j{link:x}");
    assert_eq!(client.bytes(&frame), format!("^]8;{id};https://a.b/]52;c;^\\ab\n\n\u{8}\u{8}c^]8;;^\\^[?25l"));
}

#[test]
fn clusters_are_followed_by_an_absolute_move_and_names_are_forgotten() {
    let (mut frame, mut client) = small();
    frame.cursor = None;
    frame.put(3, 2, 9, Style::default(), "\u{2764}\u{fe0f}x");
    assert_eq!(client.bytes(&frame), "\u{2764}\u{fe0f}^[4;5Hx^[?25l");
    frame.put(3, 2, 9, Style::default(), "abcd");
    client.show(&frame);
    frame.put(3, 2, 9, Style::default(), "\u{2764}\u{fe0f}x");
    assert_eq!(client.bytes(&frame), "\u{8}\u{8}\u{8}\u{8}^[2X\u{2764}\u{fe0f}^[4;5Hx");
    for mark in 0..100_000u32 {
        frame.link(&format!(";https://a.b/{mark}"));
        frame.cluster(&format!("e{mark}"), false);
    }
    assert!(frame.links.texts.len() + frame.clusters.texts.len() < 3000);
    client.shown.forget();
    client.show(&frame);
}

#[test]
fn without_brackets_the_cursor_hides_while_much_changes() {
    let (mut frame, mut client) = small();
    frame.put(7, 0, 80, Style::default(), "a long line of text");
    let out = client.bytes(&frame);
    assert!(out.starts_with("^[?25l") && out.ends_with("^[?25h"), "{out}");
    client.caps = ALL;
    frame.put(8, 0, 80, Style::default(), "a long line of text");
    let out = client.bytes(&frame);
    assert!(out.starts_with("^[?2026h") && out.ends_with("^[?2026l") && !out.contains("?25"), "{out}");
}

#[test]
fn modes_are_told_once() {
    let (frame, mut client) = small();
    client.modes = Modes {
        title: "a\x07b".to_owned(),
        icon: String::new(),
        bracketed_paste: true,
        focus: true,
        app_cursor: true,
        app_keypad: true,
        kitty_flags: 5,
        modify_other_keys: 2,
        mouse: true,
        pointer: Some("text"),
    };
    let all = "^[?2004h^[?1004h^[?1h^=^[?1003h^[?1006h^[=5u^[>4;2m^]0;ab\x07^]22;text^\\";
    assert_eq!(client.bytes(&frame), all);
    client.modes = Modes::default();
    assert_eq!(client.bytes(&frame), "^[?2004l^[?1004l^[?1l^>^[?1003l^[?1006l^[=0u^[>4;0m^]0;\x07^]22;default^\\");
    // A short name of its own, which goes with the program that has one.
    client.modes = Modes { title: "a".to_owned(), icon: "b".to_owned(), ..Modes::default() };
    assert_eq!(client.bytes(&frame), "^]1;b\x07^]2;a\x07");
    client.modes.icon.clear();
    assert_eq!(client.bytes(&frame), "^]0;a\x07");
}
