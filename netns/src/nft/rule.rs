//! One rule, built match by match in the order in which nft writes it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{Expression, Field, Meta, Register, Verdict, field};
use crate::model::Config;

/// A list of expressions; each must match for the next to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) expressions: Vec<Expression>,
}

/// Where every single value is loaded.
pub(super) const R0: Register = Register(0);

const ARPHRD_ETHER: u16 = 1;

impl Rule {
    pub(super) fn then(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        self.then(Expression::Verdict(verdict))
    }

    pub(super) fn compare(self, register: Register, value: &[u8]) -> Self {
        self.then(Expression::Compare {
            register,
            equal: true,
            value: value.to_vec(),
        })
    }

    pub(super) fn compare_meta(self, key: Meta, value: &[u8]) -> Self {
        self.then(Expression::Meta { key, into: R0 })
            .compare(R0, value)
    }

    pub(super) fn compare_field(self, field: Field, value: &[u8]) -> Self {
        self.load(field).compare(R0, value)
    }

    pub(super) fn load(self, field: Field) -> Self {
        self.then(Expression::Payload { field, into: R0 })
    }

    pub(super) fn ipv4(self) -> Self {
        self.compare_meta(Meta::Family, &[2])
    }

    pub(super) fn ipv6(self) -> Self {
        self.compare_meta(Meta::Family, &[10])
    }

    pub(super) fn family(self, address: &IpAddr) -> Self {
        if address.is_ipv4() {
            self.ipv4()
        } else {
            self.ipv6()
        }
    }

    /// The link is (or is not) one of this host's.
    pub(super) fn group(self, key: Meta, equal: bool, config: &Config) -> Self {
        let value = config.host.group().to_ne_bytes().to_vec();
        self.then(Expression::Meta { key, into: R0 })
            .then(Expression::Compare {
                register: R0,
                equal,
                value,
            })
    }

    pub(super) fn not_loopback(self, key: Meta) -> Self {
        let mut value = b"lo".to_vec();
        value.resize(16, 0);
        self.then(Expression::Meta { key, into: R0 })
            .then(Expression::Compare {
                register: R0,
                equal: false,
                value,
            })
    }

    pub(super) fn address(self, field: Field, address: IpAddr) -> Self {
        self.compare_field(field, &octets(address))
    }

    /// The address is in the net; a prefix of whole bytes is compared as such.
    pub(super) fn within(self, field: Field, net: IpNet) -> Self {
        let network = octets(net.network());
        if net.prefix_len().is_multiple_of(8) {
            let prefix = &network[..usize::from(net.prefix_len() / 8)];
            return self.compare_field(field.first(net.prefix_len() / 8), prefix);
        }
        self.load(field)
            .then(Expression::And {
                register: R0,
                mask: octets(net.netmask()),
            })
            .compare(R0, &network)
    }

    pub(super) fn state(self, bits: u32) -> Self {
        self.bits(Expression::ConntrackState { into: R0 }, bits)
    }

    /// Some of the bits that an expression loads are set.
    pub(super) fn bits(self, load: Expression, bits: u32) -> Self {
        self.then(load)
            .then(Expression::And {
                register: R0,
                mask: bits.to_ne_bytes().to_vec(),
            })
            .then(Expression::Compare {
                register: R0,
                equal: false,
                value: 0u32.to_ne_bytes().to_vec(),
            })
    }

    /// `iifname . ether saddr . ip saddr` from register 0 on.
    pub(super) fn link_and_source(self, ethertype: u16, source: Field) -> Self {
        self.compare_meta(Meta::InType, &ARPHRD_ETHER.to_ne_bytes())
            .compare_field(field::ETHER_TYPE, &ethertype.to_be_bytes())
            .then(Expression::Meta {
                key: Meta::InName,
                into: R0,
            })
            .then(Expression::Payload {
                field: field::ETHER_SOURCE,
                into: Register(4),
            })
            .then(Expression::Payload {
                field: source,
                into: Register(6),
            })
    }

    /// `ip saddr . ip daddr` from register 0 on.
    pub(super) fn both_addresses(self, family: &IpAddr) -> Self {
        let source = source(family);
        self.load(source).then(Expression::Payload {
            field: destination(family),
            into: Register(source.length / 4),
        })
    }

    /// `[ip daddr .] meta l4proto . th dport` from register 0 on.
    pub(super) fn service(self, at: Option<Field>) -> Self {
        let first = at.map_or(0, |field| field.length / 4);
        let rule = match at {
            Some(field) => self.load(field),
            None => self,
        };
        rule.then(Expression::Meta {
            key: Meta::Protocol,
            into: Register(first),
        })
        .then(Expression::Payload {
            field: field::DESTINATION_PORT,
            into: Register(first + 1),
        })
    }

    pub(super) fn found(self, set: &'static str) -> Self {
        self.then(Expression::Lookup {
            set,
            key: R0,
            value: None,
        })
    }

    /// `dnat` to what the map holds for the service in register 0.
    pub(super) fn translate(self, map: &'static str, ipv6: bool) -> Self {
        let port = Register(if ipv6 { 4 } else { 1 });
        self.then(Expression::Lookup {
            set: map,
            key: R0,
            value: Some(R0),
        })
        .then(Expression::Nat {
            source: false,
            ipv6,
            address: R0,
            port: Some(port),
        })
    }

    pub(super) fn source_nat(self, address: IpAddr) -> Self {
        self.then(Expression::Load {
            into: R0,
            value: octets(address),
        })
        .then(Expression::Nat {
            source: true,
            ipv6: address.is_ipv6(),
            address: R0,
            port: None,
        })
    }

    pub(super) fn rewrite(self, field: Field, address: IpAddr) -> Self {
        const IP_CHECKSUM: u32 = 10;
        self.then(Expression::Load {
            into: R0,
            value: octets(address),
        })
        .then(Expression::SetPayload {
            field,
            from: R0,
            checksum: address.is_ipv4().then_some(IP_CHECKSUM),
        })
    }
}

pub(super) fn source(family: &IpAddr) -> Field {
    if family.is_ipv4() {
        field::IP_SOURCE
    } else {
        field::IP6_SOURCE
    }
}

pub(super) fn destination(family: &IpAddr) -> Field {
    if family.is_ipv4() {
        field::IP_DESTINATION
    } else {
        field::IP6_DESTINATION
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
