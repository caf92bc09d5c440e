//! Looks at the machine: has it what dynos need, and if not, what is to be done?
//!
//! ```text
//!  kernel    its release, namespaces, seccomp, file systems, what network needs
//!  cgroups   their layout, controllers
//!  limits    open files, processes, watches, keys, tracked connections
//!  storage   room for images and logs, and a file system that layers can lie on
//!  clock     somebody keeps it
//!  programs  those that hostd executes, and of others' that some features need
//! ```
//!
//! Each check is a function of what was read, and says in words what was found and
//! what to do. Nothing is changed, and none waits for anybody, but that of
//! DNS in a hostd's first moments.

mod clock;
mod kernel;
mod limits;
mod programs;
mod storage;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dyno_api::doctor::{CheckState, HostCheck};
use dyno_runtime::cgroup::{self, Controller, Layout};
use jiff::Timestamp;

use crate::config::Serve;
use crate::host::Host;

/// How long after its start a hostd may not have asked the edge for a name yet.
const FIRST_MOMENTS: Duration = Duration::from_secs(10);

/// Why `hostd doctor` fails.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// Dynos do not run here, or not all that they are promised.
    #[error("{0} of what dynos need is missing here")]
    Missing(usize),
    /// The findings could not be written.
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// Everything that can be seen without a hostd.
#[must_use]
pub fn examine(options: &Serve) -> Vec<HostCheck> {
    let mut checks = vec![privileges()];
    checks.extend(kernel::checks());
    checks.push(cgroups());
    checks.extend(limits::checks());
    checks.extend(storage::checks(&options.state_dir));
    checks.push(clock::check());
    checks.extend(programs::checks(options));
    checks
}

/// Whether names are answered. The edge starts beside hostd, which says so once it has
/// asked it: in a hostd's first moments that is waited for.
async fn answers(host: &Host) -> bool {
    let age = Timestamp::now().duration_since(host.started).unsigned_abs();
    let deadline = Instant::now() + FIRST_MOMENTS.saturating_sub(age);
    while !host.dns.load(Ordering::Relaxed) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

/// What only a hostd that runs knows.
pub(crate) async fn running(host: &Host) -> Vec<HostCheck> {
    const DNS: &str = "DNS";
    let dns = match answers(host).await {
        false => HostCheck::failure(DNS, "no dyno finds another by its name")
            .advise("hostd's log says why: journalctl -u hostd, or hostd.log in its run folder"),
        true if host.resolvers().is_empty() => {
            HostCheck::warning(DNS, "dynos find each other and no outside name")
                .advise("name a resolver in /etc/resolv.conf and restart hostd")
        }
        true => HostCheck::ok(DNS, "answers"),
    };
    let findings = host.network.findings().await;
    let network = match findings.is_empty() {
        true => HostCheck::ok("network", "as it should be"),
        false => HostCheck::warning("network", findings.join("; "))
            .advise("docs/network.md, \"Other people's firewalls\", has what to change"),
    };
    vec![dns, network, audit(host)]
}

/// Whether changes leave their trace.
fn audit(host: &Host) -> HostCheck {
    const NAME: &str = "audit log";
    match host.audit.trouble() {
        None => HostCheck::ok(NAME, "changes leave their trace"),
        Some(trouble) => HostCheck::failure(NAME, format!("changes are refused: {trouble}"))
            .advise("free space on the disk of the state folder, or mend it; hostd tries again"),
    }
}

/// Writes what was found to the standard output, as text or JSON.
///
/// # Errors
/// [`Unwell::Missing`] where there is a failure among it.
pub fn tell(checks: &[HostCheck], json: bool) -> Result<(), Unwell> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, checks).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for check in checks {
            let state = match check.state {
                CheckState::Ok => "ok",
                CheckState::Warning => "warning",
                CheckState::Failure => "FAILURE",
            };
            writeln!(out, "{state:8} {}: {}", check.name, check.found)?;
            if let Some(advice) = &check.advice {
                writeln!(out, "         {advice}")?;
            }
        }
    }
    let failed = |check: &&HostCheck| check.state == CheckState::Failure;
    match checks.iter().filter(failed).count() {
        0 => Ok(()),
        failures => Err(Unwell::Missing(failures)),
    }
}

fn privileges() -> HostCheck {
    const NAME: &str = "privileges";
    match rustix::process::geteuid().is_root() {
        true => HostCheck::ok(NAME, "root"),
        false => HostCheck::failure(NAME, "not root: hostd does not start")
            .advise("run hostd, and this, as root: sudo dyno doctor"),
    }
}

fn cgroups() -> HostCheck {
    const NAME: &str = "cgroups";
    let layout = match cgroup::detect() {
        Ok(layout) => layout,
        Err(error) => {
            return HostCheck::failure(NAME, crate::durable::chain(&error))
                .advise("mount -t cgroup2 none /sys/fs/cgroup");
        }
    };
    let here = layout.v2().map(read_controllers).unwrap_or_default();
    let missing: Vec<&str> = [
        Controller::Cpu,
        Controller::Memory,
        Controller::Pids,
        Controller::Io,
    ]
    .into_iter()
    .filter(|controller| layout.v1(*controller).is_none())
    .map(Controller::name)
    .filter(|name| !here.split_whitespace().any(|here| here == *name))
    .collect();
    if !missing.is_empty() {
        return HostCheck::failure(NAME, format!("no controller {}", missing.join(", "))).advise(
            "the kernel's command line may forbid it: see cgroup_disable= in /proc/cmdline",
        );
    }
    match layout {
        Layout::Unified { .. } => HostCheck::ok(NAME, "v2"),
        Layout::Hybrid { .. } | Layout::Legacy { .. } => {
            HostCheck::warning(NAME, "v1 enforces limits; v2 alone is the better host")
                .advise("boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line")
        }
    }
}

/// What a delegated tree may hand down: nothing where it cannot be read.
fn read_controllers(base: &Path) -> String {
    fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default()
}

/// A number of a file of procfs or sysfs.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Action, Command};

    #[test]
    fn everything_has_a_name_of_its_own_and_what_is_not_well_has_advice() {
        let command = Command::try_parse_from(["hostd", "doctor", "--state-dir", "/tmp"]).unwrap();
        let Action::Doctor(doctor) = command.action else {
            panic!()
        };
        let checks = examine(&doctor.serve);
        let mut names: Vec<_> = checks.iter().map(|check| &check.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), checks.len(), "{checks:?}");
        for check in &checks {
            let well = check.state == dyno_api::doctor::CheckState::Ok;
            assert_eq!(well, check.advice.is_none(), "{check:?}");
        }
    }
}
