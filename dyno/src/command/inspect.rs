//! `dyno inspect`: all about a dyno.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// Show all about a dyno: what was asked for, and how it is. Always JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Id or name
    dyno: String,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let dyno = context.client().await?.dyno(&self.dyno).await?;
        context.output.document(&dyno)?;
        Ok(0)
    }
}
