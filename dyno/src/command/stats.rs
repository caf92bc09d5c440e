//! `dyno stats`: what dynos use.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use dyno_api::dyno::Stats;
use tokio::time::sleep;

use super::Context;
use super::usage::{Meter, SINGLE, Use};
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::size;

/// Between two measurements of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

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

impl StatsCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut meter = Meter::default();
        meter.measure(&client, &self.dynos).await?;
        if self.no_stream {
            sleep(SINGLE).await;
            let uses = meter.measure(&client, &self.dynos).await?;
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
            let uses = meter.measure(&client, &self.dynos).await?;
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
        ">WRITTEN",
        ">LOST LINES",
    ]);
    for Use {
        id,
        name,
        cpu_percent,
        stats,
        ..
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
            Cell::from(written(stats)).right(),
            Cell::from(stats.log_dropped.to_string()).right(),
        ]);
    }
    table
}

/// What it has written to its own `/`, and may.
fn written(stats: &Stats) -> String {
    match (stats.disk_bytes, stats.disk_max_bytes) {
        (None, _) => "-".to_owned(),
        (Some(used), None) => size::human(used),
        (Some(used), Some(most)) => format!("{} of {}", size::human(used), size::human(most)),
    }
}
