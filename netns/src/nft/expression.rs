//! The expressions our rules are made of, and their encoding.
//!
//! A rule is a list of expressions that pass values in registers. Sixteen
//! registers of 32 bits are numbered from 8; a value wider than 32 bits, or a
//! concatenation, lies in consecutive ones. Source of truth:
//! `linux/netfilter/nf_tables.h`.

use crate::netlink::Attributes;

/// The first 32-bit register (`NFT_REG32_00`).
pub(crate) const FIRST: u32 = 8;

/// A 32-bit register, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    fn number(self) -> u32 {
        FIRST + self.0
    }
}

/// What `meta` loads (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    InName = 6,
    OutName = 7,
    InType = 8,
    Family = 15,
    Protocol = 16,
    InGroup = 21,
    OutGroup = 22,
}

/// A field of a packet: base header, offset and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    base: u32,
    offset: u32,
    pub(crate) length: u32,
}

impl Field {
    /// The field's first bytes.
    pub(crate) fn first(self, bytes: u8) -> Self {
        Self {
            length: bytes.into(),
            ..self
        }
    }
}

/// Fields of the headers that our rules look at.
pub(crate) mod field {
    use super::Field;

    const LINK: u32 = 0;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;

    const fn at(base: u32, offset: u32, length: u32) -> Field {
        Field {
            base,
            offset,
            length,
        }
    }

    pub(crate) const ETHER_SOURCE: Field = at(LINK, 6, 6);
    pub(crate) const ETHER_TYPE: Field = at(LINK, 12, 2);
    pub(crate) const IP_SOURCE: Field = at(NETWORK, 12, 4);
    pub(crate) const IP_DESTINATION: Field = at(NETWORK, 16, 4);
    pub(crate) const IP6_SOURCE: Field = at(NETWORK, 8, 16);
    pub(crate) const IP6_DESTINATION: Field = at(NETWORK, 24, 16);
    pub(crate) const DESTINATION_PORT: Field = at(TRANSPORT, 2, 2);
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta {
        key: Meta,
        into: Register,
    },
    Payload {
        field: Field,
        into: Register,
    },
    /// Writes a register into the packet and mends the checksums. The IPv4
    /// header has one of its own at this offset.
    SetPayload {
        field: Field,
        from: Register,
        checksum: Option<u32>,
    },
    /// `fib daddr type`: the kind of route to the destination.
    DestinationType {
        into: Register,
    },
    /// `ct state`.
    ConntrackState {
        into: Register,
    },
    /// `ct status`.
    ConntrackStatus {
        into: Register,
    },
    And {
        register: Register,
        mask: Vec<u8>,
    },
    Compare {
        register: Register,
        equal: bool,
        value: Vec<u8>,
    },
    /// In a set; or, with a register for it, the value of a map.
    Lookup {
        set: &'static str,
        key: Register,
        value: Option<Register>,
    },
    Load {
        into: Register,
        value: Vec<u8>,
    },
    /// `snat` to an address, `dnat` to an address and a port.
    Nat {
        source: bool,
        ipv6: bool,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// `reject with icmpx admin-prohibited`.
    Reject,
    Verdict(Verdict),
}

impl Expression {
    /// The expression as an element of `NFTA_RULE_EXPRESSIONS`.
    pub(crate) fn encode(&self) -> Attributes {
        let (name, data) = self.parts();
        Attributes::new().string(1, name).nest(2, &data)
    }

    fn parts(&self) -> (&'static str, Attributes) {
        let data = Attributes::new();
        match self {
            Self::Meta { key, into } => ("meta", data.be32(2, *key as u32).be32(1, into.number())),
            Self::Payload { field, into } => ("payload", load_field(*field, *into)),
            Self::SetPayload {
                field,
                from,
                checksum,
            } => ("payload", store_field(*field, *from, *checksum)),
            Self::DestinationType { into } => (
                // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR
                "fib",
                data.be32(3, 2).be32(2, 3).be32(1, into.number()),
            ),
            Self::ConntrackState { into } => ("ct", data.be32(2, 0).be32(1, into.number())),
            Self::ConntrackStatus { into } => ("ct", data.be32(2, 2).be32(1, into.number())),
            Self::And { register, mask } => ("bitwise", mask_register(*register, mask)),
            Self::Compare {
                register,
                equal,
                value,
            } => (
                "cmp",
                data.be32(1, register.number())
                    .be32(2, u32::from(!equal))
                    .nest(3, &self::value(value)),
            ),
            Self::Lookup { set, key, value } => {
                let lookup = data.string(1, set).be32(2, key.number());
                ("lookup", optional(lookup, 3, *value))
            }
            Self::Load { into, value } => (
                "immediate",
                data.be32(1, into.number()).nest(2, &self::value(value)),
            ),
            Self::Nat {
                source,
                ipv6,
                address,
                port,
            } => {
                let nat = data
                    .be32(1, u32::from(!source))
                    .be32(2, if *ipv6 { 10 } else { 2 })
                    .be32(3, address.number());
                ("nat", optional(nat, 5, *port))
            }
            Self::Masquerade => ("masq", data),
            Self::Reject => ("reject", data.be32(1, 2).bytes(2, &[3])),
            Self::Verdict(verdict) => ("immediate", verdict_data(verdict)),
        }
    }
}

/// `NFTA_DATA_VALUE`.
pub(crate) fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

fn optional(list: Attributes, kind: u16, register: Option<Register>) -> Attributes {
    match register {
        Some(register) => list.be32(kind, register.number()),
        None => list,
    }
}

fn load_field(field: Field, into: Register) -> Attributes {
    Attributes::new()
        .be32(1, into.number())
        .be32(2, field.base)
        .be32(3, field.offset)
        .be32(4, field.length)
}

fn store_field(field: Field, from: Register, checksum: Option<u32>) -> Attributes {
    const CHECKSUM_INET: u32 = 1;
    const PSEUDO_HEADER: u32 = 1;
    Attributes::new()
        .be32(5, from.number())
        .be32(2, field.base)
        .be32(3, field.offset)
        .be32(4, field.length)
        .be32(6, checksum.map_or(0, |_| CHECKSUM_INET))
        .be32(7, checksum.unwrap_or(0))
        .be32(8, PSEUDO_HEADER)
}

fn mask_register(register: Register, mask: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    Attributes::new()
        .be32(1, register.number())
        .be32(2, register.number())
        .be32(3, length)
        .nest(4, &value(mask))
        .nest(5, &value(&vec![0; mask.len()]))
}

fn verdict_data(verdict: &Verdict) -> Attributes {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Return => (-5, None),
    };
    let mut inner = Attributes::new().be32(1, code.cast_unsigned());
    if let Some(chain) = chain {
        inner = inner.string(2, chain);
    }
    // NFT_REG_VERDICT
    Attributes::new()
        .be32(1, 0)
        .nest(2, &Attributes::new().nest(2, &inner))
}
