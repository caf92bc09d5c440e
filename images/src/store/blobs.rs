//! Blobs: files named by the digest of their content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dyno_failpoint::failpoint;
use tokio::io::AsyncWriteExt;

use super::{Inner, StoreError, failed};
use crate::digest::{Digest, Hasher};
use crate::durable;

/// Why received bytes did not become a blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Too few or too many bytes.
    #[error("{digest} should have {expected} bytes but has {actual}")]
    Size {
        /// The blob that was wanted.
        digest: Digest,
        /// Size in its descriptor.
        expected: u64,
        /// Bytes that came; at least this many if too many.
        actual: u64,
    },
    /// The bytes are not the ones that were asked for.
    #[error("the content has digest {actual}, expected {expected}")]
    Digest {
        /// The blob that was wanted.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A blob being received. Invisible until [`BlobWriter::commit`]; gone if dropped before.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: Option<tokio::fs::File>,
    hasher: Hasher,
    temporary: PathBuf,
    blobs: PathBuf,
}

impl Inner {
    pub(crate) fn blobs_root(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where the blob is if it is there. P9: only a [`Digest`] gets here.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_root().join(digest.hex())
    }

    /// Starts receiving a blob.
    pub(crate) fn new_blob(&self) -> Result<BlobWriter, StoreError> {
        let temporary = durable::unique(&self.scratch());
        let file = durable::create_new(&temporary).map_err(failed("create", &temporary))?;
        Ok(BlobWriter {
            file: Some(file.into()),
            hasher: Hasher::default(),
            temporary,
            blobs: self.blobs_root(),
        })
    }

    /// Stores bytes that are at hand.
    pub(crate) async fn put_blob(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        if !self.blob_is_sound(digest, bytes.len() as u64).await? {
            let mut writer = self.new_blob()?;
            writer.write(bytes).await?;
            writer.commit(digest, bytes.len() as u64).await?;
        }
        Ok(digest)
    }

    /// Whether the blob is there with exactly the content its name promises. A damaged one is
    /// removed, so that it is fetched again and never used.
    pub(crate) async fn blob_is_sound(
        &self,
        digest: Digest,
        size: u64,
    ) -> Result<bool, StoreError> {
        let path = self.blob_path(&digest);
        blocking(move || check(&path, digest, size)).await
    }

    /// A blob's content, checked. `None` if it is missing or damaged.
    pub(crate) fn read_blob(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let path = self.blob_path(digest);
        let mut content = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(limit).read_to_end(&mut content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(failed("read", &path))?;
        Ok((Digest::of(&content) == *digest).then(|| content.into()))
    }

    /// Opens a blob for reading.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(failed("open", &path))
    }
}

fn check(path: &Path, digest: Digest, size: u64) -> Result<bool, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let length = file.metadata().map_err(failed("look at", path))?.len();
    if length == size {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(failed("read", path))? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        if hasher.finish() == digest {
            return Ok(true);
        }
    }
    tracing::warn!(%digest, "removing a damaged blob");
    std::fs::remove_file(path).map_err(failed("remove", path))?;
    Ok(false)
}

impl BlobWriter {
    /// Bytes received so far: where a broken download resumes.
    pub(crate) fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// Digest and size of what was received so far.
    pub(crate) fn received(&self) -> (Digest, u64) {
        (self.hasher.clone().finish(), self.hasher.length())
    }

    /// Appends bytes, hashing them.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        if let Some(file) = &mut self.file {
            file.write_all(bytes)
                .await
                .map_err(failed("write", &self.temporary))?;
        }
        Ok(())
    }

    /// Begins again from nothing, for a server that cannot resume.
    pub(crate) async fn restart(&mut self) -> Result<(), StoreError> {
        use tokio::io::AsyncSeekExt;
        self.hasher = Hasher::default();
        if let Some(file) = &mut self.file {
            file.flush()
                .await
                .map_err(failed("write", &self.temporary))?;
            file.set_len(0)
                .await
                .map_err(failed("truncate", &self.temporary))?;
            file.rewind()
                .await
                .map_err(failed("rewind", &self.temporary))?;
        }
        Ok(())
    }

    /// P9: gives the file its final name only if size and digest are those expected, and only
    /// after its content is durable.
    pub(crate) async fn commit(mut self, digest: Digest, size: u64) -> Result<(), BlobError> {
        let length = self.hasher.length();
        if length != size {
            return Err(BlobError::Size {
                digest,
                expected: size,
                actual: length,
            });
        }
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual != digest {
            return Err(BlobError::Digest {
                expected: digest,
                actual,
            });
        }
        self.publish(digest).await?;
        Ok(())
    }

    async fn publish(&mut self, digest: Digest) -> Result<(), StoreError> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        file.flush()
            .await
            .map_err(failed("write", &self.temporary))?;
        file.sync_all()
            .await
            .map_err(failed("sync", &self.temporary))?;
        failpoint("image.received");
        let path = self.blobs.join(digest.hex());
        let temporary = self.temporary.clone();
        blocking(move || {
            std::fs::rename(&temporary, &path).map_err(failed("rename", &temporary))?;
            failpoint("image.blob");
            durable::sync_parent(&path).map_err(failed("sync folder of", &path))
        })
        .await
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Already renamed, or swept at the next start.
        std::fs::remove_file(&self.temporary).ok();
    }
}

/// Runs file work that takes long off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The closure panicked: let that bug surface here.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
