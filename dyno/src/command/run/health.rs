//! The flags that say how it is found out whether a dyno works.

use std::time::Duration;

use clap::Args;
use dyno_api::health::{Check, Health};

use crate::value::{check, duration};

/// Checks: `[OPTION=VALUE …] CHECK`, see `docs/cli.md`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Health checks")]
pub(super) struct HealthArgs {
    /// Passes once before the others begin, such as tcp://:5432
    #[arg(long, value_name = "CHECK", value_parser = check::parse)]
    startup: Option<Check>,
    /// Ends the dyno where it fails; --restart says what follows
    #[arg(long, value_name = "CHECK", value_parser = check::parse)]
    liveness: Option<Check>,
    /// Takes it out of service where it fails, such as http://:8080/health
    /// [default: the image's HEALTHCHECK]
    #[arg(long, value_name = "CHECK", value_parser = check::parse)]
    readiness: Option<Check>,
    /// Time until it has to have started [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    start_timeout: Option<Duration>,
    /// It says when it has started: READY=1 on $NOTIFY_SOCKET, by sd_notify
    #[arg(long)]
    notify: bool,
    /// Longest time from one WATCHDOG=1 to the next; later, it is ended
    #[arg(long, value_name = "DURATION", requires = "notify", value_parser = duration::parse)]
    watchdog: Option<Duration>,
    /// Do not use the image's HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    pub(super) fn into_health(self) -> Health {
        Health {
            startup: self.startup,
            liveness: self.liveness,
            readiness: self.readiness,
            start_timeout_ms: self.start_timeout.map(duration::millis),
            notify: self.notify,
            watchdog_ms: self.watchdog.map(duration::millis),
            ignore_image: self.no_healthcheck,
        }
    }
}
