//! Dynos that are held still while a volume of theirs is copied.
//!
//! Several copies may hold one dyno: it goes on with the last of them. The kernel
//! remembers who is paused and hostd may be killed in between, so each is noted on disk
//! before: the next hostd lets it go on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dyno_api::dyno::Phase;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use dyno_failpoint::failpoint;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::folders;
use super::users::writes;
use crate::cgroups;
use crate::durable::{self, Survives, from_io};
use crate::engine;
use crate::host::{Host, blocking};
use crate::supervisor::{Ask, Handle, is_over};

/// How long a dyno that has ended may take to be taken down.
const TAKING_DOWN: Duration = Duration::from_secs(2);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(10);

/// Who is held still. Whoever pauses or lets go keeps the lock until that is done.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: Mutex<HashMap<DynoId, Hold>>,
    is_ending: AtomicBool,
}

#[derive(Debug, Default)]
struct Hold {
    copies: usize,
    /// Its user has paused it meanwhile.
    stays: bool,
}

/// Whether a copy is of one moment, and hostd goes on with it.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    host: Arc<Host>,
    paused: Vec<DynoId>,
    is_over: Arc<AtomicBool>,
}

impl Holds {
    /// Whether a copy has paused this dyno, rather than its user.
    pub(super) async fn hold(&self, dyno: &DynoId) -> bool {
        let held = self.held.lock().await;
        held.get(dyno).is_some_and(|hold| !hold.stays)
    }
}

impl Moment {
    /// That of files which nobody is held still for.
    pub(super) fn new(host: &Arc<Host>) -> Self {
        Self {
            host: host.clone(),
            paused: Vec::new(),
            is_over: Arc::default(),
        }
    }

    /// Quick, to be asked often. Someone may have gone on that is not heard of yet.
    pub(super) fn lasts(&self) -> bool {
        let is_ending = self.host.volumes.holds.is_ending.load(Ordering::Relaxed);
        !is_ending && !self.is_over.load(Ordering::Relaxed)
    }

    /// Asks the kernel too. Blocks.
    ///
    /// # Errors
    /// Conflict where a dyno has gone on or ended, or hostd ends.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        if self.host.volumes.holds.is_ending.load(Ordering::Relaxed) {
            return Err(ending());
        }
        let is_paused = |id| cgroups::is_paused(&self.host, id);
        match self.paused.iter().all(is_paused) && self.lasts() {
            true => Ok(()),
            false => {
                let message = "a dyno that writes to the volume went on or ended meanwhile";
                Err(ApiError::new(ErrorKind::Conflict, message)
                    .hint("try again, or take the copy live"))
            }
        }
    }
}

/// Dynos that are paused by us, to be let go by [`Still::end`].
#[derive(Debug)]
pub(super) struct Still {
    held: Vec<DynoId>,
    moment: Moment,
    watching: JoinSet<()>,
}

impl Still {
    /// Pauses the dynos that run and write to this volume. Those that their users have
    /// paused stay so.
    ///
    /// # Errors
    /// Conflict while one of them is about to start or to end; why one cannot be paused.
    /// None is then.
    pub(super) async fn begin(host: &Arc<Host>, volume: &DynoName) -> Result<Self, ApiError> {
        let mut still = Self {
            held: Vec::new(),
            moment: Moment::new(host),
            watching: JoinSet::new(),
        };
        let handles = host.registry().handles();
        for handle in handles {
            if !handle.look(|dyno| writes(dyno, volume)) {
                continue;
            }
            if let Err(error) = still.hold(host, handle).await {
                still.end().await;
                return Err(error);
            }
        }
        Ok(still)
    }

    async fn hold(&mut self, host: &Arc<Host>, handle: Handle) -> Result<(), ApiError> {
        let mut held = host.volumes.holds.held.lock().await;
        if host.volumes.holds.is_ending.load(Ordering::Relaxed) {
            return Err(ending());
        }
        let dyno = handle.dyno();
        if dyno.status.phase != Phase::Running {
            return rests(host, &handle).await;
        }
        let note = host.volumes.folders.held_by(&dyno.id);
        let is_ours = held.contains_key(&dyno.id) || note.exists();
        if dyno.status.paused && !is_ours {
            self.watch(&handle);
            return Ok(());
        }
        if !dyno.status.paused || !held.contains_key(&dyno.id) {
            write_note(note).await?;
            failpoint("snapshot.noted");
            held.entry(dyno.id.clone()).or_default().stays = false;
        }
        held.entry(dyno.id.clone()).or_default().copies += 1;
        self.held.push(dyno.id);
        match handle.ask(Ask::Pause).await {
            Ok(()) => {
                self.watch(&handle);
                Ok(())
            }
            // It has ended by itself meanwhile.
            Err(_) if handle.dyno().status.pid.is_none() => rests(host, &handle).await,
            Err(error) => Err(error),
        }
    }

    /// The moment is over once this one goes on: by its user's wish, or to end.
    fn watch(&mut self, handle: &Handle) {
        let (handle, is_over) = (handle.clone(), self.moment.is_over.clone());
        self.moment.paused.push(handle.look(|dyno| dyno.id.clone()));
        self.watching.spawn(async move {
            if handle.until(|dyno| !dyno.status.paused).await.is_none() {
                tracing::debug!("a dyno was removed while a volume of it was copied");
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    pub(super) fn moment(&self) -> Moment {
        self.moment.clone()
    }

    /// Lets them go on, where no other copy holds them.
    pub(super) async fn end(self) {
        let host = &self.moment.host;
        for id in &self.held {
            let mut held = host.volumes.holds.held.lock().await;
            // hostd ends, and has let it go.
            let Some(hold) = held.get_mut(id) else {
                continue;
            };
            hold.copies -= 1;
            if hold.copies > 0 {
                continue;
            }
            if !hold.stays {
                let_go(host, id).await;
            }
            held.remove(id);
        }
    }
}

/// Leaves a dyno paused that a copy holds, as its user wants it.
pub(super) async fn keep_paused(host: &Arc<Host>, id: &DynoId) {
    let mut held = host.volumes.holds.held.lock().await;
    if let Some(hold) = held.get_mut(id) {
        hold.stays = true;
        forget(host, id).await;
    }
}

/// Lets all go on before hostd ends; copies that are not whole will not be.
pub(super) async fn end_all(host: &Arc<Host>) {
    host.volumes.holds.is_ending.store(true, Ordering::Relaxed);
    let mut held = host.volumes.holds.held.lock().await;
    for (id, hold) in held.drain() {
        if !hold.stays {
            let_go(host, &id).await;
        }
    }
}

/// Lets go on whom an earlier hostd has paused.
pub(super) async fn end_earlier(host: &Arc<Host>) {
    let folder = host.volumes.folders.held();
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let ids: Vec<DynoId> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    for id in ids {
        let held = host.volumes.holds.held.lock().await;
        // A copy has begun meanwhile: it lets it go.
        if held.contains_key(&id) {
            continue;
        }
        tracing::info!(dyno = %id, "it was paused for a copy that was cut short, and goes on");
        let_go(host, &id).await;
    }
}

/// Lets a dyno go on. Its note stays where it does not: the next hostd tries again.
async fn let_go(host: &Arc<Host>, id: &DynoId) {
    let goes_on = match engine::find(host, id.as_str()) {
        Ok(handle) => match handle.ask(Ask::Resume).await {
            Err(error) if handle.dyno().status.paused => Err(error),
            _ => Ok(()),
        },
        // It is gone, or nobody can read its record: the kernel knows it.
        Err(_) => {
            let (host, id) = (host.clone(), id.clone());
            blocking(move || match cgroups::set_paused(&host, &id, false) {
                Err(error) if cgroups::is_paused(&host, &id) => Err(error),
                _ => Ok(()),
            })
            .await
        }
    };
    match goes_on {
        Ok(()) => forget(host, id).await,
        Err(error) => {
            tracing::error!(dyno = %id, %error, "a dyno stays paused after a copy of its volume; `dyno resume` it");
        }
    }
}

async fn write_note(note: PathBuf) -> Result<(), ApiError> {
    blocking(move || {
        let folder = note.parent().unwrap_or(Path::new("/"));
        folders::make_folder(folder)
            .and_then(|()| durable::write(&note, b"", Survives::PowerCut))
            .map_err(|error| from_io("cannot note that a dyno is paused", &error))
    })
    .await
}

async fn forget(host: &Host, id: &DynoId) {
    let note = host.volumes.folders.held_by(id);
    let removed = blocking(move || {
        durable::remove(&note, Survives::PowerCut)
            .map_err(|error| from_io(&format!("cannot remove {}", note.display()), &error))
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "the note that a dyno is paused stays");
    }
}

/// Whether nothing of a dyno that does not run can write: its mounts are there as long
/// as its bundle is.
async fn rests(host: &Host, handle: &Handle) -> Result<(), ApiError> {
    let (id, name, phase) =
        handle.look(|dyno| (dyno.id.clone(), dyno.name.clone(), dyno.status.phase));
    let run = host.paths.dyno(&id).run;
    let tries = match is_over(phase) {
        true => TAKING_DOWN.as_millis() / LOOK.as_millis(),
        false => 1,
    };
    for _ in 0..tries {
        if !run.exists() {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    let message = format!("dyno {name}, which writes to it, is about to start or to end");
    Err(ApiError::new(ErrorKind::Conflict, message)
        .hint("try again when it runs or has ended, or take the copy live"))
}

fn ending() -> ApiError {
    ApiError::new(ErrorKind::Conflict, "hostd is about to end").hint("try again when it is back")
}
