//! Dynos that are held still while a volume of theirs is copied.
//!
//! The kernel remembers who is paused and hostd may be killed in between, so each is
//! noted on disk before: the next hostd lets it go on.

use std::fs;
use std::sync::Arc;

use dyno_api::dyno::{Dyno, Mount, Phase};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};

use super::folders::{self, Folders};
use crate::durable::{self, Survives, from_io};
use crate::engine;
use crate::host::Host;
use crate::supervisor::{Ask, Handle};

/// Dynos that are paused by us, to be let go by [`Still::end`].
#[derive(Debug)]
pub(super) struct Still {
    folders: Folders,
    held: Vec<(DynoId, Handle)>,
}

impl Still {
    /// Pauses the dynos that run and write to this volume. Those that are paused already
    /// stay so.
    ///
    /// # Errors
    /// Conflict while one of them is about to end; why one cannot be paused. None is then.
    pub(super) async fn begin(
        host: &Arc<Host>,
        folders: &Folders,
        volume: &DynoName,
    ) -> Result<Self, ApiError> {
        let mut still = Self {
            folders: folders.clone(),
            held: Vec::new(),
        };
        let handles = host.registry().handles();
        for handle in handles {
            let dyno = handle.dyno();
            let runs = matches!(dyno.status.phase, Phase::Running | Phase::Stopping);
            if !runs || dyno.status.paused || !writes(&dyno, volume) {
                continue;
            }
            if let Err(error) = still.hold(&dyno, handle).await {
                still.end().await;
                return Err(error);
            }
        }
        Ok(still)
    }

    async fn hold(&mut self, dyno: &Dyno, handle: Handle) -> Result<(), ApiError> {
        if dyno.status.phase != Phase::Running {
            let message = format!("dyno {}, which writes to it, is about to end", dyno.name);
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .hint("try again when it has, or take the copy live"));
        }
        let note = self.folders.held_by(&dyno.id);
        folders::make_folder(&self.folders.held())
            .and_then(|()| durable::write(&note, b"", Survives::PowerCut))
            .map_err(|error| from_io("cannot note that a dyno is paused", &error))?;
        self.held.push((dyno.id.clone(), handle.clone()));
        match handle.ask(Ask::Pause).await {
            // It has ended by itself meanwhile.
            Err(_) if handle.dyno().status.pid.is_none() => Ok(()),
            other => other,
        }
    }

    /// Lets them go on.
    pub(super) async fn end(self) {
        for (id, handle) in &self.held {
            let_go(handle).await;
            forget(&self.folders, id);
        }
    }
}

async fn let_go(handle: &Handle) {
    if let Err(error) = handle.ask(Ask::Resume).await
        && handle.dyno().status.paused
    {
        tracing::error!(dyno = %handle.dyno().name, %error, "a dyno stays paused after a copy of its volume; `dyno resume` it");
    }
}

fn forget(folders: &Folders, id: &DynoId) {
    let note = folders.held_by(id);
    if let Err(error) = durable::remove(&note, Survives::PowerCut) {
        tracing::warn!(%error, note = %note.display(), "the note that a dyno is paused stays");
    }
}

/// Lets go on whom an earlier hostd has paused.
pub(super) async fn end_earlier(host: &Host, folders: &Folders) {
    let Ok(entries) = fs::read_dir(folders.held()) else {
        return;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let ids: Vec<DynoId> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    for id in ids {
        if let Ok(handle) = engine::find(host, id.as_str()) {
            tracing::info!(dyno = %id, "it was paused for a copy that was cut short, and goes on");
            let_go(&handle).await;
        }
        forget(folders, &id);
    }
}

fn writes(dyno: &Dyno, volume: &DynoName) -> bool {
    dyno.spec.mounts.iter().any(
        |mount| matches!(mount, Mount::Volume { name, read_only: false, .. } if name == volume),
    )
}
