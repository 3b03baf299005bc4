//! Asking a person on the terminal.
//!
//! In: a question. Out: an answer, or a diagnostic when there is nobody to ask. Absent: which questions there are. Text goes to
//! standard error, so that standard output stays what the command prints. These calls block: use `spawn_blocking`.

use crate::diagnostic::Diagnostic;
use rustix::event::{PollFd, PollFlags, Timespec};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::io::{self, BufRead, IsTerminal, Read, StdinLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone, Default)]
pub struct Question<'a> {
    pub text: &'a str,
    /// Taken for an empty answer.
    pub default: Option<&'a str>,
    /// Not empty: one of these, by number or in full.
    pub options: &'a [String],
    /// An empty answer, without a default, means "skip".
    pub skippable: bool,
    /// Typed without being shown.
    pub secret: bool,
}

#[derive(Debug)]
pub enum Answer {
    Given(SecretString),
    Skipped,
}

pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

pub fn ask(question: &Question<'_>) -> Result<Answer, Diagnostic> {
    if !is_interactive() {
        let detail = format!("\"{}\" needs an answer, and there is no terminal to ask on", question.text);
        return Err(Diagnostic::error("prompt.no_terminal", "Nobody to ask", detail)
            .help("give the answer on the command line with `--env NAME=VALUE`"));
    }
    if question.secret && question.options.is_empty() {
        return ask_hidden(question);
    }
    ask_on(question, &mut Lines::of_stdin(), &mut io::stderr().lock())
}

/// Yes or no; an empty answer means no.
pub fn confirm(text: &str) -> Result<bool, Diagnostic> {
    if !is_interactive() {
        let detail = format!("\"{text}\" needs an answer, and there is no terminal to ask on");
        return Err(Diagnostic::error("prompt.no_terminal", "Nobody to ask", detail).help("answer in advance with `--yes`"));
    }
    confirm_on(text, &mut Lines::of_stdin(), &mut io::stderr().lock())
}

/// Takes back the question that is on the terminal, as if its person had cancelled it; false when there is none. A program that goes
/// on after a Ctrl-C must not leave a reader behind, which would take the keys that are meant for what comes next.
pub fn take_back() -> bool {
    let asking = ASKING.load(Ordering::SeqCst);
    TAKEN_BACK.store(asking, Ordering::SeqCst);
    asking
}

static ASKING: AtomicBool = AtomicBool::new(false);
static TAKEN_BACK: AtomicBool = AtomicBool::new(false);
/// How long a question that was taken back may stay.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The lines of a terminal, which gives one at a time. Waiting for one ends when the question is taken back.
struct Lines(StdinLock<'static>);

impl Lines {
    fn of_stdin() -> Lines {
        TAKEN_BACK.store(false, Ordering::SeqCst);
        ASKING.store(true, Ordering::SeqCst);
        Lines(io::stdin().lock())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        ASKING.store(false, Ordering::SeqCst);
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Lines {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        loop {
            let ready = rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&LOOK_UP));
            if TAKEN_BACK.swap(false, Ordering::SeqCst) {
                // As at the end of all input, which is how a person cancels.
                return Ok(&[]);
            }
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.0.fill_buf(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

/// The conversation itself, on any pair of streams.
pub fn ask_on(question: &Question<'_>, input: &mut impl BufRead, output: &mut impl Write) -> Result<Answer, Diagnostic> {
    loop {
        write_question(question, output).map_err(lost)?;
        let mut line = Zeroizing::new(String::new());
        if input.read_line(&mut line).map_err(lost)? == 0 {
            return Err(cancelled());
        }
        match judge(question, line.trim_end_matches(['\n', '\r'])) {
            Ok(answer) => return Ok(answer),
            Err(complaint) => writeln!(output, "  {complaint}").map_err(lost)?,
        }
    }
}

pub fn confirm_on(text: &str, input: &mut impl BufRead, output: &mut impl Write) -> Result<bool, Diagnostic> {
    loop {
        write!(output, "{text} [y/N] ").and_then(|()| output.flush()).map_err(lost)?;
        let mut line = String::new();
        if input.read_line(&mut line).map_err(lost)? == 0 {
            return Err(cancelled());
        }
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => writeln!(output, "  please answer y or n").map_err(lost)?,
        }
    }
}

fn write_question(question: &Question<'_>, output: &mut impl Write) -> io::Result<()> {
    write!(output, "{}", question.text)?;
    for (i, option) in question.options.iter().enumerate() {
        write!(output, "\n  {}) {option}", i + 1)?;
    }
    if !question.options.is_empty() {
        writeln!(output)?;
    }
    match question.default {
        Some(default) if !question.secret => write!(output, " [{default}]")?,
        Some(_) => write!(output, " [keep the default: press Enter]")?,
        None if question.skippable => write!(output, " [skip: press Enter]")?,
        None => {}
    }
    write!(output, ": ")?;
    output.flush()
}

fn judge(question: &Question<'_>, text: &str) -> Result<Answer, &'static str> {
    if text.trim().is_empty() {
        return match question.default {
            Some(default) => Ok(Answer::Given(default.into())),
            None if question.skippable => Ok(Answer::Skipped),
            None => Err("an answer is needed"),
        };
    }
    if question.options.is_empty() {
        return Ok(Answer::Given(text.into()));
    }
    let text = text.trim();
    // In full before by number: options may be numbers.
    let chosen = question.options.iter().find(|option| *option == text);
    let chosen = chosen.or_else(|| text.parse::<usize>().ok().and_then(|n| question.options.get(n.checked_sub(1)?)));
    chosen.map(|option| Answer::Given(option.as_str().into())).ok_or("please choose one of the above")
}

/// Raw mode rather than echo off: a Ctrl-C that kills the process would leave the shell without echo, so it is read as a key.
fn ask_hidden(question: &Question<'_>) -> Result<Answer, Diagnostic> {
    let mut output = io::stderr().lock();
    loop {
        write_question(question, &mut output).map_err(lost)?;
        let line = {
            let _raw = Raw::enter().map_err(lost)?;
            hidden_line(&mut io::stdin().lock())
        };
        writeln!(output).map_err(lost)?;
        match judge(question, &line.map_err(lost)?.ok_or_else(cancelled)?) {
            Ok(answer) => return Ok(answer),
            Err(complaint) => writeln!(output, "  {complaint}").map_err(lost)?,
        }
    }
}

/// `None` for Ctrl-C, or Ctrl-D on an empty line.
pub fn hidden_line(input: &mut impl Read) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::new());
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\r' | b'\n' => {
                return Ok(Some(Zeroizing::new(String::from_utf8_lossy(&line).into_owned())));
            }
            3 => return Ok(None),
            4 if line.is_empty() => return Ok(None),
            21 => line.clear(),
            8 | 127 => {
                // A whole character: its continuation bytes first.
                while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
            }
            byte if byte < 32 => {}
            byte => line.push(byte),
        }
    }
}

struct Raw;

impl Raw {
    fn enter() -> io::Result<Raw> {
        crossterm::terminal::enable_raw_mode().map(|()| Raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

fn cancelled() -> Diagnostic {
    Diagnostic::error("prompt.cancelled", "Cancelled", "the question was not answered").help("run the command again")
}

fn lost(error: io::Error) -> Diagnostic {
    Diagnostic::error("prompt.failed", "Terminal lost", error.to_string()).help("run the command on a working terminal")
}
