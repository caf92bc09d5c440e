//! Another resource limit for a container that runs.
//!
//! ```text
//!  hold still ─▶ who is in the cgroup ─▶ prlimit(2) each ─▶ again, until all have it ─▶ go on
//! ```
//! Whoever is held still forks nobody: a child that is being made while its parent is
//! given the limit has a copy of the one before, and is on no list yet. Nor does anybody
//! end, but for a SIGKILL from elsewhere. prlimit(2) takes a process id, and the kernel
//! hands those out in a circle: the id of whoever was killed since the list was read comes
//! round after all others.

use std::io;
use std::time::Duration;

use oci_spec::runtime as oci;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Container, Error, limits};
use crate::cgroup;
use crate::sys::schedule::rlimit;

/// How long its processes may take to be still. One that sleeps uninterruptibly is not,
/// and forks nobody either.
const HOLDING: Duration = Duration::from_secs(2);

/// How often its processes are gone through where some of them are not still.
const ROUNDS: usize = 100;

/// Why the processes of a container were not given a resource limit.
#[derive(Debug, thiserror::Error)]
pub enum RelimitError {
    /// Only who has CAP_SYS_RESOURCE raises a hard limit; all have those of before.
    #[error("process {pid} cannot be given more than its hard limit, {hard}")]
    Hard {
        /// Its process id on the host.
        pid: i32,
        /// Its hard limit.
        hard: u64,
    },
    /// Some have it and some do not.
    #[error("the processes change their resource limits faster than they are given one")]
    Unsteady,
    /// The kernel refused something else.
    #[error(transparent)]
    Container(#[from] Error),
}

impl From<cgroup::Error> for RelimitError {
    fn from(error: cgroup::Error) -> Self {
        Self::Container(error.into())
    }
}

impl Container {
    /// Gives every process of the container this resource limit, whatever theirs was,
    /// and every init to come. Nothing is done where that was so already by the latest
    /// call. Those that are held still by somebody else stay so.
    ///
    /// # Errors
    /// [`RelimitError`]; inits to come have the one of before.
    pub fn relimit(&mut self, rlimit: oci::PosixRlimit) -> Result<(), RelimitError> {
        let process = self.bundle.spec().process().as_ref();
        let given = process.and_then(|process| process.rlimits().as_ref());
        if given.is_some_and(|given| given.contains(&rlimit)) {
            return Ok(());
        }
        let is_held = self.cgroup.record().is_frozen();
        if !is_held {
            self.hold()?;
        }
        let done = self.give_each(&rlimit);
        if !is_held {
            self.cgroup.thaw()?;
        }
        done?;
        self.bundle.set_rlimit(rlimit);
        Ok(())
    }

    fn hold(&self) -> Result<(), cgroup::Error> {
        match self.cgroup.freeze(HOLDING) {
            Ok(()) | Err(cgroup::Error::Timeout { .. }) => Ok(()),
            Err(error) => {
                self.cgroup.thaw()?;
                Err(error)
            }
        }
    }

    fn give_each(&self, rlimit: &oci::PosixRlimit) -> Result<(), RelimitError> {
        let (resource, wanted) = limits::kernels(rlimit);
        for _ in 0..ROUNDS {
            let mut without = self.without(resource, &wanted)?;
            if without.is_empty() {
                return Ok(());
            }
            // Nobody has it where the one that has to be raised most cannot be.
            without.sort_by_key(|(_, limit)| limit.maximum.unwrap_or(u64::MAX));
            for (pid, before) in without {
                match prlimit(Some(pid), resource, wanted) {
                    Ok(_) | Err(Errno::SRCH) => {}
                    Err(Errno::PERM) => {
                        return Err(RelimitError::Hard {
                            pid: pid.as_raw_nonzero().get(),
                            hard: before.maximum.unwrap_or(u64::MAX),
                        });
                    }
                    Err(error) => return Err(refused(error)),
                }
            }
        }
        Err(RelimitError::Unsteady)
    }

    /// The processes that have another limit than this.
    fn without(
        &self,
        resource: Resource,
        wanted: &Rlimit,
    ) -> Result<Vec<(Pid, Rlimit)>, RelimitError> {
        let mut without = Vec::new();
        for pid in self.cgroup.procs()? {
            match rlimit(pid, resource) {
                Ok(limit) if limit != *wanted => without.push((pid, limit)),
                Ok(_) | Err(Errno::SRCH) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(without)
    }
}

fn refused(error: Errno) -> RelimitError {
    RelimitError::Container(Error::System {
        what: "give a process another resource limit",
        source: io::Error::from(error),
    })
}
