//! Which address the next dyno gets: pure bookkeeping over one subnet.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Every address of the subnet is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("all {capacity} addresses of {subnet} are in use; remove dynos or use a larger subnet")]
pub struct Exhausted {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// How many dynos it can hold.
    pub capacity: u32,
}

/// The addresses of one subnet that dynos hold. The lowest free one is handed
/// out next; the network, gateway and broadcast addresses never are.
#[derive(Debug, Clone)]
pub struct Pool {
    subnet: Ipv4Net,
    /// Offsets in use, from the network address.
    used: BTreeSet<u32>,
    /// No offset below this one is free.
    lowest: u32,
}

/// Network and gateway come before the first dyno.
const FIRST: u32 = 2;

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(subnet: Ipv4Net) -> Self {
        Self {
            subnet,
            used: BTreeSet::new(),
            lowest: FIRST,
        }
    }

    /// How many dynos the subnet can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        (u32::from(self.subnet.broadcast()) - u32::from(self.subnet.network()))
            .saturating_sub(FIRST)
    }

    /// How many addresses are in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// [`Exhausted`] when there is none.
    pub fn allocate(&mut self) -> Result<Ipv4Addr, Exhausted> {
        let end = FIRST + self.capacity();
        let mut candidate = self.lowest;
        for &taken in self.used.range(self.lowest..) {
            if taken != candidate {
                break;
            }
            candidate += 1;
        }
        if candidate >= end {
            return Err(Exhausted {
                subnet: self.subnet,
                capacity: self.capacity(),
            });
        }
        self.used.insert(candidate);
        self.lowest = candidate + 1;
        Ok(Ipv4Addr::from(u32::from(self.subnet.network()) + candidate))
    }

    /// Marks an address as in use, as when recorded dynos are read back.
    /// False if it was in use already or is not one that a dyno can have.
    pub fn claim(&mut self, address: Ipv4Addr) -> bool {
        self.offset(address)
            .is_some_and(|offset| self.used.insert(offset))
    }

    /// Gives an address back. False if it was not in use.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let Some(offset) = self.offset(address) else {
            return false;
        };
        self.lowest = self.lowest.min(offset);
        self.used.remove(&offset)
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(u32::from(self.subnet.network()))?;
        (FIRST..FIRST + self.capacity())
            .contains(&offset)
            .then_some(offset)
    }
}

/// The IPv6 address that goes with an IPv4 address: the same offset in the
/// other subnet, so that one pool serves both. `None` if the IPv6 subnet is
/// too small for it.
#[must_use]
pub fn paired_ipv6(subnet4: Ipv4Net, subnet6: Ipv6Net, address: Ipv4Addr) -> Option<Ipv6Addr> {
    let offset = u32::from(address).checked_sub(u32::from(subnet4.network()))?;
    let paired = Ipv6Addr::from(u128::from(subnet6.network()).checked_add(u128::from(offset))?);
    subnet6.contains(&paired).then_some(paired)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn first_dyno_comes_after_network_and_gateway() {
        let mut pool = Pool::new(subnet("10.128.16.0/20"));
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(10, 128, 16, 2));
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(10, 128, 16, 3));
    }

    #[test]
    fn exhaustion_names_the_subnet_and_ends_when_one_is_freed() {
        let mut pool = Pool::new(subnet("10.128.0.0/29"));
        let all: Vec<_> = (0..pool.capacity())
            .map(|_| pool.allocate().unwrap())
            .collect();
        assert_eq!(all.len(), 5);
        assert_eq!(*all.last().unwrap(), Ipv4Addr::new(10, 128, 0, 6));
        let message = pool.allocate().unwrap_err().to_string();
        assert!(message.contains("10.128.0.0/29"), "{message}");
        assert!(pool.release(all[2]));
        assert_eq!(pool.allocate().unwrap(), all[2]);
    }

    #[test]
    fn million_allocations_leave_the_pool_as_it_was() {
        let mut pool = Pool::new(subnet("10.128.0.0/20"));
        for _ in 0..100 {
            pool.allocate().unwrap();
        }
        let before = pool.clone();
        for _ in 0..1_000_000 {
            let address = pool.allocate().unwrap();
            assert!(pool.release(address));
        }
        assert_eq!(pool.used, before.used);
        assert_eq!(pool.lowest, before.lowest);
    }

    #[test]
    fn reserved_and_foreign_addresses_cannot_be_claimed() {
        let mut pool = Pool::new(subnet("10.128.0.0/24"));
        for last in [0, 1, 255] {
            assert!(!pool.claim(Ipv4Addr::new(10, 128, 0, last)), "{last}");
        }
        assert!(!pool.claim(Ipv4Addr::new(10, 129, 0, 5)));
        assert!(!pool.claim(Ipv4Addr::new(9, 0, 0, 5)));
        assert!(pool.claim(Ipv4Addr::new(10, 128, 0, 5)));
        assert!(!pool.claim(Ipv4Addr::new(10, 128, 0, 5)));
    }

    #[test]
    fn ipv6_address_has_the_offset_of_the_ipv4_address() {
        let six: Ipv6Net = "fd00:1::/64".parse().unwrap();
        let paired = paired_ipv6(subnet("10.128.16.0/20"), six, Ipv4Addr::new(10, 128, 17, 2));
        assert_eq!(paired.unwrap().to_string(), "fd00:1::102");
    }

    proptest! {
        /// Against the obvious model: a set, and the lowest number not in it.
        #[test]
        fn lowest_free_address_is_handed_out(steps in prop::collection::vec((0..3u8, 0..16u32), 0..200)) {
            let subnet = subnet("10.128.0.0/28");
            let at = |offset: u32| Ipv4Addr::from(u32::from(subnet.network()) + offset);
            let mut pool = Pool::new(subnet);
            let mut model = HashSet::new();
            for (step, offset) in steps {
                match step {
                    0 => {
                        let lowest = (2..15).find(|o| !model.contains(o));
                        prop_assert_eq!(pool.allocate().ok(), lowest.map(at));
                        model.extend(lowest);
                    }
                    1 => {
                        let valid = (2..15).contains(&offset);
                        prop_assert_eq!(pool.claim(at(offset)), valid && model.insert(offset));
                    }
                    _ => prop_assert_eq!(pool.release(at(offset)), model.remove(&offset)),
                }
                prop_assert_eq!(pool.used(), model.len());
            }
        }
    }
}
