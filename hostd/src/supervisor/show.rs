//! The files of a dyno that does not run: a container that is created and never
//! started has them all, as the dyno would see them. It stands as long as
//! somebody looks, and gives way to any request that does something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dyno_api::error::{ApiError, ErrorKind};
use tokio::process::Child;

use super::Supervisor;
use super::machine::State;
use crate::{launch, trash};

/// Between two looks whether somebody is still there.
const LOOK: Duration = Duration::from_secs(1);

/// A container for looking.
#[derive(Debug)]
pub(super) struct Shown {
    monitor: Child,
    /// When it is asked next whether it is still needed.
    pub(super) look_at: Instant,
}

impl Supervisor {
    /// Has a container, the dyno's own or one for looking. Its first process is
    /// told by the monitor's state.
    pub(super) async fn show_files(&mut self) -> Result<(), ApiError> {
        match self.state {
            State::Prepared | State::Live => return Ok(()),
            State::Waiting => {
                return Err(ApiError::new(
                    ErrorKind::Conflict,
                    format!("dyno {} is about to be started again", self.record.name),
                ));
            }
            State::Resting => {}
        }
        if let Some(shown) = &mut self.shown
            && matches!(shown.monitor.try_wait(), Ok(None))
        {
            return Ok(());
        }
        self.end_show().await;
        let monitor = launch::show(&self.host, &self.record).await?;
        self.shown = Some(Shown {
            monitor,
            look_at: Instant::now() + LOOK,
        });
        Ok(())
    }

    /// Whoever looked has gone, or not.
    pub(super) async fn look_for_viewers(&mut self) {
        if Arc::strong_count(&self.attached) > 1
            && let Some(shown) = &mut self.shown
        {
            shown.look_at = Instant::now() + LOOK;
            return;
        }
        self.end_show().await;
    }

    /// Takes the container down; whoever still looks sees no more.
    pub(super) async fn end_show(&mut self) {
        let Some(mut shown) = self.shown.take() else {
            return;
        };
        launch::undo(&self.host, &self.record, &mut shown.monitor).await;
        let run = self.host.paths.dyno(&self.record.id).run;
        let trash = self.host.paths.run_trash();
        let thrown = tokio::task::spawn_blocking(move || trash::throw(&run, &trash)).await;
        if !matches!(thrown, Ok(Ok(()))) {
            tracing::warn!(dyno = %self.record.id, ?thrown, "a bundle stays until the next start");
        }
    }
}
