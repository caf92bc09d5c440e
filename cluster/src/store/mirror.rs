//! A copy of some keys in memory that follows the store.
//!
//! ```text
//!  list ──▶ the whole, at a revision ─┐
//!  watch ─▶ changes after it ─────────┴▶ Mirror ──▶ whoever follows
//!  list again, every 30 s at most: watches lie
//! ```
//!
//! Etcd has dropped, doubled and reordered what it told watches. So a change counts by
//! its own revision, not by when it arrives: an older one than what is known of its key
//! is passed over, deletions included. What never arrives is found by the next list,
//! and counted ([`Mirror::repaired`]). A list is the truth: nothing was told before it
//! that it does not hold, unless the store was put back to an older state
//! ([`Mirror::went_back`]).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Batch, Entry, Error, Event, Fresh, Read, Result, Revision, Store};

/// How long a copy may go without a look at the whole.
pub const RELIST: Duration = Duration::from_secs(30);
/// Before the store is asked again after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// A copy of some keys.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// That of the last list.
    base: Revision,
    revision: Revision,
    entries: BTreeMap<Vec<u8>, Arc<Entry>>,
    /// Keys that were deleted since the last list, and when: an older change of one may
    /// arrive yet.
    deleted: BTreeMap<Vec<u8>, Revision>,
    repaired: u64,
    went_back: u64,
}

impl Mirror {
    /// Everything up to this revision is in it, as far as the store has told.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// One key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).map(AsRef::as_ref)
    }

    /// All keys that begin so, in their order.
    pub fn list<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Entry> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let from = self.entries.range::<[u8], _>(from);
        let begins = move |(key, _): &(&Vec<u8>, &Arc<Entry>)| key.starts_with(prefix);
        from.take_while(begins).map(|(_, entry)| entry.as_ref())
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys were found by a list to be other than the watch had told.
    #[must_use]
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// How often the store was found at an older revision than it had told of: it was
    /// restored from a backup.
    #[must_use]
    pub fn went_back(&self) -> u64 {
        self.went_back
    }

    /// Takes changes over.
    pub fn apply(&mut self, batch: Batch) {
        for event in batch.events {
            if event.revision() <= self.known(event.key()) {
                continue;
            }
            match event {
                Event::Put(entry) => {
                    self.deleted.remove(&entry.key);
                    self.entries.insert(entry.key.clone(), Arc::new(entry));
                }
                Event::Delete { key, revision } => {
                    self.entries.remove(&key);
                    self.deleted.insert(key, revision);
                }
            }
        }
        self.revision = self.revision.max(batch.revision);
    }

    /// Up to when all is known of a key.
    fn known(&self, key: &[u8]) -> Revision {
        let there = self.entries.get(key).map(|entry| entry.modified);
        let last = there.max(self.deleted.get(key).copied());
        last.map_or(self.base, |last| last.max(self.base))
    }

    /// Takes the whole over, read after all that was told.
    pub fn replace(&mut self, list: Read<Vec<Entry>>) {
        let (told, now) = (self.revision, list.revision);
        let mut before = std::mem::take(&mut self.entries);
        let mut missed = 0;
        for entry in list.value {
            let known = before.remove(&entry.key);
            let same = known.is_some_and(|known| *known == entry);
            if !same && entry.modified <= told {
                missed += 1;
            }
            self.entries.insert(entry.key.clone(), Arc::new(entry));
        }
        if now == told {
            missed += before.len();
        }
        if now < told {
            self.went_back += 1;
        } else {
            self.repaired += u64::try_from(missed).unwrap_or(u64::MAX);
        }
        self.deleted.clear();
        self.base = now;
        self.revision = now;
    }
}

/// Follows the store until nobody looks any more, whatever errors there are; they are
/// logged, and the copy stays as it was meanwhile. `None` until there is a first one.
#[must_use]
pub fn follow(
    store: Arc<dyn Store>,
    prefix: impl Into<Vec<u8>>,
    relist: Duration,
) -> watch::Receiver<Option<Arc<Mirror>>> {
    let prefix = prefix.into();
    let (seen, look) = watch::channel(None);
    tokio::spawn(async move {
        let mut mirror = Mirror::default();
        while !seen.is_closed() {
            let followed = tokio::select! {
                followed = follow_once(&*store, &prefix, relist, &mut mirror, &seen) => followed,
                () = seen.closed() => return,
            };
            match followed {
                Ok(()) | Err(Error::Compacted { .. }) => {}
                Err(error) => {
                    let prefix = String::from_utf8_lossy(&prefix).into_owned();
                    tracing::warn!(%error, prefix, "changes of the store cannot be followed");
                    sleep(PAUSE).await;
                }
            }
        }
    });
    look
}

type Seen = watch::Sender<Option<Arc<Mirror>>>;

/// From one look at the whole to the time for the next.
async fn follow_once(
    store: &dyn Store,
    prefix: &[u8],
    relist: Duration,
    mirror: &mut Mirror,
    seen: &Seen,
) -> Result<()> {
    let show = |mirror: &Mirror| drop(seen.send_replace(Some(Arc::new(mirror.clone()))));
    let list = store.list(prefix, Fresh::Latest).await?;
    let after = list.revision;
    let until = Instant::now() + relist;
    mirror.replace(list);
    show(mirror);
    let mut changes = store.watch(prefix, after).await?;
    while let Ok(batch) = timeout_at(until, changes.next()).await {
        mirror.apply(batch?);
        show(mirror);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u8, modified: u64) -> Entry {
        Entry {
            key: vec![key],
            value: modified.to_be_bytes().to_vec(),
            created: Revision(1),
            modified: Revision(modified),
            lease: None,
        }
    }

    fn event(key: u8, revision: u64, put: bool) -> Event {
        match put {
            true => Event::Put(entry(key, revision)),
            false => Event::Delete {
                key: vec![key],
                revision: Revision(revision),
            },
        }
    }

    /// What a list at the end says.
    fn truth(events: &[Event]) -> Read<Vec<Entry>> {
        let mut all = BTreeMap::new();
        for event in events {
            match event {
                Event::Put(entry) => drop(all.insert(entry.key.clone(), entry.clone())),
                Event::Delete { key, .. } => drop(all.remove(key)),
            }
        }
        Read {
            revision: events.last().map_or(Revision(0), Event::revision),
            value: all.into_values().collect(),
        }
    }

    fn shown(mirror: &Mirror) -> Vec<Entry> {
        mirror.list(b"").cloned().collect()
    }

    proptest! {
        /// Doubled and reordered, all that was told is enough.
        #[test]
        fn what_comes_twice_or_in_another_order_is_the_same(
            changes in prop::collection::vec((0_u8..6, any::<bool>()), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let events: Vec<Event> = (2..).zip(&changes)
                .map(|(revision, (key, put))| event(*key, revision, *put)).collect();
            let mut told: Vec<Event> = order.iter().map(|at| at.get(&events).clone()).collect();
            told.extend(events.iter().rev().cloned());
            let mut mirror = Mirror::default();
            for event in told {
                mirror.apply(Batch { revision: event.revision(), events: vec![event] });
            }
            let truth = truth(&events);
            prop_assert_eq!(shown(&mirror), truth.value);
            prop_assert_eq!(mirror.revision(), truth.revision);
        }

        /// Whatever was dropped, the next list has it right, and what comes late is not
        /// taken for new.
        #[test]
        fn what_never_came_is_found_by_the_next_list(
            changes in prop::collection::vec((0_u8..6, any::<bool>(), any::<bool>()), 1..40),
            late in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let events: Vec<Event> = (2..).zip(&changes)
                .map(|(revision, (key, put, _))| event(*key, revision, *put)).collect();
            let mut mirror = Mirror::default();
            for (event, (_, _, dropped)) in events.iter().zip(&changes) {
                if !dropped {
                    mirror.apply(Batch { revision: event.revision(), events: vec![event.clone()] });
                }
            }
            mirror.replace(truth(&events));
            for late in late {
                let event = late.get(&events).clone();
                mirror.apply(Batch { revision: event.revision(), events: vec![event] });
            }
            prop_assert_eq!(shown(&mirror), truth(&events).value);
        }
    }

    #[test]
    fn a_store_that_went_back_is_followed_back() {
        let mut mirror = Mirror::default();
        mirror.replace(Read {
            revision: Revision(9),
            value: vec![entry(1, 2), entry(2, 9)],
        });
        mirror.replace(Read {
            revision: Revision(4),
            value: vec![entry(1, 2), entry(3, 4)],
        });
        assert_eq!(shown(&mirror), [entry(1, 2), entry(3, 4)]);
        assert_eq!((mirror.went_back(), mirror.repaired()), (1, 0));
        mirror.apply(Batch {
            revision: Revision(5),
            events: vec![event(1, 5, false)],
        });
        assert_eq!(shown(&mirror), [entry(3, 4)]);
    }

    #[test]
    fn what_a_watch_has_kept_back_is_counted() {
        let mut mirror = Mirror::default();
        mirror.replace(Read {
            revision: Revision(3),
            value: vec![entry(1, 2), entry(2, 3)],
        });
        assert_eq!(mirror.repaired(), 0);
        // Nothing was said of 4, which made a key and deleted another.
        mirror.apply(Batch {
            revision: Revision(5),
            events: vec![event(4, 5, true)],
        });
        mirror.replace(Read {
            revision: Revision(5),
            value: vec![entry(2, 3), entry(3, 4), entry(4, 5)],
        });
        assert_eq!(mirror.repaired(), 2);
        assert_eq!(mirror.len(), 3);
    }
}
