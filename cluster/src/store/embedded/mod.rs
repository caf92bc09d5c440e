//! The store of one host: a file on its disk.
//!
//! ```text
//!  commit ──▶ writer   one thread: what waits is done in one transaction of the file,
//!             │        each on top of the one before, with one fsync for all
//!             ▼
//!  get, list ─▶ redb   entries, log of changes, leases
//!  watch ─────▶        reads the log from where it is; told of each new revision
//!  keep_alive ▶ clock  in memory: at the next start every lease has its whole time again,
//!                      as with etcd after an election
//! ```
//!
//! The log keeps the last [`KEPT`] revisions; whoever has missed more reads everything
//! anew, as after a compaction.

mod clock;
mod tables;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use self::clock::Clock;
use self::tables::{Reader, damaged};
use self::writer::{Command, Writer};
use super::transaction::check_key;
use super::{
    Batch, Entry, Error, Fresh, Lease, LeaseId, Outcome, Read, Result, Revision, Source, Status,
    Store, Transaction, Watch,
};

/// How many revisions can be watched from, beside the newest.
pub const KEPT: u64 = 10_000;

/// Bytes of the file that are held in memory.
const CACHE: usize = 8 << 20;
/// Changes that wait to be done; who comes then waits, too.
const QUEUE: usize = 256;
/// Leases end no sooner than this, as with etcd.
const TTL_MIN: Duration = Duration::from_secs(2);
/// The kernel gives a killed process' lock free a moment after the process is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// A file of at least so many bytes, of which half are unused, is written anew at a start.
const WORTH_SHRINKING: u64 = 16 << 20;

/// A store in a file.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<Db>,
    commands: mpsc::Sender<Command>,
    clock: Arc<Clock>,
    expirer: tokio::task::JoinHandle<()>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.expirer.abort();
    }
}

impl Embedded {
    /// Opens the store in this file, or makes it. Its folder must be there. To be called
    /// in a runtime of tokio's.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be opened, [`Error::Damaged`] when it is no
    /// store, or one of a later version.
    pub fn open(path: &Path) -> Result<Self> {
        let db = Db::open(path)?;
        let (revision, leases) = {
            let reader = db.reader()?;
            (reader.revision()?, reader.leases()?)
        };
        let clock = Arc::new(Clock::default());
        for (lease, ttl) in leases {
            clock.start(lease, ttl);
        }
        let db = Arc::new(db.at(revision));
        let (commands, waiting) = mpsc::channel(QUEUE);
        Writer::spawn(Arc::clone(&db), Arc::clone(&clock), waiting)?;
        let expirer = tokio::spawn(expire(Arc::clone(&clock), commands.clone()));
        Ok(Self {
            file: db,
            commands,
            clock,
            expirer,
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let closed = || Error::Unavailable("its writer has ended".into());
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_closed| closed())?;
        answer.await.map_err(|_closed| closed())?
    }

    async fn read<T: Send + 'static>(
        &self,
        fresh: Fresh,
        read: impl FnOnce(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<Read<T>> {
        let db = Arc::clone(&self.file);
        let answer = blocking(move || {
            let reader = db.reader()?;
            Ok(Read {
                revision: reader.revision()?,
                value: read(&reader)?,
            })
        });
        let answer = answer.await?;
        match fresh {
            Fresh::AtLeast(revision) if revision > answer.revision => Err(behind(revision)),
            _ => Ok(answer),
        }
    }
}

fn behind(revision: Revision) -> Error {
    Error::Unavailable(format!("revision {revision} has not come yet"))
}

type Reply<T> = oneshot::Sender<Result<T>>;

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(damaged(error)))
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8], fresh: Fresh) -> Result<Read<Option<Entry>>> {
        check_key(key)?;
        let key = key.to_vec();
        self.read(fresh, move |reader| reader.entry(&key)).await
    }

    async fn list(&self, prefix: &[u8], fresh: Fresh) -> Result<Read<Vec<Entry>>> {
        let prefix = prefix.to_vec();
        self.read(fresh, move |reader| reader.entries(&prefix))
            .await
    }

    async fn commit(&self, transaction: &Transaction) -> Result<Outcome> {
        transaction.check()?;
        let transaction = transaction.clone();
        self.ask(|reply| Command::Commit(transaction, reply)).await
    }

    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watch> {
        let changed = self.file.revision.subscribe();
        let first = self.read(Fresh::Latest, Reader::first).await?.value;
        let follower = Follower {
            db: Arc::clone(&self.file),
            prefix: prefix.to_vec(),
            after,
            changed,
        };
        if after.0 + 1 < first.0 {
            return Err(Error::Compacted { first });
        }
        Ok(Watch::new(follower))
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let ttl = ttl.max(TTL_MIN);
        let id = self.ask(|reply| Command::Grant(ttl, reply)).await?;
        Ok(Lease { id, ttl })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease> {
        let ttl = self.clock.restart(lease).ok_or(Error::NoLease(lease))?;
        Ok(Lease { id: lease, ttl })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Command::Revoke(lease, reply)).await
    }

    async fn compact(&self, first: Revision) -> Result<()> {
        self.ask(|reply| Command::Compact(first, reply)).await
    }

    async fn status(&self) -> Result<Status> {
        self.ask(Command::Status).await
    }
}

/// Ends leases whose time is over; tries again where the disk did not let it.
async fn expire(clock: Arc<Clock>, commands: mpsc::Sender<Command>) {
    let mut over: Vec<LeaseId> = Vec::new();
    loop {
        let more = clock.over(over.is_empty());
        tokio::select! {
            more = more => over.extend(more),
            () = tokio::time::sleep(Duration::from_secs(1)), if !over.is_empty() => {}
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Expire(over.clone(), reply);
        if commands.send(command).await.is_err() {
            return;
        }
        match answer.await {
            Ok(Ok(())) => over.clear(),
            Ok(Err(error)) => tracing::warn!(%error, "leases whose time is over are not ended"),
            Err(_closed) => return,
        }
    }
}

/// The changes of some keys, read from the log.
struct Follower {
    db: Arc<Db>,
    prefix: Vec<u8>,
    after: Revision,
    changed: watch::Receiver<Revision>,
}

#[async_trait]
impl Source for Follower {
    async fn next(&mut self) -> Result<Batch> {
        let after = self.after;
        let newer = self.changed.wait_for(|revision| *revision > after).await;
        newer.map_err(|_closed| Error::Unavailable("it was closed".into()))?;
        let (db, prefix) = (Arc::clone(&self.db), self.prefix.clone());
        let batch = blocking(move || db.reader()?.changes(&prefix, after)).await?;
        self.after = batch.revision;
        Ok(batch)
    }
}

/// The file. It is opened anew after an error, as redb wants it.
struct Db {
    path: PathBuf,
    open: RwLock<Arc<Database>>,
    revision: watch::Sender<Revision>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Db {
    fn open(path: &Path) -> Result<Self> {
        let mut database = open_file(path)?;
        tables::prepare(&database)?;
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if length > WORTH_SHRINKING && tables::stored(&database)? < length / 2 {
            // What it is not smaller by is no loss.
            database.compact().ok();
        }
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Arc::new(database)),
            revision: watch::Sender::new(Revision(0)),
        })
    }

    fn at(self, revision: Revision) -> Self {
        self.revision.send_replace(revision);
        self
    }

    fn database(&self) -> Arc<Database> {
        Arc::clone(&self.open.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reader(&self) -> Result<Reader> {
        Reader::new(self.database().begin_read().map_err(damaged)?)
    }

    /// Closes the file and opens it again. Readers that are under way end first.
    fn reopen(&self) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // The lock of the former must be gone: something else takes its place.
        let nothing = Database::builder().create_with_backend(InMemoryBackend::new());
        *open = Arc::new(nothing.map_err(damaged)?);
        *open = Arc::new(open_file(&self.path)?);
        drop(open);
        // What was said not to be known may be there.
        let revision = self.reader()?.revision()?;
        self.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
        Ok(())
    }
}

fn open_file(path: &Path) -> Result<Database> {
    let unavailable =
        |error: &dyn std::fmt::Display| Error::Unavailable(format!("{}: {error}", path.display()));
    let begun = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(path);
        let file = file.map_err(|error| unavailable(&error))?;
        sync_folder(path).map_err(|error| unavailable(&error))?;
        let opened = Database::builder()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(FileBackend::new(file).map_err(damaged)?);
        match opened {
            Err(DatabaseError::DatabaseAlreadyOpen) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error @ DatabaseError::DatabaseAlreadyOpen) => return Err(unavailable(&error)),
            Err(DatabaseError::Storage(error)) => return Err(tables::storage(error)),
            opened => return opened.map_err(damaged),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
