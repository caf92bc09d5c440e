//! What a schedule comes to: what is placed, moved and stopped, and who waits.

use super::cluster::{Cluster, Stray, Unwanted};
use super::frame::NOWHERE;
use super::model::{Assignment, Count};
use super::rules::placed;
use super::schedule::Scheduling;
use super::score::Score;
use super::state::Standing;

/// Why a dyno that runs does not stay where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// It is not wanted any more.
    Unwanted(Unwanted),
    /// Its host is gone.
    HostGone,
    /// Its host is drained.
    Draining,
    /// Its volume is on another host.
    VolumeElsewhere,
    /// A constraint does not hold there, or a device is not there.
    Constraint,
    /// It must be apart from somebody on the host or in the zone, or its group
    /// has too many there.
    Apart,
    /// It must be beside somebody who is not there.
    Alone,
    /// The host has less than its dynos ask for; those of higher priority stay.
    Overcommitted,
    /// This group, of a higher priority, needs its place.
    PreemptedBy(&'a str),
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A dyno stops and starts nowhere else.
    Stop {
        /// Which, and where it runs.
        dyno: Assignment<'a>,
        /// Why.
        cause: Cause<'a>,
    },
    /// A dyno starts on another host, and stops or is lost on its own.
    Move {
        /// Which, and where it goes.
        dyno: Assignment<'a>,
        /// Where it runs, or ran.
        from: &'a str,
        /// Why.
        cause: Cause<'a>,
        /// What spoke for the host.
        score: Score,
    },
    /// A dyno starts.
    Place {
        /// Which, and where.
        dyno: Assignment<'a>,
        /// What spoke for the host.
        score: Score,
    },
}

/// What of a group runs nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing<'a> {
    /// These instances.
    Instances(Vec<u32>),
    /// Those of these hosts.
    Hosts(Vec<&'a str>),
}

/// A group that is not all placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced<'a> {
    /// Which.
    pub group: &'a str,
    /// What of it.
    pub missing: Missing<'a>,
}

/// [`Cause`], with a group's number for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    HostGone,
    Draining,
    VolumeElsewhere,
    Constraint,
    Apart,
    Alone,
    Overcommitted,
    Preempted { by: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Displaced {
    pub(super) group: u32,
    pub(super) slot: u32,
    pub(super) from: u32,
    pub(super) why: Why,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) group: u32,
    pub(super) slot: u32,
    pub(super) host: u32,
    pub(super) score: Score,
}

/// Where everything is to run, and how that differs from where it runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster as it is to be.
    pub(super) cluster: Cluster,
    pub(super) placed: Vec<Placed>,
    pub(super) displaced: Vec<Displaced>,
    pub(super) strays: Vec<Stray>,
    pub(super) kept_free: bool,
}

impl Plan {
    pub(super) fn settle(&mut self) {
        self.strays.sort();
        self.displaced
            .sort_by_key(|displaced| (displaced.group, displaced.slot));
        // Of one that was placed and displaced again, the last counts, if it stayed.
        self.placed
            .sort_by_key(|placed| (placed.group, placed.slot));
        let at = &self.cluster.state.at;
        self.placed.reverse();
        self.placed
            .dedup_by_key(|placed| (placed.group, placed.slot));
        self.placed.reverse();
        self.placed.retain(|placed| {
            let slots = &at[placed.group as usize];
            slots.get(placed.slot as usize) == Some(&placed.host)
        });
    }

    /// What is to be done: stops, then moves, then new placements, each by group
    /// and instance. Nothing for what stays.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let strays = self.strays.iter().map(|stray| Step::Stop {
            dyno: Assignment {
                group: &stray.group,
                instance: stray.instance,
                host: self.cluster.host_name(stray.host),
            },
            cause: Cause::Unwanted(stray.why),
        });
        let stops = self
            .displaced
            .iter()
            .filter_map(|displaced| self.stop(displaced));
        let moves = self
            .displaced
            .iter()
            .filter_map(|displaced| self.shift(displaced));
        let places = self
            .placed
            .iter()
            .filter(|placed| self.displacement(placed).is_none());
        strays
            .chain(stops)
            .chain(moves)
            .chain(places.map(|placed| Step::Place {
                dyno: self.dyno(placed.group, placed.slot, placed.host),
                score: placed.score,
            }))
    }

    /// Where everything is to run, by group and instance.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment<'_>> {
        (0..)
            .zip(&self.cluster.state.at)
            .flat_map(move |(group, slots)| {
                let placed = (0..).zip(slots).filter(|&(_, &host)| host != NOWHERE);
                placed.map(move |(slot, &host)| self.dyno(group, slot, host))
            })
    }

    /// Who waits, by group. Why, [`Plan::explain`] says.
    pub fn unplaced(&self) -> impl Iterator<Item = Unplaced<'_>> {
        (0..)
            .zip(&self.cluster.frame.groups)
            .filter_map(|(number, group)| {
                let slots = &self.cluster.state.at[number as usize];
                let missing = match group.count {
                    Count::Instances(_) => {
                        let pending = (0..).zip(slots).filter(|&(_, &host)| host == NOWHERE);
                        Missing::Instances(pending.map(|(slot, _)| slot).collect())
                    }
                    Count::EveryHost => Missing::Hosts(self.hosts_without(number)),
                };
                let none = match &missing {
                    Missing::Instances(instances) => instances.is_empty(),
                    Missing::Hosts(hosts) => hosts.is_empty(),
                };
                (!none).then_some(Unplaced {
                    group: &group.id,
                    missing,
                })
            })
    }

    /// Whether dynos wait although they would fit, because the cluster is to
    /// survive the loss of hosts.
    pub fn kept_free(&self) -> bool {
        self.kept_free
    }

    /// What would be if these hosts were lost.
    ///
    /// # Errors
    ///
    /// A name that no host has.
    pub fn capacity(&self, lose: &[&str]) -> Result<Capacity, UnknownHost> {
        let hosts: Vec<u32> = lose
            .iter()
            .map(|&name| {
                let known = self.cluster.frame.host_numbers.get(name);
                known.copied().ok_or_else(|| UnknownHost(name.to_owned()))
            })
            .collect::<Result<_, _>>()?;
        let mut scheduling = Scheduling::after(&self.cluster);
        scheduling.lose_hosts(&hosts);
        scheduling.allow(0);
        scheduling.place_all();
        Ok(Capacity {
            plan: scheduling.finish(self.cluster.clone(), false),
        })
    }

    fn hosts_without(&self, group: u32) -> Vec<&str> {
        let frame = &self.cluster.frame;
        let has: std::collections::HashSet<u32> = placed(&self.cluster.state, group).collect();
        let areas = &frame.areas[frame.compiled[group as usize].areas as usize];
        areas
            .iter()
            .flat_map(|area| &area.stretches)
            .flat_map(|&(from, to)| from..to)
            .filter(|host| self.cluster.state.standing[*host as usize] == Standing::Open)
            .filter(|host| !has.contains(host))
            .map(|host| self.cluster.host_name(host))
            .collect()
    }

    fn dyno(&self, group: u32, slot: u32, host: u32) -> Assignment<'_> {
        Assignment {
            group: &self.cluster.frame.groups[group as usize].id,
            instance: self
                .cluster
                .state
                .instance(&self.cluster.frame, group, slot),
            host: self.cluster.host_name(host),
        }
    }

    fn cause(&self, why: Why) -> Cause<'_> {
        match why {
            Why::HostGone => Cause::HostGone,
            Why::Draining => Cause::Draining,
            Why::VolumeElsewhere => Cause::VolumeElsewhere,
            Why::Constraint => Cause::Constraint,
            Why::Apart => Cause::Apart,
            Why::Alone => Cause::Alone,
            Why::Overcommitted => Cause::Overcommitted,
            Why::Preempted { by } => Cause::PreemptedBy(&self.cluster.frame.groups[by as usize].id),
        }
    }

    fn displacement(&self, placed: &Placed) -> Option<&Displaced> {
        let key = (placed.group, placed.slot);
        let found = self
            .displaced
            .binary_search_by_key(&key, |displaced| (displaced.group, displaced.slot));
        found.ok().map(|place| &self.displaced[place])
    }

    /// A displaced dyno that has no new place, if it is not gone with its host.
    fn stop(&self, displaced: &Displaced) -> Option<Step<'_>> {
        let now = self.cluster.state.at[displaced.group as usize][displaced.slot as usize];
        (now == NOWHERE && displaced.why != Why::HostGone).then(|| Step::Stop {
            dyno: self.dyno(displaced.group, displaced.slot, displaced.from),
            cause: self.cause(displaced.why),
        })
    }

    /// A displaced dyno that has a new place, other than its old one.
    fn shift(&self, displaced: &Displaced) -> Option<Step<'_>> {
        let key = (displaced.group, displaced.slot);
        let place = self
            .placed
            .binary_search_by_key(&key, |placed| (placed.group, placed.slot))
            .ok()?;
        let placed = &self.placed[place];
        (placed.host != displaced.from).then(|| Step::Move {
            dyno: self.dyno(placed.group, placed.slot, placed.host),
            from: self.cluster.host_name(displaced.from),
            cause: self.cause(displaced.why),
            score: placed.score,
        })
    }
}

/// A host was named that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no host {0:?}")]
pub struct UnknownHost(pub String);

/// What would be if hosts were lost.
#[derive(Clone, Debug)]
pub struct Capacity {
    plan: Plan,
}

impl Capacity {
    /// Whether all that runs would run again.
    pub fn fits(&self) -> bool {
        self.homeless().next().is_none()
    }

    /// What runs now and would run nowhere, and where it runs. Groups on every
    /// host have one less for each host that goes; that is no loss.
    pub fn homeless(&self) -> impl Iterator<Item = Assignment<'_>> {
        let cluster = &self.plan.cluster;
        self.plan
            .displaced
            .iter()
            .filter(|displaced| {
                let group = displaced.group as usize;
                let with_its_host = cluster.frame.groups[group].count == Count::EveryHost
                    && displaced.why == Why::HostGone;
                !with_its_host && cluster.state.at[group][displaced.slot as usize] == NOWHERE
            })
            .map(|displaced| {
                self.plan
                    .dyno(displaced.group, displaced.slot, displaced.from)
            })
    }

    /// The plan that would be followed then.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}
