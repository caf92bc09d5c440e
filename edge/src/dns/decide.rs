//! What becomes of a packet, as a pure function of the packet, the client and the tables.

use std::net::IpAddr;
use std::sync::LazyLock;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use ipnet::IpNet;

use super::{DOMAIN, TTL_SECONDS, UDP_PAYLOAD_BYTES};
use crate::tables::{Network, Networks};

/// What to do with a packet.
#[derive(Debug)]
pub enum Decision {
    /// Nothing: it is no query, and an answer could start a loop.
    Ignore,
    /// Answer from the tables.
    Answer(Box<Reply>),
    /// Answer that this is not done here, and why by its response code.
    Refuse(Box<Reply>),
    /// Ask an upstream.
    Forward(Box<Message>),
}

/// An answer made here.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub message: Message,
    /// The longest datagram that the client takes, by its EDNS.
    pub client_payload_bytes: u16,
}

impl Reply {
    fn new(message: Message, request: &Message) -> Box<Self> {
        Box::new(Self {
            message,
            client_payload_bytes: request.max_payload(),
        })
    }
}

static QUALIFIED: LazyLock<Name> =
    LazyLock::new(|| Name::from_ascii(DOMAIN).expect("a constant, and tested"));

/// Decides about `packet` from `client`. `turn` chooses which of several
/// addresses comes first.
#[must_use]
pub fn decide(networks: &Networks, client: IpAddr, packet: &[u8], turn: usize) -> Decision {
    let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else {
        return Decision::Ignore;
    };
    if header.message_type == MessageType::Response {
        return Decision::Ignore;
    }
    let error = |code| {
        let message = Message::error_msg(header.id, header.op_code, code);
        Decision::Refuse(Box::new(Reply {
            message,
            client_payload_bytes: 512,
        }))
    };
    // No open resolver: who is in no network gets nothing, before anything is parsed.
    let Some(network) = networks.of(client) else {
        return error(ResponseCode::Refused);
    };
    if header.op_code != OpCode::Query {
        return error(ResponseCode::NotImp);
    }
    let Ok(request) = Message::from_vec(packet) else {
        return error(ResponseCode::FormErr);
    };
    let [query] = request.queries.as_slice() else {
        return error(ResponseCode::FormErr);
    };
    if let Some(code) = unsupported(&request, query) {
        return Decision::Refuse(Reply::new(reply(&request, code), &request));
    }
    match local(networks, network, query, turn) {
        Some(local) => Decision::Answer(Reply::new(local.into_message(&request, query), &request)),
        None => Decision::Forward(Box::new(request)),
    }
}

/// Requests that neither the tables nor an upstream shall see.
fn unsupported(request: &Message, query: &Query) -> Option<ResponseCode> {
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    let meta = matches!(
        query.query_type(),
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG | RecordType::ZERO
    );
    (meta || query.query_class() != DNSClass::IN).then_some(ResponseCode::Refused)
}

/// An answer from the tables.
struct Local {
    records: Vec<RData>,
    code: ResponseCode,
    /// The zone that denies, where there are no records (RFC 2308).
    zone: Name,
}

/// What the tables say; `None` if it is no matter of theirs.
fn local(networks: &Networks, network: &Network, query: &Query, turn: usize) -> Option<Local> {
    let (name, kind) = (query.name(), query.query_type());
    if kind == RecordType::PTR
        && let Ok(block) = name.parse_arpa_name()
        && block.prefix_len() == block.max_prefix_len()
        && networks.of(block.addr()).is_some()
    {
        return Some(reverse(network, block, name));
    }
    let Some(bare) = strip(name, &QUALIFIED) else {
        // A bare name that only stands above another one is public, or nobody's.
        let addresses = network.addresses(&LowerName::new(name))?;
        return Some(Local::addresses(addresses, kind, turn, name));
    };
    let bare = LowerName::new(&bare);
    Some(match network.addresses(&bare) {
        Some(addresses) => Local::addresses(addresses, kind, turn, &QUALIFIED),
        None if bare.is_root() || network.is_above(&bare) => {
            Local::addresses(&[], kind, turn, &QUALIFIED)
        }
        None => Local {
            records: Vec::new(),
            code: ResponseCode::NXDomain,
            zone: QUALIFIED.clone(),
        },
    })
}

/// `name` without the `domain` at its end.
fn strip(name: &Name, domain: &Name) -> Option<Name> {
    if !domain.zone_of(name) {
        return None;
    }
    let labels = usize::from(name.num_labels()).checked_sub(usize::from(domain.num_labels()))?;
    let mut bare = Name::from_labels(name.iter().take(labels)).ok()?;
    bare.set_fqdn(true);
    Some(bare)
}

fn reverse(network: &Network, address: IpNet, zone: &Name) -> Local {
    let qualify = |name: &Name| name.clone().append_domain(&QUALIFIED).ok();
    let records: Vec<RData> = network
        .names(address.addr())
        .iter()
        .filter_map(qualify)
        .map(|name| RData::PTR(PTR(name)))
        .collect();
    let code = if records.is_empty() {
        ResponseCode::NXDomain
    } else {
        ResponseCode::NoError
    };
    Local {
        records,
        code,
        zone: zone.clone(),
    }
}

/// All addresses, beginning with another one each turn.
fn rotated(addresses: &[IpAddr], turn: usize) -> impl Iterator<Item = &IpAddr> {
    let (tail, head) = addresses.split_at(turn.checked_rem(addresses.len()).unwrap_or(0));
    head.iter().chain(tail)
}

fn data(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => Some(RData::A(A(address))),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => {
            Some(RData::AAAA(AAAA(address)))
        }
        _ => None,
    }
}

impl Local {
    /// Those of the addresses that were asked for; none is no data, not no name.
    fn addresses(addresses: &[IpAddr], kind: RecordType, turn: usize, zone: &Name) -> Self {
        let wanted = |address: &IpAddr| data(*address, kind);
        Self {
            records: rotated(addresses, turn).filter_map(wanted).collect(),
            code: ResponseCode::NoError,
            zone: zone.clone(),
        }
    }

    fn into_message(self, request: &Message, query: &Query) -> Message {
        let mut message = reply(request, self.code);
        message.metadata.authoritative = true;
        let record = |data| Record::from_rdata(query.name().clone(), TTL_SECONDS, data);
        message.add_answers(self.records.into_iter().map(record));
        if message.answers.is_empty() {
            message.add_authority(start_of_authority(self.zone));
        }
        message
    }
}

/// The record that tells a client how long to remember that there is nothing.
fn start_of_authority(zone: Name) -> Record {
    let hour = 3600;
    let soa = SOA::new(
        QUALIFIED.clone(),
        QUALIFIED.clone(),
        1,
        hour,
        hour,
        hour,
        TTL_SECONDS,
    );
    Record::from_rdata(zone, TTL_SECONDS, RData::SOA(soa))
}

/// An empty reply to `request`.
pub(super) fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.checking_disabled = request.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_BYTES);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        message.set_edns(edns);
    }
    message
}

#[cfg(test)]
mod tests;
