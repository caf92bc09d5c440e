//! What is in the file.
//!
//! ```text
//!  numbers   name              → number      format, revision, first (known), lease (last)
//!  entries   key               → created, modified, lease, value
//!  log       revision, number  → key, created (0: deleted), lease, value
//!  leases    lease             → milliseconds
//!  held      lease, key        →
//! ```
//! Lease 0 is none.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, Table, TableDefinition,
    TableError, WriteTransaction,
};

use super::KEPT;
use crate::store::transaction::end_of;
use crate::store::{
    Batch, Change, Entry, Error, Event, Is, LeaseId, Outcome, Result, Revision, Transaction,
};

type Bytes = &'static [u8];

const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const ENTRIES: TableDefinition<'_, Bytes, (u64, u64, u64, Bytes)> = TableDefinition::new("entries");
const LOG: TableDefinition<'_, (u64, u32), (Bytes, u64, u64, Bytes)> = TableDefinition::new("log");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const HELD: TableDefinition<'_, (u64, Bytes), ()> = TableDefinition::new("held");

/// How the tables are laid out.
const FORMAT: u64 = 1;

/// Events that are read from the log at once, beside those of the last revision.
const BATCH: usize = 1000;
/// How often the log is cut, in revisions.
const CUT_EVERY: u64 = 100;

pub(super) fn damaged(error: impl Display) -> Error {
    Error::Damaged(error.to_string())
}

/// What became of an operation of the file's.
pub(super) fn storage(error: StorageError) -> Error {
    match &error {
        StorageError::Io(cause) => match cause.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Error::Full(error.to_string()),
            io::ErrorKind::InvalidData => damaged(error),
            _ => Error::Unavailable(error.to_string()),
        },
        StorageError::PreviousIo | StorageError::DatabaseClosed => {
            Error::Unavailable(error.to_string())
        }
        _ => damaged(error),
    }
}

fn table(error: TableError) -> Error {
    match error {
        TableError::Storage(error) => storage(error),
        other => damaged(other),
    }
}

/// Makes the tables where there are none.
pub(super) fn prepare(database: &Database) -> Result<()> {
    let transaction = database.begin_write().map_err(damaged)?;
    {
        let mut numbers = transaction.open_table(NUMBERS).map_err(table)?;
        let format = numbers
            .get("format")
            .map_err(storage)?
            .map(|format| format.value());
        match format {
            None => {
                numbers.insert("format", FORMAT).map_err(storage)?;
                numbers.insert("first", 1).map_err(storage)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                let words = format!("it has format {other}, which a later version has made");
                return Err(Error::Damaged(words));
            }
        }
        transaction.open_table(ENTRIES).map_err(table)?;
        transaction.open_table(LOG).map_err(table)?;
        transaction.open_table(LEASES).map_err(table)?;
        transaction.open_table(HELD).map_err(table)?;
    }
    transaction.commit().map_err(damaged)
}

/// Bytes in use.
pub(super) fn stored(database: &Database) -> Result<u64> {
    let transaction = database.begin_write().map_err(damaged)?;
    let stats = transaction.stats().map_err(storage)?;
    transaction.abort().map_err(storage)?;
    Ok(stats.stored_bytes() + stats.metadata_bytes())
}

fn lease(number: u64) -> Option<LeaseId> {
    (number != 0).then_some(LeaseId(number))
}

/// One moment of the file.
pub(super) struct Reader {
    numbers: ReadOnlyTable<&'static str, u64>,
    entries: ReadOnlyTable<Bytes, (u64, u64, u64, Bytes)>,
    log: ReadOnlyTable<(u64, u32), (Bytes, u64, u64, Bytes)>,
    leases: ReadOnlyTable<u64, u64>,
}

impl Reader {
    #[expect(clippy::needless_pass_by_value, reason = "it is used up: one moment's")]
    pub(super) fn new(transaction: ReadTransaction) -> Result<Self> {
        Ok(Self {
            numbers: transaction.open_table(NUMBERS).map_err(table)?,
            entries: transaction.open_table(ENTRIES).map_err(table)?,
            log: transaction.open_table(LOG).map_err(table)?,
            leases: transaction.open_table(LEASES).map_err(table)?,
        })
    }

    pub(super) fn revision(&self) -> Result<Revision> {
        number(&self.numbers, "revision").map(Revision)
    }

    /// The first revision whose changes are known.
    pub(super) fn first(&self) -> Result<Revision> {
        number(&self.numbers, "first").map(Revision)
    }

    pub(super) fn entry(&self, key: &[u8]) -> Result<Option<Entry>> {
        entry(&self.entries, key)
    }

    pub(super) fn entries(&self, prefix: &[u8]) -> Result<Vec<Entry>> {
        let end = end_of(prefix);
        let range = match &end {
            Some(end) => self.entries.range(prefix..end.as_slice()),
            None => self.entries.range(prefix..),
        };
        let entries = range.map_err(storage)?.map(|found| {
            let (key, value) = found.map_err(storage)?;
            let (created, modified, held, value) = value.value();
            Ok(Entry {
                key: key.value().to_vec(),
                value: value.to_vec(),
                created: Revision(created),
                modified: Revision(modified),
                lease: lease(held),
            })
        });
        entries.collect()
    }

    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, Duration)>> {
        let leases = self.leases.iter().map_err(storage)?.map(|found| {
            let (lease, ttl) = found.map_err(storage)?;
            Ok((LeaseId(lease.value()), Duration::from_millis(ttl.value())))
        });
        leases.collect()
    }

    /// Some changes after a revision, of whole revisions.
    pub(super) fn changes(&self, prefix: &[u8], after: Revision) -> Result<Batch> {
        let first = self.first()?;
        if after.0 + 1 < first.0 {
            return Err(Error::Compacted { first });
        }
        let mut batch = Batch {
            revision: self.revision()?,
            events: Vec::new(),
        };
        let mut last = after;
        for found in self.log.range((after.0 + 1, 0)..).map_err(storage)? {
            let (place, change) = found.map_err(storage)?;
            let revision = Revision(place.value().0);
            if revision != last && batch.events.len() >= BATCH {
                batch.revision = last;
                break;
            }
            last = revision;
            let (key, created, held, value) = change.value();
            if !key.starts_with(prefix) {
                continue;
            }
            let key = key.to_vec();
            batch.events.push(match created {
                0 => Event::Delete { key, revision },
                created => Event::Put(Entry {
                    key,
                    value: value.to_vec(),
                    created: Revision(created),
                    modified: revision,
                    lease: lease(held),
                }),
            });
        }
        Ok(batch)
    }
}

fn number(numbers: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64> {
    let found = numbers.get(name).map_err(storage)?;
    Ok(found.map_or(0, |number| number.value()))
}

fn entry(
    entries: &impl ReadableTable<Bytes, (u64, u64, u64, Bytes)>,
    key: &[u8],
) -> Result<Option<Entry>> {
    let found = entries.get(key).map_err(storage)?;
    Ok(found.map(|found| {
        let (created, modified, held, value) = found.value();
        Entry {
            key: key.to_vec(),
            value: value.to_vec(),
            created: Revision(created),
            modified: Revision(modified),
            lease: lease(held),
        }
    }))
}

/// The file while it is changed.
pub(super) struct Tables<'a> {
    numbers: Table<'a, &'static str, u64>,
    entries: Table<'a, Bytes, (u64, u64, u64, Bytes)>,
    log: Table<'a, (u64, u32), (Bytes, u64, u64, Bytes)>,
    leases: Table<'a, u64, u64>,
    held: Table<'a, (u64, Bytes), ()>,
    /// Whether anything was changed.
    pub(super) changed: bool,
}

impl<'a> Tables<'a> {
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            numbers: transaction.open_table(NUMBERS).map_err(table)?,
            entries: transaction.open_table(ENTRIES).map_err(table)?,
            log: transaction.open_table(LOG).map_err(table)?,
            leases: transaction.open_table(LEASES).map_err(table)?,
            held: transaction.open_table(HELD).map_err(table)?,
            changed: false,
        })
    }

    pub(super) fn revision(&self) -> Result<Revision> {
        number(&self.numbers, "revision").map(Revision)
    }

    /// Does a transaction that was checked; `runs` knows which leases have not ended.
    pub(super) fn commit(
        &mut self,
        transaction: &Transaction,
        runs: impl Fn(LeaseId) -> bool,
    ) -> Result<Outcome> {
        let mut found = Vec::with_capacity(transaction.expects().len());
        let mut as_expected = true;
        for expect in transaction.expects() {
            let there = entry(&self.entries, &expect.key)?;
            as_expected &= match (expect.is, &there) {
                (Is::Absent, None) | (Is::Present, Some(_)) => true,
                (Is::At(revision), Some(entry)) => entry.modified == revision,
                _ => false,
            };
            found.push(there);
        }
        let revision = self.revision()?;
        if !as_expected {
            return Ok(Outcome::Conflict { revision, found });
        }
        for change in transaction.changes() {
            if let Change::Put {
                lease: Some(lease), ..
            } = change
                && !runs(*lease)
            {
                return Err(Error::NoLease(*lease));
            }
        }
        if transaction.changes().is_empty() {
            return Ok(Outcome::Committed { revision });
        }
        let revision = self.next_revision()?;
        for (index, change) in (0..).zip(transaction.changes()) {
            match change {
                Change::Put { key, value, lease } => {
                    self.put(revision, index, key, value, *lease)?;
                }
                Change::Delete { key } => self.delete(revision, index, key)?,
            }
        }
        Ok(Outcome::Committed { revision })
    }

    fn next_revision(&mut self) -> Result<Revision> {
        let next = self.revision()?.0 + 1;
        self.changed = true;
        self.numbers.insert("revision", next).map_err(storage)?;
        if next.is_multiple_of(CUT_EVERY) {
            self.forget(Revision(next.saturating_sub(KEPT)))?;
        }
        Ok(Revision(next))
    }

    fn put(
        &mut self,
        revision: Revision,
        index: u32,
        key: &[u8],
        value: &[u8],
        held: Option<LeaseId>,
    ) -> Result<()> {
        let before = entry(&self.entries, key)?;
        let created = before.as_ref().map_or(revision, |before| before.created).0;
        if let Some(LeaseId(lease)) = before.and_then(|before| before.lease) {
            self.held.remove((lease, key)).map_err(storage)?;
        }
        let lease = held.map_or(0, |lease| lease.0);
        if lease != 0 {
            self.held.insert((lease, key), ()).map_err(storage)?;
        }
        self.entries
            .insert(key, (created, revision.0, lease, value))
            .map_err(storage)?;
        self.log
            .insert((revision.0, index), (key, created, lease, value))
            .map_err(storage)?;
        Ok(())
    }

    fn delete(&mut self, revision: Revision, index: u32, key: &[u8]) -> Result<()> {
        if let Some(LeaseId(lease)) = entry(&self.entries, key)?.and_then(|entry| entry.lease) {
            self.held.remove((lease, key)).map_err(storage)?;
        }
        self.entries.remove(key).map_err(storage)?;
        let nothing: &[u8] = &[];
        self.log
            .insert((revision.0, index), (key, 0, 0, nothing))
            .map_err(storage)?;
        Ok(())
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> Result<LeaseId> {
        let id = number(&self.numbers, "lease")? + 1;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.changed = true;
        self.numbers.insert("lease", id).map_err(storage)?;
        self.leases.insert(id, ttl).map_err(storage)?;
        Ok(LeaseId(id))
    }

    /// Ends a lease with all that hangs on it. Whether it was there.
    pub(super) fn end_lease(&mut self, LeaseId(id): LeaseId) -> Result<bool> {
        let there = self.leases.remove(id).map_err(storage)?.is_some();
        if !there {
            return Ok(false);
        }
        self.changed = true;
        let empty: &[u8] = &[];
        let held = self
            .held
            .range((id, empty)..(id + 1, empty))
            .map_err(storage)?;
        let keys: Vec<Vec<u8>> = held
            .map(|found| Ok(found.map_err(storage)?.0.value().1.to_vec()))
            .collect::<Result<_>>()?;
        if !keys.is_empty() {
            let revision = self.next_revision()?;
            for (index, key) in (0..).zip(&keys) {
                self.delete(revision, index, key)?;
            }
        }
        Ok(true)
    }

    /// Forgets the changes before a revision.
    pub(super) fn forget(&mut self, first: Revision) -> Result<()> {
        let revision = self.revision()?;
        if first.0 > revision.0 + 1 {
            return Err(Error::Invalid(format!(
                "revision {first} is not there yet; the last is {revision}"
            )));
        }
        if first.0 <= number(&self.numbers, "first")? {
            return Ok(());
        }
        self.changed = true;
        self.numbers.insert("first", first.0).map_err(storage)?;
        self.log
            .retain_in(..(first.0, 0), |_, _| false)
            .map_err(storage)?;
        Ok(())
    }
}
