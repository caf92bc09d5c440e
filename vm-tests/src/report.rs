//! Counts results and prints them as they come.

use std::fmt;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not; everything known about it.
    Failed(String),
    /// It was not run; why.
    Skipped(String),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Machines that fell silent and were replaced.
    replaced: usize,
}

/// All results so far. Shared by the threads that run tests.
#[derive(Debug, Default)]
pub struct Report {
    counts: Mutex<(Counts, Vec<String>)>,
}

impl Report {
    /// Counts a result and prints its line; a failure also prints its details
    /// at once, since the run may be interrupted.
    pub fn add(&self, test: &str, took: Duration, outcome: &Outcome) {
        let mut guard = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, failures) = &mut *guard;
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Passed => {
                counts.passed += 1;
                say(format_args!("PASS [{seconds:7.2}s] {test}"));
            }
            Outcome::Failed(details) => {
                counts.failed += 1;
                failures.push(test.to_owned());
                say(format_args!(
                    "FAIL [{seconds:7.2}s] {test}\n{}",
                    indented(details)
                ));
            }
            Outcome::Skipped(reason) => {
                counts.skipped += 1;
                say(format_args!("SKIP {test}: {reason}"));
            }
        }
    }

    /// Says that a machine fell silent, and that its work is done on another.
    pub fn replaced(&self, scenario: &str, silent: &anyhow::Error) {
        let mut guard = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.replaced += 1;
        let details = indented(&format!("{silent:#}"));
        say(format_args!("ONCE MORE {scenario}\n{details}"));
    }

    /// Says how long something took that is not a test.
    pub fn note(&self, what: &str, took: Duration) {
        say(format_args!("     [{:7.2}s] {what}", took.as_secs_f64()));
    }

    /// Prints failures again by name, and as the last line the counts. No test
    /// at all is a failure, too.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        let (counts, failures) = self
            .counts
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for test in &failures {
            say(format_args!("FAILED {test}"));
        }
        if counts.replaced > 0 {
            let count = counts.replaced;
            say(format_args!(
                "machines that fell silent and were replaced: {count}"
            ));
        }
        say(format_args!("vm-tests: {counts}"));
        if counts.failed > 0 || counts.passed == 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[expect(clippy::print_stdout, reason = "the report is this program's product")]
pub(crate) fn say(line: fmt::Arguments<'_>) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_any_pass_or_with_a_failure_fails() {
        let outcome = |outcomes: &[Outcome]| {
            let report = Report::default();
            for outcome in outcomes {
                report.add("t", Duration::ZERO, outcome);
            }
            format!("{:?}", report.finish())
        };
        let success = format!("{:?}", ExitCode::SUCCESS);
        assert_eq!(
            outcome(&[Outcome::Passed, Outcome::Skipped("why".into())]),
            success
        );
        assert_ne!(
            outcome(&[Outcome::Passed, Outcome::Failed("why".into())]),
            success
        );
        assert_ne!(outcome(&[]), success);
        assert_ne!(outcome(&[Outcome::Skipped("why".into())]), success);
    }
}
