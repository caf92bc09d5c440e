//! rtnetlink messages: the links, addresses, routes and neighbours of one
//! host, and how to read them back. Pure. Source of truth: `rtnetlink(7)`,
//! `linux/rtnetlink.h`, `linux/if_link.h`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::model::{Config, Endpoint};
use crate::netlink::{Attributes, Message, Reply, flags, parse_attributes};
use crate::report::Counters;

pub(crate) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_QDISC: u16 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `IPV4_DEVCONF_*` of `linux/ip.h` and what the host's side of a dyno's link
/// needs of them.
const INET_CONF: [(u16, u32); 5] = [
    (1, 1),  // forwarding
    (4, 0),  // accept_redirects
    (6, 0),  // send_redirects: a dyno reaching itself by a published port
    (8, 1),  // rp_filter, strict: holds even while somebody flushed our table
    (26, 0), // route_localnet: never (P13)
];

const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
/// Marks our routes in `ip route` (`RTPROT_*`; 192..=251 is free for anybody).
const RTPROT_DYNO: u8 = 217;
const NUD_PERMANENT: u16 = 0x80;
const IFA_F_NODAD: u8 = 0x02;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The name of the link inside the dyno.
pub(crate) const INNER_NAME: &str = "eth0";

/// The gateway's place in [`mark`]s.
pub(crate) const GATEWAY: &str = "gateway";

/// The host's side of a dyno's link.
pub(crate) fn outer_name(endpoint: &str) -> String {
    format!("dv-{endpoint}")
}

/// The link that holds the gateway's addresses.
pub(crate) fn gateway_name(config: &Config) -> String {
    format!("dyn-{}", config.host)
}

/// What every link of this host says of itself (`IFLA_IFALIAS`).
pub(crate) fn mark(config: &Config, id: &str) -> String {
    format!("dyno:{}:{id}", config.host)
}

/// The dyno's hardware address: locally administered, from its address, so
/// that no two dynos of a network share one.
pub(crate) fn inner_mac(endpoint: &Endpoint) -> Mac {
    let [a, b, c, d] = endpoint.ipv4.octets();
    [0x02, 0x64, a, b, c, d]
}

/// The host's hardware address on every dyno's link, which is a wire with two
/// ends, so it need not be unique.
pub(crate) fn outer_mac(config: &Config) -> Mac {
    let [a, b, c, d] = config.gateway4().octets();
    [0x02, 0x65, a, b, c, d]
}

/// Creates a dyno's veth pair, both ends down, the inner one in `netns`.
pub(crate) fn create_veth(config: &Config, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Message {
    let descriptor = netns.as_raw_fd().cast_unsigned();
    let peer = Attributes::with_fixed(&ifinfo(0, 0, 0))
        .string(IFLA_IFNAME, INNER_NAME)
        .bytes(IFLA_ADDRESS, &inner_mac(endpoint))
        .u32(IFLA_NET_NS_FD, descriptor)
        .u32(IFLA_NUM_TX_QUEUES, 1)
        .u32(IFLA_NUM_RX_QUEUES, 1);
    let info = Attributes::new().string(IFLA_INFO_KIND, "veth").nest(
        IFLA_INFO_DATA,
        &Attributes::new().nest(VETH_INFO_PEER, &peer),
    );
    Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, 0, 0))
        .string(IFLA_IFNAME, &outer_name(&endpoint.id))
        .bytes(IFLA_ADDRESS, &outer_mac(config))
        .u32(IFLA_GROUP, config.host.group())
        .u32(IFLA_NUM_TX_QUEUES, 1)
        .u32(IFLA_NUM_RX_QUEUES, 1)
        .nest(IFLA_LINKINFO, &info)
}

/// Kinds of link that can hold the gateway's addresses, best first. Not every
/// kernel has `dummy`; a bridge without ports serves as well.
pub(crate) const GATEWAY_KINDS: [&str; 2] = ["dummy", "bridge"];

/// Creates the gateway's link, or completes it.
pub(crate) fn create_gateway(config: &Config, kind: &str) -> Message {
    let info = Attributes::new().string(IFLA_INFO_KIND, kind);
    Message::new(RTM_NEWLINK, flags::CREATE, &ifinfo(0, 0, 0))
        .string(IFLA_IFNAME, &gateway_name(config))
        .bytes(IFLA_ADDRESS, &outer_mac(config))
        .u32(IFLA_GROUP, config.host.group())
        .nest(IFLA_LINKINFO, &info)
}

/// Marks a link as ours and keeps the kernel from giving it addresses of its
/// own. `ipv6` says whether the kernel knows IPv6 at all.
pub(crate) fn mark_link(index: u32, alias: &str, ipv6: bool) -> Message {
    let conf = INET_CONF
        .iter()
        .fold(Attributes::new(), |list, &(key, value)| {
            list.u32(key, value)
        });
    let mut families = Attributes::new().nest(
        AF_INET.into(),
        &Attributes::new().nest(IFLA_INET_CONF, &conf),
    );
    if ipv6 {
        families = families.nest(AF_INET6.into(), &no_link_local());
    }
    Message::new(RTM_SETLINK, 0, &ifinfo(index, 0, 0))
        .bytes(IFLA_IFALIAS, alias.as_bytes())
        .nest(IFLA_AF_SPEC, &families)
}

/// Keeps the kernel from giving the dyno's link a link-local address: there
/// is nobody on the wire to talk to with it.
pub(crate) fn without_link_local(index: u32) -> Message {
    let families = Attributes::new().nest(AF_INET6.into(), &no_link_local());
    Message::new(RTM_SETLINK, 0, &ifinfo(index, 0, 0)).nest(IFLA_AF_SPEC, &families)
}

fn no_link_local() -> Attributes {
    Attributes::new().bytes(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE])
}

/// Brings a link up.
pub(crate) fn up(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &ifinfo(index, IFF_UP, IFF_UP))
}

/// Brings the host's side of a dyno's link up, deaf to ARP: both ends have
/// permanent neighbours, and nobody else may speak (P13).
pub(crate) fn up_without_arp(index: u32) -> Message {
    let bits = IFF_UP | IFF_NOARP;
    Message::new(RTM_SETLINK, 0, &ifinfo(index, bits, bits))
}

/// Asks for one link.
pub(crate) fn read_link(name: &str) -> Message {
    Message::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0)).string(IFLA_IFNAME, name)
}

/// Asks for all links.
pub(crate) fn list_links() -> Message {
    Message::new(RTM_GETLINK, flags::DUMP, &ifinfo(0, 0, 0))
}

/// Removes a link, and with it its peer, addresses, routes and neighbours.
pub(crate) fn delete_link(index: u32) -> Message {
    Message::new(RTM_DELLINK, 0, &ifinfo(index, 0, 0))
}

/// Gives a link an address of its own, without duplicate detection: nobody on
/// the wire could object.
pub(crate) fn add_address(index: u32, address: IpAddr) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let (family, octets) = octets(address);
    let (nodad, full) = match address {
        IpAddr::V4(_) => (0, 32),
        IpAddr::V6(_) => (IFA_F_NODAD, 128),
    };
    let mut fixed = vec![family, full, nodad, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    Message::new(RTM_NEWADDR, flags::CREATE | flags::REPLACE, &fixed)
        .bytes(IFA_LOCAL, &octets)
        .bytes(IFA_ADDRESS, &octets)
}

/// Asks for all addresses.
pub(crate) fn list_addresses() -> Message {
    Message::new(RTM_GETADDR, flags::DUMP, &[0; 8])
}

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

/// The host's route to a dyno; the host speaks to it as its gateway.
pub(crate) fn route_to_dyno(index: u32, dyno: IpAddr, gateway: IpAddr) -> Message {
    let (family, destination) = octets(dyno);
    let (_, gateway) = octets(gateway);
    let scope = if dyno.is_ipv4() { RT_SCOPE_LINK } else { 0 };
    let fixed = rtmsg(family, bits(&destination), scope, RTN_UNICAST, 0);
    Message::new(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &fixed)
        .bytes(RTA_DST, &destination)
        .bytes(RTA_PREFSRC, &gateway)
        .u32(RTA_OIF, index)
}

/// The dyno's default route.
pub(crate) fn default_route(index: u32, gateway: IpAddr) -> Message {
    let (family, gateway) = octets(gateway);
    let fixed = rtmsg(family, 0, 0, RTN_UNICAST, RTNH_F_ONLINK);
    Message::new(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &fixed)
        .bytes(RTA_GATEWAY, &gateway)
        .u32(RTA_OIF, index)
}

/// Makes addresses of the subnet that no dyno has unreachable: they must not
/// leave by the host's default route.
pub(crate) fn unreachable_subnet(subnet: ipnet::IpNet) -> Message {
    subnet_route(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, subnet)
}

/// Undoes [`unreachable_subnet`].
pub(crate) fn forget_subnet(subnet: ipnet::IpNet) -> Message {
    subnet_route(RTM_DELROUTE, 0, subnet)
}

fn subnet_route(kind: u16, flags: u16, subnet: ipnet::IpNet) -> Message {
    let (family, destination) = octets(subnet.network());
    let fixed = rtmsg(family, subnet.prefix_len(), 0, RTN_UNREACHABLE, 0);
    Message::new(kind, flags, &fixed)
        .bytes(RTA_DST, &destination)
        .u32(RTA_PRIORITY, u32::MAX)
}

/// Asks for all routes of both families.
pub(crate) fn list_routes() -> Message {
    Message::new(RTM_GETROUTE, flags::DUMP, &[0; 12])
}

/// Tells a link who is at its other end, for good.
pub(crate) fn neighbour(index: u32, address: IpAddr, mac: Mac) -> Message {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    let (family, octets) = octets(address);
    let mut fixed = vec![family, 0, 0, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    fixed.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
    fixed.extend_from_slice(&[0; 2]);
    Message::new(RTM_NEWNEIGH, flags::CREATE | flags::REPLACE, &fixed)
        .bytes(NDA_DST, &octets)
        .bytes(NDA_LLADDR, &mac)
}

/// Asks for all neighbours.
pub(crate) fn list_neighbours() -> Message {
    Message::new(RTM_GETNEIGH, flags::DUMP, &[0; 12])
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) group: u32,
    pub(crate) up: bool,
    /// Sends; a link that is up drops what it is given until the kernel's link
    /// watch has seen its carrier and given it a queue.
    pub(crate) active: bool,
    pub(crate) counters: Counters,
}

impl Link {
    pub(crate) fn parse(reply: &Reply) -> Option<Self> {
        let fixed = reply.body.first_chunk::<16>()?;
        let mut link = Self {
            index: u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            up: u32::from(fixed[8]) & IFF_UP != 0,
            ..Self::default()
        };
        for (kind, value) in parse_attributes(&reply.body[16..]) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_IFALIAS => link.alias = text(value),
                IFLA_QDISC => link.active = text(value) != "noop",
                IFLA_GROUP => link.group = number(value)?,
                IFLA_STATS64 => link.counters = counters(value)?,
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether this host made it: it carries the mark, or would by now had its
    /// maker not died. A link has its group from its first moment.
    pub(crate) fn is_own(&self, config: &Config) -> bool {
        let named = self.name.starts_with("dv-") || self.name == gateway_name(config);
        self.endpoint(config).is_some() || (named && self.group == config.host.group())
    }

    /// The id in the link's mark, if it carries this host's.
    pub(crate) fn endpoint(&self, config: &Config) -> Option<&str> {
        self.alias.strip_prefix(&mark(config, ""))
    }
}

/// `rtnl_link_stats64`, seen from the other end of the wire.
fn counters(stats: &[u8]) -> Option<Counters> {
    let field = |index: usize| {
        let bytes = stats.get(index * 8..index * 8 + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    Some(Counters {
        tx_packets: field(0)?,
        rx_packets: field(1)?,
        tx_bytes: field(2)?,
        rx_bytes: field(3)?,
    })
}

/// The address and its link in an answer to [`list_addresses`].
pub(crate) fn parse_address(reply: &Reply) -> Option<(u32, ipnet::IpNet)> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let fixed = reply.body.first_chunk::<8>()?;
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let mut address = None;
    for (kind, value) in parse_attributes(&reply.body[8..]) {
        // On a point-to-point link IFA_ADDRESS is the other end.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = ip(value);
        }
    }
    Some((index, ipnet::IpNet::new(address?, fixed[1]).ok()?))
}

/// The destination and link of a unicast or unreachable route in the main or
/// another table of people's, from an answer to [`list_routes`].
pub(crate) fn parse_route(reply: &Reply) -> Option<(ipnet::IpNet, u32)> {
    const RT_TABLE_LOCAL: u32 = 255;
    let fixed = reply.body.first_chunk::<12>()?;
    let (mut table, mut index, mut destination) = (u32::from(fixed[4]), 0, None);
    for (kind, value) in parse_attributes(&reply.body[12..]) {
        match kind {
            RTA_DST => destination = ip(value),
            RTA_OIF => index = number(value)?,
            RTA_TABLE => table = number(value)?,
            _ => {}
        }
    }
    if table == RT_TABLE_LOCAL {
        return None;
    }
    Some((ipnet::IpNet::new(destination?, fixed[1]).ok()?, index))
}

/// Link, address and hardware address of a permanent neighbour.
pub(crate) fn parse_neighbour(reply: &Reply) -> Option<(u32, IpAddr, Mac)> {
    let fixed = reply.body.first_chunk::<12>()?;
    if u16::from_ne_bytes([fixed[8], fixed[9]]) & NUD_PERMANENT == 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in parse_attributes(&reply.body[12..]) {
        match kind {
            1 => address = ip(value),
            2 => mac = value.try_into().ok(),
            _ => {}
        }
    }
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    Some((index, address?, mac?))
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn rtmsg(family: u8, length: u8, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let [a, b, c, d] = flags.to_ne_bytes();
    [
        family,
        length,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_DYNO,
        scope,
        kind,
        a,
        b,
        c,
        d,
    ]
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

fn bits(octets: &[u8]) -> u8 {
    if octets.len() == 4 { 32 } else { 128 }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_fit_the_kernels_fifteen_bytes() {
        assert_eq!(outer_name("0123456789ab"), "dv-0123456789ab");
        assert_eq!(outer_name("0123456789ab").len(), 15);
    }

    proptest! {
        #[test]
        fn replies_of_any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let reply = Reply { kind: RTM_NEWLINK, body };
            Link::parse(&reply);
            parse_address(&reply);
            parse_route(&reply);
            parse_neighbour(&reply);
        }
    }
}
