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
use crate::report::{Outcome, say};
use crate::vm::{Options, Request, Vm};

/// Tests that are left to the host's kernel, and why: the start of
/// `package::target test`. Whatever is not named here is run.
const HOST_ONLY: &[(&str, &str)] = &[
    (
        "dyno-tests::cli ",
        "words and exit codes of the command line",
    ),
    ("dyno-tests::hostd ", "how hostd deals with its clients"),
    (
        "dyno-tests::security floods::",
        "hundreds of MiB take minutes without KVM",
    ),
    (
        "dyno-tests::security image_roots::",
        "hundreds of starts take minutes without KVM",
    ),
    (
        "dyno-tests::security api::",
        "how hostd deals with its clients",
    ),
    (
        "dyno-tests::security image_configs::",
        "refused before the kernel is asked",
    ),
    (
        "dyno-tests::host refusals::",
        "most refusals come before the kernel is asked",
    ),
    (
        "dyno-tests::host cycles::",
        "a thousand lives take half an hour without KVM",
    ),
    (
        "dyno-tests::host live::a_paused_dyno",
        "did not end in one of ten runs there; the cause is not known yet (docs/hostd.md)",
    ),
    (
        "dyno-tests::host secrets::a_record_that_was_changed",
        "what hostd makes of its own files",
    ),
    (
        "dyno-tests::host secrets::what_is_no_secret",
        "refused before the kernel is asked",
    ),
    (
        "dyno-tests::host volumes::a_volume_is_made_shown",
        "what hostd makes of its own files",
    ),
    (
        "dyno-tests::host volumes::where_there_are_reflinks",
        "the guest has no mkfs.xfs",
    ),
    ("dyno-tests::images ", "needs docker-registry and skopeo"),
    ("dyno-tests::real ", "needs docker-registry and skopeo"),
    (
        "dyno-tests::oci attacks::a_sysctl_goes_to_the_container_wherever_its_proc_leads",
        "6.1 shows no net.core.somaxconn in a network of another user namespace",
    ),
    (
        "dyno-tests::oci mounts::idmap_is_for_one_mount_and_ridmap_for_those_below",
        "6.1 maps the owners of no tmpfs",
    ),
    (
        "dyno-tests::oci controls::a_folder_that_is_swapped",
        "runc falls once in forty tries, a minute without KVM",
    ),
    (
        "dyno-runtime::systemd ",
        "needs systemd, as the guest of the engines' scenarios has it",
    ),
    ("dyno-edge::it control::", "what the edge answers"),
    ("dyno-edge::it forwarding::", "what the edge answers"),
    ("dyno-edge::it names::", "what the edge answers"),
    ("dyno-images::registry ", "needs docker-registry and skopeo"),
    ("dyno-images::faults ", "what registries do wrong"),
    ("dyno-images::archives ", "formats; needs skopeo"),
    (
        "dyno-images::unpack many_files_take_time_in_proportion",
        "measures time",
    ),
    (
        "dyno-images::unpack a_real_tree_unpacks_as_gnu_tar",
        "the guest has no such tree",
    ),
];

/// Longer than any test takes even without KVM.
const DEADLINE: Duration = Duration::from_secs(480);

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
    let tests = choose(context)?;
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

/// The tests of all executables but those of [`HOST_ONLY`].
fn choose(context: &Context<'_>) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let mut left_out = [0_usize; HOST_ONLY.len()];
    for binary in &context.kit.artifacts.tests {
        for (name, ignored) in list(binary)? {
            let title = format!("{}::{} {name}", binary.package, binary.target);
            if context
                .test_filter
                .is_some_and(|filter| !title.contains(filter))
            {
                continue;
            }
            if let Some(index) = HOST_ONLY
                .iter()
                .position(|(start, _)| title.starts_with(start))
            {
                left_out[index] += 1;
            } else if ignored {
                let outcome = Outcome::Skipped("marked as ignored".to_owned());
                context.report.add(&title, Duration::ZERO, &outcome);
            } else {
                tests.push(Test {
                    title,
                    executable: binary.path.clone(),
                    name,
                });
            }
        }
    }
    for ((start, reason), count) in HOST_ONLY
        .iter()
        .zip(left_out)
        .filter(|(_, count)| *count > 0)
    {
        say(format_args!(
            "left to the host's kernel: {count} of {}: {reason}",
            start.trim_end()
        ));
    }
    Ok(tests)
}

fn run(vm: &Vm, test: &Test) -> Result<()> {
    let executable = test
        .executable
        .to_str()
        .context("a path that is not UTF-8")?;
    let request = Request::new(&[executable, "--exact", &test.name, "--nocapture"])
        .env("NEXTEST", "1")
        // Without KVM a round of a race takes many times as long.
        .env("DYNO_SLOW", "1")
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
