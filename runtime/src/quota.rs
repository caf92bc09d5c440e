//! Project quotas: what one folder, with all in it, may take up of its file system.
//!
//! ext4 has them with the features `project` and `quota` and mounted with `prjquota`,
//! XFS mounted with `prjquota`. A folder gets a project, which everything that is made
//! in it inherits; from within a user namespace nobody can change that.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::sys::quota::{self as sys, Block};

/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const ENFORCED: u16 = 1 << 5;
/// `FS_XFLAG_PROJINHERIT`.
const INHERIT: u32 = 0x200;
/// `QIF_BLIMITS | QIF_ILIMITS`.
const LIMITS: u32 = 1 | 4;
/// Bytes of the kernel's unit of limits.
const UNIT: u64 = 1024;

/// What a project takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// As many as it may take up; without limit when absent.
    pub bytes_most: Option<u64>,
    /// Files, folders and links.
    pub inodes: u64,
}

/// Whether the file system of an open file or folder enforces limits of projects.
#[must_use]
pub fn is_enforced(file: BorrowedFd<'_>) -> bool {
    // Whatever it answers instead, it does not.
    sys::state(file).is_ok_and(|flags| flags & ENFORCED != 0)
}

/// Whether nothing belongs to a project and nothing limits it.
///
/// # Errors
/// What the kernel says of the file system.
pub fn is_free(file: BorrowedFd<'_>, project: u32) -> rustix::io::Result<bool> {
    match sys::get(file, project) {
        // XFS knows nothing of those that were never used.
        Err(Errno::NOENT) => Ok(true),
        Err(error) => Err(error),
        Ok(block) => Ok([
            block.bytes_hard,
            block.bytes_used,
            block.inodes_hard,
            block.inodes_used,
        ] == [0; 4]),
    }
}

/// What a project takes up.
///
/// # Errors
/// What the kernel says of the file system.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> rustix::io::Result<Usage> {
    let block = sys::get(file, project)?;
    Ok(Usage {
        bytes: block.bytes_used,
        bytes_most: Some(block.bytes_hard.saturating_mul(UNIT)).filter(|most| *most > 0),
        inodes: block.inodes_used,
    })
}

/// Limits a project; `None` is no limit.
///
/// # Errors
/// What the kernel says of the file system.
pub fn limit(
    file: BorrowedFd<'_>,
    project: u32,
    bytes: Option<u64>,
    inodes: Option<u64>,
) -> rustix::io::Result<()> {
    let block = Block {
        bytes_hard: bytes.map_or(0, |bytes| bytes.div_ceil(UNIT)),
        inodes_hard: inodes.unwrap_or(0),
        valid: LIMITS,
        ..Block::default()
    };
    sys::set(file, project, block)
}

/// The project that an open file or folder belongs to; 0 is none.
///
/// # Errors
/// What the kernel says of the file system.
pub fn project(file: BorrowedFd<'_>) -> rustix::io::Result<u32> {
    Ok(sys::attributes(file)?.project)
}

/// Makes a folder, and all that will be made in it, a project's.
///
/// # Errors
/// What the kernel says of the file system.
pub fn give(folder: BorrowedFd<'_>, project: u32) -> rustix::io::Result<()> {
    let mut attributes = sys::attributes(folder)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    sys::set_attributes(folder, attributes)
}

/// Makes a file a project's, which counts it from now on.
///
/// # Errors
/// What the kernel says of the file system.
pub fn give_file(file: BorrowedFd<'_>, project: u32) -> rustix::io::Result<()> {
    let mut attributes = sys::attributes(file)?;
    attributes.project = project;
    sys::set_attributes(file, attributes)
}
