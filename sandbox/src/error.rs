//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use crate::Name;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of that name.
    #[error("there is a sandbox {0} already")]
    Exists(Name),
    /// There is none of that name.
    #[error("there is no sandbox {0}")]
    NotFound(Name),
    /// It has no such host.
    #[error("the sandbox {sandbox} has no host {host:?}")]
    NoHost {
        /// The sandbox.
        sandbox: Name,
        /// The name that was given.
        host: String,
    },
    /// A host cannot be cut off from itself.
    #[error("{0:?} always reaches itself")]
    Itself(String),
    /// The kernel has no netem.
    #[error("this kernel cannot lose packets on purpose: it has no netem (sch_netem)")]
    NoLoss,
    /// A program failed.
    #[error("{command}: {said}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// What it said, or why it did not run.
        said: String,
    },
    /// A host's hostd does not run as it should.
    #[error("hostd of {host}: {said}")]
    Hostd {
        /// The host.
        host: String,
        /// What it said last.
        said: String,
    },
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record of a sandbox is not one of ours.
    #[error("{}: {why}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What operations on a sandbox answer.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}
