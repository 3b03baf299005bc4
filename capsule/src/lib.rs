//! The capsule: PID 1 and terminal multiplexer of a role container, and the client that shows it.
//!
//! The host uses `wire`, `control`, `launch` and `client`, and builds without the `capsule` feature; everything else
//! runs inside the container. A module uses only modules above it.

pub mod control;
pub mod launch;
pub mod wire;
// ---- state: no I/O ----
#[cfg(feature = "capsule")]
pub mod frame;
#[cfg(feature = "capsule")]
pub mod keys;
#[cfg(feature = "capsule")]
pub mod mux;
#[cfg(feature = "capsule")]
pub mod screen;
// ---- effects ----
pub mod client;
#[cfg(feature = "capsule")]
pub mod handover;
#[cfg(feature = "capsule")]
pub mod init;
#[cfg(feature = "capsule")]
pub mod log;
#[cfg(feature = "capsule")]
pub mod paths;
#[cfg(feature = "capsule")]
pub mod pty;
#[cfg(feature = "capsule")]
pub mod serve;
#[cfg(feature = "capsule")]
pub mod setup;
#[cfg(feature = "capsule")]
pub mod socket;
#[cfg(feature = "capsule")]
pub mod spool;

/// The image's entrypoint for agents, for the host to put at `/jackin/runtime/entrypoint.sh`.
pub const ENTRYPOINT: &str = include_str!("../runtime/entrypoint.sh");
/// The configuration is wrong: starting again would not help.
pub const EXIT_CONFIG: i32 = 78;
/// The argument that makes this binary the mux.
pub const SERVE_VERB: &str = "serve";
