//! Room on a disk that is left to others: what is copied or brought in for a client takes
//! no more than what is above it.
//!
//! A disk that is full stops whoever writes to it: databases in dyno's volumes, hostd's own
//! records. hostd is root, so that the blocks that ext4 keeps for root are no reserve
//! either.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dyno_api::error::{ApiError, ErrorKind};
use rustix::fs::{StatVfs, statvfs};
use tokio::time::sleep;

/// P15: of its size, so much of a disk is left to others; of a large one no more than
/// `MOST` bytes.
const PART: u64 = 20;
const MOST: u64 = 1 << 30;
/// Between two looks at somebody else who writes: nobody writes a twentieth of a disk
/// meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// The room of one file system.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    place: PathBuf,
}

impl Room {
    /// That of the file system of this path, which has to be there.
    pub(crate) fn of(place: &Path) -> Self {
        Self {
            place: place.to_owned(),
        }
    }

    /// Whether more may be written. Quick, to be asked often. What cannot be asked says
    /// nothing, and whoever writes will hear why.
    pub(crate) fn is_left(&self) -> bool {
        statvfs(&self.place).map_or(true, |found| is_left(&found))
    }

    /// What to say where it is not.
    pub(crate) fn refusal(&self) -> ApiError {
        let reserve = statvfs(&self.place).map_or(0, |found| reserve(&found));
        ApiError::new(
            ErrorKind::Exhausted,
            format!(
                "the disk is full but for a reserve of {} MiB that is left to others",
                reserve.div_ceil(1 << 20)
            ),
        )
        .hint("`dyno rmi` and `dyno volume rm` make room; `dyno doctor` tells what there is")
    }

    /// Returns as soon as there is no more room.
    pub(crate) async fn is_taken(&self) -> ApiError {
        while self.is_left() {
            sleep(LOOK).await;
        }
        self.refusal()
    }
}

/// A copy that was given up because there was no more room.
pub(crate) fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn reserve(found: &StatVfs) -> u64 {
    let size = found.f_blocks.saturating_mul(found.f_frsize);
    (size / PART).min(MOST)
}

fn is_left(found: &StatVfs) -> bool {
    let bytes = found.f_bavail.saturating_mul(found.f_frsize) > reserve(found);
    // Some have no table of inodes.
    let inodes = found.f_files == 0 || found.f_favail > found.f_files / PART;
    bytes && inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_is_left_to_others_and_of_a_large_disk_a_gibibyte() {
        let mut found = statvfs("/").unwrap();
        (found.f_frsize, found.f_blocks) = (4096, 100 << 18);
        (found.f_files, found.f_favail) = (1000, 1000);
        found.f_bavail = 1 << 18;
        assert!(!is_left(&found));
        found.f_bavail += 1;
        assert!(is_left(&found));
        found.f_favail = 50;
        assert!(!is_left(&found));
        found.f_files = 0;
        assert!(is_left(&found));
        (found.f_blocks, found.f_bavail) = (2000, 100);
        assert!(!is_left(&found));
        found.f_bavail = 101;
        assert!(is_left(&found));
    }
}
