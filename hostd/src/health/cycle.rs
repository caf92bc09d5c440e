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

/// Which failures say something of the dyno. One that comes long after its time was up
/// says something of a machine that was paused; the next such one does not, as no machine
/// is paused at each check: it is busy, or the check takes long to be given up.
#[derive(Debug, Default)]
struct Excuse {
    late_before: bool,
}

impl Excuse {
    /// Whether this outcome is excused: it failed, and long after its time was up.
    fn is_given(&mut self, failed_late: bool) -> bool {
        let is_first = failed_late && !self.late_before;
        self.late_before = failed_late;
        is_first
    }
}

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
pub fn spawn(
    tasks: &mut JoinSet<()>,
    subject: Subject,
    (kind, check): (CheckKind, Planned),
    (first, deadline): (Duration, Option<Instant>),
    outcomes: mpsc::Sender<Outcome>,
) {
    tasks.spawn(async move {
        let mut pause = first;
        let mut excuse = Excuse::default();
        loop {
            tokio::time::sleep(pause).await;
            let begin = Instant::now();
            let outcome = probe::make(&subject, &check).await;
            let late = begin.elapsed() >= check.timeout + STANDSTILL;
            let excused = excuse.is_given(late && outcome.is_err());
            if !excused && outcomes.send(Outcome { kind, outcome }).await.is_err() {
                return;
            }
            let left = deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero());
            pause = check.interval.min(left.unwrap_or(Duration::MAX));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_failures_that_come_late_only_the_first_in_a_row_is_excused() {
        let mut excuse = Excuse::default();
        let told = [false, true, true, true, false, true].map(|late| !excuse.is_given(late));
        assert_eq!(told, [true, false, true, true, true, false]);
    }
}
