//! How many hosts a workload takes, and how many it takes at least.

use super::workload::{self, Shape};
use dyno_cluster::scheduler::{Cluster, Count, Group, Host, Plan, Resources};

/// What a workload was packed into.
pub(crate) struct Packed {
    /// The fewest hosts on which all were placed.
    pub(crate) hosts: usize,
    /// See [`bound`].
    pub(crate) bound: usize,
    /// What was packed.
    #[allow(dead_code, reason = "the tests look at it, the figures do not")]
    pub(crate) plan: Plan,
}

impl Packed {
    #[allow(dead_code, reason = "the figures look at it, the tests do not")]
    /// How many more hosts than the bound, as a share of it.
    pub(crate) fn excess(&self) -> f64 {
        self.hosts as f64 / self.bound as f64 - 1.0
    }
}

/// Packs what fills about `hosts` hosts, spread over hosts and zones, onto as few
/// as do.
pub(crate) fn packed(seed: u64, hosts: u64, dynos: u64, shape: Shape, rules: bool) -> Packed {
    let mut groups = workload::groups(seed, dynos, shape, rules);
    workload::fill(&mut groups, &workload::hosts(hosts), 1000);
    let mut count = hosts;
    loop {
        let machines = workload::hosts(count);
        let bound = bound(&machines, &groups);
        let cluster = Cluster::new(machines, groups.clone(), workload::policy()).expect("valid");
        let plan = cluster.schedule();
        if plan.unplaced().next().is_none() {
            let hosts = usize::try_from(count).expect("few");
            return Packed { hosts, bound, plan };
        }
        count += 1;
    }
}

/// No fewer hosts can do: for memory, processor time and disk each, the fewest
/// equal hosts whose sum is what is asked for in all; the most of the three. A
/// dyno that cannot be divided, and every rule, only make it more.
pub(crate) fn bound(hosts: &[Host], groups: &[Group]) -> usize {
    let resources: [fn(&Resources) -> u64; 3] =
        [|of| of.memory_bytes, |of| of.cpu_millis, |of| of.disk_bytes];
    let fewest = resources.map(|of| {
        let each = hosts
            .iter()
            .map(|host| of(&host.capacity) - of(&host.reserved))
            .max()
            .unwrap_or(0);
        let asked: u128 = groups
            .iter()
            .map(|group| match group.count {
                Count::Instances(count) => u128::from(of(&group.ask)) * u128::from(count),
                Count::EveryHost => 0,
            })
            .sum();
        usize::try_from(asked.div_ceil(u128::from(each.max(1)))).expect("fits")
    });
    fewest.into_iter().max().unwrap_or(0)
}
