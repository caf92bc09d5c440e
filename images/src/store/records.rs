//! Records of images: the last thing written for an image and the first thing removed.

use std::fs;
use std::io;
use std::path::PathBuf;

use dyno_failpoint::failpoint;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Inner, StoreError, failed};
use crate::digest::{Digest, LayerId};
use crate::durable;
use crate::image::{Image, ImageConfig};
use crate::platform::Platform;
use crate::reference::Reference;

/// Version of [`Record`] and [`super::layers::LayerRecord`] that this program reads and writes.
pub(crate) const VERSION: u32 = 1;

/// One image as `images/<hex>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) reference: Reference,
    pub(crate) platform: Platform,
    /// What the reference resolved to.
    pub(crate) digest: Digest,
    /// Digest of the manifest: the same, unless there is an index.
    pub(crate) manifest: Digest,
    /// Digest of the config.
    pub(crate) id: Digest,
    pub(crate) created: Option<Timestamp>,
    pub(crate) stored: Timestamp,
    pub(crate) size_bytes: u64,
    /// Topmost first.
    pub(crate) layers: Vec<LayerId>,
    /// Everything in `blobs` that the image needs: index, manifest, config, layers.
    pub(crate) blobs: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

impl Record {
    /// The version this program writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Whether someone asking for `wanted` means this image.
    pub(super) fn answers(&self, wanted: &Reference) -> bool {
        match wanted.digest() {
            Some(digest) => {
                [self.digest, self.manifest].contains(digest)
                    && self.reference.same_repository(wanted)
            }
            None => self.reference == *wanted,
        }
    }

    pub(crate) fn into_image(self, layers_root: PathBuf) -> Image {
        Image {
            reference: self.reference,
            digest: self.digest,
            id: self.id,
            platform: self.platform,
            created: self.created,
            stored: self.stored,
            size_bytes: self.size_bytes,
            layers: self.layers,
            config: self.config,
            binds: Vec::new(),
            layers_root,
        }
    }

    /// References may be longer than a file name, so their digest names the file.
    fn file_name(reference: &Reference, platform: &Platform) -> String {
        format!(
            "{}.json",
            Digest::of(format!("{reference} {platform}").as_bytes()).hex()
        )
    }
}

impl Inner {
    /// All records. One that cannot be read is an error: to go on without it would let its
    /// layers be collected.
    pub(super) fn records(&self) -> Result<Vec<Record>, StoreError> {
        self.try_records()?.into_iter().collect()
    }

    /// The records that can be read. A damaged one costs its own image, not all of them; it is
    /// replaced when that image is pulled again.
    pub(super) fn readable_records(&self) -> Result<Vec<Record>, StoreError> {
        let readable = |record: Result<Record, StoreError>| match record {
            Ok(record) => Some(record),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "an image's record is unreadable");
                None
            }
        };
        Ok(self
            .try_records()?
            .into_iter()
            .filter_map(readable)
            .collect())
    }

    /// The record of exactly this reference and platform, if there is a readable one.
    pub(super) fn record(&self, reference: &Reference, platform: &Platform) -> Option<Record> {
        read_versioned(
            &self
                .images_root()
                .join(Record::file_name(reference, platform)),
        )
        .ok()
    }

    fn try_records(&self) -> Result<Vec<Result<Record, StoreError>>, StoreError> {
        let folder = self.images_root();
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("read folder", &folder))? {
            let path = entry.map_err(failed("read folder", &folder))?.path();
            match read_versioned(&path) {
                // Removed since the folder was read.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                record => records.push(record),
            }
        }
        Ok(records)
    }

    /// Makes an image visible, durably, replacing an earlier one of that reference and platform.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        let path = self
            .images_root()
            .join(Record::file_name(&record.reference, &record.platform));
        failpoint("image.complete");
        write_json(&self.scratch(), &path, record)?;
        failpoint("image.recorded");
        Ok(())
    }

    pub(super) fn remove_records(&self, reference: &Reference) -> Result<bool, StoreError> {
        let mut removed = false;
        for record in self.readable_records()? {
            if record.answers(reference) {
                let name = Record::file_name(&record.reference, &record.platform);
                let path = self.images_root().join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &path)(error));
                    }
                    _ => removed = true,
                }
                durable::sync_parent(&path).map_err(failed("sync folder of", &path))?;
            }
        }
        Ok(removed)
    }

    fn images_root(&self) -> PathBuf {
        self.root.join("images")
    }
}

/// Writes a state file atomically.
pub(super) fn write_json(
    scratch: &std::path::Path,
    path: &std::path::Path,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(value).map_err(|source| StoreError::Record {
        path: path.to_owned(),
        source,
    })?;
    durable::replace(scratch, path, &json).map_err(failed("write", path))
}

/// Reads a state file, refusing versions other than ours before looking at anything else.
pub(super) fn read_versioned<T: DeserializeOwned>(path: &std::path::Path) -> Result<T, StoreError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let text = fs::read(path).map_err(failed("read", path))?;
    let damaged = |source| StoreError::Record {
        path: path.to_owned(),
        source,
    };
    let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != VERSION {
        return Err(StoreError::Version {
            path: path.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    serde_json::from_slice(&text).map_err(damaged)
}
