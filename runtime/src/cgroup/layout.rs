//! Which hierarchies this machine has, and below which folder of each we may work.
//!
//! ```text
//! unified   /sys/fs/cgroup                    cgroup2   everything
//! hybrid    /sys/fs/cgroup/unified            cgroup2   tracking, freezing, killing, devices
//!           /sys/fs/cgroup/{cpu,memory,pids…} cgroup    limits
//! legacy    /sys/fs/cgroup/{…}                cgroup    everything, as well as it can
//! ```
//!
//! The base on v2 is the nearest cgroup above us that systemd has delegated, or
//! else the root of the mount: a cgroup with processes cannot hand controllers to
//! its children, so our own would not do, and a monitor that moves itself below
//! the base still finds the same one. On v1, where that rule does not exist and
//! nobody moves, the base is our own cgroup.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::file;
use super::mounts::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, Found, Place};

/// A resource controller, by its name on v2 where it has one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Io,
    Pids,
    Devices,
    Freezer,
    Hugetlb,
    Rdma,
    Misc,
    #[serde(rename = "net_cls")]
    NetCls,
    #[serde(rename = "net_prio")]
    NetPrio,
}

impl Controller {
    pub(super) const ALL: [Self; 13] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
        Self::Rdma,
        Self::Misc,
        Self::NetCls,
        Self::NetPrio,
    ];

    /// The name of its mount option on v1.
    #[must_use]
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Io => "blkio",
            other => other.name(),
        }
    }

    /// The name in `cgroup.controllers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The hierarchies of a machine. Every path is a *base*: the folder below which
/// `linux.cgroupsPath` is resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Layout {
    /// Pure cgroup v2.
    Unified {
        /// The base.
        root: PathBuf,
    },
    /// A v2 tree next to v1 controllers.
    Hybrid {
        /// The base in the v2 tree.
        v2: PathBuf,
        /// The base of each controller that is mounted as v1.
        controllers: BTreeMap<Controller, PathBuf>,
    },
    /// v1 controllers alone.
    Legacy {
        /// The base of each controller.
        controllers: BTreeMap<Controller, PathBuf>,
    },
}

/// Finds the layout as the calling process sees it.
///
/// # Errors
/// When `/proc` cannot be read, nothing is mounted, or what is mounted is read-only.
pub fn detect() -> Result<Layout> {
    detect_in(Path::new("/proc/self"), Place::delegated, Place::own)
}

/// Finds the mount points of the hierarchies: the bases of absolute paths.
///
/// # Errors
/// As [`detect`].
pub fn detect_mounts() -> Result<Layout> {
    detect_in(Path::new("/proc/self"), Place::root, Place::root)
}

/// Finds the layout as another process sees it, such as one that lives in a
/// delegated unit.
///
/// # Errors
/// As [`detect`].
pub fn detect_of(pid: Pid) -> Result<Layout> {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    detect_in(&proc, Place::delegated, Place::own)
}

/// The bases for a `linux.cgroupsPath`: an absolute one is below the mount points,
/// a relative one below our own group.
pub(super) fn detect_for(path: &str) -> Result<Layout> {
    if path.starts_with('/') {
        detect_mounts()
    } else {
        detect()
    }
}

/// The folder of the v2 tree that we are in ourselves, if it is mounted.
pub(crate) fn own_v2_folder() -> Option<PathBuf> {
    let read = |name| file::read(&Path::new("/proc/self").join(name)).ok();
    let found = Found::parse(&read("mountinfo")?, &read("cgroup")?);
    let place = found.v2?;
    Some(place.verified(CGROUP2_SUPER_MAGIC).ok()?.own())
}

fn detect_in(
    proc: &Path,
    v2_base: fn(&Place) -> PathBuf,
    v1_base: fn(&Place) -> PathBuf,
) -> Result<Layout> {
    let mountinfo = proc.join("mountinfo");
    let mountinfo = file::read(&mountinfo).map_err(Error::file("read", &mountinfo))?;
    let own = proc.join("cgroup");
    let own = file::read(&own).map_err(Error::file("read", &own))?;
    let found = Found::parse(&mountinfo, &own);
    let v2 = found
        .v2
        .as_ref()
        .map(|place| place.verified(CGROUP2_SUPER_MAGIC))
        .transpose()?;
    let v2 = v2.map(v2_base);
    let mut controllers = BTreeMap::new();
    for (controller, place) in &found.v1 {
        let base = v1_base(place.verified(CGROUP_SUPER_MAGIC)?);
        controllers.insert(*controller, base);
    }
    match (v2, controllers.is_empty()) {
        (Some(root), true) => Ok(Layout::Unified { root }),
        (Some(v2), false) => Ok(Layout::Hybrid { v2, controllers }),
        (None, false) => Ok(Layout::Legacy { controllers }),
        (None, true) => Err(Error::Layout {
            reason: "no writable cgroup hierarchy is mounted; mount one with \
                     `mount -t cgroup2 none /sys/fs/cgroup`"
                .into(),
        }),
    }
}

impl Layout {
    /// The base in the v2 tree.
    #[must_use]
    pub fn v2(&self) -> Option<&Path> {
        match self {
            Self::Unified { root } => Some(root),
            Self::Hybrid { v2, .. } => Some(v2),
            Self::Legacy { .. } => None,
        }
    }

    /// The base of a controller that is mounted as v1.
    #[must_use]
    pub fn v1(&self, controller: Controller) -> Option<&Path> {
        self.v1_controllers()?
            .get(&controller)
            .map(PathBuf::as_path)
    }

    pub(super) fn v1_controllers(&self) -> Option<&BTreeMap<Controller, PathBuf>> {
        match self {
            Self::Unified { .. } => None,
            Self::Hybrid { controllers, .. } | Self::Legacy { controllers } => Some(controllers),
        }
    }

    /// Every base, each once (v1 controllers may share a hierarchy).
    pub(super) fn bases(&self) -> Vec<&Path> {
        let mut bases: Vec<&Path> = self.v2().into_iter().collect();
        for base in self
            .v1_controllers()
            .into_iter()
            .flatten()
            .map(|(_, base)| base)
        {
            if !bases.contains(&base.as_path()) {
                bases.push(base);
            }
        }
        bases
    }
}

/// `linux.cgroupsPath` as a path relative to a base.
pub(super) fn relative(path: &str) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => clean.push(name),
            _ => {
                return Err(Error::Path {
                    path: path.to_owned(),
                });
            }
        }
    }
    if clean.as_os_str().is_empty() || path.contains('\0') {
        return Err(Error::Path {
            path: path.to_owned(),
        });
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_base() {
        for bad in ["", "/", "//", "..", "/a/../b", "a/..", "../x", "a\0b"] {
            assert!(matches!(relative(bad), Err(Error::Path { .. })), "{bad:?}");
        }
        assert_eq!(
            relative("/dyno-1/dynos/a").unwrap(),
            Path::new("dyno-1/dynos/a")
        );
        assert_eq!(relative("a//b/").unwrap(), Path::new("a/b"));
    }

    #[test]
    fn this_machine_has_a_layout() {
        let layout = detect().unwrap();
        for base in layout.bases() {
            assert!(base.join("cgroup.procs").exists(), "{}", base.display());
        }
    }
}
