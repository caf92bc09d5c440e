//! The path of every image into the store: documents first, then layers, then the record.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::digest::{Digest, LayerId};
use crate::document::{self, Config, Descriptor, Document, DocumentError, Manifest};
use crate::image::Image;
use crate::layout::{Folder, FolderError};
use crate::platform::Platform;
use crate::progress::{Phase, Progress};
use crate::reference::Reference;
use crate::registry::{Client, RegistryError};
use crate::store::{Attempt, BlobError, Inner, LayerError, OnFailure, Record, StoreError};

/// Layers fetched and unpacked at a time: the next ones arrive while one is unpacked.
const PARALLEL_LAYERS: usize = 3;
/// An index may lead to an index (OCI image spec, image-index.md); nobody nests deeper.
const MAX_INDEX_DEPTH: usize = 3;

/// Why an image did not get into the store.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// One of its documents is not usable.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The registry did not give what it should.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout or archive lacks something or is damaged.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Content is not what its digest promises.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// The layer's blob.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where content comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    Registry(Client),
    Folder(Folder),
}

impl Origin {
    fn on_failure(&self) -> OnFailure {
        match self {
            Origin::Registry(_) => OnFailure::KeepBlobs,
            Origin::Folder(_) => OnFailure::RemoveBlobs,
        }
    }
}

/// Watches progress.
pub(crate) type Watcher<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What to bring in, and under which name.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) platform: &'a Platform,
    /// The index or manifest that the reference stands for, as received.
    pub(crate) top: (Descriptor, Bytes),
}

/// One ingestion: what it needs, and what it has come to so far.
struct Ingest<'a> {
    store: &'a Arc<Inner>,
    origin: &'a Origin,
    watch: Watcher<'a>,
    attempt: Attempt,
    blobs: Vec<Digest>,
}

/// Brings an image into the store and returns it when all of it is durable.
pub(crate) async fn ingest(
    store: &Arc<Inner>,
    origin: &Origin,
    request: Request<'_>,
    watch: Watcher<'_>,
) -> Result<Image, IngestError> {
    let mut work = Ingest {
        store,
        origin,
        watch,
        attempt: Attempt::new(store, origin.on_failure()),
        blobs: Vec::new(),
    };
    let digest = request.top.0.digest;
    let (manifest_digest, manifest) = work.manifest(request.top, request.platform).await?;
    let config = work.config(&manifest).await?;
    config.check_layers(&manifest)?;
    if !request.platform.accepts(&config.platform) {
        return Err(DocumentError::NoPlatform {
            wanted: request.platform.clone(),
            available: config.platform.to_string(),
        }
        .into());
    }
    let pairs: Vec<_> = manifest
        .layers
        .iter()
        .zip(config.diff_ids.iter().copied())
        .collect();
    for (layer, id) in &pairs {
        work.pin(layer.digest);
        work.attempt.pin_layer(*id);
        work.report(layer, Phase::Waiting, 0);
    }
    let fetched = pairs.iter().map(|(layer, id)| work.layer(layer, *id));
    futures_util::stream::iter(fetched.collect::<Vec<_>>())
        .buffer_unordered(PARALLEL_LAYERS)
        .try_collect::<()>()
        .await?;
    let (layers, size_bytes) = stack(store, &config.diff_ids)?;
    let record = Record {
        version: Record::VERSION,
        reference: request.reference.clone(),
        platform: config.platform,
        digest,
        manifest: manifest_digest,
        id: manifest.config.digest,
        created: config.created,
        stored: Timestamp::now(),
        size_bytes,
        layers,
        blobs: std::mem::take(&mut work.blobs),
        config: config.config,
    };
    // Every blob was synced, every layer before it got its name: this is the last step.
    store.write_record(&record)?;
    work.attempt.succeed();
    Ok(record.into_image(store.layers_root()))
}

/// The layers that overlayfs gets, topmost first, and their size. A layer with an opaque root
/// ends the stack; a layer that occurs twice stays where it is topmost (overlayfs refuses the
/// same folder twice, and the lower one could add nothing).
pub(crate) fn stack(
    store: &Inner,
    diff_ids: &[LayerId],
) -> Result<(Vec<LayerId>, u64), StoreError> {
    let (mut layers, mut seen, mut size) = (Vec::new(), HashSet::new(), 0);
    for id in diff_ids.iter().rev() {
        if !seen.insert(*id) {
            continue;
        }
        layers.push(*id);
        if let Some(record) = store.layer(id)? {
            size += record.bytes;
            if record.opaque_root {
                break;
            }
        }
    }
    Ok((layers, size))
}

impl Ingest<'_> {
    fn pin(&mut self, digest: Digest) {
        self.attempt.pin(digest);
        if !self.blobs.contains(&digest) {
            self.blobs.push(digest);
        }
    }

    fn report(&self, layer: &Descriptor, phase: Phase, done: u64) {
        let total = match phase {
            Phase::Unpacking => None,
            _ => Some(layer.size),
        };
        (self.watch)(Progress {
            layer: layer.digest,
            phase,
            done,
            total,
        });
    }

    /// From the top document to the manifest for the platform, storing what lies on the way.
    async fn manifest(
        &mut self,
        mut top: (Descriptor, Bytes),
        platform: &Platform,
    ) -> Result<(Digest, Manifest), IngestError> {
        for _ in 0..=MAX_INDEX_DEPTH {
            let (descriptor, bytes) = top;
            self.pin(descriptor.digest);
            self.store.put_blob(&bytes).await?;
            match Document::parse(&bytes, &descriptor.media_type)? {
                Document::Manifest(manifest) => return Ok((descriptor.digest, *manifest)),
                Document::Index(entries) => {
                    let chosen = document::choose(entries, platform)?;
                    let bytes = self.document("the manifest", &chosen).await?;
                    top = (chosen, bytes);
                }
            }
        }
        Err(DocumentError::Nested(MAX_INDEX_DEPTH).into())
    }

    async fn config(&mut self, manifest: &Manifest) -> Result<Config, IngestError> {
        self.pin(manifest.config.digest);
        let bytes = self.document("the image config", &manifest.config).await?;
        self.store.put_blob(&bytes).await?;
        Ok(Config::parse(&bytes)?)
    }

    /// A small document: from the store if it is sound there, else from the origin, checked.
    async fn document(
        &self,
        what: &'static str,
        wanted: &Descriptor,
    ) -> Result<Bytes, IngestError> {
        document::check_size(what, wanted)?;
        if let Some(bytes) = self.store.read_blob(&wanted.digest, wanted.size + 1)? {
            return Ok(bytes);
        }
        let bytes = match self.origin {
            Origin::Registry(client) => client.document(wanted).await?,
            Origin::Folder(folder) => folder.document(wanted)?,
        };
        check(wanted, &bytes)?;
        Ok(bytes)
    }

    /// One layer, from wherever it is to an unpacked tree.
    async fn layer(&self, layer: &Descriptor, id: LayerId) -> Result<(), IngestError> {
        self.blob(layer).await?;
        let failed = |source| IngestError::Layer {
            layer: layer.digest,
            source,
        };
        let pin = self.store.pin(id.0);
        let _turn = pin.my_turn().await;
        if self.store.layer(&id)?.is_none() {
            let unpacked = |done| self.report(layer, Phase::Unpacking, done);
            unpacked(0);
            let file = self.store.open_blob(&layer.digest)?;
            self.store
                .make_layer(file, Some(id), &unpacked)
                .await
                .map_err(failed)?;
        }
        self.report(layer, Phase::Ready, layer.size);
        Ok(())
    }

    /// Has a layer's blob in the store: one that is there is hashed first, and fetched again if
    /// it is damaged.
    async fn blob(&self, layer: &Descriptor) -> Result<(), IngestError> {
        let pin = self.store.pin(layer.digest);
        let _turn = pin.my_turn().await;
        self.report(layer, Phase::Verifying, 0);
        if self.store.blob_is_sound(layer.digest, layer.size).await? {
            return Ok(());
        }
        let mut writer = self.store.new_blob()?;
        let fetched = |done| self.report(layer, Phase::Fetching, done);
        match self.origin {
            Origin::Registry(client) => client.blob(layer, &mut writer, &fetched).await?,
            Origin::Folder(folder) => folder.blob(layer, &mut writer, &fetched).await?,
        }
        Ok(writer.commit(layer.digest, layer.size).await?)
    }
}

/// P9: bytes in hand are those that the descriptor promises.
pub(crate) fn check(wanted: &Descriptor, bytes: &[u8]) -> Result<(), BlobError> {
    let (digest, expected, actual) = (wanted.digest, wanted.size, bytes.len() as u64);
    if actual != expected {
        return Err(BlobError::Size {
            digest,
            expected,
            actual,
        });
    }
    match Digest::of(bytes) {
        actual if actual == digest => Ok(()),
        actual => Err(BlobError::Digest {
            expected: digest,
            actual,
        }),
    }
}
