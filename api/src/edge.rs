//! The tables that hostd writes and `dyno-edge` serves from.
//!
//! hostd replaces `tables.json` atomically; the edge reads it at start and at
//! each change, so that names keep resolving while hostd is away.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of [`Tables`] that this build writes and reads.
pub const VERSION: u32 = 1;

/// Everything that the edge needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// Resolvers that names outside the networks are forwarded to.
    pub upstreams: Vec<SocketAddr>,
    /// One entry per network, by name.
    pub networks: BTreeMap<String, NetworkTable>,
}

/// The names of one network. A client sees only the network it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTable {
    /// Address blocks of the network as `address/prefix`: who asks from here
    /// is a dyno of this network.
    pub sources: Vec<String>,
    /// Lower-case name without a trailing dot → addresses of the dynos that answer to it.
    pub names: BTreeMap<String, Vec<IpAddr>>,
}
