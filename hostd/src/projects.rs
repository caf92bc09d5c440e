//! Projects of the state folder's file system: by them it counts, and limits, what a volume
//! and what the layer of a dyno take up. All of them come from here, so that no two share
//! one. Where a file system enforces no limits of projects, a limit is refused.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_runtime::quota;

use crate::identity;

/// The smallest limit in bytes: a folder alone may take up as much.
pub const MIN_BYTES: u64 = 64 << 10;

/// Tries to find a project that nobody uses.
const TRIES: u32 = 32;

/// One is found and given before the next is looked for. Blocking code only.
static GIVING: Mutex<()> = Mutex::new(());

/// Gives empty folders of one file system, which enforces limits of projects, a project
/// that nobody has.
///
/// # Errors
/// What the kernel says, or that none was found.
pub fn give(folders: &[&File]) -> io::Result<u32> {
    let Some(first) = folders.first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let _giving = GIVING.lock().unwrap_or_else(PoisonError::into_inner);
    let project = free(first)?;
    for folder in folders {
        quota::give(folder.as_fd(), project)?;
    }
    Ok(project)
}

/// By chance: others may use the same file system, and know nothing of us.
fn free(file: &File) -> io::Result<u32> {
    for _ in 0..TRIES {
        let project = identity::random_u32()? | 1 << 30;
        let project = project & !(1 << 31);
        if quota::is_free(file.as_fd(), project)? {
            return Ok(project);
        }
    }
    Err(io::Error::other("no project is free"))
}

/// Whether the file system of an open folder enforces limits of projects.
///
/// # Errors
/// Unsupported where it does not; `whose` names what it is of.
pub fn check_enforced(folder: &File, whose: &str) -> Result<(), ApiError> {
    if quota::is_enforced(folder.as_fd()) {
        return Ok(());
    }
    let message = format!("the file system of {whose} enforces no project quotas");
    Err(ApiError::new(ErrorKind::Unsupported, message).hint(
        "mount it with `prjquota`: XFS, or ext4 with the features project and quota; \
         or leave the limit out",
    ))
}
