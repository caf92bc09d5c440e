//! What a pull, load or import tells whoever watches it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One step of one layer. For each layer the phases come in order; layers interleave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The layer's blob (its compressed form), or the digest of nothing while an archive whose
    /// contents are not yet known is read.
    pub layer: Digest,
    /// What is happening to it.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do in this phase, where known.
    pub total: Option<u64>,
}

/// The stages of a layer on its way into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Known, but its turn has not come.
    Waiting,
    /// Bytes are arriving.
    Fetching,
    /// Bytes that were there before are hashed.
    Verifying,
    /// The helper in its jail writes files; `done` counts decompressed bytes.
    Unpacking,
    /// On disk.
    Ready,
}
