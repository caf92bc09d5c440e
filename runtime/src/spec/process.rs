//! When, where and as what a process runs, as the kernel's numbers.

use std::ffi::CString;

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType as MemoryFlag,
    MemoryPolicyModeType as MemoryMode, PosixRlimit, Process, Scheduler,
};
use rustix::thread::CpuSet;

use super::{SpecError, ranges};
use crate::sys::schedule::{NODES_MAX, Nodes, Schedule};

/// Checks what the properties of a process cannot be.
pub(super) fn check(process: &Process) -> Result<(), SpecError> {
    schedule(process)?;
    io_priority(process)?;
    affinity(process)?;
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        return invalid("process.oomScoreAdj", score.to_string(), "-1000 to 1000");
    }
    Ok(())
}

/// The same for what all processes of a container have.
pub(super) fn check_linux(linux: &Linux) -> Result<(), SpecError> {
    memory_policy(linux)?;
    personality(linux).map(drop)
}

/// `process.scheduler`.
pub(crate) fn schedule(process: &Process) -> Result<Option<Schedule>, SpecError> {
    let Some(scheduler) = process.scheduler() else {
        return Ok(None);
    };
    let policy = match scheduler.policy() {
        Policy::SchedOther => libc::SCHED_OTHER,
        Policy::SchedFifo => libc::SCHED_FIFO,
        Policy::SchedRr => libc::SCHED_RR,
        Policy::SchedBatch => libc::SCHED_BATCH,
        Policy::SchedIdle => libc::SCHED_IDLE,
        Policy::SchedDeadline => libc::SCHED_DEADLINE,
        Policy::SchedIso => {
            let expected = "a policy that Linux has: it never got this one";
            return invalid("process.scheduler.policy", "SCHED_ISO".to_owned(), expected);
        }
    };
    check_scheduler(scheduler)?;
    let flags = scheduler.flags().iter().flatten();
    let flags = flags
        .map(|flag| flag_bit(*flag))
        .fold(0, |all, bit| all | bit);
    let priority = scheduler.priority().unwrap_or(0);
    Ok(Some(Schedule {
        policy: policy.cast_unsigned(),
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: priority.cast_unsigned(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }))
}

/// What the kernel would ignore, or say no more of than "invalid".
fn check_scheduler(scheduler: &Scheduler) -> Result<(), SpecError> {
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return invalid("process.scheduler.nice", nice.to_string(), "-20 to 19");
    }
    let real_time = matches!(scheduler.policy(), Policy::SchedFifo | Policy::SchedRr);
    let priority = scheduler.priority().unwrap_or(0);
    let (range, expected) = if real_time {
        (1..=99, "1 to 99 for SCHED_FIFO and SCHED_RR")
    } else {
        (0..=0, "0 but for SCHED_FIFO and SCHED_RR")
    };
    if !range.contains(&priority) {
        return invalid("process.scheduler.priority", priority.to_string(), expected);
    }
    if *scheduler.policy() == Policy::SchedDeadline {
        return Ok(());
    }
    for (property, value) in [
        ("process.scheduler.runtime", scheduler.runtime()),
        ("process.scheduler.deadline", scheduler.deadline()),
        ("process.scheduler.period", scheduler.period()),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            return invalid(property, value.to_string(), "none but for SCHED_DEADLINE");
        }
    }
    Ok(())
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    // SCHED_FLAG_* of `<linux/sched.h>`.
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// `process.ioPriority`: class and level.
pub(crate) fn io_priority(process: &Process) -> Result<Option<(u16, u16)>, SpecError> {
    let Some(priority) = process.io_priority() else {
        return Ok(None);
    };
    let level = u16::try_from(priority.priority())
        .ok()
        .filter(|level| *level < 8);
    let Some(level) = level else {
        let value = priority.priority().to_string();
        return invalid("process.ioPriority.priority", value, "0 to 7");
    };
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(Some((class, level)))
}

/// CPUs of a further process: before it is in its cgroup, and in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Affinity {
    pub(crate) initial: Option<CpuSet>,
    pub(crate) in_cgroup: Option<CpuSet>,
}

/// `process.execCPUAffinity`.
pub(crate) fn affinity(process: &Process) -> Result<Affinity, SpecError> {
    let affinity = process.exec_cpu_affinity().as_ref();
    let list = |property, list: fn(&ExecCPUAffinity) -> &Option<String>| {
        let list = affinity.and_then(|affinity| list(affinity).as_deref());
        list.map(|list| cpus(property, list)).transpose()
    };
    Ok(Affinity {
        initial: list("process.execCPUAffinity.initial", ExecCPUAffinity::initial)?,
        in_cgroup: list(
            "process.execCPUAffinity.final",
            ExecCPUAffinity::cpu_affinity_final,
        )?,
    })
}

fn cpus(property: &'static str, list: &str) -> Result<CpuSet, SpecError> {
    let Some(numbers) = ranges::parse(list, CpuSet::MAX_CPU) else {
        return invalid(
            property,
            list.to_owned(),
            "a list such as 0-3,7 of CPUs below 1024",
        );
    };
    let mut cpus = CpuSet::new();
    numbers.into_iter().for_each(|cpu| cpus.set(cpu));
    Ok(cpus)
}

/// Where memory comes from, as `set_mempolicy(2)` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// The mode, with its flags.
    pub(crate) mode: libc::c_int,
    /// The nodes, where the mode has any.
    pub(crate) nodes: Option<Box<Nodes>>,
}

/// `linux.memoryPolicy`.
pub(crate) fn memory_policy(linux: &Linux) -> Result<Option<MemoryPolicy>, SpecError> {
    let Some(policy) = linux.memory_policy() else {
        return Ok(None);
    };
    let list = policy.nodes().as_deref().filter(|list| !list.is_empty());
    // MPOL_* of `<linux/mempolicy.h>`; which of them take nodes.
    let (mode, nodes) = match policy.mode() {
        MemoryMode::MpolDefault => (0, Some(false)),
        MemoryMode::MpolPreferred => (1, None),
        MemoryMode::MpolBind => (2, Some(true)),
        MemoryMode::MpolInterleave => (3, Some(true)),
        MemoryMode::MpolLocal => (4, Some(false)),
        MemoryMode::MpolPreferredMany => (5, Some(true)),
        MemoryMode::MpolWeightedInterleave => (6, Some(true)),
    };
    if nodes.is_some_and(|nodes| nodes != list.is_some()) {
        let expected = match list {
            Some(_) => "no nodes with this mode",
            None => "nodes with this mode",
        };
        return invalid(
            "linux.memoryPolicy.nodes",
            policy.mode().to_string(),
            expected,
        );
    }
    let flags = policy.flags().iter().flatten().map(|flag| match flag {
        MemoryFlag::MpolFNumaBalancing => libc::MPOL_F_NUMA_BALANCING,
        MemoryFlag::MpolFRelativeNodes => libc::MPOL_F_RELATIVE_NODES,
        MemoryFlag::MpolFStaticNodes => libc::MPOL_F_STATIC_NODES,
    });
    let flags = flags.fold(0, |all, flag| all | flag);
    let both = libc::MPOL_F_RELATIVE_NODES | libc::MPOL_F_STATIC_NODES;
    if flags & both == both {
        let value = "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES".to_owned();
        return invalid("linux.memoryPolicy.flags", value, "one of the two");
    }
    let nodes = list.map(|list| {
        let numbers = ranges::parse(list, NODES_MAX).ok_or_else(|| SpecError::Invalid {
            property: "linux.memoryPolicy.nodes",
            value: list.to_owned(),
            expected: "a list such as 0-3,7 of nodes below 1024",
        })?;
        let mut nodes = Box::new([0; NODES_MAX / 64]);
        for node in numbers {
            nodes[node / 64] |= 1 << (node % 64);
        }
        Ok(nodes)
    });
    Ok(Some(MemoryPolicy {
        mode: mode | flags,
        nodes: nodes.transpose()?,
    }))
}

/// `linux.personality`, as `personality(2)` takes it.
pub(crate) fn personality(linux: &Linux) -> Result<Option<libc::c_ulong>, SpecError> {
    let Some(personality) = linux.personality() else {
        return Ok(None);
    };
    if let Some(flag) = personality.flags().iter().flatten().next() {
        let expected = "none, as the spec defines none yet";
        return invalid("linux.personality.flags", flag.clone(), expected);
    }
    // PER_LINUX and PER_LINUX32 of `<linux/personality.h>`.
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// A label of a security module that a program gets when it is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Path of the property, dotted.
    pub(crate) property: &'static str,
    /// The file below `/proc/thread-self/attr`, and one for older kernels.
    pub(crate) files: [&'static std::ffi::CStr; 2],
    /// What is written there.
    pub(crate) text: CString,
}

/// `process.apparmorProfile` and `process.selinuxLabel`.
///
/// # Errors
/// [`SpecError::Host`] where the kernel does not have the module.
pub(crate) fn labels(process: &Process) -> Result<Vec<Label>, SpecError> {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let text = |property, text: String| {
        CString::new(text.clone()).map_err(|_nul| SpecError::Invalid {
            property,
            value: text,
            expected: "a text without NUL bytes",
        })
    };
    let mut labels = Vec::new();
    if let Some(profile) = given(process.apparmor_profile()) {
        let property = "process.apparmorProfile";
        crate::lsm::need(crate::lsm::Module::AppArmor, property)?;
        labels.push(Label {
            property,
            files: [c"thread-self/attr/apparmor/exec", c"thread-self/attr/exec"],
            text: text(property, format!("exec {profile}"))?,
        });
    }
    if let Some(label) = given(process.selinux_label()) {
        let property = "process.selinuxLabel";
        crate::lsm::need(crate::lsm::Module::SeLinux, property)?;
        labels.push(Label {
            property,
            files: [c"thread-self/attr/exec"; 2],
            text: text(property, label)?,
        });
    }
    Ok(labels)
}

fn invalid<T>(
    property: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, SpecError> {
    Err(SpecError::Invalid {
        property,
        value,
        expected,
    })
}

/// Puts this resource limit in place of the one of its type.
pub(crate) fn put_rlimit(process: &mut Process, rlimit: PosixRlimit) {
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    rlimits.retain(|known| known.typ() != rlimit.typ());
    rlimits.push(rlimit);
    process.set_rlimits(Some(rlimits));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaint(key: &str, value: Value) -> String {
        let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/"});
        process[key] = value;
        let process: Process = serde_json::from_value(process).unwrap();
        check(&process)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn what_a_process_cannot_have_is_refused_by_its_value() {
        for (key, value, expected) in [
            (
                "scheduler",
                json!({"policy": "SCHED_ISO"}),
                "scheduler.policy",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_OTHER", "nice": 20}),
                "scheduler.nice",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_OTHER", "nice": -21}),
                "scheduler.nice",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_BATCH", "priority": 1}),
                "scheduler.priority",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_FIFO"}),
                "scheduler.priority",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_RR", "priority": 100}),
                "scheduler.priority",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_RR", "priority": -1}),
                "scheduler.priority",
            ),
            (
                "scheduler",
                json!({"policy": "SCHED_IDLE", "period": 5}),
                "scheduler.period",
            ),
            (
                "ioPriority",
                json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
                "ioPriority",
            ),
            (
                "ioPriority",
                json!({"class": "IOPRIO_CLASS_RT", "priority": -1}),
                "ioPriority",
            ),
            (
                "execCPUAffinity",
                json!({"initial": "3-1"}),
                "execCPUAffinity.initial",
            ),
            (
                "execCPUAffinity",
                json!({"final": "0,1024"}),
                "execCPUAffinity.final",
            ),
            ("oomScoreAdj", json!(1001), "oomScoreAdj"),
            ("oomScoreAdj", json!(-1001), "oomScoreAdj"),
        ] {
            let message = complaint(key, value.clone());
            assert!(message.contains(expected), "{value}: {message}");
        }
        assert_eq!(
            complaint("scheduler", json!({"policy": "SCHED_FIFO", "priority": 99})),
            ""
        );
        assert_eq!(
            complaint("execCPUAffinity", json!({"initial": "0-3,7", "final": "1"})),
            ""
        );
    }

    fn linux(key: &str, value: Value) -> Linux {
        serde_json::from_value(json!({key: value})).unwrap()
    }

    #[test]
    fn a_memory_policy_is_mode_flags_and_nodes() {
        let policy = |value: Value| memory_policy(&linux("memoryPolicy", value));
        let bind =
            json!({"mode": "MPOL_BIND", "nodes": "0-1,64", "flags": ["MPOL_F_STATIC_NODES"]});
        let bind = policy(bind).unwrap().unwrap();
        assert_eq!(bind.mode, 2 | 1 << 15);
        assert_eq!(bind.nodes.unwrap()[..2], [0b11, 1]);
        let local = policy(json!({"mode": "MPOL_LOCAL", "nodes": ""}))
            .unwrap()
            .unwrap();
        assert_eq!((local.mode, local.nodes), (4, None));
        for (value, expected) in [
            (json!({"mode": "MPOL_BIND"}), "memoryPolicy.nodes"),
            (
                json!({"mode": "MPOL_DEFAULT", "nodes": "0"}),
                "memoryPolicy.nodes",
            ),
            (json!({"mode": "MPOL_BIND", "nodes": "1024"}), "below 1024"),
            (
                json!({"mode": "MPOL_BIND", "nodes": "x"}),
                "memoryPolicy.nodes",
            ),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags":
                ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
                "memoryPolicy.flags",
            ),
        ] {
            let message = policy(value).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_personality_has_no_flags_yet() {
        let of = |value: Value| personality(&linux("personality", value));
        assert_eq!(of(json!({"domain": "LINUX32"})).unwrap(), Some(8));
        let message = of(json!({"domain": "LINUX", "flags": ["x"]}))
            .unwrap_err()
            .to_string();
        assert!(message.contains("personality.flags"), "{message}");
    }
}
