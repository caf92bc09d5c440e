//! In which order hosts and groups are gone through, and which hosts a group's
//! constraints allow.
//!
//! Hosts are ordered by zone, by how much is asked of them, by the tags that any
//! constraint asks about, and by name. So a zone is one stretch of hosts, the
//! hosts that satisfy the same constraints are few stretches of it, and groups
//! that may be anywhere first fill the hosts that few others can use.

use super::frame::{Compiled, number, tag, usable_devices};
use super::model::{Constraint, Count, Group, Host, Resources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Hosts in order, from the first to before the second.
pub(super) type Stretch = (u32, u32);

/// Hosts of one zone that a set of constraints allows.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) zone: u32,
    pub(super) stretches: Vec<Stretch>,
}

/// What tells hosts from each other: the tags and the devices that any group
/// asks about. Hosts of a kind are alike.
pub(super) struct Kinds {
    tags: Vec<String>,
    pub(super) devices: Vec<String>,
}

type Kind = (String, Vec<Option<String>>, Vec<bool>);

impl Kinds {
    pub(super) fn new(groups: &[Group]) -> Kinds {
        let constraints = groups.iter().flat_map(|group| &group.constraints);
        let tags: BTreeSet<&String> = constraints.map(|constraint| &constraint.tag).collect();
        let devices: BTreeSet<&String> = groups
            .iter()
            .flat_map(|group| group.ask.devices.keys())
            .collect();
        Kinds {
            tags: tags
                .into_iter()
                .filter(|tag| *tag != "zone")
                .cloned()
                .collect(),
            devices: devices.into_iter().cloned().collect(),
        }
    }

    fn of(&self, host: &Host) -> Kind {
        let tags = self
            .tags
            .iter()
            .map(|name| tag(host, name).map(str::to_owned));
        let devices = self
            .devices
            .iter()
            .map(|name| usable_devices(host, name) > 0);
        (host.zone.clone(), tags.collect(), devices.collect())
    }
}

/// Hosts in the order in which they are filled.
pub(super) fn sorted(mut hosts: Vec<Host>, groups: &[Group], kinds: &Kinds) -> Vec<Host> {
    hosts.sort_by_cached_key(|host| (kinds.of(host), host.id.clone()));
    let wanted = wanted(&hosts, groups, kinds);
    let mut sorted: Vec<(u128, Host)> = wanted.into_iter().zip(hosts).collect();
    sorted.sort_by(|(a, one), (b, other)| (&one.zone, a).cmp(&(&other.zone, b)));
    sorted.into_iter().map(|(_, host)| host).collect()
}

/// How much is asked of each host by groups that may be there: each group's
/// memory and processor time, spread over all hosts that it may have. Hosts are
/// in an order in which those of a kind are neighbours.
fn wanted(hosts: &[Host], groups: &[Group], kinds: &Kinds) -> Vec<u128> {
    let sum = |of: fn(&Resources) -> u64| {
        hosts
            .iter()
            .map(|host| u128::from(of(&host.capacity)))
            .sum::<u128>()
            .max(1)
    };
    let (memory, cpu) = (sum(|all| all.memory_bytes), sum(|all| all.cpu_millis));
    let one_zone = vec![0; hosts.len()];
    let mut areas = Areas::new(hosts, &one_zone, kinds);
    let mut asked: Vec<u128> = Vec::new();
    for group in groups {
        let areas = areas.of(group) as usize;
        asked.resize(asked.len().max(areas + 1), 0);
        let Count::Instances(count) = group.count else {
            continue;
        };
        let part = |asked: u64, all: u128| (u128::from(asked) << 40) / all;
        let each = part(group.ask.memory_bytes, memory) + part(group.ask.cpu_millis, cpu);
        asked[areas] = asked[areas].saturating_add(each.saturating_mul(count.into()));
    }
    let mut wanted = vec![0; hosts.len()];
    for (areas, asked) in areas.found.iter().zip(asked) {
        let hosts = || {
            areas
                .iter()
                .flat_map(|area| &area.stretches)
                .flat_map(|&(from, to)| from..to)
        };
        let each = asked / (hosts().count().max(1) as u128);
        for host in hosts() {
            wanted[host as usize] = each.saturating_add(wanted[host as usize]);
        }
    }
    wanted
}

/// Groups in the order in which they are placed: by priority, if it is regarded; then those bound
/// to hosts; then those with fewer hosts to choose from, all, half, a quarter…; then
/// the biggest.
pub(super) fn order(
    groups: &[Group],
    compiled: &[Compiled],
    areas: &[Vec<Area>],
    hosts: usize,
    by_priority: bool,
) -> Vec<u32> {
    let rarity: Vec<u32> = areas
        .iter()
        .map(|areas| {
            let stretches = areas.iter().flat_map(|area| &area.stretches);
            let fit: usize = stretches
                .map(|&(from, to)| to as usize - from as usize)
                .sum();
            if fit == hosts {
                0
            } else {
                1 + (hosts / fit.max(1)).max(1).ilog2()
            }
        })
        .collect();
    let mut order: Vec<u32> = (0..groups.len()).map(number).collect();
    order.sort_by_cached_key(|&place| {
        let (group, compiled) = (&groups[place as usize], &compiled[place as usize]);
        let bound = group.count == Count::EveryHost || !group.pinned.is_empty();
        let priority = if by_priority { group.priority } else { 0 };
        let rarity = rarity[compiled.areas as usize];
        (Reverse((priority, bound, rarity, compiled.share)), place)
    });
    order
}

/// Finds the hosts for each distinct set of constraints once.
pub(super) struct Areas<'a> {
    hosts: &'a [Host],
    zone_of: &'a [u32],
    /// Where the hosts of each kind begin; hosts of a kind are alike.
    kinds: Vec<Stretch>,
    numbers: HashMap<(Vec<Constraint>, Vec<String>), u32>,
    pub(super) found: Vec<Vec<Area>>,
}

impl<'a> Areas<'a> {
    pub(super) fn new(hosts: &'a [Host], zone_of: &'a [u32], of: &Kinds) -> Areas<'a> {
        let mut kinds: Vec<Stretch> = Vec::new();
        let mut before = None;
        for (place, host) in hosts.iter().enumerate() {
            let this = Some(of.of(host));
            match kinds.last_mut() {
                Some(last) if this == before => last.1 += 1,
                _ => kinds.push((number(place), number(place) + 1)),
            }
            before = this;
        }
        Areas {
            hosts,
            zone_of,
            kinds,
            numbers: HashMap::new(),
            found: Vec::new(),
        }
    }

    pub(super) fn of(&mut self, group: &Group) -> u32 {
        let mut constraints = group.constraints.clone();
        constraints.sort();
        let devices: BTreeMap<&String, u64> = group
            .ask
            .devices
            .iter()
            .filter(|&(_, &count)| count > 0)
            .map(|(k, &v)| (k, v))
            .collect();
        let key = (
            constraints,
            devices.into_keys().cloned().collect::<Vec<_>>(),
        );
        if let Some(&known) = self.numbers.get(&key) {
            return known;
        }
        let mut areas: Vec<Area> = Vec::new();
        for &(from, to) in &self.kinds {
            let (host, zone) = (&self.hosts[from as usize], self.zone_of[from as usize]);
            let fine = key
                .0
                .iter()
                .all(|constraint| constraint.holds(tag(host, &constraint.tag)))
                && key.1.iter().all(|name| usable_devices(host, name) > 0);
            if !fine {
                continue;
            }
            match areas.last_mut() {
                Some(area) if area.zone == zone => match area.stretches.last_mut() {
                    Some(last) if last.1 == from => last.1 = to,
                    _ => area.stretches.push((from, to)),
                },
                _ => areas.push(Area {
                    zone,
                    stretches: vec![(from, to)],
                }),
            }
        }
        let name = number(self.found.len());
        self.found.push(areas);
        self.numbers.insert(key, name);
        name
    }
}
