//! Builds our programs and test executables with cargo and finds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// An executable of integration tests.
#[derive(Debug, Clone)]
pub struct TestBinary {
    /// The package it belongs to.
    pub package: String,
    /// The test target: the name of its source file, or of the library.
    pub target: String,
    /// Where cargo put it.
    pub path: PathBuf,
}

/// A program of ours.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file that is run.
    pub file: PathBuf,
    /// Where tests look for it: the path that cargo compiled into them.
    pub sought: PathBuf,
}

/// What cargo built.
#[derive(Debug)]
pub struct Artifacts {
    /// The workspace.
    pub workspace: PathBuf,
    /// Cargo's target folder.
    pub target_dir: PathBuf,
    /// Programs by name.
    pub programs: BTreeMap<String, Program>,
    /// Test executables.
    pub tests: Vec<TestBinary>,
}

/// The parts of `cargo metadata` that are used here.
#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

/// The parts of a line of `cargo build --message-format=json` that are used here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Artifacts {
    /// Builds whatever is not up to date, with the same commands as the other
    /// checks: another choice of packages would mean other features of their
    /// dependencies, and everything compiled twice.
    ///
    /// What is shipped is tested as it is shipped: without KVM a program that
    /// was not optimised takes several times as long, and a test with it.
    ///
    /// # Errors
    /// When cargo fails.
    pub(super) fn build() -> Result<Self> {
        let metadata = cargo(&["metadata", "--format-version=1", "--no-deps"])?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("reading cargo metadata")?;
        let sought = executables(&cargo(&["build", "--workspace", "--bins", MESSAGES])?)?;
        let mut release = vec!["build", "--release", "--bins", MESSAGES];
        release.extend(SHIPPED.iter().flat_map(|name| ["--package", name]));
        let shipped = executables(&cargo(&release)?)?;
        let programs = sought.into_iter().map(|(name, sought)| {
            let file = shipped.get(&name).unwrap_or(&sought).clone();
            (name, Program { file, sought })
        });
        let programs = programs.collect();
        let mut tests = Vec::new();
        for message in messages(&cargo(&["test", "--workspace", "--no-run", MESSAGES])?)? {
            if let Message {
                executable: Some(path),
                manifest_path: Some(manifest),
                target: Some(target),
                profile: Some(Profile { test: true }),
            } = message
                // Unit tests are pure: what they say does not depend on the kernel.
                && target.kind == ["test"]
            {
                tests.push(TestBinary {
                    package: package_of(&manifest),
                    target: target.name,
                    path,
                });
            }
        }
        Ok(Self {
            workspace: metadata.workspace_root,
            target_dir: metadata.target_directory,
            programs,
            tests,
        })
    }
}

/// The packages of `make release`.
const SHIPPED: [&str; 5] = [
    "dyno",
    "dyno-hostd",
    "dyno-runtime",
    "dyno-images",
    "dyno-edge",
];

const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// The folder of the manifest names the crate: `runtime` is `dyno-runtime`.
fn package_of(manifest: &Path) -> String {
    let folder = manifest
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default();
    format!("dyno-{}", folder.to_string_lossy())
}

/// What `cargo run` tells the program it runs about its package. Build scripts
/// watch these (ring's does): inherited, they have half the tree compiled anew.
const ABOUT_US: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

fn cargo(arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ABOUT_US
            .iter()
            .any(|start| name.to_string_lossy().starts_with(start))
        {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("executing cargo")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        output.status
    );
    String::from_utf8(output.stdout).context("reading what cargo printed")
}

/// The executables among cargo's messages, by name.
fn executables(lines: &str) -> Result<BTreeMap<String, PathBuf>> {
    let found = messages(lines)?.into_iter().filter_map(|message| {
        let (target, path) = (message.target?, message.executable?);
        Some((target.name, path))
    });
    Ok(found.collect())
}

fn messages(lines: &str) -> Result<Vec<Message>> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("reading {line}")))
        .collect()
}
