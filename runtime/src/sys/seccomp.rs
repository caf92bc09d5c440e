//! seccomp(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_ulong, sock_filter, sock_fprog};

use super::checked;

/// Puts a filter over the calling thread, for good. Callable between clone3(2) and
/// execve(2): it allocates nothing and takes no lock.
///
/// Needs `no_new_privs`, or `CAP_SYS_ADMIN` in the thread's user namespace.
pub(crate) fn set_mode_filter(program: &[sock_filter], flags: u32) -> io::Result<()> {
    match load(program, flags)? {
        0 => Ok(()),
        // With TSYNC: the id of a thread that could not be brought along.
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// The same with `SECCOMP_FILTER_FLAG_NEW_LISTENER` among the flags: the listener,
/// which is closed on exec.
pub(crate) fn set_mode_filter_and_listen(
    program: &[sock_filter],
    flags: u32,
) -> io::Result<OwnedFd> {
    let listens = c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    if !listens {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let fd = i32::try_from(load(program, flags)?);
    let fd = fd.map_err(|_too_large| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: with that flag (checked above) a call that succeeds returns a new
    // descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows all of these `SECCOMP_FILTER_FLAG_*`. Changes nothing.
pub(crate) fn knows_flags(flags: c_ulong) -> bool {
    // SAFETY: flags are looked at before the program; a NULL one is then refused with
    // EFAULT, so nothing is ever loaded.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<sock_fprog>(),
        )
    };
    checked(result).is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

fn load(program: &[sock_filter], flags: u32) -> io::Result<libc::c_long> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let fprog = sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads one `sock_fprog`, and `len` instructions from the
    // address in it, both valid for the call; it copies them and, despite the type's
    // `*mut`, writes to neither.
    checked(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            c_ulong::from(flags),
            &raw const fprog,
        )
    })
}
