//! The trace of one operation that is being done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dyno_api::audit::{AuditEntry, AuditState};
use dyno_api::error::ErrorKind;
use dyno_api::name::DynoId;

use super::bounded;
use super::writer::Writer;

/// The trace of one operation. Whoever works for it has one; when the last of them lets go,
/// it has ended, and the line that says how is written.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Open>);

#[derive(Debug)]
struct Open {
    writer: Arc<Writer>,
    begin: Instant,
    entry: Mutex<AuditEntry>,
}

impl Trail {
    pub(super) fn new(writer: Arc<Writer>, entry: AuditEntry) -> Self {
        Self(Arc::new(Open {
            writer,
            begin: Instant::now(),
            entry: Mutex::new(entry),
        }))
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.0.entry().id
    }

    /// It goes on beyond its answer, which waits for the line of its begin: the disk has it
    /// from now on.
    pub fn goes_on(&self) {
        self.0.writer.sync();
    }

    /// It is done to this: what was made, or what the request's body names.
    pub fn target(&self, name: &str) {
        self.0.entry().target = Some(bounded(name));
    }

    /// The dyno that it is done to.
    pub fn dyno(&self, id: DynoId) {
        self.0.entry().dyno = Some(id);
    }

    /// It has failed, after its answer was begun.
    pub fn failed(&self, error: ErrorKind) {
        self.0.entry().error = Some(error);
    }

    /// It is about to be answered so, which ends it unless somebody still works for it. Comes
    /// back once what there is of it would survive a power cut.
    pub async fn answered(self, status: u16, error: Option<ErrorKind>) {
        {
            let mut entry = self.0.entry();
            entry.status = Some(status);
            entry.error = error.or(entry.error);
        }
        let writer = self.0.writer.clone();
        drop(self);
        writer.synced().await;
    }
}

impl Open {
    fn entry(&self) -> MutexGuard<'_, AuditEntry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let took = self.begin.elapsed().as_micros();
        let entry = self.entry.get_mut();
        let entry = entry.unwrap_or_else(PoisonError::into_inner);
        entry.took_us = Some(u64::try_from(took).unwrap_or(u64::MAX));
        entry.state = match entry.status {
            Some(_) => AuditState::Done,
            // Whoever did it has given up without an answer.
            None => AuditState::Unknown,
        };
        self.writer.end(entry);
        // Nobody waits for the end of a stream, but it does not wait for long either.
        self.writer.sync();
    }
}
