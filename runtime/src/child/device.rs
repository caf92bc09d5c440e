//! Device nodes and links in the container's root, made by descriptors (P1).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, chownat, fstat, mknodat, openat, symlinkat};
use rustix::io::{Errno, Result};

use super::mount::{look_up, resolve_parent};
use crate::plan::{DeviceStep, Target};

/// Makes a node. One that is there must be the same device.
pub(super) fn make(root: BorrowedFd<'_>, step: &DeviceStep) -> Result<()> {
    let (target, node) = (&step.target, &step.node);
    match look_up(root, target, target.path()) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
        Ok(found) => {
            let same = is_one(found.as_fd(), step)?;
            return if same { Ok(()) } else { Err(Errno::EXIST) };
        }
    }
    let parent = resolve_parent(root, target)?;
    let name = name(target)?;
    // Its mode is the configuration's to say.
    let before = rustix::process::umask(Mode::empty());
    let made = mknodat(&parent, name, node.kind, node.mode(), node.number());
    rustix::process::umask(before);
    made?;
    // Whoever shares the folder may have put another file there meanwhile, to be
    // given that one.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&parent, name, flags, Mode::empty())?;
    if !is_one(made.as_fd(), step)? {
        return Err(Errno::EXIST);
    }
    let (uid, gid) = node.owner;
    chownat(&made, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// Whether this is the device, or what is like it.
fn is_one(file: BorrowedFd<'_>, step: &DeviceStep) -> Result<bool> {
    let (stat, node) = (fstat(file)?, &step.node);
    let numbered = node.kind != FileType::Fifo;
    let same = FileType::from_raw_mode(stat.st_mode) == node.kind;
    Ok(same && (!numbered || stat.st_rdev == node.number()))
}

/// Makes a link, unless there is something of its name.
pub(super) fn link(root: BorrowedFd<'_>, target: &Target, to: &CString) -> Result<()> {
    let parent = resolve_parent(root, target)?;
    match symlinkat(to.as_c_str(), &parent, name(target)?) {
        Err(Errno::EXIST) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn name(target: &Target) -> Result<&CStr> {
    target
        .prefixes()
        .last()
        .map(|(_, name)| name)
        .ok_or(Errno::ISDIR)
}
