//! What the outcomes of checks mean: (course, outcome) → (course, change).
//! Pure; the supervisor acts.

use std::time::{Duration, Instant};

use dyno_api::health::{CheckKind, FailedCheck, HealthState};
use jiff::Timestamp;

use super::plan::Plan;

/// One run of a dyno, seen through its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    plan: Plan,
    state: HealthState,
    /// When the command was started, or hostd came back to it.
    begin: Instant,
    /// What it needs still to have started: its check to pass, its own word.
    needs: (bool, bool),
    /// Since when it has been working.
    works_since: Option<Instant>,
    /// When it was last seen working.
    worked_at: Option<Instant>,
    liveness: Count,
    readiness: Count,
    startup: Count,
}

/// Outcomes in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

/// What follows from an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody would see.
    None,
    /// The state is another one.
    State,
    /// The dyno does not work and is to be ended, for this reason.
    Failed(String),
}

impl Count {
    fn note(&mut self, passed: bool) {
        *self = match passed {
            true => Self {
                passed: self.passed.saturating_add(1),
                failed: 0,
            },
            false => Self {
                passed: 0,
                failed: self.failed.saturating_add(1),
            },
        };
    }
}

impl Course {
    /// A run that has just begun, or that an earlier hostd saw in this state.
    pub fn new(plan: Plan, earlier: Option<HealthState>, now: Instant) -> Self {
        let state = match earlier {
            // What does not work is to be found so again before it is ended.
            None | Some(HealthState::Unhealthy) => plan.first_state(),
            Some(earlier) => earlier,
        };
        let is_starting = state == HealthState::Starting;
        let needs = (
            is_starting && plan.startup.is_some(),
            is_starting && plan.notify,
        );
        let works = (state != HealthState::Starting).then_some(now);
        Self {
            plan,
            state,
            needs,
            begin: now,
            works_since: works,
            worked_at: works,
            liveness: Count::default(),
            readiness: Count::default(),
            startup: Count::default(),
        }
    }

    /// The run goes on after it was held still: the time to start begins anew.
    pub fn resume(&mut self, now: Instant) {
        self.begin = now;
    }

    /// What the checks say.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Until when the startup check has to have passed.
    pub fn start_deadline(&self) -> Instant {
        let far = Duration::from_secs(100 * 365 * 24 * 3600);
        self.begin + self.plan.start_timeout.min(far)
    }

    /// The checks that are made now.
    pub fn due(&self) -> &'static [CheckKind] {
        match self.state {
            HealthState::Starting => &[CheckKind::Startup],
            _ => &[CheckKind::Liveness, CheckKind::Readiness],
        }
    }

    /// How long of this run the dyno worked.
    pub fn healthy(&self) -> Duration {
        match (self.works_since, self.worked_at) {
            (Some(since), Some(last)) => last.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }

    /// Takes an outcome that came at this moment.
    pub fn outcome(
        &mut self,
        kind: CheckKind,
        outcome: &Result<(), String>,
        now: Instant,
    ) -> Change {
        let passed = outcome.is_ok();
        let reason = outcome.as_ref().err().map_or("", String::as_str);
        let before = self.state;
        let failed = match kind {
            CheckKind::Startup => self.startup(passed, reason, now),
            CheckKind::Liveness => self.liveness(passed, reason, now),
            CheckKind::Readiness => {
                self.readiness(passed);
                None
            }
        };
        match failed {
            Some(reason) => {
                self.state = HealthState::Unhealthy;
                Change::Failed(reason)
            }
            None if before != self.state => Change::State,
            None => Change::None,
        }
    }

    /// A failure in the words of the API.
    pub fn failure(&self, kind: CheckKind, reason: &str, at: Timestamp) -> FailedCheck {
        let count = match kind {
            CheckKind::Startup => self.startup,
            CheckKind::Liveness => self.liveness,
            CheckKind::Readiness => self.readiness,
        };
        FailedCheck {
            check: kind,
            at,
            failures: count.failed.max(1),
            reason: reason.to_owned(),
        }
    }

    /// It has said itself that it has started.
    pub fn notified(&mut self, now: Instant) -> Change {
        let before = self.state;
        self.needs.1 = false;
        self.may_have_started(now);
        match before == self.state {
            true => Change::None,
            false => Change::State,
        }
    }

    fn may_have_started(&mut self, now: Instant) {
        if self.works_since.is_none() && self.needs == (false, false) {
            (self.works_since, self.worked_at) = (Some(now), Some(now));
            self.state = self.plan.started_state();
        }
    }

    fn startup(&mut self, passed: bool, reason: &str, now: Instant) -> Option<String> {
        if !self.needs.0 {
            return None;
        }
        self.startup.note(passed);
        let wanted = self
            .plan
            .startup
            .as_ref()
            .map_or(1, |check| check.successes);
        if passed && self.startup.passed >= wanted {
            self.needs.0 = false;
            self.may_have_started(now);
        }
        let late = !passed && now >= self.start_deadline();
        late.then(|| {
            let limit = self.plan.start_timeout;
            format!("it has not started within {limit:?}; the startup check says: {reason}")
        })
    }

    fn liveness(&mut self, passed: bool, reason: &str, now: Instant) -> Option<String> {
        self.liveness.note(passed);
        let limit = self
            .plan
            .liveness
            .as_ref()
            .map_or(1, |check| check.failures);
        if passed {
            self.worked_at = Some(now);
            // It could not be ended, and works again.
            if self.state == HealthState::Unhealthy {
                self.state = self.plan.started_state();
            }
            return None;
        }
        let failed = self.liveness.failed;
        // Should ending it have failed, the same is found once more.
        failed
            .is_multiple_of(limit.max(1))
            .then(|| format!("the liveness check failed {failed} times in a row: {reason}"))
    }

    fn readiness(&mut self, passed: bool) {
        let Some(check) = &self.plan.readiness else {
            return;
        };
        self.readiness.note(passed);
        let Count { passed, failed } = self.readiness;
        self.state = match self.state {
            HealthState::Unready if passed >= check.successes => HealthState::Ready,
            HealthState::Ready if failed >= check.failures => HealthState::Unready,
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::health::Probe;
    use proptest::prelude::*;

    use super::super::plan::Planned;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn check(failures: u32, successes: u32) -> Option<Planned> {
        Some(Planned {
            probe: Probe::Tcp { port: 1 },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failures,
            successes,
        })
    }

    fn all() -> Plan {
        Plan {
            startup: check(1, 1),
            liveness: check(2, 1),
            readiness: check(2, 2),
            notify: false,
            start_timeout: LIMIT,
        }
    }

    fn bad() -> Result<(), String> {
        Err("no".to_owned())
    }

    #[test]
    fn a_dyno_starts_becomes_ready_leaves_service_and_comes_back() {
        let now = Instant::now();
        let mut course = Course::new(all(), None, now);
        let mut then = |kind, outcome: Result<(), String>| {
            (course.outcome(kind, &outcome, now), course.state())
        };
        use CheckKind::{Readiness, Startup};
        use HealthState::{Ready, Starting, Unready};
        assert_eq!(then(Startup, bad()), (Change::None, Starting));
        assert_eq!(then(Startup, Ok(())), (Change::State, Unready));
        assert_eq!(then(Readiness, Ok(())), (Change::None, Unready));
        assert_eq!(then(Readiness, Ok(())), (Change::State, Ready));
        assert_eq!(then(Readiness, bad()), (Change::None, Ready));
        assert_eq!(then(Readiness, Ok(())), (Change::None, Ready));
        assert_eq!(then(Readiness, bad()), (Change::None, Ready));
        assert_eq!(then(Readiness, bad()), (Change::State, Unready));
        assert_eq!(then(Readiness, Ok(())), (Change::None, Unready));
        assert_eq!(then(Readiness, Ok(())), (Change::State, Ready));
    }

    #[test]
    fn who_says_when_it_has_started_needs_both_its_word_and_its_check() {
        let now = Instant::now();
        let plan = Plan {
            notify: true,
            ..all()
        };
        for word_first in [true, false] {
            let mut course = Course::new(plan.clone(), None, now);
            let check = |course: &mut Course| course.outcome(CheckKind::Startup, &Ok(()), now);
            let changes = match word_first {
                true => [course.notified(now), check(&mut course)],
                false => [check(&mut course), course.notified(now)],
            };
            assert_eq!(changes, [Change::None, Change::State]);
            assert_eq!(course.state(), HealthState::Unready);
            assert_eq!(course.notified(now), Change::None);
        }
    }

    #[test]
    fn only_a_failing_check_after_the_start_timeout_ends_what_starts() {
        let now = Instant::now();
        let mut course = Course::new(all(), None, now);
        let early = course.outcome(CheckKind::Startup, &bad(), now + LIMIT / 2);
        assert_eq!(early, Change::None);
        let late = course.outcome(CheckKind::Startup, &bad(), now + LIMIT);
        let Change::Failed(reason) = late else {
            panic!("{late:?}");
        };
        assert!(reason.contains("10s") && reason.ends_with("no"), "{reason}");
        assert_eq!(course.healthy(), Duration::ZERO);
        // A pass that was found late is a pass: nobody looked before.
        let mut slow = Course::new(all(), None, now);
        slow.outcome(CheckKind::Startup, &Ok(()), now + LIMIT * 9);
        assert_eq!(slow.state(), HealthState::Unready);
    }

    #[test]
    fn liveness_fails_after_so_many_in_a_row_and_is_found_so_again() {
        let now = Instant::now();
        let plan = Plan {
            startup: None,
            ..all()
        };
        let mut course = Course::new(plan, None, now);
        let at = |seconds| now + Duration::from_secs(seconds);
        course.outcome(CheckKind::Liveness, &bad(), at(1));
        course.outcome(CheckKind::Liveness, &Ok(()), at(20));
        assert_eq!(
            course.outcome(CheckKind::Liveness, &bad(), at(30)),
            Change::None
        );
        let failed = course.outcome(CheckKind::Liveness, &bad(), at(40));
        assert!(matches!(failed, Change::Failed(_)));
        assert_eq!(course.state(), HealthState::Unhealthy);
        assert_eq!(course.healthy(), Duration::from_secs(20));
        // Should ending it have failed, it is tried again.
        assert_eq!(
            course.outcome(CheckKind::Liveness, &bad(), at(50)),
            Change::None
        );
        let again = course.outcome(CheckKind::Liveness, &bad(), at(60));
        assert!(matches!(again, Change::Failed(_)));
    }

    #[test]
    fn what_an_earlier_hostd_found_holds_until_something_else_is_found() {
        let now = Instant::now();
        for earlier in [
            HealthState::Starting,
            HealthState::Unready,
            HealthState::Ready,
        ] {
            assert_eq!(Course::new(all(), Some(earlier), now).state(), earlier);
        }
        let doomed = Course::new(all(), Some(HealthState::Unhealthy), now);
        assert_eq!(doomed.state(), HealthState::Starting);
    }

    proptest! {
        /// However outcomes come, none but failures end a dyno, and never the
        /// first liveness failure after a pass.
        #[test]
        fn a_pass_never_ends_a_dyno(outcomes in prop::collection::vec((0_usize..3, any::<bool>(), 0_u64..30), 0..80)) {
            let begin = Instant::now();
            let (mut course, mut now) = (Course::new(all(), None, begin), begin);
            let kinds = [CheckKind::Startup, CheckKind::Liveness, CheckKind::Readiness];
            for (kind, passed, seconds) in outcomes {
                now += Duration::from_secs(seconds);
                let outcome = if passed { Ok(()) } else { bad() };
                let change = course.outcome(kinds[kind], &outcome, now);
                prop_assert!(!passed || !matches!(change, Change::Failed(_)));
                prop_assert!(kind != 2 || !matches!(change, Change::Failed(_)));
            }
        }
    }
}
