//! `dyno secret ls`.

use clap::Args;
use dyno_api::secret::Secret;
use jiff::Timestamp;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::duration::human_age;

/// List secrets, without values
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let secrets = context.client().await?.secrets().await?;
        context
            .output
            .list(&secrets, self.quiet, |one| one.name.to_string(), table)?;
        Ok(0)
    }
}

fn table(secrets: &[Secret]) -> Table {
    let mut table = Table::new(&["NAME", ">REVISION", "UPDATED", "USED BY"]);
    let now = Timestamp::now();
    for secret in secrets {
        let users: Vec<&str> = secret.used_by.iter().map(|name| name.as_str()).collect();
        table.row([
            Cell::from(secret.name.as_str()),
            Cell::from(secret.revision.to_string()).right(),
            Cell::from(format!("{} ago", human_age(secret.updated, now))),
            Cell::from(users.join(", ")),
        ]);
    }
    table
}
