//! Archives: images from `docker save` or as an OCI layout in a tar, and root file systems.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::digest::{Digest, LayerId};
use crate::document::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::durable;
use crate::image::{Image, ImageConfig};
use crate::ingest::{self, IngestError, Origin, Request, Watcher};
use crate::jail::UnpackError;
use crate::layout::{Folder, FolderError};
use crate::platform::Platform;
use crate::progress::{Phase, Progress};
use crate::reference::Reference;
use crate::store::{
    self, Attempt, BlobError, LayerError, OnFailure, Record, Store, StoreError, failed,
};

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive stopped arriving.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is not a tar, or one that is refused.
    #[error("cannot unpack the archive")]
    Unpack(#[from] UnpackError),
    /// It does not hold what an image archive holds.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An image in it is not usable.
    #[error("cannot load {reference}")]
    Image {
        /// The image's name.
        reference: Reference,
        /// What is wrong.
        source: Box<IngestError>,
    },
    /// The root file system could not be made a layer.
    #[error("cannot import the root file system")]
    Layer(#[from] LayerError),
    /// The name `host` is taken.
    #[error("`host` is the built-in image; choose another name")]
    BuiltIn,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Content could not be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The image's documents could not be written.
    #[error("cannot write the image's documents")]
    Documents(#[from] serde_json::Error),
}

impl Store {
    /// Loads the images of an archive: one that `docker save` wrote, or an OCI layout in a tar;
    /// plain, gzip or zstd. `name` names its only image, whatever the archive calls it.
    ///
    /// P8: the archive itself is unpacked in the jail, too.
    ///
    /// # Errors
    /// If the archive is damaged or holds no usable image. Images before the bad one stay; no
    /// blob of the bad one does.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        name: Option<&Reference>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Vec<Image>, LoadError> {
        if name.is_some_and(Reference::is_built_in) {
            return Err(LoadError::BuiltIn);
        }
        let received = |done| progress(of_archive(Phase::Fetching, done));
        let file = self.spool(archive, &received).await?;
        let folder = self.inner.scratch_folder()?;
        let loaded = self
            .load_spooled(file, folder.path(), name, &progress)
            .await;
        folder.discard().await;
        loaded
    }

    async fn load_spooled(
        &self,
        archive: std::fs::File,
        folder: &Path,
        name: Option<&Reference>,
        watch: Watcher<'_>,
    ) -> Result<Vec<Image>, LoadError> {
        let unpacked = |done| watch(of_archive(Phase::Unpacking, done));
        let inner = &self.inner;
        inner
            .jail
            .unpack(archive, folder, inner.limits(), &unpacked)
            .await?;
        watch(of_archive(Phase::Ready, 0));
        self.ingest_folder(Folder::open(folder)?, name, watch).await
    }

    /// Imports the images of an OCI image layout (a folder with `index.json` and `blobs`).
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn import_layout(
        &self,
        layout: &Path,
        name: Option<&Reference>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Vec<Image>, LoadError> {
        if name.is_some_and(Reference::is_built_in) {
            return Err(LoadError::BuiltIn);
        }
        self.ingest_folder(Folder::open(layout)?, name, &progress)
            .await
    }

    /// Makes an image of one layer from a root file system in a tar (plain, gzip or zstd). Its
    /// config is empty: it runs a shell unless told otherwise.
    ///
    /// # Errors
    /// If the tar is damaged or refused.
    pub async fn import(
        &self,
        reference: &Reference,
        tar: impl AsyncRead + Send + Unpin,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image, LoadError> {
        if reference.is_built_in() {
            return Err(LoadError::BuiltIn);
        }
        let inner = &self.inner;
        let watch = |layer, phase, done| {
            progress(Progress {
                layer,
                phase,
                done,
                total: None,
            })
        };
        let mut writer = inner.new_blob()?;
        copy(tar, &mut writer, &|done| {
            progress(of_archive(Phase::Fetching, done))
        })
        .await?;
        // Pinned before it gets its name; see `Claims::pin`.
        let (blob, size) = writer.received();
        let mut attempt = Attempt::new(inner, OnFailure::RemoveBlobs);
        attempt.pin(blob);
        writer.commit(blob, size).await?;
        let unpacked = |done| watch(blob, Phase::Unpacking, done);
        let (id, layer_pin) = inner
            .make_layer(inner.open_blob(&blob)?, None, &unpacked)
            .await?;
        let layer = Descriptor::new(OCI_LAYER, blob, size);
        let image = self
            .import_record(reference, &layer, id, &mut attempt)
            .await?;
        attempt.succeed();
        watch(blob, Phase::Ready, size);
        drop(layer_pin);
        Ok(image)
    }

    /// Writes config, manifest and record of an imported layer.
    async fn import_record(
        &self,
        reference: &Reference,
        layer: &Descriptor,
        id: LayerId,
        attempt: &mut Attempt,
    ) -> Result<Image, LoadError> {
        let inner = &self.inner;
        let (platform, now) = (Platform::host(), Timestamp::now());
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "created": now,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [id]},
        }))?;
        let config_digest = Digest::of(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64),
            layers: vec![layer.clone()],
        };
        let (top, manifest) = manifest.to_document()?;
        attempt.pin(config_digest);
        attempt.pin(top.digest);
        inner.put_blob(&config).await?;
        inner.put_blob(&manifest).await?;
        let (layers, size_bytes) = ingest::stack(inner, &[id])?;
        let record = Record {
            version: Record::VERSION,
            reference: reference.clone(),
            platform,
            digest: top.digest,
            manifest: top.digest,
            id: config_digest,
            created: Some(now),
            stored: now,
            size_bytes,
            layers,
            blobs: vec![top.digest, config_digest, layer.digest],
            config: ImageConfig::default(),
        };
        inner.write_record(&record)?;
        Ok(record.into_image(inner.layers_root()))
    }

    async fn ingest_folder(
        &self,
        mut folder: Folder,
        name: Option<&Reference>,
        watch: Watcher<'_>,
    ) -> Result<Vec<Image>, LoadError> {
        let name = name.cloned();
        // `docker save` archives are hashed whole here.
        let (folder, found) = store::blocking(move || {
            let found = folder.images(name.as_ref());
            (folder, found)
        })
        .await;
        let found = found?;
        let origin = Origin::Folder(folder);
        let platform = Platform::host();
        let mut images = Vec::new();
        for image in found {
            let reference = image.reference;
            if let Err(source) = ingest::check(&image.top.0, &image.top.1) {
                return Err(LoadError::Image {
                    reference,
                    source: Box::new(source.into()),
                });
            }
            let request = Request {
                reference: &reference,
                platform: &platform,
                top: image.top,
            };
            match ingest::ingest(&self.inner, &origin, request, watch).await {
                Ok(image) => images.push(image),
                Err(source) => {
                    let source = Box::new(source);
                    return Err(LoadError::Image { reference, source });
                }
            }
        }
        Ok(images)
    }

    /// Writes the archive to a nameless file: the jailed helper reads it from there.
    async fn spool(
        &self,
        mut archive: impl AsyncRead + Send + Unpin,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<std::fs::File, LoadError> {
        use tokio::io::{AsyncSeekExt, AsyncWriteExt};
        let path = durable::unique(&self.inner.scratch());
        let file = durable::create_new(&path).map_err(failed("create", &path))?;
        std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut buffer = vec![0; 256 << 10];
        let mut length = 0;
        loop {
            match archive.read(&mut buffer).await.map_err(LoadError::Read)? {
                0 => break,
                n => {
                    file.write_all(&buffer[..n])
                        .await
                        .map_err(failed("write", &path))?;
                    length += n as u64;
                    progress(length);
                }
            }
        }
        file.rewind().await.map_err(failed("rewind", &path))?;
        Ok(file.into_std().await)
    }
}

/// Progress of an archive whose layers are not known yet.
fn of_archive(phase: Phase, done: u64) -> Progress {
    Progress {
        layer: Digest::of(b""),
        phase,
        done,
        total: None,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut store::BlobWriter,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), LoadError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer).await.map_err(LoadError::Read)? {
            0 => return Ok(()),
            n => to.write(&buffer[..n]).await?,
        }
        progress(to.length());
    }
}
