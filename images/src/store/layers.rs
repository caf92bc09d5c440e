//! Unpacked layers: made in `tmp` by the jailed helper, moved to their diffID when complete.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dyno_failpoint::failpoint;
use serde::{Deserialize, Serialize};

use super::records::{VERSION, read_versioned, write_json};
use super::{Inner, Pin, Scratch, StoreError, blocking, failed};
use crate::digest::LayerId;
use crate::durable;
use crate::jail::UnpackError;
use crate::unpack::Summary;

/// Why a layer did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The helper refused or failed.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// P9: the compressed bytes were right but hold something else than the config says.
    #[error("the layer's content has diff id {actual}, the image config says {expected}")]
    DiffId {
        /// From the config.
        expected: LayerId,
        /// Of the decompressed bytes.
        actual: LayerId,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `layers/<hex>/layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerRecord {
    version: u32,
    id: LayerId,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
    entries: u64,
    devices_skipped: u64,
    /// Hides every layer below it: overlayfs does not heed an opaque mark on a layer's root, so
    /// the layers below are left out of images instead.
    pub(crate) opaque_root: bool,
}

impl Inner {
    /// What is known of a layer, if it is there. Its record is written before the folder gets
    /// its final name: one without a readable record is not ours.
    pub(crate) fn layer(&self, id: &LayerId) -> Result<Option<LayerRecord>, StoreError> {
        match read_versioned(&self.layer_folder(id).join("layer.json")) {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Unpacks `layer` (an open file, compressed or not) and publishes it under its diffID, which
    /// must be `expected` if given; else nobody knew it, and it is pinned before it gets its
    /// name. The caller holds the turn of an expected layer.
    pub(crate) async fn make_layer(
        &self,
        layer: File,
        expected: Option<LayerId>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(LayerId, Pin), LayerError> {
        let unfinished = self.unfinished()?;
        let tree = unfinished.path().join("fs");
        let summary = match self.unpack_checked(layer, &tree, expected, progress).await {
            Ok(summary) => summary,
            Err(error) => {
                unfinished.discard().await;
                return Err(error);
            }
        };
        failpoint("image.unpacked");
        let id = LayerId(summary.diff_id);
        let pin = self.pin(id.0);
        self.publish_layer(unfinished, id, &summary).await?;
        Ok((id, pin))
    }

    /// P9: the digest of what was really unpacked is the one that was promised.
    async fn unpack_checked(
        &self,
        layer: File,
        tree: &Path,
        expected: Option<LayerId>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Summary, LayerError> {
        let summary = self
            .jail
            .unpack(layer, tree, self.limits(), progress)
            .await?;
        let actual = LayerId(summary.diff_id);
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(LayerError::DiffId { expected, actual }),
            None => Ok(summary),
        }
    }

    /// Publishes a tree that `fill` writes, under an id that the caller chose (the built-in
    /// image's).
    pub(crate) fn make_layer_by(
        &self,
        id: LayerId,
        fill: impl FnOnce(&Path) -> Result<u64, StoreError>,
    ) -> Result<(), StoreError> {
        let unfinished = self.unfinished()?;
        let bytes = fill(&unfinished.path().join("fs"))?;
        let summary = Summary {
            bytes,
            ..Summary::new(id.0)
        };
        publish(
            unfinished.path(),
            &self.layer_folder(&id),
            &self.scratch(),
            &record(id, &summary),
        )
    }

    fn unfinished(&self) -> Result<Scratch, StoreError> {
        let unfinished = self.scratch_folder()?;
        let tree = unfinished.path().join("fs");
        // The layer's own "./" entry may say otherwise; 0755 is what a root folder should be.
        std::fs::create_dir(&tree).map_err(failed("create folder", &tree))?;
        set_mode(&tree, 0o755)?;
        Ok(unfinished)
    }

    async fn publish_layer(
        &self,
        unfinished: Scratch,
        id: LayerId,
        summary: &Summary,
    ) -> Result<(), StoreError> {
        let (to, scratch, record) = (self.layer_folder(&id), self.scratch(), record(id, summary));
        blocking(move || publish(unfinished.path(), &to, &scratch, &record)).await
    }

    pub(super) fn layer_folder(&self, id: &LayerId) -> PathBuf {
        self.layers_root().join(id.0.hex())
    }
}

fn record(id: LayerId, summary: &Summary) -> LayerRecord {
    LayerRecord {
        version: VERSION,
        id,
        bytes: summary.bytes,
        entries: summary.entries,
        devices_skipped: summary.devices_skipped,
        opaque_root: summary.opaque_root,
    }
}

/// Syncs the whole file system (`syncfs(2)`: one call for 100,000 files), then renames.
fn publish(from: &Path, to: &Path, scratch: &Path, record: &LayerRecord) -> Result<(), StoreError> {
    write_json(scratch, &from.join("layer.json"), record)?;
    let folder = File::open(from).map_err(failed("open", from))?;
    rustix::fs::syncfs(&folder).map_err(|errno| failed("sync", from)(errno.into()))?;
    failpoint("image.synced");
    match std::fs::rename(from, to) {
        // Someone made the same layer meanwhile; `from` goes with its guard.
        Err(error) if to.join("layer.json").exists() => {
            tracing::debug!(%error, "the layer is there already");
            Ok(())
        }
        Err(error) => Err(failed("rename", from)(error)),
        Ok(()) => {
            failpoint("image.layer");
            durable::sync_parent(to).map_err(failed("sync folder of", to))
        }
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed("set mode of", path))
}
