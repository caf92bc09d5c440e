//! The primitives of `hostd/src/sync.rs`, in the same words, made of shuttle's: each step
//! on one of them is a place where another thread or task may go on. `Notify` and `watch`
//! do what tokio's documentation says of its own, as far as hostd uses it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// `tokio::sync::Notify`.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Notices>);

#[derive(Debug, Default)]
struct Notices {
    /// One that nobody waited for.
    permit: bool,
    /// How often all were told.
    rounds: u64,
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
    /// Those whose turn has come.
    told: Vec<u64>,
}

/// Whoever was made before `notify_waiters` is told by it, even if not polled yet.
#[derive(Debug)]
pub(crate) struct Notified<'a> {
    of: &'a Notify,
    round: u64,
    number: Option<u64>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified {
            of: self,
            round: self.notices().rounds,
            number: None,
        }
    }

    pub(crate) fn notify_one(&self) {
        let mut notices = self.notices();
        match notices.waiting.pop_front() {
            Some((number, waker)) => {
                notices.told.push(number);
                waker.wake();
            }
            None => notices.permit = true,
        }
    }

    pub(crate) fn notify_waiters(&self) {
        let mut notices = self.notices();
        notices.rounds += 1;
        notices
            .waiting
            .drain(..)
            .for_each(|(_, waker)| waker.wake());
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut notices = self.of.notices();
        let is_told = notices
            .told
            .iter()
            .position(|told| Some(*told) == self.number);
        if notices.rounds != self.round {
            return Poll::Ready(());
        }
        if let Some(at) = is_told {
            notices.told.swap_remove(at);
            return Poll::Ready(());
        }
        if std::mem::take(&mut notices.permit) {
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or(notices.next);
        notices.next = notices.next.max(number + 1);
        notices.waiting.retain(|(waiting, _)| *waiting != number);
        notices.waiting.push_back((number, context.waker().clone()));
        drop(notices);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let mut notices = self.of.notices();
        notices
            .waiting
            .retain(|(waiting, _)| Some(*waiting) != self.number);
        let told = notices
            .told
            .iter()
            .position(|told| Some(*told) == self.number);
        if let Some(at) = told {
            notices.told.swap_remove(at);
            drop(notices);
            // It was told and did not hear of it: the next one is.
            self.of.notify_one();
        }
    }
}

/// `tokio::sync::watch`.
pub(crate) mod watch {
    use std::ops::Deref;
    use std::sync::{Arc, PoisonError};

    use shuttle::sync::{RwLock, RwLockReadGuard};

    use super::Notify;

    #[derive(Debug)]
    struct Shared<T> {
        value: RwLock<(T, bool)>,
        changed: Notify,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    /// The sender is gone.
    #[derive(Debug)]
    pub(crate) struct Closed;

    /// What is lent, and locked.
    #[derive(Debug)]
    pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, (T, bool)>);

    pub(crate) fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new((first, true)),
            changed: Notify::new(),
        });
        (Sender(shared.clone()), Receiver(shared))
    }

    impl<T> Sender<T> {
        pub(crate) fn send_replace(&self, value: T) {
            self.change(|shown| shown.0 = value);
        }

        fn change(&self, change: impl FnOnce(&mut (T, bool))) {
            change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
            self.0.changed.notify_waiters();
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.change(|shown| shown.1 = false);
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            Ref(self.0.value.read().unwrap_or_else(PoisonError::into_inner))
        }

        pub(crate) async fn wait_for(
            &mut self,
            mut is_so: impl FnMut(&T) -> bool,
        ) -> Result<Ref<'_, T>, Closed> {
            loop {
                let changed = self.0.changed.notified();
                let lent = self.borrow();
                if is_so(&lent) {
                    return Ok(lent);
                }
                if !lent.0.1 {
                    return Err(Closed);
                }
                drop(lent);
                changed.await;
            }
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Deref for Ref<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0.0
        }
    }
}
