//! Both ends of a pane: the program in it, which obeys orders, and who gives them. An order is a line, so is its answer,
//! which is a number.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Pid;
use rustix::termios::{LocalModes, OptionalActions};
use rustix::time::{ClockId, clock_gettime};

use crate::streams;
use crate::terminal::{MARK, Terminal};

/// The argument by which the benchmark becomes the program in a pane.
pub const PANE_VERB: &str = "pane";
/// Undoes whatever a stream has left behind, so that the mark shows.
const CALM: &[u8] = b"\x1b[0m\x1b[r\x1b[?2026l\x1b[?25h\x1b[999;1H\r\n";
const LINE: &str = "the quick brown fox jumps over the lazy dog 0123456789 and then some more text to fill";
const FLOOD: &str = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do";

/// Nanoseconds on a clock that all processes share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The program: until who gives the orders goes.
pub fn run(socket: &str) {
    let mut stream = UnixStream::connect(socket).expect("the benchmark listens");
    set_echo(false);
    let orders = BufReader::new(stream.try_clone().expect("a second descriptor"));
    for order in orders.lines() {
        let order = order.expect("an order is a line");
        let answer = match order.split(' ').collect::<Vec<_>>()[..] {
            ["play", name, megabytes] => {
                let bytes = streams::stream(name, megabytes.parse::<usize>().expect("a number") << 20);
                let started = now();
                write(&bytes);
                write(&[CALM, MARK, b"\r\n"].concat());
                started
            }
            ["fill", lines] => {
                let lines: usize = lines.parse().expect("a number");
                write((0..lines).map(|line| format!("{line:06} {LINE}\r\n")).collect::<String>().as_bytes());
                wait_for_terminal();
                0
            }
            ["mark"] => {
                write(&[CALM, MARK, b"\r\n"].concat());
                wait_for_terminal();
                0
            }
            // The kernel does it; what is typed piles up and is thrown away.
            ["echo"] => {
                set_echo(true);
                std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
                0
            }
            ["flood", kib_per_second] => {
                let rate: u64 = kib_per_second.parse().expect("a number");
                std::thread::spawn(move || flood(rate));
                0
            }
            _ => panic!("BUG: no such order: {order}"),
        };
        writeln!(stream, "{answer}").expect("the benchmark takes answers");
    }
}

fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    // In pieces as programs write them; the terminal may go at any time.
    for piece in bytes.chunks(64 << 10) {
        if rustix::io::write(&out, piece).is_err() {
            std::process::exit(0);
        }
    }
    let _ = out.flush();
}

/// Asks where the cursor is: the answer comes when all before it has been understood.
fn wait_for_terminal() {
    write(b"\x1b[6n");
    let mut byte = [0];
    while byte != *b"R" {
        std::io::stdin().read_exact(&mut byte).expect("the terminal answers");
    }
}

/// Zero is as fast as the terminal takes it.
fn flood(kib_per_second: u64) {
    let lines = (0..1000).map(|line| format!("{line:08} {FLOOD}\r\n")).collect::<String>();
    let (started, mut sent) = (now(), 0);
    for piece in lines.as_bytes().chunks(4 << 10).cycle() {
        write(piece);
        sent += piece.len() as u64;
        let due = started + (sent * 1_000_000_000).checked_div(kib_per_second << 10).unwrap_or(0);
        std::thread::sleep(std::time::Duration::from_nanos(due.saturating_sub(now())));
    }
}

fn set_echo(on: bool) {
    let terminal = std::io::stdin();
    let mut modes = rustix::termios::tcgetattr(&terminal).expect("a pane is a terminal");
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    modes.local_modes.set(LocalModes::ECHO, on);
    rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes).expect("a pane is a terminal");
}

/// The other end.
pub struct Pane {
    stream: BufReader<UnixStream>,
    pub pid: Pid,
}

impl Pane {
    pub fn new(stream: UnixStream) -> Self {
        let pid = rustix::net::sockopt::socket_peercred(&stream).expect("a unix socket").pid;
        Self { stream: BufReader::new(stream), pid }
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.stream.get_mut(), "{order}").expect("the pane takes orders");
    }

    pub fn answer(&mut self) -> u64 {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the pane answers");
        line.trim().parse().expect("an answer is a number")
    }

    /// The terminal goes on showing meanwhile.
    pub fn obey(&mut self, order: &str, terminal: &mut Terminal) -> u64 {
        self.order(order);
        terminal.show_until(self.stream.get_ref());
        self.answer()
    }
}
