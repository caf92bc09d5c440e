//! Folders for unfinished things, and getting rid of them while a killed helper may still write.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Inner, StoreError, blocking, failed, remove_tree};
use crate::durable;

/// A helper that was killed is gone within this time, unless the disk hangs.
const LAST_BREATH: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// A folder in `tmp`. Rename it to keep it; otherwise it is removed.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Inner {
    pub(crate) fn scratch_folder(&self) -> Result<Scratch, StoreError> {
        let folder = durable::unique(&self.scratch());
        durable::create_dir(&folder).map_err(failed("create folder", &folder))?;
        Ok(Scratch { folder })
    }
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes it and waits for that, off the async threads.
    pub(crate) async fn discard(self) {
        blocking(move || drop_folder(&self.folder)).await;
    }
}

impl Drop for Scratch {
    /// Of a future that was dropped: whoever did so shall not wait for 100,000 files.
    fn drop(&mut self) {
        if self.folder.exists() {
            let folder = self.folder.clone();
            thread::spawn(move || drop_folder(&folder));
        }
    }
}

fn drop_folder(folder: &Path) {
    if let Err(error) = remove_patiently(folder) {
        tracing::warn!(%error, "an unfinished folder stays until the next start");
    }
}

/// [`remove_tree`], again and again while a dying helper puts new files where old ones were
/// removed. The kernel kills a helper with its parent, but asynchronously.
pub(super) fn remove_patiently(path: &Path) -> Result<(), StoreError> {
    let deadline = Instant::now() + LAST_BREATH;
    loop {
        match remove_tree(path) {
            Err(StoreError::Io { source, .. })
                if source.kind() == io::ErrorKind::DirectoryNotEmpty
                    && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}
