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
//! ```
//! All of one file system, so that a rename is all it takes to have something or not.
//! No volume's name begins with a dot.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dyno_api::name::{DynoId, DynoName};
use dyno_api::volume::VolumeSource;
use dyno_failpoint::failpoint;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::quota;
use crate::durable::{self, DurableError, Survives};
use crate::{identity, trash};

/// The version of [`VolumeRecord`] and [`SnapshotRecord`].
pub(super) const VERSION: u32 = 1;

/// A volume's record. One that an earlier hostd made has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeRecord {
    pub(super) version: u32,
    pub(super) created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<Quota>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<VolumeSource>,
}

/// Limits, and the project that has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    pub(super) project: u32,
    pub(super) bytes: Option<u64>,
    pub(super) inodes: Option<u64>,
}

/// A snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRecord {
    pub(super) version: u32,
    pub(super) created: Timestamp,
    pub(super) bytes: u64,
    pub(super) reflinked: bool,
    pub(super) live: bool,
}

/// The folder of all volumes.
#[derive(Debug, Clone)]
pub(super) struct Folders(PathBuf);

/// A folder that is being made; removed, and its limits with it, where it is not put in
/// its place.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) path: PathBuf,
    pub(super) quota: Option<Quota>,
    trash: PathBuf,
}

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

    fn being_removed(&self) -> PathBuf {
        self.0.join(".removing")
    }

    fn mark(&self, volume: &DynoName) -> PathBuf {
        self.being_removed().join(volume.as_str())
    }

    fn being_made(&self) -> PathBuf {
        self.0.join(".new")
    }

    fn trash(&self) -> PathBuf {
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

    /// A new empty folder, to be filled and then put in its place.
    pub(super) fn make(&self) -> io::Result<Making> {
        make_folder(&self.being_made())?;
        make_folder(&self.trash())?;
        // By chance: what an earlier hostd left is still being removed by its name.
        let (one, other) = (identity::random_u32()?, identity::random_u32()?);
        let path = self.being_made().join(format!("{one:08x}{other:08x}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Making {
            path,
            quota: None,
            trash: self.trash(),
        })
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

    /// Removes what a crash has left.
    pub(super) fn sweep(&self) {
        for folder in [self.being_made(), self.trash()] {
            if folder.exists()
                && let Err(error) = trash::empty(&folder)
            {
                tracing::warn!(%error, folder = %folder.display(), "what is left of a volume stays");
            }
        }
        if let Err(error) = self.complete_all() {
            tracing::warn!(%error, "what is left of a volume stays");
        }
    }

    /// Removes a volume with its snapshots and its record. From its mark on a crash
    /// completes that: what was lost by other means is never taken for a removal.
    pub(super) fn remove(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        make_folder(&self.being_removed())?;
        sync(&self.0)?;
        durable::write(&self.mark(volume), b"", Survives::PowerCut)?;
        failpoint("volume_remove.marked");
        self.remove_marked(volume, given)
    }

    /// Completes a removal that was cut short, so that another volume of that name gets
    /// nothing of it.
    pub(super) fn complete_removal(&self, volume: &DynoName) -> io::Result<()> {
        match self.mark(volume).exists() && !self.data(volume).exists() {
            true => self.remove_marked(volume, self.quota(volume)),
            false => Ok(()),
        }
    }

    fn remove_marked(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        let removed = self.remove_all(volume, given);
        // Where its files are still there it is a volume, and nobody was told otherwise.
        if removed.is_ok() || self.data(volume).exists() {
            durable::remove(&self.mark(volume), Survives::PowerCut)?;
        }
        removed
    }

    fn remove_all(&self, volume: &DynoName, given: Option<Quota>) -> io::Result<()> {
        for folder in [self.data(volume), self.snapshots(volume)] {
            if folder.exists() {
                self.throw(&folder)?;
                failpoint("volume_remove.part");
            }
        }
        failpoint("volume_remove.thrown");
        if let Some(given) = given {
            quota::forget(&self.0, given);
        }
        durable::remove(&self.record(volume), Survives::PowerCut)?;
        failpoint("volume_remove.unrecorded");
        Ok(())
    }

    fn complete_all(&self) -> io::Result<()> {
        for volume in Self::names(&self.being_removed())? {
            self.remove_marked(&volume, self.quota(&volume))?;
        }
        // A record precedes its volume.
        for volume in self.recorded()? {
            let nothing = |path: &Path| {
                let found = fs::symlink_metadata(path).map_err(|error| error.kind());
                found.is_err_and(|kind| kind == io::ErrorKind::NotFound)
            };
            if nothing(&self.data(&volume)) && nothing(&self.snapshots(&volume)) {
                if let Some(given) = self.quota(&volume) {
                    quota::forget(&self.0, given);
                }
                durable::remove(&self.record(&volume), Survives::PowerCut)?;
            }
        }
        Ok(())
    }

    /// The volumes that have a record, or half of one, which goes.
    fn recorded(&self) -> io::Result<Vec<DynoName>> {
        let entries = match fs::read_dir(self.0.join(".records")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_stem()
                .and_then(|name| name.to_str()?.parse().ok());
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("json") => volumes.extend(name),
                Some("new") => durable::remove(&path, Survives::Crash)?,
                _ => {}
            }
        }
        Ok(volumes)
    }

    fn quota(&self, volume: &DynoName) -> Option<Quota> {
        let record = read(&self.record(volume), |record: &VolumeRecord| record.version);
        record.ok().flatten().and_then(|record| record.quota)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let (Some(given), true) = (self.quota, self.path.exists()) {
            quota::forget(&self.path, given);
        }
        if let Err(error) = trash::throw(&self.path, &self.trash) {
            tracing::warn!(%error, folder = %self.path.display(), "half a volume stays until the next start");
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

/// Reads a record of this version.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    version: impl Fn(&T) -> u32,
) -> Result<Option<T>, DurableError> {
    match durable::read_json::<T>(path)? {
        Some(record) if version(&record) != VERSION => Err(DurableError::Version {
            path: path.to_owned(),
            found: version(&record),
            known: VERSION,
        }),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_completes_what_was_asked_for_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::new(root.path().to_owned());
        let has_snapshots = ["lost", "marked"];
        for name in ["lost", "marked", "half", "kept"] {
            let volume = name.parse().unwrap();
            make_folder(&root.path().join(".records")).unwrap();
            durable::write(&folders.record(&volume), b"{}", Survives::Crash).unwrap();
            if has_snapshots.contains(&name) {
                make_folder(&folders.snapshots(&volume).join("then")).unwrap();
            }
        }
        make_folder(&folders.data(&"kept".parse().unwrap())).unwrap();
        let marked = "marked".parse().unwrap();
        make_folder(&folders.being_removed()).unwrap();
        durable::write(&folders.mark(&marked), b"", Survives::Crash).unwrap();

        folders.sweep();
        let left = |name: &str| {
            let volume = name.parse().unwrap();
            (
                folders.record(&volume).exists(),
                folders.snapshots(&volume).exists(),
            )
        };
        // Its files were lost by other means: the snapshots are all there is of them.
        assert_eq!(left("lost"), (true, true));
        assert_eq!(left("marked"), (false, false));
        assert!(!folders.mark(&marked).exists());
        assert_eq!(left("half"), (false, false));
        assert_eq!(left("kept"), (true, false));
    }
}
