//! Forgetting flows whose translation is no longer true.
//!
//! The kernel asks the rules about the first packet of a flow only, and a
//! stream of UDP datagrams keeps its flow alive for ever: without this, a
//! client would go on talking to the address of a dyno that is gone, perhaps
//! to the dyno that has it next. Source of truth:
//! `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;
use std::net::IpAddr;

use rustix::net::netlink::NETFILTER;

use crate::error::{Error, Result};
use crate::model::Protocol;
use crate::netlink::{Attributes, Message, Reply, Socket, flags, once_loaded, parse_attributes};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Flows to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stale {
    /// To and from an address that is a dyno's no more.
    Address(IpAddr),
    /// To a port that led to this address.
    Unpublished {
        protocol: Protocol,
        port: u16,
        backend: IpAddr,
    },
    /// To a port that led nowhere and now leads to a dyno of this family.
    Published {
        protocol: Protocol,
        port: u16,
        ipv6: bool,
    },
}

/// As many flows are looked through in user space for all that is stale at
/// once. The kernel takes some milliseconds to walk through its table, however
/// few flows are in it; where they are many, it takes longer to describe them
/// all than to walk once more for each filter.
const FEW: u32 = 4096;

/// A socket for the flow table of its network namespace.
#[derive(Debug)]
pub(crate) struct Conntrack {
    socket: Socket,
}

/// A flow as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    /// The original direction as it came.
    raw: Attributes,
    original: Tuple,
    reply: Tuple,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Zero where the protocol has none.
    destination_port: u16,
}

/// Which parts of a tuple the kernel compares (`CTA_FILTER_F_*`).
mod compare {
    pub(super) const SOURCE: u32 = 1;
    pub(super) const PROTOCOL: u32 = 1 << 3;
    pub(super) const DESTINATION_PORT: u32 = 1 << 5;
}

impl Conntrack {
    /// Opens a socket in the calling thread's namespace. `None` if the kernel
    /// cannot be asked about flows: they then end by their own time-outs.
    pub(crate) fn open() -> Result<Option<Self>> {
        let socket = Socket::open(Some(NETFILTER)).map_err(|source| Error::Netlink {
            operation: "open a conntrack socket".to_owned(),
            source,
        })?;
        let mut conntrack = Self { socket };
        match once_loaded(|| conntrack.count()) {
            Ok(_) => Ok(Some(conntrack)),
            Err(Error::Netlink { source, .. }) if is_unsupported(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets flows.
    pub(crate) fn forget(&mut self, stale: &[Stale]) -> Result<()> {
        match self.count()? {
            0 => Ok(()),
            1..=FEW => self.forget_if(&all(), |flow| stale.iter().any(|stale| stale.covers(flow))),
            _ => self.forget_filtered(stale),
        }
    }

    fn forget_filtered(&mut self, stale: &[Stale]) -> Result<()> {
        for stale in stale {
            for filter in stale.filters() {
                self.forget_if(&filter, |flow| stale.covers(flow))?;
            }
        }
        Ok(())
    }

    /// Flows in the table, of all families.
    fn count(&mut self) -> Result<u32> {
        const GET_STATISTICS: u16 = 1 << 8 | 5;
        const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
        const OPERATION: &str = "read the flow statistics";
        let question = Message::new(GET_STATISTICS, 0, &family(0));
        let replies = self.socket.request(OPERATION, [question])?;
        replies
            .iter()
            .filter_map(|reply| reply.body.get(4..))
            .flat_map(parse_attributes)
            .find(|(kind, _)| *kind == CTA_STATS_GLOBAL_ENTRIES)
            .and_then(|(_, value)| Some(u32::from_be_bytes(value.try_into().ok()?)))
            .ok_or_else(|| Error::Reply {
                operation: OPERATION.to_owned(),
            })
    }

    /// Deletes those of the asked-for flows that the predicate confirms.
    fn forget_if(&mut self, question: &Message, confirm: impl Fn(&Flow) -> bool) -> Result<()> {
        for reply in self.socket.dump("list flows", question)? {
            if let Some(flow) = Flow::parse(&reply).filter(&confirm) {
                self.delete(&flow)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, flow: &Flow) -> Result<()> {
        let family = family_of(flow.original.source);
        let request = Message::new(CT_DELETE, 0, &family).nest(CTA_TUPLE_ORIG, &flow.raw);
        match self.socket.request("forget a flow", [request]) {
            // It ended by itself meanwhile.
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

impl Stale {
    /// Whether the flow is one of those to be forgotten.
    fn covers(
        &self,
        Flow {
            original, reply, ..
        }: &Flow,
    ) -> bool {
        let leads_to = |protocol: Protocol, port| {
            original.protocol == protocol.number() && original.destination_port == port
        };
        match *self {
            Self::Address(address) => original.source == address || reply.source == address,
            Self::Unpublished {
                protocol,
                port,
                backend,
            } => {
                leads_to(protocol, port)
                    && reply.source == backend
                    && original.destination != backend
            }
            // Not translated at all: a flow of this machine's own.
            Self::Published {
                protocol,
                port,
                ipv6,
            } => {
                leads_to(protocol, port)
                    && original.source.is_ipv6() == ipv6
                    && reply.source == original.destination
                    && reply.destination == original.source
            }
        }
    }

    /// Questions whose answers together are all the flows that are covered,
    /// and few others.
    fn filters(&self) -> Vec<Message> {
        match *self {
            Self::Address(address) => [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY]
                .map(|direction| of_source(address, direction))
                .into(),
            Self::Unpublished {
                protocol,
                port,
                backend,
            } => vec![to_service(protocol, port, family_of(backend))],
            Self::Published {
                protocol,
                port,
                ipv6,
            } => vec![to_service(protocol, port, family_of_ipv6(ipv6))],
        }
    }
}

/// No such subsystem in this kernel.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

fn family(number: u8) -> [u8; 4] {
    [number, 0, 0, 0]
}

fn family_of(address: IpAddr) -> [u8; 4] {
    family_of_ipv6(address.is_ipv6())
}

fn family_of_ipv6(ipv6: bool) -> [u8; 4] {
    family(if ipv6 { 10 } else { 2 })
}

/// Asks for all flows of all families.
fn all() -> Message {
    Message::new(CT_GET, flags::DUMP, &family(0))
}

/// Asks for the flows whose `direction` comes from an address.
fn of_source(address: IpAddr, direction: u16) -> Message {
    let ip = match address {
        IpAddr::V4(address) => Attributes::new().bytes(1, &address.octets()),
        IpAddr::V6(address) => Attributes::new().bytes(3, &address.octets()),
    };
    let tuple = Attributes::new().nest(CTA_TUPLE_IP, &ip);
    filtered(family_of(address), direction, &tuple, compare::SOURCE)
}

/// Asks for the flows to a port.
fn to_service(protocol: Protocol, port: u16, family: [u8; 4]) -> Message {
    let service = Attributes::new()
        .bytes(CTA_PROTO_NUM, &[protocol.number()])
        .bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
    let tuple = Attributes::new().nest(CTA_TUPLE_PROTO, &service);
    let compared = compare::PROTOCOL | compare::DESTINATION_PORT;
    filtered(family, CTA_TUPLE_ORIG, &tuple, compared)
}

fn filtered(family: [u8; 4], direction: u16, tuple: &Attributes, compared: u32) -> Message {
    let other = CTA_TUPLE_ORIG + CTA_TUPLE_REPLY - direction;
    let filter = Attributes::new().u32(direction, compared).u32(other, 0);
    Message::new(CT_GET, flags::DUMP, &family)
        .nest(direction, tuple)
        .nest(CTA_FILTER, &filter)
}

impl Flow {
    fn parse(reply: &Reply) -> Option<Self> {
        let (mut raw, mut original, mut answer) = (None, None, None);
        for (kind, value) in parse_attributes(reply.body.get(4..)?) {
            match kind {
                CTA_TUPLE_ORIG => {
                    raw = Some(Attributes::with_fixed(value));
                    original = Tuple::parse(value);
                }
                CTA_TUPLE_REPLY => answer = Tuple::parse(value),
                _ => {}
            }
        }
        Some(Self {
            raw: raw?,
            original: original?,
            reply: answer?,
        })
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut source, mut destination) = (None, None);
        let (mut protocol, mut destination_port) = (None, 0);
        for (kind, nested) in parse_attributes(bytes) {
            for (part, value) in parse_attributes(nested) {
                match (kind, part) {
                    (CTA_TUPLE_IP, 1 | 3) => source = address(value),
                    (CTA_TUPLE_IP, 2 | 4) => destination = address(value),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.first().copied(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                        destination_port = u16::from_be_bytes(value.try_into().ok()?);
                    }
                    _ => {}
                }
            }
        }
        Some(Self {
            source: source?,
            destination: destination?,
            protocol: protocol?,
            destination_port,
        })
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}
