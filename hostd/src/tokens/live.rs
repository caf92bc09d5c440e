//! A token that hostd knows: its record, when it was used, and whether it is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dyno_api::name::DynoName;
use dyno_api::token::{Scope, Token, TokenId};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::record::Record;
use super::secret::{self, Hash};

/// Between two notes of a use on the disk.
const NOTED: SignedDuration = SignedDuration::from_secs(60);
/// How long a wait for the end looks away: a clock may be set.
const LOOK: Duration = Duration::from_secs(30);

/// P15: connections of one token at a time: a quarter of all, so that no token keeps the
/// others out.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// A token.
#[derive(Debug)]
pub struct Live {
    record: Record,
    last_used: Mutex<LastUsed>,
    revoked: watch::Sender<bool>,
    connections: Arc<Semaphore>,
}

#[derive(Debug)]
struct LastUsed {
    at: Option<Timestamp>,
    /// What is on the disk.
    noted: Option<Timestamp>,
}

impl Live {
    pub(super) fn new(record: Record) -> Self {
        let at = record.last_used;
        Self {
            record,
            last_used: Mutex::new(LastUsed { at, noted: at }),
            revoked: watch::Sender::new(false),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// One that no record has.
    #[cfg(test)]
    pub(crate) fn with(number: u8, scopes: &[Scope], expires: Option<Timestamp>) -> Self {
        let spec = dyno_api::token::TokenSpec {
            name: "test".parse().unwrap(),
            scopes: scopes.iter().copied().collect(),
            expires_in: None,
        };
        let id = TokenId::from_bytes([number; 6]);
        Self::new(Record::new(id, spec, Hash::default(), expires))
    }

    /// Its id.
    pub fn id(&self) -> &TokenId {
        &self.record.id
    }

    /// Its name.
    pub fn name(&self) -> &DynoName {
        &self.record.name
    }

    /// What it is good for.
    pub fn scopes(&self) -> &BTreeSet<Scope> {
        &self.record.scopes
    }

    /// From when it is good for nothing.
    pub fn expires(&self) -> Option<Timestamp> {
        self.record.expires
    }

    /// One connection of those that it may have at a time; `None` where it has all of them.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// As people are shown it.
    pub(super) fn shown(&self) -> Token {
        let record = self.record();
        Token {
            id: record.id,
            name: record.name,
            scopes: record.scopes,
            created: record.created,
            expires: record.expires,
            last_used: record.last_used,
        }
    }

    /// As it is on the disk, or shall be.
    pub(super) fn record(&self) -> Record {
        Record {
            last_used: self.last_used().at,
            ..self.record.clone()
        }
    }

    pub(super) fn has_hash(&self, hash: &Hash) -> bool {
        secret::is_same(&self.record.hash, hash)
    }

    /// Neither revoked nor expired.
    pub fn is_good(&self, now: Timestamp) -> bool {
        !*self.revoked.borrow() && self.record.expires.is_none_or(|expires| now < expires)
    }

    /// It is good for nothing from now on.
    pub(super) fn revoke(&self) {
        self.revoked.send_replace(true);
    }

    /// Notes a use; whether that is to be written down.
    pub(crate) fn used(&self, now: Timestamp) -> bool {
        let mut used = self.last_used();
        used.at = Some(now);
        let is_due = used
            .noted
            .is_none_or(|noted| now.duration_since(noted).abs() >= NOTED);
        if is_due {
            used.noted = Some(now);
        }
        is_due
    }

    /// Comes back once it is good for nothing.
    pub async fn over(&self) {
        let mut revoked = self.revoked.subscribe();
        loop {
            let now = Timestamp::now();
            if !self.is_good(now) {
                return;
            }
            let left = self
                .record
                .expires
                .map(|expires| expires.duration_since(now));
            let left = left.and_then(|left| Duration::try_from(left).ok());
            let look = tokio::time::sleep(left.map_or(LOOK, |left| left.min(LOOK)));
            tokio::select! {
                // The sender is ours: this is no end of it.
                _ = revoked.changed() => {}
                () = look => {}
            }
        }
    }

    fn last_used(&self) -> MutexGuard<'_, LastUsed> {
        self.last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
