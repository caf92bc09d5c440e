//! Finds hosts for the instances of one group.
//!
//! Each zone is a *lane*: its hosts in order, and a cursor. The cursor goes
//! from host to host that has room, by the tree, and gathers a few candidates;
//! the best of all lanes gets the instance. A host that would be worse than
//! others by rule (it has an instance of the group already, or disappoints a
//! preference) is of a higher *tier* and passed by until its tier's turn comes,
//! with another sweep from the lane's beginning.
//!
//! ```text
//! lane a   h0 h1 h2 h3 h4 h5 h6 h7        tier 0
//!          ── ×  c  ×  c  ── c  ▲         c candidate, × has one, ── is full
//!                               cursor
//! ```
//!
//! What is full when the cursor passes stays full while the group is placed, so
//! a sweep costs each host once, not once for each instance; and a lane is only
//! left when a whole sweep has found nothing.

use super::areas::Area;
use super::frame::{Compiled, Frame};
use super::rules::{Forbidden, POINT, Rules};
use super::score::Score;
use super::state::{Standing, State};

/// How many hosts of a lane are compared.
const CANDIDATES: usize = 16;

/// A weight from which on another instance on a host always costs more than the
/// best fit gains.
const OVER_ALL: u16 = 100;

struct Candidate {
    host: u32,
    score: Score,
    /// Whether it got an instance since it was found.
    used: bool,
}

struct Lane<'a> {
    area: &'a Area,
    /// Which of the area's stretches, and the next host in it.
    stretch: usize,
    cursor: u32,
    tier: u32,
    /// The lowest tier that was passed by.
    next_tier: Option<u32>,
    exhausted: bool,
    /// Whether this sweep began at the lane's beginning.
    whole: bool,
    candidates: Vec<Candidate>,
    best: Option<usize>,
}

impl<'a> Lane<'a> {
    /// The first sweep begins at `from`, or the next host of the area.
    fn new(area: &'a Area, from: u32) -> Lane<'a> {
        let stretch = area.stretches.partition_point(|&(_, to)| to <= from);
        let begin = area.stretches.get(stretch);
        Lane {
            area,
            stretch: if begin.is_some() { stretch } else { 0 },
            cursor: begin.map_or(area.stretches[0].0, |&(begin, _)| begin.max(from)),
            tier: 0,
            next_tier: None,
            exhausted: false,
            whole: begin.is_none(),
            candidates: Vec::with_capacity(CANDIDATES),
            best: None,
        }
    }

    fn restart(&mut self, tier: u32) {
        self.tier = tier;
        self.next_tier = None;
        self.exhausted = false;
        self.whole = true;
        self.stretch = 0;
        self.cursor = self.area.stretches[0].0;
    }

    fn pass_by(&mut self, tier: u32) {
        self.next_tier = Some(self.next_tier.map_or(tier, |other| other.min(tier)));
        self.exhausted = false;
    }
}

/// One group on its way to its hosts.
pub(super) struct Placing<'a> {
    frame: &'a Frame,
    compiled: &'a Compiled,
    group: u32,
    lanes: Vec<Lane<'a>>,
    /// For a limit on the skew between hosts: how many hosts have how many
    /// instances, from the least on.
    histogram: Option<(u32, Vec<u32>)>,
    /// Whether a host's instances count for its tier.
    tiered: bool,
}

impl<'a> Placing<'a> {
    /// The group is the one that `rules` were prepared for.
    pub(super) fn new(frame: &'a Frame, state: &State, rules: &Rules, group: u32) -> Placing<'a> {
        let compiled = &frame.compiled[group as usize];
        let spread = &frame.groups[group as usize].spread;
        let open = |area: &Area| {
            area.stretches.iter().any(|&(from, to)| {
                (from..to).any(|host| state.standing[host as usize] == Standing::Open)
            })
        };
        let lanes = frame.areas[compiled.areas as usize]
            .iter()
            .filter(|area| open(area))
            .map(|area| Lane::new(area, rules.rotor[area.zone as usize]))
            .collect();
        let mut placing = Placing {
            frame,
            compiled,
            group,
            lanes,
            histogram: None,
            tiered: spread.hosts_weight > 0 || spread.hosts_max_skew.is_some(),
        };
        if spread.hosts_max_skew.is_some() {
            placing.count_hosts(state, rules);
        }
        placing
    }

    fn count_hosts(&mut self, state: &State, rules: &Rules) {
        let mut counts = Vec::new();
        for &(from, to) in self.lanes.iter().flat_map(|lane| &lane.area.stretches) {
            for host in (from..to).map(|host| host as usize) {
                if state.standing[host] == Standing::Open {
                    let own = rules.own[host] as usize;
                    counts.resize(counts.len().max(own + 1), 0);
                    counts[own] += 1;
                }
            }
        }
        let least = counts.iter().take_while(|&&hosts| hosts == 0).count();
        self.histogram = Some((super::frame::number(least), counts));
    }

    /// The best host for one more, or nothing if no host is fit for it.
    pub(super) fn best(&mut self, state: &State, rules: &Rules) -> Option<(u32, Score)> {
        let spread = &self.frame.groups[self.group as usize].spread;
        let least = self.least_in_a_zone(rules);
        let mut best: Option<(u32, Score)> = None;
        for lane in 0..self.lanes.len() {
            let zone = self.lanes[lane].area.zone as usize;
            let here = rules.zone_own[zone];
            let skewed = spread
                .zones_max_skew
                .is_some_and(|most| here >= least + most);
            if skewed || (self.compiled.one_per_zone && here > 0) {
                continue;
            }
            self.fill(lane, state, rules);
            let lane = &mut self.lanes[lane];
            if lane.best.is_none() {
                // Of equals, the first host.
                lane.best = (0..lane.candidates.len()).max_by_key(|&place| {
                    let candidate = &lane.candidates[place];
                    (candidate.score.total(), std::cmp::Reverse(candidate.host))
                });
            }
            let Some(place) = lane.best else { continue };
            let mut score = lane.candidates[place].score;
            score.zones = -penalty(spread.zones_weight, here);
            score.affinity = score.affinity.saturating_add(rules.zone_liking[zone]);
            if best.is_none_or(|(_, other)| score.total() > other.total()) {
                best = Some((lane.candidates[place].host, score));
            }
        }
        best
    }

    fn least_in_a_zone(&self, rules: &Rules) -> u32 {
        self.lanes
            .iter()
            .map(|lane| rules.zone_own[lane.area.zone as usize])
            .min()
            .unwrap_or(0)
    }

    /// Whether one more may be on this host, for all but its zone's skew.
    fn fit(&self, state: &State, rules: &Rules, host: u32) -> bool {
        let own = rules.own[host as usize];
        state.standing[host as usize] == Standing::Open
            && rules.forbidden[host as usize] == Forbidden::No
            && own < self.compiled.per_host
            && !self.skews(own)
            && state.fits(self.frame, self.group, host)
    }

    fn skews(&self, own: u32) -> bool {
        let most = self.frame.groups[self.group as usize].spread.hosts_max_skew;
        self.histogram
            .as_ref()
            .zip(most)
            .is_some_and(|((least, _), most)| own >= least + most)
    }

    /// Whether one more may be on this very host.
    pub(super) fn allowed(&self, state: &State, rules: &Rules, host: u32) -> bool {
        self.frame.allows(self.group, host)
            && !self.zone_refuses(rules, self.frame.zone_of[host as usize])
            && self.fit(state, rules, host)
    }

    /// Whether one more in a zone would be against the group's spread.
    pub(super) fn zone_refuses(&self, rules: &Rules, zone: u32) -> bool {
        let here = rules.zone_own[zone as usize];
        let most = self.frame.groups[self.group as usize].spread.zones_max_skew;
        most.is_some_and(|most| here >= self.least_in_a_zone(rules) + most)
            || (self.compiled.one_per_zone && here > 0)
    }

    /// Whether one more on a host would be against a rule that has nothing to
    /// do with what is free.
    pub(super) fn rule_refuses(&self, state: &State, rules: &Rules, host: u32) -> bool {
        let own = rules.own[host as usize];
        state.standing[host as usize] != Standing::Open
            || own >= self.compiled.per_host
            || self.skews(own)
    }

    fn tier(&self, rules: &Rules, host: u32) -> u32 {
        tier(rules, self.tiered, host)
    }

    fn fill(&mut self, lane: usize, state: &State, rules: &Rules) {
        loop {
            let this = &self.lanes[lane];
            let fresh = this
                .candidates
                .iter()
                .filter(|candidate| !candidate.used)
                .count();
            if this.exhausted || fresh >= CANDIDATES {
                return;
            }
            let (_, to) = this.area.stretches[this.stretch];
            if let Some(host) = state.first(this.cursor, to, &self.compiled.ask) {
                self.lanes[lane].cursor = host + 1;
                self.consider(lane, state, rules, host);
                continue;
            }
            let this = &mut self.lanes[lane];
            if this.stretch + 1 < this.area.stretches.len() {
                this.stretch += 1;
                this.cursor = this.area.stretches[this.stretch].0;
            } else if !this.whole {
                this.restart(this.tier);
            } else if fresh > 0 {
                // Those of a higher tier are worse than what there is.
                return;
            } else if let Some(tier) = this.next_tier {
                this.restart(tier);
            } else {
                this.exhausted = true;
            }
        }
    }

    fn consider(&mut self, lane: usize, state: &State, rules: &Rules, host: u32) {
        if !self.fit(state, rules, host) {
            return;
        }
        let tier = self.tier(rules, host);
        let score = Score::of(self.frame, state, rules, self.group, host);
        let lane = &mut self.lanes[lane];
        if lane
            .candidates
            .iter()
            .any(|candidate| candidate.host == host)
        {
            return;
        }
        if tier > lane.tier {
            lane.next_tier = Some(lane.next_tier.map_or(tier, |other| other.min(tier)));
            return;
        }
        lane.candidates.push(Candidate {
            host,
            score,
            used: false,
        });
        lane.best = None;
    }

    /// A host, found here or pinned, got an instance; `rules` do not know yet.
    pub(super) fn took(&mut self, state: &State, rules: &mut Rules, host: u32) {
        let zone = self.frame.zone_of[host as usize];
        let own = &mut rules.own[host as usize];
        *own += 1;
        let own = *own;
        rules.zone_own[zone as usize] += 1;
        rules.rotor[zone as usize] = host + 1;
        rules.needed[host as usize] = true;
        if let Some((least, counts)) = &mut self.histogram {
            counts.resize(counts.len().max(own as usize + 1), 0);
            counts[own as usize - 1] -= 1;
            counts[own as usize] += 1;
            if counts[*least as usize] == 0 {
                *least += 1;
                // Hosts that had too many may have one more now.
                for lane in &mut self.lanes {
                    lane.restart(0);
                }
            }
        }
        let tier = self.tier(rules, host);
        let stays = self.fit(state, rules, host);
        let weight = self.frame.groups[self.group as usize].spread.hosts_weight;
        let aside = self.tiered && weight >= OVER_ALL;
        let score = Score::of(self.frame, state, rules, self.group, host);
        let tiered = self.tiered;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.area.zone == zone) else {
            return;
        };
        lane.best = None;
        let place = lane
            .candidates
            .iter()
            .position(|candidate| candidate.host == host);
        match place {
            Some(place) if stays && !aside => {
                let candidate = &mut lane.candidates[place];
                candidate.score = score;
                candidate.used = tiered;
                Self::forget_the_worst(lane, rules, tiered);
            }
            Some(place) => {
                lane.candidates.swap_remove(place);
                if stays {
                    lane.pass_by(tier);
                }
            }
            None if stays => lane.pass_by(tier),
            None => {}
        }
    }

    /// Keeps the hosts that got instances from crowding a lane.
    fn forget_the_worst(lane: &mut Lane, rules: &Rules, tiered: bool) {
        let used = || {
            (0..)
                .zip(&lane.candidates)
                .filter(|(_, candidate)| candidate.used)
        };
        if used().count() <= CANDIDATES {
            return;
        }
        let worst = used().min_by_key(|(_, c)| (c.score.total(), std::cmp::Reverse(c.host)));
        if let Some((place, candidate)) = worst {
            let tier = tier(rules, tiered, candidate.host);
            lane.candidates.swap_remove(place);
            lane.pass_by(tier);
        }
    }
}

/// A group that is spread over hosts comes back to a host when all others have
/// as many. Of equals, hosts that are not needed come last.
fn tier(rules: &Rules, tiered: bool, host: u32) -> u32 {
    let host = host as usize;
    let own = if tiered { rules.own[host] } else { 0 };
    2 * (own + rules.disappoints[host]) + u32::from(!rules.needed[host])
}

/// What instances that are already there cost, in tenths of points.
pub(super) fn penalty(weight: u16, instances: u32) -> i32 {
    let instances = i32::try_from(instances).unwrap_or(i32::MAX);
    (i32::from(weight) * POINT).saturating_mul(instances)
}
