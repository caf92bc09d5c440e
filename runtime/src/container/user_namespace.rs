//! A user namespace that is made for its mappings alone: by a process that does
//! nothing else, and is gone afterwards.

use std::os::fd::OwnedFd;
use std::time::Duration;

use oci_spec::runtime::LinuxIdMapping;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Error;
use super::namespaces::{open_namespace, proc_folder, write_mappings};
use crate::child::{self, Report, Reporter};
use crate::sys;

/// How long the process may take to be where it is wanted.
const PATIENCE: Duration = Duration::from_secs(10);

/// A new user namespace with these mappings, which nobody lives in.
pub(crate) fn mapped(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let holder = Holder::new(libc::CLONE_NEWUSER as u64)?;
    let folder = proc_folder(holder.0)?;
    write_mappings(&folder, "uid_map", uids)?;
    write_mappings(&folder, "gid_map", gids)?;
    open_namespace(&folder, "ns/user")
}

/// A process that waits to be killed.
struct Holder(Pid);

impl Holder {
    fn new(flags: u64) -> Result<Self, Error> {
        let (receiver, reporter) = child::pair().map_err(Error::system("make a socket pair"))?;
        let pid = sys::process::clone3(flags, None, || {
            receiver.close_copy();
            hold(&reporter)
        });
        let holder = Self(pid.map_err(Error::system("clone a process for a user namespace"))?);
        drop(reporter);
        let joined = match receiver.report(PATIENCE) {
            Ok(Report::Ready) => Ok(()),
            Ok(Report::Failed { errno, .. }) | Err(errno) => Err(errno),
            Ok(_) => Err(Errno::SRCH),
        };
        joined.map_err(Error::system("enter a user namespace"))?;
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A child of ours that was not waited for: it can be killed and reaped.
        kill_process(self.0, Signal::KILL).ok();
        rustix::io::retry_on_intr(|| waitpid(Some(self.0), WaitOptions::empty())).ok();
    }
}

/// Runs in the child.
fn hold(reporter: &Reporter) -> std::convert::Infallible {
    let joined = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| reporter.parent_lives())
        .and_then(|()| reporter.await_start(reporter.as_start()));
    if let Err(errno) = joined {
        reporter.fail(0, errno);
    }
    sys::process::exit_now(0)
}
