//! A further process in the dyno, whose streams are one client's connection.
//!
//! ```text
//!  request ─▶ runs ──ends──▶ what its pipes hold is sent ──▶ Exit frame
//!               │ client gone: SIGHUP, 5 s later SIGKILL
//!               ▼
//!             ends, is reaped, nobody is told
//! ```

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::log::Stream;
use super::protocol::ExitStatus;
use super::streams::Streams;
use crate::container::Process;

/// Time between SIGHUP and SIGKILL for a process whose client went away.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);

/// One executed process.
#[derive(Debug)]
pub(super) struct Exec {
    /// The client whose connection its streams are.
    pub(super) client: u64,
    pub(super) process: Process,
    pub(super) streams: Streams,
    /// Out-of-memory events of the dyno when it began.
    pub(super) oom_before: u64,
    /// How it ended, once it has.
    pub(super) exit: Option<ExitStatus>,
    kill_at: Option<Instant>,
    orphaned: bool,
}

impl Exec {
    pub(super) fn new(client: u64, process: Process, streams: Streams, oom_before: u64) -> Self {
        Self {
            client,
            process,
            streams,
            oom_before,
            exit: None,
            kill_at: None,
            orphaned: false,
        }
    }

    /// Its client went away.
    pub(super) fn orphan(&mut self, now: Instant) {
        if self.orphaned {
            return;
        }
        self.orphaned = true;
        // With its streams closed a process that writes learns of it, too, and
        // one on a terminal gets its SIGHUP from the kernel with its session.
        self.streams = Streams::default();
        if self.exit.is_none() {
            self.signal(Signal::HUP);
            self.kill_at = Some(now + HANG_UP_GRACE);
        }
    }

    /// Sends it a signal; one that has just ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = self.process.signal(signal)
            && self.exit.is_none()
        {
            super::complain(&format_args!("signal an executed process: {error}"));
        }
    }

    /// When [`Exec::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.kill_at.filter(|_| self.exit.is_none())
    }

    /// Kills it where it is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.signal(Signal::KILL);
        }
    }

    /// Whether it has ended and its output was taken.
    pub(super) fn is_over(&self) -> bool {
        self.exit.is_some() && (self.orphaned || self.streams.ended())
    }
}

/// Both output streams, in the order in which they are read.
pub(super) const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
