//! What the service manager is told, as sd_notify(3) has it. Where nobody waits to be
//! told, nothing happens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::host::Host;
use crate::readiness;

/// Tells that this unit is ready.
///
/// # Errors
/// When the message cannot be sent.
pub fn ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// Tells that this unit begins to end.
///
/// # Errors
/// When the message cannot be sent.
pub fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// Tells that this unit reads anew what it was asked to; [`ready`] follows.
///
/// # Errors
/// When the message cannot be sent.
pub fn reloading() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// Says that hostd lives for as long as it looks after its dynos: where it does not, the
/// service manager starts another one. Returns at once where no watchdog waits.
pub async fn keep_alive(host: Arc<Host>) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    // A look may take some seconds, and one may be missed.
    let mut ticks = interval((period / 4).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let told = match readiness::supervisors(&host).await {
            Ok(()) => sd_notify::notify(&[NotifyState::Watchdog]),
            Err(reason) => {
                tracing::error!(reason, "the watchdog is not told that hostd lives");
                continue;
            }
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the watchdog cannot be told that hostd lives");
        }
    }
}
