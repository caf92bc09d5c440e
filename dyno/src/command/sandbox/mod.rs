//! `dyno sandbox`: several hosts on this machine.

mod exec;
mod ls;
mod power;
mod up;
mod wire;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dyno_sandbox::{Error, FOLDER, Name, Sandbox, Seen, State};
use serde::Serialize;

use super::Context;
use crate::failure::{Failure, code};

/// Make several hosts on this machine, and have them fail
#[derive(Debug, Args)]
#[command(
    after_help = "Each host is a network namespace with a hostd and dynos of its own: host1, \
                  host2 and so on, on one wire, from which nothing leads outside. Takes root."
)]
pub(crate) struct SandboxCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a sandbox
    Up(up::Up),
    /// List hosts
    Ls(ls::Ls),
    /// Run a command on a host
    Exec(exec::Exec),
    /// Cut the power of hosts: all of their processes are killed at once
    Kill(power::Kill),
    /// Power hosts on
    Start(power::Start),
    /// Keep two hosts from reaching each other
    Partition(wire::Partition),
    /// Have the wire of a host lose packets
    Loss(wire::Loss),
    /// Let all hosts reach each other again
    Heal(wire::Heal),
    /// End a sandbox, and all that is in it
    Down(up::Down),
}

impl SandboxCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("a sandbox takes root").with_code(code::FORBIDDEN));
        }
        let output = context.output;
        // What is done takes long, and there is nobody else to serve.
        let work = move || match self.command {
            Command::Up(command) => command.run(output),
            Command::Ls(command) => command.run(output),
            Command::Exec(command) => command.run(),
            Command::Kill(command) => command.run(),
            Command::Start(command) => command.run(),
            Command::Partition(command) => command.run(),
            Command::Loss(command) => command.run(),
            Command::Heal(command) => command.run(),
            Command::Down(command) => command.run(),
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(Failure::new(error.to_string())))
    }
}

/// Which sandbox.
#[derive(Debug, Args)]
struct Which {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "sandbox")]
    name: Name,
    /// Folder of all sandboxes
    #[arg(
        long,
        value_name = "DIR",
        default_value = FOLDER,
        env = "DYNO_SANDBOX_DIR",
        hide = true
    )]
    folder: PathBuf,
}

impl Which {
    fn open(&self) -> Result<Sandbox, Failure> {
        Ok(Sandbox::open(&self.folder, &self.name)?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = match &error {
            Error::File { what, path, source } => {
                return Self::io(format!("cannot {what} {}", path.display()), source);
            }
            other => Self::new(other.to_string()),
        };
        match error {
            Error::Exists(_) => failure
                .hint("dyno sandbox down, or --name for another one")
                .with_code(code::CONFLICT),
            Error::NotFound(_) => failure.hint("dyno sandbox up").with_code(code::NOT_FOUND),
            Error::NoHost { .. } => failure.hint("dyno sandbox ls").with_code(code::NOT_FOUND),
            Error::Itself(_) => failure.with_code(code::USAGE),
            Error::NoLoss => failure.with_code(code::UNSUPPORTED),
            _ => failure,
        }
    }
}

/// A host, as it is told.
#[derive(Debug, Serialize)]
struct Told {
    sandbox: String,
    name: String,
    address: String,
    /// `up` or `down`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    socket: PathBuf,
    /// Hosts that hear nothing of it.
    unreached: Vec<String>,
}

fn told(sandbox: &Sandbox, name: &Name) -> Vec<Told> {
    let one = |seen: Seen| {
        let (state, pid) = match seen.state {
            State::Up(pid) => ("up", Some(pid)),
            State::Down => ("down", None),
        };
        let cuts = sandbox.cuts().iter();
        let cuts = cuts.filter(|cut| cut.from == seen.host.name);
        Told {
            sandbox: name.to_string(),
            unreached: cuts.map(|cut| cut.to.clone()).collect(),
            name: seen.host.name,
            address: seen.host.address.to_string(),
            state,
            pid,
            socket: seen.socket,
        }
    };
    sandbox.hosts().into_iter().map(one).collect()
}
