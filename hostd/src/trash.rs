//! Folders that nobody needs any more: out of the way at once by one rename,
//! removed afterwards while nobody waits. A removal takes the kernel
//! milliseconds where the folder was mounted on or held an overlay's layers.
//!
//! What is still there when hostd ends goes when it starts again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dyno_failpoint::failpoint;
use tokio::task::spawn_blocking;

use crate::durable;

/// Names in a trash, each used once by this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Takes `folder` away; `trash` is a folder of the same file system. Blocks for
/// a rename only. A folder that is not there is fine.
///
/// # Errors
/// When it can be neither moved nor removed; it is where it was then.
pub fn throw(folder: &Path, trash: &Path) -> io::Result<()> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let thrown = trash.join(format!("{}-{number}", std::process::id()));
    match fs::rename(folder, &thrown) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
        Err(_) => return durable::remove_tree(folder),
    }
    remove(thrown);
    Ok(())
}

/// Removes what an earlier hostd left here, while nobody waits.
///
/// # Errors
/// When the folder cannot be read.
pub fn empty(trash: &Path) -> io::Result<()> {
    let left: Vec<PathBuf> = fs::read_dir(trash)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    left.into_iter().for_each(remove);
    Ok(())
}

fn remove(thrown: PathBuf) {
    spawn_blocking(move || {
        failpoint("remove.renamed");
        if let Err(error) = durable::remove_tree(&thrown) {
            let folder = thrown.display();
            tracing::warn!(%error, %folder, "what is thrown away stays until the next start");
        }
        failpoint("remove.emptied");
    });
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    async fn gone(trash: &Path) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_dir(trash).unwrap().next().is_some() {
            assert!(Instant::now() < deadline, "it stays");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_thrown_folder_is_out_of_the_way_at_once_and_gone_soon() {
        let top = tempfile::tempdir().unwrap();
        let (folder, trash) = (top.path().join("x"), top.path().join("trash"));
        fs::create_dir(&trash).unwrap();
        for _ in 0..2 {
            fs::create_dir_all(folder.join("deep/er")).unwrap();
            throw(&folder, &trash).unwrap();
            assert!(!folder.exists());
        }
        gone(&trash).await;
        throw(&folder, &trash).unwrap();
    }

    #[tokio::test]
    async fn without_a_trash_a_folder_is_removed_where_it_is() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("x");
        fs::create_dir_all(folder.join("deep")).unwrap();
        throw(&folder, &top.path().join("none")).unwrap();
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn what_an_earlier_hostd_left_goes() {
        let trash = tempfile::tempdir().unwrap();
        fs::create_dir_all(trash.path().join("1-0/deep")).unwrap();
        empty(trash.path()).unwrap();
        gone(trash.path()).await;
    }
}
