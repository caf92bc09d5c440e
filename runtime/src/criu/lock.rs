//! The lock of a network: while connections are saved CRIU has an nftables table drop
//! every packet, in the whole namespace.
//!
//! Of a network that the container has joined it stays, for nobody but the container's
//! processes to hear that they are gone; `criu restore` takes it away again. But
//! CRIU 3.17 looks for it by the number of the process that was saved, and the one that
//! is restored has another. So the table is known here by being new after a dump.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};

use crate::netlink::{Message, NETFILTER, NLM_F_ACK, NLM_F_DUMP, Netlink, attributes};

/// Numbers of `<linux/netfilter/nfnetlink.h>` and `<linux/netfilter/nf_tables.h>`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFT: u16 = 10;
const GET_TABLE: u16 = NFT << 8 | 1;
const DELETE_TABLE: u16 = NFT << 8 | 2;
const TABLE_NAME: u16 = 1;
/// `struct nfgenmsg` of the family inet, and one of a batch, whose number is big-endian.
const INET: [u8; 4] = [1, 0, 0, 0];
const BATCH: [u8; 4] = [0, 0, 0, 10];

/// How the name of the table begins.
const NAME: &str = "CRIU";

/// The tables of CRIU's in this network.
pub(crate) fn tables(network: BorrowedFd<'_>) -> Result<Vec<String>> {
    let (_ours, netlink) = Netlink::open_in(network, NETFILTER)?;
    let mut names = Vec::new();
    netlink.ask(&Message::new(GET_TABLE, NLM_F_DUMP, &INET), |body| {
        let name = attributes(body, INET.len()).find(|(kind, _)| *kind == TABLE_NAME);
        let name = name.map(|(_, name)| String::from_utf8_lossy(name).into_owned());
        let name = name.map(|name| name.trim_end_matches('\0').to_owned());
        names.extend(name.filter(|name| name.starts_with(NAME)));
    })?;
    Ok(names)
}

/// Lets packets pass again. A table that is gone is no failure.
pub(crate) fn release(network: BorrowedFd<'_>, table: &str) -> Result<()> {
    let (_ours, netlink) = Netlink::open_in(network, NETFILTER)?;
    let begin = Message::new(BATCH_BEGIN, 0, &BATCH);
    let mut delete = Message::new(DELETE_TABLE, NLM_F_ACK, &INET);
    delete.attribute(TABLE_NAME, &[table.as_bytes(), &[0]].concat());
    let end = Message::new(BATCH_END, 0, &BATCH);
    match netlink.ask_all(&[&begin, &delete, &end], |_| {}) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
