//! Limits of cgroup v2, as the kernel enforces them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dyno_api::dyno::Phase;

use super::host::{Host, PATIENCE};

const MIB: u64 = 1024 * 1024;

/// A dyno over its memory limit is killed as a whole, and the record says why;
/// P16 (`memory.oom.group`).
pub(super) fn memory(host: &Host<'_>) -> Result<()> {
    host.run_detached("bounded", &["-m", "32M"], &["sleep", "1000"])?;
    let bounded = host.wait_for("bounded", Phase::Running)?;
    let cgroup = host.cgroup(&bounded)?;
    let file = |name: &str| host.read(&format!("{cgroup}/{name}"));
    ensure!(
        file("memory.max")? == (32 * MIB).to_string(),
        "memory.max {}",
        file("memory.max")?
    );
    ensure!(
        file("memory.oom.group")? == "1",
        "memory.oom.group is not set in {cgroup}"
    );

    // The first process only waits: without the group kill it would survive its child.
    let hog = "dd if=/dev/zero of=/dev/null bs=64M count=1 & sleep 1000";
    host.run_detached("hog", &["-m", "32M"], &["sh", "-c", hog])?;
    let hog = host.wait_for("hog", Phase::Exited)?;
    let exit = hog
        .status
        .exit
        .context("an ended dyno without an exit status")?;
    ensure!(
        exit.oom,
        "the memory limit is not the recorded reason: {exit:?}"
    );
    ensure!(
        exit.code == 137 && exit.signal == Some(9),
        "ended by something else: {exit:?}"
    );

    // The control: with room enough the same program ends well.
    let fits = [
        "run",
        "--rm",
        "-m",
        "256M",
        "host",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
    ];
    host.dyno(&[&fits[..], &["bs=64M", "count=1"]].concat())?
        .text()?;
    let still = host.inspect("bounded")?;
    ensure!(
        still.status.pid == bounded.status.pid,
        "a neighbour was hit: {:?}",
        still.status
    );
    Ok(())
}

/// `--cpu 0.2` is a fifth of a CPU, measured; without a limit it is a whole one.
pub(super) fn cpu(host: &Host<'_>) -> Result<()> {
    let burn = ["sh", "-c", "while :; do :; done"];

    host.run_detached("fifth", &["--cpu", "0.2"], &burn)?;
    let cgroup = host.cgroup(&host.wait_for("fifth", Phase::Running)?)?;
    let max = host.read(&format!("{cgroup}/cpu.max"))?;
    let (quota, period) = max.split_once(' ').context("cpu.max without a period")?;
    let granted = quota.parse::<f64>()? / period.parse::<f64>()?;
    ensure!((granted - 0.2).abs() < 0.001, "cpu.max is {max}");
    let share = cpu_share(host, &cgroup)?;
    ensure!(
        (0.14..0.26).contains(&share),
        "a fifth of a CPU was {share:.3}"
    );
    host.dyno(&["rm", "--force", "fifth"])?.text()?;

    host.run_detached("whole", &[], &burn)?;
    let cgroup = host.cgroup(&host.wait_for("whole", Phase::Running)?)?;
    let share = cpu_share(host, &cgroup)?;
    ensure!(
        share > 0.5,
        "the control: an unlimited dyno used only {share:.3}"
    );
    Ok(())
}

/// CPU time over time, both by the guest's clock, in three seconds.
fn cpu_share(host: &Host<'_>, cgroup: &str) -> Result<f64> {
    let sample = format!("grep usage_usec {cgroup}/cpu.stat; cat /proc/uptime");
    let text = host
        .vm
        .sh(&format!("{sample}; sleep 3; {sample}"))?
        .text()?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // usage, uptime, idle, usage, uptime, idle
    let [usage, up, _, later_usage, later_up, _] = numbers[..] else {
        anyhow::bail!("unexpected samples: {text}");
    };
    Ok((later_usage - usage) / 1e6 / (later_up - up))
}

/// A fork bomb stops at `pids.max`, inside the dyno.
pub(super) fn pids(host: &Host<'_>) -> Result<()> {
    // Forks until it may not: the shell then ends, and with it the dyno.
    let bomb = "while :; do sleep 1000 & done";
    host.run_detached(
        "bomb",
        &["--pids", "12"],
        &["sh", "-c", &format!("({bomb}); sleep 1000")],
    )?;
    let dyno = host.wait_for("bomb", Phase::Running)?;
    let cgroup = host.cgroup(&dyno)?;
    ensure!(
        host.read(&format!("{cgroup}/pids.max"))? == "12",
        "pids.max is not set"
    );
    let refused = format!("! grep -qx 'max 0' {cgroup}/pids.events");
    host.vm
        .wait_until("a fork is refused", PATIENCE, &refused)?;
    let current: u32 = host.read(&format!("{cgroup}/pids.current"))?.parse()?;
    ensure!(current <= 12, "{current} processes under a limit of 12");
    host.vm
        .run(&["true"])?
        .text()
        .context("the machine itself can still fork")?;
    Ok(())
}

/// Whatever ignores its signals goes at once, and nothing of it remains: `cgroup.kill`.
pub(super) fn kill(host: &Host<'_>) -> Result<()> {
    let deaf = "trap '' TERM INT HUP; (trap '' TERM INT HUP; setsid sleep 4242) & \
                while :; do sleep 4242; done";
    host.run_detached("deaf", &[], &["sh", "-c", deaf])?;
    let dyno = host.wait_for("deaf", Phase::Running)?;
    let cgroup = host.cgroup(&dyno)?;
    let procs = format!("{cgroup}/cgroup.procs");
    let all_there = format!("test $(wc -l <{procs}) -ge 3");
    host.vm
        .wait_until("the three processes of the dyno", PATIENCE, &all_there)?;
    let pids = host.read(&procs)?.replace('\n', " ");
    host.dyno(&["stop", "--grace", "1s", "deaf"])?.text()?;
    host.wait_for("deaf", Phase::Exited)?;
    let gone = format!("for pid in {pids}; do test ! -e /proc/$pid; done; test ! -e {cgroup}");
    host.vm
        .wait_until("processes and cgroup gone", Duration::from_secs(10), &gone)?;
    Ok(())
}
