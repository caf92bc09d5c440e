//! What does not change while dynos are placed: hosts and groups in a fixed
//! order, with numbers for names, and what their rules come to.

use super::areas::{self, Area, Areas, Kinds};
use super::model::{
    Affinity, Direction, Group, Host, Invalid, Port, Resources, Selector, Strength, Within,
};
use super::selectors::{Selected, Selectors};
use super::tree::Amounts;
use std::collections::{BTreeSet, HashMap};

/// No host; of an instance that runs nowhere.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A place in a list as a number of 32 bits.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("hosts, groups and instances are numbered with 32 bits")
}

/// What one group's rules come to.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) ask: Amounts,
    pub(super) devices: Vec<(u32, u64)>,
    /// Which entry of [`Frame::areas`].
    pub(super) areas: u32,
    pub(super) rules: Vec<Rule>,
    /// Other groups that must be apart from this one.
    pub(super) kept_away_by: Vec<u32>,
    /// The most instances on one host.
    pub(super) per_host: u32,
    /// At most one in a zone.
    pub(super) one_per_zone: bool,
    /// The highest priority among groups that must be beside this one.
    pub(super) leaned_on_by: Option<i32>,
    /// The biggest share of the biggest host that one instance takes, in
    /// millionths.
    pub(super) share: u64,
}

/// An affinity, with its selector by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) selected: u32,
    pub(super) direction: Direction,
    pub(super) within: Within,
    pub(super) strength: Strength,
    /// Whether the group is among the selected.
    pub(super) itself: bool,
}

/// Everything fixed.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) hosts: Vec<Host>,
    pub(super) host_numbers: HashMap<String, u32>,
    /// The zone of each host.
    pub(super) zone_of: Vec<u32>,
    pub(super) zones: usize,
    pub(super) groups: Vec<Group>,
    pub(super) compiled: Vec<Compiled>,
    pub(super) group_numbers: HashMap<String, u32>,
    /// Groups, whom to place first at the front.
    pub(super) order: Vec<u32>,
    /// The same without regard to priority.
    pub(super) rare_first: Vec<u32>,
    pub(super) areas: Vec<Vec<Area>>,
    pub(super) selected: Selected,
    /// What dynos can have of each host.
    pub(super) usable: Vec<Amounts>,
    pub(super) usable_devices: Vec<Vec<(u32, u64)>>,
    /// 2^63 through `usable`: shares without a division.
    pub(super) scale: Vec<Amounts>,
    pub(super) device_names: Vec<String>,
}

impl Frame {
    /// # Errors
    ///
    /// What [`Invalid`] says.
    pub(super) fn new(hosts: Vec<Host>, mut groups: Vec<Group>) -> Result<Frame, Invalid> {
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        refuse(&hosts, &groups)?;

        let kinds = Kinds::new(&groups);
        let hosts = areas::sorted(hosts, &groups, &kinds);
        let device_names = kinds.devices.clone();
        let usable: Vec<Amounts> = hosts.iter().map(usable).collect();
        let zone_of = zones(&hosts);

        let mut selectors = Selectors::new(&groups);
        let mut areas = Areas::new(&hosts, &zone_of, &kinds);
        let biggest = usable.iter().fold([1; 3], |a: Amounts, b| {
            [a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])]
        });
        let mut compiled: Vec<Compiled> = groups
            .iter()
            .enumerate()
            .map(|(place, group)| {
                compile(
                    place,
                    group,
                    &device_names,
                    &biggest,
                    &mut selectors,
                    &mut areas,
                )
            })
            .collect();
        let selected = selectors.finish();
        lean(&groups, &mut compiled, &selected);

        let areas = areas.found;
        let order = areas::order(&groups, &compiled, &areas, hosts.len(), true);
        let rare_first = areas::order(&groups, &compiled, &areas, hosts.len(), false);
        Ok(Frame {
            scale: usable
                .iter()
                .map(|all| all.map(|amount| (1 << 63) / amount.max(1)))
                .collect(),
            usable_devices: hosts
                .iter()
                .map(|host| {
                    let counts = device_names.iter().map(|name| usable_devices(host, name));
                    (0..).zip(counts).filter(|&(_, count)| count > 0).collect()
                })
                .collect(),
            zones: zone_of.last().map_or(0, |&last| last as usize + 1),
            host_numbers: numbers(hosts.iter().map(|host| &host.id)),
            group_numbers: numbers(groups.iter().map(|group| &group.id)),
            hosts,
            zone_of,
            groups,
            compiled,
            order,
            rare_first,
            areas,
            selected,
            usable,
            device_names,
        })
    }

    /// Whether a group's constraints and devices allow a host.
    pub(super) fn allows(&self, group: u32, host: u32) -> bool {
        self.areas[self.compiled[group as usize].areas as usize]
            .iter()
            .flat_map(|area| &area.stretches)
            .any(|&(from, to)| (from..to).contains(&host))
    }
}

/// A host's tag, or what it has under a name that is always there.
pub(super) fn tag<'a>(host: &'a Host, name: &str) -> Option<&'a str> {
    match name {
        "host" => Some(&host.id),
        "zone" => Some(&host.zone),
        _ => host.tags.get(name).map(String::as_str),
    }
}

/// The number of each host's zone; hosts of a zone are neighbours.
fn zones(hosts: &[Host]) -> Vec<u32> {
    let mut zone_of: Vec<u32> = Vec::with_capacity(hosts.len());
    for (place, host) in hosts.iter().enumerate() {
        zone_of.push(match place.checked_sub(1) {
            None => 0,
            Some(before) if hosts[before].zone == host.zone => zone_of[before],
            Some(before) => zone_of[before] + 1,
        });
    }
    zone_of
}

fn numbers<'a>(names: impl Iterator<Item = &'a String>) -> HashMap<String, u32> {
    (0..)
        .zip(names)
        .map(|(number, name)| (name.clone(), number))
        .collect()
}

fn amounts(resources: &Resources) -> Amounts {
    [
        resources.memory_bytes,
        resources.cpu_millis,
        resources.disk_bytes,
    ]
}

fn usable(host: &Host) -> Amounts {
    let (all, not) = (amounts(&host.capacity), amounts(&host.reserved));
    [0, 1, 2].map(|r| all[r].saturating_sub(not[r]))
}

pub(super) fn usable_devices(host: &Host, name: &str) -> u64 {
    let all = host.capacity.devices.get(name).copied().unwrap_or(0);
    all.saturating_sub(host.reserved.devices.get(name).copied().unwrap_or(0))
}

fn refuse(hosts: &[Host], groups: &[Group]) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    if let Some(twice) = hosts.iter().find(|host| !names.insert(&host.id)) {
        return Err(Invalid::HostTwice(twice.id.clone()));
    }
    if let Some(twice) = groups.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(Invalid::GroupTwice(twice[0].id.clone()));
    }
    for group in groups {
        if group
            .affinities
            .iter()
            .any(|affinity| affinity.to == Selector::default())
        {
            return Err(Invalid::EmptySelector(group.id.clone()));
        }
        let limits = [
            ("max_per_host", group.spread.max_per_host),
            ("hosts_max_skew", group.spread.hosts_max_skew),
            ("zones_max_skew", group.spread.zones_max_skew),
        ];
        if let Some(&(limit, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(Invalid::ZeroLimit {
                group: group.id.clone(),
                limit,
            });
        }
    }
    Ok(())
}

fn compile(
    place: usize,
    group: &Group,
    device_names: &[String],
    biggest: &Amounts,
    selectors: &mut Selectors,
    areas: &mut Areas,
) -> Compiled {
    let ask = amounts(&group.ask);
    let rules: Vec<Rule> = group
        .affinities
        .iter()
        .map(|affinity| rule(place, affinity, selectors))
        .collect();
    let alone = |within| {
        rules.iter().any(|rule| {
            rule.itself
                && rule.within == within
                && rule.direction == Direction::Apart
                && rule.strength == Strength::Required
        })
    };
    let per_host = if alone(Within::Host) { 1 } else { u32::MAX };
    let share = (0..3).map(|r| {
        let millionths = u128::from(ask[r]) * 1_000_000 / u128::from(biggest[r]);
        u64::try_from(millionths).unwrap_or(u64::MAX)
    });
    Compiled {
        ask,
        devices: group
            .ask
            .devices
            .iter()
            .filter(|&(_, &count)| count > 0)
            .map(|(name, &count)| {
                let kind = device_names
                    .binary_search(name)
                    .expect("every asked device is named");
                (number(kind), count)
            })
            .collect(),
        areas: areas.of(group),
        kept_away_by: Vec::new(),
        per_host: per_host.min(group.spread.max_per_host.unwrap_or(u32::MAX)),
        one_per_zone: alone(Within::Zone),
        leaned_on_by: None,
        share: share.max().unwrap_or(0),
        rules,
    }
}

fn rule(place: usize, affinity: &Affinity, selectors: &mut Selectors) -> Rule {
    let selected = selectors.number(&affinity.to);
    Rule {
        selected,
        direction: affinity.direction,
        within: affinity.within,
        strength: affinity.strength,
        itself: selectors.has(selected, number(place)),
    }
}

/// Tells each group which others must be apart from it or beside it.
fn lean(groups: &[Group], compiled: &mut [Compiled], selected: &Selected) {
    for place in 0..groups.len() {
        for rule in compiled[place].rules.clone() {
            if rule.strength != Strength::Required {
                continue;
            }
            for &other in selected.groups(rule.selected) {
                if other as usize == place {
                    continue;
                }
                let other = &mut compiled[other as usize];
                match rule.direction {
                    Direction::Apart => other.kept_away_by.push(number(place)),
                    Direction::Beside => {
                        other.leaned_on_by = other.leaned_on_by.max(Some(groups[place].priority));
                    }
                }
            }
        }
    }
    for group in compiled {
        group.kept_away_by.dedup();
    }
}

/// Whether two sets of ports have one in common.
pub(super) fn share_a_port(one: &BTreeSet<Port>, other: &BTreeSet<Port>) -> bool {
    !one.is_disjoint(other)
}
