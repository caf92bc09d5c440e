//! What the parent sets on a process that is set up and not yet started.

use std::os::fd::OwnedFd;

use oci_spec::runtime as oci;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::sched_setaffinity;

use crate::rootless;
use crate::spec::process::{affinity, io_priority, schedule};
use crate::sys::schedule::{set_io_priority, set_schedule};

use super::Error;
use super::namespaces::{proc_folder, write_proc};

/// Gives a terminal its first size, before anybody can look at it.
pub(super) fn size_terminal(master: &OwnedFd, process: &oci::Process) -> Result<(), Error> {
    let Some(size) = process.console_size() else {
        return Ok(());
    };
    let cells = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: cells(size.height()),
        ws_col: cells(size.width()),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).map_err(Error::system("set the terminal's size"))
}

/// Sets resource limits, OOM score and how it is scheduled: from outside, because
/// inside a user namespace none can be raised, and after the set-up, which must
/// not run into them. CPUs are for `further` processes only.
pub(super) fn set(pid: Pid, process: &oci::Process, further: bool) -> Result<(), Error> {
    if let Some(schedule) = schedule(process)? {
        set_schedule(pid, &schedule).map_err(Error::system("set process.scheduler"))?;
    }
    if let Some((class, level)) = io_priority(process)? {
        set_io_priority(pid, class, level).map_err(Error::system("set process.ioPriority"))?;
    }
    if let Some(cpus) = affinity(process)?.in_cgroup.filter(|_| further) {
        sched_setaffinity(Some(pid), &cpus)
            .map_err(Error::system("set process.execCPUAffinity.final"))?;
    }
    for rlimit in process.rlimits().iter().flatten() {
        let (resource, limit) = kernels(rlimit);
        prlimit(Some(pid), resource, limit).map_err(Error::system("set a resource limit"))?;
    }
    if let Some(score) = process.oom_score_adj() {
        match write_proc(&proc_folder(pid)?, "oom_score_adj", &score.to_string()) {
            // To be spared more than one's own is for the host's root to grant. As
            // with runc nobody else is refused for asking.
            Err(error)
                if error.kind() == std::io::ErrorKind::PermissionDenied
                    && rootless::is_ordinary() => {}
            set => set.map_err(Error::system("set the OOM score"))?,
        }
    }
    Ok(())
}

/// A resource limit in the kernel's words.
pub(super) fn kernels(rlimit: &oci::PosixRlimit) -> (Resource, Rlimit) {
    let value = |value: u64| (value != u64::MAX).then_some(value);
    let limit = Rlimit {
        current: value(rlimit.soft()),
        maximum: value(rlimit.hard()),
    };
    (resource(rlimit.typ()), limit)
}

fn resource(kind: oci::PosixRlimitType) -> Resource {
    use oci::PosixRlimitType as Type;
    match kind {
        Type::RlimitCpu => Resource::Cpu,
        Type::RlimitFsize => Resource::Fsize,
        Type::RlimitData => Resource::Data,
        Type::RlimitStack => Resource::Stack,
        Type::RlimitCore => Resource::Core,
        Type::RlimitRss => Resource::Rss,
        Type::RlimitNproc => Resource::Nproc,
        Type::RlimitNofile => Resource::Nofile,
        Type::RlimitMemlock => Resource::Memlock,
        Type::RlimitAs => Resource::As,
        Type::RlimitLocks => Resource::Locks,
        Type::RlimitSigpending => Resource::Sigpending,
        Type::RlimitMsgqueue => Resource::Msgqueue,
        Type::RlimitNice => Resource::Nice,
        Type::RlimitRtprio => Resource::Rtprio,
        Type::RlimitRttime => Resource::Rttime,
    }
}
