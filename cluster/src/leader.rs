//! One leader at a time, by a lease.
//!
//! ```text
//!  campaign ─▶ wait until the key is gone ─▶ lease, and the key on it ─▶ Leadership
//!                                                                        │ kept alive
//!  holds()    until the lease's time is over, counted from before it was asked for
//!  fence()    a write is done only while the key is ours
//!  epoch()    a number that grows from leader to leader
//! ```
//!
//! Time alone is not enough: between a look at the clock and the write that relies on it
//! a process may be stopped for minutes. So what a leader writes is [fenced], and what
//! others do in its name carries its epoch, of which they take none older than the
//! newest that they have seen.
//!
//! The deadline is of the clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`).
//!
//! [fenced]: Leadership::fence

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::store::{
    Error, Event, Fresh, Is, Lease, LeaseId, Outcome, Result, Revision, Store, Transaction,
};

/// How often somebody who waits looks again by himself.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Before the store is asked again after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// Who wants to lead, and what.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it is decided.
    pub store: Arc<dyn Store>,
    /// The key of what is led.
    pub key: Vec<u8>,
    /// Under which name.
    pub name: Vec<u8>,
    /// After so long without word of the leader there may be another.
    pub ttl: Duration,
}

/// The right to lead, as long as it [holds](Leadership::holds). Dropped, it ends with
/// its lease; [`Leadership::resign`] gives it back at once.
#[derive(Debug)]
pub struct Leadership {
    candidate: Candidate,
    lease: LeaseId,
    epoch: Revision,
    /// On the clock of [`now`]; zero once it is lost.
    until: watch::Receiver<Duration>,
    keeper: JoinHandle<()>,
}

/// Time since the machine was started, asleep or not.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Candidate {
    /// Waits until it leads.
    ///
    /// # Errors
    /// What will not pass: [`Error::Denied`], [`Error::Invalid`], [`Error::Damaged`]. It
    /// waits for a store that is not available.
    pub async fn campaign(&self) -> Result<Leadership> {
        loop {
            match self.attempt().await {
                Ok(Some(leadership)) => return Ok(leadership),
                Ok(None) => {}
                Err(error @ (Error::Denied(_) | Error::Invalid(_) | Error::Damaged(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot campaign yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Who leads now, and since which epoch.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn leader(&self) -> Result<Option<(Vec<u8>, Revision)>> {
        let read = self.store.get(&self.key, Fresh::Latest).await?;
        Ok(read.value.map(|entry| (entry.value, entry.created)))
    }

    async fn attempt(&self) -> Result<Option<Leadership>> {
        let read = self.store.get(&self.key, Fresh::Latest).await?;
        if read.value.is_some() {
            self.wait(read.revision).await?;
            return Ok(None);
        }
        let asked = now();
        let lease = self.store.grant(self.ttl).await?;
        let claim = Transaction::new().create_with(&*self.key, &*self.name, lease.id);
        let epoch = match self.store.commit(&claim).await {
            Ok(Outcome::Committed { revision }) => revision,
            // It may be done: then the key hangs on this lease.
            Err(Error::Uncertain(_)) => match self.holder(lease.id).await? {
                Some(epoch) => epoch,
                None => return self.give_up(lease.id).await,
            },
            Ok(Outcome::Conflict { .. }) | Err(Error::NoLease(_)) => {
                return self.give_up(lease.id).await;
            }
            Err(error) => return Err(error),
        };
        Ok(Some(self.lead(lease, asked, epoch)))
    }

    async fn holder(&self, lease: LeaseId) -> Result<Option<Revision>> {
        let read = self.store.get(&self.key, Fresh::Latest).await?;
        let ours = read.value.filter(|entry| entry.lease == Some(lease));
        Ok(ours.map(|entry| entry.created))
    }

    async fn give_up(&self, lease: LeaseId) -> Result<Option<Leadership>> {
        // Else it ends by itself.
        self.store.revoke(lease).await.ok();
        Ok(None)
    }

    /// Until the key may be gone.
    async fn wait(&self, after: Revision) -> Result<()> {
        let mut watch = self.store.watch(&self.key, after).await?;
        let gone = async {
            loop {
                let batch = watch.next().await?;
                let ours = |event: &&Event| event.key() == self.key;
                let last = batch.events.iter().rfind(ours);
                if matches!(last, Some(Event::Delete { .. })) {
                    return Ok(());
                }
            }
        };
        timeout(LOOK_AGAIN, gone).await.unwrap_or(Ok(()))
    }

    fn lead(&self, lease: Lease, asked: Duration, epoch: Revision) -> Leadership {
        let (told, until) = watch::channel(asked + lease.ttl);
        let keeper = tokio::spawn(keep(Arc::clone(&self.store), lease, told));
        Leadership {
            candidate: self.clone(),
            lease: lease.id,
            epoch,
            until,
            keeper,
        }
    }
}

/// Keeps a lease alive until it has ended.
async fn keep(store: Arc<dyn Store>, lease: Lease, until: watch::Sender<Duration>) {
    let mut last = now();
    loop {
        let next = (last + lease.ttl / 3).saturating_sub(now());
        sleep(next).await;
        let asked = now();
        let left = until.borrow().saturating_sub(asked);
        let kept = match left {
            Duration::ZERO => Err(Error::NoLease(lease.id)),
            // An answer that comes later than the end is of no use.
            left => match timeout(left, store.keep_alive(lease.id)).await {
                Ok(kept) => kept,
                Err(_late) => Err(Error::NoLease(lease.id)),
            },
        };
        match kept {
            Ok(kept) => {
                last = asked;
                until.send_replace(asked + kept.ttl);
            }
            Err(Error::NoLease(_)) => {
                until.send_replace(Duration::ZERO);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "a lease is not kept alive yet");
                sleep(PAUSE.min(left)).await;
                last = last.saturating_sub(lease.ttl);
            }
        }
    }
}

impl Leadership {
    /// Whether nobody else can lead at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        now() < *self.until.borrow()
    }

    /// Grows from leader to leader of the same key.
    #[must_use]
    pub fn epoch(&self) -> Revision {
        self.epoch
    }

    /// Lets a transaction be done only while this one leads: whatever the clocks say.
    #[must_use]
    pub fn fence(&self, transaction: Transaction) -> Transaction {
        transaction.expect(&*self.candidate.key, Is::At(self.epoch))
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        let mut until = self.until.clone();
        loop {
            let left = until.borrow_and_update().saturating_sub(now());
            if left.is_zero() {
                return;
            }
            if let Ok(Err(_closed)) = timeout(left, until.changed()).await {
                // Its keeper has ended, and it ends with its time.
                sleep(left).await;
            }
        }
    }

    /// Gives it back: the next one leads at once.
    ///
    /// # Errors
    /// As [`Store::revoke`]; then it ends with its lease.
    pub async fn resign(self) -> Result<()> {
        self.keeper.abort();
        match self.candidate.store.revoke(self.lease).await {
            Err(Error::NoLease(_)) => Ok(()),
            revoked => revoked,
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
