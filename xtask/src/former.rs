//! `cargo xtask former`: the programs of the commit before, to be tried together with
//! these.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::nested;

/// What is built of it.
const PACKAGES: [&str; 5] = [
    "dyno",
    "dyno-hostd",
    "dyno-runtime",
    "dyno-edge",
    "dyno-images",
];
/// What of that is tried.
const PROGRAMS: [&str; 5] = ["dyno", "hostd", "dyno-runtime", "dyno-edge", "dyno-unpack"];

/// Builds them into `target/former/programs`, unless they are there. Where there is no
/// commit before, as in a shallow clone, there are none, and the tests say so.
pub(crate) fn build() -> Result<()> {
    let folder = target()?.join("former");
    let programs = folder.join("programs");
    let Some(commit) = commit()? else {
        println!("there is no commit before this one");
        return remove(&programs);
    };
    let mark = programs.join("commit");
    if std::fs::read_to_string(&mark).is_ok_and(|built| built == commit) {
        return Ok(());
    }
    remove(&programs)?;
    let source = folder.join("source");
    remove(&source)?;
    std::fs::create_dir_all(&source)?;
    unpack(&commit, &source)?;
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let status = nested::command(env!("CARGO"))
        .args(["build", "--locked", "--bins"])
        .args(packages)
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .status()?;
    ensure!(status.success(), "{commit} cannot be built");
    std::fs::create_dir_all(&programs)?;
    let built = folder.join("target/x86_64-unknown-linux-gnu/debug");
    for program in PROGRAMS {
        let copied = std::fs::copy(built.join(program), programs.join(program));
        copied.with_context(|| format!("copy {program}"))?;
    }
    let mut file = std::fs::File::create(&mark)?;
    Ok(file.write_all(commit.as_bytes())?)
}

/// The commit that this one, or the first of those that were merged into it, follows.
fn commit() -> Result<Option<String>> {
    let output = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", "HEAD^"])
        .output()
        .context("run git")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(output.status.success().then(|| text.trim().to_owned()))
}

/// Its files, without touching this checkout.
fn unpack(commit: &str, folder: &Path) -> Result<()> {
    let mut git = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = git.stdout.take().context("git's output")?;
    let mut tar = Command::new("tar");
    let tar = tar
        .arg("-x")
        .arg("-C")
        .arg(folder)
        .stdin(archive)
        .status()?;
    ensure!(
        git.wait()?.success() && tar.success(),
        "git archive {commit}"
    );
    Ok(())
}

fn target() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"].as_str();
    Ok(PathBuf::from(target.context("cargo metadata")?))
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => Ok(std::fs::remove_dir_all(folder)?),
        false => Ok(()),
    }
}
