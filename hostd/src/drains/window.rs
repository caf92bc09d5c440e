//! What was written to a receiver that does not answer, and may not have arrived.
//!
//! A batch counts as arrived when the peer's kernel has acknowledged all of its bytes, and
//! its connection has stood for a while since, or carried much more: a receiver that ends
//! takes what it had not read with it. Pure: of the time it is told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::batch::Batch;

/// Bytes of acknowledged batches that are kept to be sent again. The send buffer holds the
/// others, so there are no more than that again.
pub(super) const MOST: usize = 1 << 20;
/// How long they are kept.
pub(super) const KEPT: Duration = Duration::from_secs(12);

/// A batch, and where it ends among the bytes of this connection, once it was written.
#[derive(Debug)]
struct Written {
    batch: Batch,
    end: Option<(u64, Instant)>,
}

/// The latest batches, oldest first: those that were written to this connection, and then
/// those that were not.
#[derive(Debug, Default)]
pub(super) struct Window {
    batches: VecDeque<Written>,
    bytes: usize,
}

impl Window {
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch.payload.len();
        self.batches.push_back(Written { batch, end: None });
    }

    /// To be sent before all others.
    pub(super) fn push_first(&mut self, batch: Batch) {
        self.bytes += batch.payload.len();
        self.batches.push_front(Written { batch, end: None });
    }

    /// The oldest one.
    pub(super) fn first(&self) -> Option<&Batch> {
        self.batches.front().map(|written| &written.batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// There is a new connection: nothing was written to it.
    pub(super) fn connected(&mut self) {
        for written in &mut self.batches {
            written.end = None;
        }
    }

    /// What is to be written next.
    pub(super) fn unwritten(&self) -> Option<Bytes> {
        let unwritten = self.batches.iter().find(|written| written.end.is_none())?;
        Some(unwritten.batch.payload.clone())
    }

    /// That was written, and ends after so many bytes of the connection.
    pub(super) fn wrote(&mut self, end: u64, now: Instant) {
        let mut batches = self.batches.iter_mut();
        if let Some(written) = batches.find(|written| written.end.is_none()) {
            written.end = Some((end, now));
        }
    }

    /// The oldest one, where it has arrived: so many bytes were acknowledged.
    pub(super) fn arrived(&mut self, acknowledged: u64, now: Instant) -> Option<Batch> {
        let oldest = self.batches.front()?;
        let (end, written) = oldest.end?;
        let after = self.bytes - oldest.batch.payload.len();
        let was_kept = now.duration_since(written) >= KEPT || after >= MOST;
        (end <= acknowledged && was_kept)
            .then(|| self.pop())
            .flatten()
    }

    /// Whether all of them were acknowledged with so many bytes.
    pub(super) fn is_acknowledged(&self, acknowledged: u64) -> bool {
        let mut ends = self.batches.iter().map(|written| written.end);
        ends.all(|end| end.is_some_and(|(end, _)| end <= acknowledged))
    }

    /// Takes the oldest one.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let Written { batch, .. } = self.batches.pop_front()?;
        self.bytes -= batch.payload.len();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests;
    use super::*;

    fn batch(number: u8) -> Batch {
        tests::batch(&[(number, &"x".repeat(MOST / 2))])
    }

    fn number(batch: Option<Batch>) -> u64 {
        batch.unwrap().parts[0].after.offset
    }

    #[test]
    fn what_is_acknowledged_and_was_kept_has_arrived() {
        let mut window = Window::default();
        let now = Instant::now();
        for number in 1..=3 {
            window.push(batch(number));
            assert!(window.unwritten().is_some() && !window.is_acknowledged(u64::MAX));
            window.wrote(u64::from(number) * 100, now);
        }
        assert!(window.unwritten().is_none());
        // Neither age nor what came after it tells that it was acknowledged.
        assert!(window.arrived(99, now + KEPT * 100).is_none());
        assert_eq!(number(window.arrived(100, now)), 1);
        assert!(window.arrived(300, now).is_none(), "it is kept");
        let later = now + KEPT;
        assert!(window.arrived(199, later).is_none());
        assert_eq!(number(window.arrived(299, later)), 2);
        assert!(!window.is_acknowledged(299) && window.is_acknowledged(300));
        assert_eq!(number(window.arrived(300, later)), 3);
        assert!(window.arrived(300, later).is_none() && window.is_empty());
        assert_eq!(window.bytes, 0);
    }

    #[test]
    fn a_new_connection_is_written_all_of_it_again() {
        let mut window = Window::default();
        let now = Instant::now();
        window.push(batch(1));
        window.push(batch(2));
        window.wrote(100, now);
        window.connected();
        assert!(window.arrived(u64::MAX, now + KEPT).is_none());
        window.wrote(50, now);
        window.wrote(90, now);
        assert!(window.unwritten().is_none() && window.is_acknowledged(90));
    }
}
