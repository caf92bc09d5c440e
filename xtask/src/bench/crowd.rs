//! Starts in parallel.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
/// As many containers.
pub(super) const CROWD: usize = 200;

/// What starting one container takes, by who else starts.
pub(super) struct Starts {
    pub(super) one_by_one: Duration,
    /// The time of all, divided by their number.
    pub(super) at_once: Duration,
}

/// Starts [`CROWD`] containers, `command` with a name of its own for each, first
/// one after the other and then all at once.
pub(super) fn starts(command: &[String]) -> Result<Starts> {
    let each = |taken: Duration| taken / u32::try_from(CROWD).unwrap_or(u32::MAX);
    let begin = Instant::now();
    for index in 0..CROWD {
        wait(start(command, index)?)?;
    }
    let one_by_one = each(begin.elapsed());
    let begin = Instant::now();
    let all: Vec<Child> = (0..CROWD)
        .map(|index| start(command, index))
        .collect::<Result<_>>()?;
    for child in all {
        wait(child)?;
    }
    let at_once = each(begin.elapsed());
    Ok(Starts {
        one_by_one,
        at_once,
    })
}

fn start(command: &[String], index: usize) -> Result<Child> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let child = Command::new(program)
        .args(arguments)
        .arg(format!("crowd-{index}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    child.with_context(|| format!("cannot execute {program}"))
}

fn wait(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "one of a crowd ended with {status}");
    Ok(())
}
