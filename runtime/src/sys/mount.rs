//! `mount_setattr(2)`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;

use super::done;

/// Attributes to set and to clear on a mount, `struct mount_attr` of
/// `mount_setattr(2)`. The flag values are those of `<linux/mount.h>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave it.
    pub(crate) propagation: u64,
}

impl Attributes {
    /// Whether there is nothing to change.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Changes the mount that `fd` and `path` name, and those below when `recursive`.
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: Attributes,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    raw(fd, path, recursive, &attr)
}

/// Makes the detached mount `fd` (and those below it when `recursive`) show
/// its owners through the mappings of this user namespace.
pub(crate) fn mount_idmap(
    fd: BorrowedFd<'_>,
    recursive: bool,
    user_namespace: BorrowedFd<'_>,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(user_namespace.as_raw_fd().unsigned_abs()),
    };
    raw(fd, c"", recursive, &attr)
}

fn raw(fd: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: &libc::mount_attr) -> Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is NUL-terminated and `attr` a valid `mount_attr`, both
    // alive during the call; the size given is that of the structure.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            recursive | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })
}
