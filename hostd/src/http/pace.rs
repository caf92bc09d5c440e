//! How long a client may keep us waiting: for the next bytes of what it sends, and until
//! it has taken what it asked for (P15).
//!
//! Silence alone is no measure: a byte every few seconds would keep a connection for ever.
//! Each wait is taken from a credit of so many seconds, and each byte brings a little of
//! it back, so that whoever gets on at any useful pace may take as long as it needs.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The most that a client may have us wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The same for whoever reads a stream: a person may have it in a pager.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);
/// The same for whoever takes an archive: what is packed has to stay as it is meanwhile,
/// and what it is piped into may ask a person for a passphrase.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(300);
/// So many bytes make up for a second.
pub(super) const BYTES_A_SECOND: u32 = 512;

/// What is left of our patience.
#[derive(Debug)]
pub(super) struct Credit {
    left: Duration,
    most: Duration,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self::of(PATIENCE)
    }

    fn of(most: Duration) -> Self {
        Self { left: most, most }
    }

    /// How long the next wait may last.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// A wait lasted so long, and so many bytes came of it.
    pub(super) fn spend(&mut self, waited: Duration, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / BYTES_A_SECOND;
        self.left = (self.left.saturating_sub(waited) + earned).min(self.most);
    }
}

/// What an answer is to whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reading {
    /// It is taken at once, whole.
    Answer,
    /// As it comes, perhaps by a person.
    Stream,
    /// As it is packed.
    Archive,
    /// A terminal: attach and exec.
    Terminal,
}

/// What is being read on a connection: whoever answers says so to whoever writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Mode(Arc<AtomicU8>);

impl Mode {
    pub(super) fn set(&self, reading: Reading) {
        self.0.store(reading as u8, Ordering::Relaxed);
    }

    fn is(&self, reading: Reading) -> bool {
        self.0.load(Ordering::Relaxed) == reading as u8
    }
}

/// A connection that breaks off where its client does not take what is written.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    mode: Mode,
    credit: Credit,
    archive: Credit,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, mode: Mode) -> Self {
        Self {
            stream,
            mode,
            credit: Credit::new(),
            archive: Credit::of(ARCHIVE_PATIENCE),
            wait: None,
        }
    }

    /// What an attempt to write so many bytes came to, unless it has lasted too long.
    fn check(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            if let Some(wait) = self.wait.take() {
                let bytes = result.as_ref().map_or(0, |bytes| *bytes);
                let credit = match self.mode.is(Reading::Archive) {
                    true => &mut self.archive,
                    false => &mut self.credit,
                };
                credit.spend(wait.since.elapsed(), bytes);
            }
            return Poll::Ready(result);
        }
        if self.mode.is(Reading::Terminal) {
            return Poll::Pending;
        }
        let left = match () {
            () if self.mode.is(Reading::Stream) => LONG_PATIENCE,
            () if self.mode.is(Reading::Archive) => self.archive.left(),
            () => self.credit.left(),
        };
        let wait = self.wait.get_or_insert_with(|| {
            let since = Instant::now();
            let end = Box::pin(sleep_until(since + left));
            Wait { since, end }
        });
        ready!(wait.end.as_mut().poll(context));
        let error = "the client does not take the answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.check(context, flushed.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check(context, shut.map_ok(|()| 0)).map_ok(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many seconds a client lasts that moves so many bytes in each of them.
    fn lasts(bytes: usize) -> Option<u32> {
        let mut credit = Credit::new();
        for second in 0..10_000 {
            if credit.left() < SECOND {
                return Some(second);
            }
            credit.spend(SECOND, bytes);
        }
        None
    }

    #[test]
    fn a_byte_every_second_is_not_enough_and_a_useful_pace_is() {
        assert_eq!(lasts(0), Some(60));
        assert_eq!(lasts(1), Some(60));
        assert_eq!(lasts(256), Some(119));
        assert_eq!(lasts(512), None);
    }

    /// A client that takes a byte now and then.
    #[tokio::test(start_paused = true)]
    async fn an_archive_that_is_not_taken_breaks_off() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mode = Mode::default();
        mode.set(Reading::Archive);
        let mut paced = Paced::new(ours, mode);
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            while theirs.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(100 * SECOND).await;
            }
        });
        let begin = Instant::now();
        let error = loop {
            match paced.write_all(&[0; 16]).await {
                Ok(()) => assert!(begin.elapsed() < 2000 * SECOND),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= ARCHIVE_PATIENCE);
        drop(paced);
        reader.await.unwrap();
    }

    #[test]
    fn what_came_quickly_buys_no_long_silence() {
        let mut credit = Credit::new();
        credit.spend(SECOND, 1 << 30);
        assert_eq!(credit.left(), PATIENCE);
        credit.spend(SECOND, usize::MAX);
        assert_eq!(credit.left(), PATIENCE);
    }
}
