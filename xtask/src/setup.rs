//! Installs what a purpose needs on a fresh Debian or Ubuntu machine, from the
//! distribution's packages, crates.io and PyPI.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::nested;

/// What the machine shall be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// `make test`
    Test,
    /// `make bench`
    Bench,
}

/// Programs that tests use, or a file of what is no program, and the packages they are
/// in. Their versions are
/// those of the distribution's release.
const FOR_TEST: &[(&str, &str)] = &[
    (
        "/usr/lib/python3/dist-packages/grpc/__init__.py",
        "python3-grpcio",
    ),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("criu", "criu"),
    ("crun", "crun"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus-daemon"),
    ("dig", "dnsutils"),
    ("docker-registry", "docker-registry"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("ip", "iproute2"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("modprobe", "kmod"),
    ("nc", "netcat-openbsd"),
    ("newuidmap", "uidmap"),
    ("nft", "nftables"),
    ("ps", "procps"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
    ("skopeo", "skopeo"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("strip", "binutils"),
    ("systemctl", "systemd"),
    ("unshare", "util-linux"),
    ("virtualenv", "virtualenv"),
    ("zstd", "zstd"),
];

/// What the benchmarks need besides.
const FOR_BENCH: &[(&str, &str)] = &[
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("iptables", "iptables"),
    ("podman", "podman"),
    ("wrk", "wrk"),
];

/// The test runner, pinned.
const NEXTEST: &str = "0.9.143";

/// What the tests of hostd's API ask it with; the versions are pinned in
/// [`SCHEMATHESIS_NEEDS`].
const SCHEMATHESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/schemathesis");
const SCHEMATHESIS_NEEDS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/tests/security/contract/requirements.txt"
);

/// Installs what is missing, and says so.
pub(crate) fn install(purpose: Purpose) -> Result<()> {
    let mut wanted = FOR_TEST.to_vec();
    if purpose == Purpose::Bench {
        wanted.extend(FOR_BENCH);
    }
    let packages: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(_, package)| *package)
        .collect();
    if !packages.is_empty() {
        println!("installing {}", packages.join(" "));
        apt_get(&["update"])?;
        let options = ["install", "--yes", "--no-install-recommends"];
        apt_get(&[&options[..], &packages].concat())?;
    }
    if purpose == Purpose::Test && !installed("cargo-nextest") {
        println!("installing cargo-nextest {NEXTEST}, which takes a few minutes");
        let status = nested::command("cargo")
            .args(["install", "--locked", "--version", NEXTEST, "cargo-nextest"])
            // Not into this workspace's static target.
            .current_dir("/")
            .status()
            .context("run cargo")?;
        if !status.success() {
            bail!("cargo install cargo-nextest failed: {status}");
        }
    }
    if purpose == Purpose::Test {
        install_schemathesis()?;
    }
    Ok(())
}

/// Makes a Python environment of its own, unless there is one of just these versions.
fn install_schemathesis() -> Result<()> {
    let folder = Path::new(SCHEMATHESIS);
    let installed = folder.join("requirements.txt");
    let wanted = std::fs::read(SCHEMATHESIS_NEEDS).context("read what schemathesis needs")?;
    if std::fs::read(&installed).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    println!("installing schemathesis");
    run(Command::new("virtualenv")
        .args(["--quiet", "--clear", "--python=/usr/bin/python3"])
        .arg(folder))?;
    run(Command::new(folder.join("bin/pip"))
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(SCHEMATHESIS_NEEDS))?;
    // Last, so that an installation that was cut short is made again.
    std::fs::copy(SCHEMATHESIS_NEEDS, installed).context("note what is installed")?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed: {status}", command.get_program().display());
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .arg("--quiet=2")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Programs are wanted, no services: systemctl(1) then asks nothing of systemd.
        .env("SYSTEMD_OFFLINE", "1")
        .status()
        .context("run apt-get: the set-up is for Debian and Ubuntu")?;
    if !status.success() {
        bail!(
            "apt-get {} failed: {status} (are you root?)",
            args.join(" ")
        );
    }
    Ok(())
}

/// Whether a program is in `PATH` or where Debian keeps root's programs.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let home = std::env::var("HOME")
        .map(|home| format!("{home}/.cargo/bin"))
        .unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", &home])
        .any(|folder| std::path::Path::new(folder).join(program).is_file())
}
