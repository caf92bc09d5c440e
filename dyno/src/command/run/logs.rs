//! The flags that say how a dyno's output is kept.

use std::time::Duration;

use clap::{Args, ValueEnum};
use dyno_api::dyno::{LogMode, LogOptions};

use crate::value::{duration, size};

/// How the output is kept.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Size at which a new log file is begun [default: 10M]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    log_max_size: Option<u64>,
    /// Log files that are kept; older ones are compressed [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    log_max_files: Option<u32>,
    /// Time that lines are kept, such as 7d [default: as long as they fit]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    log_max_age: Option<Duration>,
    /// What happens when the disk is slower than the dyno
    #[arg(long, value_enum, default_value_t)]
    log_mode: Mode,
}

/// Modes by name.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Mode {
    /// The dyno waits: no line is lost
    #[default]
    Block,
    /// Lines are dropped and counted
    Drop,
}

impl LogArgs {
    pub(super) fn into_options(self) -> LogOptions {
        LogOptions {
            max_bytes: self.log_max_size,
            max_files: self.log_max_files,
            max_age_ms: self.log_max_age.map(duration::millis),
            mode: match self.log_mode {
                Mode::Block => LogMode::Block,
                Mode::Drop => LogMode::Drop,
            },
        }
    }
}
