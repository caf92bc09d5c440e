//! Which subnets a host's dynos get: the first that nobody on the host uses,
//! starting at a place that follows from the host's id.

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::Result;
use crate::model::HostId;

/// Chooses subnets that clash with no address and no route of this machine.
/// `None` for IPv6 where the machine has none. The answer is to be recorded:
/// it depends on what the machine's network looks like now.
///
/// # Errors
/// [`Error::NoFreeSubnet`](crate::Error::NoFreeSubnet), or a failed netlink
/// request.
pub fn choose_subnets(_host: HostId) -> Result<(Ipv4Net, Option<Ipv6Net>)> {
    unimplemented!()
}
