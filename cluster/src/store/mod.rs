//! The store: what a cluster knows, as values under keys.
//!
//! One trait with two implementations, [`embedded`] for one host and [`etcd`] for
//! several, held to the same promises by one suite of tests:
//!
//! - **Revisions.** Each transaction that changes something makes the next revision of
//!   the whole store. Every answer says of which revision it is; a reader may ask for
//!   one that is at least as new as a change it has seen.
//! - **Every write is a compare-and-swap.** A key is created where there is none, or
//!   replaced or deleted at the revision that the writer has seen. So a change whose
//!   outcome is not known ([`Error::Uncertain`]) can be looked up, and sent again
//!   without harm.
//! - **Watches** tell each change after a revision, in order and once. Etcd has broken
//!   that more than once: [`mirror`] does not rely on it.
//! - **Leases** end unless they are kept alive, and the keys that hang on them with them.
//!
//! Keys and values are bytes; what is read is parsed like anything that comes from the
//! network (a peer may be hostile).

pub mod embedded;
pub mod etcd;
pub mod mirror;
mod transaction;
mod watch;

pub use transaction::{Change, Expect, Is, Transaction};
pub use watch::{Batch, Event, Source, Watch};

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// Bytes of a key at most.
pub const KEY_MAX: usize = 1024;
/// Bytes of a value at most.
pub const VALUE_MAX: usize = 256 * 1024;
/// Bytes of a transaction's keys and values at most; etcd takes requests of 1.5 MiB.
pub const TRANSACTION_MAX: usize = 1024 * 1024;
/// Keys that a transaction names at most; etcd's `--max-txn-ops` is 128.
pub const KEYS_MAX: usize = 100;

/// How often a store has been changed.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's name, never that of another lease of the same store.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease that was granted or kept alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lasts from now on. The store may give more than was asked for.
    pub ttl: Duration,
}

/// A key with its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that changed it last.
    pub modified: Revision,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
}

/// What was read, and when that was so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read<T> {
    /// The store's revision. It says nothing about when the value was changed.
    pub revision: Revision,
    /// What was asked for.
    pub value: T,
}

/// How new an answer must be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fresh {
    /// As new as any change that was acknowledged to anybody before.
    #[default]
    Latest,
    /// At least of this revision; whoever answers need not ask the others.
    AtLeast(Revision),
}

/// What became of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is done, and outlives a power cut.
    Committed {
        /// The store's revision; that of its changes if there are any.
        revision: Revision,
    },
    /// Nothing was done: something was not as expected.
    Conflict {
        /// The store's revision.
        revision: Revision,
        /// What there is now, in the order of [`Transaction::expects`].
        found: Vec<Option<Entry>>,
    },
}

/// What a store says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// Its revision.
    pub revision: Revision,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of them in use.
    pub used: u64,
    /// What it is in need of, in words; empty when all is well.
    pub alarms: Vec<String>,
}

/// Why a store has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was done; it may be later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It may have been done or not, or be done yet.
    #[error("whether the store has done it is not known: {0}")]
    Uncertain(String),
    /// The changes that were asked for are forgotten.
    #[error("the store has forgotten changes before revision {first}")]
    Compacted {
        /// The first revision that is known.
        first: Revision,
    },
    /// There is no such lease, or it has ended.
    #[error("lease {0} has ended")]
    NoLease(LeaseId),
    /// It is larger than any request may be, or not one that can be made.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// There is no room for further changes; deletions may still be done.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store does not let us.
    #[error("the store refuses: {0}")]
    Denied(String),
    /// What the store holds or says cannot be.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// What stores answer.
pub type Result<T> = std::result::Result<T, Error>;

/// A store of a cluster.
///
/// Every call ends within seconds, with an error where it must. A future that is
/// dropped may have done its change.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Reads one key.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Denied`], as all that follow.
    async fn get(&self, key: &[u8], fresh: Fresh) -> Result<Read<Option<Entry>>>;

    /// Reads all keys that begin so, in their order, as they were at one moment.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn list(&self, prefix: &[u8], fresh: Fresh) -> Result<Read<Vec<Entry>>>;

    /// Does all changes of a transaction, or none.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Full`], [`Error::NoLease`]: nothing was done;
    /// [`Error::Uncertain`].
    async fn commit(&self, transaction: &Transaction) -> Result<Outcome>;

    /// Tells the changes after a revision of all keys that begin so.
    ///
    /// # Errors
    /// As [`Store::get`]; what ends it later comes from [`Watch::next`].
    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watch>;

    /// Makes a lease.
    ///
    /// # Errors
    /// As [`Store::commit`].
    async fn grant(&self, ttl: Duration) -> Result<Lease>;

    /// Lets a lease last its whole time from now on.
    ///
    /// # Errors
    /// [`Error::NoLease`].
    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease>;

    /// Ends a lease, and deletes the keys that hang on it.
    ///
    /// # Errors
    /// [`Error::NoLease`], and as [`Store::commit`].
    async fn revoke(&self, lease: LeaseId) -> Result<()>;

    /// Forgets the changes before this revision, and gives their room free. What is
    /// there stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a revision that is not there yet.
    async fn compact(&self, first: Revision) -> Result<()>;

    /// How it is.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn status(&self) -> Result<Status>;
}
