//! Contestants and comparisons, and how a comparison is measured.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::runner::Commands;
use super::stage::done;
use super::statistics::Samples;

/// Rounds before the measured ones: caches fill, daemons settle.
const WARM_UP: usize = 3;

/// Contestants that do the same job.
pub(super) struct Comparison {
    /// What the job is.
    pub(super) title: String,
    /// Long jobs are done in only one of this many rounds.
    pub(super) rounds_divisor: usize,
    /// Ours first.
    pub(super) contestants: Vec<Contestant>,
    /// The contestant that the target is about, and how much we may take beside it.
    pub(super) target: Option<(&'static str, Limit)>,
    /// Whether our 99th percentile shall be within twice our median.
    pub(super) is_steady: bool,
}

/// What ours may take at most.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// This share of the other's time.
    Share(f64),
    /// The other's time and this much more.
    More(Duration),
}

impl Limit {
    /// Whether `ours` keeps it beside `theirs`.
    pub(super) fn is_met(self, ours: Duration, theirs: Duration) -> bool {
        match self {
            Self::Share(most) => ours <= theirs.mul_f64(most),
            Self::More(more) => ours <= theirs + more,
        }
    }
}

/// One of them.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    /// The command lines as people would type them.
    pub(super) shown: &'static str,
    /// What makes one sample.
    pub(super) commands: Commands,
    /// Runs only where /sys/fs/cgroup is the v2 tree.
    pub(super) needs_v2: bool,
    /// What is done once before.
    pub(super) set_up: Commands,
}

impl Contestant {
    pub(super) fn new(name: &'static str, shown: &'static str, commands: Commands) -> Self {
        Self {
            name,
            shown,
            commands,
            needs_v2: false,
            set_up: Commands::new(),
        }
    }

    /// Whether it is the one that the others are compared with.
    pub(super) fn is_ours(&self) -> bool {
        self.name.starts_with("dyno")
    }

    /// Does what is done once.
    pub(super) fn set_up(&self) -> Result<()> {
        for command in &self.set_up {
            let (program, arguments) = command.split_first().context("an empty command")?;
            done(Command::new(program).args(arguments))?;
        }
        Ok(())
    }
}

impl Comparison {
    /// The contestants' samples, in the order of the contestants. Every round
    /// runs them all and begins with another one, so that whatever one leaves
    /// behind for the kernel to clean up is not always the same neighbour's.
    pub(super) fn measure(
        &self,
        rounds: usize,
        mut time: impl FnMut(&Contestant) -> Result<Duration>,
    ) -> Result<Vec<Samples>> {
        let rounds = rounds.div_ceil(self.rounds_divisor);
        let mut samples = vec![Samples::default(); self.contestants.len()];
        for round in 0..WARM_UP + rounds {
            let first = round % self.contestants.len();
            let all = self.contestants.iter().zip(&mut samples).enumerate();
            let (mut late, mut early) = (Vec::new(), Vec::new());
            for (index, pair) in all {
                if index < first {
                    late.push(pair)
                } else {
                    early.push(pair)
                }
            }
            for (contestant, samples) in early.into_iter().chain(late) {
                let sample = time(contestant)
                    .with_context(|| format!("{} in round {round}", contestant.name))?;
                if round >= WARM_UP {
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_runs_everybody_and_begins_with_another() {
        let contestants = ["a", "b", "c"].map(|name| Contestant::new(name, name, Vec::new()));
        let comparison = Comparison {
            title: String::new(),
            rounds_divisor: 2,
            contestants: contestants.into(),
            target: None,
            is_steady: false,
        };
        let mut order = String::new();
        let samples = comparison
            .measure(4, |contestant| {
                order.push_str(contestant.name);
                Ok(Duration::from_millis(1))
            })
            .unwrap();
        assert_eq!(
            order, "abcbcacababcbca",
            "three rounds of warming up, two measured"
        );
        assert!(samples.iter().all(|samples| samples.all().len() == 2));
    }

    #[test]
    fn a_limit_is_a_share_or_an_addition() {
        let ms = Duration::from_millis;
        assert!(Limit::Share(0.5).is_met(ms(5), ms(10)));
        assert!(!Limit::Share(0.5).is_met(ms(6), ms(10)));
        assert!(Limit::More(ms(1)).is_met(ms(11), ms(10)));
        assert!(!Limit::More(ms(1)).is_met(ms(12), ms(10)));
    }
}
