//! One network of one host, from its first link to its last.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::conntrack::{Conntrack, Stale};
use crate::error::{Error, Invalid, Result};
use crate::link::{self, Link};
use crate::model::{Config, Desired, Endpoint, Published};
use crate::netlink::{Reply, Socket};
use crate::nft::{self, Elements};
use crate::report::{Counters, Finding, Repair};
use crate::watch::Watch;
use crate::{findings, namespace, probe, reconcile, sysctl};

/// The kernel's work queue may be late on a busy machine.
const ACTIVATION: Duration = Duration::from_secs(5);

/// An open network. Every call may come from any thread of the network
/// namespace it was opened in; calls that change the kernel's state wait for
/// each other.
#[derive(Debug)]
pub struct Network {
    config: Config,
    prepared: Vec<Repair>,
    /// Whether links of this kernel have IPv6 settings.
    kernel_ipv6: bool,
    kernel: Mutex<Kernel>,
    /// Two more ways into the kernel for what takes long there, so that an
    /// endpoint that goes keeps no other one waiting.
    removal: Mutex<Socket>,
    flows: Mutex<Option<Conntrack>>,
}

/// The ways into the kernel, and what is known of it.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) route: Socket,
    pub(crate) rules: nft::Rules,
}

/// An endpoint that was shut off and not yet cleared away.
#[derive(Debug)]
#[must_use = "its link stays until it is cleared"]
pub struct Shut {
    id: String,
    stale: Vec<Stale>,
}

impl Network {
    /// Opens the network in the calling thread's network namespace: turns on
    /// forwarding where it is off, and creates the gateway's link and the nft
    /// table. A table that is there already, with the traffic of running
    /// dynos, is kept until the first [`reconcile`](Self::reconcile) or
    /// [`apply`](Self::apply).
    ///
    /// # Errors
    /// An invalid configuration, [`Error::ForeignLink`] in the gateway's place,
    /// or the kernel's refusal.
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let rules = nft::Rules::open(&config)?; // P13: before the first link
        let network = Self {
            prepared: sysctl::forward(&config)?,
            kernel_ipv6: sysctl::kernel_has_ipv6(),
            kernel: Mutex::new(Kernel {
                route: open_socket()?,
                rules,
            }),
            removal: Mutex::new(open_socket()?),
            flows: Mutex::new(Conntrack::open()?),
            config,
        };
        network.raise_gateway(&mut network.kernel().route)?;
        Ok(network)
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What opening it changed in the machine's settings: forwarding, where it
    /// was off. That is a part of setting up; later it is a repair.
    #[must_use]
    pub fn prepared(&self) -> &[Repair] {
        &self.prepared
    }

    /// The dynos' IPv4 gateway and DNS server.
    #[must_use]
    pub fn gateway4(&self) -> Ipv4Addr {
        self.config.gateway4()
    }

    /// The dynos' IPv6 gateway and DNS server.
    #[must_use]
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.config.gateway6()
    }

    /// Gives the namespace a link `eth0` with the endpoint's addresses, a
    /// default route, and `lo` up. Its published ports come by
    /// [`publish`](Self::publish), [`apply`](Self::apply) or
    /// [`reconcile`](Self::reconcile). An old link of the same endpoint is
    /// replaced, and its published ports are closed.
    ///
    /// # Errors
    /// An invalid endpoint, [`Error::ForeignLink`], or the kernel's refusal;
    /// nothing is left behind.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
        endpoint.validate(&self.config)?;
        let mut inside = namespace::enter(netns)?;
        let mut kernel = self.kernel();
        // P13: before the link is up.
        let stale = kernel.rules.change(|elements| {
            elements.detach(&endpoint.id);
            elements.attach(endpoint);
            Ok(())
        })?;
        let attached = self
            .create_pair(&mut kernel.route, netns, endpoint)
            .and_then(|outer| {
                self.raise_inner(&mut inside, endpoint)?;
                self.raise_outer(&mut kernel.route, outer, endpoint)?;
                wait_until_active(&mut inside, link::INNER_NAME)
            });
        drop(kernel);
        let attached = attached.and_then(|()| self.forget(&stale));
        if let Err(error) = attached {
            // The first failure is the one to tell.
            drop(self.detach(&endpoint.id));
            return Err(error);
        }
        Ok(())
    }

    /// Removes an endpoint's link, rules and published ports. Not an error if
    /// there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(&self, id: &str) -> Result<()> {
        let shut = self.shut(id);
        let stale = shut.as_ref().map_or(&[][..], |shut| &shut.stale);
        let removed = self.remove(id, stale);
        shut.map(drop).and(removed)
    }

    /// The quick half of [`detach`](Self::detach): the endpoint's rules are gone,
    /// its ports are free, and nothing of it passes. Its link and the flows that
    /// the kernel remembers stay until [`clear`](Self::clear); until then neither
    /// its address nor its id may be used again.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn shut(&self, id: &str) -> Result<Shut> {
        let stale = self.kernel().rules.change(|elements| {
            elements.detach(id);
            Ok(())
        })?;
        Ok(Shut {
            id: id.to_owned(),
            stale,
        })
    }

    /// The slow half: the kernel waits some milliseconds for the last packets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn clear(&self, shut: &Shut) -> Result<()> {
        self.remove(&shut.id, &shut.stale)
    }

    fn remove(&self, id: &str, stale: &[Stale]) -> Result<()> {
        let name = link::outer_name(id);
        let link = match remove_own(&mut lock(&self.removal), &self.config, &name) {
            Err(Error::ForeignLink { .. }) => Ok(()), // so the endpoint has none
            other => other,
        };
        self.forget(stale).and(link)
    }

    /// Replaces the published ports of one attached endpoint, in one
    /// transaction.
    ///
    /// # Errors
    /// An unknown endpoint, a port that leads to another one, or the kernel's
    /// refusal.
    pub fn publish(&self, id: &str, ports: &[Published]) -> Result<()> {
        let mut kernel = self.kernel();
        let backends = kernel.rules.addresses(id);
        for port in ports {
            port.validate(id, &backends)?;
        }
        let stale = kernel.rules.change(|elements| {
            elements.unpublish(id);
            let taken = ports.iter().find(|port| !elements.publish(&backends, port));
            match taken {
                Some(port) => Err(Invalid::PortTaken(Box::new(port.clone())).into()),
                None => Ok(()),
            }
        })?;
        drop(kernel);
        self.forget(&stale)
    }

    /// Has the published ports of an endpoint lead nowhere. Connections of
    /// other machines that there are stay; those of this machine's loopback
    /// addresses break off.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn withdraw(&self, id: &str) -> Result<()> {
        let changed = self.kernel().rules.change(|elements| {
            elements.unpublish(id);
            Ok(())
        });
        // The flows that go stale by this are those that are to stay.
        changed.map(drop)
    }

    /// Replaces the whole ruleset by that of the desired state, in one
    /// transaction.
    ///
    /// # Errors
    /// A contradiction in the desired state, or the kernel's refusal; the old
    /// ruleset then stays.
    pub fn apply(&self, desired: &Desired) -> Result<()> {
        desired.validate(&self.config)?;
        let elements = Elements::of(&desired.endpoints, &desired.published);
        let stale = self.kernel().rules.replace(elements)?;
        self.forget(&stale)
    }

    /// Compares the kernel's state with the desired one and repairs what
    /// differs: ruleset, gateway, forwarding, routes and neighbours; removes
    /// links with this host's mark that are not desired. Cheap when nothing
    /// changed: to be called every few seconds.
    ///
    /// # Errors
    /// A contradiction in the desired state, or the kernel's refusal.
    pub fn reconcile(&self, desired: &Desired) -> Result<Vec<Repair>> {
        desired.validate(&self.config)?;
        let mut kernel = self.kernel();
        let mut repairs = sysctl::forward(&self.config)?;
        let elements = Elements::of(&desired.endpoints, &desired.published);
        let (meddled, stale) = kernel.rules.reconcile(elements)?;
        if meddled {
            repairs.push(Repair::Ruleset);
        }
        repairs.extend(reconcile::links(self, &mut kernel.route, desired)?);
        drop(kernel);
        self.forget(&stale)?;
        Ok(repairs)
    }

    /// Subscribes to changes of rules and links by others, so that
    /// [`reconcile`](Self::reconcile) can be called at once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(&self) -> Result<Watch> {
        let port = self.kernel().rules.others().1.port();
        Watch::open(vec![port.map_err(|source| Error::Netlink {
            operation: "read the port id of a netlink socket".to_owned(),
            source,
        })?])
    }

    /// Traffic of a dyno's link so far.
    ///
    /// # Errors
    /// The link is not there.
    pub fn counters(&self, id: &str) -> Result<Counters> {
        let operation = format!("read the counters of {}", link::outer_name(id));
        let replies = self
            .kernel()
            .route
            .request(&operation, [link::read_link(&link::outer_name(id))])?;
        Ok(found(&operation, &replies)?.counters)
    }

    /// Traffic of the links of all dynos, in one request.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn all_counters(&self) -> Result<BTreeMap<String, Counters>> {
        let replies = self
            .kernel()
            .route
            .dump("list links", &link::list_links())?;
        let own = |reply| {
            let link = Link::parse(reply)?;
            let id = link.endpoint(&self.config)?.to_owned();
            Some((id, link.counters))
        };
        Ok(replies.iter().filter_map(own).collect())
    }

    /// Foreign firewall chains that may drop the dynos' packets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn findings(&self) -> Result<Vec<Finding>> {
        findings::foreign_firewalls(&mut self.kernel().rules)
    }

    /// Whether a port of this machine is free to be published: nobody listens
    /// on it. (A listener would not get one more connection.)
    ///
    /// # Errors
    /// [`Error::PortInUse`], or [`Error::Bind`] if the machine does not have
    /// the address.
    pub fn probe(&self, published: &Published) -> Result<()> {
        probe::port(published)
    }

    /// Removes everything with this host's mark: links, routes and the nft
    /// table. Forwarding stays as it is.
    ///
    /// # Errors
    /// The first of the kernel's refusals; the rest is removed all the same.
    pub fn close(self) -> Result<()> {
        let mut kernel = self.kernel();
        let links = reconcile::sweep(&self, &mut kernel.route, &|_| false).map(drop);
        let routes = reconcile::forget_subnets(&self.config, &mut kernel.route);
        let table = kernel.rules.remove();
        links.and(routes).and(table)
    }

    /// Creates and marks both ends, down; the outer one's index.
    fn create_pair(
        &self,
        route: &mut Socket,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<u32> {
        let name = link::outer_name(&endpoint.id);
        let operation = format!("create link {name}");
        let create = || {
            [
                link::create_veth(&self.config, endpoint, netns),
                link::read_link(&name),
            ]
        };
        let replies = match route.request(&operation, create()) {
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                remove_own(route, &self.config, &name)?;
                route.request(&operation, create())?
            }
            other => other?,
        };
        let outer = found(&operation, &replies)?.index;
        // Not along with its creation: the kernel goes on after a message that
        // it refused, and would mark what somebody else made.
        let mark = link::mark(&self.config, &endpoint.id);
        let marking = [link::mark_link(outer, &mark, self.kernel_ipv6)];
        route.request(&operation, marking)?;
        if self.kernel_ipv6 {
            sysctl::distrust(&name)?;
        }
        Ok(outer)
    }

    fn raise_inner(&self, inside: &mut Socket, endpoint: &Endpoint) -> Result<()> {
        const LOOPBACK: u32 = 1;
        let operation = format!("configure the inner link of {}", endpoint.id);
        let first = [link::up(LOOPBACK), link::read_link(link::INNER_NAME)];
        let inner = found(&operation, &inside.request(&operation, first)?)?.index;
        let mut messages = Vec::new();
        if self.kernel_ipv6 {
            messages.push(link::without_link_local(inner));
        }
        messages.extend(addresses(endpoint).map(|address| link::add_address(inner, address)));
        messages.push(link::up(inner));
        for gateway in self.gateways(endpoint) {
            messages.push(link::neighbour(
                inner,
                gateway,
                link::outer_mac(&self.config),
            ));
            messages.push(link::default_route(inner, gateway));
        }
        inside.request(&operation, messages).map(drop)
    }

    /// Brings the host's end up, with its route and neighbour.
    pub(crate) fn raise_outer(
        &self,
        route: &mut Socket,
        outer: u32,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let mut messages = vec![link::up_without_arp(outer)];
        for (address, gateway) in addresses(endpoint).zip(self.gateways(endpoint)) {
            messages.push(link::neighbour(outer, address, link::inner_mac(endpoint)));
            messages.push(link::route_to_dyno(outer, address, gateway));
        }
        let operation = format!("configure link {}", link::outer_name(&endpoint.id));
        route.request(&operation, messages).map(drop)
    }

    /// Creates the gateway's link and its addresses, or completes it.
    pub(crate) fn raise_gateway(&self, route: &mut Socket) -> Result<()> {
        let name = link::gateway_name(&self.config);
        let operation = format!("create link {name}");
        let foreign = |link: &Link| !link.is_own(&self.config);
        if find(route, &name)?.as_ref().is_some_and(foreign) {
            return Err(Error::ForeignLink { name });
        }
        let [kind, other_kind] = link::GATEWAY_KINDS;
        let mut create = |kind| {
            let messages = [
                link::create_gateway(&self.config, kind),
                link::read_link(&name),
            ];
            route.request(&operation, messages)
        };
        let replies = match create(kind) {
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {
                create(other_kind)?
            }
            other => other?,
        };
        let index = found(&operation, &replies)?.index;
        let mark = link::mark(&self.config, link::GATEWAY);
        let mut messages = vec![link::mark_link(index, &mark, self.kernel_ipv6)];
        let addresses = self.config.gateways();
        messages.extend(addresses.map(|address| link::add_address(index, address)));
        messages.push(link::up(index));
        messages.extend(self.config.subnets().map(link::unreachable_subnet));
        route.request(&operation, messages).map(drop)
    }

    /// The gateways that go with an endpoint's addresses, in their order.
    fn gateways(&self, endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + use<> {
        self.config
            .gateways()
            .take(1 + usize::from(endpoint.ipv6.is_some()))
    }

    fn forget(&self, stale: &[Stale]) -> Result<()> {
        if stale.is_empty() {
            return Ok(());
        }
        match &mut *lock(&self.flows) {
            Some(conntrack) => conntrack.forget(stale),
            None => Ok(()),
        }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }
}

/// What is known of the kernel is only a hint, and each change is checked
/// against it: a panic elsewhere leaves nothing half-true here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An endpoint's addresses, IPv4 first.
pub(crate) fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + use<> {
    std::iter::once(IpAddr::V4(endpoint.ipv4)).chain(endpoint.ipv6.map(IpAddr::V6))
}

/// Waits until a link whose other end has just come up sends, or its first
/// packets would be lost: a second for a TCP connection. Since Linux 6.8 the
/// question itself makes it so.
fn wait_until_active(socket: &mut Socket, name: &str) -> Result<()> {
    let operation = format!("wait for link {name}");
    let deadline = Instant::now() + ACTIVATION;
    while !found(
        &operation,
        &socket.request(&operation, [link::read_link(name)])?,
    )?
    .active
    {
        if Instant::now() > deadline {
            let source = io::ErrorKind::TimedOut.into();
            return Err(Error::Netlink { operation, source });
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn open_socket() -> Result<Socket> {
    Socket::open(None).map_err(|source| Error::Netlink {
        operation: "open a netlink socket".to_owned(),
        source,
    })
}

/// Removes the link of this name, if there is one and this host made it.
fn remove_own(route: &mut Socket, config: &Config, name: &str) -> Result<()> {
    match find(route, name)? {
        Some(link) if !link.is_own(config) => Err(Error::ForeignLink {
            name: name.to_owned(),
        }),
        Some(link) => delete_link(route, &link),
        None => Ok(()),
    }
}

/// Removes a link, which may be gone already.
pub(crate) fn delete_link(route: &mut Socket, link: &Link) -> Result<()> {
    let operation = format!("remove link {}", link.name);
    match route.request(&operation, [link::delete_link(link.index)]) {
        Err(Error::Netlink { source, .. }) if is_no_device(&source) => Ok(()),
        other => other.map(drop),
    }
}

fn find(route: &mut Socket, name: &str) -> Result<Option<Link>> {
    let operation = format!("read link {name}");
    match route.request(&operation, [link::read_link(name)]) {
        Err(Error::Netlink { source, .. }) if is_no_device(&source) => Ok(None),
        other => found(&operation, &other?).map(Some),
    }
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn found(operation: &str, replies: &[Reply]) -> Result<Link> {
    replies
        .iter()
        .filter(|reply| reply.kind == link::RTM_NEWLINK)
        .find_map(Link::parse)
        .ok_or_else(|| Error::Reply {
            operation: operation.to_owned(),
        })
}
