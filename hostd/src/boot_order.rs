//! Who comes first when a host starts its dynos: the most important, then the
//! oldest. A few are started at a time, in this order.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::desired::Record;

/// Starts at a time for each processor: a start waits for the kernel, too.
const PER_CPU: usize = 2;

/// A dyno's turn: it comes when the permit does, and ends with it.
pub type Turn = oneshot::Receiver<OwnedSemaphorePermit>;

/// Gives turns in the order of the calls.
#[derive(Debug)]
pub struct Turns {
    waiting: Vec<oneshot::Sender<OwnedSemaphorePermit>>,
}

impl Turns {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self {
            waiting: Vec::new(),
        }
    }

    /// One more waits: its turn.
    pub fn wait(&mut self) -> Turn {
        let (give, turn) = oneshot::channel();
        self.waiting.push(give);
        turn
    }

    /// Begins to give them, on a machine with so many processors.
    pub fn begin(self, cpus: usize) {
        let permits = Arc::new(Semaphore::new(cpus.max(1) * PER_CPU));
        tokio::spawn(async move {
            for give in self.waiting {
                let Ok(permit) = permits.clone().acquire_owned().await else {
                    return;
                };
                // Who does not wait any more gives it back by that.
                drop(give.send(permit));
            }
        });
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

/// What records are sorted by.
pub fn rank(record: &Record) -> impl Ord + use<> {
    let importance = std::cmp::Reverse(record.spec.priority);
    (importance, record.created, record.id.clone())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::desired::tests::record;

    #[test]
    fn the_most_important_come_first_then_the_oldest() {
        let made = |id: u8, priority: i32, second: i64| {
            let mut record = record(id);
            record.spec.priority = priority;
            record.created = Timestamp::from_second(second).unwrap();
            record
        };
        let mut records = [made(1, 0, 5), made(2, 10, 9), made(3, 0, 1), made(4, -1, 0)];
        records.sort_by_key(rank);
        let ids = records.map(|record| record.id);
        assert_eq!(ids, [2, 3, 1, 4].map(|id| record(id).id));
    }

    #[tokio::test]
    async fn turns_come_in_order_a_few_at_a_time() {
        let mut turns = Turns::new();
        let [first, second, gone, mut fourth] = std::array::from_fn(|_| turns.wait());
        drop(gone);
        turns.begin(1);
        let (first, _second) = (first.await.unwrap(), second.await.unwrap());
        assert!(fourth.try_recv().is_err());
        drop(first);
        assert!(fourth.await.is_ok());
    }
}
