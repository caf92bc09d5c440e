//! Control groups: what a container may use, and the handle by which all of its
//! processes are watched, frozen and killed.
//!
//! ```text
//!  layout    which hierarchies there are, and our base in each; mounts  as found
//!  place     linux.cgroupsPath           systemd  the driver that asks for scopes
//!  settings  linux.resources → values for files (pure)
//!  create    folders, limits, device rules; undone on failure
//!  rootless  the same below what is delegated; or none at all
//!  processes who is in, freeze, kill, wait, remove
//!  oom       a descriptor that wakes the monitor's loop
//!  stats     what a monitor wants to know; usage: all that is counted, as runc has it
//!  inner     what the container mounts; owner  who may make groups in it
//! ```
//!
//! On a hybrid machine the v2 tree tracks, freezes and kills while the v1
//! controllers limit. cgroups-rs cannot express that split, `memory.oom.group`,
//! `memory.events` or device programs, and brings an asynchronous D-Bus client with it:
//! hence our own.

mod create;
mod devices;
mod error;
mod file;
mod folders;
mod inner;
mod layout;
mod left;
mod limits;
mod mounts;
mod oom;
mod owner;
mod place;
mod processes;
mod rootless;
mod settings;
mod stats;
pub mod systemd;
pub mod usage;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};

pub use create::{join, prune};
pub use error::{Error, Result};
pub use inner::InnerMount;
pub(crate) use layout::own_v2_folder;
pub use layout::{Controller, Layout, detect, detect_mounts, detect_of};
pub use oom::OomWatch;
pub use owner::owner;
pub use place::{ANNOTATION, Place, Unit};
pub use settings::ignored;
pub use stats::Stats;

/// A container's cgroup: one folder in each hierarchy that is used for it.
///
/// Dropping it leaves the folders alone; [`Cgroup::remove`] deletes them.
#[derive(Debug)]
pub struct Cgroup {
    record: Record,
    v2: Option<OwnedFd>,
    /// `cgroup.kill` was written: see [`Cgroup::v2_dir_fd`].
    killed: Cell<bool>,
    /// Of a scope that nobody else is in yet.
    holder: RefCell<Option<systemd::Holder>>,
}

/// Where a cgroup is, to be kept in a state file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The folder in the v2 tree.
    pub v2: Option<PathBuf>,
    /// The folder of each v1 controller in use; controllers may share one.
    pub v1: BTreeMap<Controller, PathBuf>,
    /// `memory.oom.group` was asked for where only v1 limits memory.
    pub monitor_kills_on_oom: bool,
    /// There is none: its maker may make none, and no limit needs one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// The scope of systemd that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRecord>,
}

/// A scope of systemd, to be kept in a state file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnitRecord {
    /// Its name.
    pub name: String,
    /// Of the user's systemd, not the system's.
    pub user: bool,
}

impl Record {
    /// Whether its processes are held still. A group that is gone holds none.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let says = |path: PathBuf, frozen: &str| file::read(&path).is_ok_and(|text| text == frozen);
        match (&self.v2, self.v1.get(&Controller::Freezer)) {
            (Some(folder), _) => says(folder.join("cgroup.freeze"), "1"),
            (None, Some(folder)) => says(folder.join("freezer.state"), "FROZEN"),
            (None, None) => false,
        }
    }
}

impl Cgroup {
    /// Opens a cgroup that was created earlier. One that is gone by now is empty, and
    /// [`Cgroup::remove`] clears away what is left of it.
    ///
    /// # Errors
    /// When its v2 folder exists but cannot be opened.
    pub fn open(record: Record) -> Result<Self> {
        let v2 = match record.v2.as_deref().map(open_folder).transpose() {
            Err(Error::File { source, .. }) if file::is_gone(&source) => None,
            opened => opened?,
        };
        Ok(Self {
            record,
            v2,
            killed: Cell::new(false),
            holder: RefCell::new(None),
        })
    }

    /// Where this cgroup is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The folder in the v2 tree, for `CLONE_INTO_CGROUP` of clone3(2). None on a legacy
    /// host, or if it was gone already when it was opened.
    ///
    /// None as well once the group was killed: the kernel counts the kills of a group,
    /// and takes a child that is cloned into one with another count than its parent's
    /// for one that escaped a kill (Linux 6.18, `cgroup_post_fork`). Such a child is
    /// moved by [`Cgroup::admit`] instead.
    #[must_use]
    pub fn v2_dir_fd(&self) -> Option<BorrowedFd<'_>> {
        // A user may not write where the process is now: systemd moves it.
        let of_user = self.record.unit.as_ref().is_some_and(|unit| unit.user);
        self.v2_folder().filter(|_| !self.killed.get() && !of_user)
    }

    fn v2_folder(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is none: its processes are known by other means then.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.record.absent
    }

    /// Whether somebody has to watch [`Cgroup::oom_watch`] and kill the group, since
    /// `memory.oom.group` was asked for and the kernel cannot do it here. A caller
    /// that does not stay to watch must refuse such a container.
    #[must_use]
    pub fn monitor_kills_on_oom(&self) -> bool {
        self.record.monitor_kills_on_oom
    }

    /// Every folder, each once, the v2 one first.
    fn folders(&self) -> Vec<&Path> {
        let mut folders: Vec<&Path> = self.record.v2.as_deref().into_iter().collect();
        for folder in self.record.v1.values() {
            // As they are written: to compare paths part by part takes longer.
            let folder = folder.as_path();
            if !folders
                .iter()
                .any(|known| known.as_os_str() == folder.as_os_str())
            {
                folders.push(folder);
            }
        }
        folders
    }

    /// The folder that names this cgroup in messages and lists its processes.
    fn main_folder(&self) -> &Path {
        const TRACKING: [Controller; 3] =
            [Controller::Freezer, Controller::Pids, Controller::Memory];
        let v1 = || TRACKING.iter().find_map(|controller| self.v1(*controller));
        let any = || self.record.v1.values().next().map(PathBuf::as_path);
        self.record
            .v2
            .as_deref()
            .or_else(v1)
            .or_else(any)
            .unwrap_or(Path::new(""))
    }

    fn v1(&self, controller: Controller) -> Option<&Path> {
        self.record.v1.get(&controller).map(PathBuf::as_path)
    }
}

/// What this build supports, wherever it runs, for a `features` command
/// (runtime-spec, `features-linux.md` "cgroup").
#[must_use]
pub fn features() -> oci_spec::runtime::Cgroup {
    let mut features = oci_spec::runtime::Cgroup::default();
    let yes = Some(true);
    features.set_v1(yes).set_v2(yes).set_rdma(yes);
    features.set_systemd(yes).set_systemd_user(yes);
    features
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    open(path, flags, Mode::empty()).map_err(Error::file("open", path))
}
