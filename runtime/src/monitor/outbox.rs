//! What waits to be sent to one client: bounded in size and in time (P15).
//!
//! A client that does not take what it is sent fills its outbox. Above
//! [`FULL`] bytes nothing more is produced for it — the dyno's output is not
//! read, so the dyno slows down — until it has taken half of that, or until
//! its patience is over and it is dropped.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::frame;

/// Bytes above which nothing more is produced for this client.
pub const FULL: usize = 128 * 1024;

/// How long a client may hold everybody up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The dyno's output is this client's own output, as a shell's pipe would
    /// be: it attached before the start, or executes a process. Ten minutes
    /// without a byte taken.
    Foreground,
    /// It came to look on: two seconds with a full outbox.
    Observer,
}

impl Patience {
    /// How long it lasts.
    pub const fn limit(self) -> Duration {
        match self {
            Self::Foreground => Duration::from_secs(600),
            Self::Observer => Duration::from_secs(2),
        }
    }
}

/// Bytes on their way to one client.
#[derive(Debug)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Lengths of the lines and frames that are not sent whole.
    units: VecDeque<usize>,
    /// Bytes of the first unit that were sent.
    begun: usize,
    patience: Patience,
    /// Since when it has been full, or, in the foreground, has not moved.
    full_since: Option<Instant>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            units: VecDeque::new(),
            begun: 0,
            patience: Patience::Observer,
            full_since: None,
        }
    }
}

impl Outbox {
    /// Sets how long this client may hold others up.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// How long this client may hold others up.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whether nothing more should be produced for this client now.
    pub fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// When its patience is over, unless it takes something.
    pub fn deadline(&self) -> Option<Instant> {
        self.full_since.map(|since| since + self.patience.limit())
    }

    /// Puts one frame, or several, behind what waits.
    pub fn push_frames(&mut self, kind: frame::Kind, bytes: &[u8], now: Instant) {
        let before = self.bytes.len();
        frame::encode(&mut self.bytes, kind, bytes);
        self.note(before, now);
    }

    /// Puts a line behind what waits.
    pub fn push_line(&mut self, json: &[u8], now: Instant) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(json);
        self.bytes.push(b'\n');
        self.note(before, now);
    }

    /// Throws away what waits, except for the rest of a line or frame that was
    /// sent in part: what is put behind it still makes sense.
    pub fn cut(&mut self) {
        let rest = self
            .units
            .front()
            .filter(|_| self.begun > 0)
            .map(|unit| unit - self.begun);
        self.bytes.truncate(self.sent + rest.unwrap_or(0));
        self.units.truncate(usize::from(rest.is_some()));
        self.full_since = None;
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, now: Instant) -> rustix::io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(socket, rest, flags) {
                Ok(taken) => self.took(taken, now),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn took(&mut self, count: usize, now: Instant) {
        self.sent += count;
        self.begun += count;
        while let Some(&unit) = self.units.front().filter(|&&unit| unit <= self.begun) {
            self.begun -= unit;
            self.units.pop_front();
        }
        let waiting = self.bytes.len() - self.sent;
        if waiting == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(FULL / 2);
            self.sent = 0;
        } else if self.sent > waiting {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        if waiting <= FULL / 2 {
            self.full_since = None;
        } else if self.patience == Patience::Foreground && self.full_since.is_some() {
            self.full_since = Some(now);
        }
    }

    fn note(&mut self, before: usize, now: Instant) {
        self.units.push_back(self.bytes.len() - before);
        if self.bytes.len() - self.sent > FULL {
            self.full_since.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn filled(patience: Patience, ours: &UnixStream, now: Instant) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.set_patience(patience);
        while !outbox.is_full() {
            outbox.push_frames(frame::Kind::Stdout, &[7; 10_000], now);
            outbox.flush(ours.as_fd(), now).unwrap();
        }
        outbox
    }

    fn read_some(theirs: &mut UnixStream, bytes: usize) {
        theirs.read_exact(&mut vec![0; bytes]).unwrap();
    }

    #[test]
    fn a_client_that_takes_half_of_it_is_no_longer_full() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let now = Instant::now();
        let mut outbox = filled(Patience::Observer, &ours, now);
        let mut taken = 0;
        while outbox.is_full() {
            read_some(&mut theirs, 10_000);
            taken += 10_000;
            outbox.flush(ours.as_fd(), now).unwrap();
        }
        assert!(taken >= FULL / 2, "{taken}");
        assert_eq!(outbox.deadline(), None);
    }

    #[test]
    fn an_observer_that_trickles_is_dropped_and_a_foreground_is_not() {
        for (patience, moved) in [(Patience::Observer, false), (Patience::Foreground, true)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let begin = Instant::now();
            let mut outbox = filled(patience, &ours, begin);
            let first = outbox.deadline().unwrap();
            assert_eq!(first, begin + patience.limit());
            // Twice as much as one packet of the socket, so that it moves.
            read_some(&mut theirs, 40_000);
            outbox
                .flush(ours.as_fd(), begin + Duration::from_secs(1))
                .unwrap();
            assert!(outbox.is_full());
            assert_eq!(outbox.deadline() > Some(first), moved, "{patience:?}");
        }
    }

    #[test]
    fn after_a_cut_the_client_still_reads_whole_frames() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let now = Instant::now();
        let mut outbox = filled(Patience::Observer, &ours, now);
        outbox.cut();
        assert!(!outbox.is_full());
        outbox.push_frames(frame::Kind::Error, b"too slow", now);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        while !outbox.is_empty() {
            outbox.flush(ours.as_fd(), now).unwrap();
        }
        drop(ours);
        let all = reader.join().unwrap();
        let end = all.len() - frame::HEADER - b"too slow".len();
        assert_eq!(end % (frame::HEADER + 10_000), 0);
        assert_eq!(&all[end..], b"\x06\0\0\0\x08too slow");
    }

    #[test]
    fn a_client_that_is_gone_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut outbox = Outbox::default();
        outbox.push_line(b"{}", Instant::now());
        assert_eq!(outbox.flush(ours.as_fd(), Instant::now()), Err(Errno::PIPE));
    }
}
