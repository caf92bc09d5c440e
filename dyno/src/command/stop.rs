//! `dyno stop`: ask dynos to end.

use std::time::Duration;

use clap::Args;
use dyno_api::query::StopQuery;

use super::Context;
use crate::failure::Failure;
use crate::value::duration;

/// Ask dynos to end, kill what is left after the grace, and wait for it
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    how: StopArgs,
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

/// How a dyno is asked to end.
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// Signal that asks, by name or number [default: the dyno's own]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Time until what is left is killed, such as 10s [default: the dyno's own]
    #[arg(short = 't', long = "grace", value_name = "DURATION", value_parser = duration::parse)]
    grace: Option<Duration>,
}

impl StopArgs {
    pub(super) fn into_query(self) -> StopQuery {
        StopQuery {
            signal: self.signal,
            grace_ms: self.grace.map(duration::millis),
        }
    }
}

impl Stop {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let query = self.how.into_query();
        context
            .each(self.dynos, |client, dyno| {
                let query = query.clone();
                async move { client.stop(&dyno, &query).await.map(drop) }
            })
            .await
    }
}
