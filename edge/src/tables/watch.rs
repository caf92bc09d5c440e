//! Waiting for a change of the tables by inotify(7).

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

/// A watch on the folder of the tables: a file replaced by rename(2) cannot be
/// watched itself.
///
/// It is made while still root, because a watch asks for read permission once
/// and for none later.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches `folder`.
    ///
    /// # Errors
    /// As inotify_add_watch(2).
    pub fn folder(folder: &Path) -> Result<Self, Errno> {
        let inotify =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, folder, events)?;
        Ok(Self { inotify })
    }

    /// Calls `changed` whenever something in the folder may have changed.
    ///
    /// # Errors
    /// When the watch itself fails; it never returns otherwise.
    pub async fn run(self, mut changed: impl FnMut()) -> std::io::Result<()> {
        // An inotify descriptor is polled and read like a pipe's end, and this
        // is the event loop's type that owns what it polls.
        let inotify = Receiver::from_owned_fd_unchecked(self.inotify)?;
        let mut events = [0; 4096];
        loop {
            inotify.readable().await?;
            match inotify.try_read(&mut events) {
                // Which file it was does not matter: a reload is cheap and idempotent.
                Ok(_) => changed(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
