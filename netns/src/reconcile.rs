//! Links, routes and neighbours: compare with the kernel, repair, and remove
//! what carries our mark but is not desired.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::link::{self, Link, Mac};
use crate::model::{Config, Desired, Endpoint};
use crate::netlink::Socket;
use crate::network::{Network, addresses, delete_link};
use crate::report::Repair;

/// What the kernel holds of routes, addresses and neighbours, by link.
struct Actual {
    addresses: HashSet<(u32, IpAddr)>,
    routes: HashSet<(u32, IpNet)>,
    neighbours: HashSet<(u32, IpAddr, Mac)>,
}

/// Repairs links, and says what it found.
pub(crate) fn links(
    network: &Network,
    route: &mut Socket,
    desired: &Desired,
) -> Result<Vec<Repair>> {
    let wanted: HashSet<&str> = desired.endpoints.iter().map(|e| e.id.as_str()).collect();
    let keep = |id: &str| id == link::GATEWAY || wanted.contains(id);
    let (links, mut repairs) = sweep(network, route, &keep)?;
    let actual = Actual::read(route)?;
    let gateway = links.get(link::GATEWAY);
    if !gateway.is_some_and(|link| actual.has_gateway(network.config(), link)) {
        network.raise_gateway(route)?;
        repairs.push(Repair::Gateway);
    }
    for endpoint in &desired.endpoints {
        let id = || endpoint.id.clone();
        match links.get(&endpoint.id) {
            None => repairs.push(Repair::LinkMissing { endpoint: id() }),
            Some(link) if actual.has_endpoint(endpoint, link) => {}
            Some(link) => {
                network.raise_outer(route, link.index, endpoint)?;
                repairs.push(Repair::Link { endpoint: id() });
            }
        }
    }
    Ok(repairs)
}

/// Removes every link with this host's mark whose id is not to be kept. The
/// others, by id.
pub(crate) fn sweep(
    network: &Network,
    route: &mut Socket,
    keep: &dyn Fn(&str) -> bool,
) -> Result<(HashMap<String, Link>, Vec<Repair>)> {
    let config = network.config();
    let replies = route.dump("list links", &link::list_links())?;
    let (mut kept, mut repairs) = (HashMap::new(), Vec::new());
    for link in replies.iter().filter_map(Link::parse) {
        match link.endpoint(config) {
            Some(id) if keep(id) => {
                kept.insert(id.to_owned(), link);
            }
            None if !link.is_own(config) => {}
            // Ours and stray, or created and not yet marked when we died.
            _ => {
                delete_link(route, &link)?;
                repairs.push(Repair::StrayLink { name: link.name });
            }
        }
    }
    Ok((kept, repairs))
}

/// Removes the routes that make the subnets unreachable.
pub(crate) fn forget_subnets(config: &Config, route: &mut Socket) -> Result<()> {
    for subnet in config.subnets() {
        let operation = format!("remove the route to {subnet}");
        match route.request(&operation, [link::forget_subnet(subnet)]) {
            Err(Error::Netlink { source, .. }) if is_no_route(&source) => {}
            other => other.map(drop)?,
        }
    }
    Ok(())
}

fn is_no_route(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

impl Actual {
    fn read(route: &mut Socket) -> Result<Self> {
        let addresses = route.dump("list addresses", &link::list_addresses())?;
        let routes = route.dump("list routes", &link::list_routes())?;
        let neighbours = route.dump("list neighbours", &link::list_neighbours())?;
        Ok(Self {
            addresses: addresses
                .iter()
                .filter_map(link::parse_address)
                .map(|(index, net)| (index, net.addr()))
                .collect(),
            routes: routes
                .iter()
                .filter_map(link::parse_route)
                .map(|(net, index)| (index, net))
                .collect(),
            neighbours: neighbours
                .iter()
                .filter_map(link::parse_neighbour)
                .collect(),
        })
    }

    fn has_gateway(&self, config: &Config, link: &Link) -> bool {
        let mut gateways = config.gateways();
        let mut subnets = config.subnets();
        link.up
            && gateways.all(|address| self.addresses.contains(&(link.index, address)))
            && subnets.all(|subnet| self.routes.iter().any(|(_, net)| *net == subnet))
    }

    fn has_endpoint(&self, endpoint: &Endpoint, link: &Link) -> bool {
        let mac = link::inner_mac(endpoint);
        link.up
            && addresses(endpoint).all(|address| {
                self.routes.contains(&(link.index, IpNet::from(address)))
                    && self.neighbours.contains(&(link.index, address, mac))
            })
    }
}
