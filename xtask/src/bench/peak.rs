//! The most memory that a runtime takes for itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::stage::{done, over};

/// How the container is called.
const NAME: &str = "peak";
/// How long it may take to run.
const DEADLINE: Duration = Duration::from_secs(10);

/// The peak resident set size, in bytes, of the process that runs the container
/// of this bundle, from its start until the container runs: proc_pid_status(5).
/// `tree` is bound over /sys/fs/cgroup for it.
///
/// # Errors
/// When the container does not run.
pub(super) fn measure(runtime: &[String], bundle: &Path, tree: Option<&str>) -> Result<u64> {
    let (program, options) = runtime.split_first().context("an empty command")?;
    let call = |arguments: &[&str]| -> Command {
        let mut command = over(tree, Path::new(program));
        command.args(options).args(arguments);
        command
    };
    let mut run = call(&["run", "--bundle"])
        .arg(bundle)
        .arg(NAME)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot execute {program}"))?;
    let peak = when_running(&mut run, || done(&mut call(&["state", NAME])));
    let deleted = done(&mut call(&["delete", "--force", NAME]));
    // Why it did not run comes before why it could not be deleted.
    let peak = peak?;
    deleted?;
    run.wait()?;
    Ok(peak)
}

fn when_running(run: &mut Child, state: impl Fn() -> Result<String>) -> Result<u64> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let is_running = state().is_ok_and(|state| state.contains("\"running\""));
        if is_running {
            return high_water(run.id());
        }
        ensure!(run.try_wait()?.is_none(), "the container ended");
        ensure!(Instant::now() < deadline, "the container does not run");
        // No runtime tells others when its container runs.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn high_water(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
}
