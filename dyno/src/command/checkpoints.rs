//! `dyno checkpoints`: what dynos can be brought back from.

use clap::Args;
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::human_age;
use crate::value::size;

/// List the checkpoints of a dyno, the oldest first
#[derive(Debug, Args)]
pub(crate) struct Checkpoints {
    /// Id or name
    #[arg(value_name = "DYNO")]
    dyno: String,
}

impl Checkpoints {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let checkpoints = client.checkpoints(&self.dyno).await?;
        if context.output.json {
            context.output.document(&checkpoints)?;
            return Ok(0);
        }
        let mut table = Table::new(&["NAME", "CREATED", ">SIZE"]);
        let now = Timestamp::now();
        for one in &checkpoints {
            table.row([
                Cell::from(format!("{}@{}", self.dyno, one.name)),
                Cell::from(format!("{} ago", human_age(one.created, now))),
                Cell::from(size::human(one.bytes)).right(),
            ]);
        }
        context.output.table(&table)?;
        Ok(0)
    }
}
