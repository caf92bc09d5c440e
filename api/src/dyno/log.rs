//! How a dyno's output is kept.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a dyno's output is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// Bytes after which a new file is begun, from 64 KiB to 1 GiB; 10 MiB when
    /// absent. Older files are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Files that are kept, the one being written included, from 1 to 100; 5 when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
    /// Milliseconds that a line is kept at least, and at most twice as long, from
    /// one second to a hundred years; without limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// What happens when the disk is slower than the dyno.
    pub mode: LogMode,
}

impl LogOptions {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens when a dyno writes faster than its log can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogMode {
    /// The dyno waits: no line is lost.
    #[default]
    Block,
    /// 1 MiB waits for the disk; what does not fit is dropped and counted.
    Drop,
}
