//! Absolute bounds on what a layer may become on disk.

use serde::{Deserialize, Serialize};

/// P8: how much a single layer may unpack to. Absolute, because ratios say nothing: a gibibyte
/// of zeros is 33 kB of zstd, honestly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the decompressed stream, and of all files' apparent sizes (sparse files count
    /// in full).
    pub bytes: u64,
    /// Entries of the archive, and inodes made, implied folders included.
    pub entries: u64,
    /// Components of a path.
    pub depth: u32,
    /// Bytes of a path; the kernel allows 4095.
    pub path_bytes: u32,
}

impl Limits {
    /// As the arguments of `dyno-unpack`.
    pub(crate) fn words(&self) -> [String; 4] {
        [
            self.bytes.to_string(),
            self.entries.to_string(),
            self.depth.to_string(),
            self.path_bytes.to_string(),
        ]
    }
}

impl Default for Limits {
    /// 64 GiB, two million entries, 256 levels, 4095 bytes: several times the largest images in
    /// use (CUDA development images have 10 GiB and 200,000 files).
    fn default() -> Limits {
        Limits {
            bytes: 64 << 30,
            entries: 2_000_000,
            depth: 256,
            path_bytes: 4095,
        }
    }
}
