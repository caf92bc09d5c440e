//! Why a dyno is where it is or nowhere, host by host.

use super::frame::tag;
use super::model::{Count, Direction, Port, Strength, Test, Within};
use super::plan::Plan;
use super::rules::{POINT, Regard, Rules, placed};
use super::score::Score;
use super::state::Standing;
use std::collections::BTreeMap;

/// What a host can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory, in bytes.
    Memory,
    /// Processor time, in thousandths of a processor.
    Cpu,
    /// Disk, in bytes.
    Disk,
}

/// Why a host is no place for a dyno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It takes no new ones.
    Cordoned,
    /// It is being emptied.
    Draining,
    /// It is lost.
    Gone,
    /// The dyno's volume is on this host, or was, if it is no more.
    VolumeOn(String),
    /// A tag is not as it must be.
    Constraint {
        /// The tag's name.
        tag: String,
        /// What it must be.
        wanted: Test,
        /// What it is.
        found: Option<String>,
    },
    /// Too little is free.
    Short {
        /// Of what.
        resource: Resource,
        /// How much the dyno asks for.
        asked: u64,
        /// How much is free.
        free: u64,
    },
    /// Too few devices are free.
    Device {
        /// Of which.
        name: String,
        /// How many the dyno asks for.
        asked: u64,
        /// How many are free.
        free: u64,
    },
    /// Somebody has the port.
    PortTaken(Port),
    /// As many of the group are on the host as may be.
    PerHost {
        /// How many may be.
        limit: u32,
    },
    /// The host would have too many more than another.
    HostSkew {
        /// By how many it may have more.
        limit: u32,
        /// How many it has.
        here: u32,
        /// How many that with the fewest has.
        least: u32,
    },
    /// The zone would have too many more than another.
    ZoneSkew {
        /// By how many it may have more.
        limit: u32,
        /// How many it has.
        here: u32,
        /// How many that with the fewest has.
        least: u32,
    },
    /// Somebody must be apart from it.
    Apart {
        /// From this group.
        from: String,
        /// How far.
        within: Within,
    },
    /// Nobody is there whom it must be beside.
    Alone {
        /// How near.
        within: Within,
    },
    /// It would fit, but the loss of so many hosts is to be survived.
    KeptFree {
        /// How many hosts.
        hosts: u32,
    },
}

impl Refusal {
    /// The same for all refusals of a kind, whatever their numbers.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::Cordoned => "cordoned",
            Refusal::Draining => "draining",
            Refusal::Gone => "gone",
            Refusal::VolumeOn(_) => "volume elsewhere",
            Refusal::Constraint { .. } => "constraint",
            Refusal::Short {
                resource: Resource::Memory,
                ..
            } => "memory",
            Refusal::Short {
                resource: Resource::Cpu,
                ..
            } => "cpu",
            Refusal::Short {
                resource: Resource::Disk,
                ..
            } => "disk",
            Refusal::Device { .. } => "device",
            Refusal::PortTaken(_) => "port taken",
            Refusal::PerHost { .. } => "one per host",
            Refusal::HostSkew { .. } => "host skew",
            Refusal::ZoneSkew { .. } => "zone skew",
            Refusal::Apart { .. } => "apart",
            Refusal::Alone { .. } => "alone",
            Refusal::KeptFree { .. } => "kept free",
        }
    }
}

/// What a host is to a dyno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs there, or is to.
    Here(Score),
    /// It could run there.
    Fits(Score),
    /// It cannot, for all these reasons.
    Refused(Vec<Refusal>),
}

/// What each host is to a dyno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Each host, by zone and name, and what it is.
    pub hosts: Vec<(&'a str, Verdict)>,
}

impl Explanation<'_> {
    /// How many hosts refuse for which kind of reason; a host with several
    /// counts for each.
    pub fn summary(&self) -> BTreeMap<&'static str, usize> {
        let mut hosts = BTreeMap::new();
        for (_, verdict) in &self.hosts {
            if let Verdict::Refused(refusals) = verdict {
                let kinds: std::collections::BTreeSet<_> =
                    refusals.iter().map(Refusal::kind).collect();
                for kind in kinds {
                    *hosts.entry(kind).or_default() += 1;
                }
            }
        }
        hosts
    }
}

impl Plan {
    /// What each host is to one instance of a group, with everybody else where
    /// this plan has them. Nothing if there is no such group.
    pub fn explain(&self, group: &str, instance: u32) -> Option<Explanation<'_>> {
        let frame = &self.cluster.frame;
        let &number = frame.group_numbers.get(group)?;
        let slot = match frame.groups[number as usize].count {
            Count::Instances(_) => Some(instance),
            Count::EveryHost => {
                let numbers = &self.cluster.state.numbers[number as usize];
                (0..)
                    .zip(numbers)
                    .find(|(_, known)| **known == instance)
                    .map(|(slot, _)| slot)
            }
        };
        let at = &self.cluster.state.at[number as usize];
        let here = slot
            .and_then(|slot| at.get(slot as usize).copied())
            .filter(|&host| host != super::frame::NOWHERE);
        let mut state = self.cluster.state.clone();
        if let (Some(_), Some(slot)) = (here, slot) {
            state.give(frame, number, slot);
        }
        let mut rules = Rules::new(frame);
        rules.prepare((frame, &state), number, Regard::All, |_| true);
        let asking = Asking {
            plan: self,
            state: &state,
            rules: &rules,
            group: number,
            instance,
        };
        let hosts = (0..super::frame::number(frame.hosts.len()))
            .map(|host| {
                (
                    frame.hosts[host as usize].id.as_str(),
                    asking.verdict(host, here),
                )
            })
            .collect();
        Some(Explanation { hosts })
    }
}

struct Asking<'a> {
    plan: &'a Plan,
    state: &'a super::state::State,
    rules: &'a Rules,
    group: u32,
    instance: u32,
}

impl Asking<'_> {
    fn verdict(&self, host: u32, here: Option<u32>) -> Verdict {
        let frame = &self.plan.cluster.frame;
        let zone = frame.zone_of[host as usize] as usize;
        let mut score = Score::of(frame, self.state, self.rules, self.group, host);
        score.affinity += self.rules.zone_liking[zone];
        let weight = i32::from(frame.groups[self.group as usize].spread.zones_weight) * POINT;
        let own = i32::try_from(self.rules.zone_own[zone]).unwrap_or(i32::MAX);
        score.zones = -weight.saturating_mul(own);
        if here == Some(host) {
            return Verdict::Here(score);
        }
        let mut refusals = self.standing(host);
        self.constraints(host, &mut refusals);
        self.room(host, &mut refusals);
        self.spread(host, &mut refusals);
        self.affinities(host, &mut refusals);
        if refusals.is_empty() && here.is_none() && self.plan.kept_free {
            refusals.push(Refusal::KeptFree {
                hosts: self.plan.cluster.policy.survive_hosts,
            });
        }
        if refusals.is_empty() {
            Verdict::Fits(score)
        } else {
            Verdict::Refused(refusals)
        }
    }

    fn standing(&self, host: u32) -> Vec<Refusal> {
        match self.state.standing[host as usize] {
            Standing::Open => Vec::new(),
            Standing::Cordoned => vec![Refusal::Cordoned],
            Standing::Draining => vec![Refusal::Draining],
            Standing::Gone => vec![Refusal::Gone],
        }
    }

    fn constraints(&self, host: u32, refusals: &mut Vec<Refusal>) {
        let frame = &self.plan.cluster.frame;
        let (group, host) = (
            &frame.groups[self.group as usize],
            &frame.hosts[host as usize],
        );
        if let (Some(pin), Count::Instances(_)) = (group.pinned.get(&self.instance), group.count)
            && *pin != host.id
        {
            refusals.push(Refusal::VolumeOn(pin.clone()));
        }
        for constraint in &group.constraints {
            let found = tag(host, &constraint.tag);
            if !constraint.holds(found) {
                refusals.push(Refusal::Constraint {
                    tag: constraint.tag.clone(),
                    wanted: constraint.test.clone(),
                    found: found.map(str::to_owned),
                });
            }
        }
    }

    fn room(&self, host: u32, refusals: &mut Vec<Refusal>) {
        let frame = &self.plan.cluster.frame;
        let compiled = &frame.compiled[self.group as usize];
        let free = self.state.free(host);
        let resources = [Resource::Memory, Resource::Cpu, Resource::Disk];
        for (r, resource) in resources.into_iter().enumerate() {
            let (asked, free) = (compiled.ask[r], free[r]);
            if free < asked {
                refusals.push(Refusal::Short {
                    resource,
                    asked,
                    free,
                });
            }
        }
        for &(kind, asked) in &compiled.devices {
            let free = self.state.free_devices(host, kind);
            if free < asked {
                let name = frame.device_names[kind as usize].clone();
                refusals.push(Refusal::Device { name, asked, free });
            }
        }
        for &port in &frame.groups[self.group as usize].ports {
            if self.state.has_port(host, port) {
                refusals.push(Refusal::PortTaken(port));
            }
        }
    }

    fn spread(&self, host: u32, refusals: &mut Vec<Refusal>) {
        let frame = &self.plan.cluster.frame;
        let group = &frame.groups[self.group as usize];
        let here = self.rules.own[host as usize];
        let limit = frame.compiled[self.group as usize].per_host;
        if here >= limit {
            refusals.push(Refusal::PerHost { limit });
        }
        if group.count == Count::EveryHost {
            return;
        }
        let areas = &frame.areas[frame.compiled[self.group as usize].areas as usize];
        let hosts = areas
            .iter()
            .flat_map(|area| &area.stretches)
            .flat_map(|&(from, to)| from..to);
        let open = hosts.filter(|&host| self.state.standing[host as usize] == Standing::Open);
        let zone = |host: u32| frame.zone_of[host as usize] as usize;
        if let Some(limit) = group.spread.hosts_max_skew {
            let least = open
                .clone()
                .map(|host| self.rules.own[host as usize])
                .min()
                .unwrap_or(0);
            if here >= least + limit {
                refusals.push(Refusal::HostSkew { limit, here, least });
            }
        }
        if let Some(limit) = group.spread.zones_max_skew {
            let here = self.rules.zone_own[zone(host)];
            let least = open
                .map(|host| self.rules.zone_own[zone(host)])
                .min()
                .unwrap_or(0);
            if here >= least + limit {
                refusals.push(Refusal::ZoneSkew { limit, here, least });
            }
        }
    }

    fn affinities(&self, host: u32, refusals: &mut Vec<Refusal>) {
        let frame = &self.plan.cluster.frame;
        let near = |other: u32, within: Within| {
            placed(self.state, other).any(|there| match within {
                Within::Host => there == host,
                Within::Zone => frame.zone_of[there as usize] == frame.zone_of[host as usize],
            })
        };
        let compiled = &frame.compiled[self.group as usize];
        let required = |rule: &&super::frame::Rule| rule.strength == Strength::Required;
        for rule in compiled.rules.iter().filter(required) {
            let others = frame.selected.groups(rule.selected);
            let within = rule.within;
            match rule.direction {
                Direction::Apart => {
                    let mut near = others.iter().filter(|&&other| near(other, within));
                    let from = near.find(|&&other| other != self.group || within == Within::Zone);
                    if let Some(&from) = from {
                        let from = frame.groups[from as usize].id.clone();
                        refusals.push(Refusal::Apart { from, within });
                    }
                }
                Direction::Beside => {
                    let founds = rule.itself
                        && others
                            .iter()
                            .all(|&other| placed(self.state, other).next().is_none());
                    if !founds && !others.iter().any(|&other| near(other, within)) {
                        refusals.push(Refusal::Alone { within });
                    }
                }
            }
        }
        for &other in &compiled.kept_away_by {
            let rules = frame.compiled[other as usize].rules.iter().filter(required);
            let ours = rules
                .filter(|rule| rule.direction == Direction::Apart)
                .find(|rule| {
                    frame.selected.groups(rule.selected).contains(&self.group)
                        && near(other, rule.within)
                });
            if let Some(rule) = ours {
                let from = frame.groups[other as usize].id.clone();
                refusals.push(Refusal::Apart {
                    from,
                    within: rule.within,
                });
            }
        }
    }
}
