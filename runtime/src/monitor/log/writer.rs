//! A process that writes the log of a dyno which shall not wait for the disk.
//!
//! ```text
//!  monitor ── pipe, 1 MiB, never waited for ──▶ dyno-runtime log-writer ──▶ files
//!     lines: an entry, or "!N": N entries were dropped here, or "?": say when
//!     all before this is written ◀── one byte on standard output ──┘
//! ```
//!
//! The pipe is the bounded buffer. What does not fit is dropped whole and counted
//! exactly. The writer outlives a monitor that is killed until it has written
//! what the pipe holds; one that follows it waits for its lock. One that is
//! killed itself is followed by another, at the same pipe.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, fcntl_setfl, flock};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::entries::{Entries, PAUSE};
use super::{BATCH, Moment};
use crate::monitor::protocol::LogConfig;
use crate::monitor::{complain, signals_to_monitors};

/// Bytes that wait for the writer: the most that anybody may have by default
/// (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const BUFFER: usize = 1 << 20;

/// Between two tries to pass on what waits.
const AGAIN: Duration = Duration::from_millis(20);

/// How long the end of a dyno waits for its log to be written.
const SETTLE: Duration = Duration::from_secs(5);

/// Bytes of one read.
const READ: usize = 64 * 1024;

/// So many entries were dropped here.
const DROPPED: u8 = b'!';
/// Answer once all before this is written.
const SETTLED: u8 = b'?';

/// The monitor's end.
#[derive(Debug)]
pub(super) struct Writer {
    config: LogConfig,
    to: OwnedFd,
    /// The other end, for a writer that follows this one.
    from: OwnedFd,
    process: Process,
    /// Whole lines of which a part may have been passed on already.
    begun: Vec<u8>,
    batch: Vec<u8>,
    count: u64,
    dropped: u64,
    retry_at: Option<Instant>,
    start_at: Option<Instant>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    settled: OwnedFd,
}

impl Writer {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(super) fn start(config: LogConfig) -> io::Result<Self> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        // Less where that is not allowed; it is bounded all the same.
        fcntl_setpipe_size(&to, BUFFER).ok();
        fcntl_setfl(&to, OFlags::NONBLOCK)?;
        Ok(Self {
            process: spawn(&config, &from)?,
            config,
            to,
            from,
            begun: Vec::new(),
            batch: Vec::new(),
            count: 0,
            dropped: 0,
            retry_at: None,
            start_at: None,
        })
    }

    /// Takes one whole entry; the caller flushes soon.
    pub(super) fn push(&mut self, pieces: &[&[u8]]) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.batch.len() + length > BATCH {
            self.flush(Instant::now());
        }
        pieces
            .iter()
            .for_each(|piece| self.batch.extend_from_slice(piece));
        self.count += 1;
    }

    /// Passes on what was taken; what does not fit is dropped.
    pub(super) fn flush(&mut self, now: Instant) {
        self.revive(now);
        let mut passed = self.pass_begun();
        if passed && self.dropped > 0 {
            self.begun = [&[DROPPED], self.dropped.to_string().as_bytes(), b"\n"].concat();
            self.dropped = 0;
            passed = self.pass_begun();
        }
        if passed {
            std::mem::swap(&mut self.begun, &mut self.batch);
            self.pass_begun();
        } else {
            self.dropped += self.count;
        }
        self.batch.clear();
        self.count = 0;
        self.retry_at = (!self.is_idle()).then_some(now + AGAIN);
    }

    /// Waits, not for ever, until all of it is in the files.
    pub(super) fn settle(&mut self) {
        let limit = Instant::now() + SETTLE;
        self.until_idle(limit);
        // Answers that came too late the last time.
        while matches!(
            rustix::io::read(&self.process.settled, &mut [0; 16]),
            Ok(1..)
        ) {}
        if self.is_idle() {
            self.begun = vec![SETTLED, b'\n'];
            self.until_idle(limit);
            let left = limit.saturating_duration_since(Instant::now());
            wait(&self.process.settled, PollFlags::IN, left);
        }
    }

    fn until_idle(&mut self, limit: Instant) {
        self.flush(Instant::now());
        while !self.is_idle() && Instant::now() < limit {
            wait(&self.to, PollFlags::OUT, AGAIN);
            self.flush(Instant::now());
        }
    }

    /// Entries that were dropped and not yet passed on as such.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When to flush although nothing new has come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    fn is_idle(&self) -> bool {
        self.begun.is_empty() && self.dropped == 0
    }

    /// Whether nothing is left of what was begun.
    fn pass_begun(&mut self) -> bool {
        while !self.begun.is_empty() {
            match write(&self.to, &self.begun) {
                Ok(count) => drop(self.begun.drain(..count)),
                Err(Errno::INTR) => {}
                // Nobody but us can close the other end.
                Err(_) => return false,
            }
        }
        true
    }

    /// Starts another one where somebody has killed it.
    fn revive(&mut self, now: Instant) {
        if self.start_at.is_some_and(|at| now < at)
            || matches!(self.process.child.try_wait(), Ok(None))
        {
            return;
        }
        complain(&"the writer of the log is gone; another is started");
        self.start_at = Some(now + PAUSE);
        match spawn(&self.config, &self.from) {
            Ok(process) => self.process = process,
            Err(error) => complain(&format_args!("start the writer of the log: {error}")),
        }
    }
}

fn spawn(config: &LogConfig, from: &OwnedFd) -> io::Result<Process> {
    let (settled, answers) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&settled, OFlags::NONBLOCK)?;
    let child = Command::new("/proc/self/exe")
        .arg("log-writer")
        .arg(serde_json::to_string(config)?)
        .env_clear()
        .stdin(from.try_clone()?)
        .stdout(answers)
        .spawn()?;
    Ok(Process { child, settled })
}

fn wait(fd: impl AsFd, flags: PollFlags, limit: Duration) {
    let limit = Timespec::try_from(limit).ok();
    // Woken early or not at all: the caller looks again, or has waited enough.
    poll(&mut [PollFd::new(&fd, flags)], limit.as_ref()).ok();
}

/// Is the process: writes what standard input brings until its end. Exit code 1
/// where the log cannot be opened.
pub fn run(config: &OsStr) -> u8 {
    match serve(config) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format_args!("write the log apart: {error}"));
            1
        }
    }
}

fn serve(config: &OsStr) -> io::Result<()> {
    rustix::thread::set_name(c"dyno-log")?;
    // It ends with its input, not with what its monitor is told.
    signals_to_monitors().thread_block()?;
    let config: LogConfig = serde_json::from_slice(config.as_encoded_bytes())?;
    let folder = File::open(config.path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    // A predecessor whose monitor was killed may still be writing.
    flock(&folder, FlockOperation::LockExclusive)?;
    let mut entries = Entries::open(config)?;
    let mut input = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let mut answers = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    let mut line = Vec::new();
    let mut buffer = vec![0; READ];
    loop {
        let ready = wait_until(&input, entries.deadline())?;
        let now = Moment::now();
        entries.tick(now);
        if !ready {
            continue;
        }
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") {
                take(&mut entries, &line, &mut answers, now)?;
                line.clear();
            }
        }
        entries.flush(now);
    }
    entries.flush_now(Moment::now());
    Ok(())
}

/// Whether there is something to read before this moment.
fn wait_until(input: &File, moment: Option<Instant>) -> io::Result<bool> {
    let left = moment.map(|at| at.saturating_duration_since(Instant::now()));
    // Rounded up: a wait that ends too early would spin.
    let limit = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    match poll(&mut [PollFd::new(input, PollFlags::IN)], limit.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One line of the monitor's.
fn take(entries: &mut Entries, line: &[u8], answers: &mut File, now: Moment) -> io::Result<()> {
    match line.first() {
        Some(&DROPPED) => {
            let number = std::str::from_utf8(&line[1..]).unwrap_or_default();
            entries.missed(number.trim().parse().unwrap_or(0), now);
        }
        Some(&SETTLED) => {
            entries.flush_now(now);
            answers.write_all(&[SETTLED])?;
        }
        _ => entries.push(&[line], now),
    }
    Ok(())
}
