//! Plans of programs of the host's that read a stranger's data.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::process::{Gid, Uid};

use super::setup::{Switches, first_steps};
use super::{Capabilities, Late, Mapped, Plan, Program, Step};
use crate::seccomp::Filter;

/// What runs in a jail, see [`crate::jail`].
#[derive(Debug)]
pub(crate) struct JailPlan {
    /// The folder, as a detached mount.
    pub(crate) root: OwnedFd,
    /// The same, to be shown through the jail's mappings.
    pub(crate) mapped: Mapped,
    /// Where it is attached.
    pub(crate) at: CString,
    /// What the program may do inside.
    pub(crate) capabilities: Capabilities,
    /// Its system calls.
    pub(crate) filter: Filter,
    /// The program.
    pub(crate) program: Program,
}

/// The plan of a jailed program: nothing but the folder.
pub(crate) fn jail_plan(jail: JailPlan) -> Plan {
    let mut steps = first_steps(Switches::default());
    steps.extend([
        Step::Propagation(libc::MS_PRIVATE),
        Step::AwaitParent,
        Step::AttachRoot {
            mount: Some(jail.root),
            at: jail.at,
        },
        Step::BecomeRoot { keep_groups: false },
        Step::PivotRoot,
        Step::AwaitStart,
    ]);
    steps.extend(confined_steps(jail.capabilities, jail.filter));
    Plan {
        steps,
        program: jail.program,
        preserved: 0,
        speaker: None,
        late: Late {
            root: None,
            mapped: vec![jail.mapped],
            devices: Vec::new(),
        },
    }
}

/// What runs among a container's files, see [`crate::inside`].
#[derive(Debug)]
pub(crate) struct InsidePlan {
    /// What the program may do.
    pub(crate) capabilities: Capabilities,
    /// Its system calls.
    pub(crate) filter: Filter,
    /// The program.
    pub(crate) program: Program,
}

/// The plan of a program of the host's in a container's namespaces.
pub(crate) fn inside_plan(inside: InsidePlan) -> Plan {
    let mut steps = first_steps(Switches::default());
    steps.extend([
        Step::AwaitParent,
        Step::BecomeRoot { keep_groups: false },
        Step::AwaitStart,
    ]);
    steps.extend(confined_steps(inside.capabilities, inside.filter));
    Plan {
        steps,
        program: inside.program,
        preserved: 0,
        speaker: None,
        late: Late::default(),
    }
}

/// The last steps of a program of the host's that reads a stranger's data.
fn confined_steps(capabilities: Capabilities, filter: Filter) -> [Step; 6] {
    [
        Step::WorkingDirectory(c"/".to_owned()),
        Step::CloseOnExec,
        Step::Identity {
            uid: Uid::from_raw(0),
            gid: Gid::from_raw(0),
            groups: Some(Vec::new()),
            capabilities,
        },
        Step::DieWithParent,
        Step::NoNewPrivileges,
        Step::Seccomp(filter),
    ]
}
