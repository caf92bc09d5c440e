//! A program of the host's that sees a container's files as its root does.
//!
//! It is in the container's user and mount namespaces, and in none of the
//! others: paths lead where they lead inside, ids are the container's, and what
//! the container's root may not do it may not either. Nothing in there can see
//! or signal it, as it is in another pid namespace. Besides it may make only the
//! system calls of [`crate::seccomp::jail_profile`], like a jailed program: what
//! the files are named and hold is a stranger's (P1, P7).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{PosixRlimitType, ProcessBuilder};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use crate::container::{
    Error, Exit, Join, Process, Spawn, StartError, User, confine_caller, leave_mounts,
};
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
    /// this process dies or the container ends.
    ///
    /// # Errors
    /// [`StartError`] when the container is gone or the program not executed.
    pub fn run(&self) -> Result<Exit, StartError> {
        confine_caller()?;
        leave_mounts()?;
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
        let process = spawn.run(plan)?.start()?;
        let waited = ends_first(&process, &container).and_then(|it_ends| {
            if !it_ends {
                // It holds the container's mounts, which the next one would share.
                process.signal(Signal::KILL)?;
            }
            process.wait()
        });
        Ok(waited.map_err(Error::system("wait for the program"))?)
    }
}

/// Waits until the program or the container ends; whether it is the program.
fn ends_first(process: &Process, container: &OwnedFd) -> io::Result<bool> {
    let mut ends = [
        PollFd::new(&process.pidfd, PollFlags::IN),
        PollFd::new(container, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut ends, None))?;
    Ok(!ends[0].revents().is_empty())
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
