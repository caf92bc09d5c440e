//! What a copy is made of: files that stay as they are meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dyno_api::error::ApiError;
use dyno_api::volume::VolumeSource;

use super::backup::Backup;
use super::claims::{Claim, Reading};
use super::copy::{self, Copied};
use super::folders::Folders;
use super::still::{Moment, Still};
use crate::durable::from_io;
use crate::host::Host;
use crate::room::Room;

/// Files that stay as they are as long as this is open.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    moment: Moment,
    _kept: Kept,
    still: Option<Still>,
    backup: Option<Backup>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is kept, not looked at")]
enum Kept {
    Volume(Claim),
    Snapshot(Reading),
}

impl Source {
    pub(super) async fn open(
        host: &Arc<Host>,
        from: &VolumeSource,
        live: bool,
    ) -> Result<Self, ApiError> {
        let kept = match &from.snapshot {
            None => Kept::Volume(host.volumes.claims.claim(&from.volume)?),
            Some(snapshot) => Kept::Snapshot(host.volumes.claims.read(&from.volume, snapshot)?),
        };
        let path = host.volumes.folders.source(from)?;
        let mut still = None;
        let mut prepared = None;
        if from.snapshot.is_none() {
            let backup = Backup::of(host, &from.volume).await?;
            if !live {
                match Still::begin(host, &from.volume).await {
                    Ok(begun) => still = Some(begun),
                    Err(error) => {
                        backup.end_quietly().await;
                        return Err(error);
                    }
                }
            }
            prepared = Some(backup);
        }
        Ok(Self {
            path,
            moment: still
                .as_ref()
                .map_or_else(|| Moment::new(host), Still::moment),
            _kept: kept,
            still,
            backup: prepared,
        })
    }

    /// What a copy needs to know of it.
    pub(super) fn files(&self) -> (PathBuf, Moment) {
        (self.path.clone(), self.moment.clone())
    }

    /// Has everybody go on, whatever came of the copy.
    ///
    /// # Errors
    /// Where a dyno does not do what it does after a copy.
    pub(super) async fn close(self) -> Result<(), ApiError> {
        if let Some(still) = self.still {
            still.end().await;
        }
        match self.backup {
            None => Ok(()),
            Some(backup) => backup.end().await,
        }
    }

    /// The same, where a copy came to this: why there is none comes first.
    pub(super) async fn close_after<T>(self, made: Result<T, ApiError>) -> Result<T, ApiError> {
        match (self.close().await, made) {
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(first)) => {
                tracing::error!(%error, "a dyno did not end a backup that came to nothing");
                Err(first)
            }
            (Ok(()), made) => made,
        }
    }
}

/// Copies them.
///
/// # Errors
/// Why it cannot; Conflict where they did not stay as they were.
pub(super) fn copied(from: &Path, to: &Path, moment: &Moment) -> Result<Copied, ApiError> {
    let copied = copy::copy(from, to, &|| moment.lasts());
    if copied
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
    {
        return Err(Room::of(to).refusal());
    }
    // Why a copy was given up, or is none of one moment.
    moment.check()?;
    copied.map_err(|error| from_io("cannot copy the volume", &error))
}

impl Folders {
    /// The folder whose files are meant.
    pub(super) fn source(&self, source: &VolumeSource) -> Result<PathBuf, ApiError> {
        self.must_exist(&source.volume)?;
        let Some(snapshot) = &source.snapshot else {
            return Ok(self.data(&source.volume));
        };
        self.snapshot_record(&source.volume, snapshot)?;
        Ok(self.snapshot(&source.volume, snapshot).join("files"))
    }
}
