//! The runtime's errors in the words of the protocol.

use super::protocol::{Failure, FailureKind};
use crate::cgroup;
use crate::container::{self, RelimitError, StartError};
use crate::criu;
use crate::plan::PlanError;

/// Exit codes of what could not be started, as every shell has them.
pub(super) fn exit_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NotFound => 127,
        FailureKind::Forbidden => 126,
        _ => 125,
    }
}

/// An error with all its causes.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

impl From<&StartError> for Failure {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::NotFound { .. } => Self::new(FailureKind::NotFound, words(error))
                .hint("give a path in the dyno's root file system, or a name found in its PATH"),
            StartError::NotExecutable { .. } => Self::new(FailureKind::Forbidden, words(error))
                .hint("it must be executable and made for this machine"),
            StartError::Container(error) => error.into(),
        }
    }
}

impl From<&container::Error> for Failure {
    fn from(error: &container::Error) -> Self {
        Self::new(kind_of(error), words(error))
    }
}

impl From<&criu::Error> for Failure {
    fn from(error: &criu::Error) -> Self {
        let kind = match error {
            criu::Error::Missing | criu::Error::Kernel { .. } | criu::Error::Unfit(_) => {
                FailureKind::Unsupported
            }
            criu::Error::Failed { .. } => FailureKind::Conflict,
            criu::Error::Io { .. } | criu::Error::Plan(_) => FailureKind::Internal,
        };
        let failure = Self::new(kind, words(error));
        match error {
            criu::Error::Failed { reason, .. } if reason.contains("tcp-established") => {
                failure.hint("it has TCP connections: save it with them, or once they are closed")
            }
            _ => failure,
        }
    }
}

impl From<&RelimitError> for Failure {
    fn from(error: &RelimitError) -> Self {
        match error {
            RelimitError::Hard { .. } => Self::new(FailureKind::Unsupported, words(error)).hint(
                "the monitor has no CAP_SYS_RESOURCE, and only who has it raises a hard limit: \
                 the next start gives them a higher one",
            ),
            RelimitError::Unsteady => Self::new(FailureKind::Conflict, words(error)),
            RelimitError::Container(error) => error.into(),
        }
    }
}

fn kind_of(error: &container::Error) -> FailureKind {
    match error {
        container::Error::Plan(PlanError::Prepare { .. }) => FailureKind::Internal,
        container::Error::Plan(_) => FailureKind::Invalid,
        container::Error::Cgroup(cgroup::Error::Unenforceable { .. }) => FailureKind::Unsupported,
        container::Error::Cgroup(cgroup::Error::Layout { .. }) => FailureKind::Unsupported,
        container::Error::Cgroup(cgroup::Error::Refused { .. }) => FailureKind::Invalid,
        container::Error::Cgroup(cgroup::Error::InUse { .. }) => FailureKind::Conflict,
        container::Error::System { source, .. } => match source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
                FailureKind::Exhausted
            }
            _ => FailureKind::Internal,
        },
        _ => FailureKind::Internal,
    }
}
