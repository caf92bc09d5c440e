//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file or folder of the hierarchy failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not take a limit's value.
    #[error("{field}: the kernel refuses {value:?} for {}", file.display())]
    Refused {
        /// The item of `linux.resources` that asked for it.
        field: String,
        /// What was written.
        value: String,
        /// Where it was written.
        file: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A limit was asked for that this host cannot enforce, or that makes no sense.
    #[error("{field} {value} cannot be enforced: {reason}")]
    Unenforceable {
        /// The item of `linux.resources`.
        field: String,
        /// The value asked for.
        value: String,
        /// Why not, and what would work.
        reason: String,
    },
    /// `linux.cgroupsPath` is not a path below the base.
    #[error("cgroups path {path:?} must name a folder below the base, without `.` and `..`")]
    Path {
        /// The path as it was given.
        path: String,
    },
    /// `linux.cgroupsPath` does not suit the driver.
    #[error("cgroups path {path:?}: {reason}")]
    Place {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// systemd does not do what it was asked.
    #[error(transparent)]
    Systemd(#[from] super::systemd::Error),
    /// The cgroup exists and is in use.
    #[error("cgroup {} is in use: another container has this name", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The machine has no cgroup hierarchy that can be used.
    #[error("unusable cgroup layout: {reason}")]
    Layout {
        /// What was found, and what is needed.
        reason: String,
    },
    /// The device rules cannot be applied.
    #[error("device rules of cgroup {}", path.display())]
    Devices {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: crate::device_filter::Error,
    },
    /// The group did not reach a state in time.
    #[error("cgroup {} is not {awaited} after {waited_ms} ms", path.display())]
    Timeout {
        /// The folder.
        path: PathBuf,
        /// The state that was waited for.
        awaited: &'static str,
        /// How long.
        waited_ms: u128,
    },
}

/// The result of an operation on a cgroup.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A shorthand for `map_err`.
    pub(super) fn file<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    pub(super) fn place(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Place {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// The refusal of a limit before the kernel was asked.
    pub(super) fn unenforceable(
        field: impl Into<String>,
        value: impl ToString,
        reason: impl Into<String>,
    ) -> Self {
        Self::Unenforceable {
            field: field.into(),
            value: value.to_string(),
            reason: reason.into(),
        }
    }
}
