//! A dyno that is saved, and one that comes back from what was saved.
//!
//! Which checkpoint it comes back from is recorded until it runs: a hostd that takes
//! over brings it back, too, rather than to start it anew.

use dyno_api::dyno::{NetMode, Phase};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::RestoreConfig;

use super::machine::{Input, State};
use super::{Ask, Supervisor};
use crate::checkpoints;
use crate::desired::Wanted;

impl Supervisor {
    /// Whether it can be saved now; nobody checks meanwhile whether it works, as it is
    /// held still. Its monitor does the rest.
    pub(super) fn begin_save(&mut self, leave_running: bool) -> Result<(), ApiError> {
        let name = &self.record.name;
        let refused = |kind, why: &str| ApiError::new(kind, format!("dyno {name}: {why}"));
        let runs = self.view.borrow().status.phase == Phase::Running;
        if self.state != State::Live || !runs {
            return Err(refused(ErrorKind::Conflict, "it is not running"));
        }
        if self.paused {
            return Err(refused(ErrorKind::Conflict, "it is paused")
                .hint("`dyno resume` it first: CRIU holds it still itself"));
        }
        if self.record.spec.net == NetMode::Host {
            return Err(refused(
                ErrorKind::Unsupported,
                "it is on the host's network, whose sockets are not the dyno's alone to bring back",
            ));
        }
        if self.record.spec.tty {
            return Err(refused(
                ErrorKind::Unsupported,
                "it has a terminal, whose other end cannot be brought back",
            ));
        }
        if self.record.spec.rm && !leave_running {
            return Err(refused(
                ErrorKind::Conflict,
                "it is removed with its end, and its checkpoint with it",
            )
            .hint("leave it running: `--leave-running`"));
        }
        self.hold_checks();
        Ok(())
    }

    /// Whatever came of it.
    pub(super) fn end_save(&mut self) {
        if !self.paused {
            self.resume_checks();
        }
    }

    /// Starts the dyno from a checkpoint.
    pub(super) async fn restore(&mut self, name: DynoName, ask: Ask) -> Result<(), ApiError> {
        if !matches!(self.state, State::Resting | State::Waiting) || self.pending.is_some() {
            let message = format!("dyno {}: it is running", self.record.name);
            return Err(ApiError::new(ErrorKind::Conflict, message).hint("stop it first"));
        }
        // Both at once: what was recorded in between would be neither.
        let before = std::mem::replace(&mut self.record.wanted, Wanted::Running);
        self.record.restore = Some(name);
        if let Err(error) = self.save().await {
            self.record.wanted = before;
            self.record.restore = None;
            return Err(error);
        }
        failpoint("restore.recorded");
        self.input(Input::Start, Some(ask)).await
    }

    /// What its monitor is told, where it comes back from a checkpoint.
    pub(super) fn comes_from(&self) -> Result<Option<RestoreConfig>, ApiError> {
        let Some(name) = &self.record.restore else {
            return Ok(None);
        };
        let folder = self.host.paths.dyno(&self.record.id).checkpoints();
        Ok(Some(RestoreConfig {
            criu: checkpoints::criu()?,
            images: folder.join(name.as_str()),
        }))
    }

    /// It runs, or cannot be brought back: the next start is an ordinary one.
    pub(super) async fn came_back(&mut self) {
        if self.record.restore.take().is_none() {
            return;
        }
        if let Err(error) = self.save().await {
            tracing::warn!(dyno = %self.record.id, %error, "that it came back is not recorded");
        }
    }
}
