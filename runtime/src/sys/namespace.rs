//! `ioctl_nsfs(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::checked;

/// `NS_GET_NSTYPE` of `<linux/nsfs.h>`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// What kind of namespace this is, as its `CLONE_NEW*`.
///
/// # Errors
/// `ENOTTY` for what is no namespace.
pub(crate) fn kind(namespace: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: takes no argument; the answer is the result.
    let kind = checked(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }.into());
    let kind = kind.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    Ok(kind.cast_unsigned())
}

/// `NS_GET_PARENT` of `<linux/nsfs.h>`.
const NS_GET_PARENT: libc::Ioctl = 0xb702;

/// The user or pid namespace that this one was made in.
///
/// # Errors
/// `EPERM` where that is not ours to know.
pub(crate) fn parent(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related(namespace, NS_GET_PARENT)
}

/// `NS_GET_USERNS` of `<linux/nsfs.h>`.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// The user namespace that owns this one.
///
/// # Errors
/// `EPERM` where that is not ours to know.
pub(crate) fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related(namespace, NS_GET_USERNS)
}

fn related(namespace: BorrowedFd<'_>, question: libc::Ioctl) -> Result<OwnedFd> {
    // SAFETY: takes no argument; the answer is the result.
    let related = unsafe { libc::ioctl(namespace.as_raw_fd(), question) };
    checked(related.into())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(related) })
}
