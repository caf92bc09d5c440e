//! Snapshots: a volume's files as they were, kept beside it.

use std::io;
use std::sync::Arc;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_api::volume::{Snapshot, SnapshotRequest, VolumeSource};
use dyno_failpoint::failpoint;
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::copy::Copied;
use super::folders::{self, Folders, failed};
use super::parse;
use super::records::{SnapshotRecord, VERSION};
use super::source::{Source, copied};
use crate::durable::{self, Survives};
use crate::host::{Host, blocking};

/// P15: snapshots of one volume.
const MAX_SNAPSHOTS: usize = 1000;

/// The snapshots of a volume, the oldest first.
///
/// # Errors
/// NotFound; when a record cannot be read.
pub(crate) async fn snapshots(host: Arc<Host>, volume: &str) -> Result<Vec<Snapshot>, ApiError> {
    let volume = parse(volume)?;
    blocking(move || {
        host.volumes.folders.must_exist(&volume)?;
        let folder = host.volumes.folders.snapshots(&volume);
        let names = Folders::names(&folder).map_err(failed("read", &folder))?;
        let mut found = Vec::new();
        for name in names {
            let record = host.volumes.folders.snapshot_record(&volume, &name)?;
            found.push(snapshot_of(name, &record));
        }
        found.sort_by_key(|one| one.created);
        Ok(found)
    })
    .await
}

fn snapshot_of(name: DynoName, record: &SnapshotRecord) -> Snapshot {
    Snapshot {
        name,
        created: record.created,
        bytes: record.bytes,
        reflinked: record.reflinked,
        live: record.live,
    }
}

/// Keeps a volume's files as they are now. Dynos that write to it are paused meanwhile,
/// unless it is live.
///
/// # Errors
/// NotFound; Conflict where the name is taken; why it cannot be copied. Nothing is left.
pub(crate) async fn snapshot(
    host: Arc<Host>,
    volume: &str,
    request: SnapshotRequest,
) -> Result<Snapshot, ApiError> {
    let volume = parse(volume)?;
    let created = Timestamp::now();
    let name = match request.name {
        Some(name) => name,
        None => parse(&created.strftime("%Y%m%d-%H%M%S").to_string())?,
    };
    let from = VolumeSource {
        volume: volume.clone(),
        snapshot: None,
    };
    let source = Source::open(&host, &from, request.live).await?;
    failpoint("snapshot.held");
    let (path, moment) = source.files();
    let taken = blocking(move || {
        let folders = &host.volumes.folders;
        let all = folders.snapshots(&volume);
        let there = Folders::names(&all).map_err(failed("read", &all))?;
        if there.contains(&name) {
            let message = format!("volume {volume} has a snapshot {name} already");
            return Err(ApiError::new(ErrorKind::Conflict, message));
        }
        if there.len() >= MAX_SNAPSHOTS {
            let message = format!("a volume has at most {MAX_SNAPSHOTS} snapshots");
            return Err(ApiError::new(ErrorKind::Exhausted, message));
        }
        let making = folders.make().map_err(failed("make", folders.root()))?;
        let files = making.path.join("files");
        folders::make_folder(&files).map_err(failed("make", &files))?;
        let Copied { bytes, reflinked } = copied(&path, &files, &moment)?;
        failpoint("snapshot.copied");
        let record = SnapshotRecord {
            version: VERSION,
            created,
            bytes,
            reflinked,
            live: request.live,
        };
        let json = making.path.join("snapshot.json");
        durable::write_json(&json, &record, Survives::PowerCut)?;
        failpoint("snapshot.recorded");
        folders::make_folder(&all).map_err(failed("make", &all))?;
        let to = folders.snapshot(&volume, &name);
        renameat_with(CWD, &making.path, CWD, &to, RenameFlags::NOREPLACE)
            .map_err(io::Error::from)
            .inspect(|()| failpoint("snapshot.named"))
            .and_then(|()| folders::sync(&all))
            .map_err(failed("make", &to))?;
        Ok(snapshot_of(name, &record))
    })
    .await;
    failpoint("snapshot.taken");
    source.close_after(taken).await
}

/// Removes a snapshot.
///
/// # Errors
/// NotFound.
pub(crate) async fn remove_snapshot(
    host: Arc<Host>,
    volume: &str,
    snapshot: &str,
) -> Result<(), ApiError> {
    let (volume, snapshot) = (parse(volume)?, parse(snapshot)?);
    let claim = host.volumes.claims.claim(&volume)?;
    blocking(move || {
        let _claim = claim;
        host.volumes.folders.snapshot_record(&volume, &snapshot)?;
        host.volumes
            .claims
            .must_not_be_read(&volume, Some(&snapshot))?;
        let folder = host.volumes.folders.snapshot(&volume, &snapshot);
        let thrown = host.volumes.folders.throw(&folder);
        failpoint("snapshot_remove.thrown");
        thrown.map_err(failed("remove", &folder))
    })
    .await
}
