//! `linux.cgroupsPath`: where a container's group is, for either driver.
//!
//! ```text
//!  /a/b          below the mount point of every hierarchy, config-linux.md "Cgroups Path"
//!  a/b           below our own group, or the nearest one that was delegated
//!  (none)        dyno-runtime/ID, as a relative one
//!  slice:p:name  systemd's: the scope p-name.scope in a slice; none is :dyno:ID
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::create::prune;
use super::error::{Error, Result};
use super::layout::{Layout, detect_for, detect_mounts, relative};
use super::systemd;

/// Where a group is to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// Folders that we make ourselves.
    Folder {
        /// The bases.
        layout: Layout,
        /// The path below them.
        path: String,
    },
    /// Folders below what is delegated to the caller, or none at all: for who is
    /// not root of the host.
    Delegated {
        /// The path, as for folders.
        path: String,
    },
    /// A transient scope of systemd.
    Unit {
        /// Its name and slice.
        unit: Unit,
        /// By the calling user's systemd, not the system's.
        user: bool,
        /// `org.systemd.property.*` among a configuration's annotations, as in runc.
        properties: Vec<(String, String)>,
    },
}

/// A scope of systemd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unit {
    /// The slice, such as `machine.slice`; `-.slice` is the root.
    pub slice: String,
    /// The scope, such as `libpod-1234.scope`.
    pub name: String,
}

/// Annotations that become properties of a scope begin so.
pub const ANNOTATION: &str = "org.systemd.property.";

impl Place {
    /// For the driver that makes folders: `id` names the group if the path does not.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Layout`].
    pub fn folder(cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let path = folder(cgroups_path, id)?;
        let layout = detect_for(&path)?;
        Ok(Self::Folder { layout, path })
    }

    /// The same for who is not root of the host.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn delegated(cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let path = folder(cgroups_path, id)?;
        Ok(Self::Delegated { path })
    }

    /// For the systemd driver: the system's, or the calling user's.
    ///
    /// # Errors
    /// [`Error::Place`] for a path that is not `slice:prefix:name`.
    pub fn unit(
        cgroups_path: Option<&Path>,
        id: &str,
        user: bool,
        annotations: &HashMap<String, String>,
    ) -> Result<Self> {
        let unit = Unit::parse(text(cgroups_path)?.as_deref(), id, user)?;
        let of_ours = |(key, value): (&String, &String)| {
            let name = key.strip_prefix(ANNOTATION)?;
            Some((name.to_owned(), value.clone()))
        };
        let mut properties: Vec<_> = annotations.iter().filter_map(of_ours).collect();
        properties.sort();
        Ok(Self::Unit {
            unit,
            user,
            properties,
        })
    }
}

impl Place {
    /// Removes what is left where a group was not made to its end: empty folders, or
    /// a scope in which nobody is but who held it open.
    ///
    /// # Errors
    /// When folders are in use, or systemd refuses.
    pub fn clear(&self) -> Result<()> {
        match self {
            Self::Folder { layout, path } => prune(layout, path),
            Self::Delegated { path } => match detect_for(path) {
                Ok(layout) => prune(&layout, path),
                // Nor was there anything to make them in.
                Err(Error::Layout { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            Self::Unit { unit, user, .. } => {
                systemd::stop(&unit.name, *user)?;
                match slice_folder(&unit.slice) {
                    // Below the user's own, systemd has made all of it.
                    Some(slice) if !user => {
                        let path = slice.join(&unit.name);
                        prune(&detect_mounts()?, &path.to_string_lossy())
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

fn folder(cgroups_path: Option<&Path>, id: &str) -> Result<String> {
    let path = text(cgroups_path)?;
    let path = path.unwrap_or_else(|| format!("dyno-runtime/{id}"));
    relative(&path)?;
    if path.matches(':').count() == 2 && !path.contains('/') {
        let reason = "it has the form of systemd's: use --systemd-cgroup";
        return Err(Error::place(path, reason));
    }
    Ok(path)
}

/// An empty path is none, as in runc.
fn text(path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(None);
    };
    match path.to_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Error::Path {
            path: path.display().to_string(),
        }),
    }
}

impl Unit {
    fn parse(path: Option<&str>, id: &str, user: bool) -> Result<Self> {
        let none = format!(":dyno:{id}");
        let path = path.unwrap_or(&none);
        let refused = |reason: &str| Err(Error::place(path, reason));
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return refused("for systemd it has the form slice:prefix:name");
        };
        let slice = match (*slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            ("-", _) => "-.slice",
            (slice, _) => slice,
        };
        if slice_folder(slice).is_none() {
            return refused("its slice is none, such as machine.slice or a-b.slice");
        }
        if name.is_empty() || name.ends_with(".slice") {
            return refused("its last part names the container, which is a scope");
        }
        let name = format!("{prefix}-{name}.scope");
        // systemd.unit(5): at most 255 of these.
        let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > 255 || !name.chars().all(known) {
            return refused("a unit's name has letters, digits and :-_.\\@, at most 255");
        }
        Ok(Self {
            slice: slice.to_owned(),
            name,
        })
    }
}

/// `a-b.slice` is the folder `a.slice/a-b.slice`, systemd.slice(5).
fn slice_folder(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.split('-').any(str::is_empty) || !name.chars().all(known) {
        return None;
    }
    let ends = name.match_indices('-').map(|(at, _)| at);
    let folders = ends.chain([name.len()]);
    Some(
        folders
            .map(|end| format!("{}.slice", &name[..end]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::layout::detect;
    use super::*;

    #[test]
    fn units_are_named_as_in_runc() {
        let unit = |path: &str, user| Unit::parse(Some(path), "id", user).unwrap();
        let named = |slice: &str, name: &str| Unit {
            slice: slice.into(),
            name: name.into(),
        };
        let libpod = unit("machine.slice:libpod:12ab", false);
        assert_eq!(libpod, named("machine.slice", "libpod-12ab.scope"));
        assert_eq!(unit("::x", false), named("system.slice", "-x.scope"));
        assert_eq!(unit(":cri:x", true), named("user.slice", "cri-x.scope"));
        assert_eq!(unit("-:cri:x", false), named("-.slice", "cri-x.scope"));
        let none = Unit::parse(None, "id", false).unwrap();
        assert_eq!(none, named("system.slice", "dyno-id.scope"));
    }

    #[test]
    fn a_malformed_unit_is_refused_with_the_form() {
        let cases = [
            ("/a/b", "slice:prefix:name"),
            ("a:b", "slice:prefix:name"),
            ("a.slice:b:c:d", "slice:prefix:name"),
            ("a:b:c", "its slice"),
            ("../x.slice:b:c", "its slice"),
            ("a--b.slice:b:c", "its slice"),
            ("-a.slice:b:c", "its slice"),
            (".slice:b:c", "its slice"),
            ("a.slice:b:", "names the container"),
            ("a.slice:b:c.slice", "names the container"),
            ("a.slice:b:../c", "letters, digits"),
            ("a.slice:b/../..:c", "letters, digits"),
            ("a.slice:b:c\nd", "letters, digits"),
        ];
        for (path, reason) in cases {
            let error = Unit::parse(Some(path), "id", false)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{path:?}: {error}");
        }
    }

    #[test]
    fn slices_are_folders_in_folders() {
        let folder = slice_folder("a-b-c.slice").unwrap();
        assert_eq!(folder, Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(slice_folder("-.slice").unwrap(), Path::new(""));
    }

    #[test]
    fn an_absolute_path_begins_at_the_mounts_and_none_is_the_containers() {
        let of = |path: Option<&str>| match Place::folder(path.map(Path::new), "id").unwrap() {
            Place::Folder { layout, path } => (layout, path),
            _ => panic!("no unit was asked for"),
        };
        assert_eq!(of(Some("/a/b")), (detect_mounts().unwrap(), "/a/b".into()));
        assert_eq!(of(Some("a/b")), (detect().unwrap(), "a/b".into()));
        let none = (detect().unwrap(), "dyno-runtime/id".into());
        assert_eq!(of(None), none);
        assert_eq!(of(Some("")), none);
        for bad in ["..", "/a/../../b", "a.slice:b:c"] {
            assert!(Place::folder(Some(Path::new(bad)), "id").is_err(), "{bad}");
        }
    }
}
