//! Who does something to a volume: one at a time, and no dyno is started on it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;

/// What is being done to the volumes of a host.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Arc<Mutex<Busy>>);

#[derive(Debug, Default)]
struct Busy {
    volumes: BTreeSet<DynoName>,
    /// Snapshots by volume and name, and how many read them.
    read: BTreeMap<(DynoName, DynoName), usize>,
}

/// A volume that nothing else is done to as long as this is kept.
#[derive(Debug)]
pub(super) struct Claim {
    name: DynoName,
    claims: Claims,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().volumes.remove(&self.name);
    }
}

/// A snapshot that is not removed as long as this is kept. Its volume is not claimed:
/// whoever reads may take his time.
#[derive(Debug)]
pub(super) struct Reading {
    snapshot: (DynoName, DynoName),
    claims: Claims,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut busy = self.claims.lock();
        if let Some(readers) = busy.read.get_mut(&self.snapshot) {
            *readers -= 1;
            if *readers == 0 {
                busy.read.remove(&self.snapshot);
            }
        }
    }
}

/// Nobody claims a volume as long as this is kept.
#[derive(Debug)]
pub(super) struct Closed<'a>(MutexGuard<'a, Busy>);

impl Closed<'_> {
    /// # Errors
    /// Conflict where the volume is claimed.
    pub(super) fn must_be_free(&self, name: &DynoName) -> Result<(), ApiError> {
        match self.0.volumes.contains(name) {
            true => Err(in_work(name)),
            false => Ok(()),
        }
    }
}

impl Claims {
    /// Claims a volume, which may be missing.
    ///
    /// # Errors
    /// Conflict where somebody else has.
    pub(super) fn claim(&self, name: &DynoName) -> Result<Claim, ApiError> {
        match self.lock().volumes.insert(name.clone()) {
            false => Err(in_work(name)),
            true => Ok(Claim {
                name: name.clone(),
                claims: self.clone(),
            }),
        }
    }

    /// Keeps a snapshot from being removed.
    ///
    /// # Errors
    /// Conflict where its volume is claimed.
    pub(super) fn read(&self, volume: &DynoName, snapshot: &DynoName) -> Result<Reading, ApiError> {
        let mut busy = self.lock();
        if busy.volumes.contains(volume) {
            return Err(in_work(volume));
        }
        let snapshot = (volume.clone(), snapshot.clone());
        *busy.read.entry(snapshot.clone()).or_default() += 1;
        Ok(Reading {
            snapshot,
            claims: self.clone(),
        })
    }

    /// To be asked by who has claimed the volume: nobody begins to read then.
    ///
    /// # Errors
    /// Conflict where this snapshot, or any of the volume's, is read.
    pub(super) fn must_not_be_read(
        &self,
        volume: &DynoName,
        wanted: Option<&DynoName>,
    ) -> Result<(), ApiError> {
        let busy = self.lock();
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

    /// Keeps everybody from claiming anything. For what is quick.
    pub(super) fn close(&self) -> Closed<'_> {
        Closed(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Busy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_work(name: &DynoName) -> ApiError {
    ApiError::new(
        ErrorKind::Conflict,
        format!("volume {name} is being copied or changed"),
    )
    .hint("try again when that is done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_snapshot_keeps_nothing_but_its_removal_waiting() {
        let claims = Claims::default();
        let [name, one, two] = ["db", "one", "two"].map(|name| name.parse().unwrap());
        let readers = [&one, &one].map(|one| claims.read(&name, one).unwrap());
        claims.close().must_be_free(&name).unwrap();
        let claim = claims.claim(&name).unwrap();
        assert!(claims.close().must_be_free(&name).is_err());
        assert!(claims.read(&name, &two).is_err());
        for reader in readers {
            assert!(claims.must_not_be_read(&name, Some(&one)).is_err());
            assert!(claims.must_not_be_read(&name, None).is_err());
            assert!(claims.must_not_be_read(&name, Some(&two)).is_ok());
            drop(reader);
        }
        claims.must_not_be_read(&name, None).unwrap();
        drop(claim);
        claims.read(&name, &two).unwrap();
    }
}
