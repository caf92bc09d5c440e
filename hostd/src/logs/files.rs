//! The log files of one dyno as one sequence of lines, while the monitor
//! writes, rotates and removes them and hostd compresses them.
//!
//! A file is known by its number, whatever form it is in. A file's successor is
//! begun only after the file was read to its end *again*, for what was written
//! between the last read and the rotation.
//!
//! Files of a monitor that gave no numbers are opened newest first: a rotation
//! moves them only towards older names, so one may be met twice (told apart by
//! its inode) and never missed.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dyno_runtime::monitor::log::folder::{self, Listed, Part};
use serde::{Deserialize, Serialize};

use super::source::Source;

/// The oldest name that a monitor without numbers gave.
const OLDEST_AGE: u32 = 4;

/// A file's time may be so much earlier than that of a line in it.
const TICK: Duration = Duration::from_secs(1);

/// A place in a log that outlives whoever reads it. The default is its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Number of the file; 0 where it has none.
    pub file: u64,
    /// Bytes of it, uncompressed, that were read.
    pub offset: u64,
}

/// A reading position in the log of one dyno.
#[derive(Debug)]
pub(crate) struct LogFiles {
    path: PathBuf,
    current: Option<Source>,
    newer: VecDeque<Source>,
    /// Files that were removed before they were opened.
    missed: u64,
}

impl LogFiles {
    /// At the oldest line that is kept. A dyno that wrote nothing has no
    /// file, and its log is empty.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut files = Self {
            path: path.to_owned(),
            current: None,
            newer: VecDeque::new(),
            missed: 0,
        };
        files.look_for_newer()?;
        files.advance();
        Ok(files)
    }

    /// Where an earlier reader was, or at the oldest line after that which is kept.
    pub(crate) fn open_at(path: &Path, position: Position) -> io::Result<Self> {
        let mut files = Self::open(path)?;
        if position.file == 0 {
            return Ok(files);
        }
        while files.number().is_some_and(|number| number < position.file) && !files.newer.is_empty()
        {
            files.advance();
        }
        match &mut files.current {
            Some(current) if current.part == Part::Numbered(position.file) => {
                let skipped = current.skip(position.offset);
                files.missed = 0;
                match skipped {
                    Err(error) if !files.pass_over(&error) => return Err(error),
                    _ => {}
                }
            }
            Some(_) => {
                let number = files.number().unwrap_or(0);
                files.missed = number.saturating_sub(position.file);
            }
            None => {}
        }
        Ok(files)
    }

    /// Where the log at `path` ends now.
    pub(crate) fn end(path: &Path) -> io::Result<Position> {
        let mut files = Self::open(path)?;
        while !files.newer.is_empty() {
            files.advance();
        }
        let offset = files.current.as_ref().map_or(Ok(0), Source::unread)?;
        Ok(match files.number() {
            Some(file) => Position { file, offset },
            None => Position::default(),
        })
    }

    /// Where the next line begins.
    pub(crate) fn position(&self) -> Position {
        let offset = self.current.as_ref().map_or(0, |current| current.position);
        let at = self.number().map(|file| Position { file, offset });
        at.unwrap_or_default()
    }

    /// Opens all that there is: it can be read to its end, even when it is removed.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        self.look_for_newer()?;
        if self.current.is_none() {
            self.advance();
        }
        Ok(())
    }

    /// Bytes of the files that are open which were not read yet.
    pub(crate) fn unread(&self) -> io::Result<u64> {
        let files = self.current.iter().chain(&self.newer);
        files.map(Source::unread).sum()
    }

    /// Gives memory back that the next line does not need.
    pub(crate) fn let_go(&mut self) {
        if let Some(current) = &mut self.current {
            current.let_go();
        }
    }

    /// How many files were removed before they could be read, since this was last asked.
    pub(crate) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    fn number(&self) -> Option<u64> {
        match self.current.as_ref()?.part {
            Part::Numbered(number) => Some(number),
            Part::Aged(_) => None,
        }
    }

    /// Passes over files that were not written to any more by then.
    pub(super) fn skip_older_than(&mut self, time: SystemTime) -> io::Result<()> {
        while let Some(current) = &self.current
            && !self.newer.is_empty()
            && current.written()? + TICK < time
        {
            self.advance();
        }
        Ok(())
    }

    /// Passes over all but the last lines that `counts` counts, so many of them.
    /// Only the files that hold them are read, and nothing is kept in memory.
    pub(super) fn skip_to_last(
        &mut self,
        tail: usize,
        counts: impl Fn(&[u8]) -> bool,
    ) -> io::Result<()> {
        let (mut total, mut files) = (0_usize, 0);
        for file in self.current.iter().chain(&self.newer).rev() {
            let mut ahead = file.again();
            while let Some(line) = ahead.next_line()? {
                total += usize::from(counts(&line));
            }
            files += 1;
            // Not at exactly as many: the first of them may have begun before.
            if total > tail {
                break;
            }
        }
        while self.newer.len() >= files && files > 0 {
            self.advance();
        }
        let mut skip = total.saturating_sub(tail);
        while skip > 0 {
            let Some(line) = self.next_known()? else {
                return Ok(());
            };
            skip -= usize::from(counts(&line));
        }
        Ok(())
    }

    /// From now on the files end where they end now, however fast they grow:
    /// a reader is never kept by a writer (P15).
    pub(super) fn end_here(&mut self) -> io::Result<()> {
        let mut files = self.current.iter_mut().chain(&mut self.newer);
        files.try_for_each(Source::end_here)
    }

    /// The next line of the files that are open; `None` at their end.
    pub(crate) fn next_known(&mut self) -> io::Result<Option<Vec<u8>>> {
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
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.next_known()? {
            return Ok(Some(line));
        }
        self.look_for_newer()?;
        if self.current.is_none() {
            self.advance();
        }
        self.next_known()
    }

    /// Passes over the file that this error came from, where that one is damaged: it is
    /// counted as missed, and the next one is read. Whether that is so.
    pub(crate) fn pass_over(&mut self, error: &io::Error) -> bool {
        let Some(current) = self.current.as_mut().filter(|file| file.is_damaged(error)) else {
            return false;
        };
        tracing::warn!(log = %self.path.display(), %error, "a damaged file is passed over");
        current.give_up();
        self.missed += 1;
        true
    }

    fn advance(&mut self) {
        if let Some(next) = self.newer.pop_front() {
            if let (Some(before), Part::Numbered(after)) = (self.number(), next.part) {
                self.missed += after.saturating_sub(before + 1);
            }
            self.current = Some(next);
        }
    }

    /// Opens the files that are newer than the current one, oldest first. What is open
    /// already stays so, and where one cannot be opened nothing has changed.
    fn look_for_newer(&mut self) -> io::Result<()> {
        let listed = folder::list(&self.path)?;
        let has_ages = listed
            .first()
            .is_some_and(|oldest| matches!(oldest.part, Part::Aged(_)));
        let open = self.current.iter().chain(&self.newer);
        if has_ages || open.clone().any(|file| matches!(file.part, Part::Aged(_))) {
            return self.look_by_age(&listed, has_ages);
        }
        let latest = open.map(|file| file.part).max();
        let mut found = Vec::new();
        for file in listed.iter().filter(|file| Some(file.part) > latest) {
            found.extend(Source::open(&self.path, file.part)?);
        }
        self.newer.extend(found);
        Ok(())
    }

    /// The same, where names change.
    fn look_by_age(&mut self, listed: &[Listed], has_ages: bool) -> io::Result<()> {
        let numbers = listed
            .iter()
            .rev()
            .map(|file| file.part)
            .filter(|part| matches!(part, Part::Numbered(_)));
        let ages = (0..=OLDEST_AGE + 1).map(|age| Part::Aged(Reverse(age)));
        let mut newer: VecDeque<Source> = VecDeque::new();
        for part in numbers.chain(ages.filter(|_| has_ages)) {
            if self.is_known(part) {
                break;
            }
            let Some(file) = Source::open(&self.path, part)? else {
                continue;
            };
            match &mut self.current {
                Some(current) if current.inode == file.inode => {
                    current.part = part;
                    break;
                }
                _ if newer.iter().any(|other| other.inode == file.inode) => {}
                _ => newer.push_front(file),
            }
        }
        self.newer = newer;
        Ok(())
    }

    /// Whether the file with this number is the current one, or an older one.
    fn is_known(&self, part: Part) -> bool {
        let current = self.current.as_ref().map(|current| current.part);
        matches!(current, Some(Part::Numbered(_))) && Some(part) <= current
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::logs::compress;

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// As a monitor without numbers did.
    fn shift(path: &Path) {
        for age in (0..OLDEST_AGE).rev() {
            let aged = |age| folder::plain(path, Part::Aged(Reverse(age)));
            if aged(age).exists() {
                fs::rename(aged(age), aged(age + 1)).unwrap();
            }
        }
    }

    fn numbered(path: &Path, number: u64) -> PathBuf {
        folder::plain(path, Part::Numbered(number))
    }

    fn drain(files: &mut LogFiles) -> Vec<String> {
        std::iter::from_fn(|| files.next().unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    /// The same, and how many files were passed over.
    fn drain_damaged(files: &mut LogFiles) -> (Vec<String>, usize) {
        let (mut lines, mut failures) = (Vec::new(), 0);
        loop {
            match files.next() {
                Ok(Some(line)) => lines.push(String::from_utf8(line).unwrap()),
                Ok(None) => return (lines, failures),
                Err(error) => {
                    assert!(files.pass_over(&error), "{error}");
                    failures += 1;
                }
            }
        }
    }

    fn all(path: &Path) -> Vec<String> {
        drain(&mut LogFiles::open(path).unwrap())
    }

    #[test]
    fn a_line_is_seen_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut files = LogFiles::open(&path).unwrap();
        assert!(drain(&mut files).is_empty());
        append(&numbered(&path, 1), "one\ntw");
        assert_eq!(drain(&mut files), ["one"]);
        append(&numbered(&path, 1), "o\n");
        assert_eq!(drain(&mut files), ["two"]);
    }

    #[test]
    fn files_without_numbers_are_followed_and_so_is_their_numbering() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, "1\n");
        let mut files = LogFiles::open(&path).unwrap();
        assert_eq!(drain(&mut files), ["1"]);
        append(&path, "2\n");
        shift(&path);
        append(&path, "3\n");
        shift(&path);
        append(&path, "4\n");
        assert_eq!(drain(&mut files), ["2", "3", "4"]);
        append(&path, "5\n");
        for (number, age) in [(1, 2), (2, 1), (3, 0)] {
            let aged = folder::plain(&path, Part::Aged(Reverse(age)));
            fs::rename(aged, numbered(&path, number)).unwrap();
        }
        append(&numbered(&path, 4), "6\n");
        assert_eq!(drain(&mut files), ["5", "6"]);
        compress::rotated(&path).unwrap();
        append(&numbered(&path, 4), "7\n");
        assert_eq!(drain(&mut files), ["7"]);
        assert_eq!(all(&path), ["1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn each_state_that_a_crash_while_compressing_leaves_is_the_same_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for number in 1..=3 {
            append(&numbered(&path, number), &format!("{number}\n"));
        }
        let half = folder::half_compressed(&path, 1);
        let plain = fs::read(numbered(&path, 1)).unwrap();
        // Before the rename, after it, and after the removal.
        append(&half, "half of a f");
        assert_eq!(all(&path), ["1", "2", "3"]);
        compress::rotated(&path).unwrap();
        assert_eq!(all(&path), ["1", "2", "3"]);
        assert!(!half.exists() && !numbered(&path, 1).exists());
        append(&numbered(&path, 1), std::str::from_utf8(&plain).unwrap());
        assert_eq!(all(&path), ["1", "2", "3"]);
        compress::rotated(&path).unwrap();
        assert!(!numbered(&path, 1).exists() && numbered(&path, 3).exists());
        assert_eq!(all(&path), ["1", "2", "3"]);
        let age = |path| fs::metadata(path).unwrap().modified().unwrap();
        let written = age(folder::compressed(&path, 1));
        assert!(
            written <= age(numbered(&path, 3)),
            "it is as old as its lines"
        );
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for number in 0..9 {
            append(&numbered(&path, 1 + number / 3), &format!("{number}\n"));
        }
        compress::rotated(&path).unwrap();
        for tail in 0..12 {
            let mut files = LogFiles::open(&path).unwrap();
            files.skip_to_last(tail, |_| true).unwrap();
            let expected: Vec<String> = (9 - tail.min(9)..9).map(|n| n.to_string()).collect();
            assert_eq!(drain(&mut files), expected, "the last {tail}");
        }
    }

    #[test]
    fn a_position_outlives_rotations_and_compression() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert_eq!(LogFiles::end(&path).unwrap(), Position::default());
        append(&numbered(&path, 1), "1\n22\n333\n");
        let mut files = LogFiles::open(&path).unwrap();
        files.next().unwrap();
        files.next().unwrap();
        files.let_go();
        let at = files.position();
        assert_eq!((at.file, at.offset), (1, 5));
        append(&numbered(&path, 2), "4\n");
        compress::rotated(&path).unwrap();
        let mut again = LogFiles::open_at(&path, at).unwrap();
        assert_eq!(again.unread().unwrap(), 4 + 2);
        assert_eq!(again.next().unwrap().unwrap(), b"333");
        again.let_go();
        assert_eq!(drain(&mut again), ["4"]);
        assert_eq!(again.position(), LogFiles::end(&path).unwrap());
        assert_eq!(again.take_missed(), 0);
        // A power cut took the end of a file that was read already.
        let beyond = Position {
            file: 2,
            offset: 99,
        };
        let mut cut = LogFiles::open_at(&path, beyond).unwrap();
        append(&numbered(&path, 2), "5\n");
        assert_eq!(drain(&mut cut), ["5"]);
    }

    #[test]
    fn files_that_went_unread_are_counted_and_held_ones_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&numbered(&path, 1), "1\n");
        let mut files = LogFiles::open(&path).unwrap();
        append(&numbered(&path, 4), "4\n");
        assert_eq!(drain(&mut files), ["1", "4"]);
        assert_eq!(files.take_missed(), 2);
        append(&numbered(&path, 4), "more\n");
        append(&numbered(&path, 5), "5\n");
        files.hold().unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        let held = std::iter::from_fn(|| files.next_known().unwrap()).collect::<Vec<_>>();
        assert_eq!(held, [b"more".to_vec(), b"5".to_vec()]);
        let at = Position { file: 2, offset: 7 };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&numbered(&path, 5), "5\n");
        assert_eq!(LogFiles::open_at(&path, at).unwrap().take_missed(), 3);
    }

    #[test]
    fn a_damaged_file_is_passed_over_once_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for number in 1..=3 {
            append(&numbered(&path, number), &format!("{number}\n"));
        }
        compress::rotated(&path).unwrap();
        let damaged = folder::compressed(&path, 2);
        let whole = fs::read(&damaged).unwrap();
        for cut in 0..whole.len() {
            let file = OpenOptions::new().write(true).open(&damaged).unwrap();
            file.set_len(cut as u64).unwrap();
            let mut files = LogFiles::open(&path).unwrap();
            let (lines, failures) = drain_damaged(&mut files);
            assert_eq!(lines.first().unwrap(), "1");
            assert_eq!(lines.last().unwrap(), "3", "{cut} bytes are left");
            assert_eq!((failures, files.take_missed()), (1, 1));
            assert!(files.unread().is_ok());
            let at = Position { file: 2, offset: 1 };
            let mut again = LogFiles::open_at(&path, at).unwrap();
            assert_eq!(drain_damaged(&mut again).0.last().unwrap(), "3");
            assert_eq!(again.take_missed(), 1);
            fs::File::create(&damaged)
                .unwrap()
                .write_all(&whole)
                .unwrap();
        }
    }

    #[test]
    fn nothing_is_passed_over_where_a_file_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&numbered(&path, 1), "1\n");
        let mut files = LogFiles::open(&path).unwrap();
        append(&numbered(&path, 2), "2\n");
        files.hold().unwrap();
        append(&numbered(&path, 3), "3\n");
        // ELOOP, for whoever opens it.
        append(&folder::compressed(&path, 4), "");
        std::os::unix::fs::symlink(numbered(&path, 4), numbered(&path, 4)).unwrap();
        assert!(files.hold().is_err());
        assert_eq!(files.next().unwrap().unwrap(), b"1");
        assert_eq!(files.next().unwrap().unwrap(), b"2");
        assert!(files.next().is_err());
        fs::remove_file(numbered(&path, 4)).unwrap();
        append(&numbered(&path, 4), "4\n");
        assert_eq!(drain(&mut files), ["3", "4"]);
        assert_eq!(files.take_missed(), 0);
    }

    proptest! {
        /// Any interleaving of writes, rotations, compressions, removals of what
        /// was read, and reads.
        #[test]
        fn nothing_is_lost_or_doubled(steps in prop::collection::vec(0..6_u8, 1..120)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let mut files = LogFiles::open(&path).unwrap();
            let (mut written, mut read, mut number, mut drained) = (0, Vec::new(), 1, 1);
            for step in steps {
                match step {
                    0 | 1 => {
                        append(&numbered(&path, number), &format!("{written}\n"));
                        written += 1;
                    }
                    2 => {
                        number += 1;
                        append(&numbered(&path, number), "");
                    }
                    3 => compress::rotated(&path).unwrap(),
                    4 => for old in 1..drained {
                        fs::remove_file(numbered(&path, old)).ok();
                        fs::remove_file(folder::compressed(&path, old)).ok();
                    },
                    _ => {
                        read.extend(drain(&mut files));
                        drained = number;
                    }
                }
            }
            read.extend(drain(&mut files));
            let expected: Vec<String> = (0..written).map(|n| n.to_string()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
