//! What of volumes is where on disk.
//!
//! ```text
//!  volumes/NAME/                        a volume's files, and nothing else
//!          .records/NAME.json           what was asked for with it
//!          .snapshots/NAME/SNAP/files/  a snapshot's files
//!                              snapshot.json
//!          .new/                        what is being made; renamed when it is whole
//!          .removing/NAME               a removal that a start completes
//!          .trash/                      what is being removed
//!          .held/ID                     dynos that are paused for a copy
//!          .backups/NUMBER.json         what a dyno does when a copy is over
//! ```
//! All of one file system, so that a rename is all it takes to have something or not.
//! No volume's name begins with a dot.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};

use crate::durable::from_io_at;
use crate::trash;

/// The folder of all volumes.
#[derive(Debug, Clone)]
pub(super) struct Folders(PathBuf);

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self(root)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn data(&self, volume: &DynoName) -> PathBuf {
        self.0.join(volume.as_str())
    }

    pub(super) fn record(&self, volume: &DynoName) -> PathBuf {
        self.0.join(".records").join(format!("{volume}.json"))
    }

    pub(super) fn snapshots(&self, volume: &DynoName) -> PathBuf {
        self.0.join(".snapshots").join(volume.as_str())
    }

    pub(super) fn snapshot(&self, volume: &DynoName, snapshot: &DynoName) -> PathBuf {
        self.snapshots(volume).join(snapshot.as_str())
    }

    pub(super) fn held(&self) -> PathBuf {
        self.0.join(".held")
    }

    pub(super) fn held_by(&self, dyno: &DynoId) -> PathBuf {
        self.held().join(dyno.as_str())
    }

    pub(super) fn backups(&self) -> PathBuf {
        self.0.join(".backups")
    }

    pub(super) fn being_removed(&self) -> PathBuf {
        self.0.join(".removing")
    }

    pub(super) fn mark(&self, volume: &DynoName) -> PathBuf {
        self.being_removed().join(volume.as_str())
    }

    pub(super) fn being_made(&self) -> PathBuf {
        self.0.join(".new")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.0.join(".trash")
    }

    /// Volumes and snapshots by the names of their folders, in order.
    pub(super) fn names(folder: &Path) -> io::Result<Vec<DynoName>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok()),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Takes a folder away at once; what is in it goes while nobody waits.
    pub(super) fn throw(&self, folder: &Path) -> io::Result<()> {
        make_folder(&self.trash())?;
        trash::throw(folder, &self.trash())?;
        match folder.parent() {
            Some(parent) => sync(parent),
            None => Ok(()),
        }
    }

    /// # Errors
    /// NotFound.
    pub(super) fn must_exist(&self, name: &DynoName) -> Result<(), ApiError> {
        match self.data(name).is_dir() {
            true => Ok(()),
            false => Err(missing(name)),
        }
    }

    /// # Errors
    /// Conflict.
    pub(super) fn must_not_exist(&self, name: &DynoName) -> Result<(), ApiError> {
        match self.data(name).exists() {
            false => Ok(()),
            true => Err(taken(name)),
        }
    }
}

/// Makes a folder that is root's, and those above it.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What is in this folder by name survives a power cut from here on.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What cannot be done to a path, as an answer.
pub(super) fn failed<'a>(
    operation: &'a str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ApiError + 'a {
    move |error| from_io_at(&format!("cannot {operation}"), path, &error)
}

/// A volume's own folder is the dyno's: its mode shows inside.
pub(super) fn open_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

pub(super) fn missing(name: &DynoName) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no volume {name}"))
        .hint("`dyno volume ls` lists them")
}

pub(super) fn taken(name: &DynoName) -> ApiError {
    let message = format!("there is a volume {name} already");
    ApiError::new(ErrorKind::Conflict, message)
}
