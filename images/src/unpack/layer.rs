//! What the members of a layer mean: files, links, whiteouts, attributes (OCI image spec,
//! layer.md), turned into what overlayfs expects of a lower layer.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, XattrFlags};
use tar::EntryType;

use super::Summary;
use super::archive::{Archive, Member};
use super::error::Refusal;
use super::tree::{Attributes, Kind, Parts, Tree, times};
use crate::digest::Digest;
use crate::limits::Limits;

/// P3: image ids are those of a dyno's own user namespace.
const MAX_ID: u64 = 65_535;
/// Folders whose times are set in the end are remembered by name; all names together.
const MAX_FOLDER_NAME_BYTES: u64 = 256 << 20;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that aufs used for itself; every reader ignores them.
const AUFS_OWN: &[u8] = b".wh..wh.";
/// The overlays of dynos are mounted with `userxattr`: this is the attribute they heed.
const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// A layer being written.
pub(super) struct Layer {
    tree: Tree,
    limits: Limits,
    entries: u64,
    bytes: u64,
    devices_skipped: u64,
    opaque_root: bool,
    /// Times of folders, set when nothing changes in them any more.
    folder_times: Vec<(Vec<u8>, Timespec)>,
    folder_name_bytes: u64,
    buffer: Vec<u8>,
    purpose: Purpose,
}

/// What the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A layer: some names have a meaning.
    Layer,
    /// All files of a folder.
    Whole,
    /// Files among others.
    Among,
}

impl Layer {
    pub(super) fn new(root: OwnedFd, limits: Limits) -> Layer {
        Layer {
            tree: Tree::new(root, limits.entries),
            limits,
            entries: 0,
            bytes: 0,
            devices_skipped: 0,
            opaque_root: false,
            folder_times: Vec::new(),
            folder_name_bytes: 0,
            buffer: vec![0; 128 << 10],
            purpose: Purpose::Layer,
        }
    }

    /// Files that are put among those in `root`: whiteouts are names like others, and what is
    /// there makes place only for its like.
    pub(super) fn plain(root: OwnedFd, limits: Limits) -> Layer {
        Layer {
            purpose: Purpose::Among,
            ..Layer::new(root, limits)
        }
    }

    /// All files of a folder, which is empty: whiteouts are names like others.
    pub(super) fn whole(root: OwnedFd, limits: Limits) -> Layer {
        Layer {
            purpose: Purpose::Whole,
            ..Layer::new(root, limits)
        }
    }

    /// Does what one member says; its data comes from `archive`.
    pub(super) fn apply<P: FnMut(u64) -> io::Result<()>>(
        &mut self,
        member: &Member,
        archive: &mut Archive<P>,
    ) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Refusal::Limit {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        let parts = self.parts(&member.path)?;
        let parts = parts.as_slice();
        if self.purpose == Purpose::Among && self.is_there(member, parts)? {
            return Ok(());
        }
        if let (Purpose::Layer, Some((name, parents))) = (self.purpose, parts.split_last()) {
            if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
                return Err(Refusal::entry(&member.path, "below a whiteout"));
            }
            if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                return self.whiteout(member, parents, name, hidden);
            }
        }
        match member.kind {
            EntryType::Directory => self.folder(member, parts),
            // A tar of 1979 marks folders by a slash alone.
            EntryType::Regular if member.path.ends_with(b"/") => self.folder(member, parts),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(member, parts, archive)
            }
            EntryType::Link => self.hard_link(member, parts),
            EntryType::Symlink => self.symlink(member, parts),
            EntryType::Fifo => self.fifo(member, parts),
            EntryType::Char | EntryType::Block => {
                // The runtime gives a dyno the devices it may have.
                self.devices_skipped += 1;
                Ok(())
            }
            _ => Err(Refusal::entry(&member.path, "unknown kind of tar member")),
        }
    }

    /// Whether nothing is to be done for this member: a folder is there by another way, by a
    /// link. Refuses what would take the place of something of another kind.
    fn is_there(&mut self, member: &Member, parts: &Parts<'_>) -> Result<bool, Refusal> {
        let is_folder = member.kind == EntryType::Directory || member.path.ends_with(b"/");
        if parts.is_empty() {
            return Ok(is_folder);
        }
        match (self.tree.kind(parts)?, is_folder) {
            (None, _) | (Some(Kind::Folder), true) => Ok(false),
            (Some(Kind::Folder), false) => Err(Refusal::entry(
                &member.path,
                "there is a folder of that name",
            )),
            (Some(_), false) => Ok(false),
            (Some(_), true) => match self.tree.existing_folder(&parts.join(&b'/')) {
                Some(_) => Ok(true),
                None => Err(Refusal::entry(&member.path, "there is a file of that name")),
            },
        }
    }

    /// Sets the times of folders, and sums up.
    pub(super) fn finish(self, diff_id: Digest) -> Result<Summary, Refusal> {
        for (path, mtime) in &self.folder_times {
            // A later member may have put something else there.
            if let Some(folder) = self.tree.existing_folder(path) {
                rustix::fs::futimens(&folder, &times(*mtime))
                    .map_err(Refusal::writing("set time of", path))?;
            }
        }
        Ok(Summary {
            diff_id,
            bytes: self.bytes,
            entries: self.entries,
            devices_skipped: self.devices_skipped,
            opaque_root: self.opaque_root,
        })
    }

    /// Cuts a path into parts. Absolute paths and `..` stay within the root, as in a chroot.
    fn parts<'a>(&self, path: &'a [u8]) -> Result<Vec<&'a [u8]>, Refusal> {
        if path.len() as u64 > u64::from(self.limits.path_bytes) {
            return Err(Refusal::entry(path, "its path is too long"));
        }
        let mut parts = Vec::new();
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part if part.contains(&0) => {
                    return Err(Refusal::entry(path, "zero byte in its path"));
                }
                part => parts.push(part),
            }
        }
        match parts.len() as u64 > u64::from(self.limits.depth) {
            true => Err(Refusal::entry(path, "its path is too deep")),
            false => Ok(parts),
        }
    }

    fn whiteout(
        &mut self,
        member: &Member,
        parents: &Parts<'_>,
        name: &[u8],
        hidden: &[u8],
    ) -> Result<(), Refusal> {
        if name == OPAQUE {
            self.opaque_root |= parents.is_empty();
            let folder = self.tree.folder(parents)?;
            return set_opaque(&*folder, &member.path);
        }
        if name.starts_with(AUFS_OWN) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Refusal::entry(&member.path, "whiteout of no name"));
        }
        let parts: Vec<&[u8]> = parents.iter().copied().chain([hidden]).collect();
        match self.tree.kind(&parts)? {
            // Whiteouts hide lower layers only. What this layer has there hides those already,
            // a folder if it is opaque.
            Some(Kind::Folder) => set_opaque(&*self.tree.folder(&parts)?, &member.path),
            Some(Kind::Whiteout | Kind::Other) => Ok(()),
            // overlayfs: a character device 0/0, which any user namespace may make.
            None => self.tree.make(&parts, "create whiteout", |parent, name| {
                rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
            }),
        }
    }

    fn folder(&mut self, member: &Member, parts: &Parts<'_>) -> Result<(), Refusal> {
        let xattrs = self.kept_xattrs(member);
        let attributes = attributes(member, &xattrs)?;
        let (folder, was_whiteout) = self.tree.make_folder(parts)?;
        attributes.apply(&*folder, &member.path)?;
        if was_whiteout {
            set_opaque(&*folder, &member.path)?;
        }
        let path = match parts {
            [] => b".".to_vec(),
            parts => parts.join(&b'/'),
        };
        self.folder_name_bytes += path.len() as u64;
        if self.folder_name_bytes > MAX_FOLDER_NAME_BYTES {
            let limit = MAX_FOLDER_NAME_BYTES;
            return Err(Refusal::Limit {
                what: "bytes of folder names",
                limit,
            });
        }
        self.folder_times.push((path, member.mtime));
        Ok(())
    }

    fn file<P: FnMut(u64) -> io::Result<()>>(
        &mut self,
        member: &Member,
        parts: &Parts<'_>,
        archive: &mut Archive<P>,
    ) -> Result<(), Refusal> {
        let xattrs = self.kept_xattrs(member);
        let attributes = attributes(member, &xattrs)?;
        self.bytes = self.bytes.saturating_add(member.size);
        if self.bytes > self.limits.bytes {
            return Err(Refusal::Limit {
                what: "bytes of files",
                limit: self.limits.bytes,
            });
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.tree.make(parts, "create file", |parent, name| {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?;
        self.content(member, &file, archive)?;
        attributes.apply(&file, &member.path)?;
        rustix::fs::futimens(&file, &times(member.mtime))
            .map_err(Refusal::writing("set time of", &member.path))
    }

    /// Writes the extents where they belong and leaves the rest a hole.
    fn content<P: FnMut(u64) -> io::Result<()>>(
        &mut self,
        member: &Member,
        file: &OwnedFd,
        archive: &mut Archive<P>,
    ) -> Result<(), Refusal> {
        let failed = |errno| Refusal::writing("write", &member.path)(errno);
        for extent in &member.extents {
            let (mut offset, end) = (extent.offset, extent.offset + extent.length);
            while offset < end {
                let wanted = usize::try_from(end - offset)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                let read = archive.read(&mut self.buffer[..wanted])?;
                let mut chunk = &self.buffer[..read];
                while !chunk.is_empty() {
                    let written = rustix::io::pwrite(file, chunk, offset).map_err(failed)?;
                    chunk = &chunk[written..];
                    offset += written as u64;
                }
            }
        }
        // A hole at the end; writing nothing there would not make the file longer.
        let stored = member.extents.iter().rfind(|extent| extent.length > 0);
        match stored.map_or(0, |last| last.offset + last.length) < member.size {
            true => rustix::fs::ftruncate(file, member.size).map_err(failed),
            false => Ok(()),
        }
    }

    fn hard_link(&mut self, member: &Member, parts: &Parts<'_>) -> Result<(), Refusal> {
        let target = self.parts(&member.link)?;
        if self.purpose == Purpose::Layer && target.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(Refusal::entry(&member.path, "hard link to a whiteout"));
        }
        if target == parts {
            return Err(Refusal::entry(&member.path, "hard link to itself"));
        }
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(Refusal::entry(&member.path, "hard link to a folder"));
        };
        match self.tree.kind(&target)? {
            Some(Kind::Other) => {}
            Some(_) => {
                return Err(Refusal::entry(
                    &member.path,
                    "hard link to a folder or whiteout",
                ));
            }
            None => {
                return Err(Refusal::entry(
                    &member.path,
                    "hard link to a file that is not in the layer",
                ));
            }
        }
        let from = self.tree.folder(target_parents)?;
        self.tree.make(parts, "create hard link", |parent, name| {
            // No flags: a symlink is linked itself, not what it names.
            rustix::fs::linkat(&*from, *target_name, parent, name, AtFlags::empty())
        })
    }

    fn symlink(&mut self, member: &Member, parts: &Parts<'_>) -> Result<(), Refusal> {
        // Where it leads is nobody's business here: it is resolved inside a dyno, or by
        // `Tree` beneath the root.
        let attributes = attributes(member, &[])?;
        self.tree.make(parts, "create symlink", |parent, name| {
            rustix::fs::symlinkat(member.link.as_slice(), parent, name)?;
            attributes.apply_by_name(parent, name)
        })
    }

    fn fifo(&mut self, member: &Member, parts: &Parts<'_>) -> Result<(), Refusal> {
        let attributes = attributes(member, &[])?;
        let mode = Mode::from_raw_mode(member.mode);
        self.tree.make(parts, "create fifo", |parent, name| {
            rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)?;
            attributes.apply_by_name(parent, name)
        })
    }

    /// The attributes that a layer may set: users' own and file capabilities. Not overlayfs' marks,
    /// by which an image could reach into other layers, nor those that configure the machine
    /// (`security.selinux`, `trusted.*`, `system.posix_acl_*` with ids of another namespace). Plain
    /// files come without any.
    fn kept_xattrs(&self, member: &Member) -> Vec<(Vec<u8>, Vec<u8>)> {
        let kept = |name: &[u8]| {
            if self.purpose == Purpose::Among {
                return false;
            }
            name == b"security.capability"
                || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        };
        member
            .xattrs
            .iter()
            .filter(|(name, _)| kept(name))
            .cloned()
            .collect()
    }
}

fn attributes<'a>(
    member: &Member,
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
) -> Result<Attributes<'a>, Refusal> {
    let id = |id: u64| match u32::try_from(id) {
        Ok(fitting) if id <= MAX_ID => Ok(fitting),
        _ => Err(Refusal::Owner {
            path: super::error::shown(&member.path),
            id,
        }),
    };
    Ok(Attributes {
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mode: member.mode,
        mtime: member.mtime,
        xattrs,
    })
}

fn set_opaque(folder: impl std::os::fd::AsFd, path: &[u8]) -> Result<(), Refusal> {
    rustix::fs::fsetxattr(folder, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(Refusal::writing("mark as opaque", path))
}
