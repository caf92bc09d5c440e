//! How densely dynos are packed: within 5 % of what no packing can beat.

#[path = "../benches/scheduler/packing.rs"]
mod packing;
#[path = "../benches/scheduler/workload.rs"]
mod workload;

use dyno_cluster::scheduler::{Cluster, Count, Group, Host, Policy, Resources};
use packing::packed;
use proptest::prelude::*;
use std::collections::BTreeMap;
use workload::Shape;

fn dense(shape: Shape, rules: bool) {
    for seed in 1..=3 {
        let packed = packed(seed, 100, 20_000, shape, rules);
        assert!(
            packed.hosts * 100 <= packed.bound * 105,
            "{shape:?}, seed {seed}: {} hosts, {} would be the least",
            packed.hosts,
            packed.bound
        );
    }
}

#[test]
fn sizes_as_in_traces_are_packed_within_5_percent() {
    dense(Shape::Traces, false);
}

#[test]
fn even_sizes_are_packed_within_5_percent() {
    dense(Shape::Even, false);
}

#[test]
fn halves_that_need_each_other_are_packed_within_5_percent() {
    dense(Shape::Complements, false);
}

#[test]
fn rules_of_spread_are_kept_and_packing_stays_within_5_percent() {
    dense(Shape::Even, true);
    let packed = packed(1, 100, 20_000, Shape::Even, true);
    let hosts: BTreeMap<String, String> = workload::hosts(u64::try_from(packed.hosts).unwrap())
        .into_iter()
        .map(|host| (host.id, host.zone))
        .collect();
    let mut zones: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for dyno in packed.plan.assignments() {
        *zones
            .entry(dyno.group)
            .or_default()
            .entry(&hosts[dyno.host])
            .or_default() += 1;
    }
    let mut limited = 0;
    for group in workload::groups(1, 20_000, Shape::Even, true) {
        let Some(limit) = group.spread.zones_max_skew else {
            continue;
        };
        let counts = &zones[&*group.id];
        let least = if counts.len() < 3 {
            0
        } else {
            *counts.values().min().unwrap()
        };
        assert!(
            counts.values().max().unwrap() - least <= limit,
            "{}: {counts:?}",
            group.id
        );
        limited += 1;
    }
    assert!(limited > 50);
}

/// The fewest hosts of capacity 10 and 10 that hold all, by trying everything.
fn optimum(asks: &[(u64, u64)], used: &mut Vec<(u64, u64)>, best: &mut usize) {
    if used.len() >= *best {
        return;
    }
    let Some(((memory, cpu), rest)) = asks.split_first() else {
        *best = used.len();
        return;
    };
    for place in 0..used.len() {
        let (m, c) = used[place];
        if m + memory <= 10 && c + cpu <= 10 {
            used[place] = (m + memory, c + cpu);
            optimum(rest, used, best);
            used[place] = (m, c);
        }
    }
    used.push((*memory, *cpu));
    optimum(rest, used, best);
    used.pop();
}

proptest! {
    /// Of a handful of dynos that are big for their hosts, which is as hard as
    /// packing gets, at most one host more than the optimum.
    #[test]
    fn few_big_dynos_take_at_most_one_host_more_than_the_optimum(
        asks in prop::collection::vec((1..7u64, 1..7u64), 1..9),
    ) {
        let mut best = usize::MAX;
        optimum(&asks, &mut Vec::new(), &mut best);
        let hosts = (0..10).map(|number| Host {
            id: format!("h{number}"),
            capacity: Resources { memory_bytes: 10, cpu_millis: 10, ..Resources::default() },
            ..Host::default()
        });
        let groups = asks.iter().enumerate().map(|(number, &(memory_bytes, cpu_millis))| {
            let ask = Resources { memory_bytes, cpu_millis, ..Resources::default() };
            Group { count: Count::Instances(1), ..Group::new(&format!("a{number}"), "web", 1, ask) }
        });
        let cluster = Cluster::new(hosts.collect(), groups.collect(), Policy::default()).unwrap();
        let plan = cluster.schedule();
        let used: std::collections::BTreeSet<&str> = plan.assignments().map(|dyno| dyno.host).collect();
        prop_assert!(used.len() <= best + 1, "{} for {}", used.len(), best);
    }
}
