//! Compresses what monitors have rotated.
//!
//! ```text
//! log.00000006 ──▶ log.00000006.gz.next ── fsync, rename ──▶ log.00000006.gz
//!      └──────────────── removed once that is there ◀───────────┘
//! ```
//!
//! At each point of a crash one form of the file is whole and found, and two are
//! never read both: `folder` says which. Monitors remove old files meanwhile, in
//! either form; they need no compression for their limits.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dyno_api::name::DynoId;
use dyno_runtime::monitor::log::folder::{self, Part};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::host::Host;

/// Between two looks at all logs.
const LOOK: Duration = Duration::from_secs(1);

/// A folder that was changed less long ago may have changed again unnoticed: its
/// time has the granularity of the kernel's ticks.
const SETTLED: Duration = Duration::from_secs(3);

/// Compresses as long as hostd runs, one file at a time.
pub async fn run(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    loop {
        ticks.tick().await;
        let ids: Vec<DynoId> = host
            .registry()
            .handles()
            .iter()
            .map(|handle| handle.dyno().id)
            .collect();
        let (shared, before) = (host.clone(), seen);
        let looked = tokio::task::spawn_blocking(move || look(&shared, &ids, &before)).await;
        seen = looked.unwrap_or_else(|error| {
            tracing::error!(%error, "logs are not compressed");
            HashMap::new()
        });
    }
}

/// When each folder had last changed.
type Seen = HashMap<DynoId, SystemTime>;

fn look(host: &Host, ids: &[DynoId], before: &Seen) -> Seen {
    let mut seen = Seen::new();
    for id in ids {
        let paths = host.paths.dyno(id);
        // It may be gone by now.
        let Ok(changed) = fs::metadata(&paths.state).and_then(|meta| meta.modified()) else {
            continue;
        };
        let is_old = changed.elapsed().is_ok_and(|age| age > SETTLED);
        if !(is_old && before.get(id) == Some(&changed))
            && let Err(error) = rotated(&paths.log())
        {
            tracing::debug!(dyno = %id, %error, "its log stays as it is for now");
        }
        seen.insert(id.clone(), changed);
    }
    seen
}

/// Compresses the files of the log at `path` that nothing more is written to.
///
/// # Errors
/// What the file system says; each line is still found then.
pub fn rotated(path: &Path) -> io::Result<()> {
    let files = folder::list(path)?;
    // Of a file that was removed before an earlier hostd was through with it.
    for left in folder::half_done(path)? {
        remove(&left)?;
    }
    // The last one is being written.
    let done = files.split_last().map_or(&[][..], |(_, done)| done);
    for file in done {
        let Part::Numbered(number) = file.part else {
            continue;
        };
        if !file.plain {
            continue;
        }
        if !file.compressed {
            compress(path, number)?;
        }
        remove(&folder::plain(path, file.part))?;
    }
    Ok(())
}

fn compress(path: &Path, number: u64) -> io::Result<()> {
    let half = folder::half_compressed(path, number);
    let written = write(&folder::plain(path, Part::Numbered(number)), &half);
    let placed = written.and_then(|()| fs::rename(&half, folder::compressed(path, number)));
    if placed.is_err() {
        remove(&half)?;
        return placed;
    }
    // The name must be on the disk before the other one goes.
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn write(from: &Path, to: &Path) -> io::Result<()> {
    let mut plain = File::open(from)?;
    let meta = plain.metadata()?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    io::copy(&mut plain, &mut encoder)?;
    let file = encoder.finish()?;
    // Its age goes by its last line.
    file.set_modified(meta.modified()?)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
