//! Mounts, by descriptors inside the container's root (P1).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fstat, fstatfs,
    makedev, mkdirat, openat, openat2,
};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_reconfigure,
    fspick, move_mount, open_tree, unmount,
};

use super::copy_up;
use crate::plan::{Finish, Kind, MountStep, Remount, Source, Target, file_system, set_parameters};
use crate::spec::process::Label;
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
    // P2: a link of the image may lead into procfs, where nothing is hidden.
    if !step.target.in_proc && is_procfs(target.as_fd())? {
        return Err(Errno::PERM);
    }
    match &step.source {
        Source::Detached(mount) => attach(mount.as_fd(), target.as_fd()),
        Source::FileSystem {
            kind,
            device,
            parameters,
            attributes,
            finish,
        } => {
            let mount = file_system(kind, Some(device), parameters, *attributes)?;
            self::finish(mount.as_fd(), target.as_fd(), finish)?;
            attach(mount.as_fd(), target.as_fd())
        }
    }
}

fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(fstatfs(fd)?.f_type.cast_unsigned() == PROC_SUPER_MAGIC)
}

/// What is to be done while nobody sees the new file system.
fn finish(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, finish: &Finish) -> Result<()> {
    if finish.copy_up {
        copy_up::copy(target, mount)?;
    }
    if finish.as_target {
        let stat = fstat(target)?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let empty = AtFlags::EMPTY_PATH;
        match chownat(mount, c"", Some(owner.0), Some(owner.1), empty) {
            // An owner that is not mapped stays who mounts.
            Err(Errno::INVAL) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
        // By a descriptor that is open, as there is no path to it.
        let open = openat(mount, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        fchmod(&open, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    if finish.attributes.is_empty() {
        return Ok(());
    }
    mount_setattr(mount, c"", false, finish.attributes)
}

/// Changes the mount that is at a target.
pub(super) fn remount(root: BorrowedFd<'_>, remount: &Remount) -> Result<()> {
    let target = look_up(root, &remount.target, remount.target.path())?;
    if !remount.parameters.is_empty() {
        let empty = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let context = fspick(&target, c"", empty)?;
        set_parameters(context.as_fd(), &remount.parameters)?;
        fsconfig_reconfigure(context.as_fd())?;
    }
    for (recursive, attributes) in [(false, remount.attributes), (true, remount.recursive)] {
        if !attributes.is_empty() {
            mount_setattr(target.as_fd(), c"", recursive, attributes)?;
        }
    }
    Ok(())
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
    resolve_to(root, target, target.depth())
}

/// Opens the folder that the target lies in, making what is missing of it.
pub(super) fn resolve_parent(root: BorrowedFd<'_>, target: &Target) -> Result<OwnedFd> {
    resolve_to(root, target, target.depth().saturating_sub(1))
}

/// Opens as many components of the target.
fn resolve_to(root: BorrowedFd<'_>, target: &Target, depth: usize) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut parent = openat(root, c".", flags, Mode::empty())?;
    for (index, (prefix, name)) in target.prefixes().take(depth).enumerate() {
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

pub(super) fn look_up(root: BorrowedFd<'_>, target: &Target, path: &CStr) -> Result<OwnedFd> {
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
    if !is_procfs(proc.as_fd())? {
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

/// Writes a label for the next program to the thread's own attributes (P2):
/// through a procfs of our own, or where the kernel gives none, the container's,
/// checked to be whole where we go.
pub(super) fn label(root: BorrowedFd<'_>, label: &Label) -> Result<()> {
    let proc = match file_system(c"proc", None, &[], MountAttrFlags::empty()) {
        Ok(proc) => proc,
        Err(Errno::PERM) => {
            let rules = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(root, c"proc", flags, Mode::empty(), rules)?
        }
        Err(errno) => return Err(errno),
    };
    if !is_procfs(proc.as_fd())? || fstat(&proc)?.st_ino != PROC_ROOT_INO {
        return Err(Errno::XDEV);
    }
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = |path| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        openat2(&proc, path, flags, Mode::empty(), rules)
    };
    let [file, older] = label.files;
    let file = match open(file) {
        Err(Errno::NOENT) => open(older)?,
        opened => opened?,
    };
    rustix::io::write(&file, label.text.to_bytes()).map(drop)
}

/// `PROC_ROOT_INO` of `<linux/proc_fs.h>`.
const PROC_ROOT_INO: u64 = 1;

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

/// Moves `root` over the root of the mount namespace and changes into it.
pub(super) fn move_root(root: BorrowedFd<'_>, hide: &[CString]) -> Result<()> {
    for path in hide {
        match unmount(
            path.as_c_str(),
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        ) {
            // It went with what it was mounted on.
            Ok(()) | Err(Errno::NOENT) => {}
            // Not ours to unmount, in a user namespace.
            Err(Errno::INVAL | Errno::PERM) => {
                let cover = file_system(c"tmpfs", None, &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                match openat(CWD, path.as_c_str(), flags, Mode::empty()) {
                    Ok(target) => attach(cover.as_fd(), target.as_fd())?,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    rustix::process::fchdir(root)?;
    move_mount(
        root,
        c"",
        CWD,
        c"/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")
}

/// Gives what `fd` is open on to this user.
pub(super) fn give_to(fd: BorrowedFd<'_>, owner: rustix::fs::Uid) -> Result<()> {
    rustix::fs::chownat(fd, c"", Some(owner), None, AtFlags::EMPTY_PATH)
}
