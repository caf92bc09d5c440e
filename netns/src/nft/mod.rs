//! nftables: our table as data, its encoding, and the transactions that put
//! it into the kernel.

mod elements;
mod expression;
mod read;
mod rule;
mod rules;
mod ruleset;
mod schema;
mod table;

pub(crate) use elements::Elements;
pub(crate) use read::{BaseChain, base_chains};
use rule::Rule;
pub(crate) use rules::Rules;
use ruleset::{Chain, chains};

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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::read::Fingerprint;
    use super::table::Table;
    use super::*;
    use crate::netlink::parse_attributes;
    use crate::{Config, Endpoint, Protocol, Published};

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/nft/ruleset.nft");

    fn config() -> Config {
        Config {
            host: "0000abcd".parse().unwrap(),
            subnet4: "10.128.16.0/20".parse().unwrap(),
            subnet6: Some("fd12:3456:789a::/64".parse().unwrap()),
            name: "default".to_owned(),
        }
    }

    /// One dyno, port 80 published as 8080 everywhere and as 81 on 127.0.0.1.
    fn elements() -> Elements {
        let endpoint = Endpoint {
            id: "0123456789ab".to_owned(),
            ipv4: "10.128.16.2".parse().unwrap(),
            ipv6: Some("fd12:3456:789a::2".parse().unwrap()),
        };
        let everywhere = Published {
            endpoint: endpoint.id.clone(),
            address: None,
            host_port: 8080,
            dyno_port: 80,
            protocol: Protocol::Tcp,
        };
        let local = Published {
            address: Some("127.0.0.1".parse().unwrap()),
            host_port: 81,
            ..everywhere.clone()
        };
        Elements::of(&[endpoint], &[everywhere, local])
    }

    /// What nft prints and the kernel holds after `load` in a new namespace.
    fn loaded(load: impl FnOnce()) -> (String, Fingerprint, Elements) {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        load();
        let listing = nft(&["list", "ruleset"]);
        let mut table = Table::open("dyno-0000abcd".to_owned()).unwrap();
        let (fingerprint, elements) = table.read().unwrap().unwrap();
        (listing, fingerprint, elements)
    }

    fn nft(arguments: &[&str]) -> String {
        let output = Command::new("nft").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// nft's own encoding of the documented ruleset is the oracle for ours.
    #[test]
    fn kernel_holds_what_nft_makes_of_the_documented_ruleset() {
        let (listing, ours, elements) = loaded(|| {
            let mut rules = Rules::open(&config()).unwrap();
            rules.replace(super::tests::elements()).unwrap();
        });
        let (documented, theirs, their_elements) = loaded(|| {
            nft(&["-f", DOCUMENTED]);
        });
        assert_eq!(listing, documented);
        assert!(!elements.differs(&their_elements));
        let (ours, theirs) = (readable(&ours), readable(&theirs));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
    }

    /// Line by line; rules as expressions with their bytes.
    fn readable(fingerprint: &Fingerprint) -> Vec<Vec<String>> {
        let expression = |bytes: &[u8]| {
            let mut parts = parse_attributes(bytes).map(|(_, value)| value);
            let name = String::from_utf8_lossy(parts.next().unwrap()).into_owned();
            format!("{name} {:?}", parts.next())
        };
        let attribute = |(kind, value): &(u16, Vec<u8>)| match parse_attributes(value).next() {
            Some((1, first)) if first.len() > 8 => {
                let all = parse_attributes(value).map(|(_, bytes)| expression(bytes));
                all.collect()
            }
            _ => vec![format!(
                "{kind} {}",
                String::from_utf8_lossy(value).escape_debug()
            )],
        };
        let line = |line: &Vec<_>| line.iter().flat_map(attribute).collect();
        fingerprint.0.iter().map(line).collect()
    }
}
