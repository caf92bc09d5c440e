//! The command line: the OCI operations, and what hostd executes.

mod create;
mod lifecycle;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::container::{Exit, StartError};
use crate::jail::Jail;
use crate::monitor;
use crate::own_file;
use crate::state::StateRoot;

/// A container runtime for Linux (OCI runtime spec 1.2).
#[derive(Debug, Parser)]
#[command(name = "dyno-runtime", version, arg_required_else_help = true)]
struct Cli {
    /// Folder of the containers' states
    #[arg(long, value_name = "DIR", default_value = "/run/dyno-runtime")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a container up and stop before its program
    Create(create::Args),
    /// Let a created container execute its program
    Start {
        /// The container
        id: String,
    },
    /// Print a container's state as JSON
    State {
        /// The container
        id: String,
    },
    /// Send a signal to a container's first process
    Kill {
        /// The container
        id: String,
        /// Name or number
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove what is left of a stopped container
    Delete {
        /// Kill it first if it runs; succeed if there is none
        #[arg(long, short)]
        force: bool,
        /// The container
        id: String,
    },
    /// Be the parent of one dyno, as hostd asks in DIR/monitor.json
    Monitor {
        /// The dyno's run folder
        dir: PathBuf,
    },
    /// Run a program that sees nothing but one folder
    Jail {
        /// The folder
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// Host id of the 65536 that are mapped into it
        #[arg(long, value_name = "ID")]
        uid_base: u32,
        /// A static program of the host, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
}

/// How long a killed container may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Exit code of a failure of ours, where a program's own would be expected.
const FAILED: u8 = 125;

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let states = StateRoot::new(cli.root);
    if matches!(cli.command, Command::Create(_) | Command::Monitor { .. })
        && let Err(error) = own_file::put_out_of_reach()
    {
        eprintln!("dyno-runtime: keep its own program from containers: {error}");
        return ExitCode::FAILURE;
    }
    let done = match cli.command {
        Command::Create(args) => create::create(&states, &args),
        Command::Start { id } => lifecycle::start(&states, &id),
        Command::State { id } => lifecycle::state(&states, &id),
        Command::Kill { id, signal } => lifecycle::kill(&states, &id, &signal),
        Command::Delete { force, id } => lifecycle::delete(&states, &id, force),
        Command::Monitor { dir } => return monitor::run(&dir),
        Command::Jail {
            root,
            uid_base,
            program,
        } => return jail(root, uid_base, program),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref(), 1),
    }
}

fn jail(root: PathBuf, id_base: u32, program: Vec<String>) -> ExitCode {
    let mut words = program.into_iter();
    let program = PathBuf::from(words.next().unwrap_or_default());
    let jail = Jail {
        root,
        id_base,
        program,
        args: words.collect(),
    };
    match jail.run() {
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Ok(Exit::Signal(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        Err(error @ StartError::NotFound { .. }) => fail(&error, 127),
        Err(error) => fail(&error, FAILED),
    }
}

/// Prints an error with all its causes, on one line.
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("dyno-runtime: {}", words(error));
    ExitCode::from(code)
}

/// An error with all its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        message.push_str(": ");
        message.push_str(&source.to_string());
        cause = source.source();
    }
    message
}

/// An error of any of the modules that a command calls.
type Failure = Box<dyn std::error::Error>;
