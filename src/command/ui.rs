//! The two streams: results on standard output, talk on standard error. Colour and width are decided here, once.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::render::Style;
use crate::render::diagnostic::diagnostics_text;
use std::cell::RefCell;
use std::io::{IsTerminal, Write};

pub struct Ui {
    pub out: Style,
    pub err: Style,
    /// A live view may be drawn on standard error.
    pub live: bool,
    /// Everything that was said, for who shows it again.
    heard: Option<RefCell<String>>,
    /// Results are only heard.
    hushed: bool,
}

impl Ui {
    pub fn new(no_color: bool) -> Ui {
        let forbidden = no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
            .is_some_and(|v| v.to_ascii_lowercase().contains("utf-8") || v.to_ascii_lowercase().contains("utf8"));
        let (out_terminal, err_terminal) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        // Where there is no terminal, crossterm asks `tput` twice, which is a third of a plan that changes nothing.
        let size = (out_terminal || err_terminal).then(crossterm::terminal::size).and_then(Result::ok);
        let width = size.map_or(80, |(columns, _)| usize::from(columns.max(20)));
        let style = |terminal: bool| Style {
            colour: terminal && !forbidden && !dumb,
            width: if terminal { width.min(120) } else { 80 },
            unicode: utf8,
        };
        Ui { out: style(out_terminal), err: style(err_terminal), live: err_terminal && !dumb, heard: None, hushed: false }
    }

    /// One that remembers what it says. `hushed`: results are not printed, and bear no colour.
    pub fn remembering(self, hushed: bool) -> Ui {
        let colour = self.out.colour && !hushed;
        Ui { out: Style { colour, ..self.out }, heard: Some(RefCell::default()), hushed, ..self }
    }

    /// What was said so far, without colours.
    pub fn heard(&self) -> String {
        self.heard.as_ref().map(|heard| without_colours(&heard.borrow())).unwrap_or_default()
    }

    fn remember(&self, text: &str) {
        if let Some(heard) = &self.heard {
            let mut heard = heard.borrow_mut();
            heard.push_str(text);
            if !text.is_empty() && !text.ends_with('\n') {
                heard.push('\n');
            }
        }
    }

    /// A result. A reader that went away (`| head`) is no error of ours.
    pub fn result(&self, text: &str) {
        self.remember(text);
        if self.hushed {
            return;
        }
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes());
        if !text.is_empty() && !text.ends_with('\n') {
            let _ = out.write_all(b"\n");
        }
        let _ = out.flush();
    }

    pub fn talk(&self, text: &str) {
        self.remember(text);
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes());
        if !text.is_empty() && !text.ends_with('\n') {
            let _ = err.write_all(b"\n");
        }
    }

    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        if !diagnostics.is_empty() {
            self.talk(&diagnostics_text(diagnostics, &self.err));
        }
    }

    pub fn warn(&self, diagnostics: &[Diagnostic]) {
        self.diagnostics(diagnostics);
    }
}

/// Colours are the only escape sequences in what we say.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// Why a command ends before its end.
pub enum Failure {
    Diagnostics(Vec<Diagnostic>),
    /// Everything has been said already.
    Said(i32),
}

impl From<Diagnostic> for Failure {
    fn from(one: Diagnostic) -> Self {
        Failure::Diagnostics(vec![one])
    }
}

impl From<Diagnostics> for Failure {
    fn from(many: Diagnostics) -> Self {
        Failure::Diagnostics(many.0)
    }
}

pub const DONE: i32 = 0;
pub const ERROR: i32 = 1;
pub const CHANGES: i32 = 2;
/// A command line that cannot be meant, as clap has it.
pub const USAGE: i32 = 2;
pub const CANCELLED: i32 = 130;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_remembered_without_colours() {
        let ui = Ui::new(false).remembering(true);
        ui.result("a plan");
        ui.remember("\x1b[31merror\x1b[0m: it is over");
        assert_eq!(ui.heard(), "a plan\nerror: it is over\n");
        assert_eq!(without_colours("\x1b[1mbold\x1b[0m, \x1b[38;5;3mmoon\x1b[0m\n"), "bold, moon\n");
    }
}
