//! The same tests that ran on the host's kernel, now on Debian's.
//!
//! Test executables are static, so they run in the guest as they are. Each
//! test is a process of its own, as under nextest.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::kit::TestBinary;
use crate::report::Outcome;
use crate::vm::{Options, Request, Vm};

/// Tests that are not run here, and why: the start of `package::target test`.
/// Whatever is not named here is run.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "dyno-images::unpack a_real_tree_unpacks_as_gnu_tar_unpacks_it",
        "the tree is not on the guest's disk",
    ),
    (
        "dyno-tests::host refusals::",
        "most refusals come before the kernel is asked",
    ),
    (
        "dyno-tests::host cycles::a_thousand_lives",
        "takes half an hour without KVM",
    ),
    (
        "dyno-images::unpack many_files_take_time_in_proportion",
        "measures time, which is not ours here",
    ),
    (
        "dyno-tests::cli ",
        "the command line's words and exit codes do not depend on the kernel",
    ),
    (
        "dyno-edge::it control::",
        "what the edge answers does not depend on the kernel",
    ),
    (
        "dyno-edge::it forwarding::",
        "what the edge answers does not depend on the kernel",
    ),
    (
        "dyno-edge::it names::",
        "what the edge answers does not depend on the kernel",
    ),
    (
        "dyno-images::registry ",
        "docker-registry and skopeo are not on the guest's disk",
    ),
    (
        "dyno-images::faults ",
        "what registries do wrong does not depend on the kernel",
    ),
    (
        "dyno-images::archives ",
        "formats do not depend on the kernel; skopeo is not in the guest",
    ),
    (
        "dyno-tests::images ",
        "docker-registry and skopeo are not on the guest's disk",
    ),
    (
        "dyno-tests::real ",
        "docker-registry and skopeo are not on the guest's disk",
    ),
];

/// Longer than any test takes even without KVM.
const DEADLINE: Duration = Duration::from_secs(240);

/// A test of a test executable.
#[derive(Debug)]
struct Test {
    /// `runtime::namespaces masked_paths_read_as_empty`
    title: String,
    executable: PathBuf,
    name: String,
}

/// Runs every test, two at a time, each counted by itself.
pub(super) fn hold(context: &Context<'_>) -> Result<()> {
    let mut tests = Vec::new();
    for binary in &context.kit.artifacts.tests {
        for (name, ignored) in list(binary)? {
            let title = format!("{}::{} {name}", binary.package, binary.target);
            let reason = if ignored {
                Some("marked as ignored")
            } else {
                elsewhere(&title)
            };
            if context
                .test_filter
                .as_ref()
                .is_some_and(|filter| !title.contains(filter))
            {
                continue;
            }
            match reason {
                Some(reason) => {
                    context
                        .report
                        .add(&title, Duration::ZERO, &Outcome::Skipped(reason.to_owned()))
                }
                None => tests.push(Test {
                    title,
                    executable: binary.path.clone(),
                    name,
                }),
            }
        }
    }
    ensure!(
        !tests.is_empty(),
        "no test executable has a test for the virtual machine"
    );
    let vm = context.boot(&Options {
        memory_mib: 2048,
        ..Options::default()
    })?;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = match run(&vm, test) {
                        Ok(()) => Outcome::Passed,
                        Err(error) => Outcome::Failed(format!("{error:#}")),
                    };
                    context.report.add(&test.title, started.elapsed(), &outcome);
                }
            });
        }
    });
    vm.shut_down()?;
    Ok(())
}

fn run(vm: &Vm, test: &Test) -> Result<()> {
    let executable = test
        .executable
        .to_str()
        .context("a path that is not UTF-8")?;
    let request = Request::new(&[executable, "--exact", &test.name, "--nocapture"])
        .env("NEXTEST", "1")
        .env("RUST_BACKTRACE", "0")
        .deadline(DEADLINE);
    let text = vm.request(request)?.text()?;
    // A name that matches nothing "succeeds", too.
    ensure!(
        text.contains("1 passed"),
        "the executable has no such test: {text}"
    );
    Ok(())
}

/// Names of the tests in an executable, and whether each is ignored.
fn list(binary: &TestBinary) -> Result<Vec<(String, bool)>> {
    let names = |ignored: bool| -> Result<Vec<String>> {
        let mut command = Command::new(&binary.path);
        command.args(["--list", "--format", "terse"]);
        if ignored {
            command.arg("--ignored");
        }
        let output = command
            .output()
            .with_context(|| format!("executing {}", binary.path.display()))?;
        ensure!(
            output.status.success(),
            "{} --list: {}",
            binary.path.display(),
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect())
    };
    let ignored = names(true)?;
    let all = names(false)?.into_iter();
    Ok(all
        .map(|name| (name.clone(), ignored.contains(&name)))
        .collect())
}

/// Why a test is not run here.
fn elsewhere(title: &str) -> Option<&'static str> {
    let entry = NOT_HERE
        .iter()
        .find(|(start, _)| title.starts_with(start))?;
    Some(entry.1)
}
