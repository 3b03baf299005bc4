//! A terminal that shows what a program in it paints, by a parser that shares nothing with ours but the crate: `vt100`
//! as it comes. Answers only where a program asks for the cursor.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jackin_capsule::frame::Rect;
use jackin_capsule::screen::Size;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::{BINARY, Capsule};

const DEADLINE: Duration = Duration::from_secs(30);
const WHERE: &[u8] = b"\x1b[6n";

/// What a terminal does besides showing.
#[derive(Default)]
pub struct Heard {
    pub bells: usize,
    /// In base64, as it came.
    pub copied: Vec<String>,
    pub titles: Vec<String>,
}

impl vt100::Callbacks for Heard {
    fn audible_bell(&mut self, _: &mut vt100::Screen) {
        self.bells += 1;
    }

    fn copy_to_clipboard(&mut self, _: &mut vt100::Screen, _: &[u8], data: &[u8]) {
        self.copied.push(String::from_utf8_lossy(data).into_owned());
    }

    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        self.titles.push(String::from_utf8_lossy(title).into_owned());
    }
}

pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    /// Everything the program has written.
    pub raw: Vec<u8>,
    /// What came of a question that is not whole yet.
    torn: Vec<u8>,
    answers: bool,
    parser: vt100::Parser<Heard>,
    pub child: Box<dyn Child + Send + Sync>,
}

fn pty_size(size: Size) -> PtySize {
    PtySize { rows: size.rows, cols: size.cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    pub fn run(command: CommandBuilder, size: Size) -> Self {
        let pair = native_pty_system().openpty(pty_size(size)).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let keys = pair.master.take_writer().unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (rows, cols) = (NonZeroU16::new(size.rows).unwrap(), NonZeroU16::new(size.cols).unwrap());
        let parser = vt100::Parser::new_with_callbacks(rows, cols, 0, Heard::default());
        Self { master: pair.master, keys, output, raw: Vec::new(), torn: Vec::new(), answers: false, parser, child }
    }

    /// A program without us.
    pub fn direct(capsule: &Capsule, script: &str, size: Size) -> Self {
        let mut command = CommandBuilder::new("/bin/sh");
        command.args(["-c", script]);
        command.cwd(capsule.path("work"));
        for (key, value) in [("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("ENV", "")] {
            command.env(key, value);
        }
        command.env("HOME", capsule.dir.path());
        for absent in ["NO_COLOR", "TMUX", "JACKIN_SESSION_ID"] {
            command.env_remove(absent);
        }
        let mut terminal = Self::run(command, size);
        terminal.answers = true;
        terminal
    }

    /// The client, as the operator's terminal runs it.
    pub fn attach(capsule: &Capsule, size: Size) -> Self {
        Self::attach_as(capsule, size, &[], &[])
    }

    pub fn attach_as(capsule: &Capsule, size: Size, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = CommandBuilder::new(BINARY);
        command.args(args);
        for absent in ["NO_COLOR", "TERM_PROGRAM", "KITTY_WINDOW_ID"] {
            command.env_remove(absent);
        }
        for (key, value) in [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")].iter().chain(env) {
            command.env(key, value);
        }
        command.env("JACKIN_RUN_DIR", capsule.path("run"));
        Self::run(command, size)
    }

    pub fn pid(&self) -> u32 {
        self.child.process_id().unwrap()
    }

    pub fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    pub fn heard(&self) -> &Heard {
        self.parser.callbacks()
    }

    pub fn size(&self) -> Size {
        let (rows, cols) = self.screen().size();
        Size { rows: rows.get(), cols: cols.get() }
    }

    pub fn row(&self, row: u16) -> String {
        self.screen().rows(0, self.size().cols).nth(row.into()).unwrap_or_default().trim_end().to_owned()
    }

    pub fn text(&self) -> String {
        (0..self.size().rows).map(|row| self.row(row) + "\n").collect()
    }

    pub fn sent(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// Where the text begins.
    pub fn find(&self, text: &str) -> Option<(u16, u16)> {
        let Size { rows, cols } = self.size();
        (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).find(|(row, col)| {
            // From here to the end of the row.
            self.screen().contents_between(*row, *col, *row, cols).starts_with(text)
        })
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, size: Size) {
        self.take();
        let (rows, cols) = (NonZeroU16::new(size.rows).unwrap(), NonZeroU16::new(size.cols).unwrap());
        self.parser.screen_mut().set_size(rows, cols);
        self.master.resize(pty_size(size)).unwrap();
    }

    fn show(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if !self.answers {
            return self.parser.process(bytes);
        }
        let mut bytes = [std::mem::take(&mut self.torn), bytes.to_vec()].concat();
        while let Some(at) = bytes.windows(WHERE.len()).position(|window| window == WHERE) {
            self.parser.process(&bytes[..at]);
            let (row, col) = self.screen().cursor_position();
            let answer = format!("\x1b[{};{}R", row + 1, (col + 1).min(self.size().cols));
            self.type_keys(&answer);
            bytes.drain(..at + WHERE.len());
        }
        let torn = (1..WHERE.len()).rev().find(|n| bytes.ends_with(&WHERE[..*n])).unwrap_or(0);
        self.torn = bytes.split_off(bytes.len() - torn);
        self.parser.process(&bytes);
    }

    /// What has come by now.
    pub fn take(&mut self) {
        while let Ok(bytes) = self.output.try_recv() {
            self.show(&bytes);
        }
    }

    /// Waits a moment for more.
    pub fn take_soon(&mut self, within: Duration) -> bool {
        match self.output.recv_timeout(within) {
            Ok(bytes) => {
                self.show(&bytes);
                self.take();
                true
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    pub fn wait_until(&mut self, what: &str, mut seen: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        self.take();
        while !seen(self) {
            assert!(Instant::now() < deadline, "{what}: never seen; the terminal shows\n{}", self.text());
            match self.output.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => {
                    self.show(&bytes);
                    self.take();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    assert!(seen(self), "{what}: the program has ended; the terminal shows\n{}", self.text());
                }
            }
        }
    }

    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |terminal| terminal.text().contains(text));
    }

    /// Waits for bytes behind those that had come by `from`, a former length of `raw`.
    pub fn wait_for_raw(&mut self, from: usize, text: &str) {
        self.wait_until(&format!("{text:?} among the bytes"), |terminal| {
            terminal.raw[from..].windows(text.len()).any(|window| window == text.as_bytes())
        });
    }

    pub fn wait_for_exit(&mut self) -> u32 {
        let code = super::eventually("the client ends", || {
            self.take();
            self.child.try_wait().unwrap()
        });
        // Its last words, up to the end of what the terminal got.
        while let Ok(bytes) = self.output.recv_timeout(DEADLINE) {
            self.show(&bytes);
        }
        code.exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that can be seen of a cell.
fn seen(cell: Option<&vt100::Cell>) -> String {
    let Some(cell) = cell else { return "nothing".to_owned() };
    if cell.is_wide_continuation() {
        return String::new();
    }
    let contents = cell.contents();
    let blank = contents.trim().is_empty();
    let marks = [
        (cell.bold() && !blank, "bold"),
        (cell.dim() && !blank, "dim"),
        (cell.italic() && !blank, "italic"),
        (cell.underline(), "underlined"),
        (cell.inverse(), "inverse"),
    ];
    let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, name)| format!(" {name}")).collect();
    // Nothing of a blank has the foreground's colour, but for its line and what is inverted.
    let fg = if blank && !cell.inverse() && !cell.underline() { vt100::Color::Default } else { cell.fgcolor() };
    format!("{:?} {fg:?} on {:?}{marks}", if blank { " " } else { contents }, cell.bgcolor())
}

/// The first differences between a part of one terminal and the whole of another; nothing when there is none.
pub fn differences(ours: &Terminal, body: Rect, plain: &Terminal) -> Option<String> {
    let (ours, plain) = (ours.screen(), plain.screen());
    let (rows, cols) = plain.size();
    let mut found = Vec::new();
    if (rows.get(), cols.get()) != (body.rows, body.cols) {
        found.push(format!("{rows} x {cols} compared with {body:?}"));
    }
    for row in 0..body.rows {
        for col in 0..body.cols {
            let (here, there) = (seen(ours.cell(body.row + row, body.col + col)), seen(plain.cell(row, col)));
            if here != there {
                found.push(format!("row {row}, column {col}: {here}, should be {there}"));
            }
        }
    }
    let cursor = |screen: &vt100::Screen, from: (u16, u16), cols: u16| {
        let (row, col) = screen.cursor_position();
        (!screen.hide_cursor()).then(|| (row.wrapping_sub(from.0), col.wrapping_sub(from.1).min(cols - 1)))
    };
    let (here, there) = (cursor(ours, (body.row, body.col), body.cols), cursor(plain, (0, 0), body.cols));
    if here != there {
        found.push(format!("the cursor is at {here:?}, should be at {there:?}"));
    }
    let count = found.len();
    found.truncate(8);
    (count > 0).then(|| format!("{count} differences\n{}", found.join("\n")))
}
