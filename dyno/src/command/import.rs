//! `dyno import`: an image from a root file system.

use clap::Args;
use dyno_api::query::ImportQuery;

use super::{Context, load, pull};
use crate::failure::Failure;
use crate::output::progress::Told;

/// Make an image of one layer from a tar archive of a root file system
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive, plain or compressed; - is the standard input
    file: String,
    /// Name of the image
    reference: String,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let archive = load::open(&self.file).await?;
        let client = context.client().await?;
        let lines = client
            .import(
                &ImportQuery {
                    reference: self.reference,
                },
                archive,
            )
            .await?;
        let images = Told::for_output(context.output).follow(lines).await?;
        pull::written(context, &images)
    }
}
