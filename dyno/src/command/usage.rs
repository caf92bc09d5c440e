//! What dynos use: measured, and what it is since the last time.

use std::collections::BTreeMap;
use std::time::Duration;

use dyno_api::client::{self, Client};
use dyno_api::dyno::{Dyno, Stats};
use dyno_api::error::ErrorKind;
use dyno_api::name::{DynoId, DynoName};
use serde::Serialize;
use tokio::time::Instant;

use super::status;
use crate::failure::Failure;

/// Between the two measurements that a single answer needs: CPU use is a rate.
pub(super) const SINGLE: Duration = Duration::from_millis(250);

/// One dyno's use over one interval.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Use {
    pub(super) id: DynoId,
    pub(super) name: DynoName,
    /// Of one CPU: two busy ones are 200.
    pub(super) cpu_percent: f64,
    #[serde(flatten)]
    pub(super) stats: Stats,
    /// The measurement before, and how long ago it was.
    #[serde(skip)]
    pub(super) before: Option<(Duration, Stats)>,
}

/// What was measured last, and when.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: BTreeMap<DynoId, (Instant, Stats)>,
}

impl Meter {
    /// Measures each of these dynos, or all that run; what it used since the last
    /// time.
    ///
    /// # Errors
    /// A [`Failure`] where hostd does not answer, or one that is named is not there.
    pub(super) async fn measure(
        &mut self,
        client: &Client,
        names: &[String],
    ) -> Result<Vec<Use>, Failure> {
        let mut uses = Vec::new();
        for dyno in chosen(client, names).await? {
            let stats = match client.stats(dyno.id.as_str()).await {
                Ok(stats) => stats,
                // It ended meanwhile.
                Err(client::Error::Api(why)) if names.is_empty() && ended(why.kind) => continue,
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            let before = self.last.insert(dyno.id.clone(), (now, stats));
            let before = before.map(|(then, before)| (now - then, before));
            let cpu_percent = before.map_or(0.0, |(interval, before)| {
                cpu_percent(stats.cpu_usec.saturating_sub(before.cpu_usec), interval)
            });
            uses.push(Use {
                id: dyno.id,
                name: dyno.name,
                cpu_percent,
                stats,
                before,
            });
        }
        self.last
            .retain(|id, _| uses.iter().any(|one| one.id == *id));
        Ok(uses)
    }
}

async fn chosen(client: &Client, names: &[String]) -> Result<Vec<Dyno>, Failure> {
    if names.is_empty() {
        let mut dynos = client.dynos().await?;
        dynos.retain(|dyno| status::is_live(dyno.status.phase));
        return Ok(dynos);
    }
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(client.dyno(name).await?);
    }
    Ok(chosen)
}

fn ended(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Conflict)
}

/// Microseconds of CPU time over an interval, in hundredths of one CPU.
pub(super) fn cpu_percent(cpu_usec: u64, interval: Duration) -> f64 {
    let busy = Duration::from_micros(cpu_usec).as_secs_f64();
    let interval = interval.as_secs_f64();
    if interval > 0.0 {
        (busy / interval * 1000.0).round() / 10.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_busy_cpus_are_200_percent() {
        let percent = |usec, millis| cpu_percent(usec, Duration::from_millis(millis));
        for (measured, expected) in [
            (percent(2_000_000, 1000), 200.0),
            (percent(125_000, 250), 50.0),
            (percent(0, 1000), 0.0),
            (percent(5, 0), 0.0),
        ] {
            assert!(
                (measured - expected).abs() < 0.05,
                "{measured} is not {expected}"
            );
        }
    }
}
