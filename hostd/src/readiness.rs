//! Whether hostd does its work: asked by probes (`/readyz`), and by the watchdog of systemd
//! for as long as it runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dyno_api::host::{Readiness, ReadinessCheck};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::durable::{NO_INODES, chain, is_out_of_inodes};
use crate::host::Host;

/// Longer than a round of repairs takes on a machine that is as busy as can be.
const LATE: Duration = Duration::from_secs(60);
/// How long the disk may take to have what was written: others write to it, too.
const SYNC: Duration = Duration::from_secs(10);
/// How long one part may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The last sign of life of the loop that looks after all dynos.
#[derive(Debug)]
pub struct Pulse {
    last: Mutex<Instant>,
    /// A disk that hangs holds one thread, however often it is asked about.
    disk: Arc<Semaphore>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
            disk: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Pulse {
    /// A round is done.
    pub fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// Everything that has to be so for hostd to be given work.
pub async fn examine(host: &Arc<Host>) -> Readiness {
    let recovered = match host.ready.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("dynos of an earlier hostd are being taken up".to_owned()),
    };
    let checks = vec![
        check("recovery", recovered),
        check("supervisors", supervisors(host).await),
        check("disk", disk(host).await),
    ];
    Readiness {
        ready: checks.iter().all(|check| check.ok),
        checks,
    }
}

fn check(name: &str, outcome: Result<(), String>) -> ReadinessCheck {
    ReadinessCheck {
        name: name.to_owned(),
        ok: outcome.is_ok(),
        reason: outcome.err(),
    }
}

/// Whether supervisors are there and can be reached: the loop that looks after all of them
/// goes round, blocking work is done, and nobody keeps the registry.
///
/// # Errors
/// What is not so, in a sentence.
pub async fn supervisors(host: &Arc<Host>) -> Result<(), String> {
    let age = host.pulse.age();
    if age > LATE {
        return Err(format!(
            "the network was last looked after {} s ago",
            age.as_secs()
        ));
    }
    let shared = host.clone();
    let look = spawn_blocking(move || {
        let handles = shared.registry().handles();
        let ended = handles.iter().find(|handle| !handle.is_open());
        ended.map(|handle| handle.look(|dyno| dyno.name.to_string()))
    });
    match timeout(ANSWER, look).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(name))) => Err(format!("dyno {name} has no supervisor")),
        Ok(Err(error)) => Err(format!("dynos cannot be looked up: {error}")),
        Err(_) => Err(format!(
            "dynos could not be looked up within {} s",
            ANSWER.as_secs()
        )),
    }
}

async fn disk(host: &Arc<Host>) -> Result<(), String> {
    let folder = host.paths.state_dir.clone();
    let turn = timeout(ANSWER, host.pulse.disk.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err("the disk of the state folder has not answered yet".to_owned());
    };
    let written = spawn_blocking(move || {
        let written = write(&folder).map_err(|error| match is_out_of_inodes(&folder, &error) {
            true => format!("{}: {NO_INODES}", chain(&error)),
            false => chain(&error),
        });
        drop(turn);
        written
    });
    match timeout(SYNC, written).await {
        Ok(Ok(written)) => {
            written.map_err(|error| format!("the state folder cannot be written: {error}"))
        }
        Ok(Err(error)) => Err(format!("the state folder cannot be written: {error}")),
        Err(_) => Err(format!(
            "the disk of the state folder did not answer within {} s",
            SYNC.as_secs()
        )),
    }
}

/// A record's worth of bytes, which are gone again afterwards. They are waited for: a disk
/// that fails is no hindrance to what stays in memory.
fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join("readyz.probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_data()
    });
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_look_at_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(write(&folder.path().join("missing")).is_err());
    }
}
