//! The clock: certificates, logs and leases go by it.

use dyno_api::doctor::HostCheck;
use dyno_runtime::clock::{self, Clock};

/// Seconds that a clock may be wrong by its own account.
const SECONDS: f64 = 1.0;

pub(super) fn check() -> HostCheck {
    match clock::read() {
        Ok(clock) => kept(&clock),
        Err(error) => {
            HostCheck::warning(NAME, format!("the kernel does not say how it is: {error}"))
                .advise("see whether `date` is right")
        }
    }
}

const NAME: &str = "clock";

fn kept(clock: &Clock) -> HostCheck {
    let seconds = clock.error.as_secs_f64();
    match clock.synchronized {
        true if seconds <= SECONDS => {
            HostCheck::ok(NAME, format!("kept, within {:.0} ms", seconds * 1000.0))
        }
        true => HostCheck::warning(NAME, format!("kept, but only within {seconds:.1} s"))
            .advise("see what `timedatectl timesync-status` or `chronyc tracking` says"),
        false => HostCheck::warning(NAME, "nobody keeps it in time")
            .advise("apt-get install systemd-timesyncd, or chrony"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dyno_api::doctor::CheckState::{Ok, Warning};

    use super::*;

    #[test]
    fn a_clock_is_well_when_somebody_keeps_it_and_closely() {
        let clock = |synchronized, milliseconds| Clock {
            synchronized,
            error: Duration::from_millis(milliseconds),
        };
        assert_eq!(kept(&clock(true, 20)).state, Ok);
        assert_eq!(kept(&clock(true, 5000)).state, Warning);
        assert_eq!(kept(&clock(false, 20)).state, Warning);
    }
}
