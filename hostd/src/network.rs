//! The default network of this host: addresses, links, published ports and
//! names of its dynos, kept as desired state and repaired every few seconds.
//!
//! Attaching and detaching may go on side by side; a repair compares the
//! whole with the kernel, so it waits for them and they for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dyno_api::dyno::{PortMapping, Protocol, Service};
use dyno_api::edge::{NetworkTable, Tables};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use dyno_failpoint::failpoint;
use dyno_netns::pool::{Pool, paired_ipv6};
use dyno_netns::{Config, Counters, Desired, Endpoint, Network, Published, Repair, Shut};
use tokio::sync::RwLock;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::durable::{chain, from_io, internal};

/// Name of the network that every bare dyno joins.
pub const DEFAULT: &str = "default";

/// One dyno's place on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The dyno.
    pub id: DynoId,
    /// The name that others find it by.
    pub name: DynoName,
    /// The service that it is a copy of.
    pub service: Option<Service>,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its ports, each with its host port.
    pub ports: Vec<PortMapping>,
}

impl Place {
    /// Its own name, and the one that it shares with the copies of its service.
    fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.name.to_string()).chain(self.service.as_ref().map(Service::host))
    }
}

/// The default network.
#[derive(Debug)]
pub struct DefaultNetwork {
    network: Arc<Network>,
    state: Arc<Mutex<State>>,
    /// Read by those who change one dyno, written by those who compare all.
    repairs: Arc<RwLock<()>>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    attached: BTreeMap<DynoId, Attached>,
    /// Dynos whose links the kernel is still letting go.
    leaving: BTreeMap<DynoId, JoinHandle<()>>,
    /// Dynos that were shut off and could not be cleared away.
    uncleared: BTreeMap<DynoId, Arc<Shut>>,
    /// Addresses that something may still lead to, and whether each was given
    /// back meanwhile.
    held: BTreeMap<Ipv4Addr, bool>,
    /// There was a repair: nothing of an earlier hostd's network is left.
    repaired: bool,
}

impl State {
    fn new(pool: Pool) -> Self {
        Self {
            pool,
            attached: BTreeMap::new(),
            leaving: BTreeMap::new(),
            uncleared: BTreeMap::new(),
            held: BTreeMap::new(),
            repaired: false,
        }
    }

    fn release(&mut self, ipv4: Ipv4Addr) {
        match self.held.get_mut(&ipv4) {
            Some(given_back) => *given_back = true,
            None if self.repaired => drop(self.pool.release(ipv4)),
            None => drop(self.held.insert(ipv4, true)),
        }
    }

    /// Something may lead to this address until it is [`let_go`](Self::let_go).
    fn hold(&mut self, ipv4: Ipv4Addr) {
        self.held.entry(ipv4).or_insert(false);
    }

    /// Nothing leads there any more: it can be another's.
    fn let_go(&mut self, ipv4: Ipv4Addr) {
        if self.held.remove(&ipv4) == Some(true) {
            self.pool.release(ipv4);
        }
    }

    /// The kernel holds what is desired and nothing else. No dyno comes or goes
    /// during a repair, so what is still held is what failed before.
    fn repaired(&mut self) {
        self.repaired = true;
        self.uncleared.clear();
        let held: Vec<Ipv4Addr> = self.held.keys().copied().collect();
        for ipv4 in held {
            self.let_go(ipv4);
        }
    }
}

#[derive(Debug, Clone)]
struct Attached {
    place: Place,
    /// Process in whose network namespace the dyno lives.
    init: u32,
    /// The link was made; before that a missing one needs no repair.
    plumbed: bool,
    /// Its published ports lead to it.
    in_service: bool,
}

impl DefaultNetwork {
    /// Opens the network in hostd's own network namespace.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(config: Config) -> dyno_netns::Result<Self> {
        let state = State::new(Pool::new(config.subnet4));
        let network = Arc::new(Network::open(config)?);
        for change in network.prepared() {
            tracing::info!(?change, "the machine is prepared for dynos");
        }
        Ok(Self {
            network,
            state: Arc::new(Mutex::new(state)),
            repairs: Arc::new(RwLock::new(())),
        })
    }

    /// Subnets and gateways.
    pub fn config(&self) -> &Config {
        self.network.config()
    }

    /// The host as its dynos see it, and their DNS server.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let four = IpAddr::V4(self.network.gateway4());
        std::iter::once(four)
            .chain(self.network.gateway6().map(IpAddr::V6))
            .collect()
    }

    /// Takes a free address and the IPv6 address that goes with it.
    ///
    /// # Errors
    /// Exhausted when there is none.
    pub fn reserve(&self) -> Result<(Ipv4Addr, Option<Ipv6Addr>), ApiError> {
        let address = self.state().pool.allocate();
        let ipv4 =
            address.map_err(|error| ApiError::new(ErrorKind::Exhausted, error.to_string()))?;
        let config = self.config();
        let ipv6 = config
            .subnet6
            .and_then(|subnet| paired_ipv6(config.subnet4, subnet, ipv4));
        Ok((ipv4, ipv6))
    }

    /// Takes the address that a dyno had before; `false` when it is not free.
    pub fn claim(&self, ipv4: Ipv4Addr) -> bool {
        self.state().pool.claim(ipv4)
    }

    /// Gives an address back. It can be had again once nothing leads to it, by
    /// a repair where taking it off the network failed.
    pub fn release(&self, ipv4: Ipv4Addr) {
        self.state().release(ipv4);
    }

    /// Remembers a dyno whose link is there already: an adopted one.
    pub fn adopt(&self, place: Place, init: u32, in_service: bool) {
        let attached = Attached {
            place,
            init,
            plumbed: true,
            in_service,
        };
        self.state()
            .attached
            .insert(attached.place.id.clone(), attached);
    }

    /// The dyno's first process is another one now; its namespace stays.
    pub fn moved(&self, id: &DynoId, init: u32) {
        if let Some(entry) = self.state().attached.get_mut(id) {
            entry.init = init;
        }
    }

    /// Gives a created dyno its link, addresses and, where it is in service
    /// from the start, published ports.
    ///
    /// # Errors
    /// What the kernel refused; nothing is left then.
    pub async fn attach(&self, place: Place, init: u32, in_service: bool) -> Result<(), ApiError> {
        let leaving = self.state().leaving.remove(&place.id);
        if let Some(Err(error)) = match leaving {
            Some(task) => Some(task.await),
            None => None,
        } {
            return Err(internal(&error));
        }
        let _changing = self.repairs.read().await;
        let id = place.id.clone();
        self.clear_earlier(&id).await?;
        let ipv4 = place.ipv4;
        let entry = Attached {
            place: place.clone(),
            init,
            plumbed: false,
            in_service,
        };
        self.state().attached.insert(id.clone(), entry);
        let network = self.network.clone();
        let plumbed = blocking(move || plumb(&network, &place, init, in_service)).await;
        let mut state = self.state();
        if let Err(error) = plumbed {
            state.attached.remove(&id);
            state.hold(ipv4); // undoing it may have failed, too
            return Err(error);
        }
        if let Some(entry) = state.attached.get_mut(&id) {
            entry.plumbed = true;
        }
        Ok(())
    }

    /// Lets a dyno's published ports lead to it, or to nobody. Connections that
    /// there are stay.
    ///
    /// # Errors
    /// What the kernel refused; the next repair tries again.
    pub async fn serve(&self, id: &DynoId, in_service: bool) -> Result<(), ApiError> {
        let _changing = self.repairs.read().await;
        let place = {
            let mut state = self.state();
            let Some(entry) = state.attached.get_mut(id) else {
                return Ok(());
            };
            if std::mem::replace(&mut entry.in_service, in_service) == in_service {
                return Ok(());
            }
            entry.place.clone()
        };
        let network = self.network.clone();
        blocking(move || {
            let ports = published(&place);
            let changed = match in_service {
                true => network.publish(place.id.as_str(), &ports),
                false => network.withdraw(place.id.as_str()),
            };
            changed.map_err(|error| api_error(&error))
        })
        .await
    }

    /// Clears away what an earlier detachment left, so that no repair takes
    /// the new link for the old one.
    async fn clear_earlier(&self, id: &DynoId) -> Result<(), ApiError> {
        let uncleared = self.state().uncleared.get(id).cloned();
        let Some(shut) = uncleared else {
            return Ok(());
        };
        let network = self.network.clone();
        blocking(move || network.clear(&shut).map_err(|error| api_error(&error))).await?;
        self.state().uncleared.remove(id);
        Ok(())
    }

    /// Shuts a dyno off: nothing of it passes and its ports are free when this
    /// returns; its address stays reserved. The kernel takes some milliseconds
    /// to let the link go, which nobody waits for but who wants the id or the
    /// address again.
    ///
    /// # Errors
    /// What the kernel refused; the next repair tries again.
    pub async fn detach(&self, id: &DynoId) -> Result<(), ApiError> {
        let changing = self.repairs.clone().read_owned().await;
        let ipv4 = {
            let mut state = self.state();
            let Some(entry) = state.attached.remove(id) else {
                return Ok(());
            };
            state.hold(entry.place.ipv4);
            entry.place.ipv4
        };
        let (network, name) = (self.network.clone(), id.clone());
        let shut = blocking(move || {
            let shut = network.shut(name.as_str());
            shut.map_err(|error| api_error(&error))
        })
        .await?;
        failpoint("end.shut");
        let (network, state) = (self.network.clone(), self.state.clone());
        let id = id.clone();
        let mut shared = self.state();
        let leaving = id.clone();
        let task = spawn_blocking(move || {
            let cleared = network.clear(&shut);
            failpoint("end.cleared");
            let mut state = lock(&state);
            state.leaving.remove(&id);
            match cleared {
                Ok(()) => state.let_go(ipv4),
                Err(error) => {
                    tracing::warn!(dyno = %id, error = %chain(&error), "a link stays until the next repair");
                    state.uncleared.insert(id, Arc::new(shut));
                }
            }
            drop(state);
            drop(changing);
        });
        shared.leaving.insert(leaving, task);
        Ok(())
    }

    /// Makes the kernel agree with what is desired.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn repair(&self) -> Result<Vec<Repair>, ApiError> {
        let _comparing = self.repairs.write().await;
        let (attached, uncleared): (Vec<_>, Vec<_>) = {
            let state = self.state();
            let attached = state.attached.values().cloned().collect();
            (attached, state.uncleared.values().cloned().collect())
        };
        let network = self.network.clone();
        let repairs = blocking(move || {
            let repairs = repair(&network, &attached)?;
            for shut in uncleared {
                network.clear(&shut).map_err(|error| api_error(&error))?;
            }
            Ok(repairs)
        })
        .await?;
        self.state().repaired();
        Ok(repairs)
    }

    /// Traffic of a dyno's link.
    pub async fn counters(&self, id: &DynoId) -> Option<Counters> {
        let (network, id) = (self.network.clone(), id.clone());
        let counters = spawn_blocking(move || network.counters(id.as_str())).await;
        counters.ok().and_then(Result::ok)
    }

    /// Traffic of all links, by their dynos' ids. Blocks.
    pub fn all_counters(&self) -> BTreeMap<String, Counters> {
        self.network.all_counters().unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "the traffic of dynos is not counted");
            BTreeMap::new()
        })
    }

    /// What in the host's own firewall may keep packets from dynos.
    pub async fn findings(&self) -> Vec<String> {
        let network = self.network.clone();
        match spawn_blocking(move || network.findings()).await {
            Ok(Ok(findings)) => findings.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// What `dyno-edge` answers from.
    pub fn tables(&self, resolvers: &[IpAddr]) -> Tables {
        let config = self.config();
        let four = config.subnet4.to_string();
        let sources = std::iter::once(four).chain(config.subnet6.map(|subnet| subnet.to_string()));
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for Attached { place, .. } in self.state().attached.values() {
            for name in place.names() {
                let addresses = names.entry(name).or_default();
                addresses.push(IpAddr::V4(place.ipv4));
                addresses.extend(place.ipv6.map(IpAddr::V6));
            }
        }
        let table = NetworkTable {
            sources: sources.collect(),
            names,
        };
        Tables {
            version: dyno_api::edge::VERSION,
            upstreams: resolvers
                .iter()
                .map(|address| SocketAddr::new(*address, 53))
                .collect(),
            networks: BTreeMap::from([(DEFAULT.to_owned(), table)]),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plumb(network: &Network, place: &Place, init: u32, in_service: bool) -> Result<(), ApiError> {
    let namespace = network_namespace(init)?;
    let ports = published(place);
    // Since it was created, another program may have taken one of its ports.
    for port in &ports {
        network.probe(port).map_err(|error| api_error(&error))?;
    }
    network
        .attach(namespace.as_fd(), &endpoint(place))
        .map_err(|error| api_error(&error))?;
    if ports.is_empty() || !in_service {
        return Ok(());
    }
    network.publish(place.id.as_str(), &ports).map_err(|error| {
        if let Err(left) = network.detach(place.id.as_str()) {
            tracing::warn!(dyno = %place.id, error = %chain(&left), "a link stays until the next repair");
        }
        api_error(&error)
    })
}

fn repair(network: &Network, attached: &[Attached]) -> Result<Vec<Repair>, ApiError> {
    let desired = Desired {
        endpoints: attached
            .iter()
            .map(|entry| endpoint(&entry.place))
            .collect(),
        published: attached
            .iter()
            .filter(|entry| entry.in_service)
            .flat_map(|entry| published(&entry.place))
            .collect(),
    };
    let repairs = network
        .reconcile(&desired)
        .map_err(|error| api_error(&error))?;
    Ok(repairs
        .into_iter()
        .filter(|repair| !is_passing(network, attached, repair))
        .collect())
}

/// Whether a finding is only a dyno that is on its way out or not yet in;
/// a link that ought to be there is brought back.
fn is_passing(network: &Network, attached: &[Attached], repair: &Repair) -> bool {
    let Repair::LinkMissing { endpoint } = repair else {
        return false;
    };
    let Some(entry) = attached
        .iter()
        .find(|entry| entry.place.id.as_str() == endpoint)
    else {
        return true;
    };
    if !entry.plumbed || !Path::new(&format!("/proc/{}", entry.init)).exists() {
        return true;
    }
    if let Err(error) = plumb(network, &entry.place, entry.init, entry.in_service) {
        tracing::warn!(dyno = %entry.place.id, %error, "cannot bring the link back");
    }
    false
}

/// The network namespace of a dyno that hostd's own monitor holds.
fn network_namespace(init: u32) -> Result<File, ApiError> {
    let path = format!("/proc/{init}/ns/net");
    File::open(&path).map_err(|error| from_io(&format!("cannot open {path}"), &error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(internal(&io::Error::from(error))),
    }
}

fn endpoint(place: &Place) -> Endpoint {
    Endpoint {
        id: place.id.to_string(),
        ipv4: place.ipv4,
        ipv6: place.ipv6,
    }
}

fn published(place: &Place) -> Vec<Published> {
    let port = |port: &PortMapping| {
        Some(Published {
            endpoint: place.id.to_string(),
            address: port.address,
            host_port: port.host_port?,
            dyno_port: port.dyno_port,
            protocol: match port.protocol {
                Protocol::Tcp => dyno_netns::Protocol::Tcp,
                Protocol::Udp => dyno_netns::Protocol::Udp,
            },
        })
    };
    place.ports.iter().filter_map(port).collect()
}

fn api_error(error: &dyno_netns::Error) -> ApiError {
    let kind = match error {
        dyno_netns::Error::Invalid(dyno_netns::Invalid::PortConflict { .. })
        | dyno_netns::Error::Invalid(dyno_netns::Invalid::PortTaken(_))
        | dyno_netns::Error::PortInUse { .. }
        | dyno_netns::Error::ForeignLink { .. } => ErrorKind::Conflict,
        dyno_netns::Error::Invalid(_) => ErrorKind::Invalid,
        dyno_netns::Error::NoFreeSubnet => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    ApiError::new(kind, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Pool::new("10.0.0.0/29".parse().unwrap()))
    }

    #[test]
    fn an_address_that_something_may_lead_to_is_not_handed_out() {
        let mut state = state();
        state.repaired();
        let first = state.pool.allocate().unwrap();
        state.hold(first);
        state.release(first);
        let second = state.pool.allocate().unwrap();
        assert_ne!(first, second);
        state.repaired();
        assert_eq!(state.pool.allocate().unwrap(), first);
        // Its dyno still has this one.
        state.hold(second);
        state.repaired();
        assert_ne!(state.pool.allocate().unwrap(), second);
    }

    #[test]
    fn what_an_earlier_hostd_left_leads_somewhere_until_the_first_repair() {
        let mut state = state();
        let recorded = state.pool.allocate().unwrap();
        state.release(recorded);
        assert_ne!(state.pool.allocate().unwrap(), recorded);
        state.repaired();
        assert_eq!(state.pool.allocate().unwrap(), recorded);
    }
}
