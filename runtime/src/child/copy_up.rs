//! What a tmpfs hides, copied into it first (`tmpcopyup`).
//!
//! Names come one by one out of folders that are open, and no link is followed,
//! so the copy never leaves the folder (P1). All buffers are on the stack.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, chownat, fchmod,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat, openat, readlinkat_raw,
    sendfile, statat, symlinkat,
};
use rustix::io::{Errno, Result};

/// Folders within folders, as many as the stack surely holds (P15).
const DEPTH_MAX: u32 = 128;

/// Bytes of file names read at once.
const NAMES: usize = 8192;

/// Bytes copied at once.
const CHUNK: usize = 1 << 30;

/// Copies what is in `from`, with owners, modes, times and extended attributes.
pub(super) fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<()> {
    let into = openat(into, c".", READ, Mode::empty())?;
    folder(&openat(from, c".", READ, Mode::empty())?, &into, DEPTH_MAX)
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn folder(from: &OwnedFd, into: &OwnedFd, depth: u32) -> Result<()> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); NAMES];
    let mut names = RawDir::new(from, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, into, name, depth)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, into: &OwnedFd, name: &CStr, depth: u32) -> Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let source = openat(from, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            mkdirat(into, name, Mode::RWXU)?;
            let copy = openat(into, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            folder(&source, &copy, depth)?;
            like(&source, &copy)
        }
        FileType::RegularFile => {
            let source = openat(from, name, READ, Mode::empty())?;
            // It may be another one by now.
            if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
                return Err(Errno::AGAIN);
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = openat(into, name, flags, Mode::RUSR | Mode::WUSR)?;
            while sendfile(&copy, &source, None, CHUNK)? > 0 {}
            like(&source, &copy)
        }
        FileType::Symlink => {
            let mut buffer = [0_u8; libc::PATH_MAX as usize + 1];
            let space = buffer.len() - 1;
            readlinkat_raw(from, name, &mut buffer[..space])?;
            let to = CStr::from_bytes_until_nul(&buffer);
            symlinkat(to.unwrap_or(c""), into, name)?;
            owned_as(&stat, into, name)
        }
        // A socket belongs to whoever listens.
        FileType::Socket => Ok(()),
        kind => {
            mknodat(into, name, kind, mode(&stat), stat.st_rdev)?;
            owned_as(&stat, into, name)
        }
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// Gives the copy what the source has beside its content; its mode last, as a
/// change of the owner takes some of it away.
fn like(source: &OwnedFd, copy: &OwnedFd) -> Result<()> {
    let stat = fstat(source)?;
    owned_as(&stat, copy, c"")?;
    attributes(source, copy)?;
    fchmod(copy, mode(&stat))?;
    let time = |seconds, nanoseconds: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    };
    futimens(copy, &times)
}

/// An owner that is not mapped stays who copies, as the kernel would say "nobody".
fn owned_as(stat: &Stat, folder: impl AsFd, name: &CStr) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match chownat(folder, name, Some(uid), Some(gid), flags) {
        Err(Errno::INVAL) => Ok(()),
        done => done,
    }
}

/// Extended attributes that a tmpfs takes; those of trust and security may not
/// be ours to give.
fn attributes(source: &OwnedFd, copy: &OwnedFd) -> Result<()> {
    let mut names = [0_u8; 4096];
    let length = match flistxattr(source, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut rest = &names[..length];
    while let Ok(name) = CStr::from_bytes_until_nul(rest) {
        rest = &rest[name.to_bytes_with_nul().len()..];
        let mut value = [0_u8; 4096];
        let length = fgetxattr(source, name, &mut value)?;
        match fsetxattr(
            copy,
            name,
            &value[..length],
            rustix::fs::XattrFlags::empty(),
        ) {
            Err(Errno::NOTSUP | Errno::PERM) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
