//! Who is working on which digest: keeps garbage collection off it, and a second worker waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::digest::Digest;

/// Digests that work in progress needs, each with the lock of whoever makes it.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pinned: Mutex<Pinned>,
}

pub(crate) type Pinned = HashMap<Digest, Arc<AsyncMutex<()>>>;

/// Keeps a digest's blob and layer from being collected while it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    claims: Arc<Claims>,
    digest: Digest,
    turn: Option<Arc<AsyncMutex<()>>>,
}

impl Claims {
    /// Pins first, looks whether the thing exists afterwards: then a collection either saw the
    /// pin or is over.
    pub(crate) fn pin(claims: &Arc<Claims>, digest: Digest) -> Pin {
        let turn = claims.lock().entry(digest).or_default().clone();
        Pin {
            claims: claims.clone(),
            digest,
            turn: Some(turn),
        }
    }

    /// The pinned digests, which stay as they are while the guard lives. Never held across an
    /// await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pin {
    /// Waits until nobody else makes this digest's blob or layer.
    pub(crate) async fn my_turn(&self) -> Option<OwnedMutexGuard<()>> {
        match &self.turn {
            Some(turn) => Some(turn.clone().lock_owned().await),
            None => None,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.claims.lock();
        // Mine goes first, so that one reference left is the map's own.
        self.turn = None;
        if pinned
            .get(&self.digest)
            .is_some_and(|turn| Arc::strong_count(turn) == 1)
        {
            pinned.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_digest_stays_pinned_until_the_last_pin_goes() {
        let claims = Arc::<Claims>::default();
        let digest = Digest::of(b"x");
        let first = Claims::pin(&claims, digest);
        let second = Claims::pin(&claims, digest);
        let turn = first.my_turn().await;
        assert!(second.turn.as_ref().unwrap().try_lock().is_err());
        drop(turn);
        drop(first);
        assert!(claims.lock().contains_key(&digest));
        drop(second);
        assert!(claims.lock().is_empty());
    }
}
