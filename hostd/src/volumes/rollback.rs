//! A volume gets the files of a snapshot, in the place of its own.

use std::sync::Arc;

use dyno_api::dyno::Dyno;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_api::volume::{Volume, VolumeQuota, VolumeSource};
use dyno_failpoint::failpoint;

use super::folders::{self, failed};
use super::parse;
use super::quota::{self, Quota};
use super::records::VolumeRecord;
use super::source::copied;
use super::still::Moment;
use super::users::{dynos, mounts};
use crate::durable::Survives;
use crate::host::{Host, blocking};

/// Gives a volume the files of a snapshot, in the place of its own.
///
/// # Errors
/// NotFound; Conflict while a dyno that mounts it runs. It is as it was then.
pub(crate) async fn roll_back(
    host: Arc<Host>,
    volume: &str,
    snapshot: DynoName,
) -> Result<Volume, ApiError> {
    let name = parse(volume)?;
    let claim = host.volumes.claims.claim(&name)?;
    blocking(move || {
        let _claim = claim;
        let volumes = &host.volumes;
        let from = volumes.folders.source(&VolumeSource {
            volume: name.clone(),
            snapshot: Some(snapshot),
        })?;
        let all = dynos(&host);
        // Its mounts are there as long as its bundle is.
        let runs = |dyno: &&Dyno| host.paths.dyno(&dyno.id).run.exists();
        if let Some(dyno) = all
            .iter()
            .filter(|dyno| mounts(&dyno.spec, &name))
            .find(runs)
        {
            let message = format!("dyno {}, which mounts {name}, runs", dyno.name);
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint(format!("`dyno stop {}` first", dyno.name)));
        }
        let before = volumes.folders.read_record(&name)?;
        let quota = before.as_ref().and_then(|record| record.quota);
        let wanted = quota.map_or_else(VolumeQuota::default, Quota::limits);
        let making = volumes.folders.begin(wanted)?;
        copied(&from, &making.path, &Moment::new(&host))?;
        failpoint("rollback.copied");
        if let Some(given) = making.quota {
            quota::check(&making.path, given)?;
        }
        let mut record = before.unwrap_or_else(|| VolumeRecord::new(None, None));
        record.quota = making.quota;
        let data = volumes.folders.data(&name);
        let quota = quota.map(|quota| quota::of(&data, quota));
        volumes.folders.exchange(making, &data, quota, || {
            failpoint("rollback.exchanged");
            folders::sync(volumes.folders.root()).map_err(failed("sync", &data))?;
            volumes
                .folders
                .write_record(&name, &record, Survives::PowerCut)
        })?;
        volumes.shown(&all, &name)
    })
    .await
}
