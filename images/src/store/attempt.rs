//! What a load, import or pull brings into the store before its record makes it an image.

use std::sync::Arc;

use super::{Inner, Pin};
use crate::digest::{Digest, LayerId};

/// What becomes of new blobs when the attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The next try goes on from them: they came over a network.
    KeepBlobs,
    /// Whoever tries again has them at hand.
    RemoveBlobs,
}

/// Pins what is worked on. Dropped without [`Attempt::succeed`], it removes the blobs that were
/// not there before if [`OnFailure`] says so. Complete layers stay until the next collection,
/// which alone knows what dynos use.
#[derive(Debug)]
pub(crate) struct Attempt {
    store: Arc<Inner>,
    on_failure: OnFailure,
    pins: Vec<Pin>,
    new: Vec<Digest>,
}

impl Attempt {
    pub(crate) fn new(store: &Arc<Inner>, on_failure: OnFailure) -> Attempt {
        Attempt {
            store: store.clone(),
            on_failure,
            pins: Vec::new(),
            new: Vec::new(),
        }
    }

    /// Pins a blob; to be called before it is looked for or made.
    pub(crate) fn pin(&mut self, blob: Digest) {
        self.pins.push(self.store.pin(blob));
        if !self.store.blob_path(&blob).exists() {
            self.new.push(blob);
        }
    }

    /// Pins a layer.
    pub(crate) fn pin_layer(&mut self, layer: LayerId) {
        self.pins.push(self.store.pin(layer.0));
    }

    /// The record is written: from here on it keeps what it names.
    pub(crate) fn succeed(mut self) {
        self.new.clear();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.pins.clear();
        if self.on_failure == OnFailure::RemoveBlobs
            && let Err(error) = self.store.withdraw(&self.new)
        {
            // The failure itself is on its way to the caller.
            tracing::warn!(%error, "blobs of a failed import stay until the next collection");
        }
    }
}
