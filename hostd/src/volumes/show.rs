//! What is told of volumes.

use std::sync::Arc;

use dyno_api::dyno::Dyno;
use dyno_api::error::ApiError;
use dyno_api::name::DynoName;
use dyno_api::volume::{Volume, VolumeQuota, VolumeUsage};

use super::folders::{Folders, failed};
use super::quota::{self, Quota};
use super::users::{dynos, mounts};
use super::{Volumes, parse, usage};
use crate::host::{Host, blocking};

/// Every volume.
///
/// # Errors
/// When their folder cannot be read.
pub(crate) async fn list(host: Arc<Host>) -> Result<Vec<Volume>, ApiError> {
    blocking(move || {
        let root = host.volumes.folders.root();
        let names = Folders::names(root).map_err(failed("read", root))?;
        let dynos = dynos(&host);
        names
            .iter()
            .map(|name| host.volumes.shown(&dynos, name))
            .collect()
    })
    .await
}

/// One volume, with what it takes up.
///
/// # Errors
/// NotFound.
pub(crate) async fn inspect(host: Arc<Host>, name: &str) -> Result<Volume, ApiError> {
    let name = parse(name)?;
    blocking(move || {
        host.volumes.folders.must_exist(&name)?;
        let mut volume = host.volumes.shown(&dynos(&host), &name)?;
        volume.usage = Some(host.volumes.usage(&name)?);
        Ok(volume)
    })
    .await
}

impl Volumes {
    /// What is known of a volume. What it takes up is told where the file system counts it:
    /// nobody counts it file by file unless he is asked to.
    pub(super) fn shown(&self, dynos: &[Dyno], name: &DynoName) -> Result<Volume, ApiError> {
        let record = self.folders.known(name);
        let quota = record.as_ref().and_then(|record| record.quota);
        let snapshots = self.folders.snapshots(name);
        let count = Folders::names(&snapshots).map_err(failed("read", &snapshots))?;
        let users = dynos.iter().filter(|dyno| mounts(&dyno.spec, name));
        Ok(Volume {
            name: name.clone(),
            created: record.as_ref().map(|record| record.created),
            quota: quota.map_or_else(VolumeQuota::default, Quota::limits),
            backup: record
                .as_ref()
                .map(|record| record.backup.clone())
                .unwrap_or_default(),
            from: record.and_then(|record| record.from),
            snapshots: count.len() as u64,
            used_by: users.map(|dyno| dyno.name.clone()).collect(),
            usage: quota.and_then(|quota| {
                let data = self.folders.data(name);
                quota::usage(&data, quota::of(&data, quota)).ok()
            }),
        })
    }

    pub(super) fn usage(&self, name: &DynoName) -> Result<VolumeUsage, ApiError> {
        let data = self.folders.data(name);
        let found = match self.folders.known(name).and_then(|record| record.quota) {
            Some(given) => quota::usage(&data, quota::of(&data, given)),
            None => usage::count(&data),
        };
        found.map_err(failed("look at", &data))
    }
}
