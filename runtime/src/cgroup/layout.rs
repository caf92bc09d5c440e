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
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{getxattr, statfs};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::file;

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
}

impl Controller {
    pub(super) const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
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
    detect_in(Path::new("/proc/self"))
}

/// Finds the layout as another process sees it, such as one that lives in a
/// delegated unit.
///
/// # Errors
/// As [`detect`].
pub fn detect_of(pid: Pid) -> Result<Layout> {
    detect_in(&PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero())))
}

fn detect_in(proc: &Path) -> Result<Layout> {
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
    let v2 = v2.map(|place| place.delegated());
    let mut controllers = BTreeMap::new();
    for (controller, place) in &found.v1 {
        controllers.insert(*controller, place.verified(CGROUP_SUPER_MAGIC)?.own());
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

/// See statfs(2).
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;

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

/// What mountinfo and `/proc/PID/cgroup` say, before the file system is asked.
#[derive(Debug, Default, PartialEq)]
struct Found {
    v2: Option<Place>,
    v1: BTreeMap<Controller, Place>,
}

/// A mounted hierarchy and our cgroup in it, relative to the mount.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    mount: PathBuf,
    own: PathBuf,
}

impl Place {
    /// P1: what we will write to is a cgroup hierarchy, whatever mountinfo says.
    fn verified(&self, magic: i64) -> Result<&Self> {
        let found = statfs(&self.mount).map_err(Error::file("examine", &self.mount))?;
        if found.f_type == magic {
            return Ok(self);
        }
        let mount = self.mount.display();
        Err(Error::Layout {
            reason: format!("{mount} is hidden by another file system"),
        })
    }

    fn own(&self) -> PathBuf {
        join(&self.mount, &self.own)
    }

    /// The nearest ancestor that systemd marks as delegated, else the mount.
    fn delegated(&self) -> PathBuf {
        self.own
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
            .map(|ancestor| join(&self.mount, ancestor))
            .find(|folder| {
                ["trusted.delegate", "user.delegate"].iter().any(|name| {
                    let mut value = [0_u8; 8];
                    matches!(getxattr(folder, *name, &mut value), Ok(1) if value[0] == b'1')
                })
            })
            .unwrap_or_else(|| self.mount.clone())
    }
}

/// `Path::join` without the trailing slash that an empty second part brings.
fn join(folder: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        folder.to_owned()
    } else {
        folder.join(below)
    }
}

impl Found {
    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if mount.fstype == "cgroup2" {
                if let (None, Some(own)) = (&found.v2, own_path(own, "")) {
                    found.v2 = Some(mount.place(own));
                }
                continue;
            }
            for controller in Controller::ALL {
                let name = controller.v1_name();
                if !mount.super_options.split(',').any(|option| option == name) {
                    continue;
                }
                if let Some(own) = own_path(own, name) {
                    found
                        .v1
                        .entry(controller)
                        .or_insert_with(|| mount.place(own));
                }
            }
        }
        found
    }
}

/// The third field of the line of `/proc/PID/cgroup` that lists `controller`;
/// v2's list is empty.
fn own_path<'a>(cgroup: &'a str, controller: &str) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        if controllers.split(',').any(|name| name == controller) {
            fields.next()
        } else {
            None
        }
    })
}

/// A line of mountinfo that mounts a writable cgroup hierarchy.
struct Mount<'a> {
    root: PathBuf,
    target: PathBuf,
    fstype: &'a str,
    super_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, target, options) = (before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        let fstype = after.next()?;
        let super_options = after.nth(1)?;
        let read_only = options.split(',').any(|option| option == "ro");
        if read_only || !matches!(fstype, "cgroup" | "cgroup2") {
            return None;
        }
        let (root, target) = (unescape(root), unescape(target));
        Some(Self {
            root,
            target,
            fstype,
            super_options,
        })
    }

    /// Where a process of cgroup `own` finds itself below this mount. A mount
    /// that does not show it at all (a bind of another subtree) serves by its root.
    fn place(&self, own: &str) -> Place {
        let own = Path::new(own)
            .strip_prefix(&self.root)
            .unwrap_or(Path::new(""));
        // A cgroup outside our cgroup namespace reads as /../…
        let outside = own.components().any(|part| part == Component::ParentDir);
        let own = if outside { Path::new("") } else { own };
        Place {
            mount: self.target.clone(),
            own: own.to_owned(),
        }
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits, proc(5).
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio ro,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:3 - cgroup2 cgroup2 rw";
    const HYBRID_OWN: &str =
        "9:name=systemd:/a\n4:memory:/sandbox/1\n2:cpu,cpuacct:/\n0::/user.slice";

    fn place(mount: &str, own: &str) -> Place {
        Place {
            mount: mount.into(),
            own: own.into(),
        }
    }

    #[test]
    fn hybrid_mounts_are_found_with_our_own_cgroup_in_each() {
        let found = Found::parse(HYBRID, HYBRID_OWN);
        assert_eq!(
            found.v2,
            Some(place("/sys/fs/cgroup/uni fied", "user.slice"))
        );
        let cpu = place("/sys/fs/cgroup/cpu,cpuacct", "");
        let expected = [
            (Controller::Cpu, cpu.clone()),
            (Controller::Cpuacct, cpu),
            (
                Controller::Memory,
                place("/sys/fs/cgroup/memory", "sandbox/1"),
            ),
        ];
        assert_eq!(
            found.v1,
            expected.into(),
            "the read-only blkio cannot be used"
        );
    }

    #[test]
    fn the_root_of_a_bind_mounted_subtree_is_taken_off_our_path() {
        let info = "41 31 0:38 /pod /cg rw - cgroup2 cgroup2 rw";
        assert_eq!(Found::parse(info, "0::/pod/x").v2, Some(place("/cg", "x")));
        assert_eq!(
            Found::parse(info, "0::/elsewhere").v2,
            Some(place("/cg", ""))
        );
        let info = "41 31 0:38 / /cg rw - cgroup2 cgroup2 rw";
        assert_eq!(
            Found::parse(info, "0::/../outside").v2,
            Some(place("/cg", ""))
        );
    }

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
