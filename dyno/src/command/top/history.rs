//! The samples of each dyno, as many as a screen can show, in an order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use dyno_api::name::DynoId;

use super::Sort;
use super::sample::Sample;
use crate::command::usage::Use;

/// Samples that are kept of one dyno.
const KEPT: usize = 64;

/// What was seen of each dyno that runs.
#[derive(Debug, Default)]
pub(super) struct History {
    dynos: BTreeMap<DynoId, Seen>,
}

/// What was seen of one.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) pids: u64,
    /// The oldest first.
    pub(super) samples: VecDeque<Sample>,
}

impl Seen {
    /// The newest.
    pub(super) fn now(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }
}

impl History {
    /// Takes a measurement in; dynos that are not in it are gone.
    pub(super) fn take(&mut self, uses: &[Use]) {
        self.dynos
            .retain(|id, _| uses.iter().any(|one| one.id == *id));
        for one in uses {
            let seen = self.dynos.entry(one.id.clone()).or_insert_with(|| Seen {
                name: one.name.to_string(),
                pids: 0,
                samples: VecDeque::with_capacity(KEPT),
            });
            seen.pids = one.stats.pids;
            if seen.samples.len() == KEPT {
                seen.samples.pop_front();
            }
            seen.samples.push_back(Sample::of(one));
        }
    }

    /// All dynos in this order.
    pub(super) fn sorted(&self, sort: Sort) -> Vec<&Seen> {
        let mut dynos: Vec<&Seen> = self.dynos.values().collect();
        sort.order(&mut dynos, |seen| (seen.now(), seen.name.clone()));
        dynos
    }
}

impl Sort {
    /// Orders things by a sample and a name of each.
    pub(super) fn order<T>(self, things: &mut [T], of: impl Fn(&T) -> (Sample, String)) {
        let by = |one: &Sample, other: &Sample| match self {
            Self::Cpu => other.cpu_percent.total_cmp(&one.cpu_percent),
            Self::Memory => other.memory_bytes.cmp(&one.memory_bytes),
            Self::Pressure => other.pressure().total_cmp(&one.pressure()),
            Self::Io => other.io_bytes_per_second.cmp(&one.io_bytes_per_second),
            Self::Net => other.net_bytes_per_second.cmp(&one.net_bytes_per_second),
            Self::Name => Ordering::Equal,
        };
        things.sort_by(|one, other| {
            let ((one, name), (other, other_name)) = (of(one), of(other));
            by(&one, &other).then(name.cmp(&other_name))
        });
    }
}
