//! One network of one host, from its first link to its last.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use crate::error::Result;
use crate::model::{Config, Counters, Desired, Endpoint, Finding, Published, Repair};

/// An open network. Every call may come from any thread; calls that change
/// the kernel's state wait for each other.
#[derive(Debug)]
pub struct Network {
    config: Config,
}

impl Network {
    /// Opens the network in the calling thread's network namespace: turns on
    /// forwarding where it is off, creates the gateway's link and replaces
    /// the nft table. The table lets nothing through until
    /// [`apply`](Self::apply) or [`reconcile`](Self::reconcile) told it of the
    /// dynos, except that an existing table's ruleset is kept as it is.
    ///
    /// # Errors
    /// An invalid configuration, or the kernel's refusal.
    pub fn open(config: Config) -> Result<Self> {
        Ok(Self { config })
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
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
    /// replaced.
    ///
    /// # Errors
    /// An invalid endpoint, or the kernel's refusal; nothing is left behind.
    pub fn attach(&self, _netns: BorrowedFd<'_>, _endpoint: &Endpoint) -> Result<()> {
        unimplemented!()
    }

    /// Removes an endpoint's link, rules and published ports. Not an error if
    /// there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(&self, _id: &str) -> Result<()> {
        unimplemented!()
    }

    /// Replaces the published ports of one endpoint, in one transaction.
    ///
    /// # Errors
    /// An unknown endpoint, a conflict with a port that is already published
    /// here, or the kernel's refusal.
    pub fn publish(&self, _id: &str, _ports: &[Published]) -> Result<()> {
        unimplemented!()
    }

    /// Makes the ruleset equal to the desired state in one transaction.
    ///
    /// # Errors
    /// A contradiction in the desired state, or the kernel's refusal; the old
    /// ruleset then stays.
    pub fn apply(&self, _desired: &Desired) -> Result<()> {
        unimplemented!()
    }

    /// Compares the kernel's state with the desired one and repairs what
    /// differs: ruleset, gateway, forwarding, routes and neighbours; removes
    /// links with this host's mark that are not desired. Cheap when nothing
    /// changed: to be called every few seconds.
    ///
    /// # Errors
    /// A contradiction in the desired state, or the kernel's refusal.
    pub fn reconcile(&self, _desired: &Desired) -> Result<Vec<Repair>> {
        unimplemented!()
    }

    /// Traffic of a dyno's link so far.
    ///
    /// # Errors
    /// The link is not there.
    pub fn counters(&self, _id: &str) -> Result<Counters> {
        unimplemented!()
    }

    /// Foreign firewall chains that may drop the dynos' packets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn findings(&self) -> Result<Vec<Finding>> {
        unimplemented!()
    }

    /// Whether a port of this machine is free to be published: nobody listens
    /// on it. (A listener would not get one more connection.)
    ///
    /// # Errors
    /// [`Error::PortInUse`](crate::Error::PortInUse).
    pub fn probe(&self, _published: &Published) -> Result<()> {
        unimplemented!()
    }

    /// Removes everything with this host's mark: links, routes and the nft
    /// table. Forwarding stays as it is.
    ///
    /// # Errors
    /// The first of the kernel's refusals; the rest is removed all the same.
    pub fn close(self) -> Result<()> {
        unimplemented!()
    }
}

/// Brings the loopback link of a namespace up, for a dyno without a network.
///
/// # Errors
/// The namespace cannot be entered, or the kernel's refusal.
pub fn loopback_up(_netns: BorrowedFd<'_>) -> Result<()> {
    unimplemented!()
}
