//! Where `criu restore` waits: the container's namespaces are there, and nothing of it
//! but its first process. Whoever brings it back sets its network up meanwhile.
//!
//! CRIU executes a program at each of its stages (criu(8), `--action-script`): this
//! one, which tells the monitor by a pipe of the monitor's and waits for another. If
//! the monitor ends, it fails, and CRIU with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getpid};

/// `PID:TELL:WAIT`: the monitor, and its descriptors of the two pipes.
const VARIABLE: &str = "DYNO_RESTORE";
/// CRIU's own.
const STAGE: &str = "CRTOOLS_SCRIPT_ACTION";
const INIT: &str = "CRTOOLS_INIT_PID";
/// Namespaces are there, and files and sockets are not.
const NAMESPACES: &str = "setup-namespaces";

/// The monitor's side.
#[derive(Debug)]
pub(crate) struct Stage {
    told: OwnedFd,
    tell: OwnedFd,
    wait: OwnedFd,
    go: OwnedFd,
}

impl Stage {
    /// Pipes that nobody else has.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn new() -> io::Result<Self> {
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            told,
            tell,
            wait,
            go,
        })
    }

    /// Has this `criu restore` wait.
    pub(crate) fn say(&self, command: &mut Command) {
        let own = getpid().as_raw_nonzero();
        let pipes = (self.tell.as_raw_fd(), self.wait.as_raw_fd());
        command
            .arg(format!("--action-script=/proc/{own}/exe"))
            .env(VARIABLE, format!("{own}:{}:{}", pipes.0, pipes.1));
    }

    /// Waits until this CRIU has come there; the container's first process. `None`
    /// where it has ended before.
    ///
    /// # Errors
    /// `ETIMEDOUT`, or what the kernel says.
    pub(crate) fn reached(&self, criu: BorrowedFd<'_>, limit: Duration) -> io::Result<Option<Pid>> {
        let told = self.told.as_fd();
        let mut polled = [
            PollFd::from_borrowed_fd(told, PollFlags::IN),
            PollFd::from_borrowed_fd(criu, PollFlags::IN),
        ];
        let limit = Timespec::try_from(limit).ok();
        if rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref()))? == 0 {
            return Err(Errno::TIMEDOUT.into());
        }
        if !polled[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
        let mut bytes = [0; 4];
        File::from(self.told.try_clone()?).read_exact(&mut bytes)?;
        Ok(Pid::from_raw(i32::from_ne_bytes(bytes)))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn go(self) -> io::Result<()> {
        File::from(self.go).write_all(b"g")
    }
}

/// Is the program that CRIU executes, where this is one; its exit code.
pub(crate) fn program() -> Option<u8> {
    let pipes = std::env::var(VARIABLE).ok()?;
    let stage = std::env::var(STAGE).ok()?;
    if stage != NAMESPACES {
        return Some(0);
    }
    Some(match wait(&pipes) {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

fn wait(pipes: &str) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut numbers = pipes.split(':').map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).ok_or_else(invalid);
    let (monitor, tell, wait) = (next()?, next()?, next()?);
    let init = std::env::var(INIT).map_err(|_unset| invalid())?;
    let init: i32 = init.parse().map_err(|_number| invalid())?;
    let tell = format!("/proc/{monitor}/fd/{tell}");
    let mut wait = File::open(format!("/proc/{monitor}/fd/{wait}"))?;
    File::options()
        .write(true)
        .open(tell)?
        .write_all(&init.to_ne_bytes())?;
    wait.read_exact(&mut [0])
}
