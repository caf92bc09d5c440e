//! The next host, in order, that has at least so much free.
//!
//! A binary tree over the hosts; each node has, for each resource, the most
//! that any host below it has free. A query leaves out every subtree in which
//! one resource is short everywhere.
//!
//! ```text
//!            [8 GiB, 4 cpu]            ask: 4 GiB, 2 cpu, from host 1 on
//!           /              \
//!    [1 GiB, 4 cpu]   [8 GiB, 3 cpu]   left: nobody below has 4 GiB
//!      /       \          /      \
//!     h0       h1        h2      h3    h2 it is
//! ```

/// Amounts of memory, processor time and disk, in the units of
/// [`super::Resources`].
pub(super) type Amounts = [u64; 3];

/// Whether what is free is enough.
pub(super) fn covers(free: &Amounts, ask: &Amounts) -> bool {
    // All three are compared, without a branch for each.
    (free[0] >= ask[0]) & (free[1] >= ask[1]) & (free[2] >= ask[2])
}

/// The tree: node 1 is the root, those below `n` are `2n` and `2n + 1`.
#[derive(Clone, Debug)]
pub(super) struct FitTree {
    leaves: usize,
    nodes: Vec<Amounts>,
}

impl FitTree {
    /// A tree over hosts with so much free.
    pub(super) fn new(free: &[Amounts]) -> FitTree {
        let leaves = free.len().next_power_of_two();
        let mut nodes = vec![[0; 3]; 2 * leaves];
        nodes[leaves..leaves + free.len()].copy_from_slice(free);
        for node in (1..leaves).rev() {
            nodes[node] = most(&nodes[2 * node], &nodes[2 * node + 1]);
        }
        FitTree { leaves, nodes }
    }

    /// One host has more or less than before.
    pub(super) fn set(&mut self, host: usize, free: Amounts) {
        let mut node = self.leaves + host;
        self.nodes[node] = free;
        while node > 1 {
            node /= 2;
            let now = most(&self.nodes[2 * node], &self.nodes[2 * node + 1]);
            if now == self.nodes[node] {
                break;
            }
            self.nodes[node] = now;
        }
    }

    /// The first host in `from..to` that has `ask` free.
    pub(super) fn first(&self, from: usize, to: usize, ask: &Amounts) -> Option<usize> {
        if from >= to {
            return None;
        }
        let mut node = self.leaves + from;
        loop {
            if covers(&self.nodes[node], ask) {
                if node >= self.leaves {
                    return Some(node - self.leaves);
                }
                node *= 2;
                continue;
            }
            // The subtree to the right, or the biggest that begins there.
            node += 1;
            if node.is_power_of_two() {
                return None;
            }
            while node.is_multiple_of(2) {
                node /= 2;
            }
            // Its parent began further left, but nothing there was skipped.
            let begins = node << (node.leading_zeros() - self.leaves.leading_zeros());
            if begins - self.leaves >= to {
                return None;
            }
        }
    }
}

fn most(a: &Amounts, b: &Amounts) -> Amounts {
    [a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts() -> impl Strategy<Value = Amounts> {
        [0..6u64, 0..6, 0..3]
    }

    proptest! {
        #[test]
        fn a_query_finds_what_a_walk_over_all_hosts_finds(
            mut free in prop::collection::vec(amounts(), 1..40),
            changes in prop::collection::vec((0..40usize, amounts()), 0..20),
            ask in amounts(),
            (from, to) in (0..40usize, 0..40usize),
        ) {
            let mut tree = FitTree::new(&free);
            for (host, now) in changes {
                let host = host % free.len();
                free[host] = now;
                tree.set(host, now);
            }
            let to = to.min(free.len());
            let walk = (from..to).find(|&host| covers(&free[host], &ask));
            prop_assert_eq!(tree.first(from, to, &ask), walk);
        }
    }
}
