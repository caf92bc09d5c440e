//! Starts that wait for other dynos.
//!
//! Who has to be there first is asked at a start by request and at boot, not
//! at restarts: what runs together may fail apart.

use std::time::Duration;

use dyno_api::dyno::{Dependency, Dyno, Phase, Until};
use dyno_api::error::ApiError;
use dyno_api::event::Event;
use dyno_api::health::HealthState;
use tokio::sync::broadcast;

use super::machine::{Input, State};
use super::{Ask, Supervisor};
use crate::desired::Wanted;
use crate::engine;

/// Should an event be missed, it is looked again after this time.
const LOOK: Duration = Duration::from_secs(1);

/// A start that waits.
#[derive(Debug)]
pub(super) struct Pending {
    events: broadcast::Receiver<Event>,
    /// For whom.
    unmet: String,
}

/// Returns when something happened that a pending start may have waited for;
/// never without one.
pub(super) async fn stirs(pending: &mut Option<Pending>) {
    match pending {
        Some(pending) => {
            tokio::select! {
                // Events that were missed are a reason to look as well.
                _ = pending.events.recv() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        None => std::future::pending().await,
    }
}

impl Supervisor {
    /// Starts the dyno as soon as those are there that it comes after.
    ///
    /// # Errors
    /// Why it cannot be started, where it need not wait.
    pub(super) async fn start_in_order(&mut self, ask: Option<Ask>) -> Result<(), ApiError> {
        // Before the look: what happens after it is heard.
        let events = self.host.events.subscribe(None).1;
        let unmet = match self.state {
            State::Resting | State::Prepared => self.unmet(),
            State::Live | State::Waiting => String::new(),
        };
        if unmet.is_empty() {
            self.pending = None;
            return self.input(Input::Start, ask).await;
        }
        self.want(Wanted::Running, ask.is_some()).await?;
        let known = self.pending.as_ref().map(|pending| &pending.unmet);
        if known != Some(&unmet) {
            tracing::info!(dyno = %self.record.id, unmet, "it waits for others");
        }
        self.pending = Some(Pending { events, unmet });
        self.view.send_modify(|dyno| show(dyno, &self.pending));
        Ok(())
    }

    /// Looks whether those are there meanwhile.
    pub(super) async fn look_again(&mut self) {
        if let Err(error) = self.start_in_order(None).await {
            tracing::error!(dyno = %self.record.id, %error, "what waited for others could not be started");
        }
    }

    /// It waits no more, because it is asked to end.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) async fn stop_waiting(&mut self) -> Result<(), ApiError> {
        if self.pending.take().is_none() {
            return Ok(());
        }
        self.want(Wanted::Stopped, false).await?;
        match self.state {
            State::Prepared => self.show_running(),
            _ => self.show_resting(),
        }
        Ok(())
    }

    /// Shows that it waits, where it does.
    pub(super) fn show_pending(&self, dyno: &mut Dyno) {
        show(dyno, &self.pending);
    }

    /// Whom it waits for, in words; empty where for nobody.
    fn unmet(&self) -> String {
        let missing = |after: &&Dependency| match engine::find(&self.host, after.name.as_str()) {
            Ok(handle) => !is_met(&handle.dyno(), after.until),
            Err(_) => true,
        };
        let after = self.record.spec.after.iter().filter(missing);
        let words: Vec<_> = after.map(ToString::to_string).collect();
        words.join(", ")
    }
}

fn show(dyno: &mut Dyno, pending: &Option<Pending>) {
    if let Some(pending) = pending {
        dyno.status.phase = Phase::Waiting;
        dyno.status.reason = Some(format!("it comes after {}", pending.unmet));
    }
}

/// Whether this dyno is as far as another one wants it.
fn is_met(dyno: &Dyno, until: Until) -> bool {
    let status = &dyno.status;
    let ready = matches!(status.health, None | Some(HealthState::Ready));
    status.phase == Phase::Running && (until == Until::Started || ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::record;
    use crate::supervisor::view;

    #[test]
    fn ready_is_more_than_started_and_an_end_is_neither() {
        let mut dyno = view::resting(&record(1));
        let mut met = |phase, health| {
            (dyno.status.phase, dyno.status.health) = (phase, health);
            [Until::Started, Until::Ready].map(|until| is_met(&dyno, until))
        };
        assert_eq!(met(Phase::Running, None), [true, true]);
        assert_eq!(met(Phase::Running, Some(HealthState::Ready)), [true, true]);
        assert_eq!(
            met(Phase::Running, Some(HealthState::Starting)),
            [true, false]
        );
        assert_eq!(
            met(Phase::Running, Some(HealthState::Unready)),
            [true, false]
        );
        for phase in [
            Phase::Created,
            Phase::Backoff,
            Phase::Stopping,
            Phase::Exited,
        ] {
            assert_eq!(met(phase, None), [false, false]);
        }
    }
}
