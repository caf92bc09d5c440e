//! What one group's rules say of each host and zone, while it is placed.

use super::frame::{Frame, NOWHERE, number};
use super::model::{Count, Direction, Strength, Within};
use super::state::{Standing, State};

/// Points are counted in tenths.
pub(super) const POINT: i32 = 10;

/// Whether a rule forbids a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Forbidden {
    No,
    /// By somebody on the host; not if they went.
    ByNeighbours,
    Yes,
}

/// Which rules are regarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Regard {
    All,
    /// All but those that want somebody beside, who may be yet to come.
    Apart,
}

/// Tables by host and zone, made once and used for one group after the other.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Instances of the group on each host.
    pub(super) own: Vec<u32>,
    /// Hosts that a rule forbids.
    pub(super) forbidden: Vec<Forbidden>,
    /// How many preferences a host disappoints.
    pub(super) disappoints: Vec<u32>,
    /// What preferences say of a host, in tenths of points.
    pub(super) liking: Vec<i32>,
    /// The same of zones: instances of the group, and what preferences say.
    pub(super) zone_own: Vec<u32>,
    pub(super) zone_liking: Vec<i32>,
    /// Hosts that all that is asked for fits on, if packed without a gap.
    pub(super) needed: Vec<bool>,
    /// Where in each zone the last dyno came to: the next group begins behind it,
    /// so that all hosts fill alike, and with a mixture.
    pub(super) rotor: Vec<u32>,
    marked: Vec<bool>,
    ruled: bool,
}

impl Rules {
    pub(super) fn new(frame: &Frame) -> Rules {
        let hosts = frame.hosts.len();
        Rules {
            own: vec![0; hosts],
            forbidden: vec![Forbidden::No; hosts],
            disappoints: vec![0; hosts],
            liking: vec![0; hosts],
            zone_own: vec![0; frame.zones],
            zone_liking: vec![0; frame.zones],
            needed: vec![false; hosts],
            rotor: vec![0; frame.zones],
            marked: vec![false; hosts],
            ruled: false,
        }
    }

    /// As many hosts are needed as the scarcest resource takes, if no room is
    /// lost: those that have dynos, then others, evenly from all kinds.
    pub(super) fn need(&mut self, frame: &Frame, state: &State) {
        let hosts = frame.hosts.len();
        let used: Vec<bool> = (0..number(hosts))
            .map(|host| *state.free(host) != frame.usable[host as usize])
            .collect();
        let open = |host: usize| state.standing[host] == Standing::Open;
        let idle: Vec<usize> = (0..hosts)
            .filter(|&host| !used[host] && open(host))
            .collect();
        let busy = used.iter().filter(|used| **used).count();
        let more = needed(frame, hosts).saturating_sub(busy).min(idle.len());
        self.needed = used;
        for (place, &host) in idle.iter().enumerate() {
            let share = |place: usize| place * more / idle.len();
            self.needed[host] = share(place + 1) > share(place);
        }
    }

    /// The tables for a group; only `counted` groups count. Says whether the
    /// group is to be beside itself and runs nowhere: then all hosts are fine
    /// for the first instance alone.
    pub(super) fn prepare(
        &mut self,
        (frame, state): (&Frame, &State),
        group: u32,
        regard: Regard,
        counted: impl Fn(u32) -> bool,
    ) -> bool {
        let mut founds = false;
        for host in placed(state, group) {
            self.own[host as usize] += 1;
            self.zone_own[frame.zone_of[host as usize] as usize] += 1;
        }
        let compiled = &frame.compiled[group as usize];
        self.ruled = !compiled.rules.is_empty() || !compiled.kept_away_by.is_empty();
        for rule in &compiled.rules {
            self.marked.fill(false);
            let mut anybody = false;
            let required_beside =
                rule.direction == Direction::Beside && rule.strength == Strength::Required;
            if required_beside && regard == Regard::Apart {
                continue;
            }
            for &other in frame.selected.groups(rule.selected) {
                if !counted(other) || (other == group && !required_beside) {
                    continue;
                }
                for host in placed(state, other) {
                    self.marked[host as usize] = true;
                    anybody = true;
                }
            }
            if rule.within == Within::Zone {
                self.widen(frame);
            }
            match (rule.strength, rule.direction) {
                (Strength::Required, Direction::Beside) if rule.itself && !anybody => founds = true,
                (Strength::Required, direction) => self.forbid(direction, rule.within),
                (Strength::Preferred(weight), direction) => {
                    self.prefer(frame, rule.within, direction, i32::from(weight) * POINT);
                }
            }
        }
        for &other in compiled
            .kept_away_by
            .iter()
            .filter(|&&other| counted(other))
        {
            self.keep_away(frame, state, group, other);
        }
        founds
    }

    /// Forgets the group, whose instances are where they were counted.
    pub(super) fn clear(&mut self, frame: &Frame, state: &State, group: u32) {
        for host in placed(state, group) {
            self.own[host as usize] = 0;
        }
        self.zone_own.fill(0);
        if self.ruled {
            self.forbidden.fill(Forbidden::No);
            self.disappoints.fill(0);
            self.liking.fill(0);
            self.zone_liking.fill(0);
        }
        debug_assert!(
            self.own.iter().all(|&own| own == 0),
            "{} is counted on",
            frame.groups[group as usize].id
        );
    }

    /// Marks whole zones in which a host is marked.
    fn widen(&mut self, frame: &Frame) {
        let mut zones = vec![false; frame.zones];
        for (&zone, _) in frame
            .zone_of
            .iter()
            .zip(&self.marked)
            .filter(|(_, marked)| **marked)
        {
            zones[zone as usize] = true;
        }
        for (marked, &zone) in self.marked.iter_mut().zip(&frame.zone_of) {
            *marked = zones[zone as usize];
        }
    }

    fn forbid(&mut self, direction: Direction, within: Within) {
        let (bad, how) = match (direction, within) {
            (Direction::Apart, Within::Host) => (true, Forbidden::ByNeighbours),
            (Direction::Apart, Within::Zone) => (true, Forbidden::Yes),
            (Direction::Beside, _) => (false, Forbidden::Yes),
        };
        for (forbidden, _) in self
            .forbidden
            .iter_mut()
            .zip(&self.marked)
            .filter(|(_, marked)| **marked == bad)
        {
            *forbidden = how.max(*forbidden);
        }
    }

    fn prefer(&mut self, frame: &Frame, within: Within, direction: Direction, weight: i32) {
        let (liking, disappoints) = match direction {
            Direction::Beside => (weight, false),
            Direction::Apart => (-weight, true),
        };
        for (host, &marked) in self.marked.iter().enumerate() {
            match within {
                Within::Host => {
                    self.disappoints[host] += u32::from(marked == disappoints);
                    self.liking[host] += if marked { liking } else { 0 };
                }
                Within::Zone if marked => {
                    // Every host of the zone says the same: the first speaks.
                    let zone = frame.zone_of[host] as usize;
                    if host == 0 || frame.zone_of[host - 1] as usize != zone {
                        self.zone_liking[zone] += liking;
                    }
                }
                Within::Zone => {}
            }
        }
    }

    /// `other` is to be apart from `group`, by a rule of `other`'s.
    fn keep_away(&mut self, frame: &Frame, state: &State, group: u32, other: u32) {
        for rule in &frame.compiled[other as usize].rules {
            if rule.direction != Direction::Apart
                || rule.strength != Strength::Required
                || frame
                    .selected
                    .groups(rule.selected)
                    .binary_search(&group)
                    .is_err()
            {
                continue;
            }
            self.marked.fill(false);
            for host in placed(state, other) {
                self.marked[host as usize] = true;
            }
            if rule.within == Within::Zone {
                self.widen(frame);
            }
            self.forbid(Direction::Apart, rule.within);
        }
    }
}

/// The hosts of a group's instances.
pub(super) fn placed(state: &State, group: u32) -> impl Iterator<Item = u32> {
    state.at[group as usize]
        .iter()
        .copied()
        .filter(|&host| host != NOWHERE)
}

/// How many hosts of the cluster's average what is asked for takes at least.
fn needed(frame: &Frame, hosts: usize) -> usize {
    let most = (0..3).map(|r| {
        let all: u128 = frame
            .usable
            .iter()
            .map(|usable| u128::from(usable[r]))
            .sum();
        let asked = frame
            .groups
            .iter()
            .zip(&frame.compiled)
            .map(|(group, compiled)| {
                let count = match group.count {
                    Count::Instances(count) => u128::from(count),
                    Count::EveryHost => hosts as u128,
                };
                count * u128::from(compiled.ask[r])
            });
        let asked = asked.fold(0, u128::saturating_add);
        asked
            .min(all)
            .saturating_mul(hosts as u128)
            .div_ceil(all.max(1))
    });
    most.map(|needed| usize::try_from(needed).unwrap_or(hosts))
        .max()
        .unwrap_or(0)
}
