//! `dyno secret rotate`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;

/// Make a new key and encrypt every secret under it
#[derive(Debug, Args)]
pub(crate) struct Rotate {}

impl Rotate {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let rotation = context.client().await?.rotate_secret_key().await?;
        match context.output.json {
            true => context.output.document(&rotation)?,
            false => context.output.line(&rotation.key)?,
        }
        Ok(0)
    }
}
