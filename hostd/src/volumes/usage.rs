//! What a volume takes up, counted file by file where no quota counts it.
//!
//! Dynos may be changing it: folders are opened by descriptor and name and nothing is
//! followed (P1).

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use dyno_api::volume::VolumeUsage;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

/// P15: what is counted after this is left out.
const TIME: Duration = Duration::from_secs(5);
const MAX_DEPTH: usize = 512;
/// Bytes of the unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Counts all that is in a folder, and the folder itself.
///
/// # Errors
/// What the file system says of the folder itself.
pub(super) fn count(folder: &Path) -> io::Result<VolumeUsage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let mut counting = Counting {
        found: VolumeUsage::default(),
        linked: HashSet::new(),
        until: Instant::now() + TIME,
    };
    counting.add(&rustix::fs::fstat(&folder)?);
    counting.inside(&folder, 0)?;
    Ok(counting.found)
}

struct Counting {
    found: VolumeUsage,
    /// Files with more than one name, which count once.
    linked: HashSet<u64>,
    until: Instant,
}

impl Counting {
    fn add(&mut self, stat: &Stat) {
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !is_folder && !self.linked.insert(stat.st_ino) {
            return;
        }
        self.found.inodes += 1;
        self.found.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
    }

    fn inside(&mut self, folder: &OwnedFd, depth: usize) -> io::Result<()> {
        for found in Dir::read_from(folder.as_fd())? {
            if depth > MAX_DEPTH || Instant::now() > self.until {
                self.found.partial = true;
                return Ok(());
            }
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // What goes meanwhile is not there.
            let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(inner) = rustix::fs::openat(folder, name, flags, Mode::empty()) {
                self.inside(&inner, depth + 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn files_count_once_and_with_what_they_take_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        let mut file = fs::File::create(folder.path().join("deep/file")).unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        file.sync_all().unwrap();
        fs::hard_link(folder.path().join("deep/file"), folder.path().join("same")).unwrap();
        let hole = fs::File::create(folder.path().join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        let found = count(folder.path()).unwrap();
        assert_eq!((found.inodes, found.partial), (4, false));
        assert!((100_000..1 << 20).contains(&found.bytes), "{found:?}");
    }
}
