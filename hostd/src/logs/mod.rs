//! What dynos wrote: the monitor's log files read back, across rotations, and
//! compressed.
//!
//! ```text
//! line      one line of the file ⇄ LogLine
//! source    one file as lines, plain or compressed
//! files     all files as one sequence of lines
//! stream    tail, filter, follow: JSON lines for a client
//! compress  what was rotated
//! ```

pub mod compress;
mod files;
mod line;
mod source;
mod stream;

use std::path::Path;

use dyno_runtime::monitor::log::folder::{self, Part};

pub(crate) use files::LogFiles;
pub use files::Position;
pub(crate) use line::parse;
pub use stream::stream;

/// Bytes after which a monitor begins a new log file, unless asked otherwise.
pub const MAX_BYTES: u64 = 10 << 20;

/// Log files that are kept, the one being written included, unless asked otherwise.
pub const MAX_FILES: u32 = 5;

/// Bytes of the files of the log at this path, as they are kept.
pub fn kept_bytes(path: &Path) -> u64 {
    let files = folder::list(path).unwrap_or_default();
    // One that is gone by now was removed, or compressed.
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let bytes = files.iter().map(|file| match file.part {
        Part::Numbered(number) if !file.plain => size(&folder::compressed(path, number)),
        part => size(&folder::plain(path, part)),
    });
    bytes.sum()
}

/// How many entries of the log at this path were dropped, ever.
pub fn dropped(path: &Path) -> u64 {
    folder::dropped(path).unwrap_or_else(|error| {
        tracing::warn!(log = %path.display(), %error, "the count of dropped entries cannot be read");
        0
    })
}
