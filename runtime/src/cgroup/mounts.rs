//! Which hierarchies are mounted where, and our place in each.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{getxattr, statfs};

use super::error::{Error, Result};
use super::layout::Controller;
use crate::mountinfo;

/// See statfs(2).
pub(super) const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
pub(super) const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;

/// What mountinfo and `/proc/PID/cgroup` say, before the file system is asked.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) v2: Option<Place>,
    pub(super) v1: BTreeMap<Controller, Place>,
}

/// A mounted hierarchy and our cgroup in it, relative to the mount.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    mount: PathBuf,
    own: PathBuf,
}

impl Place {
    /// P1: what we will write to is a cgroup hierarchy, whatever mountinfo says.
    pub(super) fn verified(&self, magic: i64) -> Result<&Self> {
        let found = statfs(&self.mount).map_err(Error::file("examine", &self.mount))?;
        if found.f_type == magic {
            return Ok(self);
        }
        let mount = self.mount.display();
        Err(Error::Layout {
            reason: format!("{mount} is hidden by another file system"),
        })
    }

    pub(super) fn own(&self) -> PathBuf {
        join(&self.mount, &self.own)
    }

    /// The mount itself.
    pub(super) fn root(&self) -> PathBuf {
        self.mount.clone()
    }

    /// The nearest ancestor that systemd marks as delegated, else the mount.
    pub(super) fn delegated(&self) -> PathBuf {
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
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
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
        let (root, target) = (mountinfo::path(root), mountinfo::path(target));
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
}
