//! The files of one log in their folder, and their order.
//!
//! ```text
//! log            a symbolic link to the file being written, for people
//! log.00000007   what is being written, or was; the number only grows
//! log.00000006.gz   compressed by hostd, once nothing more is written to it
//! log.dropped    how many entries were dropped, ever
//! ```
//!
//! A file keeps its number, whatever becomes of it: who reads, compresses or
//! removes one can do so while another is begun. Where both forms of a file are
//! there, they say the same: the plain one is about to go.
//!
//! Before files had numbers, `log` was what is written and `log.1` … `log.N`
//! what was written before, the oldest last. An upgraded host may still have
//! such: they are older than all that have numbers.

use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The least digits of a number; an age has less.
const DIGITS: usize = 8;

/// One file of a log; the older is the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `log` (0) or `log.N` of a monitor that shifted its files' names.
    Aged(Reverse<u32>),
    /// `log.00000007`.
    Numbered(u64),
}

/// A file that is there, and in which forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Which file.
    pub part: Part,
    /// As it was written.
    pub plain: bool,
    /// Compressed (RFC 1952).
    pub compressed: bool,
}

/// The files of the log at this path, oldest first; the last one is being
/// written, if any is. A log whose folder is not there has none.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(path: &Path) -> io::Result<Vec<Listed>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files: Vec<Listed> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some((part, compressed)) = parse(&entry.file_name(), name) else {
            continue;
        };
        if !entry.file_type()?.is_file() {
            continue;
        }
        let at = match files.iter().position(|file| file.part == part) {
            Some(at) => at,
            None => {
                files.push(Listed {
                    part,
                    plain: false,
                    compressed: false,
                });
                files.len() - 1
            }
        };
        files[at].plain |= !compressed;
        files[at].compressed |= compressed;
    }
    files.sort_unstable_by_key(|file| file.part);
    Ok(files)
}

/// Where this file of the log is, as it was written.
pub fn plain(path: &Path, part: Part) -> PathBuf {
    match part {
        Part::Aged(Reverse(0)) => path.to_owned(),
        Part::Aged(Reverse(age)) => with(path, &format!(".{age}")),
        Part::Numbered(number) => with(path, &format!(".{number:0DIGITS$}")),
    }
}

/// Where the file with this number is once it is compressed.
pub fn compressed(path: &Path, number: u64) -> PathBuf {
    with(path, &format!(".{number:0DIGITS$}.gz"))
}

/// What is there of [`half_compressed`] files.
///
/// # Errors
/// When the folder cannot be read.
pub fn half_done(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        let whole = file.as_bytes().strip_suffix(b".next");
        let parsed = whole.and_then(|whole| parse(OsStr::from_bytes(whole), name));
        if matches!(parsed, Some((_, true))) {
            found.push(folder.join(file));
        }
    }
    Ok(found)
}

/// Where the file with this number is while it is being compressed.
pub fn half_compressed(path: &Path, number: u64) -> PathBuf {
    with(path, &format!(".{number:0DIGITS$}.gz.next"))
}

/// How many entries of the log were dropped, ever; 0 where nobody counted any.
///
/// # Errors
/// When the count is there and cannot be read.
pub fn dropped(path: &Path) -> io::Result<u64> {
    match fs::read_to_string(dropped_file(path)) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Where [`dropped`] is kept.
pub(super) fn dropped_file(path: &Path) -> PathBuf {
    with(path, ".dropped")
}

/// `log.dropped` → while it is being replaced; also for the link.
pub(super) fn next(path: &Path) -> PathBuf {
    with(path, ".next")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Which file of the log `log` has this name, and whether it is compressed.
fn parse(file: &OsStr, log: &OsStr) -> Option<(Part, bool)> {
    let rest = file.as_bytes().strip_prefix(log.as_bytes())?;
    let rest = std::str::from_utf8(rest).ok()?;
    if rest.is_empty() {
        return Some((Part::Aged(Reverse(0)), false));
    }
    let rest = rest.strip_prefix('.')?;
    let (digits, compressed) = match rest.strip_suffix(".gz") {
        Some(digits) => (digits, true),
        None => (rest, false),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if digits.len() >= DIGITS {
        return Some((Part::Numbered(digits.parse().ok()?), compressed));
    }
    let age: u32 = digits.parse().ok()?;
    (age > 0 && !compressed && !digits.starts_with('0'))
        .then_some((Part::Aged(Reverse(age)), false))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_listed_oldest_first_and_others_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for name in [
            "log.2",
            "log.1",
            "log.12",
            "log.00000010",
            "log.00000009.gz",
            "log.00000009",
            "log.00000008.gz",
            "log.123456789",
            "log.00000008.gz.next",
            "log.dropped",
            "log.next",
            "log.1.gz",
            "log.01",
            "logs",
            "dyno.json",
        ] {
            fs::File::create(folder.path().join(name)).unwrap();
        }
        symlink("log.123456789", &path).unwrap();
        let parts: Vec<(Part, bool, bool)> = list(&path)
            .unwrap()
            .iter()
            .map(|file| (file.part, file.plain, file.compressed))
            .collect();
        let aged = |age| (Part::Aged(Reverse(age)), true, false);
        assert_eq!(
            parts,
            [
                aged(12),
                aged(2),
                aged(1),
                (Part::Numbered(8), false, true),
                (Part::Numbered(9), true, true),
                (Part::Numbered(10), true, false),
                (Part::Numbered(123_456_789), true, false),
            ]
        );
        let half = half_compressed(&path, 8);
        assert_eq!(half_done(&path).unwrap(), [half]);
        for (part, plain_form, compressed_form) in parts {
            assert_eq!(plain(&path, part).is_file(), plain_form, "{part:?}");
            if let Part::Numbered(number) = part {
                assert_eq!(compressed(&path, number).is_file(), compressed_form);
            }
        }
    }

    #[test]
    fn a_log_that_is_not_there_has_no_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(list(&folder.path().join("no/log")).unwrap(), []);
        assert_eq!(dropped(&folder.path().join("log")).unwrap(), 0);
    }
}
