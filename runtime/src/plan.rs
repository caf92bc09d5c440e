//! Everything that a child will do between `clone3(2)` and `execve(2)`,
//! thought out and allocated beforehand.
//!
//! A plan is a list of steps that own their strings, descriptors and filters.
//! The child only walks it; when step *n* fails it reports `(n, errno)`, and
//! the parent, which holds the same list, says what that was in words.

mod confined;
mod devices;
mod identity;
mod ids;
mod late;
mod mounts;
mod options;
mod prepared;
mod program;
mod propagation;
mod rootfs;
mod setup;
mod target;
mod tree;

pub(crate) use confined::{InsidePlan, JailPlan, inside_plan, jail_plan};
pub(crate) use devices::DeviceStep;
pub(crate) use identity::{Capabilities, KNOWN_CAPABILITIES};
pub(crate) use late::{Late, Mapped};
pub(crate) use mounts::{Finish, MountStep, Remount, Source};
pub(crate) use options::known as known_mount_options;
pub(crate) use prepared::{Prepared, group_of_root, made_by_the_hosts_root};
pub(crate) use program::{Program, ProgramFile};
pub(crate) use rootfs::{detached_tree, file_system, set_parameters};
pub use setup::Switches;
pub(crate) use setup::{ExecParts, InitParts, exec_plan, hook_plan, init_plan};
pub(crate) use target::{Kind, Target};

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{Gid, Uid};

use crate::init;
use crate::seccomp::{Filter, Notifier};
use crate::spec::SpecError;
use crate::spec::process::{Label, MemoryPolicy};

/// Why no plan can be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration is at fault.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A string holds a NUL byte and so cannot reach the kernel.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// A mount option that cannot be honoured.
    #[error("mount on {target}: option {option:?} is not supported")]
    MountOption {
        /// Destination of the mount.
        target: PathBuf,
        /// The option.
        option: String,
    },
    /// No user namespace can be made for the mappings of a mount's own.
    #[error("mount on {target}: its mappings")]
    Mapping {
        /// Destination of the mount.
        target: PathBuf,
        /// What failed.
        source: Box<crate::container::Error>,
    },
    /// The kernel refused something that is prepared beforehand.
    #[error("{what} {subject}")]
    Prepare {
        /// The operation.
        what: &'static str,
        /// What it was done on.
        subject: String,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// The seccomp profile cannot be applied.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::Error),
}

/// What a child does, in order, and the program that it becomes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The steps; exactly one of them is [`Step::AwaitStart`].
    pub(crate) steps: Vec<Step>,
    /// What is executed at the end.
    pub(crate) program: Program,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserved: u32,
    /// What it gets besides, where it is an init of ours.
    pub(crate) speaker: Option<init::Speaker>,
    /// What the parent does once the child's user namespace exists.
    pub(crate) late: Late,
}

/// One thing a child does.
#[derive(Debug)]
pub(crate) enum Step {
    /// Wait for the parent's word: id mappings are in place.
    AwaitParent,
    /// `prctl(PR_SET_PDEATHSIG, SIGKILL)`.
    DieWithParent,
    /// Default action for every signal, none blocked.
    ResetSignals,
    /// `setsid(2)`.
    NewSession,
    /// A fresh session keyring.
    NewKeyring,
    /// These descriptors become 0, 1 and 2.
    Stdio([OwnedFd; 3]),
    /// Propagation of every mount that was inherited.
    Propagation(u64),
    /// Attach the root file system and keep it as the root of all that follows.
    AttachRoot {
        /// The root file system, a detached mount; it comes with the parent's
        /// word where it could not be made before.
        mount: Option<OwnedFd>,
        /// The host folder it is attached to.
        at: CString,
    },
    /// Become uid 0 and gid 0 of the user namespace, with no other group but
    /// those that cannot be given up.
    BecomeRoot {
        /// `setgroups(2)` is denied there.
        keep_groups: bool,
    },
    /// `unshare(CLONE_NEWCGROUP)`: the cgroup that the child is in now becomes the root it sees.
    NewCgroupNamespace,
    /// Join the cgroup namespace of a running container. Not together with its
    /// other namespaces: from inside, a process can't be placed in its cgroup.
    JoinCgroupNamespace(OwnedFd),
    /// Bring the loopback link of a new network namespace up.
    LoopbackUp,
    /// `sethostname(2)`.
    HostName(CString),
    /// `setdomainname(2)`.
    DomainName(CString),
    /// Mount something into the root.
    Mount(Box<MountStep>),
    /// Change a mount that is there.
    Remount(Box<Remount>),
    /// Make a device node, unless it is there.
    Device(Box<DeviceStep>),
    /// Make a symbolic link, unless something of that name is there.
    Link {
        /// Where.
        target: Target,
        /// Where it leads.
        to: CString,
    },
    /// Write a sysctl through the container's own procfs (P2).
    Sysctl {
        /// Path below `/proc/sys`.
        path: CString,
        /// What to write.
        value: Vec<u8>,
    },
    /// The label that the program gets when it is executed (P2).
    Label(Label),
    /// `set_mempolicy(2)`.
    MemoryPolicy(MemoryPolicy),
    /// `personality(2)`.
    Personality(libc::c_ulong),
    /// Allocate a terminal from the container's devpts, make it the controlling
    /// terminal and 0, 1 and 2, and send its master to the parent.
    Terminal {
        /// Owner of the terminal.
        owner: Uid,
        /// Where it is bound as the console.
        console: Target,
    },
    /// Make a folder, if it is missing.
    MakeFolder(Target),
    /// Hide a path, if it exists: files behind `/dev/null`, folders behind an empty tmpfs.
    Mask(Target),
    /// Make a path read-only, if it exists.
    ReadOnly(Target),
    /// Wait until the parent has run the hooks that come before the root is changed.
    AwaitHooks,
    /// `pivot_root(2)` into the root, the old one detached.
    PivotRoot,
    /// Move the root over that of the host and `chroot(2)` into it, for roots
    /// that the kernel does not pivot away from.
    MoveRoot {
        /// Where the host has procfs and sysfs: they would stay in reach.
        hide: Vec<CString>,
    },
    /// Attributes of the root mount.
    RootAttributes(crate::sys::mount::Attributes),
    /// Fail unless the program is where it is searched.
    FindProgram {
        /// Its name, as it was given.
        name: String,
    },
    /// Load the filter that asks an agent, and send its listener to the parent.
    Notifier(Notifier),
    /// Report that all is ready and wait to be started.
    AwaitStart,
    /// `umask(2)`.
    Umask(u32),
    /// `chdir(2)`, and check that the folder is inside the root (P4).
    WorkingDirectory(CString),
    /// Let execve close every descriptor but 0, 1 and 2 (P4).
    CloseOnExec,
    /// Supplementary groups, gid, uid, and the five capability sets (P11).
    Identity {
        /// User id.
        uid: Uid,
        /// Group id.
        gid: Gid,
        /// All the supplementary groups; `None` where they can't be set.
        groups: Option<Vec<Gid>>,
        /// What is left of the capabilities.
        capabilities: Capabilities,
    },
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivileges,
    /// Load the seccomp filter (P12).
    Seccomp(Filter),
}

impl fmt::Display for Step {
    /// What the step was to do, in words that follow "could not".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitParent => f.write_str("hear from its parent"),
            Self::DieWithParent => f.write_str("bind its life to its parent's"),
            Self::ResetSignals => f.write_str("reset the signals"),
            Self::NewSession => f.write_str("start a session"),
            Self::NewKeyring => f.write_str("join a new keyring"),
            Self::Stdio(_) => f.write_str("set up standard input and output"),
            Self::Propagation(_) => f.write_str("stop mounts from propagating"),
            Self::AttachRoot { at, .. } => write!(f, "mount the root file system on {at:?}"),
            Self::BecomeRoot { .. } => f.write_str("become root of its user namespace"),
            Self::NewCgroupNamespace => f.write_str("make a cgroup namespace"),
            Self::JoinCgroupNamespace(_) => f.write_str("join the cgroup namespace"),
            Self::LoopbackUp => f.write_str("bring the loopback link up"),
            Self::HostName(name) => write!(f, "set the host name {name:?}"),
            Self::DomainName(name) => write!(f, "set the domain name {name:?}"),
            Self::Mount(mount) => write!(f, "mount {mount}"),
            Self::Remount(remount) => write!(f, "change the mount on {remount}"),
            Self::Device(device) => write!(f, "make the device {}", device.target),
            Self::Link { target, .. } => write!(f, "make the link {target}"),
            Self::Sysctl { path, .. } => write!(f, "set the sysctl {path:?}"),
            Self::Label(label) => write!(f, "set {} to {:?}", label.property, label.text),
            Self::MemoryPolicy(_) => f.write_str("set linux.memoryPolicy"),
            Self::Personality(_) => f.write_str("set linux.personality"),
            Self::Terminal { .. } => f.write_str("set up the terminal"),
            Self::MakeFolder(target) => write!(f, "make the folder {target}"),
            Self::Mask(target) => write!(f, "mask {target}"),
            Self::ReadOnly(target) => write!(f, "make {target} read-only"),
            Self::AwaitHooks => f.write_str("wait for its hooks"),
            Self::PivotRoot | Self::MoveRoot { .. } => f.write_str("change the root"),
            Self::RootAttributes(_) => f.write_str("set the attributes of the root"),
            Self::FindProgram { name } => write!(f, "find its program {name:?}"),
            Self::Notifier(_) => f.write_str("load the seccomp filter that notifies an agent"),
            Self::AwaitStart => f.write_str("be started"),
            Self::Umask(mask) => write!(f, "set the umask {mask:o}"),
            Self::WorkingDirectory(path) => write!(f, "change to the folder {path:?}"),
            Self::CloseOnExec => f.write_str("close its descriptors"),
            Self::Identity { uid, gid, .. } => {
                write!(f, "become uid {} and gid {}", uid.as_raw(), gid.as_raw())
            }
            Self::NoNewPrivileges => f.write_str("give up gaining privileges"),
            Self::Seccomp(_) => f.write_str("load the seccomp filter"),
        }
    }
}
