//! The host's mounts as peers.
//!
//! Our own mount namespace is a slave of the host's: what is mounted in a copy
//! that was taken here never reaches the host. Where the configuration wants
//! that (`shared` mounts), the copy is taken over there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, Result};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The mount namespace that this process began in.
static HOST: OnceLock<OwnedFd> = OnceLock::new();

/// Remembers the mount namespace that we are in. Later calls change nothing.
pub(crate) fn remember() -> Result<()> {
    if HOST.get().is_none() {
        let namespace = own_namespace()?;
        HOST.get_or_init(|| namespace);
    }
    Ok(())
}

/// A detached copy of the host's mounts at `source`, in their peer groups.
///
/// # Errors
/// `EXDEV` when the path means something else over there.
pub(crate) fn take(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let host = HOST.get().ok_or(Errno::NOENT)?;
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let here = openat(CWD, source, path, Mode::empty())?;
    let (ours, folder) = (own_namespace()?, openat(CWD, ".", path, Mode::empty())?);
    let root = openat(CWD, "/", path, Mode::empty())?;
    enter(host.as_fd())?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, flags);
    // To enter a mount namespace is to get its root and working folder.
    enter(ours.as_fd())?;
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    rustix::process::fchdir(&folder)?;
    let tree = tree?;
    let (seen, taken) = (fstat(&here)?, fstat(&tree)?);
    if (seen.st_dev, seen.st_ino) != (taken.st_dev, taken.st_ino) {
        return Err(Errno::XDEV);
    }
    Ok(tree)
}

fn own_namespace() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat(CWD, "/proc/self/ns/mnt", flags, Mode::empty())
}

fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
}
