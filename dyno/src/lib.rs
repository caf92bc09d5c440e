//! The command line of dyno: a client of hostd, and nothing more.
//!
//! Parsing never acts: clap makes one value of a `cli` type from the
//! arguments, and only then that value is run.
//!
//! ```text
//! cli        global flags and the list of commands
//! app        files that describe many dynos, and what follows from them
//! command    one file per command: its flags, and what it does
//! value      notations of flags: sizes, ports, mounts, …
//! hostd      which hostd: here, started where none runs, by ssh or by TLS
//! session    a dyno's streams, signals and terminal, while attached
//! terminal   raw mode and size
//! output     tables, JSON, colour, progress
//! failure    what is printed and returned when something fails
//! ```

mod app;
mod cli;
mod command;
mod failure;
mod hostd;
mod output;
mod session;
mod signal;
mod terminal;
mod value;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::Cli;
use crate::failure::Failure;

/// Runs the command that the process's arguments name; its exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(failure) = hostd::become_daemon(&arguments) {
        return report(&failure);
    }
    if let Some(socket) = hostd::bridge::asked(&arguments) {
        return match in_runtime(hostd::bridge::run(socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => report(&failure),
        };
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(refusal) if is_wrong(&refusal) => {
            return report(&Failure::from_clap(&refusal, &arguments));
        }
        Err(help) => return show(&help),
    };
    match in_runtime(cli.run()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

fn in_runtime<T>(run: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // One thread: starting it is part of what `dyno run` costs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run);
    // Nothing that still reads a pipe holds up the end.
    runtime.shutdown_background();
    outcome
}

/// Whether the arguments are wrong, rather than asking for help or absent.
fn is_wrong(refusal: &clap::Error) -> bool {
    let absent = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    refusal.use_stderr() && refusal.kind() != absent
}

/// Writes help or version to where it belongs.
fn show(help: &clap::Error) -> ExitCode {
    match help.print() {
        Ok(()) if help.use_stderr() => ExitCode::from(failure::code::USAGE),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error.into()),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // Where standard error is closed there is nobody to tell.
    failure.render(&mut io::stderr().lock()).unwrap_or_default();
    ExitCode::from(failure.code())
}
