//! The checks of a dyno's run, and what its supervisor does about them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dyno_api::dyno::NetMode;
use dyno_api::error::ErrorKind;
use dyno_api::event::What;
use dyno_api::health::{CheckKind, HealthState};
use dyno_runtime::monitor::protocol::{Phase, Request, Status};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Supervisor;
use crate::health::course::{Change, Course};
use crate::health::{self, Outcome, Saved, Subject};
use crate::host::blocking;
use crate::{chance, monitor, signal};

/// Outcomes that wait for the supervisor.
const QUEUE: usize = 4;

/// The checks of one run.
#[derive(Debug)]
pub(super) struct Checks {
    /// When the run began, which says which it is.
    run: Timestamp,
    course: Course,
    to: mpsc::Sender<Outcome>,
    outcomes: mpsc::Receiver<Outcome>,
    /// End when dropped.
    cycles: JoinSet<()>,
}

/// The next outcome; waits forever without checks.
pub(super) async fn next(checks: &mut Option<Checks>) -> Outcome {
    let received = match checks {
        Some(checks) => checks.outcomes.recv().await,
        None => None,
    };
    match received {
        Some(outcome) => outcome,
        None => std::future::pending().await,
    }
}

impl Supervisor {
    /// What the checks say of a dyno with this status.
    pub(super) fn health(&self, status: &Status) -> Option<HealthState> {
        if self.plan.is_empty() || status.phase != Phase::Running {
            return None;
        }
        let of_run = self.checks.as_ref();
        let of_run = of_run.filter(|checks| Some(checks.run) == status.started);
        Some(of_run.map_or(self.plan.first_state(), |checks| checks.course.state()))
    }

    /// Begins checks with a run, and ends them with it.
    pub(super) async fn follow_checks(&mut self) {
        let checked = self.checks.as_ref().map(|checks| checks.run);
        if self.plan.is_empty() {
            return;
        }
        if self.run_of_dyno() == checked {
            self.hear_word().await;
            return;
        }
        let had_checks = self.checks.take().is_some();
        self.begin_checks();
        match self.checks.as_ref().map(|checks| checks.course.state()) {
            Some(state) => {
                self.serve(state).await;
                self.hear_word().await;
                self.show_running();
            }
            // Whatever comes next has to become ready first.
            None if had_checks => self.serve(HealthState::Unready).await,
            None => {}
        }
    }

    /// Begins the checks of a dyno that runs, where an earlier hostd left them.
    pub(super) fn begin_checks(&mut self) {
        let Some(run) = self.run_of_dyno().filter(|_| !self.plan.is_empty()) else {
            return;
        };
        let saved = Saved::load(&self.host.paths.dyno(&self.record.id));
        if let Some(failed) = saved.as_ref().and_then(|saved| saved.failed.clone()) {
            self.record.failed_check = Some(failed);
        }
        let earlier = saved.filter(|saved| saved.run == run);
        let resumed = earlier.is_some();
        let state = earlier.map(|saved| saved.state);
        let (to, outcomes) = mpsc::channel(QUEUE);
        self.checks = Some(Checks {
            run,
            course: Course::new(self.plan.clone(), state, Instant::now()),
            to,
            outcomes,
            cycles: JoinSet::new(),
        });
        self.begin_cycles(resumed);
    }

    /// Makes no checks of a dyno that is held still: none would pass. What was under
    /// way counts for nothing.
    pub(super) fn hold_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.cycles = JoinSet::new();
            (checks.to, checks.outcomes) = mpsc::channel(QUEUE);
        }
    }

    /// Makes them again, as if hostd had come back to the dyno.
    pub(super) fn resume_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.course.resume(Instant::now());
            self.begin_cycles(true);
        }
    }

    /// Takes in that the dyno has said it has started, where it says so.
    async fn hear_word(&mut self) {
        let last = self.running.as_ref().map(|running| &running.last);
        let said = last.and_then(|last| last.notified.as_ref());
        let (Some(true), Some(checks)) = (said.map(|said| said.ready), &mut self.checks) else {
            return;
        };
        if checks.course.notified(Instant::now()) == Change::State {
            let state = checks.course.state();
            self.change(state, true, None).await;
            self.show_running();
        }
    }

    /// Acts on another state; where the dyno has just started, other checks are
    /// due.
    async fn change(&mut self, state: HealthState, started: bool, reason: Option<String>) {
        if started {
            self.begin_cycles(false);
        }
        self.serve(state).await;
        self.show_running();
        self.tell_health(state, reason).await;
    }

    /// Since when its command runs, if it does.
    fn run_of_dyno(&self) -> Option<Timestamp> {
        let last = &self.running.as_ref()?.last;
        last.started.filter(|_| last.phase == Phase::Running)
    }

    /// Makes the checks that are due now and no other.
    fn begin_cycles(&mut self, resumed: bool) {
        if self.paused {
            return;
        }
        let address = match self.record.spec.net {
            NetMode::Default => self.record.ipv4.map(IpAddr::V4),
            NetMode::Host => Some(IpAddr::from([127, 0, 0, 1])),
            NetMode::None => None,
        };
        let subject = Subject {
            host: self.host.clone(),
            id: self.record.id.clone(),
            address,
        };
        let Some(checks) = &mut self.checks else {
            return;
        };
        checks.cycles = JoinSet::new();
        for &kind in checks.course.due() {
            let Some(check) = self.plan.check(kind).cloned() else {
                continue;
            };
            let first = match kind {
                _ if resumed => chance::part_of(check.interval),
                CheckKind::Startup | CheckKind::Readiness => Duration::ZERO,
                CheckKind::Liveness => check.interval,
            };
            let deadline = (kind == CheckKind::Startup).then(|| checks.course.start_deadline());
            let (subject, to) = (subject.clone(), checks.to.clone());
            let tasks = &mut checks.cycles;
            health::spawn(tasks, subject, (kind, check), (first, deadline), to);
        }
    }

    /// Takes in what a check found.
    pub(super) async fn checked(&mut self, Outcome { kind, outcome }: Outcome) {
        let Some(checks) = &mut self.checks else {
            return;
        };
        let change = checks.course.outcome(kind, &outcome, Instant::now());
        let (state, healthy) = (checks.course.state(), checks.course.healthy());
        if let Err(reason) = &outcome {
            tracing::debug!(dyno = %self.record.id, kind = kind.as_str(), reason, "a check failed");
            let failed = checks.course.failure(kind, reason, Timestamp::now());
            self.record.failed_check = Some(failed);
        }
        match change {
            Change::None if outcome.is_ok() => return,
            Change::None => {}
            Change::State => {
                let started = kind == CheckKind::Startup;
                self.change(state, started, outcome.err()).await;
            }
            Change::Failed(reason) => {
                self.tell_health(state, Some(reason.clone())).await;
                self.end_as_failed(reason, healthy);
            }
        }
        self.show_running();
    }

    /// Puts the dyno in service, or takes it out.
    async fn serve(&self, state: HealthState) {
        if !self.plan.gates_service() {
            return;
        }
        // Who is being ended takes no new connection either.
        let in_service = state == HealthState::Ready;
        if let Err(error) = self.host.network.serve(&self.record.id, in_service).await {
            tracing::warn!(dyno = %self.record.id, %error, in_service, "its published ports change with the next repair");
        }
    }

    async fn tell_health(&self, health: HealthState, reason: Option<String>) {
        let (dyno, name) = (self.record.id.clone(), self.record.name.clone());
        self.host.events.emit(What::DynoHealth {
            dyno,
            name,
            health,
            reason,
        });
        let Some(run) = self.checks.as_ref().map(|checks| checks.run) else {
            return;
        };
        let saved = Saved::new(run, health, self.record.failed_check.clone());
        let paths = self.host.paths.dyno(&self.record.id);
        let write = blocking(move || {
            saved.save(&paths);
            Ok(())
        });
        if let Err(error) = write.await {
            tracing::debug!(%error, "what checks say is not kept");
        }
    }

    /// Has the monitor end the dyno; the restart policy is the monitor's.
    fn end_as_failed(&self, reason: String, healthy: Duration) {
        tracing::warn!(dyno = %self.record.id, reason, "a dyno that does not work is ended");
        let socket = self.host.paths.dyno(&self.record.id).monitor_socket();
        let healthy_ms = u64::try_from(healthy.as_millis()).unwrap_or(u64::MAX);
        let run = self.checks.as_ref().map(|checks| checks.run);
        let fail = Request::Fail {
            reason,
            healthy_ms,
            run,
        };
        let id = self.record.id.clone();
        tokio::spawn(async move {
            let mut asked = monitor::ask(&socket, &fail).await;
            // A monitor of an earlier build knows no other end that its policy
            // follows.
            if asked
                .as_ref()
                .is_err_and(|error| error.kind == ErrorKind::Invalid)
            {
                let kill = Request::Signal {
                    signal: signal::KILL,
                    all: false,
                };
                asked = monitor::ask(&socket, &kill).await;
            }
            if let Err(error) = asked {
                tracing::warn!(dyno = %id, %error, "it could not be ended and is checked on");
            }
        });
    }
}
