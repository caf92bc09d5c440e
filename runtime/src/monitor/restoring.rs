//! A dyno that comes back from a checkpoint, as its monitor has it: created, with its
//! namespaces there to be plumbed, and let go by a start.
//!
//! ```text
//!  begin ──▶ criu restore ── namespaces are there ──▶ announced ── start ──▶ runs
//! ```
//! Its later inits are made as ever, in the same user and network namespaces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::dyno::stdio;
use super::failure::words;
use super::protocol::{Config, Failure, FailureKind, RestoreConfig};
use super::streams::Streams;
use crate::command::fits;
use crate::container::{Container, Process, Stdio};
use crate::criu::stage::Stage;
use crate::criu::{self, Criu, Image, Restoration};

/// How long CRIU may take to make namespaces; hostd waits for 30 s.
const NAMESPACES: Duration = Duration::from_secs(25);
/// How long it may take to read the memory back.
const MEMORY: Duration = Duration::from_secs(600);
/// Where CRIU finds the programs that it executes.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A dyno whose namespaces are there.
#[derive(Debug)]
pub(super) struct Restoring {
    /// Its init.
    pub(super) pid: Pid,
    /// A descriptor of it, `pidfd_open(2)`.
    pub(super) pidfd: OwnedFd,
    stage: Option<Stage>,
    criu: Criuing,
    pid_file: PathBuf,
    log: PathBuf,
    // What CRIU is handed stays until it has ended.
    restoration: Restoration,
}

/// `criu restore`, which is a child of ours; it ends with this.
#[derive(Debug)]
struct Criuing {
    child: Child,
    pidfd: OwnedFd,
}

impl Criuing {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(errno) => {
                // It cannot have been reaped, so this is no other process.
                child.kill().ok();
                child.wait().ok();
                Err(errno.into())
            }
        }
    }

    fn ended(&mut self, log: &Path) -> Result<(), Failure> {
        let status = self.child.wait().map_err(|error| internal(&error))?;
        Criu::ended("restore", status, log.to_owned()).map_err(|error| Failure::from(&error))
    }
}

impl Drop for Criuing {
    fn drop(&mut self) {
        // Both fail only where it has been waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Has CRIU begin, up to the container's namespaces.
pub(super) fn begin(
    container: &mut Container,
    config: &Config,
    restore: &RestoreConfig,
    dir: &Path,
) -> Result<(Restoring, Streams), Failure> {
    let criu = Criu::at(&restore.criu).map_err(|error| Failure::from(&error))?;
    let image = Image::read(&restore.images).map_err(|error| Failure::from(&error))?;
    fits(container.bundle()).map_err(|error| Failure::from(&error))?;
    let (streams, theirs) = stdio(container, config.stdin).map_err(|error| internal(&error))?;
    let Stdio::Fds {
        stdin,
        stdout,
        stderr,
    } = theirs
    else {
        return Err(Failure::new(
            FailureKind::Unsupported,
            "it has a terminal, which cannot be brought back",
        ));
    };
    let pid_file = dir.join("restored.pid");
    let images = &restore.images;
    let apart = criu::Streams::Apart;
    let restoration = Restoration::new(&criu, &image, container, images, &pid_file, apart);
    let mut restoration = restoration.map_err(|error| Failure::from(&error))?;
    let stage = Stage::new().map_err(|error| internal(&error))?;
    let command = &mut restoration.command;
    let log = criu::say_folders(command, images, dir, "restore.log");
    if container.bundle().namespace(Kind::Network) == Some(None) {
        command.arg("--empty-ns=net");
    }
    if image.tcp_established {
        command.arg("--tcp-established");
    }
    stage.say(command);
    command
        .env("PATH", PATH)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let mut running = Criuing::spawn(command).map_err(|error| internal(&error))?;
    let reached = stage.reached(running.pidfd.as_fd(), NAMESPACES);
    let pid = match reached.map_err(|error| internal(&error))? {
        Some(pid) => pid,
        None => {
            running.ended(&log)?;
            let early = "criu restored without a word about its namespaces";
            return Err(Failure::new(FailureKind::Internal, early));
        }
    };
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    let pidfd = pidfd.map_err(|errno| internal(&errno.into()))?;
    container
        .adopt_init(pid)
        .map_err(|error| Failure::from(&error))?;
    let restoring = Restoring {
        pid,
        pidfd,
        stage: Some(stage),
        criu: running,
        pid_file,
        log,
        restoration,
    };
    Ok((restoring, streams))
}

impl Restoring {
    /// Lets CRIU restore the rest, and waits for it: nothing of the dyno is there for
    /// anybody until then.
    pub(super) fn finish(mut self) -> Result<Process, Failure> {
        if let Some(stage) = self.stage.take() {
            stage.go().map_err(|error| internal(&error))?;
        }
        let limit = Timespec::try_from(MEMORY).ok();
        let mut polled = [PollFd::new(&self.criu.pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref()));
        if ended.map_err(|errno| internal(&errno.into()))? == 0 {
            let message = format!("criu did not restore it within {} s", MEMORY.as_secs());
            return Err(Failure::new(FailureKind::Internal, message));
        }
        self.criu.ended(&self.log)?;
        let pid = criu::written(&self.pid_file).map_err(|error| Failure::from(&error))?;
        if pid != self.pid {
            let message = "criu restored another process than it had told of";
            return Err(Failure::new(FailureKind::Internal, message));
        }
        drop(self.restoration);
        Ok(Process {
            pid: self.pid,
            pidfd: self.pidfd,
            terminal: None,
            listener: None,
        })
    }

    /// Ends what there is of it.
    pub(super) fn end(self) {
        let process = self.detach();
        process.signal(rustix::process::Signal::KILL).ok();
        process.wait().ok();
    }

    /// Ends CRIU; the init is left.
    pub(super) fn detach(self) -> Process {
        Process {
            pid: self.pid,
            pidfd: self.pidfd,
            terminal: None,
            listener: None,
        }
    }
}

fn internal(error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Internal,
        format!("restore the dyno: {}", words(error)),
    )
}
