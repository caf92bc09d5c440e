//! What waits for the disk, on a thread of its own: it syncs, for all lines that are there at
//! that moment at once, fills the file ahead, begins the next one and removes the oldest. In
//! trouble it tries again, once a second.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dyno_api::audit::{AuditCaller, AuditEntry, AuditState};
use jiff::Timestamp;

use super::line;
use super::segment::{self, End, Segment};
use super::writer::{SEGMENTS, Shared, Tail};

/// Bytes of a file that are filled ahead.
const RESERVE: u64 = 256 << 10;
/// Between two attempts to write again.
const AGAIN: Duration = Duration::from_secs(1);

/// Operations of hostd itself.
pub(super) const START: &str = "hostd.start";
const LOST: &str = "audit.lost";
const CUT: &str = "audit.cut";

impl Shared {
    /// Finds the end of what there is; the bytes that were cut off it.
    pub(super) fn take_up(&self) -> io::Result<usize> {
        make_folder(&self.folder)?;
        let mut tail = self.tail();
        let mut cut = 0;
        // The newest may have no line yet.
        let numbers = segment::numbers(&self.folder)?;
        if let Some(number) = numbers.last().copied() {
            tail.left = End {
                number,
                at: u64::MAX,
            };
        }
        for number in numbers.into_iter().rev() {
            let (segment, lines, torn) = Segment::open(&self.folder, number)?;
            if tail.current.is_none() {
                tail.current = Some(segment);
                cut = torn;
            }
            tail.last_id = last_id(&lines);
            if tail.last_id > 0 {
                break;
            }
        }
        Ok(cut)
    }

    /// Writes what hostd has to say of the log itself.
    pub(super) fn tell_own(&self, torn: usize) {
        let mut tail = self.tail();
        if tail.trouble.is_some() {
            return;
        }
        let tell = |tail: &mut Tail, operation: &str, target: Option<String>| {
            let mut entry = own(operation, target);
            self.put_new(tail, &mut entry)
        };
        if !tail.is_start_told {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            tail.is_start_told = tell(&mut tail, START, Some(version)).is_ok();
        }
        if torn > 0 {
            tracing::warn!(bytes = torn, "a torn line was cut off the audit log");
            tell(&mut tail, CUT, Some(format!("{torn} bytes"))).ok();
        }
        let lost = tail.lost;
        if lost > 0 && tell(&mut tail, LOST, Some(format!("{lost} lines"))).is_ok() {
            tail.lost -= lost;
        }
    }

    /// The keeper's life.
    pub(super) fn keep(&self) {
        let mut tail = self.tail();
        let mut again = Instant::now();
        while !tail.ends {
            let (in_trouble, now) = (tail.trouble.is_some(), Instant::now());
            let is_due = if in_trouble {
                now >= again
            } else {
                tail.is_short(self.segment_bytes)
            };
            let waits = tail.wanted > *self.synced.borrow();
            if is_due || waits {
                drop(tail);
                // Before the others: with many of them it would not come to it.
                if is_due {
                    self.renew();
                    again = now + AGAIN;
                } else {
                    self.sync();
                }
                tail = self.tail();
            } else if in_trouble {
                let waited = self.wake.wait_timeout(tail, again - now);
                (tail, _) = waited.unwrap_or_else(PoisonError::into_inner);
            } else {
                tail = self.wake.wait(tail).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits for the disk, for all lines that there are.
    fn sync(&self) {
        let (lines, full, current) = {
            let mut tail = self.tail();
            let current = tail.current.as_ref().map(|segment| segment.file.clone());
            (tail.lines, std::mem::take(&mut tail.full), current)
        };
        let mut files = full.iter().map(|segment| &segment.file).chain(&current);
        let synced = files.try_for_each(|file| file.sync_data());
        match &synced {
            Ok(()) => full.iter().for_each(trim),
            Err(error) => self.distrust(lines, error),
        }
        self.synced.send_replace(lines);
    }

    /// What a file was said to hold, it may not hold; the kernel does not say it twice
    /// (fsync(2), EIO). Others are written from now on.
    fn distrust(&self, lines: u64, error: &io::Error) {
        let missing = lines.saturating_sub(*self.synced.borrow());
        self.counts.failures.fetch_add(missing, Ordering::Relaxed);
        let mut tail = self.tail();
        tail.lost += missing;
        if let Some(segment) = tail.current.take() {
            tail.left = segment.end();
        }
        Self::is_in_trouble(&mut tail, error);
    }

    /// Fills the current file ahead and has the next one ready; in trouble, this is how it is
    /// found to be over.
    pub(super) fn renew(&self) {
        if let Err(error) = self.try_to_renew() {
            Self::is_in_trouble(&mut self.tail(), &error);
            return;
        }
        let ended = self.tail().trouble.take();
        if ended.is_some() {
            tracing::info!("the audit log can be written again");
            self.tell_own(0);
        }
    }

    fn try_to_renew(&self) -> io::Result<()> {
        let file = {
            let mut tail = self.tail();
            match &mut tail.current {
                Some(segment) => {
                    // Under the lock: nobody's line may be in the way.
                    segment.reserve((segment.at + RESERVE).min(self.segment_bytes))?;
                    segment.can_be_written()?;
                    Some(segment.file.clone())
                }
                None => None,
            }
        };
        match file {
            Some(file) => file.sync_data()?,
            None => {
                let next = self.next_segment()?;
                self.tail().current = Some(next);
            }
        }
        // Where that was not enough, its end is near.
        if self.tail().is_short(self.segment_bytes) {
            let next = self.next_segment()?;
            self.tail().spare = Some(next);
        }
        Ok(())
    }

    /// Makes the next file, for which the oldest goes.
    fn next_segment(&self) -> io::Result<Segment> {
        make_folder(&self.folder)?;
        let before = segment::numbers(&self.folder)?;
        let (mut files, mut bytes) = (0, 0);
        for number in before.iter().rev() {
            let path = segment::path(&self.folder, *number);
            files += 1;
            bytes += fs::metadata(&path)?.len();
            if files >= SEGMENTS || bytes > self.segment_bytes * (SEGMENTS - 1) {
                fs::remove_file(path)?;
            }
        }
        let number = before.last().map_or(1, |last| last + 1);
        let made = self.make_segment(number);
        if made.is_err() {
            // A part of its room may be taken already.
            fs::remove_file(segment::path(&self.folder, number)).ok();
        }
        made
    }

    fn make_segment(&self, number: u64) -> io::Result<Segment> {
        let mut made = Segment::create(&self.folder, number)?;
        made.reserve(RESERVE.min(self.segment_bytes))?;
        made.file.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        Ok(made)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The zeros behind its lines go.
fn trim(full: &Segment) {
    if let Err(error) = full.file.set_len(full.at) {
        tracing::warn!(%error, "a full file of the audit log keeps its zeros");
    }
}

/// The highest id of these lines; 0 where there is none. Ids rise with the lines that are an
/// operation's first.
fn last_id(lines: &[u8]) -> u64 {
    let mut last = 0;
    for line in lines.rsplit(|byte| *byte == b'\n') {
        let Some(entry) = line::parse(line) else {
            continue;
        };
        last = last.max(entry.id);
        if entry.state == AuditState::Running || entry.caller == AuditCaller::Hostd {
            break;
        }
    }
    last
}

/// An entry of hostd itself.
fn own(operation: &str, target: Option<String>) -> AuditEntry {
    AuditEntry {
        id: 0,
        time: Timestamp::now(),
        request: String::new(),
        caller: AuditCaller::Hostd,
        operation: operation.to_owned(),
        target,
        dyno: None,
        state: AuditState::Done,
        status: None,
        error: None,
        took_us: None,
    }
}
