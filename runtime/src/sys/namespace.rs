//! `ioctl_nsfs(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;

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
    let kind = kind.map_err(|error| {
        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL)
    })?;
    Ok(kind.cast_unsigned())
}
