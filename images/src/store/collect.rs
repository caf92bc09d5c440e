//! Garbage collection: removes what no image, running dyno or unfinished pull refers to.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::{Inner, StoreError, failed, remove_tree};
use crate::digest::{Digest, LayerId};
use crate::durable;
use dyno_failpoint::failpoint;

/// What a collection freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Layers removed.
    pub layers: u64,
    /// Bytes freed, as far as known.
    pub bytes: u64,
}

impl Inner {
    pub(super) fn collect(&self, in_use: &HashSet<LayerId>) -> Result<Collected, StoreError> {
        let (collected, doomed) = self.detach(in_use)?;
        failpoint("image_remove.detached");
        // Out of sight already; this may take long and needs no lock.
        for path in &doomed {
            remove_tree(path)?;
        }
        Ok(collected)
    }

    /// Moves the garbage to `tmp`. Under the lock of the claims: nobody can start to rely on
    /// something between the decision and the rename.
    fn detach(&self, in_use: &HashSet<LayerId>) -> Result<(Collected, Vec<PathBuf>), StoreError> {
        // Before the claims: making the image pins while it holds this.
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.as_ref().map(|current| current.layer);
        let pinned = self.claims.lock();
        let records = self.records()?;
        let mut layers: HashSet<LayerId> = in_use.clone();
        layers.extend(records.iter().flat_map(|record| &record.layers));
        layers.extend(host);
        let blobs: HashSet<Digest> = records
            .iter()
            .flat_map(|record| &record.blobs)
            .copied()
            .collect();

        let mut collected = Collected::default();
        let mut doomed = Vec::new();
        for (path, digest) in named_by_digest(&self.blobs_root())? {
            if digest.is_none_or(|d| !blobs.contains(&d) && !pinned.contains_key(&d)) {
                let size = path.symlink_metadata().map_or(0, |metadata| metadata.len());
                doomed.push(self.detach_one(&path)?);
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        for (path, digest) in named_by_digest(&self.layers_root())? {
            if digest.is_none_or(|d| !layers.contains(&LayerId(d)) && !pinned.contains_key(&d)) {
                let size = match digest.map(|digest| self.layer(&LayerId(digest))) {
                    Some(Ok(Some(record))) => record.bytes,
                    _ => 0,
                };
                doomed.push(self.detach_one(&path)?);
                collected.layers += 1;
                collected.bytes += size;
            }
        }
        Ok((collected, doomed))
    }

    /// Removes those of these blobs that no record names and nobody has pinned.
    pub(super) fn withdraw(&self, blobs: &[Digest]) -> Result<(), StoreError> {
        if blobs.is_empty() {
            return Ok(());
        }
        let mut doomed = Vec::new();
        {
            let pinned = self.claims.lock();
            let records = self.records()?;
            for blob in blobs {
                let needed = pinned.contains_key(blob)
                    || records.iter().any(|record| record.blobs.contains(blob));
                let path = self.blob_path(blob);
                if !needed && path.exists() {
                    doomed.push(self.detach_one(&path)?);
                }
            }
        }
        doomed.iter().try_for_each(|path| remove_tree(path))
    }

    fn detach_one(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let aside = durable::unique(&self.scratch());
        fs::rename(path, &aside).map_err(failed("rename", path))?;
        failpoint("image_remove.part");
        Ok(aside)
    }
}

/// Entries of a folder with the digest each is named by; `None` for a stranger.
fn named_by_digest(folder: &Path) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
    let entries = fs::read_dir(folder).map_err(failed("read folder", folder))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(failed("read folder", folder))?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|n| format!("sha256:{n}").parse().ok());
            Ok((entry.path(), digest))
        })
        .collect()
}
