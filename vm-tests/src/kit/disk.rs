//! Disk images: one base for all tests, and what each guest writes over it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::artifacts::Artifacts;
use super::kernel::Kernel;
use super::output_of;
use super::programs::Root;
use crate::guest::{INITTAB, SHUTDOWN};

/// Size of the guest's disk; holes cost nothing.
const SIZE: &str = "8G";

/// Size of a disk for state alone, small enough to be checked hundreds of times.
const STATE_SIZE: &str = "512M";

/// Programs of the host that tests compare with or look at the kernel with.
const TOOLS: [&str; 21] = [
    "/usr/sbin/nft",
    "/usr/bin/ip",
    "/usr/sbin/ip",
    "/usr/bin/bash",
    "/usr/bin/tar",
    "/usr/sbin/mkfs.ext4",
    "/usr/sbin/runc",
    "/usr/bin/crun",
    "/usr/bin/curl",
    "/usr/sbin/criu",
    "/usr/bin/gzip",
    "/usr/bin/perl",
    // busybox has these with fewer options; its modprobe does not wait for a
    // module that another one is loading.
    "/usr/sbin/modprobe",
    "/usr/bin/mount",
    "/usr/bin/newgidmap",
    "/usr/bin/newuidmap",
    "/usr/bin/nsenter",
    "/usr/bin/setpriv",
    "/usr/bin/timeout",
    "/usr/bin/umount",
    "/usr/bin/unshare",
];

/// `/bin` and the like are links into `/usr`, as in every Debian.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Folders that are mount points or have to be there.
const FOLDERS: [&str; 15] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/root",
    "/etc",
    "/mnt",
    "/var/lib",
    "/var/tmp",
    "/usr/local",
    "/usr/share",
    "/home",
    "/opt",
    "/srv",
];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// A disk that one guest at a time may write to. The base image is never
/// changed; the file is kept when the test is over, for a look at it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// An empty qcow2 file over the base image.
    pub(super) fn create(folder: &Path, base: &Path, test: &str) -> Result<Self> {
        let disks = folder.join("disks");
        fs::create_dir_all(&disks).with_context(|| format!("creating {}", disks.display()))?;
        let path = disks.join(format!("{test}.qcow2"));
        output_of(
            "qemu-img",
            &[
                OsStr::new("create"),
                "-q".as_ref(),
                "-f".as_ref(),
                "qcow2".as_ref(),
                "-F".as_ref(),
                "raw".as_ref(),
                "-b".as_ref(),
                base.as_os_str(),
                path.as_os_str(),
            ],
        )?;
        Ok(Self { path })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Puts the guest's root together and makes an ext4 image of it, without a
/// mount or a loop device.
///
/// # Errors
/// Names the file or program that failed.
pub(super) fn build_base_image(
    folder: &Path,
    kernel: &Kernel,
    artifacts: &Artifacts,
) -> Result<PathBuf> {
    let (root, stripped) = (folder.join("root"), folder.join("stripped"));
    let tree = Root::new(&root, &stripped)?;
    lay_out(&tree)?;
    let modules = Path::new("/usr/lib/modules").join(&kernel.release);
    tree.share_folder(&modules, &kernel.modules)?;
    add_artifacts(&tree, artifacts)?;
    tree.forget_unused_copies()?;
    make_image(&root, &folder.join("base.ext4"))
}

/// An ext4 image of a folder; it gets its name when it is complete.
pub(super) fn make_image(root: &Path, image: &Path) -> Result<PathBuf> {
    let partial = image.with_extension("ext4.partial");
    if partial.exists() {
        fs::remove_file(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    output_of(
        "mke2fs",
        &[
            OsStr::new("-q"),
            "-t".as_ref(),
            "ext4".as_ref(),
            "-E".as_ref(),
            "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0".as_ref(),
            "-d".as_ref(),
            root.as_os_str(),
            partial.as_os_str(),
            SIZE.as_ref(),
        ],
    )?;
    fs::rename(&partial, image).with_context(|| format!("naming {}", image.display()))?;
    Ok(image.to_owned())
}

/// An empty ext4 file system, complete from the start: what the kernel would
/// still write to it later belongs to no test.
pub(super) fn make_empty(folder: &Path, test: &str) -> Result<PathBuf> {
    let disks = folder.join("disks");
    fs::create_dir_all(&disks).with_context(|| format!("creating {}", disks.display()))?;
    let image = disks.join(format!("{test}.state.ext4"));
    if image.exists() {
        fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    }
    let complete = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    let (path, inodes) = (image.to_string_lossy(), "16384");
    output_of(
        "mke2fs",
        &[
            "-q", "-t", "ext4", "-E", complete, "-N", inodes, &*path, STATE_SIZE,
        ],
    )?;
    Ok(image)
}

/// Folders, accounts, busybox and the tools: a small Debian.
fn lay_out(tree: &Root<'_>) -> Result<()> {
    for name in MERGED {
        tree.folder(&format!("/usr/{name}"))?;
        tree.link(name, format!("usr/{name}"))?;
    }
    for path in FOLDERS {
        tree.folder(path)?;
    }
    let mut known = BTreeSet::new();
    for program in TOOLS {
        tree.program_of_host(program, &mut known)?;
    }
    tree.share("/usr/bin/busybox", Path::new("/usr/bin/busybox"))?;
    for path in output_of("busybox", &["--list-full"])?.lines() {
        let path = merged(path);
        // A tool of the host wins over busybox's smaller one.
        if path != Path::new("/usr/bin/busybox") && !known.contains(&path) {
            tree.link(&path, "/usr/bin/busybox")?;
        }
    }
    for (path, content) in [
        ("/etc/inittab", INITTAB),
        ("/etc/passwd", PASSWD),
        ("/etc/group", GROUP),
        ("/etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n"),
        ("/etc/hostname", "vm\n"),
        ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
        (
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
    ] {
        tree.file(path, 0o644, content.as_bytes())?;
    }
    tree.file(
        "/etc/shadow",
        0o640,
        b"root:*:20000::::::\nnobody:*:20000::::::\n",
    )?;
    // On the disk, as Debian has it: device nodes and overlays work there.
    tree.folder_with_mode("/tmp", 0o1777)?;
    tree.folder_with_mode("/var/tmp", 0o1777)?;
    tree.file("/etc/shutdown", 0o755, SHUTDOWN.as_bytes())?;
    Ok(())
}

/// `sbin/ip` → `/usr/sbin/ip`, `usr/bin/awk` → `/usr/bin/awk`, `linuxrc` → `/linuxrc`.
fn merged(applet: &str) -> PathBuf {
    let first = applet.split('/').next().unwrap_or_default();
    let prefix = if MERGED.contains(&first) { "/usr" } else { "/" };
    Path::new(prefix).join(applet)
}

/// Our programs in `/usr/bin`, and, for tests that name them by the path that
/// cargo compiled in, links at the same place as on the host.
fn add_artifacts(tree: &Root<'_>, artifacts: &Artifacts) -> Result<()> {
    for (name, program) in &artifacts.programs {
        let folder = if name == "dyno-vm-guest" {
            "/usr/sbin"
        } else {
            "/usr/bin"
        };
        let installed = format!("{folder}/{name}");
        tree.stripped(&installed, &program.file)?;
        tree.link(&program.sought, &installed)?;
    }
    for test in &artifacts.tests {
        tree.stripped(&test.path.to_string_lossy(), &test.path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_land_under_usr() {
        assert_eq!(merged("bin/sh"), Path::new("/usr/bin/sh"));
        assert_eq!(merged("sbin/ip"), Path::new("/usr/sbin/ip"));
        assert_eq!(merged("usr/bin/awk"), Path::new("/usr/bin/awk"));
        assert_eq!(merged("linuxrc"), Path::new("/linuxrc"));
    }
}
