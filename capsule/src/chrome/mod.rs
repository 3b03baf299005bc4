//! Everything around the panes: tab strip, borders and titles, bottom bar, dialogs, toasts. State comes in as plain
//! values and goes out as cells of a `Frame`, keys and clicks go out as a typed `Choice`; a click is judged by the very
//! geometry that was painted. Absent: sessions, the layout, I/O and the clock.

mod pen;
pub mod text;
pub mod theme;
pub mod strip;
pub mod borders;
pub mod bar;
pub mod toast;
pub mod edit;
pub mod choice;
pub mod menu;
pub mod palette;
pub mod prompt;
pub mod overlay;
#[cfg(test)]
mod tests;

pub use bar::{Bar, BarHit, Mode};
pub use borders::{Title, borders, scroll_mark};
pub use choice::{Choice, ExitChoice, Go, Outcome, Place, Question};
pub use overlay::{AgentOffer, AtRisk, Overlay, Unsaved};
pub use palette::key_name;
pub use strip::{Strip, StripHit, TabLabel};
pub use theme::{Level, Look, Theme};
pub use toast::Toasts;
