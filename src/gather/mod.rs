//! Looking at the world outside Docker: files, environment, git, credentials, clock and randomness.
//!
//! In: the environment, the disk, the git, `gh` and `op` programs, a person's answers. Out: the plain values of `facts.rs`, raw
//! configuration texts, locks, and secrets held as secrets. Absent: decisions, parsing of configuration, Docker.
//!
//! Everything is separately callable. Functions that only touch the local disk are plain and blocking (call them in
//! `spawn_blocking` when a screen is being drawn); those that wait for a program or for another process are async.

pub mod atomic;
pub mod binaries;
pub mod clock;
pub mod credentials;
pub mod digest;
pub mod download;
pub mod engines;
pub mod env;
pub mod failure;
pub mod files;
pub mod git;
pub mod github;
pub mod http;
pub mod installation;
pub mod lock;
pub mod mirror;
pub mod mounts;
pub mod op;
pub mod paths;
pub mod program;
pub mod prompt;
pub mod releases;
pub mod role_objects;
pub mod role_repo;
pub mod role_url;
pub mod session;
pub mod vault;

pub use clock::{run_id, seed};
pub use digest::KeyedDigest;
pub use files::{ConfigFiles, SourceFile, read_config};
pub use installation::installation;
pub use lock::Lock;
pub use mounts::{path_fact, path_facts};
pub use paths::Paths;
pub use role_repo::{Refresh, RoleRepo};
