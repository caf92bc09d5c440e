//! Volumes of an app and mounts of its services (Compose Specification, volumes, tmpfs).

use dyno_api::dyno::Mount;

use super::super::document::{Fields, Item, Value};
use super::super::volumes::Volumes;
use super::{Scope, only};
use crate::value::mount::{self, MountError};
use crate::value::size;

/// Options of a mount that are for other systems: labels of SELinux, caches of macOS,
/// and that nothing is copied into a new volume, which nobody does here.
const WITHOUT_EFFECT: [&str; 6] = ["z", "Z", "cached", "delegated", "consistent", "nocopy"];

/// Why a text is no mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum MountsError {
    #[error("accepted are volume:/path[:ro] and ./folder:/path[:ro]")]
    Syntax,
    #[error("a volume without a name is not supported: write name:{0}")]
    Anonymous(String),
    #[error("{0:?} is not a mount option here; accepted are ro and rw")]
    Option(String),
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// A mount before it is known what its source is.
#[derive(Debug, PartialEq, Eq)]
struct Short {
    source: String,
    target: String,
    read_only: bool,
}

/// A volume of the top level.
pub(super) fn declare(key: &str, item: &Item<'_>, volumes: &mut Volumes) {
    // Names on the host have letters, digits and hyphens.
    let label = key.to_ascii_lowercase().replace(['_', '.'], "-");
    let Some(mut volume) = volumes.usual(&label, item) else {
        return;
    };
    if !item.is_null()
        && let Some(mut fields) = item.fields()
    {
        volume.external = fields.read("external", Item::flag).unwrap_or_default();
        let name = fields.take("name");
        match name.as_ref() {
            Some(name) => volume.name = name.typed().unwrap_or(volume.name),
            None if volume.external => volume.name = item.take(key.parse()).unwrap_or(volume.name),
            None => {}
        }
        only(&mut fields, "driver", &["local"]);
        // Volumes have none here.
        fields.ignore(|key| key == "labels" || key.starts_with("x-"));
        fields.finish();
    }
    volumes.add(key, volume, item);
}

/// What a service's `volumes` and `tmpfs` mount.
pub(super) fn of(fields: &mut Fields<'_>, scope: &Scope<'_>) -> Vec<Mount> {
    let mut mounts = fields.list("volumes", |item| match item.node.value {
        Value::Map(_) => long(item, scope),
        _ => {
            let Short {
                source,
                target,
                read_only,
            } = item.parsed(short)?;
            match source.starts_with(['/', '.', '~']) {
                true => bind(item, source, target, read_only, scope),
                false => named(item, &source, target, read_only, scope),
            }
        }
    });
    let tmpfs = fields.take("tmpfs").map(|item| item.one_or_more());
    let tmpfs = tmpfs.iter().flatten();
    mounts.extend(tmpfs.filter_map(|item| item.parsed(mount::parse_tmpfs)));
    mounts
}

fn short(text: &str) -> Result<Short, MountsError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] if target.starts_with('/') => {
            return Err(MountsError::Anonymous(target.to_owned()));
        }
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() => (source, target, options),
        _ => return Err(MountsError::Syntax),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            option if WITHOUT_EFFECT.contains(&option) => {}
            option => return Err(MountsError::Option(option.to_owned())),
        }
    }
    Ok(Short {
        source: source.to_owned(),
        target: mount::target_path(target)?,
        read_only,
    })
}

fn long(item: &Item<'_>, scope: &Scope<'_>) -> Option<Mount> {
    let mut fields = item.fields()?;
    let kind = fields.read("type", Item::text);
    let source = fields.take("source");
    let target = fields.read("target", |item| item.parsed(mount::target_path));
    let read_only = fields.read("read_only", Item::flag).unwrap_or_default();
    only(&mut fields, "consistency", &WITHOUT_EFFECT);
    let mut options = kind.as_deref().and_then(|kind| {
        let options = fields.take(kind)?;
        options.fields()
    });
    let mount = match (kind.as_deref(), source, target) {
        (_, _, None) => {
            item.wrong("target: an absolute path inside is expected");
            None
        }
        (Some("volume"), Some(source), Some(target)) => {
            options
                .iter_mut()
                .for_each(|options| only(options, "nocopy", &["true"]));
            let key = source.text()?;
            named(&source, &key, target, read_only, scope)
        }
        (Some("bind"), Some(source), Some(target)) => {
            options
                .iter_mut()
                .for_each(|options| only(options, "create_host_path", &["false"]));
            bind(&source, source.text()?, target, read_only, scope)
        }
        (Some("tmpfs"), None, Some(target)) if !read_only => {
            let size = options.as_mut().and_then(|options| options.take("size"));
            Some(Mount::Tmpfs {
                target,
                size_bytes: size.and_then(|size| size.parsed(size::parse)),
            })
        }
        _ => {
            item.wrong(
                "accepted are volumes and binds with a source, and tmpfs without, not read-only",
            );
            None
        }
    };
    for mut left in options.into_iter().chain([fields]) {
        left.ignore(|key| key.starts_with("x-"));
        left.finish();
    }
    mount
}

fn named(
    item: &Item<'_>,
    key: &str,
    target: String,
    read_only: bool,
    scope: &Scope<'_>,
) -> Option<Mount> {
    let Some(volume) = scope.volumes.get(key) else {
        item.wrong(format_args!(
            "there is no volume {key:?}; name it below `volumes`"
        ));
        return None;
    };
    Some(Mount::Volume {
        name: volume.name.clone(),
        target,
        read_only,
    })
}

fn bind(
    item: &Item<'_>,
    source: String,
    target: String,
    read_only: bool,
    scope: &Scope<'_>,
) -> Option<Mount> {
    let source = match source.strip_prefix('~') {
        None => source,
        Some(path) if path.is_empty() || path.starts_with('/') => {
            let Some(home) = scope.variables.get("HOME") else {
                item.wrong("there is no HOME that `~` could be");
                return None;
            };
            format!("{home}{path}")
        }
        Some(_) => {
            item.wrong("the folder of another user is not known; write its path");
            return None;
        }
    };
    let mount = Mount::Bind {
        source,
        target,
        read_only,
    };
    Some(mount::absolute(mount, scope.folder))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_for_other_systems_change_nothing() {
        let read = |text| short(text).map(|short| (short.source, short.read_only));
        for text in ["a:/b", "a:/b:rw", "a:/b:z", "a:/b:cached,Z", "a:/b:ro,rw"] {
            assert_eq!(read(text), Ok(("a".to_owned(), false)), "{text}");
        }
        for text in ["a:/b:ro", "a:/b:z,ro", "a:/b:ro,nocopy"] {
            assert_eq!(read(text), Ok(("a".to_owned(), true)), "{text}");
        }
        assert_eq!(read("/a"), Err(MountsError::Anonymous("/a".to_owned())));
        let option = Err(MountsError::Option("rshared".to_owned()));
        assert_eq!(read("/a:/b:ro,rshared"), option);
        for bad in ["", "a", ":/a", "a:/b:ro:x"] {
            assert_eq!(read(bad), Err(MountsError::Syntax), "{bad}");
        }
        assert!(matches!(read("a:b"), Err(MountsError::Mount(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_mount_or_refused(text in "[a-z~/.:,]{0,24}") {
            short(&text).ok();
        }
    }
}
