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

/// A socket for the flow table of its network namespace.
#[derive(Debug)]
pub(crate) struct Conntrack {
    socket: Socket,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
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
        const GET_STATISTICS: u16 = 1 << 8 | 5;
        const OPERATION: &str = "read the flow statistics";
        let socket = Socket::open(Some(NETFILTER)).map_err(|source| Error::Netlink {
            operation: "open a conntrack socket".to_owned(),
            source,
        })?;
        let mut conntrack = Self { socket };
        let probe = || Message::new(GET_STATISTICS, 0, &family(false));
        match once_loaded(|| conntrack.socket.request(OPERATION, [probe()])) {
            Ok(_) => Ok(Some(conntrack)),
            Err(Error::Netlink { source, .. }) if is_unsupported(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets flows.
    pub(crate) fn forget(&mut self, stale: &[Stale]) -> Result<()> {
        for stale in stale {
            match *stale {
                Stale::Address(address) => {
                    let from = of_source(address);
                    self.delete(address.is_ipv6(), CTA_TUPLE_ORIG, &from, |_, _| true)?;
                    self.delete(address.is_ipv6(), CTA_TUPLE_REPLY, &from, |_, _| true)?;
                }
                Stale::Unpublished {
                    protocol,
                    port,
                    backend,
                } => {
                    let to = to_service(protocol, port);
                    self.delete(backend.is_ipv6(), CTA_TUPLE_ORIG, &to, |original, reply| {
                        reply.source == backend && original.destination != backend
                    })?;
                }
                Stale::Published {
                    protocol,
                    port,
                    ipv6,
                } => {
                    let to = to_service(protocol, port);
                    // Not translated at all: a flow of this machine's own.
                    self.delete(ipv6, CTA_TUPLE_ORIG, &to, |original, reply| {
                        reply.source == original.destination && reply.destination == original.source
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Deletes the flows that the kernel's filter lets through and the
    /// predicate, of original and reply direction, confirms.
    fn delete(
        &mut self,
        ipv6: bool,
        direction: u16,
        (tuple, compared): &(Attributes, u32),
        confirm: impl Fn(Tuple, Tuple) -> bool,
    ) -> Result<()> {
        const OPERATION: &str = "list flows";
        let filter = Attributes::new().u32(direction, *compared);
        let other = CTA_TUPLE_ORIG + CTA_TUPLE_REPLY - direction;
        let request = Message::new(CT_GET, flags::DUMP, &family(ipv6))
            .nest(direction, tuple)
            .nest(CTA_FILTER, &filter.u32(other, 0));
        for reply in self.socket.dump(OPERATION, &request)? {
            let Some((raw, original, answer)) = parse(&reply) else {
                continue;
            };
            if confirm(original, answer) {
                self.delete_one(ipv6, &raw)?;
            }
        }
        Ok(())
    }

    fn delete_one(&mut self, ipv6: bool, original: &Attributes) -> Result<()> {
        let request = Message::new(CT_DELETE, 0, &family(ipv6)).nest(CTA_TUPLE_ORIG, original);
        match self.socket.request("forget a flow", [request]) {
            // It ended by itself meanwhile.
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other.map(drop),
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

fn family(ipv6: bool) -> [u8; 4] {
    [if ipv6 { 10 } else { 2 }, 0, 0, 0]
}

fn of_source(address: IpAddr) -> (Attributes, u32) {
    let ip = match address {
        IpAddr::V4(address) => Attributes::new().bytes(1, &address.octets()),
        IpAddr::V6(address) => Attributes::new().bytes(3, &address.octets()),
    };
    (Attributes::new().nest(CTA_TUPLE_IP, &ip), compare::SOURCE)
}

fn to_service(protocol: Protocol, port: u16) -> (Attributes, u32) {
    let service = Attributes::new()
        .bytes(1, &[protocol.number()])
        .bytes(3, &port.to_be_bytes());
    (
        Attributes::new().nest(CTA_TUPLE_PROTO, &service),
        compare::PROTOCOL | compare::DESTINATION_PORT,
    )
}

/// The original direction as it came, and both directions.
fn parse(reply: &Reply) -> Option<(Attributes, Tuple, Tuple)> {
    let (mut raw, mut original, mut answer) = (None, None, None);
    for (kind, value) in parse_attributes(reply.body.get(4..)?) {
        match kind {
            CTA_TUPLE_ORIG => {
                raw = Some(Attributes::with_fixed(value));
                original = tuple(value);
            }
            CTA_TUPLE_REPLY => answer = tuple(value),
            _ => {}
        }
    }
    Some((raw?, original?, answer?))
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (_, addresses) = parse_attributes(bytes).find(|(kind, _)| *kind == CTA_TUPLE_IP)?;
    let (mut source, mut destination) = (None, None);
    for (kind, value) in parse_attributes(addresses) {
        let address = match value.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
            _ => continue,
        };
        match kind {
            1 | 3 => source = Some(address),
            2 | 4 => destination = Some(address),
            _ => {}
        }
    }
    Some(Tuple {
        source: source?,
        destination: destination?,
    })
}
