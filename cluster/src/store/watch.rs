//! Watches: the changes of a store, as they come.

use std::fmt;

use async_trait::async_trait;

use super::{Entry, Result, Revision};

/// One change of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// It was made or changed; its revision is [`Entry::modified`].
    Put(Entry),
    /// It was removed, or its lease has ended.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// The revision that removed it.
        revision: Revision,
    },
}

impl Event {
    /// The key that was changed.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision that changed it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// The changes of one or more revisions, each whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// All changes up to this revision have been told.
    pub revision: Revision,
    /// The changes, in their order; none where there is only word of the revision.
    pub events: Vec<Event>,
}

/// Where the changes come from.
#[async_trait]
pub trait Source: Send {
    /// The next ones. May be dropped and called again without loss.
    async fn next(&mut self) -> Result<Batch>;
}

/// The changes of some keys after a revision. Whoever does not take them holds up
/// nobody: they wait in the store, until they are forgotten there.
pub struct Watch(Box<dyn Source>);

impl Watch {
    /// One that tells what this source has.
    #[must_use]
    pub fn new(source: impl Source + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next changes. May be dropped and called again without loss. After
    /// an error there are no more.
    ///
    /// # Errors
    /// [`Error::Compacted`](super::Error::Compacted) where some are forgotten,
    /// [`Error::Unavailable`](super::Error::Unavailable) where none come any more.
    pub async fn next(&mut self) -> Result<Batch> {
        self.0.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
