//! Whether and when a dyno that has ended is started again: pure.
//!
//! ```text
//!  delay  100 ms, 200 ms, 400 ms … 60 s   doubled after every run that ended,
//!                                         less up to a fifth (jitter)
//!  reset  by a run that lasted at least 10 s and longer than the last delay
//! ```

use std::time::Duration;

use super::protocol::RestartPolicy;

/// Delay before the first restart.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// A run of at least this length is a healthy one.
pub const HEALTHY: Duration = Duration::from_secs(10);

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Exit code 0, neither killed by a signal nor for memory.
    pub success: bool,
    /// From its execve to its end.
    pub lasted: Duration,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays ended.
    Stop,
    /// It stays ended because it failed too often in a row.
    GiveUp {
        /// How many runs failed in a row.
        failures: u32,
    },
    /// It is started again after this time.
    RestartAfter(Duration),
}

/// What is remembered from run to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    failures: u32,
    crashes: u32,
    delay: Duration,
}

impl History {
    /// Runs in a row that ended before they were healthy.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Takes note of a run and decides; `jitter` is a random number.
    pub fn decide(&mut self, policy: RestartPolicy, run: Run, jitter: u16) -> Verdict {
        if run.lasted >= HEALTHY.max(self.delay) {
            *self = Self::default();
        } else {
            self.crashes = self.crashes.saturating_add(1);
        }
        if run.success {
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        match policy {
            RestartPolicy::No => return Verdict::Stop,
            RestartPolicy::OnFailure { .. } if run.success => return Verdict::Stop,
            RestartPolicy::OnFailure {
                max_retries: Some(max),
            } if self.failures > max => {
                return Verdict::GiveUp {
                    failures: self.failures,
                };
            }
            RestartPolicy::OnFailure { .. } | RestartPolicy::Always => {}
        }
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, MAX_DELAY);
        Verdict::RestartAfter(self.delay - self.delay / 5 * u32::from(jitter) / (1 << 16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Run = Run {
        success: false,
        lasted: Duration::from_millis(5),
    };
    const SUCCEEDED: Run = Run {
        success: true,
        lasted: Duration::from_millis(5),
    };

    fn delays(runs: &[Run]) -> Vec<u128> {
        let mut history = History::default();
        runs.iter()
            .map(|&run| match history.decide(RestartPolicy::Always, run, 0) {
                Verdict::RestartAfter(delay) => delay.as_millis(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_policy_decides_by_how_it_ended() {
        let never = RestartPolicy::No;
        let failure = RestartPolicy::OnFailure { max_retries: None };
        let always = RestartPolicy::Always;
        let again = Verdict::RestartAfter(FIRST_DELAY);
        for (policy, run, verdict) in [
            (never, FAILED, Verdict::Stop),
            (never, SUCCEEDED, Verdict::Stop),
            (failure, FAILED, again),
            (failure, SUCCEEDED, Verdict::Stop),
            (always, FAILED, again),
            (always, SUCCEEDED, again),
        ] {
            assert_eq!(
                History::default().decide(policy, run, 0),
                verdict,
                "{policy:?} {run:?}"
            );
        }
    }

    #[test]
    fn delays_double_up_to_a_minute() {
        assert_eq!(
            delays(&[FAILED; 12]),
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
    }

    #[test]
    fn a_healthy_run_resets_the_delay() {
        let healthy = Run {
            lasted: HEALTHY,
            ..FAILED
        };
        assert_eq!(
            delays(&[FAILED, FAILED, healthy, FAILED]),
            [100, 200, 100, 200]
        );
    }

    #[test]
    fn runs_that_end_early_are_counted_whatever_their_end_until_a_healthy_one() {
        let mut history = History::default();
        let healthy = Run {
            lasted: HEALTHY,
            ..FAILED
        };
        let mut count = |run| {
            history.decide(RestartPolicy::Always, run, 0);
            history.crashes()
        };
        let counts = [FAILED, SUCCEEDED, FAILED, healthy, FAILED].map(&mut count);
        assert_eq!(counts, [1, 2, 3, 0, 1]);
    }

    #[test]
    fn after_a_long_delay_ten_seconds_are_not_yet_health() {
        let mut runs = [FAILED; 12];
        runs[11].lasted = Duration::from_secs(59);
        assert_eq!(delays(&runs)[11], 60_000);
        runs[11].lasted = Duration::from_secs(61);
        assert_eq!(delays(&runs)[11], 100);
    }

    #[test]
    fn it_gives_up_after_the_allowed_retries_in_a_row() {
        let policy = RestartPolicy::OnFailure {
            max_retries: Some(2),
        };
        let mut history = History::default();
        for _ in 0..2 {
            assert!(matches!(
                history.decide(policy, FAILED, 0),
                Verdict::RestartAfter(_)
            ));
        }
        assert_eq!(
            history.decide(policy, FAILED, 0),
            Verdict::GiveUp { failures: 3 }
        );
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_bounds(
            runs in prop::collection::vec((any::<bool>(), 0_u64..200_000, any::<u16>()), 1..60),
        ) {
            let mut history = History::default();
            for (success, lasted, jitter) in runs {
                let run = Run { success, lasted: Duration::from_millis(lasted) };
                let Verdict::RestartAfter(delay) =
                    history.decide(RestartPolicy::Always, run, jitter)
                else {
                    panic!("always means always");
                };
                prop_assert!(delay >= FIRST_DELAY * 4 / 5);
                prop_assert!(delay <= MAX_DELAY);
            }
        }

        #[test]
        fn a_bounded_policy_never_retries_more_often_in_a_row(max in 0_u32..20) {
            let policy = RestartPolicy::OnFailure { max_retries: Some(max) };
            let mut history = History::default();
            let retries = (0..40)
                .take_while(|_| matches!(history.decide(policy, FAILED, 7), Verdict::RestartAfter(_)))
                .count();
            prop_assert_eq!(retries, max as usize);
        }
    }
}
