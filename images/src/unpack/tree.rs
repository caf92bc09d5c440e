//! The folder being filled, touched through fds only.
//!
//! P1: a path of the archive is resolved by `openat2(2)` beneath the root, with symlinks taken
//! as inside it and never to magic links or other mounts; what is then done is done to an open
//! folder and one name in it, following nothing.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::error::Refusal;

/// Open folders kept at hand; the limit on open files of a jail is at least 256.
const MAX_CACHED: usize = 128;
/// How deep a folder may be that is removed to make place: more than a layer may have.
const MAX_REMOVAL_DEPTH: usize = 4096;

/// A name of the archive, cut into parts: no empty ones, no `.`, no `..`.
pub(super) type Parts<'a> = [&'a [u8]];

#[derive(Debug)]
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Open folders by joined parts. Emptied whenever a symlink or folder is removed: from then
    /// on a path may lead elsewhere.
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    inodes: u64,
    max_inodes: u64,
}

/// Owner, mode, times and extended attributes.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Tree {
    pub(super) fn new(root: OwnedFd, max_inodes: u64) -> Tree {
        Tree {
            root: Rc::new(root),
            cache: HashMap::new(),
            inodes: 0,
            max_inodes,
        }
    }

    /// Opens a folder, making what is missing of it (0755, root's).
    pub(super) fn folder(&mut self, parts: &Parts<'_>) -> Result<Rc<OwnedFd>, Refusal> {
        let Some((name, parents)) = parts.split_last() else {
            return Ok(self.root.clone());
        };
        let path = parts.join(&b'/');
        if let Some(folder) = self.cache.get(&path) {
            return Ok(folder.clone());
        }
        let folder = match self.resolve(&path) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                let parent = self.folder(parents)?;
                self.count_inode()?;
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(&*parent, *name, mode)
                    .map_err(Refusal::writing("create folder", &path))?;
                open_folder(&*parent, name).map_err(Refusal::writing("open folder", &path))?
            }
            Err(errno) => return Err(Refusal::writing("open folder", &path)(errno)),
        };
        Ok(self.remember(path, folder))
    }

    /// Opens an existing folder, or `None` if the path leads to none any more.
    pub(super) fn existing_folder(&self, path: &[u8]) -> Option<OwnedFd> {
        self.resolve(path).ok()
    }

    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&*self.root, path, flags, Mode::empty(), confined)
    }

    fn remember(&mut self, path: Vec<u8>, folder: OwnedFd) -> Rc<OwnedFd> {
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        let folder = Rc::new(folder);
        self.cache.insert(path, folder.clone());
        folder
    }

    /// Makes a folder or takes the one that is there. What else is there makes place; if that
    /// was a whiteout, the folder hides what is below it: the second value says so.
    pub(super) fn make_folder(
        &mut self,
        parts: &Parts<'_>,
    ) -> Result<(Rc<OwnedFd>, bool), Refusal> {
        let Some((name, parents)) = parts.split_last() else {
            return Ok((self.root.clone(), false));
        };
        let path = parts.join(&b'/');
        let parent = self.folder(parents)?;
        let mode = Mode::from_raw_mode(0o700);
        let mut was_whiteout = false;
        loop {
            match rustix::fs::mkdirat(&*parent, *name, mode) {
                Ok(()) => {
                    self.count_inode()?;
                    break;
                }
                Err(Errno::EXIST) => {
                    let there = self.look(&*parent, name, &path)?;
                    if there == Some(Kind::Folder) {
                        break;
                    }
                    was_whiteout = there == Some(Kind::Whiteout);
                    self.remove(&*parent, name, &path)?;
                }
                Err(errno) => return Err(Refusal::writing("create folder", &path)(errno)),
            }
        }
        let folder = open_folder(&*parent, name).map_err(Refusal::writing("open folder", &path))?;
        Ok((self.remember(path, folder), was_whiteout))
    }

    /// Makes something that is no folder by `make(folder, name)`, which must fail with EEXIST
    /// where a name is taken; then what was there is removed, whatever it was.
    pub(super) fn make<T>(
        &mut self,
        parts: &Parts<'_>,
        operation: &'static str,
        mut make: impl FnMut(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Refusal> {
        let path = parts.join(&b'/');
        let Some((name, parents)) = parts.split_last() else {
            return Err(Refusal::entry(b"/", "the root of a layer must be a folder"));
        };
        let parent = self.folder(parents)?;
        self.count_inode()?;
        let mut made = make(&parent, name);
        if matches!(made, Err(Errno::EXIST)) {
            self.remove(&*parent, name, &path)?;
            made = make(&parent, name);
        }
        made.map_err(Refusal::writing(operation, &path))
    }

    /// What has this name, following nothing.
    pub(super) fn kind(&mut self, parts: &Parts<'_>) -> Result<Option<Kind>, Refusal> {
        let Some((name, parents)) = parts.split_last() else {
            return Ok(Some(Kind::Folder));
        };
        let parent = self.folder(parents)?;
        self.look(&*parent, name, &parts.join(&b'/'))
    }

    fn look(&self, parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Option<Kind>, Refusal> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Folder,
                // No other device is ever made here.
                FileType::CharacterDevice => Kind::Whiteout,
                _ => Kind::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Refusal::writing("look at", path)(errno)),
        }
    }

    fn remove(&mut self, parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<(), Refusal> {
        self.cache.clear();
        remove(parent.as_fd(), name, 0).map_err(Refusal::writing("replace", path))
    }

    /// P8: counts an inode against the limit.
    fn count_inode(&mut self) -> Result<(), Refusal> {
        self.inodes += 1;
        match self.inodes > self.max_inodes {
            true => Err(Refusal::Limit {
                what: "files",
                limit: self.max_inodes,
            }),
            false => Ok(()),
        }
    }
}

/// What a name stands for, as far as it matters for replacing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Whiteout,
    Other,
}

fn open_folder(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Removes a name and everything below it, following nothing.
fn remove(parent: impl AsFd, name: &[u8], depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    if depth > MAX_REMOVAL_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let folder = open_folder(&parent, name)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&folder, name, depth + 1)?;
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

impl Attributes<'_> {
    /// Sets everything on an open file or folder, except a folder's time, which later entries
    /// would change again. The order matters: a change of owner clears setuid bits and file
    /// capabilities (`chown(2)`).
    pub(super) fn apply(&self, fd: impl AsFd, path: &[u8]) -> Result<(), Refusal> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid))
            .map_err(Refusal::writing("set owner of", path))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.mode))
            .map_err(Refusal::writing("set mode of", path))?;
        for (name, value) in self.xattrs {
            rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty())
                .map_err(Refusal::writing("set extended attribute of", path))?;
        }
        Ok(())
    }

    /// Sets owner and time of something that cannot be opened: a symlink, a fifo.
    pub(super) fn apply_by_name(&self, parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), nofollow)?;
        rustix::fs::utimensat(&parent, name, &times(self.mtime), nofollow)
    }
}

/// The same time for access and modification.
pub(super) fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: mtime,
        last_modification: mtime,
    }
}
