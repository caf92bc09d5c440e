//! Clusters to measure with: generated, the same for the same seed.
//!
//! The shapes are those of published traces of clusters: a few groups have most
//! of the instances, a few instances are fifty times as big as most, and some
//! want much memory for their processor time, others the reverse.

use dyno_cluster::scheduler::{
    Affinity, Constraint, Count, Direction, Group, Host, Policy, Port, Protocol, Resources,
    Selector, Spread, Strength, Test, Within,
};
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Numbers that look random: Marsaglia's xorshift64*.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `per_thousand` times of a thousand.
    fn chance(&mut self, per_thousand: u64) -> bool {
        self.below(1000) < per_thousand
    }

    /// From `least` on, twice as much half as often, `doublings` times at most.
    fn tail(&mut self, least: u64, doublings: u32) -> u64 {
        let doubled = self.next().trailing_zeros().min(doublings);
        let base = least << doubled;
        base + self.below(base)
    }
}

/// What groups ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As in traces: few big, many small, of memory or of processor time.
    Traces,
    /// All sizes as likely, memory and processor time apart from each other.
    Even,
    /// Two halves that fill a host only together.
    Complements,
}

/// `count` equal hosts in three zones.
pub(crate) fn hosts(count: u64) -> Vec<Host> {
    (0..count)
        .map(|number| Host {
            id: format!("host{number:05}"),
            zone: format!("zone{}", number % 3),
            tags: BTreeMap::from([
                (
                    "disk".to_owned(),
                    ["ssd", "hdd"][usize::from(number % 5 == 0)].to_owned(),
                ),
                (
                    "arch".to_owned(),
                    ["amd64", "arm64"][usize::from(number % 10 == 3)].to_owned(),
                ),
            ]),
            capacity: Resources {
                memory_bytes: 130 * GIB,
                cpu_millis: 66_000,
                disk_bytes: 4096 * GIB,
                devices: BTreeMap::new(),
            },
            reserved: Resources {
                memory_bytes: 2 * GIB,
                cpu_millis: 2_000,
                disk_bytes: 96 * GIB,
                devices: BTreeMap::new(),
            },
            ..Host::default()
        })
        .collect()
}

/// What one dyno asks for, before it is scaled.
fn ask(numbers: &mut Numbers, shape: Shape) -> (u64, u64) {
    match shape {
        Shape::Traces => {
            // 64 MiB to 8 GiB and more; a processor's hundredth to several.
            let size = numbers.tail(1, 7);
            let (memory, cpu) = match numbers.below(10) {
                0..3 => (4, 1),
                3..6 => (1, 4),
                _ => (2, 2),
            };
            (size * memory * 24 * MIB, size * cpu * 12)
        }
        Shape::Even => (
            (1 + numbers.below(64)) * 64 * MIB,
            (1 + numbers.below(64)) * 32,
        ),
        Shape::Complements => {
            let size = 1 + numbers.below(32);
            let (memory, cpu) = if numbers.chance(500) { (7, 1) } else { (1, 7) };
            (size * memory * 16 * MIB, size * cpu * 8)
        }
    }
}

/// Groups with `dynos` instances in all. With `rules`, a part of them has
/// constraints, limits and affinities.
pub(crate) fn groups(seed: u64, dynos: u64, shape: Shape, rules: bool) -> Vec<Group> {
    let mut numbers = Numbers::new(seed);
    let mut groups: Vec<Group> = Vec::new();
    let mut left = dynos;
    while left > 0 {
        let count = numbers.tail(2, 9).min(left);
        left -= count;
        let (memory_bytes, cpu_millis) = ask(&mut numbers, shape);
        let disk_bytes = numbers.tail(64 * MIB, 4);
        let ask = Resources {
            memory_bytes,
            cpu_millis,
            disk_bytes,
            devices: BTreeMap::new(),
        };
        let app = format!("app{:06}", groups.len() / 2);
        let process_type = ["web", "worker"][groups.len() % 2];
        let count = u32::try_from(count).expect("groups are small");
        let mut group = Group::new(&app, process_type, count, ask);
        if rules {
            add_rules(&mut numbers, &mut group);
        }
        groups.push(group);
    }
    groups
}

/// Groups of one instance each, with rules.
#[allow(dead_code, reason = "not every program that shares this needs it")]
pub(crate) fn singles(seed: u64, dynos: u64, shape: Shape) -> Vec<Group> {
    let mut numbers = Numbers::new(seed);
    (0..dynos)
        .map(|number| {
            let (memory_bytes, cpu_millis) = ask(&mut numbers, shape);
            let ask = Resources {
                memory_bytes,
                cpu_millis,
                ..Resources::default()
            };
            let mut group = Group::new(&format!("app{number:07}"), "web", 1, ask);
            add_rules(&mut numbers, &mut group);
            group
        })
        .collect()
}

fn add_rules(numbers: &mut Numbers, group: &mut Group) {
    group.priority = [0, 0, 0, 10, 50][usize::try_from(numbers.below(5)).expect("small")];
    if numbers.chance(200) {
        let value = ["ssd", "hdd"][usize::from(numbers.chance(200))];
        let test = Test::Equals(value.to_owned());
        group.constraints.push(Constraint {
            tag: "disk".to_owned(),
            test,
        });
    }
    if numbers.chance(100) {
        let test = Test::Differs("arm64".to_owned());
        group.constraints.push(Constraint {
            tag: "arch".to_owned(),
            test,
        });
    }
    let Count::Instances(count) = group.count else {
        return;
    };
    // More than there are hosts could not all be placed.
    let few = count <= 50;
    let one_per_host = few && numbers.chance(100);
    group.spread = Spread {
        zones_max_skew: numbers.chance(250).then_some(1),
        max_per_host: one_per_host.then_some(1),
        ..Spread::default()
    };
    if few && numbers.chance(20) {
        let number = u16::try_from(8000 + numbers.below(1000)).expect("a port");
        group.ports = BTreeSet::from([Port {
            number,
            protocol: Protocol::Tcp,
        }]);
    }
    if numbers.chance(50) {
        let other = ["web", "worker"][usize::from(group.process_type == "web")];
        let near = numbers.chance(500);
        group.affinities.push(Affinity {
            to: Selector {
                app: Some(group.app.clone()),
                process_type: Some(other.to_owned()),
                labels: BTreeMap::new(),
            },
            direction: if near {
                Direction::Beside
            } else {
                Direction::Apart
            },
            within: Within::Host,
            strength: Strength::Preferred(20),
        });
    }
}

/// Scales what all ask for, so that of the scarcer of memory and processor time
/// `per_thousand` thousandths are asked for.
pub(crate) fn fill(groups: &mut [Group], hosts: &[Host], per_thousand: u64) {
    let sum = |of: fn(&Resources) -> u64| -> u128 {
        groups
            .iter()
            .map(|group| match group.count {
                Count::Instances(count) => u128::from(of(&group.ask)) * u128::from(count),
                Count::EveryHost => 0,
            })
            .sum()
    };
    let all = |of: fn(&Resources) -> u64| -> u128 {
        hosts
            .iter()
            .map(|host| u128::from(of(&host.capacity) - of(&host.reserved)))
            .sum()
    };
    let memory = (sum(|r| r.memory_bytes), all(|r| r.memory_bytes));
    let cpu = (sum(|r| r.cpu_millis), all(|r| r.cpu_millis));
    let scale = |asked: u64, (sum, all): (u128, u128)| {
        let scaled = u128::from(asked) * all * u128::from(per_thousand) / (sum * 1000);
        u64::try_from(scaled.max(1)).expect("fits a host")
    };
    for group in groups {
        group.ask.memory_bytes = scale(group.ask.memory_bytes, memory);
        group.ask.cpu_millis = scale(group.ask.cpu_millis, cpu);
    }
}

/// The policy that everything is measured with.
pub(crate) fn policy() -> Policy {
    Policy::default()
}
