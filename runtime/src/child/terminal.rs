//! A terminal from the container's own devpts.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Uid, fstat, fstatfs, makedev, openat2};
use rustix::io::{Errno, Result};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::channel::Reporter;
use super::mount;
use crate::plan::Target;

/// `DEVPTS_SUPER_MAGIC` of `<linux/magic.h>`.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Allocates a terminal, makes it the controlling one and 0, 1 and 2, and
/// sends its master to the parent. A `console` other than the root gets it
/// bound on top.
pub(super) fn allocate(
    root: BorrowedFd<'_>,
    owner: Uid,
    console: &Target,
    reporter: &Reporter,
) -> Result<()> {
    // P1: the multiplexer must be the devpts' own, whatever /dev holds.
    let rules = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat2(root, c"dev/pts/ptmx", flags, Mode::empty(), rules)?;
    let stat = fstat(&master)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    let devpts = fstatfs(&master)?.f_type.cast_unsigned() == DEVPTS_SUPER_MAGIC;
    if !device || !devpts || stat.st_rdev != makedev(5, 2) {
        return Err(Errno::NODEV);
    }
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    mount::give_to(slave.as_fd(), owner)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    if console.depth() > 0 {
        mount::bind(root, slave.as_fd(), console)?;
    }
    reporter.terminal(master.as_fd())
}
