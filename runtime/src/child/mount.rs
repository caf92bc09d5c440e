//! Mounts, by descriptors inside the container's root (P1).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, makedev, mkdirat, openat,
    openat2,
};
use rustix::io::{Errno, Result};
use rustix::mount::{
    MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

use crate::plan::{Kind, MountStep, Source, Target, file_system};
use crate::sys::mount::{Attributes, mount_setattr};

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// How often a path is looked up while renames disturb it.
const LOOK_UP_TRIES: u32 = 1000;

/// Sets the propagation of every mount.
pub(super) fn propagation(propagation: u64) -> Result<()> {
    let attributes = Attributes {
        propagation,
        ..Attributes::default()
    };
    mount_setattr(CWD, c"/", true, attributes)
}

/// Attaches the root file system at a folder of the host and opens it.
pub(super) fn attach_root(mount: BorrowedFd<'_>, at: &CStr) -> Result<OwnedFd> {
    move_mount(mount, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, at, flags, Mode::empty())
}

/// Makes one mount, its target first where it is missing.
pub(super) fn mount(root: BorrowedFd<'_>, step: &MountStep) -> Result<()> {
    let target = resolve(root, &step.target)?;
    match &step.source {
        Source::Detached(mount) => attach(mount.as_fd(), target.as_fd()),
        Source::FileSystem {
            kind,
            device,
            parameters,
            attributes,
        } => {
            let mount = file_system(kind, Some(device), parameters, *attributes)?;
            attach(mount.as_fd(), target.as_fd())
        }
    }
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", empty)
}

/// Opens the target inside the root, making what is missing of it.
pub(super) fn resolve(root: BorrowedFd<'_>, target: &Target) -> Result<OwnedFd> {
    match look_up(root, target, target.path()) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut parent = openat(root, c".", flags, Mode::empty())?;
    for (index, (prefix, name)) in target.prefixes().enumerate() {
        let last = index + 1 == target.depth();
        parent = match look_up(root, target, prefix) {
            Err(Errno::NOENT) => {
                let kind = if last { target.kind } else { Kind::Folder };
                match make(parent.as_fd(), name, kind) {
                    // Somebody else on a shared folder was faster, or it is a
                    // link to nowhere, which the next look says.
                    Ok(()) | Err(Errno::EXIST) => look_up(root, target, prefix)?,
                    Err(errno) => return Err(errno),
                }
            }
            found => found?,
        };
    }
    Ok(parent)
}

fn look_up(root: BorrowedFd<'_>, target: &Target, path: &CStr) -> Result<OwnedFd> {
    let mut rules = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if target.no_symlinks {
        rules |= ResolveFlags::NO_SYMLINKS;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    // While something is renamed anywhere, the kernel cannot tell whether `..`
    // of a link leads out of the root, and says so.
    let mut tries = 0;
    loop {
        match openat2(root, path, flags, Mode::empty(), rules) {
            Err(Errno::AGAIN) if tries < LOOK_UP_TRIES => tries += 1,
            found => return found,
        }
    }
}

fn make(parent: BorrowedFd<'_>, name: &CStr, kind: Kind) -> Result<()> {
    match kind {
        Kind::Folder => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Writes a sysctl through a procfs of our own, which no image can redirect (P2).
pub(super) fn sysctl(path: &CStr, value: &[u8]) -> Result<()> {
    let proc = file_system(c"proc", None, &[], MountAttrFlags::empty())?;
    if fstatfs(&proc)?.f_type.cast_unsigned() != PROC_SUPER_MAGIC {
        return Err(Errno::XDEV);
    }
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat2(&proc, c"sys", flags, Mode::empty(), rules)?;
    let file = openat2(
        &folder,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        rules,
    )?;
    rustix::io::write(&file, value).map(drop)
}

/// Hides a path that exists; one that does not needs no hiding.
pub(super) fn mask(root: BorrowedFd<'_>, target: &Target) -> Result<()> {
    let Some(path) = existing(root, target)? else {
        return Ok(());
    };
    let cover = if FileType::from_raw_mode(fstat(&path)?.st_mode).is_dir() {
        file_system(c"tmpfs", None, &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?
    } else {
        null_device(root)?
    };
    attach(cover.as_fd(), path.as_fd())
}

/// A copy of the container's `/dev/null`, checked to be just that.
fn null_device(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let rules = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let null = openat2(
        root,
        c"dev/null",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        rules,
    )?;
    let stat = fstat(&null)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !device || stat.st_rdev != makedev(1, 3) {
        return Err(Errno::NODEV);
    }
    copy(null.as_fd(), false)
}

/// Makes a path that exists read-only, with all that is mounted below it.
pub(super) fn read_only(root: BorrowedFd<'_>, target: &Target) -> Result<()> {
    let Some(path) = existing(root, target)? else {
        return Ok(());
    };
    let tree = copy(path.as_fd(), true)?;
    let set = libc::MOUNT_ATTR_RDONLY;
    mount_setattr(
        tree.as_fd(),
        c"",
        true,
        Attributes {
            set,
            ..Attributes::default()
        },
    )?;
    attach(tree.as_fd(), path.as_fd())
}

fn existing(root: BorrowedFd<'_>, target: &Target) -> Result<Option<OwnedFd>> {
    match look_up(root, target, target.path()) {
        Ok(path) => Ok(Some(path)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A detached copy of the mount at `path`.
pub(super) fn copy(path: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(path, c"", flags)
}

/// Attaches a copy of what `source` is open on at a target inside the root.
pub(super) fn bind(root: BorrowedFd<'_>, source: BorrowedFd<'_>, target: &Target) -> Result<()> {
    let target = resolve(root, target)?;
    attach(copy(source, false)?.as_fd(), target.as_fd())
}

/// Makes `root` the root of the mount namespace and lets the old one go.
pub(super) fn pivot_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    // With both names the same, the old root ends up on top of the new one,
    // and no folder for it is needed (pivot_root(2), NOTES).
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// Gives what `fd` is open on to this user.
pub(super) fn give_to(fd: BorrowedFd<'_>, owner: rustix::fs::Uid) -> Result<()> {
    rustix::fs::chownat(fd, c"", Some(owner), None, AtFlags::EMPTY_PATH)
}
