//! What the caller asks for.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::Invalid;
use crate::network::addresses;

/// The identity of one hostd: eight lower-case hexadecimal digits, not all
/// zero. It names the nft table and the gateway's link, and as a number it is
/// the *group* of every link of this host, so that several hostds on one
/// machine never touch each other's objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(u32);

impl HostId {
    /// The link group (`IFLA_GROUP`) of this host's links.
    #[must_use]
    pub fn group(self) -> u32 {
        self.0
    }
}

impl std::str::FromStr for HostId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::HostId(text.to_owned());
        if !is_lower_hex(text, 8) {
            return Err(refused());
        }
        match u32::from_str_radix(text, 16) {
            Ok(number) if number != 0 => Ok(Self(number)),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({self})")
    }
}

/// One network of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whose links and rules these are.
    pub host: HostId,
    /// Addresses of the dynos; the first is the gateway's.
    pub subnet4: Ipv4Net,
    /// The same in IPv6, where the host has it.
    pub subnet6: Option<Ipv6Net>,
    /// The network's name, for messages.
    pub name: String,
}

impl Config {
    /// The IPv4 address of the host as seen by its dynos: the subnet's first.
    #[must_use]
    pub fn gateway4(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet4.network()).saturating_add(1))
    }

    /// The IPv6 address of the host as seen by its dynos: the subnet's first.
    #[must_use]
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        let subnet = self.subnet6?;
        Some(Ipv6Addr::from(
            u128::from(subnet.network()).saturating_add(1),
        ))
    }

    /// Both subnets.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let six = self.subnet6.map(IpNet::V6);
        std::iter::once(IpNet::V4(self.subnet4)).chain(six)
    }

    /// Both gateways.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let six = self.gateway6().map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.gateway4())).chain(six)
    }

    /// Checks that each subnet has room for a gateway and a dyno.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        if self.subnet4.prefix_len() > 29 {
            return Err(Invalid::Subnet(IpNet::V4(self.subnet4)));
        }
        match self.subnet6 {
            Some(subnet) if subnet.prefix_len() > 125 => Err(Invalid::Subnet(IpNet::V6(subnet))),
            _ => Ok(()),
        }
    }
}

/// A dyno as the network sees it: a veth pair and its addresses. Its hardware
/// address follows from the IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Twelve lower-case hexadecimal digits.
    pub id: String,
    /// Its address in [`Config::subnet4`].
    pub ipv4: Ipv4Addr,
    /// Its address in [`Config::subnet6`].
    pub ipv6: Option<Ipv6Addr>,
}

impl Endpoint {
    /// Checks the id and that the addresses are ones a dyno can have.
    pub(crate) fn validate(&self, config: &Config) -> Result<(), Invalid> {
        if !is_lower_hex(&self.id, 12) {
            return Err(Invalid::EndpointId(self.id.clone()));
        }
        let refused = |address| Invalid::Address {
            endpoint: self.id.clone(),
            address,
        };
        let subnet = config.subnet4;
        let reserved = [subnet.network(), config.gateway4(), subnet.broadcast()];
        if !subnet.contains(&self.ipv4) || reserved.contains(&self.ipv4) {
            return Err(refused(IpAddr::V4(self.ipv4)));
        }
        let Some(address) = self.ipv6 else {
            return Ok(());
        };
        match config.subnet6 {
            Some(subnet)
                if subnet.contains(&address)
                    && address != subnet.network()
                    && Some(address) != config.gateway6() =>
            {
                Ok(())
            }
            _ => Err(refused(IpAddr::V6(address))),
        }
    }
}

/// A transport protocol whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of a dyno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The dyno's [`Endpoint::id`].
    pub endpoint: String,
    /// Only this address of the host; `None` is every one, IPv4 and IPv6, and
    /// `0.0.0.0` or `::` is every one of its family.
    pub address: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the dyno.
    pub dyno_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// The whole of what shall be there: anything else with this host's mark goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The dynos.
    pub endpoints: Vec<Endpoint>,
    /// Their published ports.
    pub published: Vec<Published>,
}

impl Desired {
    /// Checks everything that can be checked without the kernel: ids,
    /// addresses, duplicates and port conflicts.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self, config: &Config) -> Result<(), Invalid> {
        let mut seen = HashSet::new();
        for endpoint in &self.endpoints {
            endpoint.validate(config)?;
            let keys = [
                Some(endpoint.id.clone()),
                Some(endpoint.ipv4.to_string()),
                endpoint.ipv6.map(|address| address.to_string()),
            ];
            for what in keys.into_iter().flatten() {
                if !seen.insert(what.clone()) {
                    return Err(Invalid::Duplicate { what });
                }
            }
        }
        let backends: HashMap<&str, Vec<IpAddr>> = self
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.id.as_str(), addresses(endpoint).collect()))
            .collect();
        let mut taken: HashMap<_, Vec<&Published>> = HashMap::new();
        for published in &self.published {
            let id = published.endpoint.as_str();
            published.validate(id, backends.get(id).map_or(&[], Vec::as_slice))?;
            let others = taken
                .entry((published.protocol, published.host_port))
                .or_default();
            if let Some(first) = others.iter().find(|other| other.overlaps(published)) {
                return Err(Invalid::PortConflict {
                    first: Box::new((*first).clone()),
                    second: Box::new(published.clone()),
                });
            }
            others.push(published);
        }
        Ok(())
    }
}

impl Published {
    /// Checks a port of the endpoint `id` that has the addresses `backends`.
    pub(crate) fn validate(&self, id: &str, backends: &[IpAddr]) -> Result<(), Invalid> {
        let endpoint = || self.endpoint.clone();
        let port = self.host_port;
        if self.endpoint != id || backends.is_empty() {
            return Err(Invalid::UnknownEndpoint {
                endpoint: endpoint(),
                port,
            });
        }
        if self.host_port == 0 || self.dyno_port == 0 {
            return Err(Invalid::PortZero {
                endpoint: endpoint(),
            });
        }
        match self.address {
            Some(address @ IpAddr::V6(_)) if backends.iter().all(IpAddr::is_ipv4) => {
                Err(Invalid::NoIpv6 {
                    endpoint: endpoint(),
                    address,
                    port,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether both would claim packets to one address; ports and protocols
    /// are known to be equal.
    fn overlaps(&self, other: &Self) -> bool {
        match (self.address, other.address) {
            (Some(one), Some(two)) => {
                let any = one.is_unspecified() || two.is_unspecified();
                one == two || (any && one.is_ipv4() == two.is_ipv4())
            }
            _ => true,
        }
    }
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            host: "00c0ffee".parse().unwrap(),
            subnet4: "10.128.0.0/24".parse().unwrap(),
            subnet6: Some("fd00::/64".parse().unwrap()),
            name: "default".to_owned(),
        }
    }

    fn endpoint(number: u8) -> Endpoint {
        Endpoint {
            id: format!("{number:012x}"),
            ipv4: Ipv4Addr::new(10, 128, 0, number),
            ipv6: None,
        }
    }

    fn published(number: u8, address: Option<&str>) -> Published {
        Published {
            endpoint: endpoint(number).id,
            address: address.map(|address| address.parse().unwrap()),
            host_port: 8080,
            dyno_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn host_ids_are_eight_lower_case_digits_and_not_zero() {
        assert_eq!(
            "00c0ffee".parse::<HostId>().unwrap().to_string(),
            "00c0ffee"
        );
        for refused in [
            "",
            "c0ffee",
            "00C0FFEE",
            "00000000",
            "+0c0ffee",
            "00c0ffee0",
        ] {
            assert!(refused.parse::<HostId>().is_err(), "{refused}");
        }
    }

    #[test]
    fn endpoint_ids_are_twelve_lower_case_digits() {
        for id in [
            "",
            "00000000000",
            "0000000000000",
            "00000000000G",
            "../../../etc",
        ] {
            let refused = Endpoint {
                id: id.to_owned(),
                ..endpoint(2)
            };
            let error = refused.validate(&config()).unwrap_err();
            assert_eq!(error, Invalid::EndpointId(id.to_owned()));
        }
    }

    #[test]
    fn addresses_that_are_no_dynos_are_refused() {
        for last in [0, 1, 255] {
            assert!(endpoint(last).validate(&config()).is_err(), "{last}");
        }
        let elsewhere = Endpoint {
            ipv4: Ipv4Addr::new(10, 129, 0, 2),
            ..endpoint(2)
        };
        assert!(elsewhere.validate(&config()).is_err());
        for six in ["fd00::", "fd00::1", "fd01::2"] {
            let six = Endpoint {
                ipv6: Some(six.parse().unwrap()),
                ..endpoint(2)
            };
            assert!(six.validate(&config()).is_err(), "{six:?}");
        }
        assert!(endpoint(2).validate(&config()).is_ok());
    }

    #[test]
    fn ports_conflict_where_a_packet_could_mean_both() {
        let cases = [
            (None, None, true),
            (None, Some("127.0.0.1"), true),
            (Some("127.0.0.1"), Some("127.0.0.1"), true),
            (Some("127.0.0.1"), Some("127.0.0.2"), false),
            (Some("0.0.0.0"), Some("127.0.0.2"), true),
            (Some("0.0.0.0"), None, true),
        ];
        for (first, second, conflict) in cases {
            let desired = Desired {
                endpoints: vec![endpoint(2), endpoint(3)],
                published: vec![published(2, first), published(3, second)],
            };
            let refused = matches!(
                desired.validate(&config()),
                Err(Invalid::PortConflict { .. })
            );
            assert_eq!(refused, conflict, "{first:?} {second:?}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        let of = |endpoints: &[Endpoint], published: &[Published]| {
            let desired = Desired {
                endpoints: endpoints.to_vec(),
                published: published.to_vec(),
            };
            desired.validate(&config()).unwrap_err().to_string()
        };
        let twin = Endpoint {
            id: endpoint(3).id,
            ..endpoint(2)
        };
        assert_eq!(
            of(&[endpoint(2), twin], &[]),
            "10.128.0.2 belongs to two endpoints"
        );
        assert_eq!(
            of(&[endpoint(2)], &[published(3, None)]),
            "port 8080 is published for 000000000003, which is not among the endpoints"
        );
        assert_eq!(
            of(
                &[endpoint(2)],
                &[Published {
                    dyno_port: 0,
                    ..published(2, None)
                }]
            ),
            "port 0 of 000000000002 cannot be published"
        );
        assert_eq!(
            of(&[endpoint(2)], &[published(2, Some("::1"))]),
            "000000000002 has no IPv6 address, so port 8080 cannot be published on ::1"
        );
    }
}
