//! Netlink: the wire format (pure) and a synchronous socket.

mod loading;
mod message;
mod socket;

pub(crate) use loading::once_loaded;
pub(crate) use message::{Attributes, Message, parse_attributes};
pub(crate) use socket::{Reply, Socket};

/// `NLM_F_*` of `linux/netlink.h`.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}
