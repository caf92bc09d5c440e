//! What is changed of a volume that is there, while dynos use it.
//!
//! It is recorded first: from then on a start has the file system enforce it.

use std::path::Path;
use std::sync::Arc;

use dyno_api::error::ApiError;
use dyno_api::volume::{Volume, VolumeChange, VolumeQuota};
use dyno_failpoint::failpoint;

use super::folders::{Folders, failed};
use super::quota::{self, Quota};
use super::records::VolumeRecord;
use super::users::dynos;
use super::{backup, parse};
use crate::durable::Survives;
use crate::host::{Host, blocking};

/// Changes a volume. What it takes up is told with it.
///
/// # Errors
/// NotFound; Conflict while it is copied; Unsupported for a quota that nobody would
/// enforce. It is as it was then.
pub(crate) async fn set(
    host: Arc<Host>,
    volume: &str,
    change: VolumeChange,
) -> Result<Volume, ApiError> {
    let name = parse(volume)?;
    let claim = host.volumes.claims.claim(&name)?;
    blocking(move || {
        let _claim = claim;
        let volumes = &host.volumes;
        volumes.folders.must_exist(&name)?;
        let data = volumes.folders.data(&name);
        let before = volumes.folders.read_record(&name)?;
        let before = before.unwrap_or_else(|| VolumeRecord::new(None, None));
        let mut record = before.clone();
        record.backup = before.backup.clone().changed(change.backup);
        backup::check(&record.backup)?;
        if !change.quota.is_unset() {
            record.quota = other(&data, before.quota, change.quota)?;
        }
        if record != before {
            let write = |record| {
                volumes
                    .folders
                    .write_record(&name, record, Survives::PowerCut)
            };
            write(&record)?;
            failpoint("volume_set.recorded");
            if let Err(error) = enforce(&data, record.quota) {
                write(&before)?;
                return Err(error);
            }
        }
        let mut volume = volumes.shown(&dynos(&host), &name)?;
        volume.usage = Some(volumes.usage(&name)?);
        Ok(volume)
    })
    .await
}

/// A volume that has never had a limit needs none to have none.
fn other(
    data: &Path,
    before: Option<Quota>,
    asked: VolumeQuota,
) -> Result<Option<Quota>, ApiError> {
    let wanted = before
        .map_or_else(VolumeQuota::default, Quota::limits)
        .changed(asked);
    match (before, wanted.is_unset()) {
        (None, true) => Ok(None),
        (before, _) => quota::other(data, before, wanted).map(Some),
    }
}

fn enforce(data: &Path, quota: Option<Quota>) -> Result<(), ApiError> {
    match quota {
        None => Ok(()),
        Some(given) => quota::enforce(data, given).map_err(failed("limit", data)),
    }
}

impl Folders {
    /// Has the file system enforce what is recorded, which a crash may have kept it from.
    pub(super) fn enforce(&self) {
        let names = Self::names(self.root()).unwrap_or_default();
        for name in names {
            let quota = self.known(&name).and_then(|record| record.quota);
            if let Err(error) = enforce(&self.data(&name), quota) {
                tracing::error!(volume = %name, %error, "nothing enforces the quota of a volume");
            }
        }
    }
}
