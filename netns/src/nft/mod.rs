//! nftables: our table as data, its encoding, and the transactions that put
//! it into the kernel.

mod expression;
mod read;
mod rules;
mod ruleset;
mod sets;
mod table;

pub(crate) use read::{BaseChain, base_chains};
pub(crate) use rules::Rules;
use ruleset::{Chain, Rule, chains};
pub(crate) use sets::Elements;

/// `NFT_MSG_*` of `linux/netfilter/nf_tables.h`, with the subsystem's number
/// in the upper byte.
mod kind {
    const NFTABLES: u16 = 10 << 8;
    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    pub(super) const NEW_TABLE: u16 = NFTABLES;
    pub(super) const DEL_TABLE: u16 = NFTABLES | 2;
    pub(super) const NEW_CHAIN: u16 = NFTABLES | 3;
    pub(super) const GET_CHAIN: u16 = NFTABLES | 4;
    pub(super) const NEW_RULE: u16 = NFTABLES | 6;
    pub(super) const GET_RULE: u16 = NFTABLES | 7;
    pub(super) const NEW_SET: u16 = NFTABLES | 9;
    pub(super) const GET_SET: u16 = NFTABLES | 10;
    pub(super) const NEW_ELEMENT: u16 = NFTABLES | 12;
    pub(super) const GET_ELEMENT: u16 = NFTABLES | 13;
    pub(super) const DEL_ELEMENT: u16 = NFTABLES | 14;
    pub(super) const GET_GENERATION: u16 = NFTABLES | 16;
}

/// The family of our table: one set of rules for IPv4 and IPv6.
const INET: u8 = 1;

/// `struct nfgenmsg`, the fixed part of every message.
fn family(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}
