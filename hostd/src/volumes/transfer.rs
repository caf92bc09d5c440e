//! Volumes as tar streams, out and in.
//!
//! hostd looks at none of their files. `dyno-unpack` does, in the jail that layers are
//! unpacked in (P8): it sees nothing but the one folder, and what owner *u* it gives a
//! file there is owner *u* on disk.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::query::{ExportQuery, QuotaQuery};
use dyno_api::volume::{Volume, VolumeQuota, VolumeSource};
use dyno_images::Limits;
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};

use super::backup::Backup;
use super::claims::Reading;
use super::folders::failed;
use super::making::Making;
use super::parse;
use super::records::VolumeRecord;
use super::source::{Source, copied};
use super::users::dynos;
use crate::durable::from_io;
use crate::files::{self, Packing};
use crate::host::{Host, blocking};
use crate::room::Room;

/// P15: what an archive may hold; how much, the disk or a quota decides.
const LIMITS: Limits = Limits {
    bytes: 1 << 50,
    entries: 10_000_000,
    depth: 256,
    path_bytes: 4095,
};

/// What the files of an export need to be there.
#[derive(Debug)]
#[expect(dead_code, reason = "it is kept, not looked at")]
enum Kept {
    Copy(Making),
    Snapshot(Reading),
    Live(Backup),
}

/// Begins to pack a volume or a snapshot. A volume is copied before, so that a client who
/// reads slowly keeps no dyno waiting; live, it is packed as it is.
///
/// # Errors
/// NotFound; why it cannot be copied or packed.
pub(crate) async fn export(
    host: &Arc<Host>,
    volume: &str,
    query: ExportQuery,
) -> Result<Packing, ApiError> {
    let from = VolumeSource {
        volume: parse(volume)?,
        snapshot: query.snapshot,
    };
    let (path, kept) = if let Some(snapshot) = &from.snapshot {
        let reading = host.volumes.claims.read(&from.volume, snapshot)?;
        (host.volumes.folders.source(&from)?, Kept::Snapshot(reading))
    } else if query.live {
        let path = host.volumes.folders.source(&from)?;
        (path, Kept::Live(Backup::of(host, &from.volume).await?))
    } else {
        let making = copy(host, &from).await?;
        (making.path.clone(), Kept::Copy(making))
    };
    let mut dump = host.images.jail().dump(&path);
    let helper = spawn(dump.stdin(Stdio::null()))?;
    Packing::begin(helper, volume, kept).await
}

async fn copy(host: &Arc<Host>, from: &VolumeSource) -> Result<Making, ApiError> {
    let source = Source::open(host, from, false).await?;
    let (shared, (path, moment)) = (host.clone(), source.files());
    let made = blocking(move || {
        let folders = &shared.volumes.folders;
        let making = folders.make().map_err(failed("make", folders.root()))?;
        copied(&path, &making.path, &moment)?;
        Ok(making)
    })
    .await;
    source.close_after(made).await
}

/// Makes a volume of an archive.
///
/// # Errors
/// Conflict where the name is taken; Invalid for what is no archive, or has what a volume
/// cannot have. Nothing of it is left then.
pub(crate) async fn import(
    host: Arc<Host>,
    volume: &str,
    query: QuotaQuery,
    archive: impl AsyncRead + Unpin,
) -> Result<Volume, ApiError> {
    let name = parse(volume)?;
    let _claim = host.volumes.claims.claim(&name)?;
    host.volumes.folders.must_not_exist(&name)?;
    let wanted = VolumeQuota {
        bytes: query.quota_bytes,
        inodes: query.quota_inodes,
    };
    let shared = host.clone();
    let making = blocking(move || shared.volumes.folders.begin(wanted)).await?;
    fill(&host, &making.path, archive).await?;
    blocking(move || {
        let file = std::fs::File::open(&making.path).map_err(failed("open", &making.path))?;
        rustix::fs::syncfs(file)
            .map_err(|error| from_io("cannot sync the volume", &error.into()))?;
        let record = VolumeRecord::new(making.quota, None);
        host.volumes.folders.finish(&name, &making, &record)?;
        host.volumes.shown(&dynos(&host), &name)
    })
    .await
}

async fn fill(host: &Host, folder: &Path, archive: impl AsyncRead + Unpin) -> Result<(), ApiError> {
    let mut fill = host.images.jail().fill(folder, &LIMITS);
    let helper = spawn(fill.stdin(Stdio::piped()))?;
    files::fill_within(helper, "volume", archive, &Room::of(folder)).await
}

fn spawn(command: &mut Command) -> Result<Child, ApiError> {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    spawned.map_err(|error| {
        ApiError::new(
            ErrorKind::Internal,
            format!("cannot execute dyno-runtime: {error}"),
        )
    })
}
