//! `dyno kill`: send a signal to dynos.

use clap::Args;
use dyno_api::query::KillQuery;

use super::Context;
use crate::failure::Failure;

/// Send a signal to the first process of dynos
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Kill {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = KillQuery {
            signal: Some(self.signal),
        };
        context
            .each(self.dynos, |client, dyno| {
                let query = query.clone();
                async move { client.kill(&dyno, &query).await.map(drop) }
            })
            .await
    }
}
