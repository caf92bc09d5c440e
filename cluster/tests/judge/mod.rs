//! What the rules say, in the plainest way: every question walks over everything.

use dyno_cluster::scheduler::{
    Affinity, Availability, Count, Direction, Group, Host, Resources, Selector, Strength, Test,
    Within,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Judge<'a> {
    hosts: BTreeMap<&'a str, &'a Host>,
    groups: BTreeMap<&'a str, &'a Group>,
    /// (group, instance, host)
    placed: Vec<(&'a str, u32, &'a str)>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(
        hosts: &'a [Host],
        groups: &'a [Group],
        places: &'a BTreeMap<(String, u32), String>,
    ) -> Judge<'a> {
        Judge {
            hosts: hosts.iter().map(|host| (&*host.id, host)).collect(),
            groups: groups.iter().map(|group| (&*group.id, group)).collect(),
            placed: places
                .iter()
                .map(|((group, instance), host)| (&**group, *instance, &**host))
                .collect(),
        }
    }

    pub(crate) fn priority(&self, group: &str) -> i32 {
        self.groups
            .get(group)
            .map_or(i32::MIN, |group| group.priority)
    }

    /// Every hard rule that does not hold; skew is a rule for who comes, not for
    /// who is there.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (id, host) in &self.hosts {
            let used = self.used(id);
            let usable = usable(host);
            for (name, used) in &used {
                if *used > usable.get(name).copied().unwrap_or(0) {
                    broken.push(format!("{id} has too little {name}"));
                }
            }
            let mut ports = host.reserved_ports.clone();
            for port in self.on(id).flat_map(|(group, _)| &self.groups[group].ports) {
                if !ports.insert(*port) {
                    broken.push(format!("{id} has {port:?} twice"));
                }
            }
        }
        for &(group, instance, host) in &self.placed {
            let Some(found) = self.hosts.get(host) else {
                broken.push(format!("{host} is no host"));
                continue;
            };
            let of = self.groups[group];
            if found.availability == Availability::Draining
                || !self.static_rules(of, instance, found)
            {
                broken.push(format!("{group} {instance} may not be on {host}"));
            }
            if of
                .spread
                .max_per_host
                .is_some_and(|most| self.count_on(group, host) > most)
            {
                broken.push(format!("{host} has too many of {group}"));
            }
            for rule in required(of) {
                if !self.keeps(of, rule, (instance, host), 1) {
                    broken.push(format!("{group} {instance} on {host} breaks {rule:?}"));
                }
            }
        }
        broken
    }

    /// Whether an instance may stay on a host, for what does not depend on
    /// others.
    pub(crate) fn may_stay(&self, group: &str, instance: u32, host: &str) -> bool {
        let (Some(group), Some(host)) = (self.groups.get(group), self.hosts.get(host)) else {
            return false;
        };
        host.availability != Availability::Draining && self.static_rules(group, instance, host)
    }

    /// The hosts that one more could be on, with everybody where they are.
    pub(crate) fn hosts_for(&self, group: &str, instance: u32) -> Vec<&'a str> {
        let of = self.groups[group];
        let ids = self.hosts.keys().copied();
        ids.filter(|host| self.could_be(of, instance, self.hosts[host]))
            .collect()
    }

    fn could_be(&self, group: &Group, instance: u32, host: &Host) -> bool {
        if host.availability != Availability::Open || !self.static_rules(group, instance, host) {
            return false;
        }
        let (used, usable) = (self.used(&host.id), usable(host));
        let fits = amounts(&group.ask).iter().all(|(name, ask)| {
            let used = used.get(name).copied().unwrap_or(0);
            *ask == 0 || used + ask <= usable.get(name).copied().unwrap_or(0)
        });
        let mut taken = host.reserved_ports.clone();
        taken.extend(
            self.on(&host.id)
                .flat_map(|(group, _)| &self.groups[group].ports),
        );
        let here = self.count_on(&group.id, &host.id);
        fits && taken.is_disjoint(&group.ports)
            && group.spread.max_per_host.is_none_or(|most| here < most)
            && self.keeps_skew(group, host)
            && required(group).all(|rule| self.keeps(group, rule, (instance, &host.id), 0))
            && self.nobody_minds(group, host)
    }

    fn keeps_skew(&self, group: &Group, host: &Host) -> bool {
        let open: Vec<&&Host> = self
            .hosts
            .values()
            .filter(|host| host.availability == Availability::Open && self.tags_fit(group, host))
            .collect();
        let in_zone = |zone: &str| {
            let there = |host: &str| self.hosts[host].zone == zone;
            self.placed
                .iter()
                .filter(|(id, _, host)| *id == group.id && there(host))
                .count()
        };
        let on_host = |host: &Host| self.count_on(&group.id, &host.id);
        let least_host = open.iter().map(|host| on_host(host)).min().unwrap_or(0);
        let least_zone = open
            .iter()
            .map(|host| in_zone(&host.zone))
            .min()
            .unwrap_or(0);
        group
            .spread
            .hosts_max_skew
            .is_none_or(|most| on_host(host) < least_host + most)
            && group
                .spread
                .zones_max_skew
                .is_none_or(|most| in_zone(&host.zone) < least_zone + most as usize)
    }

    /// Whether a rule holds for an instance on a host; `itself` is 1 if it is
    /// counted there already.
    fn keeps(
        &self,
        group: &Group,
        rule: &Affinity,
        (instance, host): (u32, &str),
        itself: u32,
    ) -> bool {
        let selected = |id: &str| selects(&rule.to, self.groups[id]);
        let near = |there: &str| self.near(there, host, rule.within);
        let others = self
            .placed
            .iter()
            .filter(|&&(id, number, there)| {
                selected(id) && near(there) && (id, number) != (&*group.id, instance)
            })
            .count();
        match rule.direction {
            Direction::Apart => others == 0,
            Direction::Beside => {
                let founds = selects(&rule.to, group)
                    && (itself == 1 || !self.placed.iter().any(|&(id, _, _)| selected(id)));
                others > 0 || founds
            }
        }
    }

    /// Whether nobody there must be apart from a group.
    fn nobody_minds(&self, group: &Group, host: &Host) -> bool {
        self.placed.iter().all(|&(id, _, there)| {
            required(self.groups[id]).all(|rule| {
                rule.direction != Direction::Apart
                    || !selects(&rule.to, group)
                    || !self.near(there, &host.id, rule.within)
            })
        })
    }

    fn near(&self, one: &str, other: &str, within: Within) -> bool {
        match within {
            Within::Host => one == other,
            Within::Zone => self.hosts[one].zone == self.hosts[other].zone,
        }
    }

    fn static_rules(&self, group: &Group, instance: u32, host: &Host) -> bool {
        let pinned = group.count != Count::EveryHost
            && group
                .pinned
                .get(&instance)
                .is_some_and(|pin| *pin != host.id);
        !pinned && self.tags_fit(group, host)
    }

    fn tags_fit(&self, group: &Group, host: &Host) -> bool {
        let tag = |name: &str| match name {
            "host" => Some(&host.id),
            "zone" => Some(&host.zone),
            _ => host.tags.get(name),
        };
        let devices =
            group.ask.devices.iter().all(|(name, count)| {
                *count == 0 || usable(host).get(name).copied().unwrap_or(0) > 0
            });
        devices
            && group.constraints.iter().all(|constraint| {
                let found = tag(&constraint.tag);
                match &constraint.test {
                    Test::Equals(value) => found == Some(value),
                    Test::Differs(value) => found != Some(value),
                    Test::In(values) => found.is_some_and(|found| values.contains(found)),
                    Test::Exists => found.is_some(),
                }
            })
    }

    fn on(&self, host: &str) -> impl Iterator<Item = (&'a str, u32)> {
        let host = host.to_owned();
        self.placed
            .iter()
            .filter(move |(_, _, there)| *there == host)
            .map(|&(group, instance, _)| (group, instance))
    }

    fn count_on(&self, group: &str, host: &str) -> u32 {
        u32::try_from(self.on(host).filter(|(id, _)| *id == group).count()).expect("few")
    }

    fn used(&self, host: &str) -> BTreeMap<String, u64> {
        let mut used = BTreeMap::new();
        for (group, _) in self.on(host) {
            for (name, amount) in amounts(&self.groups[group].ask) {
                *used.entry(name).or_default() += amount;
            }
        }
        used
    }
}

fn required(group: &Group) -> impl Iterator<Item = &Affinity> {
    group
        .affinities
        .iter()
        .filter(|rule| rule.strength == Strength::Required)
}

fn selects(selector: &Selector, group: &Group) -> bool {
    let labels: BTreeSet<_> = group.labels.iter().collect();
    selector.app.as_ref().is_none_or(|app| *app == group.app)
        && selector
            .process_type
            .as_ref()
            .is_none_or(|name| *name == group.process_type)
        && selector.labels.iter().all(|label| labels.contains(&label))
}

fn amounts(resources: &Resources) -> BTreeMap<String, u64> {
    let mut amounts = resources.devices.clone();
    amounts.insert("memory".to_owned(), resources.memory_bytes);
    amounts.insert("cpu".to_owned(), resources.cpu_millis);
    amounts.insert("disk".to_owned(), resources.disk_bytes);
    amounts
}

fn usable(host: &Host) -> BTreeMap<String, u64> {
    let reserved = amounts(&host.reserved);
    amounts(&host.capacity)
        .into_iter()
        .map(|(name, all)| {
            let usable = all.saturating_sub(reserved.get(&name).copied().unwrap_or(0));
            (name, usable)
        })
        .collect()
}
