//! A path inside a container's root, split so that the child can create what
//! is missing of it without allocating.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::{Component, Path};

use super::PlanError;

/// What is created where a target does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// An empty file.
    File,
}

/// A path relative to a container's root. It is resolved with
/// `RESOLVE_IN_ROOT`, one prefix after the other, never as a whole by the
/// host's rules (P1).
#[derive(Debug)]
pub(crate) struct Target {
    /// `a`, `a/b`, `a/b/c`; empty for the root itself.
    prefixes: Vec<CString>,
    /// `a`, `b`, `c`.
    names: Vec<CString>,
    /// What the last component is, if it must be made.
    pub(crate) kind: Kind,
    /// Refuse symbolic links on the way: for `/proc`, `/sys` and `/dev`, which
    /// an image must not redirect.
    pub(crate) no_symlinks: bool,
    /// It may lie in a procfs.
    pub(crate) in_proc: bool,
}

impl Target {
    /// The target at this path; `..` and `.` are resolved in words first, as
    /// the OCI spec has absolute destinations only.
    pub(crate) fn new(path: &Path, kind: Kind) -> Result<Self, PlanError> {
        let mut names: Vec<CString> = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let bytes = name.as_encoded_bytes();
                    names.push(CString::new(bytes).map_err(|_nul| PlanError::Nul("a path"))?);
                }
                Component::ParentDir => {
                    names.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        let mut prefixes: Vec<CString> = Vec::with_capacity(names.len());
        for name in &names {
            let mut prefix = prefixes
                .last()
                .map_or_else(Vec::new, |p| p.as_bytes().to_vec());
            if !prefix.is_empty() {
                prefix.push(b'/');
            }
            prefix.extend_from_slice(name.as_bytes());
            prefixes.push(CString::new(prefix).map_err(|_nul| PlanError::Nul("a path"))?);
        }
        let guarded = [c"proc", c"sys", c"dev"];
        let no_symlinks = names
            .first()
            .is_some_and(|first| guarded.contains(&first.as_c_str()));
        let mut target = Self {
            prefixes,
            names,
            kind,
            no_symlinks,
            in_proc: false,
        };
        let path = target.to_string();
        target.in_proc = path == "/proc" || super::mounts::may_hide_in_proc(&path);
        Ok(target)
    }

    /// The same where it may lie in a procfs, too.
    pub(crate) fn over_proc(mut self) -> Self {
        self.in_proc = true;
        self
    }

    /// The whole path relative to the root.
    pub(crate) fn path(&self) -> &CStr {
        self.prefixes.last().map_or(c".", |path| path)
    }

    /// Each prefix with the name of its last component.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (&CStr, &CStr)> {
        let prefixes = self.prefixes.iter().map(CString::as_c_str);
        prefixes.zip(self.names.iter().map(CString::as_c_str))
    }

    /// How many components there are.
    pub(crate) fn depth(&self) -> usize {
        self.names.len()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.names.is_empty() {
            c""
        } else {
            self.path()
        };
        write!(f, "/{}", path.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::new(Path::new(path), Kind::Folder).unwrap()
    }

    #[test]
    fn a_path_is_split_into_its_prefixes() {
        let target = target("/a/b/c");
        let prefixes: Vec<_> = target.prefixes().collect();
        assert_eq!(prefixes, [(c"a", c"a"), (c"a/b", c"b"), (c"a/b/c", c"c")]);
        assert_eq!(target.to_string(), "/a/b/c");
    }

    #[test]
    fn dots_never_lead_out_of_the_root() {
        assert_eq!(target("/../../etc/../x").to_string(), "/x");
        assert_eq!(target("/").path(), c".");
    }

    #[test]
    fn the_kernels_own_folders_are_never_reached_through_links() {
        assert!(target("/proc").no_symlinks);
        assert!(target("/dev/pts").no_symlinks);
        assert!(!target("/devices").no_symlinks);
    }
}
