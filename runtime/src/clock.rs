//! Whether somebody keeps the machine's clock, as `adjtimex(2)` tells.

use std::io;
use std::time::Duration;

use crate::sys;

/// The clock by the kernel's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// A program has set it lately, and goes on to.
    pub synchronized: bool,
    /// How far it is off at most (`maxerror`).
    pub error: Duration,
}

/// Reads it.
///
/// # Errors
/// What the kernel answers.
pub fn read() -> io::Result<Clock> {
    let timex = sys::schedule::adjtimex()?;
    Ok(Clock {
        synchronized: timex.status & libc::STA_UNSYNC == 0,
        error: Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        // A day, where nobody keeps it: the kernel counts no further than 16 s.
        assert!(read().unwrap().error <= Duration::from_secs(86_400));
    }
}
