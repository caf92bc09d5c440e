//! Quotas of volumes: each has a project of its file system. Where that enforces none, a
//! quota is refused, never forgotten.

use std::io;
use std::path::Path;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::volume::{VolumeQuota, VolumeUsage};
use serde::{Deserialize, Serialize};

use crate::durable::from_io;
use crate::quota::{self, Limits, MIN_BYTES};

/// Limits as they are recorded, and the project that has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    pub(super) project: u32,
    pub(super) bytes: Option<u64>,
    pub(super) inodes: Option<u64>,
}

impl Quota {
    /// Without its project.
    pub(super) fn limits(self) -> VolumeQuota {
        VolumeQuota {
            bytes: self.bytes,
            inodes: self.inodes,
        }
    }
}

fn limits(quota: VolumeQuota) -> Limits {
    Limits {
        bytes: quota.bytes,
        inodes: quota.inodes,
    }
}

/// A quota for a volume that is there: its own with other limits, or one with a project of
/// its own, which all its files are made part of. Nothing is limited yet.
///
/// # Errors
/// As [`give`]; what the kernel says.
pub(super) fn other(
    folder: &Path,
    before: Option<Quota>,
    wanted: VolumeQuota,
) -> Result<Quota, ApiError> {
    must_be_sensible(wanted)?;
    quota::must_be_enforced(folder, "the volumes")?;
    let project = match before {
        Some(before) => of(folder, before).project,
        None => quota::give_tree(folder)
            .map_err(|error| from_io("cannot give a volume its quota", &error))?,
    };
    Ok(Quota {
        project,
        bytes: wanted.bytes,
        inodes: wanted.inodes,
    })
}

/// Has the file system enforce a quota, in the place of the one before.
///
/// # Errors
/// What the kernel says.
pub(super) fn enforce(folder: &Path, given: Quota) -> io::Result<()> {
    quota::set(folder, of(folder, given).project, limits(given.limits()))
}

/// Gives an empty folder a project with these limits.
///
/// # Errors
/// Unsupported where the file system enforces none; Invalid for a limit of nothing.
pub(super) fn give(folder: &Path, wanted: VolumeQuota) -> Result<Quota, ApiError> {
    must_be_sensible(wanted)?;
    quota::must_be_enforced(folder, "the volumes")?;
    let given = || {
        let project = quota::give(&[folder])?;
        quota::set(folder, project, limits(wanted))?;
        Ok(project)
    };
    let project = given().map_err(|error| from_io("cannot give a volume its quota", &error))?;
    Ok(Quota {
        project,
        bytes: wanted.bytes,
        inodes: wanted.inodes,
    })
}

fn must_be_sensible(wanted: VolumeQuota) -> Result<(), ApiError> {
    if wanted.bytes.is_some_and(|bytes| bytes < MIN_BYTES) || wanted.inodes == Some(0) {
        let message = format!("a quota is at least {MIN_BYTES} bytes and one inode");
        return Err(ApiError::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// A quota as it is recorded, with the project that the folder has: a crash in the middle
/// of a rollback leaves it another one of the same limits.
pub(super) fn of(folder: &Path, recorded: Quota) -> Quota {
    let project = quota::project(folder).ok().flatten();
    Quota {
        project: project.unwrap_or(recorded.project),
        ..recorded
    }
}

/// What the file system has counted.
///
/// # Errors
/// What the kernel says.
pub(super) fn usage(folder: &Path, given: Quota) -> io::Result<VolumeUsage> {
    let found = quota::used(folder, given.project)?;
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
