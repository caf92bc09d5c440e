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
//! there is room again: a full disk must not stop the dyno.

mod file;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::file::LogFile;
use super::protocol::LogConfig;

/// The longest piece of a line in one entry, in bytes.
pub const CUT: usize = 16 * 1024;

/// How long the beginning of a line waits for its newline.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long nothing is tried after a write has failed.
const PAUSE: Duration = Duration::from_secs(1);

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
    file: LogFile,
    batch: Batch,
    stdout: Line,
    stderr: Line,
    dropped: u64,
    resume_at: Option<Instant>,
}

/// Entries that wait for one write.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    entries: u64,
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
        Ok(Self {
            file: LogFile::open(config)?,
            batch: Batch::default(),
            stdout: Line::default(),
            stderr: Line::default(),
            dropped: 0,
            resume_at: None,
        })
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
            self.entry(&prefix, &[&line.begun, text], now.steady);
            line.begun.clear();
            line.since = None;
            line.continued = tag == b'P';
            bytes = &bytes[taken..];
        }
        *self.line(stream) = line;
        self.flush(now.steady);
    }

    /// When [`Log::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.stdout.since.into_iter().chain(self.stderr.since);
        since.min().map(|since| since + PATIENCE)
    }

    /// Writes beginnings of lines that have waited long enough.
    pub fn tick(&mut self, now: Moment) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let since = self.line(stream).since;
            if since.is_some_and(|since| since + PATIENCE <= now.steady) {
                self.put_begun(stream, b'P', now);
            }
        }
        self.flush(now.steady);
    }

    /// Ends every line that is begun: no more of it will come.
    pub fn end_lines(&mut self, now: Moment) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = self.line(stream);
            if line.continued || !line.begun.is_empty() {
                self.put_begun(stream, b'F', now);
            }
        }
        // The last chance to say what was dropped: no pause now.
        self.resume_at = None;
        self.flush(now.steady);
    }

    /// Entries that were dropped and not yet accounted for in the log.
    pub fn dropped(&self) -> u64 {
        self.dropped
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
        self.entry(&prefix, &[&line.begun], now.steady);
        self.line(stream).continued = tag == b'P';
    }

    fn entry(&mut self, prefix: &[u8; PREFIX], text: &[&[u8]], now: Instant) {
        let length = PREFIX + text.iter().map(|piece| piece.len()).sum::<usize>() + 1;
        let full = self.batch.bytes.len() + length;
        if full > BATCH || !self.file.has_room(full) {
            self.flush(now);
        }
        let bytes = &mut self.batch.bytes;
        bytes.extend_from_slice(prefix);
        for piece in text {
            bytes.extend_from_slice(piece);
        }
        bytes.push(b'\n');
        self.batch.entries += 1;
    }

    fn flush(&mut self, now: Instant) {
        let due = self.dropped > 0 && self.resume_at.is_none_or(|at| at <= now);
        if self.batch.entries == 0 && !due {
            return;
        }
        let written = if self.resume_at.is_some_and(|at| now < at) {
            false
        } else {
            self.try_flush(now)
        };
        if !written {
            self.dropped += self.batch.entries;
        }
        self.batch.entries = 0;
        self.batch.bytes.clear();
    }

    fn try_flush(&mut self, now: Instant) -> bool {
        let note = (self.dropped > 0).then(|| note(self.dropped));
        let noted = note.map_or(Ok(()), |note| self.file.append(&note));
        if noted.is_ok() {
            self.dropped = 0;
        }
        match noted.and_then(|()| self.file.append(&self.batch.bytes)) {
            Ok(()) => {
                self.resume_at = None;
                true
            }
            Err(error) => {
                if self.resume_at.is_none() {
                    super::complain(&format_args!("write the log: {error}; lines are dropped"));
                }
                self.resume_at = Some(now + PAUSE);
                false
            }
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

fn note(dropped: u64) -> Vec<u8> {
    let mut note = prefix(Stream::Stderr, Timestamp::now()).to_vec();
    let text =
        format!("[dyno: {dropped} log entries were dropped: the log could not be written]\n");
    note.extend_from_slice(text.as_bytes());
    note
}

#[cfg(test)]
mod tests;
