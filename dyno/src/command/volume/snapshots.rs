//! `dyno volume snapshots`.

use clap::Args;
use dyno_api::name::DynoName;
use jiff::Timestamp;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::human_age;
use crate::value::size;

/// List the snapshots of a volume, the oldest first
#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// The volume
    volume: DynoName,
}

impl Snapshots {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let snapshots = client.snapshots(self.volume.as_str()).await?;
        if context.output.json {
            context.output.document(&snapshots)?;
            return Ok(0);
        }
        let mut table = Table::new(&["NAME", "CREATED", ">SIZE", "KIND"]);
        let now = Timestamp::now();
        for snapshot in &snapshots {
            let kind = match (snapshot.reflinked, snapshot.live) {
                (true, false) => "reflinks",
                (false, false) => "copy",
                (true, true) => "reflinks, live",
                (false, true) => "copy, live",
            };
            table.row([
                Cell::from(format!("{}@{}", self.volume, snapshot.name)),
                Cell::from(format!("{} ago", human_age(snapshot.created, now))),
                Cell::from(size::human(snapshot.bytes)).right(),
                Cell::from(kind),
            ]);
        }
        context.output.table(&table)?;
        Ok(0)
    }
}
