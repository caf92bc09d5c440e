//! The namespaces of a container: which are new, which are joined, and which
//! outlive an init.
//!
//! User and network namespace are made first, by a process that does nothing
//! else, and held by descriptor. So layers can be shown through the id mappings
//! before init exists, and a restarted init finds its network as it was.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::ThreadNameSpaceType;

use super::Error;
use super::process::Join;
use crate::spec::Bundle;
use crate::sys;

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// How long two system calls may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The namespaces of one container.
#[derive(Debug)]
pub(super) struct Namespaces {
    user: Option<OwnedFd>,
    network: Option<OwnedFd>,
    /// The others that are joined by path.
    joined: Vec<OwnedFd>,
    /// `CLONE_NEW*` of those that every init gets anew.
    new_for_init: u64,
    /// All kinds that differ from the host's.
    own: ThreadNameSpaceType,
    own_cgroup: bool,
}

impl Namespaces {
    pub(super) fn new(bundle: &Bundle) -> Result<Self, Error> {
        let listed = |kind| bundle.namespace(kind);
        let mut namespaces = Self {
            user: None,
            network: None,
            joined: Vec::new(),
            new_for_init: 0,
            own: ThreadNameSpaceType::empty(),
            own_cgroup: listed(Kind::Cgroup).is_some(),
        };
        let mut held = 0;
        for (kind, flag, bit) in KINDS {
            match listed(kind) {
                None => continue,
                Some(None) if matches!(kind, Kind::User | Kind::Network) => held |= flag,
                Some(None) => namespaces.new_for_init |= flag,
                Some(Some(path)) => {
                    let namespace = open_by_path(path)?;
                    match kind {
                        Kind::User => namespaces.user = Some(namespace),
                        Kind::Network => namespaces.network = Some(namespace),
                        _ => namespaces.joined.push(namespace),
                    }
                }
            }
            namespaces.own |= bit;
        }
        if held != 0 {
            let mappings = (bundle.uid_mappings(), bundle.gid_mappings());
            let (user, network) = hold(held, mappings, namespaces.user.as_ref().map(AsFd::as_fd))?;
            namespaces.user = user.or(namespaces.user);
            namespaces.network = network.or(namespaces.network);
        }
        Ok(namespaces)
    }

    pub(super) fn user(&self) -> Option<BorrowedFd<'_>> {
        self.user.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn network(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn new_for_init(&self) -> u64 {
        self.new_for_init
    }

    /// What init joins, the user namespace last: the host's root may join them
    /// all, whoever owns them; from inside, one of the host's would be refused.
    pub(super) fn joins(&self) -> Vec<Join<'_>> {
        let held = self.network.iter().chain(&self.joined).chain(&self.user);
        held.map(|namespace| Join::Namespace(namespace.as_fd()))
            .collect()
    }

    /// All the namespaces of a running init but the cgroup's, which is joined
    /// later, from inside the cgroup.
    pub(super) fn join_all_of<'a>(&self, init: BorrowedFd<'a>) -> Join<'a> {
        Join::AllOf(init, self.own)
    }

    /// The cgroup namespace of a running init.
    pub(super) fn cgroup_of(&self, init: Pid) -> Result<Option<OwnedFd>, Error> {
        if !self.own_cgroup {
            return Ok(None);
        }
        let folder = proc_folder(init)?;
        let namespace = open_in(&folder, "ns/cgroup", OFlags::RDONLY, ResolveFlags::empty());
        namespace
            .map(Some)
            .map_err(Error::system("open the cgroup namespace of init"))
    }
}

const KINDS: [(Kind, u64, ThreadNameSpaceType); 6] = [
    (
        Kind::User,
        libc::CLONE_NEWUSER as u64,
        ThreadNameSpaceType::USER,
    ),
    (
        Kind::Network,
        libc::CLONE_NEWNET as u64,
        ThreadNameSpaceType::NETWORK,
    ),
    (
        Kind::Mount,
        libc::CLONE_NEWNS as u64,
        ThreadNameSpaceType::MOUNT,
    ),
    (
        Kind::Pid,
        libc::CLONE_NEWPID as u64,
        ThreadNameSpaceType::PROCESS_ID,
    ),
    (
        Kind::Uts,
        libc::CLONE_NEWUTS as u64,
        ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
    ),
    (
        Kind::Ipc,
        libc::CLONE_NEWIPC as u64,
        ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
    ),
];

fn open_by_path(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Error::system("open a namespace by its path"))
}

/// Makes the user and network namespaces that are asked for by `flags` and
/// returns them open. A network namespace beside a user namespace that exists
/// already (`inside`) is made within that.
pub(crate) fn hold(
    flags: u64,
    (uid_mappings, gid_mappings): (&[LinuxIdMapping], &[LinuxIdMapping]),
    inside: Option<BorrowedFd<'_>>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
    let has = |flag: i32| flags & flag.cast_unsigned() as u64 != 0;
    let (ours, its) = crate::child::pair().map_err(Error::system("make a socket pair"))?;
    let holder = sys::process::clone3(flags_for_holder(flags, inside), None, || {
        ours.close_copy();
        holder(flags, inside, &its)
    });
    let holder = Holder(holder.map_err(Error::system("clone into new namespaces"))?);
    drop(its);
    if inside.is_some() {
        match ours
            .report(PATIENCE)
            .map_err(Error::system("hear of the network namespace"))?
        {
            crate::child::Report::Ready => {}
            _ => return Err(Error::Died),
        }
    }
    let folder = proc_folder(holder.0)?;
    let user = if has(libc::CLONE_NEWUSER) {
        write_mappings(&folder, "uid_map", uid_mappings)?;
        write_mappings(&folder, "gid_map", gid_mappings)?;
        Some(open_namespace(&folder, "ns/user")?)
    } else {
        None
    };
    let network = if has(libc::CLONE_NEWNET) {
        Some(open_namespace(&folder, "ns/net")?)
    } else {
        None
    };
    Ok((user, network))
}

/// Inside a user namespace that exists, it must be entered before the clone flags can act.
fn flags_for_holder(flags: u64, inside: Option<BorrowedFd<'_>>) -> u64 {
    if inside.is_some() { 0 } else { flags }
}

/// Holds new namespaces open until it is killed.
fn holder(
    flags: u64,
    inside: Option<BorrowedFd<'_>>,
    reporter: &crate::child::Reporter,
) -> Infallible {
    if let Some(user) = inside {
        let wanted = rustix::thread::UnshareFlags::from_bits_retain(
            u32::try_from(flags).unwrap_or_default(),
        );
        let made = rustix::thread::move_into_link_name_space(user, None)
            .and_then(|()| sys::process::unshare(wanted));
        if let Err(errno) = made {
            reporter.fail(0, errno);
            sys::process::exit_now(1);
        }
        if reporter.await_start(reporter.as_start()).is_err() {
            sys::process::exit_now(0);
        }
    }
    // Blocks until the parent has what it wants, or is gone.
    reporter.await_parent().ok();
    sys::process::exit_now(0)
}

/// Killed and reaped when dropped: the descriptors keep the namespaces.
struct Holder(Pid);

impl Drop for Holder {
    fn drop(&mut self) {
        // It is our own unreaped child: neither call can miss it.
        kill_process(self.0, Signal::KILL).ok();
        rustix::io::retry_on_intr(|| waitpid(Some(self.0), WaitOptions::empty())).ok();
    }
}

/// The process' folder in a procfs that was checked to be one (P2).
pub(super) fn proc_folder(pid: Pid) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, "/proc", flags, Mode::empty()).map_err(Error::system("open /proc"))?;
    let magic = rustix::fs::fstatfs(&proc)
        .map_err(Error::system("check /proc"))?
        .f_type;
    if magic.cast_unsigned() != PROC_SUPER_MAGIC {
        let what = "use /proc: it is not a procfs";
        return Err(Error::System {
            what,
            source: io::Error::from(io::ErrorKind::InvalidData),
        });
    }
    let name = pid.as_raw_nonzero().to_string();
    open_in(
        &proc,
        &name,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .map_err(Error::system("find the process in /proc"))
}

fn open_in(
    folder: &OwnedFd,
    path: &str,
    flags: OFlags,
    rules: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), rules)
}

fn open_namespace(folder: &OwnedFd, path: &str) -> Result<OwnedFd, Error> {
    open_in(folder, path, OFlags::RDONLY, ResolveFlags::empty())
        .map_err(Error::system("open a new namespace"))
}

/// Writes a small file of a process' folder.
pub(super) fn write_proc(folder: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = open_in(folder, name, OFlags::WRONLY, rules)?;
    File::from(file).write_all(text.as_bytes())
}

fn write_mappings(
    folder: &OwnedFd,
    name: &'static str,
    mappings: &[LinuxIdMapping],
) -> Result<(), Error> {
    let line = |mapping: &LinuxIdMapping| {
        format!(
            "{} {} {}\n",
            mapping.container_id(),
            mapping.host_id(),
            mapping.size()
        )
    };
    let text: String = mappings.iter().map(line).collect();
    write_proc(folder, name, &text).map_err(Error::system("map the ids of the user namespace"))
}
