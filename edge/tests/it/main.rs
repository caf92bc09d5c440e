//! `dyno-edge` as a process, against the kernel: as root, each test in a
//! network namespace of its own (nextest runs one process per test).

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, in its rig as well"
)]

mod confinement;
mod control;
mod forwarding;
mod names;
mod process;
mod rig;
mod upstream;
