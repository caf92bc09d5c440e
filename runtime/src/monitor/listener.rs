//! The monitor's socket: only for its owner, and never in the way of the loop.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::umask;

use super::protocol::file;

/// How long nothing is accepted after descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket in the dyno's run folder; its name goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    closed_until: Option<Instant>,
}

impl Listener {
    /// Listens on `dir/monitor.sock`, mode 0600, whatever an earlier monitor left there.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(super) fn bind(dir: &Path) -> io::Result<Self> {
        let path = dir.join(file::SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // By the folder's descriptor: a socket address holds 107 bytes of path.
        let folder = File::open(dir)?;
        let name = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), file::SOCKET);
        // P14: the mode is right from the first moment on.
        let mask = umask(Mode::from_raw_mode(0o177));
        let socket = UnixListener::bind(name);
        umask(mask);
        let socket = socket?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            path,
            closed_until: None,
        })
    }

    /// Whether it accepts now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.closed_until.is_none_or(|at| at <= now)
    }

    /// When it accepts again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closed_until
    }

    /// The next connection, if there is one.
    pub(super) fn accept(&mut self, now: Instant) -> Option<OwnedFd> {
        self.closed_until = None;
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => Some(connection),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => None,
            Err(error) => {
                // Out of descriptors: the connection stays in the queue.
                super::complain(&format_args!("accept a connection: {error}"));
                self.closed_until = Some(now + PAUSE);
                None
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            super::complain(&format_args!("remove {}: {error}", self.path.display()));
        }
    }
}
