//! `dyno token`: who may use this host from elsewhere, and for what.

mod create;
mod key;
mod ls;

use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;

/// Let others use this host from elsewhere
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token, and show its secret, once
    Create(create::Create),
    /// List tokens, without secrets
    Ls(ls::Ls),
    /// Take tokens away; what is connected with them is cut off
    Rm(Rm),
}

#[derive(Debug, Args)]
struct Rm {
    /// Names or ids of tokens
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            Command::Create(create) => create.run(context).await,
            Command::Ls(ls) => ls.run(context).await,
            Command::Rm(rm) => {
                let remove = |client: dyno_api::client::Client, token: String| async move {
                    client.remove_token(&token).await
                };
                context.each(rm.tokens, remove).await
            }
        }
    }
}
