//! jackin: plan and apply for agent capsules.
//!
//! The order of the modules is the architecture: a module uses only modules above it (`tests/layers.rs` enforces it).

pub mod diagnostic;
pub mod config;
pub mod resource;
pub mod facts;
pub mod graph;
pub mod observed;
pub mod plan;
pub mod walk;
pub mod event;
pub mod render;
pub mod console;
// ---- the line: everything above is plain values and functions, everything below touches the world ----
pub mod aside;
pub mod journal;
pub mod gather;
pub mod provider;
pub mod apply;
pub mod attach;
pub mod cli;
pub mod command;
