//! Keeps enough free that the loss of any hosts can be survived.
//!
//! Everything is placed, then it is asked whether, whichever hosts were lost,
//! all that ran there would fit elsewhere, with nobody's place taken. If not,
//! only as many new dynos are placed, in order, as keep that true. Dynos that
//! ran before are always placed: they are what the room was kept for.
//!
//! Up to [`TRIALS`] sets of hosts are tried out, one by one, by placing what
//! they lose; so the answer is a fact. For more, a bound is computed. Say that an
//! instance of group *g*, asking *a*, finds no place after a loss. Then on each
//! host that is open to it, what came there since, in some resource *r*, is more
//! than *free − a*. With every resource in units of the biggest host's, what came
//! to all of them is more than the sum, over these hosts, of the least over *r* of
//! *free − a*. But all that is displaced is at most what the fullest hosts have. So
//! if that sum, without the hosts lost and those that a rule may close to *g*, is
//! as much, every instance of *g* finds a place. The bound errs to the safe side
//! only: it may keep more free than needed. It says nothing of groups that must
//! be beside others, or apart within zones; with one of those among more sets of
//! hosts than are tried out, no new dyno is placed.

use super::cluster::Cluster;
use super::frame::{Compiled, Frame};
use super::model::{Count, Direction, Port, Strength, Within};
use super::plan::{Displaced, Plan};
use super::rules::placed;
use super::schedule::Scheduling;
use super::state::{Standing, State};
use std::collections::{BTreeMap, HashMap};

/// Sets of hosts whose loss is tried out.
const TRIALS: u64 = 512;

/// The plan that survives, for what was admitted.
pub(super) fn plan(admitted: Scheduling, cluster: Cluster) -> Plan {
    let lose = cluster.policy.survive_hosts;
    let place = |new: Option<u64>| {
        let mut scheduling = admitted.clone();
        if let Some(new) = new {
            scheduling.allow(new);
        }
        scheduling.placed_best()
    };
    let all = place(None);
    if survives(&cluster, &all, lose) {
        return all.finish(cluster, false);
    }
    // More than `low` are too many or were not tried; `high` are too many.
    let (mut low, mut high) = (0, all.placed().len() as u64);
    let mut best = place(Some(0));
    while high - low > 1 {
        let middle = low.midpoint(high);
        let some = place(Some(middle));
        if survives(&cluster, &some, lose) {
            (low, best) = (middle, some);
        } else {
            high = middle;
        }
    }
    best.finish(cluster, true)
}

/// Whether all that runs would run again after any loss of so many hosts.
fn survives(cluster: &Cluster, scheduling: &Scheduling, lose: u32) -> bool {
    let frame = &*cluster.frame;
    let state = scheduling.state();
    let hosts = super::frame::number(frame.hosts.len());
    let lose = lose.min(hosts);
    match combinations(hosts, lose) {
        Some(sets) if sets <= TRIALS => {
            let mut set: Vec<u32> = (0..lose).collect();
            loop {
                if !survives_this(frame, scheduling, &set) {
                    return false;
                }
                if !next_set(&mut set, hosts) {
                    return true;
                }
            }
        }
        _ => bound(frame, state, lose as usize),
    }
}

fn survives_this(frame: &Frame, scheduling: &Scheduling, set: &[u32]) -> bool {
    let mut trial = scheduling.clone();
    let before = trial.displaced().len();
    trial.without_preemption();
    trial.lose_hosts(set);
    trial.allow(0);
    trial.place_all();
    let movable = |displaced: &&Displaced| {
        let group = &frame.groups[displaced.group as usize];
        group.count != Count::EveryHost && !group.pinned.contains_key(&displaced.slot)
    };
    trial.displaced()[before..]
        .iter()
        .filter(movable)
        .all(|displaced| {
            trial.state().at[displaced.group as usize][displaced.slot as usize]
                != super::frame::NOWHERE
        })
}

fn combinations(of: u32, choose: u32) -> Option<u64> {
    let mut sets: u64 = 1;
    for k in 0..u64::from(choose) {
        sets = sets.checked_mul(u64::from(of) - k)? / (k + 1);
        if sets > TRIALS * TRIALS {
            return None;
        }
    }
    Some(sets)
}

/// The next set of as many numbers below `end`, in order.
fn next_set(set: &mut [u32], end: u32) -> bool {
    let room = |place: usize| end - super::frame::number(set.len() - place);
    let Some(place) = (0..set.len()).rev().find(|&place| set[place] < room(place)) else {
        return false;
    };
    let first = set[place] + 1;
    for (value, place) in (first..).zip(place..set.len()) {
        set[place] = value;
    }
    true
}

/// One of the biggest host's, of any resource.
const WHOLE: u64 = 1 << 32;

/// What each resource and device counts for, and how much of each an ask is.
struct Units {
    whole: Vec<u64>,
}

impl Units {
    fn new(frame: &Frame) -> Units {
        let mut whole = vec![1; 3 + frame.device_names.len()];
        for (usable, devices) in frame.usable.iter().zip(&frame.usable_devices) {
            for r in 0..3 {
                whole[r] = usable[r].max(whole[r]);
            }
            for &(kind, count) in devices {
                whole[3 + kind as usize] = count.max(whole[3 + kind as usize]);
            }
        }
        Units { whole }
    }

    /// Rounded up.
    fn load(&self, asks: &Compiled) -> u128 {
        let part = |r: usize, asked: u64| {
            (u128::from(asked) * u128::from(WHOLE)).div_ceil(u128::from(self.whole[r]))
        };
        let devices = asks
            .devices
            .iter()
            .map(|&(kind, count)| part(3 + kind as usize, count));
        (0..3).map(|r| part(r, asks.ask[r])).chain(devices).sum()
    }

    /// How much must at least come to a host before it is closed to one more.
    fn slack(&self, state: &State, asks: &Compiled, host: u32) -> Option<u128> {
        let part = |r: usize, free: u64, asked: u64| {
            let over = free.checked_sub(asked)?;
            Some(u128::from(over) * u128::from(WHOLE) / u128::from(self.whole[r]))
        };
        let free = state.free(host);
        let resources = (0..3)
            .filter(|&r| asks.ask[r] > 0)
            .map(|r| part(r, free[r], asks.ask[r]));
        let devices = asks
            .devices
            .iter()
            .map(|&(kind, count)| part(3 + kind as usize, state.free_devices(host, kind), count));
        // One that asks for nothing fits anywhere.
        resources
            .chain(devices)
            .try_fold(u128::MAX, |least, part| Some(least.min(part?)))
    }
}

fn bound(frame: &Frame, state: &State, lose: usize) -> bool {
    let units = Units::new(frame);
    let mut loads = vec![0; frame.hosts.len()];
    let mut with_port: BTreeMap<Port, usize> = BTreeMap::new();
    for (group, slots) in (0_u32..).zip(&state.at) {
        let (asks, group_of) = (
            &frame.compiled[group as usize],
            &frame.groups[group as usize],
        );
        let load = units.load(asks);
        for (slot, host) in (0..)
            .zip(slots)
            .filter(|(_, host)| **host != super::frame::NOWHERE)
        {
            let movable =
                group_of.count != Count::EveryHost && !group_of.pinned.contains_key(&slot);
            loads[*host as usize] += if movable { load } else { 0 };
            for &port in &group_of.ports {
                *with_port.entry(port).or_default() += 1;
            }
        }
    }
    loads.sort_unstable_by(|a: &u128, b| b.cmp(a));
    let displaced: u128 = loads.iter().take(lose).sum();
    let mut known: HashMap<_, bool> = HashMap::new();
    (0..super::frame::number(frame.groups.len())).all(|group| {
        let asks = &frame.compiled[group as usize];
        let of = &frame.groups[group as usize];
        if of.count == Count::EveryHost || placed(state, group).next().is_none() {
            return true;
        }
        let Some(closed) = closed(frame, state, group, &with_port) else {
            return false;
        };
        let without = closed.saturating_add(lose);
        let by_zone = of.spread.zones_max_skew.is_some();
        let key = (
            asks.ask,
            &asks.devices,
            asks.areas,
            without,
            by_zone,
            &of.ports,
        );
        *known.entry(key).or_insert_with(|| {
            let slack = |hosts: &mut dyn Iterator<Item = u32>| {
                enough(frame, state, &units, (group, without, displaced), hosts)
            };
            let areas = &frame.areas[asks.areas as usize];
            let hosts = |area: &super::areas::Area| {
                let stretches = area.stretches.clone();
                stretches.into_iter().flat_map(|(from, to)| from..to)
            };
            if by_zone {
                // The zone with the fewest must have room, and may be any.
                let open = |host| state.standing[host as usize] == Standing::Open;
                let mut domains = areas.iter().filter(|area| hosts(area).any(open));
                domains.all(|area| slack(&mut hosts(area)))
            } else {
                slack(&mut areas.iter().flat_map(hosts))
            }
        })
    })
}

/// Whether hosts have room for one more of a group once all that is displaced
/// has come, without those with the most room.
fn enough(
    frame: &Frame,
    state: &State,
    units: &Units,
    (group, without, displaced): (u32, usize, u128),
    hosts: &mut dyn Iterator<Item = u32>,
) -> bool {
    let asks = &frame.compiled[group as usize];
    let ports = &frame.groups[group as usize].ports;
    let mut slack: Vec<u128> = hosts
        .filter(|&host| state.standing[host as usize] == Standing::Open)
        .filter(|&host| ports.is_disjoint(&frame.hosts[host as usize].reserved_ports))
        .filter_map(|host| units.slack(state, asks, host))
        .collect();
    slack.sort_unstable_by(|a, b| b.cmp(a));
    let rest = slack.get(without..).unwrap_or(&[]);
    !rest.is_empty()
        && rest
            .iter()
            .fold(0, |sum: u128, &slack| sum.saturating_add(slack))
            >= displaced
}

/// How many hosts may be closed to a group by its rules, at most; nothing if
/// that cannot be said.
fn closed(
    frame: &Frame,
    state: &State,
    group: u32,
    with_port: &BTreeMap<Port, usize>,
) -> Option<usize> {
    let asks = &frame.compiled[group as usize];
    let of = &frame.groups[group as usize];
    let count = |group: u32| placed(state, group).count();
    let per_host = asks
        .per_host
        .min(of.spread.hosts_max_skew.unwrap_or(u32::MAX));
    let mut closed = count(group) / per_host as usize;
    closed += of
        .ports
        .iter()
        .map(|port| with_port.get(port).copied().unwrap_or(0))
        .sum::<usize>();
    if asks.one_per_zone {
        return None;
    }
    for rule in asks
        .rules
        .iter()
        .filter(|rule| rule.strength == Strength::Required)
    {
        if rule.direction == Direction::Beside || rule.within == Within::Zone {
            return None;
        }
        let others = frame
            .selected
            .groups(rule.selected)
            .iter()
            .filter(|&&other| other != group);
        closed += others.map(|&other| count(other)).sum::<usize>();
    }
    for &other in &asks.kept_away_by {
        let zones = frame.compiled[other as usize].rules.iter().any(|rule| {
            rule.strength == Strength::Required
                && rule.direction == Direction::Apart
                && rule.within == Within::Zone
        });
        if zones {
            return None;
        }
        closed += count(other);
    }
    Some(closed)
}
