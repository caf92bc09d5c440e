//! A copy of a folder with all in it: owners, modes, times, extended attributes, hard
//! links, holes; by reflinks where the file system has them.
//!
//! Dynos have made these names and may be making more: folders are opened by descriptor
//! and name and nothing is followed (P1). What is copied to is nobody's yet. Sockets and
//! devices are left out, and so is what is mounted in the folder.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::room::{self, Room};

/// P15: deeper folders are refused; each level is two open files.
const MAX_DEPTH: usize = 512;
/// P15: bytes that are kept of files of more than one name.
const MAX_LINKS: usize = 128 << 20;
/// Bytes that such a file takes up besides its path.
const LINK: usize = 96;
/// The longest path that the kernel takes (`PATH_MAX`), with the zero at its end.
const MAX_PATH: usize = 4096;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// The largest list of names, and value, of extended attributes (`xattr(7)`).
const MAX_XATTR: usize = 64 << 10;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Bytes of all files, holes included.
    pub(super) bytes: u64,
    /// Every file that has any shares its blocks.
    pub(super) reflinked: bool,
}

/// Copies all that is in one folder, and the folder's own attributes, to another one,
/// which is empty. It survives a power cut when this returns.
///
/// # Errors
/// What the file system says; Interrupted where it is given up because `lasts` said so,
/// StorageFull where it would take what is left to others. The copy is incomplete then.
pub(super) fn copy(from: &Path, to: &Path, lasts: &dyn Fn() -> bool) -> io::Result<Copied> {
    let room = Room::of(to);
    let from = rustix::fs::openat(CWD, from, folder_flags(), Mode::empty())?;
    let to = rustix::fs::openat(CWD, to, folder_flags(), Mode::empty())?;
    let stat = rustix::fs::fstat(&from)?;
    let mut copy = Copy {
        root: to,
        lasts,
        room,
        device: stat.st_dev,
        links: HashMap::new(),
        links_size: 0,
        bytes: 0,
        can_reflink: true,
        has_copied: false,
        buffer: Vec::new(),
        names: vec![0; MAX_XATTR],
        value: vec![0; MAX_XATTR],
    };
    let root = rustix::io::dup(&copy.root)?;
    copy.folder(&from, &root, &[], 0)?;
    copy.attributes(&from, &root, &stat)?;
    rustix::fs::syncfs(&root)?;
    Ok(Copied {
        bytes: copy.bytes,
        reflinked: copy.can_reflink && !copy.has_copied && copy.bytes > 0,
    })
}

struct Copy<'a> {
    root: OwnedFd,
    lasts: &'a dyn Fn() -> bool,
    room: Room,
    device: u64,
    /// Files with more than one name, by inode, until all of them are seen.
    links: HashMap<u64, Linked>,
    links_size: usize,
    bytes: u64,
    can_reflink: bool,
    has_copied: bool,
    buffer: Vec<u8>,
    names: Vec<u8>,
    value: Vec<u8>,
}

/// A file that is copied under its first name.
struct Linked {
    path: Box<[u8]>,
    /// Names to come.
    names: u64,
}

impl Linked {
    fn size(&self) -> usize {
        LINK + self.path.len()
    }
}

impl Copy<'_> {
    fn must_last(&self) -> io::Result<()> {
        match (self.lasts)() {
            true => Ok(()),
            false => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    fn folder(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for found in Dir::read_from(from.as_fd())? {
            let found = found?;
            self.must_last()?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.to_bytes());
            self.name(from, to, name, inner, depth)?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        let looked = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = unless_gone(looked)? else {
            return Ok(());
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = folder_flags() | OFlags::NOFOLLOW;
                let opened = rustix::fs::openat(from, name, flags, Mode::empty());
                let Some(source) = unless_gone(opened)? else {
                    return Ok(());
                };
                let stat = rustix::fs::fstat(&source)?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
                if stat.st_dev == self.device {
                    self.folder(&source, &made, &path, depth + 1)?;
                }
                self.attributes(&source, &made, &stat)
            }
            _ if self.is_linked(&stat, to, name, &path)? => Ok(()),
            FileType::RegularFile => self.file(from, to, name),
            FileType::Symlink => {
                let read = rustix::fs::readlinkat(from, name, Vec::new());
                let Some(target) = unless_gone(read)? else {
                    return Ok(());
                };
                rustix::fs::symlinkat(&target, to, name)?;
                by_name(to, name, &stat)
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
                by_name(to, name, &stat)
            }
            _ => Ok(()),
        }
    }

    /// Makes it another name of a file that is copied already.
    fn is_linked(
        &mut self,
        stat: &Stat,
        to: &OwnedFd,
        name: &CStr,
        path: &[u8],
    ) -> io::Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.links.get_mut(&stat.st_ino) {
            rustix::fs::linkat(&self.root, &*first.path, to, name, AtFlags::empty())?;
            first.names -= 1;
            if first.names == 0 {
                self.links_size -= first.size();
                self.links.remove(&stat.st_ino);
            }
            return Ok(true);
        }
        let linked = Linked {
            path: path.into(),
            names: stat.st_nlink - 1,
        };
        self.links_size += linked.size();
        if path.len() >= MAX_PATH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!("a file of more than one name has a path of {MAX_PATH} bytes or more"),
            ));
        }
        if self.links_size > MAX_LINKS {
            return Err(io::Error::other(format!(
                "the paths of files of more than one name take more than {MAX_LINKS} bytes"
            )));
        }
        self.links.insert(stat.st_ino, linked);
        Ok(false)
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
        // Should it have become a fifo or a device meanwhile, nothing waits for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(from, name, flags, Mode::empty());
        let Some(source) = unless_gone(opened)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.bytes += size;
        if size > 0 && !self.reflink(&source, &made)? {
            self.has_copied = true;
            self.content(&source, &made, size)?;
        }
        self.attributes(&source, &made, &stat)
    }

    fn reflink(&mut self, from: &OwnedFd, to: &OwnedFd) -> io::Result<bool> {
        if !self.can_reflink {
            return Ok(false);
        }
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV) => {
                self.can_reflink = false;
                Ok(false)
            }
            // This one cannot: a swap file, or one that is not cached like others.
            Err(Errno::INVAL | Errno::TXTBSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies what is no hole, up to the size that the file had.
    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
        self.buffer.resize(CHUNK, 0);
        rustix::fs::ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(size);
            at = data;
            while at < hole {
                self.must_last()?;
                if !self.room.is_left() {
                    return Err(room::full());
                }
                let wanted = usize::try_from(hole - at).unwrap_or(CHUNK).min(CHUNK);
                let read = rustix::io::pread(from, &mut self.buffer[..wanted], at)?;
                if read == 0 {
                    return Ok(());
                }
                write_all(to, &self.buffer[..read], at)?;
                at += read as u64;
            }
        }
        Ok(())
    }

    /// Owner first: a change of it clears setuid bits and file capabilities (chown(2)).
    fn attributes(&mut self, from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = owner(stat);
        rustix::fs::fchown(to, uid, gid)?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        let length = match rustix::fs::flistxattr(from, &mut self.names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(error) => return Err(error.into()),
        };
        for name in self.names[..length].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            match rustix::fs::fgetxattr(from, name, &mut self.value[..]) {
                Ok(length) => {
                    let value = &self.value[..length];
                    rustix::fs::fsetxattr(to, name, value, XattrFlags::empty())?;
                }
                // It has gone meanwhile.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rustix::fs::futimens(to, &times(stat))?)
    }
}

/// `None` where a name of the source has gone meanwhile.
fn unless_gone<T>(found: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(Errno::NOENT) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(to, bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// Owner and times of what cannot be opened.
fn by_name(to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: i64::try_from(stat.st_atime_nsec).unwrap_or(0),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Seek, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_copy_is_the_same_to_the_last_attribute() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(&to).unwrap();
        let mut sparse = File::create(from.join("sparse")).unwrap();
        sparse.write_all(b"begin").unwrap();
        sparse.seek(io::SeekFrom::Start(64 << 20)).unwrap();
        sparse.write_all(b"end").unwrap();
        sparse.set_len(80 << 20).unwrap();
        let mut file = File::create(from.join("deep/file")).unwrap();
        file.write_all(b"content").unwrap();
        let xattr = |name: &str, value: &[u8]| {
            rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty()).is_ok()
        };
        // Some file systems of temporary files have none.
        let has_xattrs = xattr("user.note", b"a\0b");
        chown(from.join("deep/file"), Some(1000), Some(2000)).unwrap();
        let mode = fs::Permissions::from_mode(0o4751);
        fs::set_permissions(from.join("deep/file"), mode).unwrap();
        fs::hard_link(from.join("deep/file"), from.join("deep/er/same")).unwrap();
        symlink("/nowhere/../x", from.join("link")).unwrap();
        rustix::fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();
        let long_ago = Timespec {
            tv_sec: 1_000_000,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        };
        rustix::fs::futimens(&file, &times).unwrap();

        let copied = copy(&from, &to, &|| true).unwrap();
        assert_eq!(copied.bytes, (80 << 20) + 7);
        let look = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        let same = look("deep/file");
        assert_eq!(
            (same.uid(), same.gid(), same.mode() & 0o7777),
            (1000, 2000, 0o4751)
        );
        assert_eq!((same.mtime(), same.mtime_nsec()), (1_000_000, 123_456_789));
        assert_eq!(same.ino(), look("deep/er/same").ino());
        assert_eq!(fs::read(to.join("deep/file")).unwrap(), b"content");
        if has_xattrs {
            let copy = File::open(to.join("deep/file")).unwrap();
            let mut value = [0; 8];
            let length = rustix::fs::fgetxattr(&copy, "user.note", &mut value[..]).unwrap();
            assert_eq!(&value[..length], b"a\0b");
        }
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("/nowhere/../x")
        );
        let fifo = look("fifo");
        assert_eq!(fifo.mode(), 0o010_700);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
        let sparse = look("sparse");
        assert_eq!(sparse.len(), 80 << 20);
        assert!(
            sparse.blocks() * 512 < 1 << 20,
            "holes were filled: {}",
            sparse.blocks()
        );
        let read = fs::read(to.join("sparse")).unwrap();
        assert_eq!(&read[64 << 20..(64 << 20) + 3], b"end");
    }

    #[test]
    fn nothing_is_followed_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        File::create(folder.path().join("outside/canary")).unwrap();
        symlink(folder.path().join("outside"), from.join("out")).unwrap();
        assert_eq!(copy(&from, &to, &|| true).unwrap(), Copied::default());
        assert!(fs::symlink_metadata(to.join("out")).unwrap().is_symlink());
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn what_is_kept_of_linked_files_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        File::create(from.join("a")).unwrap();
        fs::hard_link(from.join("a"), from.join("b")).unwrap();
        let stat = rustix::fs::stat(from.join("a")).unwrap();
        let root = rustix::fs::openat(CWD, &to, folder_flags(), Mode::empty()).unwrap();
        let other = rustix::io::dup(&root).unwrap();
        let mut copy = Copy {
            root,
            lasts: &|| true,
            room: Room::of(Path::new("/")),
            device: stat.st_dev,
            links: HashMap::new(),
            links_size: 0,
            bytes: 0,
            can_reflink: false,
            has_copied: false,
            buffer: Vec::new(),
            names: Vec::new(),
            value: Vec::new(),
        };
        let long = vec![b'x'; MAX_PATH];
        assert!(copy.is_linked(&stat, &other, c"a", &long).is_err());
        copy.links_size = 0;
        assert!(!copy.is_linked(&stat, &other, c"a", b"a").unwrap());
        File::create(to.join("a")).unwrap();
        assert!(copy.is_linked(&stat, &other, c"b", b"b").unwrap());
        assert!(copy.links.is_empty() && copy.links_size == 0);
        copy.links_size = MAX_LINKS;
        assert!(copy.is_linked(&stat, &other, c"a", b"a").is_err());
    }

    /// A copy that was to be of one moment and is given up on the way.
    #[test]
    fn a_copy_that_does_not_last_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        File::create(from.join("a")).unwrap();
        let given_up = copy(&from, &to, &|| false).unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::Interrupted);
    }

    /// Only the source may lose names while it is copied.
    #[test]
    fn a_copy_whose_own_folder_goes_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::create_dir(&to).unwrap();
        File::create(from.join("deep/a")).unwrap();
        let lasts = || {
            if to.exists() && fs::remove_dir_all(&to).is_err() {
                return false;
            }
            true
        };
        assert_eq!(
            copy(&from, &to, &lasts).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
