//! From what is known of a dyno to sentences. Pure.

use dyno_api::dyno::{Dyno, ExitStatus, Phase, RestartPolicy, Stats};
use dyno_api::health::{FailedCheck, HealthState};
use dyno_api::why::{Cause, Finding};
use jiff::Timestamp;

use crate::signal;

/// Hundredths of a limit from which on it is worth a word.
const NEAR: u64 = 90;
/// Hundredths of its time for which a dyno is held back before that is worth one.
const HELD_BACK: u64 = 5;

/// What there is to say, the most important first.
pub(super) fn explain(dyno: &Dyno, stats: Option<&Stats>, now: Timestamp) -> Vec<Finding> {
    let status = &dyno.status;
    let mut findings = Vec::new();
    match status.phase {
        Phase::Created => findings.push(with_hint(
            finding(Cause::Created, "it was created and not started"),
            format!("dyno start {}", dyno.name),
        )),
        Phase::Waiting => {}
        Phase::Backoff => findings.push(waits(dyno, now)),
        Phase::Stopping => findings.push(finding(Cause::Stopping, "it is being ended")),
        Phase::Running | Phase::Exited | Phase::Lost | Phase::Failed => {}
    }
    findings.extend(health(dyno));
    if status.phase != Phase::Running
        && let Some(reason) = &status.reason
    {
        let cause = match status.phase {
            Phase::Lost => Cause::Lost,
            Phase::Failed => Cause::NotStarted,
            Phase::Stopping => Cause::Stopping,
            Phase::Waiting => Cause::Dependency,
            _ if status.failed_check.is_some() => Cause::Check,
            _ => Cause::Policy,
        };
        findings.push(finding(cause, reason.clone()));
    }
    if let Some(exit) = &status.exit
        && (status.phase != Phase::Running || status.restarts > 0)
    {
        findings.push(ended(dyno, exit, now));
    }
    if status.phase == Phase::Exited {
        findings.extend(stays_ended(dyno));
    }
    if let Some(stats) = stats {
        findings.extend(held_back(dyno, stats));
    }
    if status.phase != Phase::Running && findings.is_empty() {
        findings.push(finding(Cause::Exited, "nothing is known of its end"));
    }
    if status.phase == Phase::Running && !findings.iter().any(is_trouble) {
        let well = "it runs, and nothing is known to be wrong";
        findings.insert(0, finding(Cause::Running, well));
    }
    findings
}

/// Whether this is about a dyno that runs now, and wrong.
fn is_trouble(finding: &Finding) -> bool {
    use Cause::{Check, Memory, Processes, Throttled};
    matches!(finding.cause, Check | Memory | Processes | Throttled)
}

fn finding(cause: Cause, message: impl Into<String>) -> Finding {
    Finding {
        cause,
        message: message.into(),
        hint: None,
    }
}

fn with_hint(mut finding: Finding, hint: impl Into<String>) -> Finding {
    finding.hint = Some(hint.into());
    finding
}

fn waits(dyno: &Dyno, now: Timestamp) -> Finding {
    let status = &dyno.status;
    let next = match status.next_start {
        Some(at) => format!("it is started again {}", until(at, now)),
        None => "it is started again soon".to_owned(),
    };
    let hint = format!("do not wait for it: dyno start {}", dyno.name);
    let waits = match status.crash_loop {
        true => {
            let crashes = status.crashes;
            let loops =
                format!("it is in a crash loop: {crashes} runs in a row ended early; {next}");
            finding(Cause::CrashLoop, loops)
        }
        false => finding(Cause::Backoff, next),
    };
    with_hint(waits, hint)
}

fn health(dyno: &Dyno) -> Option<Finding> {
    let failed = dyno.status.failed_check.as_ref();
    let last = failed.map_or_else(String::new, |failed| format!(": {}", describe(failed)));
    let message = match dyno.status.health? {
        HealthState::Ready => return None,
        HealthState::Starting => format!("it has not started yet{last}"),
        HealthState::Unready => {
            format!("it is out of service: its readiness check does not pass{last}")
        }
        HealthState::Unhealthy => format!("it is being ended: it does not work{last}"),
    };
    Some(finding(Cause::Check, message))
}

fn describe(failed: &FailedCheck) -> String {
    let (check, times) = (failed.check.as_str(), failed.failures);
    format!(
        "{check}, failed {times} times in a row, says {:?}",
        failed.reason
    )
}

fn ended(dyno: &Dyno, exit: &ExitStatus, now: Timestamp) -> Finding {
    let at = until(exit.at, now);
    if exit.oom {
        let limit = dyno.spec.limits.memory_bytes;
        let limit = limit.map_or_else(|| "the host's".to_owned(), mebibytes);
        let peak = exit.memory_peak_bytes.map(mebibytes);
        let peak = peak.map_or_else(String::new, |peak| format!(", its peak {peak}"));
        let message =
            format!("it was killed {at}: it ran out of memory; its limit is {limit}{peak}");
        return with_hint(
            finding(Cause::OutOfMemory, message),
            "give it more: --memory",
        );
    }
    match exit.signal {
        Some(signal) => {
            let name = signal::name(signal);
            finding(Cause::Signal, format!("signal {name} ended it {at}"))
        }
        None => finding(
            Cause::Exited,
            format!("it ended with exit code {} {at}", exit.code),
        ),
    }
}

fn stays_ended(dyno: &Dyno) -> Option<Finding> {
    let message = match dyno.spec.restart {
        RestartPolicy::No => "its restart policy is no: it stays ended",
        RestartPolicy::OnFailure { .. } if dyno.status.exit.is_some_and(|exit| exit.code == 0) => {
            "it did not fail, and its restart policy is on-failure: it stays ended"
        }
        RestartPolicy::OnFailure { .. } => return None,
        RestartPolicy::Always => "it was stopped by request: it stays ended",
    };
    let hint = format!("dyno start {}", dyno.name);
    Some(with_hint(finding(Cause::Policy, message), hint))
}

fn held_back(dyno: &Dyno, stats: &Stats) -> Vec<Finding> {
    let mut findings = Vec::new();
    let busy = stats.cpu_usec.saturating_add(stats.throttled_usec);
    let share = stats.throttled_usec.saturating_mul(100) / busy.max(1);
    if share >= HELD_BACK {
        let limit = dyno.spec.limits.cpu_millis.unwrap_or_default();
        let message = format!(
            "its CPU limit of {}.{:03} has held it back for {share} % of its time",
            limit / 1000,
            limit % 1000
        );
        findings.push(with_hint(
            finding(Cause::Throttled, message),
            "give it more: --cpu",
        ));
    }
    let near = |used: u64, limit: u64| used.saturating_mul(100) >= limit.saturating_mul(NEAR);
    if let Some(limit) = stats.memory_max_bytes.or(dyno.spec.limits.memory_bytes)
        && near(stats.memory_bytes, limit)
    {
        let (used, limit) = (mebibytes(stats.memory_bytes), mebibytes(limit));
        let message = format!("it uses {used} of its {limit} of memory");
        findings.push(finding(Cause::Memory, message));
    }
    if let Some(limit) = dyno.spec.limits.pids
        && near(stats.pids, limit.into())
    {
        let message = format!("it has {} processes of at most {limit}", stats.pids);
        findings.push(with_hint(
            finding(Cause::Processes, message),
            "allow more: --pids",
        ));
    }
    if let (Some(used), Some(limit)) = (stats.disk_bytes, stats.disk_max_bytes)
        && near(used, limit)
    {
        let (used, limit) = (mebibytes(used), mebibytes(limit));
        let message = format!("what it has written takes up {used} of its {limit} on disk");
        findings.push(with_hint(
            finding(Cause::Disk, message),
            "allow more: dyno limit --disk",
        ));
    }
    findings
}

/// `in 12 s`, `3 m ago`.
fn until(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs_f64();
    let span = match seconds.abs() {
        short @ ..60.0 => format!("{short:.1} s"),
        longer @ ..7200.0 => format!("{:.0} m", longer / 60.0),
        longer => format!("{:.0} h", longer / 3600.0),
    };
    match seconds > 0.0 {
        true => format!("in {span}"),
        false => format!("{span} ago"),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::DynoStatus;
    use dyno_api::health::CheckKind;

    use super::*;
    use crate::desired::tests::record;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn dyno(phase: &str, change: impl FnOnce(&mut Dyno)) -> Dyno {
        let status: DynoStatus = serde_json::from_value(serde_json::json!({
            "phase": phase, "pid": null, "monitor_pid": null, "ipv4": null, "ipv6": null,
            "ports": [], "started": null, "exit": null, "restarts": 0, "reason": null,
        }))
        .unwrap();
        let record = record(1);
        let mut dyno = Dyno {
            id: record.id,
            name: record.name,
            spec: record.spec,
            created: NOW,
            status,
        };
        change(&mut dyno);
        dyno
    }

    fn exit(code: u8, signal: Option<u8>, peak: Option<u64>) -> Option<ExitStatus> {
        Some(ExitStatus {
            code,
            signal,
            oom: peak.is_some(),
            memory_peak_bytes: peak,
            at: NOW,
        })
    }

    fn told(dyno: &Dyno, stats: Option<&Stats>) -> (Vec<Cause>, String) {
        let findings = explain(dyno, stats, NOW);
        let causes = findings.iter().map(|found| found.cause).collect();
        let text: Vec<_> = findings.into_iter().map(|found| found.message).collect();
        (causes, text.join("; "))
    }

    #[test]
    fn a_crash_loop_says_how_often_why_and_when_it_is_tried_next() {
        let looping = dyno("backoff", |dyno| {
            dyno.status.crash_loop = true;
            dyno.status.crashes = 6;
            dyno.status.exit = exit(3, None, None);
            dyno.status.next_start = NOW.checked_add(jiff::SignedDuration::from_secs(12)).ok();
        });
        let (causes, text) = told(&looping, None);
        assert_eq!(causes, [Cause::CrashLoop, Cause::Exited]);
        assert!(
            text.contains("6 runs in a row") && text.contains("in 12.0 s"),
            "{text}"
        );
        assert!(text.contains("exit code 3"), "{text}");
    }

    #[test]
    fn who_ran_out_of_memory_is_told_limit_and_peak() {
        let killed = dyno("exited", |dyno| {
            dyno.spec.limits.memory_bytes = Some(64 << 20);
            dyno.status.exit = exit(137, Some(9), Some((64 << 20) + (1 << 19)));
        });
        let (causes, text) = told(&killed, None);
        assert_eq!(causes, [Cause::OutOfMemory, Cause::Policy]);
        assert!(
            text.contains("limit is 64.0 MiB, its peak 64.5 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_check_that_fails_is_told_with_what_it_said() {
        let unready = dyno("running", |dyno| {
            dyno.status.health = Some(HealthState::Unready);
            dyno.status.failed_check = Some(FailedCheck {
                check: CheckKind::Readiness,
                at: NOW,
                failures: 4,
                reason: "status 503: \"no\"".to_owned(),
            });
        });
        let (causes, text) = told(&unready, None);
        assert_eq!(causes, [Cause::Check]);
        assert!(
            text.contains("failed 4 times in a row") && text.contains("status 503"),
            "{text}"
        );
    }

    #[test]
    fn limits_that_hold_it_back_are_named() {
        let slow = dyno("running", |dyno| dyno.spec.limits.cpu_millis = Some(250));
        let stats = Stats {
            cpu_usec: 50,
            throttled_usec: 50,
            memory_bytes: 95,
            memory_max_bytes: Some(100),
            disk_bytes: Some(97 << 20),
            disk_max_bytes: Some(100 << 20),
            ..Stats::default()
        };
        let (causes, text) = told(&slow, Some(&stats));
        assert_eq!(causes, [Cause::Throttled, Cause::Memory, Cause::Disk]);
        assert!(text.contains("97.0 MiB of its 100.0 MiB on disk"), "{text}");
        assert!(text.contains("0.250") && text.contains("50 %"), "{text}");
        let idle = Stats::default();
        assert_eq!(told(&slow, Some(&idle)).0, [Cause::Running]);
    }

    #[test]
    fn every_phase_has_something_to_say() {
        for phase in [
            "created", "running", "backoff", "stopping", "exited", "lost", "failed",
        ] {
            let plain = dyno(phase, |dyno| {
                dyno.status.reason = Some("because".to_owned())
            });
            let (causes, text) = told(&plain, None);
            assert!(!causes.is_empty(), "{phase}");
            assert!(
                phase == "running" || text.contains("because"),
                "{phase}: {text}"
            );
        }
    }
}
