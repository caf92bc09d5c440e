//! The first root: loads the drivers of disk and port, then hands over.
//!
//! A root in memory is not enough: `pivot_root(2)` refuses to leave an
//! initramfs, and pivoting is what a container runtime does.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernel::Kernel;

/// What the machine needs before it has a root; dependencies come by themselves.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// The `/init` of the initramfs; `@MODULES@` becomes the paths to load in order.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
fail() { echo "initramfs: $1"; $b poweroff -f; }
$b mount -t devtmpfs dev /dev || fail "mounting /dev"
for module in @MODULES@; do
    $b insmod "/modules/$module" || fail "loading $module"
done
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || fail "no disk"
    $b usleep 50000
done
$b mount -t ext4 /dev/vda /newroot || fail "mounting the disk"
$b mount -o move /dev /newroot/dev || fail "moving /dev"
exec $b switch_root -c /dev/console /newroot /sbin/init
"#;

/// Writes the archive.
///
/// # Errors
/// When a module or busybox is missing.
pub(super) fn write(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "modules", "newroot"] {
        archive.folder(name);
    }
    archive.file("bin/busybox", 0o755, &read(Path::new("/usr/bin/busybox"))?);
    let mut names = Vec::new();
    for path in in_loading_order(kernel)? {
        let name = file_name(&path).to_owned();
        archive.file(
            &format!("modules/{name}"),
            0o644,
            &read(&kernel.modules.join(&path))?,
        );
        names.push(name);
    }
    archive.file(
        "init",
        0o755,
        INIT.replace("@MODULES@", &names.join(" ")).as_bytes(),
    );
    let path = folder.join("initramfs.cpio");
    super::replace_file(&path, &archive.finish())?;
    Ok(path)
}

/// Paths of [`MODULES`] and all they depend on, dependencies first.
fn in_loading_order(kernel: &Kernel) -> Result<Vec<String>> {
    let index = kernel.modules.join("modules.dep");
    let text = String::from_utf8(read(&index)?).context("reading modules.dep")?;
    let builtin = String::from_utf8(read(&kernel.modules.join("modules.builtin"))?)
        .context("reading modules.builtin")?;
    order(&text, &builtin, &MODULES)
}

/// `modules.dep` lists, after each module, all that it needs, nearest first.
fn order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let index: HashMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs)))
        .collect();
    let mut ordered: Vec<String> = Vec::new();
    for name in wanted {
        if builtin.lines().any(|path| module_name(path) == *name) {
            continue;
        }
        let (path, needs) = index
            .get(*name)
            .with_context(|| format!("this kernel has no module {name}"))?;
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !ordered.iter().any(|known| known == path) {
                ordered.push(path.to_owned());
            }
        }
    }
    Ok(ordered)
}

/// `kernel/fs/ext4/ext4.ko` → `ext4`.
fn module_name(path: &str) -> String {
    let name = file_name(path);
    name.split_once(".ko")
        .map_or(name, |(stem, _)| stem)
        .replace('-', "_")
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_load_first_and_once() {
        let dep = "kernel/a/virtio-pci.ko: kernel/a/virtio.ko kernel/a/ring.ko\n\
                   kernel/b/blk.ko: kernel/a/virtio.ko kernel/a/ring.ko\n\
                   kernel/a/virtio.ko: kernel/a/ring.ko\n\
                   kernel/a/ring.ko:\n";
        let ordered = order(
            dep,
            "kernel/fs/ext4/ext4.ko\n",
            &["virtio_pci", "blk", "ext4"],
        );
        let expected = [
            "kernel/a/ring.ko",
            "kernel/a/virtio.ko",
            "kernel/a/virtio-pci.ko",
            "kernel/b/blk.ko",
        ];
        assert_eq!(ordered.unwrap(), expected);
        assert!(order(dep, "", &["absent"]).is_err());
    }
}
