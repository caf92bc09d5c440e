//! A program of the host's that sees a container's files as its root does.
//!
//! It is in the container's user and mount namespaces, and in none of the
//! others: paths lead where they lead inside, ids are the container's, and what
//! the container's root may not do it may not either. Nothing in there can see
//! or signal it, as it is in another pid namespace. Besides it may make only the
//! system calls of [`crate::seccomp::jail_profile`], like a jailed program: what
//! the files are named and hold is a stranger's (P1, P7).

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{PosixRlimitType, ProcessBuilder};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use crate::container::{Error, Exit, Join, Spawn, StartError, User, confine_caller};
use crate::jail::limit;
use crate::plan::{self, Capabilities, InsidePlan, PlanError, Program};
use crate::spec::SpecError;
use crate::state::start_time;

/// How long it may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files that the program may have open.
const OPEN_FILES_MAX: u64 = 1024;

/// What runs, and whose files it sees.
#[derive(Debug)]
pub struct Inside {
    /// Host pid of the container's first process, started or not.
    pub pid: Pid,
    /// When that one was started, field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// A static program of the host.
    pub program: PathBuf,
    /// Its arguments, its own name not among them.
    pub args: Vec<String>,
}

impl Inside {
    /// Runs the program to its end. It inherits 0, 1 and 2, and is killed when
    /// this process dies.
    ///
    /// # Errors
    /// [`StartError`] when the container is gone or the program not executed.
    pub fn run(&self) -> Result<Exit, StartError> {
        confine_caller()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let program = openat(CWD, &self.program, flags, Mode::empty()).map_err(|source| {
            Error::from(PlanError::Prepare {
                what: "open",
                subject: self.program.display().to_string(),
                source,
            })
        })?;
        let gone = || Error::system("find the container's first process");
        let container = pidfd_open(self.pid, PidfdFlags::empty()).map_err(gone())?;
        // The descriptor is of this process, not of a later one with its pid.
        if !matches!(start_time(self.pid), Ok(Some(time)) if time == self.start_time) {
            return Err(gone()(rustix::io::Errno::SRCH).into());
        }
        let limits = vec![
            limit(PosixRlimitType::RlimitNofile, OPEN_FILES_MAX)?,
            limit(PosixRlimitType::RlimitCore, 0)?,
        ];
        let process = ProcessBuilder::default().rlimits(limits).build();
        let process = process
            .map_err(|_incomplete| Error::from(SpecError::Missing("the limits of a program")))?;
        let namespaces = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
        let spawn = Spawn {
            joins: vec![Join::AllOf(container.as_fd(), namespaces)],
            clone_flags: 0,
            class: None,
            cgroup: None,
            start: None,
            process: Some(&process),
            user: User::Host,
            meanwhile: None,
            hooks: None,
            agent: None,
            patience: PATIENCE,
        };
        let name = self.program.display().to_string();
        let args: Vec<String> = std::iter::once(name)
            .chain(self.args.iter().cloned())
            .collect();
        let filter = crate::seccomp::compile(&crate::seccomp::jail_profile());
        let plan = plan::inside_plan(InsidePlan {
            capabilities: capabilities(),
            filter: filter.map_err(PlanError::from).map_err(Error::from)?,
            program: Program::open(program, &args, &[]).map_err(Error::from)?,
        });
        let exit = spawn.run(plan)?.start()?.wait();
        Ok(exit.map_err(|source| Error::System {
            what: "wait for the program",
            source,
        })?)
    }
}

/// Over ids of the container alone; nodes of devices are not among them.
fn capabilities() -> Capabilities {
    let all = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID;
    Capabilities {
        bounding: all,
        effective: all,
        permitted: all,
        ..Capabilities::NONE
    }
}
