//! How much may be in flight, in all and for one client (P15).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool of permits of which one client can hold only a part.
#[derive(Debug)]
pub(super) struct Limits {
    total: u32,
    per_client: u32,
    free: Arc<Semaphore>,
    held: RefCell<HashMap<IpAddr, u32>>,
}

/// One place in the pool, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Rc<Limits>,
    client: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new(total: u32, per_client: u32) -> Rc<Self> {
        let free = Arc::new(Semaphore::new(total as usize));
        Rc::new(Self {
            total,
            per_client,
            free,
            held: RefCell::default(),
        })
    }

    /// A place for `client`, or `None` when it or everybody has enough.
    pub(super) fn enter(self: &Rc<Self>, client: IpAddr) -> Option<Permit> {
        let mut held = self.held.borrow_mut();
        let count = held.get(&client).copied().unwrap_or(0);
        if count >= self.per_client {
            return None;
        }
        let place = Arc::clone(&self.free).try_acquire_owned().ok()?;
        held.insert(client, count + 1);
        Some(Permit {
            limits: Rc::clone(self),
            client,
            _place: place,
        })
    }

    /// Waits until nobody holds a place; nobody gets one any more.
    pub(super) async fn drained(&self) {
        // Fails only where the pool was drained before.
        if let Ok(all) = self.free.acquire_many(self.total).await {
            all.forget();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.limits.held.borrow_mut();
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_the_places_of_others() {
        let limits = Limits::new(3, 2);
        let [greedy, modest] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let first = limits.enter(greedy).unwrap();
        let _second = limits.enter(greedy).unwrap();
        assert!(limits.enter(greedy).is_none());
        let _third = limits.enter(modest).unwrap();
        assert!(limits.enter(modest).is_none(), "the pool itself is empty");
        drop(first);
        assert!(limits.enter(greedy).is_some());
    }

    #[tokio::test]
    async fn draining_waits_for_what_is_in_flight() {
        let limits = Limits::new(2, 2);
        let permit = limits.enter(IpAddr::from([10, 0, 0, 1])).unwrap();
        let mut drained = std::pin::pin!(limits.drained());
        assert!(futures_poll(drained.as_mut()).await.is_pending());
        drop(permit);
        drained.await;
        assert!(limits.enter(IpAddr::from([10, 0, 0, 1])).is_none());
    }

    async fn futures_poll(
        mut future: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> std::task::Poll<()> {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
    }
}
