//! What runs inside the virtual machine.
//!
//! busybox init is PID 1 and reaps orphans, as systemd would. Its inittab
//! runs `dyno-vm-guest setup` once, then keeps `agent` and `hostd` alive.

mod agent;
mod setup;

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Word on the kernel's command line that asks for hostd at boot.
pub const HOSTD_AT_BOOT: &str = "dyno.hostd";

/// Word that says that the host's state has a disk of its own.
pub const STATE_ON_DISK: &str = "dyno.state";

/// The inittab of the guest. An empty id field leaves the console to the entry.
pub const INITTAB: &str = "\
::sysinit:/usr/sbin/dyno-vm-guest setup
::respawn:/usr/sbin/dyno-vm-guest agent
::respawn:/usr/sbin/dyno-vm-guest hostd
::askfirst:-/bin/sh
::shutdown:/etc/shutdown
";

/// Ends everything as systemd would: ask, wait at most ten seconds, insist, and
/// only then take the disk away. Kernel threads have an empty command line.
pub const SHUTDOWN: &str = "\
#!/bin/sh
others() {
    for file in /proc/[0-9]*/cmdline; do
        case $file in /proc/1/*|/proc/$$/*) continue ;; esac
        [ -n \"$(tr -d '\\0' <$file 2>/dev/null)\" ] && return 0
    done
    return 1
}
kill -TERM -1
tries=0
while others && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    usleep 100000
done
kill -KILL -1
sync
umount -a -r
";

/// The guest's program: `setup`, `agent` or `hostd`.
///
/// # Errors
/// When the machine cannot be set up, or the harness hangs up.
pub fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("setup") => setup::machine(),
        Some("agent") => agent::serve(),
        Some("hostd") => hostd(),
        other => bail!("expected setup, agent or hostd, not {other:?}"),
    }
}

/// Becomes hostd where it was asked for.
fn hostd() -> Result<()> {
    if !asked_for(HOSTD_AT_BOOT)? {
        idle();
    }
    Err(Command::new("/usr/bin/hostd").arg("serve").exec()).context("executing hostd")
}

/// Whether the kernel's command line has this word.
fn asked_for(word: &str) -> Result<bool> {
    let cmdline = std::fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    Ok(cmdline.split_whitespace().any(|asked| asked == word))
}

/// Keeps init from starting again what this machine does not need.
fn idle() -> ! {
    loop {
        std::thread::park();
    }
}
