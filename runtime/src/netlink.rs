//! Messages to the kernel and from it, netlink(7): those of `net_devices` and of the
//! lock that CRIU leaves on a network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Numbers of `<linux/netlink.h>`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// Links and addresses: protocol 0.
pub(crate) const ROUTE: Option<Protocol> = None;
/// nftables.
pub(crate) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

/// More than the kernel sends at once.
const BUFFER: usize = 64 * 1024;

/// A socket to the kernel.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// One of our own network.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let family = AddressFamily::NETLINK;
        socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map(Self)
    }

    /// A socket belongs to the namespace that it was opened in. Also our own.
    pub(crate) fn open_in(
        namespace: BorrowedFd<'_>,
        protocol: Option<Protocol>,
    ) -> Result<(OwnedFd, Self)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let ours = openat(CWD, "/proc/self/ns/net", flags, Mode::empty())?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, network)?;
        let opened = Self::open(protocol);
        move_into_link_name_space(ours.as_fd(), network)?;
        Ok((ours, opened?))
    }

    /// Sends a request and hands on what comes, up to the end or the acknowledgement.
    pub(crate) fn ask(&self, message: &Message, answer: impl FnMut(&[u8])) -> Result<()> {
        self.ask_all(&[message], answer)
    }

    /// The same for several, of which one is answered.
    pub(crate) fn ask_all(
        &self,
        messages: &[&Message],
        mut answer: impl FnMut(&[u8]),
    ) -> Result<()> {
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.bytes())
            .collect();
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) =
                rustix::io::retry_on_intr(|| recv(&self.0, &mut *buffer, RecvFlags::empty()))?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, body, after)) = next_message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledged(body),
                    _ => answer(body),
                }
                rest = after;
            }
        }
    }
}

/// A request: header, body, attributes.
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Message {
    /// A request of this kind, [`NLM_F_REQUEST`] among its flags.
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            payload: body.to_vec(),
        }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.payload.extend(length.to_ne_bytes());
        self.payload.extend(kind.to_ne_bytes());
        self.payload.extend(value);
        self.payload
            .resize(self.payload.len().next_multiple_of(4), 0);
    }

    /// As the kernel reads it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(&self.payload);
        bytes
    }
}

/// The first message: its type, its body, and what follows it.
pub(crate) fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

fn acknowledged(body: &[u8]) -> Result<()> {
    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}

/// The attributes of a body after so many bytes: kinds and values.
pub(crate) fn attributes(body: &[u8], from: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(from..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_or_lies_about_its_length_ends_the_reading() {
        let mut bytes = Message::new(18, 0, &[0; 16]).bytes();
        assert!(next_message(&bytes[..20]).is_none());
        for length in [0_u32, 15, 1000, u32::MAX] {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(next_message(&bytes).is_none(), "{length}");
        }
        for body in [&[3, 0, 3, 0][..], &[0; 4], &[200, 0, 3, 0, 1], &[5]] {
            assert_eq!(attributes(body, 0).count(), 0, "{body:?}");
        }
    }
}
