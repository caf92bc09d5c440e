//! Signals as a type, the real-time ones included.

use rustix::process::Signal;

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
