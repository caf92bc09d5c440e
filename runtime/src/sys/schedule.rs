//! When and where a process runs, and how much it may have: `sched_setattr(2)`,
//! `ioprio_set(2)`, `set_mempolicy(2)`, `personality(2)`, `prlimit(2)`; and the clock that it
//! reads, `adjtimex(2)`.

use rustix::io::Result;
use rustix::process::{Pid, Resource, Rlimit};

use super::done;

/// What `sched_setattr(2)` sets, `struct sched_attr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// `SCHED_*`.
    pub(crate) policy: u32,
    /// `SCHED_FLAG_*`.
    pub(crate) flags: u64,
    /// For the policies that share.
    pub(crate) nice: i32,
    /// For the policies of real time.
    pub(crate) priority: u32,
    /// Nanoseconds in each period, for `SCHED_DEADLINE`.
    pub(crate) runtime: u64,
    /// Nanoseconds from the beginning of a period.
    pub(crate) deadline: u64,
    /// Nanoseconds.
    pub(crate) period: u64,
}

/// Sets how a process is scheduled.
pub(crate) fn set_schedule(pid: Pid, schedule: &Schedule) -> Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default(),
        sched_policy: schedule.policy,
        sched_flags: schedule.flags,
        sched_nice: schedule.nice,
        sched_priority: schedule.priority,
        sched_runtime: schedule.runtime,
        sched_deadline: schedule.deadline,
        sched_period: schedule.period,
    };
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: the structure is alive during the call and says its own size.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) })
}

/// Sets the I/O priority of a process: a class and a level in it.
pub(crate) fn set_io_priority(pid: Pid, class: u16, level: u16) -> Result<()> {
    /// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_SHIFT` of `<linux/ioprio.h>`.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    let pid = pid.as_raw_nonzero().get();
    let priority = libc::c_int::from(class) << CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: takes numbers only.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, priority) })
}

/// Soft and hard value of a resource limit of a process, `prlimit(2)`. Those of other
/// processes are for who may set them.
pub(crate) fn rlimit(pid: Pid, resource: Resource) -> Result<Rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: nothing is set where the new value is null; the old one is written into a
    // structure that is alive during the call.
    let told = unsafe { libc::prlimit(pid, resource as _, std::ptr::null(), &raw mut limit) };
    done(told.into())?;
    let value = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Rlimit {
        current: value(limit.rlim_cur),
        maximum: value(limit.rlim_max),
    })
}

/// Memory nodes that a kernel can have at most.
pub(crate) const NODES_MAX: usize = 1024;

/// A bit for each node.
pub(crate) type Nodes = [u64; NODES_MAX / 64];

/// Sets where this process' memory comes from; `mode` holds the flags, too.
pub(crate) fn set_memory_policy(mode: libc::c_int, nodes: Option<&Nodes>) -> Result<()> {
    let (mask, bits) = match nodes {
        // The kernel reads one bit less than it is told of.
        Some(nodes) => (nodes.as_ptr(), NODES_MAX + 1),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: the mask is alive during the call and holds as many bits, but for
    // the one that is not read.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// How the clock is kept; nothing is changed.
pub(crate) fn adjtimex() -> Result<libc::timex> {
    // SAFETY: all of its fields are numbers.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is alive during the call, and a mode of 0 sets nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    done(state.into()).map(|()| timex)
}

/// Sets this process' execution domain.
pub(crate) fn set_personality(persona: libc::c_ulong) -> Result<()> {
    // SAFETY: takes a number only.
    done(unsafe { libc::syscall(libc::SYS_personality, persona) })
}
