//! The same tests that ran on the host's kernel, now on Debian's.
//!
//! Test executables are static, so they run in the guest as they are. Each
//! test is a process of its own, as under nextest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::iter;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::kit::TestBinary;
use crate::report::{Outcome, say};
use crate::vm::{Options, Request, Silent, Vm};

/// Tests that are left to the host's kernel, and why: the start of
/// `package::target test`. Whatever is not named here is run.
const HOST_ONLY: &[(&str, &str)] = &[
    (
        "dyno-cluster::",
        "asks for other programs and nothing of the kernel",
    ),
    (
        "dyno-hostd::threads ",
        "threads in every order, whatever the kernel",
    ),
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
        "dyno-tests::security remote::",
        "how hostd deals with its clients",
    ),
    (
        "dyno-tests::security audit::",
        "what hostd makes of its own files",
    ),
    (
        "dyno-tests::security contract::",
        "how hostd deals with its clients",
    ),
    (
        "dyno-tests::security malformed::",
        "how hostd deals with its clients",
    ),
    (
        "dyno-tests::security slow::",
        "how hostd deals with its clients",
    ),
    (
        "dyno-tests::security image_configs::",
        "refused before the kernel is asked",
    ),
    (
        "dyno-tests::host apps::",
        "what the command line makes of a file",
    ),
    (
        "dyno-tests::host refusals::",
        "most refusals come before the kernel is asked",
    ),
    (
        "dyno-tests::host health::a_server_of_grpc",
        "the guest has no Python",
    ),
    (
        "dyno-tests::host volumes::a_dyno_stays_still",
        "copies of 30,000 files take minutes without KVM",
    ),
    (
        "dyno-tests::host cycles::",
        "a thousand lives take half an hour without KVM",
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
        "dyno-tests::host volumes::a_copy_and_an_import",
        "hundreds of MiB take minutes without KVM",
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

/// How often a guest is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(30);

/// Silent machines that are replaced; more of them are no accident.
const SILENT_MACHINES: usize = 2;

/// What is worth knowing of a test that does not end: what each process
/// waits for, in the kernel's words, and which cgroups are frozen.
const DIAGNOSIS: &str = r#"
for folder in /proc/[0-9]*; do
    grep -q . $folder/cmdline || continue
    echo "--- ${folder#/proc/}: $(tr '\0' ' ' < $folder/cmdline | cut -c -200)"
    grep -E '^(State|PPid)' $folder/status | tr '\n' ' '; cat $folder/cgroup
    for task in $folder/task/*; do
        echo "${task##*/} $(cat $task/comm): $(cat $task/syscall)"; cat $task/stack
    done
done 2>/dev/null
for file in $(find /sys/fs/cgroup -name cgroup.freeze); do
    echo ${file%/*}: freeze $(cat $file) $(cat ${file%freeze}events)
done 2>/dev/null | grep -E 'freeze 1|frozen 1'
"#;

/// A test of a test executable.
#[derive(Debug)]
struct Test {
    /// `runtime::namespaces masked_paths_read_as_empty`
    title: String,
    executable: PathBuf,
    name: String,
}

/// What is still to be run, by as many machines as there are.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Option<VecDeque<Run>>>);

/// A test that is to be run.
#[derive(Debug, Clone)]
struct Run {
    test: Arc<Test>,
    /// Whether a guest has fallen silent under it.
    again: bool,
}

impl Queue {
    /// Chooses the tests, where no other machine has.
    fn fill(&self, context: &Context<'_>) -> Result<()> {
        let mut queue = self.lock();
        if queue.is_none() {
            let runs = choose(context)?.into_iter().flat_map(|test| {
                let test = Arc::new(test);
                iter::repeat_n(Run { test, again: false }, context.repeat)
            });
            let runs: VecDeque<Run> = runs.collect();
            ensure!(
                !runs.is_empty(),
                "no test executable has a test for the virtual machine"
            );
            *queue = Some(runs);
        }
        Ok(())
    }

    /// The next one; when the time is over, all that are left are counted as
    /// not run.
    fn next(&self, context: &Context<'_>) -> Option<Run> {
        let mut queue = self.lock();
        let queue = queue.as_mut()?;
        if context.until.is_some_and(|until| Instant::now() > until) {
            let outcome = Outcome::Skipped("the time given by --minutes is over".to_owned());
            for run in queue.drain(..) {
                context
                    .report
                    .add(&run.test.title, Duration::ZERO, &outcome);
            }
        }
        queue.pop_front()
    }

    fn put_back(&self, run: Run) {
        self.lock().get_or_insert_default().push_front(run);
    }

    fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(VecDeque::is_empty)
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Run>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs tests until there are none left, two at a time, each counted by itself.
pub(super) fn hold(context: &Context<'_>) -> Result<()> {
    context.queue.fill(context)?;
    let mut silent = 0;
    while !context.queue.is_empty() {
        match on_a_machine(context) {
            Ok(()) => {}
            Err(error) if error.is::<Silent>() && silent < SILENT_MACHINES => {
                silent += 1;
                context.report.replaced(context.name, &error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Runs tests until there are none left or the guest has fallen silent.
fn on_a_machine(context: &Context<'_>) -> Result<()> {
    let vm = context.boot(&Options {
        memory_mib: 2048,
        ..Options::default()
    })?;
    let silence = OnceLock::new();
    let (at_work, done) = mpsc::channel::<Infallible>();
    thread::scope(|scope| {
        for _ in 0..2 {
            let at_work = at_work.clone();
            let (vm, silence) = (&vm, &silence);
            scope.spawn(move || {
                while let Some(run) = context.queue.next(context) {
                    run_one(context, vm, silence, run);
                    if silence.get().is_some() {
                        break;
                    }
                }
                drop(at_work);
            });
        }
        drop(at_work);
        // A test may take minutes: that the guest is gone is noticed before.
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(PULSE) {
            if let Some(silent) = vm.silence()
                && silence.set(silent).is_ok()
                && let Err(error) = vm.give_up()
            {
                say(format_args!("ending a silent machine: {error:#}"));
            }
        }
    });
    match silence.into_inner() {
        Some(silent) => Err(silent.into()),
        None => vm.shut_down().map(drop),
    }
}

/// Runs one and counts it; a guest that falls silent under it says nothing
/// about it, once.
fn run_one(context: &Context<'_>, vm: &Vm, silence: &OnceLock<Silent>, run: Run) {
    let started = Instant::now();
    let outcome = match ask(vm, &run.test) {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            if silence.get().is_none()
                && let Some(silent) = vm.silence()
            {
                silence.get_or_init(|| silent);
            }
            if silence.get().is_some() && !run.again {
                context.queue.put_back(Run { again: true, ..run });
                return;
            }
            Outcome::Failed(format!("{error:#}"))
        }
    };
    context
        .report
        .add(&run.test.title, started.elapsed(), &outcome);
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
    // Those that the kernel matters most to are run even where time is short.
    tests.sort_by_key(|test| !test.title.contains("::oci ") && !test.title.contains("-runtime::"));
    Ok(tests)
}

fn ask(vm: &Vm, test: &Test) -> Result<()> {
    let executable = test
        .executable
        .to_str()
        .context("a path that is not UTF-8")?;
    let request = Request::new(&[executable, "--exact", &test.name, "--nocapture"])
        .env("NEXTEST", "1")
        // Without KVM a round of a race takes many times as long.
        .env("DYNO_SLOW", "1")
        .env("RUST_BACKTRACE", "0")
        .deadline(DEADLINE)
        .diagnosis(DIAGNOSIS);
    let text = vm.start(request)?.wait()?.text()?;
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
