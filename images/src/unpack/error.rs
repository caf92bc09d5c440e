//! Why a layer is not unpacked.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// Every reason ends the unpacking: there is no half-unpacked layer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("cannot read or decompress the archive")]
    Stream(#[source] io::Error),
    #[error("not a valid tar archive: {0}")]
    Format(&'static str),
    #[error("entry `{path}`: {reason}")]
    Entry { path: String, reason: &'static str },
    #[error("entry `{path}`: owner or group {id} does not fit into a dyno's 65536 ids")]
    Owner { path: String, id: u64 },
    #[error("the archive has more than {limit} {what}, the limit of this host")]
    Limit { what: &'static str, limit: u64 },
    #[error("cannot {operation} `{path}`")]
    Write {
        operation: &'static str,
        path: String,
        source: Errno,
    },
}

impl Refusal {
    pub(super) fn entry(path: &[u8], reason: &'static str) -> Refusal {
        Refusal::Entry {
            path: shown(path),
            reason,
        }
    }

    /// Attaches operation and path to a failed system call.
    pub(super) fn writing<'a>(
        operation: &'static str,
        path: &'a [u8],
    ) -> impl FnOnce(Errno) -> Refusal + 'a {
        move |source| Refusal::Write {
            operation,
            path: shown(path),
            source,
        }
    }

    /// The message with its causes, for the report that crosses the process boundary.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// A hostile name as text: short, and without control characters.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut shown: String = text
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}
