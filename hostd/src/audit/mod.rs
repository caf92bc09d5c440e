//! The audit log: who changed what, when, and how it ended.
//!
//! ```text
//!  guard ─ begin ─▶ Trail ──────────────▶ the last one who has it lets go
//!            │        handlers, tasks       │
//!   {"id":7,"state":"running",…}   {"id":7,"state":"done","status":201,…}   fdatasync, answer
//!            └──────────▶ writer ◀──────────┘
//!                           │ lines in segments, see there
//!  GET /v1/audit ◀─ reader ─┘
//! ```
//!
//! The line of the begin is in the page cache before anything is done, so a hostd that was
//! killed has left it. That of the end is on the disk before the answer is sent. A stream
//! (exec, attach, pull, archives) waits for the disk before its answer begins, and has its
//! end when it ends.
//!
//! Where no line can be written, nothing is changed, but by what frees the disk or saves the
//! machine.

mod keeper;
mod line;
mod reader;
mod refusals;
mod segment;
mod stream;
mod trail;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dyno_api::audit::{AuditCaller, AuditEntry, AuditState};
use dyno_api::error::ErrorKind;
use dyno_api::name::DynoId;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use stream::stream;
pub use trail::Trail;
pub use writer::{Counts, Trouble};

use refusals::Refusals;
use writer::Writer;

/// P15: characters of what an operation is done to, as the caller names it.
const MAX_TARGET: usize = 256;
/// P15: operations that go on to their end at a time, whoever went away meanwhile. As many
/// as there can be connections, apart for those from elsewhere: root is not kept out.
const LOCAL: usize = 4096;
const REMOTE: usize = 1024;

/// The audit log of one host.
#[derive(Debug)]
pub struct Audit {
    writer: Arc<Writer>,
    refusals: Refusals,
    local: Arc<Semaphore>,
    remote: Arc<Semaphore>,
}

/// What is known of an operation before it is done.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The request's id.
    pub request: String,
    /// Who asks.
    pub caller: AuditCaller,
    /// The operation's name.
    pub operation: &'static str,
    /// What it is to be done to, as the caller names it.
    pub target: Option<String>,
    /// The dyno that this is.
    pub dyno: Option<DynoId>,
}

impl Audit {
    /// Goes on with the log in this folder, of so many bytes at the most. Where it cannot be
    /// written there is an audit log all the same, in trouble.
    ///
    /// # Errors
    /// Where its thread cannot be started.
    pub fn open(folder: &Path, bytes: u64) -> io::Result<Self> {
        Ok(Self {
            writer: Arc::new(Writer::open(folder, bytes)?),
            refusals: Refusals::new(),
            local: Arc::new(Semaphore::new(LOCAL)),
            remote: Arc::new(Semaphore::new(REMOTE)),
        })
    }

    /// What it has counted.
    pub fn counts(&self) -> &Counts {
        self.writer.counts()
    }

    /// Why it cannot be written, where that is so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.writer.trouble()
    }

    /// Writes down that an operation is about to be done. One that is `urgent` is done where
    /// that cannot be written, too.
    ///
    /// # Errors
    /// [`Trouble`]: it must not be done.
    pub fn begin(&self, asked: Asked, urgent: bool) -> Result<Trail, Trouble> {
        let mut entry = entry(asked);
        self.writer.begin(&mut entry, urgent)?;
        Ok(Trail::new(self.writer.clone(), entry))
    }

    /// Writes down that an operation was not let through, unless its token has had many such.
    /// Nobody waits for the disk: nothing was changed.
    pub fn refused(&self, asked: Asked, error: ErrorKind) {
        if let AuditCaller::Token { token, .. } = &asked.caller
            && !self.refusals.is_within(token, Instant::now())
        {
            return;
        }
        let mut entry = AuditEntry {
            state: AuditState::Done,
            status: Some(error.status()),
            error: Some(error),
            took_us: Some(0),
            ..entry(asked)
        };
        self.writer.note(&mut entry);
    }

    /// A place among the operations that go on to their end.
    pub async fn place(&self, caller: &AuditCaller) -> Option<OwnedSemaphorePermit> {
        let places = match caller {
            AuditCaller::Token { .. } => &self.remote,
            AuditCaller::User { .. } | AuditCaller::Hostd => &self.local,
        };
        // Never closed.
        places.clone().acquire_owned().await.ok()
    }
}

fn entry(asked: Asked) -> AuditEntry {
    AuditEntry {
        id: 0,
        time: Timestamp::now(),
        request: asked.request,
        caller: asked.caller,
        operation: asked.operation.to_owned(),
        target: asked.target.as_deref().map(bounded),
        dyno: asked.dyno,
        state: AuditState::Running,
        status: None,
        error: None,
        took_us: None,
    }
}

/// What a caller wrote, as it can be shown: short, and of visible ASCII.
fn bounded(target: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    target.chars().take(MAX_TARGET).map(plain).collect()
}

#[cfg(test)]
mod tests;
