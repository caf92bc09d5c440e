//! Being told that a group has run out of memory.
//!
//! On v2 an inotify watch on `memory.events`; on v1 an eventfd tied to
//! `memory.oom_control`. Both become readable, so one loop serves both. On v1 the
//! event comes *before* the kernel has chosen its victim, and it kills one process
//! only: where the whole group shall die, the event itself is the reason to kill.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::error::{Error, Result};
use super::layout::Controller;
use super::{Cgroup, file};

/// Readable when the group may have run out of memory; then ask [`OomWatch::count`].
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    /// Holds the line `oom_kill N`.
    counter: PathBuf,
    /// On v1 the events that were signalled, which are ahead of the counter.
    signalled: Option<u64>,
    last: u64,
}

impl Cgroup {
    /// Starts watching for out-of-memory events.
    ///
    /// # Errors
    /// When the host does not account memory, or the group is gone.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        match (self.v1(Controller::Memory), &self.record.v2) {
            (Some(folder), _) => OomWatch::v1(folder),
            (None, Some(folder)) => OomWatch::v2(folder),
            (None, None) => {
                let reason = "this host has no memory controller";
                Err(Error::unenforceable("memory", "oom watch", reason))
            }
        }
    }
}

impl OomWatch {
    fn v2(folder: &Path) -> Result<Self> {
        let counter = folder.join("memory.events");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).map_err(Error::file("watch", &counter))?;
        inotify::add_watch(&fd, &counter, inotify::WatchFlags::MODIFY)
            .map_err(Error::file("watch", &counter))?;
        let last = kills(&counter)
            .map_err(Error::file("read", &counter))?
            .unwrap_or(0);
        Ok(Self {
            fd,
            counter,
            signalled: None,
            last,
        })
    }

    /// cgroup-v1/memory.rst, "OOM Control".
    fn v1(folder: &Path) -> Result<Self> {
        let counter = folder.join("memory.oom_control");
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let fd = fd.map_err(Error::file("watch", &counter))?;
        let control = OpenOptions::new()
            .read(true)
            .open(&counter)
            .map_err(Error::file("open", &counter))?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        let register = folder.join("cgroup.event_control");
        file::write(&register, &line).map_err(Error::file("write", &register))?;
        let last = kills(&counter)
            .map_err(Error::file("read", &counter))?
            .unwrap_or(0);
        Ok(Self {
            fd,
            counter,
            signalled: Some(last),
            last,
        })
    }

    /// How often the group has run out of memory since it was made: it never
    /// falls, and a rise means that a process was killed or is about to be.
    ///
    /// # Errors
    /// When the kernel's counter cannot be read.
    pub fn count(&mut self) -> Result<u64> {
        let events = drain(self.fd.as_fd(), self.signalled.is_some())
            .map_err(Error::file("watch", &self.counter))?;
        // The removal of the group wakes us too: that is no event.
        if let Some(kills) = kills(&self.counter).map_err(Error::file("read", &self.counter))? {
            let signalled = self.signalled.as_mut().map_or(0, |signalled| {
                *signalled += events;
                *signalled
            });
            self.last = self.last.max(kills).max(signalled);
        }
        Ok(self.last)
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's counter, or none if the group is gone.
fn kills(counter: &Path) -> io::Result<Option<u64>> {
    let text = file::gone_is_none(file::read(counter))?;
    Ok(text.map(|text| file::keyed(&text, "oom_kill").unwrap_or(0)))
}

/// Empties the descriptor; an eventfd tells how many events it held.
fn drain(fd: BorrowedFd<'_>, is_eventfd: bool) -> io::Result<u64> {
    let mut events = 0_u64;
    let mut buffer = [0_u8; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(events),
            Ok(_) if is_eventfd => {
                let [a, b, c, d, e, f, g, h, ..] = buffer;
                events = events.saturating_add(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
