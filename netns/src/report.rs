//! What the caller gets told.

use std::fmt;

/// Bytes and packets of a dyno's link, from the dyno's point of view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received by the dyno.
    pub rx_bytes: u64,
    /// Sent by the dyno.
    pub tx_bytes: u64,
    /// Received by the dyno.
    pub rx_packets: u64,
    /// Sent by the dyno.
    pub tx_packets: u64,
}

/// Something that was not as desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The nft table was missing or had been changed; it was replaced.
    Ruleset,
    /// The gateway's link was missing or had lost an address; it was put back.
    Gateway,
    /// Forwarding was off and was turned on; holds the setting's path.
    Forwarding(String),
    /// The host's side of a dyno's link had lost its route, neighbour or up
    /// flag; it was put back.
    Link {
        /// The dyno's [`Endpoint::id`](crate::Endpoint::id).
        endpoint: String,
    },
    /// A dyno's link is gone and only [`Network::attach`](crate::Network::attach),
    /// which needs the dyno's namespace, can bring it back.
    LinkMissing {
        /// The dyno's [`Endpoint::id`](crate::Endpoint::id).
        endpoint: String,
    },
    /// A link with this host's mark that nobody wants was removed.
    StrayLink {
        /// The link's name.
        name: String,
    },
}

/// Something outside this crate's reach that keeps packets from dynos. A
/// packet needs every base chain's consent: our accept does not overrule a
/// foreign drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A foreign base chain drops what it does not know (Docker, ufw).
    DropPolicy {
        /// `ip`, `ip6`, `inet`, …
        family: String,
        /// The foreign table.
        table: String,
        /// The foreign chain.
        chain: String,
        /// Which packets it judges.
        hook: Hook,
    },
    /// Legacy iptables are in use; their policies cannot be seen by nftables.
    LegacyIptables {
        /// The table in use, such as `filter`.
        table: String,
    },
}

/// The packets that a [`Finding::DropPolicy`] judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// To the host itself: the dynos' DNS.
    Input,
    /// Through the host: everything between dynos and the outside.
    Forward,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropPolicy {
                family,
                table,
                chain,
                hook,
            } => {
                let harm = match hook {
                    Hook::Input => "dynos may not reach DNS",
                    Hook::Forward => "published ports and outgoing traffic of dynos may be dead",
                };
                write!(
                    f,
                    "chain {chain} of nft table {family} {table} drops by default: {harm}; let it accept the subnet of the dynos"
                )
            }
            Self::LegacyIptables { table } => write!(
                f,
                "legacy iptables table {table} is in use and cannot be inspected; check that it accepts forwarding for the subnet of the dynos"
            ),
        }
    }
}
