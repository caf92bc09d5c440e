//! System calls that neither `std` nor `rustix` offers, one safe function each.
//!
//! The only module of the project with unsafe code.
#![expect(unsafe_code, reason = "raw system calls live here and nowhere else")]

pub(crate) mod alloc;
pub(crate) mod bpf;
#[cfg(target_arch = "x86_64")]
mod entry;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod quota;
pub(crate) mod schedule;
pub(crate) mod seccomp;
pub(crate) mod signal;
mod start;

use std::io;

/// The result of a raw system call: -1 becomes the current `errno`.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for the calls that return nothing of interest.
fn done(result: libc::c_long) -> rustix::io::Result<()> {
    if result == -1 {
        let errno = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EINVAL);
        Err(rustix::io::Errno::from_raw_os_error(errno))
    } else {
        Ok(())
    }
}
