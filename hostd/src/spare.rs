//! A monitor that is started before its dyno is known.
//!
//! A program takes longer to begin than its dyno to be created: a static one
//! relocates itself and, in a virtual machine, waits for the hypervisor to say
//! what the processor is, before a line of it runs. So one monitor has always
//! begun and waits for its run folder on standard input. It holds nothing, is
//! in nobody's way, and ends when that input does, with hostd at the latest.

mod ahead;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use ahead::Ahead;

/// Starts monitors, one ahead.
#[derive(Debug)]
pub struct Spares {
    program: OwnedFd,
    waiting: Ahead<Child>,
}

impl Spares {
    /// The program is one of [`dyno_runtime::own_file::open`], `dyno-runtime` as
    /// it was when hostd started, out of a dyno's reach (P5).
    pub fn new(program: OwnedFd) -> Self {
        Self {
            program,
            waiting: Ahead::new(),
        }
    }

    /// A monitor that begins in this run folder, an absolute path; hostd is its
    /// parent and must wait for it. The next one is started meanwhile.
    ///
    /// # Errors
    /// Why it cannot be executed.
    pub async fn take(self: &Arc<Self>, run: &Path) -> io::Result<Child> {
        let told = match self.waiting.take() {
            Some(spare) => tell(spare, run).await,
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let monitor = match told {
            Ok(monitor) => monitor,
            // There was none yet, or somebody killed it.
            Err(_) => tell(self.start(run.as_os_str().len())?, run).await?,
        };
        let (spares, room) = (self.clone(), run.as_os_str().len());
        tokio::spawn(async move { spares.refill(room) });
        Ok(monitor)
    }

    fn refill(&self, room: usize) {
        if let Err(error) = self.waiting.refill(|| self.start(room)) {
            tracing::warn!(%error, "no monitor can be started ahead");
        }
    }

    /// One whose arguments have room for a folder's name of so many bytes.
    fn start(&self, room: usize) -> io::Result<Child> {
        let program = format!("/proc/self/fd/{}", self.program.as_fd().as_raw_fd());
        // The environment is hostd's business, not the monitor's. Nothing here
        // needs code of ours between fork and exec, so that the standard library
        // uses posix_spawn(3): hostd's memory is not copied for it.
        Command::new(program)
            .arg0("dyno-runtime")
            .arg("monitor")
            .arg("_".repeat(room))
            .arg("--spare")
            .env_clear()
            .envs(dyno_failpoint::variable())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
    }
}

/// Lets a spare one begin.
async fn tell(mut spare: Child, run: &Path) -> io::Result<Child> {
    let mut stdin = spare.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let line = [run.as_os_str().as_bytes(), b"\n"].concat();
    stdin.write_all(&line).await?;
    Ok(spare)
}
