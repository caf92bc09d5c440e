//! A netlink socket inside somebody else's network namespace.
//!
//! A socket belongs for good to the namespace of the thread that opened it,
//! and `/proc/sys/net` shows the namespace of the thread that looks. So a
//! thread enters, does both, and ends; nobody else's namespace changes. It
//! works for namespaces owned by a child user namespace, because root of the
//! parent has every capability there (`user_namespaces(7)`).

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, Result};
use crate::netlink::Socket;

/// P13: a dyno takes no router's word; a link made later inherits these.
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv6/conf/all/accept_ra", "0"),
    ("/proc/sys/net/ipv6/conf/default/accept_ra", "0"),
    ("/proc/sys/net/ipv6/conf/default/accept_redirects", "0"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0"),
];

/// Opens an rtnetlink socket in `netns` and closes the namespace to router
/// advertisements.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> Result<Socket> {
    thread::scope(|scope| {
        let inside = thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(128 << 10)
            .spawn_scoped(scope, || prepare(netns))
            .map_err(|source| failed("start a thread", source))?;
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn prepare(netns: BorrowedFd<'_>) -> Result<Socket> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .map_err(|errno| failed("enter", errno.into()))?;
    for (path, value) in SETTINGS {
        #[expect(clippy::disallowed_methods, reason = "a sysctl, not a state file")]
        match fs::write(path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("write an IPv6 setting", error));
            }
            _ => {} // done, or the kernel has no IPv6
        }
    }
    Socket::open(None).map_err(|source| failed("open a netlink socket", source))
}

fn failed(operation: &'static str, source: io::Error) -> Error {
    Error::Namespace { operation, source }
}
