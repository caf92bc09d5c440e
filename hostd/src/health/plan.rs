//! Which checks a dyno gets: what was asked for, and what its image brings.

use std::time::Duration;

use dyno_api::dyno::DynoSpec;
use dyno_api::health::{Check, CheckKind, HealthState, Probe};
use dyno_images::{Healthcheck, ImageConfig};

/// Between two checks where nothing else was asked for.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same until the dyno has started.
const STARTUP_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
const FAILURES: u32 = 3;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Docker's defaults.
const IMAGE_TIME: Duration = Duration::from_secs(30);
/// P6: an image's author is not to keep hostd busy, nor to wait for ever.
const IMAGE_TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// The checks of a dyno.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Has to pass once.
    pub startup: Option<Planned>,
    /// Ends the dyno.
    pub liveness: Option<Planned>,
    /// Takes it out of service.
    pub readiness: Option<Planned>,
    /// It says itself when it has started.
    pub notify: bool,
    /// From its start until it has to have started.
    pub start_timeout: Duration,
}

/// A check with all that was left open filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What is tried.
    pub probe: Probe,
    /// From the end of a check to the next.
    pub interval: Duration,
    /// What a check may take.
    pub timeout: Duration,
    /// Failures in a row that count.
    pub failures: u32,
    /// Passes in a row that end a failure.
    pub successes: u32,
}

impl Plan {
    /// The checks of this spec on this image.
    pub fn of(spec: &DynoSpec, image: &ImageConfig) -> Self {
        let health = &spec.health;
        let planned = |check: &Option<Check>, interval| check.as_ref().map(|c| plan(c, interval));
        let own = planned(&health.readiness, INTERVAL);
        let of_image = || match health.ignore_image {
            true => None,
            false => image.healthcheck.as_ref().and_then(plan_image),
        };
        Self {
            startup: planned(&health.startup, STARTUP_INTERVAL),
            liveness: planned(&health.liveness, INTERVAL),
            readiness: own.or_else(of_image),
            notify: health.notify,
            start_timeout: health
                .start_timeout_ms
                .map_or(START_TIMEOUT, Duration::from_millis),
        }
    }

    /// Whether there is nothing to find out.
    pub fn is_empty(&self) -> bool {
        let checks = [&self.startup, &self.liveness, &self.readiness];
        !self.notify && checks.iter().all(|check| check.is_none())
    }

    /// Whether the dyno is out of service until a check has passed.
    pub fn gates_service(&self) -> bool {
        self.startup.is_some() || self.notify || self.readiness.is_some()
    }

    /// What is known of a run that has just begun.
    pub fn first_state(&self) -> HealthState {
        match self.startup.is_some() || self.notify {
            true => HealthState::Starting,
            false => self.started_state(),
        }
    }

    /// What is known of a run that has started and nothing else.
    pub fn started_state(&self) -> HealthState {
        match self.readiness {
            Some(_) => HealthState::Unready,
            None => HealthState::Ready,
        }
    }

    /// The check of this kind.
    pub fn check(&self, kind: CheckKind) -> Option<&Planned> {
        match kind {
            CheckKind::Startup => self.startup.as_ref(),
            CheckKind::Liveness => self.liveness.as_ref(),
            CheckKind::Readiness => self.readiness.as_ref(),
        }
    }
}

fn plan(check: &Check, interval: Duration) -> Planned {
    let time = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
    Planned {
        probe: check.probe.clone(),
        interval: time(check.interval_ms, interval),
        timeout: time(check.timeout_ms, TIMEOUT),
        failures: check.failures.unwrap_or(FAILURES),
        successes: check.successes.unwrap_or(1),
    }
}

/// Docker's check says whether a container is healthy and ends none: it is a
/// readiness check. While it starts it is not ready, which is what Docker's
/// start period is for.
fn plan_image(check: &Healthcheck) -> Option<Planned> {
    let (kind, rest) = check.test.split_first()?;
    let command = match (kind.as_str(), rest) {
        ("CMD", [_, ..]) => rest.to_vec(),
        ("CMD-SHELL", [line]) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        _ => return None,
    };
    let (least, most) = IMAGE_TIMES;
    let time = |nanoseconds: i64| match u64::try_from(nanoseconds) {
        Ok(given @ 1..) => Duration::from_nanos(given).clamp(least, most),
        _ => IMAGE_TIME,
    };
    Some(Planned {
        probe: Probe::Command { command },
        interval: time(check.interval),
        timeout: time(check.timeout),
        failures: u32::try_from(check.retries.clamp(0, 1000))
            .ok()
            .filter(|&retries| retries > 0)
            .unwrap_or(FAILURES),
        successes: 1,
    })
}

#[cfg(test)]
mod tests {
    use dyno_api::health::Health;

    use super::*;

    fn image(test: &[&str], interval: i64, retries: i64) -> ImageConfig {
        let healthcheck = Healthcheck {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            interval,
            timeout: 0,
            retries,
        };
        ImageConfig {
            healthcheck: Some(healthcheck),
            ..ImageConfig::default()
        }
    }

    fn spec(health: Health) -> DynoSpec {
        DynoSpec {
            health,
            ..DynoSpec::default()
        }
    }

    #[test]
    fn the_images_check_decides_about_service_unless_told_otherwise() {
        let image = image(&["CMD-SHELL", "true"], 2_000_000_000, 0);
        let plan = Plan::of(&spec(Health::default()), &image);
        let readiness = plan.readiness.clone().unwrap();
        let words = ["/bin/sh", "-c", "true"].map(str::to_owned).to_vec();
        assert_eq!(readiness.probe, Probe::Command { command: words });
        assert_eq!(readiness.interval, Duration::from_secs(2));
        assert_eq!((readiness.timeout, readiness.failures), (IMAGE_TIME, 3));
        assert!(plan.gates_service() && plan.liveness.is_none());

        let ignoring = Health {
            ignore_image: true,
            ..Health::default()
        };
        assert!(Plan::of(&spec(ignoring), &image).is_empty());
        let own = Check {
            probe: Probe::Tcp { port: 80 },
            interval_ms: None,
            timeout_ms: Some(7),
            failures: None,
            successes: None,
        };
        let own = Health {
            readiness: Some(own),
            ..Health::default()
        };
        let own = Plan::of(&spec(own), &image).readiness.unwrap();
        assert_eq!(own.probe, Probe::Tcp { port: 80 });
        assert_eq!(
            (own.timeout, own.interval),
            (Duration::from_millis(7), INTERVAL)
        );
    }

    // P6
    #[test]
    fn an_images_nonsense_is_no_check_or_within_bounds() {
        let plan = |config| Plan::of(&spec(Health::default()), &config);
        for test in [
            &[][..],
            &["NONE"],
            &["CMD"],
            &["CMD-SHELL", "a", "b"],
            &["X", "y"],
        ] {
            assert!(plan(image(test, 0, 0)).is_empty(), "{test:?}");
        }
        for (interval, expected) in [(-1, 30), (0, 30), (1, 1), (i64::MAX, 600)] {
            let check = plan(image(&["CMD", "x"], interval, i64::MAX))
                .readiness
                .unwrap();
            assert_eq!(check.interval, Duration::from_secs(expected));
            assert_eq!(check.failures, 1000);
        }
    }
}
