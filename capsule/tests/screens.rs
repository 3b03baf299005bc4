//! Each folder of `screens/`: `in.txt` is what a program prints, `out.txt` what is then on its screen.
//!
//! `in.txt` is Rust-like: `\e` is ESC, then `\a \b \t \r \n \\` and `\xNN`; line ends of the file itself mean nothing. A first
//! line `size 6x20` gives rows and columns, which are 8x40 otherwise; a line `resize 6x20` changes them. `out.txt` is
//! rewritten with UPDATE_SCREENS=1.

use std::fmt::Write;
use std::path::Path;

use jackin_capsule::frame::{Cell, Frame, Hue, Rect, Style, attr};
use jackin_capsule::screen::{Policy, Screen, Size};

#[test]
fn every_screen_comes_out_as_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens");
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let update = std::env::var_os("UPDATE_SCREENS").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let found = run(&std::fs::read_to_string(case.join("in.txt")).unwrap());
        let out = case.join("out.txt");
        if update {
            std::fs::write(&out, &found).unwrap();
        } else if std::fs::read_to_string(&out).unwrap_or_default() != found {
            wrong.push(format!("{}\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let size = lines.next_if(|line| line.starts_with("size ")).map_or(Size { rows: 8, cols: 40 }, |line| size(&line[5..]));
    let mut screen = Screen::new(size, Policy::default());
    let mut replies = Vec::new();
    let mut passed = Vec::new();
    for line in lines {
        if let Some(new) = line.strip_prefix("resize ") {
            screen.resize(self::size(new));
            continue;
        }
        let requests = screen.process(&unescaped(line));
        replies.extend(requests.replies);
        passed.extend(requests.passed);
    }
    picture(&mut screen, &replies, &passed)
}

fn size(text: &str) -> Size {
    let (rows, cols) = text.split_once('x').unwrap();
    Size { rows: rows.parse().unwrap(), cols: cols.parse().unwrap() }
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let mut skip = at + 2;
        out.push(match rest.as_bytes()[at + 1] {
            b'e' => 0x1b,
            b'a' => 7,
            b'b' => 8,
            b't' => 9,
            b'r' => b'\r',
            b'n' => b'\n',
            b'x' => {
                skip += 2;
                u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap()
            }
            _ => b'\\',
        });
        rest = &rest[skip..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn picture(screen: &mut Screen, replies: &[u8], passed: &[u8]) -> String {
    let size = screen.size();
    let mut frame = Frame::new(size);
    screen.paint(&mut frame, Rect::of(size), 0, true);
    let mut out = String::new();
    let first = screen.history_len();
    for line in 0..first {
        writeln!(out, "h|{}", screen.line_text(line)).unwrap();
    }
    for row in 0..size.rows {
        let line = first + usize::from(row);
        writeln!(out, "{}|{}", if screen.line_wrapped(line) { "w" } else { " " }, screen.line_text(line)).unwrap();
    }
    let (row, col) = screen.cursor();
    let hidden = if screen.cursor_visible() { "" } else { " hidden" };
    writeln!(out, "cursor {row},{col} shape {}{hidden}", screen.cursor_shape()).unwrap();
    for row in 0..size.rows {
        let cells = frame.row(row);
        let mut col = 0;
        while col < cells.len() {
            let style = cells[col].style;
            let end = cells[col..].iter().position(|cell: &Cell| cell.style != style).map_or(cells.len(), |len| col + len);
            if style != Style::default() {
                writeln!(out, "{row},{col}-{}{}", end - 1, named(style, &frame)).unwrap();
            }
            col = end;
        }
    }
    if !screen.title().is_empty() {
        writeln!(out, "title {:?}", screen.title()).unwrap();
    }
    let modes = screen.modes();
    if modes != Screen::new(size, Policy::default()).modes() {
        writeln!(out, "{modes:?}").unwrap();
    }
    for (what, bytes) in [("replies", replies), ("passed", passed)] {
        if !bytes.is_empty() {
            writeln!(out, "{what} {:?}", String::from_utf8_lossy(bytes)).unwrap();
        }
    }
    for (what, value) in [
        ("painting", screen.is_painting().then(String::new)),
        ("progress", screen.progress().map(|progress| format!("{progress:?}"))),
        ("mark", screen.mark().map(|mark| format!("{mark:?}"))),
        ("cwd", screen.cwd().map(str::to_owned)),
    ] {
        if let Some(value) = value {
            writeln!(out, "{what} {value}").unwrap();
        }
    }
    out
}

fn named(style: Style, frame: &Frame) -> String {
    let mut out = String::new();
    for (bit, name) in [
        (attr::BOLD, "bold"),
        (attr::DIM, "dim"),
        (attr::ITALIC, "italic"),
        (attr::INVERSE, "inverse"),
        (attr::STRIKE, "strike"),
        (attr::HIDDEN, "hidden"),
        (attr::BLINK, "blink"),
        (attr::OVERLINE, "overline"),
    ] {
        if style.attrs & bit != 0 {
            write!(out, " {name}").unwrap();
        }
    }
    match (style.attrs & attr::UNDERLINE) >> attr::UNDERLINE_SHIFT {
        0 => {}
        kind => write!(out, " underline:{kind}").unwrap(),
    }
    for (name, color) in [("fg", style.fg), ("bg", style.bg), ("ul", style.underline)] {
        match color.hue() {
            Hue::Default => {}
            Hue::Index(index) => write!(out, " {name}={index}").unwrap(),
            Hue::Rgb(r, g, b) => write!(out, " {name}=#{r:02x}{g:02x}{b:02x}").unwrap(),
        }
    }
    if style.link != 0 {
        write!(out, " link={}", frame.link_of(style.link).unwrap_or("?")).unwrap();
    }
    out
}
