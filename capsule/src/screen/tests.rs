//! What holds for any output: it is generated, and every screen is compared with another that came there differently.

use proptest::prelude::*;

use super::ring::MAX_LINES;
use super::ring::tests::Memory;
use super::*;
use crate::frame::{Frame, Rect};

const SIZE: Size = Size { rows: 6, cols: 20 };

pub(super) fn screen_of(bytes: &[u8]) -> Screen {
    let mut screen = Screen::new(SIZE, Policy::default());
    screen.process(bytes);
    screen
}

fn replies(bytes: &str) -> String {
    let mut screen = Screen::new(SIZE, Policy::default());
    String::from_utf8(screen.process(bytes.as_bytes()).replies).unwrap()
}

fn frame(screen: &mut Screen) -> Frame {
    let mut frame = Frame::new(screen.size());
    screen.paint(&mut frame, Rect::of(screen.size()), 0, true);
    frame
}

/// Cells by what they look like: names of clusters and links are what they name.
fn picture(screen: &mut Screen) -> Vec<String> {
    let frame = frame(screen);
    let size = screen.size();
    (0..size.rows).map(|row| format!("{:?}", frame.row(row))).collect()
}

/// Everything of a screen that its program or its watcher can tell.
fn all(screen: &mut Screen) -> (Vec<String>, String, Vec<String>) {
    let rest = format!(
        "{:?} {} {} {:?} {:?} {:?} {:?} {:?} {} {:?} {}",
        screen.cursor(),
        screen.cursor_visible(),
        screen.cursor_shape(),
        screen.modes(),
        screen.title(),
        screen.icon(),
        screen.cwd(),
        screen.progress(),
        screen.is_painting(),
        screen.pen,
        screen.at.1,
    );
    let history = (0..screen.history_len()).map(|line| history_line(screen, line)).collect();
    (picture(screen), rest, history)
}

fn history_line(screen: &Screen, line: usize) -> String {
    let line = screen.parser.callbacks().ring.line(line).unwrap();
    let mut out = format!("{} ", line.wrapped);
    let mut cells = Vec::new();
    line::read(&line.bytes, |cluster, pen| {
        cells.push((cluster.text == " " && *pen == Pen::default(), format!("{} {} {pen:?}|", cluster.col, cluster.text)));
    });
    while cells.last().is_some_and(|(blank, _)| *blank) {
        cells.pop();
    }
    out.extend(cells.into_iter().filter(|(blank, _)| !blank).map(|(_, cell)| cell));
    out
}

/// What a failed comparison of two is about.
fn difference(found: &(Vec<String>, String, Vec<String>), expected: &(Vec<String>, String, Vec<String>)) -> String {
    let mut out = format!("{}\n{}\n", found.1, expected.1);
    for (found, expected) in [(&found.0, &expected.0), (&found.2, &expected.2)] {
        for (i, pair) in found.iter().zip(expected).enumerate().filter(|(_, (found, expected))| found != expected) {
            out.push_str(&format!("{i}: {}\n   {}\n", pair.0, pair.1));
        }
        out.push_str(&format!("{} and {} rows\n", found.len(), expected.len()));
    }
    out
}

// ---- examples ----

#[test]
fn queries_are_answered() {
    assert_eq!(replies("\x1b[5n"), "\x1b[0n");
    assert_eq!(replies("ab\r\ncd\x1b[6n"), "\x1b[2;3R");
    assert_eq!(replies("12345678901234567890\x1b[6n"), "\x1b[1;20R");
    assert_eq!(replies("\x1b[3;5r\x1b[?6h\x1b[2;4H\x1b[6n"), "\x1b[2;4R");
    assert_eq!(replies("\x1b[c"), "\x1b[?62;22c");
    assert_eq!(replies("\x1b[>c"), "\x1b[>1;100;0c");
    assert_eq!(replies("\x1b[=c"), "\x1bP!|00000000\x1b\\");
    assert_eq!(replies("\x1b[?2026$p\x1b[?2004h\x1b[?2004$p\x1b[?77$p"), "\x1b[?2026;2$y\x1b[?2004;1$y\x1b[?77;0$y");
    assert_eq!(replies("\x1b[4$p\x1b[4h\x1b[4$p"), "\x1b[4;2$y\x1b[4;1$y");
    assert_eq!(replies("\x1b]11;?\x07"), "\x1b]11;rgb:0000/0000/0000\x1b\\");
    assert_eq!(replies("\x1b]4;1;?;255;?\x07"), "\x1b]4;1;rgb:cdcd/0000/0000\x1b\\\x1b]4;255;rgb:eeee/eeee/eeee\x1b\\");
    assert_eq!(replies("\x1b[14t\x1b[16t\x1b[18t\x1b[19t"), "\x1b[4;96;160t\x1b[6;16;8t\x1b[8;6;20t\x1b[9;6;20t");
    assert_eq!(replies("\x1bP+q544e\x1b\\\x1bP$qm\x1b\\"), "\x1bP0+r\x1b\\\x1bP0$r\x1b\\");
    assert_eq!(replies("\x1b[?996n"), "\x1b[?997;1n");
    assert!(replies("\x1b[>q").contains("jackin-capsule"));
    assert_eq!(replies("plain text \x1b[31mred\x1b_Gi=1;AAAA\x1b\\"), "");
}

#[test]
fn kitty_flags_are_kept_per_screen() {
    assert_eq!(replies("\x1b[?u\x1b[>1u\x1b[?u\x1b[>5u\x1b[?u\x1b[<u\x1b[?u\x1b[<9u\x1b[?u"), "\x1b[?0u\x1b[?1u\x1b[?5u\x1b[?1u\x1b[?0u");
    assert_eq!(replies("\x1b[=5;1u\x1b[=2;2u\x1b[?u\x1b[=1;3u\x1b[?u"), "\x1b[?7u\x1b[?6u");
    assert_eq!(replies("\x1b[>1u\x1b[?1049h\x1b[?u\x1b[>3u\x1b[?u\x1b[?1049l\x1b[?u"), "\x1b[?0u\x1b[?3u\x1b[?1u");
    let screen = screen_of(&b"\x1b[>1u".repeat(100));
    assert!(screen.side().kitty.len() <= 16);
}

#[test]
fn titles_and_notifications_cannot_smuggle_escapes() {
    let mut screen = Screen::new(SIZE, Policy::default());
    let requests = screen.process("\x1b]2;a\u{9b}31mb\x07\x1b]9;hi\u{9d}there\x07\x1b]9;4;1;50\x07\x1b]777;notify;a;b\x1b\\".as_bytes());
    assert_eq!(screen.title(), "a31mb");
    assert_eq!(requests.passed, b"\x1b]9;hithere\x07\x1b]777;notify;a;b\x07");
    assert_eq!(screen.progress(), Some(Progress::Percent(50)));
    assert!(requests.progress && requests.title && !requests.cwd);
}

#[test]
fn a_window_has_a_title_and_may_have_a_short_name() {
    let mut screen = screen_of(b"\x1b]2;title\x07\x1b]1;short\x07");
    assert_eq!((screen.title(), screen.icon()), ("title", "short"));
    screen.process(b"\x1b]0;both\x07");
    assert_eq!((screen.title(), screen.icon()), ("both", ""));
    assert!(screen.process(b"\x1b]1;again\x07").title);
    screen.process(b"\x1bc");
    assert_eq!((screen.title(), screen.icon()), ("", ""));
    // What a program that has the whole screen puts by comes back after it, whichever it was.
    screen.process(b"\x1b]2;shell\x07\x1b]1;sh\x07\x1b[22;0;0t\x1b]0;vim\x07");
    assert_eq!((screen.title(), screen.icon()), ("vim", ""));
    screen.process(b"\x1b[22;1t\x1b]1;file\x07\x1b]2;other\x07\x1b[23;1t");
    assert_eq!((screen.title(), screen.icon()), ("other", ""));
    screen.process(b"\x1b[23;0;0t");
    assert_eq!((screen.title(), screen.icon()), ("shell", "sh"));
    screen.process(b"\x1b[23t\x1b[22;7t\x1b[23;7t");
    assert_eq!((screen.title(), screen.icon()), ("shell", "sh"));
    let mut silent = Screen::new(SIZE, Policy { title: false, ..Policy::default() });
    assert!(!silent.process(b"\x1b]1;short\x07").title && silent.icon().is_empty());
}

#[test]
fn the_clipboard_is_closed_unless_allowed() {
    let write = b"\x1b]52;c;aGk=\x07";
    assert_eq!(Screen::new(SIZE, Policy::default()).process(write).passed, b"");
    let open = Policy { clipboard: true, ..Policy::default() };
    assert_eq!(Screen::new(SIZE, open).process(write).passed, write);
    assert_eq!(Screen::new(SIZE, open).process(b"\x1b]52;c;?\x07"), Requests::default());
    let long = [b"\x1b]52;c;".to_vec(), vec![b'A'; 200 << 10], b"\x07".to_vec()].concat();
    assert_eq!(Screen::new(SIZE, open).process(&long).passed, long);
}

#[test]
fn what_a_shell_tells_is_known() {
    let screen = screen_of(b"\x1b]7;file://host/a%20b\x1b\\one\r\n\x1b]133;D;3\x07");
    assert_eq!(screen.cwd(), Some("/a b"));
    assert_eq!(screen.mark(), Some(Mark { kind: MarkKind::Finished(Some(3)), line: 1 }));
}

#[test]
fn links_open_only_what_is_safe() {
    let screen = screen_of(b"\x1b]8;;https://example.org\x1b\\ab\x1b]8;;\x1b\\c\x1b]8;;file:///etc\x1b\\d\x1b[31me");
    let at = |col| screen.link_at(0, col);
    assert_eq!(at(0).as_deref(), Some("https://example.org"));
    assert_eq!(at(1), at(0));
    assert_eq!((at(2), at(3)), (None, None));
    let closed = Policy { hyperlink: false, ..Policy::default() };
    let mut screen = Screen::new(SIZE, closed);
    screen.process(b"\x1b]8;;https://example.org\x1b\\ab");
    assert_eq!(screen.link_at(0, 0), None);
}

#[test]
fn extras_stay_with_their_cells() {
    let mut screen = screen_of("\x1b[4:3;58;5;9mwide 漢 x\u{301} \x1b[9m⚠\u{fe0f}!\x1b[m plain".as_bytes());
    let frame = frame(&mut screen);
    let kind = |col: usize| (frame.row(0)[col].style.attrs & crate::frame::attr::UNDERLINE) >> crate::frame::attr::UNDERLINE_SHIFT;
    assert_eq!((kind(0), kind(5), kind(6), kind(8), kind(14)), (3, 3, 3, 3, 0));
    assert_eq!(frame.row(0)[0].style.underline, crate::frame::Color::index(9));
    assert!(frame.row(0)[10].glyph.is_wide());
    assert!(frame.row(0)[11].style.attrs & crate::frame::attr::STRIKE != 0);
    assert_eq!(screen.text(), "wide 漢 x\u{301} ⚠\u{fe0f}! plain");
}

#[test]
fn a_full_table_of_extras_forgets_those_off_screen() {
    let mut screen = Screen::new(SIZE, Policy::default());
    for n in 0..3000 {
        screen.process(format!("\x1b]8;;https://example.org/{n}\x1b\\x{n}\x1b]8;;\x1b\\\r\n").as_bytes());
    }
    let line = screen.history_len() + 4;
    assert_eq!(screen.link_at(line, 0).as_deref(), Some("https://example.org/2999"));
    assert_eq!(screen.link_at(7, 0).as_deref(), Some("https://example.org/7"));
}

#[test]
fn programs_cannot_print_marks() {
    let mut screen = screen_of("a\u{e0200}b\u{e0fff}c".as_bytes());
    assert_eq!(screen.text(), "abc");
    screen.process("\x1b[9mx\u{e0201}y".as_bytes());
    assert_eq!(screen.text(), "abcxy");
}

#[test]
fn cleared_rows_are_kept_once() {
    let mut screen = screen_of(b"one\r\ntwo\x1b[2J\x1b[H");
    assert_eq!(screen.text_with_history(None), "one\ntwo");
    screen.process(b"one\r\ntwo\x1b[2J\x1b[Hone\r\ntwo\x1b[H\x1b[J");
    assert_eq!(screen.text_with_history(None), "one\ntwo");
    screen.process(b"three\x1b[H\x1b[2J\x1b[3J");
    assert_eq!((screen.history_len(), screen.first_line()), (0, 2));
    screen.process(b"four");
    screen.clear();
    assert_eq!(screen.text_with_history(None), "four");
    assert_eq!(screen.cursor(), (0, 4));
}

#[test]
fn search_finds_across_wrapped_lines_and_minds_capitals() {
    let screen = screen_of("first Needle\r\nneedle 漢字 12345needles\r\nlast\r\n\r\n\r\n\r\n".as_bytes());
    assert_eq!(screen.history_len(), 2);
    let found = |line, col, cols| Some(Found { line, col, cols });
    assert_eq!(screen.search("needle", 0, false), found(0, 6, 6));
    assert_eq!(screen.search("Needle", 1, false), None);
    assert_eq!(screen.search("needle", 1, false), found(1, 0, 6));
    assert_eq!(screen.search("5needles", 0, false), found(1, 16, 4));
    assert_eq!(screen.search("字", 5, true), found(1, 9, 2));
    assert_eq!(screen.search("needle", 5, true), found(1, 17, 3));
    assert_eq!(screen.search("", 0, false), None);
}

#[test]
fn no_text_is_lost_by_a_new_size() {
    let text = "prompt$ a line that is much longer than twenty\r\nsecond\r\nthird\r\n\r\n$ ";
    let mut screen = screen_of(text.as_bytes());
    let before = screen.text_with_history(None);
    for (rows, cols) in [(6, 9), (3, 50), (40, 300), (2, 7), (2, 1), (6, 20)] {
        screen.resize(Size { rows, cols });
        assert_eq!(screen.text_with_history(None), before, "{rows}x{cols}");
    }
    screen.process(b"typed");
    assert_eq!(screen.text_with_history(None), before + " typed");
    // vt100 does not see that a single row wraps.
    let letters = |screen: &Screen| screen.text_with_history(None).replace(['\n', ' '], "");
    let before = letters(&screen);
    screen.resize(Size { rows: 1, cols: 1 });
    assert_eq!(letters(&screen), before);
}

#[test]
fn a_taller_screen_brings_lines_back() {
    let mut screen = screen_of(b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8");
    assert_eq!(screen.history_len(), 2);
    screen.resize(Size { rows: 7, cols: 20 });
    assert_eq!((screen.history_len(), screen.cursor()), (1, (6, 1)));
    screen.resize(Size { rows: 20, cols: 20 });
    assert_eq!((screen.history_len(), screen.cursor()), (0, (7, 1)));
    screen.resize(Size { rows: 3, cols: 20 });
    assert_eq!((screen.history_len(), screen.cursor()), (5, (2, 1)));
}

#[test]
fn history_survives_in_a_store() {
    let mut screen = Screen::new(SIZE, Policy::default());
    let memory = Memory::default();
    screen.keep_history_in(memory.stored());
    screen.process("one\r\ntwo\r\n\x1b[31mred\x1b[m\r\nlong line that wraps over the edge\r\n\r\n\r\n\r\n\r\n".as_bytes());
    memory.take(&screen.news());
    assert_eq!(screen.news().records, b"");
    screen.process(b"more\r\n\r\n\r\n\r\n\r\n\r\nlast");
    screen.resize(Size { rows: 8, cols: 20 });
    memory.take(&screen.news());
    screen.process(b"\r\nnot handed out");
    screen.resize(Size { rows: 12, cols: 20 });
    memory.take(&screen.news());
    let mut copy = Screen::new(SIZE, Policy::default());
    copy.keep_history_in(memory.stored());
    assert_eq!(all(&mut copy).2, all(&mut screen).2);
    assert_eq!(copy.history_len(), screen.history_len());
}

#[test]
fn the_ring_is_bounded() {
    let mut screen = Screen::new(SIZE, Policy::default());
    for n in 0..20_000 {
        screen.process(format!("{n}\r\n").as_bytes());
    }
    assert_eq!(screen.history_len(), MAX_LINES);
    assert_eq!(screen.first_line() + screen.history_len(), 20_000 - 5);
    assert_eq!(screen.line_text(0), screen.first_line().to_string());
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
    assert!(screen_of(b"caf\xe9!").is_between_sequences());
}

#[test]
fn a_cursor_that_origin_mode_cannot_reach_leaves_no_mark_in_a_checkpoint() {
    let mut screen = screen_of(b"\x1b[?6h\x1b[5;20Hx\x1b7\x1b[2;3r\x1b8");
    let copy = screen_of(&screen.checkpoint());
    assert_eq!(copy.text(), screen.text());
}

// ---- any output ----

fn switch() -> impl Strategy<Value = char> {
    prop_oneof![Just('h'), Just('l')]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[ -~]{0,30}".prop_map(String::into_bytes),
        1 => "\\PC{0,8}".prop_map(String::into_bytes),
        1 => "[漢字한ｱé x\u{301}\u{fe0f}⚠✔❤\u{200d}]{0,12}".prop_map(String::into_bytes),
        3 => Just(b"\r\n".to_vec()),
        1 => "[\t\r\n\x08\x07 a]{0,4}".prop_map(String::into_bytes),
    ]
}

fn sgr() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![
        Just("0".to_owned()),
        Just("".to_owned()),
        (1..60u16).prop_map(|n| n.to_string()),
        (90..108u16).prop_map(|n| n.to_string()),
        (0..6u16).prop_map(|n| format!("4:{n}")),
        (prop_oneof![Just(38), Just(48), Just(58)], 0..300u16).prop_map(|(c, n)| format!("{c};5;{n}")),
        (prop_oneof![Just(38), Just(48), Just(58)], any::<[u8; 3]>()).prop_map(|(c, [r, g, b])| format!("{c};2;{r};{g};{b}")),
        (prop_oneof![Just(38), Just(48), Just(58)], any::<[u8; 3]>()).prop_map(|(c, [r, g, b])| format!("{c}:2::{r}:{g}:{b}")),
    ];
    proptest::collection::vec(code, 0..4).prop_map(|codes| format!("\x1b[{}m", codes.join(";")).into_bytes())
}

fn output_of(pieces: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let known_mode = prop_oneof![
        Just(1u16),
        Just(6),
        Just(7),
        Just(25),
        Just(47),
        Just(1000),
        Just(1004),
        Just(1006),
        Just(1007),
        Just(1047),
        Just(1048),
        Just(1049),
        Just(2004),
        Just(2026),
        Just(2031),
    ];
    let piece = prop_oneof![
        12 => text(),
        3 => sgr(),
        2 => (0..9u16, 0..25u16).prop_map(|(r, c)| format!("\x1b[{r};{c}H").into_bytes()),
        1 => (0..4u16).prop_map(|n| format!("\x1b[{n}J").into_bytes()),
        1 => (0..3u16).prop_map(|n| format!("\x1b[{n}K").into_bytes()),
        3 => (0..9u16, "[@A-GIL-PSTXZ`abdeg]").prop_map(|(n, c)| format!("\x1b[{n}{c}").into_bytes()),
        1 => (0..8u16, 0..8u16).prop_map(|(t, b)| format!("\x1b[{t};{b}r").into_bytes()),
        2 => (known_mode, switch()).prop_map(|(n, c)| format!("\x1b[?{n}{c}").into_bytes()),
        1 => (prop_oneof![Just(4), Just(20)], switch()).prop_map(|(n, c)| format!("\x1b[{n}{c}").into_bytes()),
        1 => (0..3u8, "[a-z]{0,5}").prop_map(|(n, t)| format!("\x1b]{n};{t}\x07").into_bytes()),
        1 => "[a-z]{0,2}".prop_map(|t| format!("\x1b]8;;{}{t}\x1b\\", if t.is_empty() { "" } else { "https://" }).into_bytes()),
        2 => prop_oneof![
            Just("\x1b7"), Just("\x1b8"), Just("\x1bM"), Just("\x1bD"), Just("\x1bE"), Just("\x1bH"), Just("\x1b(0"), Just("\x1b(B"),
            Just("\x1b)0"), Just("\x0e"), Just("\x0f"), Just("\x1b[s"), Just("\x1b[u"), Just("\x1b[!p"), Just("\x1b=")
        ].prop_map(|s| s.as_bytes().to_vec()),
        1 => prop_oneof![
            Just("\x1bc"), Just("\x1b#8"), Just("\x1bP+q\x1b\\"), Just("\x1b_G\x1b\\"), Just("\x1b[6n"), Just("\x1b[c"), Just("\x1b[?u"),
            Just("\x1b[>5u"), Just("\x1b[<u"), Just("\x1b[=3u"), Just("\x1b[>4;2m"), Just("\x1b[22t"), Just("\x1b[23t"), Just("\x1b[22;1t"), Just("\x1b[23;2t"), Just("\x1b[23;1t"), Just("\x1b[5 q"),
            Just("\x1b[3\n1m"), Just("\x1b[\x18"), Just("\x1b[1\x1b[32m"), Just("\x1b]9;4;1;30\x07"), Just("\x1b]7;file:///x%25y\x07"),
        ].prop_map(|s| s.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, pieces).prop_map(|pieces| pieces.concat())
}

/// As a program prints them that has much to tell.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => "[ -~]{0,24}".prop_map(String::into_bytes),
        2 => "[漢字한ｱé x\u{301}\u{fe0f}⚠✔❤\u{200d}]{0,12}".prop_map(String::into_bytes),
        1 => Just(b"a\tb".to_vec()),
        1 => Just(b"\x07".to_vec()),
        3 => sgr(),
        16 => Just(b"\r\n".to_vec()),
        1 => prop_oneof![Just("\n"), Just("\r"), Just("\t\t\t"), Just("\r\r\n"), Just("\x08"), Just("\x1b[2J"), Just("\x1b[K")]
            .prop_map(|s| s.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 30..120).prop_map(|pieces| pieces.concat())
}

pub(crate) fn output() -> impl Strategy<Value = Vec<u8>> {
    output_of(0..14)
}

/// Pieces of it, cut anywhere.
fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn chunks_do_not_matter(bytes in output(), cuts in cuts()) {
        let mut whole = Screen::new(SIZE, Policy::default());
        let expected = whole.process(&bytes);
        let mut pieces = Screen::new(SIZE, Policy::default());
        let mut told = Requests::default();
        for piece in cut(&bytes, &cuts) {
            let Requests { replies, bell, passed, title, cwd, progress, mark } = pieces.process(&piece);
            told.replies.extend(replies);
            told.passed.extend(passed);
            told.bell |= bell;
            told.title |= title;
            told.cwd |= cwd;
            told.progress |= progress;
            told.mark |= mark;
        }
        prop_assert_eq!(told, expected);
        prop_assert_eq!(all(&mut pieces), all(&mut whole));
    }

    #[test]
    fn skipping_ahead_cannot_be_told(start in output_of(0..4), lines in lines(), end in output_of(0..4), cuts in cuts()) {
        let bytes = [start, lines, end].concat();
        let mut whole = Screen::new(SIZE, Policy::default());
        let expected = whole.process(&bytes);
        let mut pieces = Screen::new(SIZE, Policy::default());
        let mut told = Requests::default();
        for piece in bytes.chunks(40) {
            let Requests { replies, bell, passed, .. } = pieces.process(piece);
            told.replies.extend(replies);
            told.passed.extend(passed);
            told.bell |= bell;
        }
        prop_assert_eq!((&told.replies, told.bell), (&expected.replies, expected.bell));
        let expected = all(&mut pieces);
        let found = all(&mut whole);
        prop_assert!(found == expected, "{}\n{:?}", difference(&found, &expected), String::from_utf8_lossy(&bytes));
        let mut few = Screen::new(SIZE, Policy::default());
        for piece in cut(&bytes, &cuts) {
            few.process(&piece);
        }
        prop_assert_eq!(all(&mut few), expected);
        for screen in [&mut whole, &mut pieces] {
            screen.process(b"\x1b[3b\x1b8\xcc\x81z");
        }
        prop_assert_eq!(all(&mut whole), all(&mut pieces));
    }

    #[test]
    fn painting_what_changed_is_painting_all(bytes in output(), cuts in cuts()) {
        let mut screen = Screen::new(SIZE, Policy::default());
        let area = Rect { row: 1, col: 2, rows: SIZE.rows, cols: SIZE.cols };
        let room = Size { rows: SIZE.rows + 2, cols: SIZE.cols + 4 };
        let mut shown = Frame::new(room);
        for piece in cut(&bytes, &cuts) {
            screen.process(&piece);
            screen.paint(&mut shown, area, 0, false);
            let mut whole = Frame::new(room);
            screen.paint(&mut whole, area, 0, true);
            for row in 0..room.rows {
                prop_assert_eq!(shown.row(row), whole.row(row));
            }
        }
    }

    #[test]
    fn a_checkpoint_goes_on_like_the_screen(first in output(), second in output()) {
        let mut screen = screen_of(&first);
        let mut copy = Screen::new(SIZE, Policy::default());
        let same = |screen: &mut Screen| { let (cells, rest, _) = all(screen); (cells, rest) };
        let checkpoint = screen.checkpoint();
        copy.process(&checkpoint);
        prop_assert_eq!(same(&mut copy), same(&mut screen), "{:?}", String::from_utf8_lossy(&checkpoint));
        // vt100 keeps to itself what REP would repeat, so it begins anew.
        for screen in [&mut screen, &mut copy] {
            screen.process(if second.contains(&b'b') { b"x" } else { b"" });
        }
        prop_assert_eq!(copy.process(&second), screen.process(&second));
        prop_assert_eq!(same(&mut copy), same(&mut screen), "{:?}", String::from_utf8_lossy(&checkpoint));
    }

    #[test]
    fn random_bytes_never_panic(
        chunks in proptest::collection::vec(prop_oneof![any::<Vec<u8>>(), output()], 0..6),
        sizes in proptest::collection::vec((1..40u16, 1..90u16), 1..4),
        needle in "[a-z漢 ]{0,3}",
    ) {
        let mut screen = Screen::new(SIZE, Policy::default());
        let memory = Memory::default();
        screen.keep_history_in(memory.stored());
        let mut sizes = sizes.iter().cycle();
        for chunk in chunks {
            screen.process(&chunk);
            let (rows, cols) = *sizes.next().unwrap();
            screen.resize(Size { rows, cols });
            frame(&mut screen);
            let mut small = Frame::new(Size { rows: 3, cols: 7 });
            screen.paint(&mut small, Rect { row: 1, col: 1, rows: 50, cols: 50 }, 5, false);
            screen.search(&needle, 3, false);
            screen.search(&needle, usize::MAX, true);
            screen.text_with_history(Some(7));
            memory.take(&screen.news());
            screen.checkpoint();
        }
    }
}
