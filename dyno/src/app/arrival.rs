//! Waiting until a dyno has come up, and telling why it has not.

use std::time::Duration;

use dyno_api::client::Client;
use dyno_api::dyno::{Dyno, Phase, RestartPolicy};
use dyno_api::health::HealthState;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::document::clean;
use crate::failure::Failure;

/// Between two looks at a dyno.
const PAUSE: Duration = Duration::from_millis(50);

/// So long a dyno runs before it counts as up: what cannot work ends at once.
const SETTLED: Duration = Duration::from_secs(1);

/// How far a dyno is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It runs and is in service, or has done what it had to do.
    Up,
    /// It may yet come up.
    Under,
    /// It will not, by itself.
    Failed,
}

/// Waits until the dyno is up.
///
/// # Errors
/// A [`Failure`] that says why it is not, at the latest when the time is over.
pub(super) async fn wait(client: &Client, name: &str, until: Instant) -> Result<(), Failure> {
    loop {
        let dyno = client.dyno(name).await?;
        match arrival(&dyno, Timestamp::now()) {
            Arrival::Up => return Ok(()),
            Arrival::Failed => return Err(why(client, name, "did not come up").await),
            Arrival::Under if Instant::now() >= until => {
                return Err(why(client, name, "is not up in time").await);
            }
            Arrival::Under => sleep(PAUSE).await,
        }
    }
}

fn arrival(dyno: &Dyno, now: Timestamp) -> Arrival {
    let status = &dyno.status;
    match status.phase {
        Phase::Running => {
            let ready = matches!(status.health, None | Some(HealthState::Ready));
            let settled = status.started.is_none_or(|started| {
                let ran = started.duration_until(now);
                // A clock that was set back says nothing.
                ran.is_negative() || ran.unsigned_abs() >= SETTLED
            });
            match ready && settled {
                true => Arrival::Up,
                false => Arrival::Under,
            }
        }
        Phase::Exited => {
            let done = status.exit.is_some_and(|exit| exit.code == 0);
            match done && dyno.spec.restart != RestartPolicy::Always {
                true => Arrival::Up,
                false => Arrival::Failed,
            }
        }
        Phase::Backoff if status.crash_loop => Arrival::Failed,
        Phase::Backoff | Phase::Created | Phase::Waiting | Phase::Stopping => Arrival::Under,
        Phase::Lost | Phase::Failed => Arrival::Failed,
    }
}

/// What hostd says about it, and its last lines.
async fn why(client: &Client, name: &str, what: &str) -> Failure {
    let mut message = format!("{name} {what}");
    match client.why(name).await {
        Ok(why) => {
            let findings: Vec<_> = why.findings.iter().map(|f| f.message.as_str()).collect();
            message = format!("{message}: {}", findings.join("; "));
            for entry in &why.log {
                message = format!("{message}\n  | {}", clean(&entry.line));
            }
        }
        // What is known is told; why it is not all, too.
        Err(error) => message = format!("{message} ({error})"),
    }
    Failure::new(message).hint(format!("dyno why {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dyno(phase: Phase, change: impl FnOnce(&mut Dyno)) -> Dyno {
        let mut dyno: Dyno = serde_json::from_value(serde_json::json!({
            "id": "0123456789ab", "name": "web", "spec": {"image": "host"},
            "created": "2026-01-01T00:00:00Z",
            "status": {
                "phase": "running", "pid": 1, "monitor_pid": 2, "ipv4": null, "ipv6": null,
                "ports": [], "started": "2026-01-01T00:00:00Z", "exit": null, "restarts": 0,
                "reason": null,
            },
        }))
        .unwrap();
        dyno.status.phase = phase;
        change(&mut dyno);
        dyno
    }

    fn at(millis: i64) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Timestamp::from_millisecond(start.as_millisecond() + millis).unwrap()
    }

    #[test]
    fn whoever_runs_for_a_second_and_is_ready_is_up() {
        let running = |change: fn(&mut Dyno)| dyno(Phase::Running, change);
        assert_eq!(arrival(&running(|_| {}), at(999)), Arrival::Under);
        assert_eq!(arrival(&running(|_| {}), at(1000)), Arrival::Up);
        assert_eq!(arrival(&running(|_| {}), at(-5)), Arrival::Up);
        for (health, expected) in [
            (HealthState::Starting, Arrival::Under),
            (HealthState::Unready, Arrival::Under),
            (HealthState::Unhealthy, Arrival::Under),
            (HealthState::Ready, Arrival::Up),
        ] {
            let dyno = dyno(Phase::Running, |dyno| dyno.status.health = Some(health));
            assert_eq!(arrival(&dyno, at(5000)), expected, "{health:?}");
        }
    }

    #[test]
    fn an_end_is_a_failure_but_for_a_job_that_did_its_work() {
        let ended = |code: u8, restart| {
            let dyno = dyno(Phase::Exited, |dyno| {
                dyno.spec.restart = restart;
                dyno.status.exit = Some(dyno_api::dyno::ExitStatus {
                    code,
                    signal: None,
                    oom: false,
                    memory_peak_bytes: None,
                    at: at(0),
                });
            });
            arrival(&dyno, at(0))
        };
        assert_eq!(ended(0, RestartPolicy::No), Arrival::Up);
        assert_eq!(ended(1, RestartPolicy::No), Arrival::Failed);
        assert_eq!(ended(0, RestartPolicy::Always), Arrival::Failed);
        let backoff = |crash_loop| dyno(Phase::Backoff, |d| d.status.crash_loop = crash_loop);
        assert_eq!(arrival(&backoff(false), at(0)), Arrival::Under);
        assert_eq!(arrival(&backoff(true), at(0)), Arrival::Failed);
        assert_eq!(
            arrival(&dyno(Phase::Failed, |_| {}), at(0)),
            Arrival::Failed
        );
        assert_eq!(
            arrival(&dyno(Phase::Waiting, |_| {}), at(0)),
            Arrival::Under
        );
    }
}
