//! The one thread that changes the file.

use std::sync::Arc;
use std::time::Duration;

use redb::{CommitError, StorageError};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::tables::{self, Tables, damaged, storage};
use super::{Db, Reply};
use crate::store::{Error, LeaseId, Outcome, Result, Revision, Status, Transaction};

/// What others want of the writer.
pub(super) enum Command {
    /// As [`Store::commit`](crate::store::Store::commit), and so on.
    Commit(Transaction, Reply<Outcome>),
    Grant(Duration, Reply<LeaseId>),
    Revoke(LeaseId, Reply<()>),
    /// These have ended by the clock.
    Expire(Vec<LeaseId>, Reply<()>),
    Compact(Revision, Reply<()>),
    Status(Reply<Status>),
}

/// Commands that are done with one fsync.
const TOGETHER: usize = 64;

pub(super) struct Writer {
    db: Arc<Db>,
    clock: Arc<Clock>,
}

/// What is done once the changes are on the disk, or are not.
type Answer<'a> = Box<dyn FnOnce(std::result::Result<(), Failed>) + 'a>;

/// Why the changes of several commands are not on the disk.
#[derive(Clone, Copy, Debug)]
enum Failed {
    /// For this reason, and nothing was done.
    Nothing(Kind),
    /// They may be, or not.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Full,
    Other,
}

impl Writer {
    /// Lives as long as somebody may send commands.
    pub(super) fn spawn(
        db: Arc<Db>,
        clock: Arc<Clock>,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<()> {
        let writer = Self { db, clock };
        // The leases' clock is the runtime's, which may be a test's.
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let _entered = runtime.enter();
            while let Some(first) = commands.blocking_recv() {
                let mut together = vec![first];
                while together.len() < TOGETHER
                    && let Ok(next) = commands.try_recv()
                {
                    together.push(next);
                }
                writer.work(together);
            }
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(work);
        thread.map_err(|error| Error::Unavailable(format!("no thread: {error}")))?;
        Ok(())
    }

    fn work(&self, commands: Vec<Command>) {
        let mut answers: Vec<Answer<'_>> = Vec::new();
        let done = self.try_work(commands, &mut answers);
        if done.is_err()
            && let Err(error) = self.db.reopen()
        {
            tracing::error!(%error, "the store cannot be opened again");
        }
        for answer in answers {
            answer(done);
        }
    }

    fn try_work<'a>(
        &'a self,
        commands: Vec<Command>,
        answers: &mut Vec<Answer<'a>>,
    ) -> std::result::Result<(), Failed> {
        let database = self.db.database();
        let transaction = database.begin_write();
        let mut failed = None;
        let mut revision = None;
        if let Ok(transaction) = &transaction {
            match Tables::open(transaction) {
                Ok(mut tables) => {
                    for command in commands {
                        self.take(command, &mut tables, answers, &mut failed);
                    }
                    if failed.is_none() && tables.changed {
                        revision = tables.revision().ok();
                    }
                }
                Err(error) => {
                    failed = Some(kind(&error));
                    commands
                        .into_iter()
                        .for_each(|command| answers.push(later(command)));
                }
            }
        } else {
            failed = Some(Kind::Other);
            commands
                .into_iter()
                .for_each(|command| answers.push(later(command)));
        }
        let (Ok(mut transaction), None) = (transaction, failed) else {
            return Err(Failed::Nothing(failed.unwrap_or(Kind::Other)));
        };
        let Some(revision) = revision else {
            // Nothing was changed. What an abort fails by, the next change meets.
            transaction.abort().ok();
            return Ok(());
        };
        transaction.set_quick_repair(true);
        match transaction.commit() {
            Ok(()) => {
                self.db.revision.send_replace(revision);
                Ok(())
            }
            // It could not even be written.
            Err(CommitError::Storage(StorageError::Io(error)))
                if error.kind() == std::io::ErrorKind::StorageFull =>
            {
                Err(Failed::Nothing(Kind::Full))
            }
            Err(error) => {
                tracing::error!(%error, "a change of the store may not be on the disk");
                Err(Failed::Unknown)
            }
        }
    }

    /// Does one command, after which comes its answer. After a failure of the file none
    /// is done any more.
    fn take<'a>(
        &'a self,
        command: Command,
        tables: &mut Tables<'_>,
        answers: &mut Vec<Answer<'a>>,
        failed: &mut Option<Kind>,
    ) {
        if failed.is_some() {
            answers.push(later(command));
            return;
        }
        let clock = &self.clock;
        match command {
            Command::Commit(transaction, reply) => {
                let done = tables.commit(&transaction, |lease| clock.runs(lease));
                answers.push(answer(done, failed, reply, |_| {}));
            }
            Command::Grant(ttl, reply) => {
                let done = tables.grant(ttl);
                answers.push(answer(done, failed, reply, move |lease| {
                    clock.start(*lease, ttl);
                }));
            }
            Command::Revoke(lease, reply) => {
                let done = match clock.runs(lease) {
                    true => tables.end_lease(lease).map(drop),
                    false => Err(Error::NoLease(lease)),
                };
                answers.push(answer(done, failed, reply, move |()| {
                    clock.stop(lease);
                }));
            }
            Command::Expire(leases, reply) => {
                let mut ended = leases.iter().map(|lease| tables.end_lease(*lease));
                let done = ended.try_for_each(|ended| ended.map(drop));
                answers.push(answer(done, failed, reply, |()| {}));
            }
            Command::Compact(first, reply) => {
                let done = tables.forget(first);
                answers.push(answer(done, failed, reply, |()| {}));
            }
            Command::Status(reply) => {
                let db = &self.db;
                answers.push(Box::new(move |done| {
                    let status = done.map_err(error_of).and_then(|()| status(db));
                    // Who asked may be gone.
                    reply.send(status).ok();
                }));
            }
        }
    }
}

/// The answer to a command, once its changes are on the disk.
fn answer<'a, T: 'a>(
    done: Result<T>,
    failed: &mut Option<Kind>,
    reply: Reply<T>,
    afterwards: impl FnOnce(&T) + 'a,
) -> Answer<'a> {
    if let Err(error @ (Error::Full(_) | Error::Unavailable(_) | Error::Damaged(_))) = &done {
        *failed = Some(kind(error));
    }
    Box::new(move |on_disk| {
        let done = match on_disk {
            Ok(()) => done,
            Err(failure) => done.and(Err(error_of(failure))),
        };
        if let Ok(value) = &done {
            afterwards(value);
        }
        // Who asked may be gone.
        reply.send(done).ok();
    })
}

/// The answer to a command that was not begun.
fn later<'a>(command: Command) -> Answer<'a> {
    fn not<'a, T: 'a>(reply: Reply<T>) -> Answer<'a> {
        Box::new(move |done| {
            let failure = done.err().unwrap_or(Failed::Nothing(Kind::Other));
            // Nothing of this one was done, whatever became of the others.
            let failure = match failure {
                Failed::Unknown => Failed::Nothing(Kind::Other),
                nothing @ Failed::Nothing(_) => nothing,
            };
            reply.send(Err(error_of(failure))).ok();
        })
    }
    match command {
        Command::Commit(_, reply) => not(reply),
        Command::Grant(_, reply) => not(reply),
        Command::Revoke(_, reply) | Command::Expire(_, reply) | Command::Compact(_, reply) => {
            not(reply)
        }
        Command::Status(reply) => not(reply),
    }
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Full(_) => Kind::Full,
        _ => Kind::Other,
    }
}

fn error_of(failed: Failed) -> Error {
    match failed {
        Failed::Nothing(Kind::Full) => Error::Full("no space is left on its disk".into()),
        Failed::Nothing(Kind::Other) => Error::Unavailable("its file cannot be changed".into()),
        Failed::Unknown => Error::Uncertain("its disk failed while it was written".into()),
    }
}

fn status(db: &Db) -> Result<Status> {
    let revision = db.reader()?.revision()?;
    let length = std::fs::metadata(&db.path).map_err(|error| storage(StorageError::Io(error)))?;
    Ok(Status {
        revision,
        bytes: length.len(),
        used: tables::stored(&db.database()).map_err(damaged)?,
        alarms: Vec::new(),
    })
}
