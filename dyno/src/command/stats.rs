//! `dyno stats`: what dynos use.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use dyno_api::client::{self, Client};
use dyno_api::dyno::{Dyno, Stats};
use dyno_api::error::ErrorKind;
use dyno_api::name::{DynoId, DynoName};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Context, status};
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::size;

/// Between two measurements of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between the two measurements that a single answer needs: CPU use is a rate.
const SINGLE: Duration = Duration::from_millis(250);

/// Moves the cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show what dynos use, once a second
#[derive(Debug, Args)]
pub(crate) struct StatsCommand {
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Ids or names [default: all that run]
    #[arg(value_name = "DYNO")]
    dynos: Vec<String>,
}

/// One dyno's use over one interval.
#[derive(Debug, Serialize)]
struct Use {
    id: DynoId,
    name: DynoName,
    /// Of one CPU: two busy ones are 200.
    cpu_percent: f64,
    #[serde(flatten)]
    stats: Stats,
}

/// What was measured last, and when.
type Measured = BTreeMap<DynoId, (Instant, Stats)>;

impl StatsCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut last = Measured::new();
        self.measure(&client, &mut last).await?;
        if self.no_stream {
            sleep(SINGLE).await;
            let uses = self.measure(&client, &mut last).await?;
            if context.output.json {
                context.output.document(&uses)?;
            } else {
                context.output.table(&table(&uses))?;
            }
            return Ok(0);
        }
        let terminal = std::io::stdout().is_terminal();
        loop {
            sleep(INTERVAL).await;
            let uses = self.measure(&client, &mut last).await?;
            if context.output.json {
                uses.iter()
                    .try_for_each(|one| context.output.json_line(one))?;
                continue;
            }
            if terminal {
                context.output.bytes(CLEAR.as_bytes())?;
            }
            context.output.table(&table(&uses))?;
        }
    }

    /// Measures each dyno; what it used since the last time.
    async fn measure(&self, client: &Client, last: &mut Measured) -> Result<Vec<Use>, Failure> {
        let mut uses = Vec::new();
        for dyno in self.chosen(client).await? {
            let stats = match client.stats(dyno.id.as_str()).await {
                Ok(stats) => stats,
                // It ended meanwhile.
                Err(client::Error::Api(why)) if self.dynos.is_empty() && ended(why.kind) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            let before = last.insert(dyno.id.clone(), (now, stats));
            let cpu_percent = before.map_or(0.0, |(then, before)| {
                cpu_percent(stats.cpu_usec.saturating_sub(before.cpu_usec), now - then)
            });
            uses.push(Use {
                id: dyno.id,
                name: dyno.name,
                cpu_percent,
                stats,
            });
        }
        Ok(uses)
    }

    async fn chosen(&self, client: &Client) -> Result<Vec<Dyno>, Failure> {
        if self.dynos.is_empty() {
            let mut dynos = client.dynos().await?;
            dynos.retain(|dyno| status::is_live(dyno.status.phase));
            return Ok(dynos);
        }
        let mut chosen = Vec::new();
        for name in &self.dynos {
            chosen.push(client.dyno(name).await?);
        }
        Ok(chosen)
    }
}

fn ended(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Conflict)
}

/// Microseconds of CPU time over an interval, in hundredths of one CPU.
fn cpu_percent(cpu_usec: u64, interval: Duration) -> f64 {
    let busy = Duration::from_micros(cpu_usec).as_secs_f64();
    let interval = interval.as_secs_f64();
    if interval > 0.0 {
        (busy / interval * 1000.0).round() / 10.0
    } else {
        0.0
    }
}

fn table(uses: &[Use]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "NAME",
        ">CPU",
        ">MEMORY",
        ">LIMIT",
        ">PIDS",
        ">NET IN/OUT",
        ">DISK R/W",
        ">LOST LINES",
    ]);
    for Use {
        id,
        name,
        cpu_percent,
        stats,
    } in uses
    {
        let pair = |a, b| format!("{} / {}", size::human(a), size::human(b));
        let limit = stats
            .memory_max_bytes
            .map(size::human)
            .unwrap_or_else(|| "-".to_owned());
        table.row([
            Cell::from(id.as_str()),
            Cell::from(name.as_str()),
            Cell::from(format!("{cpu_percent:.1}%")).right(),
            Cell::from(size::human(stats.memory_bytes)).right(),
            Cell::from(limit).right(),
            Cell::from(stats.pids.to_string()).right(),
            Cell::from(pair(stats.net_rx_bytes, stats.net_tx_bytes)).right(),
            Cell::from(pair(stats.io_read_bytes, stats.io_write_bytes)).right(),
            Cell::from(stats.log_dropped.to_string()).right(),
        ]);
    }
    table
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
