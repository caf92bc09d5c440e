//! `dyno resume`: let paused dynos go on.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// Let paused dynos go on
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Resume {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        context
            .each(self.dynos, |client, dyno| async move {
                client.resume(&dyno).await.map(drop)
            })
            .await
    }
}
