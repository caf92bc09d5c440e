//! Makes the booted kernel a machine that a host can run on.
//!
//! It does what systemd does on an ordinary server: API file systems, shared
//! mount propagation, one cgroup v2 tree with its controllers enabled.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// How long the kernel may take to find a disk.
const DISK_FOUND: Duration = Duration::from_secs(30);

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
    if super::asked_for(super::STATE_ON_DISK)? {
        mount_state()?;
    }
    make_static_nodes()?;
    enable_controllers()?;
    rustix::system::sethostname(b"vm").context("setting the host name")?;
    let status = Command::new("/sbin/ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("executing ip")?;
    ensure!(status.success(), "ip link set lo up: {status}");
    Ok(())
}

/// The second disk, which the kernel may find later than the first.
fn mount_state() -> Result<()> {
    let (disk, target) = ("/dev/vdb", "/var/lib/dyno");
    let deadline = Instant::now() + DISK_FOUND;
    while !Path::new(disk).exists() {
        ensure!(Instant::now() < deadline, "no {disk}");
        thread::sleep(Duration::from_millis(10));
    }
    fs::create_dir_all(target).with_context(|| format!("creating {target}"))?;
    mount(disk, target, "ext4", MountFlags::empty(), None)
        .with_context(|| format!("mounting {disk} on {target}"))
}

/// Makes the device files through which modules load on first use: `/dev/net/tun`,
/// `/dev/loop-control`, …, as `kmod static-nodes` does.
fn make_static_nodes() -> Result<()> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let path = format!("/lib/modules/{release}/modules.devname");
    let listed = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        let invalid = || format!("{path}: {line:?}");
        // loop loop-control c10:237
        let [_, name, device] = line.split(' ').collect::<Vec<_>>()[..] else {
            bail!(invalid());
        };
        let (major, minor) = device
            .get(1..)
            .and_then(|id| id.split_once(':'))
            .with_context(invalid)?;
        let kind = match device.as_bytes()[0] {
            b'b' => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let node = Path::new("/dev").join(name);
        if let Some(folder) = node.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let device = makedev(major.parse()?, minor.parse()?);
        match mknodat(CWD, &node, kind, Mode::from_raw_mode(0o600), device) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("creating {}", node.display()));
            }
        }
    }
    Ok(())
}

/// Hands every controller of the root cgroup to its children.
fn enable_controllers() -> Result<()> {
    let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("reading cgroup.controllers")?;
    for controller in available.split_whitespace() {
        rustix::fs::open(
            "/sys/fs/cgroup/cgroup.subtree_control",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|file| rustix::io::write(file, format!("+{controller}").as_bytes()))
        .with_context(|| format!("enabling the {controller} controller"))?;
    }
    Ok(())
}
