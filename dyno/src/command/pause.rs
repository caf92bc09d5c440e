//! `dyno pause`: hold every process of dynos still, until they are resumed or end.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// Hold every process of dynos still, until they are resumed or end
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Pause {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        context
            .each(self.dynos, |client, dyno| async move {
                client.pause(&dyno).await.map(drop)
            })
            .await
    }
}
