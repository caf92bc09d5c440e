//! `hostd install` on a machine whose PID 1 is systemd.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dyno_api::dyno::Phase;

use super::host::{Host, PATIENCE};
use super::{Context, limits};
use crate::vm::{Options, Output, Request, Vm};

/// systemd and udev take their time without KVM.
const SYSTEM_UP: Duration = Duration::from_secs(180);

/// The cgroup that the unit of the dynos delegates.
const DELEGATED: &str = "/sys/fs/cgroup/system.slice/dyno.service";

/// Starts of hostd that systemd refuses by default: more than five within ten seconds.
const MANY: usize = 8;

/// Dynos with their limits live in a unit of their own: whatever becomes of
/// hostd or of its unit, they run on; after a restart of theirs, and after a
/// reboot, they are back; and
/// `hostd uninstall` leaves nothing.
pub(super) fn dynos_outlive_hostd(context: &Context<'_>) -> Result<()> {
    let disk = context.kit.new_systemd_disk(context.name)?;
    let vm = Vm::boot(context.kit, context.name, disk, &Options::default())?;
    until_up(&vm)?;
    let host = Host { vm: &vm };
    host.explain(install(&host))?;
    host.explain(limits_hold_in_the_delegated_cgroup(&host))?;
    host.explain(the_same_processes_run_on(&host))?;
    host.explain(systemd_is_told_and_holds_the_socket(&host))?;
    host.explain(a_restart_of_their_unit_brings_them_back(&host))?;
    let id = host.explain(host.inspect("always"))?.id;

    let disk = vm.shut_down()?;
    let vm = Vm::boot(context.kit, context.name, disk, &Options::default())?;
    until_up(&vm)?;
    let host = Host { vm: &vm };
    host.explain((|| {
        let always = host.wait_for("always", Phase::Running)?;
        ensure!(always.id == id, "it came back as another: {}", always.id);
        ensure!(
            host.cgroup(&always)?.starts_with(DELEGATED),
            "it came back in {}",
            host.cgroup(&always)?
        );
        uninstall(&host)
    })())?;
    vm.shut_down()?;
    Ok(())
}

/// Everything that starts at boot has started.
pub(super) fn until_up(vm: &Vm) -> Result<()> {
    // `degraded`: a unit failed. Which one is told where the rest of the test fails.
    let up = "systemctl is-system-running --wait | grep -xE 'running|degraded'";
    let request = Request::new(&["sh", "-c", up]).deadline(SYSTEM_UP);
    vm.request(request)?.text().context("booting systemd")?;
    Ok(())
}

/// As a person does it: the next command already finds hostd.
fn install(host: &Host<'_>) -> Result<()> {
    // Who tried it first has a hostd that `dyno` started, which stays until it is ended.
    // Its first start loads modules, for longer than `dyno` waits on a busy machine.
    host.vm.wait_until("hostd answers", PATIENCE, "dyno info")?;
    host.run_detached("early", &[], &["sleep", "100000"])?;
    let refused = host.vm.run(&["hostd", "install"])?;
    ensure!(!refused.success(), "two of them: {refused}");
    host.vm
        .sh("pkill -TERM -x hostd; while pgrep -x hostd; do sleep 0.1; done")?
        .text()?;
    host.vm.run(&["hostd", "install"])?.text()?;
    without_starting_one(host, &["ps"])?.text()?;
    active(host)?;
    let delegate = "systemctl show --property Delegate --value dyno";
    let delegate = host.vm.sh(delegate)?.text()?;
    ensure!(delegate == "yes", "dyno.service has Delegate={delegate}");
    let own = host.read(&format!("{DELEGATED}/cgroup.procs"))?;
    ensure!(own.is_empty(), "processes in the way of controllers: {own}");
    host.wait_for("early", Phase::Running)?;
    // Where it was started, not where hostd now starts others.
    let stats = host.dyno(&["stats", "--no-stream", "--json", "early"])?;
    let stats: serde_json::Value = stats.json()?;
    ensure!(stats[0]["memory_bytes"].as_u64() > Some(0), "{stats}");
    host.dyno(&["rm", "--force", "early"])?.text()?;
    Ok(())
}

/// `dyno` that finds hostd or fails.
fn without_starting_one(host: &Host<'_>, arguments: &[&str]) -> Result<Output> {
    let argv = [&["dyno"][..], arguments].concat();
    host.vm
        .request(Request::new(&argv).env("DYNO_AUTOSTART", "0"))
}

fn active(host: &Host<'_>) -> Result<()> {
    let script = "systemctl is-active hostd dyno && DYNO_AUTOSTART=0 dyno ps";
    host.vm.wait_until("hostd is active", PATIENCE, script)?;
    Ok(())
}

/// Limits are the kernel's in the subtree that systemd gave away, and one
/// dyno's death by its limit is that dyno's alone.
fn limits_hold_in_the_delegated_cgroup(host: &Host<'_>) -> Result<()> {
    let flags = ["--restart", "always", "-m", "48M", "--pids", "20"];
    host.run_detached("always", &flags, &["sleep", "100000"])?;
    limits::memory(host)?;
    let cgroup = host.cgroup(&host.wait_for("always", Phase::Running)?)?;
    ensure!(cgroup.starts_with(DELEGATED), "it runs in {cgroup}");
    host.dyno(&["limit", "--io", "read=5M", "always"])?.text()?;
    let told = host.vm.sh(&format!("cat {cgroup}/io.max"))?.text()?;
    ensure!(told.contains("rbps=5242880"), "io.max is {told:?}");
    Ok(())
}

/// Nothing that happens to hostd or to systemd itself reaches the dynos.
fn the_same_processes_run_on(host: &Host<'_>) -> Result<()> {
    let before = Processes::of(host, &["always", "bounded"])?;
    let unchanged = |what: &str| before.run_on(host).with_context(|| format!("after {what}"));

    host.vm
        .sh("systemctl daemon-reload; systemctl daemon-reexec")?
        .text()?;
    unchanged("daemon-reload")?;
    // What systemd does with the tree of a slice when a unit comes and goes.
    host.vm
        .sh(
            "systemctl set-property --runtime system.slice MemoryLow=1M CPUWeight=200\n\
             systemctl set-property --runtime dyno.service MemoryLow=1M",
        )?
        .text()?;
    unchanged("set-property")?;

    host.vm.sh("systemctl restart hostd")?.text()?;
    active(host)?;
    unchanged("a restart")?;

    for _ in 0..MANY {
        kill_hostd(host)?;
    }
    active(host)?;
    unchanged("hostd was killed")?;

    host.vm.sh("systemctl stop hostd")?.text()?;
    unchanged("a stop")?;
    // Who stopped it does not want it back, least of all beside the unit.
    let refused = host.dyno(&["ps"])?;
    ensure!(!refused.success(), "dyno started a hostd: {refused}");
    host.vm.sh("systemctl start hostd")?.text()?;
    without_starting_one(host, &["ps"])?.text()?;
    unchanged("a start")?;

    let copies = "mkdir /root/new; cd /usr/local/bin; cp hostd dyno dyno-* /root/new";
    host.vm.sh(copies)?.text()?;
    let said = host.vm.run(&["hostd", "upgrade", "/root/new"])?.text()?;
    ensure!(said.contains("hostd was restarted"), "{said}");
    active(host)?;
    unchanged("an upgrade")?;

    // It can say what it is, and no more.
    let broken = "cd /root/new; version=$(./hostd --version); rm hostd\n\
                  printf '#!/bin/sh\\n[ $1 = --version ] && echo \"%s\"\\n' \"$version\" >hostd\n\
                  chmod 755 hostd; exec hostd upgrade /root/new";
    let request = Request::new(&["sh", "-ec", broken]).deadline(SYSTEM_UP);
    let refused = host.vm.request(request)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.success() && said.contains("does not work, and") && said.contains("is back"),
        "a broken release: {refused}"
    );
    active(host)?;
    unchanged("a broken release was tried")?;
    host.dyno(&["exec", "always", "true"])?.text()?;
    Ok(())
}

/// The watchdog, the journal's fields, and a socket that starts hostd.
fn systemd_is_told_and_holds_the_socket(host: &Host<'_>) -> Result<()> {
    let always = host.wait_for("always", Phase::Running)?;
    let watchdog = "systemctl show --property WatchdogUSec --value hostd";
    let watchdog = host.vm.sh(watchdog)?.text()?;
    ensure!(watchdog == "2min", "the watchdog waits for {watchdog}");
    let told = format!("journalctl -u hostd DYNO_ID={} -o cat", always.id);
    let told = host.vm.sh(&told)?.text()?;
    ensure!(told.contains("taken up"), "the journal has {told:?}");
    host.vm.sh("systemctl reload hostd")?.text()?;
    active(host)?;

    host.vm
        .run(&["hostd", "install", "--socket-activation"])?
        .text()?;
    active(host)?;
    host.vm.sh("systemctl stop hostd")?.text()?;
    without_starting_one(host, &["ps"])?.text()?;
    active(host)?;
    kill_hostd(host)?;
    without_starting_one(host, &["ps"])?.text()?;
    let mode = host.vm.sh("stat -c %a /run/dyno/hostd.sock")?.text()?;
    ensure!(mode == "660", "the socket has mode {mode}");
    let after = host.wait_for("always", Phase::Running)?;
    ensure!(after.status.pid == always.status.pid, "it was restarted");
    Ok(())
}

/// systemd ends them with their unit; nobody has asked for a dyno's end.
fn a_restart_of_their_unit_brings_them_back(host: &Host<'_>) -> Result<()> {
    let before = host.wait_for("always", Phase::Running)?;
    host.vm.sh("systemctl restart dyno")?.text()?;
    active(host)?;
    let after = host.wait_for("always", Phase::Running)?;
    ensure!(
        after.status.pid != before.status.pid,
        "it was not ended at all"
    );
    Ok(())
}

/// Kills hostd, which may be on its way up, and waits for systemd's next one.
fn kill_hostd(host: &Host<'_>) -> Result<()> {
    let pid = "systemctl show --property MainPID --value hostd";
    let old = host.vm.sh(pid)?.text()?;
    let script = format!("kill -KILL {old}");
    host.vm.sh(&script)?.text()?;
    let again = format!("pid=$({pid}); test $pid != 0 && test $pid != {old}");
    host.vm
        .wait_until("systemd starts it again", PATIENCE, &again)?;
    Ok(())
}

/// First processes of dynos and their monitors, by pid and time of start, and
/// what the kernel has of their limits.
struct Processes {
    /// Prints the same as long as nothing changed.
    look: String,
    seen: String,
}

impl Processes {
    fn of(host: &Host<'_>, names: &[&str]) -> Result<Self> {
        let mut look = "cd /sys/fs/cgroup\n".to_owned();
        for name in names {
            let dyno = host.inspect(name)?;
            let cgroup = host.cgroup(&dyno)?;
            let (pid, monitor) = (dyno.status.pid, dyno.status.monitor_pid);
            for pid in [pid, monitor] {
                let pid = pid.with_context(|| format!("{name} lacks a process"))?;
                // The 22nd field is the time of start: a pid may be used again.
                look += &format!("cut -d' ' -f1-2,22 /proc/{pid}/stat; cat /proc/{pid}/cgroup\n");
            }
            look += &format!("cd {cgroup}; cat memory.max pids.max cpu.max memory.oom.group\n");
        }
        look += &format!("cat {DELEGATED}/cgroup.subtree_control\n");
        let seen = host.vm.sh(&look)?.text()?;
        Ok(Self { look, seen })
    }

    fn run_on(&self, host: &Host<'_>) -> Result<()> {
        let now = host.vm.sh(&self.look)?.text()?;
        ensure!(now == self.seen, "this was\n{}\nand is\n{now}", self.seen);
        Ok(())
    }
}

/// No unit, process or cgroup is left.
fn uninstall(host: &Host<'_>) -> Result<()> {
    host.vm.run(&["hostd", "uninstall"])?.text()?;
    let left = "systemctl list-units --all --plain --no-legend 'dyno*' 'hostd*'\n\
                systemctl list-unit-files --no-legend 'dyno*' 'hostd*' || true\n\
                find /etc/systemd /sys/fs/cgroup -name '*dyno*' -o -name 'hostd*'\n\
                ps -eo pid,comm | grep -E 'dyno-(runtime|edge)|hostd' || true\n\
                pgrep -xa sleep || true";
    let left = host.vm.sh(left)?.text()?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    Ok(())
}
