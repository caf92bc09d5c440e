//! Volumes: data that outlives dynos.
//!
//! ```text
//! folders   what is where, and records       copy    a folder with all in it
//! quota     limits, by the file system       usage   what is taken up
//! still     dynos that are paused meanwhile  transfer  tar streams, in the jail
//! ```
//! What is made has its name by one rename when it is whole; what is removed goes by
//! one. One thing is done to a volume at a time, and no dyno is started on it meanwhile.
//! The operations stand in this one file because each is the same three steps, claim,
//! work and rename, and is right only beside the others that claim the same.

mod copy;
mod folders;
mod quota;
mod still;
mod transfer;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dyno_api::dyno::{Dyno, DynoSpec, Mount};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use dyno_api::volume::{
    Snapshot, SnapshotRequest, Volume, VolumeQuota, VolumeSource, VolumeSpec, VolumeUsage,
};
use dyno_failpoint::failpoint;
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::time::timeout;

use crate::durable::{self, Survives, from_io, from_io_at};
use crate::host::{Host, blocking};
use copy::Copied;
use folders::{Folders, Making, SnapshotRecord, VERSION, VolumeRecord};
use still::{Holds, Moment, Still};

pub(crate) use transfer::{export, import};

/// P15: snapshots of one volume.
const MAX_SNAPSHOTS: usize = 1000;
/// How long dynos may take to go on when hostd ends.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// The volumes of one host.
#[derive(Debug)]
pub struct Volumes {
    folders: Folders,
    busy: Arc<Mutex<Busy>>,
    holds: Holds,
}

#[derive(Debug, Default)]
struct Busy {
    volumes: BTreeSet<DynoName>,
    /// Snapshots by volume and name, and how many read them.
    read: BTreeMap<(DynoName, DynoName), usize>,
}

/// A volume that nothing else is done to as long as this is kept.
#[derive(Debug)]
struct Claim {
    name: DynoName,
    busy: Arc<Mutex<Busy>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.volumes.remove(&self.name);
    }
}

/// A snapshot that is not removed as long as this is kept. Its volume is not claimed:
/// whoever reads may take his time.
#[derive(Debug)]
struct Reading {
    snapshot: (DynoName, DynoName),
    busy: Arc<Mutex<Busy>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(readers) = busy.read.get_mut(&self.snapshot) {
            *readers -= 1;
            if *readers == 0 {
                busy.read.remove(&self.snapshot);
            }
        }
    }
}

impl Volumes {
    /// The volumes in this folder. What a crash has left half-made goes.
    pub(crate) fn new(root: PathBuf) -> Self {
        let folders = Folders::new(root);
        folders.sweep();
        Self {
            folders,
            busy: Arc::default(),
            holds: Holds::default(),
        }
    }

    /// Does what has to be seen by whoever claims one of these volumes next.
    ///
    /// # Errors
    /// Conflict where one of them is claimed; what `work` says.
    pub(crate) fn unless_busy<T>(
        &self,
        spec: &DynoSpec,
        work: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match mounted(spec).find(|name| busy.volumes.contains(*name)) {
            Some(name) => Err(in_work(name)),
            None => work(),
        }
    }

    fn claim(&self, name: &DynoName) -> Result<Claim, ApiError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.volumes.insert(name.clone()) {
            false => Err(in_work(name)),
            true => Ok(Claim {
                name: name.clone(),
                busy: self.busy.clone(),
            }),
        }
    }

    fn read(&self, volume: &DynoName, snapshot: &DynoName) -> Result<Reading, ApiError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.volumes.contains(volume) {
            return Err(in_work(volume));
        }
        let snapshot = (volume.clone(), snapshot.clone());
        *busy.read.entry(snapshot.clone()).or_default() += 1;
        Ok(Reading {
            snapshot,
            busy: self.busy.clone(),
        })
    }

    /// To be asked by who has claimed the volume: nobody begins to read then.
    fn must_not_be_read(
        &self,
        volume: &DynoName,
        wanted: Option<&DynoName>,
    ) -> Result<(), ApiError> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |(of, snapshot): &&(DynoName, DynoName)| {
            of == volume && wanted.is_none_or(|wanted| wanted == snapshot)
        };
        match busy.read.keys().find(meant) {
            None => Ok(()),
            Some((_, snapshot)) => {
                let message = format!("snapshot {volume}@{snapshot} is being copied or exported");
                Err(ApiError::new(ErrorKind::Conflict, message).hint("try again when that is done"))
            }
        }
    }

    /// Makes the volumes of a dyno that are missing. They survive what its record does.
    ///
    /// # Errors
    /// Conflict where one is being made by somebody else; what the file system says.
    pub(crate) fn make_missing(&self, spec: &DynoSpec, survives: Survives) -> Result<(), ApiError> {
        // Two dynos make one after the other, and nobody claims it in between.
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for name in mounted(spec) {
            let data = self.folders.data(name);
            if data.exists() {
                continue;
            }
            if busy.volumes.contains(name) {
                return Err(in_work(name));
            }
            self.write_record(name, &VolumeRecord::new(None, None), survives)?;
            open_folder(&data).map_err(failed("make", &data))?;
            if survives == Survives::PowerCut {
                folders::sync(self.folders.root()).map_err(failed("sync", &data))?;
            }
        }
        Ok(())
    }

    fn write_record(
        &self,
        name: &DynoName,
        record: &VolumeRecord,
        survives: Survives,
    ) -> Result<(), ApiError> {
        let path = self.folders.record(name);
        let folder = path.parent().unwrap_or(self.folders.root());
        folders::make_folder(folder).map_err(failed("make", folder))?;
        Ok(durable::write_json(&path, record, survives)?)
    }

    fn record(&self, name: &DynoName) -> Result<Option<VolumeRecord>, ApiError> {
        let path = self.folders.record(name);
        // A power cut does this to those alone that it may: they have no quota.
        if fs::read(&path).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            return Ok(None);
        }
        Ok(folders::read(&path, |record: &VolumeRecord| {
            record.version
        })?)
    }

    /// What is known of a volume that is only shown or removed: nothing, where its record
    /// cannot be read.
    fn known(&self, name: &DynoName) -> Option<VolumeRecord> {
        self.record(name).unwrap_or_else(|error| {
            tracing::warn!(volume = %name, %error, "the record of a volume cannot be read");
            None
        })
    }

    fn must_exist(&self, name: &DynoName) -> Result<(), ApiError> {
        match self.folders.data(name).is_dir() {
            true => Ok(()),
            false => Err(missing(name)),
        }
    }

    fn must_not_exist(&self, name: &DynoName) -> Result<(), ApiError> {
        match self.folders.data(name).exists() {
            false => Ok(()),
            true => Err(taken(name)),
        }
    }

    /// The folder whose files are meant.
    fn source(&self, source: &VolumeSource) -> Result<PathBuf, ApiError> {
        self.must_exist(&source.volume)?;
        let Some(snapshot) = &source.snapshot else {
            return Ok(self.folders.data(&source.volume));
        };
        self.snapshot_record(&source.volume, snapshot)?;
        Ok(self
            .folders
            .snapshot(&source.volume, snapshot)
            .join("files"))
    }

    fn snapshot_record(
        &self,
        volume: &DynoName,
        snapshot: &DynoName,
    ) -> Result<SnapshotRecord, ApiError> {
        let folder = self.folders.snapshot(volume, snapshot);
        let path = folder.join("snapshot.json");
        let record = folders::read(&path, |record: &SnapshotRecord| record.version)?;
        record.ok_or_else(|| {
            let message = format!("volume {volume} has no snapshot {snapshot}");
            ApiError::new(ErrorKind::NotFound, message)
                .hint(format!("`dyno volume snapshots {volume}` lists them"))
        })
    }

    /// A folder for a new volume, with its quota.
    fn begin(&self, wanted: VolumeQuota) -> Result<Making, ApiError> {
        let mut making = self
            .folders
            .make()
            .map_err(failed("make", self.folders.root()))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&making.path, mode).map_err(failed("make", &making.path))?;
        if !wanted.is_unset() {
            making.quota = Some(quota::give(&making.path, wanted)?);
        }
        Ok(making)
    }

    /// Gives what was made its name; it survives a power cut when this returns.
    fn finish(
        &self,
        name: &DynoName,
        making: &Making,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        if let Some(given) = record.quota {
            quota::check(&making.path, given)?;
        }
        let data = self.folders.data(name);
        let removed = self.folders.complete_removal(name);
        removed.map_err(failed("remove what is left of", &data))?;
        self.write_record(name, record, Survives::PowerCut)?;
        failpoint("volume.recorded");
        let named = renameat_with(CWD, &making.path, CWD, &data, RenameFlags::NOREPLACE);
        failpoint("volume.named");
        let Err(error) = named else {
            return folders::sync(self.folders.root()).map_err(failed("sync", &data));
        };
        // Whatever is there instead has not this quota.
        let record = self.folders.record(name);
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
    fn exchange(
        &self,
        mut making: Making,
        data: &Path,
        quota: Option<folders::Quota>,
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
        } else if let Err(error) = folders::sync(self.folders.root()) {
            tracing::warn!(%error, "a rollback that is undone may come back with a power cut");
        }
        Err(error)
    }

    /// What is known of a volume; what it takes up is counted only where that is asked.
    fn shown(&self, dynos: &[Dyno], name: &DynoName) -> Result<Volume, ApiError> {
        let record = self.known(name);
        let snapshots = self.folders.snapshots(name);
        let count = Folders::names(&snapshots).map_err(failed("read", &snapshots))?;
        let users = dynos.iter().filter(|dyno| mounts(&dyno.spec, name));
        Ok(Volume {
            name: name.clone(),
            created: record.as_ref().map(|record| record.created),
            quota: record.as_ref().and_then(|record| record.quota).map_or_else(
                VolumeQuota::default,
                |quota| VolumeQuota {
                    bytes: quota.bytes,
                    inodes: quota.inodes,
                },
            ),
            from: record.and_then(|record| record.from),
            snapshots: count.len() as u64,
            used_by: users.map(|dyno| dyno.name.clone()).collect(),
            usage: None,
        })
    }

    fn usage(&self, name: &DynoName) -> Result<VolumeUsage, ApiError> {
        let data = self.folders.data(name);
        let found = match self.known(name).and_then(|record| record.quota) {
            Some(given) => quota::usage(&data, quota::of(&data, given)),
            None => usage::count(&data),
        };
        found.map_err(failed("look at", &data))
    }
}

impl VolumeRecord {
    fn new(quota: Option<folders::Quota>, from: Option<VolumeSource>) -> Self {
        Self {
            version: VERSION,
            created: Timestamp::now(),
            quota,
            from,
        }
    }
}

fn failed<'a>(operation: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> ApiError + 'a {
    move |error| from_io_at(&format!("cannot {operation}"), path, &error)
}

/// A volume's own folder is the dyno's: its mode shows inside.
fn open_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

fn missing(name: &DynoName) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no volume {name}"))
        .hint("`dyno volume ls` lists them")
}

fn taken(name: &DynoName) -> ApiError {
    let message = format!("there is a volume {name} already");
    ApiError::new(ErrorKind::Conflict, message)
}

fn in_work(name: &DynoName) -> ApiError {
    ApiError::new(
        ErrorKind::Conflict,
        format!("volume {name} is being copied or changed"),
    )
    .hint("try again when that is done")
}

/// The volumes that a specification mounts.
fn mounted(spec: &DynoSpec) -> impl Iterator<Item = &DynoName> {
    spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume { name, .. } => Some(name),
        Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    })
}

fn mounts(spec: &DynoSpec, volume: &DynoName) -> bool {
    mounted(spec).any(|name| name == volume)
}

fn dynos(host: &Host) -> Vec<Dyno> {
    let handles = host.registry().handles();
    let mut dynos: Vec<Dyno> = handles.iter().map(|handle| handle.dyno()).collect();
    dynos.sort_by(|one, other| one.name.cmp(&other.name));
    dynos
}

/// The name of a volume or snapshot in a request.
pub(crate) fn parse(name: &str) -> Result<DynoName, ApiError> {
    name.parse::<DynoName>()
        .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))
}

/// Lets dynos go on that an earlier hostd has paused for a copy.
pub(crate) async fn let_go(host: Arc<Host>) {
    still::end_earlier(&host).await;
}

/// Lets dynos go on before hostd ends; what is being copied for them comes to nothing.
pub(crate) async fn end(host: &Arc<Host>) {
    if timeout(LAST_STEPS, still::end_all(host)).await.is_err() {
        tracing::warn!("dynos that are paused for a copy go on when hostd starts again");
    }
}

/// Has a copy that holds a dyno leave it paused, as its user wants it.
pub(crate) async fn keep_paused(host: &Arc<Host>, dyno: &DynoId) {
    still::keep_paused(host, dyno).await;
}

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
        host.volumes.must_exist(&name)?;
        let mut volume = host.volumes.shown(&dynos(&host), &name)?;
        volume.usage = Some(host.volumes.usage(&name)?);
        Ok(volume)
    })
    .await
}

/// Makes a volume, empty or a copy.
///
/// # Errors
/// Conflict where the name is taken; Unsupported for a quota that nobody would enforce;
/// why it cannot be copied. Nothing of it is left then.
pub(crate) async fn create(host: Arc<Host>, spec: VolumeSpec) -> Result<Volume, ApiError> {
    let claim = host.volumes.claim(&spec.name)?;
    host.volumes.must_not_exist(&spec.name)?;
    let mut source = None;
    if let Some(from) = &spec.from {
        source = Some(Source::open(&host, from, spec.live).await?);
    }
    let shared = host.clone();
    let from = source.as_ref().map(Source::files);
    let made = blocking(move || {
        let _claim = claim;
        let making = shared.volumes.begin(spec.quota)?;
        failpoint("volume.begun");
        if let Some((from, moment)) = from {
            copied(&from, &making.path, &moment)?;
        }
        let record = VolumeRecord::new(making.quota, spec.from);
        shared.volumes.finish(&spec.name, &making, &record)?;
        shared.volumes.shown(&dynos(&shared), &spec.name)
    })
    .await;
    if let Some(source) = source {
        source.close().await;
    }
    made
}

fn copied(from: &Path, to: &Path, moment: &Moment) -> Result<Copied, ApiError> {
    let copied = copy::copy(from, to, &|| moment.lasts());
    // Why a copy was given up, or is none of one moment.
    moment.check()?;
    copied.map_err(|error| from_io("cannot copy the volume", &error))
}

/// Files that stay as they are as long as this is open.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    moment: Moment,
    _kept: Kept,
    still: Option<Still>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is kept, not looked at")]
enum Kept {
    Volume(Claim),
    Snapshot(Reading),
}

impl Source {
    async fn open(host: &Arc<Host>, from: &VolumeSource, live: bool) -> Result<Self, ApiError> {
        let kept = match &from.snapshot {
            None => Kept::Volume(host.volumes.claim(&from.volume)?),
            Some(snapshot) => Kept::Snapshot(host.volumes.read(&from.volume, snapshot)?),
        };
        let path = host.volumes.source(from)?;
        let still = match from.snapshot.is_none() && !live {
            true => Some(Still::begin(host, &from.volume).await?),
            false => None,
        };
        Ok(Self {
            path,
            moment: still
                .as_ref()
                .map_or_else(|| Moment::new(host), Still::moment),
            _kept: kept,
            still,
        })
    }

    /// What a copy needs to know of it.
    fn files(&self) -> (PathBuf, Moment) {
        (self.path.clone(), self.moment.clone())
    }

    async fn close(self) {
        if let Some(still) = self.still {
            still.end().await;
        }
    }
}

/// Removes a volume with its data.
///
/// # Errors
/// NotFound; Conflict while a dyno mounts it, or it has snapshots and that is not forced.
pub(crate) async fn remove(host: Arc<Host>, name: &str, force: bool) -> Result<(), ApiError> {
    let name = parse(name)?;
    let claim = host.volumes.claim(&name)?;
    blocking(move || {
        let _claim = claim;
        let volumes = &host.volumes;
        volumes.must_exist(&name)?;
        volumes.must_not_be_read(&name, None)?;
        let volume = volumes.shown(&dynos(&host), &name)?;
        if let Some(user) = volume.used_by.first() {
            let message = format!("dyno {user} mounts the volume {name}");
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint(format!("remove that dyno first: `dyno rm {user}`")));
        }
        if volume.snapshots > 0 && !force {
            let message = format!("volume {name} has {} snapshots", volume.snapshots);
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint("remove them first, or force it: they go with it"));
        }
        let data = volumes.folders.data(&name);
        let given = volumes.known(&name).and_then(|record| record.quota);
        let given = given.map(|given| quota::of(&data, given));
        let removed = volumes.folders.remove(&name, given);
        removed.map_err(failed("remove", &data))
    })
    .await
}

/// The snapshots of a volume, the oldest first.
///
/// # Errors
/// NotFound; when a record cannot be read.
pub(crate) async fn snapshots(host: Arc<Host>, volume: &str) -> Result<Vec<Snapshot>, ApiError> {
    let volume = parse(volume)?;
    blocking(move || {
        host.volumes.must_exist(&volume)?;
        let folder = host.volumes.folders.snapshots(&volume);
        let names = Folders::names(&folder).map_err(failed("read", &folder))?;
        let mut found = Vec::new();
        for name in names {
            let record = host.volumes.snapshot_record(&volume, &name)?;
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
    source.close().await;
    taken
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
    let claim = host.volumes.claim(&volume)?;
    blocking(move || {
        let _claim = claim;
        host.volumes.snapshot_record(&volume, &snapshot)?;
        host.volumes.must_not_be_read(&volume, Some(&snapshot))?;
        let folder = host.volumes.folders.snapshot(&volume, &snapshot);
        let thrown = host.volumes.folders.throw(&folder);
        failpoint("snapshot_remove.thrown");
        thrown.map_err(failed("remove", &folder))
    })
    .await
}

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
    let claim = host.volumes.claim(&name)?;
    blocking(move || {
        let _claim = claim;
        let volumes = &host.volumes;
        let from = volumes.source(&VolumeSource {
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
        let before = volumes.record(&name)?;
        let quota = before.as_ref().and_then(|record| record.quota);
        let wanted = quota.map_or_else(VolumeQuota::default, |quota| VolumeQuota {
            bytes: quota.bytes,
            inodes: quota.inodes,
        });
        let making = volumes.begin(wanted)?;
        copied(&from, &making.path, &Moment::new(&host))?;
        failpoint("rollback.copied");
        if let Some(given) = making.quota {
            quota::check(&making.path, given)?;
        }
        let mut record = before.unwrap_or_else(|| VolumeRecord::new(None, None));
        record.quota = making.quota;
        let data = volumes.folders.data(&name);
        let quota = quota.map(|quota| quota::of(&data, quota));
        volumes.exchange(making, &data, quota, || {
            failpoint("rollback.exchanged");
            folders::sync(volumes.folders.root()).map_err(failed("sync", &data))?;
            volumes.write_record(&name, &record, Survives::PowerCut)
        })?;
        volumes.shown(&all, &name)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(top: &tempfile::TempDir) -> Volumes {
        let folders = Folders::new(top.path().join("volumes"));
        folders::make_folder(folders.root()).unwrap();
        Volumes {
            folders,
            busy: Arc::default(),
            holds: Holds::default(),
        }
    }

    fn mounting(volume: &str) -> DynoSpec {
        let mount = Mount::Volume {
            name: parse(volume).unwrap(),
            target: "/data".to_owned(),
            read_only: false,
        };
        DynoSpec {
            mounts: vec![mount],
            ..DynoSpec::default()
        }
    }

    #[test]
    fn dynos_make_a_volume_that_nobody_else_is_making() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let name = parse("db").unwrap();
        let claim = volumes.claim(&name).unwrap();
        let refused = volumes.make_missing(&mounting("db"), Survives::PowerCut);
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Conflict);
        assert!(!volumes.folders.data(&name).exists() && volumes.known(&name).is_none());
        drop(claim);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let make = || volumes.make_missing(&mounting("db"), Survives::Crash);
                scope.spawn(move || make().unwrap());
            }
        });
        assert!(volumes.known(&name).is_some());
        // What exists is mounted, whoever reads it meanwhile.
        let _claim = volumes.claim(&name).unwrap();
        volumes
            .make_missing(&mounting("db"), Survives::Crash)
            .unwrap();
    }

    #[test]
    fn who_reads_a_snapshot_keeps_nothing_but_its_removal_waiting() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let [name, one, two] = ["db", "one", "two"].map(|name| parse(name).unwrap());
        let readers = [&one, &one].map(|one| volumes.read(&name, one).unwrap());
        volumes.unless_busy(&mounting("db"), || Ok(())).unwrap();
        let claim = volumes.claim(&name).unwrap();
        assert!(volumes.read(&name, &two).is_err());
        for reader in readers {
            assert!(volumes.must_not_be_read(&name, Some(&one)).is_err());
            assert!(volumes.must_not_be_read(&name, None).is_err());
            assert!(volumes.must_not_be_read(&name, Some(&two)).is_ok());
            drop(reader);
        }
        volumes.must_not_be_read(&name, None).unwrap();
        drop(claim);
        volumes.read(&name, &two).unwrap();
    }

    #[tokio::test]
    async fn a_name_that_was_taken_meanwhile_gets_no_record_of_another_volume() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let name = parse("db").unwrap();
        open_folder(&volumes.folders.data(&name)).unwrap();
        let making = volumes.begin(VolumeQuota::default()).unwrap();
        let record = VolumeRecord::new(None, None);
        let refused = volumes.finish(&name, &making, &record).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert_eq!(volumes.record(&name).unwrap(), None);
    }

    #[test]
    fn a_volume_is_shown_without_what_a_power_cut_has_left_of_its_record() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let name = parse("db").unwrap();
        volumes
            .make_missing(&mounting("db"), Survives::Crash)
            .unwrap();
        for (left, is_lost) in [("", true), ("\0\0\0", true), ("{", false)] {
            durable::write(
                &volumes.folders.record(&name),
                left.as_bytes(),
                Survives::Crash,
            )
            .unwrap();
            assert_eq!(volumes.shown(&[], &name).unwrap().created, None);
            volumes.usage(&name).unwrap();
            assert_eq!(volumes.record(&name).is_ok(), is_lost, "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_rollback_that_fails_halfway_leaves_the_files_of_before() {
        let top = tempfile::tempdir().unwrap();
        let volumes = volumes(&top);
        let data = volumes.folders.data(&parse("db").unwrap());
        open_folder(&data).unwrap();
        fs::create_dir(data.join("before")).unwrap();
        let making = volumes.begin(VolumeQuota::default()).unwrap();
        fs::create_dir(making.path.join("after")).unwrap();
        let full = || ApiError::new(ErrorKind::Exhausted, "no space left");
        let failed = volumes.exchange(making, &data, None, || {
            assert!(data.join("after").exists());
            Err(full())
        });
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Exhausted);
        assert!(data.join("before").exists() && !data.join("after").exists());
        let making = volumes.begin(VolumeQuota::default()).unwrap();
        volumes.exchange(making, &data, None, || Ok(())).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }
}
