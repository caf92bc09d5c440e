//! Folders of a new cgroup: made outermost first, able to limit, undone on failure.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::file;
use super::layout::Controller;

/// Lets children of `folder` use controllers, cgroup-v2.rst "Enabling and Disabling".
pub(super) fn enable_controllers(folder: &Path, controllers: &[Controller]) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let enabled = file::read(&file).map_err(Error::file("read", &file))?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|controller| !enabled.split(' ').any(|name| name == controller.name()))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    match file::write(&file, &missing.join(" ")) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(Error::Layout {
            reason: format!(
                "{} holds processes itself and so cannot limit its children; \
                 delegate a subgroup to them (systemd: DelegateSubgroup=)",
                folder.display()
            ),
        }),
        Err(error) => Err(Error::file("enable controllers in", &file)(error)),
    }
}

/// A new v1 cpuset is empty and takes no process before it has both lists, cpuset(7).
/// `folder` lies below `base`, the hierarchy's own, whose lists are full.
pub(super) fn inherit_cpuset(base: &Path, folder: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherited(base, folder, name)?;
    }
    Ok(())
}

/// A list of `folder`; an empty one is filled first, with that of the folder above.
fn inherited(base: &Path, folder: &Path, name: &str) -> Result<String> {
    let file = folder.join(name);
    let list = file::read(&file).map_err(Error::file("read", &file))?;
    match folder.parent() {
        Some(above) if list.is_empty() && folder != base => {
            let list = inherited(base, above, name)?;
            file::write(&file, &list).map_err(Error::file("write", &file))?;
            Ok(list)
        }
        _ => Ok(list),
    }
}

/// Has the kernel fill the lists of those who are made in this cpuset: a list that
/// is written costs more than all else of a new cgroup, cgroup-v1/cpusets.rst.
fn clone_cpuset(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.clone_children");
    file::write(&file, "1").map_err(Error::file("write", &file))
}

/// The folders that one `create` has made, in order.
#[derive(Debug, Default)]
pub(super) struct Made {
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes `base/path`; the last part must be new, or empty and then made anew.
    /// `parent` is called for every folder that shall get one.
    pub(super) fn path(
        &mut self,
        base: &Path,
        path: &Path,
        parent: impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        match self.walk(base, path, &parent) {
            // A neighbour that failed has just taken an outer folder away again.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.walk(base, path, &parent)
            }
            walked => walked,
        }
    }

    fn walk(
        &mut self,
        base: &Path,
        path: &Path,
        parent: &impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut folder = base.to_owned();
        let mut parts = path.iter().peekable();
        while let Some(name) = parts.next() {
            parent(&folder)?;
            folder.push(name);
            if !self.folder(&folder)? && parts.peek().is_none() {
                match std::fs::remove_dir(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        return Err(Error::InUse { path: folder });
                    }
                    Err(error) => return Err(Error::file("replace", &folder)(error)),
                }
                self.folder(&folder)?;
            }
        }
        Ok(folder)
    }

    /// Makes one folder; false where it is there.
    pub(super) fn folder(&mut self, folder: &Path) -> Result<bool> {
        match std::fs::create_dir(folder) {
            Ok(()) => self.folders.push(folder.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(Error::file("make", folder)(error)),
        }
        Ok(true)
    }

    /// As [`Made::path`], for the hierarchy of v1 that has cpusets.
    pub(super) fn cpuset_path(&mut self, base: &Path, path: &Path) -> Result<PathBuf> {
        let before = self.folders.len();
        let folder = self.path(base, path, |_| Ok(()))?;
        inherit_cpuset(base, &folder)?;
        let new = self.folders.get(before..).unwrap_or_default();
        let outer = new.iter().filter(|new| **new != folder);
        outer.map(PathBuf::as_path).try_for_each(clone_cpuset)?;
        Ok(folder)
    }

    /// Removes them again. An outer folder that somebody else uses by now stays,
    /// which is not an error.
    pub(super) fn undo(self) {
        for folder in self.folders.iter().rev() {
            std::fs::remove_dir(folder).unwrap_or_default();
        }
    }
}
