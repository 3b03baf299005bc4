//! jackin-capsule
