//! The log files of one dyno as one sequence of lines, while the monitor
//! writes and rotates them.
//!
//! Files are opened newest first: a rotation moves a file only towards older
//! names, so one may be met twice (told apart by its inode, which cannot be
//! reused while it is open) and never missed. A file's successor is opened
//! only after the file was read to its end *again*, for what was written
//! between the last read and the rotation.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::KEEP;

const CHUNK: usize = 64 * 1024;
/// P15: no line of a monitor is longer; a file without newlines is damaged.
const MAX_LINE: usize = 1 << 20;

/// A reading position in the log of one dyno.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    current: Option<OpenLog>,
    newer: VecDeque<OpenLog>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    inode: (u64, u64),
    offset: u64,
    /// Nothing from here on is read.
    end: u64,
    pending: Vec<u8>,
    consumed: usize,
}

impl LogFiles {
    /// At the oldest line that is kept. A dyno that wrote nothing has no
    /// file, and its log is empty.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut files = Self {
            path: path.to_owned(),
            current: None,
            newer: VecDeque::new(),
        };
        files.look_for_newer()?;
        files.advance();
        Ok(files)
    }

    /// From now on the files end where they end now, however fast they grow:
    /// a reader is never kept by a writer (P15).
    pub(super) fn end_here(&mut self) -> io::Result<()> {
        for log in self.current.iter_mut().chain(&mut self.newer) {
            log.end = log.file.metadata()?.len();
        }
        Ok(())
    }

    /// The same position once more, reading on its own.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            current: self.current.as_ref().map(OpenLog::try_clone).transpose()?,
            newer: self
                .newer
                .iter()
                .map(OpenLog::try_clone)
                .collect::<io::Result<_>>()?,
        })
    }

    /// The next line of the files that are open; `None` at their end.
    pub(super) fn next_known(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            if let Some(line) = current.next_line()? {
                return Ok(Some(line));
            }
            if self.newer.is_empty() {
                return Ok(None);
            }
            self.advance();
        }
    }

    /// The next line; `None` when there is none yet.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.next_known()? {
            return Ok(Some(line));
        }
        self.look_for_newer()?;
        if self.current.is_none() {
            self.advance();
        }
        self.next_known()
    }

    fn advance(&mut self) {
        if let Some(next) = self.newer.pop_front() {
            self.current = Some(next);
        }
    }

    /// Opens the files that are newer than the current one, oldest first.
    fn look_for_newer(&mut self) -> io::Result<()> {
        let known = self.current.as_ref().map(|log| log.inode);
        let mut found: VecDeque<OpenLog> = VecDeque::new();
        for age in 0..=KEEP + 1 {
            let Some(log) = OpenLog::open(&aged(&self.path, age))? else {
                continue;
            };
            if Some(log.inode) == known {
                break;
            }
            if !found.iter().any(|other| other.inode == log.inode) {
                found.push_front(log);
            }
        }
        self.newer = found;
        Ok(())
    }
}

fn aged(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

impl OpenLog {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let inode = (meta.dev(), meta.ino());
        Ok(Some(Self {
            file,
            inode,
            offset: 0,
            end: u64::MAX,
            pending: Vec::new(),
            consumed: 0,
        }))
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            inode: self.inode,
            offset: self.offset,
            end: self.end,
            pending: self.pending.clone(),
            consumed: self.consumed,
        })
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = self.consumed;
        loop {
            if let Some(length) = self.pending[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.pending[self.consumed..searched + length].to_vec();
                self.consumed = searched + length + 1;
                return Ok(Some(line));
            }
            self.pending.drain(..self.consumed);
            self.consumed = 0;
            if self.pending.len() > MAX_LINE {
                self.pending.clear();
            }
            searched = self.pending.len();
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let start = self.pending.len();
        let left = self.end.saturating_sub(self.offset);
        let room = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        self.pending.resize(start + room, 0);
        let read = self.file.read_at(&mut self.pending[start..], self.offset);
        let count = *read.as_ref().unwrap_or(&0);
        self.pending.truncate(start + count);
        self.offset += count as u64;
        read
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(path: &Path) {
        for age in (0..KEEP).rev() {
            if aged(path, age).exists() {
                fs::rename(aged(path, age), aged(path, age + 1)).unwrap();
            }
        }
    }

    fn drain(files: &mut LogFiles) -> Vec<String> {
        std::iter::from_fn(|| files.next().unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_seen_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut files = LogFiles::open(&path).unwrap();
        assert!(drain(&mut files).is_empty());
        append(&path, "one\ntw");
        assert_eq!(drain(&mut files), ["one"]);
        append(&path, "o\n");
        assert_eq!(drain(&mut files), ["two"]);
    }

    #[test]
    fn what_was_written_just_before_a_rotation_is_read_before_what_came_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, "1\n");
        let mut files = LogFiles::open(&path).unwrap();
        assert_eq!(drain(&mut files), ["1"]);
        append(&path, "2\n");
        rotate(&path);
        append(&path, "3\n");
        rotate(&path);
        append(&path, "4\n");
        assert_eq!(drain(&mut files), ["2", "3", "4"]);
    }

    proptest! {
        /// Any interleaving of writes, rotations and reads in which the
        /// reader is not overtaken by more rotations than are kept.
        #[test]
        fn nothing_is_lost_or_doubled_across_rotations(steps in prop::collection::vec(0..4u8, 1..120)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let mut files = LogFiles::open(&path).unwrap();
            let (mut written, mut read, mut unread_rotations) = (0, Vec::new(), 0);
            for step in steps {
                match step {
                    0 | 1 => {
                        append(&path, &format!("{written}\n"));
                        written += 1;
                    }
                    2 if unread_rotations < KEEP => {
                        rotate(&path);
                        unread_rotations += 1;
                    }
                    _ => {
                        read.extend(drain(&mut files));
                        unread_rotations = 0;
                    }
                }
            }
            read.extend(drain(&mut files));
            let expected: Vec<String> = (0..written).map(|n| n.to_string()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
