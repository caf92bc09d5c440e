//! The binary `dyno-edge`, see the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    dyno_edge::lifecycle::run(&dyno_edge::command::Command::parse())
}
