//! What is promised on a machine of its own, as tests.

mod engines;
mod host;
mod kernel_tests;
mod limits;
mod lost_writes;
mod machine;
mod power_cut;
mod reboot;
mod systemd;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use self::host::on_a_host;
use crate::kit::Kit;
use crate::report::{Outcome, Report};
use crate::vm::{Options, Silent, Vm};

/// A test: its name says what is promised.
#[derive(Debug)]
pub struct Scenario {
    /// The promise.
    pub name: &'static str,
    run: fn(&Context<'_>) -> Result<()>,
}

/// Every scenario, the longest first; last what may be cut short.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_power_cut_loses_nothing_acknowledged",
        run: power_cut::loses_nothing_acknowledged,
    },
    Scenario {
        name: "a_disk_that_lost_unflushed_writes_holds_what_was_acknowledged",
        run: lost_writes::holds_what_was_acknowledged,
    },
    Scenario {
        name: "dynos_outlive_hostd_under_systemd",
        run: systemd::dynos_outlive_hostd,
    },
    Scenario {
        name: "podman_runs_its_containers_on_our_runtime",
        run: engines::podman,
    },
    Scenario {
        name: "podman_runs_an_ordinary_users_containers_on_our_runtime",
        run: engines::rootless_podman,
    },
    Scenario {
        name: "containerd_runs_its_containers_on_our_runtime",
        run: engines::containerd,
    },
    Scenario {
        name: "a_reboot_brings_desired_dynos_back",
        run: reboot::brings_dynos_back,
    },
    Scenario {
        name: "memory_limit_kills_the_dyno_and_says_why",
        run: |context| on_a_host(context, limits::memory),
    },
    Scenario {
        name: "cpu_limit_is_what_is_measured",
        run: |context| on_a_host(context, limits::cpu),
    },
    Scenario {
        name: "pids_limit_stops_a_fork_bomb",
        run: |context| on_a_host(context, limits::pids),
    },
    Scenario {
        name: "stop_kills_what_ignores_its_signals",
        run: |context| on_a_host(context, limits::kill),
    },
    Scenario {
        name: "flushed_writes_survive_a_power_cut",
        run: machine::flushed_writes_survive,
    },
    Scenario {
        name: "the_machine_is_pure_cgroup_v2_on_a_disk",
        run: machine::is_pure_cgroup_v2,
    },
    Scenario {
        name: "kernel_facing_tests_hold_on_debians_kernel",
        run: kernel_tests::hold,
    },
    Scenario {
        name: "kernel_facing_tests_hold_on_a_second_machine_like_it",
        run: kernel_tests::hold,
    },
];

/// What a scenario works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// What machines boot from.
    pub kit: &'a Kit,
    /// The scenario's name: also that of its disk and console log.
    pub name: &'a str,
    /// For results that are counted one by one.
    pub report: &'a Report,
    /// Which of the kernel-facing tests to run, by a part of their title.
    pub test_filter: Option<&'a str>,
    /// How many times each of the kernel-facing tests is run.
    pub repeat: usize,
    /// When no more of them are begun.
    pub until: Option<Instant>,
    queue: &'a kernel_tests::Queue,
}

impl Context<'_> {
    /// Boots a machine with a fresh disk.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(&self, options: &Options) -> Result<Vm> {
        Vm::boot(self.kit, self.name, self.kit.new_disk(self.name)?, options)
    }
}

/// Shows what there is.
pub fn list() {
    for scenario in SCENARIOS {
        crate::report::say(format_args!("{}", scenario.name));
    }
}

/// What to run.
#[derive(Debug, Default)]
pub struct Selection {
    /// Scenarios whose name contains one of these; all, where there are none.
    pub filters: Vec<String>,
    /// Of the kernel-facing tests only those whose title contains this.
    pub test_filter: Option<String>,
    /// How many times each of the kernel-facing tests is run.
    pub repeat: usize,
    /// Machines at the same time.
    pub jobs: usize,
    /// When no more kernel-facing tests are begun.
    pub until: Option<Instant>,
}

/// Runs scenarios and reports each.
///
/// # Errors
/// When nothing is selected, or the logs of the last run cannot be removed.
pub fn run(kit: &Kit, selection: &Selection, report: &Report) -> Result<()> {
    let filters = &selection.filters;
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| {
            filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter))
        })
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no scenario is named like {}",
        filters.join(" or ")
    );
    for scenario in &chosen {
        let log = kit.console_log(scenario.name)?;
        if log.exists() {
            std::fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))?;
        }
    }
    let queue = kernel_tests::Queue::default();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..selection.jobs.clamp(1, chosen.len()) {
            // One thread keeps a machine from boot to end: QEMU dies with it.
            scope.spawn(|| {
                while let Some(scenario) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let test_filter = selection.test_filter.as_deref();
                    run_one(
                        &Context {
                            kit,
                            name: scenario.name,
                            report,
                            test_filter,
                            repeat: selection.repeat,
                            until: selection.until,
                            queue: &queue,
                        },
                        scenario,
                    );
                }
            });
        }
    });
    Ok(())
}

fn run_one(context: &Context<'_>, scenario: &Scenario) {
    let started = Instant::now();
    let mut result = (scenario.run)(context);
    if let Err(error) = &result
        && error.is::<Silent>()
    {
        context.report.replaced(context.name, error);
        result = (scenario.run)(context);
    }
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            let console = context
                .kit
                .console_log(context.name)
                .map(|path| crate::vm::tail(&path));
            Outcome::Failed(format!("{error:#}\n{}", console.unwrap_or_default()))
        }
    };
    context
        .report
        .add(context.name, started.elapsed(), &outcome);
}
