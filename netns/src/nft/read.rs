//! What the kernel says about nft tables, ours and other people's.

use super::elements::Contents;
use super::table::is_missing;
use super::{INET, family, kind};
use crate::error::Result;
use crate::netlink::{Message, Reply, Socket, flags, parse_attributes};

/// Chains, sets and rules of a table in the kernel's own words, without the
/// parts that change by themselves (handles and use counts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(super) Vec<Vec<(u16, Vec<u8>)>>);

/// A chain that the kernel calls by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) hook: u32,
    pub(crate) drops: bool,
}

/// Reads a table's chains, sets and rules; `None` if it is not there.
pub(super) fn fingerprint(socket: &mut Socket, table: &str) -> Result<Option<Fingerprint>> {
    // (what to list, where its table's name is, what describes it)
    const PARTS: [(u16, &[u16]); 3] = [
        (kind::GET_CHAIN, &[3, 4, 5, 7]),     // name, hook, policy, type
        (kind::GET_SET, &[2, 3, 4, 5, 6, 7]), // name, flags, key, value
        (kind::GET_RULE, &[2, 4]),            // chain, expressions
    ];
    let mut lines = Vec::new();
    for (list, described) in PARTS {
        let request = Message::new(list, flags::DUMP, &family(INET)).string(1, table);
        let replies = match socket.dump("list an nft table", &request) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        for reply in &replies {
            let attributes = attributes(reply);
            if attributes
                .iter()
                .any(|(kind, value)| *kind == 1 && text(value) == table)
            {
                lines.push(
                    attributes
                        .into_iter()
                        .filter(|(kind, _)| described.contains(kind))
                        .map(|(kind, value)| (kind, value.to_vec()))
                        .collect(),
                );
            }
        }
    }
    Ok((!lines.is_empty()).then_some(Fingerprint(lines)))
}

/// Reads the elements of a set.
pub(super) fn elements(socket: &mut Socket, table: &str, set: &str) -> Result<Contents> {
    let request = Message::new(kind::GET_ELEMENT, flags::DUMP, &family(INET))
        .string(1, table)
        .string(2, set);
    let replies = socket.dump("list the elements of an nft set", &request)?;
    let mut contents = Contents::new();
    for reply in &replies {
        let lists = attributes(reply).into_iter().filter(|(kind, _)| *kind == 3);
        for (_, element) in lists.flat_map(|(_, list)| parse_attributes(list)) {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            for (kind, data) in parse_attributes(element) {
                let bytes = parse_attributes(data)
                    .find(|(kind, _)| *kind == 1)
                    .map(|(_, bytes)| bytes.to_vec());
                match (kind, bytes) {
                    (1, Some(bytes)) => key = bytes,
                    (2, Some(bytes)) => value = bytes,
                    _ => {}
                }
            }
            contents.insert(key, value);
        }
    }
    Ok(contents)
}

/// The ruleset's generation.
pub(super) fn generation(socket: &mut Socket) -> Result<u32> {
    const OPERATION: &str = "read the nft generation";
    let request = Message::new(kind::GET_GENERATION, 0, &family(0));
    let replies = socket.request(OPERATION, [request])?;
    replies
        .iter()
        .flat_map(attributes)
        .find(|(kind, _)| *kind == 1)
        .and_then(|(_, value)| number(value))
        .ok_or_else(|| crate::Error::Reply {
            operation: OPERATION.to_owned(),
        })
}

/// Every base chain of every IP family.
pub(crate) fn base_chains(socket: &mut Socket) -> Result<Vec<BaseChain>> {
    const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];
    let mut chains = Vec::new();
    for (number, name) in FAMILIES {
        let request = Message::new(kind::GET_CHAIN, flags::DUMP, &family(number));
        let replies = socket.dump("list nft chains", &request)?;
        chains.extend(replies.iter().filter_map(|reply| base_chain(name, reply)));
    }
    Ok(chains)
}

fn base_chain(family: &'static str, reply: &Reply) -> Option<BaseChain> {
    let (mut table, mut name, mut hook, mut drops) = (String::new(), String::new(), None, false);
    for (kind, value) in attributes(reply) {
        match kind {
            1 => table = text(value),
            3 => name = text(value),
            4 => {
                hook = parse_attributes(value)
                    .find(|(kind, _)| *kind == 1)
                    .and_then(|(_, value)| number(value));
            }
            5 => drops = number(value) == Some(0),
            _ => {}
        }
    }
    Some(BaseChain {
        family,
        table,
        name,
        hook: hook?,
        drops,
    })
}

fn attributes(reply: &Reply) -> Vec<(u16, &[u8])> {
    parse_attributes(reply.body.get(4..).unwrap_or_default()).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
