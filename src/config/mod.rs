//! Configuration: text in, typed values with their places out. Returns every mistake of a file, not the first.
//! Absent: files, environment, clock. Reading the files is `gather`'s part; merging layers is `layer.rs`'s.

pub mod model;
pub use model::*;
