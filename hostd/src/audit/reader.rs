//! Reads the log: one entry of each operation, from its two lines.
//!
//! Files are read forwards, a part at a time, up to where the writer says that it ends. An
//! operation's first line is held until its last one comes; those that a hostd left behind
//! are told as `unknown` where the next one began. So what is held are the operations that
//! ran at the same time, and nothing else (P15).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dyno_api::audit::{AuditCaller, AuditEntry, AuditState};
use dyno_api::query::AuditQuery;
use jiff::Timestamp;

use super::keeper::START;
use super::line;
use super::segment::{self, End};

/// Bytes that are read at a time; a line is shorter.
const PART: usize = 256 << 10;
/// P15: operations without an end that are held.
const MAX_OPEN: usize = 16 * 1024;

/// What is asked of a log.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) query: AuditQuery,
    /// An operation that is not told: the one that reads.
    pub(super) except: u64,
}

/// A reader, somewhere in a log. Blocks.
#[derive(Debug)]
pub(super) struct Reader {
    folder: PathBuf,
    wanted: Wanted,
    number: u64,
    file: Option<File>,
    at: u64,
    open: BTreeMap<u64, AuditEntry>,
}

impl Wanted {
    fn is(&self, entry: &AuditEntry) -> bool {
        let query = &self.query;
        let named =
            |text: &Option<String>, is: &dyn Fn(&str) -> bool| text.as_deref().is_none_or(is);
        entry.id != self.except
            && query.since.is_none_or(|since| entry.time >= since)
            && query.until.is_none_or(|until| entry.time < until)
            && named(&query.operation, &|text| entry.is_operation(text))
            && named(&query.caller, &|text| entry.caller.is(text))
    }
}

impl Reader {
    /// A reader that begins no earlier than what is asked for needs.
    pub(super) fn open(folder: &Path, wanted: Wanted, end: End) -> io::Result<Self> {
        let numbers: Vec<u64> = segment::numbers(folder)?
            .into_iter()
            .filter(|number| *number <= end.number)
            .collect();
        let (mut begin, mut found) = (numbers.len().saturating_sub(1), 0);
        while begin > 0 {
            let number = numbers[begin];
            let first = begun(folder, number)?;
            if let (Some(since), Some(first)) = (wanted.query.since, first)
                && first < since
            {
                break;
            }
            if let Some(limit) = wanted.query.limit {
                found += Self::at(folder, wanted.clone(), number).count(end)?;
                if found >= limit {
                    break;
                }
            }
            begin -= 1;
        }
        let number = numbers.get(begin).copied().unwrap_or(end.number);
        Ok(Self::at(folder, wanted, number))
    }

    fn at(folder: &Path, wanted: Wanted, number: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            wanted,
            number,
            file: None,
            at: 0,
            open: BTreeMap::new(),
        }
    }

    /// What there is next of what was asked for, possibly nothing of a part; `None` at the
    /// end.
    pub(super) fn next(&mut self, end: End) -> io::Result<Option<Vec<AuditEntry>>> {
        loop {
            if let Some(bytes) = self.part(end)? {
                let mut told = Vec::new();
                for line in line::whole(&bytes).split(|byte| *byte == b'\n') {
                    self.take(line, &mut told);
                }
                told.retain(|entry| self.wanted.is(entry));
                return Ok(Some(told));
            }
            if self.number >= end.number {
                return Ok(None);
            }
            let later = segment::numbers(&self.folder)?;
            let later = later.into_iter().find(|number| *number > self.number);
            (self.number, self.file, self.at) = (later.unwrap_or(end.number), None, 0);
        }
    }

    /// What runs still, of what was asked for.
    pub(super) fn running(&mut self) -> Vec<AuditEntry> {
        let open = std::mem::take(&mut self.open).into_values();
        open.filter(|entry| self.wanted.is(entry)).collect()
    }

    /// The next whole lines of the current file; `None` at its end.
    fn part(&mut self, end: End) -> io::Result<Option<Vec<u8>>> {
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(segment::path(&self.folder, self.number)) {
                Ok(file) => self.file.insert(file),
                // It was the oldest.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut bytes = vec![0; PART];
        let mut most = PART;
        if self.number == end.number {
            let left = end.at.saturating_sub(self.at);
            most = usize::try_from(left).unwrap_or(PART).min(PART);
        }
        let count = file.read_at(&mut bytes[..most], self.at)?;
        bytes.truncate(count);
        let whole = line::whole(&bytes).len();
        bytes.truncate(whole);
        self.at += whole as u64;
        Ok((whole > 0).then_some(bytes))
    }

    /// Takes a line; what is known by it comes to `told`.
    fn take(&mut self, line: &[u8], told: &mut Vec<AuditEntry>) {
        let Some(entry) = line::parse(line) else {
            if !line.is_empty() {
                tracing::warn!(file = self.number, "a line of the audit log cannot be read");
            }
            return;
        };
        if entry.state == AuditState::Running {
            self.open.insert(entry.id, entry);
            if self.open.len() > MAX_OPEN {
                told.extend(self.open.pop_first().map(|(_, entry)| unknown(entry)));
            }
            return;
        }
        if entry.operation == START {
            let left = std::mem::take(&mut self.open);
            told.extend(left.into_values().map(unknown));
        }
        self.open.remove(&entry.id);
        told.push(entry);
    }

    /// How many there are in the current file.
    fn count(mut self, end: End) -> io::Result<usize> {
        let (number, mut count) = (self.number, 0);
        while self.number == number {
            match self.next(end)? {
                Some(told) if self.number == number => count += told.len(),
                _ => break,
            }
        }
        Ok(count)
    }
}

/// Nobody will say how it ended.
fn unknown(entry: AuditEntry) -> AuditEntry {
    AuditEntry {
        state: AuditState::Unknown,
        ..entry
    }
}

/// When the first operation of a file was begun that was begun in it: its last lines may be of
/// one that is far older.
fn begun(folder: &Path, number: u64) -> io::Result<Option<Timestamp>> {
    let file = match File::open(segment::path(folder, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = vec![0; PART];
    let count = file.read_at(&mut bytes, 0)?;
    let lines = line::whole(&bytes[..count]).split(|byte| *byte == b'\n');
    let first = lines.filter_map(line::parse).find(is_begin);
    Ok(first.map(|entry| entry.time))
}

/// Whether a line was written when its operation was begun.
fn is_begin(entry: &AuditEntry) -> bool {
    entry.state == AuditState::Running || entry.caller == AuditCaller::Hostd
}
