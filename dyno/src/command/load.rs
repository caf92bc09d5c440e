//! `dyno load`: images from an archive.

use std::pin::Pin;

use clap::Args;
use dyno_api::query::LoadQuery;
use tokio::io::AsyncRead;

use super::{Context, pull};
use crate::failure::Failure;
use crate::output::progress::Told;
use crate::terminal;

/// Load images from an OCI or docker archive, plain or compressed
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The archive; - is the standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: String,
    /// Name for an image whose archive names none
    #[arg(long, value_name = "REFERENCE")]
    reference: Option<String>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let archive = open(&self.input).await?;
        let client = context.client().await?;
        let lines = client
            .load(
                &LoadQuery {
                    reference: self.reference,
                },
                archive,
            )
            .await?;
        let images = Told::for_output(context.output).follow(lines).await?;
        pull::written(context, &images)
    }
}

/// Opens an archive; `-` is the standard input.
pub(super) async fn open(input: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, Failure> {
    open_for(input, "an archive").await
}

/// Opens a file that holds this; `-` is the standard input.
pub(super) async fn open_for(
    input: &str,
    what: &str,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, Failure> {
    if input != "-" {
        let file = tokio::fs::File::open(input).await;
        let file = file.map_err(|error| Failure::io(format!("cannot open {input:?}"), &error))?;
        return Ok(Box::pin(file));
    }
    if terminal::is_interactive() {
        return Err(
            Failure::usage(format!("the standard input is a terminal, not {what}"))
                .hint("give a file, or pipe one in"),
        );
    }
    Ok(Box::pin(tokio::io::stdin()))
}
