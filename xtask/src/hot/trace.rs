//! Which instructions of a program are executed, by ptrace(2).

use std::collections::HashSet;
use std::ops::Range;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What was executed within some bounds, in the order in which it was first.
#[derive(Debug)]
pub(super) struct Trace {
    bounds: Range<u64>,
    seen: HashSet<u64>,
    order: Vec<u64>,
}

impl Trace {
    pub(super) fn of(bounds: Range<u64>) -> Self {
        Self {
            bounds,
            seen: HashSet::new(),
            order: Vec::new(),
        }
    }

    pub(super) fn addresses(&self) -> &[u64] {
        &self.order
    }

    /// Executes a command, step by step, and what it clones for as long as that is the
    /// same program. It must succeed.
    pub(super) fn follow(&mut self, command: &Command) -> Result<()> {
        // Nobody is traced from his first instruction without unsafe code: a shell
        // waits for us, and becomes the command.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let child = shell.spawn()?;
        let first = Pid::from_raw(i32::try_from(child.id())?);
        let stopped = waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
        ensure!(
            matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)),
            "the shell: {stopped:?}"
        );
        let options = Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(first, options)?;
        kill(first, Signal::SIGCONT)?;
        self.step_all(first)
    }

    fn step_all(&mut self, first: Pid) -> Result<()> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let (pid, signal) = match status {
                WaitStatus::Exited(pid, code) if pid == first => {
                    ensure!(code == 0, "exit code {code}");
                    return Ok(());
                }
                WaitStatus::Signaled(pid, signal, _) if pid == first => bail!("{signal}"),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == libc_event_exec() && pid != first {
                        // It is the container's program now.
                        ptrace::detach(pid, None)?;
                        continue;
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, Signal::SIGTRAP) => (pid, None),
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                other => bail!("{other:?}"),
            };
            match self.look(pid).and_then(|()| ptrace::step(pid, signal)) {
                // It was killed meanwhile.
                Err(Errno::ESRCH) => {}
                stepped => stepped?,
            }
        }
    }

    fn look(&mut self, pid: Pid) -> nix::Result<()> {
        let address = ptrace::getregs(pid)?.rip;
        if self.bounds.contains(&address) && self.seen.insert(address) {
            self.order.push(address);
        }
        Ok(())
    }
}

fn libc_event_exec() -> i32 {
    ptrace::Event::PTRACE_EVENT_EXEC as i32
}
