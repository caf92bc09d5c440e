//! What the host's root mounts for a container, apart from any child: for who
//! restores it, and makes the other mounts himself.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rustix::fs::Gid;
use rustix::io::Errno;

use super::devices::{Dev, bound_paths, make_folder};
use super::ids::HostIds;
use super::mounts::Source;
use super::propagation::RootPropagation;
use super::setup::{read_only_root, root_folder};
use super::tree::{TreeParts, is_dev, tree};
use super::{PlanError, Step};
use crate::cgroup::Cgroup;
use crate::container::mapped;
use crate::spec::{Bundle, SpecError};
use crate::sys::mount::mount_setattr;

const DEV: &str = "/dev";

/// Mounts as they are for a container's first process, each detached and with its
/// attributes and mappings.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The root.
    pub(crate) root: OwnedFd,
    /// The others, by where they go.
    pub(crate) mounts: Vec<(PathBuf, OwnedFd)>,
}

impl Prepared {
    /// Prepares them. The caller's mount namespace must be its own.
    ///
    /// # Errors
    /// [`PlanError`] of what could not be prepared.
    pub(crate) fn new(bundle: &Bundle, cgroup: &Cgroup) -> Result<Self, PlanError> {
        let at = root_folder(bundle)?;
        let tree = tree(&TreeParts {
            bundle,
            at: &at,
            cgroup,
            propagation: RootPropagation::new(bundle)?,
        })?;
        let mut late = None;
        if bundle.namespace(LinuxNamespaceType::User).is_some() {
            // Its processes come to live in another of the same mappings.
            let namespace = mapped(bundle.uid_mappings(), bundle.gid_mappings());
            let namespace = namespace.map_err(|source| PlanError::Mapping {
                target: PathBuf::from("/"),
                source: Box::new(source),
            })?;
            late = tree.late.finish(namespace.as_fd())?;
        }
        let root = tree.root.or(late).ok_or(SpecError::Missing("root"))?;
        if let Some(attributes) = read_only_root(bundle.spec()) {
            mount_setattr(root.as_fd(), c"", false, attributes).map_err(|source| {
                PlanError::Prepare {
                    what: "make read-only",
                    subject: at.display().to_string(),
                    source,
                }
            })?;
        }
        let mounts = tree.steps.into_iter().filter_map(|step| {
            let Step::Mount(mount) = step else {
                return None;
            };
            let Source::Detached(fd) = mount.source else {
                return None;
            };
            Some((PathBuf::from(mount.target.to_string()), fd))
        });
        Ok(Self {
            root,
            mounts: mounts.collect(),
        })
    }

    /// Makes folders for mounts in a `/dev` that is among these.
    ///
    /// # Errors
    /// [`PlanError::Prepare`] with the folder.
    pub(crate) fn make_folders(
        &self,
        folders: &[String],
        bundle: &Bundle,
    ) -> Result<(), PlanError> {
        let Some((_, dev)) = self.mounts.iter().find(|(at, _)| at == Path::new(DEV)) else {
            return Ok(());
        };
        let owner = (bundle.uid(0), bundle.gid(0));
        let below = folders
            .iter()
            .filter_map(|path| Path::new(path).strip_prefix(DEV).ok());
        for path in below.filter(|path| !path.as_os_str().is_empty()) {
            let failed = |source: Errno| PlanError::Prepare {
                what: "make a folder in /dev:",
                subject: path.display().to_string(),
                source,
            };
            make_folder(dev.as_fd(), path, owner).map_err(failed)?;
        }
        Ok(())
    }
}

/// The host's id of the group of a user namespace's root.
pub(crate) fn group_of_root(bundle: &Bundle) -> Option<Gid> {
    bundle.namespace(LinuxNamespaceType::User)?;
    bundle.gid(0)
}

/// Where a container in a user namespace has mounts that nobody inside could make:
/// those with devices.
///
/// # Errors
/// [`PlanError`] of a mount's options.
pub(crate) fn made_by_the_hosts_root(bundle: &Bundle) -> Result<Vec<PathBuf>, PlanError> {
    if bundle.namespace(LinuxNamespaceType::User).is_none() {
        return Ok(Vec::new());
    }
    let mounts = bundle.spec().mounts().as_deref().unwrap_or_default();
    let mut dev = Dev::Root;
    for mount in mounts {
        if is_dev(mount)? {
            dev = Dev::Tmpfs;
        } else if is_on_dev(mount) {
            dev = Dev::Bound;
        }
    }
    let linux = bundle.spec().linux().as_ref();
    let devices = linux.and_then(|linux| linux.devices().as_deref());
    let mut paths = bound_paths(dev, devices.unwrap_or_default());
    if dev == Dev::Tmpfs {
        paths.push(PathBuf::from(DEV));
    }
    Ok(paths)
}

fn is_on_dev(mount: &Mount) -> bool {
    mount.destination() == Path::new(DEV)
}
