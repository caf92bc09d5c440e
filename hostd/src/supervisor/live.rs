//! What is changed of a dyno while it runs: its limits, and whether it is paused.
//!
//! Limits are recorded before they are applied, and applied anew when hostd finds
//! the dyno again: a crash in between completes them. That a dyno is paused is
//! the kernel's to remember, in the dyno's cgroup.

use dyno_api::dyno::{LimitRequest, Ulimit};
use dyno_api::error::{ApiError, ErrorKind};

use dyno_runtime::monitor::protocol::Request;

use super::Supervisor;
use super::machine::State;
use crate::admission;
use crate::bundle::{default_nofile, limit_resources, rlimit};
use crate::cgroups;
use crate::durable::internal;
use crate::host::blocking;
use crate::launch::Running;
use crate::layer;
use crate::paths::DynoPaths;
use dyno_failpoint::failpoint;

/// The one resource limit that is changed while a dyno runs.
const NOFILE: &str = "nofile";

impl Supervisor {
    /// Records other limits, and applies them where the dyno runs. What cannot be
    /// had leaves both as they were.
    pub(super) async fn limit(&mut self, request: LimitRequest) -> Result<(), ApiError> {
        let before = (self.record.spec.limits, self.record.spec.ulimits.clone());
        let nofile = request.nofile.map(|asked| self.nofile(asked));
        let wanted = request.over(before.0);
        self.record.spec.limits = wanted;
        if let Some(nofile) = nofile {
            // The default, too, until it is applied.
            self.record.spec.ulimits.insert(NOFILE.to_owned(), nofile);
        }
        let checked = admission::check_limits(&self.record.spec, &self.host.facts).and_then(|()| {
            nofile.map_or(Ok(()), |nofile| {
                admission::check_ulimit(NOFILE, nofile, &self.host.facts)
            })
        });
        let recorded = match checked {
            Ok(()) => self.save().await,
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            (self.record.spec.limits, self.record.spec.ulimits) = before;
            return Err(error);
        }
        failpoint("limit.recorded");
        let has_parts = request.disk_bytes.is_some() || nofile.is_some();
        if let Err(error) = self.apply(&request, nofile).await {
            (self.record.spec.limits, self.record.spec.ulimits) = before;
            self.save().await?;
            // Some may have been had before one was refused.
            if has_parts {
                self.complete_limits().await;
            }
            return Err(error);
        }
        failpoint("limit.applied");
        if request.nofile == Some(Ulimit::default()) {
            self.record.spec.ulimits.remove(NOFILE);
            self.save().await?;
        }
        let ulimits = self.record.spec.ulimits.clone();
        self.view.send_modify(|dyno| {
            dyno.spec.limits = wanted;
            dyno.spec.ulimits = ulimits;
        });
        Ok(())
    }

    /// What a request for so many open files means.
    fn nofile(&self, asked: Ulimit) -> Ulimit {
        match asked == Ulimit::default() {
            true => default_nofile(&self.host.facts),
            false => asked,
        }
    }

    /// Has its monitor give every process of a dyno that has one so many open files.
    async fn apply_nofile(&self, nofile: Option<Ulimit>) -> Result<(), ApiError> {
        let (Some(nofile), Some(_)) = (nofile, &self.running) else {
            return Ok(());
        };
        let Some(rlimit) = rlimit(NOFILE, nofile)? else {
            return Ok(());
        };
        let told = self.tell(&Request::Limit { rlimit }).await;
        told.map_err(|error| match error.kind {
            // Everything else in the request is right.
            ErrorKind::Invalid => ApiError::new(
                ErrorKind::Conflict,
                "the dyno was started by an earlier hostd, and its open files cannot be \
                 limited while it runs",
            )
            .hint("stop it, change the limit, and start it"),
            _ => error,
        })
    }

    /// Applies the limits of the record, where there is something that they apply to.
    async fn apply(&self, request: &LimitRequest, nofile: Option<Ulimit>) -> Result<(), ApiError> {
        if request.disk_bytes.is_some() {
            self.limit_layer(layer::limit_anew).await?;
        }
        failpoint("limit.layer");
        self.apply_limits().await?;
        failpoint("limit.group");
        self.apply_nofile(nofile).await
    }

    async fn limit_layer(
        &self,
        limit: fn(&DynoPaths, Option<u64>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let own = self.host.paths.dyno(&self.record.id);
        let most = self.record.spec.limits.disk_bytes;
        blocking(move || limit(&own, most)).await
    }

    /// Completes a change of a dyno that was found again: it may have been recorded and
    /// not applied. Or takes back what was applied of one that is not recorded.
    pub(super) async fn complete_limits(&self) {
        let warn = |error: ApiError| {
            tracing::warn!(dyno = %self.record.id, %error, "its limits may not be those of its record");
        };
        self.limit_layer(layer::limit).await.unwrap_or_else(warn);
        self.apply_limits().await.unwrap_or_else(warn);
        if self.running.as_ref().is_some_and(Running::answers) {
            let nofile = self.record.spec.ulimits.get(NOFILE).copied();
            match self.apply_nofile(nofile).await {
                // A monitor that cannot change it was started with it.
                Err(error) if error.kind == ErrorKind::Conflict => {}
                applied => applied.unwrap_or_else(warn),
            }
        }
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
