//! Microseconds that drawing takes at 200x50, by what changed. It asserts nothing.

use std::hint::black_box;
use std::time::Instant;

use jackin_capsule::frame::{Caps, Color, Cursor, Frame, Modes, Rect, Shown, Style, attr};
use jackin_capsule::screen::Size;

const SIZE: Size = Size { rows: 50, cols: 200 };
const CAPS: Caps = Caps { truecolor: true, sync_output: true, hyperlinks: true, underline_style: true, pointer_shapes: true, color: true };
const RUNS: usize = 2000;

fn main() {
    let plain = |frame: &mut Frame, turn: usize| lines(frame, turn * 1000, |_| Style::default());
    let colours = |frame: &mut Frame, turn: usize| {
        lines(frame, turn * 1000, |at| Style { fg: Color::index((at % 16) as u8), ..Style::default() });
    };
    let dense = |frame: &mut Frame, turn: usize| {
        for row in 0..SIZE.rows {
            for col in 0..SIZE.cols {
                let at = usize::from(row) * 200 + usize::from(col) + turn * 77;
                let fg = Color::rgb(at as u8, (at >> 3) as u8, (at >> 5) as u8);
                frame.put(row, col, 1, Style { fg, attrs: (at % 3) as u16 * attr::BOLD, ..Style::default() }, "x");
            }
        }
    };
    case("no change", plain, |_, _| {});
    case("all rows touched, none changed", plain, |frame, _| plain(frame, 0));
    case("one character", plain, |frame, turn| {
        frame.put(20, 10, 1, Style::default(), if turn % 2 == 0 { "a" } else { "b" });
    });
    case("one row", plain, |frame, turn| line(frame, 20, turn, |_| Style::default()));
    case("all rows, plain", plain, plain);
    case("all rows, words in colour", colours, colours);
    case("all rows, a colour per cell", dense, dense);
    case("one column of all rows", plain, |frame, turn| {
        for row in 0..SIZE.rows {
            frame.put(row, 100, 1, Style::default(), if turn % 2 == 0 { "a" } else { "b" });
        }
    });
    case("scrolled by 1", plain, |frame, turn| lines(frame, turn, |_| Style::default()));
    case("scrolled by 7, in colour", colours, |frame, turn| {
        lines(frame, turn * 7, |at| Style { fg: Color::index((at % 16) as u8), ..Style::default() });
    });
    case(
        "cleared and filled",
        plain,
        |frame, turn| if turn % 2 == 0 { plain(frame, 0) } else { frame.fill(Rect::of(SIZE), Style::default()) },
    );
}

fn line(frame: &mut Frame, row: u16, number: usize, style: impl Fn(usize) -> Style) {
    frame.fill(Rect { row, col: 0, rows: 1, cols: SIZE.cols }, Style::default());
    let mut col = 0;
    let mut word = number.wrapping_mul(0x9e37_79b9) | 1;
    while col + 12 < SIZE.cols {
        word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        col += frame.put(row, col, 12, style(word >> 33), &format!("{:x}", (word >> 33) & 0xff_ffff)) + 1;
    }
}

fn lines(frame: &mut Frame, first: usize, style: impl Fn(usize) -> Style) {
    for row in 0..SIZE.rows {
        line(frame, row, first + usize::from(row), &style);
    }
}

/// Median and 99th percentile of drawing alone; painting is not ours.
fn case(name: &str, first: impl Fn(&mut Frame, usize), next: impl Fn(&mut Frame, usize)) {
    let (mut frame, mut shown, modes) = (Frame::new(SIZE), Shown::unknown(), Modes::default());
    frame.cursor = Some(Cursor { row: 20, col: 11, shape: 0 });
    first(&mut frame, 0);
    frame.draw(&modes, &mut shown, SIZE, &CAPS);
    let mut bytes = 0;
    let mut took: Vec<f64> = (1..=RUNS)
        .map(|turn| {
            next(&mut frame, turn);
            let start = Instant::now();
            let out = black_box(frame.draw(&modes, &mut shown, SIZE, &CAPS));
            let took = start.elapsed().as_secs_f64() * 1e6;
            bytes += out.len();
            took
        })
        .collect();
    took.sort_by(f64::total_cmp);
    println!("{name:32} {:8.1} us  p99 {:8.1} us  {:8} bytes", took[RUNS / 2], took[RUNS * 99 / 100], bytes / RUNS);
}
