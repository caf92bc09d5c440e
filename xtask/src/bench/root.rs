//! The root file system of every contestant: one static busybox, and what floods a log.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::programs;
use super::stage::done;

/// Where Debian's busybox-static puts its program.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// What a larger image is made of: much text, some programs, many small files.
const TREE: [&str; 4] = [
    "usr/share/doc",
    "usr/share/perl",
    "usr/share/zoneinfo",
    "usr/sbin",
];

/// An archive that is large enough to measure unpacking.
pub(super) struct Tree {
    pub(super) archive: PathBuf,
    pub(super) megabytes: u64,
    pub(super) files: usize,
}

/// A folder with the bench's files, removed at its end.
pub(super) struct Root {
    folder: PathBuf,
}

impl Root {
    /// Makes the root, an OCI bundle around it and an archive of it.
    pub(super) fn make() -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/dyno-bench-{}", std::process::id()));
        DirBuilder::new().mode(0o711).create(&folder)?;
        let root = Self { folder };
        root.populate()?;
        root.bundle()?;
        done(
            Command::new("tar")
                .arg("-C")
                .arg(root.rootfs())
                .arg("-cf")
                .arg(root.archive())
                .arg("."),
        )?;
        Ok(root)
    }

    /// Room for the contestants' own state.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The archive of the root file system.
    pub(super) fn archive(&self) -> PathBuf {
        self.folder.join("rootfs.tar")
    }

    /// The OCI bundle that runs `/bin/true`.
    pub(super) fn bundle_folder(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    /// The same bundle with this seccomp profile.
    pub(super) fn filtered(&self, profile: &Value) -> Result<PathBuf> {
        self.variant("filtered", |config| {
            config["linux"]["seccomp"] = profile.clone();
        })
    }

    /// The same bundle with a program that stays.
    pub(super) fn waiting(&self) -> Result<PathBuf> {
        self.variant("waiting", |config| {
            config["process"]["args"] = json!(["/bin/sleep", "600"]);
        })
    }

    /// Another bundle around the same root.
    fn variant(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let bundle = self.folder.join(name);
        std::fs::create_dir(&bundle)?;
        let plain = File::open(self.bundle_folder().join("config.json"))?;
        let mut config: Value = serde_json::from_reader(plain)?;
        config["root"]["path"] = json!(self.rootfs());
        change(&mut config);
        write(
            &bundle.join("config.json"),
            &serde_json::to_vec_pretty(&config)?,
        )?;
        Ok(bundle)
    }

    /// An archive of some of this machine's files.
    pub(super) fn tree(&self) -> Result<Tree> {
        let archive = self.folder.join("tree.tar");
        if !archive.exists() {
            done(
                Command::new("tar")
                    .args(["-C", "/", "-cf"])
                    .arg(&archive)
                    .args(TREE),
            )?;
        }
        let listing = done(Command::new("tar").arg("-tf").arg(&archive))?;
        let megabytes = std::fs::metadata(&archive)?.len() / 1_000_000;
        Ok(Tree {
            archive,
            megabytes,
            files: listing.lines().count(),
        })
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.bundle_folder().join("rootfs")
    }

    fn populate(&self) -> Result<()> {
        let rootfs = self.rootfs();
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(folder))?;
        }
        let busybox = BUSYBOX.iter().find(|path| Path::new(path).exists());
        let busybox = busybox.context("no busybox: apt-get install busybox-static")?;
        std::fs::copy(busybox, rootfs.join("bin/busybox"))?;
        for applet in ["true", "sh", "sleep"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        let flood = programs::build(&self.folder, programs::FLOOD)?;
        std::fs::copy(flood, rootfs.join("bin/flood"))?;
        write(&rootfs.join("etc/passwd"), b"root:x:0:0:root:/:/bin/sh\n")?;
        write(&rootfs.join("etc/group"), b"root:x:0:\n")
    }

    /// runc's own default configuration, with another program and no terminal:
    /// empty network namespace, private pid, mount, ipc and uts namespaces.
    fn bundle(&self) -> Result<()> {
        let bundle = self.bundle_folder();
        done(
            Command::new("runc")
                .arg("spec")
                .arg("--bundle")
                .arg(&bundle),
        )?;
        let path = bundle.join("config.json");
        let mut config: Value = serde_json::from_reader(File::open(&path)?)?;
        config["process"]["args"] = json!(["/bin/true"]);
        config["process"]["terminal"] = false.into();
        write(&path, &serde_json::to_vec_pretty(&config)?)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("bench: {} stays: {error}", self.folder.display());
        }
    }
}

/// Writes a file that everybody may read.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(())
}
