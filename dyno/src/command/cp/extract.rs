//! A tar stream of a dyno's files put here.
//!
//! A dyno has made these names and links, so nothing is followed and nothing is
//! made outside of the target: each folder is opened beneath it, through no link
//! (P1). Files are the caller's, without setuid and setgid bits; what is no
//! file, folder or link is left out, devices first of all. Names are bounded
//! (P15).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat, openat2,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

/// The longest name in an archive, and the longest target of a link.
const MAX_NAME: u64 = 64 * 1024;

/// Puts the only top of an archive at `to`: into it and called `name` where it is
/// a folder, else called what `to` is called. How much was left out.
pub(super) fn extract(from: impl Read, to: &Path, name: &Path) -> io::Result<u64> {
    let (target, top) = match openat(CWD, to, FOLDER, Mode::empty()) {
        Ok(folder) => (folder, name.to_owned()),
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let parent = match to.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            (openat(CWD, parent, FOLDER, Mode::empty())?, name.into())
        }
        Err(errno) => return Err(errno.into()),
    };
    let mut left_out = 0;
    let (mut long_name, mut long_link) = (None, None);
    for entry in Archive::new(from).entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::GNULongName => long_name = Some(text(&mut entry)?),
            EntryType::GNULongLink => long_link = Some(text(&mut entry)?),
            _ => {
                let path = long_name.take();
                let path = path.unwrap_or_else(|| entry.path_bytes().into_owned());
                let link = long_link.take();
                let link = link.or_else(|| entry.link_name_bytes().map(|link| link.into_owned()));
                let path = renamed(&path, &top)?;
                left_out += u64::from(!put(&target, &mut entry, &path, link)?);
            }
        }
    }
    Ok(left_out)
}

/// The name of an entry with another first part, of ordinary parts only.
fn renamed(path: &[u8], top: &Path) -> io::Result<PathBuf> {
    let mut renamed = top.to_owned();
    let parts = path.split(|byte| *byte == b'/');
    for part in parts.filter(|part| !matches!(*part, b"" | b".")).skip(1) {
        if part == b".." {
            let shown = String::from_utf8_lossy(path).into_owned();
            let message = format!("the archive has the name {shown:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        renamed.push(OsStr::from_bytes(part));
    }
    Ok(renamed)
}

/// Makes what the entry says; whether it is something that is made here.
fn put(
    target: &OwnedFd,
    entry: &mut Entry<'_, impl Read>,
    path: &Path,
    link: Option<Vec<u8>>,
) -> io::Result<bool> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidData)?;
    let header = entry.header();
    let mode = Mode::from_raw_mode(header.mode()? & 0o777);
    let mtime = Timespec {
        tv_sec: i64::try_from(header.mtime()?).unwrap_or(0),
        tv_nsec: 0,
    };
    match header.entry_type() {
        EntryType::Directory => {
            let folder = folder(target, path)?;
            // Ours to fill, whatever it is to the dyno.
            rustix::fs::fchmod(folder, mode | Mode::RWXU)?;
        }
        EntryType::Regular | EntryType::Continuous => {
            let parent = folder(target, path.parent().unwrap_or(Path::new("")))?;
            make_way(&parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let private = Mode::RUSR | Mode::WUSR;
            let file = openat(&parent, name, flags | OFlags::CLOEXEC, private)?;
            let mut file = File::from(file);
            io::copy(entry, &mut file)?;
            rustix::fs::fchmod(&file, mode)?;
            let times = Timestamps {
                last_access: mtime,
                last_modification: mtime,
            };
            rustix::fs::futimens(&file, &times)?;
        }
        EntryType::Symlink => {
            let parent = folder(target, path.parent().unwrap_or(Path::new("")))?;
            make_way(&parent, name)?;
            rustix::fs::symlinkat(link.unwrap_or_default(), &parent, name)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Opens a folder beneath the target through no link, making what is missing.
fn folder(target: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let here = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    match openat2(target, here, FOLDER, Mode::empty(), beneath) {
        Ok(folder) => Ok(folder),
        Err(Errno::NOENT) => {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidData)?;
            let parent = folder(target, path.parent().unwrap_or(Path::new("")))?;
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
            Ok(openat(
                &parent,
                name,
                FOLDER | OFlags::NOFOLLOW,
                Mode::empty(),
            )?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what has this name, but no folder, and nothing that others talk to by it:
/// who means `/dev/null` does not mean to replace it.
fn make_way(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let kind = found.map(|found| FileType::from_raw_mode(found.st_mode));
    if matches!(
        kind,
        Ok(FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket)
    ) {
        let message = format!(
            "{} is a device, a pipe or a socket; nothing is put in its place",
            name.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The name that an extension header holds.
fn text(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    entry.take(MAX_NAME).read_to_end(&mut text)?;
    while text.last() == Some(&0) {
        text.pop();
    }
    Ok(text)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    use super::*;

    /// A folder that goes with the test, and one beside it that must stay as it is.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = format!("dyno-extract-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(folder);
            fs::create_dir_all(path.join("target")).unwrap();
            fs::create_dir_all(path.join("outside")).unwrap();
            Self(path)
        }

        fn extract(&self, entries: &[(&str, EntryType, u32, &str)]) -> io::Result<u64> {
            let mut archive = tar::Builder::new(Vec::new());
            for (name, kind, mode, text) in entries {
                let mut header = tar::Header::new_gnu();
                let gnu = header.as_gnu_mut().unwrap();
                gnu.name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_mode(*mode);
                header.set_mtime(1);
                let content: &[u8] = match kind {
                    EntryType::Symlink | EntryType::Link => {
                        header.set_link_name_literal(text).unwrap();
                        b""
                    }
                    _ => text.as_bytes(),
                };
                header.set_size(content.len() as u64);
                header.set_cksum();
                archive.append(&header, content).unwrap();
            }
            let bytes = archive.into_inner().unwrap();
            extract(bytes.as_slice(), &self.0.join("target"), Path::new("copy"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn files_are_here_without_setuid_bits_and_devices_are_not() {
        let folder = Folder::new("plain");
        let left_out = folder.extract(&[
            ("top", EntryType::Directory, 0o500, ""),
            ("top/file", EntryType::Regular, 0o6755, "text"),
            ("top/link", EntryType::Symlink, 0o777, "/etc/passwd"),
            ("top/null", EntryType::Char, 0o666, ""),
            ("top/pipe", EntryType::Fifo, 0o666, ""),
        ]);
        assert_eq!(left_out.unwrap(), 2);
        let copy = folder.0.join("target/copy");
        let meta = fs::metadata(copy.join("file")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "text");
        let link = fs::read_link(copy.join("link")).unwrap();
        assert_eq!(link, Path::new("/etc/passwd"));
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 2);
    }

    #[test]
    fn nothing_takes_the_place_of_a_pipe() {
        let folder = Folder::new("pipe");
        let pipe = folder.0.join("target/copy");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).unwrap();
        for (kind, text) in [(EntryType::Regular, "text"), (EntryType::Symlink, "/x")] {
            let refused = folder.extract(&[("top", kind, 0o644, text)]).unwrap_err();
            assert!(
                refused.to_string().contains("copy is a device"),
                "{refused}"
            );
        }
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn no_name_and_no_link_leads_out_of_the_target() {
        let folder = Folder::new("hostile");
        let outside = folder.0.join("outside");
        let outside_text = outside.to_string_lossy().into_owned();
        for hostile in [
            "top/../../outside/a",
            "../../outside/b",
            "top/out/c",
            "/x/out/d",
        ] {
            let entries = [
                ("top", EntryType::Directory, 0o755, ""),
                ("top/out", EntryType::Symlink, 0o777, outside_text.as_str()),
                (hostile, EntryType::Regular, 0o644, "escaped"),
            ];
            folder.extract(&entries).expect_err(hostile);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{hostile}");
        }
        // The file takes the place of the link, not of what it leads to.
        let canary = outside.join("canary");
        fs::File::create(&canary).unwrap();
        let canary_text = canary.to_string_lossy().into_owned();
        let entries = [
            ("top/x", EntryType::Symlink, 0o777, canary_text.as_str()),
            ("top/x", EntryType::Regular, 0o644, "escaped"),
            ("top/hard", EntryType::Link, 0o644, canary_text.as_str()),
        ];
        assert_eq!(folder.extract(&entries).unwrap(), 1);
        assert_eq!(fs::read(&canary).unwrap(), b"");
    }
}
