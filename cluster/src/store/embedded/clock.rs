//! When leases end. Kept in memory alone: a store that was away gives each its whole
//! time again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::store::LeaseId;

/// The leases that have not ended.
#[derive(Debug, Default)]
pub(super) struct Clock {
    running: Mutex<HashMap<LeaseId, Running>>,
    sooner: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    ttl: Duration,
    end: Instant,
}

impl Clock {
    fn running(&self) -> MutexGuard<'_, HashMap<LeaseId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new lease.
    pub(super) fn start(&self, lease: LeaseId, ttl: Duration) {
        let end = Instant::now() + ttl;
        self.running().insert(lease, Running { ttl, end });
        self.sooner.notify_one();
    }

    /// Gives a lease its time again; `None` if it has ended.
    pub(super) fn restart(&self, lease: LeaseId) -> Option<Duration> {
        self.restart_at(lease, Instant::now())
    }

    fn restart_at(&self, lease: LeaseId, now: Instant) -> Option<Duration> {
        let mut running = self.running();
        let Running { ttl, end } = running.get_mut(&lease)?;
        if *end <= now {
            // The others have been told, or will be in a moment.
            return None;
        }
        *end = now + *ttl;
        Some(*ttl)
    }

    /// A lease that was ended by its holder. Whether it was there.
    pub(super) fn stop(&self, lease: LeaseId) -> bool {
        self.running().remove(&lease).is_some()
    }

    /// Whether it has not ended.
    pub(super) fn runs(&self, lease: LeaseId) -> bool {
        let running = self.running();
        running
            .get(&lease)
            .is_some_and(|lease| lease.end > Instant::now())
    }

    /// Takes those out whose time is over; waits for one if there is none, and that is
    /// wanted.
    pub(super) async fn over(&self, wait: bool) -> Vec<LeaseId> {
        loop {
            let (over, next) = self.take_over(Instant::now());
            if !over.is_empty() {
                return over;
            }
            if !wait {
                return std::future::pending().await;
            }
            match next {
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        () = self.sooner.notified() => {}
                    }
                }
                None => self.sooner.notified().await,
            }
        }
    }

    /// Those whose time is over, and when the next one's is.
    fn take_over(&self, now: Instant) -> (Vec<LeaseId>, Option<Instant>) {
        let mut running = self.running();
        let over = running.iter().filter(|(_, lease)| lease.end <= now);
        let over: Vec<LeaseId> = over.map(|(id, _)| *id).collect();
        for id in &over {
            running.remove(id);
        }
        let next = running.values().map(|lease| lease.end).min();
        (over, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_unless_it_is_kept_alive() {
        let clock = Clock::default();
        let (a, b) = (LeaseId(1), LeaseId(2));
        let begun = Instant::now();
        let seconds = Duration::from_secs;
        clock.start(a, seconds(40));
        clock.start(b, seconds(60));
        assert_eq!(clock.take_over(begun + seconds(30)).0, []);
        assert_eq!(clock.restart_at(a, begun + seconds(30)), Some(seconds(40)));
        let (over, next) = clock.take_over(begun + seconds(65));
        assert_eq!((over, next), (vec![b], Some(begun + seconds(70))));
        assert_eq!(clock.restart_at(b, begun + seconds(65)), None);
        assert!(clock.runs(a) && !clock.runs(b));
        // It has ended before anybody has said so.
        assert_eq!(clock.restart_at(a, begun + seconds(71)), None);
        assert_eq!(clock.take_over(begun + seconds(71)).0, [a]);
        assert!(!clock.stop(a));
    }

    #[tokio::test]
    async fn a_shorter_lease_that_comes_later_ends_first() {
        let clock = std::sync::Arc::new(Clock::default());
        clock.start(LeaseId(1), Duration::from_secs(600));
        let waiting = tokio::spawn({
            let clock = std::sync::Arc::clone(&clock);
            async move { clock.over(true).await }
        });
        tokio::task::yield_now().await;
        clock.start(LeaseId(2), Duration::from_millis(50));
        assert_eq!(waiting.await.unwrap(), [LeaseId(2)]);
    }
}
