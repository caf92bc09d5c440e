//! `dyno volume ls`.

use clap::Args;
use dyno_api::volume::Volume;
use jiff::Timestamp;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::human_age;
use crate::value::size;

/// List volumes
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let volumes = context.client().await?.volumes().await?;
        context
            .output
            .list(&volumes, self.quiet, |one| one.name.to_string(), table)?;
        Ok(0)
    }
}

fn table(volumes: &[Volume]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "CREATED",
        ">SIZE",
        ">QUOTA",
        ">SNAPSHOTS",
        "USED BY",
    ]);
    let now = Timestamp::now();
    for volume in volumes {
        let age = volume
            .created
            .map(|created| format!("{} ago", human_age(created, now)));
        // Where it has a quota the file system counts it.
        let used = volume.usage.map(|usage| usage.bytes);
        let users: Vec<&str> = volume.used_by.iter().map(|name| name.as_str()).collect();
        table.row([
            Cell::from(volume.name.as_str()),
            Cell::from(age.unwrap_or_default()),
            Cell::from(used.map(size::human).unwrap_or_default()).right(),
            Cell::from(volume.quota.bytes.map(size::human).unwrap_or_default()).right(),
            Cell::from(volume.snapshots.to_string()).right(),
            Cell::from(users.join(", ")),
        ]);
    }
    table
}
