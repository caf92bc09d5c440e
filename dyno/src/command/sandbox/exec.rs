//! `dyno sandbox exec`.

use std::os::unix::process::CommandExt;

use clap::Args;

use super::Which;
use crate::failure::Failure;

/// Run a command on a host
#[derive(Debug, Args)]
#[command(
    after_help = "In the host's network, and with DYNO_SOCKET for its hostd: dyno sandbox exec \
                  host2 -- dyno ps. The exit code is the command's."
)]
pub(super) struct Exec {
    #[command(flatten)]
    which: Which,
    /// The host
    #[arg(value_name = "HOST")]
    on: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let sandbox = self.which.open().map_err(Failure::not_run)?;
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(Failure::usage("a command is missing"));
        };
        // So that a command of a sandbox can be executed on one of its hosts.
        let command = sandbox.command(&self.on, program);
        drop(sandbox);
        let mut command = command.map_err(|error| Failure::from(error).not_run())?;
        // We become it: its signals and its exit code are ours.
        let error = command.args(arguments).exec();
        Err(Failure::io("cannot execute nsenter", &error).not_run())
    }
}
