//! The capsule: PID 1 and terminal multiplexer of a role container, and the client that shows it.
//!
//! The host uses `wire`, `control`, `launch` and `client`, and builds without the `capsule` feature; everything else
//! runs inside the container. A module uses only modules above it.

pub mod wire;
pub mod control;
pub mod launch;
#[cfg(feature = "capsule")]
pub mod dates;
#[cfg(feature = "capsule")]
pub mod fault;
#[cfg(feature = "capsule")]
pub mod frame;
#[cfg(feature = "capsule")]
pub mod layout;
#[cfg(feature = "capsule")]
pub mod mouse;
#[cfg(feature = "capsule")]
pub mod keys;
#[cfg(feature = "capsule")]
pub mod select;
#[cfg(feature = "capsule")]
pub mod provider;
#[cfg(feature = "capsule")]
pub mod screen;
#[cfg(feature = "capsule")]
pub mod agent;
#[cfg(feature = "capsule")]
pub mod chrome;
#[cfg(feature = "capsule")]
pub mod mux;
// ---- the line: above it no I/O ----
#[cfg(feature = "capsule")]
pub mod file;
#[cfg(feature = "capsule")]
pub mod log;
#[cfg(feature = "capsule")]
pub mod paths;
#[cfg(feature = "capsule")]
pub mod hook;
#[cfg(feature = "capsule")]
pub mod status_hooks;
#[cfg(feature = "capsule")]
pub mod setup;
#[cfg(feature = "capsule")]
pub mod poll;
#[cfg(feature = "capsule")]
pub mod worker;
#[cfg(feature = "capsule")]
pub mod changes;
#[cfg(feature = "capsule")]
pub mod probe;
#[cfg(feature = "capsule")]
pub mod record;
#[cfg(feature = "capsule")]
pub mod transfer;
#[cfg(feature = "capsule")]
pub mod handover;
#[cfg(feature = "capsule")]
pub mod pty;
#[cfg(feature = "capsule")]
pub mod pump;
#[cfg(feature = "capsule")]
pub mod spool;
pub mod client;
#[cfg(feature = "capsule")]
pub mod socket;
#[cfg(feature = "capsule")]
pub mod init;
#[cfg(feature = "capsule")]
pub mod serve;

/// The image's entrypoint for agents, for the host to put at `/jackin/runtime/entrypoint.sh`.
pub const ENTRYPOINT: &str = include_str!("../runtime/entrypoint.sh");
/// What agents' hooks run and load, for the host to put below `/jackin/runtime`: path, contents, whether it is a program.
pub const STATUS_FILES: [(&str, &str, bool); 3] = [
    ("agent-status/hooks/report-hook.sh", include_str!("../runtime/agent-status/hooks/report-hook.sh"), true),
    ("agent-status/hooks/opencode/plugin.js", include_str!("../runtime/agent-status/hooks/opencode/plugin.js"), false),
    ("agent-status/hooks/amp/plugin.ts", include_str!("../runtime/agent-status/hooks/amp/plugin.ts"), false),
];
/// The configuration is wrong: starting again would not help.
pub const EXIT_CONFIG: i32 = 78;
/// The argument that makes this binary the mux.
pub const SERVE_VERB: &str = "serve";
