//! What a dyno used between two measurements.

use crate::command::usage::{Use, cpu_percent};

/// Rates of one dyno over one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// Of one CPU: two busy ones are 200.
    pub(super) cpu_percent: f64,
    pub(super) memory_bytes: u64,
    pub(super) memory_max_bytes: Option<u64>,
    /// Of the time, in which something of it waited for a CPU, memory, I/O (PSI,
    /// `some`).
    pub(super) pressure_percent: [f64; 3],
    pub(super) io_bytes_per_second: u64,
    pub(super) net_bytes_per_second: u64,
}

impl Sample {
    pub(super) fn of(measured: &Use) -> Self {
        let stats = &measured.stats;
        let mut sample = Self {
            cpu_percent: measured.cpu_percent,
            memory_bytes: stats.memory_bytes,
            memory_max_bytes: stats.memory_max_bytes,
            ..Self::default()
        };
        let Some((interval, before)) = &measured.before else {
            return sample;
        };
        let stalled = [
            (stats.cpu_stalled_usec, before.cpu_stalled_usec),
            (stats.memory_stalled_usec, before.memory_stalled_usec),
            (stats.io_stalled_usec, before.io_stalled_usec),
        ];
        sample.pressure_percent =
            stalled.map(|(now, then)| cpu_percent(now.saturating_sub(then), *interval).min(100.0));
        let millis = u64::try_from(interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1000) / millis;
        sample.io_bytes_per_second = rate(
            stats.io_read_bytes.saturating_add(stats.io_write_bytes),
            before.io_read_bytes.saturating_add(before.io_write_bytes),
        );
        sample.net_bytes_per_second = rate(
            stats.net_rx_bytes.saturating_add(stats.net_tx_bytes),
            before.net_rx_bytes.saturating_add(before.net_tx_bytes),
        );
        sample
    }

    /// The worst of the three.
    pub(super) fn pressure(&self) -> f64 {
        self.pressure_percent.into_iter().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dyno_api::dyno::Stats;
    use dyno_api::name::DynoId;

    use super::*;

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let measured = |before: Stats, stats: Stats| Use {
            id: DynoId::from_bytes([0; 6]),
            name: "web".parse().unwrap(),
            cpu_percent: 0.0,
            stats,
            before: Some((Duration::from_millis(500), before)),
        };
        let later = Stats {
            io_read_bytes: 100,
            io_write_bytes: 400,
            net_rx_bytes: 50,
            memory_stalled_usec: 250_000,
            ..Stats::default()
        };
        let sample = Sample::of(&measured(Stats::default(), later));
        assert_eq!(sample.io_bytes_per_second, 1000);
        assert_eq!(sample.net_bytes_per_second, 100);
        assert!((sample.pressure() - 50.0).abs() < 0.05, "{sample:?}");
        // It was started again, and its counters with it.
        let sample = Sample::of(&measured(later, Stats::default()));
        assert_eq!(sample, Sample::default());
    }
}
