//! The namespaces that the bench plays in, and the order of the play.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::containerd::Containerd;
use super::contest::Contestant;
use super::host::Host;
use super::leftovers::Leftovers;
use super::peers::Peers;
use super::root::Root;
use super::runner::Runner;
use super::{Bench, crowd, daemon, peak, table};
use crate::nested;

/// The packages of our programs.
const PACKAGES: [&str; 5] = [
    "dyno",
    "dyno-hostd",
    "dyno-runtime",
    "dyno-edge",
    "dyno-images",
];

/// Builds what is measured and executes the bench again in namespaces of its
/// own: whatever runs, is mounted or routed there ends with it. Where the
/// programs are.
pub(super) fn enter(bench: &Bench) -> Result<PathBuf> {
    let programs = match &bench.bin_dir {
        Some(folder) => folder.canonicalize().context("--bin-dir")?,
        None => build()?,
    };
    let this = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "--net",
            "--uts",
            "--ipc",
        ])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(this)
        .args([
            "bench",
            "--part",
            "stage",
            "--rounds",
            &bench.rounds.to_string(),
            "--bin-dir",
        ])
        .arg(&programs);
    for name in &bench.without {
        command.args(["--without", name]);
    }
    if let Some(file) = &bench.json {
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    let leftovers = Leftovers::expect()?;
    command.arg("--host-file").arg(leftovers.host_file());
    let status = command.status().context("cannot execute unshare(1)")?;
    leftovers.remove()?;
    ensure!(status.success(), "the bench failed: {status}");
    Ok(programs)
}

fn build() -> Result<PathBuf> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let status = nested::command(env!("CARGO"))
        .args(["build", "--release"])
        .args(packages)
        .status()?;
    ensure!(status.success(), "the release build failed");
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata")?;
    Ok(Path::new(target).join("x86_64-unknown-linux-gnu/release"))
}

/// The play itself, inside the namespaces.
pub(super) fn perform(bench: &Bench) -> Result<()> {
    let programs = bench
        .bin_dir
        .as_deref()
        .context("the stage needs --bin-dir")?;
    for folder in ["/run", "/var/lib/cni"] {
        std::fs::create_dir_all(folder)?;
        done(Command::new("mount").args(["-t", "tmpfs", "tmpfs", folder]))?;
    }
    done(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let root = Root::make()?;
    let takes_part = |name: &str| !bench.without.iter().any(|out| out == name);
    let mut host = if takes_part("dyno") {
        let host = Host::start(programs, &root)?;
        let file = bench
            .host_file
            .as_deref()
            .context("the stage needs --host-file")?;
        std::fs::File::create(file)?.write_all(host.id()?.as_bytes())?;
        Some(host)
    } else {
        None
    };

    let mut plain = Runner::start(runner(None)?)?;
    let mut unified = Runner::start(runner(v2_tree())?)?;
    let mut results = Vec::new();
    let peers = Peers::new(programs, &root, host.as_ref())?;
    for mut comparison in peers.comparisons()? {
        comparison
            .contestants
            .retain(|contestant| takes_part(contestant.name));
        if comparison.contestants.is_empty() {
            continue;
        }
        for contestant in &comparison.contestants {
            contestant.set_up()?;
        }
        let time = |contestant: &Contestant| {
            let runner = if contestant.needs_v2 {
                &mut unified
            } else {
                &mut plain
            };
            runner.time(&contestant.commands)
        };
        let samples = comparison.measure(bench.rounds, time)?;
        table::print(&comparison, &samples);
        results.push((comparison, samples));
    }
    let (waiting, mut peaks) = (root.waiting()?, Vec::new());
    for (name, runtime, needs_v2) in peers.runs() {
        if takes_part(name) {
            let tree = v2_tree().filter(|_| needs_v2);
            peaks.push((name, peak::measure(&runtime, &waiting, tree)?));
        }
    }
    table::print_peaks(&peaks);
    if takes_part("dyno-runtime") {
        table::print_starts(&crowd::starts(&peers.run_unnamed())?);
    }
    let mut background = Vec::new();
    if takes_part("podman") {
        background.push(peers.background());
    }
    let containerd = takes_part("containerd").then(|| Containerd::start(&root));
    let containerd = containerd.transpose()?;
    background.extend(containerd.as_ref().map(Containerd::background));
    if let Some(host) = &mut host {
        daemon::measure(host, &background, bench.rounds)?;
    }
    if let Some(file) = &bench.json {
        table::write_json(file, &results)?;
    }
    Ok(())
}

/// The v2 tree of a hybrid host, which crun wants on /sys/fs/cgroup.
fn v2_tree() -> Option<&'static str> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    Path::new(UNIFIED)
        .join("cgroup.procs")
        .exists()
        .then_some(UNIFIED)
}

/// The command that becomes a runner, after binding `tree` over /sys/fs/cgroup
/// in a mount namespace of its own.
fn runner(tree: Option<&str>) -> Result<Command> {
    let this = std::env::current_exe()?;
    let mut command = over(tree, &this);
    command.args(["bench", "--part", "runner"]);
    Ok(command)
}

/// The command that becomes `program`, after binding `tree` over /sys/fs/cgroup
/// in a mount namespace of its own.
pub(super) fn over(tree: Option<&str>, program: &Path) -> Command {
    let Some(tree) = tree else {
        return Command::new(program);
    };
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$1" /sys/fs/cgroup && shift && exec "$@""#;
    let private = ["--mount", "--propagation", "private"];
    command
        .args(private)
        .args(["sh", "-c", script, "sh", tree])
        .arg(program);
    command
}

/// Executes a command of the set-up, which must succeed.
pub(super) fn done(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot execute {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}
