//! Puts programs into the folder that becomes the guest's disk.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::output_of;

/// A root file system that is being put together in a folder of the host.
#[derive(Debug)]
pub(super) struct Root<'a> {
    folder: &'a Path,
    stripped: &'a Path,
    /// Names in `stripped` that this root shares.
    used: RefCell<BTreeSet<OsString>>,
}

impl<'a> Root<'a> {
    /// An empty `folder`; copies without symbols are kept in `stripped`.
    pub(super) fn new(folder: &'a Path, stripped: &'a Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::create_dir_all(stripped).with_context(|| format!("creating {}", stripped.display()))?;
        Ok(Self {
            folder,
            stripped,
            used: RefCell::default(),
        })
    }

    /// Removes copies of programs that cargo has since built anew under another name.
    pub(super) fn forget_unused_copies(&self) -> Result<()> {
        let reading = || format!("reading {}", self.stripped.display());
        for entry in fs::read_dir(self.stripped).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            if !self.used.borrow().contains(&entry.file_name()) {
                fs::remove_file(entry.path())
                    .with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    /// Makes a folder and its parents.
    pub(super) fn folder(&self, path: &str) -> Result<()> {
        let path = self.host_path(Path::new(path));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))
    }

    /// Makes a folder with these permissions.
    pub(super) fn folder_with_mode(&self, path: &str, permissions: u32) -> Result<()> {
        self.folder(path)?;
        let path = self.host_path(Path::new(path));
        fs::set_permissions(&path, fs::Permissions::from_mode(permissions))
            .with_context(|| format!("setting the permissions of {}", path.display()))
    }

    /// Writes a file.
    pub(super) fn file(&self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        let file = self.parented(Path::new(path))?;
        super::replace_file(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(permissions))
            .with_context(|| format!("setting the permissions of {}", file.display()))
    }

    /// Makes a symbolic link at `path`.
    pub(super) fn link(&self, path: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let link = self.parented(path.as_ref())?;
        symlink(&to, &link).with_context(|| format!("linking {}", link.display()))
    }

    /// Puts `file` of the host at `path` without spending space on a copy.
    pub(super) fn share(&self, path: impl AsRef<Path>, file: &Path) -> Result<()> {
        let target = self.parented(path.as_ref())?;
        if fs::hard_link(file, &target).is_err() {
            fs::copy(file, &target).with_context(|| format!("copying {}", file.display()))?;
        }
        Ok(())
    }

    /// Shares a whole folder.
    pub(super) fn share_folder(&self, path: &Path, folder: &Path) -> Result<()> {
        let reading = || format!("reading {}", folder.display());
        for entry in fs::read_dir(folder).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let target = path.join(entry.file_name());
            let kind = entry.file_type().with_context(reading)?;
            if kind.is_dir() {
                self.share_folder(&target, &entry.path())?;
            } else if kind.is_file() {
                self.share(&target, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts a program of ours at `path`, without symbols: debug builds are large.
    pub(super) fn stripped(&self, path: &str, program: &Path) -> Result<()> {
        // `release-hostd`: either build of a program may be older than the other's copy.
        let name = program.file_name().context("a program without a name")?;
        let profile = program.parent().and_then(Path::file_name);
        let mut copy = profile.unwrap_or_default().to_owned();
        copy.push("-");
        copy.push(name);
        self.used.borrow_mut().insert(copy.clone());
        let copy = self.stripped.join(copy);
        if !is_newer(&copy, program) {
            let partial = copy.with_extension("partial");
            output_of("strip", &[Path::new("-o"), &partial, program])?;
            fs::rename(&partial, &copy).with_context(|| format!("naming {}", copy.display()))?;
        }
        self.share(path, &copy)
    }

    /// Puts a dynamically linked program of the host there, with its libraries.
    pub(super) fn program_of_host(
        &self,
        program: &str,
        known: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        let listed = output_of("ldd", &[program])?;
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from);
        for path in [PathBuf::from(program)].into_iter().chain(libraries) {
            if known.insert(path.clone()) {
                let file = fs::canonicalize(&path)
                    .with_context(|| format!("finding {}", path.display()))?;
                self.share(&path, &file)?;
            }
        }
        Ok(())
    }

    /// `/usr/bin/ip` of the guest as the host sees it.
    fn host_path(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn parented(&self, path: &Path) -> Result<PathBuf> {
        let path = self.host_path(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        Ok(path)
    }
}

fn is_newer(copy: &Path, original: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    matches!((modified(copy), modified(original)), (Some(copy), Some(original)) if copy > original)
}
