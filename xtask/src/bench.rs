//! `cargo xtask bench`: our start times beside those of runc, crun and Podman.
//!
//! ```text
//! bench ──unshare(1)──▶ stage: own mounts, network, processes; all gone at the end
//!                         ├─ hostd                      set up once
//!                         ├─ runner                     executes and times: ours, runc, Podman
//!                         ├─ runner, over cgroup v2     executes and times: crun
//!       └──▶ vm: a container's start on Debian's kernel, by `dyno-vm-tests figures`
//! ```
//! All contestants run the same busybox root, one after the other in every
//! round, each timed from spawn to wait by the same code. What is compared with
//! what, and why, is in docs/benchmarks.md.

mod api;
mod containerd;
mod contest;
mod crowd;
mod daemon;
mod host;
mod leftovers;
mod peak;
mod peers;
mod processes;
mod programs;
mod root;
mod runner;
mod stage;
mod statistics;
mod table;
mod vm;

use std::path::PathBuf;

use anyhow::Result;

/// Compare our start times with runc's, crun's and Podman's
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bench {
    /// Measured rounds per comparison
    #[arg(long, default_value_t = 40, value_name = "N")]
    rounds: usize,

    /// Our programs, instead of a release build made now
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Write the samples as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Leave this contestant out: dyno, dyno-runtime, runc, crun, podman or containerd
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,

    /// Leave out what is measured in a virtual machine
    #[arg(long)]
    without_vm: bool,

    /// Where the stage writes the id of its host
    #[arg(long, hide = true)]
    host_file: Option<PathBuf>,

    /// Which part of the bench this process is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Outside)]
    part: Part,
}

/// The bench executes itself to get into its namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// As it was called.
    Outside,
    /// Inside the namespaces.
    Stage,
    /// Executes commands and times them.
    Runner,
}

/// Runs the bench, or the part of it that this process is.
///
/// # Errors
/// When a contestant cannot be set up or fails; a missed target is no error
/// but is shown.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench.part {
        Part::Outside => {
            let programs = stage::enter(bench)?;
            match bench.without_vm {
                true => Ok(()),
                false => vm::measure(&programs, bench.rounds),
            }
        }
        Part::Stage => stage::perform(bench),
        Part::Runner => runner::serve(),
    }
}
