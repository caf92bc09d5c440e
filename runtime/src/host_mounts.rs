//! The host's mounts: stayed among, left, and come back to as peers.
//!
//! Once left, our own mount namespace is a slave of the host's: what is mounted in a
//! copy that was taken here never reaches the host. Where the configuration wants
//! that (`shared` mounts), the copy is taken over there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, Result};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys;

/// The mount namespace that this process began in.
static HOST: OnceLock<OwnedFd> = OnceLock::new();

/// Gives this process a mount namespace of its own. Mounts made here stay here, while
/// unmounts of the host still reach us, so that we keep none of its file systems busy.
/// The namespace that it began in is remembered by the first call.
///
/// # Errors
/// What `unshare(2)` and `mount_setattr(2)` answer.
pub(crate) fn leave() -> io::Result<()> {
    if HOST.get().is_none() {
        let namespace = own_namespace()?;
        HOST.get_or_init(|| namespace);
    }
    sys::process::unshare(UnshareFlags::NEWNS)?;
    let slave = sys::mount::Attributes {
        propagation: libc::MS_SLAVE,
        ..Default::default()
    };
    Ok(sys::mount::mount_setattr(CWD, c"/", true, slave)?)
}

/// Whether we are in the user namespace that the machine began with, whose root may
/// take copies of any mount.
pub(crate) fn are_of_the_hosts_root() -> bool {
    let namespace = statat(CWD, "/proc/self/ns/user", AtFlags::empty());
    namespace.is_ok_and(|namespace| namespace.st_ino == USER_NS_INIT_INO)
}

/// `<linux/nsfs.h>`.
const USER_NS_INIT_INO: u64 = 0xeffffffd;

/// A detached copy of the host's mounts at `source`, in their peer groups.
///
/// # Errors
/// `EXDEV` when the path means something else over there.
pub(crate) fn take(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let Some(host) = HOST.get() else {
        // They were not left.
        return open_tree(CWD, source, flags);
    };
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let here = openat(CWD, source, path, Mode::empty())?;
    let (ours, folder) = (own_namespace()?, openat(CWD, ".", path, Mode::empty())?);
    let root = openat(CWD, "/", path, Mode::empty())?;
    enter(host.as_fd())?;
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
