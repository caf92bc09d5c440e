//! Images that root of a user namespace may read while CRIU restores a container.
//!
//! CRIU opens them by the descriptor of their folder, by processes that are in the
//! container's user namespace already. So for that time the folder is open to the
//! group of the namespace's root, and the files to be read by it. Nobody of it can
//! write to them, and nobody who has no descriptor of the folder gets there: those
//! above it are closed. What he could read is his own memory.

use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, open, openat};
use rustix::io::Errno;

use super::Error;

/// While it lives they can be read.
#[derive(Debug)]
pub(crate) struct Readable(PathBuf);

impl Readable {
    /// Opens the images in this folder to a group.
    ///
    /// # Errors
    /// When they cannot be changed.
    pub(crate) fn by(group: Gid, folder: &Path) -> Result<Self, Error> {
        let readable = Self(folder.to_owned());
        let open = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        let changed = change(folder, group, Mode::RWXU | Mode::XGRP, open);
        changed.map_err(|errno| Error::Io {
            what: format!("open the images in {}", folder.display()),
            source: errno.into(),
        })?;
        Ok(readable)
    }
}

impl Drop for Readable {
    fn drop(&mut self) {
        // What fails leaves them readable for whom they are about.
        close(&self.0).ok();
    }
}

/// Makes images root's alone: CRIU makes them readable for all.
///
/// # Errors
/// When they cannot be changed.
pub(crate) fn close(folder: &Path) -> Result<(), Error> {
    let closed = change(folder, Gid::ROOT, Mode::RWXU, Mode::RUSR | Mode::WUSR);
    closed.map_err(|errno| Error::Io {
        what: format!("close the images in {}", folder.display()),
        source: errno.into(),
    })
}

fn change(folder: &Path, group: Gid, mode: Mode, file_mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(folder, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if let Some(file) = regular(&folder, entry.file_name())? {
            fchown(&file, Some(Uid::ROOT), Some(group))?;
            fchmod(&file, file_mode)?;
        }
    }
    fchown(&folder, Some(Uid::ROOT), Some(group))?;
    fchmod(&folder, mode)
}

fn regular(folder: impl std::os::fd::AsFd, name: &CStr) -> Result<Option<File>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(folder, name, flags, Mode::empty()) {
        // A link, as CRIU makes one to older images.
        Err(Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
        Ok(file) if FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() => {
            Ok(Some(file.into()))
        }
        Ok(_) => Ok(None),
    }
}
