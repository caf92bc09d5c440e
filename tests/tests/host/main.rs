//! One host, end to end: the programs as a person uses them, on the real kernel.
#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod apps;
mod checkpoints;
mod cycles;
mod disk;
mod faults;
mod files;
mod health;
mod init;
mod isolation;
mod limits;
mod live;
mod logs;
mod metrics;
mod network;
mod order;
mod refusals;
mod secrets;
mod supervision;
mod volumes;
