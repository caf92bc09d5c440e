//! The same start on Debian's kernel, in a virtual machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::programs;
use crate::nested;

/// What is brought into the machine, removed at the end.
struct Luggage(PathBuf);

/// Has `dyno-vm-tests` measure there: `dyno-runtime` of this folder, the floor,
/// and this program as the one that times.
///
/// # Errors
/// When the machine does not come up, or a contestant fails.
pub(super) fn measure(programs: &Path, rounds: usize) -> Result<()> {
    let folder = PathBuf::from(format!("/var/tmp/dyno-bench-vm-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let luggage = Luggage(folder);
    programs::build(&luggage.0, programs::FLOOR)?;
    let runtime = programs.join("dyno-runtime");
    for (program, name) in [
        (runtime, "dyno-runtime"),
        (std::env::current_exe()?, "xtask"),
    ] {
        std::fs::copy(&program, luggage.0.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    let status = nested::command(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "dyno-vm-tests",
            "--",
            "figures",
        ])
        .args(["--rounds", &rounds.to_string(), "--programs"])
        .arg(&luggage.0)
        .status()?;
    ensure!(status.success(), "the measurement in the machine failed");
    Ok(())
}

impl Drop for Luggage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} stays: {error}", self.0.display());
        }
    }
}
