//! A socket that the service manager holds, as sd_listen_fds(3) has it: who connects while
//! hostd is replaced waits, and is not refused.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The socket that was passed on; `None` where none was.
///
/// # Errors
/// When there are several, or it cannot be taken.
pub fn socket() -> io::Result<Option<OwnedFd>> {
    // It sets close-on-exec on each of them (P4).
    let passed: Vec<_> = sd_notify::listen_fds()?.collect();
    match passed[..] {
        [] => Ok(None),
        // A number from the environment becomes a descriptor that the kernel has checked.
        [socket] => {
            let own = pidfd_open(getpid(), PidfdFlags::empty())?;
            Ok(Some(pidfd_getfd(&own, socket, PidfdGetfdFlags::empty())?))
        }
        _ => Err(io::Error::other(format!(
            "{} sockets were passed on, and hostd has one",
            passed.len()
        ))),
    }
}
