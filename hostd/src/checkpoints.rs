//! Checkpoints of dynos: `dynos/<id>/checkpoints/<name>/`, root's alone, gone with the
//! dyno.
//!
//! ```text
//!  checkpoint ─▶ monitor ─▶ <name>.partial ── all on the disk ──▶ <name>
//!  restore    ─▶ a monitor whose dyno comes from <name>
//! ```
//! A folder under its name is complete: the monitor renames it, whatever becomes of
//! hostd meanwhile.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dyno_api::checkpoint::{Checkpoint, CheckpointRequest, RestoreRequest};
use dyno_api::dyno::Dyno;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::{Checkpoint as Wanted, Request};
use jiff::Timestamp;

use crate::durable::{self, from_io};
use crate::engine::find;
use crate::host::{Host, blocking};
use crate::monitor;
use crate::paths::DynoPaths;
use crate::supervisor::{Ask, is_over};

/// How long a dyno may take to be saved, its memory to be written and synced.
const SAVING: Duration = Duration::from_secs(1800);
/// How long its end may take to be seen then.
const ENDING: Duration = Duration::from_secs(60);
/// What hides what is not complete.
const PARTIAL: &str = "partial";

/// Where `PATH` has CRIU.
///
/// # Errors
/// Unsupported, with what to install.
pub fn criu() -> Result<PathBuf, ApiError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join("criu"));
    files.find(|file| file.is_file()).ok_or_else(|| {
        ApiError::new(ErrorKind::Unsupported, "there is no criu on this host")
            .hint("install it (Debian's package is criu); `dyno doctor` tells what else is missing")
    })
}

/// The checkpoints of a dyno, the oldest first.
///
/// # Errors
/// NotFound; what the disk says.
pub async fn list(host: &Host, wanted: &str) -> Result<Vec<Checkpoint>, ApiError> {
    let folder = paths(host, wanted)?.checkpoints();
    blocking(move || in_folder(&folder).map_err(|error| unreadable(&folder, &error))).await
}

/// Saves a dyno that runs; it has ended then, unless it is left running.
///
/// # Errors
/// Why not; it runs on.
pub async fn take(
    host: Arc<Host>,
    wanted: String,
    request: CheckpointRequest,
) -> Result<Checkpoint, ApiError> {
    let criu = criu()?;
    let handle = find(&host, &wanted)?;
    let own = paths(&host, &wanted)?;
    let name = match &request.name {
        Some(name) => name.clone(),
        None => after_the_time(Timestamp::now())?,
    };
    let images = own.checkpoints().join(name.as_str());
    let leave_running = request.leave_running;
    handle.ask(Ask::Save { leave_running }).await?;
    let saved = save(&own, images.clone(), criu, &request).await;
    handle.ask(Ask::Saved).await?;
    saved?;
    if !leave_running {
        let ended = handle.until(|dyno| is_over(dyno.status.phase));
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!(dyno = wanted, "a dyno that was saved has not ended yet");
        }
    }
    let made = blocking(move || read(&images).map_err(|error| unreadable(&images, &error)));
    made.await?.ok_or_else(|| gone(&name, &wanted))
}

async fn save(
    own: &DynoPaths,
    images: PathBuf,
    criu: PathBuf,
    request: &CheckpointRequest,
) -> Result<(), ApiError> {
    let (state, folder, target) = (own.state.clone(), own.checkpoints(), images.clone());
    blocking(move || {
        make_folder(&state, &folder)?;
        match target.exists() {
            false => Ok(()),
            true => {
                let message = format!("there is {} already", target.display());
                Err(ApiError::new(ErrorKind::Conflict, message)
                    .hint("choose another name, or remove that one: `dyno rm DYNO@CHECKPOINT`"))
            }
        }
    })
    .await?;
    failpoint("checkpoint.folder");
    let wanted = Wanted {
        criu,
        images,
        tcp_established: request.tcp_established,
        leave_running: request.leave_running,
    };
    let request = Request::Checkpoint(wanted);
    let saved = monitor::ask_within(&own.monitor_socket(), &request, SAVING).await;
    failpoint("checkpoint.saved");
    saved.map(drop).map_err(|error| match &error.hint {
        Some(hint) if hint.contains("TCP connections") => error
            .hint("save it with its connections by `--tcp-established`, or once they are closed"),
        _ => error,
    })
}

/// Removes a checkpoint.
///
/// # Errors
/// NotFound; what the disk says.
pub async fn remove(host: Arc<Host>, wanted: String, name: String) -> Result<(), ApiError> {
    let own = paths(&host, &wanted)?;
    let name = parsed(&name)?;
    let images = own.checkpoints().join(name.as_str());
    let partial = images.with_extension(PARTIAL);
    blocking(move || {
        // Under that name it is no checkpoint any more: half of one is never seen.
        match fs::rename(&images, &partial) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(gone(&name, &wanted));
            }
            renamed => renamed.map_err(|error| unremovable(&images, &error))?,
        }
        failpoint("checkpoint_remove.hidden");
        durable::remove_tree(&partial).map_err(|error| unremovable(&images, &error))
    })
    .await
}

/// Brings a dyno that rests back.
///
/// # Errors
/// Why not; it rests then.
pub async fn restore(
    host: Arc<Host>,
    wanted: String,
    request: RestoreRequest,
) -> Result<Dyno, ApiError> {
    criu()?;
    let all = list(&host, &wanted).await?;
    let name = match request.checkpoint {
        Some(name) if all.iter().any(|one| one.name == name) => name,
        Some(name) => return Err(gone(&name, &wanted)),
        None => all.last().map(|one| one.name.clone()).ok_or_else(|| {
            let message = format!("dyno {wanted} has no checkpoint");
            ApiError::new(ErrorKind::NotFound, message).hint("`dyno checkpoint` makes one")
        })?,
    };
    let handle = find(&host, &wanted)?;
    handle.ask(Ask::Restore(name)).await?;
    Ok(handle.dyno())
}

/// Removes what was not completed: nobody is writing to it any more.
pub fn sweep(own: &DynoPaths) {
    let Ok(entries) = fs::read_dir(own.checkpoints()) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path
            .extension()
            .is_some_and(|extension| extension == PARTIAL)
            && let Err(error) = durable::remove_tree(&path)
        {
            tracing::warn!(%error, folder = %path.display(), "what is left of a checkpoint stays until the dyno ends again");
        }
    }
}

fn paths(host: &Host, wanted: &str) -> Result<DynoPaths, ApiError> {
    let id = find(host, wanted)?.look(|dyno| dyno.id.clone());
    Ok(host.paths.dyno(&id))
}

fn make_folder(state: &Path, folder: &Path) -> Result<(), ApiError> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    let synced = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|()| File::open(state)?.sync_all()),
    };
    synced.map_err(|error| from_io(&format!("cannot make {}", folder.display()), &error))
}

fn in_folder(folder: &Path) -> io::Result<Vec<Checkpoint>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(read(&entry?.path())?);
    }
    found.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    Ok(found)
}

/// The checkpoint in this folder; none where its name is none of one.
fn read(folder: &Path) -> io::Result<Option<Checkpoint>> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let Some(name) = name.and_then(|name| name.parse().ok()) else {
        return Ok(None);
    };
    let entries = match fs::read_dir(folder) {
        // It was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    // What is written last: the folder's own entries change with its name only.
    let changed = fs::metadata(folder)?.modified()?;
    let created = Timestamp::try_from(changed).map_err(io::Error::other)?;
    Ok(Some(Checkpoint {
        name,
        created,
        bytes,
    }))
}

fn after_the_time(now: Timestamp) -> Result<DynoName, ApiError> {
    parsed(&now.strftime("%Y%m%d-%H%M%S").to_string())
}

fn parsed(name: &str) -> Result<DynoName, ApiError> {
    name.parse().map_err(|error: dyno_api::name::NameError| {
        ApiError::new(ErrorKind::Invalid, durable::chain(&error))
    })
}

fn gone(name: &DynoName, dyno: &str) -> ApiError {
    let message = format!("dyno {dyno} has no checkpoint {name}");
    ApiError::new(ErrorKind::NotFound, message).hint("`dyno checkpoints` lists them")
}

fn unreadable(folder: &Path, error: &io::Error) -> ApiError {
    from_io(&format!("cannot read {}", folder.display()), error)
}

fn unremovable(folder: &Path, error: &io::Error) -> ApiError {
    from_io(&format!("cannot remove {}", folder.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_made_is_no_checkpoint_and_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let own = DynoPaths {
            state: folder.path().to_owned(),
            run: folder.path().join("run"),
            secrets: folder.path().join("secrets"),
        };
        assert_eq!(in_folder(&own.checkpoints()).unwrap(), []);
        make_folder(&own.state, &own.checkpoints()).unwrap();
        for name in ["one", "two", "three.partial"] {
            let images = own.checkpoints().join(name);
            fs::create_dir(&images).unwrap();
            File::create(images.join("pages-1.img"))
                .unwrap()
                .set_len(1)
                .unwrap();
        }
        let names = || {
            let found = in_folder(&own.checkpoints()).unwrap();
            found
                .iter()
                .map(|one| one.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(), ["one", "two"]);
        sweep(&own);
        assert_eq!(names(), ["one", "two"]);
        assert!(!own.checkpoints().join("three.partial").exists());
    }

    #[test]
    fn a_name_is_made_of_the_time() {
        let name = after_the_time("2026-11-28T09:05:07Z".parse().unwrap()).unwrap();
        assert_eq!(name.as_str(), "20261128-090507");
    }
}
