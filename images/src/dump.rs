//! A whole folder as a tar stream: the inside of `dyno-unpack dump`, which sees nothing but that
//! folder (`dyno-runtime jail`).
//!
//! As `pack`, with what a backup needs besides: hard links and extended attributes (as pax has
//! them, `SCHILY.xattr.`). Holes are written as zeros. Devices and sockets are left out, and so
//! are attributes that a volume cannot be given back: ACLs, labels, `trusted.*`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType};

use crate::pack::{folder_flags, header};

/// How deep folders are packed: each level is an open file.
const MAX_DEPTH: usize = 256;
/// The largest list of names, and value, of extended attributes (`xattr(7)`).
const MAX_XATTR: usize = 64 << 10;

/// Writes everything in the current folder, whose own entry comes first, as `./`.
///
/// # Errors
/// What cannot be opened, read or written.
pub(crate) fn dump(to: impl Write) -> io::Result<()> {
    let root = rustix::fs::openat(CWD, ".", folder_flags(), Mode::empty())?;
    dump_folder(&root, to)
}

fn dump_folder(root: &OwnedFd, to: impl Write) -> io::Result<()> {
    let mut dump = Dump {
        archive: Builder::new(BufWriter::with_capacity(64 << 10, to)),
        links: HashMap::new(),
    };
    let stat = rustix::fs::fstat(root)?;
    dump.attributes(root)?;
    dump.entry(&stat, EntryType::Directory, Path::new("./"), 0, io::empty())?;
    dump.inside(root, Path::new(""), 0)?;
    dump.archive.into_inner()?.flush()
}

struct Dump<W: Write> {
    archive: Builder<W>,
    /// Files with more than one name, by inode: what was written first. The jail bounds its
    /// memory.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Dump<W> {
    /// Everything in an open folder; what goes meanwhile is not there.
    fn inside(&mut self, folder: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for found in Dir::read_from(folder.as_fd())? {
            let found = found?;
            let name = found.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsStr::from_bytes(name);
            match self.name(folder, name, &path.join(name), depth) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn name(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let flags = folder_flags() | OFlags::NOFOLLOW;
            let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            self.attributes(&folder)?;
            self.entry(&stat, EntryType::Directory, path, 0, io::empty())?;
            return self.inside(&folder, path, depth + 1);
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let mut header = header(&stat, EntryType::Link, 0);
                return self.archive.append_link(&mut header, path, first);
            }
            if matches!(
                kind,
                FileType::RegularFile | FileType::Symlink | FileType::Fifo
            ) {
                self.links.insert(inode, path.to_owned());
            }
        }
        match kind {
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let mut header = header(&stat, EntryType::Symlink, 0);
                // Literally where it fits: a link says what it says.
                if header.set_link_name_literal(target.as_bytes()).is_ok() {
                    return self.archive.append_data(&mut header, path, io::empty());
                }
                let target = OsStr::from_bytes(target.as_bytes());
                self.archive.append_link(&mut header, path, target)
            }
            FileType::Fifo => self.entry(&stat, EntryType::Fifo, path, 0, io::empty()),
            _ => Ok(()),
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        // Should it have become a fifo or a device meanwhile, nothing waits for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        self.attributes(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let content = File::from(file).chain(io::repeat(0)).take(size);
        self.entry(&stat, EntryType::Regular, path, size, content)
    }

    fn entry(
        &mut self,
        stat: &Stat,
        kind: EntryType,
        path: &Path,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let mut header = header(stat, kind, size);
        self.archive.append_data(&mut header, path, content)
    }

    /// The extended attributes of what comes next.
    fn attributes(&mut self, file: &OwnedFd) -> io::Result<()> {
        let found = xattrs(file)?;
        let named: Vec<(String, Vec<u8>)> = found
            .into_iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value))
            .collect();
        let records = named
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        match named.is_empty() {
            true => Ok(()),
            false => self.archive.append_pax_extensions(records),
        }
    }
}

/// Those of users and file capabilities, which a volume may have.
fn xattrs(file: &OwnedFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; MAX_XATTR];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_owned(), value));
            }
            // It is gone by now.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_and_attributes_are_in_the_archive_and_nothing_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("deep")).unwrap();
        let mut file = File::create(path("deep/file")).unwrap();
        file.write_all(b"content").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let has_xattrs = rustix::fs::fsetxattr(&file, "user.note", b"a=\0b", flags).is_ok();
        std::fs::hard_link(path("deep/file"), path("deep/same")).unwrap();
        std::os::unix::fs::symlink("/etc", path("out")).unwrap();
        let root = rustix::fs::openat(CWD, folder.path(), folder_flags(), Mode::empty()).unwrap();
        let mut bytes = Vec::new();
        dump_folder(&root, &mut bytes).unwrap();

        let mut archive = tar::Archive::new(bytes.as_slice());
        let (mut kinds, mut notes) = (Vec::new(), Vec::new());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let pax = entry.pax_extensions().unwrap();
            for record in pax.into_iter().flatten().map(Result::unwrap) {
                notes.push((
                    record.key().unwrap().to_owned(),
                    record.value_bytes().to_vec(),
                ));
            }
            kinds.push(entry.header().entry_type());
        }
        assert_eq!(kinds[0], EntryType::Directory);
        for kind in [EntryType::Regular, EntryType::Link, EntryType::Symlink] {
            assert_eq!(
                kinds.iter().filter(|found| **found == kind).count(),
                1,
                "{kind:?}"
            );
        }
        assert_eq!(kinds.len(), 5, "{kinds:?}");
        if has_xattrs {
            let note = ("SCHILY.xattr.user.note".to_owned(), b"a=\0b".to_vec());
            assert_eq!(notes, [note]);
        }
    }
}
