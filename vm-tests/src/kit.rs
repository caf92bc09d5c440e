//! Everything a virtual machine boots from, made or fetched under `target/vm`.
//!
//! ```text
//! target/vm/kernel/<release>/{vmlinuz,root/}   Debian's cloud kernel, kept
//! target/vm/initramfs.cpio                     busybox, modules, /init
//! target/vm/stripped/                          our binaries without symbols, kept
//! target/vm/root/                              the folder the disk image is made of
//! target/vm/base.ext4                          the disk image, never written by a guest
//! target/vm/debian/, systemd.ext4              a Debian with systemd, kept, and its disk image
//! target/vm/disks/<test>.qcow2                 what a guest has written over it
//! target/vm/logs/<test>.console                what a guest said on its console
//! ```

mod artifacts;
mod cpio;
mod debian;
mod disk;
mod initramfs;
mod kernel;
mod packages;
mod programs;

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use self::kernel::Kernel;

pub use artifacts::{Artifacts, Program, TestBinary};
pub use disk::Disk;

/// What virtual machines boot from.
#[derive(Debug)]
pub struct Kit {
    folder: PathBuf,
    kernel: Kernel,
    initramfs: PathBuf,
    base_image: PathBuf,
    /// Made when it is first asked for: it takes a minute, and few scenarios need it.
    systemd_image: Mutex<Option<PathBuf>>,
    /// The programs and test executables that are on the disk image.
    pub artifacts: Artifacts,
    /// Held as long as machines may run: another run would replace their disks.
    _lock: File,
}

impl Kit {
    /// Makes or fetches whatever is missing and builds a disk image with
    /// today's binaries.
    ///
    /// # Errors
    /// Names what is missing and how to get it.
    pub fn prepare() -> Result<Self> {
        packages::install_missing()?;
        let artifacts = Artifacts::build()?;
        let folder = artifacts.target_dir.join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let lock = lock(&folder)?;
        let kernel = kernel::fetch(&folder)?;
        let initramfs = initramfs::write(&folder, &kernel)?;
        let base_image = disk::build_base_image(&folder, &kernel, &artifacts)?;
        Ok(Self {
            folder,
            kernel,
            initramfs,
            base_image,
            systemd_image: Mutex::default(),
            artifacts,
            _lock: lock,
        })
    }

    /// The kernel image.
    #[must_use]
    pub fn vmlinuz(&self) -> &Path {
        &self.kernel.vmlinuz
    }

    /// The initial file system.
    #[must_use]
    pub fn initramfs(&self) -> &Path {
        &self.initramfs
    }

    /// A fresh disk for one test; an older one of the same name is replaced.
    ///
    /// # Errors
    /// When `qemu-img` fails.
    pub fn new_disk(&self, test: &str) -> Result<Disk> {
        Disk::create(&self.folder, &self.base_image, test)
    }

    /// A fresh disk of a machine that systemd runs.
    ///
    /// # Errors
    /// When its image cannot be made.
    pub fn new_systemd_disk(&self, test: &str) -> Result<Disk> {
        let mut image = self
            .systemd_image
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let base = match &*image {
            Some(made) => made,
            None => image.insert(debian::build_image(
                &self.folder,
                &self.kernel,
                &self.artifacts,
            )?),
        };
        Disk::create(&self.folder, base, test)
    }

    /// An empty file system in a raw image, for what a host keeps.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_state_image(&self, test: &str) -> Result<PathBuf> {
        disk::make_empty(&self.folder, test)
    }

    /// Where the console of `test` is kept.
    ///
    /// # Errors
    /// When the folder of logs cannot be made.
    pub fn console_log(&self, test: &str) -> Result<PathBuf> {
        let logs = self.folder.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        Ok(logs.join(format!("{test}.console")))
    }
}

/// One run at a time: the others wait.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another run of the tests in virtual machines");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    locked.with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output_of<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("executing {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {:?}: {}\n{}",
        arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout).with_context(|| format!("reading what {program} printed"))
}

/// Writes a file under another name, then gives it its own: whoever reads it
/// sees the old content or the new, and hard links to the old are not changed.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let mut file =
        File::create(&partial).with_context(|| format!("creating {}", partial.display()))?;
    std::io::Write::write_all(&mut file, content)
        .with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("naming {}", path.display()))
}
