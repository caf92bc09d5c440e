//! Medians and percentiles of samples.

use std::time::Duration;

/// A contestant's measured times.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(super) fn all(&self) -> &[Duration] {
        &self.0
    }

    /// The value below which `percent` of the samples lie (nearest rank).
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut samples = Samples::default();
        for ms in [30, 10, 50, 20, 40] {
            samples.push(Duration::from_millis(ms));
        }
        let at = |percent| samples.percentile(percent).as_millis();
        assert_eq!(
            [at(0), at(10), at(50), at(90), at(100)],
            [10, 10, 30, 50, 50]
        );
        assert_eq!(Samples::default().median(), Duration::ZERO);
    }
}
