//! Network devices of the host, moved into a container's network namespace
//! (`linux.netDevices`) by netlink, `rtnetlink(7)`.
//!
//! The kernel keeps hardware address and MTU over a move, and forgets the IP
//! addresses: the permanent ones of global scope are given again. The few
//! messages are laid out here; a crate for them would be larger than the rest.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A device by its name on the host, and that in the container, which may be a
/// template such as `eth%d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetDevice {
    pub(crate) host: String,
    pub(crate) inside: String,
}

/// Why a device could not be moved.
#[derive(Debug, thiserror::Error)]
#[error("linux.netDevices: could not {what} {device:?}")]
pub struct NetDeviceError {
    /// The operation.
    what: &'static str,
    /// The device's name on the host.
    device: String,
    /// The kernel's answer.
    source: Errno,
}

/// Devices that were moved, to be moved back if their container is not made.
#[derive(Debug)]
pub(crate) struct Moved {
    host: OwnedFd,
    outside: Netlink,
    inside: Netlink,
    devices: Vec<Taken>,
}

/// A device that was moved, and what it was before.
#[derive(Debug)]
struct Taken {
    /// Its index inside.
    index: u32,
    /// Its name on the host.
    name: String,
    was_up: bool,
    addresses: Vec<Address>,
}

/// Moves devices into a network namespace. It takes all of them or none.
pub(crate) fn move_into(
    namespace: BorrowedFd<'_>,
    devices: &[NetDevice],
) -> std::result::Result<Moved, NetDeviceError> {
    let all = |source| NetDeviceError {
        what: "reach the network namespaces for",
        device: devices
            .first()
            .map_or_else(String::new, |device| device.host.clone()),
        source,
    };
    let outside = Netlink::open().map_err(all)?;
    let (host, inside) = Netlink::open_in(namespace).map_err(all)?;
    let mut moved = Moved {
        host,
        outside,
        inside,
        devices: Vec::new(),
    };
    for device in devices {
        if let Err(error) = moved.take(device, namespace) {
            moved.give_back();
            return Err(error);
        }
    }
    Ok(moved)
}

impl Moved {
    fn take(
        &mut self,
        device: &NetDevice,
        namespace: BorrowedFd<'_>,
    ) -> std::result::Result<(), NetDeviceError> {
        let failed = |what| {
            let device = device.host.clone();
            move |source| NetDeviceError {
                what,
                device,
                source,
            }
        };
        let before = self.inside.links().map_err(failed("look for"))?;
        let taken = before.iter().any(|link| link.name == device.inside);
        let links = self.outside.links().map_err(failed("look for"))?;
        let Some(link) = links.into_iter().find(|link| link.name == device.host) else {
            // An init before this one had it moved.
            return match taken {
                true => Ok(()),
                false => Err(failed("find")(Errno::NODEV)),
            };
        };
        if taken {
            return Err(failed("name as another is inside,")(Errno::EXIST));
        }
        let addresses = self
            .outside
            .addresses(link.index)
            .map_err(failed("read the addresses of"))?;
        self.outside
            .hand_over(link.index, &device.inside, namespace)
            .map_err(failed("move"))?;
        let after = self.inside.links().map_err(failed("find after its move"))?;
        let new = |link: &&Link| before.iter().all(|other| other.index != link.index);
        let index = after.iter().find(new).map(|link| link.index);
        let index = index
            .ok_or(Errno::NODEV)
            .map_err(failed("find after its move"))?;
        self.devices.push(Taken {
            index,
            name: device.host.clone(),
            was_up: link.is_up,
            addresses: addresses.clone(),
        });
        for address in &addresses {
            let added = self.inside.add_address(index, address);
            added.map_err(failed("give its addresses to"))?;
        }
        self.inside.bring_up(index).map_err(failed("bring up"))
    }

    /// As it was before. There is an error already that counts more than one here.
    pub(crate) fn give_back(self) {
        for taken in &self.devices {
            self.return_one(taken).ok();
        }
    }

    fn return_one(&self, taken: &Taken) -> Result<()> {
        let host = self.host.as_fd();
        self.inside.hand_over(taken.index, &taken.name, host)?;
        let mut links = self.outside.links()?.into_iter();
        let link = links.find(|link| link.name == taken.name);
        let index = link.ok_or(Errno::NODEV)?.index;
        for address in &taken.addresses {
            self.outside.add_address(index, address)?;
        }
        match taken.was_up {
            true => self.outside.bring_up(index),
            false => Ok(()),
        }
    }
}

/// Numbers of `<linux/netlink.h>`, `<linux/rtnetlink.h>`, `<linux/if_link.h>`
/// and `<linux/if_addr.h>`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u8 = 0x80;
const IFF_UP: u32 = 1;
/// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// More than the kernel sends at once.
const BUFFER: usize = 64 * 1024;

#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    is_up: bool,
}

/// An address as the kernel told it.
#[derive(Debug, Clone)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A socket to the kernel's routing tables.
#[derive(Debug)]
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> Result<Self> {
        let family = AddressFamily::NETLINK;
        // Protocol 0 is NETLINK_ROUTE.
        socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// A socket belongs to the namespace that it was opened in. Also our own.
    fn open_in(namespace: BorrowedFd<'_>) -> Result<(OwnedFd, Self)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let ours = openat(CWD, "/proc/self/ns/net", flags, Mode::empty())?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, network)?;
        let opened = Self::open();
        move_into_link_name_space(ours.as_fd(), network)?;
        Ok((ours, opened?))
    }

    fn links(&self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.ask(&Message::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK]), |body| {
            let number = |at: usize| {
                let bytes = body.get(at..at + 4)?.try_into().ok()?;
                Some(u32::from_ne_bytes(bytes))
            };
            let name = attributes(body, LINK).find(|(kind, _)| *kind == IFLA_IFNAME);
            if let (Some(index), Some(flags), Some((_, name))) = (number(4), number(8), name) {
                let name = name.strip_suffix(&[0]).unwrap_or(name);
                links.push(Link {
                    index,
                    name: String::from_utf8_lossy(name).into_owned(),
                    is_up: flags & IFF_UP != 0,
                });
            }
        })?;
        Ok(links)
    }

    /// The permanent addresses of global scope.
    fn addresses(&self, of: u32) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.ask(
            &Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS]),
            |body| {
                let &[family, prefix, flags, scope, a, b, c, d, ..] = body else {
                    return;
                };
                let global = scope == 0 && flags & IFA_F_PERMANENT != 0;
                if global && u32::from_ne_bytes([a, b, c, d]) == of {
                    let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS];
                    let attributes = attributes(body, ADDRESS);
                    let attributes = attributes.filter(|(kind, _)| kept.contains(kind));
                    addresses.push(Address {
                        family,
                        prefix,
                        attributes: attributes
                            .map(|(kind, value)| (kind, value.to_vec()))
                            .collect(),
                    });
                }
            },
        )?;
        Ok(addresses)
    }

    fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let [a, b, c, d] = index.to_ne_bytes();
        let body = [
            address.family,
            address.prefix,
            IFA_F_PERMANENT,
            0,
            a,
            b,
            c,
            d,
        ];
        let mut message = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE, &body);
        for (kind, value) in &address.attributes {
            message.attribute(*kind, value);
        }
        self.ask(&message, |_| {})
    }

    fn hand_over(&self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_body(index, 0));
        let namespace = namespace.as_raw_fd().to_ne_bytes();
        message.attribute(IFLA_NET_NS_FD, &namespace);
        message.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.ask(&message, |_| {})
    }

    fn bring_up(&self, index: u32) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_body(index, IFF_UP));
        self.ask(&message, |_| {})
    }

    /// Sends a request and hands on what comes, up to the end or the acknowledgement.
    fn ask(&self, message: &Message, mut answer: impl FnMut(&[u8])) -> Result<()> {
        send(&self.0, &message.bytes(), SendFlags::empty())?;
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

fn link_body(index: u32, up: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&up.to_ne_bytes());
    body[12..16].copy_from_slice(&up.to_ne_bytes());
    body
}

/// A request: header, body, attributes.
struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            payload: body.to_vec(),
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.payload.extend(length.to_ne_bytes());
        self.payload.extend(kind.to_ne_bytes());
        self.payload.extend(value);
        self.payload
            .resize(self.payload.len().next_multiple_of(4), 0);
    }

    fn bytes(&self) -> Vec<u8> {
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
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
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

fn attributes(body: &[u8], from: usize) -> impl Iterator<Item = (u16, &[u8])> {
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
    fn a_message_is_read_as_it_was_written() {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_body(7, IFF_UP));
        message.attribute(IFLA_IFNAME, b"eth0\0");
        message.attribute(IFLA_NET_NS_FD, &5_u32.to_ne_bytes());
        let bytes = message.bytes();
        let (kind, body, after) = next_message(&bytes).unwrap();
        assert_eq!((kind, after.len()), (RTM_NEWLINK, 0));
        let found: Vec<_> = attributes(body, LINK).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (28, &5_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_ends_the_reading() {
        let mut bytes = Message::new(RTM_GETLINK, 0, &[0; LINK]).bytes();
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
