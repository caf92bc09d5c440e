//! Signals that reach the command line while it is attached.

use std::collections::VecDeque;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that are the dyno's rather than ours.
const FORWARDED: [SignalKind; 6] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Signals wait here until they are forwarded; more than this are merged, as
/// the kernel merges them.
const WAITING: usize = 16;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Forward the signal with this number.
    Forward(u8),
    /// The window has another size.
    Resized,
}

impl Signal {
    /// A request to end: what a person does who is in a hurry.
    fn is_request_to_end(self) -> bool {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        matches!(self, Self::Forward(number)
            if kinds.iter().any(|kind| kind.as_raw_value() == i32::from(number)))
    }
}

/// So many requests to end, and nobody waits politely any more.
const PATIENCE: usize = 3;

/// From its making on, signals end up here instead of ending the process.
#[derive(Debug)]
pub(crate) struct Signals {
    arriving: mpsc::Receiver<Signal>,
    /// They arrived before there was a dyno to forward them to.
    early: VecDeque<Signal>,
    /// Requests to end among all that arrived.
    requests: usize,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// What sigaction(2) says.
    pub(crate) fn listen() -> io::Result<Self> {
        let (to, receiver) = mpsc::channel(WAITING);
        for kind in FORWARDED {
            if let Ok(number) = u8::try_from(kind.as_raw_value()) {
                pass_on(kind, Signal::Forward(number), to.clone())?;
            }
        }
        pass_on(SignalKind::window_change(), Signal::Resized, to)?;
        Ok(Self {
            arriving: receiver,
            early: VecDeque::new(),
            requests: 0,
        })
    }

    /// The next signal; never returns where there can be none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.early.pop_front() {
            Some(signal) => signal,
            None => self.arrive().await,
        }
    }

    /// Somebody asked to end again and again.
    pub(crate) fn is_impatient(&self) -> bool {
        self.requests >= PATIENCE
    }

    /// Returns once somebody has asked to end again and again; keeps what
    /// arrives for [`Self::next`]. Cancel safe.
    pub(crate) async fn impatience(&mut self) {
        while !self.is_impatient() {
            let signal = self.arrive().await;
            self.early.push_back(signal);
        }
    }

    async fn arrive(&mut self) -> Signal {
        let Some(signal) = self.arriving.recv().await else {
            return std::future::pending().await;
        };
        self.requests += usize::from(signal.is_request_to_end());
        signal
    }
}

fn pass_on(kind: SignalKind, signal_is: Signal, to: mpsc::Sender<Signal>) -> io::Result<()> {
    let mut arrivals = signal(kind)?;
    let passing = async move {
        while arrivals.recv().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(_)) = to.try_send(signal_is) {
                break;
            }
        }
    };
    drop(tokio::spawn(passing));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interrupt_and_terminate_ask_to_end() {
        assert!(Signal::Forward(2).is_request_to_end());
        assert!(Signal::Forward(15).is_request_to_end());
        assert!(!Signal::Forward(1).is_request_to_end());
        assert!(!Signal::Resized.is_request_to_end());
    }
}
