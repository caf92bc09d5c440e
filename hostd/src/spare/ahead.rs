//! One of something that takes long to make, made ahead.

use std::sync::PoisonError;

use crate::sync::{Mutex, MutexGuard};

/// Holds one or none.
#[derive(Debug)]
pub(super) struct Ahead<T>(Mutex<Option<T>>);

impl<T> Ahead<T> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The one that there is; nobody else gets it.
    pub(super) fn take(&self) -> Option<T> {
        self.waiting().take()
    }

    /// Makes one where there is none. Who wants one meanwhile waits for it.
    ///
    /// # Errors
    /// Those of `make`; there is none then.
    pub(super) fn refill<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        let mut waiting = self.waiting();
        if waiting.is_none() {
            *waiting = Some(make()?);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
