//! The sets and maps of our table: their names and types.

/// Names of the sets.
pub(crate) mod name {
    /// Which link may send from which hardware and network address.
    pub(crate) const SOURCES4: &str = "sources4";
    pub(crate) const SOURCES6: &str = "sources6";
    /// A dyno's address twice: it talks to itself.
    pub(crate) const SELF4: &str = "self4";
    pub(crate) const SELF6: &str = "self6";
    /// Published on every address.
    pub(crate) const DNAT4: &str = "dnat4";
    pub(crate) const DNAT6: &str = "dnat6";
    /// Published on one address.
    pub(crate) const DNAT4_AT: &str = "dnat4_at";
    pub(crate) const DNAT6_AT: &str = "dnat6_at";
    /// The keys of the four above: a rule cannot ask a map for presence only.
    pub(crate) const PORTS4: &str = "ports4";
    pub(crate) const PORTS6: &str = "ports6";
    pub(crate) const PORTS4_AT: &str = "ports4_at";
    pub(crate) const PORTS6_AT: &str = "ports6_at";
    /// Where clouds tell machines their secrets.
    pub(crate) const METADATA4: &str = "metadata4";
    pub(crate) const METADATA6: &str = "metadata6";
}

/// The number by which nft, not the kernel, knows a type, for printing.
#[derive(Debug, Clone, Copy)]
enum Type {
    Ipv4 = 7,
    Ipv6 = 8,
    Ether = 9,
    Protocol = 12,
    Service = 13,
    Name = 41,
}

impl Type {
    /// The bytes it takes in registers.
    fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Service => 4,
            Self::Ether => 8,
            Self::Ipv6 | Self::Name => 16,
        }
    }
}

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    key: &'static [Type],
    value: &'static [Type],
}

/// Every set of our table.
pub(crate) const SETS: [Set; 14] = {
    use Type::{Ether, Ipv4, Ipv6, Name, Protocol, Service};
    const fn set(name: &'static str, key: &'static [Type], value: &'static [Type]) -> Set {
        Set { name, key, value }
    }
    [
        set(name::SOURCES4, &[Name, Ether, Ipv4], &[]),
        set(name::SOURCES6, &[Name, Ether, Ipv6], &[]),
        set(name::SELF4, &[Ipv4, Ipv4], &[]),
        set(name::SELF6, &[Ipv6, Ipv6], &[]),
        set(name::PORTS4, &[Protocol, Service], &[]),
        set(name::PORTS6, &[Protocol, Service], &[]),
        set(name::PORTS4_AT, &[Ipv4, Protocol, Service], &[]),
        set(name::PORTS6_AT, &[Ipv6, Protocol, Service], &[]),
        set(name::DNAT4, &[Protocol, Service], &[Ipv4, Service]),
        set(name::DNAT6, &[Protocol, Service], &[Ipv6, Service]),
        set(name::DNAT4_AT, &[Ipv4, Protocol, Service], &[Ipv4, Service]),
        set(name::DNAT6_AT, &[Ipv6, Protocol, Service], &[Ipv6, Service]),
        set(name::METADATA4, &[Ipv4], &[]),
        set(name::METADATA6, &[Ipv6], &[]),
    ]
};

impl Set {
    pub(crate) fn key_length(&self) -> u32 {
        self.key.iter().map(|part| part.length()).sum()
    }

    pub(crate) fn key_type(&self) -> u32 {
        concatenated(self.key)
    }

    /// Type and length of a map's values.
    pub(crate) fn value(&self) -> Option<(u32, u32)> {
        let length = self.value.iter().map(|part| part.length()).sum();
        (length != 0).then(|| (concatenated(self.value), length))
    }
}

/// nft packs the parts of a concatenation into six bits each.
fn concatenated(parts: &[Type]) -> u32 {
    parts
        .iter()
        .fold(0, |packed, &part| packed << 6 | part as u32)
}
