//! One check, made again and again: waits, probes, tells.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dyno_api::health::CheckKind;
use dyno_api::name::DynoId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::plan::Planned;
use super::probe;
use crate::host::Host;

/// Who is so late was not merely kept waiting for a processor.
const STANDSTILL: Duration = Duration::from_millis(500);

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which one.
    pub kind: CheckKind,
    /// Why it failed, if it did.
    pub outcome: Result<(), String>,
}

/// Whom the checks ask.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The host, which executes commands in its dynos.
    pub host: Arc<Host>,
    /// The dyno.
    pub id: DynoId,
    /// Where it listens.
    pub address: Option<IpAddr>,
}

/// Makes a check until the set of tasks is dropped, or nobody listens. The
/// first comes after this time; none is later than the deadline, if there is one.
/// One that fails long after its time was up says something of a machine that was
/// paused, and nothing of the dyno.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    subject: Subject,
    (kind, check): (CheckKind, Planned),
    (first, deadline): (Duration, Option<Instant>),
    outcomes: mpsc::Sender<Outcome>,
) {
    tasks.spawn(async move {
        let mut pause = first;
        loop {
            tokio::time::sleep(pause).await;
            let begin = Instant::now();
            let outcome = probe::make(&subject, &check).await;
            let is_told = outcome.is_ok() || begin.elapsed() < check.timeout + STANDSTILL;
            if is_told && outcomes.send(Outcome { kind, outcome }).await.is_err() {
                return;
            }
            let left = deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero());
            pause = check.interval.min(left.unwrap_or(Duration::MAX));
        }
    });
}
