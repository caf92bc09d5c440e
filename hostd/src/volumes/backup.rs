//! Commands that dynos run before and after a copy of a volume.
//!
//! ```text
//! noted ─▶ before ─▶ … each dyno … ─▶ (paused, copied, going on) ─▶ after ─▶ forgotten
//! ```
//! What was begun in a dyno is noted on disk before: `after` is run in it at least once,
//! whatever comes of the copy, by the next hostd where this one is killed.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dyno_api::dyno::{Dyno, Phase};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use dyno_api::volume::BackupHooks;
use dyno_failpoint::failpoint;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::folders::{Folders, failed, make_folder};
use super::users::writes;
use crate::durable::{self, Survives, from_io};
use crate::host::{Host, blocking};
use crate::supervisor::Handle;
use crate::{admission, engine, exec, identity};

/// How long a command may take where nobody says so.
const USUAL: Duration = Duration::from_secs(60);
/// P15: milliseconds that one may take.
const TIMEOUT: RangeInclusive<u64> = 10..=3_600_000;
/// How long a dyno that does not run may take to do so again after hostd was killed.
const RETURN: Duration = Duration::from_secs(600);

/// What is to be run in a dyno when the copy is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    dyno: DynoId,
    after: Vec<String>,
    timeout_ms: u64,
}

/// Dynos in which a backup has begun, to be ended by [`Backup::end`]. Where it is dropped
/// it ends as well, with nobody to be told of it.
#[derive(Debug)]
pub(super) struct Backup {
    host: Arc<Host>,
    /// Notes, and where each is.
    begun: Vec<(PathBuf, Note)>,
}

/// Refuses commands that nobody could run.
///
/// # Errors
/// Invalid, with what is wrong.
pub(super) fn check(hooks: &BackupHooks) -> Result<(), ApiError> {
    for (name, command) in [("before", &hooks.before), ("after", &hooks.after)] {
        if !command.is_empty() {
            admission::command(&format!("`{name}` of a backup"), command)?;
        }
    }
    match hooks.timeout_ms {
        Some(asked) if !TIMEOUT.contains(&asked) => Err(ApiError::new(
            ErrorKind::Invalid,
            format!(
                "a command of a backup has {asked} ms; accepted are {} to {}",
                TIMEOUT.start(),
                TIMEOUT.end()
            ),
        )),
        _ => Ok(()),
    }
}

impl Backup {
    /// Begins what the record of this volume says.
    ///
    /// # Errors
    /// As [`Backup::begin`].
    pub(super) async fn of(host: &Arc<Host>, volume: &DynoName) -> Result<Self, ApiError> {
        let (shared, name) = (host.clone(), volume.clone());
        let record = blocking(move || shared.volumes.folders.read_record(&name)).await?;
        let hooks = record.map(|record| record.backup).unwrap_or_default();
        Self::begin(host, volume, &hooks).await
    }

    /// Runs `before` in each dyno that runs and writes to the volume, by their names.
    ///
    /// # Errors
    /// Conflict where it fails in one, or one is paused; `after` was run in those where it
    /// was begun then.
    async fn begin(
        host: &Arc<Host>,
        volume: &DynoName,
        hooks: &BackupHooks,
    ) -> Result<Self, ApiError> {
        let mut backup = Self {
            host: host.clone(),
            begun: Vec::new(),
        };
        if hooks.is_unset() {
            return Ok(backup);
        }
        let mut handles = host.registry().handles();
        handles.retain(|handle| {
            handle.look(|dyno| dyno.status.phase == Phase::Running && writes(dyno, volume))
        });
        handles.sort_by_key(|handle| handle.look(|dyno| dyno.name.clone()));
        for handle in handles {
            if let Err(error) = backup.prepare(&handle, hooks).await {
                backup.end_quietly().await;
                return Err(error);
            }
        }
        Ok(backup)
    }

    async fn prepare(&mut self, handle: &Handle, hooks: &BackupHooks) -> Result<(), ApiError> {
        let limit = hooks.timeout_ms.map_or(USUAL, Duration::from_millis);
        let (id, name) = handle.look(|dyno| (dyno.id.clone(), dyno.name.clone()));
        let note = Note {
            dyno: id.clone(),
            after: hooks.after.clone(),
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        // One that another copy holds goes on with that.
        let wait = match self.host.volumes.holds.hold(&id).await {
            true => limit,
            false => Duration::ZERO,
        };
        let goes_on = handle.until(|dyno| !dyno.status.paused);
        if !matches!(timeout(wait, goes_on).await, Ok(Some(_))) {
            let message = format!("dyno {name} is paused: it cannot run its command before a copy");
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint(format!("`dyno resume {name}` first")));
        }
        if !note.after.is_empty() {
            let path = write(&self.host, note.clone()).await?;
            self.begun.push((path, note));
        }
        failpoint("backup.noted");
        if !hooks.before.is_empty() {
            let run = exec::run(&self.host, &id, &hooks.before, limit, usize::MAX).await;
            run.map_err(|reason| {
                let message = format!("the command before a copy failed in dyno {name}: {reason}");
                ApiError::new(ErrorKind::Conflict, message)
                    .hint("nothing was copied; `dyno volume set --before-backup` changes it")
            })?;
        }
        failpoint("backup.prepared");
        Ok(())
    }

    /// Runs `after` where the backup was begun. All are run, whatever comes of one.
    ///
    /// # Errors
    /// Conflict where it failed in one.
    pub(super) async fn end(mut self) -> Result<(), ApiError> {
        let mut ended = Ok(());
        for (path, note) in std::mem::take(&mut self.begun) {
            ended = ended.and(finish(&self.host, &path, &note).await);
        }
        ended
    }

    /// The same, with nobody to be told.
    pub(super) async fn end_quietly(self) {
        if let Err(error) = self.end().await {
            tracing::error!(%error, "a backup that came to nothing was not ended in a dyno");
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let rest = Self {
            host: self.host.clone(),
            begun: std::mem::take(&mut self.begun),
        };
        tokio::spawn(rest.end_quietly());
    }
}

/// Ends the backups that an earlier hostd has begun.
pub(super) async fn end_earlier(host: &Arc<Host>) {
    let shared = host.clone();
    let read = blocking(move || Ok(notes(&shared.volumes.folders))).await;
    for (path, note) in read.unwrap_or_default() {
        let host = host.clone();
        tokio::spawn(async move {
            if let Ok(handle) = engine::find(&host, note.dyno.as_str()) {
                tracing::info!(dyno = %note.dyno, "a backup of its volume was cut short, and ends");
                let runs = |dyno: &Dyno| dyno.status.phase == Phase::Running && !dyno.status.paused;
                if timeout(RETURN, handle.until(runs)).await.is_err() {
                    tracing::warn!(dyno = %note.dyno, "it does not run: what it does after a backup is left to the next start");
                    return;
                }
            }
            if let Err(error) = finish(&host, &path, &note).await {
                tracing::error!(%error, "a backup that was cut short was not ended in a dyno");
            }
        });
    }
}

fn notes(folders: &Folders) -> Vec<(PathBuf, Note)> {
    let Ok(entries) = fs::read_dir(folders.backups()) else {
        return Vec::new();
    };
    let mut notes = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        match durable::read_json::<Note>(&path) {
            Ok(note) => notes.extend(note.map(|note| (path, note))),
            Err(error) => tracing::error!(%error, "the note of a backup cannot be read"),
        }
    }
    notes
}

/// Runs `after`, and forgets that it was to be run. In a dyno that is gone, or has ended,
/// there is nothing left to be told.
async fn finish(host: &Arc<Host>, path: &Path, note: &Note) -> Result<(), ApiError> {
    let limit = Duration::from_millis(note.timeout_ms);
    let run = match engine::find(host, note.dyno.as_str()) {
        Err(_) => Ok(()),
        Ok(handle) => {
            // Another copy, or its user, may have paused it meanwhile.
            let goes_on = handle.until(|dyno| !dyno.status.paused);
            let run = match timeout(limit, goes_on).await {
                Err(_) => Err("it is paused".to_owned()),
                Ok(None) => Ok(()),
                Ok(Some(dyno)) if dyno.status.phase != Phase::Running => Ok(()),
                Ok(Some(_)) => exec::run(host, &note.dyno, &note.after, limit, usize::MAX).await,
            };
            run.map_err(|reason| {
                let name = handle.look(|dyno| dyno.name.clone());
                let message = format!(
                    "the command after a copy failed in dyno {name}: {reason}"
                );
                ApiError::new(ErrorKind::Conflict, message).hint(format!(
                    "it has to be run by hand: `dyno exec {name} …`; a snapshot or clone that was asked for is there"
                ))
            })
        }
    };
    failpoint("backup.ended");
    let path = path.to_owned();
    let forgotten = blocking(move || {
        durable::remove(&path, Survives::PowerCut)
            .map_err(|error| from_io(&format!("cannot remove {}", path.display()), &error))
    });
    if let Err(error) = forgotten.await {
        tracing::warn!(%error, "what a dyno does after a backup is done again at the next start");
    }
    run
}

async fn write(host: &Arc<Host>, note: Note) -> Result<PathBuf, ApiError> {
    let folder = host.volumes.folders.backups();
    blocking(move || {
        make_folder(&folder).map_err(failed("make", &folder))?;
        let number: [u8; 8] = identity::random().map_err(failed("name a note in", &folder))?;
        let number = u64::from_le_bytes(number);
        let path = folder.join(format!("{number:016x}.json"));
        durable::write_json(&path, &note, Survives::PowerCut)?;
        Ok(path)
    })
    .await
}
