//! Hooks of the configuration (OCI config.md, "POSIX-platform Hooks").
//!
//! ```text
//! where           when                                   kinds
//! the runtime's   namespaces and mounts are there,       prestart, createRuntime
//!                 the root is not changed yet
//! the container's at the same point                      createContainer
//! the container's root changed, program not executed     startContainer
//! the runtime's   program executed                       poststart
//! the runtime's   container deleted                      poststop
//! ```
//!
//! A hook of the runtime's namespaces is a program of the host, executed by us.
//! One of the container's is a further process of the container, with its root's
//! identity. Each gets the state on its standard input, a time limit where the
//! configuration sets one, and its last words become part of the error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::process::{Exit, Spawn, StartError};
use super::{Container, Stdio};
use crate::container::namespaces::User;
use crate::plan;

/// How long a hook of the container may take to be executed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of a hook's last words is kept, in bytes.
const LAST_WORDS: u64 = 4096;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
#[error("{kind} hook #{index} ({path:?}): {reason}{words}")]
pub struct HookError {
    /// `createRuntime` and so on.
    pub kind: &'static str,
    /// Its place among those of its kind, from 0.
    pub index: usize,
    /// Its program.
    pub path: String,
    /// What went wrong.
    pub reason: String,
    /// What it wrote to its standard error, with a separator.
    pub words: String,
}

/// Runs hooks of the runtime's namespaces, one after the other.
///
/// # Errors
/// [`HookError`] of the first that fails; the others are not run.
pub fn run(kind: &'static str, hooks: &[Hook], state: &[u8]) -> Result<(), HookError> {
    each(kind, hooks, |hook, log| {
        let mut command = Command::new(hook.path());
        let mut args = hook.args().iter().flatten();
        if let Some(name) = args.next() {
            command.arg0(name);
        }
        command.args(args).env_clear();
        command.envs(
            hook.env()
                .iter()
                .flatten()
                .filter_map(|entry| entry.split_once('=')),
        );
        command.stdin(input(state)?).stdout(log.try_clone()?);
        let mut child = command.stderr(log.try_clone()?).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.ok_or(io::ErrorKind::NotFound.into());
        let pidfd = pidfd.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let in_time = pidfd.and_then(|pidfd| within(&pidfd, limit(hook)));
        if !matches!(in_time, Ok(true)) {
            child.kill()?;
        }
        let status = child.wait()?;
        Ok(in_time?.then_some(described(status)))
    })
}

/// Runs hooks in the namespaces of a container whose init waits.
///
/// # Errors
/// As [`run`].
pub(super) fn run_inside(
    container: &Container,
    init: Pid,
    kind: &'static str,
    hooks: &[Hook],
    state: &[u8],
) -> Result<(), HookError> {
    each(kind, hooks, |hook, log| {
        let stdio = Stdio::Fds {
            stdin: input(state)?.into(),
            stdout: log.try_clone()?.into(),
            stderr: log.try_clone()?.into(),
        };
        let pidfd = pidfd_open(init, PidfdFlags::empty())?;
        let plan = plan::hook_plan(hook, &container.bundle, stdio).map_err(io::Error::other)?;
        let spawn = Spawn {
            joins: vec![container.namespaces.join_all_of(pidfd.as_fd())],
            clone_flags: 0,
            cgroup: Some(&container.cgroup),
            class: container.class.as_ref(),
            start: None,
            process: None,
            user: User::Host,
            meanwhile: None,
            hooks: None,
            agent: None,
            patience: PATIENCE,
        };
        let started = spawn
            .run(plan)
            .map_err(StartError::from)
            .and_then(|made| made.start());
        let process = started.map_err(io::Error::other)?;
        let in_time = within(&process.pidfd, limit(hook));
        if !matches!(in_time, Ok(true)) {
            process.signal(Signal::KILL).ok();
        }
        let exit = process.wait()?;
        Ok(in_time?.then_some(match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("exit status {code}")),
            Exit::Signal(signal) => Err(format!("signal {signal}")),
        }))
    })
}

/// How one ended: `None` where its time was up.
type Ended = Option<Result<(), String>>;

fn each(
    kind: &'static str,
    hooks: &[Hook],
    mut run: impl FnMut(&Hook, &File) -> io::Result<Ended>,
) -> Result<(), HookError> {
    for (index, hook) in hooks.iter().enumerate() {
        let failed = |reason: String, words: String| HookError {
            kind,
            index,
            path: hook.path().display().to_string(),
            reason,
            words,
        };
        let log = memory().map_err(|error| failed(error.to_string(), String::new()))?;
        let reason = match run(hook, &log) {
            Ok(Some(Ok(()))) => continue,
            Ok(Some(Err(reason))) => reason,
            Ok(None) => format!("not done after {} s", hook.timeout().unwrap_or_default()),
            Err(error) => crate::command::words(&error),
        };
        return Err(failed(reason, last_words(log)));
    }
    Ok(())
}

fn limit(hook: &Hook) -> Option<Duration> {
    let seconds = u64::try_from(hook.timeout()?).ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the process ends within the limit.
fn within(pidfd: &OwnedFd, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or_default());
    let ready = rustix::io::retry_on_intr(|| {
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], limit.as_ref())
    })?;
    Ok(ready > 0)
}

fn described(status: ExitStatus) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit status {code}")),
        (None, signal) => Err(format!("signal {}", signal.unwrap_or_default())),
    }
}

/// A file in memory: nobody has to read or write it while it is used.
fn memory() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(
        c"hook",
        MemfdFlags::CLOEXEC,
    )?))
}

fn input(state: &[u8]) -> io::Result<File> {
    let mut file = memory()?;
    file.write_all(state)?;
    file.rewind()?;
    Ok(file)
}

fn last_words(mut log: File) -> String {
    let mut read = || -> io::Result<Vec<u8>> {
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut bytes = Vec::new();
        (&log).take(LAST_WORDS).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
    match text.is_empty() {
        true => String::new(),
        false => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn shell(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let hook = HookBuilder::default().path("/bin/sh").args(args);
        hook.env(vec!["A=b".to_owned()]).build().unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_its_arguments_and_its_environment_alone() {
        let file = std::env::temp_dir().join(format!("dyno-hook-{}", std::process::id()));
        let script = format!("cat >{0}; env | sort >>{0}", file.display());
        run("createRuntime", &[shell(&script)], b"{\"id\":\"x\"}\n").unwrap();
        let told = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(told.starts_with("{\"id\":\"x\"}\nA=b\n"), "{told}");
        assert!(!told.contains("CARGO"), "{told}");
    }

    #[test]
    fn the_first_that_fails_ends_it_and_its_last_words_are_told() {
        let hooks = [
            shell("true"),
            shell("echo no luck >&2; exit 3"),
            shell("touch /never"),
        ];
        let error = run("prestart", &hooks, b"{}").unwrap_err().to_string();
        assert_eq!(
            error,
            "prestart hook #1 (\"/bin/sh\"): exit status 3: no luck"
        );
    }

    #[test]
    fn who_takes_too_long_is_killed() {
        let mut hook = shell("exec sleep 1000");
        hook.set_timeout(Some(1));
        let error = run("poststop", &[hook], b"{}").unwrap_err().to_string();
        assert!(error.contains("not done after 1 s"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let hook = HookBuilder::default().path("/nowhere/x").build().unwrap();
        let error = run("poststop", &[hook], b"{}").unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/x") && error.contains("No such file"),
            "{error}"
        );
    }
}
