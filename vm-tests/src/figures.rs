//! What a container's start takes in the machine, beside runc, crun and the
//! kernel's part alone: for `make bench`.
//!
//! Nothing is fast without KVM, and no figure of it means anything but beside
//! another one of the same run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::kit::Kit;
use crate::report::say;
use crate::vm::{Options, Request, Vm};

/// Rounds before the measured ones.
const WARM_UP: usize = 2;
/// All rounds together may take as long.
const PATIENCE: Duration = Duration::from_secs(900);
/// What we may take beside the floor.
const TARGET: f64 = 1.5;

/// The programs that are brought: ours, the floor, and the one that times.
const PROGRAMS: [&str; 3] = ["dyno-runtime", "floor", "xtask"];

/// runc's own default configuration with another program and no terminal.
const BUNDLE: &str = "mkdir -p /tmp/bundle/rootfs && cd /tmp/bundle && runc spec\n\
    sed -i -e 's/\"terminal\": true/\"terminal\": false/' -e 's/\"sh\"/\"\\/bin\\/true\"/' config.json\n\
    cd rootfs && mkdir bin dev etc proc run sys tmp && cp /usr/bin/busybox bin/\n\
    ln -s busybox bin/true";

/// Who takes part, by name and command line; ours first.
const CONTESTANTS: [(&str, &[&str]); 4] = [
    (
        "dyno-runtime run",
        &[
            "/usr/local/bin/dyno-runtime",
            "--root",
            "/run/a",
            "run",
            "--bundle",
            "/tmp/bundle",
            "b",
        ],
    ),
    (
        "the kernel's part alone",
        &["/usr/local/bin/floor", "/tmp/bundle/rootfs", "/bin/true"],
    ),
    (
        "runc run",
        &[
            "runc",
            "--root",
            "/run/c",
            "run",
            "--bundle",
            "/tmp/bundle",
            "b",
        ],
    ),
    (
        "crun run",
        &[
            "crun",
            "--root",
            "/run/d",
            "run",
            "--bundle",
            "/tmp/bundle",
            "b",
        ],
    ),
];

/// What the timing program answers.
#[derive(Debug, Deserialize)]
struct Sample {
    nanoseconds: u64,
    failure: Option<String>,
}

/// Measures and prints. In `programs` are release builds of `dyno-runtime` and
/// `xtask`, and the floor.
///
/// # Errors
/// When the machine does not come up or a contestant fails.
pub fn measure(kit: &Kit, programs: &Path, rounds: usize) -> Result<()> {
    let vm = Vm::boot(
        kit,
        "figures",
        kit.new_disk("figures")?,
        &Options::default(),
    )?;
    for program in PROGRAMS {
        bring(&vm, &programs.join(program))?;
    }
    vm.sh(BUNDLE)?.text()?;
    let samples = samples(&vm, rounds)?;
    vm.shut_down()?;
    print(&samples);
    Ok(())
}

/// Puts a program into `/usr/local/bin`, without its symbols.
fn bring(vm: &Vm, program: &Path) -> Result<()> {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.context("a program without a name")?;
    let stripped = program.with_extension("stripped");
    let status = Command::new("strip")
        .arg("-o")
        .args([stripped.as_path(), program])
        .status()
        .context("executing strip")?;
    ensure!(status.success(), "strip {}", program.display());
    let bytes = std::fs::read(&stripped)?;
    std::fs::remove_file(&stripped)?;
    let script =
        r#"mkdir -p /usr/local/bin && cat >"/usr/local/bin/$0" && chmod 755 "/usr/local/bin/$0""#;
    let request = Request::new(&["sh", "-c", script, name]);
    vm.request(request.stdin(bytes).deadline(PATIENCE))?
        .text()
        .map(drop)
}

/// Each contestant's times, sorted. Every round runs them all.
fn samples(vm: &Vm, rounds: usize) -> Result<Vec<Vec<Duration>>> {
    let mut lines = Vec::new();
    for _ in 0..WARM_UP + rounds {
        for (_, words) in CONTESTANTS {
            serde_json::to_writer(&mut lines, &[words])?;
            lines.push(b'\n');
        }
    }
    let runner = Request::new(&["/usr/local/bin/xtask", "bench", "--part", "runner"]);
    let told = vm.request(runner.stdin(lines).deadline(PATIENCE))?.text()?;
    let mut samples = vec![Vec::new(); CONTESTANTS.len()];
    for (index, line) in told.lines().enumerate() {
        let sample: Sample = serde_json::from_str(line)?;
        let (round, who) = (index / CONTESTANTS.len(), index % CONTESTANTS.len());
        if let Some(failure) = sample.failure {
            anyhow::bail!("{failure}");
        }
        if let Some(samples) = samples.get_mut(who).filter(|_| round >= WARM_UP) {
            samples.push(Duration::from_nanos(sample.nanoseconds));
        }
    }
    ensure!(
        samples.iter().all(|samples| samples.len() == rounds),
        "not every round was answered"
    );
    samples
        .iter_mut()
        .for_each(|samples| samples.sort_unstable());
    Ok(samples)
}

fn print(samples: &[Vec<Duration>]) {
    say(format_args!(
        "\nan OCI bundle: run, in a virtual machine without KVM"
    ));
    let median = |samples: &[Duration]| samples[samples.len() / 2].as_secs_f64() * 1000.0;
    let ours = samples.first().map_or(0.0, |samples| median(samples));
    for ((name, _), samples) in CONTESTANTS.iter().zip(samples) {
        let median = median(samples);
        let ratio = ours / median;
        let beside = match *name {
            "dyno-runtime run" => String::new(),
            "the kernel's part alone" => {
                let met = if ratio <= TARGET { "met" } else { "missed" };
                format!("{ratio:.2} ×  target {TARGET:.2} × {met}")
            }
            _ => format!("{ratio:.2} ×"),
        };
        say(format_args!("  {name:<44} {median:>6.1} ms  {beside}"));
    }
}
