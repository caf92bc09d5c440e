//! What CRIU is handed while it restores a container: its root and the mounts of
//! things outside of it, prepared as for its first process, below a path that the
//! root of a user namespace may walk, too.
//!
//! ```text
//!  /dev/shm (in a mount namespace of ours)
//!     ├─ root    the root, which CRIU wants as a mount of its own
//!     └─ 0 1 2…  a volume, a file, a /dev
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount,
    unmount,
};

use super::Error;
use crate::plan::{Prepared, file_system};

/// Folders that are there on any Linux, with a way to them that is open to all, and
/// with nothing in them that CRIU needs.
const PLACES: [&str; 4] = ["/dev/shm", "/mnt", "/media", "/srv"];

/// Attached mounts; they go when it is dropped.
#[derive(Debug)]
pub(crate) struct Scaffold {
    at: PathBuf,
    /// Where they are in the container, by their names here.
    targets: Vec<PathBuf>,
}

impl Scaffold {
    /// Attaches them in the caller's mount namespace, which must be its own; none of
    /// the paths in `visible` is hidden by it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn raise(prepared: Prepared, visible: &[&Path]) -> Result<Self, Error> {
        let hides = |place: &&Path| visible.iter().any(|path| path.starts_with(place));
        let mut places = PLACES.iter().map(Path::new).filter(|place| place.is_dir());
        let at = places.find(|place| !hides(place)).ok_or_else(|| {
            let places = PLACES.join(", ");
            Error::Unfit(format!("there is none of the folders {places} to mount on"))
        })?;
        let failed = |errno: Errno| Error::Io {
            what: format!("mount what criu is handed on {}", at.display()),
            source: errno.into(),
        };
        let tmpfs = tmpfs().map_err(failed)?;
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tmpfs.as_fd(), c"", CWD, at, empty).map_err(failed)?;
        let scaffold = Self {
            at: at.to_owned(),
            targets: prepared.mounts.iter().map(|(at, _)| at.clone()).collect(),
        };
        attach(&tmpfs, &prepared.root, "root").map_err(failed)?;
        for (number, (_, mount)) in prepared.mounts.iter().enumerate() {
            attach(&tmpfs, mount, &number.to_string()).map_err(failed)?;
        }
        // CRIU takes no root whose changes others see.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(scaffold.root(), private).map_err(failed)?;
        Ok(scaffold)
    }

    /// The root.
    pub(crate) fn root(&self) -> PathBuf {
        self.at.join("root")
    }

    /// What goes to this place in the container, the latest where there are several,
    /// and `below` in it.
    pub(crate) fn path(&self, target: &Path, below: &Path) -> Option<PathBuf> {
        let number = self.targets.iter().rposition(|other| other == target)?;
        let path = self.at.join(number.to_string());
        Some(match below.as_os_str().is_empty() {
            true => path,
            false => path.join(below),
        })
    }
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        // What stays would go with our mount namespace.
        unmount(&self.at, UnmountFlags::DETACH).ok();
    }
}

/// What others may walk through and not list.
fn tmpfs() -> Result<OwnedFd, Errno> {
    let mode = (c"mode".to_owned(), Some(c"711".to_owned()));
    file_system(
        c"tmpfs",
        None,
        &[mode],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

fn attach(tmpfs: &OwnedFd, mount: &OwnedFd, name: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(fstat(mount)?.st_mode).is_dir() {
        mkdirat(tmpfs, name, Mode::RWXU)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(tmpfs, name, flags, Mode::RUSR)?;
    }
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", tmpfs, name, empty)
}
