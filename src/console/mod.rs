//! The console: what a person sees and chooses, as values.
//!
//! In: a `World` of workspaces and instances, keys, answers. Out: a picture, and effects, of which most are command lines: whatever is
//! chosen here runs as the command that does the same. Absent: the terminal, the engine, files, time; those are `command/console/`.

mod keys;
mod state;
mod text;
mod view;
mod world;

pub use keys::Keys;
pub use state::{Asked, Console, Effect, Ended, Input, Key, LEAST};
pub use view::draw;
pub use world::{Engine, Group, Instance, Pane, Tab, Workspace, World};
