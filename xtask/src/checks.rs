//! `cargo xtask test`: everything that CI runs, every check to its end, then
//! every failure, then one line that counts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::count::Count;
use crate::nested;

/// Run every check that CI runs, then report every failure
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Leave out the virtual machines
    #[arg(long)]
    no_vm: bool,
}

/// One thing that is checked: its name, its command, and how to count it.
struct Check {
    name: &'static str,
    command: &'static [&'static str],
    counting: Counting,
}

enum Counting {
    /// It passes or fails as a whole.
    Whole,
    /// By nextest's summary.
    Nextest,
    /// By its last line.
    LastLine,
}

const CHECKS: &[Check] = &[
    Check {
        name: "format",
        command: &["cargo", "fmt", "--all", "--check"],
        counting: Counting::Whole,
    },
    Check {
        name: "lints",
        command: &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        counting: Counting::Whole,
    },
    Check {
        name: "documentation",
        command: &[
            "cargo",
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
        counting: Counting::Whole,
    },
    Check {
        name: "programs",
        command: &["cargo", "build", "--workspace", "--bins"],
        counting: Counting::Whole,
    },
    Check {
        name: "programs of the commit before",
        command: &["cargo", "xtask", "former"],
        counting: Counting::Whole,
    },
    Check {
        name: "tests",
        command: &["cargo", "nextest", "run", "--workspace", "--no-fail-fast"],
        counting: Counting::Nextest,
    },
    // Whether the conformance suite, which ours has just passed, is right.
    Check {
        name: "conformance of runc",
        command: &["cargo", "xtask", "conformance", "runc"],
        counting: Counting::Whole,
    },
    Check {
        name: "conformance of crun",
        command: &["cargo", "xtask", "conformance", "crun"],
        counting: Counting::Whole,
    },
    // README's other command, from its build list to its last line.
    Check {
        name: "demo",
        command: &["make", "demo"],
        counting: Counting::Whole,
    },
    // Of the release build that the demo has just made.
    Check {
        name: "distribution",
        command: &["make", "dist"],
        counting: Counting::Whole,
    },
    Check {
        name: "tests in virtual machines",
        command: &[
            "cargo",
            "run",
            "--package",
            "dyno-vm-tests",
            "--bin",
            "dyno-vm-tests",
        ],
        counting: Counting::LastLine,
    },
];

impl Test {
    /// Runs the checks; whether all of them passed.
    pub(crate) fn run(&self) -> Result<bool> {
        crate::setup::install(crate::setup::Purpose::Test)?;
        let skips = tempfile()?;
        let mut total = Count::default();
        let mut failures = Vec::new();
        for check in CHECKS {
            if self.no_vm && matches!(check.counting, Counting::LastLine) {
                println!("\n== {}: left out, as asked", check.name);
                total.skipped += 1;
                continue;
            }
            let count = check.run(&skips)?;
            if count.failed > 0 {
                failures.push(format!("{}: {count}", check.name));
            }
            total += count;
        }
        report_skips(&skips, &mut total)?;
        for failure in &failures {
            println!("FAILED {failure}");
        }
        println!("{total}");
        Ok(total.failed == 0)
    }
}

impl Check {
    fn run(&self, skips: &Path) -> Result<Count> {
        println!("\n== {}", self.name);
        let started = Instant::now();
        let mut child = nested::command(self.command[0])
            .args(&self.command[1..])
            .env("DYNO_TEST_SKIPS", skips)
            .env("RUSTDOCFLAGS", "-D warnings")
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", self.command.join(" ")))?;
        let stderr = child.stderr.take().context("take the standard error")?;
        let errors = std::thread::spawn(move || pass_through(stderr, std::io::stderr()));
        let stdout = child.stdout.take().context("take the standard output")?;
        let mut output = pass_through(stdout, std::io::stdout())?;
        output.push_str(
            &errors
                .join()
                .map_err(|_panic| anyhow::anyhow!("a reader panicked"))??,
        );
        let succeeded = child.wait()?.success();
        let count = match self.counting {
            Counting::Whole => None,
            Counting::Nextest => Count::from_nextest(&output),
            Counting::LastLine => Count::from_last_line(&output),
        };
        let mut count = count.unwrap_or(Count::of(succeeded));
        if !succeeded && count.failed == 0 {
            count.failed = 1;
        }
        println!(
            "-- {}: {count} ({} s)",
            self.name,
            started.elapsed().as_secs()
        );
        Ok(count)
    }
}

/// Copies line by line, and keeps the text.
fn pass_through(from: impl std::io::Read, mut to: impl Write) -> Result<String> {
    let mut kept = String::new();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(kept)
}

/// A test that cannot run writes its name and reason here; the runner took it
/// for passed.
fn report_skips(skips: &Path, total: &mut Count) -> Result<()> {
    let reasons = std::fs::read_to_string(skips)?;
    for reason in reasons.lines() {
        println!("SKIPPED {reason}");
        total.passed = total.passed.saturating_sub(1);
        total.skipped += 1;
    }
    std::fs::remove_file(skips)?;
    Ok(())
}

fn tempfile() -> Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join(format!("dyno-test-skips-{}", std::process::id()));
    std::fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}
