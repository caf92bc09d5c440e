//! Signals as a type, the real-time ones included.

use rustix::io::{Errno, Result};
use rustix::process::Signal;

use super::done;

/// The highest signal number, `_NSIG` of the kernel.
const LAST: u8 = 64;

/// The signal of this number, 1 to 64, for another process.
///
/// `rustix` leaves out 32 to 64, since a C library keeps some of them for
/// itself. Those are its own within one process; a container's programs may give
/// them any meaning (systemd shuts down on `SIGRTMIN+3`).
pub(crate) fn signal(number: u8) -> Option<Signal> {
    if !(1..=LAST).contains(&number) {
        return None;
    }
    // SAFETY: a valid number, not zero. It is used to signal other processes
    // only: signals of our own are blocked and read through `nix`, which has no
    // real-time ones.
    Some(unsafe { Signal::from_raw_unchecked(i32::from(number)) })
}

/// Every signal, in the kernel's form: 8 bytes. That of a C library leaves some out.
static ALL: u64 = u64::MAX;

/// Has every signal wait until it is asked for, by [`next`].
pub(crate) fn block_all() -> Result<()> {
    // SAFETY: a kernel signal set is 8 bytes and `ALL` is alive during the call; nothing
    // is written back.
    done(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const ALL,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    })
}

/// Takes the next signal, of those that [`block_all`] has wait; blocks until there is one.
pub(crate) fn next() -> Result<i32> {
    loop {
        match take(None) {
            // One that stops and goes on with us interrupts.
            Err(Errno::INTR) => {}
            taken => return taken,
        }
    }
}

/// Takes a signal that waits already.
pub(crate) fn pending() -> Result<Option<i32>> {
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match take(Some(&at_once)) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        taken => taken.map(Some),
    }
}

/// `rt_sigtimedwait(2)`.
fn take(timeout: Option<&libc::timespec>) -> Result<i32> {
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set of 8 bytes and the time, where there is one, are alive during the
    // call; nobody wants to know more than the number.
    let taken = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const ALL,
            std::ptr::null_mut::<libc::siginfo_t>(),
            timeout,
            size_of::<u64>(),
        )
    };
    done(taken)?;
    Ok(i32::try_from(taken).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_kernel_is_one() {
        assert_eq!(signal(0), None);
        assert_eq!(signal(15), Some(Signal::TERM));
        assert_eq!(signal(37).map(Signal::as_raw), Some(37));
        assert_eq!(signal(64).map(Signal::as_raw), Some(64));
        assert_eq!(signal(65), None);
    }
}
