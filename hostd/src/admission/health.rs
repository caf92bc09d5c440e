//! Checks of checks.

use std::ops::RangeInclusive;

use dyno_api::dyno::{DynoSpec, NetMode};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::health::{Check, GrpcProbe, HttpProbe, Probe};

use super::invalid;

/// Milliseconds between two checks, and for one: hostd makes them for a
/// thousand dynos.
const INTERVAL: RangeInclusive<u64> = 100..=24 * 3600 * 1000;
const TIMEOUT: RangeInclusive<u64> = 10..=600_000;
const START_TIMEOUT: RangeInclusive<u64> = 1..=24 * 3600 * 1000;
const IN_A_ROW: RangeInclusive<u64> = 1..=1000;
const STATUS: RangeInclusive<u64> = 101..=599;
/// Bytes of a path, and of what a body contains.
const MAX_PATH: usize = 2048;
const MAX_CONTAINS: usize = 256;
/// Bytes of the name of a host, and of a service of gRPC.
const MAX_NAME: usize = 255;

/// Whether the checks that are asked for can be made.
///
/// # Errors
/// What is wrong, with the value and what to try.
pub(super) fn check(spec: &DynoSpec) -> Result<(), ApiError> {
    let health = &spec.health;
    let checks = [
        ("startup", &health.startup),
        ("liveness", &health.liveness),
        ("readiness", &health.readiness),
    ];
    for (name, check) in checks {
        if let Some(check) = check {
            self::bounds(name, check)?;
            probe(name, &check.probe, spec.net)?;
        }
    }
    if health.watchdog_ms.is_some() && !health.notify {
        return Err(invalid("a watchdog hears what the dyno says by sd_notify")
            .hint("set `notify` as well"));
    }
    within("the watchdog's time in ms", health.watchdog_ms, &INTERVAL)?;
    if health.start_timeout_ms.is_some() && health.startup.is_none() && !health.notify {
        return Err(
            invalid("a start timeout without a startup check has no meaning")
                .hint("add a startup check, such as `tcp://:80`"),
        );
    }
    if health
        .startup
        .as_ref()
        .is_some_and(|check| check.failures.is_some())
    {
        return Err(
            invalid("the startup check counts no failures: it has the start timeout")
                .hint("leave `failures` out and set the start timeout"),
        );
    }
    within("the start timeout", health.start_timeout_ms, &START_TIMEOUT)
}

fn bounds(name: &str, check: &Check) -> Result<(), ApiError> {
    let count = |count: Option<u32>| count.map(u64::from);
    let of = |what: &str| format!("the {name} check's {what}");
    within(&of("interval in ms"), check.interval_ms, &INTERVAL)?;
    within(&of("timeout in ms"), check.timeout_ms, &TIMEOUT)?;
    within(&of("number of failures"), count(check.failures), &IN_A_ROW)?;
    within(
        &of("number of successes"),
        count(check.successes),
        &IN_A_ROW,
    )
}

fn within(what: &str, value: Option<u64>, range: &RangeInclusive<u64>) -> Result<(), ApiError> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (least, most) = (range.start(), range.end());
            Err(invalid(format!("{what} is {value}")).hint(format!("give {least} to {most}")))
        }
        _ => Ok(()),
    }
}

fn probe(name: &str, probe: &Probe, net: NetMode) -> Result<(), ApiError> {
    match probe {
        Probe::Command { command } => super::command(&format!("the {name} check"), command),
        Probe::Tcp { .. } | Probe::Http(_) | Probe::Grpc(_) if net == NetMode::None => {
            let message = format!("the {name} check connects, and the dyno has no network");
            Err(ApiError::new(ErrorKind::Invalid, message)
                .hint("use a command check, or give it a network"))
        }
        Probe::Tcp { port: 0 }
        | Probe::Http(HttpProbe { port: 0, .. })
        | Probe::Grpc(GrpcProbe { port: 0, .. }) => {
            Err(invalid(format!("the {name} check's port is 0")))
        }
        Probe::Tcp { .. } => Ok(()),
        Probe::Http(probe) => http(name, probe),
        Probe::Grpc(probe) => grpc(name, probe),
    }
}

fn printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn host(name: &str, host: Option<&String>) -> Result<(), ApiError> {
    match host {
        Some(host) if host.is_empty() || host.len() > MAX_NAME || !printable(host) => {
            Err(invalid(format!("the {name} check's host is {host:?}")))
        }
        _ => Ok(()),
    }
}

fn grpc(name: &str, probe: &GrpcProbe) -> Result<(), ApiError> {
    host(name, probe.host.as_ref())?;
    match &probe.service {
        Some(service) if service.is_empty() || service.len() > MAX_NAME || !printable(service) => {
            Err(
                invalid(format!("the {name} check's service is {service:?}"))
                    .hint("give a name as its .proto file has it, package.Service, or none at all"),
            )
        }
        _ => Ok(()),
    }
}

fn http(name: &str, probe: &HttpProbe) -> Result<(), ApiError> {
    if let Some(path) = &probe.path
        && !(path.starts_with('/') && path.len() <= MAX_PATH && printable(path))
    {
        return Err(invalid(format!("the {name} check's path is {path:?}"))
            .hint("a path begins with / and has no spaces: write them as %20"));
    }
    host(name, probe.host.as_ref())?;
    for status in [probe.status_min, probe.status_max] {
        let what = format!("the {name} check's status");
        within(&what, status.map(u64::from), &STATUS)?;
    }
    let (least, most) = probe.statuses();
    if least > most {
        return Err(invalid(format!("no status passes the {name} check")));
    }
    match &probe.contains {
        Some(text) if text.is_empty() || text.len() > MAX_CONTAINS => Err(invalid(format!(
            "what the {name} check looks for has {} bytes",
            text.len()
        ))
        .hint(format!("give 1 to {MAX_CONTAINS}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::health::Health;

    use super::*;

    fn checked(probe: Probe, change: impl FnOnce(&mut DynoSpec)) -> Result<(), ApiError> {
        let readiness = Check {
            probe,
            interval_ms: None,
            timeout_ms: None,
            failures: None,
            successes: None,
        };
        let mut spec = DynoSpec {
            health: Health {
                readiness: Some(readiness),
                ..Health::default()
            },
            ..DynoSpec::default()
        };
        change(&mut spec);
        check(&spec)
    }

    fn http(path: &str) -> Probe {
        Probe::Http(HttpProbe {
            port: 80,
            path: Some(path.to_owned()),
            ..HttpProbe::default()
        })
    }

    #[test]
    fn a_dyno_without_network_is_checked_by_commands_only() {
        let none = |spec: &mut DynoSpec| spec.net = NetMode::None;
        let command = Probe::Command {
            command: vec!["true".to_owned()],
        };
        assert_eq!(checked(command, none), Ok(()));
        for probe in [Probe::Tcp { port: 80 }, http("/")] {
            let refusal = checked(probe, none).unwrap_err();
            assert!(refusal.message.contains("no network"), "{refusal}");
            assert!(refusal.hint.unwrap().contains("command check"));
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let fine = |_: &mut DynoSpec| {};
        assert_eq!(checked(http("/health?x=%20"), fine), Ok(()));
        for path in ["health", "/a b", "/\r\nX: y", ""] {
            assert!(checked(http(path), fine).is_err(), "{path:?}");
        }
        assert!(checked(Probe::Tcp { port: 0 }, fine).is_err());
        let command = |words: &[&str]| Probe::Command {
            command: words.iter().map(|&word| word.to_owned()).collect(),
        };
        for words in [&[][..], &[""], &["a", "b\0"]] {
            assert!(checked(command(words), fine).is_err(), "{words:?}");
        }
        let tcp = || Probe::Tcp { port: 1 };
        let change = |change: fn(&mut Check)| {
            checked(tcp(), |spec| {
                spec.health.readiness.as_mut().map(change);
            })
        };
        assert!(change(|check| check.interval_ms = Some(1)).is_err());
        assert!(change(|check| check.timeout_ms = Some(u64::MAX)).is_err());
        assert!(change(|check| check.failures = Some(0)).is_err());
        let orphan = checked(tcp(), |spec| spec.health.start_timeout_ms = Some(5));
        assert!(orphan.unwrap_err().message.contains("startup"));
    }
}
