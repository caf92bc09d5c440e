//! The store on disk: blobs by digest, unpacked layers by diffID, and records of images.
//!
//! ```text
//! ROOT/                         0700, one process at a time (flock on `lock`)
//!   blobs/sha256/<hex>          manifests, configs, compressed layers; name = digest of content
//!   layers/<hex>/fs/            unpacked tree, image uids 0..65535; <hex> = diffID
//!   layers/<hex>/layer.json     what the unpacker reported
//!   images/<hex>.json           one record per reference and platform: written last
//!   tmp/                        everything unfinished; emptied at start
//! ```
//! Things only ever move from `tmp` to their final name, complete and synced, and lower things
//! before those that refer to them. So a crash leaves nothing to repair, only rubbish in `tmp`.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::digest::LayerId;
use crate::durable;
use crate::host_image;
use crate::image::Image;
use crate::jail::Jail;
use crate::limits::Limits;
use crate::platform::Platform;
use crate::reference::Reference;

mod attempt;
mod blobs;
mod claims;
mod collect;
mod layers;
mod records;
mod scratch;

pub(crate) use attempt::{Attempt, OnFailure};
pub use blobs::BlobError;
pub(crate) use blobs::{BlobWriter, blocking};
pub(crate) use claims::Pin;
pub use collect::Collected;
pub use layers::LayerError;
pub(crate) use layers::set_mode;
pub(crate) use records::Record;
pub(crate) use scratch::Scratch;

/// An image store in a folder. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    root: PathBuf,
    pub(crate) jail: Jail,
    limits: Limits,
    claims: Arc<claims::Claims>,
    /// The built-in image, once it was asked for.
    host: Mutex<Option<host_image::Current>>,
    /// Holds the flock.
    _lock: File,
}

/// A failure of the store itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the image store {} is in use by another process", root.display())]
    Locked {
        /// The store's folder.
        root: PathBuf,
    },
    /// A state file that this program did not write, or of a newer version of it.
    #[error("cannot read {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A state file of another version.
    #[error("{} has version {found}, this program knows version {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program writes.
        known: u32,
    },
}

/// Attaches operation and path to an [`io::Error`].
pub(crate) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

impl Store {
    /// Where it has strangers' archives read.
    #[must_use]
    pub fn jail(&self) -> &Jail {
        &self.inner.jail
    }

    /// Opens the store in `root`, creating it (0700) if it is not there, and removes what an
    /// earlier process left half-made.
    ///
    /// # Errors
    /// If the folders cannot be made, or another process has the store open.
    pub fn open(root: &Path, jail: Jail) -> Result<Store, StoreError> {
        Store::open_with_limits(root, jail, Limits::default())
    }

    /// [`Store::open`] with other bounds on what a layer may unpack to.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_limits(root: &Path, jail: Jail, limits: Limits) -> Result<Store, StoreError> {
        let folders = ["", "blobs", "blobs/sha256", "layers", "images", "tmp"];
        for folder in folders.map(|folder| root.join(folder)) {
            durable::create_dir(&folder).map_err(failed("create folder", &folder))?;
        }
        let lock = lock(root)?;
        let inner = Inner {
            root: root.to_owned(),
            jail,
            limits,
            claims: Arc::default(),
            host: Mutex::new(None),
            _lock: lock,
        };
        inner.sweep()?;
        Ok(Store {
            inner: Arc::new(inner),
        })
    }

    /// The image stored for `reference`, for `platform` or else for this machine's own. Without
    /// a `platform`, an image of another one is found if it is the only one there. A reference
    /// with a digest also finds what was pulled by tag and has that digest.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn find(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Option<Image>, StoreError> {
        if reference.is_built_in() {
            return self.host_image().map(Some);
        }
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        // The usual case costs one file, however many images there are.
        if let Some(record) = self.inner.record(reference, wanted) {
            return Ok(Some(record.into_image(self.inner.layers_root())));
        }
        let mut found: Vec<Record> = self.inner.readable_records()?;
        found.retain(|record| record.answers(reference));
        let only_one = found.len() == 1 && platform.is_none();
        let chosen = found
            .iter()
            .position(|record| wanted.accepts(&record.platform));
        let chosen = chosen.or(only_one.then_some(0));
        Ok(chosen.map(|at| found.swap_remove(at).into_image(self.inner.layers_root())))
    }

    /// All images, newest first. The built-in one is not among them.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut records = self.inner.readable_records()?;
        records.sort_by(|a, b| b.stored.cmp(&a.stored).then(a.reference.cmp(&b.reference)));
        Ok(records
            .into_iter()
            .map(|record| record.into_image(self.inner.layers_root()))
            .collect())
    }

    /// Forgets `reference` on all platforms; whether there was one. Its content goes with the
    /// next [`Store::collect`], unless something else needs it.
    ///
    /// # Errors
    /// If a record cannot be removed.
    pub fn remove(&self, reference: &Reference) -> Result<bool, StoreError> {
        self.inner.remove_records(reference)
    }

    /// Removes every blob and layer that no image refers to, no pull or import is working on,
    /// and that is not in `in_use`: the layers of dynos that exist, whose image may be forgotten
    /// already. Whoever takes layers of an image into use must not let that race with this.
    ///
    /// # Errors
    /// If the store cannot be read or something cannot be removed; the rest stays valid.
    pub fn collect(&self, in_use: &HashSet<LayerId>) -> Result<Collected, StoreError> {
        self.inner.collect(in_use)
    }

    /// The image that is always there: a small generated root onto which the machine's own
    /// `/usr` is bind-mounted read-only. Made at first use, and again when the machine's files
    /// that it was made from have changed.
    ///
    /// # Errors
    /// If it cannot be generated.
    pub fn host_image(&self) -> Result<Image, StoreError> {
        host_image::provide(&self.inner)
    }
}

impl Inner {
    pub(crate) fn layers_root(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn pin(&self, digest: crate::digest::Digest) -> Pin {
        claims::Claims::pin(&self.claims, digest)
    }

    /// The built-in image as of this process's last look.
    pub(crate) fn host_image(&self) -> &Mutex<Option<host_image::Current>> {
        &self.host
    }

    fn sweep(&self) -> Result<(), StoreError> {
        let scratch = self.scratch();
        let entries = std::fs::read_dir(&scratch).map_err(failed("read folder", &scratch))?;
        for entry in entries {
            let path = entry.map_err(failed("read folder", &scratch))?.path();
            // The helper of a process that was killed a moment ago may still be dying.
            scratch::remove_patiently(&path)?;
        }
        Ok(())
    }
}

/// A process that was killed while it started a helper leaves the lock to that child, until the
/// child executes the helper or dies of its parent's death.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("open", &path))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    root: root.to_owned(),
                });
            }
            Err(errno) => return Err(failed("lock", &path)(errno.into())),
        }
    }
}

/// Removes a file or a tree that an image may have made.
///
/// P1: std walks by folder fds with O_NOFOLLOW (CVE-2022-21658), so no symlink in it leads out.
fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let is_dir = match path.symlink_metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    match is_dir {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
    .map_err(failed("remove", path))
}
