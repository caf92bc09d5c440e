//! The log as a stream, for whoever asks.

use std::collections::VecDeque;
use std::sync::Arc;

use dyno_api::audit::AuditEntry;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::query::AuditQuery;
use tokio::sync::mpsc;

use super::reader::{Reader, Wanted};
use super::segment::End;
use super::{Audit, Trail};
use crate::durable::from_io;
use crate::host::blocking;

/// P15: entries that are held for who asks for the last ones.
const MAX_LAST: usize = 10_000;
/// Entries that a slow reader may leave unread.
const UNREAD: usize = 256;

/// What is asked for, in the order in which it ended; then, where it is asked for, what ends
/// from then on. `own` is the trace of the request itself, which is not told while it runs.
///
/// # Errors
/// Invalid, for more of the last ones than are held; what the file system says.
pub async fn stream(
    audit: Arc<Audit>,
    query: AuditQuery,
    own: Trail,
) -> Result<mpsc::Receiver<AuditEntry>, ApiError> {
    if query.limit.is_some_and(|limit| limit > MAX_LAST) {
        let message = format!("limit is {MAX_LAST} at the most");
        return Err(ApiError::new(ErrorKind::Invalid, message)
            .hint("without a limit, since and until bound what is told"));
    }
    let (to, from) = mpsc::channel(UNREAD);
    let wanted = Wanted {
        except: own.id(),
        query,
    };
    let opened = audit.clone();
    let (limit, follow) = (wanted.query.limit, wanted.query.follow);
    let reader = blocking(move || {
        let end = opened.writer.ends_at();
        let reader = Reader::open(opened.writer.folder(), wanted, end);
        let reader = reader.map_err(|error| from_io("cannot read the audit log", &error));
        Ok((reader?, end))
    });
    let (reader, end) = reader.await?;
    tokio::spawn(async move {
        let telling = Telling { audit, to, own };
        telling.tell(reader, end, limit, follow).await;
    });
    Ok(from)
}

/// Somebody who is told.
struct Telling {
    audit: Arc<Audit>,
    to: mpsc::Sender<AuditEntry>,
    #[expect(dead_code, reason = "the request has not ended while this is there")]
    own: Trail,
}

impl Telling {
    /// Tells what there is, and what comes; `None` where nobody listens any more or the log
    /// cannot be read.
    async fn tell(
        &self,
        mut reader: Reader,
        end: End,
        limit: Option<usize>,
        follow: bool,
    ) -> Option<()> {
        let mut last = VecDeque::new();
        let mut read;
        loop {
            (reader, read) = next(reader, end).await?;
            let Some(told) = read else { break };
            last.extend(told);
            match limit {
                Some(limit) => keep_last(&mut last, limit),
                None => self.send(last.drain(..)).await?,
            }
        }
        if !follow {
            last.extend(reader.running());
            keep_last(&mut last, limit.unwrap_or(usize::MAX));
            return self.send(last.drain(..)).await;
        }
        self.send(last.drain(..)).await?;
        let mut written = self.audit.writer.written();
        loop {
            written.borrow_and_update();
            let end = self.audit.writer.ends_at();
            loop {
                (reader, read) = next(reader, end).await?;
                let Some(told) = read else { break };
                self.send(told).await?;
            }
            tokio::select! {
                written = written.changed() => written.ok()?,
                () = self.to.closed() => return None,
            }
        }
    }

    async fn send(&self, entries: impl IntoIterator<Item = AuditEntry>) -> Option<()> {
        for entry in entries {
            self.to.send(entry).await.ok()?;
        }
        Some(())
    }
}

fn keep_last(entries: &mut VecDeque<AuditEntry>, limit: usize) {
    entries.drain(..entries.len().saturating_sub(limit));
}

/// The next part of the log, and its reader.
async fn next(mut reader: Reader, end: End) -> Option<(Reader, Option<Vec<AuditEntry>>)> {
    let read = blocking(move || {
        let told = reader.next(end);
        let told = told.map_err(|error| from_io("cannot read the audit log", &error))?;
        Ok((reader, told))
    });
    let failed = |error: &ApiError| tracing::warn!(%error, "the audit log was not told to its end");
    read.await.inspect_err(failed).ok()
}
