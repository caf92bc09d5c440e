//! What the API shows of a dyno, and which events follow from a change.

use dyno_api::dyno::{CRASH_LOOP, Dyno, DynoStatus, ExitStatus, Phase};
use dyno_api::event::What;
use dyno_runtime::monitor::protocol;
use jiff::Timestamp;

use crate::desired::Record;

/// A dyno of which nothing runs.
pub(super) fn resting(record: &Record) -> Dyno {
    Dyno {
        id: record.id.clone(),
        name: record.name.clone(),
        spec: record.spec.clone(),
        created: record.created,
        status: DynoStatus {
            phase: record.rest,
            pid: None,
            monitor_pid: None,
            ipv4: record.ipv4,
            ipv6: record.ipv6,
            ports: record.ports.clone(),
            started: None,
            exit: record.exit,
            restarts: record.restarts,
            crashes: 0,
            crash_loop: false,
            next_start: None,
            health: None,
            failed_check: record.failed_check.clone(),
            status_text: None,
            reason: record.reason.clone(),
            paused: false,
            log_dropped: None,
        },
    }
}

/// A dyno as its monitor describes it.
pub(super) fn described(record: &Record, status: &protocol::Status, monitor: u32) -> Dyno {
    let mut dyno = resting(record);
    let waits = status.phase == protocol::Phase::Backoff;
    dyno.status = DynoStatus {
        phase: phase(status.phase),
        crashes: status.crashes,
        crash_loop: waits && status.crashes >= CRASH_LOOP,
        next_start: status.next_start,
        status_text: status.notified.as_ref().and_then(|said| said.text.clone()),
        pid: status.pid,
        monitor_pid: (!status.phase.is_final()).then_some(monitor),
        started: status.started,
        exit: status.exit.map(exit).or(record.exit),
        restarts: record.restarts.saturating_add(status.restarts),
        reason: status.reason.clone(),
        ..dyno.status
    };
    dyno
}

/// A phase in the words of the API.
pub(super) fn phase(phase: protocol::Phase) -> Phase {
    match phase {
        protocol::Phase::Created => Phase::Created,
        protocol::Phase::Running => Phase::Running,
        protocol::Phase::Backoff => Phase::Backoff,
        protocol::Phase::Stopping => Phase::Stopping,
        protocol::Phase::Exited => Phase::Exited,
        protocol::Phase::Failed => Phase::Failed,
    }
}

/// An exit status in the words of the API.
pub(super) fn exit(exit: protocol::ExitStatus) -> ExitStatus {
    ExitStatus {
        code: exit.code,
        signal: exit.signal,
        oom: exit.oom,
        memory_peak_bytes: exit.memory_peak_bytes,
        at: exit.at,
    }
}

/// What happened between two looks at a dyno. A monitor that restarts its
/// dyno quickly may have ended and started it in between.
pub(super) fn events(before: &DynoStatus, after: &Dyno) -> Vec<What> {
    let (dyno, name) = (after.id.clone(), after.name.clone());
    let after = &after.status;
    let mut events = Vec::new();
    if let Some(exit) = after.exit
        && after.exit != before.exit
    {
        events.push(What::DynoExited {
            dyno: dyno.clone(),
            name: name.clone(),
            exit,
        });
    }
    if after.phase == Phase::Backoff
        && (before.phase != Phase::Backoff || after.exit != before.exit)
    {
        let now = Timestamp::now();
        let delay = after
            .next_start
            .map_or(0, |at| now.duration_until(at).as_millis());
        events.push(What::DynoRestarting {
            dyno: dyno.clone(),
            name: name.clone(),
            restarts: after.restarts,
            delay_ms: u64::try_from(delay).unwrap_or(0),
            crashes: after.crashes,
            crash_loop: after.crash_loop,
        });
    }
    if after.started.is_some() && after.started != before.started {
        events.push(What::DynoStarted { dyno, name });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::record;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(phase: protocol::Phase, started: Option<i64>, exited: Option<i64>) -> Dyno {
        let status = protocol::Status {
            phase,
            pid: None,
            started: started.map(at),
            restarts: 2,
            crashes: 5,
            notified: None,
            exit: exited.map(|second| protocol::ExitStatus {
                code: 1,
                signal: None,
                oom: false,
                memory_peak_bytes: None,
                at: at(second),
            }),
            next_start: None,
            reason: None,
            by_system: false,
        };
        let record = Record {
            restarts: 3,
            ..record(1)
        };
        described(&record, &status, 7)
    }

    fn names(before: &Dyno, after: &Dyno) -> Vec<String> {
        let events = events(&before.status, after);
        let name = |what: &What| {
            serde_json::to_value(what).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        use protocol::Phase as P;
        let created = seen(P::Created, None, None);
        let running = seen(P::Running, Some(1), None);
        let backoff = seen(P::Backoff, Some(1), Some(2));
        let again = seen(P::Running, Some(3), Some(2));
        assert_eq!(names(&created, &running), ["dyno_started"]);
        assert_eq!(names(&running, &running), Vec::<String>::new());
        assert_eq!(
            names(&running, &backoff),
            ["dyno_exited", "dyno_restarting"]
        );
        assert_eq!(names(&backoff, &again), ["dyno_started"]);
        // The pause was so short that nobody saw it.
        assert_eq!(names(&running, &again), ["dyno_exited", "dyno_started"]);
    }

    #[test]
    fn only_who_waits_is_in_a_crash_loop() {
        use protocol::Phase as P;
        assert!(seen(P::Backoff, Some(1), Some(2)).status.crash_loop);
        assert!(!seen(P::Running, Some(3), Some(2)).status.crash_loop);
    }

    #[test]
    fn restarts_count_on_over_monitors() {
        assert_eq!(
            seen(protocol::Phase::Running, Some(1), None)
                .status
                .restarts,
            5
        );
    }
}
