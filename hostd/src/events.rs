//! What happened on this host: numbered, kept for a while, broadcast.
//!
//! Numbers grow across restarts of hostd without a disk access per event:
//! they are reserved in blocks, and a restart begins a new block.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dyno_api::event::{Event, What};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::durable::{self, DurableError, Survives};

/// Numbers that one write reserves.
const BLOCK: u64 = 10_000;
/// Events that are kept for those who ask later.
const KEPT: usize = 1000;
/// Events that a slow listener may be behind before it loses some.
const BEHIND: usize = 1024;

/// The events of this host.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    history: Mutex<History>,
    live: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct History {
    next: u64,
    reserved: u64,
    kept: VecDeque<Event>,
}

impl Events {
    /// Goes on after the numbers that were reserved in this file.
    ///
    /// # Errors
    /// [`DurableError`] when the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, DurableError> {
        let reserved = durable::read_json::<u64>(path)?.unwrap_or(0);
        let (live, _) = broadcast::channel(BEHIND);
        let history = History {
            next: reserved + 1,
            reserved,
            kept: VecDeque::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            history: Mutex::new(history),
            live,
        })
    }

    /// Tells everyone.
    pub fn emit(&self, what: What) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.next > history.reserved {
            history.reserved = history.next + BLOCK;
            if let Err(error) =
                durable::write_json(&self.path, &history.reserved, Survives::PowerCut)
            {
                tracing::error!(error = %durable::chain(&error), "event numbers may be used again after a restart");
            }
        }
        let event = Event {
            sequence: history.next,
            time: Timestamp::now(),
            what,
        };
        history.next += 1;
        if history.kept.len() == KEPT {
            history.kept.pop_front();
        }
        history.kept.push_back(event.clone());
        // Sent under the lock, so that listeners see the order of the numbers;
        // an error only says that nobody listens.
        self.live
            .send(event)
            .map_or_else(|_| tracing::trace!("nobody listens"), |_| ());
    }

    /// The kept events after `since` (none without it) and those to come.
    pub fn subscribe(&self, since: Option<u64>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let past = since.map_or_else(Vec::new, |since| {
            history
                .kept
                .iter()
                .filter(|event| event.sequence > since)
                .cloned()
                .collect()
        });
        (past, self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(reference: &str) -> What {
        What::ImageRemoved {
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn numbers_grow_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence.json");
        let mut last = 0;
        for _ in 0..3 {
            let events = Events::open(&path).unwrap();
            let (_, mut live) = events.subscribe(None);
            for _ in 0..3 {
                events.emit(removed("a"));
                let event = live.try_recv().unwrap();
                assert!(event.sequence > last);
                last = event.sequence;
            }
        }
    }

    #[test]
    fn nothing_falls_between_past_and_future() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::open(&folder.path().join("sequence.json")).unwrap();
        events.emit(removed("a"));
        let (first, _) = events.subscribe(Some(0));
        events.emit(removed("b"));
        let (past, mut live) = events.subscribe(Some(first[0].sequence));
        events.emit(removed("c"));
        assert_eq!(past.len(), 1);
        assert_eq!(past[0].what, removed("b"));
        assert_eq!(live.try_recv().unwrap().what, removed("c"));
        assert!(events.subscribe(None).0.is_empty());
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::open(&folder.path().join("sequence.json")).unwrap();
        for _ in 0..KEPT + 5 {
            events.emit(removed("a"));
        }
        assert_eq!(events.subscribe(Some(0)).0.len(), KEPT);
    }
}
