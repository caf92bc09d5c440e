//! `dyno restore`: bring a dyno back from a checkpoint.

use clap::Args;
use dyno_api::checkpoint::RestoreRequest;
use dyno_api::name::DynoName;

use super::Context;
use crate::failure::Failure;

/// Bring a dyno that does not run back from a checkpoint, with its files as they are now
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Id or name
    #[arg(value_name = "DYNO")]
    dyno: String,
    /// Name of the checkpoint [default: the newest]
    checkpoint: Option<DynoName>,
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let request = RestoreRequest {
            checkpoint: self.checkpoint,
        };
        let client = context.client().await?;
        let dyno = client.restore(&self.dyno, &request).await?;
        match context.output.json {
            true => context.output.document(&dyno)?,
            false => context.output.line(&self.dyno)?,
        }
        Ok(0)
    }
}
