//! Writes the log.
//!
//! Whoever has a line writes it, under a lock, into the page cache: a killed hostd loses
//! none. What waits for the disk is the keeper's, for all lines that are there at that moment
//! at once. So the begin of an operation waits for nobody's fdatasync(2), and many ends
//! share one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use dyno_api::audit::AuditEntry;
use dyno_api::error::{ApiError, ErrorKind};
use tokio::sync::watch;

use super::line;
use super::segment::{End, Segment};

/// Files that the log consists of, at the most.
pub(super) const SEGMENTS: u64 = 8;
/// Below so many bytes that are filled ahead, more are filled. What is left when a disk is
/// full is for what frees it.
const LOW: u64 = 64 << 10;

/// Why no trace can be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub struct Trouble(String);

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> Self {
        Self::new(
            ErrorKind::Exhausted,
            format!("{trouble}; no change is made without a trace"),
        )
        .hint("stop, kill and everything that removes work still: free space on that disk")
    }
}

/// What is counted of the log.
#[derive(Debug, Default)]
pub struct Counts {
    /// Lines that were written.
    pub lines: AtomicU64,
    /// Lines that could not be written, or not be synced.
    pub failures: AtomicU64,
    /// Operations that were refused, as they would have left no trace.
    pub refused: AtomicU64,
}

/// The log of one host.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) counts: Counts,
    pub(super) tail: Mutex<Tail>,
    /// There is something for the keeper to do.
    pub(super) wake: Condvar,
    /// Up to which line the disk was waited for, whatever it said.
    pub(super) synced: watch::Sender<u64>,
    /// Up to which line there are any.
    pub(super) written: watch::Sender<u64>,
}

/// Where the log ends.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) last_id: u64,
    pub(super) current: Option<Segment>,
    /// Where the file ended that was the current one, where there is none.
    pub(super) left: End,
    /// The one after it.
    pub(super) spare: Option<Segment>,
    /// Those before it that are not synced to their end.
    pub(super) full: Vec<Segment>,
    /// Lines since hostd was started; up to which of them somebody waits for the disk.
    pub(super) lines: u64,
    pub(super) wanted: u64,
    /// Lines that are missing and not told yet.
    pub(super) lost: u64,
    pub(super) is_start_told: bool,
    pub(super) trouble: Option<Trouble>,
    pub(super) ends: bool,
}

impl Writer {
    /// Goes on behind what there is, in files of `bytes` together at the most. Where that
    /// cannot be done it is tried again and again.
    pub(super) fn open(folder: &Path, bytes: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            segment_bytes: bytes / SEGMENTS,
            counts: Counts::default(),
            tail: Mutex::default(),
            wake: Condvar::new(),
            synced: watch::Sender::default(),
            written: watch::Sender::default(),
        });
        let mut torn = 0;
        match shared.take_up() {
            Ok(bytes) => torn = bytes,
            Err(error) => drop(Shared::is_in_trouble(&mut shared.tail(), &error)),
        }
        if shared.tail().is_short(shared.segment_bytes) {
            shared.renew();
        }
        shared.tell_own(torn);
        let kept = shared.clone();
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let keeper = thread.spawn(move || kept.keep())?;
        Ok(Self {
            shared,
            keeper: Some(keeper),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.shared.folder
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Why nothing can be written, where that is so.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.shared.tail().trouble.clone()
    }

    /// Writes the line of an operation that is about to be done, with a new id. What is not
    /// `urgent` is not begun where the log is in trouble; what is leaves its line where there
    /// is room.
    pub(super) fn begin(&self, entry: &mut AuditEntry, urgent: bool) -> Result<(), Trouble> {
        let mut tail = self.shared.tail();
        if let (Some(trouble), false) = (&tail.trouble, urgent) {
            self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(trouble.clone());
        }
        match self.shared.put_new(&mut tail, entry) {
            Err(trouble) if !urgent => {
                // It is not done, so nothing is missing.
                tail.lost -= 1;
                self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                Err(trouble)
            }
            _ => Ok(()),
        }
    }

    /// Writes the line of an operation that has ended, or was not let through.
    pub(super) fn end(&self, entry: &AuditEntry) {
        // That it failed is counted and told already; what was done stays done.
        self.shared.put(&mut self.shared.tail(), entry).ok();
    }

    /// The same with a new id.
    pub(super) fn note(&self, entry: &mut AuditEntry) {
        self.shared.put_new(&mut self.shared.tail(), entry).ok();
    }

    /// Has all lines that there are be synced; how many these are.
    pub(super) fn sync(&self) -> u64 {
        let mut tail = self.shared.tail();
        tail.wanted = tail.lines;
        self.shared.wake.notify_one();
        tail.lines
    }

    /// Comes back once all lines that there are would survive a power cut, or do not.
    pub(super) async fn synced(&self) {
        let wanted = self.sync();
        let mut synced = self.shared.synced.subscribe();
        // The sender is ours; a failure is told by the keeper.
        synced.wait_for(|through| *through >= wanted).await.ok();
    }

    /// Where it ends; where it cannot be written, it can be read up to there.
    pub(super) fn ends_at(&self) -> End {
        let tail = self.shared.tail();
        tail.current.as_ref().map_or(tail.left, Segment::end)
    }

    /// Changes with each line.
    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.shared.written.subscribe()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.tail().ends = true;
        self.shared.wake.notify_one();
        if let Some(Err(_)) = self.keeper.take().map(JoinHandle::join) {
            tracing::error!("the keeper of the audit log has panicked");
        }
    }
}

impl Tail {
    /// Whether there is little room ahead, and more can be had.
    pub(super) fn is_short(&self, segment_bytes: u64) -> bool {
        match &self.current {
            None => true,
            Some(segment) if segment.reserved < segment_bytes => segment.left() < LOW,
            Some(_) => self.spare.is_none(),
        }
    }

    /// Writes a line into the current file, or the next where it is full.
    fn append(&mut self, line: &[u8], segment_bytes: u64) -> io::Result<()> {
        let bytes = line.len() as u64;
        let is_full = |segment: &Segment| segment.at + bytes > segment_bytes;
        if self.current.as_ref().is_none_or(is_full)
            && let Some(spare) = self.spare.take()
        {
            self.full.extend(self.current.replace(spare));
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no file for it");
        let segment = self.current.as_mut().ok_or_else(missing)?;
        // Lines that come faster than the next file may grow this one, to a bound.
        if segment.at + bytes > 2 * segment_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        segment.append(line)
    }
}

impl Shared {
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put_new(&self, tail: &mut Tail, entry: &mut AuditEntry) -> Result<(), Trouble> {
        tail.last_id += 1;
        entry.id = tail.last_id;
        self.put(tail, entry)
    }

    fn put(&self, tail: &mut Tail, entry: &AuditEntry) -> Result<(), Trouble> {
        let put = line::encode(entry).and_then(|line| tail.append(&line, self.segment_bytes));
        if let Err(error) = put {
            tail.lost += 1;
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            self.wake.notify_one();
            return Err(Self::is_in_trouble(tail, &error));
        }
        tail.lines += 1;
        self.counts.lines.fetch_add(1, Ordering::Relaxed);
        self.written.send_replace(tail.lines);
        if tail.is_short(self.segment_bytes) {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn is_in_trouble(tail: &mut Tail, error: &io::Error) -> Trouble {
        let trouble = Trouble(error.to_string());
        if tail.trouble.as_ref() != Some(&trouble) {
            tracing::error!(%error, "the audit log cannot be written: changes are refused");
        }
        tail.trouble = Some(trouble.clone());
        trouble
    }
}
