//! `cargo xtask fuzz`: the targets of `fuzz/`, one after the other or together.
//!
//! What `cargo fuzz` would do, without having to install it: a nightly compiler
//! builds with the coverage that libFuzzer asks for, and with AddressSanitizer.

use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

/// Run the fuzz targets
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// Which; all of them where none is named
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

const TARGETS: [&str; 3] = ["config", "state", "report"];

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

const FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Whether no target found anything. What they learn goes to `target/fuzz/corpus`,
/// what breaks them to `target/fuzz/artifacts`.
pub(crate) fn run(fuzz: &Fuzz) -> Result<bool> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize()?;
    let folder = root.join("target/fuzz");
    let build = Command::new("cargo")
        .args(["+nightly", "build", "--release", "--target", TRIPLE])
        .current_dir(root.join("fuzz"))
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("run cargo +nightly")?;
    ensure!(
        build.success(),
        "the targets do not build; is there a nightly compiler? `rustup toolchain install nightly`"
    );
    let all = fuzz.targets.is_empty();
    let chosen: Vec<&str> = match all {
        true => TARGETS.to_vec(),
        false => fuzz.targets.iter().map(String::as_str).collect(),
    };
    let artifacts = folder.join("artifacts");
    std::fs::create_dir_all(&artifacts)?;
    let start = |target: &&str| -> Result<Child> {
        let learnt: PathBuf = folder.join("corpus").join(target);
        std::fs::create_dir_all(&learnt)?;
        Command::new(folder.join(TRIPLE).join("release").join(target))
            .arg(learnt)
            .arg(root.join("fuzz/corpus").join(target))
            .arg(format!("-max_total_time={}", fuzz.seconds))
            .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
            .arg(format!(
                "-artifact_prefix={}/{target}-",
                artifacts.display()
            ))
            .spawn()
            .with_context(|| format!("run the target {target}"))
    };
    let children: Vec<Child> = chosen.iter().map(start).collect::<Result<_>>()?;
    let mut held = true;
    for (target, mut child) in chosen.iter().zip(children) {
        let status = child.wait()?;
        println!("{target}: {status}");
        held &= status.success();
    }
    Ok(held)
}
