//! Adds up what passed, failed and was skipped.

use std::fmt;
use std::ops::AddAssign;

/// A count of tests and checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Those that kept their promise.
    pub(crate) passed: u32,
    /// Those that did not, or could not be run.
    pub(crate) failed: u32,
    /// Those that said why they were not run.
    pub(crate) skipped: u32,
}

impl Count {
    /// One check.
    pub(crate) fn of(passed: bool) -> Self {
        Self {
            passed: u32::from(passed),
            failed: u32::from(!passed),
            skipped: 0,
        }
    }

    /// Reads nextest's summary: `… 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped`.
    /// What ran and did not pass has failed, whatever else it is called.
    pub(crate) fn from_nextest(output: &str) -> Option<Self> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.trim_start().starts_with("Summary ["))?;
        let (before, after) = line.split_once(" run: ")?;
        // `12/40 tests` where the run was cut short: the rest has failed.
        let tests = before.rsplit(']').next()?.trim();
        let ran: u32 = tests.split(' ').next()?.rsplit('/').next()?.parse().ok()?;
        let passed = number_before(after, " passed").unwrap_or(0);
        let skipped = number_before(after, " skipped").unwrap_or(0);
        Some(Self {
            passed,
            failed: ran.checked_sub(passed)?,
            skipped,
        })
    }

    /// Reads a last line such as `vm-tests: 61 passed, 0 failed, 2 skipped`.
    pub(crate) fn from_last_line(output: &str) -> Option<Self> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.contains(" passed, "))?;
        Some(Self {
            passed: number_before(line, " passed")?,
            failed: number_before(line, " failed")?,
            skipped: number_before(line, " skipped")?,
        })
    }
}

fn number_before(text: &str, word: &str) -> Option<u32> {
    let (before, _) = text.split_once(word)?;
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    before[before.len() - digits..].parse().ok()
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_and_did_not_pass_has_failed() {
        let output = "x\n     Summary [   1.0s] 9 tests run: 6 passed (2 slow), 2 failed, 1 timed out, 3 skipped\n";
        let expected = Count {
            passed: 6,
            failed: 3,
            skipped: 3,
        };
        assert_eq!(Count::from_nextest(output), Some(expected));
    }

    #[test]
    fn a_run_cut_short_has_failed_for_the_rest() {
        let output = "     Summary [ 1.0s] 4/10 tests run: 4 passed, 0 skipped";
        assert_eq!(
            Count::from_nextest(output),
            Some(Count {
                passed: 4,
                failed: 6,
                skipped: 0
            })
        );
    }

    #[test]
    fn no_summary_is_no_count() {
        assert_eq!(Count::from_nextest("error: could not compile"), None);
        assert_eq!(Count::from_last_line("panicked"), None);
    }

    #[test]
    fn a_last_line_is_read() {
        let count = Count::from_last_line("vm-tests: 61 passed, 0 failed, 2 skipped\n");
        assert_eq!(
            count,
            Some(Count {
                passed: 61,
                failed: 0,
                skipped: 2
            })
        );
    }
}
