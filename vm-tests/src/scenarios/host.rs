//! The command line of a host in the guest, typed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dyno_api::dyno::{Dyno, Phase};

use crate::vm::{Output, Request, Vm};

/// A virtual machine with `hostd`, which `dyno` starts where init does not.
#[derive(Debug)]
pub(super) struct Host<'vm> {
    pub(super) vm: &'vm Vm,
}

/// How long hostd may take to answer after a boot, and a dyno to change its
/// phase: a bound for "never", not a measure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

impl<'vm> Host<'vm> {
    /// A host whose hostd `dyno` starts by itself.
    pub(super) fn new(vm: &'vm Vm) -> Result<Self> {
        let host = Self { vm };
        host.dyno(&["info"])?
            .text()
            .context("the first command on a fresh host")?;
        Ok(host)
    }

    /// A host whose hostd init starts: waits for it, so as not to start another.
    pub(super) fn booted(vm: &'vm Vm) -> Result<Self> {
        vm.wait_until(
            "hostd at boot",
            PATIENCE,
            "test -S /run/dyno/hostd.sock && dyno info",
        )?;
        Ok(Self { vm })
    }

    /// `dyno` with these arguments.
    pub(super) fn dyno(&self, arguments: &[&str]) -> Result<Output> {
        let mut argv = vec!["dyno"];
        argv.extend(arguments);
        self.vm.request(Request::new(&argv))
    }

    /// Starts a dyno in the background; `flags` come before the image.
    pub(super) fn run_detached(&self, name: &str, flags: &[&str], command: &[&str]) -> Result<()> {
        let mut argv = vec!["run", "-d", "--name", name];
        argv.extend(flags);
        argv.push("host");
        argv.extend(command);
        self.dyno(&argv)?.text()?;
        Ok(())
    }

    /// What `inspect` says.
    pub(super) fn inspect(&self, name: &str) -> Result<Dyno> {
        self.dyno(&["inspect", "--json", name])?.json()
    }

    /// Every dyno, running or not.
    pub(super) fn list(&self) -> Result<Vec<Dyno>> {
        self.dyno(&["ps", "--all", "--json"])?.json()
    }

    /// Waits until a dyno is in a phase.
    pub(super) fn wait_for(&self, name: &str, phase: Phase) -> Result<Dyno> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let dyno = self.inspect(name)?;
            if dyno.status.phase == phase {
                return Ok(dyno);
            }
            if std::time::Instant::now() > deadline {
                bail!(
                    "{name} is not {phase:?} within {PATIENCE:?}: {:#?}",
                    dyno.status
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The folder of a running dyno's cgroup, by what the kernel says of its first process.
    pub(super) fn cgroup(&self, dyno: &Dyno) -> Result<String> {
        let pid = dyno
            .status
            .pid
            .with_context(|| format!("{} has no pid", dyno.name))?;
        let line = self
            .vm
            .run(&["cat", &format!("/proc/{pid}/cgroup")])?
            .text()?;
        let path = line
            .strip_prefix("0::/")
            .with_context(|| format!("not pure v2: {line}"))?;
        Ok(format!("/sys/fs/cgroup/{path}"))
    }

    /// Reads a file of the guest.
    pub(super) fn read(&self, path: &str) -> Result<String> {
        self.vm.run(&["cat", path])?.text()
    }
}
