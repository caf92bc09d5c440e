//! How a dyno is, in a few words.

use anstyle::Style;
use dyno_api::dyno::{Dyno, ExitStatus, Phase};
use dyno_api::health::HealthState;
use jiff::Timestamp;

use crate::output::style;
use crate::value::duration::human_age;

/// Whether the dyno is in `ps` without `-a`.
pub(super) fn is_live(phase: Phase) -> bool {
    use Phase::{Backoff, Running, Stopping, Waiting};
    matches!(phase, Running | Backoff | Stopping | Waiting)
}

/// `running 3m`, `exited (0) 2h ago`, `backoff (1), started again 4 times`.
pub(super) fn text(dyno: &Dyno, now: Timestamp) -> String {
    let status = &dyno.status;
    let exit = status.exit.as_ref();
    let ended = |word: &str| match exit {
        Some(exit) => format!("{word} ({}) {} ago", cause(exit), human_age(exit.at, now)),
        None => word.to_owned(),
    };
    match status.phase {
        Phase::Created => format!("created {} ago", human_age(dyno.created, now)),
        Phase::Running => {
            let age = status
                .started
                .map(|started| human_age(started, now))
                .unwrap_or_default();
            let health = status
                .health
                .map(|health| format!(" ({})", health_word(health)));
            let health = health.unwrap_or_default();
            let again = restarts(status.restarts);
            let word = if status.paused { "paused" } else { "running" };
            let text = format!("{word} {age}");
            format!("{}{health}{again}", text.trim_end())
        }
        Phase::Backoff => {
            let word = if status.crash_loop {
                "crash loop"
            } else {
                "backoff"
            };
            let next = next_start(status.next_start, now);
            format!("{}{}{next}", ended(word), restarts(status.restarts))
        }
        Phase::Waiting => match &status.reason {
            Some(reason) => format!("waiting: {reason}"),
            None => "waiting".to_owned(),
        },
        Phase::Stopping => "stopping".to_owned(),
        Phase::Exited => ended("exited"),
        Phase::Lost => "lost".to_owned(),
        Phase::Failed => match &status.reason {
            Some(reason) => format!("failed: {reason}"),
            None => "failed".to_owned(),
        },
    }
}

/// What the checks of a dyno that has any say.
pub(super) fn health_word(health: HealthState) -> &'static str {
    match health {
        HealthState::Starting => "starting",
        HealthState::Unready => "unready",
        HealthState::Ready => "ready",
        HealthState::Unhealthy => "unhealthy",
    }
}

/// `, next in 12s`.
fn next_start(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map(|at| format!(", next in {}", human_age(now, at)))
        .unwrap_or_default()
}

/// The style of a phase.
pub(super) fn style(phase: Phase) -> Style {
    match phase {
        Phase::Running => style::GOOD,
        Phase::Backoff | Phase::Stopping | Phase::Waiting => style::WARNING,
        Phase::Lost | Phase::Failed => style::BAD,
        Phase::Created | Phase::Exited => style::FAINT,
    }
}

fn restarts(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        count => format!(", restarted {count} times"),
    }
}

fn cause(exit: &ExitStatus) -> String {
    if exit.oom {
        format!("{}, out of memory", exit.code)
    } else {
        exit.code.to_string()
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::{CRASH_LOOP, DynoSpec, DynoStatus};
    use jiff::SignedDuration;

    use super::*;

    fn dyno(phase: Phase, exit: Option<ExitStatus>, restarts: u32) -> Dyno {
        let then = Timestamp::UNIX_EPOCH;
        let status = DynoStatus {
            phase,
            pid: None,
            monitor_pid: None,
            ipv4: None,
            ipv6: None,
            ports: Vec::new(),
            started: Some(then),
            exit,
            restarts,
            crashes: restarts,
            crash_loop: phase == Phase::Backoff && restarts >= CRASH_LOOP,
            next_start: (phase == Phase::Backoff).then(|| then + SignedDuration::from_secs(192)),
            health: None,
            failed_check: None,
            status_text: None,
            reason: None,
            paused: false,
            log_dropped: None,
        };
        let id = dyno_api::name::DynoId::from_bytes([0; 6]);
        let name = "web".parse().unwrap();
        Dyno {
            id,
            name,
            spec: DynoSpec::default(),
            created: then,
            status,
        }
    }

    #[test]
    fn a_status_says_since_when_and_why() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(3);
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(1);
        let exit = |code, oom| {
            Some(ExitStatus {
                code,
                signal: None,
                oom,
                memory_peak_bytes: None,
                at,
            })
        };
        for (phase, exit, restarts, expected) in [
            (Phase::Created, None, 0, "created 3m ago"),
            (Phase::Running, None, 0, "running 3m"),
            (
                Phase::Running,
                exit(1, false),
                2,
                "running 3m, restarted 2 times",
            ),
            (Phase::Exited, exit(0, false), 0, "exited (0) 2m ago"),
            (
                Phase::Exited,
                exit(137, true),
                0,
                "exited (137, out of memory) 2m ago",
            ),
            (
                Phase::Backoff,
                exit(1, false),
                1,
                "backoff (1) 2m ago, restarted once, next in 12s",
            ),
            (
                Phase::Backoff,
                exit(1, false),
                CRASH_LOOP,
                "crash loop (1) 2m ago, restarted 5 times, next in 12s",
            ),
            (Phase::Lost, None, 0, "lost"),
        ] {
            assert_eq!(text(&dyno(phase, exit, restarts), now), expected);
        }
    }
}
