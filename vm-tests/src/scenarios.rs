//! What is promised on a machine of its own, as tests.

mod machine;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::kit::Kit;
use crate::report::{Outcome, Report};
use crate::vm::{Options, Vm};

/// A test: its name says what is promised.
#[derive(Debug)]
pub struct Scenario {
    /// The promise.
    pub name: &'static str,
    run: fn(&Context<'_>) -> Result<()>,
}

/// Every scenario, the longest first.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the_machine_is_pure_cgroup_v2_on_a_disk",
        run: machine::is_pure_cgroup_v2,
    },
    Scenario {
        name: "flushed_writes_survive_a_power_cut",
        run: machine::flushed_writes_survive,
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

/// Runs those scenarios whose name contains one of `filters` (all, where there
/// are none), as many at a time as `jobs`.
///
/// # Errors
/// When the logs of the last run cannot be removed.
pub fn run(kit: &Kit, filters: &[String], jobs: usize, report: &Report) -> Result<()> {
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| {
            filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter))
        })
        .collect();
    for scenario in &chosen {
        let log = kit.console_log(scenario.name)?;
        if log.exists() {
            std::fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))?;
        }
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, chosen.len().max(1)) {
            // One thread keeps a machine from boot to end: QEMU dies with it.
            scope.spawn(|| {
                while let Some(scenario) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run_one(kit, scenario, report);
                }
            });
        }
    });
    Ok(())
}

fn run_one(kit: &Kit, scenario: &Scenario, report: &Report) {
    let started = Instant::now();
    let context = Context {
        kit,
        name: scenario.name,
        report,
    };
    let outcome = match (scenario.run)(&context) {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            let console = kit
                .console_log(scenario.name)
                .map(|path| crate::vm::tail(&path));
            Outcome::Failed(format!("{error:#}\n{}", console.unwrap_or_default()))
        }
    };
    report.add(scenario.name, started.elapsed(), &outcome);
}
