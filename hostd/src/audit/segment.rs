//! One file of the log: `audit/00000007.jsonl`.
//!
//! ```text
//! line line line … line 000000000000000
//!                       ▲              ▲
//!                       at             reserved
//! ```
//!
//! Zeros are written ahead of the lines. What overwrites them needs no room that a full disk
//! has not, and its fdatasync(2) waits for no commit of the file system's journal: neither
//! size nor blocks of the file change. fallocate(2) alone would leave blocks that are marked
//! as written at that moment, in the journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::line;

/// Bytes of a file's end that are looked at first.
const TAIL: u64 = 4 << 20;

/// One file of the log, and how far it is.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number; they rise.
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    /// Where the next line goes.
    pub(super) at: u64,
    /// Up to where it is filled.
    pub(super) reserved: u64,
}

/// A place in a log, up to which it can be read: in the file of this number, behind so many
/// bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) number: u64,
    pub(super) at: u64,
}

impl Segment {
    /// An empty one.
    pub(super) fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = options.mode(0o600).open(path(folder, number))?;
        Ok(Self {
            number,
            file: Arc::new(file),
            at: 0,
            reserved: 0,
        })
    }

    /// One that is there, its last lines, and how many bytes behind them were cut off: a power
    /// cut left a part of a line, or a page whose neighbour was lost.
    pub(super) fn open(folder: &Path, number: u64) -> io::Result<(Self, Vec<u8>, usize)> {
        let path = path(folder, number);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let reserved = file.metadata()?.len();
        let (begin, mut bytes) = tail(&file, reserved)?;
        let lines = line::whole(&bytes).len();
        let rest = &bytes[lines..];
        let torn = rest
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let at = begin + lines as u64;
        // Not cut from the file: a full disk may not give the room again.
        file.write_all_at(&vec![0; torn], at)?;
        bytes.truncate(lines);
        let segment = Self {
            number,
            file: Arc::new(file),
            at,
            reserved,
        };
        Ok((segment, bytes, torn))
    }

    /// Writes a line behind the others. What fails leaves none.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all_at(line, self.at)?;
        self.at += line.len() as u64;
        self.reserved = self.reserved.max(self.at);
        Ok(())
    }

    /// Fills it up to there.
    pub(super) fn reserve(&mut self, to: u64) -> io::Result<()> {
        let missing = to.saturating_sub(self.reserved);
        let zeros = vec![0; usize::try_from(missing).unwrap_or(usize::MAX)];
        self.file.write_all_at(&zeros, self.reserved)?;
        self.reserved += missing;
        Ok(())
    }

    /// Whether lines could be written: one more zero is.
    pub(super) fn can_be_written(&self) -> io::Result<()> {
        self.file.write_all_at(&[0], self.at)
    }

    /// The end of its lines.
    pub(super) fn end(&self) -> End {
        End {
            number: self.number,
            at: self.at,
        }
    }

    /// Bytes that fit into what is filled.
    pub(super) fn left(&self) -> u64 {
        self.reserved - self.at
    }
}

/// The end of a file, with some of its lines, and where that begins. Zeros reach as far back
/// as was filled ahead, and what a power cut tore as far as lines are not synced: not far.
fn tail(file: &File, length: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut most = TAIL;
    loop {
        let begin = length.saturating_sub(most);
        let size = usize::try_from(length - begin).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, begin)?;
        if begin == 0 || !line::whole(&bytes).is_empty() {
            return Ok((begin, bytes));
        }
        most *= 2;
    }
}

/// Where a file of the log is.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.jsonl"))
}

/// The numbers of all files of a log, the oldest first.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_large_file_is_found_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = Segment::create(folder.path(), 1).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let lines = line.repeat(5000);
        made.append(&lines).unwrap();
        // Less and more zeros than are looked at first.
        for zeros in [0, 1000, TAIL + 1000] {
            made.reserve(made.at + zeros).unwrap();
            let (found, last, torn) = Segment::open(folder.path(), 1).unwrap();
            assert_eq!((found.at, torn), (lines.len() as u64, 0), "{zeros}");
            assert!(last.ends_with(&line) && last.len() <= lines.len());
        }
    }

    #[test]
    fn what_a_power_cut_left_behind_the_lines_is_cut_off_and_its_room_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = Segment::create(folder.path(), 7).unwrap();
        made.append(b"one\n").unwrap();
        made.reserve(4096).unwrap();
        // A part of a line; behind it a page that was written where one before was not.
        made.file.write_all_at(b"two", 4).unwrap();
        made.file.write_all_at(b"four\n", 1000).unwrap();
        let (mut found, lines, torn) = Segment::open(folder.path(), 7).unwrap();
        assert_eq!((&lines[..], torn), (&b"one\n"[..], 1001));
        assert_eq!((found.at, found.reserved, found.left()), (4, 4096, 4092));
        found.append(b"2\n").unwrap();
        let bytes = fs::read(path(folder.path(), 7)).unwrap();
        assert!(bytes.starts_with(b"one\n2\n\0"));
        assert_eq!(bytes.len(), 4096);
        assert!(bytes[6..].iter().all(|byte| *byte == 0));
        assert_eq!(numbers(folder.path()).unwrap(), [7]);
    }
}
