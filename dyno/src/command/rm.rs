//! `dyno rm`: remove dynos.

use clap::Args;
use dyno_api::query::RemoveQuery;

use super::Context;
use crate::failure::Failure;

/// Remove dynos with their files and logs; volumes stay
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that run first
    #[arg(short, long)]
    force: bool,
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = RemoveQuery { force: self.force };
        context
            .each(self.dynos, |client, dyno| async move {
                client.remove(&dyno, query).await
            })
            .await
    }
}
