//! The file behind a log, its rotation, and what is kept.
//!
//! What is appended is whole entries. A file is full at `max_bytes`, or when its
//! first entry is `max_age_ms` old; the next one has the next number. The oldest
//! go once there are more than `keep`, or once their last entry is too old.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use dyno_failpoint::failpoint;

use super::folder::{self, Part};
use crate::monitor::complain;
use crate::monitor::protocol::LogConfig;
use crate::replace;

/// An append-only file of bounded size, and its predecessors.
#[derive(Debug)]
pub(super) struct LogFile {
    config: LogConfig,
    file: File,
    number: u64,
    size: u64,
    /// When its first entry was written.
    begun: Option<SystemTime>,
}

impl LogFile {
    /// Opens the newest file or makes the first; the end of a line that was cut
    /// short by a crash is supplied.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(config: LogConfig) -> io::Result<Self> {
        adopt(&config.path)?;
        let number = match folder::list(&config.path)?.last() {
            // Nothing is written to a file that was compressed.
            Some(last) if last.compressed => number_of(last.part) + 1,
            Some(last) => number_of(last.part),
            None => 1,
        };
        let path = folder::plain(&config.path, Part::Numbered(number));
        let file = options().create(true).open(path)?;
        let mut log = Self {
            config,
            file,
            number,
            size: 0,
            begun: None,
        };
        log.mend()?;
        if log.size > 0 {
            // Not known to the second: that of its last entry is at most later.
            log.begun = log.file.metadata()?.created().ok();
        }
        log.point();
        log.forget_old(SystemTime::now())?;
        Ok(log)
    }

    /// Where its log is.
    pub(super) fn path(&self) -> &Path {
        &self.config.path
    }

    /// How long entries are kept at least, where that is limited.
    pub(super) fn max_age(&self) -> Option<Duration> {
        self.config.max_age_ms.map(Duration::from_millis)
    }

    /// Whether so many bytes more fit without rotation.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.size.saturating_add(bytes as u64) <= self.config.max_bytes
    }

    /// Appends whole entries, all of them or none.
    ///
    /// # Errors
    /// When they cannot be written; none of them is in the file then.
    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now();
        if self.size > 0 && (!self.has_room(entries.len()) || self.is_aged(now)) {
            self.rotate(now)?;
        }
        match self.file.write_all(entries) {
            Ok(()) => {
                self.size += entries.len() as u64;
                self.begun.get_or_insert(now);
                Ok(())
            }
            Err(error) => {
                // What was written of them would be a line without an end.
                if self.file.set_len(self.size).is_err() {
                    self.mend()?;
                }
                Err(error)
            }
        }
    }

    /// Ends a file that is too old and removes those that are.
    ///
    /// # Errors
    /// When the next file cannot be made, or the folder not be read.
    pub(super) fn age(&mut self) -> io::Result<()> {
        let now = SystemTime::now();
        if self.size > 0 && self.is_aged(now) {
            return self.rotate(now);
        }
        self.forget_old(now)
    }

    fn is_aged(&self, now: SystemTime) -> bool {
        let age = self.begun.and_then(|begun| now.duration_since(begun).ok());
        self.max_age()
            .zip(age)
            .is_some_and(|(most, age)| age >= most)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let number = self.number + 1;
        let path = folder::plain(&self.config.path, Part::Numbered(number));
        self.file = options().create_new(true).open(path)?;
        failpoint("monitor_log.made");
        (self.number, self.size, self.begun) = (number, 0, None);
        self.point();
        failpoint("monitor_log.named");
        self.forget_old(now)
            .inspect(|()| failpoint("monitor_log.rotated"))
    }

    /// Removes what is more, or older, than is kept.
    fn forget_old(&self, now: SystemTime) -> io::Result<()> {
        let first = self.number.saturating_sub(u64::from(self.config.keep));
        let path = &self.config.path;
        for file in folder::list(path)? {
            let number = number_of(file.part);
            let plain = folder::plain(path, file.part);
            let compressed = folder::compressed(path, number);
            let form = if file.plain { &plain } else { &compressed };
            let is_old = number < self.number && self.is_too_old(form, now);
            if number < first || is_old {
                missing_is_fine(fs::remove_file(plain))?;
                missing_is_fine(fs::remove_file(compressed))?;
            }
        }
        Ok(())
    }

    fn is_too_old(&self, file: &Path, now: SystemTime) -> bool {
        let Some(most) = self.max_age() else {
            return false;
        };
        let written = fs::metadata(file).and_then(|meta| meta.modified());
        let age = written.ok().and_then(|at| now.duration_since(at).ok());
        age.is_some_and(|age| age >= most)
    }

    /// Has `log` lead to the file being written: for people, and for a hostd
    /// that knows no numbers. Nothing is lost without it.
    fn point(&self) {
        let path = &self.config.path;
        let file = folder::plain(path, Part::Numbered(self.number));
        let next = folder::next(path);
        let name = file.file_name().unwrap_or_default();
        let pointed = missing_is_fine(fs::remove_file(&next))
            .and_then(|()| symlink(name, &next))
            .and_then(|()| replace::put_in_place(&next, path));
        if let Err(error) = pointed {
            complain(&format_args!(
                "link {} to its newest file: {error}",
                path.display()
            ));
        }
    }

    fn mend(&mut self) -> io::Result<()> {
        self.size = self.file.metadata()?.len();
        let Some(last) = self.size.checked_sub(1) else {
            return Ok(());
        };
        let mut end = [b'\n'];
        self.file.seek(SeekFrom::Start(last))?;
        self.file.read_exact(&mut end)?;
        if end != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    /// One that takes nothing.
    #[cfg(test)]
    pub(super) fn full(config: LogConfig) -> Self {
        Self {
            config,
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
            number: 1,
            size: 0,
            begun: None,
        }
    }
}

/// Gives numbers to the files of a monitor that had none, the oldest first:
/// where this is broken off, the next to open the log goes on.
fn adopt(path: &Path) -> io::Result<()> {
    let files = folder::list(path)?;
    let mut number = files.last().map_or(0, |newest| number_of(newest.part));
    for file in files.iter().filter(|file| number_of(file.part) == 0) {
        number += 1;
        let numbered = folder::plain(path, Part::Numbered(number));
        fs::rename(folder::plain(path, file.part), numbered)?;
    }
    Ok(())
}

/// Its number; 0 where it has none.
fn number_of(part: Part) -> u64 {
    match part {
        Part::Numbered(number) => number,
        Part::Aged(Reverse(_)) => 0,
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // 0600: what a dyno prints is its owner's business.
    options.read(true).append(true).mode(0o600);
    options
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
