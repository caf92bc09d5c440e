//! The network of a host's dynos: links, addresses, routes and nftables, by
//! netlink, into a namespace given by its file descriptor.
//!
//! Nothing is executed and nothing is kept on disk: the caller holds the
//! desired state and hands it over, the kernel holds the actual one, and
//! [`Network::reconcile`] makes the second equal to the first. Every call is
//! synchronous; a caller with an event loop uses a blocking thread.
//!
//! ```text
//! model         what the caller asks for: host id, endpoints, published ports
//! report        what it gets told: counters, repairs, findings
//! network       open, attach, detach, publish, close
//!   reconcile   compare with the kernel and repair
//!   watch       hear of foreign changes at once
//!   findings    what other people's firewalls do to us
//! subnet, pool  choose the subnets; hand out their addresses (pure)
//! namespace     a netlink socket inside somebody else's network namespace
//! link          rtnetlink messages: veth, addresses, routes, neighbours
//! nft           the ruleset (pure), its encoding, and the transaction
//! conntrack     forget the flows of an address that changed hands
//! netlink       the wire format and the socket under both
//! ```

mod conntrack;
mod error;
mod findings;
mod link;
mod model;
mod namespace;
mod netlink;
mod network;
mod nft;
pub mod pool;
mod probe;
mod reconcile;
mod report;
mod subnet;
mod sysctl;
mod watch;

pub use error::{Error, Invalid, Result};
pub use model::{Config, Desired, Endpoint, HostId, Protocol, Published};
pub use network::{Network, Shut};
pub use report::{Counters, Finding, Hook, Repair};
pub use subnet::choose_subnets;
pub use watch::Watch;
