//! What is changed of a dyno while it runs: its limits, and whether it is paused.
//!
//! Limits are recorded before they are applied, and applied anew when hostd finds
//! the dyno again: a crash in between completes them. That a dyno is paused is
//! the kernel's to remember, in the dyno's cgroup.

use dyno_api::dyno::LimitRequest;
use dyno_api::error::{ApiError, ErrorKind};

use super::Supervisor;
use super::machine::State;
use crate::admission;
use crate::bundle::limit_resources;
use crate::cgroups;
use crate::durable::internal;
use crate::host::blocking;
use dyno_failpoint::failpoint;

impl Supervisor {
    /// Records other limits, and applies them where the dyno runs. What cannot be
    /// had leaves both as they were.
    pub(super) async fn limit(&mut self, request: LimitRequest) -> Result<(), ApiError> {
        let before = self.record.spec.limits;
        let wanted = request.over(before);
        self.record.spec.limits = wanted;
        if let Err(error) = admission::check_limits(&self.record.spec, &self.host.facts) {
            self.record.spec.limits = before;
            return Err(error);
        }
        if let Err(error) = self.save().await {
            self.record.spec.limits = before;
            return Err(error);
        }
        failpoint("limit.recorded");
        if let Err(error) = self.apply_limits().await {
            self.record.spec.limits = before;
            self.save().await?;
            return Err(error);
        }
        failpoint("limit.applied");
        self.view.send_modify(|dyno| dyno.spec.limits = wanted);
        Ok(())
    }

    /// Gives the cgroup of a dyno that has one the limits of its record.
    pub(super) async fn apply_limits(&self) -> Result<(), ApiError> {
        if self.running.is_none() {
            return Ok(());
        }
        let (host, id) = (self.host.clone(), self.record.id.clone());
        let limits = self.record.spec.limits;
        let disk = self.host.facts.disk;
        blocking(move || {
            let resources = limit_resources(limits, disk)?;
            let group = cgroups::of(&host, &id).map_err(|error| internal(&error))?;
            cgroups::make_room(&group, limits.memory_bytes)?;
            group.update(&resources).map_err(|error| {
                ApiError::new(
                    ErrorKind::Conflict,
                    format!(
                        "the limits stay as they were: {}",
                        crate::durable::chain(&error)
                    ),
                )
                .hint(
                    "a limit on memory must be above what the dyno uses; a dyno that an \
                     earlier hostd has started may have to be restarted first",
                )
            })
        })
        .await
    }

    /// Holds every process of the dyno still, or lets them go on.
    pub(super) async fn set_paused(&mut self, paused: bool) -> Result<(), ApiError> {
        let has_process = self.view.borrow().status.pid.is_some();
        // What is held still may go on in any state.
        let possible = self.state == State::Live && has_process;
        if !possible && (paused || !self.paused) {
            return Err(ApiError::new(
                ErrorKind::Conflict,
                format!("dyno {}: it is not running", self.record.name),
            ));
        }
        let (host, id) = (self.host.clone(), self.record.id.clone());
        self.hold_checks();
        let set = blocking(move || cgroups::set_paused(&host, &id, paused)).await;
        if set.is_ok() {
            failpoint("pause.set");
            self.paused = paused;
        }
        if !self.paused {
            self.resume_checks();
        }
        set?;
        self.view.send_modify(|dyno| dyno.status.paused = paused);
        Ok(())
    }

    /// Whether the kernel holds the dyno still.
    pub(super) async fn look_whether_paused(&mut self) {
        let (host, id) = (self.host.clone(), self.record.id.clone());
        let frozen = blocking(move || Ok(cgroups::is_paused(&host, &id))).await;
        self.paused = frozen.unwrap_or(false);
        if self.paused {
            self.hold_checks();
        }
    }
}
