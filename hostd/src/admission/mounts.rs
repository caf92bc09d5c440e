//! Mounts and devices that a request may ask for.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use dyno_api::dyno::{DynoSpec, Mount};
use dyno_api::error::{ApiError, ErrorKind};

use super::invalid;
use crate::durable::from_io;
use crate::paths::Paths;

/// What a dyno's own mounts stand on; nothing may be mounted over these.
pub(super) const RESERVED: [&str; 6] = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/sys/fs/cgroup"];

/// The kernel's own views of the whole machine: a dyno gets its own instead.
const FORBIDDEN_SOURCES: [&str; 4] = ["/", "/proc", "/sys", "/dev"];

/// A device file of the host, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path inside the dyno.
    pub target: String,
    /// A block rather than a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `r`, `w`, `m`.
    pub access: String,
}

pub(super) fn check(spec: &DynoSpec, paths: &Paths) -> Result<(), ApiError> {
    let mut targets: Vec<&str> = Vec::new();
    for mount in &spec.mounts {
        let target = target(mount);
        check_path("mount target", target)?;
        if RESERVED
            .iter()
            .any(|reserved| Path::new(reserved) == Path::new(target))
        {
            return Err(invalid(format!("nothing can be mounted on {target}")));
        }
        if targets
            .iter()
            .any(|other| Path::new(other) == Path::new(target))
        {
            return Err(invalid(format!("two mounts on {target}")));
        }
        targets.push(target);
        if let Mount::Bind { source, .. } = mount {
            check_source(source, paths)?;
        }
        if let Mount::Tmpfs {
            size_bytes: Some(0),
            ..
        } = mount
        {
            return Err(invalid(format!("a tmpfs of 0 bytes on {target}")));
        }
    }
    for device in &spec.devices {
        check_path("device", &device.source)?;
        if let Some(target) = &device.target {
            check_path("device", target)?;
        }
        let access = device.access.as_deref().unwrap_or("rw");
        if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
            return Err(invalid(format!("{access:?} is not an access to a device"))
                .hint("use r, w, m in any combination"));
        }
    }
    Ok(())
}

pub(super) fn target(mount: &Mount) -> &str {
    match mount {
        Mount::Volume { target, .. } | Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => {
            target
        }
    }
}

pub(super) fn check_path(what: &str, path: &str) -> Result<(), ApiError> {
    let odd = !path.starts_with('/')
        || path.contains('\0')
        || path.len() >= 4096
        || Path::new(path)
            .components()
            .any(|part| part == Component::ParentDir);
    if odd {
        return Err(invalid(format!(
            "the {what} {path:?} is not an absolute path without `..`"
        )));
    }
    Ok(())
}

/// P1: a dyno never sees the store it is made of, nor the sockets that make dynos.
fn check_source(source: &str, paths: &Paths) -> Result<(), ApiError> {
    check_path("bind source", source)?;
    let real = PathBuf::from(source);
    refuse_own(&real, paths)
}

fn refuse_own(source: &Path, paths: &Paths) -> Result<(), ApiError> {
    let forbidden = |message: String| Err(ApiError::new(ErrorKind::Forbidden, message));
    if FORBIDDEN_SOURCES
        .iter()
        .any(|root| Path::new(root) == source)
    {
        return forbidden(format!(
            "{} of the host cannot be bound into a dyno",
            source.display()
        ));
    }
    for own in [&paths.state_dir, &paths.run_dir] {
        if source.starts_with(own) || own.starts_with(source) {
            return forbidden(format!(
                "{} cannot be bound into a dyno: hostd keeps its state in {}",
                source.display(),
                own.display()
            ));
        }
    }
    Ok(())
}

/// The bind sources as they are on the host now: they exist, and no link
/// leads from them into hostd's own folders.
///
/// # Errors
/// Invalid for a missing one, Forbidden for hostd's own.
pub fn check_sources(spec: &DynoSpec, paths: &Paths) -> Result<(), ApiError> {
    for mount in &spec.mounts {
        let Mount::Bind { source, .. } = mount else {
            continue;
        };
        match fs::canonicalize(source) {
            Ok(real) => refuse_own(&real, paths)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(invalid(format!(
                    "the bind source {source} does not exist on this host"
                ))
                .hint("make it first, or use a named volume"));
            }
            Err(error) => {
                return Err(from_io(
                    &format!("cannot look at the bind source {source}"),
                    &error,
                ));
            }
        }
    }
    Ok(())
}

/// The devices that a request names, as the host has them now.
///
/// # Errors
/// Invalid when one is missing or no device.
pub fn devices(spec: &DynoSpec) -> Result<Vec<DeviceNode>, ApiError> {
    let node = |device: &dyno_api::dyno::Device| {
        let source = &device.source;
        let meta = fs::metadata(source)
            .map_err(|error| invalid(format!("cannot use the device {source}: {error}")))?;
        let kind = meta.file_type();
        if !kind.is_block_device() && !kind.is_char_device() {
            return Err(invalid(format!("{source} is not a device")));
        }
        Ok(DeviceNode {
            target: device.target.clone().unwrap_or_else(|| source.clone()),
            block: kind.is_block_device(),
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
            access: device.access.clone().unwrap_or_else(|| "rw".to_owned()),
        })
    };
    spec.devices.iter().map(node).collect()
}

/// Whether the file system under `path` can be idmapped (mount_setattr(2)):
/// its owner then shows inside as the dyno's own user. Where it cannot, the
/// files are there and belong to nobody.
pub fn idmappable(path: &Path) -> bool {
    // EXT4, XFS, BTRFS, F2FS, EROFS, tmpfs (since 6.3).
    const MAGIC: [u64; 6] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0xF2F5_2010,
        0xE0F5_E1E2,
        0x0102_1994,
    ];
    match rustix::fs::statfs(path) {
        Ok(found) => MAGIC
            .iter()
            .any(|magic| u64::try_from(found.f_type) == Ok(*magic)),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::Device;

    use super::*;
    use crate::admission::tests::paths;

    fn bind(source: &str, target: &str) -> DynoSpec {
        let mount = Mount::Bind {
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        DynoSpec {
            mounts: vec![mount],
            ..DynoSpec::default()
        }
    }

    #[test]
    fn a_dyno_never_sees_hostds_own_folders() {
        for source in [
            "/var/lib/dyno",
            "/var/lib/dyno/images",
            "/var/lib",
            "/run/dyno",
            "/",
            "/proc",
            "/var/lib/../lib/dyno",
        ] {
            assert!(check(&bind(source, "/x"), &paths()).is_err(), "{source}");
        }
        assert_eq!(check(&bind("/srv", "/x"), &paths()), Ok(()));
    }

    #[test]
    fn a_link_to_hostds_own_folders_is_no_way_around() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        let paths = Paths {
            state_dir: fs::canonicalize(&state).unwrap(),
            run_dir: "/run/dyno".into(),
        };
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let spec = bind(link.to_str().unwrap(), "/x");
        assert_eq!(
            check_sources(&spec, &paths).unwrap_err().kind,
            ErrorKind::Forbidden
        );
        let missing = bind("/nonexistent/folder", "/x");
        assert_eq!(
            check_sources(&missing, &paths).unwrap_err().kind,
            ErrorKind::Invalid
        );
    }

    #[test]
    fn targets_are_absolute_distinct_and_not_the_dynos_own() {
        for target in ["x", "/a/../b", "/proc", "/", "//", "/dev/", ""] {
            assert!(check(&bind("/srv", target), &paths()).is_err(), "{target}");
        }
        let mut spec = bind("/srv", "/x");
        spec.mounts.push(Mount::Tmpfs {
            target: "/x/".into(),
            size_bytes: None,
        });
        assert!(check(&spec, &paths()).is_err());
    }

    #[test]
    fn only_devices_are_devices() {
        let device = |source: &str| DynoSpec {
            devices: vec![Device {
                source: source.into(),
                target: None,
                access: None,
            }],
            ..DynoSpec::default()
        };
        let found = devices(&device("/dev/null")).unwrap();
        assert_eq!(
            (found[0].major, found[0].minor, found[0].block),
            (1, 3, false)
        );
        assert!(devices(&device("/etc/passwd")).is_err());
        assert!(devices(&device("/dev/nonexistent")).is_err());
    }
}
