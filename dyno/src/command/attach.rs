//! `dyno attach`: take part in a dyno's standard streams.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use dyno_api::dyno::{AttachRequest, ExitStatus};

use super::Context;
use crate::failure::{Failure, code};
use crate::session::{End, Input, Streams, attend};
use crate::value::detach::{self, DetachKeys};

/// Take part in a dyno's standard streams; the exit code is the dyno's
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Do not forward the standard input
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    detach: DetachArgs,
    /// Id or name
    dyno: String,
}

/// The keys that leave a dyno running.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// Keys that leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = detach::parse)]
    pub(super) detach_keys: DetachKeys,
}

impl Attach {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        self.attended(context).await.map_err(Failure::not_run)
    }

    async fn attended(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let dyno = client.dyno(&self.dyno).await?;
        let streams = Streams {
            tty: dyno.spec.tty,
            stdin: dyno.spec.stdin && !self.no_stdin,
            detach_keys: self.detach.detach_keys,
        };
        let request = AttachRequest {
            stdin: streams.stdin,
            size: streams.size(),
            start: false,
        };
        let mut input = Input::listen()?;
        let attached = client.attach(dyno.id.as_str(), &request).await?;
        let name = dyno.name.as_str();
        match attend(attached, &streams, &mut input).await? {
            End::Exit(status) => Ok(exit_code(&status, name)),
            End::Detached => Ok(left(name)),
            End::Impatient => Ok(code::INTERRUPTED),
            End::ReaderGone => Err(Failure::silent(code::PIPE)),
            End::Lost => Err(lost(name)),
        }
    }
}

/// hostd went away, the dyno did not.
pub(super) fn lost(dyno: &str) -> Failure {
    Failure::new(format!(
        "the connection to hostd broke; dyno {dyno} runs on"
    ))
    .hint(format!("dyno attach {dyno}"))
}

/// Says that the dyno runs on; the exit code of that.
pub(super) fn left(dyno: &str) -> u8 {
    // The dyno's own last line may have no end.
    note(&format!(
        "\nleft dyno {dyno} running; `dyno attach {dyno}` returns to it"
    ));
    0
}

/// The exit code of what ended; what a person cannot see from it is said.
pub(super) fn exit_code(status: &ExitStatus, dyno: &str) -> u8 {
    if status.oom {
        note(&format!("{dyno} was killed: it reached its memory limit"));
    }
    status.code
}

/// A line for a person at a terminal.
fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        // Nobody is harmed who cannot be told.
        writeln!(stderr, "{line}").unwrap_or_default();
    }
}
