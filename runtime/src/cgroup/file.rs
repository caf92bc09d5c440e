//! Reading and writing the small files that a hierarchy is made of.
//!
//! A cgroup file takes a value in one `write(2)`; it is neither created nor
//! truncated. No dyno can rename anything in these trees (inside, the mount is
//! read-only), so plain paths are safe here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bounds a read: the largest file we parse is `cgroup.procs` (P15).
const READ_MAX: u64 = 16 << 20;

/// Room for nearly every one of these files.
const USUAL: usize = 4096;

/// The content of a file without its last line end.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Whoever brings no room is asked to look how much it is, by another read.
    let mut text = String::with_capacity(USUAL);
    File::open(path)?.take(READ_MAX).read_to_string(&mut text)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Gives a file a value.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    match file.write(value.as_bytes())? {
        written if written == value.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The number behind `key` in a file of `key number` lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, number) = line.split_once(' ')?;
        if name == key {
            number.trim().parse().ok()
        } else {
            None
        }
    })
}

/// `None` instead of an error where the file or its folder is gone.
pub(super) fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ENODEV is what an open file of a removed cgroup says.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
