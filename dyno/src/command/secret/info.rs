//! `dyno secret info`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;

/// Show all about a secret but its value, as JSON
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Its name
    #[arg(value_name = "SECRET")]
    secret: String,
}

impl Info {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let secret = context.client().await?.secret(&self.secret).await?;
        context.output.document(&secret)?;
        Ok(0)
    }
}
