//! seccomp(2).

use std::io;

use libc::sock_filter;

/// Puts a filter over the calling thread, for good. Callable between clone3(2) and
/// execve(2): it allocates nothing and takes no lock.
///
/// Needs `no_new_privs`, or `CAP_SYS_ADMIN` in the thread's user namespace.
pub(crate) fn set_mode_filter(program: &[sock_filter], flags: u32) -> io::Result<()> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads one `sock_fprog`, and `len` instructions from the
    // address in it, both valid for the call; it copies them and, despite the type's
    // `*mut`, writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            &raw const fprog,
        )
    };
    match result {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        // With TSYNC: the id of a thread that could not be brought along.
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}
