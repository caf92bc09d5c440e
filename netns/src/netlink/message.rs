//! The wire format: a header, a fixed part, and attributes inside attributes.
//!
//! Lengths and fixed parts are in the machine's byte order; what an attribute
//! holds is its own affair. Source of truth: `netlink(7)`, `linux/netlink.h`.

use super::flags;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of type `kind`; `NLM_F_REQUEST` is added to `flags`.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]); // sequence number and port id
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Self { bytes }
    }

    /// An attribute of raw bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.bytes, kind, value);
        self
    }

    /// An attribute that holds a number in the machine's byte order.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// An attribute that holds a number in network byte order, as nftables
    /// wants it.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute that holds a zero-terminated string.
    pub(crate) fn string(mut self, kind: u16, value: &str) -> Self {
        put_string(&mut self.bytes, kind, value);
        self
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.bytes)
    }

    /// The finished request, appended to `batch`.
    pub(crate) fn finish(mut self, sequence: u32, batch: &mut Vec<u8>) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        batch.extend_from_slice(&self.bytes);
    }

    /// Asks for an acknowledgement.
    pub(crate) fn acknowledged(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags::ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Everything after the header, as the kernel would read it.
    #[cfg(test)]
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[16..]
    }
}

/// A list of attributes, for [`Message::nest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A fixed part before the first attribute, as in `VETH_INFO_PEER`.
    pub(crate) fn with_fixed(fixed: &[u8]) -> Self {
        let mut bytes = fixed.to_vec();
        pad(&mut bytes);
        Self { bytes }
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.bytes, kind, value);
        self
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn string(mut self, kind: u16, value: &str) -> Self {
        put_string(&mut self.bytes, kind, value);
        self
    }

    pub(crate) fn nest(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.bytes)
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The attributes in `bytes`, in order; stops at the first that is cut short.
pub(crate) fn parse_attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    put_header(bytes, kind, value.len());
    bytes.extend_from_slice(value);
    pad(bytes);
}

fn put_string(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    put_header(bytes, kind, value.len() + 1);
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(0);
    pad(bytes);
}

/// # Panics
/// If the value does not fit: callers keep lists below 64 KiB.
fn put_header(bytes: &mut Vec<u8>, kind: u16, length: usize) {
    let length = u16::try_from(length + 4).expect("an attribute is shorter than 64 KiB");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_round_trip() {
        let inner = Attributes::new().u32(2, 7).string(3, "abc");
        let message = Message::new(16, 0, &[1, 2, 3])
            .nest(1, &inner)
            .bytes(9, b"xy");
        let outer: Vec<_> = parse_attributes(&message.body()[4..]).collect();
        assert_eq!(outer.len(), 2);
        assert_eq!(outer[0].0, 1);
        assert_eq!(outer[1], (9, &b"xy"[..]));
        let inner: Vec<_> = parse_attributes(outer[0].1).collect();
        assert_eq!(inner, [(2, &7u32.to_ne_bytes()[..]), (3, &b"abc\0"[..])]);
    }

    #[test]
    fn attribute_cut_short_ends_the_list() {
        let whole = Attributes::new().u32(1, 1).u32(2, 2);
        for cut in 8..16 {
            assert_eq!(
                parse_attributes(&whole.as_bytes()[..cut]).count(),
                1,
                "{cut}"
            );
        }
        assert_eq!(
            parse_attributes(&[2, 0, 1, 0]).count(),
            0,
            "shorter than its header"
        );
    }
}
