//! The elements that dynos and published ports put into the sets and maps of
//! our table. Pure.
//!
//! Keys and values are the bytes of the kernel's registers: each part of a
//! concatenation is padded with zeros to four bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::octets;
use super::schema::{SETS, name};
use crate::conntrack::Stale;
use crate::link::{inner_mac, outer_name};
use crate::model::{Endpoint, Protocol, Published};
use crate::network::addresses;

/// The elements of one set: keys, and values that are empty unless it is a map.
pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// The elements of all sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Elements {
    sets: BTreeMap<&'static str, Contents>,
}

/// Link-local and well-known addresses of clouds' metadata services: AWS
/// (machines, containers, pods, time, DNS), Google, Azure, Oracle, Alibaba.
const METADATA4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(169, 254, 169, 123),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(100, 100, 100, 200),
];
const METADATA6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl Elements {
    /// Those that are there without any dyno.
    pub(crate) fn fixed() -> Self {
        let mut elements = Self::default();
        for address in METADATA4 {
            elements.add(name::METADATA4, address.octets().to_vec(), Vec::new());
        }
        for address in METADATA6 {
            elements.add(name::METADATA6, address.octets().to_vec(), Vec::new());
        }
        elements
    }

    /// Those of a desired state.
    pub(crate) fn of(endpoints: &[Endpoint], published: &[Published]) -> Self {
        let mut elements = Self::fixed();
        for endpoint in endpoints {
            elements.attach(endpoint);
            let backends: Vec<_> = addresses(endpoint).collect();
            for port in published.iter().filter(|port| port.endpoint == endpoint.id) {
                elements.publish(&backends, port);
            }
        }
        elements
    }

    /// Adds an endpoint.
    pub(crate) fn attach(&mut self, endpoint: &Endpoint) {
        let mac = padded(&inner_mac(endpoint), 8);
        let link = link_key(&endpoint.id);
        let address = endpoint.ipv4.octets();
        self.add(
            name::SOURCES4,
            [&link[..], &mac, &address].concat(),
            Vec::new(),
        );
        self.add(name::SELF4, [address, address].concat(), Vec::new());
        if let Some(address) = endpoint.ipv6 {
            let address = address.octets();
            self.add(
                name::SOURCES6,
                [&link[..], &mac, &address].concat(),
                Vec::new(),
            );
            self.add(name::SELF6, [address, address].concat(), Vec::new());
        }
    }

    /// Adds a published port of the endpoint with these addresses. The value
    /// is false if the port led elsewhere before.
    pub(crate) fn publish(&mut self, backends: &[IpAddr], port: &Published) -> bool {
        let service = [
            padded(&[port.protocol.number()], 4),
            padded(&port.host_port.to_be_bytes(), 4),
        ]
        .concat();
        let at = port.address.filter(|at| !at.is_unspecified());
        let key = match at {
            Some(at) => [octets(at), service].concat(),
            None => service,
        };
        let mut free = true;
        for &backend in backends {
            if port
                .address
                .is_some_and(|at| at.is_ipv4() != backend.is_ipv4())
            {
                continue;
            }
            let value = [octets(backend), padded(&port.dyno_port.to_be_bytes(), 4)].concat();
            let (ports, dnat) = port_sets(backend, at.is_some());
            free &= self
                .contents(dnat)
                .get(&key)
                .is_none_or(|old| *old == value);
            self.add(ports, key.clone(), Vec::new());
            self.add(dnat, key.clone(), value);
        }
        free
    }

    /// Removes the published ports of an endpoint.
    pub(crate) fn unpublish(&mut self, id: &str) {
        for address in self.addresses(id) {
            let backend = octets(address);
            for at in [false, true] {
                let (ports, dnat) = port_sets(address, at);
                let gone: Vec<_> = self
                    .contents(dnat)
                    .iter()
                    .filter(|(_, value)| value.starts_with(&backend))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    self.remove(dnat, &key);
                    self.remove(ports, &key);
                }
            }
        }
    }

    /// Removes an endpoint with its published ports.
    pub(crate) fn detach(&mut self, id: &str) {
        self.unpublish(id);
        let link = link_key(id);
        for address in self.addresses(id) {
            let twice = [octets(address), octets(address)].concat();
            let (sources, own) = match address {
                IpAddr::V4(_) => (name::SOURCES4, name::SELF4),
                IpAddr::V6(_) => (name::SOURCES6, name::SELF6),
            };
            self.remove(own, &twice);
            if let Some(contents) = self.sets.get_mut(sources) {
                contents.retain(|key, _| !key.starts_with(&link));
            }
        }
    }

    /// An attached endpoint's addresses, as the anti-spoofing sets have them.
    pub(crate) fn addresses(&self, id: &str) -> Vec<IpAddr> {
        let link = link_key(id);
        [name::SOURCES4, name::SOURCES6]
            .into_iter()
            .flat_map(|set| self.contents(set).keys())
            .filter_map(|key| {
                let address = key.strip_prefix(&link[..])?.get(8..)?;
                ip(address)
            })
            .collect()
    }

    /// Flows that are no longer true once these elements became `wanted`.
    pub(crate) fn stale(&self, wanted: &Self) -> Vec<Stale> {
        let gone = [name::SELF4, name::SELF6].into_iter().flat_map(|set| {
            let there = wanted.contents(set);
            let mut old = self.contents(set).keys();
            std::iter::from_fn(move || old.find(|key| !there.contains_key(*key)))
        });
        let mut stale: Vec<_> = gone
            .filter_map(|twice| ip(&twice[twice.len() / 2..]))
            .map(Stale::Address)
            .collect();
        for set in [name::DNAT4, name::DNAT4_AT, name::DNAT6, name::DNAT6_AT] {
            let (old, new) = (self.contents(set), wanted.contents(set));
            for (key, value) in old {
                if new.get(key) == Some(value) {
                    continue;
                }
                let backend = value
                    .split_last_chunk::<4>()
                    .and_then(|(address, _)| ip(address));
                if let (Some((protocol, port)), Some(backend)) = (service(key), backend) {
                    stale.push(Stale::Unpublished {
                        protocol,
                        port,
                        backend,
                    });
                }
            }
            let ipv6 = [name::DNAT6, name::DNAT6_AT].contains(&set);
            for key in new.keys().filter(|key| !old.contains_key(*key)) {
                // A TCP client notices by itself: nobody answered it.
                if let Some((protocol @ Protocol::Udp, port)) = service(key) {
                    stale.push(Stale::Published {
                        protocol,
                        port,
                        ipv6,
                    });
                }
            }
        }
        stale
    }

    /// Whether any set has other elements.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        SETS.iter()
            .any(|set| self.contents(set.name) != other.contents(set.name))
    }

    /// The elements of one set.
    pub(crate) fn contents(&self, set: &str) -> &Contents {
        static EMPTY: Contents = BTreeMap::new();
        self.sets.get(set).unwrap_or(&EMPTY)
    }

    pub(crate) fn add(&mut self, set: &'static str, key: Vec<u8>, value: Vec<u8>) {
        self.sets.entry(set).or_default().insert(key, value);
    }

    fn remove(&mut self, set: &'static str, key: &[u8]) {
        if let Some(contents) = self.sets.get_mut(set) {
            contents.remove(key);
        }
    }
}

/// The set of keys and the map of a published port.
fn port_sets(backend: IpAddr, at: bool) -> (&'static str, &'static str) {
    match (backend, at) {
        (IpAddr::V4(_), false) => (name::PORTS4, name::DNAT4),
        (IpAddr::V4(_), true) => (name::PORTS4_AT, name::DNAT4_AT),
        (IpAddr::V6(_), false) => (name::PORTS6, name::DNAT6),
        (IpAddr::V6(_), true) => (name::PORTS6_AT, name::DNAT6_AT),
    }
}

/// An address in the bytes of its registers.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    }
}

/// Protocol and port at the end of a published port's key.
fn service(key: &[u8]) -> Option<(Protocol, u16)> {
    let (_, &[protocol, _, _, _, high, low, _, _]) = key.split_last_chunk()?;
    let protocol = match protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    Some((protocol, u16::from_be_bytes([high, low])))
}

fn link_key(id: &str) -> Vec<u8> {
    padded(outer_name(id).as_bytes(), 16)
}

fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(length, 0);
    padded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u8) -> Endpoint {
        Endpoint {
            id: format!("{number:012x}"),
            ipv4: Ipv4Addr::new(10, 128, 0, number),
            ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())),
        }
    }

    fn port(number: u8, host_port: u16, protocol: Protocol) -> Published {
        Published {
            endpoint: endpoint(number).id,
            address: None,
            host_port,
            dyno_port: 80,
            protocol,
        }
    }

    #[test]
    fn detaching_and_unpublishing_make_flows_stale() {
        let before = Elements::of(&[endpoint(2)], &[port(2, 8080, Protocol::Tcp)]);
        let stale = before.stale(&Elements::fixed());
        let [four, six] = [
            IpAddr::V4(endpoint(2).ipv4),
            endpoint(2).ipv6.unwrap().into(),
        ];
        for backend in [four, six] {
            let protocol = Protocol::Tcp;
            assert!(stale.contains(&Stale::Address(backend)));
            assert!(stale.contains(&Stale::Unpublished {
                protocol,
                port: 8080,
                backend
            }));
        }
        assert_eq!(stale.len(), 4);
    }

    #[test]
    fn attaching_makes_nothing_stale() {
        let before = Elements::of(&[endpoint(2)], &[port(2, 8080, Protocol::Udp)]);
        let mut after = before.clone();
        after.attach(&endpoint(3));
        assert_eq!(before.stale(&after), []);
        assert_eq!(before.stale(&before), []);
    }

    #[test]
    fn port_of_another_endpoint_is_not_free() {
        let mut elements = Elements::of(&[endpoint(2), endpoint(3)], &[]);
        let backends = |number| addresses(&endpoint(number)).collect::<Vec<_>>();
        assert!(elements.publish(&backends(2), &port(2, 8080, Protocol::Tcp)));
        assert!(elements.publish(&backends(3), &port(3, 8080, Protocol::Udp)));
        assert!(!elements.publish(&backends(3), &port(3, 8080, Protocol::Tcp)));
    }

    #[test]
    fn elements_of_a_foreign_make_are_survived() {
        let mut elements = Elements::fixed();
        for set in SETS {
            for length in 0..40 {
                elements.add(set.name, vec![6; length], vec![1; length % 7]);
            }
        }
        elements.stale(&Elements::fixed());
        Elements::fixed().stale(&elements);
        elements.detach("0123456789ab");
    }

    proptest! {
        /// Step by step is the same as all at once.
        #[test]
        fn changes_add_up_to_the_whole(
            steps in prop::collection::vec((0..4u8, 2..6u8, 1..5u16), 0..40),
        ) {
            let mut elements = Elements::fixed();
            let mut dynos: BTreeMap<u8, Vec<Published>> = BTreeMap::new();
            for (step, number, host_port) in steps {
                // Ports of different dynos never meet.
                let wanted = port(number, u16::from(number) * 100 + host_port, Protocol::Udp);
                match step {
                    0 => {
                        elements.detach(&endpoint(number).id);
                        elements.attach(&endpoint(number));
                        dynos.insert(number, Vec::new());
                    }
                    1 => {
                        elements.detach(&endpoint(number).id);
                        dynos.remove(&number);
                    }
                    2 => {
                        elements.unpublish(&endpoint(number).id);
                        dynos.entry(number).and_modify(Vec::clear);
                    }
                    _ => {
                        let backends = elements.addresses(&endpoint(number).id);
                        prop_assert_eq!(backends.is_empty(), !dynos.contains_key(&number));
                        if let Some(ports) = dynos.get_mut(&number) {
                            elements.publish(&backends, &wanted);
                            ports.push(wanted);
                        }
                    }
                }
            }
            let endpoints: Vec<_> = dynos.keys().map(|number| endpoint(*number)).collect();
            let published: Vec<_> = dynos.into_values().flatten().collect();
            prop_assert!(!elements.differs(&Elements::of(&endpoints, &published)));
        }
    }
}
