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
pub(super) fn inherit_cpuset(folder: &Path) -> Result<()> {
    let Some(parent) = folder.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(name), folder.join(name));
        if file::read(&to)
            .map_err(Error::file("read", &to))?
            .is_empty()
        {
            let value = file::read(&from).map_err(Error::file("read", &from))?;
            file::write(&to, &value).map_err(Error::file("write", &to))?;
        }
    }
    Ok(())
}

/// The folders that one `create` has made, in order.
#[derive(Debug, Default)]
pub(super) struct Made {
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes `base/path`; the last part must be new, or empty and then made anew.
    /// `parent` is called for every folder that shall get one, `made` for each made.
    pub(super) fn path(
        &mut self,
        base: &Path,
        path: &Path,
        parent: impl Fn(&Path) -> Result<()>,
        made: impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        match self.walk(base, path, &parent, &made) {
            // A neighbour that failed has just taken an outer folder away again.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.walk(base, path, &parent, &made)
            }
            walked => walked,
        }
    }

    fn walk(
        &mut self,
        base: &Path,
        path: &Path,
        parent: &impl Fn(&Path) -> Result<()>,
        made: &impl Fn(&Path) -> Result<()>,
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
            made(&folder)?;
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

    /// Removes them again. An outer folder that somebody else uses by now stays,
    /// which is not an error.
    pub(super) fn undo(self) {
        for folder in self.folders.iter().rev() {
            std::fs::remove_dir(folder).unwrap_or_default();
        }
    }
}
