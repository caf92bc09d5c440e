//! Giving up every privilege before the first byte of a stranger is read.
//!
//! ```text
//! as root: limits ▸ bounding set ▸ groups, gid, uid ▸ capabilities ▸ no_new_privs ▸ Landlock ▸ seccomp
//! ```
//!
//! Every step is required and its failure refuses the start (P18), with one
//! exception: a kernel may lack Landlock, which is reported in the status. The
//! rest stands without it, for the uid owns no file.

mod identity;
mod limits;
mod paths;
mod seccomp;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Who the process becomes, and what it may still read.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// The user to become, never 0.
    pub uid: u32,
    /// The group to become, never 0.
    pub gid: u32,
    /// The one folder that stays readable.
    pub readable: BorrowedFd<'a>,
}

/// Whether the kernel enforces Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// The file system is out of reach but for the one folder.
    Enforced,
    /// The kernel has no Landlock.
    Missing,
}

/// A privilege that could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A system call failed.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The Landlock rules were refused.
    #[error("cannot restrict file access by landlock")]
    Landlock(#[from] landlock::RulesetError),
    /// The seccomp filter could not be built.
    #[error("cannot build the seccomp filter")]
    Filter(#[from] seccompiler::BackendError),
    /// The seccomp filter was refused.
    #[error("cannot install the seccomp filter")]
    Seccomp(#[from] seccompiler::Error),
}

impl ConfineError {
    fn step(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Step { step, source }
    }
}

/// Confines the calling thread, which must be the only one of its process:
/// the ids and filters of Linux belong to threads.
///
/// # Errors
/// The first protection that the kernel refused; the process must then exit.
pub fn confine(confinement: &Confinement<'_>) -> Result<Landlock, ConfineError> {
    limits::set()?;
    identity::become_user(confinement.uid, confinement.gid)?;
    let landlock = paths::restrict(confinement.readable)?;
    seccomp::install()?;
    Ok(landlock)
}
