//! `dyno wait`: wait until dynos have ended.

use clap::Args;

use dyno_api::query::WaitQuery;

use super::Context;
use crate::failure::Failure;

/// Wait until dynos have ended for good and show their exit codes, in order
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Ids or names
    #[arg(required = true, value_name = "DYNO")]
    dynos: Vec<String>,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut waiting = Vec::new();
        for dyno in self.dynos {
            let client = client.clone();
            // All at once: one that is removed early is not missed.
            waiting.push(tokio::spawn(async move {
                client.wait(&dyno, WaitQuery::default()).await
            }));
        }
        let mut ended = Vec::new();
        for waiting in waiting {
            let status = waiting
                .await
                .map_err(|error| Failure::new(error.to_string()))??;
            if !context.output.json {
                context.output.line(&status.code.to_string())?;
            }
            ended.push(status);
        }
        if context.output.json {
            context.output.document(&ended)?;
        }
        Ok(0)
    }
}
