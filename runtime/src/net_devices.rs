//! Network devices of the host, moved into a container's network namespace
//! (`linux.netDevices`) by netlink, `rtnetlink(7)`.
//!
//! The kernel keeps hardware address and MTU over a move, and forgets the IP
//! addresses: the permanent ones of global scope are given again. The few
//! messages are laid out here; a crate for them would be larger than the rest.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::netlink::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, Netlink, ROUTE, attributes};

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
    let outside = Netlink::open(ROUTE).map_err(all)?;
    let (host, inside) = Netlink::open_in(namespace, ROUTE).map_err(all)?;
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

/// Numbers of `<linux/rtnetlink.h>`, `<linux/if_link.h>`
/// and `<linux/if_addr.h>`.
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

impl Netlink {
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
}

fn link_body(index: u32, up: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&up.to_ne_bytes());
    body[12..16].copy_from_slice(&up.to_ne_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::next_message;

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
}
