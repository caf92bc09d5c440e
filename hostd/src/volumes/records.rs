//! What is recorded of volumes and snapshots.

use std::fs;
use std::path::Path;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_api::volume::{BackupHooks, VolumeSource};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folders::{self, Folders, failed};
use super::quota::Quota;
use crate::durable::{self, DurableError, Survives};

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
    #[serde(default, skip_serializing_if = "BackupHooks::is_unset")]
    pub(super) backup: BackupHooks,
}

impl VolumeRecord {
    pub(super) fn new(quota: Option<Quota>, from: Option<VolumeSource>) -> Self {
        Self {
            version: VERSION,
            created: Timestamp::now(),
            quota,
            from,
            backup: BackupHooks::default(),
        }
    }
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

impl Folders {
    pub(super) fn write_record(
        &self,
        name: &DynoName,
        record: &VolumeRecord,
        survives: Survives,
    ) -> Result<(), ApiError> {
        let path = self.record(name);
        let folder = path.parent().unwrap_or(self.root());
        folders::make_folder(folder).map_err(failed("make", folder))?;
        Ok(durable::write_json(&path, record, survives)?)
    }

    pub(super) fn read_record(&self, name: &DynoName) -> Result<Option<VolumeRecord>, ApiError> {
        let path = self.record(name);
        // A power cut does this to those alone that it may: they have no quota.
        if fs::read(&path).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            return Ok(None);
        }
        Ok(read(&path, |record: &VolumeRecord| record.version)?)
    }

    /// What is known of a volume that is only shown or removed: nothing, where its record
    /// cannot be read.
    pub(super) fn known(&self, name: &DynoName) -> Option<VolumeRecord> {
        self.read_record(name).unwrap_or_else(|error| {
            tracing::warn!(volume = %name, %error, "the record of a volume cannot be read");
            None
        })
    }

    pub(super) fn snapshot_record(
        &self,
        volume: &DynoName,
        snapshot: &DynoName,
    ) -> Result<SnapshotRecord, ApiError> {
        let folder = self.snapshot(volume, snapshot);
        let path = folder.join("snapshot.json");
        let record = read(&path, |record: &SnapshotRecord| record.version)?;
        record.ok_or_else(|| {
            let message = format!("volume {volume} has no snapshot {snapshot}");
            ApiError::new(ErrorKind::NotFound, message)
                .hint(format!("`dyno volume snapshots {volume}` lists them"))
        })
    }
}

/// Reads a record of this version.
fn read<T: DeserializeOwned>(
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
