//! `dyno plan`: what `dyno up` would do.

use clap::Args;

use super::Context;
use super::up::{FileArgs, look, show};
use crate::app;
use crate::failure::Failure;

/// Show what `up` would do, and do nothing
#[derive(Debug, Args)]
pub(crate) struct PlanCommand {
    #[command(flatten)]
    file: FileArgs,
}

impl PlanCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let app = self.file.load()?;
        let chosen = app.with_those_before(&[])?;
        let there = look(&context.client().await?, &app).await?;
        show(context, &app::plan(&app, &there, &chosen, true)?)?;
        Ok(0)
    }
}
