//! Which subnets a host's dynos get: the first that nobody on the host uses,
//! starting at a place that follows from the host's id.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::model::HostId;
use crate::netlink::Socket;
use crate::sysctl;

const PREFIX: u8 = 20;
const PREFIX6: u8 = 64;

/// Where to look, in this order: the half of 10/8 that people use least, then
/// the other private ranges (RFC 1918).
const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 128, 0, 0), 9),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Chooses subnets that clash with no address and no route of this machine.
/// `None` for IPv6 where the machine has none. The answer is to be recorded:
/// it depends on what the machine's network looks like now.
///
/// # Errors
/// [`Error::NoFreeSubnet`], or a failed netlink
/// request.
pub fn choose_subnets(host: HostId) -> Result<(Ipv4Net, Option<Ipv6Net>)> {
    let taken = taken(host)?;
    let subnet4 = free_ipv4(host, &taken).ok_or(Error::NoFreeSubnet)?;
    let subnet6 = if sysctl::uses_ipv6()? {
        free_ipv6(host, &taken)
    } else {
        None
    };
    Ok((subnet4, subnet6))
}

/// Addresses and routes of this machine, without this host's own links.
fn taken(host: HostId) -> Result<Vec<IpNet>> {
    let mut socket = Socket::open(None).map_err(|source| Error::Netlink {
        operation: "open a netlink socket".to_owned(),
        source,
    })?;
    let own: Vec<u32> = socket
        .dump("list links", &link::list_links())?
        .iter()
        .filter_map(Link::parse)
        .filter(|link| link.group == host.group())
        .map(|link| link.index)
        .collect();
    let addresses = socket.dump("list addresses", &link::list_addresses())?;
    let routes = socket.dump("list routes", &link::list_routes())?;
    Ok(addresses
        .iter()
        .filter_map(link::parse_address)
        .map(|(index, net)| (net, index))
        .chain(routes.iter().filter_map(link::parse_route))
        .filter(|(net, index)| net.prefix_len() > 0 && !own.contains(index))
        .map(|(net, _)| net)
        .collect())
}

fn free_ipv4(host: HostId, taken: &[IpNet]) -> Option<Ipv4Net> {
    RANGES.iter().find_map(|&(base, length)| {
        let count = 1u32 << (PREFIX - length);
        let start = u32::try_from(mix(host) % u64::from(count)).ok()?;
        (0..count)
            .map(|step| (start + step) % count)
            .map(|place| u32::from(base) + (place << (32 - PREFIX)))
            .map(|network| Ipv4Net::new_assert(network.into(), PREFIX))
            .find(|subnet| !clashes(IpNet::V4(*subnet), taken))
    })
}

/// A unique local prefix (RFC 4193) from the host's id, and its first free
/// subnet.
fn free_ipv6(host: HostId, taken: &[IpNet]) -> Option<Ipv6Net> {
    const GLOBAL_ID: u128 = (1 << 40) - 1;
    let prefix = 0xfd << 120 | (u128::from(mix(host)) & GLOBAL_ID) << 80;
    (0..=u128::from(u16::MAX))
        .map(|subnet| Ipv6Addr::from(prefix | subnet << 64))
        .map(|network| Ipv6Net::new_assert(network, PREFIX6))
        .find(|subnet| !clashes(IpNet::V6(*subnet), taken))
}

fn clashes(subnet: IpNet, taken: &[IpNet]) -> bool {
    let covers = |net: &IpNet, address: IpAddr| net.contains(&address);
    taken
        .iter()
        .any(|net| covers(net, subnet.network()) || covers(&subnet, net.network()))
}

/// Spreads ids that differ in a few bits over the whole range (splitmix64).
fn mix(host: HostId) -> u64 {
    let mut x = u64::from(host.group()).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_start_at_different_places() {
        let subnets: std::collections::HashSet<_> = (1..=100u32)
            .map(|id| free_ipv4(format!("{id:08x}").parse().unwrap(), &[]).unwrap())
            .collect();
        assert!(subnets.len() > 90, "{} of 100", subnets.len());
    }

    #[test]
    fn other_ranges_are_used_when_the_first_is_taken() {
        let host = "0000abcd".parse().unwrap();
        let subnet = free_ipv4(host, &[net("10.0.0.0/8")]).unwrap();
        assert!(
            net("172.16.0.0/12").contains(&IpNet::V4(subnet)),
            "{subnet}"
        );
        let taken = [net("10.0.0.0/8"), net("172.16.0.0/12")];
        let subnet = free_ipv4(host, &taken).unwrap();
        assert!(
            net("192.168.0.0/16").contains(&IpNet::V4(subnet)),
            "{subnet}"
        );
        let taken = [net("10.0.0.0/8"), net("172.0.0.0/8"), net("192.168.0.0/16")];
        assert_eq!(free_ipv4(host, &taken), None);
    }

    #[test]
    fn ipv6_prefix_is_unique_local_and_steps_aside() {
        let host = "0000abcd".parse().unwrap();
        let first = free_ipv6(host, &[]).unwrap();
        assert!(net("fd00::/8").contains(&IpNet::V6(first)), "{first}");
        let second = free_ipv6(host, &[IpNet::V6(first)]).unwrap();
        assert_ne!(first, second);
    }

    proptest! {
        #[test]
        fn chosen_subnet_never_clashes(
            id in 1..u32::MAX,
            taken in prop::collection::vec((any::<u32>(), 9..=32u8), 0..20),
        ) {
            let host: HostId = format!("{id:08x}").parse().unwrap();
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(address, length)| IpNet::new_assert(Ipv4Addr::from(address).into(), length))
                .collect();
            let chosen = IpNet::V4(free_ipv4(host, &taken).unwrap());
            for net in &taken {
                let net = net.trunc();
                prop_assert!(!net.contains(&chosen) && !chosen.contains(&net), "{chosen} {net}");
            }
        }
    }
}
