//! The first request to a part of the kernel that may be a module.

use std::io;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again, for half a second, where the kernel answers as it does while a
/// module is loading: it has `modprobe` executed for a request to a part that
/// it does not have, and gives up should that return without it, as some do
/// while somebody else is loading the same.
pub(crate) fn once_loaded<T>(mut request: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match request() {
            Err(Error::Netlink { source, .. }) if may_be_loading(&source) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    request()
}

/// `nfnetlink_rcv_msg` says EINVAL, `nfnetlink_rcv_batch` EOPNOTSUPP; EAGAIN
/// is what modules say that need yet another one.
fn may_be_loading(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// What comes of a request that fails like this so often, and how often it was made.
    fn asked(errno: Errno, failures: u32) -> (bool, u32) {
        let mut made = 0;
        let outcome = once_loaded(|| {
            made += 1;
            if made > failures {
                return Ok(());
            }
            Err(Error::Netlink {
                operation: "try".to_owned(),
                source: errno.into(),
            })
        });
        (outcome.is_ok(), made)
    }

    #[test]
    fn a_module_is_waited_for_but_not_for_ever() {
        for errno in [Errno::INVAL, Errno::AGAIN, Errno::OPNOTSUPP] {
            assert_eq!(asked(errno, 0), (true, 1));
            assert_eq!(asked(errno, 2), (true, 3));
            assert_eq!(asked(errno, u32::MAX), (false, TRIES));
        }
        assert_eq!(asked(Errno::PERM, 2), (false, 1), "nothing else is");
    }
}
