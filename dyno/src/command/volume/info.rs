//! `dyno volume info`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;

/// Show all about a volume and what it takes up, as JSON
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

impl Info {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let volume = context.client().await?.volume(&self.volume).await?;
        context.output.document(&volume)?;
        Ok(0)
    }
}
