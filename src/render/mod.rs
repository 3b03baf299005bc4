//! Values -> text: plans, explanations, graphs, diagnostics, progress, lists.
//!
//! In: plain values and a [`Style`] that the caller decided once. Out: strings. Absent: printing, terminal queries, the
//! environment and the clock. Only this module knows colour and width.

mod page;
mod words;

pub(crate) use page::{clean, cut, width};
pub use words::loss_words;

pub mod diagnostic;
pub mod explain;
pub mod graph;
pub mod json;
pub mod plan;
pub mod progress;
pub mod schema;
pub mod status;
pub mod table;

/// How text may look. `width` counts columns; without `unicode` only ASCII is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
    pub width: usize,
    pub unicode: bool,
}

impl Style {
    /// For files, pipes and tests.
    pub const PLAIN: Style = Style { colour: false, width: 80, unicode: false };

    pub(crate) fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }
}
