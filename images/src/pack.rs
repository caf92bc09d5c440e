//! One path of the file system as a tar stream: the inside of `dyno-unpack pack`, which runs
//! among a dyno's files (`dyno-runtime inside`) and so sees what the dyno sees.
//!
//! Nothing is followed but the folders that lead to the path, and each name is acted on by the
//! folder's descriptor (P1). Devices, sockets and the kernel's own file systems are left out. A
//! file that changes meanwhile has the length that it had when it was opened. Memory does not
//! depend on what there is (P15).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

/// How deep folders are packed: each level is an open file.
const MAX_DEPTH: usize = 256;

/// What the root itself is called in an archive.
const ROOT: &str = "rootfs";

/// Magic numbers of what is no storage: procfs, sysfs, cgroup, cgroup2, devpts, mqueue.
const KERNELS_OWN: [i64; 6] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
];

/// The exit code where there is no such path.
pub(crate) const NOT_FOUND: u8 = 3;

/// Writes the path as an archive whose names begin with its last part.
///
/// # Errors
/// What cannot be opened, read or written.
pub(crate) fn pack(path: &str, to: impl Write) -> io::Result<()> {
    let path = Path::new(path);
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, Some(name)),
        (None, _) => (Path::new("/"), None),
        (_, None) => return Err(Errno::INVAL.into()),
    };
    // Its parents as the dyno resolves them; it is what the name says, even a link.
    let parent = rustix::fs::open(parent, folder_flags(), Mode::empty())?;
    let stat = match name {
        Some(name) => rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?,
        None => rustix::fs::fstat(&parent)?,
    };
    // Not before: an archive that is dropped writes its end.
    let mut archive = Builder::new(BufWriter::with_capacity(64 << 10, to));
    match name {
        Some(name) => {
            let path = Path::new(name);
            let packed = Packed {
                parent: &parent,
                name,
                path,
            };
            packed.write(&mut archive, &stat, 0)?;
        }
        None => {
            let path = Path::new(ROOT);
            let kind = EntryType::Directory;
            entry(&mut archive, &stat, kind, path, 0, io::empty())?;
            inside(&mut archive, parent, path, 0)?;
        }
    }
    archive.into_inner()?.flush()
}

/// A name in an open folder, and what it is called in the archive.
struct Packed<'a> {
    parent: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Packed<'_> {
    fn write(
        &self,
        archive: &mut Builder<impl Write>,
        stat: &Stat,
        depth: usize,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = folder_flags() | OFlags::NOFOLLOW;
                let folder = rustix::fs::openat(self.parent, self.name, flags, Mode::empty())?;
                if is_kernels_own(&folder)? {
                    return Ok(());
                }
                entry(
                    archive,
                    stat,
                    EntryType::Directory,
                    self.path,
                    0,
                    io::empty(),
                )?;
                inside(archive, folder, self.path, depth + 1)
            }
            FileType::RegularFile => self.file(archive),
            FileType::Symlink => self.symlink(archive, stat),
            FileType::Fifo => entry(archive, stat, EntryType::Fifo, self.path, 0, io::empty()),
            _ => Ok(()),
        }
    }

    fn file(&self, archive: &mut Builder<impl Write>) -> io::Result<()> {
        // Should it have become a fifo or a device meanwhile, nothing waits for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.parent, self.name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let content = File::from(file).chain(io::repeat(0)).take(size);
        entry(archive, &stat, EntryType::Regular, self.path, size, content)
    }

    fn symlink(&self, archive: &mut Builder<impl Write>, stat: &Stat) -> io::Result<()> {
        let target = rustix::fs::readlinkat(self.parent, self.name, Vec::new())?;
        let mut header = header(stat, EntryType::Symlink, 0);
        let target = OsStr::from_bytes(target.as_bytes());
        // Literally where it fits: a link says what it says.
        if header.set_link_name_literal(target.as_bytes()).is_ok() {
            return archive.append_data(&mut header, self.path, io::empty());
        }
        archive.append_link(&mut header, self.path, target)
    }
}

/// Everything in an open folder; what goes meanwhile is not there.
fn inside(
    archive: &mut Builder<impl Write>,
    folder: OwnedFd,
    path: &Path,
    depth: usize,
) -> io::Result<()> {
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
        let inner: PathBuf = path.join(name);
        let packed = Packed {
            parent: &folder,
            name,
            path: &inner,
        };
        let written = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .and_then(|stat| packed.write(archive, &stat, depth));
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn entry(
    archive: &mut Builder<impl Write>,
    stat: &Stat,
    kind: EntryType,
    path: &Path,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    archive.append_data(&mut header(stat, kind, size), path, content)
}

pub(crate) fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

fn is_kernels_own(folder: &OwnedFd) -> io::Result<bool> {
    let magic = rustix::fs::fstatfs(folder)?.f_type;
    Ok(KERNELS_OWN.contains(&magic))
}

pub(crate) fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_packed_as_it_is_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        let long = "n".repeat(200);
        std::fs::create_dir_all(top.join("inner")).unwrap();
        std::fs::File::create(top.join("inner/file"))
            .unwrap()
            .write_all(b"content")
            .unwrap();
        std::fs::File::create(top.join(&long)).unwrap();
        symlink("/etc/../etc//passwd", top.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            top.join("fifo"),
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let mut bytes = Vec::new();
        pack(&top.to_string_lossy(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found: Vec<(String, EntryType, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                content.push_str(std::str::from_utf8(&link).unwrap());
                let path = entry.path().unwrap().to_string_lossy().into_owned();
                (path, entry.header().entry_type(), content)
            })
            .collect();
        found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let expected = [
            ("top", EntryType::Directory, ""),
            ("top/fifo", EntryType::Fifo, ""),
            ("top/inner", EntryType::Directory, ""),
            ("top/inner/file", EntryType::Regular, "content"),
            ("top/link", EntryType::Symlink, "/etc/../etc//passwd"),
            (&format!("top/{long}"), EntryType::Regular, ""),
        ];
        let expected =
            expected.map(|(path, kind, content)| (path.to_owned(), kind, content.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such").to_string_lossy().into_owned();
        let error = pack(&path, io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
