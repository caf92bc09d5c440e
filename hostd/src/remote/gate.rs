//! Who is let in at all, before anything is asked of them.
//!
//! A network that has failed to say who it is too often in a minute is closed to until
//! that minute is over. Those that have not said it yet have places of their own, few for
//! each network: who says nothing takes none from those who are known. Secrets have 256
//! random bits, so this is against noise and work, not against guessing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures of one network after which it is closed to.
const FAILURES: u32 = 10;
/// From the first of them on.
const WINDOW: Duration = Duration::from_secs(60);
/// P15: networks that are remembered.
const NETWORKS: usize = 4096;
/// P15: connections that have not said who they are, of one network and of all.
const STRANGERS: u32 = 16;
const ALL_STRANGERS: u32 = 256;

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Too many failures.
    #[error("{FAILURES} attempts in a minute have failed from there")]
    Failures,
    /// Too many that say nothing.
    #[error("too many connections from there have not said yet who they are")]
    Strangers,
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    networks: HashMap<IpAddr, Network>,
    strangers: u32,
}

#[derive(Debug)]
struct Network {
    failures: u32,
    since: Instant,
    strangers: u32,
}

/// The place of a connection that has not said yet who it is; free again once dropped.
#[derive(Debug)]
pub struct Stranger {
    gate: Arc<Gate>,
    network: IpAddr,
}

impl Gate {
    /// Lets a connection in, to say who it is.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Stranger, Closed> {
        let network = network(address);
        let mut seen = self.seen();
        if seen.strangers >= ALL_STRANGERS {
            return Err(Closed::Strangers);
        }
        let entry = seen.entry(network, now);
        if entry.failures >= FAILURES {
            return Err(Closed::Failures);
        }
        if entry.strangers >= STRANGERS {
            return Err(Closed::Strangers);
        }
        entry.strangers += 1;
        seen.strangers += 1;
        Ok(Stranger {
            gate: self.clone(),
            network,
        })
    }

    /// Somebody there has not said who they are, or was wrong.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        self.seen().entry(network(address), now).failures += 1;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn entry(&mut self, network: IpAddr, now: Instant) -> &mut Network {
        if self.networks.len() >= NETWORKS && !self.networks.contains_key(&network) {
            self.forget(now);
        }
        let entry = self.networks.entry(network).or_insert(Network {
            failures: 0,
            since: now,
            strangers: 0,
        });
        if entry.is_past(now) {
            (entry.failures, entry.since) = (0, now);
        }
        entry
    }

    /// Makes room: whose minute is over, else whose is the oldest. Those that have a
    /// connection stay; there are fewer of them than fit.
    fn forget(&mut self, now: Instant) {
        self.networks
            .retain(|_, entry| entry.strangers > 0 || !entry.is_past(now));
        if self.networks.len() < NETWORKS {
            return;
        }
        let idle = self
            .networks
            .iter()
            .filter(|(_, entry)| entry.strangers == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.since);
        if let Some(network) = oldest.map(|(network, _)| *network) {
            self.networks.remove(&network);
        }
    }
}

impl Network {
    fn is_past(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut seen = self.gate.seen();
        seen.strangers = seen.strangers.saturating_sub(1);
        if let Some(entry) = seen.networks.get_mut(&self.network) {
            entry.strangers = entry.strangers.saturating_sub(1);
        }
    }
}

/// An IPv4 address is one; of IPv6 a whole /64 is one user's (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn who_fails_too_often_is_closed_to_for_the_rest_of_the_minute() {
        let (gate, now) = (Arc::new(Gate::default()), Instant::now());
        for _ in 0..FAILURES {
            gate.admit(address(1), now).unwrap();
            gate.failed(address(1), now);
        }
        let late = now + WINDOW - Duration::from_secs(1);
        assert_eq!(gate.admit(address(1), late).unwrap_err(), Closed::Failures);
        gate.admit(address(2), late).unwrap();
        gate.admit(address(1), now + WINDOW).unwrap();
    }

    #[test]
    fn who_says_nothing_takes_no_place_from_others() {
        let (gate, now) = (Arc::new(Gate::default()), Instant::now());
        let admit = |number| gate.admit(address(number), now);
        let silent: Vec<_> = (0..STRANGERS).map(|_| admit(1).unwrap()).collect();
        assert_eq!(admit(1).unwrap_err(), Closed::Strangers);
        admit(2).unwrap();
        drop(silent);
        admit(1).unwrap();
        let all: Vec<_> = (0..ALL_STRANGERS)
            .map(|number| admit(number).unwrap())
            .collect();
        assert_eq!(admit(9999).unwrap_err(), Closed::Strangers);
        drop(all);
        admit(9999).unwrap();
    }

    #[test]
    fn whatever_comes_the_memory_is_bounded() {
        let (gate, now) = (Arc::new(Gate::default()), Instant::now());
        let silent = gate.admit(address(0), now).unwrap();
        for number in 1..20_000 {
            gate.failed(address(number), now);
        }
        assert_eq!(gate.seen().networks.len(), NETWORKS);
        assert!(gate.seen().networks.contains_key(&address(0)));
        drop(silent);
        assert_eq!(gate.seen().strangers, 0);
    }

    #[test]
    fn a_user_of_ipv6_is_a_network() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
