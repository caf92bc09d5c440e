//! The first process of a scope.
//!
//! systemd makes no scope without a process and removes one that is empty. Init is born
//! into its group, which must exist before; so until init is there, a child of ours that
//! does nothing holds it open. It ends with us, by the end of a pipe.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys;

/// A process that waits until this is dropped.
#[derive(Debug)]
pub(in super::super) struct Holder {
    pid: Pid,
    end: Option<OwnedFd>,
}

impl Holder {
    pub(in super::super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let pid = sys::process::clone3(0, None, || {
            // Nobody's streams and sockets are kept open by us.
            sys::process::close_all_but(0, [read.as_fd()]).unwrap_or_default();
            let mut byte = [0];
            while rustix::io::read(&read, &mut byte) == Err(rustix::io::Errno::INTR) {}
            sys::process::exit_now(0)
        })?;
        Ok(Self {
            pid,
            end: Some(write),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end = None;
        // A frozen one would never end: killing wakes it, too.
        rustix::process::kill_process(self.pid, rustix::process::Signal::KILL).unwrap_or_default();
        let ended =
            rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()).map(drop));
        ended.unwrap_or_default();
    }
}
