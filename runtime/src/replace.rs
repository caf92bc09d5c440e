//! Replacing a file for its readers, not for the disk.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Puts the file `new` in the place of `path`, which may be there or not. Whoever
/// opens `path` finds the old or the new one, whole, whatever becomes of us; after
/// a power cut it may be an empty one.
///
/// A rename over a file makes ext4 write the new one out at once (`auto_da_alloc`,
/// ext4(5)), and its removal soon afterwards waits for the disk. So the two change
/// places (renameat2(2)), and the old one is removed: as atomic, and no disk is
/// asked.
///
/// # Errors
/// As rename(2); `path` is what it was then.
pub fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(new),
        // There was none, or the file system cannot do that.
        Err(_) => fs::rename(new, path),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(path: &Path, text: &str) {
        let mut file = fs::File::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn one_file_is_there_afterwards_and_it_is_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (new, path) = (folder.path().join("new"), folder.path().join("path"));
        for text in ["first", "second", "third"] {
            file(&new, text);
            put_in_place(&new, &path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert!(!new.exists());
        }
    }

    #[test]
    fn what_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (new, path) = (folder.path().join("new"), folder.path().join("path"));
        file(&path, "old");
        assert!(put_in_place(&new, &path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
