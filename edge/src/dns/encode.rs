//! Messages to bytes, within what the client can take.

use hickory_proto::ProtoError;
use hickory_proto::op::Message;

use super::UDP_PAYLOAD_BYTES;

/// How a client is reached, and so how long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// Datagrams of at most this many bytes.
    Udp(u16),
    /// A stream: anything that its length field can say.
    Tcp,
}

impl Transport {
    /// Over UDP to a client that takes this much, up to our own bound.
    pub(super) fn udp(client_payload_bytes: u16) -> Self {
        Self::Udp(client_payload_bytes.clamp(512, UDP_PAYLOAD_BYTES))
    }

    /// The longest answer in bytes.
    pub(super) fn max_bytes(self) -> usize {
        match self {
            Self::Udp(bytes) => usize::from(bytes),
            Self::Tcp => usize::from(u16::MAX),
        }
    }
}

/// Encodes `message`; where it does not fit, without its records and with the
/// truncation bit, so that the client comes back over TCP.
pub(super) fn encode(message: &Message, transport: Transport) -> Result<Vec<u8>, ProtoError> {
    let bytes = message.to_vec()?;
    if bytes.len() <= transport.max_bytes() {
        Ok(bytes)
    } else {
        message.truncate().to_vec()
    }
}
