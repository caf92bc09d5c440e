//! The direction to the dyno: what is typed, signals, the window's size.

use dyno_api::client::{Error, FrameWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{End, Streams};
use crate::failure::Failure;
use crate::signal::{Signal, Signals};
use crate::terminal;
use crate::value::detach::{Scanner, Typed};

/// Chunks that wait for a dyno which does not read.
const WAITING: usize = 4;

/// What a person at this side does. It outlives a session, so that nothing
/// typed or asked for is lost where a second one follows.
#[derive(Debug)]
pub(crate) struct Input {
    signals: Signals,
    /// What is typed, once a session has wanted to know.
    typed: Option<mpsc::Receiver<Vec<u8>>>,
}

impl Input {
    /// Takes the signals over; the standard input is not touched yet.
    ///
    /// # Errors
    /// A [`Failure`] where signals cannot be taken over.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let signals =
            Signals::listen().map_err(|error| Failure::io("cannot take signals", &error))?;
        Ok(Self {
            signals,
            typed: None,
        })
    }

    /// Returns once a person has asked to end again and again. Cancel safe.
    pub(crate) async fn impatience(&mut self) {
        self.signals.impatience().await;
    }

    /// Forwards all of it, until the person wants to leave.
    pub(super) async fn forward(&mut self, writer: FrameWriter, streams: &Streams) -> End {
        if streams.stdin && self.typed.is_none() {
            self.typed = Some(terminal::typed());
        }
        let (pending, frames) = mpsc::channel(WAITING);
        let mut scanner = Scanner::new(streams.detach_keys.clone());
        // The writer has a task of its own: a dyno that does not read its input
        // must not keep us from counting requests to end.
        let writing = AbortOnDrop(tokio::spawn(write_frames(writer, frames)));
        loop {
            tokio::select! {
                signal = self.signals.next() => {
                    if self.signals.is_impatient() {
                        return End::Impatient;
                    }
                    if let Some(frame) = signal_frame(signal, streams) {
                        // Those that cannot be sent now are merged, as the kernel does.
                        drop(pending.try_send(frame));
                    }
                }
                Some((permit, bytes)) = next_typed(&mut self.typed, &pending) => {
                    match scan(&mut scanner, streams.tty, bytes) {
                        Some(frame) => permit.send(frame),
                        None => return End::Detached,
                    }
                }
                // The connection broke: the reading side sees and tells it.
                () = pending.closed() => {
                    drop(writing);
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// Ends a task that nobody waits for any more.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is sent to the dyno.
enum Frame {
    Stdin(Vec<u8>),
    EndOfStdin,
    Resize(u16, u16),
    Signal(u8),
}

async fn write_frames(
    mut writer: FrameWriter,
    mut frames: mpsc::Receiver<Frame>,
) -> Result<(), Error> {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Stdin(bytes) => writer.stdin(&bytes).await?,
            Frame::EndOfStdin => writer.close_stdin().await?,
            Frame::Resize(rows, columns) => writer.resize(rows, columns).await?,
            Frame::Signal(number) => writer.signal(number).await?,
        }
    }
    Ok(())
}

fn signal_frame(signal: Signal, streams: &Streams) -> Option<Frame> {
    match signal {
        Signal::Forward(number) => Some(Frame::Signal(number)),
        Signal::Resized => streams
            .size()
            .map(|(rows, columns)| Frame::Resize(rows, columns)),
    }
}

/// The frame for what was typed; `None` for the keys that detach.
fn scan(scanner: &mut Scanner, tty: bool, bytes: Vec<u8>) -> Option<Frame> {
    if bytes.is_empty() {
        return Some(Frame::EndOfStdin);
    }
    if !tty || !terminal::is_interactive() {
        return Some(Frame::Stdin(bytes));
    }
    match scanner.feed(&bytes) {
        Typed::Forward(bytes) => Some(Frame::Stdin(bytes)),
        Typed::Detach(_) => None,
    }
}

/// What is typed next, once it can be sent. Cancel safe.
async fn next_typed<'a>(
    typed: &mut Option<mpsc::Receiver<Vec<u8>>>,
    pending: &'a mpsc::Sender<Frame>,
) -> Option<(mpsc::Permit<'a, Frame>, Vec<u8>)> {
    let typed = typed.as_mut()?;
    let permit = pending.reserve().await.ok()?;
    Some((permit, typed.recv().await?))
}
