//! The folder of values that dynos are given: of its own file system in memory, so
//! that none is ever on a disk, wherever the run folder is.
//!
//! A tmpfs that is never swapped out, which Linux knows since 6.4; before that a
//! ramfs, which never is. Its size need not be limited: hostd alone writes to it,
//! and dynos see single files, read-only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Makes the folder, once per boot.
///
/// # Errors
/// What the kernel says.
pub(super) fn ensure(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if is_mounted(folder)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("tmpfs", folder, "tmpfs", flags, c"mode=0700,noswap") {
        Err(Errno::INVAL) => Ok(mount("ramfs", folder, "ramfs", flags, c"mode=0700")?),
        mounted => Ok(mounted?),
    }
}

fn is_mounted(folder: &Path) -> io::Result<bool> {
    let Some(parent) = folder.parent() else {
        return Ok(false);
    };
    Ok(fs::metadata(folder)?.dev() != fs::metadata(parent)?.dev())
}

/// Takes the folder away, and all that is in it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn leave(folder: &Path) -> io::Result<()> {
    if folder.exists() && is_mounted(folder)? {
        unmount(folder, UnmountFlags::DETACH)?;
    }
    Ok(())
}
