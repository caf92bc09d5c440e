//! With room kept for the loss of hosts, every such loss leaves nobody out.

mod random;

use dyno_cluster::scheduler::{Cluster, Group, Host, Policy, Resources};
use proptest::prelude::*;

fn plain(hosts: usize, groups: Vec<(u32, u64, u64)>) -> (Vec<Host>, Vec<Group>) {
    let hosts = (0..hosts).map(|number| Host {
        id: format!("h{number:03}"),
        zone: format!("z{}", number % 3),
        capacity: Resources {
            memory_bytes: 40,
            cpu_millis: 40,
            ..Resources::default()
        },
        ..Host::default()
    });
    let groups =
        groups
            .into_iter()
            .enumerate()
            .map(|(number, (count, memory_bytes, cpu_millis))| {
                let ask = Resources {
                    memory_bytes,
                    cpu_millis,
                    ..Resources::default()
                };
                Group::new(&format!("a{number}"), "web", count, ask)
            });
    (hosts.collect(), groups.collect())
}

fn policy(survive_hosts: u32) -> Policy {
    Policy {
        preemption: false,
        survive_hosts,
    }
}

fn group() -> impl Strategy<Value = (u32, u64, u64)> {
    (1..30u32, 1..9u64, 1..9u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Few sets of hosts: each is tried out.
    #[test]
    fn the_loss_of_any_host_leaves_nobody_out(
        hosts in random::hosts(5),
        groups in random::groups(6),
    ) {
        let plan = Cluster::new(hosts.clone(), groups.clone(), policy(1)).unwrap().schedule();
        for host in &hosts {
            let capacity = plan.capacity(&[&host.id]).unwrap();
            let homeless = capacity.homeless().filter(|dyno| {
                let group = groups.iter().find(|group| group.id == dyno.group).unwrap();
                !group.pinned.contains_key(&dyno.instance)
            });
            prop_assert_eq!(homeless.count(), 0, "{}", host.id);
        }
    }

    /// 35 hosts have 595 pairs, more than are tried out: the bound must hold for
    /// each of them.
    #[test]
    fn the_bound_for_many_hosts_holds_for_every_pair(
        groups in prop::collection::vec(group(), 5..12),
    ) {
        let (hosts, groups) = plain(35, groups);
        let plan = Cluster::new(hosts.clone(), groups, policy(2)).unwrap().schedule();
        prop_assert!(plan.assignments().count() > 0);
        for (first, one) in hosts.iter().enumerate() {
            for other in &hosts[first + 1..] {
                let capacity = plan.capacity(&[&one.id, &other.id]).unwrap();
                prop_assert!(capacity.fits(), "{} {}", one.id, other.id);
            }
        }
    }
}

#[test]
fn a_dyno_that_would_take_the_room_of_a_lost_host_waits() {
    // Three hosts hold twelve of ten each; two hosts hold eight.
    let (hosts, groups) = plain(3, vec![(12, 10, 10)]);
    let plan = Cluster::new(hosts, groups, policy(1)).unwrap().schedule();
    assert_eq!(plan.assignments().count(), 8);
    assert!(plan.kept_free());
}
