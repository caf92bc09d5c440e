//! From what runs and what is wanted to where everything is to run.
//!
//! ```text
//!  admit     what runs keeps its place, where it may: by order of priority
//!  uphold    what must be beside somebody who went, goes too
//!  place     pending instances, group by group; preemption where nothing fits
//!  uphold    after preemption
//!  again     without preemption, until nobody finds a place any more
//! ```

use super::cluster::{Cluster, Stray, Unwanted};
use super::frame::{Frame, NOWHERE, number};
use super::model::{Count, Direction, Policy, Strength};
use super::place::Placing;
use super::plan::{Displaced, Placed, Plan, Why};
use super::preempt::{self, Preemption, Victims};
use super::rules::{Forbidden, Regard, Rules};
use super::score::Score;
use super::state::{Standing, State};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A schedule in the making.
#[derive(Clone, Debug)]
pub(super) struct Scheduling {
    frame: Arc<Frame>,
    policy: Policy,
    state: State,
    strays: Vec<Stray>,
    placed: Vec<Placed>,
    displaced: Vec<Displaced>,
    /// How many that did not run before may be placed, and the slots of those
    /// that did.
    allowance: Option<(u64, HashSet<(u32, u32)>)>,
    rules: Rules,
    /// How often anybody was placed or displaced.
    changes: u64,
    evictions: u64,
    /// Who ran where when the placing began.
    before: Vec<Vec<u32>>,
}

impl Scheduling {
    /// The plan for a cluster.
    pub(super) fn of(cluster: Cluster) -> Plan {
        let (admitted, cluster) = Scheduling::admit(cluster);
        if admitted.policy.survive_hosts > 0 {
            return super::survive::plan(admitted, cluster);
        }
        admitted.placed_best().finish(cluster, false)
    }

    /// From a plan, with everybody where it has them.
    pub(super) fn after(cluster: &Cluster) -> Scheduling {
        Scheduling {
            frame: Arc::clone(&cluster.frame),
            policy: cluster.policy,
            state: cluster.state.clone(),
            strays: Vec::new(),
            placed: Vec::new(),
            displaced: Vec::new(),
            allowance: None,
            rules: Rules::new(&cluster.frame),
            changes: 0,
            evictions: 0,
            before: Vec::new(),
        }
    }

    /// These hosts are gone, and what ran there is displaced.
    pub(super) fn lose_hosts(&mut self, hosts: &[u32]) {
        let frame = Arc::clone(&self.frame);
        for group in 0..number(frame.groups.len()) {
            for slot in 0..number(self.state.at[group as usize].len()) {
                let from = self.state.at[group as usize][slot as usize];
                if from != NOWHERE && hosts.contains(&from) {
                    self.state.give(&frame, group, slot);
                    self.displaced.push(Displaced {
                        group,
                        slot,
                        from,
                        why: Why::HostGone,
                    });
                }
            }
        }
        for &host in hosts {
            self.state.close(host);
        }
        self.before.clone_from(&self.state.at);
        self.uphold();
    }

    /// Without anybody's taking another's place.
    pub(super) fn without_preemption(&mut self) {
        self.policy.preemption = false;
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn displaced(&self) -> &[Displaced] {
        &self.displaced
    }

    pub(super) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// What runs has its place, or is displaced.
    pub(super) fn admit(mut cluster: Cluster) -> (Scheduling, Cluster) {
        let frame = Arc::clone(&cluster.frame);
        let mut scheduling = Scheduling {
            rules: Rules::new(&frame),
            changes: 0,
            evictions: 0,
            before: Vec::new(),
            policy: cluster.policy,
            state: State::new(&frame),
            strays: std::mem::take(&mut cluster.strays),
            placed: Vec::new(),
            displaced: Vec::new(),
            allowance: None,
            frame: Arc::clone(&frame),
        };
        scheduling
            .state
            .standing
            .clone_from(&cluster.state.standing);
        let mut seat = vec![0; frame.groups.len()];
        for (place, &group) in (0..).zip(&frame.order) {
            seat[group as usize] = place;
        }
        for &group in &frame.order {
            let at = std::mem::take(&mut cluster.state.at[group as usize]);
            let numbers = std::mem::take(&mut cluster.state.numbers[group as usize]);
            scheduling.admit_group(group, at, numbers, &seat);
        }
        scheduling.note_lost(&cluster);
        scheduling.state.index();
        scheduling.before.clone_from(&scheduling.state.at);
        scheduling.uphold();
        (scheduling, cluster)
    }

    fn admit_group(&mut self, group: u32, at: Vec<u32>, numbers: Vec<u32>, seat: &[u32]) {
        let frame = Arc::clone(&self.frame);
        let before = |other: u32| seat[other as usize] < seat[group as usize];
        self.rules
            .prepare((&frame, &self.state), group, Regard::Apart, before);
        let every_host = frame.groups[group as usize].count == Count::EveryHost;
        let mut running: Vec<(u32, u32, u32)> = (0..)
            .zip(at)
            .filter(|&(_, host)| host != NOWHERE)
            .map(|(slot, host)| {
                (
                    host,
                    numbers.get(slot as usize).copied().unwrap_or(slot),
                    slot,
                )
            })
            .collect();
        if every_host {
            running.sort_unstable();
        }
        for (host, instance, mut slot) in running {
            if every_host {
                if self.rules.own[host as usize] > 0 {
                    let group = frame.groups[group as usize].id.clone();
                    self.strays.push(Stray {
                        group,
                        instance,
                        host,
                        why: Unwanted::Twice,
                    });
                    continue;
                }
                slot = self.new_slot(group, instance);
            }
            match self.objection(group, slot, host) {
                Some(why) => self.displaced.push(Displaced {
                    group,
                    slot,
                    from: host,
                    why,
                }),
                None => {
                    self.state.take(&frame, group, slot, host);
                    self.rules.own[host as usize] += 1;
                    self.rules.zone_own[frame.zone_of[host as usize] as usize] += 1;
                }
            }
        }
        self.rules.clear(&frame, &self.state, group);
    }

    /// A slot for an instance of a group that runs on every host.
    fn new_slot(&mut self, group: u32, instance: u32) -> u32 {
        self.state.numbers[group as usize].push(instance);
        self.state.at[group as usize].push(NOWHERE);
        number(self.state.at[group as usize].len() - 1)
    }

    /// Why an instance may not stay where it is.
    fn objection(&self, group: u32, slot: u32, host: u32) -> Option<Why> {
        let frame = &self.frame;
        let compiled = &frame.compiled[group as usize];
        let own = self.rules.own[host as usize];
        let zone_own = self.rules.zone_own[frame.zone_of[host as usize] as usize];
        match self.state.standing[host as usize] {
            Standing::Gone => return Some(Why::HostGone),
            Standing::Draining => return Some(Why::Draining),
            Standing::Open | Standing::Cordoned => {}
        }
        if self.pin(group, slot).is_some_and(|pin| pin != Some(host)) {
            Some(Why::VolumeElsewhere)
        } else if !frame.allows(group, host) {
            Some(Why::Constraint)
        } else if self.rules.forbidden[host as usize] != Forbidden::No
            || own >= compiled.per_host
            || (compiled.one_per_zone && zone_own > 0)
        {
            Some(Why::Apart)
        } else if !self.state.fits(frame, group, host) {
            Some(Why::Overcommitted)
        } else {
            None
        }
    }

    /// The host of an instance's volume, if it has one, if that is there.
    fn pin(&self, group: u32, slot: u32) -> Option<Option<u32>> {
        let group = &self.frame.groups[group as usize];
        if group.pinned.is_empty() || group.count == Count::EveryHost {
            return None;
        }
        let host = group.pinned.get(&slot)?;
        Some(self.frame.host_numbers.get(host).copied())
    }

    /// Notes whose host is no more, unless they run elsewhere.
    fn note_lost(&mut self, cluster: &Cluster) {
        let mut lost = cluster.lost.clone();
        lost.sort_by(|a, b| {
            let name = |lost: &(u32, u32, u32)| &cluster.gone[lost.2 as usize];
            (a.0, a.1, name(a)).cmp(&(b.0, b.1, name(b)))
        });
        lost.dedup_by_key(|&mut (group, slot, _)| (group, slot));
        let known = number(self.frame.hosts.len());
        let moved: HashSet<(u32, u32)> = self
            .displaced
            .iter()
            .map(|displaced| (displaced.group, displaced.slot))
            .collect();
        for (group, slot, place) in lost {
            let elsewhere = self.state.at[group as usize][slot as usize] != NOWHERE;
            if !elsewhere && !moved.contains(&(group, slot)) {
                let from = known + place;
                self.displaced.push(Displaced {
                    group,
                    slot,
                    from,
                    why: Why::HostGone,
                });
            }
        }
    }

    /// Displaces whatever must be beside somebody and is not.
    fn uphold(&mut self) {
        let frame = Arc::clone(&self.frame);
        let leaning: Vec<u32> = frame
            .order
            .iter()
            .copied()
            .filter(|&group| leans(&frame, group))
            .collect();
        loop {
            let mut changed = false;
            for &group in &leaning {
                self.rules
                    .prepare((&frame, &self.state), group, Regard::All, |_| true);
                let alone: Vec<(u32, u32)> = (0..)
                    .zip(&self.state.at[group as usize])
                    .filter(|&(_, &host)| host != NOWHERE)
                    .filter(|&(_, &host)| self.rules.forbidden[host as usize] == Forbidden::Yes)
                    .map(|(slot, &host)| (slot, host))
                    .collect();
                self.rules.clear(&frame, &self.state, group);
                for (slot, from) in alone {
                    changed = true;
                    self.displace(Displaced {
                        group,
                        slot,
                        from,
                        why: Why::Alone,
                    });
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Places what is pending: by priority, and if that leaves anybody out, once
    /// more by rarity, with those first who have the fewest hosts to choose from,
    /// before priority decides about the rest. The better is who leaves out fewer
    /// of the highest priority that differs.
    pub(super) fn placed_best(self) -> Scheduling {
        let mut by_rarity = self.clone();
        let mut by_priority = self;
        by_priority.place_all();
        let left_out = by_priority.left_out();
        if left_out.is_empty() {
            return by_priority;
        }
        by_rarity.place_rare_first();
        if by_rarity.left_out() < left_out {
            by_rarity
        } else {
            by_priority
        }
    }

    fn place_rare_first(&mut self) {
        let frame = Arc::clone(&self.frame);
        self.rules.need(&frame, &self.state);
        self.before.clone_from(&self.state.at);
        let preemption = std::mem::replace(&mut self.policy.preemption, false);
        for &group in &frame.rare_first {
            self.place(group);
        }
        self.policy.preemption = preemption;
        self.place_rounds();
    }

    /// How many wait, by priority, the highest first.
    fn left_out(&self) -> Vec<(Reverse<i32>, usize)> {
        let mut waiting: BTreeMap<Reverse<i32>, usize> = BTreeMap::new();
        for (group, slots) in self.frame.groups.iter().zip(&self.state.at) {
            let pending = slots.iter().filter(|&&host| host == NOWHERE).count();
            if pending > 0 && group.count != Count::EveryHost {
                *waiting.entry(Reverse(group.priority)).or_default() += pending;
            }
        }
        waiting.into_iter().collect()
    }

    /// Places what is pending, by priority.
    pub(super) fn place_all(&mut self) {
        self.rules.need(&self.frame, &self.state);
        self.before.clone_from(&self.state.at);
        self.place_rounds();
    }

    fn place_rounds(&mut self) {
        let frame = Arc::clone(&self.frame);
        let leaning = frame.order.iter().any(|&group| leans(&frame, group));
        // Whoever was passed over may fit where others made room, or beside
        // others who came later. It ends: each round, of the highest priority
        // that changes, more are placed than before.
        let mut again = true;
        while again {
            let before = (self.changes, self.evictions);
            for &group in &frame.order {
                self.place(group);
            }
            self.uphold();
            again = before.0 != self.changes && (leaning || before.1 != self.evictions);
        }
    }

    /// Only so many that did not run before are to be placed.
    pub(super) fn allow(&mut self, new: u64) {
        let ran = self
            .displaced
            .iter()
            .map(|displaced| (displaced.group, displaced.slot))
            .collect();
        self.allowance = Some((new, ran));
    }

    fn may_come(&self, group: u32, slot: u32) -> bool {
        self.allowance
            .as_ref()
            .is_none_or(|(left, ran)| *left > 0 || ran.contains(&(group, slot)))
    }

    fn place(&mut self, group: u32) {
        let preemption = self.policy.preemption;
        if self.frame.groups[group as usize].count == Count::EveryHost {
            return self.place_on_every_host(group, preemption);
        }
        let pending: Vec<u32> = (0..)
            .zip(&self.state.at[group as usize])
            .filter(|&(slot, &host)| host == NOWHERE && self.may_come(group, slot))
            .map(|(slot, _)| slot)
            .collect();
        let mut pending = &pending[..];
        while !pending.is_empty() {
            let frame = Arc::clone(&self.frame);
            let founds = self
                .rules
                .prepare((&frame, &self.state), group, Regard::All, |_| true);
            let now = if founds { 1 } else { pending.len() };
            let before = self.placed.len();
            self.place_slots(&frame, group, &pending[..now], preemption);
            self.rules.clear(&frame, &self.state, group);
            if founds && self.placed.len() == before && self.pin(group, pending[0]).is_none() {
                return;
            }
            pending = &pending[now..];
        }
    }

    fn place_slots(&mut self, frame: &Frame, group: u32, slots: &[u32], preemption: bool) {
        let mut placing = Placing::new(frame, &self.state, &self.rules, group);
        let (pinned, free): (Vec<u32>, Vec<u32>) = slots
            .iter()
            .partition(|&&slot| self.pin(group, slot).is_some());
        for slot in pinned {
            if let Some(Some(host)) = self.pin(group, slot) {
                self.place_there(frame, &mut placing, (group, slot), host, preemption);
            }
        }
        let mut preempting: Option<Preemption> = None;
        for slot in free {
            if !self.may_come(group, slot) {
                continue;
            }
            if let Some((host, score)) = placing.best(&self.state, &self.rules) {
                self.put(frame, &mut placing, (group, slot), host, score);
                continue;
            }
            if !preemption {
                return;
            }
            let levels = preempting
                .get_or_insert_with(|| Preemption::new(frame, &mut self.state, &self.rules, group));
            let Some((host, victims)) =
                levels.best((frame, &mut self.state), &self.rules, &placing, group)
            else {
                return;
            };
            self.evict(group, host, &victims);
            let score = Score::of(frame, &self.state, &self.rules, group, host);
            self.put(frame, &mut placing, (group, slot), host, score);
            levels.changed((frame, &mut self.state), &self.rules, group, host);
        }
    }

    /// A slot goes to a host that was found for it.
    fn put(
        &mut self,
        frame: &Frame,
        placing: &mut Placing,
        who: (u32, u32),
        host: u32,
        score: Score,
    ) {
        let (group, slot) = who;
        self.state.take(frame, group, slot, host);
        placing.took(&self.state, &mut self.rules, host);
        if let Some((left, ran)) = &mut self.allowance
            && !ran.contains(&who)
        {
            *left -= 1;
        }
        self.changes += 1;
        self.placed.push(Placed {
            group,
            slot,
            host,
            score,
        });
    }

    /// A slot goes to this host or nowhere.
    fn place_there(
        &mut self,
        frame: &Frame,
        placing: &mut Placing,
        who: (u32, u32),
        host: u32,
        preemption: bool,
    ) {
        let (group, _) = who;
        if !self.may_come(who.0, who.1) || !frame.allows(group, host) {
            return;
        }
        if !placing.allowed(&self.state, &self.rules, host) {
            if !preemption
                || placing.zone_refuses(&self.rules, frame.zone_of[host as usize])
                || placing.rule_refuses(&self.state, &self.rules, host)
            {
                return;
            }
            match preempt::victims(frame, &mut self.state, &self.rules, group, host) {
                Some(victims) => self.evict(group, host, &victims),
                None => return,
            }
        }
        let score = Score::of(frame, &self.state, &self.rules, group, host);
        self.put(frame, placing, who, host, score);
    }

    fn evict(&mut self, by: u32, host: u32, victims: &Victims) {
        for &(group, slot) in victims {
            self.displace(Displaced {
                group,
                slot,
                from: host,
                why: Why::Preempted { by },
            });
        }
        if self.rules.forbidden[host as usize] == Forbidden::ByNeighbours {
            self.rules.forbidden[host as usize] = Forbidden::No;
        }
    }

    /// Takes a dyno from its host. If it came there just now, it never was there.
    fn displace(&mut self, displaced: Displaced) {
        let who = (displaced.group, displaced.slot);
        self.state
            .give(&self.frame, displaced.group, displaced.slot);
        self.changes += 1;
        let ran = self.before[displaced.group as usize].get(displaced.slot as usize);
        if ran.is_none_or(|&host| host == NOWHERE) {
            // It came just now.
            if let Some((left, ran)) = &mut self.allowance
                && !ran.contains(&who)
            {
                *left += 1;
            }
        } else {
            self.displaced.push(displaced);
            if let Some((_, ran)) = &mut self.allowance {
                ran.insert(who);
            }
        }
    }

    fn place_on_every_host(&mut self, group: u32, preemption: bool) {
        let frame = Arc::clone(&self.frame);
        self.rules
            .prepare((&frame, &self.state), group, Regard::All, |_| true);
        let mut placing = Placing::new(&frame, &self.state, &self.rules, group);
        let areas = &frame.areas[frame.compiled[group as usize].areas as usize];
        let mut taken: Vec<u32> = self.state.numbers[group as usize].clone();
        taken.sort_unstable();
        let mut unused = Unused {
            taken,
            place: 0,
            next: 0,
        };
        let mut spare = None;
        for host in areas
            .iter()
            .flat_map(|area| &area.stretches)
            .flat_map(|&(from, to)| from..to)
        {
            if self.rules.own[host as usize] > 0
                || self.state.standing[host as usize] != Standing::Open
            {
                continue;
            }
            let slot = spare
                .take()
                .unwrap_or_else(|| self.new_slot(group, unused.number()));
            self.place_there(&frame, &mut placing, (group, slot), host, preemption);
            spare = (self.state.at[group as usize][slot as usize] == NOWHERE).then_some(slot);
        }
        if spare.is_some() {
            self.state.at[group as usize].pop();
            self.state.numbers[group as usize].pop();
        }
        self.rules.clear(&frame, &self.state, group);
    }

    /// The plan, as far as it was made.
    pub(super) fn finish(self, mut cluster: Cluster, kept_free: bool) -> Plan {
        cluster.state = self.state;
        let mut plan = Plan {
            cluster,
            placed: self.placed,
            displaced: self.displaced,
            strays: self.strays,
            kept_free,
        };
        plan.settle();
        plan
    }
}

/// The numbers that are not taken, from 0 on.
struct Unused {
    taken: Vec<u32>,
    place: usize,
    next: u32,
}

impl Unused {
    fn number(&mut self) -> u32 {
        while self
            .taken
            .get(self.place)
            .is_some_and(|&taken| taken <= self.next)
        {
            if self.taken[self.place] == self.next {
                self.next += 1;
            }
            self.place += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

/// Whether a group must be beside somebody.
fn leans(frame: &Frame, group: u32) -> bool {
    frame.compiled[group as usize]
        .rules
        .iter()
        .any(|rule| rule.direction == Direction::Beside && rule.strength == Strength::Required)
}
