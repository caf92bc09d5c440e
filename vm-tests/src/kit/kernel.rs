//! Debian's cloud kernel: found by its metapackage, fetched, unpacked, not installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::output_of;

/// Depends on the newest kernel for cloud machines: small, with virtio.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel unpacked under `target/vm`.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` will say.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    /// The folder `lib/modules/<release>` with an index by depmod(8).
    pub(super) modules: PathBuf,
}

/// The kernel that the metapackage names; fetched if it is not yet here.
///
/// # Errors
/// Names the step that failed and what to try.
pub(super) fn fetch(folder: &Path) -> Result<Kernel> {
    let kernels = folder.join("kernel");
    fs::create_dir_all(&kernels).with_context(|| format!("creating {}", kernels.display()))?;
    let release = fetch_release(&kernels).or_else(|error| {
        // The package lists may never have been fetched, or name what is gone.
        eprintln!("fetching the package lists, since: {error:#}");
        output_of("apt-get", &["update", "-q"])
            .and_then(|_lists| fetch_release(&kernels))
            .or_else(|error| {
                let kept = kept_release(&kernels)?.ok_or(error)?;
                eprintln!("going on with the kernel {kept} that was fetched before");
                Ok::<_, anyhow::Error>(kept)
            })
    })?;
    let root = kernels.join(&release);
    Ok(Kernel {
        vmlinuz: root.join(format!("boot/vmlinuz-{release}")),
        modules: root.join("lib/modules").join(&release),
        release,
    })
}

/// The release that is now unpacked under `kernels`.
fn fetch_release(kernels: &Path) -> Result<String> {
    let package = resolve()?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    if !kernels.join(&release).exists() {
        download_and_unpack(kernels, &package, &release)?;
    }
    Ok(release)
}

/// A release of an earlier run: enough for a machine without a network.
fn kept_release(kernels: &Path) -> Result<Option<String>> {
    let reading = || format!("reading {}", kernels.display());
    let mut newest = None;
    for entry in fs::read_dir(kernels).with_context(reading)? {
        let name = entry
            .with_context(reading)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !name.ends_with(".partial") {
            newest = newest.max(Some(name));
        }
    }
    Ok(newest)
}

/// `linux-image-6.1.0-56-cloud-amd64`, from the dependencies of the metapackage.
fn resolve() -> Result<String> {
    let depends = output_of("apt-cache", &["depends", "--important", METAPACKAGE])?;
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "apt knows no kernel behind {METAPACKAGE}; is a Debian archive in sources.list?"
            )
        })
}

/// The folder gets its final name only when it is complete.
fn download_and_unpack(kernels: &Path, package: &str, release: &str) -> Result<()> {
    let partial = kernels.join(format!("{release}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    eprintln!("fetching {package}");
    let status = Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root", package])
        .current_dir(&partial)
        .stdout(std::io::stderr())
        .status()
        .context("executing apt-get")?;
    ensure!(
        status.success(),
        "could not fetch {package}; try: apt-get update"
    );
    let archive = fs::read_dir(&partial)
        .with_context(|| format!("reading {}", partial.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no archive"))?;
    output_of("dpkg-deb", &[Path::new("-x"), &archive, &partial])?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    output_of(
        "depmod",
        &["-b".as_ref(), partial.as_os_str(), release.as_ref()],
    )?;
    // Debian's vmlinuz is readable by all, its System.map is not; we need neither secret.
    let vmlinuz = partial.join(format!("boot/vmlinuz-{release}"));
    fs::set_permissions(&vmlinuz, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("no kernel in {package}: {}", vmlinuz.display()))?;
    let complete = kernels.join(release);
    fs::rename(&partial, &complete).with_context(|| format!("naming {}", complete.display()))
}
