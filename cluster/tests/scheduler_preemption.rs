//! Whose place is taken: of lower priority, and no more than need be.

use dyno_cluster::scheduler::{Assignment, Cause, Cluster, Group, Host, Policy, Resources, Step};
use proptest::prelude::*;

fn group(name: usize, priority: i32, memory_bytes: u64) -> Group {
    let ask = Resources {
        memory_bytes,
        ..Resources::default()
    };
    Group {
        priority,
        ..Group::new(&format!("a{name}"), "web", 1, ask)
    }
}

proptest! {
    /// One host that is full to the brim: against every set of victims.
    #[test]
    fn victims_are_of_the_lowest_priority_and_the_fewest(
        running in prop::collection::vec((0..4i32, 1..8u64), 1..8),
        priority in 0..5i32,
        asked in 1..20u64,
    ) {
        let memory_bytes: u64 = running.iter().map(|(_, asked)| asked).sum();
        let capacity = Resources { memory_bytes, ..Resources::default() };
        let host = Host { id: "h".into(), capacity, ..Host::default() };
        let mut groups: Vec<Group> = running
            .iter()
            .enumerate()
            .map(|(name, &(priority, asked))| group(name, priority, asked))
            .collect();
        let names: Vec<String> = groups.iter().map(|group| group.id.clone()).collect();
        groups.push(group(running.len(), priority, asked));
        let mut cluster = Cluster::new(vec![host], groups, Policy::default()).unwrap();
        let run = |group| Assignment { group, instance: 0, host: "h" };
        cluster.running(names.iter().map(|name| run(name)));
        let plan = cluster.schedule();
        let victims: Vec<usize> = plan
            .steps()
            .filter_map(|step| match step {
                Step::Stop { dyno, cause: Cause::PreemptedBy(_) } => {
                    names.iter().position(|name| name == dyno.group)
                }
                _ => None,
            })
            .collect();
        let sets = (0..1_u32 << running.len()).map(|set| {
            (0..running.len()).filter(|place| set & (1 << place) != 0).collect::<Vec<_>>()
        });
        let freed = |set: &[usize]| set.iter().map(|&place| running[place].1).sum::<u64>();
        let highest = |set: &[usize]| set.iter().map(|&place| running[place].0).max();
        let best = sets
            .filter(|set| freed(set) >= asked && highest(set) < Some(priority))
            .min_by_key(|set| (highest(set), set.len()));
        // Victims of a higher priority take the place of others in their turn.
        let lowest = running.iter().map(|(priority, _)| *priority).min();
        prop_assume!(best.as_ref().is_none_or(|best| highest(best) == lowest));
        match best {
            Some(best) => {
                prop_assert_eq!(highest(&victims), highest(&best));
                prop_assert_eq!(victims.len(), best.len());
            }
            None => prop_assert_eq!(victims, Vec::<usize>::new()),
        }
    }
}
