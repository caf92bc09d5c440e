//! The life of a dyno as a pure state machine: (state, event) → actions.
//!
//! ```text
//!                 Start               Exited              Emptied
//!      Created ──────────▶ Running ──────────▶ Draining ──────────▶ Ended
//!         │                 │   ▲                ▲   │ policy         ▲
//!         │ Stop            │   │ Timer, Start   │   ▼                │
//!         │             Stop│   └──────────── Backoff ───────────────┤
//!         │    (Fail: asked as by a stop, then Draining by policy)   │
//!         │                 ▼                        Stop            │
//!         └──────────▶ Stopping ─────────────────┘                   │
//!           (killed)    Timer: kill          StartFailed ────────────┘
//! ```
//!
//! The driver performs the actions and reports what came of them as events. It
//! alone knows pids, descriptors and clocks; everything that is decided is
//! decided here.

use std::time::{Duration, Instant};

use super::policy::{History, Run, Verdict};
use super::protocol::{Phase, RestartPolicy};

/// What the machine is told once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What happens when the dyno ends.
    pub restart: RestartPolicy,
    /// The signal that asks it to end.
    pub stop_signal: u8,
    /// Time between that signal and the kill.
    pub grace: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A client wants it started.
    Start,
    /// The command was executed.
    Started,
    /// The command could not be executed; its process is gone.
    StartFailed,
    /// A client, or the machine going down, wants it ended.
    Stop {
        /// Instead of the configured signal.
        signal: Option<u8>,
        /// Instead of the configured grace.
        grace: Option<Duration>,
    },
    /// It does not work: it is ended, and what follows is the policy's.
    Fail {
        /// How long of this run it worked.
        healthy: Duration,
    },
    /// It is saved, and held still: its processes are of no use any more.
    Saved,
    /// Its memory limit was reached and a process was killed for it.
    Oom,
    /// Init has ended.
    Exited {
        /// Exit code 0, neither killed by a signal nor for memory.
        success: bool,
    },
    /// After the end of init: no process is left and all output was taken.
    Emptied,
    /// The time of [`Machine::deadline`] has come.
    Timer,
}

/// What the driver shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Execute the command of the init that waits for it.
    Execute,
    /// Create a new init in the same namespaces and execute its command.
    Launch,
    /// Send this signal to init.
    Signal(u8),
    /// Kill every process of the dyno.
    Kill,
    /// It has ended for good.
    Finish,
}

/// The event does not fit the state; a client's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Start of what runs already.
    #[error("it was started already")]
    Started,
    /// Start of what is being ended.
    #[error("it is being stopped")]
    Stopping,
    /// It has ended for good.
    #[error("it has ended")]
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Created,
    Starting,
    Running {
        since: Instant,
    },
    Stopping {
        kill_at: Option<Instant>,
    },
    Failing {
        healthy: Duration,
        kill_at: Option<Instant>,
    },
    Draining {
        run: Run,
        verdict: Wanted,
    },
    Backoff {
        until: Instant,
    },
    Ended {
        failed: bool,
    },
}

/// What shall follow a run that is being cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ByPolicy,
    End,
}

/// One dyno's life.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    stage: Stage,
    history: History,
    restarts: u32,
    gave_up_after: Option<u32>,
}

impl Machine {
    /// A dyno that was created and not started.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            stage: Stage::Created,
            history: History::default(),
            restarts: 0,
            gave_up_after: None,
        }
    }

    /// The phase to show.
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Created => Phase::Created,
            Stage::Starting | Stage::Running { .. } => Phase::Running,
            Stage::Draining {
                verdict: Wanted::ByPolicy,
                ..
            } => Phase::Running,
            Stage::Stopping { .. } | Stage::Failing { .. } | Stage::Draining { .. } => {
                Phase::Stopping
            }
            Stage::Backoff { .. } => Phase::Backoff,
            Stage::Ended { failed: false } => Phase::Exited,
            Stage::Ended { failed: true } => Phase::Failed,
        }
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Runs in a row that ended before they were healthy.
    pub fn crashes(&self) -> u32 {
        self.history.crashes()
    }

    /// After how many failures in a row the policy gave up, if it did.
    pub fn gave_up_after(&self) -> Option<u32> {
        self.gave_up_after
    }

    /// When [`Event::Timer`] is due, if no other event comes first.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Backoff { until } => Some(until),
            Stage::Stopping { kill_at } | Stage::Failing { kill_at, .. } => kill_at,
            _ => None,
        }
    }

    /// Takes an event and tells what to do, in order; `jitter` is a random number.
    ///
    /// # Errors
    /// [`Conflict`] where a client asks for what the state does not allow.
    pub fn step(
        &mut self,
        event: Event,
        now: Instant,
        jitter: u16,
    ) -> Result<Vec<Action>, Conflict> {
        let actions = match (event, self.stage) {
            (Event::Start, stage) => self.start(stage)?,
            (Event::Stop { signal, grace }, stage) => self.stop(stage, signal, grace, now)?,
            (Event::Started, Stage::Starting) => {
                self.stage = Stage::Running { since: now };
                vec![]
            }
            (Event::StartFailed, Stage::Starting) => self.start_failed(now, jitter),
            (Event::Fail { healthy }, Stage::Running { .. }) => self.fail(healthy, now),
            (
                Event::Oom,
                Stage::Running { .. } | Stage::Stopping { .. } | Stage::Failing { .. },
            ) => vec![Action::Kill],
            (
                Event::Saved,
                Stage::Running { .. } | Stage::Stopping { .. } | Stage::Failing { .. },
            ) => {
                self.stage = Stage::Stopping { kill_at: None };
                vec![Action::Kill]
            }
            (Event::Exited { success }, stage) => self.exited(stage, success, now),
            (Event::Emptied, Stage::Draining { run, verdict }) => {
                self.emptied(run, verdict, now, jitter)
            }
            (Event::Timer, Stage::Backoff { until }) if until <= now => self.launch(),
            (
                Event::Timer,
                Stage::Stopping {
                    kill_at: Some(kill_at),
                },
            ) if kill_at <= now => {
                self.stage = Stage::Stopping { kill_at: None };
                vec![Action::Kill]
            }
            (
                Event::Timer,
                Stage::Failing {
                    healthy,
                    kill_at: Some(kill_at),
                },
            ) if kill_at <= now => {
                self.stage = Stage::Failing {
                    healthy,
                    kill_at: None,
                };
                vec![Action::Kill]
            }
            // What is left came late (an OOM event of a dead dyno, a timer that
            // another event overtook) and changes nothing.
            _ => vec![],
        };
        Ok(actions)
    }

    fn start(&mut self, stage: Stage) -> Result<Vec<Action>, Conflict> {
        match stage {
            Stage::Created => {
                self.stage = Stage::Starting;
                Ok(vec![Action::Execute])
            }
            Stage::Backoff { .. } => {
                self.history = History::default();
                Ok(self.launch())
            }
            Stage::Starting | Stage::Running { .. } => Err(Conflict::Started),
            Stage::Stopping { .. } | Stage::Failing { .. } | Stage::Draining { .. } => {
                Err(Conflict::Stopping)
            }
            Stage::Ended { .. } => Err(Conflict::Ended),
        }
    }

    fn launch(&mut self) -> Vec<Action> {
        self.restarts = self.restarts.saturating_add(1);
        self.stage = Stage::Starting;
        vec![Action::Launch]
    }

    fn stop(
        &mut self,
        stage: Stage,
        signal: Option<u8>,
        grace: Option<Duration>,
        now: Instant,
    ) -> Result<Vec<Action>, Conflict> {
        let signal = signal.unwrap_or(self.settings.stop_signal);
        let grace = grace.unwrap_or(self.settings.grace);
        let actions = match stage {
            Stage::Created => {
                self.stage = Stage::Stopping { kill_at: None };
                vec![Action::Kill]
            }
            Stage::Starting | Stage::Running { .. } => {
                self.ask(signal, now.checked_add(grace), now)
            }
            Stage::Stopping { kill_at } | Stage::Failing { kill_at, .. } => {
                // A second request may hasten the first one, never delay it.
                let sooner = kill_at.into_iter().chain(now.checked_add(grace)).min();
                self.ask(signal, sooner, now)
            }
            Stage::Draining { run, .. } => {
                self.stage = Stage::Draining {
                    run,
                    verdict: Wanted::End,
                };
                vec![]
            }
            Stage::Backoff { .. } => self.end(false),
            Stage::Ended { .. } => return Err(Conflict::Ended),
        };
        Ok(actions)
    }

    fn ask(&mut self, signal: u8, kill_at: Option<Instant>, now: Instant) -> Vec<Action> {
        if kill_at.is_some_and(|at| at <= now) {
            self.stage = Stage::Stopping { kill_at: None };
            return vec![Action::Signal(signal), Action::Kill];
        }
        self.stage = Stage::Stopping { kill_at };
        vec![Action::Signal(signal)]
    }

    /// However it ends now, it has failed. A grace beyond the end of time is none.
    fn fail(&mut self, healthy: Duration, now: Instant) -> Vec<Action> {
        let kill_at = now.checked_add(self.settings.grace);
        self.stage = Stage::Failing { healthy, kill_at };
        vec![Action::Signal(self.settings.stop_signal)]
    }

    fn exited(&mut self, stage: Stage, success: bool, now: Instant) -> Vec<Action> {
        let (verdict, success, lasted) = match stage {
            Stage::Running { since } => {
                let lasted = now.saturating_duration_since(since);
                (Wanted::ByPolicy, success, lasted)
            }
            Stage::Failing { healthy, .. } => (Wanted::ByPolicy, false, healthy),
            Stage::Created | Stage::Starting | Stage::Stopping { .. } => {
                (Wanted::End, success, Duration::ZERO)
            }
            Stage::Draining { .. } | Stage::Backoff { .. } | Stage::Ended { .. } => return vec![],
        };
        let run = Run { success, lasted };
        self.stage = Stage::Draining { run, verdict };
        vec![Action::Kill]
    }

    fn emptied(&mut self, run: Run, wanted: Wanted, now: Instant, jitter: u16) -> Vec<Action> {
        if wanted == Wanted::End {
            return self.end(false);
        }
        match self.history.decide(self.settings.restart, run, jitter) {
            Verdict::Stop => self.end(false),
            Verdict::GiveUp { failures } => {
                self.gave_up_after = Some(failures);
                self.end(false)
            }
            Verdict::RestartAfter(delay) => {
                self.stage = Stage::Backoff { until: now + delay };
                vec![]
            }
        }
    }

    /// The first start tells its client that it failed and is over; a restart
    /// counts as a run that failed at once.
    fn start_failed(&mut self, now: Instant, jitter: u16) -> Vec<Action> {
        if self.restarts == 0 {
            return self.end(true);
        }
        let run = Run {
            success: false,
            lasted: Duration::ZERO,
        };
        let actions = self.emptied(run, Wanted::ByPolicy, now, jitter);
        if let Stage::Ended { failed } = &mut self.stage {
            *failed = true;
        }
        actions
    }

    fn end(&mut self, failed: bool) -> Vec<Action> {
        self.stage = Stage::Ended { failed };
        vec![Action::Finish]
    }
}

#[cfg(test)]
mod tests;
