//! A dyno's log: its output cut into lines, in the format of the Kubernetes CRI.
//!
//! ```text
//! 2026-11-22T15:00:00.123456789Z stdout F a whole line, or the end of one
//! 2026-11-22T15:00:00.123456789Z stderr P a part of one, continued by the next P or F
//! ```
//!
//! A line is held back until its newline comes, but not for longer than
//! [`PATIENCE`] and not beyond [`CUT`] bytes: then it is written in parts.
//! Everything that one read brought is written with one write, so that the
//! caller, who does not read on meanwhile, slows the dyno down to the disk's
//! speed and no line is lost. Only where the disk takes nothing at all (full,
//! broken) are lines dropped, counted, and the count is written as soon as
//! there is room again: a full disk must not stop the dyno. A dyno that shall
//! not wait for a disk that is merely slow has its log written by a process
//! apart.
//!
//! ```text
//!                            ┌──▶ entries ──▶ file   log.00000001, …
//!  bytes ──▶ lines, here ────┤                        folder: their names
//!                            └──▶ writer ── pipe ──▶ another process' entries
//! ```

mod entries;
mod file;
pub mod folder;
pub mod writer;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::entries::Entries;
use self::writer::Writer;
use super::protocol::{LogConfig, LogMode};

/// The longest piece of a line in one entry, in bytes.
pub const CUT: usize = 16 * 1024;

/// How long the beginning of a line waits for its newline.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The most that is collected for one write, in bytes.
const BATCH: usize = 128 * 1024;

/// Bytes of `2026-11-22T15:00:00.123456789Z`.
const STAMP: usize = 30;

/// Bytes before the text of an entry; the tag is the last but one of them.
const PREFIX: usize = STAMP + " stdout F ".len();

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One moment, by the clock on the wall and by the one that never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For people.
    pub wall: Timestamp,
    /// For timers.
    pub steady: Instant,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self {
            wall: Timestamp::now(),
            steady: Instant::now(),
        }
    }
}

/// The log of one dyno, being written.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    stdout: Line,
    stderr: Line,
}

/// Where entries go.
#[derive(Debug)]
enum Sink {
    /// To the files: the dyno runs at the disk's speed.
    Here(Entries),
    /// To a process that writes them: the dyno waits for no disk.
    Apart(Writer),
}

/// The line that a stream is in the middle of.
#[derive(Debug, Default)]
struct Line {
    begun: Vec<u8>,
    since: Option<Instant>,
    /// A part of it is in the log already.
    continued: bool,
}

impl Log {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(config: LogConfig) -> io::Result<Self> {
        let sink = match config.mode {
            LogMode::Block => Sink::Here(Entries::open(config)?),
            LogMode::Drop => Sink::Apart(Writer::start(config)?),
        };
        Ok(Self::to(sink))
    }

    fn to(sink: Sink) -> Self {
        Self {
            sink,
            stdout: Line::default(),
            stderr: Line::default(),
        }
    }

    /// Takes what a stream has brought and writes every line that it completes.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: Moment) {
        let mut prefix = prefix(stream, now.wall);
        let mut line = std::mem::take(self.line(stream));
        while !bytes.is_empty() {
            let room = CUT - line.begun.len();
            // One byte more: a newline right after a full piece belongs to it.
            let window = bytes.get(..=room).unwrap_or(bytes);
            let (text, tag, taken) = match memchr::memchr(b'\n', window) {
                Some(at) => (&bytes[..at], b'F', at + 1),
                None if bytes.len() > room => (&bytes[..room], b'P', room),
                None => {
                    line.begun.extend_from_slice(bytes);
                    line.since.get_or_insert(now.steady);
                    break;
                }
            };
            prefix[PREFIX - 2] = tag;
            self.sink.push(&[&prefix, &line.begun, text, b"\n"], now);
            line.begun.clear();
            line.since = None;
            line.continued = tag == b'P';
            bytes = &bytes[taken..];
        }
        *self.line(stream) = line;
        self.sink.flush(now);
    }

    /// When [`Log::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.stdout.since.into_iter().chain(self.stderr.since);
        let begun = since.min().map(|since| since + PATIENCE);
        begun.into_iter().chain(self.sink.deadline()).min()
    }

    /// Writes beginnings of lines that have waited long enough, and does what
    /// else is due.
    pub fn tick(&mut self, now: Moment) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let since = self.line(stream).since;
            if since.is_some_and(|since| since + PATIENCE <= now.steady) {
                self.put_begun(stream, b'P', now);
            }
        }
        self.sink.tick(now);
    }

    /// Ends every line that is begun: no more of it will come.
    pub fn end_lines(&mut self, now: Moment) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = self.line(stream);
            if line.continued || !line.begun.is_empty() {
                self.put_begun(stream, b'F', now);
            }
        }
        self.sink.settle(now);
    }

    /// Entries that were dropped and not yet accounted for in the log.
    pub fn dropped(&self) -> u64 {
        match &self.sink {
            Sink::Here(entries) => entries.dropped(),
            Sink::Apart(writer) => writer.dropped(),
        }
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn put_begun(&mut self, stream: Stream, tag: u8, now: Moment) {
        let mut prefix = prefix(stream, now.wall);
        prefix[PREFIX - 2] = tag;
        let line = std::mem::take(self.line(stream));
        self.sink.push(&[&prefix, &line.begun, b"\n"], now);
        self.line(stream).continued = tag == b'P';
    }
}

impl Sink {
    /// Takes one whole entry.
    fn push(&mut self, pieces: &[&[u8]], now: Moment) {
        match self {
            Self::Here(entries) => entries.push(pieces, now),
            Self::Apart(writer) => writer.push(pieces),
        }
    }

    /// Passes on what was taken.
    fn flush(&mut self, now: Moment) {
        match self {
            Self::Here(entries) => entries.flush(now),
            Self::Apart(writer) => writer.flush(now.steady),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Here(entries) => entries.deadline(),
            Self::Apart(writer) => writer.deadline(),
        }
    }

    fn tick(&mut self, now: Moment) {
        match self {
            Self::Here(entries) => entries.tick(now),
            Self::Apart(writer) => writer.flush(now.steady),
        }
    }

    /// Whoever reads on from here finds all of it, and what was dropped.
    fn settle(&mut self, now: Moment) {
        match self {
            Self::Here(entries) => entries.flush_now(now),
            Self::Apart(writer) => writer.settle(),
        }
    }
}

fn prefix(stream: Stream, at: Timestamp) -> [u8; PREFIX] {
    let mut prefix = *b"0000-00-00T00:00:00.000000000Z stdout F ";
    if stream == Stream::Stderr {
        prefix[STAMP + 1..STAMP + 7].copy_from_slice(b"stderr");
    }
    // A time before year 0 or after 9999 would not fit; the zeros stay then.
    let mut stamp = [0; STAMP];
    if write!(stamp.as_mut_slice(), "{at:.9}").is_ok() {
        prefix[..STAMP].copy_from_slice(&stamp);
    }
    prefix
}

#[cfg(test)]
mod tests;
