//! The Debian packages whose programs the harness runs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program of the host and the package that brings it.
const NEEDED: [(&str, &str); 15] = [
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/qemu-img", "qemu-utils"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/newuidmap", "uidmap"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/ip", "iproute2"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/crun", "crun"),
    ("/usr/bin/curl", "curl"),
    ("/usr/sbin/criu", "criu"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
];

/// Installs what is missing.
///
/// # Errors
/// Tells the command to run where it may not, or cannot, install.
pub(super) fn install_missing() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "the tests in virtual machines need {}; this is not Debian or Ubuntu, \
         please install them with your package manager",
        missing.join(", ")
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "the tests in virtual machines need packages; as root, run: {by_hand}"
    );
    eprintln!("installing {}", missing.join(" "));
    if !apt_install(&missing)? {
        // The package lists may never have been fetched, or be too old.
        let update = Command::new("apt-get").args(["update", "-q"]).status();
        ensure!(
            update.context("executing apt-get")?.success(),
            "apt-get update failed"
        );
        if !apt_install(&missing)? {
            bail!("could not install packages; try: apt-get update && {by_hand}");
        }
    }
    for (program, package) in NEEDED {
        ensure!(
            Path::new(program).exists(),
            "{package} is installed but {program} is missing; \
             try: apt-get install --reinstall {package}"
        );
    }
    Ok(())
}

fn apt_install(packages: &[&str]) -> Result<bool> {
    let output = Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("executing apt-get")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}
