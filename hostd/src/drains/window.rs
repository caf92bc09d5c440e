//! What was written to a receiver that does not acknowledge, and may not have arrived.
//!
//! A connection's send buffer is bounded, so what was written before the last
//! [`MOST`] bytes has left it, which the kernel does only when the peer's has it. What is
//! older than [`AGED`] has, too: a connection on which nothing is acknowledged for less than
//! that breaks off.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reader::Batch;

/// Bytes that are kept to be sent again: twice the send buffer.
pub(super) const MOST: usize = 1 << 20;
/// What was written so long ago has arrived, or the connection is gone.
pub(super) const AGED: Duration = Duration::from_secs(12);

/// The latest batches, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window {
    batches: VecDeque<(Instant, Batch)>,
    bytes: usize,
}

impl Window {
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch.payload.len();
        self.batches.push_back((Instant::now(), batch));
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// It is sent again: it is as old as that.
    pub(super) fn sent_again(&mut self) {
        let now = Instant::now();
        for (sent, _) in &mut self.batches {
            *sent = now;
        }
    }

    /// The oldest one that has arrived.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Batch> {
        let (sent, oldest) = self.batches.front()?;
        let after = self.bytes - oldest.payload.len();
        let is_aged = now.duration_since(*sent) >= AGED;
        (is_aged || after >= MOST).then(|| self.pop()).flatten()
    }

    /// The oldest one.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let (_, batch) = self.batches.pop_front()?;
        self.bytes -= batch.payload.len();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_send_buffer_or_is_old_has_arrived() {
        let batch = |lines| Batch {
            payload: vec![0; MOST / 2].into(),
            lines,
            after: Vec::new(),
        };
        let mut window = Window::default();
        let now = Instant::now();
        window.push(batch(1));
        window.push(batch(2));
        assert!(window.arrived(now).is_none());
        window.push(batch(3));
        assert_eq!(window.arrived(now).unwrap().lines, 1);
        assert!(window.arrived(now).is_none());
        let later = Instant::now() + AGED;
        assert_eq!(window.arrived(later).unwrap().lines, 2);
        assert_eq!(window.arrived(later).unwrap().lines, 3);
        assert!(window.arrived(later).is_none() && window.is_empty());
        assert_eq!(window.bytes, 0);
    }
}
