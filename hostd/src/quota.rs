//! Limits of folders, by projects of their file system.
//!
//! A project is an id that files have; what is made in a folder that has one inherits it.
//! The file system counts what a project takes up and refuses more than its limits. Ids
//! are picked by chance and recorded by whoever has them: nothing here remembers any.
//!
//! ```text
//! must_be_enforced ─▶ give (empty folders) ─┬▶ set … used … set ─▶ clear
//!                  └▶ give_tree (others) ───┘
//! ```
//! Where a path is taken as `place`, any path of the file system will do.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_runtime::quota as kernel;
pub(crate) use dyno_runtime::quota::Usage;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::durable::from_io;
use crate::identity;

/// P15: deeper folders are refused; each level is an open file.
const MAX_DEPTH: usize = 512;
/// Tries to find a project that nobody uses.
const TRIES: u32 = 32;
/// The smallest limit in bytes: a folder alone may take up as much.
pub(crate) const MIN_BYTES: u64 = 64 << 10;

/// One is found and given before the next is looked for. Blocking code only.
static GIVING: Mutex<()> = Mutex::new(());

/// What a project may take up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes on disk.
    pub(crate) bytes: Option<u64>,
    /// Files, folders and links.
    pub(crate) inodes: Option<u64>,
}

/// Whether the file system of this path enforces limits of projects.
///
/// # Errors
/// When the path cannot be opened.
pub(crate) fn is_enforced(place: &Path) -> io::Result<bool> {
    Ok(kernel::is_enforced(File::open(place)?.as_fd()))
}

/// Refuses a quota of `whose` where nobody would enforce it.
///
/// # Errors
/// Unsupported where it is not enforced, with what to do.
pub(crate) fn must_be_enforced(place: &Path, whose: &str) -> Result<(), ApiError> {
    let failed = |error: io::Error| from_io("cannot look for quotas", &error);
    if is_enforced(place).map_err(failed)? {
        return Ok(());
    }
    let message = format!("the file system of {whose} enforces no project quotas");
    Err(ApiError::new(ErrorKind::Unsupported, message).hint(
        "mount it with `prjquota`: XFS, or ext4 with the features project and quota; \
         or leave the limit out",
    ))
}

/// Gives empty folders of one file system, and all that will be made in them, a project
/// that nobody has.
///
/// # Errors
/// What the kernel says.
pub(crate) fn give(folders: &[&Path]) -> io::Result<u32> {
    let first = folders.first().ok_or(io::ErrorKind::InvalidInput)?;
    let _giving = GIVING.lock().unwrap_or_else(PoisonError::into_inner);
    let project = free(first)?;
    for folder in folders {
        kernel::give(File::open(folder)?.as_fd(), project)?;
    }
    Ok(project)
}

/// Gives a folder with the files and folders in it a project that nobody has, while others
/// may be changing them. A folder is given before what is in it is looked for: what is made
/// in it from then on is the project's, and nothing of another project can be moved there.
/// What has no contents (links, fifos, sockets) stays nobody's, and what is mounted within.
///
/// Nothing is followed (P1).
///
/// # Errors
/// What the kernel says; a part of it is the project's then.
pub(crate) fn give_tree(folder: &Path) -> io::Result<u32> {
    let project = give(&[folder])?;
    let folder = rustix::fs::openat(CWD, folder, FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    let device = rustix::fs::fstat(&folder)?.st_dev;
    tree(&folder, project, device, 0)?;
    Ok(project)
}

/// One that nobody uses. By chance: others may use the same file system, and know nothing
/// of us.
fn free(place: &Path) -> io::Result<u32> {
    let file = File::open(place)?;
    for _ in 0..TRIES {
        let project = identity::random_u32()? | 1 << 30;
        let project = project & !(1 << 31);
        if kernel::is_free(file.as_fd(), project)? {
            return Ok(project);
        }
    }
    Err(io::Error::other("no project is free"))
}

/// A fifo that has taken the place of a file keeps nobody waiting.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn tree(folder: &OwnedFd, project: u32, device: u64, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG.into());
    }
    kernel::give(folder.as_fd(), project)?;
    for found in Dir::read_from(folder.as_fd())? {
        let found = found?;
        let name = found.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let opened = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory | FileType::RegularFile => {
                    rustix::fs::openat(folder, name, FLAGS, Mode::empty()).map(Some)
                }
                _ => Ok(None),
            }
        });
        let inner = match opened {
            Ok(Some(inner)) => inner,
            // It went meanwhile, or another took its place, which is the project's.
            Ok(None) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => continue,
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&inner)?;
        match FileType::from_raw_mode(stat.st_mode) {
            _ if stat.st_dev != device => {}
            FileType::Directory => tree(&inner, project, device, depth + 1)?,
            FileType::RegularFile => kernel::give_file(inner.as_fd(), project)?,
            _ => {}
        }
    }
    Ok(())
}

/// The project that a folder belongs to.
///
/// # Errors
/// What the kernel says.
pub(crate) fn project(folder: &Path) -> io::Result<Option<u32>> {
    let project = kernel::project(File::open(folder)?.as_fd())?;
    Ok((project != 0).then_some(project))
}

/// Limits a project, in the place of what limited it before. What it takes up already
/// stays, and may be more: it gets nothing more then.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set(place: &Path, project: u32, limits: Limits) -> io::Result<()> {
    let file = File::open(place)?;
    Ok(kernel::limit(
        file.as_fd(),
        project,
        limits.bytes,
        limits.inodes,
    )?)
}

/// What a project takes up.
///
/// # Errors
/// What the kernel says.
pub(crate) fn used(place: &Path, project: u32) -> io::Result<Usage> {
    Ok(kernel::usage(File::open(place)?.as_fd(), project)?)
}

/// Takes the limits of a project whose folders went away: it is free again when the last
/// of their files is removed. Failing is logged, since nobody could do anything else.
pub(crate) fn clear(place: &Path, project: u32) {
    if let Err(error) = set(place, project, Limits::default()) {
        tracing::warn!(%error, project, "limits of a project without folder stay");
    }
}
