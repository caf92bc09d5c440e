//! How much better one host is than another.

use super::frame::Frame;
use super::place::penalty;
use super::rules::Rules;
use super::state::State;

/// What speaks for a host, in tenths of points; the sum decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// How well the dyno fills the host, 0 to 1,000: little is left, and of no
    /// resource much more than of another.
    pub packing: i32,
    /// Against instances of the same group on the host, 0 or less.
    pub hosts: i32,
    /// Against instances of the same group in the zone, 0 or less.
    pub zones: i32,
    /// What preferred affinities say.
    pub affinity: i32,
}

impl Score {
    /// The sum.
    pub fn total(&self) -> i64 {
        [self.packing, self.hosts, self.zones, self.affinity]
            .into_iter()
            .map(i64::from)
            .sum()
    }

    /// All but the zone's part.
    pub(super) fn of(frame: &Frame, state: &State, rules: &Rules, group: u32, host: u32) -> Score {
        let weight = frame.groups[group as usize].spread.hosts_weight;
        Score {
            packing: packing(frame, state, group, host),
            hosts: -penalty(weight, rules.own[host as usize]),
            zones: 0,
            affinity: rules.liking[host as usize],
        }
    }
}

/// Memory and processor time decide, and disk where it is asked for.
fn packing(frame: &Frame, state: &State, group: u32, host: u32) -> i32 {
    let ask = &frame.compiled[group as usize].ask;
    let free = state.free(host);
    let scale = &frame.scale[host as usize];
    let (mut sum, mut most, mut least, mut counted) = (0, 0, 1000, 0);
    for r in 0..3 {
        if r == 2 && ask[r] == 0 {
            continue;
        }
        // Thousandths of the host that would be left.
        let left = (u128::from(free[r].saturating_sub(ask[r])) * u128::from(scale[r]) * 1000) >> 63;
        let left = i32::try_from(left).unwrap_or(1000).min(1000);
        (sum, most, least, counted) = (sum + left, left.max(most), left.min(least), counted + 1);
    }
    1000 - (sum / counted + (most - least) * 3) / 4
}
