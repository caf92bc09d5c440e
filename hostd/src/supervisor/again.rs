//! Restarts that are hostd's own: of dynos whose monitor vanished, was told to
//! end by the system, or could not begin. The pauses are the monitor's.

use std::time::{Duration, Instant};

use dyno_api::dyno::{CRASH_LOOP, Phase};
use dyno_api::event::What;
use dyno_runtime::monitor::policy::{History, Run, Verdict};
use dyno_runtime::monitor::protocol;
use jiff::Timestamp;

use super::Supervisor;
use crate::{chance, launch};

impl Supervisor {
    /// It is started by request: what was before does not count.
    pub(super) fn begin_anew(&mut self) {
        self.history = History::default();
        self.given_up = false;
        self.record.restarts = 0;
    }

    /// Its monitor is gone without a last word, and it was killed with it: a
    /// failure like any other.
    pub(super) fn lost(&mut self) {
        tracing::warn!(dyno = %self.record.id, "the monitor is gone without a last word");
        let policy = launch::restart_policy(self.record.spec.restart);
        let started = self.view.borrow().status.started;
        let lasted = started.map(|at| lasted(at, Timestamp::now()));
        let run = failure(lasted.unwrap_or_default());
        let verdict = self.history.decide(policy, run, chance::number());
        let mut reason = "its monitor vanished; the dyno was killed with it".to_owned();
        match verdict {
            Verdict::RestartAfter(pause) => self.next_pause = Some(pause),
            Verdict::GiveUp { failures } => {
                self.given_up = true;
                reason = format!("given up after it failed {failures} times in a row; {reason}");
            }
            Verdict::Stop => {}
        }
        self.record.rest = Phase::Lost;
        self.record.reason = Some(reason);
        let (dyno, name) = (self.record.id.clone(), self.record.name.clone());
        self.host.events.emit(What::DynoLost { dyno, name });
    }

    /// Begins a pause. Where it was not a failure of the dyno's that led here,
    /// but the host's, it is tried again for ever.
    pub(super) fn pause(&mut self) {
        let pause = self.next_pause.take().unwrap_or_else(|| {
            let always = protocol::RestartPolicy::Always;
            let run = failure(Duration::ZERO);
            match self.history.decide(always, run, chance::number()) {
                Verdict::RestartAfter(pause) => pause,
                Verdict::Stop | Verdict::GiveUp { .. } => Duration::ZERO,
            }
        });
        // What the monitor that is gone has counted is in the view.
        let before = self.view.borrow().status.restarts.max(self.record.restarts);
        self.record.restarts = before.saturating_add(1);
        self.restart_due = Some(Instant::now() + pause);
        let now = Timestamp::now();
        let crashes = self.history.crashes();
        let (restarts, crash_loop) = (self.record.restarts, crashes >= CRASH_LOOP);
        self.host.events.emit(What::DynoRestarting {
            dyno: self.record.id.clone(),
            name: self.record.name.clone(),
            restarts,
            delay_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            crashes,
            crash_loop,
        });
        self.view.send_modify(|dyno| {
            dyno.status.phase = Phase::Backoff;
            dyno.status.restarts = restarts;
            dyno.status.crashes = crashes;
            dyno.status.crash_loop = crash_loop;
            dyno.status.next_start = now.checked_add(pause).ok();
        });
    }
}

fn failure(lasted: Duration) -> Run {
    Run {
        success: false,
        lasted,
    }
}

/// How long a run has lasted. A clock that was set back meanwhile does not know: then it
/// counts as short, lest a dyno that crashes at once look like one that has worked.
fn lasted(started: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(started)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_no_run_long() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(lasted(at(100), at(160)), Duration::from_secs(60));
        assert_eq!(lasted(at(86_400), at(100)), Duration::ZERO);
    }
}
