//! User namespaces apart from a container's processes: one that is made for its
//! mappings alone, and what the mappings are of one that exists.
//!
//! Either is done by a process that does nothing else, and is gone afterwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;
use super::namespaces::{open_in, open_namespace, proc_folder, write_mappings};
use crate::child::{self, Report, Reporter};
use crate::sys;

/// How long the process may take to be where it is wanted.
const PATIENCE: Duration = Duration::from_secs(10);

/// The mappings of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mappings {
    pub(super) uids: Vec<LinuxIdMapping>,
    pub(super) gids: Vec<LinuxIdMapping>,
}

/// A new user namespace with these mappings, which nobody lives in.
pub(crate) fn mapped(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let holder = Holder::new(libc::CLONE_NEWUSER as u64, None)?;
    let folder = proc_folder(holder.0)?;
    write_mappings(&folder, "uid_map", uids)?;
    write_mappings(&folder, "gid_map", gids)?;
    open_namespace(&folder, "ns/user")
}

/// The mappings of a user namespace, as the host counts.
pub(super) fn mappings_of(namespace: BorrowedFd<'_>) -> Result<Mappings, Error> {
    let holder = Holder::new(0, Some(namespace))?;
    let folder = proc_folder(holder.0)?;
    Ok(Mappings {
        uids: read_mappings(&folder, "uid_map")?,
        gids: read_mappings(&folder, "gid_map")?,
    })
}

/// A process that waits to be killed.
struct Holder(Pid);

impl Holder {
    fn new(flags: u64, joins: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let (receiver, reporter) = child::pair().map_err(Error::system("make a socket pair"))?;
        let pid = sys::process::clone3(flags, None, || {
            receiver.close_copy();
            hold(joins, &reporter)
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
fn hold(joins: Option<BorrowedFd<'_>>, reporter: &Reporter) -> std::convert::Infallible {
    let joined = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| reporter.parent_lives())
        .and_then(|()| match joins {
            Some(namespace) => move_into_link_name_space(namespace, Some(LinkNameSpaceType::User)),
            None => Ok(()),
        })
        .and_then(|()| reporter.await_start(reporter.as_start()));
    if let Err(errno) = joined {
        reporter.fail(0, errno);
    }
    sys::process::exit_now(0)
}

fn read_mappings(folder: &OwnedFd, name: &str) -> Result<Vec<LinuxIdMapping>, Error> {
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut text = String::new();
    open_in(folder, name, OFlags::RDONLY, rules)
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).read_to_string(&mut text))
        .map_err(Error::system("read the mappings of a user namespace"))?;
    let mappings = text.lines().map(mapping).collect::<Option<_>>();
    mappings.ok_or_else(|| {
        Error::system("understand the mappings of a user namespace")(io::Error::from(
            io::ErrorKind::InvalidData,
        ))
    })
}

fn mapping(line: &str) -> Option<LinuxIdMapping> {
    let mut numbers = line.split_whitespace().map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(next()?)
        .host_id(next()?)
        .size(next()?)
        .build();
    mapping.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_mapping() {
        let found = mapping("         0     100000      65536").unwrap();
        assert_eq!((found.container_id(), found.host_id()), (0, 100_000));
        assert_eq!(found.size(), 65536);
        assert_eq!(mapping("0 4294967296 1"), None);
        assert_eq!(mapping("0 1"), None);
    }
}
