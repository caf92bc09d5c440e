//! hostd itself: many clients at once, streams, restarts, and its folders.
#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod crash_points;
mod disks;
mod drains;
mod folders;
mod former;
mod kills;
mod lives;
mod once;
mod paused;
mod races;
mod rig;
mod service_manager;
mod streams;
mod stuck;
