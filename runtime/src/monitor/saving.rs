//! A checkpoint of a dyno that runs: a process of its own saves it, while we go on.
//!
//! ```text
//!  request ──▶ dyno-runtime save ──▶ criu dump ──▶ images on disk, under their name
//!                     │ ends                              │
//!                     ▼                                   ▼
//!              failed: it runs on                  saved: its processes are killed
//! ```
//! Who asked may go away meanwhile, and hostd with him: the images are complete under
//! their name before the dyno ends, or it runs on.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::client::Role;
use super::driver::Monitor;
use super::machine::Event;
use super::outbox::Patience;
use super::protocol::{Checkpoint, Failure, FailureKind, Phase, Reply};
use super::restoring::PATH;

/// Why a dyno ended that was saved.
const SAVED: &str = "saved by a checkpoint";

/// The process that saves.
#[derive(Debug)]
pub(super) struct Saving {
    client: u64,
    child: Child,
    pidfd: OwnedFd,
    answer: OwnedFd,
    leave_running: bool,
}

impl AsFd for Saving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Monitor {
    /// Begins to save the dyno for this client.
    ///
    /// # Errors
    /// When it does not run, or is being saved.
    pub(super) fn save(&mut self, client: u64, wanted: &Checkpoint) -> Result<(), Failure> {
        let conflict = |message: &str| Err(Failure::new(FailureKind::Conflict, message));
        if self.saving.is_some() {
            return conflict("it is being saved already");
        }
        let Some(init) = self.dyno.running() else {
            return conflict("only a dyno that runs can be saved");
        };
        if self.machine.phase() != Phase::Running {
            return conflict("it is about to end");
        }
        let spawned = self.spawn(init, client, wanted);
        let saving = spawned.map_err(|error| {
            Failure::new(FailureKind::Internal, format!("save the dyno: {error}"))
        })?;
        self.saving = Some(saving);
        self.become_part(client, Role::AwaitingEnd, Patience::Observer);
        Ok(())
    }

    fn spawn(&self, init: Pid, client: u64, wanted: &Checkpoint) -> io::Result<Saving> {
        let (answer, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let dir = self.state_file.parent().unwrap_or(Path::new("/"));
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("save")
            .arg(dir)
            .args(["--pid", &init.as_raw_nonzero().to_string()])
            .arg("--cgroup")
            .arg(serde_json::to_string(self.container.cgroup().record())?)
            .arg("--wanted")
            .arg(serde_json::to_string(wanted)?)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(theirs);
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                child.kill().ok();
                child.wait().ok();
                return Err(errno.into());
            }
        };
        Ok(Saving {
            client,
            child,
            pidfd,
            answer,
            leave_running: wanted.leave_running,
        })
    }

    /// The process that saved has ended.
    pub(super) fn saved(&mut self) {
        let Some(mut saving) = self.saving.take() else {
            return;
        };
        let failure = match saving.child.wait() {
            Ok(status) if status.success() => None,
            Ok(_) => Some(said(saving.answer)),
            Err(error) => Some(Failure::new(FailureKind::Internal, error.to_string())),
        };
        let now = std::time::Instant::now();
        if failure.is_none() && !saving.leave_running {
            self.dyno.reason = Some(SAVED.to_owned());
            // What ends it conflicts with nothing; its end answers who asked.
            self.event(Event::Saved).ok();
            return;
        }
        let reply = match failure {
            Some(failure) => {
                // It may have been stopped already.
                self.container.cgroup().signal(Signal::CONT).ok();
                Reply::Err(failure)
            }
            None => Reply::Ok(self.recorder.status().clone()),
        };
        self.become_part(saving.client, Role::Asking, Patience::Observer);
        if let Some(client) = self.client_mut(saving.client) {
            client.reply(&reply, now);
        }
    }
}

/// Why it failed, in its own words: a line of JSON, less than a pipe holds.
fn said(answer: OwnedFd) -> Failure {
    let mut text = Vec::new();
    let read = File::from(answer).take(64 * 1024).read_to_end(&mut text);
    let silent = |_| {
        let message =
            "the process that saves it ended without a word; its criu may have been killed";
        Failure::new(FailureKind::Internal, message)
    };
    read.map_err(serde_json::Error::io)
        .and_then(|_| serde_json::from_slice(&text))
        .unwrap_or_else(silent)
}
