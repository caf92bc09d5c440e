//! The namespaces of a container: which are new, which are joined, and which
//! outlive an init.
//!
//! All new ones are born with the first init, by one clone. Where another init
//! may follow, its user and network namespaces are kept by descriptor: a
//! restarted init finds its network as it was.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use super::Error;
use super::process::Join;
use crate::plan::Late;
use crate::spec::Bundle;

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The namespaces of one container.
#[derive(Debug)]
pub(super) struct Namespaces {
    user: Option<OwnedFd>,
    network: Option<OwnedFd>,
    /// The others that are joined by path.
    joined: Vec<OwnedFd>,
    /// `CLONE_NEW*` of those that the next init gets anew.
    new: u64,
    /// All kinds that differ from the host's.
    own: ThreadNameSpaceType,
    own_cgroup: bool,
}

impl Namespaces {
    /// Those of a container whose init runs already.
    pub(super) fn of_running(bundle: &Bundle) -> Self {
        let own = KINDS
            .into_iter()
            .filter(|(kind, ..)| bundle.namespace(*kind).is_some())
            .map(|(_, _, bit)| bit);
        Self {
            user: None,
            network: None,
            joined: Vec::new(),
            new: 0,
            own: own.collect(),
            own_cgroup: bundle.namespace(Kind::Cgroup).is_some(),
        }
    }

    /// Opens those that are joined by path; nothing is made yet.
    pub(super) fn new(bundle: &Bundle) -> Result<Self, Error> {
        let mut namespaces = Self::of_running(bundle);
        for (kind, flag, _) in KINDS {
            match bundle.namespace(kind) {
                None => {}
                Some(None) => namespaces.new |= flag,
                Some(Some(path)) => {
                    let namespace = open_by_path(path)?;
                    match kind {
                        Kind::User => namespaces.user = Some(namespace),
                        Kind::Network => namespaces.network = Some(namespace),
                        _ => namespaces.joined.push(namespace),
                    }
                }
            }
        }
        Ok(namespaces)
    }

    /// Keeps the user and network namespaces that were made for this init: the
    /// next one joins them.
    pub(super) fn keep(&mut self, init: Pid) -> Result<(), Error> {
        let folder = proc_folder(init)?;
        for (flag, path, kept) in [
            (libc::CLONE_NEWUSER, "ns/user", &mut self.user),
            (libc::CLONE_NEWNET, "ns/net", &mut self.network),
        ] {
            let flag = u64::from(flag.cast_unsigned());
            if self.new & flag != 0 {
                *kept = Some(open_namespace(&folder, path)?);
                self.new &= !flag;
            }
        }
        Ok(())
    }

    /// The user namespace of the next init.
    pub(super) fn user<'a>(&'a self, bundle: &'a Bundle) -> User<'a> {
        match &self.user {
            Some(user) => User::Joined(user.as_fd()),
            None if self.own.contains(ThreadNameSpaceType::USER) => User::New {
                uids: bundle.uid_mappings(),
                gids: bundle.gid_mappings(),
            },
            None => User::Host,
        }
    }

    /// `CLONE_NEW*` of those that the next init gets anew.
    pub(super) fn new_for_init(&self) -> u64 {
        self.new
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

/// The user namespace of a process to be cloned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User<'a> {
    /// The host's.
    Host,
    /// One that exists.
    Joined(BorrowedFd<'a>),
    /// One that is born with the process, and mapped by its parent.
    New {
        uids: &'a [LinuxIdMapping],
        gids: &'a [LinuxIdMapping],
    },
}

impl User<'_> {
    /// Maps the ids of a user namespace that was born with `child`, and does
    /// what had to wait for one.
    pub(super) fn complete(self, child: Pid, late: &Late) -> Result<Option<OwnedFd>, Error> {
        let born;
        let namespace = match self {
            Self::Host => return Ok(None),
            Self::Joined(namespace) => namespace,
            Self::New { uids, gids } => {
                let folder = proc_folder(child)?;
                write_mappings(&folder, "uid_map", uids)?;
                write_mappings(&folder, "gid_map", gids)?;
                born = open_namespace(&folder, "ns/user")?;
                born.as_fd()
            }
        };
        Ok(late.finish(namespace)?)
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

pub(super) fn open_namespace(folder: &OwnedFd, path: &str) -> Result<OwnedFd, Error> {
    open_in(folder, path, OFlags::RDONLY, ResolveFlags::empty())
        .map_err(Error::system("open a new namespace"))
}

/// Writes a small file of a process' folder.
pub(super) fn write_proc(folder: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = open_in(folder, name, OFlags::WRONLY, rules)?;
    File::from(file).write_all(text.as_bytes())
}

pub(super) fn write_mappings(
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
