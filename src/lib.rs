//! jackin: plan and apply for agent capsules.
//!
//! The order of the modules is the architecture: a module uses only modules above it (`tests/layers.rs` enforces it).

pub mod config;
pub mod diagnostic;
pub mod event;
pub mod facts;
pub mod graph;
pub mod observed;
pub mod plan;
pub mod render;
pub mod resource;
pub mod walk;
// ---- the line: everything above is plain values and functions, everything below touches the world ----
pub mod apply;
pub mod attach;
pub mod cli;
pub mod command;
pub mod gather;
pub mod journal;
pub mod provider;
