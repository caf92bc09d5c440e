//! The monitor against the kernel, as root: real bundles, real processes, one
//! monitor process per test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod checkpoint;
mod exec;
mod faults;
mod life;
mod logs;
mod rig;
