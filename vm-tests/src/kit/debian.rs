//! A second root disk: Debian's own systemd as PID 1, as on an ordinary server,
//! with the engines that call a runtime.
//!
//! mmdebstrap makes the tree once; it is kept until the recipe changes. Each
//! run puts today's programs into a copy made of hard links.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::artifacts::Artifacts;
use super::kernel::Kernel;
use super::programs::Root;
use super::{disk, output_of};

/// What the tree is made by; the folder to write comes last.
const MMDEBSTRAP: [&str; 8] = [
    "--quiet",
    "--format=directory",
    "--variant=minbase",
    "--include=systemd,systemd-sysv,udev,kmod,iproute2,nftables,procps,podman,uidmap,slirp4netns,containerd",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "bookworm",
];

/// Units of a server that take long without KVM and that no test is about.
const MASKED: [&str; 9] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
];

/// The agent of the harness. Its own stop ends no command of the harness.
const AGENT: &str = "\
[Unit]
Description=Agent of the tests

[Service]
ExecStart=/usr/sbin/dyno-vm-guest agent
Restart=always
KillMode=process
TasksMax=infinity
";

/// Any will do; with none systemd takes every boot for the first.
const MACHINE_ID: &str = "7d796e6f7d796e6f7d796e6f7d796e6f\n";

/// The programs of a host, where a person puts them.
const PROGRAMS: [&str; 5] = ["dyno", "hostd", "dyno-runtime", "dyno-unpack", "dyno-edge"];

/// Makes the disk image.
///
/// # Errors
/// Names the program or file that failed.
pub(super) fn build_image(
    folder: &Path,
    kernel: &Kernel,
    artifacts: &Artifacts,
) -> Result<PathBuf> {
    let debian = bootstrap(folder)?;
    let root = folder.join("systemd-root");
    let stripped = folder.join("stripped");
    let tree = Root::new(&root, &stripped)?;
    let everything = debian.join(".");
    output_of(
        "cp",
        &["-al".as_ref(), everything.as_os_str(), root.as_os_str()],
    )?;
    let modules = Path::new("/usr/lib/modules").join(&kernel.release);
    tree.share_folder(&modules, &kernel.modules)?;
    for name in PROGRAMS {
        tree.stripped(&format!("/usr/local/bin/{name}"), program(artifacts, name)?)?;
    }
    let agent = program(artifacts, "dyno-vm-guest")?;
    tree.stripped("/usr/sbin/dyno-vm-guest", agent)?;
    tree.share("/usr/bin/busybox", Path::new("/usr/bin/busybox"))?;
    tree.file("/etc/machine-id", 0o444, MACHINE_ID.as_bytes())?;
    tree.file("/etc/hostname", 0o644, b"vm\n")?;
    let units = Path::new("/etc/systemd/system");
    tree.file("/etc/systemd/system/agent.service", 0o644, AGENT.as_bytes())?;
    tree.link(
        units.join("multi-user.target.wants/agent.service"),
        "/etc/systemd/system/agent.service",
    )?;
    for unit in MASKED {
        tree.link(units.join(unit), "/dev/null")?;
    }
    disk::make_image(&root, &folder.join("systemd.ext4"))
}

fn program<'a>(artifacts: &'a Artifacts, name: &str) -> Result<&'a Path> {
    let path = artifacts.programs.get(name);
    path.map(|program| program.file.as_path())
        .with_context(|| format!("cargo built no program {name}"))
}

/// The tree that mmdebstrap made, now or earlier. It gets its name when it is complete.
fn bootstrap(folder: &Path) -> Result<PathBuf> {
    let (tree, recipe) = (folder.join("debian"), folder.join("debian.recipe"));
    let wanted = MMDEBSTRAP.join(" ");
    if fs::read_to_string(&recipe).is_ok_and(|made| made == wanted) {
        return Ok(tree);
    }
    let partial = folder.join("debian.partial");
    for stale in [&tree, &partial] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("removing {}", stale.display()))?;
        }
    }
    eprintln!("making a Debian with systemd, which takes a minute");
    let status = Command::new("mmdebstrap")
        .args(MMDEBSTRAP)
        .arg(&partial)
        .stdout(std::io::stderr())
        .status()
        .context("executing mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap: {status}");
    fs::rename(&partial, &tree).with_context(|| format!("naming {}", tree.display()))?;
    super::replace_file(&recipe, wanted.as_bytes())?;
    Ok(tree)
}
