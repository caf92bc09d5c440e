//! `dyno rm`: remove dynos.

use clap::Args;
use dyno_api::query::RemoveQuery;

use super::Context;
use crate::failure::Failure;

/// Remove dynos with their files, logs and checkpoints; volumes stay. Or checkpoints
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that run first
    #[arg(short, long)]
    force: bool,
    /// Ids or names, or checkpoints of these
    #[arg(required = true, value_name = "DYNO[@CHECKPOINT]")]
    dynos: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = RemoveQuery { force: self.force };
        context
            .each(self.dynos, |client, dyno| async move {
                match dyno.split_once('@') {
                    Some((dyno, checkpoint)) => client.remove_checkpoint(dyno, checkpoint).await,
                    None => client.remove(&dyno, query).await,
                }
            })
            .await
    }
}
