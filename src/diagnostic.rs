//! A message to a person, as data: what is wrong, where, and the way out.
//!
//! In: the facts of one mistake. Out: a value that is collected, sorted, put into plans and shown by `render/diagnostic.rs`.
//! Absent: colour, width, printing. Secrets never enter: the offending text of a credential is masked by whoever builds it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad it is. A blocker inside a plan has severity `Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
    Notice,
}

/// A place in a file of the user. `file` is shown as given (home as `~`, or relative to the config folder);
/// lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub file: String,
    pub line: u32,
    pub column: u32,
    /// Length of the offending text in characters; 0 when only the place is known.
    pub length: u32,
    /// The whole source line, without its line end.
    pub source_line: String,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One message. `summary` is constant for a code; `detail` names the particulars; `help` is what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable machine name, `area.problem`, such as `config.unknown_field`.
    pub code: String,
    pub summary: String,
    pub detail: String,
    /// The resource it concerns, `kind/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn error(code: &str, summary: &str, detail: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, summary, detail)
    }

    pub fn warning(code: &str, summary: &str, detail: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, summary, detail)
    }

    pub fn notice(code: &str, summary: &str, detail: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, summary, detail)
    }

    fn new(severity: Severity, code: &str, summary: &str, detail: impl Into<String>) -> Self {
        Self { severity, code: code.to_owned(), summary: summary.to_owned(), detail: detail.into(), address: None, span: None, help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at(mut self, span: Option<Span>) -> Self {
        self.span = span;
        self
    }

    pub fn on(mut self, address: impl fmt::Display) -> Self {
        self.address = Some(address.to_string());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        write!(f, "{}: {}", self.summary, self.detail)
    }
}

impl std::error::Error for Diagnostic {}

/// Several messages at once: what a stage that collects every mistake returns on failure. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
