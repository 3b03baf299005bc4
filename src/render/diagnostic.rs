//! Diagnostics as text with the offending line underlined, and as JSON.
//!
//! Drawn here and not by miette's handler, because ours must name the severity in a word, stay in one block of a plan, cut long
//! source lines round the offending text and show control characters as escapes; miette does none of these.

use super::Style;
use super::page::{Ink, Page, clean, width};
use crate::diagnostic::{Diagnostic, Severity, Span};
use std::fmt::Write;

/// Every message with code, place, offending text and way out; one blank line between two.
pub fn diagnostics_text(diagnostics: &[Diagnostic], style: &Style) -> String {
    let mut page = Page::new(style);
    for diagnostic in diagnostics {
        page.blank();
        one(&mut page, diagnostic, style);
    }
    page.finish()
}

pub fn diagnostics_json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    serde_json::to_value(diagnostics).expect("BUG: diagnostics always serialise")
}

pub(super) fn severity_word(severity: Severity) -> (Ink, &'static str) {
    match severity {
        Severity::Error => (Ink::Bad, "error"),
        Severity::Warning => (Ink::Change, "warning"),
        Severity::Notice => (Ink::Info, "notice"),
    }
}

fn one(page: &mut Page, d: &Diagnostic, style: &Style) {
    let (ink, word) = severity_word(d.severity);
    page.line(0, 2, &[(ink, word), (ink, ": "), (Ink::Strong, &d.summary), (Ink::Faint, &format!(" [{}]", d.code))]);
    if let Some(span) = &d.span {
        snippet(page, span, ink, style);
    }
    if let Some(address) = d.address.as_ref().filter(|a| !d.detail.contains(a.as_str())) {
        page.line(2, 4, &[(Ink::Faint, "on "), (Ink::Plain, address)]);
    }
    // A detail may quote several lines of a log.
    for line in d.detail.lines() {
        page.line(2, 2, &[(Ink::Plain, line)]);
    }
    for (number, line) in d.help.iter().flat_map(|h| h.lines()).enumerate() {
        let lead = if number == 0 { "help: " } else { "" };
        page.line(if number == 0 { 2 } else { 8 }, 8, &[(Ink::Info, lead), (Ink::Plain, line)]);
    }
}

/// The place, the line with its number, and marks under the offending text.
fn snippet(page: &mut Page, span: &Span, ink: Ink, style: &Style) {
    let number = span.line.to_string();
    let gutter = width(&number);
    page.line(gutter, gutter + 4, &[(Ink::Info, "--> "), (Ink::Plain, &span.to_string())]);
    if span.source_line.is_empty() {
        return;
    }
    let (line, start, length) = window(span, style.width.saturating_sub(gutter + 3).max(20), style);
    let mark = |text: &str| {
        if style.colour { Ink::Info.paint(text) } else { text.to_owned() }
    };
    let bad = |text: &str| {
        if style.colour { ink.paint(text) } else { text.to_owned() }
    };
    let bar = mark(&format!("{} |", " ".repeat(gutter)));
    let source = format!("{} {}", mark(&format!("{number} |")), line);
    let marks = format!("{bar} {}{}", " ".repeat(start), bad(&"^".repeat(length)));
    page.raw(&format!("{bar}\n{}\n{marks}\n", source.trim_end()));
}

/// The part of the source line that fits, and where in it the marks go, in columns.
fn window(span: &Span, room: usize, style: &Style) -> (String, usize, usize) {
    let shown: Vec<String> =
        span.source_line.chars().map(|c| if c == '\t' { "    ".to_owned() } else { clean(c.encode_utf8(&mut [0; 4])) }).collect();
    let first = (span.column.max(1) as usize - 1).min(shown.len());
    let last = (first + span.length as usize).min(shown.len());
    let columns = |cells: &[String]| cells.iter().map(|c| width(c)).sum::<usize>();
    let (mut from, mut to) = (0, shown.len());
    let dots = style.ellipsis();
    if columns(&shown) > room {
        let room = room.saturating_sub(2 * width(dots));
        while columns(&shown[from..first]) > room / 3 {
            from += 1;
        }
        while to > from && columns(&shown[from..to]) > room {
            to -= 1;
        }
    }
    let before = if from > 0 { dots } else { "" };
    let after = if to < shown.len() { dots } else { "" };
    let line = format!("{before}{}{after}", shown[from..to].concat());
    let start = width(before) + columns(&shown[from..first.min(to).max(from)]);
    let length = columns(&shown[first.min(to)..last.min(to)]).max(1);
    (line, start, length)
}

/// User text inside Markdown and its tables.
pub(super) fn escape_markdown(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' => {
                let _ = write!(out, "\\{c}");
            }
            c => out.push(c),
        }
    }
    out
}
