//! The container's `/dev`: a tmpfs that the parent fills, because only the
//! host's root may make device nodes, and that the container can't add any to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::ids::HostIds;
use super::options::Options;
use super::rootfs::file_system;
use super::{PlanError, SpecError};

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
) -> Result<OwnedFd, PlanError> {
    let root = (ids.uid(0), ids.gid(0));
    let attributes = attributes - MountAttrFlags::MOUNT_ATTR_NODEV;
    let dev = file_system(c"tmpfs", None, &options.data, attributes)
        .map_err(|source| prepare("make", Path::new("/dev"), source))?;
    rustix::fs::chownat(&dev, c"", root.0, root.1, AtFlags::EMPTY_PATH)
        .map_err(|source| prepare("hand over", Path::new("/dev"), source))?;
    for (name, major, minor) in DEFAULT_DEVICES {
        let node = Node {
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            owner: root,
        };
        node.make(dev.as_fd(), name)
            .map_err(|source| prepare("make", Path::new(name), source))?;
    }
    for (name, target) in LINKS {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::symlinkat(target, &dev, name)
            .and_then(|()| rustix::fs::chownat(&dev, name, root.0, root.1, nofollow))
            .map_err(|source| prepare("link", Path::new(name), source))?;
    }
    for device in devices {
        let name = below_dev(device.path())?;
        let node = Node::from_spec(device, ids)?;
        make_parents(dev.as_fd(), name)
            .and_then(|()| node.make(dev.as_fd(), name))
            .map_err(|source| prepare("make", device.path(), source))?;
    }
    Ok(dev)
}

struct Node {
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: (Option<Uid>, Option<Gid>),
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
        let number = |property, value: i64| {
            u32::try_from(value)
                .map_err(|_range| invalid(property, value.to_string(), "a device number"))
        };
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        Ok(Self {
            kind,
            major: number("linux.devices.major", device.major())?,
            minor: number("linux.devices.minor", device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (ids.uid(uid), ids.gid(gid)),
        })
    }

    /// Makes the node, or replaces a default one of the same name.
    fn make(&self, dev: BorrowedFd<'_>, name: impl AsRef<Path>) -> Result<(), Errno> {
        let name = name.as_ref();
        let number = makedev(self.major, self.minor);
        let mode = Mode::from_raw_mode(self.mode);
        match rustix::fs::mknodat(dev, name, self.kind, mode, number) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
                rustix::fs::mknodat(dev, name, self.kind, mode, number)?;
            }
            made => made?,
        }
        // The umask of whoever runs us has no say in it.
        rustix::fs::chmodat(dev, name, mode, AtFlags::empty())?;
        rustix::fs::chownat(
            dev,
            name,
            self.owner.0,
            self.owner.1,
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }
}

fn below_dev(path: &Path) -> Result<&Path, PlanError> {
    let name = path.strip_prefix("/dev").ok();
    let plain = |name: &&Path| {
        name.components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
            && name.file_name().is_some()
    };
    name.filter(plain).ok_or_else(|| {
        SpecError::Invalid {
            property: "linux.devices.path",
            value: path.display().to_string(),
            expected: "a path below /dev",
        }
        .into()
    })
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
