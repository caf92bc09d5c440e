//! Device nodes, which only the host's root may make.
//!
//! ```text
//! on /dev            the default devices and links     linux.devices
//! a tmpfs            the parent fills it, and the container can't add any
//! a bind             are whoever bound it's affair     made where they are missing
//! anything else      made in the root, where they are missing
//! ```
//!
//! In a user namespace nothing is made but bound: from a tmpfs of the parent's
//! that is attached nowhere. Where the parent may make no nodes either, as an
//! ordinary user, the host's own are bound, with the permissions that they have.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fstat, makedev};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

use super::ids::HostIds;
use super::mounts::{MountStep, Source};
use super::options::Options;
use super::rootfs::file_system;
use super::target::{Kind, Target};
use super::{PlanError, SpecError, Step};
use crate::rootless;
use crate::spec::Bundle;
use crate::sys::mount::{Attributes, mount_setattr};

/// Devices that every container has (OCI config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every container has ("Dev symbolic links" there).
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A detached tmpfs with the default devices and those of the configuration.
pub(super) fn dev_tmpfs(
    options: &Options,
    attributes: MountAttrFlags,
    devices: &[LinuxDevice],
    ids: &impl HostIds,
) -> Result<(OwnedFd, Vec<Step>), PlanError> {
    let root = new_owner((ids.uid(0), ids.gid(0)));
    let mut bound = Vec::new();
    let in_the_way = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let attributes = attributes - in_the_way;
    let dev = file_system(c"tmpfs", None, &options.parameters(), attributes)
        .map_err(|source| prepare("make", Path::new("/dev"), source))?;
    hand_over(dev.as_fd(), c"", root, AtFlags::EMPTY_PATH)
        .map_err(|source| prepare("hand over", Path::new("/dev"), source))?;
    let _modes_as_given = NoUmask::new();
    for (name, node) in default_nodes(root) {
        match node.make(dev.as_fd(), name) {
            Err(Errno::PERM) => bound.push((Path::new("/dev").join(name), node)),
            made => made.map_err(|source| prepare("make", Path::new(name), source))?,
        }
    }
    for (name, target) in LINKS {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::symlinkat(target, &dev, name)
            .and_then(|()| hand_over(dev.as_fd(), name, root, nofollow))
            .map_err(|source| prepare("link", Path::new(name), source))?;
    }
    for device in devices {
        let Some(name) = below_dev(device.path()) else {
            continue;
        };
        let node = Node::from_spec(device, ids)?;
        let made = make_parents(dev.as_fd(), name).and_then(|()| node.make(dev.as_fd(), name));
        match made {
            Err(Errno::PERM) => {
                bound.retain(|(path, _)| path != device.path());
                bound.push((device.path().clone(), node));
            }
            made => made.map_err(|source| prepare("make", device.path(), source))?,
        }
    }
    let bound = bound.iter().map(|(path, node)| {
        let mount = hosts_own(path, node)?;
        bind_step(mount, path)
    });
    let bound = bound.collect::<Result<_, PlanError>>()?;
    Ok((dev, bound))
}

/// A copy of the mount of the host's device of that path, if it is that device.
fn hosts_own(path: &Path, node: &Node) -> Result<OwnedFd, PlanError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let failed = |source| {
        prepare(
            "take the host's device (none can be made here)",
            path,
            source,
        )
    };
    let mount = open_tree(CWD, path, flags).map_err(failed)?;
    let stat = fstat(&mount).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != node.number() {
        return Err(SpecError::Invalid {
            property: "linux.devices",
            value: path.display().to_string(),
            expected: "what the host has under that path, as devices can't be made here",
        }
        .into());
    }
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    mount_setattr(mount.as_fd(), c"", false, attributes).map_err(failed)?;
    Ok(mount)
}

fn bind_step(mount: OwnedFd, path: &Path) -> Result<Step, PlanError> {
    Ok(Step::Mount(Box::new(MountStep {
        source: Source::Detached(mount),
        target: Target::new(path, Kind::File)?,
    })))
}

/// A device node that the child makes in the root.
#[derive(Debug)]
pub(crate) struct DeviceStep {
    /// Where.
    pub(crate) target: Target,
    /// What.
    pub(crate) node: Node,
}

/// What `/dev` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dev {
    /// A tmpfs of our own.
    Tmpfs,
    /// A folder that the configuration binds there.
    Bound,
    /// Whatever the root has, or another file system.
    Root,
}

/// The steps for the devices that are not made with `/dev` itself.
pub(super) fn steps(
    dev: Dev,
    devices: &[LinuxDevice],
    bundle: &Bundle,
    scratch: &Path,
) -> Result<Vec<Step>, PlanError> {
    let root = (bundle.uid(0), bundle.gid(0));
    let mut nodes: Vec<(PathBuf, Node)> = Vec::new();
    if dev == Dev::Root {
        let defaults = default_nodes(root).map(|(name, node)| (Path::new("/dev").join(name), node));
        nodes.extend(defaults);
    }
    for device in devices {
        let path = device.path();
        if dev == Dev::Tmpfs && below_dev(path).is_some() {
            continue;
        }
        let node = Node::from_spec(device, bundle)?;
        nodes.retain(|(other, _)| other != path);
        nodes.push((path.clone(), node));
    }
    let user = bundle.namespace(LinuxNamespaceType::User).is_some();
    let mut steps = if user || (!nodes.is_empty() && rootless::in_user_namespace()) {
        bound_nodes(&nodes, scratch)?
    } else {
        let step = |(path, node): (PathBuf, Node)| {
            let target = Target::new(&path, Kind::File)?;
            Ok(Step::Device(Box::new(DeviceStep { target, node })))
        };
        nodes
            .into_iter()
            .map(step)
            .collect::<Result<_, PlanError>>()?
    };
    if dev == Dev::Root {
        for (name, to) in LINKS {
            steps.push(Step::Link {
                target: Target::new(&Path::new("/dev").join(name), Kind::File)?,
                to: CString::new(to).map_err(|_nul| PlanError::Nul("a link"))?,
            });
        }
    }
    Ok(steps)
}

/// Nodes of a tmpfs that is attached for a moment in our own mount namespace,
/// each as a mount of its own.
fn bound_nodes(nodes: &[(PathBuf, Node)], scratch: &Path) -> Result<Vec<Step>, PlanError> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let mode = (c"mode".to_owned(), Some(c"755".to_owned()));
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let store = file_system(c"tmpfs", None, &[mode], attributes)
        .map_err(|source| prepare("make a tmpfs for", scratch, source))?;
    move_mount(&store, c"", CWD, scratch, empty)
        .map_err(|source| prepare("mount a tmpfs on", scratch, source))?;
    let bound = |(index, (path, node)): (usize, &(PathBuf, Node))| {
        let name = index.to_string();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let modes_as_given = NoUmask::new();
        let made = node.make(store.as_fd(), &name);
        drop(modes_as_given);
        let mount = match made.and_then(|()| open_tree(&store, name, flags)) {
            Err(Errno::PERM) => hosts_own(path, node)?,
            made => made.map_err(|source| prepare("make", path, source))?,
        };
        bind_step(mount, path)
    };
    let steps = nodes.iter().enumerate().map(bound).collect();
    unmount(scratch, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|source| prepare("unmount", scratch, source))?;
    steps
}

fn default_nodes(owner: Owner) -> impl Iterator<Item = (&'static str, Node)> {
    DEFAULT_DEVICES
        .into_iter()
        .map(move |(name, major, minor)| {
            let node = Node {
                kind: FileType::CharacterDevice,
                major,
                minor,
                mode: 0o666,
                owner,
            };
            (name, node)
        })
}

type Owner = (Option<Uid>, Option<Gid>);

/// A device node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    /// Ids of the host.
    pub(crate) owner: (Option<Uid>, Option<Gid>),
}

impl Node {
    fn from_spec(device: &LinuxDevice, ids: &impl HostIds) -> Result<Self, PlanError> {
        let invalid = |property, value: String, expected| {
            PlanError::from(SpecError::Invalid {
                property,
                value,
                expected,
            })
        };
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(invalid(
                    "linux.devices.type",
                    "a".into(),
                    "one of b, c, u, p",
                ));
            }
        };
        // What the kernel's 32 bits of a device number hold.
        let number = |property, value: i64, bits: u32| {
            let number = u32::try_from(value).ok().filter(|n| n >> bits == 0);
            number.ok_or_else(|| invalid(property, value.to_string(), "a device number"))
        };
        // P1: `..` would lead out of what is made for the container.
        let path = device.path();
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || path.file_name().is_none() || !path.components().all(plain) {
            return Err(invalid(
                "linux.devices.path",
                path.display().to_string(),
                "an absolute path without ..",
            ));
        }
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        let unmapped = |property, id: u32| {
            let expected = "an id that the container's mappings have";
            move || invalid(property, id.to_string(), expected)
        };
        let host_uid = ids
            .uid(uid)
            .ok_or_else(unmapped("linux.devices.uid", uid))?;
        let host_gid = ids
            .gid(gid)
            .ok_or_else(unmapped("linux.devices.gid", gid))?;
        Ok(Self {
            kind,
            major: number("linux.devices.major", device.major(), 12)?,
            minor: number("linux.devices.minor", device.minor(), 20)?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (Some(host_uid), Some(host_gid)),
        })
    }

    /// Its number; a FIFO has none.
    pub(crate) fn number(&self) -> u64 {
        makedev(self.major, self.minor)
    }

    /// Its permissions.
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode)
    }

    /// Makes the node, or replaces a default one of the same name, under the umask
    /// of whoever runs us.
    fn make(&self, dev: BorrowedFd<'_>, name: impl AsRef<Path>) -> Result<(), Errno> {
        let name = name.as_ref();
        let (number, mode) = (self.number(), self.mode());
        match rustix::fs::mknodat(dev, name, self.kind, mode, number) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
                rustix::fs::mknodat(dev, name, self.kind, mode, number)?;
            }
            made => made?,
        }
        hand_over(dev, name, self.owner, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The same without whom a file of ours belongs to anyway.
pub(super) fn new_owner((uid, gid): Owner) -> Owner {
    let others_uid = uid.filter(|uid| *uid != rustix::process::geteuid());
    let others_gid = gid.filter(|gid| *gid != rustix::process::getegid());
    (others_uid, others_gid)
}

/// Gives a new file to its [`new_owner`].
pub(super) fn hand_over(
    folder: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    owner: Owner,
    flags: AtFlags,
) -> Result<(), Errno> {
    match owner {
        (None, None) => Ok(()),
        (uid, gid) => rustix::fs::chownat(folder, name, uid, gid, flags),
    }
}

/// While it lives, files have the modes that they are made with.
struct NoUmask(Mode);

impl NoUmask {
    fn new() -> Self {
        Self(rustix::process::umask(Mode::empty()))
    }
}

impl Drop for NoUmask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

/// The nodes of a container in a user namespace that are mounts of their own.
pub(super) fn bound_paths(dev: Dev, devices: &[LinuxDevice]) -> Vec<PathBuf> {
    let default = DEFAULT_DEVICES.iter().filter(|_| dev == Dev::Root);
    let default = default.map(|(name, ..)| Path::new("/dev").join(name));
    let given = devices.iter().map(LinuxDevice::path);
    let given = given.filter(|path| dev != Dev::Tmpfs || below_dev(path).is_none());
    default.chain(given.cloned()).collect()
}

/// The tmpfs is ours alone yet: makes a folder of the container's root in it.
pub(super) fn make_folder(
    dev: BorrowedFd<'_>,
    path: &Path,
    owner: (Option<Uid>, Option<Gid>),
) -> Result<(), Errno> {
    make_parents(dev, path)?;
    match rustix::fs::mkdirat(dev, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    hand_over(dev, path, new_owner(owner), AtFlags::SYMLINK_NOFOLLOW)
}

/// The name of a device in `/dev`, where it lies there.
fn below_dev(path: &Path) -> Option<&Path> {
    let name = path.strip_prefix("/dev").ok()?;
    name.file_name().map(|_| name)
}

/// The tmpfs is ours alone yet, so plain relative paths are safe in it.
fn make_parents(dev: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let mut folder = PathBuf::new();
    for part in name.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match rustix::fs::mkdirat(dev, &folder, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    let parent = name
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if let Some(parent) = parent {
        rustix::fs::openat2(
            dev,
            parent,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?;
    }
    Ok(())
}

fn prepare(what: &'static str, subject: &Path, source: Errno) -> PlanError {
    PlanError::Prepare {
        what,
        subject: subject.display().to_string(),
        source,
    }
}
