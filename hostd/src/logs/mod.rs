//! What dynos wrote: the monitor's log files read back, across rotations.
//!
//! ```text
//! line    one line of the file ⇄ LogLine
//! files   log, log.1, … as one sequence of lines
//! stream  tail, filter, follow: JSON lines for a client
//! ```

mod files;
mod line;
mod stream;

pub use stream::stream;

/// Bytes after which a monitor begins a new log file.
pub const MAX_BYTES: u64 = 10 << 20;

/// Older log files that are kept.
pub const KEEP: u32 = 4;
