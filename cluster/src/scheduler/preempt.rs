//! Whose place a dyno may take: of the lowest priority, and as few as possible.
//!
//! On one host, all occupants below a priority go or none: the lowest such
//! priority with which the dyno fits is the host's *level*. Among the occupants
//! up to the level the fewest that are enough are searched for, exactly up to
//! [`BUDGET`] trials, then greedily. Of all hosts the one with the lowest level
//! is taken, and among those, of up to [`COMPARED`], the one with the fewest
//! victims.

use super::frame::Frame;
use super::model::{Direction, Strength, Within};
use super::place::Placing;
use super::rules::{Forbidden, Rules};
use super::state::State;
use super::tree::covers;
use std::collections::{BTreeSet, HashMap};

/// Trials on one host before the search for the fewest is given up.
const BUDGET: u32 = 4096;

/// Hosts of the lowest level whose victims are counted.
const COMPARED: usize = 256;

/// Slots that go: (group, slot).
pub(super) type Victims = Vec<(u32, u32)>;

/// The occupants of a host that are of one group.
struct Occupants {
    group: u32,
    priority: i32,
    slots: Vec<u32>,
    /// What one of them would free, of each thing asked for.
    gives: Vec<u64>,
}

/// What is to be freed on a host, and who could free it.
struct Case {
    /// Who must go, whatever is free: they hold a port, or must be apart.
    must: Victims,
    /// What is missing once they are gone, of each thing asked for.
    missing: Vec<u64>,
    /// The others that may go, those of the lowest priority first.
    may: Vec<Occupants>,
    level: i32,
}

/// The hosts that a group might come to by preemption, by their levels. A level
/// is at first only known to be no lower: from what each priority has on a host,
/// without a look at the occupants.
pub(super) struct Preemption {
    levels: BTreeSet<(i32, u32)>,
    level_of: HashMap<u32, i32>,
}

impl Preemption {
    pub(super) fn new(frame: &Frame, state: &mut State, rules: &Rules, group: u32) -> Preemption {
        let areas = &frame.areas[frame.compiled[group as usize].areas as usize];
        let hosts = areas
            .iter()
            .flat_map(|area| &area.stretches)
            .flat_map(|&(from, to)| from..to);
        let levels: BTreeSet<(i32, u32)> = hosts
            .filter_map(|host| Some((at_least(frame, state, rules, group, host)?, host)))
            .collect();
        Preemption {
            level_of: levels.iter().map(|&(level, host)| (host, level)).collect(),
            levels,
        }
    }

    /// A host and whom to remove from it, so that one more of the group fits.
    pub(super) fn best(
        &mut self,
        (frame, state): (&Frame, &mut State),
        rules: &Rules,
        placing: &Placing,
        group: u32,
    ) -> Option<(u32, Victims)> {
        let mut best: Option<(i32, u32, Victims)> = None;
        let mut compared = 0;
        let mut from = (i32::MIN, 0);
        while let Some(&(level, host)) = self.levels.range(from..).next() {
            from = (level, host + 1);
            let enough = best.as_ref().is_some_and(|(lowest, _, victims)| {
                level > *lowest || victims.len() == 1 || compared == COMPARED
            });
            if enough {
                break;
            }
            if placing.zone_refuses(rules, frame.zone_of[host as usize])
                || placing.rule_refuses(state, rules, host)
            {
                continue;
            }
            let case = case(frame, state, rules, group, host);
            let now = case.as_ref().map(|case| case.level);
            if now != Some(level) {
                self.set(host, now);
                continue;
            }
            let Some(victims) = case.map(Case::victims) else {
                continue;
            };
            compared += 1;
            if best
                .as_ref()
                .is_none_or(|(_, _, others)| victims.len() < others.len())
            {
                best = Some((level, host, victims));
            }
        }
        best.map(|(_, host, victims)| (host, victims))
    }

    /// A host's occupants have changed.
    pub(super) fn changed(
        &mut self,
        (frame, state): (&Frame, &mut State),
        rules: &Rules,
        group: u32,
        host: u32,
    ) {
        let level = at_least(frame, state, rules, group, host);
        self.set(host, level);
    }

    fn set(&mut self, host: u32, level: Option<i32>) {
        if let Some(before) = self.level_of.remove(&host) {
            self.levels.remove(&(before, host));
        }
        if let Some(level) = level {
            self.levels.insert((level, host));
            self.level_of.insert(host, level);
        }
    }
}

/// A host's level, or one below it.
fn at_least(frame: &Frame, state: &mut State, rules: &Rules, group: u32, host: u32) -> Option<i32> {
    let priority = frame.groups[group as usize].priority;
    if rules.forbidden[host as usize] == Forbidden::Yes {
        return None;
    }
    let mut free = *state.free(host);
    let lower = state
        .by_priority(frame, host)
        .iter()
        .take_while(|lower| lower.priority < priority);
    for lower in lower {
        for (free, has) in free.iter_mut().zip(lower.has) {
            *free += has;
        }
        if covers(&free, &frame.compiled[group as usize].ask) {
            return Some(lower.priority);
        }
    }
    None
}

/// Whom to remove from a host, so that one of a group fits.
pub(super) fn victims(
    frame: &Frame,
    state: &mut State,
    rules: &Rules,
    group: u32,
    host: u32,
) -> Option<Victims> {
    case(frame, state, rules, group, host).map(Case::victims)
}

impl Case {
    fn victims(self) -> Victims {
        let may: Vec<&Occupants> = self
            .may
            .iter()
            .filter(|occupants| occupants.priority <= self.level)
            .collect();
        let chosen = fewest(&self.missing, &may).unwrap_or_else(|| greedily(&self.missing, &may));
        let mut victims = self.must;
        for (occupants, count) in may.iter().zip(chosen) {
            // The highest numbers go, as when a group is scaled down.
            let go = occupants.slots.iter().rev().take(count);
            victims.extend(go.map(|&slot| (occupants.group, slot)));
        }
        victims
    }
}

fn case(frame: &Frame, state: &mut State, rules: &Rules, group: u32, host: u32) -> Option<Case> {
    let asks = &frame.compiled[group as usize];
    let priority = frame.groups[group as usize].priority;
    if rules.forbidden[host as usize] == Forbidden::Yes
        || frame.groups[group as usize]
            .ports
            .iter()
            .any(|port| frame.hosts[host as usize].reserved_ports.contains(port))
    {
        return None;
    }
    let mut missing: Vec<u64> = (0..3)
        .map(|r| asks.ask[r].saturating_sub(state.free(host)[r]))
        .collect();
    for &(kind, count) in &asks.devices {
        missing.push(count.saturating_sub(state.free_devices(host, kind)));
    }
    let mut found = Case {
        must: Vec::new(),
        missing,
        may: Vec::new(),
        level: i32::MIN,
    };
    for occupants in by_group(frame, state, group, host) {
        let other = &frame.compiled[occupants.group as usize];
        let may_go = occupants.priority < priority
            && other.leaned_on_by.is_none_or(|leaning| leaning < priority);
        let must_go = State::ports_collide(frame, group, occupants.group)
            || apart(frame, group, occupants.group)
            || apart(frame, occupants.group, group);
        match (must_go, may_go) {
            (true, false) => return None,
            (true, true) => {
                found.level = found.level.max(occupants.priority);
                let count = occupants.slots.len();
                take_off(&mut found.missing, &occupants.gives, count);
                found
                    .must
                    .extend(occupants.slots.iter().map(|&slot| (occupants.group, slot)));
            }
            (false, true) => found.may.push(occupants),
            (false, false) => {}
        }
    }
    found
        .may
        .sort_by_key(|occupants| (occupants.priority, occupants.group));
    let mut missing = found.missing.clone();
    for occupants in &found.may {
        if missing.iter().all(|&missing| missing == 0) {
            break;
        }
        take_off(&mut missing, &occupants.gives, occupants.slots.len());
        found.level = found.level.max(occupants.priority);
    }
    missing.iter().all(|&missing| missing == 0).then_some(found)
}

fn by_group(frame: &Frame, state: &mut State, group: u32, host: u32) -> Vec<Occupants> {
    let asks = &frame.compiled[group as usize].devices;
    let mut who = state.occupants(frame, host).to_vec();
    who.sort_unstable();
    who.chunk_by(|a, b| a.0 == b.0)
        .map(|slots| {
            let other = &frame.compiled[slots[0].0 as usize];
            let mut gives = other.ask.to_vec();
            gives.extend(asks.iter().map(|(kind, _)| {
                other
                    .devices
                    .iter()
                    .find(|(name, _)| name == kind)
                    .map_or(0, |(_, count)| *count)
            }));
            Occupants {
                group: slots[0].0,
                priority: frame.groups[slots[0].0 as usize].priority,
                slots: slots.iter().map(|&(_, slot)| slot).collect(),
                gives,
            }
        })
        .collect()
}

/// Whether one group says that the other must be on other hosts.
fn apart(frame: &Frame, one: u32, other: u32) -> bool {
    one != other
        && frame.compiled[one as usize].rules.iter().any(|rule| {
            rule.direction == Direction::Apart
                && rule.within == Within::Host
                && rule.strength == Strength::Required
                && frame
                    .selected
                    .groups(rule.selected)
                    .binary_search(&other)
                    .is_ok()
        })
}

fn take_off(missing: &mut [u64], gives: &[u64], times: usize) {
    for (missing, &gives) in missing.iter_mut().zip(gives) {
        *missing = missing.saturating_sub(gives.saturating_mul(times as u64));
    }
}

/// How many of each to remove, so that they are as few as can be; nothing if
/// that takes more than [`BUDGET`] trials.
fn fewest(missing: &[u64], may: &[&Occupants]) -> Option<Vec<usize>> {
    let mut chosen = vec![0; may.len()];
    let mut budget = BUDGET;
    let all: usize = may.iter().map(|occupants| occupants.slots.len()).sum();
    (0..=all).find_map(|count| {
        let found = choose(missing, may, 0, count, (&mut chosen, &mut budget));
        if budget == 0 {
            Some(None)
        } else {
            found.then(|| Some(chosen.clone()))
        }
    })?
}

/// Chooses `count` from `from` on that free what is missing.
fn choose(
    missing: &[u64],
    may: &[&Occupants],
    from: usize,
    count: usize,
    (chosen, budget): (&mut [usize], &mut u32),
) -> bool {
    if missing.iter().all(|&missing| missing == 0) {
        return true;
    }
    *budget = budget.saturating_sub(1);
    // Even the biggest would not be enough.
    let most = |r: usize| {
        may[from..]
            .iter()
            .map(|occupants| occupants.gives[r])
            .max()
            .unwrap_or(0)
    };
    let hopeless = || (0..missing.len()).any(|r| missing[r] > most(r).saturating_mul(count as u64));
    if *budget == 0 || count == 0 || hopeless() {
        return false;
    }
    (from..may.len()).any(|next| {
        if chosen[next] == may[next].slots.len() {
            return false;
        }
        chosen[next] += 1;
        let mut rest = missing.to_vec();
        take_off(&mut rest, &may[next].gives, 1);
        let found = choose(&rest, may, next, count - 1, (&mut *chosen, &mut *budget));
        if !found {
            chosen[next] -= 1;
        }
        found
    })
}

/// The most useful one after the other, then without those that turned out to
/// be needless.
fn greedily(missing: &[u64], may: &[&Occupants]) -> Vec<usize> {
    let mut chosen = vec![0; may.len()];
    let mut rest = missing.to_vec();
    while rest.iter().any(|&rest| rest > 0) {
        let use_of = |occupants: &Occupants| -> u64 {
            let parts = rest
                .iter()
                .zip(&occupants.gives)
                .filter(|(rest, _)| **rest > 0);
            parts
                .map(|(&rest, &gives)| {
                    u64::try_from(u128::from(gives.min(rest)) * 1000 / u128::from(rest))
                        .unwrap_or(0)
                })
                .sum()
        };
        let left = (0..may.len()).filter(|&place| chosen[place] < may[place].slots.len());
        let Some(best) = left.max_by_key(|&place| (use_of(may[place]), std::cmp::Reverse(place)))
        else {
            break;
        };
        chosen[best] += 1;
        take_off(&mut rest, &may[best].gives, 1);
    }
    for place in (0..may.len()).rev() {
        while chosen[place] > 0 {
            chosen[place] -= 1;
            let mut rest = missing.to_vec();
            for (occupants, &count) in may.iter().zip(&chosen) {
                take_off(&mut rest, &occupants.gives, count);
            }
            if rest.iter().any(|&rest| rest > 0) {
                chosen[place] += 1;
                break;
            }
        }
    }
    chosen
}
