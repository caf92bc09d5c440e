//! The file that this program runs from, kept out of a container's reach (P5).
//!
//! A process of ours that is about to become a container's shows it our file
//! as `/proc/pid/exe`. Where the container's root is the host's, he may open
//! that, wait until nobody executes it, and write (CVE-2019-5736). So we
//! run from a read-only copy of the *mount* of our file. The copy is attached
//! nowhere: with its descriptor closed no path leads to it, and
//! `mount_setattr(2)` does not take it any more, so that nobody makes it writable
//! again.
//!
//! `dyno-runtime` has changed over to it before its C library began, in
//! `sys::entry`. What is here makes sure of it, by executing ourselves once more,
//! and says why where it could not be.
//!
//! An ordinary user can't make such a copy. He executes a copy of the *file*, in
//! memory and sealed (`memfd_create(2)`): it costs a millisecond or two.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals,
    fstatvfs, memfd_create, openat,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::mount::{Attributes, mount_setattr};
use crate::sys::process::{CStringArray, fexecve};

/// Gives this process its name again: executed by descriptor, it is called by that
/// descriptor's number.
pub(crate) fn show_name() {
    // It is seen in ps(1) and nowhere else.
    rustix::thread::set_name(c"dyno-runtime").ok();
}

/// Returns in a process that runs from a file which can't be opened for
/// writing. That process may be this one, executed anew with the same arguments.
///
/// # Errors
/// When there is no such file to be had: nothing of a container must be
/// started then (P18).
pub(crate) fn put_out_of_reach() -> io::Result<()> {
    let file = current()?;
    if is_read_only(&file)? || is_sealed()? {
        return Ok(());
    }
    match read_only_copy(&file) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            execute(&sealed_copy()?, None)
        }
        copy => execute(&copy?, None),
    }
}

/// The file that this process runs from, to be executed by descriptor.
pub(crate) fn current() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat(CWD, "/proc/self/exe", flags, Mode::empty())
}

/// Executes a sealed copy of this program, with one more argument: for a process
/// that has entered a user namespace since it was executed. From then on its memory
/// belongs to that namespace, whose owner may look into it and whose children may not.
///
/// # Errors
/// When there is no such copy to be had.
pub(crate) fn execute_again(argument: String) -> io::Result<()> {
    execute(&sealed_copy()?, Some(argument))
}

fn execute(program: &OwnedFd, more: Option<String>) -> io::Result<()> {
    let mut arguments = std::env::args_os().map(OsStringExt::into_vec);
    let name = arguments.next();
    let more = more.map(String::into_bytes);
    let arguments = strings(name.into_iter().chain(more).chain(arguments))?;
    let environment = strings(std::env::vars_os().map(|(name, value)| {
        let name = name.into_vec();
        [&name[..], b"=", &value.into_vec()].concat()
    }))?;
    Err(fexecve(program.as_fd(), &arguments, &environment).into())
}

/// The program at `path`, to be executed by descriptor: what runs from it need
/// not put itself out of reach. For a daemon that executes it again and again.
///
/// # Errors
/// When it cannot be opened, or the kernel makes no such copy.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    read_only_copy(&openat(CWD, path, flags, Mode::empty())?)
}

fn read_only_copy(file: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(file, c"", flags)?;
    let read_only = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    mount_setattr(copy.as_fd(), c"", false, read_only)?;
    // Or we would execute ourselves for ever.
    match is_read_only(&copy)? {
        true => Ok(copy),
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// What keeps a file in memory as it is, for ever.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 wants to be told that it will be executed; 6.1 does not know the flag.
    let copy = match memfd_create(c"dyno-runtime", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(c"dyno-runtime", flags)?,
        made => made?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    // The kernel executes nothing that is open for writing.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Whether we run from such a copy.
fn is_sealed() -> io::Result<bool> {
    let file = File::open("/proc/self/exe")?;
    match fcntl_get_seals(&file) {
        Ok(seals) => Ok(seals.contains(SEALS)),
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// By its mount or its file system. Whoever may change either for the host's
/// mount namespace needs no program of ours.
fn is_read_only(file: &OwnedFd) -> io::Result<bool> {
    Ok(fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn strings(texts: impl Iterator<Item = Vec<u8>>) -> io::Result<CStringArray> {
    let strings = texts.map(CString::new).collect::<Result<_, _>>()?;
    Ok(CStringArray::new(strings))
}
