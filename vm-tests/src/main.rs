//! Runs the tests in virtual machines, or opens a shell in one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};
use dyno_vm_tests::kit::Kit;
use dyno_vm_tests::report::{Outcome, Report};
use dyno_vm_tests::scenarios::{self, Selection};

/// Tests on Debian's kernel in QEMU: pure cgroup v2, reboots, power cuts.
#[derive(Debug, Parser)]
#[command(name = "dyno-vm-tests", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run only scenarios whose name contains one of these.
    filters: Vec<String>,
    /// Of the kernel-facing tests, run only those whose title contains this.
    #[arg(long = "test", value_name = "PART")]
    test_filter: Option<String>,
    /// Run each of the kernel-facing tests so many times: a rare failure is hunted so.
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// Machines that run at the same time.
    #[arg(long, short, env = "DYNO_VM_JOBS", default_value_t = 2)]
    jobs: usize,
    /// Begin no kernel-facing test later than this; those left count as skipped.
    #[arg(long, value_name = "N", env = "DYNO_VM_MINUTES")]
    minutes: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the scenarios.
    List,
    /// Open a shell on the console of a machine that is thrown away afterwards.
    Shell {
        /// Start hostd at boot.
        #[arg(long)]
        hostd: bool,
    },
    /// Measure a container's start there.
    Figures {
        /// Where release builds of dyno-runtime and xtask are, and the floor.
        #[arg(long, value_name = "DIR")]
        programs: PathBuf,
        /// Measured rounds.
        #[arg(long, default_value_t = 20, value_name = "N")]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = Report::default();
    let started = Instant::now();
    match run(&arguments, &report) {
        // The others are not test runs: there is nothing to count.
        Ok(()) if arguments.command.is_some() => return ExitCode::SUCCESS,
        Ok(()) => {}
        // Not being able to test is a failure, never a silent skip.
        Err(error) => {
            report.add(
                "setting up",
                started.elapsed(),
                &Outcome::Failed(format!("{error:#}")),
            );
        }
    }
    report.finish()
}

fn run(arguments: &Arguments, report: &Report) -> Result<()> {
    match arguments.command {
        Some(Command::List) => scenarios::list(),
        Some(Command::Shell { hostd }) => return dyno_vm_tests::vm::shell(&Kit::prepare()?, hostd),
        Some(Command::Figures {
            ref programs,
            rounds,
        }) => return dyno_vm_tests::figures::measure(&Kit::prepare()?, programs, rounds),
        None => {
            let started = Instant::now();
            let kit = Kit::prepare()?;
            report.note("kernel, initramfs and disk image", started.elapsed());
            let selection = Selection {
                filters: arguments.filters.clone(),
                test_filter: arguments.test_filter.clone(),
                repeat: arguments.repeat,
                jobs: arguments.jobs,
                until: arguments
                    .minutes
                    .map(|minutes| started + Duration::from_secs(60 * minutes)),
            };
            scenarios::run(&kit, &selection, report)?;
        }
    }
    Ok(())
}
