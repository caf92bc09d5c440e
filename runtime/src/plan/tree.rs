//! The container's file system tree: its root and what is mounted in it, each
//! prepared by whoever may.
//!
//! What needs the host's root is made here, by the parent, as a detached mount:
//! the root file system, `/dev` with its nodes, bind mounts. What must belong
//! to the container's namespaces is made by the child: proc, sysfs, devpts,
//! tmpfs, cgroups.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::devices::{self, Dev, dev_tmpfs, hand_over, new_owner};
use super::ids::HostIds;
use super::mounts::{self, MountStep, Mounts, Remount, Source};
use super::options::Options;
use super::propagation::RootPropagation;
use super::rootfs::{self, Overlay};
use super::target::{Kind, Target};
use super::{Late, PlanError, Step};
use crate::cgroup::{self, Cgroup, InnerMount};
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::{Attributes, mount_setattr};

/// What a tree is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreeParts<'a> {
    pub(super) bundle: &'a Bundle,
    /// The folder that the root is mounted on, without symbolic links.
    pub(super) at: &'a Path,
    pub(super) cgroup: &'a Cgroup,
    /// How its mounts propagate.
    pub(super) propagation: RootPropagation,
}

/// The file system tree of a container.
#[derive(Debug)]
pub(super) struct Tree {
    /// The root, detached, where it need not wait for the user namespace.
    pub(super) root: Option<OwnedFd>,
    /// What mounts into it.
    pub(super) steps: Vec<Step>,
    /// What waits for the user namespace.
    pub(super) late: Late,
}

/// Prepares what can be prepared now.
pub(super) fn tree(parts: &TreeParts<'_>) -> Result<Tree, PlanError> {
    let mut late = Late::default();
    let mounts = parts.bundle.spec().mounts().as_deref().unwrap_or_default();
    let (root, rest) = match mounts.split_first() {
        Some((first, rest)) if first.destination() == Path::new("/") => {
            (overlay_root(first, parts, &mut late)?, rest)
        }
        _ => (Some(plain_root(parts)?), mounts),
    };
    let linux = parts.bundle.spec().linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_deref());
    let label = label.filter(|label| !label.is_empty()).map(CString::new);
    if label.is_some() {
        crate::lsm::need(crate::lsm::Module::SeLinux, "linux.mountLabel")?;
    }
    let mounts = Mounts {
        bundle: parts.bundle,
        propagation: parts.propagation,
        label: label
            .transpose()
            .map_err(|_nul| PlanError::Nul("linux.mountLabel"))?,
    };
    let mut steps = Vec::new();
    let mut read_only = Vec::new();
    let mut dev = Dev::Root;
    for (index, mount) in rest.iter().enumerate() {
        match mount.typ().as_deref() {
            _ if is_dev(mount)? => {
                dev = Dev::Tmpfs;
                steps.extend(dev_steps(mount, parts)?);
                read_only.extend(remounted_read_only(mount)?);
            }
            Some("cgroup" | "cgroup2") => cgroup_steps(mount, parts, &mut steps)?,
            Some("tmpfs") if has_mounts_below(mount, &rest[index + 1..]) => {
                // It must hold their folders before it becomes read-only.
                let later = remounted_read_only(mount)?;
                let mut mount = mount.clone();
                if later.is_some()
                    && let Some(options) = mount.options_mut()
                {
                    options.retain(|option| !["ro", "rro"].contains(&option.as_str()));
                }
                read_only.extend(later);
                steps.push(mounts.step(&mount, &mut late)?);
            }
            _ => {
                if mount.destination() == Path::new("/dev") && is_bind(mount)? {
                    dev = Dev::Bound;
                }
                steps.push(mounts.step(mount, &mut late)?);
            }
        }
    }
    let devices = linux.and_then(|linux| linux.devices().as_deref());
    let devices = devices.unwrap_or_default();
    steps.extend(devices::steps(dev, devices, parts.bundle, parts.at)?);
    steps.extend(read_only);
    Ok(Tree { root, steps, late })
}

pub(super) fn is_dev(mount: &Mount) -> Result<bool, PlanError> {
    let here = mount.destination() == Path::new("/dev");
    let options = mounts::parse_options(mount)?;
    Ok(here && mount.typ().as_deref() == Some("tmpfs") && !options.remount && !options.copy_up)
}

fn is_bind(mount: &Mount) -> Result<bool, PlanError> {
    let bind = mounts::parse_options(mount)?.bind.is_some();
    Ok(bind || mount.typ().as_deref() == Some("bind"))
}

fn has_mounts_below(mount: &Mount, later: &[Mount]) -> bool {
    let at = mount.destination();
    let below = |other: &Mount| other.destination().starts_with(at);
    later.iter().any(below)
}

/// What makes a tmpfs read-only at last, if it is to be.
fn remounted_read_only(mount: &Mount) -> Result<Option<Step>, PlanError> {
    let options = mounts::parse_options(mount)?;
    let set = (options.attributes.set | options.recursive.set) & libc::MOUNT_ATTR_RDONLY;
    if set == 0 {
        return Ok(None);
    }
    Ok(Some(Step::Remount(Box::new(Remount {
        target: Target::new(mount.destination(), Kind::Folder)?,
        attributes: Attributes {
            set,
            ..Attributes::default()
        },
        recursive: Attributes::default(),
        parameters: Vec::new(),
    }))))
}

/// The bundle's folder with all that is mounted below it.
fn plain_root(parts: &TreeParts<'_>) -> Result<OwnedFd, PlanError> {
    let root = rootfs::detached_tree(parts.at, true)?;
    // A copy is a peer or a slave of what it was copied from: mounts that the
    // host makes there later would show up inside.
    let attributes = Attributes {
        propagation: parts.propagation.before_root(),
        ..Attributes::default()
    };
    mount_setattr(root.as_fd(), c"", true, attributes).map_err(|source| PlanError::Prepare {
        what: "set the propagation of",
        subject: parts.at.display().to_string(),
        source,
    })?;
    Ok(root)
}

/// The overlay, or none yet: with a user namespace its layers must be mapped first.
fn overlay_root(
    mount: &Mount,
    parts: &TreeParts<'_>,
    late: &mut Late,
) -> Result<Option<OwnedFd>, PlanError> {
    if mount.typ().as_deref() != Some("overlay") {
        return Err(SpecError::Invalid {
            property: "mounts[0].type",
            value: mount.typ().clone().unwrap_or_default(),
            expected: "overlay for /",
        }
        .into());
    }
    let options = mounts::parse_options(mount)?;
    let owner = parts.bundle.uid(0).zip(parts.bundle.gid(0));
    let owner = owner.ok_or(SpecError::Missing("a mapping of uid 0 and gid 0"))?;
    let overlay = Overlay::new(options, parts.at, owner)?;
    if parts.bundle.namespace(LinuxNamespaceType::User).is_none() {
        return overlay.mount(None).map(Some);
    }
    late.root = Some(overlay);
    Ok(None)
}

fn dev_steps(mount: &Mount, parts: &TreeParts<'_>) -> Result<Vec<Step>, PlanError> {
    let options = mounts::parse_options(mount)?;
    let linux = parts.bundle.spec().linux().as_ref();
    let devices = linux.and_then(|linux| linux.devices().as_deref());
    let flags = mounts::new_mount(mount, &options)?.attributes;
    let (dev, bound) = dev_tmpfs(&options, flags, devices.unwrap_or_default(), parts.bundle)?;
    let mut steps = vec![attach_step(dev, mount.destination())?];
    steps.extend(bound);
    Ok(steps)
}

fn attach_step(mount: OwnedFd, at: &Path) -> Result<Step, PlanError> {
    Ok(Step::Mount(Box::new(MountStep {
        source: Source::Detached(mount),
        target: Target::new(at, Kind::Folder)?,
    })))
}

/// `/sys/fs/cgroup` as the host has it: one v2 tree, or one folder for each
/// v1 hierarchy beside it; read-only where the configuration says so (P16).
fn cgroup_steps(
    mount: &Mount,
    parts: &TreeParts<'_>,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let options = mounts::parse_options(mount)?;
    let flags = mounts::new_mount(mount, &options)?.attributes;
    // Of one that is joined we are not the root.
    let own_namespace = parts.bundle.namespace(LinuxNamespaceType::Cgroup) == Some(None);
    let inner = parts.cgroup.inner_mounts();
    let (tmpfs, trees) = inner.split_at(usize::from(inner.len() > 1));
    if let [_] = tmpfs {
        let folders: Vec<&str> = trees.iter().map(|tree| tree.folder.as_str()).collect();
        let tmpfs = cgroup_tmpfs(&folders, &options, parts.bundle).map_err(|source| {
            PlanError::Prepare {
                what: "make",
                subject: "/sys/fs/cgroup".to_owned(),
                source,
            }
        })?;
        steps.push(attach_step(tmpfs, mount.destination())?);
    }
    for tree in trees {
        let at = mount.destination().join(&tree.folder);
        steps.push(if own_namespace {
            cgroup_mount(tree, &at, flags)?
        } else {
            attach_step(cgroup_bind(tree, parts.cgroup, &options)?, &at)?
        });
    }
    Ok(())
}

/// A mount that shows the container's group as its root, by its namespace.
fn cgroup_mount(tree: &InnerMount, at: &Path, flags: MountAttrFlags) -> Result<Step, PlanError> {
    let text = |text: &str| CString::new(text).map_err(|_nul| PlanError::Nul("a cgroup option"));
    let parameters = tree
        .options
        .iter()
        .map(|option| Ok((text(option)?, None)))
        .collect::<Result<_, PlanError>>()?;
    let step = MountStep::file_system(
        &text(tree.fstype)?,
        Target::new(at, Kind::Folder)?,
        parameters,
        flags,
    );
    Ok(Step::Mount(Box::new(step)))
}

/// Without a namespace of its own a new mount would show the whole host's
/// groups: the container gets its own folder bound instead.
fn cgroup_bind(
    tree: &InnerMount,
    cgroup: &Cgroup,
    options: &Options,
) -> Result<OwnedFd, PlanError> {
    let record = cgroup.record();
    let v1 = || {
        let mut folders = record.v1.iter();
        folders.find_map(|(controller, folder)| {
            let named = |option: &String| option == controller.v1_name();
            tree.options.iter().any(named).then_some(folder)
        })
    };
    // Without one of its own it lives in its maker's.
    let makers = match record.absent {
        true => cgroup::own_v2_folder(),
        false => None,
    };
    let folder = if tree.fstype == "cgroup2" {
        record.v2.as_ref().or(makers.as_ref())
    } else {
        v1()
    };
    let folder = folder.ok_or(SpecError::Missing("a cgroup to show inside"))?;
    let bind = rootfs::detached_tree(folder, false)?;
    let attributes = Attributes {
        propagation: libc::MS_PRIVATE,
        ..options.attributes
    };
    mount_setattr(bind.as_fd(), c"", false, attributes).map_err(|source| PlanError::Prepare {
        what: "set the mount attributes of",
        subject: folder.display().to_string(),
        source,
    })?;
    Ok(bind)
}

/// The folder of a hybrid host's hierarchies. The parent makes it, because it
/// must hold its folders before it becomes read-only.
fn cgroup_tmpfs(folders: &[&str], options: &Options, bundle: &Bundle) -> Result<OwnedFd, Errno> {
    let mode = (c"mode".to_owned(), Some(c"755".to_owned()));
    let tmpfs = rootfs::file_system(c"tmpfs", None, &[mode], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    let owner = new_owner((bundle.uid(0), bundle.gid(0)));
    hand_over(tmpfs.as_fd(), c"", owner, AtFlags::EMPTY_PATH)?;
    for folder in folders {
        rustix::fs::mkdirat(&tmpfs, *folder, Mode::from_raw_mode(0o755))?;
    }
    mount_setattr(tmpfs.as_fd(), c"", false, options.attributes)?;
    Ok(tmpfs)
}
