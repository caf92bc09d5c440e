//! Makes the booted kernel a machine that a host can run on.
//!
//! It does what systemd does on an ordinary server: API file systems, shared
//! mount propagation, one cgroup v2 tree with its controllers enabled.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// A file system to mount: source and type, target, flags, options.
struct ApiMount(&'static str, &'static str, MountFlags, &'static str);

const NOTHING: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

const API_MOUNTS: [ApiMount; 6] = [
    ApiMount("proc", "/proc", NOTHING, ""),
    ApiMount("sysfs", "/sys", NOTHING, ""),
    ApiMount(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID,
        "gid=5,mode=620,ptmxmode=666",
    ),
    ApiMount("tmpfs", "/dev/shm", MountFlags::NOSUID, "mode=1777"),
    ApiMount(
        "tmpfs",
        "/run",
        MountFlags::NOSUID.union(MountFlags::NODEV),
        "mode=755",
    ),
    ApiMount(
        "cgroup2",
        "/sys/fs/cgroup",
        NOTHING,
        "nsdelegate,memory_recursiveprot",
    ),
];

/// Sets the machine up; the initramfs has already mounted `/` and `/dev`.
///
/// # Errors
/// Names the step that failed.
pub(super) fn machine() -> Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::SHARED.union(MountPropagationFlags::REC),
    )
    .context("making the mounts shared")?;
    for ApiMount(kind, target, flags, options) in API_MOUNTS {
        if target.starts_with("/dev/") {
            fs::create_dir_all(target).with_context(|| format!("creating {target}"))?;
        }
        let options = std::ffi::CString::new(options).context("mount options")?;
        mount(kind, target, kind, flags, Some(options.as_c_str()))
            .with_context(|| format!("mounting {kind} on {target}"))?;
    }
    enable_controllers()?;
    rustix::system::sethostname(b"vm").context("setting the host name")?;
    let status = Command::new("/sbin/ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("executing ip")?;
    ensure!(status.success(), "ip link set lo up: {status}");
    Ok(())
}

/// Hands every controller of the root cgroup to its children.
fn enable_controllers() -> Result<()> {
    let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("reading cgroup.controllers")?;
    for controller in available.split_whitespace() {
        rustix::fs::open(
            "/sys/fs/cgroup/cgroup.subtree_control",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .and_then(|file| rustix::io::write(file, format!("+{controller}").as_bytes()))
        .with_context(|| format!("enabling the {controller} controller"))?;
    }
    Ok(())
}
