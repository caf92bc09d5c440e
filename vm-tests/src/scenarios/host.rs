//! The command line of a host in the guest, typed.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use dyno_api::dyno::{Dyno, Phase};

use super::Context;
use crate::vm::{Options, Output, Request, Silent, Vm};

/// Runs `test` on a machine of its own whose hostd `dyno` starts by itself.
pub(super) fn on_a_host(context: &Context<'_>, test: fn(&Host<'_>) -> Result<()>) -> Result<()> {
    let vm = context.boot(&Options::default())?;
    let host = Host { vm: &vm };
    // The very first start loads modules: on a busy machine `dyno` gives up waiting before.
    host.explain(vm.wait_until("hostd answers", PATIENCE, "dyno info"))?;
    host.explain(test(&host))
}

/// A virtual machine with `hostd`, which `dyno` starts where init does not.
#[derive(Debug)]
pub(super) struct Host<'vm> {
    pub(super) vm: &'vm Vm,
}

/// What is worth knowing about a host on which a promise was not kept.
const DIAGNOSIS: &str = r"
echo '--- dyno ps --all'; timeout 10 dyno ps --all 2>&1
for file in /run/dyno/hostd.log /var/lib/dyno/dynos/*/log /run/dyno/dynos/*/state.json; do
    [ -f $file ] && echo --- $file && tail -n 20 $file
done
echo '--- processes'; ps -o pid,ppid,stat,args | grep -v '\['
echo '--- cgroups'
for file in $(find /sys/fs/cgroup -path '*dyno*' -name cgroup.procs); do
    echo $file: $(cat $file) '|' $(cat ${file%procs}events)
done
echo '--- mounts'; grep dyno /proc/mounts
echo '--- nft'; nft list ruleset | head -n 60
";

/// How long hostd may take to answer after a boot, and a dyno to change its
/// phase: a bound for "never", not a measure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

impl<'vm> Host<'vm> {
    /// A host whose hostd init starts: waits for it, so as not to start another.
    pub(super) fn booted(vm: &'vm Vm) -> Result<Self> {
        let host = Self { vm };
        let answers = "test -S /run/dyno/hostd.sock && dyno info";
        host.explain(vm.wait_until("hostd at boot", PATIENCE, answers))?;
        Ok(host)
    }

    /// Adds what the host looks like to a failure.
    pub(super) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if error.is::<Silent>() {
                return error;
            }
            match self.vm.run(&["/bin/sh", "-c", DIAGNOSIS]) {
                Ok(output) => anyhow!("{error:#}\n{}", String::from_utf8_lossy(&output.stdout)),
                Err(silence) => anyhow!("{error:#}\nand no diagnosis: {silence:#}"),
            }
        })
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
