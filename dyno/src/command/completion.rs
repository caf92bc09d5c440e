//! `dyno completion`: completion scripts.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Context;
use crate::cli::Cli;
use crate::failure::Failure;

/// Write the completion script for a shell to the standard output
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dyno", &mut script);
        context.output.bytes(&script)?;
        Ok(0)
    }
}
