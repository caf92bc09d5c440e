//! The conformance suite, asked of Debian's runtimes: is the suite right?
//!
//! A runtime that many rely on passes nearly all of it. What it does not pass is
//! listed with the reason, and the list is compared both ways: a test that fails
//! and is not listed is one that asks too much, or a change of theirs; one that is
//! listed and passes is not needed any more.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::nested;

/// Ask another runtime what the suite asks of ours
#[derive(Debug, clap::Args)]
pub(crate) struct Conformance {
    /// Which
    #[arg(value_enum)]
    peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    Runc,
    Crun,
}

impl Peer {
    /// The program to test. Debian's crun refuses a hybrid hierarchy, so it sees
    /// the v2 tree alone there, and makes no cgroups.
    fn program(self) -> String {
        match self {
            Self::Runc => "runc".into(),
            Self::Crun => concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance/crun.sh").into(),
        }
    }

    /// `test: reason`, a line each; what begins with `#` is for people.
    fn expected(self) -> &'static str {
        match self {
            Self::Runc => include_str!("conformance/runc.expected"),
            Self::Crun => include_str!("conformance/crun.expected"),
        }
    }
}

/// Whether the peer fails where it is expected to, and nowhere else.
pub(crate) fn run(conformance: &Conformance) -> Result<bool> {
    let expected = names(conformance.peer.expected());
    let output = nested::command("cargo")
        .args([
            "nextest",
            "run",
            "--package",
            "dyno-tests",
            "--test",
            "conformance",
        ])
        .args([
            "--status-level",
            "fail",
            "--failure-output",
            "never",
            "--final-status-level",
            "none",
        ])
        .env("RUNTIME_UNDER_TEST", conformance.peer.program())
        .env("CARGO_TERM_COLOR", "never")
        .output()
        .context("run cargo nextest")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("tests run:"), "the suite was not run: {text}");
    let failed = failed(&text);
    let surprising: Vec<_> = failed.difference(&expected).collect();
    let better: Vec<_> = expected.difference(&failed).collect();
    for test in &surprising {
        println!("fails, and is not expected to: {test}");
    }
    for test in &better {
        println!("passes, and is expected to fail: {test}");
    }
    println!(
        "{:?}: {} expected failures",
        conformance.peer,
        expected.len()
    );
    Ok(surprising.is_empty() && better.is_empty())
}

fn names(list: &str) -> BTreeSet<String> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| Some(line.split_once(": ")?.0.to_owned()));
    names.collect()
}

/// The tests that nextest says have failed.
fn failed(text: &str) -> BTreeSet<String> {
    let signs = ["FAIL", "TIMEOUT", "SIGNAL", "ABORT"];
    let lines = text
        .lines()
        .filter(|line| signs.iter().any(|sign| line.trim_start().starts_with(sign)));
    lines
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_reports_are_read() {
        let list = "# why\na::b: too old\nc::d: x: y\n";
        assert_eq!(names(list), ["a::b", "c::d"].map(str::to_owned).into());
        let report = "  FAIL [   0.1s] ( 4/68) dyno-tests::conformance hooks::x\n\
                      PASS [ 0.1s] dyno-tests::conformance y\n  TIMEOUT [ 60s] z p::q\n";
        assert_eq!(
            failed(report),
            ["hooks::x", "p::q"].map(str::to_owned).into()
        );
    }
}
