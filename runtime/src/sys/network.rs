//! `netdevice(7)`, `tcp(7)`.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use std::os::fd::{AsRawFd, BorrowedFd};

use super::done;

/// Brings the loopback link of this network namespace up; the kernel gives it
/// its addresses then. Any socket will do for that.
pub(crate) fn loopback_up() -> rustix::io::Result<()> {
    let family = AddressFamily::UNIX;
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_LOOPBACK).unwrap_or_default();
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: up },
    };
    // SAFETY: the kernel reads one `ifreq`, which is alive during the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
}

/// Bytes written to this TCP connection that the peer's kernel has not acknowledged:
/// `SIOCOUTQ`, which is `TIOCOUTQ`, `tcp(7)`.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    let request = libc::TIOCOUTQ;
    // SAFETY: the kernel writes one `int`, which is alive during the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) }.into())?;
    Ok(u64::from(bytes.cast_unsigned()))
}
