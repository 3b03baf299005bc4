//! How fast a screen takes in the eight streams that multiplexers are measured with, in megabytes a second, and what a
//! picture costs. Prints figures, asserts nothing.

#[path = "mux/streams.rs"]
mod streams;

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::Duration;

use jackin_capsule::frame::{Frame, Rect};
use jackin_capsule::screen::{Policy, Screen, Size};
use streams::STREAMS;

const SIZE: Size = Size { rows: 50, cols: 200 };
const CHUNK: usize = 64 << 10;
const STREAM: usize = 4 << 20;
/// What comes out of a terminal for it: line feeds with returns.
fn cooked(name: &str) -> Vec<u8> {
    let out = streams::stream(name, STREAM);
    let mut cooked = Vec::with_capacity(out.len() * 9 / 8);
    for byte in out {
        if byte == b'\n' {
            cooked.push(b'\r');
        }
        cooked.push(byte);
    }
    cooked
}

/// Of this thread: others may be using the machine.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn best(times: usize, mut f: impl FnMut()) -> Duration {
    let each = (0..times).map(|_| {
        let start = cpu_time();
        f();
        cpu_time() - start
    });
    each.min().unwrap_or_default()
}

fn main() {
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    for (name, _) in STREAMS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let bytes = cooked(name);
        let mut screen = Screen::new(SIZE, Policy::default());
        let took = best(5, || {
            for chunk in bytes.chunks(CHUNK) {
                black_box(screen.process(chunk));
            }
        });
        let [rows, cols] = [SIZE.rows, SIZE.cols].map(|n| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN));
        let mut bare = vt100::Parser::new(rows, cols, 0);
        let alone = best(5, || bytes.chunks(CHUNK).for_each(|chunk| bare.process(chunk)));
        let speed = |took: Duration| bytes.len() as f64 / took.as_secs_f64() / 1e6;
        println!("{name:14} {:7.0} MB/s, vt100 alone {:7.0}", speed(took), speed(alone));
    }
    if only.is_some() {
        return;
    }
    for name in ["ascii", "lscolor", "dense_sgr", "unicode"] {
        let mut screen = Screen::new(SIZE, Policy::default());
        screen.process(&cooked(name));
        let mut frame = Frame::new(SIZE);
        let area = Rect::of(SIZE);
        let whole = best(200, || screen.paint(&mut frame, area, 0, true));
        let row = best(200, || {
            screen.process(b"\x1b[20;1Hx");
            screen.paint(&mut frame, area, 0, false);
        });
        let back = best(200, || screen.paint(&mut frame, area, 100, false));
        let checkpoint = best(20, || drop(black_box(screen.checkpoint())));
        println!("{name:14} paint {whole:?}, one row {row:?}, scrolled back {back:?}, checkpoint {checkpoint:?}");
    }
    let mut screen = Screen::new(SIZE, Policy::default());
    screen.process(&cooked("ascii"));
    screen.process(&cooked("lscolor"));
    let search = best(5, || {
        black_box(screen.search("no such words", 0, false));
    });
    println!("search through {} lines {search:?}", screen.history_len());
}
