//! `dyno start`: start dynos that do not run.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// Start dynos that do not run
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Start {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        context
            .each(self.dynos, |client, dyno| async move {
                client.start(&dyno).await.map(drop)
            })
            .await
    }
}
