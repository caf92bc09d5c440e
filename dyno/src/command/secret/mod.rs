//! `dyno secret`: values that dynos are given and nobody is shown.

mod info;
mod ls;
mod rm;
mod rotate;
mod set;

use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;

/// Keep secrets, and give them to dynos
#[derive(Debug, Args)]
pub(crate) struct Secret {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a secret's value, from a file or the standard input
    Set(set::Set),
    /// List secrets, without values
    Ls(ls::Ls),
    /// Show all about a secret but its value, as JSON
    Info(info::Info),
    /// Remove secrets
    Rm(rm::Rm),
    /// Make a new key and encrypt every secret under it
    Rotate(rotate::Rotate),
}

impl Secret {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            Command::Set(set) => set.run(context).await,
            Command::Ls(ls) => ls.run(context).await,
            Command::Info(info) => info.run(context).await,
            Command::Rm(rm) => rm.run(context).await,
            Command::Rotate(rotate) => rotate.run(context).await,
        }
    }
}
