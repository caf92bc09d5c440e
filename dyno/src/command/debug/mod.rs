//! `dyno debug`: for those who look for a fault.

mod bundle;

use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;

/// Find out what is wrong
#[derive(Debug, Args)]
pub(crate) struct Debug {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an archive for a bug report, without secrets
    Bundle(bundle::Bundle),
}

impl Debug {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            Command::Bundle(bundle) => bundle.run(context).await,
        }
    }
}
