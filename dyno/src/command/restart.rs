//! `dyno restart`: stop dynos and start them again.

use clap::Args;

use super::Context;
use super::stop::StopArgs;
use crate::failure::Failure;

/// Stop dynos and start them again
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    how: StopArgs,
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Restart {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = self.how.into_query();
        context
            .each(self.dynos, |client, dyno| {
                let query = query.clone();
                async move { client.restart(&dyno, &query).await.map(drop) }
            })
            .await
    }
}
