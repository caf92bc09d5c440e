//! A folder that is being made, and how it gets its place: by one rename, when it is whole.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dyno_api::error::ApiError;
use dyno_api::name::DynoName;
use dyno_api::volume::VolumeQuota;
use dyno_failpoint::failpoint;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::folders::{self, Folders, failed, make_folder, taken};
use super::quota::{self, Quota};
use super::records::VolumeRecord;
use crate::durable::{self, Survives};
use crate::quota::clear;
use crate::{identity, trash};

/// A folder that is being made; removed, and its limits with it, where it is not put in
/// its place.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) path: PathBuf,
    pub(super) quota: Option<Quota>,
    trash: PathBuf,
}

impl Drop for Making {
    fn drop(&mut self) {
        if let (Some(given), true) = (self.quota, self.path.exists()) {
            clear(&self.path, given.project);
        }
        if let Err(error) = trash::throw(&self.path, &self.trash) {
            tracing::warn!(%error, folder = %self.path.display(), "half a volume stays until the next start");
        }
    }
}

impl Folders {
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

    /// A folder for a new volume, with its quota.
    pub(super) fn begin(&self, wanted: VolumeQuota) -> Result<Making, ApiError> {
        let mut making = self.make().map_err(failed("make", self.root()))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&making.path, mode).map_err(failed("make", &making.path))?;
        if !wanted.is_unset() {
            making.quota = Some(quota::give(&making.path, wanted)?);
        }
        Ok(making)
    }

    /// Gives what was made its name; it survives a power cut when this returns.
    pub(super) fn finish(
        &self,
        name: &DynoName,
        making: &Making,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        if let Some(given) = record.quota {
            quota::check(&making.path, given)?;
        }
        let data = self.data(name);
        let removed = self.complete_removal(name);
        removed.map_err(failed("remove what is left of", &data))?;
        self.write_record(name, record, Survives::PowerCut)?;
        failpoint("volume.recorded");
        let named = renameat_with(CWD, &making.path, CWD, &data, RenameFlags::NOREPLACE);
        failpoint("volume.named");
        let Err(error) = named else {
            return folders::sync(self.root()).map_err(failed("sync", &data));
        };
        // Whatever is there instead has not this quota.
        let record = self.record(name);
        durable::remove(&record, Survives::PowerCut).map_err(failed("remove", &record))?;
        Err(match error {
            rustix::io::Errno::EXIST => taken(name),
            error => failed("make", &data)(error.into()),
        })
    }

    /// Puts what was made in the place of a volume's files, which go with `quota` once
    /// the rest is done too.
    ///
    /// # Errors
    /// What `rest` says; the files are where they were then.
    pub(super) fn exchange(
        &self,
        mut making: Making,
        data: &Path,
        quota: Option<Quota>,
        rest: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let exchange = || renameat_with(CWD, &making.path, CWD, data, RenameFlags::EXCHANGE);
        exchange().map_err(|error| failed("roll back", data)(error.into()))?;
        let Err(error) = rest() else {
            making.quota = quota;
            return Ok(());
        };
        if let Err(stuck) = exchange() {
            // Not to be thrown away: they are all there is.
            let files = making.path.display();
            tracing::error!(error = %stuck, %files, "the files of a volume from before a failed rollback are here; the next start removes them");
            std::mem::forget(making);
        } else if let Err(error) = folders::sync(self.root()) {
            tracing::warn!(%error, "a rollback that is undone may come back with a power cut");
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::error::ErrorKind;

    use super::super::folders::open_folder;
    use super::*;

    fn folders(top: &tempfile::TempDir) -> Folders {
        let folders = Folders::new(top.path().join("volumes"));
        make_folder(folders.root()).unwrap();
        folders
    }

    #[tokio::test]
    async fn a_name_that_was_taken_meanwhile_gets_no_record_of_another_volume() {
        let top = tempfile::tempdir().unwrap();
        let folders = folders(&top);
        let name = "db".parse().unwrap();
        open_folder(&folders.data(&name)).unwrap();
        let making = folders.begin(VolumeQuota::default()).unwrap();
        let record = VolumeRecord::new(None, None);
        let refused = folders.finish(&name, &making, &record).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert_eq!(folders.read_record(&name).unwrap(), None);
    }

    #[tokio::test]
    async fn a_rollback_that_fails_halfway_leaves_the_files_of_before() {
        let top = tempfile::tempdir().unwrap();
        let folders = folders(&top);
        let data = folders.data(&"db".parse().unwrap());
        open_folder(&data).unwrap();
        fs::create_dir(data.join("before")).unwrap();
        let making = folders.begin(VolumeQuota::default()).unwrap();
        fs::create_dir(making.path.join("after")).unwrap();
        let full = || ApiError::new(ErrorKind::Exhausted, "no space left");
        let failed = folders.exchange(making, &data, None, || {
            assert!(data.join("after").exists());
            Err(full())
        });
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Exhausted);
        assert!(data.join("before").exists() && !data.join("after").exists());
        let making = folders.begin(VolumeQuota::default()).unwrap();
        folders.exchange(making, &data, None, || Ok(())).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }
}
