//! Whole entries on their way to the log's files: collected, written at once,
//! and counted where they cannot be.
//!
//! Where the disk takes nothing (full, broken) entries are dropped, and how many
//! is the first thing to be written once it does: in the log, and in
//! `log.dropped`, which counts on for ever.

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::file::LogFile;
use super::folder;
use super::{BATCH, Moment, Stream, prefix};
use crate::monitor::complain;
use crate::monitor::protocol::LogConfig;
use crate::replace;

/// How long nothing is tried after a write has failed.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The shortest and longest time between two looks at the files' ages.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// Entries that wait for one write, and the files they go to.
#[derive(Debug)]
pub(super) struct Entries {
    file: LogFile,
    batch: Vec<u8>,
    /// Entries in the batch.
    count: u64,
    missed: Missed,
    resume_at: Option<Instant>,
    look_at: Option<Instant>,
}

/// Entries that are not in the log, nor accounted for there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed {
    /// The disk refused them.
    pub(super) refused: u64,
    /// The disk was slower than the dyno, which was not to wait.
    pub(super) behind: u64,
}

impl Missed {
    fn total(self) -> u64 {
        self.refused.saturating_add(self.behind)
    }

    /// The entries that say so.
    fn notes(self, now: Moment) -> Vec<u8> {
        let mut notes = Vec::new();
        for (count, why) in [
            (self.refused, "the log could not be written"),
            (self.behind, "the log was written too slowly"),
        ] {
            if count > 0 {
                let text = format!("[dyno: {count} log entries were dropped: {why}]\n");
                notes.extend_from_slice(&prefix(Stream::Stderr, now.wall));
                notes.extend_from_slice(text.as_bytes());
            }
        }
        notes
    }
}

impl Entries {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(config: LogConfig) -> io::Result<Self> {
        Ok(Self::to(LogFile::open(config)?))
    }

    pub(super) fn to(file: LogFile) -> Self {
        let mut entries = Self {
            file,
            batch: Vec::new(),
            count: 0,
            missed: Missed::default(),
            resume_at: None,
            look_at: None,
        };
        entries.look_later(Instant::now());
        entries
    }

    /// Takes one whole entry, its newline included.
    pub(super) fn push(&mut self, pieces: &[&[u8]], now: Moment) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let full = self.batch.len() + length;
        if full > BATCH || !self.file.has_room(full) {
            self.flush(now);
        }
        pieces
            .iter()
            .for_each(|piece| self.batch.extend_from_slice(piece));
        self.count += 1;
    }

    /// So many entries that should have come before were dropped on the way here.
    pub(super) fn missed(&mut self, behind: u64, now: Moment) {
        self.flush(now);
        self.missed.behind += behind;
    }

    /// Writes what was taken, or counts it as dropped.
    pub(super) fn flush(&mut self, now: Moment) {
        let due = self.missed.total() > 0 && self.resume_at.is_none_or(|at| at <= now.steady);
        if self.count == 0 && !due {
            return;
        }
        let written = if self.resume_at.is_some_and(|at| now.steady < at) {
            false
        } else {
            self.try_flush(now)
        };
        if !written {
            self.missed.refused += self.count;
        }
        self.count = 0;
        self.batch.clear();
    }

    /// The same, without a pause after an earlier failure: the last chance.
    pub(super) fn flush_now(&mut self, now: Moment) {
        self.resume_at = None;
        self.flush(now);
    }

    /// Entries that were dropped and not yet accounted for in the log.
    pub(super) fn dropped(&self) -> u64 {
        self.missed.total()
    }

    /// When [`Entries::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let note = self.resume_at.filter(|_| self.missed.total() > 0);
        note.into_iter().chain(self.look_at).min()
    }

    /// Does what is due without a new entry.
    pub(super) fn tick(&mut self, now: Moment) {
        self.flush(now);
        if self.look_at.is_some_and(|at| at <= now.steady) {
            if let Err(error) = self.file.age() {
                complain(&format_args!("remove old files of the log: {error}"));
            }
            self.look_later(now.steady);
        }
    }

    fn look_later(&mut self, now: Instant) {
        let (least, most) = LOOKS;
        let age = self.file.max_age();
        self.look_at = age.map(|age| now + (age / 8).clamp(least, most));
    }

    fn try_flush(&mut self, now: Moment) -> bool {
        let missed = self.missed;
        let noted = match missed.total() {
            0 => Ok(()),
            _ => self.file.append(&missed.notes(now)),
        };
        if noted.is_ok() && missed.total() > 0 {
            self.missed = Missed::default();
            self.count_dropped(missed.total());
        }
        match noted.and_then(|()| self.file.append(&self.batch)) {
            Ok(()) => {
                self.resume_at = None;
                true
            }
            Err(error) => {
                if self.resume_at.is_none() {
                    complain(&format_args!("write the log: {error}; lines are dropped"));
                }
                self.resume_at = Some(now.steady + PAUSE);
                false
            }
        }
    }

    /// The log has said so already: that the count is behind is no loss.
    fn count_dropped(&self, more: u64) {
        let path = self.file.path();
        let counted = folder::dropped(path).and_then(|before| {
            let next = folder::next(path);
            let total = before.saturating_add(more);
            fs::remove_file(&next).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            writeln!(File::create(&next)?, "{total}")?;
            replace::put_in_place(&next, &folder::dropped_file(path))
        });
        if let Err(error) = counted {
            complain(&format_args!("count what was dropped: {error}"));
        }
    }
}
