//! `dyno exec`: run one more process in a dyno.

use clap::Args;
use dyno_api::client::{self, Client};
use dyno_api::dyno::ExecRequest;
use dyno_api::error::ErrorKind;

use super::attach::{DetachArgs, exit_code};
use super::run::environment::EnvArgs;
use super::{Context, command};
use crate::failure::{Failure, code};
use crate::session::{End, Input, Streams, attend};

/// Run one more process in a dyno; the exit code is that process's
#[derive(Debug, Args)]
#[command(override_usage = "dyno exec [OPTIONS] DYNO COMMAND [ARG]...")]
pub(crate) struct Exec {
    /// Forward the standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    env: EnvArgs,
    /// User and group, names or numbers [default: the dyno's own]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory [default: the dyno's own]
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    #[command(flatten)]
    detach: DetachArgs,
    /// Id or name; then the program and its arguments
    // One list: what stands behind its first word is never a flag of ours.
    #[arg(required = true, value_names = ["DYNO", "COMMAND"], num_args = 2.., trailing_var_arg = true)]
    words: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        self.attended(context).await.map_err(Failure::not_run)
    }

    async fn attended(self, context: &Context) -> Result<u8, Failure> {
        let streams = Streams {
            tty: self.tty,
            stdin: self.interactive,
            detach_keys: self.detach.detach_keys,
        };
        let mut words = self.words.into_iter();
        let dyno = words.next().unwrap_or_default();
        let request = ExecRequest {
            command: command(words),
            env: self.env.into_variables()?,
            user: self.user,
            workdir: self.workdir,
            tty: streams.tty,
            stdin: streams.stdin,
            size: streams.size(),
        };
        let client = context.client().await?;
        let mut input = Input::listen()?;
        let attached = match client.exec(&dyno, &request).await {
            Ok(attached) => attached,
            Err(refusal) => return Err(not_executed(&client, &dyno, refusal).await),
        };
        match attend(attached, &streams, &mut input)
            .await
            .map_err(Failure::not_executed)?
        {
            End::Exit(status) => Ok(exit_code(&status, &dyno)),
            End::Lost => Err(Failure::new(
                "the connection to hostd broke; the process may still run",
            )
            .hint(format!("dyno ps, then dyno exec {} again", dyno))),
            End::Detached => Ok(0),
            End::Impatient => Ok(code::INTERRUPTED),
            End::ReaderGone => Err(Failure::silent(code::PIPE)),
        }
    }
}

/// Why nothing was executed: "not found" is the command, unless it is the dyno.
async fn not_executed(client: &Client, dyno: &str, refusal: client::Error) -> Failure {
    let failure = Failure::from(refusal);
    let dyno_is_there = client.dyno(dyno).await.is_ok();
    if failure.kind() == Some(ErrorKind::NotFound) && !dyno_is_there {
        failure.not_run()
    } else {
        failure.not_executed()
    }
}
