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

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Kind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

use super::Error;
use super::process::Join;
use super::user_namespace::mappings_of;
use crate::net_devices::{Moved, NetDevice, move_into};
use crate::plan::{Late, PlanError};
use crate::spec::{Bundle, SpecError};

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The namespaces of one container.
#[derive(Debug)]
pub(super) struct Namespaces {
    user: Option<OwnedFd>,
    network: Option<OwnedFd>,
    /// The cgroup namespace that is joined by path.
    cgroup: Option<OwnedFd>,
    /// The others that are joined by path.
    joined: Vec<OwnedFd>,
    /// Clocks of a time namespace that each init gets anew.
    clocks: Option<Clocks>,
    /// `CLONE_NEW*` of those that the next init gets anew.
    new: u64,
    /// All kinds that differ from the host's.
    own: ThreadNameSpaceType,
    own_cgroup: bool,
    /// It belongs to somebody else, so that nobody of a user namespace may join it.
    cgroup_by_path: bool,
}

impl Namespaces {
    /// Opens those that are joined by path; nothing is made yet.
    pub(super) fn new(bundle: &Bundle) -> Result<Self, Error> {
        let mut namespaces = Self::of_running(bundle);
        for (kind, flag, _) in KINDS {
            match bundle.namespace(kind) {
                None => {}
                Some(None) => namespaces.new |= flag,
                Some(Some(path)) => {
                    let namespace = Some(open_by_path(path, kind, flag)?);
                    if sets_names_of(kind, bundle) && is_ours(&namespace, kind)? {
                        return Err(SpecError::Invalid {
                            property: "linux.namespaces.path",
                            value: path.display().to_string(),
                            expected: "another than the host's where hostname, domainname, \
                                sysctls or netDevices are set",
                        }
                        .into());
                    }
                    match kind {
                        Kind::User => namespaces.user = namespace,
                        Kind::Network => namespaces.network = namespace,
                        Kind::Cgroup => namespaces.cgroup = namespace,
                        _ => namespaces.joined.extend(namespace),
                    }
                }
            }
        }
        let clocks = Clocks::new(bundle)?;
        if clocks.is_some() {
            // Who is born with one could not set it any more.
            namespaces.new &= !(libc::CLONE_NEWTIME as u64);
        }
        // Made by the process itself: it must be in its cgroup first.
        namespaces.new &= !(libc::CLONE_NEWCGROUP as u64);
        namespaces.clocks = clocks;
        Ok(namespaces)
    }

    /// Those of a container whose init runs already: none is made or opened.
    pub(super) fn of_running(bundle: &Bundle) -> Self {
        let mut namespaces = Self {
            user: None,
            network: None,
            cgroup: None,
            joined: Vec::new(),
            clocks: None,
            new: 0,
            own: ThreadNameSpaceType::empty(),
            own_cgroup: bundle.namespace(Kind::Cgroup).is_some(),
            cgroup_by_path: matches!(bundle.namespace(Kind::Cgroup), Some(Some(_))),
        };
        for (kind, _, bit) in KINDS {
            if kind != Kind::Cgroup && bundle.namespace(kind).is_some() {
                namespaces.own |= bit;
            }
        }
        namespaces
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

    /// Does in the network namespace that was kept what an init of ours does itself:
    /// brings the loopback link up, and sets its sysctls.
    pub(super) fn set_up_network(&self, bundle: &Bundle) -> Result<(), Error> {
        let Some(network) = self.network.as_ref() else {
            return Ok(());
        };
        if !matches!(bundle.namespace(Kind::Network), Some(None)) {
            return Ok(());
        }
        let proc = own_proc()?;
        let linux = bundle.spec().linux().as_ref();
        let sysctls = linux.into_iter().flat_map(|linux| linux.sysctl()).flatten();
        let sysctls: Vec<_> = sysctls
            .filter(|(key, _)| crate::spec::sysctl_namespace(key) == Some(Kind::Network))
            .map(|(key, value)| (format!("sys/{}", key.replace('.', "/")), value))
            .collect();
        let ours = open_in(&proc, "self/ns/net", OFlags::RDONLY, ResolveFlags::empty());
        let ours = ours.map_err(Error::system("open our network namespace"))?;
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(network.as_fd(), kind)
            .map_err(Error::system("enter the container's network namespace"))?;
        // A sysctl of the network is that of who opens it.
        let set = crate::sys::network::loopback_up()
            .map_err(io::Error::from)
            .and_then(|()| {
                let set = |(path, value): &(String, &String)| write_proc(&proc, path, value);
                sysctls.iter().try_for_each(set)
            });
        move_into_link_name_space(ours.as_fd(), kind)
            .map_err(Error::system("leave the container's network namespace"))?;
        set.map_err(Error::system("set the container's network up"))
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
        let cgroup = self.cgroup.iter();
        let cgroup = cgroup.map(|namespace| Join::Cgroup(namespace.as_fd()));
        let clocks = self.clocks.iter().map(|clocks| Join::NewTime {
            proc: clocks.proc.as_fd(),
            offsets: &clocks.offsets,
        });
        let one = |namespace| Join::Namespace(OwnedFd::as_fd(namespace));
        let held = self.network.iter().chain(&self.joined).chain(&self.user);
        cgroup.chain(clocks).chain(held.map(one)).collect()
    }

    /// Whether processes join this cgroup namespace of theirs as the host's root, and
    /// so before the others: where it is not the container's own, as one is not that
    /// CRIU was in when it restored the container.
    pub(super) fn cgroup_is_joined_early(&self, cgroup: &OwnedFd) -> Result<bool, Error> {
        let has_own_user = self.own.contains(ThreadNameSpaceType::USER);
        if self.cgroup_by_path || !has_own_user {
            return Ok(self.cgroup_by_path);
        }
        let owner = crate::sys::namespace::owner(cgroup.as_fd());
        let owner = owner.map_err(Error::system("look at the cgroup namespace of init"))?;
        is_ours(&Some(owner), Kind::User)
    }

    /// All the namespaces of a running init but the cgroup's, which is joined
    /// later, from inside the cgroup.
    pub(super) fn join_all_of<'a>(&self, init: BorrowedFd<'a>) -> Join<'a> {
        Join::AllOf(init, self.own)
    }

    /// The cgroup namespace of a running init.
    pub(super) fn cgroup_of(
        &self,
        init: Pid,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Option<OwnedFd>, Error> {
        if !self.own_cgroup {
            return Ok(None);
        }
        let failed = || Error::system("open the cgroup namespace of init");
        let folder = proc_folder(init)?;
        let namespace = open_in(&folder, "ns/cgroup", OFlags::RDONLY, ResolveFlags::empty());
        let namespace = namespace.map_err(failed())?;
        // It runs still, so the id was no other's.
        match has_ended(pidfd).map_err(failed())? {
            true => Err(failed()(Errno::SRCH)),
            false => Ok(Some(namespace)),
        }
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now))).map(|ready| ready > 0)
}

/// What the clocks of a new time namespace are ahead of the host's.
#[derive(Debug)]
struct Clocks {
    /// A procfs that was checked to be one.
    proc: OwnedFd,
    /// Lines of `timens_offsets`, time_namespaces(7).
    offsets: Vec<u8>,
}

impl Clocks {
    fn new(bundle: &Bundle) -> Result<Option<Self>, Error> {
        let linux = bundle.spec().linux().as_ref();
        let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
        let offsets = offsets.into_iter().flatten().map(|(clock, offset)| {
            let (seconds, nanoseconds) = (offset.secs(), offset.nanosecs());
            let (seconds, nanoseconds) = (seconds.unwrap_or(0), nanoseconds.unwrap_or(0));
            format!("{clock} {seconds} {nanoseconds}\n")
        });
        let offsets: String = offsets.collect();
        if offsets.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            proc: own_proc()?,
            offsets: offsets.into_bytes(),
        }))
    }
}

/// Gives the bundle the mappings of a user namespace that is joined by path:
/// what is made for the container belongs to its ids.
pub(super) fn with_joined_mappings(bundle: Bundle) -> Result<Bundle, Error> {
    let Some(Some(path)) = bundle.namespace(Kind::User) else {
        return Ok(bundle);
    };
    let namespace = open_by_path(path, Kind::User, libc::CLONE_NEWUSER as u64)?;
    let invalid = |expected| SpecError::Invalid {
        property: "linux.namespaces.path",
        value: path.display().to_string(),
        expected,
    };
    if is_ours(
        &Some(
            namespace
                .try_clone()
                .map_err(Error::system("keep a namespace"))?,
        ),
        Kind::User,
    )? {
        return Err(invalid("a user namespace other than the host's").into());
    }
    let found = mappings_of(namespace.as_fd())?;
    for (given, found) in [
        (bundle.uid_mappings(), &found.uids),
        (bundle.gid_mappings(), &found.gids),
    ] {
        if !given.is_empty() && given != found {
            return Err(invalid("the user namespace with the mappings that are given").into());
        }
        if !found.iter().any(|range| range.container_id() == 0) {
            return Err(invalid("a user namespace where id 0 is mapped, who sets it up").into());
        }
    }
    Ok(bundle.with_mappings(found.uids, found.gids))
}

/// Whether the configuration sets something that belongs to such a namespace.
fn sets_names_of(kind: Kind, bundle: &Bundle) -> bool {
    let spec = bundle.spec();
    let given = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    let names = kind == Kind::Uts && (given(spec.hostname()) || given(spec.domainname()));
    let linux = spec.linux().as_ref();
    let devices = |linux: &Linux| linux.net_devices().iter().flatten().next().is_some();
    let devices = kind == Kind::Network && linux.is_some_and(devices);
    let mut sysctls = linux.into_iter().flat_map(|linux| linux.sysctl()).flatten();
    names || devices || sysctls.any(|(key, _)| crate::spec::sysctl_namespace(key) == Some(kind))
}

/// Whether a namespace is the one that we are in ourselves.
fn is_ours(namespace: &Option<OwnedFd>, kind: Kind) -> Result<bool, Error> {
    let Some(namespace) = namespace else {
        return Ok(false);
    };
    let name = match kind {
        Kind::Mount => "mnt",
        Kind::Network => "net",
        Kind::Cgroup => "cgroup",
        Kind::Uts => "uts",
        Kind::Ipc => "ipc",
        Kind::User => "user",
        Kind::Pid => "pid",
        Kind::Time => "time",
    };
    let look = Error::system("look at a namespace");
    let ours = open_in(
        &own_proc()?,
        &format!("self/ns/{name}"),
        OFlags::RDONLY,
        ResolveFlags::empty(),
    );
    let pair = ours.and_then(|ours| Ok((fstat(&ours)?, fstat(namespace)?)));
    let (ours, other) = pair.map_err(look)?;
    Ok((ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino))
}

/// Moves devices of the host's into the network namespace of this process.
pub(super) fn move_devices(child: Pid, devices: &[NetDevice]) -> Result<Option<Moved>, Error> {
    if devices.is_empty() {
        return Ok(None);
    }
    let namespace = open_namespace(&proc_folder(child)?, "ns/net")?;
    Ok(Some(move_into(namespace.as_fd(), devices)?))
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

const KINDS: [(Kind, u64, ThreadNameSpaceType); 8] = [
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
    (
        Kind::Time,
        libc::CLONE_NEWTIME as u64,
        ThreadNameSpaceType::TIME,
    ),
    (
        Kind::Cgroup,
        libc::CLONE_NEWCGROUP as u64,
        ThreadNameSpaceType::CONTROL_GROUP,
    ),
];

/// Opens a namespace and looks whether it is one of that kind.
fn open_by_path(path: &Path, kind: Kind, flag: u64) -> Result<OwnedFd, Error> {
    // A FIFO must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let namespace =
        openat(CWD, path, flags, Mode::empty()).map_err(|source| PlanError::Prepare {
            what: "open the namespace",
            subject: path.display().to_string(),
            source,
        })?;
    if crate::sys::namespace::kind(namespace.as_fd()).ok() == Some(flag) {
        return Ok(namespace);
    }
    Err(SpecError::Invalid {
        property: "linux.namespaces.path",
        value: path.display().to_string(),
        expected: match kind {
            Kind::Mount => "a mount namespace",
            Kind::Network => "a network namespace",
            Kind::Cgroup => "a cgroup namespace",
            Kind::Uts => "a uts namespace",
            Kind::Ipc => "an ipc namespace",
            Kind::User => "a user namespace",
            Kind::Pid => "a pid namespace",
            Kind::Time => "a time namespace",
        },
    }
    .into())
}

/// `/proc`, checked to be a procfs (P2).
fn own_proc() -> Result<OwnedFd, Error> {
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
    Ok(proc)
}

/// The process' folder in a procfs that was checked to be one (P2).
pub(super) fn proc_folder(pid: Pid) -> Result<OwnedFd, Error> {
    let name = pid.as_raw_nonzero().to_string();
    open_in(
        &own_proc()?,
        &name,
        OFlags::PATH | OFlags::DIRECTORY,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .map_err(Error::system("find the process in /proc"))
}

pub(super) fn open_in(
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
