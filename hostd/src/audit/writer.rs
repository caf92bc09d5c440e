//! Writes the log.
//!
//! Whoever has a line writes it, under a lock, into the page cache: a killed hostd loses
//! none. One thread, the keeper, does what waits for the disk: it syncs, for all lines that
//! are there at that moment at once, fills the file ahead, begins the next one and removes
//! the oldest. So the begin of an operation waits for nobody's fdatasync(2), and many ends
//! share one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dyno_api::audit::{AuditCaller, AuditEntry, AuditState};
use dyno_api::error::{ApiError, ErrorKind};
use jiff::Timestamp;
use tokio::sync::watch;

use super::line;
use super::segment::{self, Segment};

/// Files that the log consists of, at the most.
const SEGMENTS: u64 = 8;
/// Bytes of a file that are filled ahead, and below how many it is filled again. What is
/// left when a disk is full is for what frees it.
const RESERVE: u64 = 256 << 10;
const LOW: u64 = 64 << 10;
/// Between two attempts to write again.
const AGAIN: Duration = Duration::from_secs(1);

/// Operations of hostd itself.
pub(super) const START: &str = "hostd.start";
const LOST: &str = "audit.lost";
const CUT: &str = "audit.cut";

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
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    segment_bytes: u64,
    counts: Counts,
    tail: Mutex<Tail>,
    /// There is something for the keeper to do.
    wake: Condvar,
    /// Up to which line the disk was waited for, whatever it said.
    synced: watch::Sender<u64>,
    /// Up to which line there are any.
    written: watch::Sender<u64>,
}

/// Where the log ends.
#[derive(Debug, Default)]
struct Tail {
    last_id: u64,
    current: Option<Segment>,
    /// The one after it.
    spare: Option<Segment>,
    /// Those before it that are not synced to their end.
    full: Vec<Segment>,
    /// Lines since hostd was started; up to which of them somebody waits for the disk.
    lines: u64,
    wanted: u64,
    /// Lines that are missing and not told yet.
    lost: u64,
    is_start_told: bool,
    trouble: Option<Trouble>,
    ends: bool,
}

/// Where the log ends, for whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) number: u64,
    pub(super) at: u64,
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

    /// Where it ends; `None` where it has no file.
    pub(super) fn ends_at(&self) -> Option<End> {
        let tail = self.shared.tail();
        tail.current.as_ref().map(|segment| End {
            number: segment.number,
            at: segment.at,
        })
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
    fn is_short(&self, segment_bytes: u64) -> bool {
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
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_new(&self, tail: &mut Tail, entry: &mut AuditEntry) -> Result<(), Trouble> {
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

    fn is_in_trouble(tail: &mut Tail, error: &io::Error) -> Trouble {
        let trouble = Trouble(error.to_string());
        if tail.trouble.as_ref() != Some(&trouble) {
            tracing::error!(%error, "the audit log cannot be written: changes are refused");
        }
        tail.trouble = Some(trouble.clone());
        trouble
    }

    /// Finds the end of what there is; the bytes that were cut off it.
    fn take_up(&self) -> io::Result<usize> {
        make_folder(&self.folder)?;
        let mut tail = self.tail();
        let mut cut = 0;
        // The newest may have no line yet.
        for number in segment::numbers(&self.folder)?.into_iter().rev() {
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
    fn tell_own(&self, torn: usize) {
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
    fn keep(&self) {
        let mut tail = self.tail();
        while !tail.ends {
            let waits = tail.wanted > *self.synced.borrow();
            let (short, trouble) = (tail.is_short(self.segment_bytes), tail.trouble.is_some());
            if waits {
                drop(tail);
                self.sync();
                tail = self.tail();
            } else if short && !trouble {
                drop(tail);
                self.renew();
                tail = self.tail();
            } else if trouble {
                let waited = self.wake.wait_timeout_while(tail, AGAIN, |tail| {
                    !tail.ends && tail.wanted <= *self.synced.borrow()
                });
                let timed_out;
                (tail, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
                if timed_out.timed_out() {
                    drop(tail);
                    self.renew();
                    tail = self.tail();
                }
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
        tail.current = None;
        Self::is_in_trouble(&mut tail, error);
    }

    /// Fills the current file ahead and has the next one ready; in trouble, this is how it is
    /// found to be over.
    fn renew(&self) {
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
