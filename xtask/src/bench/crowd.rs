//! Many at once: the memory of monitors that wait, and starts in parallel.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::host::{Host, IMAGE};
use super::latency::call;

/// As many dynos, or containers.
pub(super) const CROWD: usize = 200;

/// What starting one container takes, by who else starts.
pub(super) struct Starts {
    pub(super) one_by_one: Duration,
    /// The time of all, divided by their number.
    pub(super) at_once: Duration,
}

/// What each of [`CROWD`] waiting monitors takes of the memory, in bytes: its
/// proportional set size, proc_pid_smaps(5).
pub(super) fn memory(host: &Host) -> Result<u64> {
    let spec = json!({
        "image": IMAGE, "command": ["/bin/sleep", "600"], "net": "none",
        "stop_grace_ms": 0, "stop_signal": "SIGKILL",
    });
    let mut dynos = Vec::new();
    for _ in 0..CROWD {
        let dyno = call(host.socket(), "POST", "/v1/dynos?start=true", &spec)?;
        dynos.push(
            dyno["id"]
                .as_str()
                .context("an answer without id")?
                .to_owned(),
        );
    }
    let shares = shares()?;
    for id in dynos {
        let path = format!("/v1/dynos/{id}?force=true");
        call(host.socket(), "DELETE", &path, &Value::Null)?;
    }
    ensure!(
        shares.len() == CROWD,
        "{} monitors instead of {CROWD}",
        shares.len()
    );
    Ok(shares.iter().sum::<u64>() / shares.len() as u64)
}

/// The proportional set sizes of all monitors that have a dyno, in bytes.
fn shares() -> Result<Vec<u64>> {
    let mut shares = Vec::new();
    for process in std::fs::read_dir("/proc")? {
        let process = process?.path();
        // What has ended meanwhile, and the kernel's own, have none.
        let arguments = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        if arguments.starts_with("dyno-runtime\0monitor\0") && !arguments.contains("\0--spare\0") {
            shares.push(share(&process)?);
        }
    }
    Ok(shares)
}

fn share(process: &Path) -> Result<u64> {
    let rollup = std::fs::read_to_string(process.join("smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.context("no Pss")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
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
