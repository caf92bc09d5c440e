//! Mounts: `-v SOURCE:/path[:ro]` and `--tmpfs /path[:size=64m]`.

use std::path::{Component, Path, PathBuf};

use dyno_api::dyno::Mount;
use dyno_api::name::NameError;

use super::size::{self, SizeError};

/// Why a text is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    #[error("accepted are volume:/path[:ro] and /host/path:/path[:ro]")]
    Syntax,
    #[error("{0:?} is not an absolute path inside the dyno")]
    Target(String),
    #[error("{0:?} is not a mount option; accepted are ro and rw")]
    Option(String),
    #[error("{name:?} is neither a path, which begins with / or ., nor a volume's name: {source}")]
    Volume { name: String, source: NameError },
    #[error("{0:?} is not a tmpfs option; accepted is size=, such as /tmp:size=64m")]
    TmpfsOption(String),
    #[error("tmpfs size {text:?}: {source}")]
    TmpfsSize { text: String, source: SizeError },
}

/// A volume or a path of the host. A relative path stays relative: [`absolute`].
pub(crate) fn parse_volume(text: &str) -> Result<Mount, MountError> {
    let mut parts = text.split(':');
    let (source, target) = match (parts.next(), parts.next()) {
        (Some(source), Some(target)) if !source.is_empty() => (source, target_path(target)?),
        _ => return Err(MountError::Syntax),
    };
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        (Some(option), None) => return Err(MountError::Option(option.to_owned())),
        _ => return Err(MountError::Syntax),
    };
    if source.starts_with(['/', '.']) {
        return Ok(Mount::Bind {
            source: source.to_owned(),
            target,
            read_only,
        });
    }
    let name = source.parse().map_err(|error| MountError::Volume {
        name: source.to_owned(),
        source: error,
    })?;
    Ok(Mount::Volume {
        name,
        target,
        read_only,
    })
}

/// A file system in memory.
pub(crate) fn parse_tmpfs(text: &str) -> Result<Mount, MountError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = target_path(target)?;
    let mut size_bytes = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let text = option
            .strip_prefix("size=")
            .ok_or_else(|| MountError::TmpfsOption(option.to_owned()))?;
        let bytes = size::parse(text).map_err(|source| MountError::TmpfsSize {
            text: text.to_owned(),
            source,
        })?;
        size_bytes = Some(bytes);
    }
    Ok(Mount::Tmpfs { target, size_bytes })
}

/// An absolute path inside a dyno.
pub(crate) fn target_path(target: &str) -> Result<String, MountError> {
    let climbs = Path::new(target)
        .components()
        .any(|part| part == Component::ParentDir);
    if target.starts_with('/') && !climbs {
        Ok(target.to_owned())
    } else {
        Err(MountError::Target(target.to_owned()))
    }
}

/// The mount with its host path made absolute, seen from `cwd`.
pub(crate) fn absolute(mount: Mount, cwd: &Path) -> Mount {
    match mount {
        Mount::Bind {
            source,
            target,
            read_only,
        } => {
            let source = normal(&cwd.join(source)).to_string_lossy().into_owned();
            Mount::Bind {
                source,
                target,
                read_only,
            }
        }
        other => other,
    }
}

/// The path without `.` and `..` steps, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            // At the root there is nothing to pop, as for the kernel.
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bind(source: &str, target: &str, read_only: bool) -> Mount {
        Mount::Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        }
    }

    #[test]
    fn a_name_is_a_volume_and_a_path_is_the_hosts() {
        let volume = |read_only| Mount::Volume {
            name: "data".parse().unwrap(),
            target: "/var/lib/db".to_owned(),
            read_only,
        };
        assert_eq!(parse_volume("data:/var/lib/db"), Ok(volume(false)));
        assert_eq!(parse_volume("data:/var/lib/db:rw"), Ok(volume(false)));
        assert_eq!(parse_volume("data:/var/lib/db:ro"), Ok(volume(true)));
        assert_eq!(
            parse_volume("/srv:/data:ro"),
            Ok(bind("/srv", "/data", true))
        );
        assert_eq!(parse_volume("./x:/data"), Ok(bind("./x", "/data", false)));
    }

    #[test]
    fn a_relative_path_is_seen_from_the_working_directory() {
        let cwd = Path::new("/home/ada");
        let seen = |text: &str| absolute(parse_volume(text).unwrap(), cwd);
        assert_eq!(seen("./x:/data"), bind("/home/ada/x", "/data", false));
        assert_eq!(seen("..:/data"), bind("/home", "/data", false));
        assert_eq!(seen("../../../x:/data"), bind("/x", "/data", false));
        assert_eq!(seen("/srv:/data"), bind("/srv", "/data", false));
    }

    #[test]
    fn what_is_no_mount_is_refused_by_name() {
        for bad in ["", "data", "/data", ":/data", "a:/b:ro:x"] {
            assert_eq!(parse_volume(bad), Err(MountError::Syntax), "{bad:?}");
        }
        assert_eq!(
            parse_volume("data:x"),
            Err(MountError::Target("x".to_owned()))
        );
        assert_eq!(
            parse_volume("data:/a/../b"),
            Err(MountError::Target("/a/../b".to_owned()))
        );
        assert_eq!(
            parse_volume("data:/x:z"),
            Err(MountError::Option("z".to_owned()))
        );
        assert!(matches!(
            parse_volume("My_Data:/x"),
            Err(MountError::Volume { .. })
        ));
    }

    #[test]
    fn a_tmpfs_has_a_path_and_maybe_a_size() {
        let tmpfs = |size_bytes| Mount::Tmpfs {
            target: "/scratch".to_owned(),
            size_bytes,
        };
        assert_eq!(parse_tmpfs("/scratch"), Ok(tmpfs(None)));
        assert_eq!(parse_tmpfs("/scratch:size=64m"), Ok(tmpfs(Some(64 << 20))));
        assert_eq!(
            parse_tmpfs("scratch"),
            Err(MountError::Target("scratch".to_owned()))
        );
        assert_eq!(
            parse_tmpfs("/x:mode=1"),
            Err(MountError::TmpfsOption("mode=1".to_owned()))
        );
        assert!(matches!(
            parse_tmpfs("/x:size=big"),
            Err(MountError::TmpfsSize { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[a-z/.:=,0-9]{0,24}") {
            drop(parse_tmpfs(&text));
            if let Ok(Mount::Bind { source, .. }) =
                parse_volume(&text).map(|mount| absolute(mount, Path::new("/w")))
            {
                prop_assert!(source.starts_with('/') && !source.contains("/../"), "{source}");
            }
        }
    }
}
