//! Chores: `cargo xtask setup|test|bench|conformance|dist|former|fuzz|hot`.
#![expect(
    clippy::print_stdout,
    reason = "a chore talks to the person who started it"
)]

mod arrows;
mod bench;
mod checks;
mod conformance;
mod count;
mod dist;
mod former;
mod fuzz;
mod hot;
mod named_tests;
mod nested;
mod setup;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "The project's chores")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what a purpose needs, from Debian's packages, crates.io and PyPI
    Setup {
        /// For what
        #[arg(value_enum)]
        purpose: setup::Purpose,
    },
    /// Run every check that CI runs, then report every failure
    Test(checks::Test),
    /// Measure beside the peers
    Bench(bench::Bench),
    Conformance(conformance::Conformance),
    Dist(dist::Dist),
    Fuzz(fuzz::Fuzz),
    /// Build the programs of the commit before, for tests of both together
    Former,
    /// Find out what code a container's start needs, for `runtime/hot.ld`
    Hot,
}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the chore succeeded; an error is one that kept it from being done.
fn run(chore: Chore) -> Result<bool> {
    match chore {
        Chore::Setup { purpose } => setup::install(purpose).map(|()| true),
        Chore::Test(test) => test.run(),
        Chore::Bench(bench) => bench::run(&bench).map(|()| true),
        Chore::Conformance(conformance) => conformance::run(&conformance),
        Chore::Dist(dist) => dist.run().map(|()| true),
        Chore::Fuzz(fuzz) => fuzz::run(&fuzz),
        Chore::Former => former::build().map(|()| true),
        Chore::Hot => hot::run().map(|()| true),
    }
}
