//! Whatever is asked for, every rule holds, nothing waits that would fit, and
//! the same question has the same answer. Each is asked of small random
//! clusters, with a judge that knows nothing of the scheduler's tables.

mod judge;
mod random;

use dyno_cluster::scheduler::{
    Assignment, Cause, Cluster, Count, Group, Host, Missing, Plan, Policy, Step, Verdict,
};
use judge::Judge;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// (group, instance) and its host.
type Places = BTreeMap<(String, u32), String>;

fn schedule(hosts: &[Host], groups: &[Group], policy: Policy, running: &Places) -> Plan {
    let mut cluster = Cluster::new(hosts.to_vec(), groups.to_vec(), policy).expect("valid");
    cluster.running(running.iter().map(|((group, instance), host)| Assignment {
        group,
        instance: *instance,
        host,
    }));
    cluster.schedule()
}

fn places(plan: &Plan) -> Places {
    let key = |dyno: Assignment| ((dyno.group.to_owned(), dyno.instance), dyno.host.to_owned());
    plan.assignments().map(key).collect()
}

/// Everything that a person can see of a plan.
fn seen(plan: &Plan) -> (Vec<String>, Vec<String>, Places) {
    let steps = plan.steps().map(|step| format!("{step:?}")).collect();
    let unplaced = plan
        .unplaced()
        .map(|unplaced| format!("{unplaced:?}"))
        .collect();
    (steps, unplaced, places(plan))
}

fn no_preemption() -> Policy {
    Policy {
        preemption: false,
        ..Policy::default()
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(300))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_rule_holds_and_nothing_waits_that_would_fit(
        hosts in random::hosts(6),
        groups in random::groups(7),
        preemption: bool,
    ) {
        let policy = Policy { preemption, ..Policy::default() };
        let plan = schedule(&hosts, &groups, policy, &Places::new());
        let places = places(&plan);
        let judge = Judge::new(&hosts, &groups, &places);
        prop_assert_eq!(judge.broken(), Vec::<String>::new());
        for unplaced in plan.unplaced() {
            let Missing::Instances(instances) = unplaced.missing else { continue };
            for instance in instances {
                let fine = judge.hosts_for(unplaced.group, instance);
                prop_assert_eq!(fine, Vec::<&str>::new(), "{} {}", unplaced.group, instance);
            }
        }
    }

    /// The explanation is computed apart from the search: both agree with the
    /// judge on every host.
    #[test]
    fn an_explanation_refuses_what_the_judge_refuses(
        hosts in random::hosts(5),
        groups in random::groups(6),
    ) {
        let plan = schedule(&hosts, &groups, no_preemption(), &Places::new());
        let places = places(&plan);
        for group in &groups {
            let Count::Instances(count) = group.count else { continue };
            for instance in 0..count {
                let key = (group.id.clone(), instance);
                let mut others = places.clone();
                let here = others.remove(&key);
                let judge = Judge::new(&hosts, &groups, &others);
                let fine: BTreeSet<&str> = judge.hosts_for(&group.id, instance).into_iter().collect();
                let explanation = plan.explain(&group.id, instance).unwrap();
                for (host, verdict) in explanation.hosts {
                    match verdict {
                        Verdict::Here(_) => prop_assert_eq!(Some(host), here.as_deref()),
                        Verdict::Fits(_) => prop_assert!(fine.contains(host), "{} {}", key.0, host),
                        Verdict::Refused(why) => {
                            prop_assert!(!fine.contains(host), "{} {}: {:?}", key.0, host, why);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_input_is_of_no_consequence(
        hosts in random::hosts(6),
        groups in random::groups(7),
        removed in 0..3usize,
        seed: u64,
    ) {
        let first = places(&schedule(&hosts, &groups, Policy::default(), &Places::new()));
        let mut left = hosts.clone();
        left.drain(..removed.min(hosts.len() - 1));
        let plan = schedule(&left, &groups, Policy::default(), &first);
        let (mut hosts, mut groups) = (left, groups);
        let mut running: Vec<_> = first.into_iter().collect();
        random::shuffle(&mut hosts, seed);
        random::shuffle(&mut groups, seed);
        random::shuffle(&mut running, seed);
        let mut cluster = Cluster::new(hosts, groups, Policy::default()).unwrap();
        cluster.running(running.iter().map(|((group, instance), host)| Assignment {
            group,
            instance: *instance,
            host,
        }));
        prop_assert_eq!(seen(&plan), seen(&cluster.schedule()));
    }

    #[test]
    fn what_is_placed_stays_where_it_is(
        hosts in random::hosts(6),
        groups in random::groups(7),
        preemption: bool,
    ) {
        let policy = Policy { preemption, ..Policy::default() };
        let first = schedule(&hosts, &groups, policy, &Places::new());
        let again = schedule(&hosts, &groups, policy, &places(&first));
        // Somebody may be placed who was passed over; nobody moves or stops.
        let moved: Vec<Step> =
            again.steps().filter(|step| !matches!(step, Step::Place { .. })).collect();
        prop_assert_eq!(moved, vec![]);
    }

    #[test]
    fn whatever_moves_or_stops_has_a_cause(
        before in random::hosts(6),
        after in random::hosts(6),
        groups in random::groups(7),
        changed in random::groups(7),
    ) {
        let running = places(&schedule(&before, &groups, Policy::default(), &Places::new()));
        let plan = schedule(&after, &changed, Policy::default(), &running);
        let now = places(&plan);
        let judge = Judge::new(&after, &changed, &now);
        prop_assert_eq!(judge.broken(), Vec::<String>::new());
        for step in plan.steps() {
            let (dyno, from, cause) = match step {
                Step::Stop { dyno, cause } => (dyno, dyno.host, cause),
                Step::Move { dyno, from, cause, .. } => (dyno, from, cause),
                Step::Place { .. } => continue,
            };
            match cause {
                Cause::HostGone => prop_assert!(after.iter().all(|host| host.id != from)),
                Cause::Draining | Cause::VolumeElsewhere | Cause::Constraint => {
                    prop_assert!(!judge.may_stay(dyno.group, dyno.instance, from), "{:?}", step);
                }
                Cause::PreemptedBy(by) => {
                    prop_assert!(judge.priority(by) > judge.priority(dyno.group), "{:?}", step);
                    prop_assert!(now.keys().any(|(group, _)| group == by), "{:?}", step);
                }
                Cause::Unwanted(_) | Cause::Apart | Cause::Alone | Cause::Overcommitted => {}
            }
        }
        // What is not in a step is where it was.
        let stepped: BTreeSet<(String, u32)> = plan
            .steps()
            .map(|step| match step {
                Step::Stop { dyno, .. } | Step::Move { dyno, .. } | Step::Place { dyno, .. } => {
                    (dyno.group.to_owned(), dyno.instance)
                }
            })
            .collect();
        for (key, host) in &now {
            if !stepped.contains(key) {
                prop_assert_eq!(running.get(key), Some(host));
            }
        }
    }

    /// A question about a loss is answered as the loss would be.
    #[test]
    fn capacity_says_what_would_be(
        hosts in random::hosts(6),
        groups in random::groups(7),
        lost in 0..6usize,
    ) {
        let lost = &hosts[lost % hosts.len()];
        let plan = schedule(&hosts, &groups, Policy::default(), &Places::new());
        let before = places(&plan);
        let capacity = plan.capacity(&[&lost.id]).unwrap();
        let after = places(capacity.plan());
        let left: Vec<Host> = hosts.iter().filter(|host| host.id != lost.id).cloned().collect();
        let judge = Judge::new(&left, &groups, &after);
        prop_assert_eq!(judge.broken(), Vec::<String>::new());
        prop_assert!(after.values().all(|host| *host != lost.id));
        let homeless: BTreeSet<(String, u32)> = capacity
            .homeless()
            .map(|dyno| (dyno.group.to_owned(), dyno.instance))
            .collect();
        let every_host = |id: &str| {
            groups.iter().any(|group| group.id == id && group.count == Count::EveryHost)
        };
        let gone: BTreeSet<(String, u32)> = before
            .keys()
            .filter(|key| !after.contains_key(key) && !every_host(&key.0))
            .cloned()
            .collect();
        prop_assert!(homeless.is_superset(&gone), "{:?} {:?}", homeless, gone);
        prop_assert!(homeless.iter().all(|key| !after.contains_key(key)));
        prop_assert_eq!(capacity.fits(), homeless.is_empty());
    }
}
