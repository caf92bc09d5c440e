//! One table, parsed: which network an address is in, which names that network has.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use dyno_api::edge::{NetworkTable, Tables, VERSION};
use hickory_proto::ProtoError;
use hickory_proto::rr::{LowerName, Name};
use ipnet::IpNet;

/// All networks of one table.
#[derive(Debug, Default)]
pub struct Networks {
    upstreams: Vec<SocketAddr>,
    blocks: Vec<(IpNet, usize)>,
    networks: Vec<Network>,
}

/// The names of one network. All names are absolute and without the search domain.
#[derive(Debug, Default)]
pub struct Network {
    addresses: HashMap<LowerName, Vec<IpAddr>>,
    /// Names above those: they exist, whether they have addresses or not (RFC 8020).
    ancestors: HashSet<LowerName>,
    names: HashMap<IpAddr, Vec<Name>>,
}

/// Why a table cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not the JSON of a table.
    #[error("not a table")]
    Json(#[from] serde_json::Error),
    /// A format that this build does not know.
    #[error("version {0} of the tables is not the supported {VERSION}")]
    Version(u32),
    /// A source that is no address block.
    #[error("network {network}: source {block:?} is no address block")]
    Block {
        /// The network's name.
        network: String,
        /// What was given.
        block: String,
        /// What is wrong with it.
        source: ipnet::AddrParseError,
    },
    /// Two networks that claim the same addresses.
    #[error("network {network}: source {block} overlaps another network's")]
    Overlap {
        /// The network's name.
        network: String,
        /// The block that came second.
        block: IpNet,
    },
    /// A name that no DNS message can carry.
    #[error("network {network}: {name:?} is no domain name")]
    Name {
        /// The network's name.
        network: String,
        /// What was given.
        name: String,
        /// What is wrong with it.
        source: ProtoError,
    },
}

impl Networks {
    /// Parses and checks the bytes of a `tables.json`.
    ///
    /// # Errors
    /// The first entry that cannot be served; nothing is served partially.
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        let tables: Tables = serde_json::from_slice(json)?;
        if tables.version != VERSION {
            return Err(ParseError::Version(tables.version));
        }
        let mut networks = Self {
            upstreams: tables.upstreams,
            ..Self::default()
        };
        for (name, table) in &tables.networks {
            let index = networks.networks.len();
            networks.add_blocks(name, table, index)?;
            networks.networks.push(Network::parse(name, table)?);
        }
        Ok(networks)
    }

    fn add_blocks(
        &mut self,
        network: &str,
        table: &NetworkTable,
        index: usize,
    ) -> Result<(), ParseError> {
        for block in &table.sources {
            let parsed: IpNet = block.parse().map_err(|source| ParseError::Block {
                network: network.to_owned(),
                block: block.clone(),
                source,
            })?;
            let overlaps = |(other, owner): &(IpNet, usize)| {
                *owner != index && (other.contains(&parsed) || parsed.contains(other))
            };
            if self.blocks.iter().any(overlaps) {
                return Err(ParseError::Overlap {
                    network: network.to_owned(),
                    block: parsed,
                });
            }
            self.blocks.push((parsed, index));
        }
        Ok(())
    }

    /// The network that `address` belongs to.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Network> {
        let address = address.to_canonical();
        self.blocks
            .iter()
            .find(|(block, _)| block.contains(&address))
            .and_then(|(_, index)| self.networks.get(*index))
    }

    /// Where other names are asked for, in order of preference.
    #[must_use]
    pub fn upstreams(&self) -> &[SocketAddr] {
        &self.upstreams
    }
}

impl Network {
    fn parse(network: &str, table: &NetworkTable) -> Result<Self, ParseError> {
        let mut parsed = Self::default();
        for (name, addresses) in &table.names {
            let fqdn = absolute(name).map_err(|source| ParseError::Name {
                network: network.to_owned(),
                name: name.clone(),
                source,
            })?;
            for address in addresses {
                parsed.names.entry(*address).or_default().push(fqdn.clone());
            }
            let lower = LowerName::new(&fqdn);
            let mut above = lower.base_name();
            while !above.is_root() {
                parsed.ancestors.insert(above.clone());
                above = above.base_name();
            }
            parsed.addresses.insert(lower, addresses.clone());
        }
        Ok(parsed)
    }

    /// The addresses of a name; `None` for a name that is not in the table.
    #[must_use]
    pub fn addresses(&self, name: &LowerName) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }

    /// Whether names below this one are in the table.
    #[must_use]
    pub fn is_above(&self, name: &LowerName) -> bool {
        self.ancestors.contains(name)
    }

    /// The names that have this address.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> &[Name] {
        self.names.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// `name` as an absolute name. The root is no dyno's name.
fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    if name.is_root() || name.is_empty() {
        return Err("the root cannot be a name".into());
    }
    name.set_fqdn(true);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Networks, ParseError> {
        Networks::parse(json.as_bytes())
    }

    fn lower(name: &str) -> LowerName {
        LowerName::new(&Name::from_ascii(name).unwrap())
    }

    #[test]
    fn an_address_finds_the_names_of_its_own_network_only() {
        let networks = parse(
            r#"{"version":1,"upstreams":[],"networks":{
                "a":{"sources":["10.1.0.0/24","fd00:1::/64"],"names":{"web":["10.1.0.2"]}},
                "b":{"sources":["10.2.0.0/24"],"names":{"web":["10.2.0.2"]}}}}"#,
        )
        .unwrap();
        let of = |address: &str| networks.of(address.parse().unwrap());
        let web = |address: &str| {
            of(address)
                .unwrap()
                .addresses(&lower("web."))
                .unwrap()
                .to_vec()
        };
        assert_eq!(web("10.1.0.9"), ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(web("fd00:1::9"), ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            web("::ffff:10.2.0.9"),
            ["10.2.0.2".parse::<IpAddr>().unwrap()]
        );
        assert!(of("10.3.0.1").is_none());
    }

    #[test]
    fn a_name_above_another_is_known_as_such() {
        let networks = parse(
            r#"{"version":1,"upstreams":[],"networks":{
                "a":{"sources":["10.1.0.0/24"],"names":{"web.shop":["10.1.0.2"]}}}}"#,
        )
        .unwrap();
        let network = networks.of("10.1.0.9".parse().unwrap()).unwrap();
        assert!(network.is_above(&lower("shop.")) && !network.is_above(&lower("web.shop.")));
        assert_eq!(network.addresses(&lower("shop.")), None);
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_its_place() {
        let one = |inner: &str| format!(r#"{{"version":1,"upstreams":[],"networks":{inner}}}"#);
        let cases = [
            ("{".to_owned(), "not a table"),
            (
                r#"{"version":2,"upstreams":[],"networks":{}}"#.to_owned(),
                "version 2",
            ),
            (
                one(r#"{"a":{"sources":["10.1.0.0/33"],"names":{}}}"#),
                "network a: source",
            ),
            (
                one(
                    r#"{"a":{"sources":["10.1.0.0/16"],"names":{}},"b":{"sources":["10.1.2.0/24"],"names":{}}}"#,
                ),
                "network b: source 10.1.2.0/24 overlaps",
            ),
            (
                one(r#"{"a":{"sources":[],"names":{"x..y":[]}}}"#),
                "network a: \"x..y\"",
            ),
            (
                one(r#"{"a":{"sources":[],"names":{".":[]}}}"#),
                "network a: \".\"",
            ),
        ];
        for (json, expected) in cases {
            let message = parse(&json).unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
