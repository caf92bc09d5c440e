//! Quotas of volumes: each has a project of its file system. Where that enforces none, a
//! quota is refused, never forgotten.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::volume::{VolumeQuota, VolumeUsage};
use dyno_runtime::quota;

use super::folders::Quota;
use crate::durable::from_io;
use crate::projects::{self, MIN_BYTES};

/// Gives an empty folder a project with these limits.
///
/// # Errors
/// Unsupported where the file system enforces none; Invalid for a limit of nothing.
pub(super) fn give(folder: &Path, wanted: VolumeQuota) -> Result<Quota, ApiError> {
    if wanted.bytes.is_some_and(|bytes| bytes < MIN_BYTES) || wanted.inodes == Some(0) {
        let message = format!("a quota is at least {MIN_BYTES} bytes and one inode");
        return Err(ApiError::new(ErrorKind::Invalid, message));
    }
    let failed = |error: io::Error| from_io("cannot give a volume its quota", &error);
    let file = File::open(folder).map_err(failed)?;
    projects::check_enforced(&file, "the volumes")?;
    let project = projects::give(&[&file]).map_err(failed)?;
    quota::limit(file.as_fd(), project, wanted.bytes, wanted.inodes)
        .map_err(|error| failed(error.into()))?;
    Ok(Quota {
        project,
        bytes: wanted.bytes,
        inodes: wanted.inodes,
    })
}

/// A quota as it is recorded, with the project that the folder has: a crash in the middle
/// of a rollback leaves it another one of the same limits.
pub(super) fn of(folder: &Path, recorded: Quota) -> Quota {
    let project = File::open(folder).and_then(|file| Ok(quota::project(file.as_fd())?));
    Quota {
        project: match project {
            Ok(0) | Err(_) => recorded.project,
            Ok(project) => project,
        },
        ..recorded
    }
}

/// Takes the limits of a volume that went away; the folder is any of its file system.
pub(super) fn forget(folder: &Path, given: Quota) {
    let forgotten = File::open(folder).and_then(|file| {
        quota::limit(file.as_fd(), given.project, None, None).map_err(io::Error::from)
    });
    if let Err(error) = forgotten {
        tracing::warn!(%error, project = given.project, "limits of a project without volume stay");
    }
}

/// What the file system has counted.
///
/// # Errors
/// What the kernel says.
pub(super) fn usage(folder: &Path, given: Quota) -> io::Result<VolumeUsage> {
    let file = File::open(folder)?;
    let found = quota::usage(file.as_fd(), given.project)?;
    Ok(VolumeUsage {
        bytes: found.bytes,
        inodes: found.inodes,
        partial: false,
    })
}

/// Whether what hostd itself has written is within the limits: it may go beyond them,
/// where it has CAP_SYS_RESOURCE.
///
/// # Errors
/// Exhausted where it is not.
pub(super) fn check(folder: &Path, given: Quota) -> Result<(), ApiError> {
    let found = usage(folder, given).map_err(|error| from_io("cannot read a quota", &error))?;
    let is_over = given.bytes.is_some_and(|most| found.bytes > most)
        || given.inodes.is_some_and(|most| found.inodes > most);
    match is_over {
        false => Ok(()),
        true => Err(ApiError::new(
            ErrorKind::Exhausted,
            format!(
                "{} bytes in {} inodes are more than the quota",
                found.bytes, found.inodes
            ),
        )),
    }
}
